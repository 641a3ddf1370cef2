//! Who sees how much of what a rule opens.

use std::collections::BTreeMap;
use std::sync::Arc;

/// How much of an opened value is shown. In the order of how much.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Nothing: the token stays.
    None,
    /// What the mask of its class leaves.
    Masked,
    /// All of it.
    Full,
}

impl Level {
    /// `none`, `masked` or `full`.
    pub fn word(self) -> &'static str {
        match self {
            Level::None => "none",
            Level::Masked => "masked",
            Level::Full => "full",
        }
    }
}

/// How much an opening rule shows to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reveal {
    /// For everybody else, and for requests that name no caller.
    pub default: Level,
    /// By the caller's name.
    pub callers: BTreeMap<Arc<str>, Level>,
}

/// Everything to everybody: a rule that does not say otherwise.
impl Default for Reveal {
    fn default() -> Reveal {
        Reveal {
            default: Level::Full,
            callers: BTreeMap::new(),
        }
    }
}

impl Reveal {
    /// What this caller sees.
    pub fn to(&self, caller: Option<&str>) -> Level {
        caller
            .and_then(|caller| self.callers.get(caller))
            .copied()
            .unwrap_or(self.default)
    }

    /// Somebody sees a value masked.
    pub fn masks(&self) -> bool {
        self.default == Level::Masked || self.callers.values().any(|l| *l == Level::Masked)
    }
}
