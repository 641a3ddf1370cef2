//! What a body that is rewritten while it flows notes for the record of its access, which is committed when the answer is over.

use super::Reason;
use crate::transform::Tally;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared by a flow and the record.
#[derive(Clone, Default)]
pub struct Slip(Arc<Mutex<Notes>>);

/// So far.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) tally: Tally,
    /// Records that passed sealed, by reason word.
    pub(super) unread: Vec<(&'static str, u32)>,
    /// What an observing route would have ended it for, the first time.
    pub(super) observed: Option<Refused>,
    /// What it was ended for.
    pub(super) refused: Option<Refused>,
    /// Bytes that came.
    pub(super) bytes: u64,
}

/// A [`Reason`] that lasts.
#[derive(Clone)]
pub(super) struct Refused {
    pub(super) code: &'static str,
    pub(super) fault: &'static str,
    pub(super) note: String,
}

impl From<Reason<'_>> for Refused {
    fn from(reason: Reason<'_>) -> Refused {
        Refused {
            code: reason.code,
            fault: reason.fault,
            note: reason.note.to_owned(),
        }
    }
}

impl Slip {
    /// A piece was rewritten, with this outcome.
    pub fn tally(&self, tally: &Tally) {
        self.notes().tally.add(tally);
    }
    /// A piece passed as it came, sealed: why.
    pub fn unread(&self, why: &'static str) {
        let unread = &mut self.notes().unread;
        match unread.iter_mut().find(|(known, _)| *known == why) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => unread.push((why, 1)),
        }
    }
    /// An observing route would have ended it here.
    pub fn would_refuse(&self, reason: Reason<'_>) {
        let observed = &mut self.notes().observed;
        if observed.is_none() {
            *observed = Some(reason.into());
        }
    }
    /// It ends here.
    pub fn refused(&self, reason: Reason<'_>) {
        self.notes().refused = Some(reason.into());
    }
    /// So many bytes came.
    pub fn came(&self, bytes: usize) {
        self.notes().bytes += bytes as u64;
    }

    pub(super) fn notes(&self) -> MutexGuard<'_, Notes> {
        // Counts stay true whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
