//! The two directions of a body under a route's rules: what is held, what flows, what is refused unread, what passes sealed.
//! `rewriting` has the three steps.
//!
//! Outward fails closed: a body that a sealing rule cannot be kept on is refused before a byte of it went up. Back, what
//! only opens leaves sealed what it cannot read, and says so.

mod rewriting;

use super::flow::document::Document;
use super::flow::records::Records;
use super::flow::{Engine, Verdict};
use super::letter::{self, Front};
use super::route::Way;
use super::{KeySource, Limits, headers, refusal};
use crate::audit::{Record, Side};
use crate::body::coding::Codings;
use crate::body::flow::Flow;
use crate::body::held::{Declared, Held, Room, Unheld, declared, hold};
use crate::body::records::Framing;
use crate::body::{Arriving, Body, Broken};
use crate::error::{Code, Error};
use crate::transform::Rules;
use http::{HeaderMap, Method, StatusCode, request, response};
use hyper::body::Body as _;
use rewriting::{unchanged, unsigned};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// What it takes to bring a body under a route's rules.
pub struct Directions {
    pub keys: Arc<dyn KeySource>,
    /// Those of bodies hold here.
    pub limits: Limits,
    pub room: Room,
}

impl Directions {
    /// With room for what `limits` allow.
    pub fn new(keys: Arc<dyn KeySource>, limits: Limits) -> Directions {
        let room = Room::new(limits.held_total);
        Directions { keys, limits, room }
    }

    /// A request's body under a route's rules: rewritten, or refused before a byte of it went on. An opening route
    /// leaves sealed what it cannot read. `blame`: what to say where the body broke off, if somebody knows better.
    ///
    /// # Errors
    /// It does not go on.
    pub async fn outward(
        &self,
        way: &Way<'_>,
        head: &mut request::Parts,
        incoming: Arriving,
        blame: impl Fn(Error) -> Error,
        record: &mut Record,
    ) -> Result<(Body, Option<Verdict>), Error> {
        let arrived = self
            .arrive(way, &mut head.headers, incoming, blame, record)
            .await?;
        let read = self.read(way, Side::Request, (&mut *head).into(), arrived, record);
        match read.await? {
            Read::Flowing(flowing) => {
                let flow = self.flow(way, Side::Request, (&mut *head).into(), flowing, record);
                let (body, verdict) = flow.await?;
                headers::stream(&mut head.headers);
                Ok((body, Some(verdict)))
            }
            Read::Body(body) => Ok((body, None)),
        }
    }

    /// A request's body, held if it can be read.
    async fn arrive(
        &self,
        way: &Way<'_>,
        headers: &mut HeaderMap,
        incoming: Arriving,
        blame: impl Fn(Error) -> Error,
        record: &mut Record,
    ) -> Result<Arrived, Error> {
        let rules = way.rules(Side::Request);
        let incoming = incoming.without_trailers(letter::withheld(rules));
        if incoming.is_end_stream() || !rules.reads_bodies() {
            let some = !incoming.is_end_stream();
            return Ok(Arrived::Passing(pass(headers, incoming, some)));
        }
        let declared = declared(headers);
        let foreign = refusal::of_request(declared, rules);
        // A Content-Length says that the body is not empty: there is nothing to wait for. One of 0 with a body still to end is
        // what some clients send over HTTP/2.
        if let (Some(error), Some(1..)) = (&foreign, incoming.size_hint().exact()) {
            way.unreadable(
                Side::Request,
                error.clone().closing(),
                declared.word(),
                record,
            )?;
            return Ok(Arrived::Passing(pass(headers, incoming, true)));
        }
        if let (None, Declared::Records(framing)) = (&foreign, declared) {
            return Ok(Arrived::Flowing(Flowing::Records(incoming, framing)));
        }
        let held = pin!(hold(
            incoming,
            self.limits.held_body,
            self.limits.held_for,
            &self.room,
        ));
        let held = match record.waiting(held).await {
            Ok(held) => held,
            Err(Unheld::TooLarge(body)) => {
                let (error, why) = match (foreign, self.in_pieces(rules, declared)) {
                    (Some(error), _) => (error, declared.word()),
                    (None, Ok(())) => return Ok(Arrived::Flowing(Flowing::Document(body))),
                    (None, Err(whole)) => (Code::BodyTooLarge.because(whole), "too-large"),
                };
                way.unreadable(Side::Request, error.closing(), why, record)?;
                headers::stream(headers);
                return Ok(Arrived::Passing(body));
            }
            Err(Unheld::Late(body)) => {
                way.unreadable(
                    Side::Request,
                    Error::from(Code::BodyTimeout).closing(),
                    "late",
                    record,
                )?;
                headers::stream(headers);
                return Ok(Arrived::Passing(body));
            }
            Err(Unheld::NoRoom(body)) => {
                let error = Code::Busy.because("no room to hold the body");
                way.unreadable(Side::Request, error.closing(), "no-room", record)?;
                headers::stream(headers);
                return Ok(Arrived::Passing(body));
            }
            Err(Unheld::Broken(broken)) => {
                let code = match broken {
                    Broken::Late => Code::BodyTimeout,
                    Broken::Cut | Broken::Transport(_) | Broken::Refused => Code::BodyBroken,
                };
                return Err(blame(Error::from(code).closing()));
            }
        };
        record.request_bytes(Some(held.bytes.len() as u64));
        if let Some(error) = foreign.filter(|_| !held.bytes.is_empty()) {
            way.unreadable(Side::Request, error, declared.word(), record)?;
            return Ok(Arrived::Passing(unchanged(headers, held)));
        }
        Ok(Arrived::Held(held))
    }

    /// An answer's body under a route's rules. What cannot be read passes sealed, unless the route seals it.
    ///
    /// # Errors
    /// It does not go on.
    pub async fn inward(
        &self,
        way: &Way<'_>,
        expected: Expected<'_>,
        head: &mut response::Parts,
        incoming: Arriving,
        record: &mut Record,
    ) -> Result<(Body, Option<Verdict>), Error> {
        let arrived = self.answered(way, expected, head, incoming, record).await?;
        let read = self.read(way, Side::Response, (&mut *head).into(), arrived, record);
        match read.await? {
            Read::Flowing(flowing) => {
                let flow = self.flow(way, Side::Response, head.into(), flowing, record);
                let (body, verdict) = flow.await?;
                Ok((body, Some(verdict)))
            }
            Read::Body(body) => Ok((body, None)),
        }
    }

    /// An answer's body, held if it can be read.
    async fn answered(
        &self,
        way: &Way<'_>,
        expected: Expected<'_>,
        head: &mut response::Parts,
        incoming: Arriving,
        record: &mut Record,
    ) -> Result<Arrived, Error> {
        let rules = way.rules(Side::Response);
        let incoming = incoming.without_trailers(letter::withheld(rules));
        if !rules.reads_bodies() {
            return Ok(Arrived::Passing(Body::stream(incoming)));
        }
        if way.rewrites(Side::Response) {
            headers::withhold_ranges(&mut head.headers);
        }
        if *expected.method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED {
            if way.rewrites(Side::Response) {
                headers::unforeseen(&mut head.headers);
            }
            return Ok(Arrived::Passing(Body::stream(incoming)));
        }
        if incoming.is_end_stream() {
            return Ok(Arrived::Passing(Body::stream(incoming)));
        }
        let why = match (head.status, declared(&head.headers)) {
            (StatusCode::PARTIAL_CONTENT, _) => Some("partial"),
            (_, declared) if refusal::reads(rules, declared) => None,
            (_, declared) => Some(declared.word()),
        };
        if let Some(why) = why {
            way.unreadable(
                Side::Response,
                Code::UpstreamUnreadable.because(why),
                why,
                record,
            )?;
            return Ok(Arrived::Passing(Body::stream(incoming)));
        }
        if let Declared::Records(framing) = declared(&head.headers) {
            return Ok(Arrived::Flowing(Flowing::Records(incoming, framing)));
        }
        let held = pin!(hold(
            incoming,
            self.limits.held_body,
            expected.patience,
            &self.room,
        ));
        let held = match record.waiting(held).await {
            Ok(held) => held,
            Err(Unheld::TooLarge(body)) => {
                if self.in_pieces(rules, declared(&head.headers)).is_ok() {
                    return Ok(Arrived::Flowing(Flowing::Document(body)));
                }
                let error = Code::UpstreamUnreadable.because("too-large");
                way.unreadable(Side::Response, error, "too-large", record)?;
                return Ok(Arrived::Passing(body));
            }
            Err(Unheld::Late(body)) => {
                way.unreadable(
                    Side::Response,
                    Code::UpstreamTimeout.because("the answer's body"),
                    "late",
                    record,
                )?;
                return Ok(Arrived::Passing(body));
            }
            Err(Unheld::NoRoom(body)) => {
                let error = Code::UpstreamUnreadable.because("no room to hold the body");
                way.unreadable(Side::Response, error, "no-room", record)?;
                return Ok(Arrived::Passing(body));
            }
            Err(Unheld::Broken(Broken::Late)) => {
                return Err(Code::UpstreamTimeout.because("the answer's body"));
            }
            Err(Unheld::Broken(_)) => {
                return Err(Code::UpstreamBroken.because("the answer's body broke off"));
            }
        };
        Ok(Arrived::Held(held))
    }

    /// A body that is declared so may be rewritten in pieces; otherwise why it must be held.
    fn in_pieces(&self, rules: &Rules, declared: Declared) -> Result<(), &'static str> {
        match declared {
            _ if self.limits.window == 0 => Err("bodies are held whole: limits.window is 0"),
            Declared::Json => rules.in_pieces(),
            _ => Err("only JSON documents are rewritten in pieces"),
        }
    }

    /// A body that is rewritten while it flows, and what becomes of it; its head is rewritten by itself.
    async fn flow(
        &self,
        way: &Way<'_>,
        side: Side,
        mut front: Front<'_>,
        flowing: Flowing,
        record: &mut Record,
    ) -> Result<(Body, Verdict), Error> {
        unsigned(way, side, front.headers, record)?;
        let mut room = None;
        if let Flowing::Document(_) = flowing
            && !self.room.enlarge(&mut room, self.limits.window)
        {
            let code = match side {
                Side::Request => Code::Busy,
                Side::Response => Code::UpstreamUnreadable,
            };
            let error = code.because("no room for a window on the body");
            way.unreadable(side, error.closing(), "no-room", record)?;
            self.head_alone(way, side, &mut front, record).await?;
            return Ok((flowing.into(), Verdict::default()));
        }
        self.head_alone(way, side, &mut front, record).await?;
        let engine = Engine::new(self, way, side, record);
        let verdict = engine.verdict();
        // Unknown ones were refused by what the head declares.
        let codings = Codings::of(front.headers).unwrap_or_default();
        let looking = engine.is_observing();
        if !looking {
            headers::unforeseen(front.headers);
        }
        let body = match flowing {
            Flowing::Records(incoming, framing) => {
                let records = Records::new(engine, framing, self.limits.record);
                Body::flow(Flow::new(incoming, &codings, records, looking))
            }
            Flowing::Document(incoming) => {
                let document = Document::new(engine.with(room), self.limits.window);
                Body::flow(Flow::new(incoming, &codings, document, looking))
            }
        };
        Ok((body, verdict))
    }
}

/// A body that nobody looks into.
pub fn pass(headers: &mut HeaderMap, incoming: Arriving, some: bool) -> Body {
    if some {
        headers::stream(headers);
    }
    Body::stream(incoming)
}

/// What is known of an answer beside itself.
#[derive(Clone, Copy)]
pub struct Expected<'p> {
    /// Of its request.
    pub method: &'p Method,
    /// For the whole of it to come, where it is held.
    pub patience: Duration,
}

/// What there is of a body when the rules are expected.
enum Arrived {
    /// All of it, to be read.
    Held(Held),
    /// It is to be read while it flows.
    Flowing(Flowing),
    /// It goes on as it is.
    Passing(Body),
}

/// What there is of a body when it was read.
enum Read {
    /// What goes on.
    Body(Body),
    /// It is to be read while it flows; nothing of it or its head was changed.
    Flowing(Flowing),
}

/// A body that is rewritten while it flows.
enum Flowing {
    Records(Arriving, Framing),
    /// A JSON document that is too large to be held.
    Document(Body),
}

impl From<Flowing> for Body {
    fn from(flowing: Flowing) -> Body {
        match flowing {
            Flowing::Records(incoming, _) => Body::stream(incoming),
            Flowing::Document(body) => body,
        }
    }
}
