//! HTTP/1.1 on a connection: hyper behind the [door](super::door), and the clock beside them.

use super::bell::Bell;
use super::connection::{Beginning, Service};
use super::door::Door;
use super::stream::{Client, Stream};
use super::wire::{Expiry, Wire};
use super::{Answer, Open};
use crate::body::Body;
use crate::error::Code;
use crate::proxy::{Exchange, Passage};
use crate::upstream::Upstream;
use bytes::BytesMut;
use http::Method;
use hyper::Request;
use hyper::body::{Body as HttpBody, Incoming};
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// When the drain begins, how long an idle connection is kept for a request that is on its way already: it is answered, with
/// `Connection: close`, and nobody's request meets a closed door (RFC 9112 section 9.5).
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves until the connection's end, or until a CONNECT or an upgrade leads elsewhere: then what was read behind it comes back, too.
pub(super) async fn serve(
    service: &Service,
    connection: Beginning,
    mut drain: Bell,
) -> Option<(Stream, BytesMut, Passage)> {
    let patience = service.patience;
    let forward = service.forward.as_ref();
    let forward = forward.filter(|_| connection.upstream.is_none());
    let (client, upstream) = (connection.client, connection.upstream);
    let address = connection.address;
    let opened = Opened::default();
    let wire = Arc::new(Wire::since(connection.born));
    let answering = |mut request: Request<Incoming>| {
        let connecting = forward.filter(|_| request.method() == Method::CONNECT);
        let refused = forward.and_then(|forward| forward.refusal(request.headers()));
        // Nothing would be served behind it.
        let shut = (connecting.is_some() && wire.is_leaving()).then_some(Code::Draining);
        let exchange = Numbered {
            number: wire.serve(),
            wire: wire.clone(),
            client: client.clone(),
            upstream: upstream.clone(),
            address,
            opened: &opened,
            refused: refused.or(shut),
        };
        let in_flight = InFlight {
            _open: Open::one(&service.gauges, |gauges| &gauges.requests),
            wire: wire.clone(),
        };
        let proxy = service.proxy.clone();
        let opened = &opened;
        async move {
            if let Some(forward) = connecting {
                let vouched = |host: &str| forward.authority.vouches_for(host);
                let upgrade = hyper::upgrade::on(&mut request);
                let connected = Box::pin(proxy.connect(&request, &exchange, vouched)).await;
                let (answer, passage) = connected;
                match passage {
                    Some(passage) => opened.put(upgrade, passage),
                    None => exchange.wire.connect_refused(),
                }
                return Ok(answer.map(|body| Answer::new(body, in_flight)));
            }
            // Boxed: hyper keeps room for this future between requests, too.
            let answer = Box::pin(proxy.handle(request, &exchange)).await;
            Ok::<_, Infallible>(answer.map(|body| Answer::new(body, in_flight)))
        }
    };
    let mut told = false;
    let mut alarm = pin!(sleep_until(Instant::now() + patience.head));
    let (stream, begun) = (connection.stream, connection.begun);
    let mut door = Door::new(stream, begun, wire.clone(), forward.is_some());
    loop {
        // hyper keeps some 12 KiB for a connection, busy or not: it is there while there is something to do.
        let mut awake = Box::pin(
            http1::Builder::new()
                .serve_connection(TokioIo::new(door), service_fn(&answering))
                .with_upgrades(),
        );
        let mut last = false;
        let ended = poll_fn(|cx| {
            if !told && drain.poll(cx).is_ready() {
                told = true;
                wire.leave_within(FAREWELL);
            }
            loop {
                // How a connection ends is of no interest; how its requests do is on record.
                if awake.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(true);
                }
                if told && !last && wire.is_busy() {
                    last = true;
                    awake.as_mut().graceful_shutdown();
                    continue;
                }
                let Some((deadline, expiry)) = wire.deadline(&patience) else {
                    return Poll::Pending;
                };
                let dozes = wire.dozes_at(&patience);
                // The alarm goes off early rather than being set anew for each request.
                let next = dozes.map_or(deadline, |at| deadline.min(at));
                if alarm.deadline() > next || alarm.is_elapsed() {
                    alarm.as_mut().reset(next);
                }
                if alarm.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                let now = Instant::now();
                if now >= deadline {
                    if matches!(expiry, Expiry::Write | Expiry::Linger) {
                        return Poll::Ready(true);
                    }
                    wire.expire(expiry);
                } else if dozes.is_some_and(|at| now >= at) {
                    return Poll::Ready(false);
                }
            }
        })
        .await;
        match (!ended).then(|| doze(awake)).flatten() {
            Some(dozing) => door = dozing,
            None => break,
        }
        // Until there is something to do: the next request, time that is up, or the drain.
        poll_fn(|cx| {
            let due = wire.deadline(&patience).map(|(deadline, _)| deadline);
            if let Some(due) = due
                && alarm.deadline() != due
            {
                alarm.as_mut().reset(due);
            }
            if !told && drain.poll(cx).is_ready() {
                told = true;
                wire.leave_within(FAREWELL);
                return Poll::Ready(());
            }
            if alarm.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            door.poll_wake(cx)
        })
        .await;
    }
    let (upgrade, passage) = *opened.take()?;
    // Ready, or never: hyper's part is over.
    let upgraded = upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<Door<Stream>>>().ok()?;
    let (stream, behind) = parts.io.into_inner().into_parts();
    let mut begun = BytesMut::from(&parts.read_buf[..]);
    begun.extend_from_slice(&behind);
    Some((stream, begun, passage))
}

/// Where the connection leads when HTTP is over, and how to get hold of it. Boxed: few connections ever do.
#[derive(Default)]
struct Opened(Mutex<Option<Box<(OnUpgrade, Passage)>>>);

impl Opened {
    fn put(&self, upgrade: OnUpgrade, passage: Passage) {
        let mut opened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *opened = Some(Box::new((upgrade, passage)));
    }
    fn take(&self) -> Option<Box<(OnUpgrade, Passage)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Lets go of hyper's part of a connection on which nothing is under way. None: it has let go itself, of a connection that leads elsewhere.
fn doze<S, B>(
    awake: Pin<Box<http1::UpgradeableConnection<TokioIo<Door<Stream>>, S>>>,
) -> Option<Door<Stream>>
where
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: HttpBody + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let parts = Pin::into_inner(awake).into_parts()?;
    let mut door = parts.io.into_inner();
    door.take_back(&parts.read_buf);
    Some(door)
}

/// One request on its connection: what the door knows about it.
struct Numbered<'c> {
    number: u64,
    wire: Arc<Wire>,
    client: Client,
    upstream: Option<Arc<Upstream<Body>>>,
    address: Option<SocketAddr>,
    opened: &'c Opened,
    /// It lacks what the listener asks of its clients, or comes too late.
    refused: Option<Code>,
}

impl Exchange for Numbered<'_> {
    fn refusal(&self) -> Option<Code> {
        self.wire.refusal(self.number).or(self.refused)
    }
    fn stands_in(&self) -> bool {
        self.wire.refusal(self.number).is_some()
    }
    fn broken(&self) -> Option<Code> {
        let early = self.wire.is_early().then_some(Code::EarlyData);
        self.wire.broken(self.number).or(early)
    }
    /// The door watches.
    fn pace(&self) -> Option<Duration> {
        None
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
    fn switch(&self, client: OnUpgrade, passage: Passage) {
        self.opened.put(client, passage);
        self.wire.switch();
    }
}

/// Lives from the request's head to the answer's last byte.
struct InFlight {
    _open: Open,
    wire: Arc<Wire>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.wire.answered();
    }
}
