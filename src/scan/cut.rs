//! Where a chunk ended, and the way on from there; the same way serves strings, names and numbers that are out of the ordinary.

use super::automaton::StateId;
use super::lex::{self, Number, Text};
use super::scanner::{Frame, Scanner, Stop};
use super::{Automaton, Kind, text};
use std::ops::Deref;

/// What is expected next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Value,
    /// At once behind `[`: the array may end instead.
    ValueOrEnd,
    /// `,` or the end of the container; outside of all, nothing but white space.
    After,
    Name,
    /// At once behind `{`: the object may end instead.
    NameOrEnd,
    Colon,
}

/// Where a chunk ended: between two things, or inside of one.
#[derive(Clone, Copy)]
pub(super) enum Mode {
    Before(Next),
    InName(Text),
    InString(Text),
    InNumber(Number),
    /// `true`, `false` or `null`, of which so many bytes were seen.
    InLiteral(&'static [u8], usize),
}

/// Characters that nobody sees which a name may have beside those of a path's and still be nearly that.
const INVISIBLE_MAX: usize = 8;

impl<A: Deref<Target = Automaton> + Clone> Scanner<A> {
    /// Goes on with what the last chunk's end cut, or with a value or name out of the ordinary; says what comes next.
    #[inline(never)]
    pub(super) fn resume(
        &mut self,
        b: &[u8],
        i: &mut usize,
        cut: Mode,
        state: &mut StateId,
        top: &Frame,
    ) -> Result<Next, Stop> {
        match cut {
            Mode::Before(next) => return Ok(next),
            Mode::InName(mut text) => {
                let from = *i;
                let mut escaped = self.escaped;
                let done = lex::string(b, i, &mut text, &mut escaped).map_err(Stop::Syntax)?;
                self.escaped = escaped;
                self.carry(&b[from..*i - usize::from(done)]);
                if !done {
                    return Err(Stop::Chunk(Mode::InName(text)));
                }
                *state = self.carried_member(top.state);
                return Ok(Next::Colon);
            }
            Mode::InString(mut text) => {
                self.first = self.first.or(b.get(*i).copied());
                let mut escaped = self.escaped;
                let done = lex::string(b, i, &mut text, &mut escaped).map_err(Stop::Syntax)?;
                self.escaped = escaped;
                if !done {
                    return Err(Stop::Chunk(Mode::InString(text)));
                }
                let kind = if escaped { Kind::Escaped } else { Kind::Plain };
                let first = self.first.unwrap_or(b'"');
                self.string(self.start, self.base + *i, *state, top, kind, first);
            }
            Mode::InNumber(mut number) => {
                if !lex::number(b, i, &mut number).map_err(Stop::Syntax)? {
                    return Err(Stop::Chunk(Mode::InNumber(number)));
                }
                self.scalar(self.start, self.base + *i, *state, top, Kind::Number);
            }
            Mode::InLiteral(word, seen) => {
                for (seen, expected) in word.iter().enumerate().skip(seen) {
                    match b.get(*i) {
                        Some(c) if c == expected => *i += 1,
                        Some(_) => return Err(Stop::Syntax("no JSON value")),
                        None => return Err(Stop::Chunk(Mode::InLiteral(word, seen))),
                    }
                }
                let kind = if word == b"null" {
                    Kind::Null
                } else {
                    Kind::Boolean
                };
                self.scalar(self.start, self.base + *i, *state, top, kind);
            }
        }
        Ok(Next::After)
    }

    /// Keeps the raw bytes of a name, as far as they can matter: an escape spends six bytes on one.
    fn carry(&mut self, raw: &[u8]) {
        let room = self.name_room().saturating_sub(self.name.len());
        self.name.extend_from_slice(&raw[..raw.len().min(room)]);
    }

    /// A name that is not ASCII may still be taken for a named one elsewhere.
    fn member_or_near(&self, from: StateId, name: &[u8], is_whole: bool) -> StateId {
        let to = self.automaton.member(from, name, name);
        let is_other = to == self.automaton.any_other(from);
        match is_other && is_whole && !name.is_ascii() {
            true => self.automaton.member_folded(from, name),
            false => to,
        }
    }

    fn name_room(&self) -> usize {
        6 * (self.automaton.name_bytes_max + INVISIBLE_MAX) + 1
    }

    /// The state of the member whose raw name was carried.
    fn carried_member(&mut self, from: StateId) -> StateId {
        let name = std::mem::take(&mut self.name);
        let is_whole = name.len() < self.name_room();
        let to = if self.escaped {
            self.unescaped.clear();
            match text::unescape(&name, &mut self.unescaped) {
                Ok(()) => self.member_or_near(from, &self.unescaped, is_whole),
                // An unpaired surrogate, or a name longer than any in the policy: no path names it.
                Err(text::Lone) => self.automaton.any_other(from),
            }
        } else {
            self.member_or_near(from, &name, is_whole)
        };
        self.name = name;
        self.name.clear();
        to
    }
}
