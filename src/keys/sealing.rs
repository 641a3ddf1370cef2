//! DEKs that seal: one rotor per key name and tenant, which has at most one current DEK with an age, a lease and a
//! budget of uses.
//!
//! A rotor only says what is and what is due, at a given time; the room does it. A DEK in here was made here: none that
//! came with a token ever gets in.

mod newcomers;
mod rotors;

pub use newcomers::Newcomers;
pub use rotors::Rotors;

use super::lease::Lease;
use super::{Failure, Key, SealError};
use crate::dek::{Scope, SealingKey};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a refusal is repeated without asking again.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// The outcome of a flight: None while it is under way.
pub type Landing = watch::Receiver<Option<Result<(), SealError>>>;

/// What a rotor needs done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Job {
    /// Unwrap the current DEK's record again.
    Renew,
    /// Make a fresh DEK.
    Mint,
}

/// What a rotor has for a caller now.
pub enum Take {
    Ready(Arc<SealingKey>),
    /// Nothing, until this job is done.
    Wait(Job),
    Refused(SealError),
}

pub struct Rotor {
    pub key: Arc<Key>,
    pub scope: Scope,
    /// Its DEK is the store's one of a deterministic scope, and not made anew by rotation.
    pub durable: bool,
    state: RwLock<State>,
    /// Since the last renewal.
    used: AtomicBool,
    /// It was in use for a whole lease, and the KMS agreed again.
    established: AtomicBool,
    /// Milliseconds on the room's clock.
    last_used: AtomicU64,
    /// Something is under way; a hint that spares the lock.
    busy: AtomicBool,
}

#[derive(Default)]
struct State {
    current: Option<Current>,
    flight: Option<(Landing, Job)>,
    refused: Option<(SealError, Instant)>,
    /// Work ahead of need waits until then after a failure.
    ahead_not_before: Option<Instant>,
}

impl State {
    fn end_flight(&mut self) {
        self.flight = None;
        if let Some(current) = &mut self.current {
            current.lease.asked();
        }
    }
}

struct Current {
    key: Arc<SealingKey>,
    lease: Lease,
    successor_at: Instant,
    /// How many KEKs of its key did not wrap it, and when to ask them again.
    incomplete: Option<(usize, Instant)>,
    retires_at: Instant,
    spent: AtomicU64,
}

impl Current {
    /// Takes `values` uses in one step, or none.
    fn reserve(&self, values: u64, uses_max: u64) -> bool {
        let taken = self.spent.fetch_update(Relaxed, Relaxed, |spent| {
            spent.checked_add(values).filter(|spent| *spent <= uses_max)
        });
        taken.is_ok()
    }

    /// By age, by use, or because the KEK has a new version.
    fn is_due_at(&self, now: Instant, uses_max: u64) -> bool {
        now >= self.successor_at || self.is_low(uses_max)
    }

    fn wants_successor_at(&self, now: Instant, uses_max: u64) -> bool {
        self.is_due_at(now, uses_max) || self.incomplete.is_some_and(|(_, at)| now >= at)
    }

    /// Four fifths are gone: time to have a successor.
    fn is_low(&self, uses_max: u64) -> bool {
        self.spent.load(Relaxed) >= uses_max - uses_max / 5
    }
}

impl Rotor {
    fn new(key: Arc<Key>, scope: Scope, durable: bool) -> Rotor {
        Rotor {
            key,
            scope,
            durable,
            state: RwLock::default(),
            used: AtomicBool::new(false),
            established: AtomicBool::new(false),
            last_used: AtomicU64::new(0),
            busy: AtomicBool::new(false),
        }
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current DEK with `values` uses taken from its budget; the flag says that a successor should be made ready.
    pub fn take_at(&self, now: Instant, clock_ms: u64, values: u64) -> (Take, bool) {
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
        self.last_used.store(clock_ms, Relaxed);
        let terms = &self.key.terms;
        if values > terms.uses_max {
            return (Take::Refused(SealError::of(Failure::TooMany)), false);
        }
        let state = self.state();
        if let Some(current) = &state.current
            && now < current.retires_at
        {
            if !current.lease.is_usable_at(now) {
                if !current.lease.is_over_at(now) {
                    return (Take::Wait(Job::Renew), false);
                }
            } else if current.reserve(values, terms.uses_max) {
                let low = current.is_low(terms.uses_max) && !self.busy.load(Relaxed);
                return (Take::Ready(Arc::clone(&current.key)), low);
            }
        }
        match &state.refused {
            Some((error, until)) if now < *until => (Take::Refused(error.clone()), false),
            _ => (Take::Wait(Job::Mint), false),
        }
    }

    /// The flight under way, with its job, or a new one for this job: then with what lands it.
    pub fn board(self: &Arc<Self>, job: Job, now: Instant) -> (Landing, Job, Option<Flight>) {
        let mut state = self.state_mut();
        if let Some((landing, job)) = &state.flight {
            return (landing.clone(), *job, None);
        }
        if job == Job::Renew
            && let Some(current) = &mut state.current
        {
            current.lease.asks(now);
        }
        let (land, landing) = watch::channel(None);
        state.flight = Some((landing.clone(), job));
        self.busy.store(true, Relaxed);
        let flight = Flight {
            rotor: Arc::clone(self),
            land,
            landed: false,
        };
        (landing, job, Some(flight))
    }

    /// Ends the flight; those who wait look again.
    pub fn land(&self, now: Instant, mut flight: Flight, outcome: Result<(), SealError>) {
        let mut state = self.state_mut();
        match &outcome {
            Ok(()) => {
                state.refused = None;
                state.ahead_not_before = None;
            }
            Err(error) => {
                let pause = (self.key.terms.lease / 20)
                    .clamp(Duration::from_millis(50), Duration::from_secs(30));
                state.ahead_not_before = Some(
                    now + error
                        .retry_after
                        .unwrap_or(pause)
                        .min(Duration::from_secs(60)),
                );
                // An unreachable KMS or store has its own memory, at the calls.
                let lost = matches!(
                    error.failure,
                    Failure::Kms(crate::kms::Failure::Unreachable) | Failure::Store(_)
                );
                if !lost {
                    state.refused = Some((error.clone(), now + REFUSED_FOR));
                }
            }
        }
        state.end_flight();
        self.busy.store(false, Relaxed);
        drop(state);
        flight.landed = true;
        let _ = flight.land.send(Some(outcome));
    }

    /// The record to unwrap for a renewal, and its key.
    pub fn current(&self) -> Option<Arc<SealingKey>> {
        self.state().current.as_ref().map(|c| Arc::clone(&c.key))
    }

    /// A fresh DEK, wrapped by calls of which the first was sent at `sent`, and which `missing` KEKs of its key did not answer.
    pub fn install(&self, key: SealingKey, lease: Lease, sent: Instant, missing: usize) {
        let terms = &self.key.terms;
        self.state_mut().current = Some(Current {
            key: Arc::new(key),
            lease,
            successor_at: sent + terms.succession(),
            incomplete: (missing > 0).then(|| (missing, sent + terms.lease)),
            retires_at: sent + terms.rotate,
            spent: AtomicU64::new(0),
        });
    }

    /// A successor is to be had from then on at the latest.
    pub fn succeed_from(&self, at: Instant) {
        if let Some(current) = &mut self.state_mut().current {
            current.successor_at = current.successor_at.min(at);
        }
    }

    /// The KMS unwrapped the current record again. `superseded`: under an old version of the KEK, so that a
    /// successor is due.
    pub fn renew(&self, lease: Lease, superseded: bool, now: Instant) {
        self.used.store(false, Relaxed);
        self.established.store(true, Relaxed);
        if let Some(current) = &mut self.state_mut().current {
            current.lease = lease;
            if superseded {
                current.successor_at = current.successor_at.min(now);
            }
        }
    }

    /// The KMS could not be reached.
    pub fn unreached(&self, now: Instant, retry_after: Option<Duration>) {
        if let Some(current) = &mut self.state_mut().current {
            current.lease.unreached(now, &self.key.terms, retry_after);
        }
    }

    /// The KMS's answer made no sense.
    pub fn doubted(&self, now: Instant) {
        if let Some(current) = &mut self.state_mut().current {
            current.lease.doubted(now, &self.key.terms);
        }
    }

    /// Lets go of the DEK, if it is the one of this record (or whatever it is); it is wiped when the last request is
    /// done with it.
    pub fn purge(&self, record: Option<&[u8]>) -> bool {
        let mut state = self.state_mut();
        let is_it = state
            .current
            .as_ref()
            .is_some_and(|current| record.is_none_or(|record| *current.key.record == *record));
        if is_it {
            state.current = None;
        }
        is_it
    }

    /// What should be done ahead of need. Drops a DEK that may not be used any more.
    pub fn tend_at(&self, now: Instant) -> Option<Job> {
        let mut state = self.state_mut();
        let under_way = state.flight.is_some();
        let current = state.current.as_mut()?;
        let used = self.used.load(Relaxed);
        let lease = &mut current.lease;
        if lease.is_due_at(now) && self.key.is_unreachable_at(Some(&current.key.record), now) {
            // Nobody there for anyone: it has its grace, in use or not, and no call is made for it.
            lease.unreached(now, &self.key.terms, None);
        }
        let lapsed = !lease.is_usable_at(now);
        let forsaken = lapsed && !used && !under_way;
        if now >= current.retires_at || lease.is_over_at(now) || forsaken {
            state.current = None;
            return None;
        }
        let renewal = lease.is_due_at(now);
        let wanted = used || lease.is_unreached();
        let succession = current.wants_successor_at(now, self.key.terms.uses_max);
        if !wanted || under_way {
            return None;
        }
        if renewal {
            return Some(Job::Renew);
        }
        (succession && state.ahead_not_before.is_none_or(|at| now >= at)).then_some(Job::Mint)
    }

    /// Whether a successor of the current DEK is due, and may be made now.
    pub fn wants_successor_at(&self, now: Instant) -> bool {
        let state = self.state();
        let uses_max = self.key.terms.uses_max;
        state
            .current
            .as_ref()
            .is_some_and(|current| current.wants_successor_at(now, uses_max))
            && state.ahead_not_before.is_none_or(|at| now >= at)
    }

    /// How many wrappings a successor would have to add, where it is wanted for nothing else.
    pub fn completing_at(&self, now: Instant) -> Option<usize> {
        let state = self.state();
        let current = state.current.as_ref()?;
        let (missing, at) = current.incomplete?;
        let usable = now < current.retires_at && current.lease.is_usable_at(now);
        let due = current.is_due_at(now, self.key.terms.uses_max);
        (usable && now >= at && !due).then_some(missing)
    }

    /// The missing KEKs are still missing: the current DEK goes on, and they are asked again in a lease.
    pub fn complete_later(&self, now: Instant) {
        if let Some(current) = &mut self.state_mut().current
            && let Some((_, at)) = &mut current.incomplete
        {
            *at = now + self.key.terms.lease;
        }
    }

    /// Whether its DEK is not wrapped under all KEKs of its key.
    pub fn is_incomplete(&self) -> bool {
        let state = self.state();
        let current = state.current.as_ref();
        current.is_some_and(|current| current.incomplete.is_some())
    }

    /// Whether it has a DEK that may be used.
    pub fn is_usable_at(&self, now: Instant) -> bool {
        self.state()
            .current
            .as_ref()
            .is_some_and(|current| now < current.retires_at && current.lease.is_usable_at(now))
    }

    /// How long it can seal from now if the KMS is gone; None: it cannot, or nobody uses it.
    pub fn survives_at(&self, now: Instant) -> Option<Duration> {
        let state = self.state();
        let current = state.current.as_ref()?;
        let retires = current.retires_at.saturating_duration_since(now);
        // A lease that is not due yet was granted for someone's use.
        let in_use = self.used.load(Relaxed) || !current.lease.is_due_at(now);
        in_use.then(|| current.lease.survives_at(now).min(retires))
    }

    fn is_idle(&self) -> bool {
        self.state().flight.is_none()
    }
}

/// Lands a flight. Dropped without landing (a task that was cut off), it makes way for the next, and those who wait see
/// its end.
pub struct Flight {
    rotor: Arc<Rotor>,
    land: watch::Sender<Option<Result<(), SealError>>>,
    landed: bool,
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.landed {
            self.rotor.state_mut().end_flight();
            self.rotor.busy.store(false, Relaxed);
        }
    }
}
