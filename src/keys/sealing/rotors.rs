//! All rotors, by scope, and who makes place when there are too many.

use super::{Rotor, Take};
use crate::dek::Scope;
use crate::keys::{Failure, Key, SealError};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tokio::time::Instant;

/// How long an unused, empty rotor stays.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Of the rotors that are full, this part goes at once, so that a flood of tenants does not pay a search each time.
const EVICTED_PART: usize = 64;

/// All rotors, at most so many.
pub struct Rotors {
    map: RwLock<HashMap<Scope, Arc<Rotor>>>,
    scopes_max: usize,
    durable: bool,
    evicting: Mutex<()>,
}

impl Rotors {
    pub fn new(scopes_max: usize) -> Rotors {
        Rotors {
            map: RwLock::default(),
            scopes_max,
            durable: false,
            evicting: Mutex::new(()),
        }
    }

    /// Those of deterministic scopes.
    pub fn durable(scopes_max: usize) -> Rotors {
        Rotors {
            durable: true,
            ..Rotors::new(scopes_max)
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Scope, Arc<Rotor>>> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Scope, Arc<Rotor>>> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Rotor::take_at`], without touching the rotor's count if there is none. The warm path: two read locks and
    /// one clone.
    pub fn take_at(
        &self,
        scope: &Scope,
        now: Instant,
        clock_ms: u64,
        values: u64,
    ) -> Option<(Take, bool)> {
        self.read()
            .get(scope)
            .map(|rotor| rotor.take_at(now, clock_ms, values))
    }

    /// The rotor of a scope, made if need be. When all places are taken, idle ones go: see [`victims`].
    pub fn get_or_make(
        &self,
        key: &Arc<Key>,
        scope: &Scope,
        now: Instant,
        clock_ms: u64,
    ) -> Result<Arc<Rotor>, SealError> {
        if let Some(rotor) = self.read().get(scope) {
            return Ok(Arc::clone(rotor));
        }
        let _one_at_a_time = self.evicting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut map = self.write();
        if let Some(rotor) = map.get(scope) {
            return Ok(Arc::clone(rotor));
        }
        // Before anybody makes place for it: a name that is not admitted costs nothing.
        if scope.tenant.is_some() {
            key.newcomers.admit_at(now).map_err(|left| SealError {
                failure: Failure::Newcomers,
                retry_after: Some(left),
            })?;
        }
        if map.len() >= self.scopes_max {
            let victims = victims(&map, (self.scopes_max / EVICTED_PART).max(1));
            if victims.is_empty() {
                return Err(SealError::of(Failure::Crowded));
            }
            for scope in &victims {
                map.remove(scope);
            }
        }
        let rotor = Rotor::new(Arc::clone(key), scope.clone(), self.durable);
        rotor.last_used.store(clock_ms, Relaxed);
        let rotor = Arc::new(rotor);
        map.insert(scope.clone(), Arc::clone(&rotor));
        Ok(rotor)
    }

    pub fn get(&self, scope: &Scope) -> Option<Arc<Rotor>> {
        self.read().get(scope).map(Arc::clone)
    }

    pub fn all(&self) -> Vec<Arc<Rotor>> {
        self.read().values().map(Arc::clone).collect()
    }

    /// Forgets rotors that have nothing and that nobody asked for in the last minute.
    pub fn sweep(&self, clock_ms: u64) {
        let idle_ms = IDLE_MAX.as_millis() as u64;
        self.write().retain(|_, rotor| {
            clock_ms.saturating_sub(rotor.last_used.load(Relaxed)) < idle_ms
                || rotor.current().is_some()
                || !rotor.is_idle()
        });
    }
}

/// Who makes place: at most `surplus` idle rotors. Newcomers before any that outlived a lease in use, which go only when
/// there are no newcomers; of the most crowded key first, so that one key's tenants do not drive out another's; then the
/// least recently used.
fn victims(map: &HashMap<Scope, Arc<Rotor>>, surplus: usize) -> Vec<Scope> {
    let mut of_key: HashMap<&str, usize> = HashMap::new();
    for scope in map.keys() {
        *of_key.entry(&scope.key).or_default() += 1;
    }
    let idle = map.iter().filter(|(_, rotor)| rotor.is_idle());
    let mut ranked: Vec<_> = idle
        .map(|(scope, rotor)| {
            let established = rotor.established.load(Relaxed);
            let crowd = of_key.get(&*scope.key).copied().unwrap_or_default();
            let rank = (established, Reverse(crowd), rotor.last_used.load(Relaxed));
            (rank, scope)
        })
        .collect();
    if ranked.iter().any(|((established, ..), _)| !established) {
        ranked.retain(|((established, ..), _)| !established);
    }
    let surplus = surplus.min(ranked.len());
    if surplus > 0 {
        ranked.select_nth_unstable_by_key(surplus - 1, |(rank, _)| *rank);
    }
    ranked[..surplus]
        .iter()
        .map(|(_, scope)| (*scope).clone())
        .collect()
}
