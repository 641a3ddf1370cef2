//! How the room stands, in numbers: for metrics, the admin API and tests.

use super::Room;
use super::calls::Line;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::Instant;

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
    /// Needs for sealing refused because too many new tenants came at a time.
    pub newcomers_refused: u64,
    /// Fresh DEKs made.
    pub minted: u64,
    /// Those of them that travel in tokens because the store could not be written.
    pub unstored: u64,
    /// Those that fewer KEKs wrapped than their key seals with.
    pub incomplete: u64,
    /// Leases extended.
    pub renewed: u64,
    /// Attempts to extend a lease that failed.
    pub not_renewed: u64,
    /// DEKs let go of because the KMS said no, or by hand.
    pub purged: u64,
    /// Plaintext DEKs in memory that seal.
    pub sealing_deks: u64,
    /// Of those, the ones that not all KEKs of their key have wrapped.
    pub incomplete_deks: u64,
    /// Plaintext DEKs in memory that open.
    pub opening_deks: u64,
    /// How long the first of the sealing DEKs in use lasts if the KMS is gone from now on. None: none is in use.
    pub sealing_survives: Option<Duration>,
    /// The same of the opening DEKs.
    pub opening_survives: Option<Duration>,
    /// Whether all key memory is locked, undumpable and wiped on fork.
    pub memory_locked: bool,
    /// The KMSs of all keys, by name.
    pub kms: Vec<KmsState>,
}

/// How one KMS was reached of late.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KmsState {
    /// As the settings call it.
    pub name: String,
    /// The last calls reached nobody: no further ones are made but those that find out whether it is back.
    pub left_alone: bool,
    /// Calls that were not made because of that, since the start.
    pub withheld: u64,
}

/// How one key stands, in numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyState {
    /// As the policies call it.
    pub name: Arc<str>,
    /// Plaintext DEKs in memory that seal: one for each tenant.
    pub sealing_deks: usize,
    /// Of those, the ones that not all KEKs of the key have wrapped.
    pub incomplete_deks: usize,
    /// Those that open.
    pub opening_deks: usize,
    /// How long the first of those in use lasts if the KMS is gone from now on. None: none is in use.
    pub sealing_survives: Option<Duration>,
    /// The same of those that open.
    pub opening_survives: Option<Duration>,
}

/// What only grows.
#[derive(Default)]
pub(super) struct Counters {
    pub sealing_hits: AtomicU64,
    pub sealing_misses: AtomicU64,
    pub opening_hits: AtomicU64,
    pub opening_misses: AtomicU64,
    pub foreign: AtomicU64,
    pub over_budget: AtomicU64,
    pub remembered_refusals: AtomicU64,
    pub newcomers_refused: AtomicU64,
    pub minted: AtomicU64,
    pub(super) unstored: AtomicU64,
    pub incomplete: AtomicU64,
    pub renewed: AtomicU64,
    pub not_renewed: AtomicU64,
    pub purged: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Room {
    pub(super) fn states_at(&self, now: Instant) -> Vec<KeyState> {
        let rotors = self.all_rotors();
        let state = |name: &Arc<str>| {
            let of_key = rotors.iter().filter(|rotor| rotor.scope.key == *name);
            let (opening_deks, opening_survives) = self.openings.survey_at(now, Some(name));
            KeyState {
                name: Arc::clone(name),
                sealing_deks: of_key.clone().filter(|r| r.current().is_some()).count(),
                incomplete_deks: of_key.clone().filter(|r| r.is_incomplete()).count(),
                opening_deks,
                sealing_survives: of_key.filter_map(|r| r.survives_at(now)).min(),
                opening_survives,
            }
        };
        let mut states: Vec<KeyState> = self.keys.keys().map(state).collect();
        states.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        states
    }

    fn kms_states_at(&self, now: Instant) -> Vec<KmsState> {
        let keks = self.keys.values().flat_map(|key| &key.keks);
        let mut lines: Vec<_> = keks.map(|kek| &kek.line).collect();
        lines.sort_unstable_by(|a, b| {
            let (a, b) = [a, b].map(|line| (line.name(), Arc::as_ptr(line))).into();
            a.cmp(&b)
        });
        lines.dedup_by(|a, b| Arc::ptr_eq(a, b));
        let state = |line: &Arc<Line>| KmsState {
            name: line.name().to_owned(),
            left_alone: line.is_left_alone_at(now),
            withheld: line.withheld(),
        };
        lines.into_iter().map(state).collect()
    }

    pub(super) fn snapshot_at(&self, now: Instant) -> Snapshot {
        let counters = &self.counters;
        let rotors = self.all_rotors();
        let (opening_deks, opening_survives) = self.openings.survey_at(now, None);
        Snapshot {
            kms: self.kms_states_at(now),
            sealing_hits: counters.sealing_hits.load(Relaxed),
            sealing_misses: counters.sealing_misses.load(Relaxed),
            opening_hits: counters.opening_hits.load(Relaxed),
            opening_misses: counters.opening_misses.load(Relaxed),
            foreign: counters.foreign.load(Relaxed),
            over_budget: counters.over_budget.load(Relaxed),
            remembered_refusals: counters.remembered_refusals.load(Relaxed),
            newcomers_refused: counters.newcomers_refused.load(Relaxed),
            minted: counters.minted.load(Relaxed),
            unstored: counters.unstored.load(Relaxed),
            incomplete: counters.incomplete.load(Relaxed),
            renewed: counters.renewed.load(Relaxed),
            not_renewed: counters.not_renewed.load(Relaxed),
            purged: counters.purged.load(Relaxed),
            sealing_deks: rotors.iter().filter(|r| r.current().is_some()).count() as u64,
            incomplete_deks: rotors.iter().filter(|r| r.is_incomplete()).count() as u64,
            opening_deks: opening_deks as u64,
            sealing_survives: rotors.iter().filter_map(|r| r.survives_at(now)).min(),
            opening_survives,
            memory_locked: self.arena.locked(),
        }
    }
}
