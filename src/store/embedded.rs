//! A store in one file (redb), for the agents of one machine.
//!
//! Commands may have it open beside a running agent: redb locks ranges of the file, one transaction writes at a time, and what a
//! commit confirmed is on the disk. A process that is killed leaves the last commit. The file is private to its user; the
//! only copy of what is in it, so its page in the docs begins with backup.

use super::{
    Answer, Count, Entry, Failure, OWN, Put, Rewrap, Row, Store, StoreError, Tombstone, lines,
};
use crate::dek::{Kid, Scope};
use redb::{
    Builder, ConcurrencyMode, Database, DatabaseError, ReadableDatabase, ReadableTable,
    TableDefinition, WriteTransaction,
};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

/// kid -> the entry as [`lines`] has it.
const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");
/// [`slot`] -> kid of a deterministic entry.
const SLOTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("slots");
/// `format` -> its number.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
const FORMAT: u64 = 1;

/// Of the file's pages, at most so much stays in memory.
const CACHE_BYTES: usize = 8 << 20;

/// See the module. Clones share it.
#[derive(Clone)]
pub struct Embedded {
    database: Arc<Database>,
}

impl Embedded {
    /// Makes an empty store in a new file, which only its owner may read.
    ///
    /// # Errors
    /// There is a file already, or it cannot be written.
    pub fn create(path: &Path) -> Result<Embedded, StoreError> {
        // redb takes an empty file for a new one.
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| refused("cannot be made", &error))?;
        let made = || {
            let database = builder().create(path).map_err(opening)?;
            let write = database.begin_write().map_err(broken)?;
            {
                write.open_table(ENTRIES).map_err(broken)?;
                write.open_table(SLOTS).map_err(broken)?;
                let mut about = write.open_table(ABOUT).map_err(broken)?;
                about.insert("format", FORMAT).map_err(broken)?;
            }
            write.commit().map_err(broken)?;
            Ok(Embedded {
                database: Arc::new(database),
            })
        };
        made().inspect_err(|_| {
            // Half a store would look like one.
            let _ = std::fs::remove_file(path);
        })
    }

    /// Opens the store in this file.
    ///
    /// # Errors
    /// [`Failure::Refused`]: there is none, or it may not be read. [`Failure::Unreachable`]: another program has it for itself.
    /// [`Failure::Malformed`]: it is no store, or of a later version.
    pub fn open(path: &Path) -> Result<Embedded, StoreError> {
        // redb's own errors do not tell a missing file from a broken one.
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|error| refused("cannot be opened", &error))?;
        let database = builder().open(path).map_err(opening)?;
        let format = {
            let read = database.begin_read().map_err(broken)?;
            let about = read.open_table(ABOUT).map_err(broken)?;
            about
                .get("format")
                .map_err(broken)?
                .map(|format| format.value())
        };
        if format != Some(FORMAT) {
            return Err(StoreError::new(
                Failure::Malformed,
                "the file is of another version of this store",
            ));
        }
        Ok(Embedded {
            database: Arc::new(database),
        })
    }

    fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'_, T> {
        let database = Arc::clone(&self.database);
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || work(&database)).await;
            done.unwrap_or_else(|_| Err(StoreError::new(Failure::Malformed, "the file is broken")))
        })
    }

    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'_, T> {
        self.work(|database| {
            let write = database.begin_write().map_err(broken)?;
            let done = work(&write)?;
            write.commit().map_err(broken)?;
            Ok(done)
        })
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .set_cache_size(CACHE_BYTES)
        .set_concurrency_mode(ConcurrencyMode::MultiWriter);
    builder
}

fn refused(what: &str, error: &io::Error) -> StoreError {
    StoreError::new(Failure::Refused, format!("{what}: {error}"))
}

fn opening(error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::new(Failure::Unreachable, "another program has the file open")
        }
        other => broken(other),
    }
}

fn broken(error: impl Into<redb::Error>) -> StoreError {
    let error = error.into();
    let failure = match error {
        // What is no database at all is told as an error of reading.
        redb::Error::Io(ref error)
            if !matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            Failure::Unreachable
        }
        _ => Failure::Malformed,
    };
    StoreError::new(failure, error.to_string())
}

fn parse(bytes: &[u8]) -> Result<Entry, StoreError> {
    lines::parse(bytes).map_err(|error| StoreError::new(Failure::Malformed, error.to_string()))
}

/// `u32be(len(key)) || key || 0 | 1 || tenant`, behind which eight bytes of epoch stand, so that the order is that of epochs.
fn prefix(scope: &Scope) -> Vec<u8> {
    let key = scope.key.as_bytes();
    let mut bytes = u32::try_from(key.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes()
        .to_vec();
    bytes.extend_from_slice(key);
    bytes.push(u8::from(scope.tenant.is_some()));
    let tenant = scope.tenant.as_deref().unwrap_or_default().as_bytes();
    bytes.extend_from_slice(
        &u32::try_from(tenant.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    bytes.extend_from_slice(tenant);
    bytes
}

fn slot((scope, epoch): (&Scope, u64)) -> Vec<u8> {
    let mut bytes = prefix(scope);
    bytes.extend_from_slice(&epoch.to_be_bytes());
    bytes
}

/// What is under a kid, in a transaction that writes.
fn find(write: &WriteTransaction, kid: &[u8]) -> Result<Option<Entry>, StoreError> {
    let entries = write.open_table(ENTRIES).map_err(broken)?;
    let found = entries.get(kid).map_err(broken)?;
    found.map(|bytes| parse(bytes.value())).transpose()
}

fn set(write: &WriteTransaction, entry: &Entry) -> Result<(), StoreError> {
    let mut entries = write.open_table(ENTRIES).map_err(broken)?;
    let text = lines::write(entry);
    let kid = entry.kid().0;
    entries.insert(&kid[..], text.as_bytes()).map_err(broken)?;
    if let Some(taken) = entry.slot() {
        let mut slots = write.open_table(SLOTS).map_err(broken)?;
        let slot = slot(taken);
        // A tombstone from elsewhere may find its number taken; it then does without.
        if slots.get(&slot[..]).map_err(broken)?.is_none() {
            slots.insert(&slot[..], &kid[..]).map_err(broken)?;
        }
    }
    Ok(())
}

fn put(write: &WriteTransaction, entry: &Entry) -> Result<Put, StoreError> {
    if let Some(known) = find(write, &entry.kid().0)? {
        return Ok(Put::Present(known));
    }
    if let Some(taken) = entry.slot() {
        let holder = {
            let slots = write.open_table(SLOTS).map_err(broken)?;
            let holder = slots.get(&slot(taken)[..]).map_err(broken)?;
            holder.map(|kid| kid.value().to_vec())
        };
        if let Some(kid) = holder {
            let lost = || StoreError::new(Failure::Malformed, "an epoch without its entry");
            return find(write, &kid)?.map(Put::Present).ok_or_else(lost);
        }
    }
    set(write, entry)?;
    Ok(Put::Made)
}

fn bury(write: &WriteTransaction, tombstone: &Tombstone) -> Result<bool, StoreError> {
    let mut tombstone = tombstone.clone();
    match find(write, &tombstone.kid.0)? {
        Some(Entry::Tombstone(_)) => return Ok(false),
        Some(Entry::Row(row)) => tombstone.was = Some((row.scope, row.epoch)),
        None => {}
    }
    set(write, &Entry::Tombstone(tombstone))?;
    Ok(true)
}

impl Store for Embedded {
    fn name(&self) -> &str {
        "embedded"
    }

    fn put_if_absent<'a>(&'a self, row: &'a Row) -> Answer<'a, Put> {
        let entry = Entry::Row(row.clone());
        self.write(move |write| put(write, &entry))
    }

    fn get(&self, kid: Kid) -> Answer<'_, Option<Entry>> {
        self.work(move |database| {
            let read = database.begin_read().map_err(broken)?;
            let entries = read.open_table(ENTRIES).map_err(broken)?;
            let found = entries.get(&kid.0[..]).map_err(broken)?;
            found.map(|bytes| parse(bytes.value())).transpose()
        })
    }

    fn latest<'a>(&'a self, scope: &'a Scope) -> Answer<'a, Option<Entry>> {
        let (from, to) = (slot((scope, 0)), slot((scope, u64::MAX)));
        self.work(move |database| {
            let read = database.begin_read().map_err(broken)?;
            let slots = read.open_table(SLOTS).map_err(broken)?;
            let mut of_scope = slots.range(&from[..]..=&to[..]).map_err(broken)?;
            let Some(last) = of_scope.next_back() else {
                return Ok(None);
            };
            let (_, kid) = last.map_err(broken)?;
            let entries = read.open_table(ENTRIES).map_err(broken)?;
            let found = entries.get(kid.value()).map_err(broken)?;
            found.map(|bytes| parse(bytes.value())).transpose()
        })
    }

    fn list(&self, after: Option<Kid>, limit: usize) -> Answer<'_, Vec<Entry>> {
        self.work(move |database| {
            use std::ops::Bound::{Excluded, Unbounded};
            let read = database.begin_read().map_err(broken)?;
            let entries = read.open_table(ENTRIES).map_err(broken)?;
            let from = after.as_ref().map_or(Unbounded, |kid| Excluded(&kid.0[..]));
            let listed = entries.range::<&[u8]>((from, Unbounded)).map_err(broken)?;
            listed
                .take(limit)
                .map(|found| parse(found.map_err(broken)?.1.value()))
                .collect()
        })
    }

    fn rewrap<'a>(&'a self, changes: &'a [Rewrap]) -> Answer<'a, u64> {
        let changes = changes.to_vec();
        self.write(move |write| {
            let mut changed = 0;
            for change in changes {
                if let Some(Entry::Row(row)) = find(write, &change.kid.0)?
                    && row.record == change.from
                {
                    let record = change.to;
                    set(write, &Entry::Row(Row { record, ..row }))?;
                    changed += 1;
                }
            }
            Ok(changed)
        })
    }

    fn delete<'a>(&'a self, tombstone: &'a Tombstone) -> Answer<'a, bool> {
        let tombstone = tombstone.clone();
        self.write(move |write| bury(write, &tombstone))
    }

    fn restore<'a>(&'a self, restored: &'a [Entry]) -> Answer<'a, u64> {
        let restored = restored.to_vec();
        self.write(move |write| {
            let mut made = 0;
            for entry in &restored {
                made += u64::from(match entry {
                    Entry::Row(_) => put(write, entry)? == Put::Made,
                    Entry::Tombstone(tombstone) => bury(write, tombstone)?,
                });
            }
            Ok(made)
        })
    }

    fn count(&self) -> Answer<'_, Count> {
        self.work(|database| {
            let read = database.begin_read().map_err(broken)?;
            let entries = read.open_table(ENTRIES).map_err(broken)?;
            let mut count = Count::default();
            for found in entries.iter().map_err(broken)? {
                match parse(found.map_err(broken)?.1.value())? {
                    Entry::Row(row) => {
                        count.rows += 1;
                        count.durable += u64::from(row.epoch != OWN);
                    }
                    Entry::Tombstone(_) => count.tombstones += 1,
                }
            }
            Ok(count)
        })
    }
}
