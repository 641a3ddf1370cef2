//! The values of the document that binds refer to: a sibling of the sealed value, or a place that a path from the root names.

use super::rules::{CompiledAction, Rules, captures_of, is_root, rules_of};
use crate::context::VALUE_BYTES_MAX;
use crate::scan::{Automaton, Hit, Kind, Tag, text};
use crate::token;
use std::borrow::Cow;

/// The parent of captures that stand once in a document.
pub(super) const ANYWHERE: usize = usize::MAX;

/// The values, in the order of (tag, parent).
#[derive(Default)]
pub(super) struct Captures {
    known: Vec<Capture>,
    /// Where in the document the text begins in which the values stand.
    pub(super) origin: usize,
}

struct Capture {
    tag: Tag,
    parent: usize,
    start: usize,
    end: usize,
    kind: Kind,
    /// It is sealed by a rule itself: the other side would not see the same value.
    sealed: bool,
    /// It went into a context.
    used: bool,
    /// What goes into a context, or why nothing does, where the text is no longer at hand.
    carried: Option<Result<Box<[u8]>, &'static str>>,
}

impl Captures {
    /// The captures among `hits`; nothing is looked at where no rule binds a value of the document.
    pub(super) fn collect(rules: &Rules, automaton: &Automaton, hits: &[Hit]) -> Captures {
        let mut captures = Captures::default();
        if rules.captures {
            for hit in hits {
                captures.note(rules, automaton, hit);
            }
            captures.order();
        }
        captures
    }

    /// The captures of one hit; [`Captures::order`] or [`Captures::merge`] follows.
    pub(super) fn note(&mut self, rules: &Rules, automaton: &Automaton, hit: &Hit) {
        let tags = automaton.selected(hit.state);
        let seals = |rule: usize| matches!(rules.rules[rule].action, CompiledAction::Seal(_));
        self.known.extend(captures_of(tags).map(|tag| Capture {
            tag,
            parent: if is_root(tag) { ANYWHERE } else { hit.parent },
            start: hit.start,
            end: hit.end,
            kind: hit.kind,
            sealed: rules_of(tags).any(seals),
            used: false,
            carried: None,
        }));
    }

    fn order(&mut self) {
        self.known.sort_unstable_by_key(Capture::key);
    }

    /// What the one value with this tag at this parent is in a context; `text` begins at `origin`.
    ///
    /// # Errors
    /// `missing`, `repeated`, `sealed`, `type` or `length`.
    pub(super) fn value<'c>(
        &'c mut self,
        tag: Tag,
        parent: usize,
        text: &'c [u8],
    ) -> Result<Cow<'c, [u8]>, &'static str> {
        let from = self.from(tag, parent);
        match &mut self.known[from..] {
            [one, other, ..] if one.key() == other.key() && one.key() == (tag, parent) => {
                Err("repeated")
            }
            [one, ..] if one.key() == (tag, parent) => {
                one.used = true;
                one.value(text, self.origin)
            }
            _ => Err("missing"),
        }
    }

    fn from(&self, tag: Tag, parent: usize) -> usize {
        self.known
            .partition_point(|known| known.key() < (tag, parent))
    }
}

/// What a document in pieces takes beside: values that outlive the text in which they stood.
impl Captures {
    /// The captures of a hit on a string whose text was let go of: it is longer than any that is bound.
    pub(super) fn note_gone(&mut self, rules: &Rules, automaton: &Automaton, hit: &Hit) {
        let before = self.known.len();
        self.note(rules, automaton, hit);
        for capture in &mut self.known[before..] {
            capture.carried = Some(Err("length"));
        }
    }

    /// Orders what was noted. Of equal ones two are kept, which says as much as any number.
    ///
    /// # Errors
    /// The tag of one that went into a context before there was another.
    pub(super) fn merge(&mut self) -> Result<(), Tag> {
        self.known
            .sort_by_key(|capture| (capture.key(), capture.start));
        let relied = self
            .known
            .windows(2)
            .find(|two| two[0].key() == two[1].key() && two[0].used)
            .map(|two| two[0].tag);
        let mut same = 0;
        let mut last = None;
        self.known.retain(|capture| {
            same = if last == Some(capture.key()) {
                same + 1
            } else {
                0
            };
            last = Some(capture.key());
            same < 2
        });
        relied.map_or(Ok(()), Err)
    }

    /// How many are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// There is one at least.
    pub(super) fn has(&self, tag: Tag, parent: usize) -> bool {
        let known = self.known.get(self.from(tag, parent));
        known.is_some_and(|known| known.key() == (tag, parent))
    }

    /// The text before `upto` goes; those that stood in it, and at a parent that is `wanted`, are kept by their values.
    pub(super) fn carry(&mut self, text: &[u8], upto: usize, wanted: impl Fn(usize) -> bool) {
        let origin = self.origin;
        self.known.retain_mut(|capture| {
            let stays = capture.parent == ANYWHERE || wanted(capture.parent);
            if stays && capture.start < upto && capture.carried.is_none() {
                let value = capture.value(text, origin);
                capture.carried = Some(value.map(|value| value.into_owned().into()));
            }
            stays
        });
        self.origin = upto;
    }
}

impl Capture {
    fn key(&self) -> (Tag, usize) {
        (self.tag, self.parent)
    }

    fn value<'t>(&'t self, text: &'t [u8], origin: usize) -> Result<Cow<'t, [u8]>, &'static str> {
        if let Some(carried) = &self.carried {
            let carried = carried.as_ref();
            return carried
                .map(|value| Cow::Borrowed(&**value))
                .map_err(|why| *why);
        }
        let raw = || &text[self.start - origin..self.end - origin];
        match self.kind {
            _ if !self.kind.is_scalar() => Err("type"),
            Kind::Plain | Kind::Escaped | Kind::Number if self.sealed => Err("sealed"),
            Kind::Plain | Kind::Escaped => {
                let raw = raw();
                let inner = &raw[1..raw.len() - 1];
                let mut value = Vec::with_capacity(raw.len());
                if self.kind == Kind::Escaped
                    && text::unescape(inner, &mut value).is_ok()
                    && token::is_reserved(&value)
                {
                    return Err("sealed");
                }
                if token::is_reserved(inner) {
                    return Err("sealed");
                }
                value.clear();
                text::canonical(inner, &mut value);
                within(Cow::Owned(value))
            }
            Kind::Number if raw().iter().all(|c| c.is_ascii_digit() || *c == b'-') => {
                within(Cow::Borrowed(raw()))
            }
            _ => Err("type"),
        }
    }
}

/// Not longer than a value in a context may be.
fn within(value: Cow<'_, [u8]>) -> Result<Cow<'_, [u8]>, &'static str> {
    match value.len() > VALUE_BYTES_MAX {
        true => Err("length"),
        false => Ok(value),
    }
}
