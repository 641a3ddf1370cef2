//! Filters, and indexes from the end: evaluated on a parsed document, the nodes then fed to the scanner as paths.
//!
//! The parsed document serves to find the nodes only; what goes out is made from the bytes, as always. A document that could be read
//! in two ways (duplicate names), or not exactly, is refused on such a route.

use super::Refusal;
use super::rules::Rules;
use crate::path::{Selector, Step};
use crate::scan::{self, Automaton};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::collections::HashSet;
use std::fmt;

/// The most nodes that the filters of one route may select in one document.
const NODES_MAX: usize = 4_096;

/// The automaton of a route with filters, for this one document.
pub(super) fn automaton(rules: &Rules, body: &[u8]) -> Result<Automaton, Refusal> {
    let nodes = nodes(rules, body)?;
    rules.automaton_with(&nodes).ok_or(TOO_MANY)
}

const TOO_MANY: Refusal = Refusal::Unevaluable {
    what: "the filters select too many values",
};

/// The values of a document that the route's filters select: the steps to each, and the rule.
pub(super) fn nodes(rules: &Rules, body: &[u8]) -> Result<Vec<(Vec<Step>, usize)>, Refusal> {
    // First the strict scanner, so that a broken document is refused in the same words on every route.
    scan::validate(rules.manner.depth_max, body)?;
    let unevaluable = |what| Refusal::Unevaluable { what };
    let Unique(document) = serde_json::from_slice(body).map_err(|_withheld| {
        unevaluable("duplicate names, a number out of range or text that is not Unicode")
    })?;
    let mut nodes = Vec::new();
    for (path, rule) in &rules.evaluated {
        let selected = path
            .select(&document)
            .map_err(|_| unevaluable("the filter cannot be evaluated"))?;
        if !selected.is_empty() {
            collect(&document, &selected, *rule, &mut Vec::new(), &mut nodes);
        }
        if nodes.len() > NODES_MAX {
            return Err(TOO_MANY);
        }
    }
    Ok(nodes)
}

/// The paths of the selected nodes. Recursive, but no deeper than serde_json's own limit of 128.
fn collect(
    node: &Value,
    selected: &HashSet<*const Value>,
    rule: usize,
    at: &mut Vec<Step>,
    out: &mut Vec<(Vec<Step>, usize)>,
) {
    if out.len() > NODES_MAX {
        return;
    }
    if selected.contains(&std::ptr::from_ref(node)) {
        out.push((at.clone(), rule));
    }
    let mut child = |selector: Selector, value: &Value| {
        at.push(Step {
            descend: false,
            selectors: vec![selector],
        });
        collect(value, selected, rule, at, out);
        at.pop();
    };
    match node {
        Value::Object(members) => members
            .iter()
            .for_each(|(name, value)| child(Selector::Name(name.as_str().into()), value)),
        Value::Array(elements) => (0u32..)
            .zip(elements)
            .for_each(|(index, value)| child(Selector::Index(index), value)),
        _ => {}
    }
}

/// A document in which no object has two members of one name.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unique, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique(Value::Null))
    }
    fn visit_bool<E>(self, value: bool) -> Result<Unique, E> {
        Ok(Unique(Value::Bool(value)))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Unique, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("not a finite number"))?;
        Ok(Unique(Value::Number(number)))
    }
    fn visit_str<E>(self, value: &str) -> Result<Unique, E> {
        Ok(Unique(Value::String(value.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Unique, A::Error> {
        let mut elements = Vec::new();
        while let Some(Unique(element)) = seq.next_element()? {
            elements.push(element);
        }
        Ok(Unique(Value::Array(elements)))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
        let mut members = Map::new();
        while let Some((name, Unique(value))) = map.next_entry::<String, Unique>()? {
            if members.insert(name, value).is_some() {
                return Err(de::Error::custom("a duplicate name"));
            }
        }
        Ok(Unique(Value::Object(members)))
    }
}
