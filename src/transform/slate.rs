//! Values that do not stand in the body as JSON: written side by side as JSON, planned like any others, and put back where they came
//! from in the spelling of that place.
//!
//! A header's, query's or form's value becomes a JSON string; a document within a string becomes its text.

use super::inner::{self, Abreast};
use super::message::Message;
use super::multipart::{self, PARTS_MAX};
use super::plan::{Edit, Plan, Planner, VALUES_MAX};
use super::rules::CompiledAction;
use super::{Attitude, Refusal, Spot, forms};
use crate::scan::{Automaton, Counted, Hit, Kind, Near, Scanner, Tag, text};
use crate::token;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

/// What is written there, and where it came from.
#[derive(Default)]
pub(super) struct Slate {
    pub(super) text: Vec<u8>,
    cells: Vec<Cell>,
    /// What is done with it; in the order of `targets`.
    pub(super) edits: Vec<Edit>,
    /// Where each edit's value stands in the message.
    pub(super) targets: Vec<Target>,
    /// A multipart body's delimiter, which no value may hold.
    pub(super) delimiter: Vec<u8>,
}

/// One value, or one document.
struct Cell {
    /// In the slate's text.
    at: Range<usize>,
    source: Source,
    /// In that source, as it is spelt there.
    raw: Range<usize>,
    holds: Holds,
}

enum Holds {
    Value { style: Style, tags: Vec<Tag> },
    Document { rules: Vec<usize> },
}

/// A part of the message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Source {
    Body,
    Query,
    /// Index into the message's lines.
    Line(usize),
}

/// How a value is spelt at its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Style {
    /// JSON within a JSON string.
    Inner,
    /// Percent-encoded; `bare`: an equals sign is missing before it.
    Form { bare: bool },
    /// A header's value.
    Line,
    /// The content of a part.
    Part,
}

/// A span of the message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) source: Source,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) style: Style,
}

/// Values that are nobody's: how many, and where the first one stands.
#[derive(Clone, Copy, Default)]
struct Unnamed {
    count: u32,
    first: usize,
}

impl Unnamed {
    fn at(&mut self, at: usize) {
        if self.count == 0 {
            self.first = at;
        }
        self.count = self.count.saturating_add(1);
    }
}

impl Slate {
    pub(super) fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Bytes that it takes, and that may be written from it.
    pub(super) fn memory(&self) -> usize {
        let each = size_of::<Cell>() + size_of::<Edit>() + size_of::<Target>();
        self.text.len() * 4 + self.cells.len().max(self.edits.len()) * each
    }

    /// Notes the document that a string of `body` holds, its text at `raw` there.
    pub(super) fn document(
        &mut self,
        body: &[u8],
        raw: Range<usize>,
        rules: &[usize],
    ) -> Result<(), text::Lone> {
        let from = self.text.len();
        if let Err(lone) = text::unescape(&body[raw.clone()], &mut self.text) {
            self.text.truncate(from);
            return Err(lone);
        }
        self.cells.push(Cell {
            at: from..self.text.len(),
            source: Source::Body,
            raw,
            holds: Holds::Document {
                rules: rules.to_vec(),
            },
        });
        Ok(())
    }

    /// Notes a text.
    fn value(
        &mut self,
        text: &str,
        source: Source,
        raw: Range<usize>,
        style: Style,
        tags: Vec<Tag>,
    ) {
        let from = self.text.len();
        text::canonical_of_text(text, &mut self.text);
        self.cells.push(Cell {
            at: from..self.text.len(),
            source,
            raw,
            holds: Holds::Value { style, tags },
        });
    }
}

impl Target {
    /// Appends the JSON text of a value in the spelling of its place. False: it cannot stand there; nothing is appended.
    pub(super) fn write(&self, json: &[u8], delimiter: &[u8], out: &mut Vec<u8>) -> bool {
        if self.style == Style::Inner {
            inner::escaped(json, out);
            return true;
        }
        // Outside of JSON there are only strings.
        let Some(raw) = json
            .strip_prefix(b"\"")
            .and_then(|rest| rest.strip_suffix(b"\""))
        else {
            return false;
        };
        let mut bytes = Vec::with_capacity(raw.len());
        if text::unescape(raw, &mut bytes).is_err() {
            return false;
        }
        let Ok(text) = String::from_utf8(bytes) else {
            return false;
        };
        match self.style {
            Style::Inner => {}
            Style::Form { bare } => {
                if bare {
                    out.push(b'=');
                }
                forms::encode(&text, out);
            }
            Style::Line => {
                let spaced = text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']);
                if spaced || text.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7F) {
                    return false;
                }
                out.extend_from_slice(text.as_bytes());
            }
            Style::Part => {
                if memchr::memmem::find(text.as_bytes(), delimiter).is_some() {
                    return false;
                }
                out.extend_from_slice(text.as_bytes());
            }
        }
        true
    }
}

impl<'r> Planner<'r, '_> {
    /// The fields of a form.
    pub(super) fn form(&mut self) -> Result<(), Refusal> {
        // Clients that send JSON and do not say so declare it as a form, and servers read it all the same.
        if self.plan.rules.seals_bodies()
            && let Some(offset) = forms::json(self.body)
        {
            let what = "it begins as JSON does, and no form";
            return Err(Refusal::BadForm { offset, what });
        }
        self.fields(self.body, Spot::Form, Source::Body)
    }

    /// The header lines and the query.
    pub(super) fn head(&mut self, message: &Message<'_>) -> Result<(), Refusal> {
        let rules = self.plan.rules;
        if let Some(query) = message.query
            && rules.reads(Spot::Query)
        {
            self.fields(query.as_bytes(), Spot::Query, Source::Query)?;
        }
        let mut near = Unnamed::default();
        for (index, (name, value)) in message.lines.iter().enumerate() {
            let tags = rules.of_name(Spot::Header, name);
            if tags.is_empty() {
                if rules.is_near(Spot::Header, name) {
                    near.at(0);
                }
                continue;
            }
            match std::str::from_utf8(value) {
                Ok(text) => {
                    let raw = 0..value.len();
                    let source = Source::Line(index);
                    self.slate
                        .value(text, source, raw, Style::Line, tags.to_vec());
                }
                Err(_) if rules.sealing(tags) => {
                    return Err(Refusal::NotText {
                        offset: 0,
                        what: "a header's value is not UTF-8",
                    });
                }
                Err(_) => {}
            }
        }
        self.nobodys(Spot::Header, Unnamed::default(), near)
    }

    fn fields(&mut self, form: &[u8], spot: Spot, source: Source) -> Result<(), Refusal> {
        let rules = self.plan.rules;
        let named = || rules.names.iter().filter(move |named| named.spot == spot);
        let seals = named().any(|named| rules.sealing(&named.tags));
        // Of a side that only opens, what cannot be read stays as it is.
        let broken = |offset: usize, what: &'static str| match seals {
            true => Err(Refusal::BadForm { offset, what }),
            false => Ok(()),
        };
        let (mut unclaimed, mut near) = (Unnamed::default(), Unnamed::default());
        for (count, field) in forms::fields(form).enumerate() {
            if count == forms::FIELDS_MAX {
                return Err(Refusal::TooMany);
            }
            let at = field.start;
            let Some(name) = forms::decode(field.name) else {
                broken(at, "a name is not percent-encoded UTF-8")?;
                continue;
            };
            let tags = rules.of_name(spot, &name);
            let value = &form[field.start..field.end];
            // Some readers part fields at a semicolon, too.
            let whole = [field.name, b"=", value].concat();
            if tags.is_empty() && whole.contains(&b';') {
                let hidden = whole.split(|byte| *byte == b';').any(|part| {
                    let name = part.split(|byte| *byte == b'=').next().unwrap_or_default();
                    let name = forms::decode(name);
                    name.is_some_and(|name| rules.sealing(rules.of_name(spot, &name)))
                });
                if hidden {
                    broken(at, "a field that a rule names stands behind a semicolon")?;
                }
                let mut parts = whole.split(|byte| *byte == b';').skip(1);
                let behind = parts.any(|part| {
                    let name = part.split(|byte| *byte == b'=').next().unwrap_or_default();
                    forms::decode(name).is_some_and(|name| rules.is_near(spot, &name))
                });
                if behind {
                    near.at(at);
                }
            }
            if rules.is_near(spot, &name) {
                near.at(at);
            }
            match forms::decode(value) {
                Some(text) => self.found_outside(
                    &text,
                    source,
                    field.start..field.end,
                    Style::Form { bare: field.bare },
                    tags,
                ),
                None if rules.sealing(tags) => {
                    broken(at, "a value is not percent-encoded UTF-8")?;
                }
                None => {}
            }
            if tags.is_empty() {
                unclaimed.at(at);
            }
        }
        self.nobodys(spot, unclaimed, near)
    }

    /// The parts of a multipart form.
    pub(super) fn multipart(&mut self, boundary: &str) -> Result<(), Refusal> {
        let rules = self.plan.rules;
        let parts = multipart::parts(self.body, boundary)
            .map_err(|(offset, what)| Refusal::BadForm { offset, what })?;
        debug_assert!(parts.len() <= PARTS_MAX);
        self.slate.delimiter = [b"--", boundary.as_bytes()].concat();
        let (mut unclaimed, mut near) = (Unnamed::default(), Unnamed::default());
        for part in &parts {
            if (part.names.iter()).any(|name| rules.is_near(Spot::Part, name)) {
                near.at(part.start);
            }
            let mut spellings = part.names.iter();
            let first = spellings
                .next()
                .map_or(&[][..], |name| rules.of_name(Spot::Part, name));
            if spellings.any(|name| rules.of_name(Spot::Part, name) != first) {
                return Err(Refusal::BadForm {
                    offset: part.start,
                    what: "a name that readers spell in several ways, one of which a rule names",
                });
            }
            let content = &self.body[part.start..part.end];
            let text = std::str::from_utf8(content).ok().filter(|_| part.text);
            match text {
                Some(text) => {
                    self.found_outside(
                        text,
                        Source::Body,
                        part.start..part.end,
                        Style::Part,
                        first,
                    );
                }
                None if rules.sealing(first) => {
                    return Err(Refusal::NotText {
                        offset: part.start,
                        what: "a part that a rule seals is a file, or another text than plain UTF-8",
                    });
                }
                None => {}
            }
            if text.is_some() && first.is_empty() {
                unclaimed.at(part.start);
            }
        }
        self.nobodys(Spot::Part, unclaimed, near)
    }

    /// Values of a form that no rule names, and names that are nearly those of sealed values. Other values of a head are
    /// nobody's business: the policy does not claim to know all headers.
    fn nobodys(&mut self, spot: Spot, unclaimed: Unnamed, near: Unnamed) -> Result<(), Refusal> {
        let of_form = matches!(spot, Spot::Form | Spot::Part);
        let counted = match of_form && self.plan.rules.manner.unclaimed != Attitude::Allow {
            true => unclaimed,
            false => Unnamed::default(),
        };
        let counted = Counted {
            scalars: counted.count,
            first: counted.first,
        };
        let near = Near {
            names: near.count,
            first: near.first,
        };
        self.unforeseen(counted, near, 0)
    }

    /// Notes a text that a rule selects, or that may be a stray token.
    fn found_outside(
        &mut self,
        text: &str,
        source: Source,
        raw: Range<usize>,
        style: Style,
        tags: &[Tag],
    ) {
        if !tags.is_empty() || token::is_reserved(text.as_bytes()) {
            self.slate.value(text, source, raw, style, tags.to_vec());
        }
    }

    /// Plans what is on the slate.
    pub(super) fn look_at_slate(mut self) -> Result<Plan<'r>, Refusal> {
        let mut slate = std::mem::take(&mut self.slate);
        let text = std::mem::take(&mut slate.text);
        let body = self.body;
        let before = self.plan.edits.len();
        let mut planner = self.over(&text);
        let mut built: HashMap<Vec<usize>, Automaton> = HashMap::new();
        for cell in std::mem::take(&mut slate.cells) {
            let from = planner.plan.edits.len();
            let done = match &cell.holds {
                Holds::Value { tags, .. } => planner.text(&cell, tags),
                Holds::Document { rules } => planner.held(&cell, rules, &mut built),
            };
            done.map_err(|refusal| refusal.at(cell.raw.start))?;
            let edits = &planner.plan.edits[from..];
            let target = |start: usize, end: usize, style| Target {
                source: cell.source,
                start,
                end,
                style,
            };
            match &cell.holds {
                Holds::Value { style, .. } => {
                    let whole = |_: &Edit| target(cell.raw.start, cell.raw.end, *style);
                    slate.targets.extend(edits.iter().map(whole));
                }
                Holds::Document { .. } => {
                    let mut abreast = Abreast::new(&body[cell.raw.clone()]);
                    let mut raw = |at: usize| cell.raw.start + abreast.raw_of(at - cell.at.start);
                    let span = |edit: &Edit| target(raw(edit.start), raw(edit.end), Style::Inner);
                    slate.targets.extend(edits.iter().map(span));
                }
            }
        }
        let mut plan = planner.plan;
        slate.edits = plan.edits.split_off(before);
        slate.text = text;
        plan.slate = Some(Box::new(slate));
        Ok(plan)
    }

    /// A text.
    fn text(&mut self, cell: &Cell, tags: &[Tag]) -> Result<(), Refusal> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(Refusal::TooMany);
        }
        let kind = match self.body[cell.at.clone()].contains(&b'\\') {
            true => Kind::Escaped,
            false => Kind::Plain,
        };
        let hit = Hit {
            start: cell.at.start,
            end: cell.at.end,
            parent: usize::MAX,
            state: 0,
            kind,
        };
        self.value(&hit, tags)
    }

    /// A document that was a string's text.
    fn held(
        &mut self,
        cell: &Cell,
        within: &[usize],
        built: &mut HashMap<Vec<usize>, Automaton>,
    ) -> Result<(), Refusal> {
        let rules = self.plan.rules;
        let known = rules.inner.iter().find(|inner| inner.rules == within);
        let automaton = match (known, built.entry(within.to_vec())) {
            (Some(inner), _) => &inner.automaton,
            (None, Entry::Occupied(entry)) => &*entry.into_mut(),
            // Several paths lead to this string, or a passing rule before some of them.
            (None, Entry::Vacant(entry)) => {
                let made = inner::automaton(&rules.rules, rules.manner, within);
                &*entry.insert(made.map_err(|what| Refusal::Unevaluable { what })?)
            }
        };
        let mut scanner = Scanner::new(automaton, rules.manner.depth_max);
        let scanned = scanner.feed(&self.body[cell.at.clone()]);
        let mut found = match scanned.and_then(|()| scanner.finish()) {
            Ok(found) => found,
            Err(_) => {
                let seals =
                    |rule: &usize| matches!(rules.rules[*rule].action, CompiledAction::Seal(_));
                return match within.iter().any(seals) {
                    true => Err(Refusal::NotInner { offset: 0 }),
                    false => Ok(()),
                };
            }
        };
        for hit in &mut found.hits {
            hit.shift(cell.at.start);
        }
        self.found(automaton, &found, cell.at.start)
    }
}

#[cfg(test)]
mod tests;
