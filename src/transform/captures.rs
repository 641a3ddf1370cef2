//! The values of the document that binds refer to: a sibling of the sealed value, or a place that a path from the root names.

use super::rules::{CompiledAction, Rules, captures_of, is_root, rules_of};
use crate::scan::{Automaton, Hit, Kind, Tag};

/// The parent of captures that stand once in a document.
pub(super) const ANYWHERE: usize = usize::MAX;

/// The values, in the order of (tag, parent).
pub(super) struct Captures(Vec<Capture>);

pub(super) struct Capture {
    tag: Tag,
    parent: usize,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) kind: Kind,
    /// It is sealed by a rule itself: the other side would not see the same value.
    pub(super) sealed: bool,
}

impl Captures {
    /// Of nothing.
    pub(super) fn none() -> Captures {
        Captures(Vec::new())
    }

    /// The captures among `hits`; nothing is looked at where no rule binds a value of the document.
    pub(super) fn collect(rules: &Rules, automaton: &Automaton, hits: &[Hit]) -> Captures {
        let mut captures = Vec::new();
        if rules.captures {
            for hit in hits {
                let tags = automaton.selected(hit.state);
                let seals =
                    |rule: usize| matches!(rules.rules[rule].action, CompiledAction::Seal(_));
                captures.extend(captures_of(tags).map(|tag| Capture {
                    tag,
                    parent: if is_root(tag) { ANYWHERE } else { hit.parent },
                    start: hit.start,
                    end: hit.end,
                    kind: hit.kind,
                    sealed: rules_of(tags).any(seals),
                }));
            }
            captures.sort_unstable_by_key(|capture| (capture.tag, capture.parent));
        }
        Captures(captures)
    }

    /// The one value with this tag at this parent.
    ///
    /// # Errors
    /// `missing` or `repeated`.
    pub(super) fn get(&self, tag: Tag, parent: usize) -> Result<&Capture, &'static str> {
        let from = self
            .0
            .partition_point(|known| (known.tag, known.parent) < (tag, parent));
        let mut same = self.0[from..]
            .iter()
            .take_while(|known| (known.tag, known.parent) == (tag, parent));
        match (same.next(), same.next()) {
            (None, _) => Err("missing"),
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => Err("repeated"),
        }
    }
}
