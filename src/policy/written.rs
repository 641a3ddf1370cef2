//! The policy file word by word: which words stand where, and of which kind their values are.
//!
//! Every word is known, not built yet, or an error. What the words mean together is `checked`'s business.

use super::callers::{caller, mask};
use super::sides::{MannerWords, SideWords, manner, side};
use super::{
    CLASSES_MAX, CallerSource, ENVIRONMENTS_MAX, FORMERLY_MAX, METHODS_MAX, Mode,
    PATTERN_BYTES_MAX, ROUTES_MAX, Unmatched,
};
use crate::dek::Suite;
use crate::diagnostic::{Span, quoted};
use crate::marked::{Fields, Findings, Marked, Node, Value};
use crate::mask::Mask;

pub(super) struct PolicyFile {
    pub name: Marked<String>,
    pub tenant: Option<Tenant>,
    pub caller: Option<CallerSource>,
    pub unmatched: Option<Unmatched>,
    pub classes: Vec<ClassWords>,
    pub routes: Vec<RouteWords>,
    pub environments: Vec<Environment>,
}

pub(super) enum Tenant {
    Header(Marked<String>),
    HostLabel(usize),
    Path(Marked<String>),
    Value(Marked<String>),
}

pub(super) struct ClassWords {
    pub name: Marked<String>,
    pub key: Marked<String>,
    pub formerly: Vec<Marked<String>>,
    /// `sealed: keep` or `refuse`; without the word it follows from the scrutiny.
    pub suite: Suite,
    pub keep_sealed: Option<bool>,
    pub high_scrutiny: bool,
    pub mask: Option<Mask>,
}

pub(super) struct RouteWords {
    pub name: Marked<String>,
    pub mode: Option<Mode>,
    pub caller: Option<CallerSource>,
    pub matching: MatchWords,
    pub request: SideWords,
    pub response: SideWords,
}

pub(super) struct MatchWords {
    pub span: Span,
    pub host: Option<Marked<String>>,
    pub methods: Vec<Marked<String>>,
    /// The node, too: it places an offset in the template.
    pub path: Option<Text>,
}

/// A text, and its node, which knows the place of an offset in it.
pub(super) struct Text {
    pub text: String,
    pub node: Node,
}

pub(super) struct Environment {
    pub name: Marked<String>,
    pub unmatched: Option<Unmatched>,
    pub routes: Vec<RouteOverride>,
}

pub(super) struct RouteOverride {
    pub name: Marked<String>,
    pub mode: Option<Mode>,
    pub request: MannerWords,
    pub response: MannerWords,
}

pub(super) const UNMATCHED: [(&str, Unmatched); 3] = [
    ("pass", Unmatched::Pass),
    ("report", Unmatched::Report),
    ("reject", Unmatched::Reject),
];
pub(super) const MODES: [(&str, Mode); 2] =
    [("enforce", Mode::Enforce), ("observe", Mode::Observe)];
const NEAR_MISS: &str = "it stands in a route's `request` or `response`";

/// Reads the whole file; None when so much is missing that checking further would only repeat it.
pub(super) fn read(root: &Node, findings: &mut Findings<'_>) -> Option<PolicyFile> {
    let mut fields = findings.fields(root, "a policy")?;
    if let Some(node) = fields.require("apiVersion", findings) {
        findings.choice(node, "`apiVersion`", &[("fieldveil/v1", ())]);
    }
    if let Some(node) = fields.require("kind", findings) {
        findings.choice(node, "`kind`", &[("Policy", ())]);
    }
    let name = fields
        .require("metadata", findings)
        .and_then(|node| metadata(node, findings));
    let tenant = fields
        .take("tenant")
        .and_then(|node| tenant(node, findings));
    let unmatched = fields
        .take("unmatched")
        .and_then(|node| findings.choice(node, "`unmatched`", &UNMATCHED));
    let classes = fields
        .take("classes")
        .map(|node| classes(node, findings))
        .unwrap_or_default();
    let routes = fields
        .require("routes", findings)
        .map(|node| routes(node, findings))
        .unwrap_or_default();
    let environments = fields
        .take("environments")
        .map(|node| environments(node, findings))
        .unwrap_or_default();
    let caller = fields
        .take("caller")
        .and_then(|node| caller(node, findings));
    fields.misplaced("near_miss", NEAR_MISS, findings);
    fields.finish(findings);
    Some(PolicyFile {
        name: name?,
        tenant,
        caller,
        unmatched,
        classes,
        routes,
        environments,
    })
}

fn metadata(node: &Node, findings: &mut Findings<'_>) -> Option<Marked<String>> {
    let mut fields = findings.fields(node, "`metadata`")?;
    let name = fields
        .require("name", findings)
        .and_then(|node| findings.text(node, "the policy's name"));
    fields.finish(findings);
    name
}

fn tenant(node: &Node, findings: &mut Findings<'_>) -> Option<Tenant> {
    let mut fields = findings.fields(node, "`tenant`")?;
    let chosen = one_of(
        &mut fields,
        &["header", "host", "path", "value"],
        "`tenant`",
        findings,
    );
    fields.finish(findings);
    let (word, source) = chosen?;
    if word == "host" {
        let label = findings.integer(source, "the label's number, from the left,", 1..=127)?;
        return usize::try_from(label).ok().map(Tenant::HostLabel);
    }
    let text = findings.text(source, "the tenant's source")?;
    Some(match word {
        "header" => Tenant::Header(text),
        "path" => Tenant::Path(text),
        _ => Tenant::Value(text),
    })
}

/// The only one of some words that exclude each other.
pub(super) fn one_of<'n>(
    fields: &mut Fields<'n>,
    words: &[&'static str],
    what: &str,
    findings: &mut Findings<'_>,
) -> Option<(&'static str, &'n Node)> {
    let mut chosen = None;
    for word in words {
        let Some(entry) = fields.take_entry(word) else {
            continue;
        };
        match chosen {
            None => chosen = Some((*word, &entry.node)),
            Some((first, _)) => {
                let message = format!(
                    "{what} has one of {}; here are `{first}` and `{word}`",
                    words.join(", ")
                );
                findings.at("one-of", entry.key_span, message);
            }
        }
    }
    if chosen.is_none() {
        findings.at(
            "missing-word",
            fields.span,
            format!("{what} needs one of {}", words.join(", ")),
        );
    }
    chosen
}

/// Reports a collection that is longer than its limit.
pub(super) fn bounded(
    count: usize,
    max: usize,
    span: Span,
    what: &str,
    findings: &mut Findings<'_>,
) {
    if count > max {
        findings.at(
            "too-many",
            span,
            format!("{count} {what}; at most {max} are allowed"),
        );
    }
}

fn classes(node: &Node, findings: &mut Findings<'_>) -> Vec<ClassWords> {
    let entries = findings.entries(node, "`classes`");
    bounded(entries.len(), CLASSES_MAX, node.span, "classes", findings);
    let mut classes = Vec::new();
    for entry in entries.iter().take(CLASSES_MAX) {
        let Some(mut fields) = findings.fields(&entry.node, "a class") else {
            continue;
        };
        let key = fields
            .require("key", findings)
            .and_then(|node| findings.text(node, "`key`"));
        let formerly = fields
            .take("formerly")
            .map(|node| formerly(node, findings))
            .unwrap_or_default();
        let keep_sealed = fields.take("sealed").and_then(|node| {
            findings.choice(node, "`sealed`", &[("keep", true), ("refuse", false)])
        });
        let high_scrutiny = fields.take("scrutiny").and_then(|node| {
            findings.choice(node, "`scrutiny`", &[("normal", false), ("high", true)])
        });
        let suite = fields
            .take("mode")
            .and_then(|node| findings.choice(node, "a class's `mode`", &CLASS_MODES));
        let mask = fields.take("mask").and_then(|node| mask(node, findings));
        fields.misplaced(
            "reveal",
            "it stands in a rule that opens the class",
            findings,
        );
        fields.not_built(&["pad"], findings);
        fields.finish(findings);
        let name = Marked {
            value: entry.key.clone(),
            span: entry.key_span,
        };
        let key = key.unwrap_or_else(|| Marked {
            value: "missing".to_owned(),
            span: entry.key_span,
        });
        let high_scrutiny = high_scrutiny.unwrap_or(false);
        classes.push(ClassWords {
            name,
            key,
            formerly,
            suite: suite.unwrap_or(Suite::Xaes256Gcm),
            keep_sealed,
            high_scrutiny,
            mask,
        });
    }
    classes
}

/// Ways to seal a class's values.
const CLASS_MODES: [(&str, Suite); 2] = [
    ("randomised", Suite::Xaes256Gcm),
    ("deterministic", Suite::Aes256Siv),
];

fn formerly(node: &Node, findings: &mut Findings<'_>) -> Vec<Marked<String>> {
    let items = findings.list(node, "`formerly`");
    bounded(
        items.len(),
        FORMERLY_MAX,
        node.span,
        "former names",
        findings,
    );
    items
        .iter()
        .take(FORMERLY_MAX)
        .filter_map(|item| findings.text(item, "a former name"))
        .collect()
}

fn routes(node: &Node, findings: &mut Findings<'_>) -> Vec<RouteWords> {
    let items = findings.list(node, "`routes`");
    if items.is_empty() && matches!(node.value, Value::List(_)) {
        findings.at("missing-word", node.span, "a policy has at least one route");
    }
    bounded(items.len(), ROUTES_MAX, node.span, "routes", findings);
    items
        .iter()
        .take(ROUTES_MAX)
        .filter_map(|item| route(item, findings))
        .collect()
}

fn route(node: &Node, findings: &mut Findings<'_>) -> Option<RouteWords> {
    let mut fields = findings.fields(node, "a route")?;
    let name = fields
        .require("name", findings)
        .and_then(|node| findings.text(node, "the route's name"));
    let mode = fields
        .take("mode")
        .and_then(|node| findings.choice(node, "a route's `mode`", &MODES));
    let matching = fields
        .require("match", findings)
        .and_then(|node| matching(node, findings));
    let request = fields
        .take("request")
        .map(|node| side(node, true, findings))
        .unwrap_or_default();
    let response = fields
        .take("response")
        .map(|node| side(node, false, findings))
        .unwrap_or_default();
    let caller = fields
        .take("caller")
        .and_then(|node| caller(node, findings));
    fields.misplaced("near_miss", NEAR_MISS, findings);
    fields.finish(findings);
    Some(RouteWords {
        name: name?,
        mode,
        caller,
        matching: matching?,
        request,
        response,
    })
}

fn matching(node: &Node, findings: &mut Findings<'_>) -> Option<MatchWords> {
    let mut fields = findings.fields(node, "`match`")?;
    let host = fields
        .take("host")
        .and_then(|node| findings.text(node, "`host`"));
    let mut methods = Vec::new();
    if let Some(node) = fields.take("methods") {
        let items = findings.list(node, "`methods`");
        if items.is_empty() && matches!(node.value, Value::List(_)) {
            findings.at(
                "missing-word",
                node.span,
                "`methods` lists at least one; leave it out to take all",
            );
        }
        bounded(items.len(), METHODS_MAX, node.span, "methods", findings);
        methods.extend(
            items
                .iter()
                .take(METHODS_MAX)
                .filter_map(|item| findings.text(item, "a method")),
        );
    }
    let path = fields
        .take("path")
        .and_then(|node| pattern(node, "`path`", findings));
    fields.finish(findings);
    Some(MatchWords {
        span: node.span,
        host,
        methods,
        path,
    })
}

/// A text of bounded length, with its node.
pub(super) fn pattern(node: &Node, what: &str, findings: &mut Findings<'_>) -> Option<Text> {
    let text = findings.text(node, what)?.value;
    if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
        findings.at(
            "bad-length",
            node.span,
            format!("{what} has from 1 to {PATTERN_BYTES_MAX} bytes"),
        );
        return None;
    }
    Some(Text {
        text,
        node: node.clone(),
    })
}

fn environments(node: &Node, findings: &mut Findings<'_>) -> Vec<Environment> {
    let entries = findings.entries(node, "`environments`");
    bounded(
        entries.len(),
        ENVIRONMENTS_MAX,
        node.span,
        "environments",
        findings,
    );
    let mut environments = Vec::new();
    for entry in entries.iter().take(ENVIRONMENTS_MAX) {
        let Some(mut fields) = findings.fields(&entry.node, "an environment") else {
            continue;
        };
        let unmatched = fields
            .take("unmatched")
            .and_then(|node| findings.choice(node, "`unmatched`", &UNMATCHED));
        let mut routes = Vec::new();
        if let Some(node) = fields.take("routes") {
            for route in findings.entries(node, "an environment's `routes`, by name,") {
                let name = Marked {
                    value: route.key.clone(),
                    span: route.key_span,
                };
                routes.extend(route_override(name, &route.node, findings));
            }
        }
        let hint = "an environment changes `unmatched` and, of routes, `mode` and the words beside `rules`";
        for word in ["classes", "tenant", "caller", "metadata"] {
            fields.misplaced(word, hint, findings);
        }
        fields.finish(findings);
        environments.push(Environment {
            name: Marked {
                value: entry.key.clone(),
                span: entry.key_span,
            },
            unmatched,
            routes,
        });
    }
    environments
}

fn route_override(
    name: Marked<String>,
    node: &Node,
    findings: &mut Findings<'_>,
) -> Option<RouteOverride> {
    let mut fields = findings.fields(node, "a route of an environment")?;
    let mode = fields
        .take("mode")
        .and_then(|node| findings.choice(node, "a route's `mode`", &MODES));
    let mut side = |word: &'static str, findings: &mut Findings<'_>| {
        let node = fields.take(word)?;
        let what = if word == "request" {
            "an environment's `request`"
        } else {
            "an environment's `response`"
        };
        let mut fields = findings.fields(node, what)?;
        let manner = manner(&mut fields, word == "request", findings);
        fields.misplaced("rules", "rules are the same in every environment", findings);
        fields.finish(findings);
        Some(manner)
    };
    let request = side("request", findings).unwrap_or_default();
    let response = side("response", findings).unwrap_or_default();
    fields.misplaced(
        "caller",
        "how a caller is known is the same in every environment",
        findings,
    );
    fields.misplaced(
        "match",
        "a route's match is the same in every environment",
        findings,
    );
    fields.finish(findings);
    Some(RouteOverride {
        name,
        mode,
        request,
        response,
    })
}

/// What is wrong with a name that someone chose, if anything: 1 to 64 of `A-Z a-z 0-9 . _ -`, the first a letter or digit.
pub(crate) fn bad_name(name: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let starts = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let good = starts && name.len() <= super::NAME_CHARS_MAX && name.bytes().all(fits);
    (!good).then(|| {
        format!(
            "{} is no name: 1 to 64 letters, digits, `.`, `_` or `-`, the first a letter or digit",
            quoted(name)
        )
    })
}
