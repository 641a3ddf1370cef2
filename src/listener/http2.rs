//! HTTP/2 on a connection: hyper behind the [sluice](super::sluice), every stream a task of its own, and the clock
//! beside them.
//!
//! Bounds: streams at once, bytes of a head, bytes ahead of their being taken, requests begun and given up, frames that
//! carry nothing, and time for everything that the client is asked for. Heads are checked by
//! [`fields`](super::fields); what is refused is answered on its stream, and the connection goes on.

use super::bell::Bell;
use super::connection::{Beginning, Service};
use super::pulse::Pulse;
use super::sluice::Sluice;
use super::stream::Client;
use super::wire::{Expiry, LINGER};
use super::{Answer, Open, fields};
use crate::body::Body;
use crate::error::Code;
use crate::proxy::{Exchange, Passage};
use crate::upstream::Upstream;
use hyper::Request;
use hyper::body::{Body as _, Incoming};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes of a head as RFC 9113 section 6.5.2 counts them, 32 for each field among them. A larger one is answered 431 by
/// hyper; one of four times the size ends the connection.
const HEAD_BYTES_MAX: u32 = 32 * 1024;
/// Bytes of one frame.
const FRAME_BYTES_MAX: u32 = 16 * 1024;
/// Bytes of bodies that may come ahead of their being taken: of one stream, of all.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes of an answer that wait for the client to take them, for each stream.
const SEND_BYTES_MAX: usize = 64 * 1024;
/// Streams that the client reset before they were looked at; streams that were reset over errors of the client's.
const RESETS_PENDING_MAX: usize = 20;
const RESETS_FOR_ERRORS_MAX: usize = 256;
/// A connection that is silent for so long is asked for a sign of life, and given up after so long.
const PING_AFTER: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(20);

tokio::task_local! {
    /// Of the stream that the current task serves.
    static CLOCK: Arc<Clock>;
}

/// The streams of one connection.
pub(super) struct Streams<'s> {
    service: &'s Arc<Service>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl<'s> Streams<'s> {
    pub(super) fn new(service: &'s Arc<Service>) -> Streams<'s> {
        Streams {
            service,
            tasks: Arc::default(),
        }
    }

    /// Serves until the connection's end.
    pub(super) async fn serve(&mut self, connection: Beginning, mut drain: Bell) {
        let patience = self.service.patience;
        let pulse = Arc::new(Pulse::since(connection.born));
        let (service, pulse_of) = (self.service.clone(), pulse.clone());
        let (client, upstream) = (connection.client, connection.upstream);
        let address = connection.address;
        let answering = service_fn(move |request: Request<Incoming>| {
            let (service, client) = (service.clone(), client.clone());
            let upstream = upstream.clone();
            let in_flight = InFlight::begin(&service, &pulse_of);
            async move {
                let ended = request.body().is_end_stream();
                let (head, body) = request.into_parts();
                let forward = service.forward.as_ref().filter(|_| upstream.is_none());
                let lacking = || forward.and_then(|forward| forward.refusal(&head.headers));
                let exchange = Checked {
                    refusal: fields::judge(&head, ended).err().or_else(lacking),
                    pace: service.patience.body,
                    client,
                    upstream,
                    address,
                };
                let request = Request::from_parts(head, body);
                let answer = service.proxy.handle(request, &exchange).await;
                let clock = CLOCK.try_with(Arc::clone).unwrap_or_default();
                Ok::<_, Infallible>(answer.map(|body| Answer::new(body, in_flight).watched(clock)))
            }
        });
        let spawn = Spawn {
            tasks: Arc::downgrade(&self.tasks),
            write: patience.write,
            exchange: patience.exchange,
        };
        let sluice = Sluice::new(connection.stream, connection.begun, pulse.clone());
        let mut connection = pin!(
            http2::Builder::new(spawn)
                .timer(TokioTimer::new())
                .max_concurrent_streams(self.service.streams)
                .max_header_list_size(HEAD_BYTES_MAX)
                .max_frame_size(FRAME_BYTES_MAX)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_send_buf_size(SEND_BYTES_MAX)
                .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
                .max_local_error_reset_streams(RESETS_FOR_ERRORS_MAX)
                .keep_alive_interval(PING_AFTER)
                .keep_alive_timeout(PONG_WITHIN)
                .serve_connection(TokioIo::new(sluice), answering)
        );
        let mut told = false;
        let mut alarm = pin!(sleep_until(Instant::now() + patience.head));
        poll_fn(|cx| {
            if !told && drain.poll(cx).is_ready() {
                told = true;
                connection.as_mut().graceful_shutdown();
                pulse.closing();
            }
            loop {
                // How a connection ends is of no interest; how its requests do is on record.
                if connection.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                let Some((deadline, expiry)) = pulse.deadline(&patience) else {
                    return Poll::Pending;
                };
                if Instant::now() >= deadline {
                    match expiry {
                        // GOAWAY, and a moment to take it.
                        Expiry::Idle if !told => {
                            told = true;
                            connection.as_mut().graceful_shutdown();
                            pulse.closing();
                            continue;
                        }
                        _ => return Poll::Ready(()),
                    }
                }
                if alarm.deadline() > deadline || alarm.is_elapsed() {
                    alarm.as_mut().reset(deadline);
                }
                if alarm.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    /// Whatever runs yet is given up; nothing runs any more when this returns.
    pub(super) async fn end(self) {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}

/// Starts the task of a stream among those of its connection.
#[derive(Clone)]
struct Spawn {
    tasks: Weak<Mutex<JoinSet<()>>>,
    /// For the client to take the next piece of an answer.
    write: Duration,
    /// From a request's head to its answer's last byte.
    exchange: Duration,
}

impl<F> Executor<F> for Spawn
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // Without its connection, nobody waits for it.
        let Some(tasks) = self.tasks.upgrade() else {
            return;
        };
        let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        let over = Instant::now() + self.exchange + LINGER;
        tasks.spawn(until_stalled(stream, self.write, over));
    }
}

/// Runs the stream, but for `write` at most while its client does not take the next piece of the answer: dropped, the
/// stream is reset. Whoever takes a piece now and then has until `over` for the whole.
async fn until_stalled<F: Future<Output = ()>>(stream: F, write: Duration, over: Instant) {
    let clock = Arc::new(Clock::default());
    let mut stream = pin!(CLOCK.scope(clock.clone(), stream));
    let mut alarm: Option<std::pin::Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let given = clock.given.load(Relaxed);
        if given == clock.asked.load(Relaxed) {
            // The answer is waited for, not the client.
            alarm = None;
            clock.noted.store(0, Relaxed);
            return Poll::Pending;
        }
        if clock.noted.swap(given, Relaxed) != given {
            alarm = Some(Box::pin(sleep_until(over.min(Instant::now() + write))));
        }
        match &mut alarm {
            Some(alarm) => alarm.as_mut().poll(cx),
            None => Poll::Pending,
        }
    })
    .await;
}

/// Which piece of an answer a client is at. Counts.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// Pieces given out.
    given: AtomicU64,
    /// The next piece is asked for after so many: the ones before it were taken.
    asked: AtomicU64,
    /// Given out when the alarm was set.
    noted: AtomicU64,
}

impl Clock {
    /// The next piece is wanted.
    pub(super) fn ask(&self) {
        self.asked.store(self.given.load(Relaxed), Relaxed);
    }
    /// A piece is on its way to the client.
    pub(super) fn give(&self) {
        self.given.fetch_add(1, Relaxed);
    }
}

/// One request on its stream: what its head's check came to.
struct Checked {
    refusal: Option<Code>,
    pace: Duration,
    client: Client,
    upstream: Option<Arc<Upstream<Body>>>,
    address: Option<SocketAddr>,
}

impl Exchange for Checked {
    fn refusal(&self) -> Option<Code> {
        self.refusal
    }
    fn stands_in(&self) -> bool {
        false
    }
    /// A stream's end shows in its body.
    fn broken(&self) -> Option<Code> {
        None
    }
    fn pace(&self) -> Option<Duration> {
        Some(self.pace)
    }
    fn peer_uid(&self) -> Option<u32> {
        self.client.uid
    }
    fn peer_name(&self) -> Option<&str> {
        self.client.name.as_deref()
    }
    fn leads_to(&self) -> Option<&Arc<Upstream<Body>>> {
        self.upstream.as_ref()
    }
    fn redirected_from(&self) -> Option<SocketAddr> {
        self.address
    }
    /// A stream has no such switch: the road never asks for one here.
    fn switch(&self, _: OnUpgrade, _: Passage) {}
}

/// Lives from the request's head to the answer's last byte.
struct InFlight {
    _open: Open,
    pulse: Arc<Pulse>,
}

impl InFlight {
    fn begin(service: &Service, pulse: &Arc<Pulse>) -> InFlight {
        pulse.opened();
        InFlight {
            _open: Open::one(&service.gauges, |gauges| &gauges.requests),
            pulse: pulse.clone(),
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.pulse.ended();
    }
}
