//! What a case expects: a route, a refusal, and what the upstream and the client see.

use super::{COUNTED, ITEMS_MAX, LEFT, body, bounded, code, texts};
use crate::diagnostic::{Span, did_you_mean, quoted};
use crate::error::Code;
use crate::marked::{Findings, Marked, Node, Value};
use crate::path::PathError;
use crate::transform::At;

/// What is expected of a request.
#[derive(Debug)]
pub struct Expected {
    /// The route that takes it.
    pub(crate) route: Option<Marked<String>>,
    /// No route takes it, and it passes.
    pub unmatched: Option<Span>,
    /// The agent answers itself.
    pub(crate) refused: Option<Marked<Code>>,
    /// The agent ends the answer before its end.
    pub(crate) cut: Option<Marked<Code>>,
    /// An observing route would have.
    pub(crate) would_refuse: Option<Marked<Code>>,
    /// What the upstream sees.
    pub upstream: Option<Seen>,
    /// What the client sees.
    pub client: Option<Seen>,
}

/// What one side sees of a body.
#[derive(Debug, Default)]
pub struct Seen {
    /// The whole body, byte for byte.
    pub(crate) same: Option<Marked<Same>>,
    /// Tokens stand there.
    pub sealed: Vec<Sealed>,
    /// No token stands there.
    pub clear: Vec<Where>,
    /// Nothing stands there.
    pub absent: Vec<Where>,
    /// These values stand there.
    pub equals: Vec<Comparison>,
    /// These texts come of what is selected there, put together.
    pub joined: Vec<Comparison>,
    /// Words of the tally and how often.
    pub(crate) counted: Vec<(Marked<String>, Marked<u32>)>,
}

/// Byte for byte the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Same {
    /// As the body that the application sent.
    Request,
    /// As the body with which the upstream answered.
    Answer,
}

/// A path, and where it is written.
#[derive(Debug)]
pub struct Where {
    /// What it selects.
    pub at: At,
    /// Its place in the test file.
    pub span: Span,
}

/// Tokens that are expected at a path.
#[derive(Debug)]
pub struct Sealed {
    /// Where.
    pub at: Where,
    /// `None`: of any class.
    pub(crate) class: Option<Marked<String>>,
}

/// A value that is expected at a path.
#[derive(Debug)]
pub struct Comparison {
    /// Where.
    pub at: Where,
    /// JSON text; of `joined`, the text itself.
    pub value: String,
    /// The place of the value in the test file.
    pub span: Span,
}

pub(super) fn read(node: &Node, findings: &mut Findings<'_>) -> Option<Expected> {
    let mut fields = findings.fields(node, "`expect`")?;
    let route = fields
        .take("route")
        .and_then(|node| findings.text(node, "`route`"));
    let unmatched = fields.take("unmatched").and_then(|node| {
        let word = findings.choice(node, "`unmatched`", &[("true", ())]);
        word.map(|()| node.span)
    });
    let refused_entry = fields.take("refused");
    let refused = refused_entry.and_then(|node| code(node, "`refused`", findings));
    let cut_node = fields.take("cut");
    let cut = cut_node.and_then(|node| code(node, "`cut`", findings));
    let would_refuse = fields
        .take("would_refuse")
        .and_then(|node| code(node, "`would_refuse`", findings));
    let upstream = fields
        .take("upstream")
        .and_then(|node| seen(node, "what the upstream sees", findings));
    let client_node = fields.take("client");
    let client = client_node.and_then(|node| seen(node, "what the client sees", findings));
    fields.finish(findings);
    let Value::Map(entries) = &node.value else {
        return None;
    };
    if entries.is_empty() {
        let message =
            "a case expects something: route, unmatched, refused, cut, upstream or client";
        findings.at("missing-word", node.span, message);
    }
    if let (Some(_), Some(route)) = (unmatched, &route) {
        findings.at(
            "one-of",
            route.span,
            "a request that no route takes has no route",
        );
    }
    if let (Some(_), Some(node)) = (refused_entry, client_node) {
        let message = "the client of a refused request sees the refusal, and no body";
        findings.at("one-of", node.span, message);
    }
    if let (Some(_), Some(node)) = (refused_entry, cut_node) {
        let message = "a refused request has no answer that could be cut off";
        findings.at("one-of", node.span, message);
    }
    Some(Expected {
        route,
        unmatched,
        refused,
        cut,
        would_refuse,
        upstream,
        client,
    })
}

fn seen(node: &Node, what: &'static str, findings: &mut Findings<'_>) -> Option<Seen> {
    let mut fields = findings.fields(node, what)?;
    let same = fields.take("same").and_then(|node| {
        let choices = [("request", Same::Request), ("answer", Same::Answer)];
        let value = findings.choice(node, "`same`", &choices)?;
        Some(Marked {
            value,
            span: node.span,
        })
    });
    if let Some(same) = &same
        && same.value == Same::Answer
        && what.contains("upstream")
    {
        let message = "the upstream sees the request before there is an answer";
        findings.at("unknown-value", same.span, message);
    }
    let sealed = fields
        .take("sealed")
        .map(|node| sealed(node, findings))
        .unwrap_or_default();
    let mut places = |word: &'static str, what: &str, findings: &mut Findings<'_>| {
        fields
            .take(word)
            .map(|node| wheres(node, what, findings))
            .unwrap_or_default()
    };
    let clear = places("clear", "`clear`", findings);
    let absent = places("absent", "`absent`", findings);
    let mut comparisons = |word: &'static str, findings: &mut Findings<'_>| {
        let node = fields.take(word);
        node.map(|node| comparisons(node, word, findings))
            .unwrap_or_default()
    };
    let equals = comparisons("equals", findings);
    let joined = comparisons("joined", findings);
    let mut counts = Vec::new();
    if let Some(node) = fields.take("counted") {
        counts = counted(node, findings);
    }
    fields.finish(findings);
    if matches!(&node.value, Value::Map(entries) if entries.is_empty()) {
        let message = format!("{what}: expect something of it, or leave the word out");
        findings.at("missing-word", node.span, message);
    }
    Some(Seen {
        same,
        sealed,
        clear,
        absent,
        equals,
        joined,
        counted: counts,
    })
}

/// Values by path.
fn comparisons(node: &Node, word: &str, findings: &mut Findings<'_>) -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    let entries = findings.entries(node, &format!("`{word}`"));
    bounded(entries.len(), ITEMS_MAX, node.span, "paths", findings);
    for entry in entries.iter().take(ITEMS_MAX) {
        let value = match (word, &entry.node.value) {
            ("joined", _) => findings
                .text(&entry.node, "a joined text")
                .map(|text| text.value),
            _ => Some(body::json(&entry.node, findings)),
        };
        let at = parsed(&entry.key, entry.key_span, None, findings);
        if let (Some(at), Some(value)) = (at, value) {
            comparisons.push(Comparison {
                at: Where {
                    at,
                    span: entry.key_span,
                },
                value,
                span: entry.node.span,
            });
        }
    }
    comparisons
}

/// A path or a list of paths; or, by class, the like.
fn sealed(node: &Node, findings: &mut Findings<'_>) -> Vec<Sealed> {
    let Value::Map(entries) = &node.value else {
        let places = wheres(node, "`sealed`", findings);
        let any = |at| Sealed { at, class: None };
        return places.into_iter().map(any).collect();
    };
    bounded(entries.len(), ITEMS_MAX, node.span, "classes", findings);
    let mut sealed = Vec::new();
    for entry in entries.iter().take(ITEMS_MAX) {
        let class = || {
            Some(Marked {
                value: entry.key.clone(),
                span: entry.key_span,
            })
        };
        let places = wheres(&entry.node, "`sealed`", findings);
        sealed.extend(places.into_iter().map(|at| Sealed { at, class: class() }));
    }
    sealed
}

fn wheres(node: &Node, what: &str, findings: &mut Findings<'_>) -> Vec<Where> {
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let texts = texts(node, what, ITEMS_MAX, findings);
    let mut wheres = Vec::new();
    for text in texts {
        let node = items.iter().find(|item| item.span == text.span);
        if let Some(at) = parsed(&text.value, text.span, node, findings) {
            let span = text.span;
            wheres.push(Where { at, span });
        }
    }
    wheres
}

fn parsed(text: &str, span: Span, node: Option<&Node>, findings: &mut Findings<'_>) -> Option<At> {
    At::parse(text)
        .map_err(|PathError { at, what }| {
            let span = node.map_or(span, |node| node.span_at(at));
            findings.at("bad-path", span, what);
        })
        .ok()
}

fn counted(node: &Node, findings: &mut Findings<'_>) -> Vec<(Marked<String>, Marked<u32>)> {
    let mut counts = Vec::new();
    let entries = findings.entries(node, "`counted`");
    bounded(entries.len(), ITEMS_MAX, node.span, "counts", findings);
    for entry in entries.iter().take(ITEMS_MAX) {
        let known = || COUNTED.into_iter().chain(LEFT);
        if !known().any(|word| word == entry.key) {
            let hint = did_you_mean(&entry.key, known())
                .unwrap_or_else(|| format!("known here: {}", Vec::from_iter(known()).join(", ")));
            let message = format!("nothing is counted as {}", quoted(&entry.key));
            findings.at_with_hint("unknown-word", entry.key_span, message, hint);
            continue;
        }
        let count = findings.integer(&entry.node, "a count", 0..=u64::from(u32::MAX));
        if let Some(value) = count.and_then(|count| u32::try_from(count).ok()) {
            let word = Marked {
                value: entry.key.clone(),
                span: entry.key_span,
            };
            let count = Marked {
                value,
                span: entry.node.span,
            };
            counts.push((word, count));
        }
    }
    counts
}
