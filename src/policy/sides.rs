//! The words of a route's `request` and `response`: rules and what they bind.

use super::callers::{RevealWords, reveal};
use super::written::{Text, bounded, one_of, pattern};
use super::{BINDS_MAX, RULES_MAX, Signed};
use crate::marked::{Fields, Findings, Marked, Node, Value};
use crate::transform::{Attitude, Fallback, Spot};

#[derive(Default)]
pub(super) struct SideWords {
    pub manner: MannerWords,
    pub rules: Vec<RuleWords>,
}

#[derive(Clone, Copy, Default)]
pub(super) struct MannerWords {
    pub unclaimed: Option<Attitude>,
    pub stray: Option<Attitude>,
    pub plaintext: Option<Attitude>,
    pub near_miss: Option<Attitude>,
    pub unopened: Option<Fallback>,
    pub signed: Option<Signed>,
}

/// What stands behind `at`.
pub(super) struct AtWords {
    pub node: Node,
    pub selects: SelectorWords,
}

pub(super) enum SelectorWords {
    Json(Text),
    Inside { outer: Text, then: Text },
    Named(Spot, Text),
}

pub(super) struct RuleWords {
    pub at: AtWords,
    pub action: ActionWords,
    pub bind: Vec<BindWords>,
    pub reveal: Option<RevealWords>,
    pub gather: bool,
}

pub(super) enum ActionWords {
    Seal(Marked<String>),
    Open(Marked<String>),
    Pass,
}

pub(super) struct BindWords {
    pub name: Marked<String>,
    pub source: &'static str,
    pub from: Text,
}

pub(super) const ATTITUDES: [(&str, Attitude); 3] = [
    ("allow", Attitude::Allow),
    ("report", Attitude::Report),
    ("reject", Attitude::Reject),
];
pub(super) const FALLBACKS: [(&str, Fallback); 3] = [
    ("leave", Fallback::Leave),
    ("null", Fallback::Null),
    ("reject", Fallback::Reject),
];
pub(super) const SIGNED: [(&str, Signed); 2] =
    [("reject", Signed::Reject), ("allow", Signed::Allow)];
/// What a mapping behind `at` selects by.
const SELECTORS: [&str; 5] = ["header", "query", "form", "part", "json"];

pub(super) fn manner(
    fields: &mut Fields<'_>,
    is_request: bool,
    findings: &mut Findings<'_>,
) -> MannerWords {
    if !is_request {
        fields.misplaced("stray", "strays are looked for in requests only", findings);
        fields.misplaced("signed", "it is for requests that are signed", findings);
    }
    let mut attitude = |word: &'static str, findings: &mut Findings<'_>| {
        let node = fields.take(word)?;
        findings.choice(node, &format!("`{word}`"), &ATTITUDES)
    };
    let stray = is_request.then(|| attitude("stray", findings)).flatten();
    let unclaimed = attitude("unclaimed", findings);
    let plaintext = attitude("plaintext", findings);
    let near_miss = attitude("near_miss", findings);
    let signed = is_request.then(|| fields.take("signed")).flatten();
    MannerWords {
        unclaimed,
        stray,
        plaintext,
        near_miss,
        signed: signed.and_then(|node| findings.choice(node, "`signed`", &SIGNED)),
        unopened: fields
            .take("unopened")
            .and_then(|node| fallback(node, findings)),
    }
}

/// `null` is the word here, and not nothing.
fn fallback(node: &Node, findings: &mut Findings<'_>) -> Option<Fallback> {
    match &node.value {
        Value::Scalar { text, .. } if text == "null" => Some(Fallback::Null),
        _ => findings.choice(node, "`unopened`", &FALLBACKS),
    }
}

pub(super) fn side(node: &Node, is_request: bool, findings: &mut Findings<'_>) -> SideWords {
    let what = if is_request {
        "`request`"
    } else {
        "`response`"
    };
    let Some(mut fields) = findings.fields(node, what) else {
        return SideWords::default();
    };
    let manner = manner(&mut fields, is_request, findings);
    let mut rules = Vec::new();
    if let Some(node) = fields.take("rules") {
        let items = findings.list(node, "`rules`");
        bounded(items.len(), RULES_MAX, node.span, "rules", findings);
        rules.extend(
            items
                .iter()
                .take(RULES_MAX)
                .filter_map(|item| rule(item, is_request, findings)),
        );
    }
    fields.finish(findings);
    SideWords { manner, rules }
}

fn rule(node: &Node, is_request: bool, findings: &mut Findings<'_>) -> Option<RuleWords> {
    let mut fields = findings.fields(node, "a rule")?;
    let at = fields
        .require("at", findings)
        .and_then(|node| selector(node, is_request, findings));
    let chosen = one_of(&mut fields, &["seal", "open", "pass"], "a rule", findings);
    let action = chosen.and_then(|(word, node)| match word {
        "seal" => findings.text(node, "`seal`").map(ActionWords::Seal),
        "open" => findings.text(node, "`open`").map(ActionWords::Open),
        _ => findings
            .choice(node, "`pass`", &[("true", ActionWordsPass)])
            .map(|ActionWordsPass| ActionWords::Pass),
    });
    let bind_node = fields.take("bind");
    let bind = bind_node
        .map(|node| binds(node, findings))
        .unwrap_or_default();
    if let (Some(ActionWords::Pass), Some(node)) = (&action, bind_node) {
        findings.at(
            "misplaced-word",
            node.span,
            "nothing is bound where a value passes",
        );
    }
    fields.misplaced(
        "then",
        "it stands beside `json`: at: {json: $.payload, then: $.x}",
        findings,
    );
    let reveal_node = fields.take("reveal");
    let reveal = reveal_node.and_then(|node| reveal(node, findings));
    if let (Some(ActionWords::Pass | ActionWords::Seal(_)), Some(node)) = (&action, reveal_node) {
        let message = "`reveal` says who sees what a rule opens, and this one opens nothing";
        findings.at("misplaced-word", node.span, message);
    }
    let gather_node = fields.take("gather");
    let gather = gather_node.and_then(|node| findings.boolean(node, "`gather`"));
    if let (Some(ActionWords::Pass | ActionWords::Seal(_)), Some(node)) = (&action, gather_node) {
        let message = "`gather` looks for tokens in texts, and this rule opens none";
        findings.at("misplaced-word", node.span, message);
    }
    fields.finish(findings);
    Some(RuleWords {
        at: at?,
        action: action?,
        bind,
        reveal,
        gather: gather.unwrap_or(false),
    })
}

#[derive(Clone, Copy)]
struct ActionWordsPass;

fn selector(node: &Node, is_request: bool, findings: &mut Findings<'_>) -> Option<AtWords> {
    let of = |selects| AtWords {
        node: node.clone(),
        selects,
    };
    if !matches!(node.value, Value::Map(_)) {
        let path = pattern(node, "`at`", findings)?;
        return Some(of(SelectorWords::Json(path)));
    }
    let mut fields = findings.fields(node, "`at`")?;
    let chosen = one_of(&mut fields, &SELECTORS, "`at`", findings);
    let mut then = None;
    if chosen.is_some_and(|(word, _)| word == "json") {
        let node = fields.require("then", findings);
        then = node.and_then(|node| pattern(node, "`then`", findings));
    }
    fields.finish(findings);
    let (word, from) = chosen?;
    let text = pattern(from, "a selector", findings)?;
    let spot = match word {
        "header" => Spot::Header,
        "query" if !is_request => {
            let hint = "an answer has no query; rules for queries stand under `request`";
            findings.at_with_hint("misplaced-word", from.span, "a query in an answer", hint);
            return None;
        }
        "query" => Spot::Query,
        "form" => Spot::Form,
        "part" => Spot::Part,
        _ => {
            let then = then?;
            return Some(of(SelectorWords::Inside { outer: text, then }));
        }
    };
    Some(of(SelectorWords::Named(spot, text)))
}

fn binds(node: &Node, findings: &mut Findings<'_>) -> Vec<BindWords> {
    let entries = findings.entries(node, "`bind`");
    bounded(entries.len(), BINDS_MAX, node.span, "binds", findings);
    let mut binds = Vec::new();
    for entry in entries.iter().take(BINDS_MAX) {
        let Some(mut fields) = findings.fields(&entry.node, "a bind") else {
            continue;
        };
        let sources = ["sibling", "root", "path", "header", "query"];
        let chosen = one_of(&mut fields, &sources, "a bind", findings);
        fields.finish(findings);
        let Some((source, from)) = chosen else {
            continue;
        };
        let Some(from) = pattern(from, "a bind's source", findings) else {
            continue;
        };
        binds.push(BindWords {
            name: Marked {
                value: entry.key.clone(),
                span: entry.key_span,
            },
            source,
            from,
        });
    }
    binds
}
