//! The first step: which spans of a body are to be replaced, in which contexts, with which keys.

mod binding;
mod value;
mod wants;

use super::captures::{ANYWHERE, Captures};
use super::message::{Message, Shape};
use super::rules::Rules;
use super::slate::Slate;
use super::{Refusal, Tally, evaluate, merge};
use crate::context::Circumstances;
use crate::dek::{Kid, Needs, Ring};
use crate::scan::{Automaton, Counted, Fault, Found, Hit, Kind, Near, Scanner, Tag};
use crate::token::Suite;
use std::collections::HashMap;
use std::ops::Range;

/// The most values that rules and binds may select in one body.
pub(super) const VALUES_MAX: usize = 1 << 18;
/// Bytes that are scanned between two looks at their number.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// The most different records that one body may ask to open; tokens beyond stay sealed.
const RECORDS_MAX: usize = 4_096;

/// A patch is a part of a document, on which a filter finds other values than on the whole.
pub(super) const UNJUDGED: Refusal = Refusal::Unevaluable {
    what: "a filter or an index from the end, on a patch",
};

/// Which spans of one body are to be replaced, and what it takes.
pub struct Plan<'r> {
    pub(super) rules: &'r Rules,
    /// In the order of the body; they do not overlap.
    pub(super) edits: Vec<Edit>,
    /// Encoded context entries; the edits refer to ranges of it.
    pub(super) contexts: Vec<u8>,
    /// Nonces and sealed bytes of the tokens found; the edits refer to ranges of it.
    pub(super) payloads: Vec<u8>,
    pub(super) needs: Needs,
    pub(super) tally: Tally,
    /// Values that do not stand in the body as JSON.
    pub(super) slate: Option<Box<Slate>>,
}

/// One span to be replaced, or to be checked.
pub(super) struct Edit {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Index into [`Rules::classes`].
    pub(super) class: usize,
    /// Index into the needs' sealing or opening list.
    pub(super) need: usize,
    pub(super) context: Range<usize>,
    pub(super) what: What,
}

pub(super) enum What {
    Seal,
    /// A token at a sealing place: it must open, and stays.
    Keep(Sealed),
    Open(Sealed),
    /// As `Open`, and what its class's mask leaves of it is shown.
    Mask(Sealed),
    /// A token at an opening place that cannot be opened, where `null` is to stand for it.
    Null,
}

/// A token's cryptographic part.
pub(super) struct Sealed {
    pub(super) suite: Suite,
    pub(super) kid: Kid,
    /// In [`Plan::payloads`]: the nonce (suite 1), then the sealed bytes.
    pub(super) payload: Range<usize>,
}

/// Pure: which spans, which keys. Linear in the body; what it allocates is per value found, not per node.
///
/// # Errors
/// A [`Refusal`]: on a sealing route the body must not go on. On a route that only opens, it may pass as it is.
pub fn plan<'r>(
    rules: &'r Rules,
    body: &[u8],
    circumstances: &Circumstances,
) -> Result<Plan<'r>, Refusal> {
    plan_message(rules, &Message::json(body), circumstances)
}

/// As [`plan`], for a whole message: its body of whatever shape, and its head.
///
/// # Errors
/// As [`plan`].
pub fn plan_message<'r>(
    rules: &'r Rules,
    message: &Message<'_>,
    circumstances: &Circumstances,
) -> Result<Plan<'r>, Refusal> {
    let mut planner = Planner::new(rules, message.body, circumstances);
    match message.shape {
        Shape::Json => planner.document()?,
        Shape::MergePatch => {
            planner.merging = Some(merge::arrays(message.body, rules.manner.depth_max)?);
            planner.document()?;
        }
        Shape::JsonPatch => planner.patch()?,
        Shape::Form => planner.form()?,
        Shape::Multipart { boundary } => planner.multipart(boundary)?,
        Shape::Unread => {}
    }
    if !rules.names.is_empty() {
        planner.head(message)?;
    }
    planner.finish()
}

/// As [`plan`], of one string alone, as the rule of that number finds it.
pub(super) fn plan_value<'r>(
    rules: &'r Rules,
    rule: usize,
    body: &[u8],
    circumstances: &Circumstances,
) -> Result<Plan<'r>, Refusal> {
    let mut planner = Planner::new(rules, body, circumstances);
    let hit = Hit {
        start: 0,
        end: body.len(),
        parent: ANYWHERE,
        state: 0,
        kind: Kind::Plain,
    };
    planner.value(&hit, &[rule as Tag])?;
    planner.finish()
}

impl Plan<'_> {
    /// What the key room must provide for [`Plan::apply`].
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// Nothing is to be replaced or checked: the body goes on as it is.
    pub fn is_unchanged(&self) -> bool {
        self.edits.is_empty()
            && self
                .slate
                .as_ref()
                .is_none_or(|slate| slate.edits.is_empty())
    }

    /// Bytes that applying takes beside the body, at most: what is kept for each value, and by how much the output is
    /// longer. A short value makes a long token, and a body may have a value every other byte.
    pub fn memory(&self, ring: &Ring) -> usize {
        let slate = self.slate.as_ref().map_or(0, |slate| slate.memory());
        self.edits.len() * size_of::<Edit>() + self.payloads.len() + self.growth(ring) + slate
    }

    /// What is known before any key is: strays, unclaimed leaves, tokens that stay sealed whatever the keys.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        match fault {
            Fault::Syntax { offset, what } => Refusal::NotJson { offset, what },
            Fault::TooDeep { offset } => Refusal::TooDeep { offset },
        }
    }
}

/// A plan in the making.
pub(super) struct Planner<'r, 'b> {
    pub(super) body: &'b [u8],
    pub(super) circumstances: &'b Circumstances,
    pub(super) captures: Captures,
    /// (class, kid, SHA-256 of the record) -> index of the opening need. One bad record must not stand in the way of a good one.
    records: HashMap<(usize, Kid, [u8; 32]), usize>,
    /// The last opening need: tokens sealed together share it.
    last: Option<(usize, usize)>,
    /// ([`Compiled::like`], name's address) -> the context, where the value's place does not matter.
    shared: Vec<(usize, *const u8, Range<usize>)>,
    text: Vec<u8>,
    payload: Vec<u8>,
    /// Values noted so far.
    pub(super) values: usize,
    /// The body is a JSON Merge Patch, and here are its arrays.
    merging: Option<merge::Arrays>,
    /// What is looked at stands on the slate: no further document within it.
    pub(super) on_slate: bool,
    /// Rules for the document that the value under way holds.
    entering: Vec<usize>,
    /// What the slate is to have.
    pub(super) slate: Slate,
    pub(super) plan: Plan<'r>,
}

impl<'r, 'b> Planner<'r, 'b> {
    pub(super) fn new(
        rules: &'r Rules,
        body: &'b [u8],
        circumstances: &'b Circumstances,
    ) -> Planner<'r, 'b> {
        Planner {
            body,
            circumstances,
            captures: Captures::default(),
            records: HashMap::new(),
            last: None,
            shared: Vec::new(),
            text: Vec::new(),
            payload: Vec::new(),
            values: 0,
            merging: None,
            on_slate: false,
            entering: Vec::new(),
            slate: Slate::default(),
            plan: Plan {
                rules,
                edits: Vec::new(),
                contexts: Vec::with_capacity(128),
                payloads: Vec::new(),
                needs: Needs::default(),
                tally: Tally::default(),
                slate: None,
            },
        }
    }

    /// The same plan, looking at another text.
    pub(super) fn over<'c>(self, text: &'c [u8]) -> Planner<'r, 'c>
    where
        'b: 'c,
    {
        Planner {
            body: text,
            captures: Captures::default(),
            merging: None,
            on_slate: true,
            ..self
        }
    }

    /// The body as one document.
    fn document(&mut self) -> Result<(), Refusal> {
        let rules = self.plan.rules;
        let rebuilt = match rules.evaluated.is_empty() {
            true => None,
            false if self.merging.is_some() => return Err(UNJUDGED),
            false => Some(evaluate::automaton(rules, self.body)?),
        };
        let automaton = rebuilt.as_ref().unwrap_or(&rules.automaton);
        // In pieces, so that a body of nothing but selected values is given up before they are all noted.
        let mut scanner = Scanner::new(automaton, rules.manner.depth_max);
        for piece in self.body.chunks(PIECE_BYTES) {
            scanner.feed(piece)?;
            if scanner.hits() > VALUES_MAX {
                return Err(Refusal::TooMany);
            }
        }
        let found = scanner.finish()?;
        self.plan.edits.reserve(found.hits.len());
        self.found(automaton, &found, 0)
    }

    /// The values that a scan found; it began at `offset`.
    pub(super) fn found(
        &mut self,
        automaton: &Automaton,
        found: &Found,
        offset: usize,
    ) -> Result<(), Refusal> {
        self.values += found.hits.len();
        if self.values > VALUES_MAX {
            return Err(Refusal::TooMany);
        }
        self.captures = Captures::collect(self.plan.rules, automaton, &found.hits);
        for hit in &found.hits {
            self.value(hit, automaton.selected(hit.state))?;
        }
        self.unforeseen(found.counted, found.near, offset)
    }

    /// What no rule foresees; the scan that counted it began at `offset`.
    pub(super) fn unforeseen(
        &mut self,
        counted: Counted,
        near: Near,
        offset: usize,
    ) -> Result<(), Refusal> {
        let counted = Counted {
            first: offset + counted.first,
            ..counted
        };
        let near = Near {
            first: offset + near.first,
            ..near
        };
        let manner = &self.plan.rules.manner;
        self.plan.tally.unforeseen(manner, counted, near)
    }

    pub(super) fn finish(self) -> Result<Plan<'r>, Refusal> {
        match self.slate.is_empty() {
            true => Ok(self.plan),
            false => self.look_at_slate(),
        }
    }
}
