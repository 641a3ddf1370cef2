//! How far a request's body has been given out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// How much of a streaming request has been given out, in frames: asked for when the request itself is gone.
#[derive(Clone, Debug, Default)]
pub struct Progress(Option<Arc<Given>>);

#[derive(Debug, Default)]
struct Given {
    frames: AtomicU64,
    stalled: AtomicBool,
}

impl Progress {
    /// Counts from now on.
    pub fn counting() -> Progress {
        Progress(Some(Arc::default()))
    }
    /// One more frame.
    pub fn note(&self) {
        if let Some(given) = &self.0 {
            given.frames.fetch_add(1, Relaxed);
        }
    }
    /// Its sender did not go on, and was given up.
    pub fn stall(&self) {
        if let Some(given) = &self.0 {
            given.stalled.store(true, Relaxed);
        }
    }
    /// Whether that happened.
    pub fn is_stalled(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|given| given.stalled.load(Relaxed))
    }
    pub(super) fn moved(&self) -> u64 {
        self.0
            .as_ref()
            .map_or(0, |given| given.frames.load(Relaxed))
    }
}
