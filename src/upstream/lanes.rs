//! Connections of HTTP/2 beside each other. One carries as many requests at a time as a server is sure to allow, and those beyond go
//! over the next one: otherwise a hundred answers that stream would keep the next request waiting until one of them ends.

use super::connect::Connector;
use bytes::Bytes;
use http::Request;
use hyper::body::Body;
use hyper_util::client::legacy::{Builder, Client, ResponseFuture};
use std::error::Error as StdError;
use std::sync::{Arc, Mutex, PoisonError};
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

/// The connections of one upstream. The first lane is also the pool of HTTP/1.1.
pub(super) struct Lanes<B> {
    builder: Builder,
    connector: Connector,
    first: Client<Connector, B>,
    /// All, the first included; a later one has requests only while those before it are full.
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
    pub(super) fn new(builder: Builder, connector: Connector) -> Lanes<B> {
        let first = builder.build(connector.clone());
        Lanes {
            builder,
            connector,
            first,
            all: Mutex::default(),
        }
    }

    /// Begins to send a request that may go over HTTP/2, or cannot.
    pub(super) fn begin(
        &self,
        request: Request<B>,
        multiplexed: bool,
    ) -> (ResponseFuture, Option<Place>) {
        if !multiplexed {
            return (self.first.request(request), None);
        }
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        for lane in &*all {
            if let Some(place) = lane.place() {
                return (lane.client.request(request), Some(place));
            }
        }
        if all.len() == LANES_MAX {
            return (self.first.request(request), None);
        }
        let client = match all.is_empty() {
            true => self.first.clone(),
            false => self.builder.build(self.connector.clone()),
        };
        let lane = Lane {
            client,
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
