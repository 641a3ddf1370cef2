//! Tokens in texts that come in pieces: found across the pieces of one text, and held back no longer than a token may still begin there.
//!
//! Language models give out an answer as a row of documents with a few characters each. A rule with `gather` joins what it selects in
//! one document after the other, text by text (a *lane*), and has the tokens in it opened. Pure: the caller fetches keys.

use super::rules::{Rules, rules_of};
use super::{Plan, Refusal, plan};
use crate::context::Circumstances;
use crate::path::Path;
use crate::scan::{Automaton, Interest, Kind, Scanner, Tag, text};
use crate::token::Token;
use std::ops::Range;

/// Characters that are held back of one text, at most: a token that carries its key has some hundreds.
pub const HELD_MAX: usize = 16 << 10;
/// Texts that are held back at a time.
const LANES_MAX: usize = 64;
/// The tag of members that number a text.
const INDEX: Tag = 0x4000;
/// What every token begins with.
const START: &[u8] = b"fv1~";

/// Where texts that are gathered stand in a document.
#[derive(Debug)]
pub(super) struct Gathering(Automaton);

impl Gathering {
    /// `None`: no rule gathers.
    pub(super) fn of(rules: &[(Path, usize)]) -> Option<Gathering> {
        if rules.is_empty() {
            return None;
        }
        let index = Path::parse("$..index").ok()?;
        let mut paths = Vec::new();
        for (path, rule) in rules {
            paths.push((path.steps()?, *rule as Tag));
        }
        paths.push((index.steps()?, INDEX));
        let automaton = Automaton::watching(
            &paths,
            |tags| match tags {
                [] => Interest::NONE,
                _ => Interest::EVERY,
            },
            |_| false,
        );
        automaton.ok().map(Gathering)
    }
}

/// A text of a document that a rule gathers.
struct Found {
    rule: usize,
    /// The string, with its quotes.
    span: Range<usize>,
    /// The rule, and the `index` of each object around it: what tells it from others.
    lane: Vec<u8>,
}

/// What becomes of a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// It goes on.
    Text(String),
    /// It is opened by the rule of this number, or goes on.
    Token(usize, String),
}

/// One document with its texts taken apart.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Documents that go before it, each with what had been held back of one text.
    pub before: Vec<Vec<u8>>,
    /// The strings to be replaced, in their order, with their quotes, and by what.
    pub texts: Vec<(Range<usize>, Vec<Part>)>,
}

/// What is held back in one stream.
#[derive(Default)]
pub struct Gather {
    lanes: Vec<Lane>,
}

struct Lane {
    name: Vec<u8>,
    held: String,
    /// The last document that had a piece of it, with nothing in its texts, and where this one stands.
    template: Vec<u8>,
    at: usize,
}

impl Lane {
    fn flush(self) -> Vec<u8> {
        let mut document = self.template;
        let written = quoted(&self.held);
        document.splice(self.at..self.at + 2, written);
        document
    }
}

impl Gather {
    /// The next document, which is one.
    pub fn document(&mut self, rules: &Rules, document: &[u8]) -> Gathered {
        let mut gathered = Gathered::default();
        let Some(Gathering(automaton)) = rules.gathering.as_ref() else {
            return gathered;
        };
        let found = find(automaton, rules.manner.depth_max, document);
        if found.is_empty() {
            if !is_ping(document) {
                gathered.before = self.flush();
            }
            return gathered;
        }
        let mut spans: Vec<Range<usize>> = found.iter().map(|one| one.span.clone()).collect();
        spans.sort_by_key(|span| span.start);
        for one in found {
            let mut raw = Vec::new();
            let inner = &document[one.span.start + 1..one.span.end - 1];
            let Ok(Ok(piece)) = text::unescape(inner, &mut raw).map(|()| String::from_utf8(raw))
            else {
                continue;
            };
            let known = self.lanes.iter().position(|lane| lane.name == one.lane);
            let held = known.map(|at| self.lanes.swap_remove(at).held);
            let begun = held.is_some();
            let is_end = piece.is_empty();
            let (parts, held) = cut(one.rule, held.unwrap_or_default() + &piece, is_end);
            if begun || !held.is_empty() || parts.iter().any(|part| matches!(part, Part::Token(..)))
            {
                gathered.texts.push((one.span.clone(), parts));
            }
            if !held.is_empty() {
                let (template, at) = emptied(document, &spans, one.span.start);
                if self.lanes.len() == LANES_MAX {
                    gathered.before.append(&mut self.flush());
                }
                let name = one.lane;
                self.lanes.push(Lane {
                    name,
                    held,
                    template,
                    at,
                });
            }
        }
        gathered.texts.sort_by_key(|(span, _)| span.start);
        gathered
    }

    /// Documents with all that is held back: nothing more comes that could go on with it.
    pub fn flush(&mut self) -> Vec<Vec<u8>> {
        self.lanes.drain(..).map(Lane::flush).collect()
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        let lanes = self.lanes.iter();
        lanes
            .map(|lane| lane.held.len() + lane.template.len())
            .sum()
    }
}

/// A text as a JSON string, with its quotes.
pub fn quoted(text: &str) -> Vec<u8> {
    // A string has no error.
    serde_json::to_vec(text).unwrap_or_else(|_| b"\"\"".to_vec())
}

/// The plan for one gathered token: a document of it alone, in quotes.
///
/// # Errors
/// As [`plan`].
pub fn plan_gathered<'r>(
    rules: &'r Rules,
    rule: usize,
    token: &[u8],
    circumstances: &Circumstances,
) -> Result<Plan<'r>, Refusal> {
    plan::plan_value(rules, rule, token, circumstances)
}

/// Some services keep a stream alive with documents that say nothing.
fn is_ping(document: &[u8]) -> bool {
    document.len() < 64 && document.windows(6).any(|six| six == b"\"ping\"")
}

fn find(automaton: &Automaton, depth_max: usize, document: &[u8]) -> Vec<Found> {
    let mut scanner = Scanner::new(automaton, depth_max);
    if scanner.feed(document).is_err() {
        return Vec::new();
    }
    let Ok(found) = scanner.finish() else {
        return Vec::new();
    };
    let (mut texts, mut indexes) = (Vec::new(), Vec::new());
    for hit in &found.hits {
        for tag in automaton.selected(hit.state) {
            if *tag == INDEX {
                if hit.kind == Kind::Number {
                    indexes.push((hit.parent, hit.start..hit.end));
                }
            } else if hit.kind.is_string()
                && let Some(rule) = rules_of(&[*tag]).next()
            {
                texts.push((hit.start..hit.end, rule));
                break;
            }
        }
    }
    texts.sort_by_key(|(span, _)| span.start);
    let around = around(document, &texts);
    let lanes = texts.into_iter().zip(around).map(|((span, rule), around)| {
        let mut lane = rule.to_be_bytes().to_vec();
        for start in around {
            let of = indexes.iter().find(|(parent, _)| *parent == start);
            if let Some((_, index)) = of {
                lane.push(b' ');
                lane.extend_from_slice(&document[index.clone()]);
            }
        }
        Found { rule, span, lane }
    });
    lanes.collect()
}

/// Where the containers around each text begin, from the outside. The texts are in their order.
fn around(document: &[u8], texts: &[(Range<usize>, usize)]) -> Vec<Vec<usize>> {
    let mut all = Vec::with_capacity(texts.len());
    let (mut open, mut in_string, mut escaped) = (Vec::new(), false, false);
    for (at, byte) in document.iter().enumerate() {
        if texts
            .get(all.len())
            .is_some_and(|(span, _)| span.start == at)
        {
            all.push(open.clone());
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => open.push(at),
            b'}' | b']' => {
                open.pop();
            }
            _ => {}
        }
    }
    all.resize(texts.len(), Vec::new());
    all
}

/// The document with empty texts, and where the one that began at `mine` begins.
fn emptied(document: &[u8], spans: &[Range<usize>], mine: usize) -> (Vec<u8>, usize) {
    let (mut out, mut copied, mut at) = (Vec::new(), 0, 0);
    for span in spans {
        out.extend_from_slice(&document[copied..span.start]);
        if span.start == mine {
            at = out.len();
        }
        out.extend_from_slice(b"\"\"");
        copied = span.end;
    }
    out.extend_from_slice(&document[copied..]);
    (out, at)
}

/// Takes a text apart; what could be a token's beginning at its end is left over, unless `is_end`.
fn cut(rule: usize, all: String, is_end: bool) -> (Vec<Part>, String) {
    let (mut parts, mut from, mut at) = (Vec::new(), 0, 0);
    let bytes = all.as_bytes();
    let mut payload = Vec::new();
    while at < bytes.len() {
        if bytes[at] != b'f' {
            at += 1;
            continue;
        }
        let rest = &bytes[at..];
        let common = rest.iter().zip(START).take_while(|(a, b)| a == b).count();
        if common < START.len() && common < rest.len() {
            at += 1;
            continue;
        }
        let body = rest.get(START.len()..).unwrap_or_default();
        let length = body
            .iter()
            .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            .count();
        match body.get(length) {
            Some(b'~') => {
                let end = at + START.len() + length + 1;
                if Token::decode(&bytes[at..end], &mut payload).is_ok() {
                    if from < at {
                        parts.push(Part::Text(all[from..at].to_owned()));
                    }
                    parts.push(Part::Token(rule, all[at..end].to_owned()));
                    from = end;
                    at = end;
                    continue;
                }
            }
            // It may go on.
            None if !is_end && rest.len() <= HELD_MAX => {
                if from < at {
                    parts.push(Part::Text(all[from..at].to_owned()));
                }
                return (parts, all[at..].to_owned());
            }
            _ => {}
        }
        at += 1;
    }
    if from < all.len() {
        parts.push(Part::Text(all[from..].to_owned()));
    }
    (parts, String::new())
}
