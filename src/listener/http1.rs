//! HTTP/1.1 on a connection: hyper behind the [door](super::door), and the clock beside them.

use super::connection::{Beginning, Service};
use super::door::Door;
use super::stream::Client;
use super::wire::{Expiry, Wire};
use super::{Answer, Open};
use crate::error::Code;
use crate::proxy::Exchange;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

pub(super) async fn serve(
    service: &Service,
    connection: Beginning,
    mut drain: watch::Receiver<bool>,
) {
    let patience = service.patience;
    let wire = Arc::new(Wire::since(connection.born));
    let answering = service_fn(|request: Request<Incoming>| {
        let exchange = Numbered {
            number: wire.serve(),
            wire: wire.clone(),
            client: connection.client.clone(),
        };
        let in_flight = InFlight {
            _open: Open::one(&service.gauges, |gauges| &gauges.requests),
            wire: wire.clone(),
        };
        let proxy = service.proxy.clone();
        async move {
            // Boxed: hyper keeps room for this future on idle connections, too.
            let answer = Box::pin(proxy.handle(request, &exchange)).await;
            Ok::<_, Infallible>(answer.map(|body| Answer::new(body, in_flight)))
        }
    });
    let door = Door::new(connection.stream, connection.begun, wire.clone());
    let mut connection =
        pin!(http1::Builder::new().serve_connection(TokioIo::new(door), answering));
    let mut draining = pin!(async move {
        let _ = drain.wait_for(|drain| *drain).await;
    });
    let mut told = false;
    let mut alarm = pin!(sleep_until(Instant::now() + patience.head));
    poll_fn(|cx| {
        if !told && draining.as_mut().poll(cx).is_ready() {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        loop {
            // How a connection ends is of no interest; how its requests do is on record.
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let Some((deadline, expiry)) = wire.deadline(&patience) else {
                return Poll::Pending;
            };
            if Instant::now() >= deadline {
                if matches!(expiry, Expiry::Write | Expiry::Linger) {
                    return Poll::Ready(());
                }
                wire.expire(expiry);
                continue;
            }
            // The alarm goes off early rather than being set anew for each request.
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

/// One request on its connection: what the door knows about it.
struct Numbered {
    number: u64,
    wire: Arc<Wire>,
    client: Client,
}

impl Exchange for Numbered {
    fn refusal(&self) -> Option<Code> {
        self.wire.refusal(self.number)
    }
    fn broken(&self) -> Option<Code> {
        self.wire.broken(self.number)
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
