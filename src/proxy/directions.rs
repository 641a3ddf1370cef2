//! The two directions of a body under a route's rules: what is held, what is refused unread, what passes sealed, and the
//! head made true for what goes on.
//!
//! Outward fails closed: a body that a sealing rule cannot be kept on is refused before a byte of it went up. Back, what
//! only opens leaves sealed what it cannot read, and says so.

use super::flow::records::Records;
use super::flow::{Engine, Lasting, Verdict};
use super::letter::{self, Front, Letter};
use super::refusal::Failure;
use super::route::Way;
use super::{Exchange, Proxy, blame, headers, refusal};
use crate::audit::{Record, Side};
use crate::body::coded;
use crate::body::coding::Codings;
use crate::body::flow::Flow;
use crate::body::held::{self, Declared, Held, Unheld, boundary, declared, hold};
use crate::body::records::Framing;
use crate::body::{Arriving, Body, Broken};
use crate::error::{Code, Error};
use crate::policy::Policies;
use crate::transform::{Heads, Shape, Tally};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, request, response};
use hyper::body::Body as _;
use std::sync::Arc;
use std::time::Duration;

impl Proxy {
    /// A request's body under a route's rules: rewritten, or refused before a byte of it went on. An opening route
    /// leaves sealed what it cannot read.
    pub(super) async fn outward(
        &self,
        way: &Way<'_>,
        policies: &Arc<Policies>,
        head: &mut request::Parts,
        incoming: Arriving,
        exchange: &impl Exchange,
        record: &mut Record,
    ) -> Result<(Body, Option<Verdict>), Error> {
        let arrived = self
            .arrive(way, &mut head.headers, incoming, exchange, record)
            .await?;
        if let Arrived::Flowing(incoming, framing) = arrived {
            let front = head.into();
            let engine = self.flowing(way, policies, Side::Request, front, record);
            let (verdict, engine) = engine.await?;
            let body = self.records(engine, incoming, framing, &mut head.headers);
            headers::stream(&mut head.headers);
            return Ok((body, Some(verdict)));
        }
        let body = self.go_on(way, Side::Request, head.into(), arrived, record);
        Ok((body.await?, None))
    }

    /// A request's body, held if it can be read.
    async fn arrive(
        &self,
        way: &Way<'_>,
        headers: &mut HeaderMap,
        incoming: Arriving,
        exchange: &impl Exchange,
        record: &mut Record,
    ) -> Result<Arrived, Error> {
        let rules = way.rules(Side::Request);
        let incoming = incoming.without_trailers(letter::withheld(rules));
        if incoming.is_end_stream() || !rules.reads_bodies() {
            let some = !incoming.is_end_stream();
            return Ok(Arrived::Passing(self.pass(headers, incoming, some)));
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
            return Ok(Arrived::Passing(self.pass(headers, incoming, true)));
        }
        if let (None, Declared::Records(framing)) = (&foreign, declared) {
            return Ok(Arrived::Flowing(incoming, framing));
        }
        let held = match record
            .waiting(hold(
                incoming,
                self.limits.held_body,
                self.limits.held_for,
                &self.room,
            ))
            .await
        {
            Ok(held) => held,
            Err(Unheld::TooLarge(body)) => {
                way.unreadable(
                    Side::Request,
                    Error::from(Code::BodyTooLarge).closing(),
                    "too-large",
                    record,
                )?;
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
                return Err(blame(exchange, Error::from(code).closing()));
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
    pub(super) async fn inward(
        &self,
        way: &Way<'_>,
        expected: Expected<'_>,
        head: &mut response::Parts,
        incoming: Arriving,
        record: &mut Record,
    ) -> Result<Body, Error> {
        let arrived = self.answered(way, expected, head, incoming, record).await?;
        if let Arrived::Flowing(incoming, framing) = arrived {
            let front = head.into();
            let engine = self.flowing(way, expected.policies, Side::Response, front, record);
            let (_, engine) = engine.await?;
            return Ok(self.records(engine, incoming, framing, &mut head.headers));
        }
        self.go_on(way, Side::Response, head.into(), arrived, record)
            .await
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
            return Ok(Arrived::Flowing(incoming, framing));
        }
        let held = match record
            .waiting(hold(
                incoming,
                self.limits.held_body,
                expected.patience,
                &self.room,
            ))
            .await
        {
            Ok(held) => held,
            Err(Unheld::TooLarge(body)) => {
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

    /// The engine for a body that is rewritten while it flows, and what becomes of it; its head is rewritten by itself.
    async fn flowing(
        &self,
        way: &Way<'_>,
        policies: &Arc<Policies>,
        side: Side,
        mut front: Front<'_>,
        record: &mut Record,
    ) -> Result<(Verdict, Engine), Error> {
        self.head_alone(way, side, &mut front, record).await?;
        let lasting = Lasting::of(way, policies)
            .ok_or_else(|| Code::Internal.because("a route of no policy"))?;
        let engine = Engine::new(self, lasting, side, record);
        Ok((engine.verdict(), engine))
    }

    /// A stream of records, rewritten one by one.
    fn records(
        &self,
        engine: Engine,
        incoming: Arriving,
        framing: Framing,
        headers: &mut HeaderMap,
    ) -> Body {
        // Unknown ones were refused by what the head declares.
        let codings = Codings::of(headers).unwrap_or_default();
        let looking = engine.is_observing();
        if !looking {
            headers::unforeseen(headers);
        }
        let records = Records::new(engine, framing, self.limits.record);
        Body::flow(Flow::new(incoming, &codings, records, looking))
    }

    /// The rules on what arrived: on head and body together, or on the head alone.
    async fn go_on(
        &self,
        way: &Way<'_>,
        side: Side,
        mut front: Front<'_>,
        arrived: Arrived,
        record: &mut Record,
    ) -> Result<Body, Error> {
        match arrived {
            Arrived::Held(held) => self.finish(way, side, front, held, record).await,
            Arrived::Passing(body) => {
                self.head_alone(way, side, &mut front, record).await?;
                Ok(body)
            }
            Arrived::Flowing(..) => Err(Code::Internal.because("it is on its way already")),
        }
    }

    /// Rewrites a head whose body goes on as it is.
    async fn head_alone(
        &self,
        way: &Way<'_>,
        side: Side,
        front: &mut Front<'_>,
        record: &mut Record,
    ) -> Result<(), Error> {
        let rules = way.rules(side);
        if !rules.reads_heads() {
            return Ok(());
        }
        let letter = Letter::of(rules, front);
        let mut nothing = Held {
            bytes: Bytes::new(),
            trailers: None,
            room: None,
        };
        let rewritten = self
            .rewrite(
                way,
                side,
                &letter.message(&[], Shape::Unread),
                &mut nothing.room,
            )
            .await;
        match rewritten {
            Ok((_, heads, tally)) => {
                record.tally(side, tally);
                self.put_back(way, side, &letter, heads, front, record)
            }
            Err(failure) => {
                let (error, why) = failure.on(side);
                match why {
                    Some(why) if !rules.seals_heads() => {
                        record.unread(why);
                        Ok(())
                    }
                    _ => way.refuse(error, record),
                }
            }
        }
    }

    /// The new values of a head; an observing route changes none.
    fn put_back(
        &self,
        way: &Way<'_>,
        side: Side,
        letter: &Letter,
        heads: Heads,
        front: &mut Front<'_>,
        record: &mut Record,
    ) -> Result<(), Error> {
        if way.observing {
            return Ok(());
        }
        letter.put_back(heads, front).or_else(|error| {
            let error = match side {
                Side::Request => error,
                Side::Response => Code::UpstreamRefused.because("its head would be too long"),
            };
            way.refuse(error, record)
        })
    }

    /// Rewrites a held body and makes its head true again; an observing route only notes what came of it.
    async fn finish(
        &self,
        way: &Way<'_>,
        side: Side,
        mut front: Front<'_>,
        mut held: Held,
        record: &mut Record,
    ) -> Result<Body, Error> {
        if held.bytes.is_empty() {
            self.head_alone(way, side, &mut front, record).await?;
            return Ok(unchanged(front.headers, held));
        }
        let letter = Letter::of(way.rules(side), &front);
        let rewritten = self
            .within(way, side, front.headers, &letter, &mut held)
            .await;
        match rewritten {
            Ok((bytes, heads, tally)) => {
                record.tally(side, tally);
                self.put_back(way, side, &letter, heads, &mut front, record)?;
                match bytes {
                    Some(bytes) if !way.observing => Ok(changed(front.headers, bytes, held)),
                    _ => Ok(unchanged(front.headers, held)),
                }
            }
            Err(failure) => {
                let unread = failure.is_unread();
                let (error, why) = failure.on(side);
                match why {
                    Some(why) if unread => way.unreadable(side, error, why, record)?,
                    Some(why) => way.unkept(side, error, why, record)?,
                    None => way.refuse(error, record)?,
                }
                // The body passes as it came; its head may have values of its own.
                if unread {
                    self.head_alone(way, side, &mut front, record).await?;
                }
                Ok(unchanged(front.headers, held))
            }
        }
    }

    /// Rewrites a held body inside of its content codings. `held` has the bytes that came, whatever comes of it.
    async fn within(
        &self,
        way: &Way<'_>,
        side: Side,
        headers: &HeaderMap,
        letter: &Letter,
        held: &mut Held,
    ) -> Result<(Option<Bytes>, Heads, Tally), Failure> {
        let declared = declared(headers);
        let boundary = match declared {
            Declared::Multipart => boundary(headers),
            _ => None,
        };
        let shape = letter::shape(way.rules(side), declared, boundary.as_deref());
        // Unknown ones were refused by what the head declares.
        let codings = Codings::of(headers).unwrap_or_default();
        let coded = match codings.is_identity() {
            true => None,
            false => Some(coded::decode(held, &codings, self.limits.held_body, &self.room).await?),
        };
        let body = held.bytes.clone();
        let message = letter.message(&body, shape);
        let rewritten = self.rewrite(way, side, &message, &mut held.room).await;
        let Some(coded) = coded else {
            return rewritten;
        };
        held.bytes = coded.bytes;
        match rewritten? {
            (Some(plain), heads, tally) if !way.observing => {
                let bytes = coded::encode(&plain, &coded.codings).await;
                let bytes = bytes.map_err(|_| Code::Internal.because("a codec failed"))?;
                Ok((Some(bytes), heads, tally))
            }
            other => Ok(other),
        }
    }

    /// A body that nobody looks into.
    pub(super) fn pass(&self, headers: &mut HeaderMap, incoming: Arriving, some: bool) -> Body {
        if some {
            headers::stream(headers);
        }
        Body::stream(incoming)
    }
}

/// What is known of an answer beside itself.
#[derive(Clone, Copy)]
pub(super) struct Expected<'p> {
    /// Of its request.
    pub method: &'p Method,
    /// For the whole of it to come, where it is held.
    pub patience: Duration,
    /// In force for the exchange.
    pub policies: &'p Arc<Policies>,
}

/// What there is of a body when the rules are expected.
enum Arrived {
    /// All of it, to be read.
    Held(Held),
    /// Records, to be read while they flow.
    Flowing(Arriving, Framing),
    /// It goes on as it is.
    Passing(Body),
}

/// A held body goes on as it came.
fn unchanged(headers: &mut HeaderMap, held: Held) -> Body {
    headers::frame(headers, held.bytes.len(), held.trailers.as_ref());
    let bytes = held::kept(held.bytes, held.room);
    Body::whole(bytes, held.trailers)
}

/// Another body goes on: what the head, or the trailers, said of the old one is made true or dropped.
fn changed(headers: &mut HeaderMap, bytes: Bytes, mut held: Held) -> Body {
    headers::changed(headers, &bytes);
    if let Some(trailers) = &mut held.trailers {
        headers::digests(trailers, &bytes);
    }
    let trailers = held.trailers.filter(|trailers| !trailers.is_empty());
    headers::frame(headers, bytes.len(), trailers.as_ref());
    Body::whole(held::kept(bytes, held.room), trailers)
}
