//! The road: what happens to a request, on one page.
//!
//! [`Proxy::handle`] cannot fail, it answers. `carry` takes the request to the upstream and the answer back;
//! where it fails, nothing more happens than that the client is told. `directions` has the three steps for either
//! direction: plan (which spans, which keys), fetch (the only wait for keys), apply.
//!
//! It never looks into a body that no route takes, and never retries what was begun.

mod connect;
pub(crate) mod directions;
pub(crate) mod flow;
pub(crate) mod headers;
mod keys;
mod letter;
pub(crate) mod redirection;
pub(crate) mod refusal;
pub(crate) mod route;
pub(crate) mod upgrade;

pub use connect::{Passage, Shown, Through};
pub use keys::KeySource;
pub use upgrade::Switched;

use crate::audit::{Observe, RESULT, Record, Side};
use crate::body::pace::{Pace, Rate};
use crate::body::{Arriving, Body};
use crate::error::{Code, Error};
use crate::policy::{Peer, Policies};
use crate::upstream::{Place, Upstream, Upstreams};
use arc_swap::ArcSwap;
use directions::{Directions, Expected};
use flow::Verdict;
use http::{Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use redirection::Reach;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use upgrade::Asked;

/// The road's bounds, for one listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a body that is held to be rewritten.
    pub held_body: usize,
    /// Bytes of one record of a stream.
    pub record: usize,
    /// Bytes that a JSON document which is too large to be held keeps undecided; 0: it is not rewritten.
    pub window: usize,
    /// Bytes of all bodies that are held at a time, requests and answers together.
    pub held_total: usize,
    /// For the whole of a held request body to arrive.
    pub held_for: Duration,
    /// Requests at once; further ones are turned away (503).
    pub in_flight: usize,
    /// The slowest that a request's body may come.
    pub body_rate: Rate,
    /// For the next piece of an answer that streams.
    pub answer: Duration,
    /// From a request's head to its answer's last byte.
    pub exchange: Duration,
    /// A tunnel behind an upgrade in which nothing moves for so long is given up.
    pub tunnel_idle: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            held_body: 8 << 20,
            record: 1 << 20,
            window: 2 << 20,
            held_total: 256 << 20,
            held_for: Duration::from_secs(60),
            in_flight: 1024,
            body_rate: Rate {
                bytes_per_second: 240,
                grace: Duration::from_secs(10),
            },
            answer: Duration::from_secs(300),
            exchange: Duration::from_secs(3600),
            tunnel_idle: Duration::from_secs(600),
        }
    }
}

/// What the edge knows about a request's bytes.
pub trait Exchange {
    /// Why its head is refused.
    fn refusal(&self) -> Option<Code>;
    /// Whether what came of its head is only a stand-in: nothing in it is the client's.
    fn stands_in(&self) -> bool;
    /// What broke its body, if the client's own bytes did, or their absence.
    fn broken(&self) -> Option<Code>;
    /// How long the next piece of its body may take, where the edge does not watch for that itself.
    fn pace(&self) -> Option<Duration>;
    /// The user that sent it, where it came over a Unix socket.
    fn peer_uid(&self) -> Option<u32>;
    /// The name in its certificate, where the client showed one that was verified.
    fn peer_name(&self) -> Option<&str>;
    /// Where its connection leads, whatever the requests on it say: made for it alone.
    fn leads_to(&self) -> Option<&Arc<Upstream<Body>>>;
    /// Where its connection was going before it was redirected here: its requests go there and nowhere else.
    fn redirected_from(&self) -> Option<SocketAddr>;
    /// The answer is a switch to another protocol; behind it, the client's connection leads there.
    fn switch(&self, client: OnUpgrade, passage: Passage);
}

/// What holds for a request from its head to its answer; exchanged whole.
struct InForce {
    policies: Arc<Policies>,
    /// Told of every access under them.
    sink: Arc<dyn Observe>,
}

/// One listener's road to its upstreams.
pub struct Proxy {
    listener: Arc<str>,
    upstreams: Upstreams<Body>,
    in_force: ArcSwap<InForce>,
    directions: Directions,
    limits: Limits,
    in_flight: Arc<Semaphore>,
    /// Our entry in Via, by which a loop is seen.
    pseudonym: headers::Pseudonym,
    /// Hosts that no policy names are refused.
    covered_only: bool,
}

impl Proxy {
    /// `listener`: its name, for records. `sink` is told of every access.
    pub fn new(
        listener: impl Into<Arc<str>>,
        upstreams: impl Into<Upstreams<Body>>,
        policies: Arc<Policies>,
        keys: Arc<dyn KeySource>,
        limits: Limits,
        sink: Arc<dyn Observe>,
    ) -> Proxy {
        Proxy {
            listener: listener.into(),
            upstreams: upstreams.into(),
            in_force: ArcSwap::from_pointee(InForce { policies, sink }),
            directions: Directions::new(keys, limits),
            limits,
            in_flight: Arc::new(Semaphore::new(limits.in_flight.min(Semaphore::MAX_PERMITS))),
            pseudonym: headers::Pseudonym::new(),
            covered_only: false,
        }
    }

    /// Refuses whatever is for a host that no policy names.
    #[must_use]
    pub fn covered_only(mut self) -> Proxy {
        self.covered_only = true;
        self
    }

    /// From now on, these policies, and whoever is told of accesses under them. Requests that have begun end under
    /// the ones that they began with.
    pub fn enforce(&self, policies: Arc<Policies>, sink: Arc<dyn Observe>) {
        self.in_force.store(Arc::new(InForce { policies, sink }));
    }
    /// The request permits, to see that all come back.
    pub fn permits(&self) -> Arc<Semaphore> {
        self.in_flight.clone()
    }

    /// Answers a request, come what may, and leaves a record of it.
    pub async fn handle(
        &self,
        request: Request<Incoming>,
        exchange: &impl Exchange,
    ) -> Response<Body> {
        let in_force = self.in_force.load_full();
        let policies = &in_force.policies;
        let mut record = Record::open(
            self.listener.clone(),
            (!exchange.stands_in()).then(|| request.method().clone()),
            in_force.sink.clone(),
        );
        record.policy(policies.version());
        let version = request.version();
        let carried = match exchange.refusal() {
            Some(code) => Err(refused(code, request.body().is_end_stream())),
            None => self.carry(request, policies, exchange, &mut record).await,
        };
        let mut answer = match carried {
            Ok(mut answer) => {
                if let Some(result) = record.result() {
                    answer.headers_mut().insert(RESULT, result);
                }
                let status = answer.status().as_u16();
                answer.map(|body| body.released(record, status))
            }
            Err(error) => {
                let answer = error.answer(record.id()).map(Body::full);
                record.refused(
                    error.reason(),
                    answer.status().as_u16(),
                    answer.body().known_len(),
                );
                answer
            }
        };
        if version == Version::HTTP_2 {
            headers::multiplexed(answer.headers_mut());
        }
        answer
    }

    /// To the upstream and back.
    async fn carry(
        &self,
        request: Request<Incoming>,
        policies: &Arc<Policies>,
        exchange: &impl Exchange,
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        // What can be refused by the head alone: the body is not asked for, and the connection closes over it.
        let (mut head, body) = request.into_parts();
        let version = head.version;
        let deadline = Instant::now() + self.limits.exchange;
        let mut pace = Pace::new(exchange.pace(), Some(self.limits.body_rate), deadline);
        let easing = (!body.is_end_stream()).then(|| pace.easing());
        let body = Arriving::new(body, version).paced(pace);
        record.request_bytes(body.size_hint().exact());
        let pending = !body.is_end_stream();
        let early = |error: Error| if pending { error.closing() } else { error };
        let permit = self
            .in_flight
            .clone()
            .try_acquire_owned()
            .map_err(|_| early(Code::Busy.into()))?;
        if version == Version::HTTP_2 {
            headers::join_cookies(&mut head.headers);
        }
        let asked = Asked::of(&head, !pending);
        headers::arrive(&head.method, &mut head.headers, &self.pseudonym).map_err(early)?;
        let upstream = match exchange.leads_to() {
            Some(upstream) if !upstream.is_for(&head) => {
                return Err(early(Code::Misdirected.into()));
            }
            Some(upstream) => Cow::Borrowed(upstream),
            None => match exchange.redirected_from() {
                Some(address) => self.upstreams.at(&head, address),
                None => self.upstreams.of(&head),
            }
            .map_err(early)?,
        };
        if self.covered_only && !policies.names(upstream.authority()) {
            return Err(early(Code::Uncovered.into()));
        }
        let peer = Peer {
            uid: exchange.peer_uid(),
            name: exchange.peer_name(),
        };
        let way =
            route::take(policies, &head, upstream.authority(), peer, record).map_err(early)?;

        if let (Some(asked), Some(way)) = (&asked, &way) {
            asked.may_pass(way, record)?;
        }

        // Outward: nothing goes up before the whole body is known to be what the policy wants it to be.
        let (mut body, verdict) = match &way {
            Some(way) if !way.rules(Side::Request).is_empty() => {
                // Boxed, like the way back: what no route takes should not carry room for it.
                let blame = |error| blame(exchange, error);
                let outward = self.directions.outward(way, &mut head, body, blame, record);
                Box::pin(outward).await?
            }
            _ => {
                // A call's two sides talk with each other, and either may be silent.
                if let Some(easing) = easing.as_ref().filter(|_| headers::is_call(&head.headers)) {
                    easing.ease();
                }
                (directions::pass(&mut head.headers, body, pending), None)
            }
        };
        if way.as_ref().is_some_and(|way| way.rewrites(Side::Response)) {
            headers::ask_for_readable(&mut head.headers);
        }
        let via = self.pseudonym.via(version);
        headers::send(&mut head.headers, via, upstream.host());
        if let Some(asked) = &asked {
            asked.ask(&mut head.headers);
        } else if upstream.may_multiplex() {
            headers::send_multiplexed(&mut head.headers);
        }
        let method = head.method.clone();
        let client = asked
            .as_ref()
            .and_then(|_| head.extensions.remove::<OnUpgrade>());
        head.extensions.clear();
        let progress = body.progress();
        let sent_some = !body.is_end_stream();
        let request = Request::from_parts(head, body);
        let sent = match asked {
            None => {
                let sent = pin!(upstream.send(request, &progress, deadline));
                record.waiting(sent).await
            }
            // Boxed: few requests ask for it.
            Some(_) => {
                let mut sent = Box::pin(upstream.send_alone(request, deadline));
                record.waiting(sent.as_mut()).await
            }
        };
        let sent = sent.map_err(|error| {
            let refused = verdict.as_ref().and_then(Verdict::refused);
            match (refused, progress.is_stalled()) {
                (Some(refused), _) => refused,
                (None, true) => Error::from(Code::BodyTimeout).closing(),
                (None, false) => blame(exchange, error),
            }
        });
        let (mut head, body) = sent?.into_parts();
        if let Some(easing) = easing {
            easing.ease();
        }
        let pace = Pace::new(Some(self.limits.answer), None, deadline);
        let place = head.extensions.remove::<Place>();
        let body = Arriving::new(body, head.version).paced(pace).on(place);

        // Back.
        if head.status.is_informational() {
            let upgraded = head.extensions.remove::<OnUpgrade>();
            let (Some(asked), Some(client), Some(upgraded), StatusCode::SWITCHING_PROTOCOLS) =
                (asked, client, upgraded, head.status)
            else {
                return Err(Code::UpstreamBroken.because("an upgrade that nobody asked for"));
            };
            asked.agree(&mut head.headers)?;
            let switched = Switched::new(upgraded, self.limits.tunnel_idle, permit);
            exchange.switch(client, switched.of(record.id()));
            head.version = Version::HTTP_11;
            return Ok(Response::from_parts(head, Body::empty()));
        }
        head.version = Version::HTTP_11;
        headers::back(&mut head.headers);
        let reach = match exchange.leads_to().is_some() || self.upstreams.targets().is_some() {
            true => Reach::Any(policies),
            false => Reach::One(upstream.authority()),
        };
        redirection::keep(&mut head, &method, &reach, way.as_ref(), sent_some, record)?;
        let body = match &way {
            Some(way) if !way.rules(Side::Response).is_empty() => {
                let expected = Expected {
                    method: &method,
                    patience: upstream.patience(),
                };
                let inward = self
                    .directions
                    .inward(way, expected, &mut head, body, record);
                Box::pin(inward).await?.0
            }
            _ => Body::stream(body),
        };
        Ok(Response::from_parts(head, body.with(permit)))
    }
}

/// What to answer to a head that is refused. Who lacks credentials alone may go on, with them.
fn refused(code: Code, whole: bool) -> Error {
    match code {
        Code::ProxyCredentials if whole => code.into(),
        _ => Error::from(code).closing(),
    }
}

/// What to answer when carrying failed: if the client's own bytes broke the body, that, and not what came of it.
fn blame(exchange: &impl Exchange, error: Error) -> Error {
    exchange
        .broken()
        .map_or(error, |code| Error::from(code).closing())
}
