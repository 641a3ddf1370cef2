//! A store for tests: it keeps the promises of [`Store`] in memory, counts its calls, and fails or hangs when it is told to.

use super::{Answer, Count, Entry, Failure, OWN, Put, Rewrap, Row, Store, StoreError, Tombstone};
use crate::dek::{Kid, Scope};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How it answers until told otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mood {
    /// As a store does.
    #[default]
    Well,
    /// Every call fails like this.
    Failing(Failure),
    /// No call is ever answered.
    Hanging,
    /// Rows are written, and then the answer is lost.
    Forgetful,
}

/// See the module.
#[derive(Default)]
pub struct Fake {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<[u8; 16], Entry>,
    mood: Mood,
    calls: Vec<&'static str>,
}

impl Fake {
    /// Empty and well.
    pub fn new() -> Fake {
        Fake::default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on.
    pub fn set(&self, mood: Mood) {
        self.inner().mood = mood;
    }

    /// The verbs that were called, oldest first.
    pub fn calls(&self) -> Vec<&'static str> {
        self.inner().calls.clone()
    }

    /// What it holds, in the order of kids.
    pub fn entries(&self) -> Vec<Entry> {
        self.inner().entries.values().cloned().collect()
    }

    /// Puts an entry in whatever stands there, as an attacker would who may write to the store.
    pub fn force(&self, entry: Entry) {
        self.inner().entries.insert(entry.kid().0, entry);
    }

    /// Takes an entry out, without a trace.
    pub fn lose(&self, kid: Kid) {
        self.inner().entries.remove(&kid.0);
    }

    fn call<T: Send + 'static>(
        &self,
        verb: &'static str,
        work: impl FnOnce(&mut BTreeMap<[u8; 16], Entry>) -> T,
    ) -> Answer<'_, T> {
        let mut inner = self.inner();
        inner.calls.push(verb);
        match inner.mood {
            Mood::Well => {
                let done = work(&mut inner.entries);
                Box::pin(std::future::ready(Ok(done)))
            }
            Mood::Forgetful => {
                work(&mut inner.entries);
                let error = StoreError::new(Failure::Unreachable, "the answer was lost");
                Box::pin(std::future::ready(Err(error)))
            }
            Mood::Failing(failure) => {
                let error = StoreError::new(failure, "as told");
                Box::pin(std::future::ready(Err(error)))
            }
            Mood::Hanging => Box::pin(std::future::pending()),
        }
    }
}

fn put(entries: &mut BTreeMap<[u8; 16], Entry>, entry: Entry) -> Put {
    let taken = entries.get(&entry.kid().0).or_else(|| {
        let slot = entry.slot()?;
        entries.values().find(|known| known.slot() == Some(slot))
    });
    match taken {
        Some(known) => Put::Present(known.clone()),
        None => {
            entries.insert(entry.kid().0, entry);
            Put::Made
        }
    }
}

fn bury(entries: &mut BTreeMap<[u8; 16], Entry>, tombstone: &Tombstone) -> bool {
    let mut tombstone = tombstone.clone();
    match entries.get(&tombstone.kid.0) {
        Some(Entry::Tombstone(_)) => return false,
        Some(Entry::Row(row)) => tombstone.was = Some((row.scope.clone(), row.epoch)),
        None => {}
    }
    entries.insert(tombstone.kid.0, Entry::Tombstone(tombstone));
    true
}

impl Store for Fake {
    fn name(&self) -> &str {
        "fake"
    }

    fn put_if_absent<'a>(&'a self, row: &'a Row) -> Answer<'a, Put> {
        self.call("put", |entries| put(entries, Entry::Row(row.clone())))
    }

    fn get(&self, kid: Kid) -> Answer<'_, Option<Entry>> {
        self.call("get", |entries| entries.get(&kid.0).cloned())
    }

    fn latest<'a>(&'a self, scope: &'a Scope) -> Answer<'a, Option<Entry>> {
        self.call("latest", |entries| {
            let of_scope = entries
                .values()
                .filter(|entry| entry.slot().is_some_and(|slot| slot.0 == scope));
            of_scope
                .max_by_key(|entry| entry.slot().map(|slot| slot.1))
                .cloned()
        })
    }

    fn list(&self, after: Option<Kid>, limit: usize) -> Answer<'_, Vec<Entry>> {
        self.call("list", |entries| {
            let behind = |entry: &&Entry| after.is_none_or(|after| entry.kid().0 > after.0);
            let listed = entries.values().filter(behind);
            listed.take(limit).cloned().collect()
        })
    }

    fn rewrap<'a>(&'a self, changes: &'a [Rewrap]) -> Answer<'a, u64> {
        self.call("rewrap", |entries| {
            let mut changed = 0;
            for change in changes {
                if let Some(Entry::Row(row)) = entries.get_mut(&change.kid.0)
                    && row.record == change.from
                {
                    row.record = change.to.clone();
                    changed += 1;
                }
            }
            changed
        })
    }

    fn delete<'a>(&'a self, tombstone: &'a Tombstone) -> Answer<'a, bool> {
        self.call("delete", |entries| bury(entries, tombstone))
    }

    fn restore<'a>(&'a self, restored: &'a [Entry]) -> Answer<'a, u64> {
        self.call("restore", |entries| {
            let made = |entry: &&Entry| match entry {
                Entry::Row(_) => put(entries, (*entry).clone()) == Put::Made,
                Entry::Tombstone(tombstone) => bury(entries, tombstone),
            };
            restored.iter().filter(made).count() as u64
        })
    }

    fn count(&self) -> Answer<'_, Count> {
        self.call("count", |entries| {
            let mut count = Count::default();
            for entry in entries.values() {
                match entry {
                    Entry::Row(row) => {
                        count.rows += 1;
                        count.durable += u64::from(row.epoch != OWN);
                    }
                    Entry::Tombstone(_) => count.tombstones += 1,
                }
            }
            count
        })
    }
}
