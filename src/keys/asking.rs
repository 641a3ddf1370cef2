//! What a body's needs find here: from memory at the first poll, or a flight to wait for, or a refusal.

use super::opening::{self, Id};
use super::sealing::{Rotor, Rotors, Take};
use super::{Failure, Room, SealError, count};
use crate::dek::{Dek, OpenNeed, SealNeed, SealingKey, Suite, Unopened};
use crate::kms;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::time::Instant;

/// What is known about a record that is to be opened.
pub(super) enum Open {
    Known(Result<Arc<Dek>, Unopened>),
    Awaited(opening::Landing),
}

impl Room {
    /// The warm path of sealing.
    pub(super) fn seal_at(
        self: &Arc<Self>,
        need: &SealNeed,
        now: Instant,
    ) -> Option<Arc<SealingKey>> {
        let taken =
            self.rotors_of(need.suite)
                .take_at(&need.scope, now, self.clock_ms(now), need.values);
        match taken {
            Some((Take::Ready(key), low)) => {
                if low && let Some(rotor) = self.rotors_of(need.suite).get(&need.scope) {
                    self.succeed_at(&rotor, now);
                }
                count(&self.counters.sealing_hits);
                Some(key)
            }
            _ => {
                count(&self.counters.sealing_misses);
                None
            }
        }
    }

    fn rotors_of(&self, suite: Suite) -> &Rotors {
        match suite {
            Suite::Xaes256Gcm => &self.rotors,
            Suite::Aes256Siv => &self.durables,
        }
    }

    /// Those of randomised and of deterministic scopes.
    pub(super) fn all_rotors(&self) -> Vec<Arc<Rotor>> {
        let mut all = self.rotors.all();
        all.extend(self.durables.all());
        all
    }

    fn rotor(&self, need: &SealNeed, now: Instant) -> Result<Arc<Rotor>, SealError> {
        let unknown = || SealError::of(Failure::UnknownKey);
        let key = self.keys.get(&need.scope.key).ok_or_else(unknown)?;
        self.rotors_of(need.suite)
            .get_or_make(key, &need.scope, now, self.clock_ms(now))
            .inspect_err(|error| {
                if error.failure == Failure::Newcomers {
                    count(&self.counters.newcomers_refused);
                }
            })
    }

    /// Starts what a need will wait for, without waiting.
    pub(super) fn prepare_at(self: &Arc<Self>, need: &SealNeed, now: Instant) {
        if let Ok(rotor) = self.rotor(need, now)
            && let (Take::Wait(job), _) = rotor.take_at(now, self.clock_ms(now), 0)
        {
            self.fly(&rotor, job);
        }
    }

    /// The cold path of sealing.
    pub(super) async fn seal(
        self: &Arc<Self>,
        need: &SealNeed,
    ) -> Result<Arc<SealingKey>, SealError> {
        let rotor = self.rotor(need, Instant::now())?;
        // Each round ends with a fresh DEK for somebody or with an error: whoever is overtaken goes on.
        let mut failed = None;
        loop {
            let now = Instant::now();
            let job = match rotor.take_at(now, self.clock_ms(now), need.values).0 {
                Take::Ready(key) => return Ok(key),
                Take::Refused(error) => return Err(error),
                Take::Wait(job) => job,
            };
            if let Some(error) = failed {
                return Err(error);
            }
            let (mut landing, of_job) = self.fly(&rotor, job);
            failed = match landing.wait_for(Option::is_some).await {
                // Of another job than the one that is wanted: no reason to give up.
                Ok(_) if of_job != job => None,
                Ok(landed) => landed.clone().and_then(Result::err),
                Err(_) if self.closed.load(Relaxed) => Some(SealError::of(Failure::Closed)),
                Err(_) => Some(SealError::of(Failure::Kms(kms::Failure::Unreachable))),
            };
        }
    }

    /// What is known of a record, or the flight to wait for. Counts what is uncached against the body's budget, and
    /// asks no KMS about what none of the key's KEKs made.
    pub(super) fn open_at(
        self: &Arc<Self>,
        need: &OpenNeed,
        now: Instant,
        uncached: &mut usize,
    ) -> Open {
        if need.record.is_none() && self.stored.is_none() {
            return Open::Known(Err(Unopened::NotFound));
        }
        let id = Id::of(need);
        if let Some(dek) = self.openings.take_at(&id, now) {
            count(&self.counters.opening_hits);
            return Open::Known(Ok(dek));
        }
        count(&self.counters.opening_misses);
        let key = match self.keys.get(&need.scope.key) {
            Some(key) if need.record.as_ref().is_none_or(|record| key.knows(record)) => key,
            _ => {
                count(&self.counters.foreign);
                return Open::Known(Err(Unopened::Foreign));
            }
        };
        if let Some(why) = self.openings.refusal_at(&id, now) {
            count(&self.counters.remembered_refusals);
            return Open::Known(Err(why));
        }
        *uncached += 1;
        let boarded = match *uncached <= self.keys_per_body_max {
            true => self.openings.board(&id),
            false => None,
        };
        match boarded {
            Some((landing, flight)) => {
                if let Some(flight) = flight {
                    self.unwrap_first(key, flight, need.record.clone());
                }
                Open::Awaited(landing)
            }
            None => {
                count(&self.counters.over_budget);
                Open::Known(Err(Unopened::OverBudget))
            }
        }
    }
}
