//! What the admin API asks of whoever reads the policies again, and what it is told. It does neither itself.

use std::pin::Pin;
use std::sync::Arc;

/// Reads the policies again when it is asked to.
pub trait Reload: Send + Sync {
    /// Reads and checks them, and puts them in force if they are good. Goes on to its end also when nobody waits for it
    /// any more. None: the agent is about to end.
    fn reload(&self) -> Pin<Box<dyn Future<Output = Option<Reloaded>> + Send + '_>>;
}

/// How a reload ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// What was found is in force now.
    Loaded,
    /// What was found was in force already.
    Unchanged,
    /// Something is wrong with what was found; the old policies stay.
    Bad,
    /// What was found protects less, and the settings do not allow that; the old policies stay.
    Weaker,
    /// A key that what was found needs cannot be had now; the old policies stay.
    Unavailable,
}

impl Outcome {
    /// Stable: `loaded`, `unchanged`, or why it was refused.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Loaded => "loaded",
            Outcome::Unchanged => "unchanged",
            Outcome::Bad => "bad",
            Outcome::Weaker => "weaker",
            Outcome::Unavailable => "unavailable",
        }
    }

    /// The policies that were found are not in force.
    pub fn is_refused(self) -> bool {
        !matches!(self, Outcome::Loaded | Outcome::Unchanged)
    }
}

/// One thing that is worth knowing about the policies that were found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Stable; a code of docs/policy.md, docs/policy-testing.md or docs/settings.md.
    pub code: &'static str,
    /// The place in a file (`FILE:LINE:COLUMN`), or what it concerns.
    pub at: String,
    /// What it is.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What came of a reload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reloaded {
    /// How it ended.
    pub outcome: Outcome,
    /// The version that is in force now.
    pub version: Arc<str>,
    /// The version that was refused, where it could be read.
    pub candidate: Option<Arc<str>>,
    /// Why it was refused; or what is weaker, and was allowed.
    pub findings: Vec<Finding>,
}
