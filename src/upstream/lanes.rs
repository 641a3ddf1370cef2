//! Connections of HTTP/2 beside each other. One carries as many requests at a time as a server is sure to allow, and those beyond go
//! over the next one: otherwise a hundred answers that stream would keep the next request waiting until one of them ends.

use super::connect::Connector;
use super::settings::{IDLE_DEFAULT, IDLE_HTTP_2_DEFAULT};
use bytes::Bytes;
use http::Request;
use hyper::body::Body;
use hyper_util::client::legacy::{Builder, Client, ResponseFuture};
use std::error::Error as StdError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests at once on one connection: no server should allow fewer (RFC 9113 section 6.5.2, SETTINGS_MAX_CONCURRENT_STREAMS), and
/// many allow no more.
const STREAMS: usize = 100;
/// Lanes of an upstream. What is more than all of them take waits on the first one.
const LANES_MAX: usize = 64;

/// A request's place on its connection, until its answer is over.
#[derive(Clone, Debug)]
pub struct Place {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// The connections of one upstream.
pub(super) struct Lanes<B> {
    /// Of HTTP/1.1, without lanes.
    one: Client<Connector, B>,
    builder: Builder,
    connector: Connector,
    /// Those after the first one have requests only while those before them are full.
    all: Mutex<Vec<Lane<B>>>,
}

struct Lane<B> {
    client: Client<Connector, B>,
    places: Arc<Semaphore>,
}

impl<B> Lanes<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// `idle`: how long unused connections are kept, if that is said.
    pub(super) fn new(builder: &Builder, idle: Option<Duration>, connector: Connector) -> Lanes<B> {
        let keeping = |default| {
            let mut builder = builder.clone();
            builder.pool_idle_timeout(idle.unwrap_or(default));
            builder
        };
        Lanes {
            one: keeping(IDLE_DEFAULT).build(connector.clone()),
            builder: keeping(IDLE_HTTP_2_DEFAULT),
            connector,
            all: Mutex::default(),
        }
    }

    /// Begins to send a request, which may go over HTTP/2 or does not.
    pub(super) fn begin(
        &self,
        request: Request<B>,
        http_2: bool,
    ) -> (ResponseFuture, Option<Place>) {
        if !http_2 {
            return (self.one.request(request), None);
        }
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        for lane in &*all {
            if let Some(place) = lane.place() {
                return (lane.client.request(request), Some(place));
            }
        }
        if let (LANES_MAX.., Some(first)) = (all.len(), all.first()) {
            return (first.client.request(request), None);
        }
        let lane = Lane {
            client: self.builder.build(self.connector.clone()),
            places: Arc::new(Semaphore::new(STREAMS)),
        };
        let place = lane.place();
        let sent = lane.client.request(request);
        all.push(lane);
        (sent, place)
    }
}

impl<B> Lane<B> {
    fn place(&self) -> Option<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Place {
            _permit: Arc::new(permit),
        })
    }
}
