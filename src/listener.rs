//! The edge towards the application: accepts connections (TCP or a Unix socket, with TLS or without), bounds them,
//! serves HTTP/1.1 behind the [`door`] or HTTP/2 behind the [`sluice`] on each, and drains.
//!
//! Every connection is one task, and every stream of HTTP/2 another; every one is tracked: when [`Listener::serve`]
//! returns, none is left. It knows nothing of routes, bodies or keys; requests go to the [`Proxy`].

mod bell;
mod connection;
pub mod door;
pub mod fields;
pub mod first;
mod forward;
mod http1;
mod http2;
mod meet;
mod pulse;
pub mod sluice;
mod stream;
mod transparent;
mod tunnel;
mod version;
mod wire;

pub use forward::{BadCredentials, Credentials, Forward};
pub use stream::{Socket, SocketFile};
pub use transparent::Transparent;
pub use wire::Patience;

use crate::body::{Body, Broken};
use crate::proxy::Proxy;
use crate::tls::{Clients, Identity};
use connection::Service;
use http2::Clock;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use stream::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// Waits after a failed accept: out of file descriptors, the kernel says so again at once.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(10);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The bounds of one listener.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Connections at once; further ones wait in the kernel's backlog.
    pub connections: usize,
    /// How long a client may take for what.
    pub patience: Patience,
    /// How long requests in flight may go on once draining has begun.
    pub drain: Duration,
    /// TLS on every connection, with this certificate.
    pub tls: Option<Identity>,
    /// Certificates of clients are asked for, and taken from these authorities.
    pub clients: Option<Clients>,
    /// HTTP/2, too: by ALPN with TLS, by its preface without.
    pub http2: bool,
    /// Requests at once on one connection of HTTP/2.
    pub streams: u32,
    /// It is a forward proxy: requests name their targets, and CONNECT is taken.
    pub forward: Option<Forward>,
    /// Connections come redirected, and are taken for where they were going.
    pub transparent: Option<Transparent>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            connections: 10_000,
            patience: Patience::default(),
            drain: Duration::from_secs(30),
            tls: None,
            clients: None,
            http2: true,
            streams: 128,
            forward: None,
            transparent: None,
        }
    }
}

/// What is open at this moment: for metrics, and for tests that nothing is left behind.
#[derive(Debug, Default)]
pub struct Gauges {
    connections: AtomicUsize,
    requests: AtomicUsize,
    accept_errors: AtomicU64,
}

impl Gauges {
    /// Connection tasks that live.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
    /// Requests whose answer is not complete.
    pub fn requests(&self) -> usize {
        self.requests.load(Relaxed)
    }
    /// Times that the system gave no connection, since the start: each was followed by a pause.
    pub fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Relaxed)
    }
}

/// A listening socket and what serves it.
pub struct Listener {
    socket: Socket,
    service: Arc<Service>,
    drain: Duration,
    permits: Arc<Semaphore>,
}

impl Listener {
    /// Takes a bound socket. Nothing is accepted before [`Listener::serve`].
    ///
    /// # Errors
    /// The TLS library refuses to work as it was built.
    pub fn new(
        socket: impl Into<Socket>,
        proxy: Arc<Proxy>,
        settings: Settings,
    ) -> Result<Listener, rustls::Error> {
        let permits = Arc::new(Semaphore::new(
            settings.connections.min(Semaphore::MAX_PERMITS),
        ));
        let tls = match &settings.tls {
            Some(identity) => Some(TlsAcceptor::from(
                identity.server(settings.http2, settings.clients.as_ref())?,
            )),
            None => None,
        };
        let service = Service {
            proxy,
            patience: settings.patience,
            gauges: Arc::default(),
            tls,
            http2: settings.http2,
            streams: settings.streams,
            forward: settings.forward,
            transparent: settings.transparent,
        };
        Ok(Listener {
            socket: socket.into(),
            service: Arc::new(service),
            drain: settings.drain,
            permits,
        })
    }

    /// The address that the socket is bound to, with the port that the system chose for port 0. A Unix socket has none.
    pub fn address(&self) -> Option<SocketAddr> {
        self.socket.address()
    }
    /// What is open; still counts when [`Listener::serve`] has consumed the listener.
    pub fn gauges(&self) -> Arc<Gauges> {
        self.service.gauges.clone()
    }
    /// The connection permits, to see that all come back.
    pub fn permits(&self) -> Arc<Semaphore> {
        self.permits.clone()
    }

    /// Serves until `drain` turns true (or its sender is gone), then lets the requests in flight finish, for
    /// [`Settings::drain`] at most. Nothing of it runs any more when this returns.
    pub async fn serve(self, mut drain: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        let mut pause = ACCEPT_PAUSE_MIN;
        let drained = drain.clone();
        let (cut, cutting) = watch::channel(false);
        let mut draining = pin!(async move {
            // A sender that is gone drains, too.
            let _ = drain.wait_for(|drain| *drain).await;
        });
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut draining => break,
                Some(_) = tasks.join_next() => continue,
                accepted = accept(&self.socket, &self.permits) => accepted,
            };
            match accepted {
                Ok((stream, permit)) => {
                    pause = ACCEPT_PAUSE_MIN;
                    let service = self.service.clone();
                    tasks.spawn(service.run(stream, permit, drained.clone(), cutting.clone()));
                }
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    self.service.gauges.accept_errors.fetch_add(1, Relaxed);
                    tracing::warn!(error = %error.kind(), pause_ms = pause.as_millis() as u64, "cannot accept");
                    tokio::select! {
                        () = &mut draining => break,
                        () = sleep(pause) => pause = (pause * 2).min(ACCEPT_PAUSE_MAX),
                    }
                }
            }
        }
        drop(self.socket);
        let finished = async { while tasks.join_next().await.is_some() {} };
        if timeout(self.drain, finished).await.is_err() {
            tracing::warn!(connections = tasks.len(), "drain: time is up");
            cut.send_replace(true);
            while tasks.join_next().await.is_some() {}
        }
    }
}

/// A connection, once there is a permit for it.
async fn accept(
    socket: &Socket,
    permits: &Arc<Semaphore>,
) -> io::Result<(Stream, OwnedSemaphorePermit)> {
    let permit = permits
        .clone()
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    Ok((socket.accept().await?, permit))
}

/// The connection failed before we had it; the next one may be well.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, Interrupted, InvalidInput, NotConnected,
    };
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted | InvalidInput | NotConnected
    )
}

/// Counted in a gauge as long as it lives.
struct Open {
    gauges: Arc<Gauges>,
    which: fn(&Gauges) -> &AtomicUsize,
}

impl Open {
    fn one(gauges: &Arc<Gauges>, which: fn(&Gauges) -> &AtomicUsize) -> Open {
        which(gauges).fetch_add(1, Relaxed);
        Open {
            gauges: gauges.clone(),
            which,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        (self.which)(&self.gauges).fetch_sub(1, Relaxed);
    }
}

/// The answer's body on its way to the client, with whatever lives as long.
struct Answer<L> {
    body: Body,
    /// Of a stream.
    clock: Option<Arc<Clock>>,
    _in_flight: L,
}

impl<L> Answer<L> {
    fn new(body: Body, in_flight: L) -> Answer<L> {
        Answer {
            body,
            clock: None,
            _in_flight: in_flight,
        }
    }
    /// Tells this clock which piece is where.
    fn watched(mut self, clock: Arc<Clock>) -> Answer<L> {
        self.clock = Some(clock);
        self
    }
}

impl<L: Unpin> HttpBody for Answer<L> {
    type Data = bytes::Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, Broken>>> {
        if let Some(clock) = &self.clock {
            clock.ask();
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let (Some(clock), Poll::Ready(Some(_))) = (&self.clock, &frame) {
            clock.give();
        }
        frame
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
