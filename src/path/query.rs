//! A query as it is evaluated: the parser's model, checked by the types of RFC 9535 section 2.4.3, with its patterns compiled.
//!
//! Checking and building are one pass: what is built can be evaluated, whatever the document.

use super::regexp::Regexp;
use jsonpath_rust::parser::model::{
    Comparable, Comparison, Filter, FilterAtom, FnArg, Literal, Segment as ParsedSegment,
    Selector as Parsed, SingularQuery, SingularQuerySegment, Test as ParsedTest, TestFunction,
};
use serde_json::{Number, Value};

/// One segment: what it selects among the children of a node, or of the node and its descendants.
pub(super) struct Segment {
    pub(super) descend: bool,
    pub(super) picks: Vec<Pick>,
}

/// A selector (RFC 9535 section 2.3).
pub(super) enum Pick {
    Name(Box<str>),
    Wildcard,
    /// From the start, or from the end if negative.
    Index(i64),
    Slice {
        start: Option<i64>,
        end: Option<i64>,
        step: i64,
    },
    Filter(Test),
}

/// A query inside of a filter.
pub(super) struct Query {
    /// From `$`, not from `@`.
    pub(super) absolute: bool,
    pub(super) segments: Vec<Segment>,
}

/// What is true or false of a node (LogicalType).
pub(super) enum Test {
    Any(Vec<Test>),
    All(Vec<Test>),
    Not(Box<Test>),
    Exists(Query),
    Compare(Operand, Relation, Operand),
    /// `match()` and `search()`. No pattern, if it is not even a string: false then.
    Matches(Operand, Option<Regexp>),
}

/// What is one value, or nothing (ValueType).
pub(super) enum Operand {
    Literal(Value),
    /// A singular query, or `value()` of any: the only node's value.
    Only(Query),
    Length(Box<Operand>),
    Count(Query),
}

/// The comparisons; the other two are these with their sides exchanged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
}

/// Builds the segments of a query.
///
/// # Errors
/// Why it is not well-typed, or not evaluated here; for the policy's author.
pub(super) fn segments(parsed: &[ParsedSegment]) -> Result<Vec<Segment>, String> {
    parsed.iter().map(segment).collect()
}

fn segment(parsed: &ParsedSegment) -> Result<Segment, String> {
    let (descend, inner) = match parsed {
        ParsedSegment::Descendant(inner) => (true, &**inner),
        inner => (false, inner),
    };
    let picks = match inner {
        ParsedSegment::Selector(one) => vec![pick(one)?],
        ParsedSegment::Selectors(many) => many.iter().map(pick).collect::<Result<_, _>>()?,
        ParsedSegment::Descendant(_) => return Err("not a JSONPath of RFC 9535".to_owned()),
    };
    Ok(Segment { descend, picks })
}

fn pick(parsed: &Parsed) -> Result<Pick, String> {
    Ok(match parsed {
        Parsed::Name(name) => Pick::Name(name.as_str().into()),
        Parsed::Wildcard => Pick::Wildcard,
        Parsed::Index(index) => Pick::Index(*index),
        Parsed::Slice(start, end, step) => Pick::Slice {
            start: *start,
            end: *end,
            step: step.unwrap_or(1),
        },
        Parsed::Filter(filter) => Pick::Filter(test_of_filter(filter)?),
    })
}

fn test_of_filter(filter: &Filter) -> Result<Test, String> {
    let negated = |not: bool, test: Test| match not {
        true => Test::Not(Box::new(test)),
        false => test,
    };
    Ok(match filter {
        Filter::Or(parts) => Test::Any(parts.iter().map(test_of_filter).collect::<Result<_, _>>()?),
        Filter::And(parts) => {
            Test::All(parts.iter().map(test_of_filter).collect::<Result<_, _>>()?)
        }
        Filter::Atom(FilterAtom::Filter { expr, not }) => negated(*not, test_of_filter(expr)?),
        Filter::Atom(FilterAtom::Test { expr, not }) => negated(*not, test(expr)?),
        Filter::Atom(FilterAtom::Comparison(comparison)) => {
            let (left, relation, right) = match &**comparison {
                Comparison::Eq(l, r) => (l, Relation::Equal, r),
                Comparison::Ne(l, r) => (l, Relation::Unequal, r),
                Comparison::Lt(l, r) => (l, Relation::Less, r),
                Comparison::Lte(l, r) => (l, Relation::LessOrEqual, r),
                Comparison::Gt(l, r) => (r, Relation::Less, l),
                Comparison::Gte(l, r) => (r, Relation::LessOrEqual, l),
            };
            Test::Compare(comparable(left)?, relation, comparable(right)?)
        }
    })
}

/// A test is a query, or a function whose result is logical.
fn test(parsed: &ParsedTest) -> Result<Test, String> {
    if let Some(query) = query(parsed)? {
        return Ok(Test::Exists(query));
    }
    let ParsedTest::Function(function) = parsed else {
        return Err("not a JSONPath of RFC 9535".to_owned());
    };
    match &**function {
        TestFunction::Match(text, by) => {
            Ok(Test::Matches(argument(function, text)?, pattern(by, true)?))
        }
        TestFunction::Search(text, by) => Ok(Test::Matches(
            argument(function, text)?,
            pattern(by, false)?,
        )),
        TestFunction::Custom(name, _) => Err(extension(name)),
        other => Err(format!("{}() gives a value: compare it", name(other))),
    }
}

fn query(parsed: &ParsedTest) -> Result<Option<Query>, String> {
    let (absolute, parsed) = match parsed {
        ParsedTest::RelQuery(segments) => (false, segments),
        ParsedTest::AbsQuery(query) => (true, &query.segments),
        ParsedTest::Function(_) => return Ok(None),
    };
    Ok(Some(Query {
        absolute,
        segments: segments(parsed)?,
    }))
}

fn comparable(parsed: &Comparable) -> Result<Operand, String> {
    match parsed {
        Comparable::Literal(value) => literal(value),
        Comparable::SingularQuery(query) => {
            let (absolute, parsed) = match query {
                SingularQuery::Current(segments) => (false, segments),
                SingularQuery::Root(segments) => (true, segments),
            };
            let segment = |one: &SingularQuerySegment| Segment {
                descend: false,
                picks: vec![match one {
                    SingularQuerySegment::Index(index) => Pick::Index(*index),
                    SingularQuerySegment::Name(name) => Pick::Name(name.as_str().into()),
                }],
            };
            let segments = parsed.iter().map(segment).collect();
            Ok(Operand::Only(Query { absolute, segments }))
        }
        Comparable::Function(function) => value_function(function),
    }
}

fn value_function(function: &TestFunction) -> Result<Operand, String> {
    match function {
        TestFunction::Length(arg) => Ok(Operand::Length(Box::new(argument(function, arg)?))),
        TestFunction::Value(arg) => Ok(Operand::Only(nodes(function, arg)?)),
        TestFunction::Count(arg) => Ok(Operand::Count(nodes(function, arg)?)),
        TestFunction::Match(..) | TestFunction::Search(..) => Err(format!(
            "{}() gives true or false: it cannot be compared",
            name(function)
        )),
        TestFunction::Custom(name, _) => Err(extension(name)),
    }
}

/// An argument of NodesType: a query.
fn nodes(function: &TestFunction, arg: &FnArg) -> Result<Query, String> {
    let found = match arg {
        FnArg::Test(test) => query(test)?,
        FnArg::Literal(_) | FnArg::Filter(_) => None,
    };
    found.ok_or_else(|| format!("{}() takes a query", name(function)))
}

/// An argument of ValueType: a literal, a singular query, or a function that gives a value.
fn argument(function: &TestFunction, arg: &FnArg) -> Result<Operand, String> {
    let ill = || {
        format!(
            "{}() takes a value: a literal, or a query that selects one node at most",
            name(function)
        )
    };
    match arg {
        FnArg::Literal(value) => literal(value),
        FnArg::Filter(_) => Err(ill()),
        FnArg::Test(test) => {
            if let ParsedTest::Function(inner) = &**test {
                return value_function(inner);
            }
            let query = query(test)?.ok_or_else(ill)?;
            let singular = query.segments.iter().all(|segment| {
                !segment.descend && matches!(segment.picks[..], [Pick::Name(_) | Pick::Index(_)])
            });
            if singular {
                Ok(Operand::Only(query))
            } else {
                Err(ill())
            }
        }
    }
}

/// The second argument of `match()` and `search()`. A pattern out of the document would be the client's: it is not taken.
fn pattern(arg: &FnArg, whole: bool) -> Result<Option<Regexp>, String> {
    match arg {
        FnArg::Literal(Literal::String(pattern)) => Regexp::parse(pattern, whole).map(Some),
        FnArg::Literal(_) => Ok(None),
        FnArg::Test(_) | FnArg::Filter(_) => {
            Err("a pattern is written in the path, not taken from a document".to_owned())
        }
    }
}

fn literal(parsed: &Literal) -> Result<Operand, String> {
    Ok(Operand::Literal(match parsed {
        Literal::Int(number) => Value::from(*number),
        Literal::Float(number) => Value::Number(
            Number::from_f64(*number).ok_or_else(|| "a number out of range".to_owned())?,
        ),
        Literal::String(text) => Value::from(text.as_str()),
        Literal::Bool(truth) => Value::from(*truth),
        Literal::Null => Value::Null,
    }))
}

fn name(function: &TestFunction) -> &str {
    match function {
        TestFunction::Custom(name, _) => name,
        TestFunction::Length(_) => "length",
        TestFunction::Value(_) => "value",
        TestFunction::Count(_) => "count",
        TestFunction::Search(..) => "search",
        TestFunction::Match(..) => "match",
    }
}

fn extension(name: &str) -> String {
    format!("{name}() is no function of RFC 9535")
}
