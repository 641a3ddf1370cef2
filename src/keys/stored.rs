//! What the key room wants of a store: a home for the DEKs that it makes, the record behind a reference, and the one DEK of each
//! deterministic scope.
//!
//! Store first, token second. A store that does not answer holds nobody up: calls have a deadline, and after one that failed
//! the next are answered here for a while. Sealing then goes on inline, under a fresh DEK, since the one that could not be
//! stored may have been; deterministic scopes are refused. What a store says of a deleted DEK is obeyed in every form.

use super::lease::Lease;
use super::sealing::Rotor;
use super::several::{Opened, Question, Unwrapping};
use super::turnstile::Rank;
use super::{Failure, Key, Observe, Room, SealError, count, kms};
use crate::dek::{self, Kid, Material, Scope, SealingKey, Unopened};
use crate::store::{self, Entry, OWN, Put, Rewrap, Row, Store, StoreError};
use moka::sync::Cache;
use std::future::Future;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Calls under way at a time.
const CALLS_MAX: usize = 16;
/// Deleted kids that are refused without asking.
const DELETED_MAX: u64 = 65_536;
/// After the first failure; doubled with each, up to [`WALL_MOST`].
const WALL_LEAST: Duration = Duration::from_millis(250);
/// Also how long after a store is back it may go unnoticed.
const WALL_MOST: Duration = Duration::from_secs(5);
/// How long an inline DEK that stands in for a stored one seals before the store is tried again.
const STAND_IN_FOR: Duration = Duration::from_secs(30);

/// Where the record of a fresh DEK goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Home {
    /// Into each token.
    Token,
    Store,
}

/// Why there is no record behind a kid.
pub(super) enum NoRecord {
    Unreachable,
    Absent,
    Deleted,
    /// Of another key name or tenant.
    Foreign,
}

impl NoRecord {
    pub(super) fn unopened(&self) -> Unopened {
        match self {
            NoRecord::Unreachable => Unopened::Unreachable,
            NoRecord::Absent => Unopened::NotFound,
            NoRecord::Deleted => Unopened::Deleted,
            NoRecord::Foreign => Unopened::Foreign,
        }
    }
}

/// A store, with its bounds.
pub(super) struct Stored {
    store: Arc<dyn Store>,
    deadline: Duration,
    turns: Semaphore,
    wall: Mutex<Wall>,
    deleted: Cache<Kid, ()>,
    /// Seconds since 1970.
    clock: fn() -> u64,
    observe: Arc<dyn Observe>,
}

/// After a failure nobody is sent into it for a while.
#[derive(Default)]
struct Wall {
    failures: u32,
    until: Option<Instant>,
}

impl Wall {
    /// Whether to call. After a pause one call goes ahead, and the others are refused until it is answered.
    fn admit_at(&mut self, now: Instant, deadline: Duration) -> bool {
        if self.until.is_some_and(|until| now < until) {
            return false;
        }
        if self.failures > 0 {
            self.until = Some(now + deadline);
        }
        true
    }

    fn failed(&mut self, now: Instant) {
        let pause = WALL_LEAST * (1 << self.failures.min(8));
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + pause.min(WALL_MOST));
    }
}

impl Stored {
    pub(super) fn new(
        store: Arc<dyn Store>,
        deadline: Duration,
        clock: fn() -> u64,
        observe: Arc<dyn Observe>,
    ) -> Stored {
        Stored {
            store,
            deadline,
            turns: Semaphore::new(CALLS_MAX),
            wall: Mutex::default(),
            deleted: Cache::new(DELETED_MAX),
            clock,
            observe,
        }
    }

    fn wall(&self) -> MutexGuard<'_, Wall> {
        self.wall.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a call would be answered here.
    fn is_walled_at(&self, now: Instant) -> bool {
        self.wall().until.is_some_and(|until| now < until)
    }

    /// One call. Nothing of it is begun where the last ones failed.
    async fn call<'a, T>(
        &'a self,
        verb: &'static str,
        ask: impl FnOnce(&'a dyn Store) -> store::Answer<'a, T>,
    ) -> Result<T, StoreError> {
        let sent = Instant::now();
        if !self.wall().admit_at(sent, self.deadline) {
            let detail = "not called: the last call failed";
            return Err(StoreError::new(store::Failure::Unreachable, detail));
        }
        let asked = async {
            // Never closed.
            let _turn = self.turns.acquire().await;
            ask(&*self.store).await
        };
        let answer = tokio::time::timeout(self.deadline, asked).await;
        let answer = answer.unwrap_or_else(|_| {
            let detail = "no answer in time";
            Err(StoreError::new(store::Failure::Unreachable, detail))
        });
        let now = Instant::now();
        let outcome = match &answer {
            Ok(_) => {
                *self.wall() = Wall::default();
                "ok"
            }
            Err(error) => {
                self.wall().failed(now);
                tracing::warn!(store = self.store.name(), verb, %error, "store call failed");
                error.failure.word()
            }
        };
        let micros = u64::try_from((now - sent).as_micros()).unwrap_or(u64::MAX);
        let name = self.store.name();
        self.observe.store_call(name, verb, outcome, micros);
        answer
    }

    async fn get(&self, kid: Kid) -> Result<Option<Entry>, StoreError> {
        let found = self.call("get", |store| store.get(kid)).await?;
        if let Some(Entry::Tombstone(_)) = &found {
            self.deleted.insert(kid, ());
        }
        Ok(found)
    }

    fn row(&self, kid: Kid, scope: &Scope, epoch: u64, record: &[u8], mac: [u8; 16]) -> Row {
        Row {
            kid,
            scope: scope.clone(),
            epoch,
            created: (self.clock)(),
            record: record.into(),
            mac,
        }
    }

    /// The record behind a kid, for this scope.
    async fn record(&self, kid: Kid, scope: &Scope) -> Result<Box<[u8]>, NoRecord> {
        if self.deleted.contains_key(&kid) {
            return Err(NoRecord::Deleted);
        }
        match self.get(kid).await {
            Ok(Some(Entry::Row(row))) if row.scope == *scope => Ok(row.record),
            Ok(Some(Entry::Row(_))) => Err(NoRecord::Foreign),
            Ok(Some(Entry::Tombstone(_))) => Err(NoRecord::Deleted),
            Ok(None) => Err(NoRecord::Absent),
            Err(_) => Err(NoRecord::Unreachable),
        }
    }

    /// Whether the store says that a kid was deleted. A store that does not answer says nothing: what a token carries is
    /// the KMS's to open or refuse.
    async fn is_deleted(&self, kid: Kid) -> bool {
        self.deleted.contains_key(&kid)
            || matches!(self.get(kid).await, Ok(Some(Entry::Tombstone(_))))
    }
}

impl Room {
    /// The record to unwrap for a kid: the token's own, or the store's for a reference.
    pub(super) async fn record(
        &self,
        kid: Kid,
        scope: &Scope,
        inline: Option<&[u8]>,
    ) -> Result<Box<[u8]>, NoRecord> {
        match (&self.stored, inline) {
            (None, Some(record)) => Ok(record.into()),
            (None, None) => Err(NoRecord::Absent),
            (Some(stored), Some(_)) if stored.is_deleted(kid).await => Err(NoRecord::Deleted),
            (Some(_), Some(record)) => Ok(record.into()),
            (Some(stored), None) => stored.record(kid, scope).await,
        }
    }

    /// Where the next DEK of a rotor goes. An error: the present one stands in for a stored one, and the store is still away.
    pub(super) async fn home(&self, rotor: &Rotor) -> Result<Home, SealError> {
        let Some(stored) = &self.stored else {
            return Ok(Home::Token);
        };
        let now = Instant::now();
        let stands_in = rotor.current().filter(|current| !current.stored);
        match stands_in {
            // Asked before the KMS is: an outage of the store is to cost no wrapping.
            Some(current) if rotor.is_usable_at(now) => match stored.get(current.dek.kid()).await {
                Ok(_) => Ok(Home::Store),
                Err(error) => Err(SealError::of(Failure::Store(error.failure))),
            },
            _ if stored.is_walled_at(now) => Ok(Home::Token),
            _ => Ok(Home::Store),
        }
    }

    /// Puts a fresh DEK into the store. False: it may be there or not, so nothing may be sealed with it.
    pub(super) async fn keep(
        &self,
        dek: &[u8; 32],
        kid: Kid,
        scope: &Scope,
        record: &[u8],
    ) -> bool {
        let Some(stored) = &self.stored else {
            return false;
        };
        let Some(mac) = dek::row_mac(dek, scope, OWN) else {
            return false;
        };
        let row = stored.row(kid, scope, OWN, record, mac);
        let put = stored.call("put", |store| store.put_if_absent(&row)).await;
        matches!(put, Ok(Put::Made))
    }

    /// An inline DEK was installed where a stored one should be: the store is tried again before long.
    pub(super) fn stands_in(&self, rotor: &Rotor, sent: Instant) {
        if self.stored.is_some() {
            count(&self.counters.unstored);
            rotor.succeed_from(sent + STAND_IN_FOR);
        }
    }

    /// Fetches or makes the one DEK of a deterministic scope, or has its lease extended. It is what the store says now: a
    /// command may have put another in its place.
    pub(super) async fn durable(&self, rotor: &Rotor, rank: Rank) -> Result<(), SealError> {
        let refused = |why| SealError::of(Failure::Durable(why));
        let (key, scope) = (&rotor.key, &rotor.scope);
        let Some(stored) = &self.stored else {
            return Err(SealError::of(Failure::Store(store::Failure::Refused)));
        };
        if key.seal_with_anyones() {
            return Err(refused("anyone-may-wrap"));
        }
        let purges = key.purges.load(Relaxed);
        let latest = match stored.call("latest", |store| store.latest(scope)).await {
            Ok(latest) => latest,
            Err(error) => {
                rotor.unreached(Instant::now(), None);
                return Err(SealError::of(Failure::Store(error.failure)));
            }
        };
        let row = match latest {
            Some(Entry::Row(row)) => row,
            Some(Entry::Tombstone(_)) => {
                rotor.purge(None);
                return Err(refused("deleted"));
            }
            None => self.make_durable(stored, rotor, rank).await?,
        };
        if row.scope != *scope || row.epoch == OWN {
            rotor.purge(None);
            return Err(refused("untrusted"));
        }
        let question = Question {
            key,
            scope,
            kid: row.kid,
            record: &row.record,
            attested: Some((row.epoch, row.mac)),
        };
        let unwrapped = self.unwrap(rank, &|| true, question).await;
        let now = Instant::now();
        match unwrapped {
            Ok(Opened { dek, sent, raw, .. }) => {
                if key.purges.load(Relaxed) != purges {
                    return Err(SealError::of(Failure::Kms(kms::Failure::Unreachable)));
                }
                let lease = Lease::granted(sent, &key.terms, self.calls.luck());
                let fresh = SealingKey {
                    dek,
                    record: row.record.clone(),
                    stored: true,
                };
                let missing = key.missing(&row.record);
                rotor.install(fresh, lease, sent, missing);
                if key.purges.load(Relaxed) != purges {
                    rotor.purge(None);
                    return Err(SealError::of(Failure::Kms(kms::Failure::Unreachable)));
                }
                count(&self.counters.renewed);
                // Not where somebody may be waiting for the first answer.
                if let Some(raw) = raw.filter(|_| missing > 0 && rank == Rank::Renewal) {
                    self.complete(stored, key, &row, &raw).await;
                }
                Ok(())
            }
            Err(why) => {
                count(&self.counters.not_renewed);
                if why.is_unreachable() {
                    rotor.unreached(now, why.retry_after());
                } else if why.is_malformed() {
                    rotor.doubted(now);
                } else if rotor.purge(None) {
                    self.purged(key, why.word());
                }
                Err(match why {
                    Unwrapping::Failed(error) => error.into(),
                    Unwrapping::OtherDek | Unwrapping::Unwanted => refused("untrusted"),
                })
            }
        }
    }

    /// Has a deterministic DEK wrapped under the KEKs that its record lacks: it is never replaced, and would lack them for ever. It
    /// opened as what its row says. Once a lease, until they answer; of several agents one is enough.
    async fn complete(&self, stored: &Stored, key: &Key, row: &Row, raw: &[u8]) {
        let Some(raw) = raw.first_chunk() else { return };
        let Some(to) = self.wrap_missing(key, raw, &row.scope, &row.record).await else {
            return;
        };
        let change = [Rewrap {
            kid: row.kid,
            from: row.record.clone(),
            to,
        }];
        // What did not get there, or another agent did, is found at the next renewal.
        let _ = stored.call("rewrap", |store| store.rewrap(&change)).await;
    }

    /// The first DEK of a deterministic scope; whoever comes first, makes it for all.
    async fn make_durable(
        &self,
        stored: &Stored,
        rotor: &Rotor,
        rank: Rank,
    ) -> Result<Row, SealError> {
        let row = self
            .fresh_row(stored, rank, &rotor.key, &rotor.scope, 1)
            .await?;
        let put = stored.call("put", |store| store.put_if_absent(&row)).await;
        match put {
            Ok(Put::Made) => {
                count(&self.counters.minted);
                Ok(row)
            }
            Ok(Put::Present(Entry::Row(row))) => Ok(row),
            Ok(Put::Present(Entry::Tombstone(_))) => {
                Err(SealError::of(Failure::Durable("deleted")))
            }
            Err(error) => Err(SealError::of(Failure::Store(error.failure))),
        }
    }

    async fn fresh_row(
        &self,
        stored: &Stored,
        rank: Rank,
        key: &Key,
        scope: &Scope,
        epoch: u64,
    ) -> Result<Row, SealError> {
        let unable = || SealError::of(Failure::Kms(kms::Failure::Unreachable));
        let (raw, filled) = self
            .arena
            .hold(|bytes| (self.random)(&mut bytes[..32]))
            .map_err(|_| unable())?;
        filled.map_err(|_| unable())?;
        let raw_dek: &[u8; 32] = raw.expose().first_chunk().expect("32 of 96 bytes");
        let record = self.wrap(key, rank, raw_dek, scope).await?.record;
        let malformed = || SealError::of(Failure::Kms(kms::Failure::Malformed));
        let (_, kid) = self.schedule(raw_dek).ok_or_else(unable)?;
        let mac = dek::row_mac(raw_dek, scope, epoch).ok_or_else(malformed)?;
        Ok(stored.row(kid, scope, epoch, &record, mac))
    }

    /// What a renewal starts with: the record of a stored DEK as the store has it now, which a rewrapping may have changed.
    pub(super) fn current_record<'a>(
        &'a self,
        scope: &'a Scope,
        current: &'a SealingKey,
    ) -> impl Future<Output = Result<Box<[u8]>, NoRecord>> + Send + 'a {
        self.record(current.dek.kid(), scope, current.inline())
    }
}

#[cfg(test)]
mod tests;
