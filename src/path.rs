//! JSONPath as the policy writes it: RFC 9535, parsed by `jsonpath-rust`, type-checked here, and turned into steps for the scanner.
//!
//! This room alone names `jsonpath_rust`. Names, wildcards, indexes, slices, unions and descendants become [`Step`]s, which the scanner
//! follows without building a document. A query with a filter, or with an index that counts from the end, has no steps: it is
//! evaluated on a parsed document ([`Path::select`]), by this room: `jsonpath-rust` compares numbers within an epsilon, does not look
//! into nested filters, and compiles a pattern again for every node. What is not RFC 9535 is refused when it is parsed, and so is the
//! little that is listed in `docs/jsonpath.md`; a path never selects other nodes than the RFC says.

mod cover;
mod evaluate;
mod query;
mod regexp;

use pest::error::InputLocation;
use query::{Pick, Segment};
use serde_json::Value;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// The longest query that is read, in bytes.
pub const PATH_BYTES_MAX: usize = 4096;

/// A checked RFC 9535 query.
#[derive(Clone)]
pub struct Path {
    text: Arc<str>,
    query: Arc<[Segment]>,
    steps: Option<Arc<[Step]>>,
}

/// One segment of a query that the scanner can follow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// `..`: the selectors apply to the node and to all its descendants.
    pub descend: bool,
    /// The union of what the segment selects; at least one.
    pub selectors: Vec<Selector>,
}

/// A selector that can be decided on the way down, without knowing what follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// A member's name, unescaped.
    Name(Box<str>),
    /// Every member and every element.
    Wildcard,
    /// An element, from the start.
    Index(u32),
    /// Elements `start`, `start + step`, ... below `end`; `step` is at least 1.
    Slice {
        /// The first element.
        start: u32,
        /// The element to stop before.
        end: u32,
        /// The distance between elements.
        step: u32,
    },
}

/// What is wrong with a query. The message quotes the query (a policy's text), never a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathError {
    /// Byte offset in the query's text where reading stopped; 0 where it is unknown.
    pub at: usize,
    /// What is wrong, and with what.
    pub what: String,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for PathError {}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Path").field(&self.text).finish()
    }
}

impl Path {
    /// Parses and checks a query.
    ///
    /// # Errors
    /// Anything that RFC 9535 does not define: other syntax, ill-typed functions (section 2.4.3), extension functions, numbers
    /// outside the I-JSON range, more than [`PATH_BYTES_MAX`] bytes; and what `docs/jsonpath.md` lists.
    pub fn parse(text: &str) -> Result<Path, PathError> {
        let fault = |at: usize, what: String| Err(PathError { at, what });
        if text.len() > PATH_BYTES_MAX {
            return fault(0, format!("a path has at most {PATH_BYTES_MAX} bytes"));
        }
        if let Some((at, what)) = misplaced_white_space(text) {
            return fault(at, what.to_owned());
        }
        let query = match jsonpath_rust::parser::parse_json_path(text) {
            Ok(query) => query,
            Err(error) => {
                use jsonpath_rust::parser::errors::JsonPathError;
                let (at, what) = match error {
                    JsonPathError::PestError(e) => {
                        let at = match e.location {
                            InputLocation::Pos(at) | InputLocation::Span((at, _)) => at,
                        };
                        (at, "not a JSONPath of RFC 9535 from here on".to_owned())
                    }
                    other => (0, format!("not a JSONPath of RFC 9535: {other}")),
                };
                return fault(at, what);
            }
        };
        let query = query::segments(&query.segments).map_err(|what| PathError { at: 0, what })?;
        let steps = query.iter().map(step).collect::<Option<Vec<_>>>();
        Ok(Path {
            text: text.into(),
            query: query.into(),
            steps: steps.map(Into::into),
        })
    }

    /// The query as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The steps that the scanner follows, or `None` where the query must be evaluated on a whole document.
    pub fn steps(&self) -> Option<&[Step]> {
        self.steps.as_deref()
    }

    /// True for RFC 9535's singular queries (section 2.3.5.1) by names and indexes from the start: at most one node.
    pub fn is_singular(&self) -> bool {
        self.steps().is_some_and(|steps| {
            steps.iter().all(|step| {
                !step.descend
                    && matches!(step.selectors[..], [Selector::Name(_) | Selector::Index(_)])
            })
        })
    }

    /// Evaluates the query; the addresses of the selected nodes inside `document`.
    ///
    /// # Errors
    /// It would take too long ([`Unselected`]).
    pub fn select(&self, document: &Value) -> Result<HashSet<*const Value>, Unselected> {
        evaluate::select(&self.query, document)
    }
}

/// A query could not be evaluated on a document within the bound on work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unselected;

/// Where white space stands that RFC 9535 does not allow there. The parser beneath allows it inside of names, before their
/// end and behind the whole query (and then trims it away, by Unicode's idea of white space).
fn misplaced_white_space(text: &str) -> Option<(usize, &'static str)> {
    let is_blank = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r');
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii();
    let (mut quote, mut escaped) = (None, false);
    // The last character outside of quotes that is not white space (a quote stands for its string), and the blank behind it.
    let (mut before, mut blank) = (None, None);
    for (at, c) in text.char_indices() {
        if let Some(q) = quote {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == q => quote = None,
                _ => {}
            }
            continue;
        }
        if is_blank(c) {
            blank = blank.or(Some(at));
            continue;
        }
        if c.is_whitespace() {
            return Some((
                at,
                "white space other than the ASCII kind belongs in quotes: ['…']",
            ));
        }
        if let Some(blank) = blank.take() {
            let wrong = match before {
                // Before the query, behind a dot, behind a sign.
                None | Some('.' | '-' | '+') => true,
                // Inside of a name or a number, or between a function's name and its arguments.
                Some(b) if is_word(b) => is_word(c) || matches!(c, '(' | '-' | '+'),
                Some(_) => false,
            };
            if wrong {
                return Some((blank, "no white space here"));
            }
        }
        if c == '\'' || c == '"' {
            quote = Some(c);
        }
        before = Some(c);
    }
    blank.map(|at| (at, "no white space behind a path"))
}

fn step(segment: &Segment) -> Option<Step> {
    let selectors = segment.picks.iter().map(selector).collect::<Option<_>>()?;
    Some(Step {
        descend: segment.descend,
        selectors,
    })
}

/// No array has more elements than a body has bytes; larger indexes select nothing, as `u32::MAX` does.
fn from_start(index: i64) -> Option<u32> {
    (index >= 0).then(|| u32::try_from(index).unwrap_or(u32::MAX))
}

fn selector(pick: &Pick) -> Option<Selector> {
    Some(match pick {
        Pick::Name(name) => Selector::Name(name.clone()),
        Pick::Wildcard => Selector::Wildcard,
        Pick::Index(index) => Selector::Index(from_start(*index)?),
        Pick::Slice { start, end, step } => {
            let step = from_start(*step)?;
            let start = from_start(start.unwrap_or(0))?;
            let end = from_start(end.unwrap_or(i64::MAX))?;
            match step {
                0 => Selector::Slice {
                    start: 0,
                    end: 0,
                    step: 1,
                },
                step => Selector::Slice { start, end, step },
            }
        }
        Pick::Filter(_) => return None,
    })
}

#[cfg(test)]
mod tests;
