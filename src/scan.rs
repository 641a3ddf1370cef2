//! The byte-span scanner: one pass over a JSON text that says where the values stand that a policy's paths select.
//!
//! It validates strictly (RFC 8259, UTF-8 by RFC 3629, a depth limit), in linear time, without recursion and without allocating per
//! node, and it can stop and go on at any byte: the same document in any chunks gives the same hits. It never builds a document,
//! never changes a byte and knows nothing of sealing; an [`Automaton`] tells it what to report. Names are compared after unescaping,
//! and every duplicate of a name matches.

mod automaton;
mod cut;
mod lex;
mod scanner;
pub mod text;

pub(crate) use automaton::fold;
pub use automaton::{Automaton, Interest, STATES_MAX, Tag, TooComplex};
pub use scanner::Scanner;
use std::sync::LazyLock;

/// A value that was asked for. Offsets count bytes from the start of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The value's first byte (a string's opening quote).
    pub start: usize,
    /// Behind the value's last byte. 0 while a container is still open.
    pub end: usize,
    /// Where the enclosing container starts; `usize::MAX` for the document itself.
    pub parent: usize,
    /// For [`Automaton::selected`].
    pub state: u16,
    /// What it is.
    pub kind: Kind,
}

impl Hit {
    /// The same value, where its document begins `by` bytes into a text.
    pub fn shift(&mut self, by: usize) {
        self.start += by;
        self.end += by;
        if self.parent != usize::MAX {
            self.parent += by;
        }
    }
}

/// The kinds of value; strings apart by whether they hold an escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string without a backslash.
    Plain,
    /// A string with one.
    Escaped,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// `null`.
    Null,
    /// `{…}`
    Object,
    /// `[…]`
    Array,
}

impl Kind {
    /// True for strings.
    pub fn is_string(self) -> bool {
        matches!(self, Kind::Plain | Kind::Escaped)
    }
    /// True for all but containers.
    pub fn is_scalar(self) -> bool {
        !matches!(self, Kind::Object | Kind::Array)
    }
}

/// Why a text is not one JSON document. `what` is a fixed phrase, never a part of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Against RFC 8259 or RFC 3629 at `offset`.
    Syntax {
        /// Byte offset.
        offset: usize,
        /// What was found or missed.
        what: &'static str,
    },
    /// Nested deeper than the limit at `offset`.
    TooDeep {
        /// Byte offset.
        offset: usize,
    },
}

/// Scalars at states of [`Interest::COUNTED`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// How many.
    pub scalars: u32,
    /// Where the first one starts, if there is one.
    pub first: usize,
}

/// Members whose names are nearly watched ones ([`Automaton::watching`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Near {
    /// How many.
    pub names: u32,
    /// Where the value of the first one starts, if there is one.
    pub first: usize,
}

/// What the scan of a whole document found.
#[derive(Debug, Default)]
pub struct Found {
    /// In the order of their starts.
    pub hits: Vec<Hit>,
    /// See [`Interest::COUNTED`].
    pub counted: Counted,
    /// See [`Automaton::watching`].
    pub near: Near,
}

/// Scans a document that is held whole.
///
/// # Errors
/// The first [`Fault`].
pub fn scan(automaton: &Automaton, depth_max: usize, document: &[u8]) -> Result<Found, Fault> {
    let mut scanner = Scanner::new(automaton, depth_max);
    scanner.feed(document)?;
    scanner.finish()
}

/// Checks that `document` is one JSON document, and looks for nothing in it.
///
/// # Errors
/// The first [`Fault`].
pub fn validate(depth_max: usize, document: &[u8]) -> Result<(), Fault> {
    static NOTHING: LazyLock<Automaton> = LazyLock::new(Automaton::nothing);
    scan(&NOTHING, depth_max, document).map(|_| ())
}

#[cfg(test)]
mod tests;
