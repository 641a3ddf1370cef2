//! The store of wrapped DEKs: where the records of short tokens are, by kid, and the one DEK of each deterministic class.
//!
//! It holds what a KMS wrapped and never a key: whoever reads a store has nothing without the KMS, and whoever may write to it
//! can lose data and bring back what was deleted, but cannot make an agent seal with a key of his own (a row's [`mac`](Row::mac)).
//! Two kinds: a file for one machine ([`embedded`]), PostgreSQL for a fleet ([`postgres`]); and an honest fake. A store decides
//! nothing: deadlines, what an absent row means, and when a row may seal are the key room's.

pub mod backup;
pub mod embedded;
pub mod fake;
pub mod lines;
pub mod postgres;

use crate::dek::{Kid, Scope};
use std::fmt;
use std::future::Future;
use std::pin::Pin;

/// What a store's verb returns; boxed, so that stores can stand behind one pointer.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The epoch of a DEK that one agent made for itself; any number of rows of one scope have it. From 1 on an epoch counts the
/// deterministic DEKs of a scope, one row each.
pub const OWN: u64 = 0;

/// The most entries that one call lists, restores or rewraps.
pub const BATCH_MAX: usize = 1_000;

/// One stored DEK.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// By which tokens name it.
    pub kid: Kid,
    /// Key name and tenant: what it serves.
    pub scope: Scope,
    /// [`OWN`], or the number of a deterministic DEK.
    pub epoch: u64,
    /// Seconds since 1970, by the clock of the agent that made it. For people: nothing is decided by it.
    pub created: u64,
    /// A [`crate::token::Record`]: the DEK, wrapped.
    pub record: Box<[u8]>,
    /// [`crate::dek::row_mac`]: made with the DEK itself, so that no row can be put in another's place.
    pub mac: [u8; 16],
}

/// What is left of a deleted DEK: its kid is refused for ever, in whatever form a token has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tombstone {
    /// Of the deleted DEK.
    pub kid: Kid,
    /// Seconds since 1970.
    pub deleted: u64,
    /// What its row said, if there was one: a deterministic DEK's number is not given again.
    pub was: Option<(Scope, u64)>,
}

/// What a store has under a kid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A DEK.
    Row(Row),
    /// One that was deleted.
    Tombstone(Tombstone),
}

impl Entry {
    /// What it is found by.
    pub fn kid(&self) -> Kid {
        match self {
            Entry::Row(row) => row.kid,
            Entry::Tombstone(tombstone) => tombstone.kid,
        }
    }

    /// The scope and epoch that it takes, unless that is anybody's.
    pub fn slot(&self) -> Option<(&Scope, u64)> {
        let (scope, epoch) = match self {
            Entry::Row(row) => (&row.scope, row.epoch),
            Entry::Tombstone(tombstone) => match &tombstone.was {
                Some((scope, epoch)) => (scope, *epoch),
                None => return None,
            },
        };
        (epoch != OWN).then_some((scope, epoch))
    }
}

/// How putting a row ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Put {
    /// It is there now, and will be after a crash.
    Made,
    /// Its kid, or the number of a deterministic DEK, was there before: nothing changed.
    Present(Entry),
}

/// How many entries there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// DEKs.
    pub rows: u64,
    /// Those of them that are deterministic classes'.
    pub durable: u64,
    /// Deleted ones.
    pub tombstones: u64,
}

/// One record to be put in another's place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rewrap {
    /// Whose.
    pub kid: Kid,
    /// The record that was read; where another stands by now, nothing is changed.
    pub from: Box<[u8]>,
    /// The same DEK, wrapped anew.
    pub to: Box<[u8]>,
}

/// A store of wrapped DEKs. What it confirms is durable.
///
/// A future that is dropped leaves nothing half done: deadlines are kept by dropping it.
pub trait Store: Send + Sync {
    /// `embedded`, `postgres`, or the fake's name; for logs and metrics.
    fn name(&self) -> &str;

    /// Puts a row in, unless its kid is taken (deleted ones are) or, from epoch 1 on, its scope and epoch.
    fn put_if_absent<'a>(&'a self, row: &'a Row) -> Answer<'a, Put>;

    /// What is under a kid.
    fn get(&self, kid: Kid) -> Answer<'_, Option<Entry>>;

    /// The deterministic entry of a scope with the highest epoch; it may be a tombstone.
    fn latest<'a>(&'a self, scope: &'a Scope) -> Answer<'a, Option<Entry>>;

    /// Up to `limit` (at most [`BATCH_MAX`]) entries in the order of their kids, from behind `after` on.
    fn list(&self, after: Option<Kid>, limit: usize) -> Answer<'_, Vec<Entry>>;

    /// Puts other records in their places, each if the one that was read still stands there; how many were changed. All of
    /// at most [`BATCH_MAX`], or, on an error, any number of them.
    fn rewrap<'a>(&'a self, changes: &'a [Rewrap]) -> Answer<'a, u64>;

    /// Forgets the record under a kid and leaves a tombstone, also where there was none. What the tombstone's row said is filled
    /// in from the row that it replaces. True: it was not deleted before.
    fn delete<'a>(&'a self, tombstone: &'a Tombstone) -> Answer<'a, bool>;

    /// As [`Store::put_if_absent`] and [`Store::delete`], for at most [`BATCH_MAX`] entries of a backup or of another store; how many
    /// were not there before.
    fn restore<'a>(&'a self, entries: &'a [Entry]) -> Answer<'a, u64>;

    /// How many entries there are.
    fn count(&self) -> Answer<'_, Count>;
}

/// What kind of failure, and what it obliges the caller to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Failure {
    /// No answer, or a fault of the store's: may be tried again.
    Unreachable,
    /// The store refuses this agent, or is not set up: an operator has to act.
    Refused,
    /// What it holds cannot be understood.
    Malformed,
}

impl Failure {
    /// Stable; for metrics, logs and records.
    pub fn word(self) -> &'static str {
        match self {
            Failure::Unreachable => "unreachable",
            Failure::Refused => "refused",
            Failure::Malformed => "malformed",
        }
    }
}

/// A failure of one call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreError {
    /// What it obliges the caller to.
    pub failure: Failure,
    /// For the log and the operator: what happened, in a few words; no credentials and no record.
    pub detail: String,
}

impl StoreError {
    /// `detail`: a few words; no credentials, no record.
    pub fn new(failure: Failure, detail: impl Into<String>) -> StoreError {
        StoreError {
            failure,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.failure.word(), self.detail)
    }
}

impl std::error::Error for StoreError {}
