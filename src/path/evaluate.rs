//! A query evaluated on a parsed document (RFC 9535 section 2).
//!
//! Nodes are told apart by their addresses. The work is bounded, since filters inside of filters can multiply it: a document on which
//! a query would take longer is not judged at all.

use super::Unselected;
use super::query::{Operand, Pick, Query, Relation, Segment, Test};
use serde_json::{Number, Value};
use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::HashSet;

/// The most work on one document, counted in nodes looked at and in eighths of bytes of text compared.
const WORK_MAX: usize = 20_000_000;

/// The addresses of the nodes that the query selects in `document`.
pub(super) fn select(
    segments: &[Segment],
    document: &Value,
) -> Result<HashSet<*const Value>, Unselected> {
    let evaluation = Evaluation {
        root: document,
        left: Cell::new(WORK_MAX),
    };
    let nodes = evaluation.walk(segments, document, true)?;
    Ok(nodes.into_iter().map(std::ptr::from_ref).collect())
}

struct Evaluation<'d> {
    root: &'d Value,
    left: Cell<usize>,
}

/// A value that is compared: one of the document's or the query's, or one that a function made.
#[derive(Clone, Copy)]
enum Compared<'v> {
    Value(&'v Value),
    Count(u64),
}

impl<'d> Evaluation<'d> {
    fn spend(&self, work: usize) -> Result<(), Unselected> {
        let left = self.left.get().checked_sub(work).ok_or(Unselected)?;
        self.left.set(left);
        Ok(())
    }

    /// The nodes that `segments` select from `start`. Not `distinct`: a node as often as it is selected, for `count()` and `value()`.
    fn walk(
        &self,
        segments: &[Segment],
        start: &'d Value,
        distinct: bool,
    ) -> Result<Vec<&'d Value>, Unselected> {
        let mut nodes = vec![start];
        for segment in segments {
            let mut next = Vec::new();
            for node in nodes {
                self.children(segment, node, &mut next)?;
            }
            if distinct && (segment.descend || segment.picks.len() > 1) {
                let mut seen = HashSet::with_capacity(next.len());
                next.retain(|node| seen.insert(std::ptr::from_ref(*node)));
            }
            nodes = next;
        }
        Ok(nodes)
    }

    /// Recursive for `..`, as deep as the document, which `serde_json` bounds at 128.
    fn children(
        &self,
        segment: &Segment,
        node: &'d Value,
        out: &mut Vec<&'d Value>,
    ) -> Result<(), Unselected> {
        for pick in &segment.picks {
            self.pick(pick, node, out)?;
        }
        if segment.descend {
            match node {
                Value::Object(members) => {
                    for child in members.values() {
                        self.children(segment, child, out)?;
                    }
                }
                Value::Array(elements) => {
                    for child in elements {
                        self.children(segment, child, out)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn pick(
        &self,
        pick: &Pick,
        node: &'d Value,
        out: &mut Vec<&'d Value>,
    ) -> Result<(), Unselected> {
        self.spend(1)?;
        match (pick, node) {
            (Pick::Name(name), Value::Object(members)) => out.extend(members.get(&**name)),
            (Pick::Wildcard, Value::Object(members)) => {
                self.spend(members.len())?;
                out.extend(members.values());
            }
            (Pick::Wildcard, Value::Array(elements)) => {
                self.spend(elements.len())?;
                out.extend(elements);
            }
            (Pick::Index(index), Value::Array(elements)) => {
                out.extend(place(*index, elements.len()).and_then(|at| elements.get(at)));
            }
            (Pick::Slice { start, end, step }, Value::Array(elements)) => {
                self.spend(elements.len())?;
                slice(elements, *start, *end, *step, out);
            }
            (Pick::Filter(test), Value::Object(members)) => {
                for child in members.values() {
                    if self.holds(test, child)? {
                        out.push(child);
                    }
                }
            }
            (Pick::Filter(test), Value::Array(elements)) => {
                for child in elements {
                    if self.holds(test, child)? {
                        out.push(child);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn holds(&self, test: &Test, node: &'d Value) -> Result<bool, Unselected> {
        self.spend(1)?;
        match test {
            Test::Any(tests) => {
                for test in tests {
                    if self.holds(test, node)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Test::All(tests) => {
                for test in tests {
                    if !self.holds(test, node)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Test::Not(test) => Ok(!self.holds(test, node)?),
            Test::Exists(query) => Ok(!self.nodes(query, node, true)?.is_empty()),
            Test::Compare(left, relation, right) => {
                let (left, right) = (self.value(left, node)?, self.value(right, node)?);
                self.compare(left, *relation, right)
            }
            Test::Matches(text, pattern) => match (self.value(text, node)?, pattern) {
                (Some(Compared::Value(Value::String(text))), Some(pattern)) => {
                    self.spend(text.len())?;
                    Ok(pattern.matches(text))
                }
                _ => Ok(false),
            },
        }
    }

    fn nodes(
        &self,
        query: &Query,
        node: &'d Value,
        distinct: bool,
    ) -> Result<Vec<&'d Value>, Unselected> {
        let start = if query.absolute { self.root } else { node };
        self.walk(&query.segments, start, distinct)
    }

    /// `None` is the RFC's Nothing.
    fn value<'v>(
        &self,
        operand: &'v Operand,
        node: &'d Value,
    ) -> Result<Option<Compared<'v>>, Unselected>
    where
        'd: 'v,
    {
        Ok(match operand {
            Operand::Literal(value) => Some(Compared::Value(value)),
            Operand::Only(query) => match self.nodes(query, node, false)?[..] {
                [only] => Some(Compared::Value(only)),
                _ => None,
            },
            Operand::Count(query) => {
                Some(Compared::Count(self.nodes(query, node, false)?.len() as u64))
            }
            Operand::Length(of) => match self.value(of, node)? {
                Some(Compared::Value(Value::String(text))) => {
                    self.spend(text.len() / 8)?;
                    Some(Compared::Count(text.chars().count() as u64))
                }
                Some(Compared::Value(Value::Array(elements))) => {
                    Some(Compared::Count(elements.len() as u64))
                }
                Some(Compared::Value(Value::Object(members))) => {
                    Some(Compared::Count(members.len() as u64))
                }
                _ => None,
            },
        })
    }

    /// Section 2.3.5.2.2.
    fn compare(
        &self,
        left: Option<Compared<'_>>,
        relation: Relation,
        right: Option<Compared<'_>>,
    ) -> Result<bool, Unselected> {
        let equal = match (left, right) {
            (None, None) => true,
            (None, _) | (_, None) => false,
            (Some(left), Some(right)) => {
                let less = match (&*left.as_value(), &*right.as_value()) {
                    (Value::Number(left), Value::Number(right)) => {
                        exactly(left).cmp(exactly(right)) == Ordering::Less
                    }
                    (Value::String(left), Value::String(right)) => {
                        self.spend(left.len().min(right.len()) / 8)?;
                        left < right
                    }
                    _ => false,
                };
                match relation {
                    Relation::Less => return Ok(less),
                    Relation::LessOrEqual if less => return Ok(true),
                    _ => self.equal(&left.as_value(), &right.as_value())?,
                }
            }
        };
        Ok(match relation {
            Relation::Equal | Relation::LessOrEqual => equal,
            Relation::Unequal => !equal,
            Relation::Less => false,
        })
    }

    /// Deep equality; numbers by their value, however they are written.
    fn equal(&self, left: &Value, right: &Value) -> Result<bool, Unselected> {
        self.spend(1)?;
        match (left, right) {
            (Value::Number(left), Value::Number(right)) => {
                Ok(exactly(left).cmp(exactly(right)) == Ordering::Equal)
            }
            (Value::String(left), Value::String(right)) => {
                self.spend(left.len().min(right.len()) / 8)?;
                Ok(left == right)
            }
            (Value::Array(left), Value::Array(right)) => {
                if left.len() != right.len() {
                    return Ok(false);
                }
                for (left, right) in left.iter().zip(right) {
                    if !self.equal(left, right)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Object(left), Value::Object(right)) => {
                if left.len() != right.len() {
                    return Ok(false);
                }
                for (name, left) in left {
                    match right.get(name) {
                        Some(right) if self.equal(left, right)? => {}
                        _ => return Ok(false),
                    }
                }
                Ok(true)
            }
            (left, right) => Ok(left == right),
        }
    }
}

impl Compared<'_> {
    fn as_value(&self) -> std::borrow::Cow<'_, Value> {
        match self {
            Compared::Value(value) => std::borrow::Cow::Borrowed(value),
            Compared::Count(count) => std::borrow::Cow::Owned(Value::from(*count)),
        }
    }
}

/// A number without loss.
#[derive(Clone, Copy)]
enum Exact {
    Whole(i128),
    Float(f64),
}

fn exactly(number: &Number) -> Exact {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(whole), ..) => Exact::Whole(whole.into()),
        (_, Some(whole), _) => Exact::Whole(whole.into()),
        (.., float) => Exact::Float(float.unwrap_or(f64::NAN)),
    }
}

impl Exact {
    /// The floats are finite (`serde_json` has no others), so there is always an order.
    fn cmp(self, other: Exact) -> Ordering {
        match (self, other) {
            (Exact::Whole(left), Exact::Whole(right)) => left.cmp(&right),
            (Exact::Float(left), Exact::Float(right)) => {
                left.partial_cmp(&right).unwrap_or(Ordering::Less)
            }
            (Exact::Float(left), Exact::Whole(right)) => by_floor(left, right),
            (Exact::Whole(left), Exact::Float(right)) => by_floor(right, left).reverse(),
        }
    }
}

/// The conversion saturates, and the whole numbers are far inside of its bounds.
fn by_floor(left: f64, right: i128) -> Ordering {
    let floor = left.floor();
    match (floor as i128).cmp(&right) {
        Ordering::Equal if left > floor => Ordering::Greater,
        order => order,
    }
}

/// The element that an index means, counted from the end if it is negative.
fn place(index: i64, len: usize) -> Option<usize> {
    match usize::try_from(index) {
        Ok(at) => Some(at),
        Err(_) => len.checked_sub(usize::try_from(index.unsigned_abs()).ok()?),
    }
}

/// Section 2.3.4.2.2.
fn slice<'d>(
    elements: &'d [Value],
    start: Option<i64>,
    end: Option<i64>,
    step: i64,
    out: &mut Vec<&'d Value>,
) {
    let len = i64::try_from(elements.len()).unwrap_or(i64::MAX);
    let from_start = |index: i64| if index < 0 { index + len } else { index };
    let mut push = |at: i64| out.extend(usize::try_from(at).ok().and_then(|at| elements.get(at)));
    if step > 0 {
        let mut at = from_start(start.unwrap_or(0)).clamp(0, len);
        let upper = from_start(end.unwrap_or(len)).clamp(0, len);
        while at < upper {
            push(at);
            at = at.saturating_add(step);
        }
    } else if step < 0 {
        let mut at = from_start(start.unwrap_or(len - 1)).clamp(-1, len - 1);
        let lower = end.map_or(-1, |end| from_start(end).clamp(-1, len - 1));
        while at > lower {
            push(at);
            at = at.saturating_add(step);
        }
    }
}
