//! The engine: which values of a body are to be sealed or opened, which keys that takes, and the body with them replaced.
//!
//! Three steps, all pure and synchronous. [`plan`] scans the body once and says where the values stand and what it needs of the key
//! room ([`Plan::needs`]); the road fetches the keys; [`Plan::apply`] replaces the spans and runs to its end without waiting. Outside
//! of the replaced spans the output is the input, byte for byte: a document is never parsed and written again.
//!
//! What decides about one value, in this order: an enclosing value that is sealed wins over its parts; of the rules that select a
//! value the first one that applies wins. A sealing rule applies to every value, a passing rule too, an opening rule to tokens of its
//! classes and to nothing else.

mod apply;
mod at;
mod captures;
mod evaluate;
mod forms;
mod gather;
mod inner;
mod merge;
mod message;
mod multipart;
mod patch;
mod pieces;
mod places;
mod plan;
mod reveal;
mod rules;
mod slate;
mod values;

pub use at::{At, Selects, Spot};
pub use forms::{decode as decode_form, encode as encode_form};
pub use gather::{Gather, Gathered, HELD_MAX, Part as GatheredPart, plan_gathered, quoted};
pub use message::{Heads, Message, Shape};
pub use pieces::{Piece, Pieces, WINDOW_MIN};
pub use places::{Deed, Part, Place, Replacement, places, select, unclaimed};
pub use plan::{Plan, plan, plan_message};
pub use reveal::{Level, Reveal};
pub use rules::Rules;
pub use values::{Selected, values};

use crate::context::Class;
use crate::dek::Unopened;
use crate::path::Path;
use crate::scan::{Counted, Near};
use std::sync::Arc;

/// What is done about something that no rule foresees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Attitude {
    /// Nothing.
    Allow,
    /// It is counted.
    #[default]
    Report,
    /// The body is refused.
    Reject,
}

/// What becomes of a token at an opening place that does not open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fallback {
    /// It stays, sealed, and is counted.
    #[default]
    Leave,
    /// `null` stands in its place, and it is counted.
    Null,
    /// The body is refused.
    Reject,
}

/// Where a bound value comes from.
#[derive(Clone, Debug)]
pub enum BindSource {
    /// A member of the object that holds the value.
    Sibling(String),
    /// A singular path from the document's root.
    Root(Path),
    /// Index into [`crate::context::Circumstances::outside`].
    Outside(usize),
}

/// A value that goes into a token's context.
#[derive(Clone, Debug)]
pub struct Bind {
    /// Its name there; not `class` or `tenant`.
    pub name: Arc<str>,
    /// Where its value comes from.
    pub source: BindSource,
}

/// What a rule does with the values that it selects.
#[derive(Clone, Debug)]
pub enum Action {
    /// Seals them in this class.
    Seal(Arc<Class>),
    /// Opens tokens of these classes; all of the policy's for `open: "*"`.
    Open(Vec<Arc<Class>>),
    /// Leaves them and what they hold as they are, knowingly.
    Pass,
}

/// One rule as the policy states it; the order of rules decides.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What it selects.
    pub at: At,
    /// What it does.
    pub action: Action,
    /// What its tokens are bound to, beside class and tenant.
    pub bind: Vec<Bind>,
    /// Of a rule that opens: who sees how much.
    pub reveal: Reveal,
    /// Of a rule that opens: in streams, tokens are found within texts, also where they come in pieces.
    pub gather: bool,
}

/// What holds for a whole direction of a route.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Tokens at places that no rule seals or opens.
    pub stray: Attitude,
    /// Scalar leaves that no rule names.
    pub unclaimed: Attitude,
    /// Values at the opening place of a named class that are no token.
    pub plaintext: Attitude,
    /// Members whose names are those of a sealing rule's path but for their spelling.
    pub near_miss: Attitude,
    /// Tokens at opening places that do not open.
    pub unopened: Fallback,
    /// The most containers inside of each other.
    pub depth_max: usize,
}

/// What a request's side means that says nothing of all this.
impl Default for Manner {
    fn default() -> Manner {
        Manner {
            stray: Attitude::Report,
            unclaimed: Attitude::Allow,
            plaintext: Attitude::Report,
            near_miss: Attitude::Report,
            unopened: Fallback::Leave,
            depth_max: 128,
        }
    }
}

/// A rule that cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// Index of the rule.
    pub rule: usize,
    /// What is wrong with it, for the policy's author.
    pub what: String,
}

/// Why a body is refused. Offsets count bytes of the body; no part of the body is ever in here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not one strict RFC 8259 document in UTF-8.
    NotJson {
        /// Where reading stopped.
        offset: usize,
        /// A fixed phrase.
        what: &'static str,
    },
    /// Nested deeper than the limit.
    TooDeep {
        /// Where the first container too many starts.
        offset: usize,
    },
    /// A bound value is not usable.
    Bind {
        /// The bind's name in the policy.
        name: Arc<str>,
        /// `missing`, `repeated`, `sealed`, `type` or `length`; of a body in pieces also `late`: it does not stand before the value, nor
        /// near behind it.
        what: &'static str,
    },
    /// A token, or a text of reserved form, at a sealing place that does not open in its context there, or is not taken there.
    Token {
        /// Where it starts.
        offset: usize,
    },
    /// At a sealing place stands what was shown of a value in its place.
    Masked {
        /// Where it starts.
        offset: usize,
    },
    /// A token at a sealing place could not be looked into for want of its key: nothing is said of the token.
    Unchecked {
        /// Where it starts.
        offset: usize,
        /// `Unreachable` or `OverBudget`.
        why: Unopened,
    },
    /// A token where no rule seals or opens.
    Stray {
        /// Where it starts.
        offset: usize,
    },
    /// A scalar that no rule names.
    Unclaimed {
        /// Where it starts.
        offset: usize,
    },
    /// A value at the opening place of a named class that is no token.
    Plaintext {
        /// Where it starts.
        offset: usize,
    },
    /// A token at an opening place that does not open.
    Unopened {
        /// Where it starts.
        offset: usize,
    },
    /// A member whose name is that of a sealing rule's path but for its spelling.
    NearMiss {
        /// Where its value starts.
        offset: usize,
    },
    /// An object or an array where a class is deterministic: only scalars have one canonical text.
    Composite {
        /// Where it starts.
        offset: usize,
    },
    /// Its token would be longer than 1 MiB.
    TooLong {
        /// Where the value starts.
        offset: usize,
    },
    /// In a body in pieces: a string that holds a document is longer than what is held at a time.
    Window {
        /// Where it starts.
        offset: usize,
    },
    /// A string at a sealing place that should hold a JSON document holds none.
    NotInner {
        /// Where it starts.
        offset: usize,
    },
    /// A form, a query or a multipart body that can be read in no way, or in several.
    BadForm {
        /// Where in it reading stopped.
        offset: usize,
        /// A fixed phrase.
        what: &'static str,
    },
    /// A value outside of JSON at a sealing place that is no text in UTF-8.
    NotText {
        /// Where it starts, in its field.
        offset: usize,
        /// A fixed phrase.
        what: &'static str,
    },
    /// An operation of a patch that cannot be done on sealed values.
    Patch {
        /// Where it, or its value, starts.
        offset: usize,
        /// A fixed phrase.
        what: &'static str,
    },
    /// More values are selected than one body may have: what is planned for each takes memory.
    TooMany,
    /// A route with filters cannot judge this document: duplicate names, numbers out of range, unpaired surrogates.
    Unevaluable {
        /// A fixed phrase.
        what: &'static str,
    },
}

impl Refusal {
    /// The same, of something that stands there.
    fn at(mut self, place: usize) -> Refusal {
        if let Some(offset) = self.offset() {
            *offset = place;
        }
        self
    }

    /// The same, of a part of a body that begins `by` bytes into it.
    fn shifted(mut self, by: usize) -> Refusal {
        if let Some(offset) = self.offset() {
            *offset += by;
        }
        self
    }

    fn offset(&mut self) -> Option<&mut usize> {
        match self {
            Refusal::NotJson { offset, .. }
            | Refusal::TooDeep { offset }
            | Refusal::Token { offset }
            | Refusal::Unchecked { offset, .. }
            | Refusal::Stray { offset }
            | Refusal::Unclaimed { offset }
            | Refusal::Masked { offset }
            | Refusal::Plaintext { offset }
            | Refusal::Unopened { offset }
            | Refusal::NearMiss { offset }
            | Refusal::Composite { offset }
            | Refusal::TooLong { offset }
            | Refusal::Window { offset }
            | Refusal::NotInner { offset }
            | Refusal::BadForm { offset, .. }
            | Refusal::NotText { offset, .. }
            | Refusal::Patch { offset, .. } => Some(offset),
            Refusal::Bind { .. } | Refusal::TooMany | Refusal::Unevaluable { .. } => None,
        }
    }

    /// The stable reason word.
    pub fn word(&self) -> &'static str {
        match self {
            Refusal::NotJson { .. } => "not-json",
            Refusal::TooDeep { .. } => "too-deep",
            Refusal::Bind { .. } => "bind",
            Refusal::Token { .. } => "token",
            Refusal::Masked { .. } => "masked",
            Refusal::Unchecked { .. } => "unchecked",
            Refusal::Stray { .. } => "stray",
            Refusal::Unclaimed { .. } => "unclaimed",
            Refusal::Plaintext { .. } => "plaintext",
            Refusal::Unopened { .. } => "unopened",
            Refusal::NearMiss { .. } => "near-miss",
            Refusal::Composite { .. } => "composite",
            Refusal::TooLong { .. } => "too-long",
            Refusal::Window { .. } => "window",
            Refusal::NotInner { .. } => "not-inner",
            Refusal::BadForm { .. } => "bad-form",
            Refusal::NotText { .. } => "not-text",
            Refusal::Patch { .. } => "patch",
            Refusal::TooMany => "too-many",
            Refusal::Unevaluable { .. } => "unevaluable",
        }
    }
}

/// What was done with a body, in numbers. No value, no path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Values sealed, by class.
    pub sealed: Vec<(Arc<Class>, u32)>,
    /// Tokens found at sealing places that opened there, and stayed.
    pub kept: Vec<(Arc<Class>, u32)>,
    /// Tokens opened, by class.
    pub opened: Vec<(Arc<Class>, u32)>,
    /// Tokens opened of which a part is shown, by class.
    pub masked: Vec<(Arc<Class>, u32)>,
    /// Tokens at opening places that stayed sealed, or that `null` stands for now, by reason word.
    pub left: Vec<(&'static str, u32)>,
    /// How many of those `null` stands for.
    pub nulled: u32,
    /// Tokens where no rule seals or opens.
    pub strays: u32,
    /// Scalars that no rule names.
    pub unclaimed: u32,
    /// Values at the opening place of a named class that are no token.
    pub plaintext: u32,
    /// Members, fields, parameters and header fields whose names are those of a sealing rule but for their spelling.
    pub near_misses: u32,
}

impl Tally {
    /// Something of the body was replaced.
    pub fn replaces(&self) -> bool {
        let lists = [&self.sealed, &self.opened, &self.masked];
        lists.iter().any(|list| !list.is_empty()) || self.nulled > 0
    }

    /// Adds what was done with another piece of the same body.
    pub fn add(&mut self, other: &Tally) {
        for (all, some) in [
            (&mut self.sealed, &other.sealed),
            (&mut self.kept, &other.kept),
            (&mut self.opened, &other.opened),
            (&mut self.masked, &other.masked),
        ] {
            for (class, count) in some {
                match all.iter_mut().find(|(known, _)| known.name == class.name) {
                    Some((_, known)) => *known = known.saturating_add(*count),
                    None => all.push((class.clone(), *count)),
                }
            }
        }
        for (reason, count) in &other.left {
            match self.left.iter_mut().find(|(known, _)| known == reason) {
                Some((_, known)) => *known = known.saturating_add(*count),
                None => self.left.push((reason, *count)),
            }
        }
        for (all, some) in [
            (&mut self.nulled, other.nulled),
            (&mut self.strays, other.strays),
            (&mut self.unclaimed, other.unclaimed),
            (&mut self.plaintext, other.plaintext),
            (&mut self.near_misses, other.near_misses),
        ] {
            *all = all.saturating_add(some);
        }
    }

    /// What no rule foresees, as a scan counted it.
    fn unforeseen(&mut self, manner: &Manner, counted: Counted, near: Near) -> Result<(), Refusal> {
        if counted.scalars > 0 {
            if manner.unclaimed == Attitude::Reject {
                return Err(Refusal::Unclaimed {
                    offset: counted.first,
                });
            }
            self.unclaimed = self.unclaimed.saturating_add(counted.scalars);
        }
        if near.names > 0 {
            if manner.near_miss == Attitude::Reject {
                return Err(Refusal::NearMiss { offset: near.first });
            }
            self.near_misses = self.near_misses.saturating_add(near.names);
        }
        Ok(())
    }

    /// One more token stays sealed. The list is short: there are few reasons.
    fn leave(&mut self, reason: &'static str) {
        match self.left.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.left.push((reason, 1)),
        }
    }
}

#[cfg(test)]
mod tests;
