//! Whether requests should be sent here, and what stands in the way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Named checks; all of them have to pass. Names are like `listener:out`, `keys:cards`, `draining`.
#[derive(Debug, Default)]
pub struct Readiness {
    /// Why it blocks, if it does.
    checks: Mutex<BTreeMap<Arc<str>, Option<&'static str>>>,
    /// What is to be said of a check, whether it blocks or not.
    notes: Mutex<BTreeMap<Arc<str>, String>>,
}

/// The checks at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checks {
    /// Name and reason of what stands in the way, by name.
    pub blockers: Vec<(Arc<str>, &'static str)>,
    /// Names of what does not, by name.
    pub passed: Vec<Arc<str>>,
    /// What is to be said of some of them, by name.
    pub notes: BTreeMap<Arc<str>, String>,
}

impl Readiness {
    fn checks(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Option<&'static str>>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This stands in the way from now on.
    pub fn block(&self, name: impl Into<Arc<str>>, why: &'static str) {
        self.checks().insert(name.into(), Some(why));
    }

    /// This does not (any more).
    pub fn pass(&self, name: impl Into<Arc<str>>) {
        self.checks().insert(name.into(), None);
    }

    /// This is to be said of a check from now on, to whoever asks for all of them.
    pub fn note(&self, name: impl Into<Arc<str>>, what: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.insert(name.into(), what);
    }

    /// Nothing stands in the way.
    pub fn is_ready(&self) -> bool {
        self.checks().values().all(Option::is_none)
    }

    /// How everything stands.
    pub fn look(&self) -> Checks {
        let checks = self.checks();
        let blockers = checks
            .iter()
            .filter_map(|(name, why)| Some((Arc::clone(name), (*why)?)));
        let passed = checks
            .iter()
            .filter(|(_, why)| why.is_none())
            .map(|(name, _)| Arc::clone(name));
        Checks {
            blockers: blockers.collect(),
            passed: passed.collect(),
            notes: self
                .notes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_checks_have_to_pass() {
        let readiness = Readiness::default();
        assert!(readiness.is_ready());
        readiness.block("keys:cards", "waiting");
        readiness.pass("listener:out");
        assert!(!readiness.is_ready());
        let look = readiness.look();
        assert_eq!(look.blockers, [("keys:cards".into(), "waiting")]);
        assert_eq!(look.passed, ["listener:out".into()]);
        readiness.pass("keys:cards");
        assert!(readiness.is_ready());
    }
}
