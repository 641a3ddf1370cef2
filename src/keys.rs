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

mod asking;
mod breaker;
mod calls;
mod counting;
mod flights;
mod lease;
mod opening;
mod sealing;
mod settings;
mod several;
mod stored;
mod turnstile;
pub mod upkeep;

use crate::arena::Arena;
use crate::dek::{Needs, Ring, Unopened};
use crate::kms::{self, Random};
use crate::store;
use asking::Open;
use calls::Calls;
use counting::{Counters, count};
pub use counting::{KeyState, KmsState, Snapshot};
pub use lease::Terms;
use opening::Openings;
use sealing::Rotors;
pub use settings::{Binding, KeySettings, Need, Settings, SettingsError, TERMS};
use settings::{Key, check_keys};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use stored::Stored;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Told of what happens here, in names, words and numbers. Called on the way: must not block.
pub trait Observe: Send + Sync {
    /// One call that was made: the KMS's name, `wrap` or `unwrap`, `ok` or a word of [`kms::Failure`].
    fn kms_call(&self, kms: &str, verb: &'static str, outcome: &'static str, micros: u64);

    /// One call that was made to the store: its name, the verb, `ok` or a word of [`store::Failure`].
    fn store_call(&self, store: &str, verb: &'static str, outcome: &'static str, micros: u64) {
        let _ = (store, verb, outcome, micros);
    }

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
    /// The store failed, and the scope is deterministic.
    Store(store::Failure),
    /// The store's DEK of a deterministic scope may not seal: `deleted`, `untrusted` (its row is not one that this key's holders
    /// made), or `anyone-may-wrap` (under this KEK nobody could tell).
    Durable(&'static str),
    /// More tenants than may be new at a time, and this is another new one.
    Newcomers,
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
            Failure::Store(store::Failure::Unreachable) => "store-unreachable",
            Failure::Store(store::Failure::Refused) => "store-refused",
            Failure::Store(store::Failure::Malformed) => "store-malformed",
            Failure::Durable(why) => why,
            Failure::Crowded => "crowded",
            Failure::Newcomers => "new-tenants",
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
    /// Of deterministic scopes: what the store says is their DEK.
    durables: Rotors,
    stored: Option<Stored>,
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
        let runtime =
            Handle::try_current().map_err(|_| SettingsError("keys want a tokio runtime".into()))?;
        let keys = check_keys(&settings)?;
        let tick = keys.values().map(|key| key.terms.lease / 40).min();
        let tick = tick
            .unwrap_or(TICK_MOST)
            .clamp(Duration::from_millis(50), TICK_MOST);
        let stored = settings.store.map(|store| {
            let observe = Arc::clone(&settings.observe);
            Stored::new(store, settings.store_deadline, settings.clock, observe)
        });
        let room = Arc::new(Room {
            keys,
            arena: settings.arena,
            random: Arc::clone(&settings.random),
            calls: Calls::new(
                settings.deadline,
                Arc::clone(&settings.random),
                Arc::clone(&settings.observe),
            ),
            observe: settings.observe,
            rotors: Rotors::new(settings.scopes_max.max(1)),
            durables: Rotors::durable(settings.scopes_max.max(1)),
            stored,
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
        self.fetch_further(needs, &mut 0).await
    }

    /// As [`Keys::fetch`], for a further part of a body: `uncached` counts, from part to part, the records that were asked for, of
    /// which a body has its budget.
    ///
    /// # Errors
    /// As [`Keys::fetch`].
    pub async fn fetch_further(
        &self,
        needs: &Needs,
        uncached: &mut usize,
    ) -> Result<Ring, KeysError> {
        let room = &self.room;
        let now = Instant::now();
        let mut ring = Ring {
            sealing: Vec::with_capacity(needs.sealing.len()),
            opening: Vec::with_capacity(needs.opening.len()),
        };
        // Flights are started first and waited for last, so that they run side by side.
        let mut awaited = Vec::new();
        for (index, need) in needs.opening.iter().enumerate() {
            let found = room.open_at(need, now, uncached);
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
        let rotors = room.all_rotors();
        let of_key = rotors.iter().filter(|rotor| &*rotor.scope.key == key);
        let purged =
            of_key.filter(|rotor| rotor.purge(None)).count() + room.openings.purge_key(key);
        room.counters.purged.fetch_add(purged as u64, Relaxed);
        Some(purged)
    }

    /// How each key stands, by name; walks all that is cached.
    pub fn states(&self) -> Vec<KeyState> {
        self.room.states_at(Instant::now())
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

impl Room {
    fn clock_ms(&self, now: Instant) -> u64 {
        u64::try_from((now - self.opened_at).as_millis()).unwrap_or(u64::MAX)
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
