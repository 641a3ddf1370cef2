//! The rules of one side of a route: what became of each old one, and what each new one brings.

use super::{Direction, Notes};
use crate::context::Class;
use crate::diagnostic::quoted;
use crate::policy::Route;
use crate::transform::Level;
use crate::transform::{Action, BindSource, Rule};
use std::collections::BTreeSet;
use std::sync::Arc;

/// One side of a route, then and now.
pub(super) struct Side<'r> {
    pub about: &'r str,
    pub is_request: bool,
    /// Values that no rule names are refused now.
    pub refuses_unclaimed: bool,
    pub old: &'r Route,
    pub old_rules: &'r [Rule],
    pub new: &'r Route,
    pub new_rules: &'r [Rule],
}

impl Side<'_> {
    pub(super) fn compare(&self, notes: &mut Notes) {
        for (index, rule) in self.old_rules.iter().enumerate() {
            match &rule.action {
                Action::Seal(class) => self.sealing(index, class, notes),
                Action::Open(_) => self.opening(rule, notes),
                Action::Pass => {
                    if self.of_path(rule, |a| matches!(a, Action::Pass)).is_none() {
                        let path = rule.at.as_str();
                        let what = format!("{path} does not pass by a rule of its own any more");
                        notes.add(Direction::Neutral, "pass-removed", self.about, what);
                    }
                }
            }
        }
        for rule in self.new_rules {
            let known =
                |r: &Rule| r.at.as_str() == rule.at.as_str() && same_kind(&r.action, &rule.action);
            if !self.old_rules.iter().any(known) {
                self.added(rule, notes);
            }
        }
    }

    /// The new rule of the same path that does such a thing.
    fn of_path(&self, rule: &Rule, does: impl Fn(&Action) -> bool) -> Option<&Rule> {
        let path = rule.at.as_str();
        let mut rules = self.new_rules.iter();
        rules.find(|r| r.at.as_str() == path && does(&r.action))
    }

    /// A rule that was not there.
    fn added(&self, rule: &Rule, notes: &mut Notes) {
        let path = rule.at.as_str();
        match &rule.action {
            Action::Seal(class) => {
                let what = format!("{path} is sealed, as {}", class.name);
                notes.add(Direction::Stronger, "rule-added", self.about, what);
            }
            // On the way out, the upstream sees what the application kept sealed.
            Action::Open(_) if self.is_request => {
                let what = format!("tokens at {path} are opened for the upstream");
                notes.add(Direction::Weaker, "opening-added", self.about, what);
            }
            Action::Open(_) => {
                let what = format!("{path} is opened");
                notes.add(Direction::Neutral, "opening-added", self.about, what);
            }
            Action::Pass => {
                let direction = match self.refuses_unclaimed {
                    true => Direction::Weaker,
                    false => Direction::Neutral,
                };
                let what = format!("{path} passes, knowingly");
                notes.add(direction, "pass-added", self.about, what);
            }
        }
    }

    /// What became of a rule that opens.
    fn opening(&self, rule: &Rule, notes: &mut Notes) {
        let path = rule.at.as_str();
        let Some(later) = self.of_path(rule, |a| matches!(a, Action::Open(_))) else {
            let what = format!("{path} is not opened by a rule of its own any more");
            return notes.add(Direction::Neutral, "opening-removed", self.about, what);
        };
        if binds(later, self.new) != binds(rule, self.old) {
            let what =
                format!("{path} is opened with other binds: tokens of the old ones stay sealed");
            notes.add(Direction::Orphans, "binds-changed", self.about, what);
        }
        let (Action::Open(olds), Action::Open(news)) = (&rule.action, &later.action) else {
            return;
        };
        self.revealed(rule, later, notes);
        for class in olds {
            if !news.iter().any(|c| c.names().any(|n| *n == class.name)) {
                let what = format!("{path} does not open {} any more", class.name);
                notes.add(Direction::Neutral, "opening-removed", self.about, what);
            }
        }
    }

    /// Who sees more, or less, of what a rule opens.
    fn revealed(&self, rule: &Rule, later: &Rule, notes: &mut Notes) {
        let path = rule.at.as_str();
        let callers = rule
            .reveal
            .callers
            .keys()
            .chain(later.reveal.callers.keys());
        let callers: BTreeSet<Option<&str>> = callers.map(|name| Some(&**name)).collect();
        // Everybody else first: that is the change that matters most.
        for caller in std::iter::once(None).chain(callers) {
            let (was, is) = (rule.reveal.to(caller), later.reveal.to(caller));
            let who = caller.map_or("everybody else".to_owned(), |name| {
                format!("caller {}", quoted(name))
            });
            let rank = |level| match level {
                Level::Full => (0, level.word()),
                Level::Masked => (1, level.word()),
                Level::None => (2, level.word()),
            };
            let (was, is) = (rank(was), rank(is));
            let what = format!("what {who} sees at {path}");
            notes.ranked("reveal", self.about, &what, (was.0, is.0), (was.1, is.1));
        }
    }

    /// What became of a rule that seals.
    fn sealing(&self, index: usize, class: &Arc<Class>, notes: &mut Notes) {
        let rule = &self.old_rules[index];
        let path = rule.at.as_str();
        let sealing = |r: &Rule| matches!(r.action, Action::Seal(_));
        // The same path if there is one, else one that selects at least as much.
        let mut places = self.new_rules.iter();
        let same = places.position(|r| r.at.as_str() == path && sealing(r));
        let wider = || {
            let mut places = self.new_rules.iter();
            places.position(|r| sealing(r) && r.at.covers(&rule.at, true) == Some(true))
        };
        let Some(at) = same.or_else(wider) else {
            let what = format!("{path} is not sealed any more");
            return notes.add(Direction::Weaker, "rule-removed", self.about, what);
        };
        for first in &self.new_rules[..at] {
            self.before(first, index, class, notes);
        }
        let later = &self.new_rules[at];
        if let Action::Seal(now) = &later.action
            && !now.names().any(|name| *name == class.name)
        {
            let what = format!(
                "{path} was sealed as {}, and is as {}: stored tokens do not open there any more",
                class.name, now.name
            );
            notes.add(Direction::Orphans, "class-changed", self.about, what);
        }
        let (was, is) = (binds(rule, self.old), binds(later, self.new));
        if was != is {
            let what = format!(
                "{path} is sealed with other binds: tokens of the old ones do not open with the new"
            );
            notes.add(Direction::Orphans, "binds-changed", self.about, what);
            if is.is_empty() {
                let what = format!(
                    "{path} is sealed without a bind: its tokens can stand in for one another"
                );
                notes.add(Direction::Weaker, "binds-removed", self.about, what);
            }
        }
    }

    /// A new rule that stands before a sealing rule, and did not stand before the old one.
    fn before(&self, first: &Rule, index: usize, class: &Arc<Class>, notes: &mut Notes) {
        let rule = &self.old_rules[index];
        let (path, other_path) = (rule.at.as_str(), first.at.as_str());
        let known = self.old_rules[..index]
            .iter()
            .any(|r| r.at.as_str() == other_path && same_action(&r.action, &first.action));
        // What passes passes with all that it holds.
        let below = matches!(first.action, Action::Pass);
        if known || first.at.meets(&rule.at, below) == Some(false) {
            return;
        }
        match &first.action {
            Action::Pass => {
                let what = format!("{other_path} passes before {path} is sealed");
                notes.add(Direction::Weaker, "pass-before", self.about, what);
            }
            Action::Seal(other) if other.name != class.name => {
                let what = format!(
                    "{other_path} is sealed as {} before {path} is sealed",
                    other.name
                );
                notes.add(Direction::Orphans, "class-changed", self.about, what);
            }
            _ => {}
        }
    }
}

/// Names and sources of a rule's binds.
pub(super) fn binds(rule: &Rule, route: &Route) -> BTreeSet<(String, String)> {
    let source = |source: &BindSource| match source {
        BindSource::Sibling(name) => format!("sibling {name}"),
        BindSource::Root(path) => format!("root {}", path.as_str()),
        BindSource::Outside(index) => format!("{:?}", route.outside.get(*index)),
    };
    let binds = rule.bind.iter();
    binds
        .map(|bind| (bind.name.to_string(), source(&bind.source)))
        .collect()
}

fn same_kind(a: &Action, b: &Action) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

/// The same deed in the same class or classes.
pub(super) fn same_action(a: &Action, b: &Action) -> bool {
    match (a, b) {
        (Action::Seal(a), Action::Seal(b)) => a.name == b.name,
        (Action::Open(a), Action::Open(b)) => a
            .iter()
            .map(|class| &class.name)
            .eq(b.iter().map(|class| &class.name)),
        (Action::Pass, Action::Pass) => true,
        _ => false,
    }
}
