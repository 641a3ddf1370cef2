//! A JSON document in pieces: what is too large to be held is planned and applied part by part, as it comes.
//!
//! [`Pieces`] is given bytes and gives [`Piece`]s, each with its own plan: its keys are fetched and it is applied like a body that is
//! held. In between lies a window: it reaches from the first value that cannot be decided yet (a string or a container that is still
//! open, a value whose bind may follow) to the scanner. What a value is bound to is remembered beyond the window; values are not, so
//! that a document of any length takes the same memory. The pieces' bounds are those of the document, not those of the chunks in which
//! it came: any cuts give the same pieces.
//!
//! What a document in pieces cannot have: paths that are evaluated on the whole ([`Rules::in_pieces`]); a value that is longer than the
//! window; a bound value that stands further behind the value than the window reaches.

use super::captures::{ANYWHERE, Captures};
use super::plan::{Plan, Planner};
use super::rules::{CompiledAction, Rules, Source, rules_of};
use super::{Refusal, Tally};
use crate::context::Circumstances;
use crate::dek::{Needs, Ring};
use crate::scan::{Automaton, Counted, Hit, Near, Scanner, Tag};
use crate::token::{MARK, TEXT_MAX};
use std::collections::VecDeque;
use std::ops::Deref;

/// The smallest window, in bytes: the longest token fits, so that a value over it is one whose token would be too long.
pub const WINDOW_MIN: usize = TEXT_MAX + (64 << 10);
/// Bytes that are scanned at once.
const STEP: usize = 32 << 10;
/// The most values in one piece: what planning each takes is forgotten with the piece.
const PIECE_VALUES_MAX: usize = 4_096;
/// The most values in the window; more do not wait for their binds.
const WINDOW_VALUES_MAX: usize = 1 << 16;

/// A document on its way. `R`: how its rules are held, `&Rules` or a shared pointer.
pub struct Pieces<R> {
    rules: R,
    circumstances: Circumstances,
    /// Bytes.
    window: usize,
    /// Bytes that are scanned at once, counted from the document's start: the chunks do not matter.
    step: usize,
    /// None: the document has ended.
    scanner: Option<Scanner<Paths<R>>>,
    /// What was scanned, and what was not; it begins at `base` of the document.
    text: Vec<u8>,
    base: usize,
    scanned: usize,
    /// No more bytes come.
    is_whole: bool,
    /// In the window, in their order; the first is the `front`th of the document.
    hits: VecDeque<Hit>,
    front: usize,
    captures: Captures,
    /// A string or number of which the first bytes were given out before its end: where it starts, and whether as a token does.
    gone: Option<(usize, bool)>,
    counted: Counted,
    near: Near,
}

/// The way from the rules to their automaton.
#[derive(Clone)]
struct Paths<R>(R);

impl<R: Deref<Target = Rules>> Deref for Paths<R> {
    type Target = Automaton;

    fn deref(&self) -> &Automaton {
        &self.0.automaton
    }
}

/// A part of a document, and what is to be done with it.
pub struct Piece<'r> {
    /// As it came.
    pub bytes: Vec<u8>,
    /// Where it begins in the document.
    base: usize,
    plan: Plan<'r>,
}

impl Piece<'_> {
    /// As [`Plan::needs`].
    pub fn needs(&self) -> &Needs {
        self.plan.needs()
    }

    /// As [`Plan::is_unchanged`].
    pub fn is_unchanged(&self) -> bool {
        self.plan.is_unchanged()
    }

    /// As [`Plan::tally`].
    pub fn tally(&self) -> &Tally {
        self.plan.tally()
    }

    /// As [`Plan::apply`]; offsets are those of the document.
    ///
    /// # Errors
    /// As [`Plan::apply`].
    pub fn apply(
        &self,
        ring: &Ring,
        random: &mut dyn FnMut(&mut [u8]),
        out: &mut Vec<u8>,
    ) -> Result<Tally, Refusal> {
        let applied = self.plan.apply(&self.bytes, ring, random, out);
        applied.map_err(|refusal| refusal.shifted(self.base))
    }
}

/// What keeps a value from being planned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Nothing.
    No,
    /// Its end, or its binds, which may come.
    Yes,
    /// Its binds, which may come too late: it is planned without.
    Over,
}

impl<R: Deref<Target = Rules> + Clone> Pieces<R> {
    /// A document under rules that can be followed [`Rules::in_pieces`]. `window`: the most bytes that wait for something, about; at
    /// least [`WINDOW_MIN`].
    pub fn new(rules: R, circumstances: Circumstances, window: usize) -> Pieces<R> {
        Pieces::bounded(rules, circumstances, window.max(WINDOW_MIN), STEP)
    }

    /// As [`Pieces::new`], with any window, and `step` bytes scanned at once: for tests, whose documents are short.
    pub fn bounded(
        rules: R,
        circumstances: Circumstances,
        window: usize,
        step: usize,
    ) -> Pieces<R> {
        let depth_max = rules.manner.depth_max;
        Pieces {
            scanner: Some(Scanner::new(Paths(rules.clone()), depth_max)),
            rules,
            circumstances,
            window,
            step,
            text: Vec::new(),
            base: 0,
            scanned: 0,
            is_whole: false,
            hits: VecDeque::new(),
            front: 0,
            captures: Captures::default(),
            gone: None,
            counted: Counted::default(),
            near: Near::default(),
        }
    }

    /// Takes more of the document. It is all kept until [`Pieces::piece`] gives it back.
    pub fn push(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }

    /// The document ends with what was pushed.
    pub fn end(&mut self) {
        self.is_whole = true;
    }

    /// The next piece; None: more bytes must be pushed, or all were given out.
    ///
    /// # Errors
    /// A [`Refusal`]; nothing more is planned then. What was not given out is [`Pieces::rest`].
    pub fn piece(&mut self) -> Result<Option<Piece<'_>>, Refusal> {
        loop {
            if let Some((ready, upto)) = self.settled()? {
                return self.take(ready, upto).map(Some);
            }
            if !self.scan()? {
                return Ok(None);
            }
        }
    }

    /// What was pushed and not given out, as it came.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.text)
    }

    /// The document has ended, and all of it was given out.
    pub fn is_over(&self) -> bool {
        self.scanner.is_none() && self.text.is_empty()
    }

    /// What was counted beside the pieces so far.
    pub fn unforeseen(&self) -> Tally {
        let mut tally = Tally::default();
        // What is to be rejected was when it was scanned.
        let _ = tally.unforeseen(&self.rules.manner, self.counted, self.near);
        tally
    }

    /// Scans one step further. False: there is nothing to scan.
    fn scan(&mut self) -> Result<bool, Refusal> {
        let Some(scanner) = &mut self.scanner else {
            return Ok(false);
        };
        let unscanned = &self.text[self.scanned - self.base..];
        if unscanned.len() >= self.step || self.is_whole && !unscanned.is_empty() {
            scanner.feed(&unscanned[..unscanned.len().min(self.step)])?;
            self.scanned = scanner.position();
            let (hits, ended) = scanner.take();
            (self.counted, self.near) = (scanner.counted(), scanner.near_misses());
            for (number, end) in ended {
                if let Some(waiting) = number.checked_sub(self.front) {
                    self.hits[waiting].end = end;
                }
            }
            self.note(hits)?;
            return Ok(true);
        }
        if !self.is_whole {
            return Ok(false);
        }
        let Some(scanner) = self.scanner.take() else {
            return Ok(false);
        };
        let found = scanner.finish()?;
        (self.counted, self.near) = (found.counted, found.near);
        self.note(found.hits)?;
        Ok(true)
    }

    /// Takes in what one step found.
    fn note(&mut self, hits: Vec<Hit>) -> Result<(), Refusal> {
        Tally::default().unforeseen(&self.rules.manner, self.counted, self.near)?;
        if self.rules.captures {
            for hit in &hits {
                let automaton = &self.rules.automaton;
                match hit.start < self.base {
                    true => self.captures.note_gone(&self.rules, automaton, hit),
                    false => self.captures.note(&self.rules, automaton, hit),
                }
            }
            let merged = self.captures.merge();
            // What is opened was opened in the context of the one that was there; what was sealed so would never open.
            if let Err(tag) = merged
                && self.rules.seals_bodies()
            {
                return Err(self.repeated(tag));
            }
        }
        self.hits.extend(hits);
        Ok(())
    }

    fn repeated(&self, tag: Tag) -> Refusal {
        let entries = self.rules.rules.iter().flat_map(|rule| &rule.entries);
        let bound =
            |source| matches!(source, Source::Sibling(known) | Source::Root(known) if known == tag);
        let mut entries = entries.filter(|entry| bound(entry.source));
        Refusal::Bind {
            name: entries
                .next()
                .map_or_else(|| "".into(), |entry| entry.name.clone()),
            what: "repeated",
        }
    }

    /// What can be given out: how many values can be planned, and up to where the document is decided. None: nothing.
    fn settled(&mut self) -> Result<Option<(usize, usize)>, Refusal> {
        let mut ready = 0;
        while let Some(hit) = self.hits.get(ready)
            && ready < PIECE_VALUES_MAX
            && self.wait(hit)? != Wait::Yes
        {
            ready += 1;
        }
        let upto = match self.hits.get(ready) {
            Some(hit) => hit.start,
            None => self.undecided()?,
        };
        Ok((ready > 0 || upto > self.base).then_some((ready, upto.max(self.base))))
    }

    fn wait(&self, hit: &Hit) -> Result<Wait, Refusal> {
        let Some(scanner) = &self.scanner else {
            return Ok(Wait::No);
        };
        if hit.start < self.base {
            return Ok(Wait::No);
        }
        let is_far = self.scanned - hit.start > self.window;
        let tags = self.rules.automaton.selected(hit.state);
        if hit.end == 0 {
            // Of an open container only one that is to be sealed has to be whole.
            return match self.seals(tags) {
                false => Ok(Wait::No),
                true if is_far => Err(Refusal::TooLong { offset: hit.start }),
                true => Ok(Wait::Yes),
            };
        }
        let waits = |source| match source {
            Source::Sibling(_) => scanner.is_open(hit.parent),
            Source::Root(tag) => !self.captures.has(tag, ANYWHERE),
            Source::Class | Source::Tenant | Source::Outside(_) => false,
        };
        let mut rules = rules_of(tags).map(|rule| &self.rules.rules[rule]);
        let waits = rules.any(|rule| {
            rule.by_place
                && rule.then.is_none()
                && rule.entries.iter().any(|entry| waits(entry.source))
        });
        Ok(match waits {
            false => Wait::No,
            true if is_far || self.hits.len() > WINDOW_VALUES_MAX => Wait::Over,
            true => Wait::Yes,
        })
    }

    /// A value at these tags is sealed, whatever it is.
    fn seals(&self, tags: &[Tag]) -> bool {
        let rules = rules_of(tags).map(|rule| &self.rules.rules[rule]);
        let mut decisive = rules
            .filter(|rule| rule.then.is_none())
            .map(|rule| &rule.action)
            .filter(|action| !matches!(action, CompiledAction::Open(_)));
        matches!(decisive.next(), Some(CompiledAction::Seal(_)))
    }

    /// Where what is decided ends, if no value waits: before the scalar that the last step cut, if that matters.
    fn undecided(&mut self) -> Result<usize, Refusal> {
        let Some((start, state)) = self.scanner.as_ref().and_then(Scanner::cut) else {
            return Ok(self.scanned);
        };
        if self.gone.is_some_and(|(gone, _)| gone == start) {
            return Ok(self.scanned);
        }
        if self.scanned - start <= self.window {
            return Ok(start);
        }
        let tags = self.rules.automaton.selected(state);
        if self.seals(tags) {
            return Err(Refusal::TooLong { offset: start });
        }
        if rules_of(tags).any(|rule| self.rules.rules[rule].then.is_some()) {
            return Err(Refusal::Window { offset: start });
        }
        // No further than it was scanned: how much more came already must not matter.
        let begun = &self.text[start - self.base..self.scanned - self.base];
        self.gone = Some((start, begins_as_token(begun)));
        Ok(self.scanned)
    }

    /// Plans the first values, and takes the text up to there.
    fn take(&mut self, ready: usize, upto: usize) -> Result<Piece<'_>, Refusal> {
        let base = self.base;
        // Those that go without their binds are the first.
        let mut waits = Vec::new();
        for hit in self.hits.iter().take(ready) {
            waits.push(self.wait(hit)?);
        }
        let mut planner = Planner::new(&self.rules, &self.text, &self.circumstances);
        planner.captures = std::mem::take(&mut self.captures);
        self.front += ready;
        for (mut hit, wait) in self.hits.drain(..ready).zip(waits) {
            let tags = self.rules.automaton.selected(hit.state);
            if hit.start < base {
                let is_token = self.gone == Some((hit.start, true)) && hit.kind.is_string();
                planner.value_gone(&hit, tags, is_token)?;
                continue;
            }
            hit.start -= base;
            hit.end = hit.end.saturating_sub(base);
            let planned = planner.value(&hit, tags);
            planned.map_err(|refusal| match refusal.shifted(base) {
                Refusal::Bind {
                    name,
                    what: "missing",
                } if wait == Wait::Over => Refusal::Bind { name, what: "late" },
                other => other,
            })?;
        }
        self.captures = std::mem::take(&mut planner.captures);
        let plan = planner.finish().map_err(|refusal| refusal.shifted(base))?;
        if self.rules.captures {
            let oldest = self.hits.iter().map(|hit| hit.parent).min();
            let scanner = self.scanner.as_ref();
            self.captures.carry(&self.text, upto, |parent| {
                oldest.is_some_and(|oldest| parent >= oldest)
                    || scanner.is_some_and(|scanner| scanner.is_open(parent))
            });
        }
        let rest = self.text.split_off(upto - base);
        let bytes = std::mem::replace(&mut self.text, rest);
        self.base = upto;
        Ok(Piece { bytes, base, plan })
    }
}

/// What stands there begins as a token does. One that begins with an escape is taken for one, too.
fn begins_as_token(raw: &[u8]) -> bool {
    raw.strip_prefix(b"\"")
        .is_some_and(|text| text.starts_with(MARK) || text.starts_with(b"\\u0066"))
}

#[cfg(test)]
mod tests;
