//! One DEK under several KEKs: wrapped under all of a key's at once, and opened by any of them.
//!
//! Opening asks the nearest that answers first, and another one after a while, or at once where nobody is reached. A no is final
//! wherever it comes from: it is never taken to another KEK. What a KMS gives back is a DEK only if the kid says so.

use super::calls::{Answered, Kek, Manner, Unanswered};
use super::turnstile::Rank;
use super::{Key, Need, Room, kms};
use crate::arena::Slot;
use crate::dek::{self, Dek, Kid, Scope, Unopened};
use crate::kms::{KmsError, Unwrapped};
use crate::token::Record;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};
use zeroize::Zeroizing;

/// How long one KMS is waited for before another is asked as well.
pub const HEDGE_AFTER: Duration = Duration::from_millis(300);

/// How long the others are waited for when one KMS has answered and is enough.
pub const STRAGGLERS: Duration = Duration::from_secs(2);

/// A DEK's wrappings.
pub struct Wrapped {
    pub record: Box<[u8]>,
    /// How many of `seal_with` are not in it.
    pub missing: usize,
    /// When the first of the calls was sent.
    pub sent: Instant,
}

/// A DEK as a KMS unwrapped it, checked against its kid.
pub struct Opened {
    pub dek: Dek,
    pub superseded: bool,
    /// When the call that brought it was sent.
    pub sent: Instant,
    /// The DEK itself, where the store's row vouches for it: to be wrapped under KEKs that its record lacks.
    pub raw: Option<Zeroizing<Vec<u8>>>,
}

/// Why a record did not open.
#[derive(Debug)]
pub enum Unwrapping {
    Failed(KmsError),
    /// The KMS answered, but not with the DEK that the kid names.
    OtherDek,
    /// Nobody wants it any more.
    Unwanted,
}

impl Unwrapping {
    fn foreign() -> Unwrapping {
        let detail = "wrapped under no KEK of this key";
        Unwrapping::Failed(KmsError::new(kms::Failure::Malformed, detail))
    }

    pub fn is_unreachable(&self) -> bool {
        matches!(self, Unwrapping::Failed(error) if error.failure == kms::Failure::Unreachable)
    }

    pub fn is_malformed(&self) -> bool {
        matches!(self, Unwrapping::Failed(error) if error.failure == kms::Failure::Malformed)
    }

    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Unwrapping::Failed(error) => error.retry_after,
            Unwrapping::OtherDek | Unwrapping::Unwanted => None,
        }
    }

    pub fn word(&self) -> &'static str {
        match self {
            Unwrapping::Failed(error) => error.failure.word(),
            Unwrapping::OtherDek => "mismatch",
            Unwrapping::Unwanted => "unwanted",
        }
    }

    /// For a record that was asked about for the first time.
    pub fn unopened(&self) -> Unopened {
        use kms::Failure::*;
        match self {
            Unwrapping::Failed(error) => match error.failure {
                Unreachable => Unopened::Unreachable,
                Denied | Disabled | Destroyed => Unopened::Denied,
                NotFound => Unopened::NotFound,
                Malformed => Unopened::Mismatch,
            },
            Unwrapping::OtherDek => Unopened::Mismatch,
            Unwrapping::Unwanted => Unopened::Unreachable,
        }
    }
}

impl From<Unanswered> for Unwrapping {
    fn from(why: Unanswered) -> Unwrapping {
        match why {
            Unanswered::Failed(error) => Unwrapping::Failed(error),
            Unanswered::Unwanted => Unwrapping::Unwanted,
        }
    }
}

/// A record that is to be opened.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    pub key: &'a Key,
    pub scope: &'a Scope,
    /// What opens must yield it.
    pub kid: Kid,
    pub record: &'a [u8],
    /// Epoch and MAC of the store's row, where the DEK is to seal.
    pub attested: Option<(u64, [u8; 16])>,
}

/// What is done about an answer to a question that went to all of a record's KEKs.
pub enum Verdict {
    /// It may go on until the lease ends that began at this time.
    Agreed {
        /// When it was asked.
        sent: Instant,
        /// The KEK has a newer version.
        superseded: bool,
    },
    /// Nothing that would settle it: nobody was reached, or the answer made no sense.
    Unsettled(Unwrapping),
    /// It must go.
    Refused(&'static str),
}

impl Room {
    /// Has a fresh DEK wrapped under all KEKs that its key seals with.
    pub(super) async fn wrap(
        &self,
        key: &Key,
        rank: Rank,
        raw: &[u8; 32],
        scope: &Scope,
    ) -> Result<Wrapped, KmsError> {
        let manner = Manner {
            rank,
            again: true,
            wanted: &|| true,
        };
        let mut calls = Side::default();
        for kek in &key.seal_with {
            calls.push(self.calls.wrap(manner, kek, raw, scope));
        }
        let mut blobs: Vec<Option<Answered<Vec<u8>>>> = Vec::new();
        blobs.resize_with(key.seal_with.len(), || None);
        let mut failed: Option<KmsError> = None;
        let mut until = None;
        loop {
            let next = match until {
                None => calls.next().await,
                Some(until) => timeout_at(until, calls.next()).await.unwrap_or(None),
            };
            match next {
                Some((at, Ok(answered))) => {
                    blobs[at] = Some(answered);
                    if key.need == Need::Any {
                        until.get_or_insert_with(|| Instant::now() + STRAGGLERS);
                    }
                }
                Some((at, Err(Unanswered::Failed(error)))) => {
                    if key.need == Need::Any && key.seal_with.len() > 1 {
                        tracing::warn!(key = %key.name, kek = %key.seal_with[at].uri, why = error.failure.word(),
                            "a data key is not wrapped under this KEK");
                    }
                    let is_no = error.failure.is_no();
                    // A no weighs more than silence.
                    if failed
                        .as_ref()
                        .is_none_or(|known| is_no && !known.failure.is_no())
                    {
                        failed = Some(error);
                    }
                    if key.need == Need::All && is_no {
                        break;
                    }
                }
                Some((_, Err(Unanswered::Unwanted))) => {}
                None => break,
            }
        }
        drop(calls);
        let missing = blobs.iter().filter(|blob| blob.is_none()).count();
        let enough = match key.need {
            Need::Any => missing < blobs.len(),
            Need::All => missing == 0,
        };
        let silent = || KmsError::new(kms::Failure::Unreachable, "no answer in time");
        if !enough {
            return Err(failed.unwrap_or_else(silent));
        }
        let wrapped = blobs.iter().zip(&key.seal_with);
        let wrapped = wrapped.filter_map(|(blob, kek)| Some((kek.id, blob.as_ref()?)));
        let sent = wrapped.clone().map(|(_, blob)| blob.sent).min();
        let wrappings: Vec<_> = wrapped.map(|(id, blob)| (id, &blob.answer[..])).collect();
        let record = Record::build(&wrappings)
            .map_err(|_| KmsError::new(kms::Failure::Malformed, "wrappings that fit no record"))?;
        Ok(Wrapped {
            record,
            missing,
            sent: sent.ok_or_else(silent)?,
        })
    }

    /// Unwraps a record by any of its wrappings, the nearest first.
    pub(super) async fn unwrap(
        &self,
        rank: Rank,
        wanted: &(dyn Fn() -> bool + Sync),
        question: Question<'_>,
    ) -> Result<Opened, Unwrapping> {
        let Question { key, scope, .. } = question;
        let parsed = Record::parse(question.record).map_err(|_| Unwrapping::foreign())?;
        let now = Instant::now();
        let mut ways: Vec<(&Arc<Kek>, &[u8])> = key.ways(parsed).collect();
        ways.sort_by_key(|(kek, _)| kek.rank_at(now));
        let mut ways = ways.into_iter();
        let mut calls = Side::default();
        let mut failed = Unwrapping::foreign();
        let mut hedge_at = now;
        loop {
            if calls.is_empty() || Instant::now() >= hedge_at {
                match ways.next() {
                    Some((kek, blob)) => {
                        let manner = Manner {
                            rank,
                            again: ways.len() == 0,
                            wanted,
                        };
                        calls.push(self.calls.unwrap(manner, kek, blob, scope));
                        hedge_at = Instant::now() + HEDGE_AFTER;
                    }
                    None if calls.is_empty() => return Err(failed),
                    None => {}
                }
            }
            let landed = tokio::select! {
                biased;
                landed = calls.next() => landed,
                () = sleep_until(hedge_at), if ways.len() > 0 => continue,
            };
            match landed {
                Some((_, Ok(answered))) => return self.check(answered, question),
                Some((_, Err(why))) => {
                    let why = Unwrapping::from(why);
                    if !why.is_unreachable() {
                        return Err(why);
                    }
                    failed = sooner(failed, why);
                    hedge_at = Instant::now();
                }
                None => {}
            }
        }
    }

    /// Asks every KEK that wrapped a DEK of this key whether it still may be used, and tells each answer as it comes: one that
    /// agrees is enough to go on, one that does not is enough to end it. `tell` says whether to hear the others.
    pub(super) async fn ask_all(
        &self,
        question: Question<'_>,
        mut tell: impl FnMut(Verdict) -> bool,
    ) {
        let Question { key, scope, .. } = question;
        let Ok(parsed) = Record::parse(question.record) else {
            tell(Verdict::Unsettled(Unwrapping::foreign()));
            return;
        };
        let manner = Manner {
            rank: Rank::Renewal,
            again: true,
            wanted: &|| true,
        };
        let mut calls = Side::default();
        for (kek, blob) in key.ways(parsed) {
            calls.push(self.calls.unwrap(manner, kek, blob, scope));
        }
        if calls.is_empty() {
            tell(Verdict::Unsettled(Unwrapping::foreign()));
        }
        while let Some((_, landed)) = calls.next().await {
            let checked = landed
                .map_err(Unwrapping::from)
                .and_then(|answered| self.check(answered, question));
            let go_on = match checked {
                Ok(opened) => tell(Verdict::Agreed {
                    sent: opened.sent,
                    superseded: opened.superseded,
                }),
                Err(why) if why.is_unreachable() || why.is_malformed() => {
                    tell(Verdict::Unsettled(why))
                }
                Err(why) => tell(Verdict::Refused(why.word())),
            };
            if !go_on {
                return;
            }
        }
    }

    fn check(
        &self,
        answered: Answered<Unwrapped>,
        question: Question<'_>,
    ) -> Result<Opened, Unwrapping> {
        let Answered { answer, sent } = answered;
        let attested = question.attested;
        let raw: &[u8; 32] = answer.dek[..]
            .try_into()
            .map_err(|_| Unwrapping::OtherDek)?;
        let (material, found) = self.schedule(raw).ok_or_else(|| {
            Unwrapping::Failed(KmsError::new(kms::Failure::Unreachable, "no memory"))
        })?;
        let genuine = attested
            .is_none_or(|(epoch, mac)| dek::row_mac(raw, question.scope, epoch) == Some(mac));
        if found != question.kid || !genuine {
            return Err(Unwrapping::OtherDek);
        }
        Ok(Opened {
            dek: Dek::new(found, Box::new(material)),
            superseded: answer.superseded,
            sent,
            raw: attested.is_some().then_some(answer.dek),
        })
    }

    /// Adds to a record what its DEK lacks of the wrappings under KEKs that its key seals with. None: nobody who was missing answered,
    /// or the record would have too many.
    pub(super) async fn wrap_missing(
        &self,
        key: &Key,
        raw: &[u8; 32],
        scope: &Scope,
        record: &[u8],
    ) -> Option<Box<[u8]>> {
        let parsed = Record::parse(record).ok()?;
        let blob = |kek: &Kek| parsed.wrappings().find(|(id, _)| *id == kek.id);
        let manner = Manner {
            rank: Rank::Renewal,
            again: false,
            wanted: &|| true,
        };
        let mut calls = Side::default();
        let mut missing = Vec::new();
        for (at, kek) in key.seal_with.iter().enumerate() {
            if blob(kek).is_none() {
                missing.push(at);
                calls.push(self.calls.wrap(manner, kek, raw, scope));
            }
        }
        let mut fresh: Vec<Option<Vec<u8>>> = vec![None; key.seal_with.len()];
        while let Some((at, answered)) = calls.next().await {
            if let (Ok(answered), Some(at)) = (answered, missing.get(at)) {
                fresh[*at] = Some(answered.answer);
            }
        }
        drop(calls);
        if fresh.iter().all(Option::is_none) {
            return None;
        }
        // In the order of the settings, as if they all had been there; then those under KEKs that only open.
        let sealing = key.seal_with.iter().zip(&fresh);
        let sealing = sealing.filter_map(|(kek, fresh)| match fresh {
            Some(fresh) => Some((kek.id, &fresh[..])),
            None => blob(kek),
        });
        let seals = |id| key.seal_with.iter().any(|kek| kek.id == id);
        let others = parsed.wrappings().filter(|(id, _)| !seals(*id));
        Record::build(&sealing.chain(others).collect::<Vec<_>>()).ok()
    }

    pub(super) fn schedule(&self, raw: &[u8; 32]) -> Option<(Slot, Kid)> {
        self.arena
            .hold(|material| dek::schedule(raw, material))
            .ok()
    }
}

/// Of two that nobody was reached for, the one that says to come back sooner.
fn sooner(known: Unwrapping, new: Unwrapping) -> Unwrapping {
    let is_later = |known: Duration| new.retry_after().is_some_and(|new| new >= known);
    match known.is_unreachable() && known.retry_after().is_some_and(is_later) {
        true => known,
        false => new,
    }
}

/// At most four futures side by side, in one task.
struct Side<'a, T> {
    futures: Vec<Option<Pin<Box<dyn Future<Output = T> + Send + 'a>>>>,
}

impl<T> Default for Side<'_, T> {
    fn default() -> Self {
        Side {
            futures: Vec::new(),
        }
    }
}

impl<'a, T> Side<'a, T> {
    fn push(&mut self, future: impl Future<Output = T> + Send + 'a) {
        self.futures.push(Some(Box::pin(future)));
    }

    fn is_empty(&self) -> bool {
        self.futures.iter().all(Option::is_none)
    }

    /// The next that is done, with its place. None: there is none left.
    async fn next(&mut self) -> Option<(usize, T)> {
        poll_fn(|context| {
            let mut left = false;
            for (at, place) in self.futures.iter_mut().enumerate() {
                if let Some(future) = place {
                    if let Poll::Ready(done) = future.as_mut().poll(context) {
                        *place = None;
                        return Poll::Ready(Some((at, done)));
                    }
                    left = true;
                }
            }
            match left {
                true => Poll::Pending,
                false => Poll::Ready(None),
            }
        })
        .await
    }
}
