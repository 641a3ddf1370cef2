//! The key room: data keys for one body at a time, from memory whenever it can.
//!
//! [`Keys::fetch`] answers what a plan needs ([`Needs`]) with a [`Ring`]. For sealing, each key name and tenant has a DEK
//! made here (`sealing`); for opening, DEKs are unwrapped by the KMS and cached (`opening`). Three clocks run, and are
//! never merged: the *lease* (how long a plaintext DEK may stay without the KMS agreeing again, plus a *grace* when it cannot
//! be reached), *rotate* (how long a DEK may seal), and retention, which is the KEK's life (`lease`).
//!
//! On a warm ring `fetch` is ready at first poll. Leases are renewed ahead of need by a janitor; a lease is extended only
//! by unwrapping that very record, freshly and successfully. Whoever waits, waits for a flight that runs in a task of its
//! own (`flights`): a client that hangs up strands nobody, and a thousand who want the same make one call.
//!
//! This room never sees a body, a policy or a value, and never turns "no key" into anything but a refusal.

mod calls;
mod flights;
mod lease;
mod opening;
mod sealing;
mod settings;

use crate::arena::Arena;
use crate::dek::{Dek, Needs, OpenNeed, Ring, Scope, SealNeed, SealingKey, Unopened};
use crate::kms::{self, Random};
use calls::Calls;
pub use lease::Terms;
use opening::{Id, Openings};
use sealing::{Rotor, Rotors, Take};
pub use settings::{Binding, KeySettings, Settings, SettingsError, TERMS};
use settings::{Key, check_keys};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Told of what happens here, in names, words and numbers. Called on the way: must not block.
pub trait Observe: Send + Sync {
    /// One call that was made: the KMS's name, `wrap` or `unwrap`, `ok` or a word of [`kms::Failure`].
    fn kms_call(&self, kms: &str, verb: &'static str, outcome: &'static str, micros: u64);

    /// The KMS refused a DEK that was in use, and it was let go of: the key's name and a word of [`kms::Failure`].
    fn purged(&self, key: &str, why: &'static str) {
        let _ = (key, why);
    }
}

/// Nobody looks.
pub struct Unobserved;

impl Observe for Unobserved {
    fn kms_call(&self, _: &str, _: &'static str, _: &'static str, _: u64) {}
}

/// Why there is no key to seal with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The KMS failed, or said no.
    Kms(kms::Failure),
    /// No such key in the settings.
    UnknownKey,
    /// More key names and tenants at a time than there are places, all of them waiting for the KMS.
    Crowded,
    /// One body wants more values than a DEK may seal.
    TooMany,
    /// The room is closed.
    Closed,
}

impl Failure {
    /// Stable; for metrics, logs and records.
    pub fn word(self) -> &'static str {
        match self {
            Failure::Kms(failure) => failure.word(),
            Failure::UnknownKey => "unknown-key",
            Failure::Crowded => "crowded",
            Failure::TooMany => "too-many",
            Failure::Closed => "closed",
        }
    }
}

/// A failure to get a key to seal with, before it has the key's name.
#[derive(Clone, PartialEq, Eq, Debug)]
struct SealError {
    failure: Failure,
    retry_after: Option<Duration>,
}

impl SealError {
    fn of(failure: Failure) -> SealError {
        SealError {
            failure,
            retry_after: None,
        }
    }
}

/// There is no key to seal with: the body must not go out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeysError {
    /// The key's name.
    pub key: Arc<str>,
    /// Why there is none.
    pub failure: Failure,
    /// When to come back, where the KMS or its breaker said so.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no data key for `{}`: {}", self.key, self.failure.word())
    }
}

impl std::error::Error for KeysError {}

/// A state of affairs in numbers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Needs for sealing that were met from memory.
    pub sealing_hits: u64,
    /// Those that had to wait, or were refused.
    pub sealing_misses: u64,
    /// Needs for opening that were met from memory.
    pub opening_hits: u64,
    /// Those that had to wait, or were refused.
    pub opening_misses: u64,
    /// Records refused because no KEK of the key made them.
    pub foreign: u64,
    /// Records refused because one body, or all together, wanted too many.
    pub over_budget: u64,
    /// Records refused because the KMS had refused them a moment ago.
    pub remembered_refusals: u64,
    /// Fresh DEKs made.
    pub minted: u64,
    /// Leases extended.
    pub renewed: u64,
    /// Attempts to extend a lease that failed.
    pub not_renewed: u64,
    /// DEKs let go of because the KMS said no, or by hand.
    pub purged: u64,
    /// Plaintext DEKs in memory that seal.
    pub sealing_deks: u64,
    /// Plaintext DEKs in memory that open.
    pub opening_deks: u64,
    /// How long the first of the sealing DEKs in use lasts if the KMS is gone from now on. None: none is in use.
    pub sealing_survives: Option<Duration>,
    /// The same of the opening DEKs.
    pub opening_survives: Option<Duration>,
    /// Whether all key memory is locked, undumpable and wiped on fork.
    pub memory_locked: bool,
}

/// How one key stands, in numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyState {
    /// As the policies call it.
    pub name: Arc<str>,
    /// Plaintext DEKs in memory that seal: one for each tenant.
    pub sealing_deks: usize,
    /// Those that open.
    pub opening_deks: usize,
    /// How long the first of those in use lasts if the KMS is gone from now on. None: none is in use.
    pub sealing_survives: Option<Duration>,
    /// The same of those that open.
    pub opening_survives: Option<Duration>,
}

#[derive(Default)]
struct Counters {
    sealing_hits: AtomicU64,
    sealing_misses: AtomicU64,
    opening_hits: AtomicU64,
    opening_misses: AtomicU64,
    foreign: AtomicU64,
    over_budget: AtomicU64,
    remembered_refusals: AtomicU64,
    minted: AtomicU64,
    renewed: AtomicU64,
    not_renewed: AtomicU64,
    purged: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// The room; a cheap clone shares it. When the last one goes, its tasks end.
#[derive(Clone)]
pub struct Keys {
    room: Arc<Room>,
}

struct Room {
    keys: HashMap<Arc<str>, Arc<Key>>,
    arena: Arena,
    random: Random,
    observe: Arc<dyn Observe>,
    calls: Calls,
    rotors: Rotors,
    openings: Openings,
    keys_per_body_max: usize,
    counters: Counters,
    opened_at: Instant,
    runtime: Handle,
    tasks: Mutex<JoinSet<()>>,
    closed: AtomicBool,
}

impl Keys {
    /// Opens the room and starts its janitor. Within a tokio runtime, which its tasks will live on.
    ///
    /// # Errors
    /// The settings contradict themselves, ask for something that is not built, or there is no runtime.
    pub fn new(settings: Settings) -> Result<Keys, SettingsError> {
        let runtime = Handle::try_current()
            .map_err(|_| SettingsError("the key room wants a tokio runtime".into()))?;
        let keys = check_keys(&settings)?;
        let tick = keys.values().map(|key| key.terms.lease / 40).min();
        let tick = tick
            .unwrap_or(TICK_MOST)
            .clamp(Duration::from_millis(50), TICK_MOST);
        let room = Arc::new(Room {
            keys,
            arena: settings.arena,
            random: settings.random,
            calls: Calls::new(
                settings.calls_max.max(1),
                settings.deadline,
                Arc::clone(&settings.observe),
            ),
            observe: settings.observe,
            rotors: Rotors::new(settings.scopes_max.max(1)),
            openings: Openings::new(
                settings.opening_max,
                settings.waiting_max,
                settings.refused_for,
            ),
            keys_per_body_max: settings.keys_per_body_max,
            counters: Counters::default(),
            opened_at: Instant::now(),
            runtime,
            tasks: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        room.start_janitor(tick);
        Ok(Keys { room })
    }

    /// The keys for one body. Ready at first poll when all of them are in memory.
    ///
    /// # Errors
    /// A need for sealing cannot be met; the first such one. Failures to open are in the ring, record by record.
    pub async fn fetch(&self, needs: &Needs) -> Result<Ring, KeysError> {
        let room = &self.room;
        let now = Instant::now();
        let mut ring = Ring {
            sealing: Vec::with_capacity(needs.sealing.len()),
            opening: Vec::with_capacity(needs.opening.len()),
        };
        // Flights are started first and waited for last, so that they run side by side.
        let mut awaited = Vec::new();
        let mut uncached = 0;
        for (index, need) in needs.opening.iter().enumerate() {
            let found = room.open_at(need, now, &mut uncached);
            ring.opening.push(match found {
                Open::Known(known) => known,
                Open::Awaited(landing) => {
                    awaited.push((index, landing));
                    Err(Unopened::Unreachable)
                }
            });
        }
        for (index, need) in needs.sealing.iter().enumerate() {
            let key = match room.seal_at(need, now) {
                Some(key) => key,
                None => {
                    for later in &needs.sealing[index + 1..] {
                        room.prepare_at(later, now);
                    }
                    let awaited = room.seal(need).await;
                    awaited.map_err(|error| error.named(&need.scope.key))?
                }
            };
            ring.sealing.push(key);
        }
        for (index, mut landing) in awaited {
            if let Ok(landed) = landing.wait_for(Option::is_some).await
                && let Some(outcome) = &*landed
            {
                ring.opening[index] = outcome.clone();
            }
        }
        Ok(ring)
    }

    /// Lets go of all DEKs of a key, by hand; how many there were. What is under way for it is not kept. None: there is
    /// no such key.
    pub fn purge(&self, key: &str) -> Option<usize> {
        let room = &self.room;
        room.keys.get(key)?.purges.fetch_add(1, Relaxed);
        let rotors = room.rotors.all();
        let of_key = rotors.iter().filter(|rotor| &*rotor.scope.key == key);
        let purged =
            of_key.filter(|rotor| rotor.purge(None)).count() + room.openings.purge_key(key);
        room.counters.purged.fetch_add(purged as u64, Relaxed);
        Some(purged)
    }

    /// How each key stands, by name; walks all that is cached.
    pub fn states(&self) -> Vec<KeyState> {
        let (room, now) = (&self.room, Instant::now());
        let rotors = room.rotors.all();
        let state = |name: &Arc<str>| {
            let of_key = rotors.iter().filter(|rotor| rotor.scope.key == *name);
            let (opening_deks, opening_survives) = room.openings.survey_at(now, Some(name));
            KeyState {
                name: Arc::clone(name),
                sealing_deks: of_key.clone().filter(|r| r.current().is_some()).count(),
                opening_deks,
                sealing_survives: of_key.filter_map(|r| r.survives_at(now)).min(),
                opening_survives,
            }
        };
        let mut states: Vec<KeyState> = room.keys.keys().map(state).collect();
        states.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        states
    }

    /// A state of affairs in numbers; walks all that is cached.
    pub fn snapshot(&self) -> Snapshot {
        self.room.snapshot_at(Instant::now())
    }

    /// Ends all tasks. What is in memory still serves; nothing is renewed or asked for any more.
    pub async fn close(&self) {
        self.room.closed.store(true, Relaxed);
        let mut tasks = std::mem::take(&mut *self.room.tasks());
        tasks.shutdown().await;
    }

    /// Tasks alive, the janitor among them.
    pub fn tasks(&self) -> usize {
        let mut tasks = self.room.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.len()
    }
}

impl SealError {
    fn named(self, key: &Arc<str>) -> KeysError {
        KeysError {
            key: Arc::clone(key),
            failure: self.failure,
            retry_after: self.retry_after,
        }
    }
}

/// How often the janitor looks, at most this far apart; a fortieth of the shortest lease otherwise.
const TICK_MOST: Duration = Duration::from_secs(15);

/// What is known about a record that is to be opened.
enum Open {
    Known(Result<Arc<Dek>, Unopened>),
    Awaited(opening::Landing),
}

impl Room {
    fn clock_ms(&self, now: Instant) -> u64 {
        u64::try_from((now - self.opened_at).as_millis()).unwrap_or(u64::MAX)
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The warm path of sealing.
    fn seal_at(self: &Arc<Self>, need: &SealNeed, now: Instant) -> Option<Arc<SealingKey>> {
        let taken = self
            .rotors
            .take_at(&need.scope, now, self.clock_ms(now), need.values);
        match taken {
            Some((Take::Ready(key), low)) => {
                if low && let Some(rotor) = self.rotors.get(&need.scope) {
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

    fn rotor(&self, scope: &Scope, now: Instant) -> Result<Arc<Rotor>, SealError> {
        let unknown = || SealError::of(Failure::UnknownKey);
        let key = self.keys.get(&scope.key).ok_or_else(unknown)?;
        self.rotors
            .get_or_make(key, scope, self.clock_ms(now))
            .ok_or_else(|| SealError::of(Failure::Crowded))
    }

    /// Starts what a need will wait for, without waiting.
    fn prepare_at(self: &Arc<Self>, need: &SealNeed, now: Instant) {
        if let Ok(rotor) = self.rotor(&need.scope, now)
            && let (Take::Wait(job), _) = rotor.take_at(now, self.clock_ms(now), 0)
        {
            self.fly(&rotor, job);
        }
    }

    /// The cold path of sealing.
    async fn seal(self: &Arc<Self>, need: &SealNeed) -> Result<Arc<SealingKey>, SealError> {
        let rotor = self.rotor(&need.scope, Instant::now())?;
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
    fn open_at(self: &Arc<Self>, need: &OpenNeed, now: Instant, uncached: &mut usize) -> Open {
        let Some(record) = &need.record else {
            return Open::Known(Err(Unopened::NotFound));
        };
        let id = Id::of(need, record);
        if let Some(dek) = self.openings.take_at(&id, now) {
            count(&self.counters.opening_hits);
            return Open::Known(Ok(dek));
        }
        count(&self.counters.opening_misses);
        let key = match self.keys.get(&need.scope.key) {
            Some(key) if key.knows(record) => key,
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
                    self.unwrap_first(key, flight, record.clone());
                }
                Open::Awaited(landing)
            }
            None => {
                count(&self.counters.over_budget);
                Open::Known(Err(Unopened::OverBudget))
            }
        }
    }

    fn snapshot_at(&self, now: Instant) -> Snapshot {
        let counters = &self.counters;
        let rotors = self.rotors.all();
        let (opening_deks, opening_survives) = self.openings.survey_at(now, None);
        Snapshot {
            sealing_hits: counters.sealing_hits.load(Relaxed),
            sealing_misses: counters.sealing_misses.load(Relaxed),
            opening_hits: counters.opening_hits.load(Relaxed),
            opening_misses: counters.opening_misses.load(Relaxed),
            foreign: counters.foreign.load(Relaxed),
            over_budget: counters.over_budget.load(Relaxed),
            remembered_refusals: counters.remembered_refusals.load(Relaxed),
            minted: counters.minted.load(Relaxed),
            renewed: counters.renewed.load(Relaxed),
            not_renewed: counters.not_renewed.load(Relaxed),
            purged: counters.purged.load(Relaxed),
            sealing_deks: rotors.iter().filter(|r| r.current().is_some()).count() as u64,
            opening_deks: opening_deks as u64,
            sealing_survives: rotors.iter().filter_map(|r| r.survives_at(now)).min(),
            opening_survives,
            memory_locked: self.arena.locked(),
        }
    }
}

#[cfg(test)]
mod tests;
