//! What happens to a body that is rewritten while it flows: the three steps on each piece of it, and what comes of a piece on
//! which they fail.
//!
//! Outward, the message ends there, visibly, and the client is told. What only opens passes the piece as it came. Everything here
//! is owned, since the body outlives the call that began it.

pub mod document;
pub mod records;

use super::directions::Directions;
use super::refusal::{Failure, undecoded};
use super::route::Way;
use super::{KeySource, headers};
use crate::audit::{Record, Side, Slip};
use crate::body::Broken;
use crate::body::coding::Undecodable;
use crate::body::held::{self, Room};
use crate::context::Circumstances;
use crate::dek::Ring;
use crate::error::Error;
use crate::transform::{
    Gather, Gathered, GatheredPart, Message, Rules, plan_gathered, plan_message, quoted,
};
use http::HeaderMap;
use std::sync::{Arc, OnceLock};
use tokio::sync::OwnedSemaphorePermit;

/// Why a flow was ended, for whoever waits for what comes of it.
#[derive(Clone, Default)]
pub struct Verdict(Arc<OnceLock<Error>>);

impl Verdict {
    /// It was.
    pub fn refused(&self) -> Option<Error> {
        self.0.get().cloned()
    }
}

/// The three steps for one direction of one exchange.
pub struct Engine {
    /// Of this side of the route.
    rules: Arc<Rules>,
    circumstances: Circumstances,
    observing: bool,
    side: Side,
    keys: Arc<dyn KeySource>,
    /// Records that were not in memory, of all pieces so far.
    uncached: usize,
    room: Room,
    /// What this flow has of it.
    taken: Option<OwnedSemaphorePermit>,
    slip: Slip,
    verdict: Verdict,
}

impl Engine {
    /// For one side of an exchange whose record is `record`.
    pub fn new(from: &Directions, way: &Way<'_>, side: Side, record: &mut Record) -> Engine {
        Engine {
            rules: Arc::clone(way.shared_rules(side)),
            circumstances: way.circumstances.clone(),
            observing: way.observing,
            side,
            keys: Arc::clone(&from.keys),
            uncached: 0,
            room: from.room.clone(),
            taken: None,
            slip: record.flows(side),
            verdict: Verdict::default(),
        }
    }

    /// The flow has this room from its beginning.
    pub fn with(mut self, taken: Option<OwnedSemaphorePermit>) -> Engine {
        self.taken = taken;
        self
    }

    /// Asked when the flow itself is gone.
    pub fn verdict(&self) -> Verdict {
        self.verdict.clone()
    }
    /// What is done is not done to the bytes that go on.
    pub fn is_observing(&self) -> bool {
        self.observing
    }
    /// Bytes of the body came.
    pub fn came(&self, bytes: usize) {
        self.slip.came(bytes);
    }

    /// Plan, fetch, apply, on one JSON document. `kept`: bytes that the flow holds beside it. `None`: nothing is replaced.
    ///
    /// # Errors
    /// To be [judged](Engine::judge).
    pub async fn rewrite(&mut self, text: &[u8], kept: usize) -> Result<Option<Vec<u8>>, Failure> {
        let message = Message::json(text);
        let plan = plan_message(&self.rules, &message, &self.circumstances)?;
        if plan.is_unchanged() {
            self.slip.tally(plan.tally());
            return Ok(None);
        }
        let ring = self.keys.fetch_further(plan.needs(), &mut self.uncached);
        let ring: Ring = ring.await?;
        let memory = kept
            .saturating_add(text.len())
            .saturating_add(plan.memory(&ring));
        if !self.room.enlarge(&mut self.taken, memory) {
            return Err(Failure::Room {
                ever: self.room.could_take(memory),
            });
        }
        let mut out = Vec::new();
        let mut random = |buffer: &mut [u8]| self.keys.random(buffer);
        let (tally, _) = plan.apply_message(&message, &ring, &mut random, &mut out)?;
        self.slip.tally(&tally);
        held::shrink(&mut self.taken, kept);
        Ok((out != text).then_some(out))
    }

    /// What gathers texts from record to record, where a rule of this side does.
    pub fn gather(&self) -> Option<Gather> {
        self.rules.gathers().then(Gather::default)
    }

    /// Takes the texts of a document apart that are gathered.
    pub fn apart(&self, gather: &mut Gather, document: &[u8]) -> Gathered {
        gather.document(&self.rules, document)
    }

    /// A gathered text put together, in quotes, its tokens opened as far as they open.
    ///
    /// # Errors
    /// To be [judged](Engine::judge).
    pub async fn together(&mut self, parts: &[GatheredPart]) -> Result<Vec<u8>, Failure> {
        let mut out = vec![b'"'];
        for part in parts {
            let (rule, token) = match part {
                GatheredPart::Text(text) => {
                    let text = quoted(text);
                    out.extend_from_slice(&text[1..text.len() - 1]);
                    continue;
                }
                GatheredPart::Token(rule, token) => (*rule, quoted(token)),
            };
            let message = Message::json(&token);
            let plan = plan_gathered(&self.rules, rule, &token, &self.circumstances)?;
            let ring = self.keys.fetch_further(plan.needs(), &mut self.uncached);
            let ring: Ring = ring.await?;
            let mut opened = Vec::new();
            let mut random = |buffer: &mut [u8]| self.keys.random(buffer);
            let (tally, _) = plan.apply_message(&message, &ring, &mut random, &mut opened)?;
            self.slip.tally(&tally);
            match &*opened {
                [b'"', inner @ .., b'"'] => out.extend_from_slice(inner),
                b"null" if tally.nulled > 0 => {}
                // A number, say, in the midst of a text.
                other => {
                    let text = quoted(&String::from_utf8_lossy(other));
                    out.extend_from_slice(&text[1..text.len() - 1]);
                }
            }
        }
        out.push(b'"');
        Ok(out)
    }

    /// Keeps room for what the flow holds.
    ///
    /// # Errors
    /// Other bodies take it all: to be [judged](Engine::judge).
    pub fn keep(&mut self, bytes: usize) -> Result<(), Failure> {
        if bytes == 0 {
            self.taken = None;
            return Ok(());
        }
        held::shrink(&mut self.taken, bytes);
        match self.room.enlarge(&mut self.taken, bytes) {
            true => Ok(()),
            false => Err(Failure::Room {
                ever: self.room.could_take(bytes),
            }),
        }
    }

    /// A piece could not be rewritten.
    ///
    /// # Errors
    /// The message ends here. Otherwise the piece passes as it came, and that was noted.
    pub fn judge(&self, failure: Failure) -> Result<(), Broken> {
        let unread = failure.is_unread();
        let (error, why) = failure.on(self.side);
        self.decide(error, why, unread)
    }

    /// As [`Engine::judge`], of what cannot be read for another reason.
    ///
    /// # Errors
    /// As there.
    pub fn unreadable(&self, error: Error, why: &'static str) -> Result<(), Broken> {
        self.decide(error, Some(why), true)
    }

    /// What cannot be understood does not pass on this side, but where it only observes.
    pub fn must_understand(&self) -> bool {
        self.rules.must_understand()
    }

    fn decide(&self, error: Error, why: Option<&'static str>, unread: bool) -> Result<(), Broken> {
        let passes = match unread {
            true => !self.must_understand(),
            false => !self.rules.seals() && !self.rules.rejects(),
        };
        match why {
            Some(why) if passes => {
                self.slip.unread(why);
                Ok(())
            }
            _ if self.observing => {
                self.slip.would_refuse(error.reason());
                Ok(())
            }
            _ => self.refuse(error),
        }
    }

    /// The message ends here.
    ///
    /// # Errors
    /// Always.
    pub fn refuse(&self, error: Error) -> Result<(), Broken> {
        self.slip.refused(error.reason());
        let _ = self.verdict.0.set(error.closing());
        Err(Broken::Refused)
    }

    /// The codings cannot be taken off: the rest passes as it came, if nothing of it went on and it may.
    ///
    /// # Errors
    /// The message ends here.
    pub fn undecodable(&self, why: Undecodable, begun: bool) -> Result<(), Broken> {
        let (error, why) = undecoded(why, self.side);
        match begun {
            true => self.refuse(error),
            false => self.unreadable(error, why),
        }
    }

    /// What the trailers say of the body is not true of what it became.
    pub fn trailers(&self, trailers: &mut HeaderMap) {
        headers::without_digests(trailers);
    }
}
