//! The two directions of a body under a route's rules: what is held, what is refused unread, what passes sealed, and the
//! head made true for what goes on.
//!
//! Outward fails closed: a body that a sealing rule cannot be kept on is refused before a byte of it went up. Back, what
//! only opens leaves sealed what it cannot read, and says so.

use super::route::Way;
use super::{Exchange, Proxy, blame, headers, refusal};
use crate::audit::{Record, Side};
use crate::body::held::{self, Declared, Held, Unheld, declared, hold};
use crate::body::{Arriving, Body, Broken};
use crate::error::{Code, Error};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, response};
use hyper::body::Body as _;

impl Proxy {
    /// A request's body under a route's rules: rewritten, or refused before a byte of it went on. An opening route
    /// leaves sealed what it cannot read.
    pub(super) async fn outward(
        &self,
        way: &Way<'_>,
        headers: &mut HeaderMap,
        incoming: Arriving,
        exchange: &impl Exchange,
        record: &mut Record,
    ) -> Result<Body, Error> {
        if incoming.is_end_stream() {
            return Ok(self.pass(headers, incoming, false));
        }
        let declared = declared(headers);
        let foreign = refusal::of_request(declared);
        // A Content-Length says that the body is not empty: there is nothing to wait for. One of 0 with a body still to end is
        // what some clients send over HTTP/2.
        if let (Some(error), Some(1..)) = (&foreign, incoming.size_hint().exact()) {
            way.unreadable(
                Side::Request,
                error.clone().closing(),
                declared.word(),
                record,
            )?;
            return Ok(self.pass(headers, incoming, true));
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
                return Ok(body);
            }
            Err(Unheld::Late(body)) => {
                way.unreadable(
                    Side::Request,
                    Error::from(Code::BodyTimeout).closing(),
                    "late",
                    record,
                )?;
                headers::stream(headers);
                return Ok(body);
            }
            Err(Unheld::NoRoom(body)) => {
                let error = Code::Busy.because("no room to hold the body");
                way.unreadable(Side::Request, error.closing(), "no-room", record)?;
                headers::stream(headers);
                return Ok(body);
            }
            Err(Unheld::Broken(broken)) => {
                let code = match broken {
                    Broken::Late => Code::BodyTimeout,
                    Broken::Cut | Broken::Transport(_) => Code::BodyBroken,
                };
                return Err(blame(exchange, Error::from(code).closing()));
            }
        };
        record.request_bytes(Some(held.bytes.len() as u64));
        if let Some(error) = foreign.filter(|_| !held.bytes.is_empty()) {
            way.unreadable(Side::Request, error, declared.word(), record)?;
            return Ok(unchanged(headers, held));
        }
        self.finish(way, Side::Request, headers, held, record).await
    }

    /// An answer's body under a route's rules. What cannot be read passes sealed, unless the route seals it.
    pub(super) async fn inward(
        &self,
        way: &Way<'_>,
        method: &Method,
        head: &mut response::Parts,
        incoming: Arriving,
        record: &mut Record,
    ) -> Result<Body, Error> {
        if way.rewrites(Side::Response) {
            headers::withhold_ranges(&mut head.headers);
        }
        if *method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED {
            if way.rewrites(Side::Response) {
                headers::without_body(&mut head.headers);
            }
            return Ok(Body::stream(incoming));
        }
        if incoming.is_end_stream() {
            return Ok(Body::stream(incoming));
        }
        let why = match (head.status, declared(&head.headers)) {
            (StatusCode::PARTIAL_CONTENT, _) => Some("partial"),
            (_, Declared::Json) => None,
            (_, declared) => Some(declared.word()),
        };
        if let Some(why) = why {
            way.unreadable(
                Side::Response,
                Code::UpstreamUnreadable.because(why),
                why,
                record,
            )?;
            return Ok(Body::stream(incoming));
        }
        let held = match record
            .waiting(hold(
                incoming,
                self.limits.held_body,
                self.upstream.patience(),
                &self.room,
            ))
            .await
        {
            Ok(held) => held,
            Err(Unheld::TooLarge(body)) => {
                let error = Code::UpstreamUnreadable.because("too-large");
                way.unreadable(Side::Response, error, "too-large", record)?;
                return Ok(body);
            }
            Err(Unheld::Late(body)) => {
                way.unreadable(
                    Side::Response,
                    Code::UpstreamTimeout.because("the answer's body"),
                    "late",
                    record,
                )?;
                return Ok(body);
            }
            Err(Unheld::NoRoom(body)) => {
                let error = Code::UpstreamUnreadable.because("no room to hold the body");
                way.unreadable(Side::Response, error, "no-room", record)?;
                return Ok(body);
            }
            Err(Unheld::Broken(_)) => {
                return Err(Code::UpstreamBroken.because("the answer's body broke off"));
            }
        };
        self.finish(way, Side::Response, &mut head.headers, held, record)
            .await
    }

    /// Rewrites a held body and makes its head true again; an observing route only notes what came of it.
    async fn finish(
        &self,
        way: &Way<'_>,
        side: Side,
        headers: &mut HeaderMap,
        mut held: Held,
        record: &mut Record,
    ) -> Result<Body, Error> {
        if held.bytes.is_empty() {
            return Ok(unchanged(headers, held));
        }
        let rewritten = self
            .rewrite(way.rules(side), &mut held, &way.circumstances)
            .await;
        match rewritten {
            Ok((bytes, tally)) => {
                record.tally(side, tally);
                match bytes {
                    Some(bytes) if !way.observing => Ok(changed(headers, bytes, held)),
                    _ => Ok(unchanged(headers, held)),
                }
            }
            Err(failure) => {
                let (error, why) = failure.on(side);
                match why {
                    Some(why) => way.unreadable(side, error, why, record)?,
                    None => way.refuse(error, record)?,
                }
                Ok(unchanged(headers, held))
            }
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
