//! DEKs that open: a bounded cache of what the KMS unwrapped, a bounded memory of what it refused, and one flight per
//! record.
//!
//! An entry serves the record, key name and tenant that it was unwrapped for, and never seals. moka decides who
//! stays when there are too many; leases are kept here, on tokio's clock, and an entry that goes lets go of its DEK at
//! once, whenever moka frees the rest.

use super::Key;
use super::lease::Lease;
use crate::dek::{Dek, Kid, OpenNeed, Scope, Unopened};
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How one record's unwrapping ended: None while it is under way.
pub type Landing = watch::Receiver<Option<Result<Arc<Dek>, Unopened>>>;

/// What an entry is found by: scope, kid and SHA-256(record), or 32 zero bytes for a reference, whose record may change.
#[derive(Clone, PartialEq, Eq)]
pub struct Id {
    digest: [u8; 32],
    kid: Kid,
    scope: Scope,
}

impl Id {
    pub fn of(need: &OpenNeed) -> Id {
        Id::new(&need.scope, need.kid, need.record.as_deref())
    }

    pub fn new(scope: &Scope, kid: Kid, record: Option<&[u8]>) -> Id {
        Id {
            digest: record.map_or([0; 32], |record| Sha256::digest(record).into()),
            kid,
            scope: scope.clone(),
        }
    }

    pub fn parts(&self) -> (&Scope, Kid) {
        (&self.scope, self.kid)
    }
}

impl Hash for Id {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Half a SHA-256 is spread well enough; equality looks at everything.
        state.write(&self.digest[..16]);
    }
}

/// A DEK that the KMS unwrapped.
pub struct Entry {
    pub key: Arc<Key>,
    pub scope: Scope,
    pub kid: Kid,
    /// None: it was found by reference.
    pub record: Option<Box<[u8]>>,
    id: Id,
    held: RwLock<Option<Held>>,
    /// Since the last renewal.
    used: AtomicBool,
    renewing: AtomicBool,
}

enum Tended {
    /// To be renewed.
    Due,
    Stays,
    Goes,
}

struct Held {
    dek: Arc<Dek>,
    lease: Lease,
}

impl Entry {
    fn held(&self) -> RwLockReadGuard<'_, Option<Held>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn held_mut(&self) -> RwLockWriteGuard<'_, Option<Held>> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The DEK, if this entry is for that scope and kid and in good standing.
    fn take_at(&self, now: Instant, scope: &Scope, kid: Kid) -> Option<Arc<Dek>> {
        if self.scope != *scope || self.kid != kid {
            return None;
        }
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
        let held = self.held();
        let held = held.as_ref()?;
        held.lease.is_usable_at(now).then(|| Arc::clone(&held.dek))
    }

    /// Lets go of the DEK; it is wiped when the last request is done with it.
    fn clear(&self) {
        *self.held_mut() = None;
    }

    /// The KMS unwrapped this record again.
    pub fn renew(&self, lease: Lease) {
        self.used.store(false, Relaxed);
        if let Some(held) = &mut *self.held_mut() {
            held.lease = lease;
        }
    }

    /// The KMS could not be reached.
    pub fn unreached(&self, now: Instant, retry_after: Option<Duration>) {
        if let Some(held) = &mut *self.held_mut() {
            held.lease.unreached(now, &self.key.terms, retry_after);
        }
    }

    /// The KMS's answer made no sense.
    pub fn doubted(&self, now: Instant) {
        if let Some(held) = &mut *self.held_mut() {
            held.lease.doubted(now, &self.key.terms);
        }
    }

    /// The renewal that [`Openings::tend_at`] asked for is over.
    pub fn renewed(&self) {
        if let Some(held) = &mut *self.held_mut() {
            held.lease.asked();
        }
        self.renewing.store(false, Relaxed);
    }

    /// What should be done ahead of need.
    fn tend_at(&self, now: Instant) -> Tended {
        let mut held = self.held_mut();
        let Some(held) = &mut *held else {
            return Tended::Goes;
        };
        let used = self.used.load(Relaxed);
        if held.lease.is_due_at(now) && self.key.is_unreachable_at(self.record.as_deref(), now) {
            held.lease.unreached(now, &self.key.terms, None);
        }
        let lapsed = !held.lease.is_usable_at(now);
        let forsaken = lapsed && !used && !self.renewing.load(Relaxed);
        if held.lease.is_over_at(now) || forsaken {
            return Tended::Goes;
        }
        let wanted = used || held.lease.is_unreached();
        if wanted && held.lease.is_due_at(now) && !self.renewing.swap(true, Relaxed) {
            held.lease.asks(now);
            return Tended::Due;
        }
        Tended::Stays
    }

    /// How long it can open from now if the KMS is gone; None: nobody uses it.
    fn survives_at(&self, now: Instant) -> Option<Duration> {
        let held = self.held();
        let lease = &held.as_ref()?.lease;
        // A lease that is not due yet was granted for someone's use.
        let in_use = self.used.load(Relaxed) || !lease.is_due_at(now);
        in_use.then(|| lease.survives_at(now))
    }
}

type Flights = Mutex<HashMap<Id, Landing>>;

fn list(flights: &Flights) -> MutexGuard<'_, HashMap<Id, Landing>> {
    flights.lock().unwrap_or_else(PoisonError::into_inner)
}

pub struct Openings {
    cache: Cache<Id, Arc<Entry>>,
    refused: Cache<Id, (Unopened, Instant)>,
    refused_for: Duration,
    flights: Arc<Flights>,
    flights_max: usize,
}

/// How many refusals are remembered.
const REFUSED_MAX: u64 = 8_192;

impl Openings {
    pub fn new(entries_max: u64, flights_max: usize, refused_for: Duration) -> Openings {
        let cache = Cache::builder()
            .max_capacity(entries_max)
            .eviction_listener(|_, entry: Arc<Entry>, _| entry.clear())
            .build();
        Openings {
            cache,
            refused: Cache::new(REFUSED_MAX),
            refused_for,
            flights: Arc::default(),
            flights_max,
        }
    }

    /// The warm path: a hash, a look-up, a read lock and a clone.
    pub fn take_at(&self, id: &Id, now: Instant) -> Option<Arc<Dek>> {
        self.cache.get(id)?.take_at(now, &id.scope, id.kid)
    }

    /// Whether this record was refused a moment ago.
    pub fn refusal_at(&self, id: &Id, now: Instant) -> Option<Unopened> {
        let (why, until) = self.refused.get(id)?;
        (now < until).then_some(why)
    }

    pub fn entry(&self, id: &Id) -> Option<Arc<Entry>> {
        self.cache.get(id)
    }

    /// The flight under way for a record, or a new one: then with the sender that lands it. None: too many records are
    /// being waited for.
    pub fn board(&self, id: &Id) -> Option<(Landing, Option<Flight>)> {
        let mut flights = list(&self.flights);
        if let Some(landing) = flights.get(id) {
            return Some((landing.clone(), None));
        }
        if flights.len() >= self.flights_max {
            return None;
        }
        let (land, landing) = watch::channel(None);
        flights.insert(id.clone(), landing.clone());
        let flight = Flight {
            id: id.clone(),
            land,
            flights: Arc::downgrade(&self.flights),
        };
        Some((landing, Some(flight)))
    }

    /// Whether nobody waits any more; then the flight is off the list, and nobody can join it.
    pub fn is_deserted(&self, flight: &Flight) -> bool {
        let mut flights = list(&self.flights);
        // One receiver is the list's own.
        let deserted = flight.land.receiver_count() <= 1;
        if deserted {
            flights.remove(&flight.id);
        }
        deserted
    }

    /// Ends a flight: what it brought is kept first, so that whoever comes now finds it.
    pub fn land(&self, now: Instant, flight: Flight, outcome: Result<Arc<Dek>, Unopened>) {
        if let Err(why) = outcome
            && why != Unopened::Unreachable
        {
            let until = now + self.refused_for;
            self.refused.insert(flight.id.clone(), (why, until));
        }
        let _ = flight.land.send(Some(outcome));
    }

    /// Keeps a DEK under its record, key name and tenant.
    pub fn keep(
        &self,
        key: &Arc<Key>,
        id: &Id,
        record: Option<Box<[u8]>>,
        dek: Arc<Dek>,
        lease: Lease,
    ) {
        let entry = Arc::new(Entry {
            key: Arc::clone(key),
            scope: id.scope.clone(),
            kid: id.kid,
            record,
            id: id.clone(),
            held: RwLock::new(Some(Held { dek, lease })),
            used: AtomicBool::new(true),
            renewing: AtomicBool::new(false),
        });
        self.refused.invalidate(id);
        self.cache.insert(id.clone(), entry);
    }

    /// Lets go of one entry. A record that never opened has none.
    pub fn purge(&self, id: &Id) -> bool {
        match self.cache.remove(id) {
            Some(entry) => {
                entry.clear();
                true
            }
            None => false,
        }
    }

    /// Lets go of all entries of a key.
    pub fn purge_key(&self, key: &str) -> usize {
        let of_key: Vec<Arc<Entry>> = self.entries().filter(|e| &*e.scope.key == key).collect();
        of_key.iter().filter(|entry| self.purge(&entry.id)).count()
    }

    fn entries(&self) -> impl Iterator<Item = Arc<Entry>> {
        self.cache.iter().map(|(_, entry)| entry)
    }

    /// Drops what may not be used any more; returns the entries to renew ahead of need.
    pub fn tend_at(&self, now: Instant) -> Vec<Arc<Entry>> {
        let mut due = Vec::new();
        for entry in self.entries() {
            match entry.tend_at(now) {
                Tended::Goes => {
                    self.purge(&entry.id);
                }
                Tended::Due => due.push(entry),
                Tended::Stays => {}
            }
        }
        for (id, (_, until)) in self.refused.iter() {
            if now >= until {
                self.refused.invalidate(&*id);
            }
        }
        self.cache.run_pending_tasks();
        self.refused.run_pending_tasks();
        due
    }

    /// DEKs held, of one key or of all, and how long the first of those in use lasts if the KMS is gone.
    pub fn survey_at(&self, now: Instant, key: Option<&str>) -> (usize, Option<Duration>) {
        let (mut count, mut first) = (0, None);
        let of_key = |entry: &Arc<Entry>| key.is_none_or(|key| *entry.scope.key == *key);
        for entry in self.entries().filter(of_key) {
            count += usize::from(entry.held().is_some());
            if let Some(survives) = entry.survives_at(now) {
                first = Some(first.map_or(survives, |first: Duration| first.min(survives)));
            }
        }
        (count, first)
    }
}

/// Lands the flight of one record. Dropped without landing (a task that was cut off), it leaves the list, and those who
/// wait see its end.
pub struct Flight {
    id: Id,
    land: watch::Sender<Option<Result<Arc<Dek>, Unopened>>>,
    flights: Weak<Flights>,
}

impl Flight {
    pub fn id(&self) -> &Id {
        &self.id
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(flights) = self.flights.upgrade() {
            let mut flights = list(&flights);
            // Another flight may be under way for the record by now, when this one was deserted.
            let is_own = flights
                .get(&self.id)
                .is_some_and(|landing| landing.same_channel(&self.land.subscribe()));
            if is_own {
                flights.remove(&self.id);
            }
        }
    }
}
