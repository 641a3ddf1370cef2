//! The three steps on what there is of a message, head and body or head alone, and a head that stays true whatever came of them.

use super::{Arrived, Directions, Flowing, Read};
use crate::audit::{Record, Side};
use crate::body::Body;
use crate::body::coded;
use crate::body::coding::{Codings, Undecodable};
use crate::body::held::{self, Declared, Held, boundary, declared};
use crate::error::{Code, Error};
use crate::policy::Signed;
use crate::proxy::headers;
use crate::proxy::letter::{self, Front, Letter};
use crate::proxy::refusal::Failure;
use crate::proxy::route::Way;
use crate::transform::{Heads, Message, Shape, Tally, plan_message};
use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::OwnedSemaphorePermit;

impl Directions {
    /// The rules on what arrived: on head and body together, or on the head alone.
    pub(super) async fn read(
        &self,
        way: &Way<'_>,
        side: Side,
        mut front: Front<'_>,
        arrived: Arrived,
        record: &mut Record,
    ) -> Result<Read, Error> {
        match arrived {
            Arrived::Held(held) => self.finish(way, side, &mut front, held, record).await,
            Arrived::Passing(body) => {
                self.head_alone(way, side, &mut front, record).await?;
                Ok(Read::Body(body))
            }
            Arrived::Flowing(flowing) => Ok(Read::Flowing(flowing)),
        }
    }

    /// Rewrites a head whose body goes on as it is.
    pub(super) async fn head_alone(
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
        front: &mut Front<'_>,
        mut held: Held,
        record: &mut Record,
    ) -> Result<Read, Error> {
        if held.bytes.is_empty() {
            self.head_alone(way, side, front, record).await?;
            return Ok(Read::Body(unchanged(front.headers, held)));
        }
        let letter = Letter::of(way.rules(side), front);
        let rewritten = self
            .within(way, side, front.headers, &letter, &mut held)
            .await;
        match rewritten {
            Ok((bytes, heads, tally)) => {
                record.tally(side, tally);
                if bytes.is_some() {
                    unsigned(way, side, front.headers, record)?;
                }
                self.put_back(way, side, &letter, heads, front, record)?;
                Ok(Read::Body(match bytes {
                    Some(bytes) if !way.observing => changed(front.headers, bytes, held),
                    _ => unchanged(front.headers, held),
                }))
            }
            Err(Failure::Coded(undecoded))
                if undecoded == Undecodable::TooLarge.into()
                    && self
                        .in_pieces(way.rules(side), declared(front.headers))
                        .is_ok() =>
            {
                let bytes = held::kept(held.bytes, held.room);
                let body = Body::whole(bytes, held.trailers);
                Ok(Read::Flowing(Flowing::Document(body)))
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
                    self.head_alone(way, side, front, record).await?;
                }
                Ok(Read::Body(unchanged(front.headers, held)))
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

    /// Plan, fetch, apply. `None`: nothing is replaced.
    async fn rewrite(
        &self,
        way: &Way<'_>,
        side: Side,
        message: &Message<'_>,
        room: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<(Option<Bytes>, Heads, Tally), Failure> {
        let body = message.body;
        let plan = plan_message(way.rules(side), message, &way.circumstances)?;
        if plan.is_unchanged() {
            return Ok((None, Heads::default(), plan.tally().clone()));
        }
        let ring = self.keys.fetch(plan.needs()).await?;
        let memory = body.len().saturating_add(plan.memory(&ring));
        if !self.room.enlarge(room, memory) {
            return Err(Failure::Room {
                ever: self.room.could_take(memory),
            });
        }
        let mut out = Vec::new();
        let mut random = |buffer: &mut [u8]| self.keys.random(buffer);
        let (tally, heads) = plan.apply_message(message, &ring, &mut random, &mut out)?;
        let replaced = out != body;
        held::shrink(room, body.len().max(out.len()));
        Ok((replaced.then(|| out.into()), heads, tally))
    }
}

/// A request that is signed over its body keeps it, or is refused, unless its route is for such, too.
pub(super) fn unsigned(
    way: &Way<'_>,
    side: Side,
    headers: &HeaderMap,
    record: &mut Record,
) -> Result<(), Error> {
    match headers::signed_over_body(headers) {
        Some(by) if side == Side::Request && way.route.signed == Signed::Reject => {
            way.refuse(Code::SignedBody.because(by).closing(), record)
        }
        _ => Ok(()),
    }
}

/// A held body goes on as it came.
pub(super) fn unchanged(headers: &mut HeaderMap, held: Held) -> Body {
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
