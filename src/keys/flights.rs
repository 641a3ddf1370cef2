//! What runs in tasks of its own: making a DEK, unwrapping one, renewing a lease, and the janitor that sees when it is
//! time.
//!
//! Nobody else calls a KMS. A task holds the room only as long as it works, ends by the calls' deadline at the latest, and
//! is cut off when the room is closed.

use super::opening::{self, Entry};
use super::sealing::{self, Job, Rotor};
use super::stored::{Home, NoRecord};
use super::turnstile::{Permit, Rank};
use super::{Failure, Key, Room, SealError, count, kms};
use crate::arena::Slot;
use crate::dek::{self, Dek, Kid, Material, Scope, SealingKey, Unopened};
use crate::keys::lease::Lease;
use crate::kms::KmsError;
use crate::store;
use crate::token::Record;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;

/// A DEK as the KMS unwrapped it, checked against its kid.
pub(super) struct Opened {
    pub dek: Dek,
    pub superseded: bool,
    /// When the call that brought it was sent.
    pub sent: Instant,
}

/// Why a record did not open.
pub(super) enum Unwrapping {
    Failed(KmsError),
    /// The KMS answered, but not with the DEK that the kid names.
    OtherDek,
}

impl From<KmsError> for SealError {
    fn from(error: KmsError) -> SealError {
        SealError {
            failure: Failure::Kms(error.failure),
            retry_after: error.retry_after,
        }
    }
}

impl Unwrapping {
    pub(super) fn is_unreachable(&self) -> bool {
        matches!(self, Unwrapping::Failed(error) if error.failure == kms::Failure::Unreachable)
    }

    pub(super) fn is_malformed(&self) -> bool {
        matches!(self, Unwrapping::Failed(error) if error.failure == kms::Failure::Malformed)
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Unwrapping::Failed(error) => error.retry_after,
            Unwrapping::OtherDek => None,
        }
    }

    pub(super) fn word(&self) -> &'static str {
        match self {
            Unwrapping::Failed(error) => error.failure.word(),
            Unwrapping::OtherDek => "mismatch",
        }
    }

    /// For a record that was asked about for the first time.
    fn unopened(&self) -> Unopened {
        use kms::Failure::*;
        match self {
            Unwrapping::Failed(error) => match error.failure {
                Unreachable => Unopened::Unreachable,
                Denied | Disabled | Destroyed => Unopened::Denied,
                NotFound => Unopened::NotFound,
                Malformed => Unopened::Mismatch,
            },
            Unwrapping::OtherDek => Unopened::Mismatch,
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
        let (landing, of_job, flight) = rotor.board(job);
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
        let permit = self.calls.enter(rank).await;
        let purges = key.purges.load(Relaxed);
        let (raw, filled) = self
            .arena
            .hold(|bytes| (self.random)(&mut bytes[..32]))
            .map_err(unable)?;
        filled.map_err(unable)?;
        let raw_dek: &[u8; 32] = raw.expose().first_chunk().expect("32 of 96 bytes");
        let sent = Instant::now();
        let kek = &key.seal_with;
        let wrapped = self.calls.wrap(&permit, kek, raw_dek, &rotor.scope).await;
        if let Err(error) = &wrapped
            && error.failure.is_no()
            && rotor.purge(None)
        {
            // Who may not wrap may not go on sealing with what was wrapped before.
            self.purged(key, error.failure.word());
        }
        let blob = wrapped?;
        let record = Record::build(&[(kek.id, &blob)])
            .map_err(|_| SealError::of(Failure::Kms(kms::Failure::Malformed)))?;
        let (material, kid) = self
            .arena
            .hold(|material| dek::schedule(raw_dek, material))
            .map_err(unable)?;
        drop(permit);
        let stored = home == Home::Store;
        if stored && !self.keep(raw_dek, kid, &rotor.scope, &record).await {
            return Ok(false);
        }
        let fresh = SealingKey {
            dek: Dek::new(kid, Box::new(material)),
            record,
            stored,
        };
        let lease = Lease::granted(sent, &key.terms, self.luck());
        let purged = || key.purges.load(Relaxed) != purges;
        if !purged() {
            rotor.install(fresh, lease, sent);
            if !stored {
                self.stands_in(rotor, sent);
            }
        }
        // Again behind the installation: a purge counts first and lets go second, so that one of the two sees it.
        if purged() {
            rotor.purge(None);
            return Err(SealError::of(Failure::Kms(kms::Failure::Unreachable)));
        }
        count(&self.counters.minted);
        Ok(true)
    }

    /// Asks for the current DEK's record again. After a no the DEK is gone at once, and a fresh one is asked for: of the
    /// same KEK, which decides anew.
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
        let permit = self.calls.enter(Rank::Renewal).await;
        let unwrapped = self
            .unwrap(
                &permit,
                &rotor.key,
                &rotor.scope,
                current.dek.kid(),
                &record,
                None,
            )
            .await;
        drop(permit);
        let now = Instant::now();
        match unwrapped {
            Ok(opened) => {
                let lease = Lease::granted(opened.sent, &rotor.key.terms, self.luck());
                rotor.renew(lease, opened.superseded, now);
                count(&self.counters.renewed);
                if rotor.wants_successor_at(now) {
                    return self.mint(rotor, Rank::Renewal).await;
                }
                Ok(())
            }
            Err(why) if why.is_unreachable() => {
                rotor.unreached(now, why.retry_after());
                count(&self.counters.not_renewed);
                Err(SealError {
                    failure: Failure::Kms(kms::Failure::Unreachable),
                    retry_after: why.retry_after(),
                })
            }
            Err(why) if why.is_malformed() => {
                rotor.doubted(now);
                count(&self.counters.not_renewed);
                if rotor.is_usable_at(now) {
                    return Err(SealError::of(Failure::Kms(kms::Failure::Malformed)));
                }
                rotor.purge(Some(&current.record));
                self.mint(rotor, Rank::First).await
            }
            Err(why) => {
                count(&self.counters.not_renewed);
                self.purge_record(
                    &rotor.key,
                    &rotor.scope,
                    current.dek.kid(),
                    Some(&current.record),
                    why.word(),
                );
                drop(current);
                self.mint(rotor, Rank::First).await
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
            let permit = room.calls.enter(Rank::First).await;
            // Those who asked may all have hung up in the queue: no call for nobody.
            if room.openings.is_deserted(&flight) {
                return;
            }
            let purges = key.purges.load(Relaxed);
            let unwrapped = room.unwrap(&permit, &key, scope, kid, &record, None).await;
            drop(permit);
            let now = Instant::now();
            let outcome = match unwrapped {
                Ok(_) if key.purges.load(Relaxed) != purges => Err(Unopened::Unreachable),
                Ok(opened) => {
                    let dek = Arc::new(opened.dek);
                    let lease = Lease::granted(opened.sent, &key.terms, room.luck());
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
        let permit = self.calls.enter(Rank::Renewal).await;
        let unwrapped = self
            .unwrap(&permit, &entry.key, &entry.scope, entry.kid, &record, None)
            .await;
        drop(permit);
        let now = Instant::now();
        match &unwrapped {
            Ok(opened) => {
                count(&self.counters.renewed);
                entry.renew(Lease::granted(opened.sent, &entry.key.terms, self.luck()));
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

    /// Unwraps a record by the first of its wrappings whose KMS can be reached. A no of one is not taken to another.
    /// `attested`: epoch and MAC of the store's row, where the DEK is to seal.
    pub(super) async fn unwrap(
        &self,
        permit: &Permit,
        key: &Key,
        scope: &Scope,
        kid: Kid,
        record: &[u8],
        attested: Option<(u64, [u8; 16])>,
    ) -> Result<Opened, Unwrapping> {
        let foreign = || KmsError::new(kms::Failure::Malformed, "wrapped under no KEK of this key");
        let parsed = Record::parse(record).map_err(|_| Unwrapping::Failed(foreign()))?;
        let mut failed = foreign();
        for (id, blob) in parsed.wrappings() {
            let Some(kek) = key.keks.iter().find(|kek| kek.id == id) else {
                continue;
            };
            let sent = Instant::now();
            match self.calls.unwrap(permit, kek, blob, scope).await {
                Ok(unwrapped) => {
                    let raw: &[u8; 32] = unwrapped.dek[..]
                        .try_into()
                        .map_err(|_| Unwrapping::OtherDek)?;
                    let (material, found) = self.schedule(raw).ok_or_else(|| {
                        Unwrapping::Failed(KmsError::new(kms::Failure::Unreachable, "no memory"))
                    })?;
                    let genuine = attested
                        .is_none_or(|(epoch, mac)| dek::row_mac(raw, scope, epoch) == Some(mac));
                    if found != kid || !genuine {
                        return Err(Unwrapping::OtherDek);
                    }
                    return Ok(Opened {
                        dek: Dek::new(kid, Box::new(material)),
                        superseded: unwrapped.superseded,
                        sent,
                    });
                }
                Err(error) if error.failure == kms::Failure::Unreachable => failed = error,
                Err(error) => return Err(Unwrapping::Failed(error)),
            }
        }
        Err(Unwrapping::Failed(failed))
    }

    pub(super) fn schedule(&self, raw: &[u8; 32]) -> Option<(Slot, Kid)> {
        self.arena
            .hold(|material| dek::schedule(raw, material))
            .ok()
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

    /// Where in its window an attempt falls. Without randomness all fall at its beginning, which is safe.
    pub(super) fn luck(&self) -> u16 {
        let mut bytes = [0; 2];
        match (self.random)(&mut bytes) {
            Ok(()) => u16::from_be_bytes(bytes),
            Err(_) => 0,
        }
    }
}
