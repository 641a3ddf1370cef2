//! What an operator does to stored DEKs: look whether each opens and under what, wrap them anew under the KEKs that seal now, put
//! another in a deterministic scope's place.
//!
//! It holds a DEK for as long as one row takes. A record is wrapped anew only after it opened as what its row says (kid and MAC), so
//! that nothing gets a good KEK's blessing that had none; and a row is changed by comparison with what was read, so that the work
//! may stop anywhere, begin again, and run beside agents.

use super::{Binding, KeySettings};
use crate::arena::Arena;
use crate::dek::{self, Kid, Material, Scope};
use crate::kms::{Answer, Failure, Kms, KmsError, Random};
use crate::store::{Rewrap, Row};
use crate::token::{KekId, Record, kek_id};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

/// Rows that are worked on at a time.
const AT_ONCE: usize = 16;
/// For one call.
const DEADLINE: Duration = Duration::from_secs(5);
/// Before each repetition of a call that reached nobody.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
];
/// However long a KMS asks to be left alone.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Why a stored DEK does not open, or cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unfit {
    /// The settings have no key of this name.
    UnknownKey,
    /// It is under none of its key's KEKs.
    Foreign,
    /// What the KMS says.
    Kms(Failure),
    /// What opens is another DEK than the row's kid names.
    OtherDek,
    /// The row's MAC is not of its place: another key's, tenant's or epoch's row, or nobody's.
    Misplaced,
    /// Anyone may wrap under the KEK: a deterministic DEK would prove nothing about who made it.
    AnyoneMayWrap,
    /// No memory or randomness, or names that are too long.
    System,
}

impl Unfit {
    /// Stable; for reports.
    pub fn word(self) -> &'static str {
        match self {
            Unfit::UnknownKey => "unknown-key",
            Unfit::Foreign => "foreign",
            Unfit::Kms(failure) => failure.word(),
            Unfit::OtherDek => "other-dek",
            Unfit::Misplaced => "misplaced",
            Unfit::AnyoneMayWrap => "anyone-may-wrap",
            Unfit::System => "system",
        }
    }

    /// Whether it may be different in a while.
    pub fn is_unreachable(self) -> bool {
        self == Unfit::Kms(Failure::Unreachable)
    }
}

/// One wrapping of a stored DEK.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrapped {
    /// The KEK's URI; of one that the key does not name, its id in hexadecimal digits.
    pub kek: String,
    /// Its version, where the blob tells.
    pub version: Option<String>,
    /// Whether it opens, as what the row says.
    pub opens: Result<(), Unfit>,
}

/// What became of one row that was to be wrapped anew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Anew {
    /// It is under the KEKs that seal, in their current versions as far as those tell.
    AsItIs,
    /// To be given to [`crate::store::Store::rewrap`].
    Changed(Rewrap),
}

struct Kek {
    kms: Arc<dyn Kms>,
    name: String,
    uri: String,
    id: KekId,
    /// The version that wraps, where blobs tell; asked for once.
    current: OnceCell<Option<String>>,
}

struct OfKey {
    seal_with: Vec<Arc<Kek>>,
    /// Those of `seal_with`, then those of `open_also`.
    keks: Vec<Arc<Kek>>,
}

/// See the module. Clones share it.
#[derive(Clone)]
pub struct Upkeep {
    inner: Arc<Inner>,
}

struct Inner {
    keys: HashMap<Arc<str>, OfKey>,
    arena: Arena,
    random: Random,
}

impl Upkeep {
    /// For rows of these keys.
    pub fn new(keys: &[KeySettings], arena: Arena, random: Random) -> Upkeep {
        let kek = |binding: &Binding| {
            let uri = binding.kms.uri(&binding.kek);
            Arc::new(Kek {
                kms: Arc::clone(&binding.kms),
                name: binding.kek.clone(),
                id: kek_id(&uri),
                uri,
                current: OnceCell::new(),
            })
        };
        let of_key = |key: &KeySettings| {
            let seal_with: Vec<_> = key.seal_with.iter().map(kek).collect();
            let also = key.open_also.iter().map(kek);
            let keks = seal_with.iter().cloned().chain(also).collect();
            (Arc::clone(&key.name), OfKey { seal_with, keks })
        };
        Upkeep {
            inner: Arc::new(Inner {
                keys: keys.iter().map(of_key).collect(),
                arena,
                random,
            }),
        }
    }

    /// Opens every wrapping of every row.
    pub async fn look(&self, rows: Vec<Row>) -> Vec<(Row, Vec<Wrapped>)> {
        self.spread(rows, |inner, row| async move {
            let wrappings = inner.look(&row).await;
            (row, wrappings)
        })
        .await
    }

    /// Wraps every row anew that is not under the KEKs which seal now.
    pub async fn rewrap(&self, rows: Vec<Row>) -> Vec<(Row, Result<Anew, Unfit>)> {
        self.spread(rows, |inner, row| async move {
            let anew = inner.rewrap(&row).await;
            (row, anew)
        })
        .await
    }

    /// A fresh deterministic DEK for a scope.
    ///
    /// # Errors
    /// It cannot be wrapped, or the key is not for it.
    pub async fn fresh(&self, scope: &Scope, epoch: u64, created: u64) -> Result<Row, Unfit> {
        self.inner.fresh(scope, epoch, created).await
    }

    /// Does `work` on all rows, some at a time, and keeps their order.
    async fn spread<T, F>(&self, rows: Vec<Row>, work: fn(Arc<Inner>, Row) -> F) -> Vec<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let share = rows.len().div_ceil(AT_ONCE).max(1);
        let mut rows = rows.into_iter();
        let mut tasks = Vec::new();
        loop {
            let part: Vec<Row> = rows.by_ref().take(share).collect();
            if part.is_empty() {
                break;
            }
            let inner = Arc::clone(&self.inner);
            tasks.push(tokio::spawn(async move {
                let mut done = Vec::with_capacity(part.len());
                for row in part {
                    done.push(work(Arc::clone(&inner), row).await);
                }
                done
            }));
        }
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.expect("no task is cut off"));
        }
        all
    }
}

impl Inner {
    async fn look(&self, row: &Row) -> Vec<Wrapped> {
        let key = self.keys.get(&row.scope.key);
        let mut looked = Vec::new();
        let Ok(record) = Record::parse(&row.record) else {
            return looked;
        };
        for (id, blob) in record.wrappings() {
            let known = key.and_then(|key| key.keks.iter().find(|kek| kek.id == id));
            looked.push(match known {
                Some(kek) => Wrapped {
                    kek: kek.uri.clone(),
                    version: kek.kms.version(blob),
                    opens: self.open(kek, blob, row).await.map(|_| ()),
                },
                None => Wrapped {
                    kek: id.iter().map(|byte| format!("{byte:02x}")).collect(),
                    version: None,
                    opens: Err(match key {
                        Some(_) => Unfit::Foreign,
                        None => Unfit::UnknownKey,
                    }),
                },
            });
        }
        looked
    }

    /// The DEK of one wrapping, if it is what the row says.
    async fn open(&self, kek: &Kek, blob: &[u8], row: &Row) -> Result<Zeroizing<Vec<u8>>, Unfit> {
        let unwrapped = call(|| kek.kms.unwrap(&kek.name, blob, &row.scope)).await?;
        let raw: &[u8; 32] = (unwrapped.dek[..])
            .try_into()
            .map_err(|_| Unfit::OtherDek)?;
        if self.kid(raw)? != row.kid {
            return Err(Unfit::OtherDek);
        }
        if dek::row_mac(raw, &row.scope, row.epoch) != Some(row.mac) {
            return Err(Unfit::Misplaced);
        }
        Ok(unwrapped.dek)
    }

    async fn rewrap(&self, row: &Row) -> Result<Anew, Unfit> {
        let key = self.keys.get(&row.scope.key).ok_or(Unfit::UnknownKey)?;
        let record = Record::parse(&row.record).map_err(|_| Unfit::Foreign)?;
        if self.is_current(key, record, &row.scope).await? {
            return Ok(Anew::AsItIs);
        }
        let mut why = Unfit::Foreign;
        for (id, blob) in record.wrappings() {
            let Some(kek) = key.keks.iter().find(|kek| kek.id == id) else {
                continue;
            };
            match self.open(kek, blob, row).await {
                Ok(raw) => {
                    let raw: &[u8; 32] = raw[..].try_into().map_err(|_| Unfit::OtherDek)?;
                    return Ok(Anew::Changed(Rewrap {
                        kid: row.kid,
                        from: row.record.clone(),
                        to: wrap(key, raw, &row.scope).await?,
                    }));
                }
                Err(no) => why = no,
            }
        }
        Err(why)
    }

    /// Whether a record is under exactly the KEKs that seal, and none of its blobs says that it is of an older version.
    async fn is_current(
        &self,
        key: &OfKey,
        record: Record<'_>,
        scope: &Scope,
    ) -> Result<bool, Unfit> {
        let mut wrappings = record.wrappings();
        for kek in &key.seal_with {
            let Some((id, blob)) = wrappings.next() else {
                return Ok(false);
            };
            if id != kek.id {
                return Ok(false);
            }
            let Some(version) = kek.kms.version(blob) else {
                continue;
            };
            let current = kek.current.get_or_try_init(|| async {
                // What is wrapped now says which version wraps now.
                let (probe, filled) = self
                    .arena
                    .hold(|bytes| (self.random)(&mut bytes[..32]))
                    .map_err(|_| Unfit::System)?;
                filled.map_err(|_| Unfit::System)?;
                let raw = probe.expose().first_chunk().expect("32 of 96 bytes");
                let blob = call(|| kek.kms.wrap(&kek.name, raw, scope)).await?;
                Ok(kek.kms.version(&blob))
            });
            if current.await?.as_ref() != Some(&version) {
                return Ok(false);
            }
        }
        Ok(wrappings.next().is_none())
    }

    async fn fresh(&self, scope: &Scope, epoch: u64, created: u64) -> Result<Row, Unfit> {
        let key = self.keys.get(&scope.key).ok_or(Unfit::UnknownKey)?;
        let anyone = |kek: &Arc<Kek>| kek.kms.anyone_may_wrap(&kek.name);
        if key.seal_with.iter().any(anyone) {
            return Err(Unfit::AnyoneMayWrap);
        }
        let (raw, filled) = self
            .arena
            .hold(|bytes| (self.random)(&mut bytes[..32]))
            .map_err(|_| Unfit::System)?;
        filled.map_err(|_| Unfit::System)?;
        let raw: &[u8; 32] = raw.expose().first_chunk().expect("32 of 96 bytes");
        Ok(Row {
            kid: self.kid(raw)?,
            scope: scope.clone(),
            epoch,
            created,
            record: wrap(key, raw, scope).await?,
            mac: dek::row_mac(raw, scope, epoch).ok_or(Unfit::System)?,
        })
    }

    fn kid(&self, raw: &[u8; 32]) -> Result<Kid, Unfit> {
        let scheduled = self.arena.hold(|material| dek::schedule(raw, material));
        scheduled.map(|(_, kid)| kid).map_err(|_| Unfit::System)
    }
}

/// A DEK under every KEK that seals.
async fn wrap(key: &OfKey, raw: &[u8; 32], scope: &Scope) -> Result<Box<[u8]>, Unfit> {
    let mut blobs = Vec::new();
    for kek in &key.seal_with {
        blobs.push((kek.id, call(|| kek.kms.wrap(&kek.name, raw, scope)).await?));
    }
    let wrappings: Vec<_> = blobs.iter().map(|(id, blob)| (*id, &blob[..])).collect();
    Record::build(&wrappings).map_err(|_| Unfit::Kms(Failure::Malformed))
}

/// One call, made again where it reached nobody.
async fn call<'a, T>(ask: impl Fn() -> Answer<'a, T>) -> Result<T, Unfit> {
    let mut pauses = PAUSES.iter();
    loop {
        let answer = tokio::time::timeout(DEADLINE, ask()).await;
        let late = |_| KmsError::new(Failure::Unreachable, "no answer in time");
        match answer.map_err(late).flatten() {
            Ok(answer) => return Ok(answer),
            Err(error) => match (error.failure, pauses.next()) {
                (Failure::Unreachable, Some(pause)) => {
                    let asked = error.retry_after.unwrap_or_default();
                    tokio::time::sleep(asked.max(*pause).min(PAUSE_MAX)).await;
                }
                (failure, _) => return Err(Unfit::Kms(failure)),
            },
        }
    }
}

#[cfg(test)]
mod tests;
