//! What runs in tasks of its own: making a DEK, unwrapping one, renewing a lease, and the janitor that sees when it is
//! time.
//!
//! Nobody else calls a KMS. A task holds the room only as long as it works, ends by the calls' deadline at the latest, and
//! is cut off when the room is closed.

use super::opening::{self, Entry};
use super::sealing::{self, Job, Rotor};
use super::several::{Question, Unwrapping, Verdict};
use super::stored::{Home, NoRecord};
use super::turnstile::Rank;
use super::{Failure, Key, Room, SealError, count, kms};
use crate::dek::{self, Dek, Kid, Material, Scope, SealingKey, Unopened};
use crate::keys::lease::Lease;
use crate::kms::KmsError;
use crate::store;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;

impl From<KmsError> for SealError {
    fn from(error: KmsError) -> SealError {
        SealError {
            failure: Failure::Kms(error.failure),
            retry_after: error.retry_after,
        }
    }
}

impl Room {
    /// Runs a task that ends with the room. What it carries is dropped when the room is closed.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks();
        if self.closed.load(Relaxed) {
            return;
        }
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.runtime);
    }

    /// Looks after leases and ages until the room is gone.
    pub(super) fn start_janitor(self: &Arc<Self>, tick: Duration) {
        let room = Arc::downgrade(self);
        self.spawn(async move {
            loop {
                tokio::time::sleep(tick).await;
                let Some(room) = room.upgrade() else { return };
                room.tend_at(Instant::now());
            }
        });
    }

    fn tend_at(self: &Arc<Self>, now: Instant) {
        for rotor in self.all_rotors() {
            if let Some(job) = rotor.tend_at(now) {
                self.fly(&rotor, job);
            }
        }
        self.rotors.sweep(self.clock_ms(now));
        self.durables.sweep(self.clock_ms(now));
        for entry in self.openings.tend_at(now) {
            let room = Arc::clone(self);
            self.spawn(async move { room.renew_opening(&entry).await });
        }
    }

    /// The rotor's flight: the one under way, or this job in a task of its own.
    pub(super) fn fly(self: &Arc<Self>, rotor: &Arc<Rotor>, job: Job) -> (sealing::Landing, Job) {
        let (landing, of_job, flight) = rotor.board(job, Instant::now());
        if let Some(flight) = flight {
            let room = Arc::clone(self);
            let rotor = Arc::clone(rotor);
            self.spawn(async move {
                let outcome = room.work(&rotor, job).await;
                rotor.land(Instant::now(), flight, outcome);
            });
        }
        (landing, of_job)
    }

    /// A successor ahead of need, unless something is under way or just failed.
    pub(super) fn succeed_at(self: &Arc<Self>, rotor: &Arc<Rotor>, now: Instant) {
        if rotor.wants_successor_at(now) {
            self.fly(rotor, Job::Mint);
        }
    }

    async fn work(&self, rotor: &Rotor, job: Job) -> Result<(), SealError> {
        // For a DEK that is there and good it is housekeeping; without one it is as new as any outsider's wish.
        let rank = match rotor.is_usable_at(Instant::now()) || job == Job::Renew {
            true => Rank::Renewal,
            false => Rank::First,
        };
        if rotor.durable {
            return self.durable(rotor, rank).await;
        }
        match job {
            Job::Mint => self.mint(rotor, rank).await,
            Job::Renew => self.renew_sealing(rotor).await,
        }
    }

    /// Makes a DEK and puts it in the place of the current one. Where it cannot be stored another is made, which travels in tokens.
    async fn mint(&self, rotor: &Rotor, rank: Rank) -> Result<(), SealError> {
        let home = self.home(rotor).await?;
        if !self.make(rotor, rank, home).await? {
            self.make(rotor, rank, Home::Token).await?;
        }
        Ok(())
    }

    /// Makes a DEK, has it wrapped and, where it shall be, stored. False: it could not be stored.
    async fn make(&self, rotor: &Rotor, rank: Rank, home: Home) -> Result<bool, SealError> {
        let key = &rotor.key;
        let unable = |_| SealError::of(Failure::Kms(kms::Failure::Unreachable));
        let purges = key.purges.load(Relaxed);
        let completing = rotor.completing_at(Instant::now());
        let (raw, filled) = self
            .arena
            .hold(|bytes| (self.random)(&mut bytes[..32]))
            .map_err(unable)?;
        filled.map_err(unable)?;
        let raw_dek: &[u8; 32] = raw.expose().first_chunk().expect("32 of 96 bytes");
        let wrapped = self.wrap(key, rank, raw_dek, &rotor.scope).await;
        if let Err(error) = &wrapped
            && error.failure.is_no()
            && rotor.purge(None)
        {
            // Who may not wrap may not go on sealing with what was wrapped before.
            self.purged(key, error.failure.word());
        }
        let wrapped = wrapped?;
        if completing.is_some_and(|missing| wrapped.missing >= missing) {
            rotor.complete_later(Instant::now());
            return Ok(true);
        }
        let (material, kid) = self
            .arena
            .hold(|material| dek::schedule(raw_dek, material))
            .map_err(unable)?;
        let stored = home == Home::Store;
        if stored && !self.keep(raw_dek, kid, &rotor.scope, &wrapped.record).await {
            return Ok(false);
        }
        let fresh = SealingKey {
            dek: Dek::new(kid, Box::new(material)),
            record: wrapped.record,
            stored,
        };
        let lease = Lease::granted(wrapped.sent, &key.terms, self.calls.luck());
        let purged = || key.purges.load(Relaxed) != purges;
        if !purged() {
            rotor.install(fresh, lease, wrapped.sent, wrapped.missing);
            if !stored {
                self.stands_in(rotor, wrapped.sent);
            }
        }
        // Again behind the installation: a purge counts first and lets go second, so that one of the two sees it.
        if purged() {
            rotor.purge(None);
            return Err(SealError::of(Failure::Kms(kms::Failure::Unreachable)));
        }
        count(&self.counters.minted);
        if wrapped.missing > 0 {
            count(&self.counters.incomplete);
        }
        Ok(true)
    }

    /// Asks for the current DEK's record again, at every KMS that wrapped it. After a no the DEK is gone at once, and a fresh one
    /// is asked for: of the same KEKs, which decide anew.
    async fn renew_sealing(&self, rotor: &Rotor) -> Result<(), SealError> {
        let Some(current) = rotor.current() else {
            return self.mint(rotor, Rank::First).await;
        };
        let record = match self.current_record(&rotor.scope, &current).await {
            Ok(record) => record,
            Err(NoRecord::Unreachable) => {
                rotor.unreached(Instant::now(), None);
                count(&self.counters.not_renewed);
                return Err(SealError::of(Failure::Store(store::Failure::Unreachable)));
            }
            Err(gone) => {
                count(&self.counters.not_renewed);
                if rotor.purge(Some(&current.record)) {
                    self.purged(&rotor.key, gone.unopened().word());
                }
                drop(current);
                return self.mint(rotor, Rank::First).await;
            }
        };
        let (key, scope, kid) = (&rotor.key, &rotor.scope, current.dek.kid());
        let question = Question {
            key,
            scope,
            kid,
            record: &record,
            attested: None,
        };
        let (mut agreed, mut refused, mut unsettled) = (false, None, None::<Unwrapping>);
        self.ask_all(question, |verdict| match verdict {
            Verdict::Agreed { sent, superseded } => {
                let lease = Lease::granted(sent, &key.terms, self.calls.luck());
                rotor.renew(lease, superseded, Instant::now());
                agreed = true;
                true
            }
            Verdict::Unsettled(why) => {
                count(&self.counters.not_renewed);
                if unsettled.as_ref().is_none_or(Unwrapping::is_unreachable) {
                    unsettled = Some(why);
                }
                true
            }
            Verdict::Refused(why) => {
                count(&self.counters.not_renewed);
                refused = Some(why);
                false
            }
        })
        .await;
        let now = Instant::now();
        if let Some(why) = refused {
            self.purge_record(key, scope, kid, Some(&current.record), why);
            drop(current);
            return self.mint(rotor, Rank::First).await;
        }
        match unsettled {
            _ if agreed => {
                count(&self.counters.renewed);
                if rotor.wants_successor_at(now) {
                    return self.mint(rotor, Rank::Renewal).await;
                }
                Ok(())
            }
            Some(why) if why.is_malformed() => {
                rotor.doubted(now);
                if rotor.is_usable_at(now) {
                    return Err(SealError::of(Failure::Kms(kms::Failure::Malformed)));
                }
                rotor.purge(Some(&current.record));
                self.mint(rotor, Rank::First).await
            }
            why => {
                let retry_after = why.and_then(|why| why.retry_after());
                rotor.unreached(now, retry_after);
                Err(SealError {
                    failure: Failure::Kms(kms::Failure::Unreachable),
                    retry_after,
                })
            }
        }
    }

    /// Has a record unwrapped that is not in memory, in a task of its own.
    pub(super) fn unwrap_first(
        self: &Arc<Self>,
        key: &Arc<Key>,
        flight: opening::Flight,
        inline: Option<Box<[u8]>>,
    ) {
        let room = Arc::clone(self);
        let key = Arc::clone(key);
        self.spawn(async move {
            let (scope, kid) = flight.id().parts();
            let record = match room.record(kid, scope, inline.as_deref()).await {
                Ok(record) if key.knows(&record) => record,
                found => {
                    let why = found.map_or_else(|no| no.unopened(), |_| Unopened::Foreign);
                    let outcome = room.unrecorded(&key, &flight, why);
                    room.openings.land(Instant::now(), flight, outcome);
                    return;
                }
            };
            let purges = key.purges.load(Relaxed);
            // Those who asked may all have hung up in the queue: no call for nobody.
            let wanted = || !room.openings.is_deserted(&flight);
            let question = Question {
                key: &key,
                scope,
                kid,
                record: &record,
                attested: None,
            };
            let unwrapped = room.unwrap(Rank::First, &wanted, question).await;
            let now = Instant::now();
            let outcome = match unwrapped {
                Err(Unwrapping::Unwanted) => return,
                Ok(_) if key.purges.load(Relaxed) != purges => Err(Unopened::Unreachable),
                Ok(opened) => {
                    let dek = Arc::new(opened.dek);
                    let lease = Lease::granted(opened.sent, &key.terms, room.calls.luck());
                    let kept = Arc::clone(&dek);
                    room.openings.keep(&key, flight.id(), inline, kept, lease);
                    // Behind the keeping, as for a DEK that seals.
                    if key.purges.load(Relaxed) == purges {
                        Ok(dek)
                    } else {
                        room.openings.purge(flight.id());
                        Err(Unopened::Unreachable)
                    }
                }
                // An entry past its lease may have its grace.
                Err(why) if why.is_unreachable() => {
                    if let Some(entry) = room.openings.entry(flight.id()) {
                        entry.unreached(now, why.retry_after());
                    }
                    let in_grace = room.openings.take_at(flight.id(), now);
                    in_grace.ok_or(Unopened::Unreachable)
                }
                Err(why) => {
                    if !why.is_malformed() {
                        room.purge_record(&key, scope, kid, inline.as_deref(), why.word());
                    }
                    Err(why.unopened())
                }
            };
            room.openings.land(now, flight, outcome);
        });
    }

    /// No record behind a token's kid: what is in memory under it goes, or has its grace where the store does not answer.
    fn unrecorded(
        &self,
        key: &Key,
        flight: &opening::Flight,
        why: Unopened,
    ) -> Result<Arc<Dek>, Unopened> {
        if why == Unopened::Unreachable {
            let now = Instant::now();
            if let Some(entry) = self.openings.entry(flight.id()) {
                entry.unreached(now, None);
            }
            return self.openings.take_at(flight.id(), now).ok_or(why);
        }
        if self.openings.purge(flight.id()) {
            self.purged(key, why.word());
        }
        Err(why)
    }

    async fn renew_opening(&self, entry: &Entry) {
        let inline = entry.record.as_deref();
        let record = match self.record(entry.kid, &entry.scope, inline).await {
            Ok(record) => record,
            Err(no) => {
                count(&self.counters.not_renewed);
                match no {
                    NoRecord::Unreachable => entry.unreached(Instant::now(), None),
                    gone => {
                        let why = gone.unopened().word();
                        self.purge_record(&entry.key, &entry.scope, entry.kid, inline, why);
                    }
                }
                return entry.renewed();
            }
        };
        let question = Question {
            key: &entry.key,
            scope: &entry.scope,
            kid: entry.kid,
            record: &record,
            attested: None,
        };
        let unwrapped = self.unwrap(Rank::Renewal, &|| true, question).await;
        let now = Instant::now();
        match &unwrapped {
            Ok(opened) => {
                count(&self.counters.renewed);
                entry.renew(Lease::granted(
                    opened.sent,
                    &entry.key.terms,
                    self.calls.luck(),
                ));
            }
            Err(why) => {
                count(&self.counters.not_renewed);
                if why.is_unreachable() {
                    entry.unreached(now, why.retry_after());
                } else if why.is_malformed() {
                    entry.doubted(now);
                } else {
                    let (key, scope) = (&entry.key, &entry.scope);
                    self.purge_record(key, scope, entry.kid, inline, why.word());
                }
            }
        }
        entry.renewed();
    }

    /// The KMS said no to a record: wherever its DEK is in memory, it goes. One that never opened here is nowhere.
    fn purge_record(
        &self,
        key: &Key,
        scope: &Scope,
        kid: Kid,
        record: Option<&[u8]>,
        why: &'static str,
    ) {
        let opening = self.openings.purge(&opening::Id::new(scope, kid, record));
        let sealing = self
            .rotors
            .get(scope)
            .is_some_and(|rotor| record.is_some() && rotor.purge(record));
        if opening || sealing {
            self.purged(key, why);
        }
    }

    pub(super) fn purged(&self, key: &Key, why: &'static str) {
        count(&self.counters.purged);
        tracing::warn!(key = %key.name, why, "the KMS refused a data key in use: it is let go of");
        self.observe.purged(&key.name, why);
    }
}
