//! The test file of a policy (`kind: PolicyTest`), word by word: requests, what the upstream answers, and what is expected.
//!
//! As strict as the policy's own language: an unknown word is an error with its place. A case that expects nothing is an error,
//! too, since it could not fail.

mod body;
mod expected;
mod schema;

pub(crate) use body::Body;
pub use body::{KeptWords, Piece, SplitWords};
pub use expected::{Comparison, Expected, Same, Sealed, Seen, Where};
pub use schema::schema;

use crate::diagnostic::{Diagnostic, Source, Span, quoted};
use crate::error::{Code, TABLE};
use crate::marked::amount::size;
use crate::marked::{self, Fields, Findings, Marked, Node, Value};
use crate::proxy::Limits;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use std::collections::HashMap;

/// Cases of one file.
pub const CASES_MAX: usize = 1024;
/// Policies of one file.
pub const POLICIES_MAX: usize = 64;
/// Paths, counts or headers at one place of a case.
pub const ITEMS_MAX: usize = 1024;
/// Bytes of a limit.
const LIMIT_MAX: usize = 1 << 30;
/// How a test file's name ends; what stands before it is the name of its policy.
pub const SUFFIX: &str = ".test.yaml";
/// The words of a passing body's tally, beside those of tokens that stay sealed.
pub const COUNTED: [&str; 7] = [
    "kept",
    "masked",
    "near-miss",
    "nulled",
    "plaintext",
    "stray",
    "unclaimed",
];
/// Why a token may stay sealed in a rehearsal.
pub const LEFT: [&str; 10] = [
    "bind",
    "class",
    "foreign",
    "malformed",
    "mismatch",
    "not-found",
    "over-budget",
    "refused",
    "unsupported",
    "withheld",
];

/// A test file, checked.
#[derive(Debug)]
pub struct Script {
    /// Where its words stand.
    pub source: Source,
    /// Files of policies, beside this file; empty: the one of its own name.
    pub(crate) policies: Vec<Marked<String>>,
    /// Of the policies.
    pub environment: Option<String>,
    /// Of the listener, as its settings would say them.
    pub limits: Limits,
    /// In the order of the file.
    pub cases: Vec<Case>,
}

/// A request, what the upstream answers, and what is expected.
#[derive(Debug)]
pub struct Case {
    /// Its name, unique in the file.
    pub(crate) name: Marked<String>,
    /// What the application sends.
    pub request: Request,
    /// `None`: the upstream echoes.
    pub response: Option<Response>,
    /// What is expected.
    pub expect: Expected,
}

/// What the application sends.
#[derive(Debug)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// The upstream's host.
    pub host: String,
    /// The path, and a query.
    pub target: Uri,
    /// Its headers, with the content type of a body.
    pub headers: HeaderMap,
    /// `None`: it has none.
    pub(crate) body: Option<Body>,
    /// Who asks, wherever the policy takes that from; else what the headers say.
    pub(crate) caller: Option<Marked<String>>,
}

/// What the upstream answers.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, with the content type of a body.
    pub headers: HeaderMap,
    /// `None`: it has none.
    pub(crate) body: Option<Body>,
}

/// What cases of a file have in common.
#[derive(Default)]
struct Defaults {
    method: Option<Method>,
    host: Option<String>,
    path: Option<Uri>,
    headers: HeaderMap,
    caller: Option<Marked<String>>,
}

impl Script {
    /// Reads and checks a test file. `file` is its name in the findings.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the text; never empty.
    pub fn load(text: &str, file: &str) -> Result<Script, Vec<Diagnostic>> {
        let source = Source::new(file, text);
        let root = marked::parse(&source)?;
        let mut findings = Findings::new(&source);
        let script = read(&root, &source, &mut findings);
        match (script, findings.finish()) {
            (Some(script), Ok(())) => Ok(script),
            (_, Err(found)) => Err(found),
            (None, Ok(())) => Err(vec![source.diagnostic(
                "bad-test",
                Span::default(),
                "this is not a test file",
            )]),
        }
    }
}

fn read(root: &Node, source: &Source, findings: &mut Findings<'_>) -> Option<Script> {
    let mut fields = findings.fields(root, "a test file")?;
    if let Some(node) = fields.require("apiVersion", findings) {
        findings.choice(node, "`apiVersion`", &[("fieldveil/v1", ())]);
    }
    if let Some(node) = fields.require("kind", findings) {
        findings.choice(node, "`kind`", &[("PolicyTest", ())]);
    }
    let policies = fields
        .take("policies")
        .map(|node| texts(node, "`policies`", POLICIES_MAX, findings))
        .unwrap_or_default();
    let environment = fields
        .take("environment")
        .and_then(|node| findings.text(node, "`environment`"))
        .map(|text| text.value);
    let limits = fields
        .take("limits")
        .and_then(|node| limits(node, findings))
        .unwrap_or_default();
    let defaults = fields
        .take("defaults")
        .and_then(|node| defaults(node, findings))
        .unwrap_or_default();
    let mut cases: Vec<Case> = Vec::new();
    if let Some(node) = fields.require("cases", findings) {
        let items = findings.list(node, "`cases`");
        if items.is_empty() && matches!(node.value, Value::List(_)) {
            findings.at(
                "missing-word",
                node.span,
                "a test file has at least one case",
            );
        }
        bounded(items.len(), CASES_MAX, node.span, "cases", findings);
        let mut names: HashMap<String, Span> = HashMap::new();
        for item in items.iter().take(CASES_MAX) {
            let Some(case) = case(item, &defaults, findings) else {
                continue;
            };
            if let Some(first) = names.insert(case.name.value.clone(), case.name.span) {
                let line = findings.source.diagnostic("", first, "").line;
                let message = format!(
                    "a case {} is already in line {line}",
                    quoted(&case.name.value)
                );
                findings.at("duplicate-case", case.name.span, message);
            }
            cases.push(case);
        }
    }
    fields.finish(findings);
    Some(Script {
        source: source.clone(),
        policies,
        environment,
        limits,
        cases,
    })
}

/// Those that decide about one body. Small ones are allowed, so that a test needs no large body.
fn limits(node: &Node, findings: &mut Findings<'_>) -> Option<Limits> {
    let mut fields = findings.fields(node, "`limits`")?;
    let mut limits = Limits::default();
    let words = [
        ("held_body", &mut limits.held_body),
        ("record", &mut limits.record),
        ("window", &mut limits.window),
    ];
    for (word, limit) in words {
        let Some(node) = fields.take(word) else {
            continue;
        };
        let Some(text) = findings.text(node, &format!("`{word}`")) else {
            continue;
        };
        let bytes = size(&text.value).and_then(|bytes| usize::try_from(bytes).ok());
        match bytes.filter(|bytes| *bytes <= LIMIT_MAX) {
            Some(bytes) => *limit = bytes,
            None => {
                let message = format!("`{word}` is a size up to 1GiB, as 64KiB or 8MiB");
                findings.at("bad-size", text.span, message);
            }
        }
    }
    fields.finish(findings);
    limits.held_total = limits
        .held_total
        .max(4 * limits.held_body.max(limits.window));
    Some(limits)
}

fn defaults(node: &Node, findings: &mut Findings<'_>) -> Option<Defaults> {
    let mut fields = findings.fields(node, "`defaults`")?;
    let request = fields.take("request").and_then(|node| {
        let mut fields = findings.fields(node, "the default `request`")?;
        let head = head(&mut fields, findings);
        fields.misplaced("body", "a body belongs to a case", findings);
        fields.finish(findings);
        Some(head)
    });
    fields.finish(findings);
    request
}

/// The words of a request apart from its body.
fn head(fields: &mut Fields<'_>, findings: &mut Findings<'_>) -> Defaults {
    let method = fields
        .take("method")
        .and_then(|node| method(node, findings));
    let host = fields
        .take("host")
        .and_then(|node| findings.text(node, "`host`"));
    let path = fields.take("path").and_then(|node| target(node, findings));
    let headers = fields
        .take("headers")
        .map(|node| headers(node, findings))
        .unwrap_or_default();
    let caller = fields
        .take("caller")
        .and_then(|node| findings.text(node, "`caller`"));
    Defaults {
        method,
        host: host.map(|host| host.value),
        path,
        headers,
        caller,
    }
}

fn method(node: &Node, findings: &mut Findings<'_>) -> Option<Method> {
    let text = findings.text(node, "`method`")?;
    let method = Method::from_bytes(text.value.as_bytes()).ok();
    if method.is_none() {
        let message = format!("{} is no method", quoted(&text.value));
        findings.at("bad-method", text.span, message);
    }
    method
}

/// A path and perhaps a query, as they are sent.
fn target(node: &Node, findings: &mut Findings<'_>) -> Option<Uri> {
    let text = findings.text(node, "`path`")?;
    let target = Uri::try_from(&text.value).ok();
    let target = target.filter(|uri| uri.authority().is_none() && !text.value.contains('#'));
    if target.is_none() {
        let message = "`path` is a path and perhaps a query, percent-encoded as they are sent";
        findings.at("bad-target", text.span, message);
    }
    target
}

/// Headers by name; a list of values makes several lines.
fn headers(node: &Node, findings: &mut Findings<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let entries = findings.entries(node, "`headers`");
    bounded(entries.len(), ITEMS_MAX, node.span, "headers", findings);
    for entry in entries.iter().take(ITEMS_MAX) {
        let Ok(name) = HeaderName::from_bytes(entry.key.as_bytes()) else {
            let message = format!("{} is no name of a header", quoted(&entry.key));
            findings.at("bad-header", entry.key_span, message);
            continue;
        };
        let values = match &entry.node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(&entry.node),
        };
        for value in values.iter().take(ITEMS_MAX) {
            let Some(text) = findings.text(value, "a header's value") else {
                continue;
            };
            match HeaderValue::from_str(&text.value) {
                Ok(value) => {
                    headers.append(name.clone(), value);
                }
                Err(_) => findings.at("bad-header", text.span, "this cannot be a header's value"),
            }
        }
    }
    headers
}

fn case(node: &Node, defaults: &Defaults, findings: &mut Findings<'_>) -> Option<Case> {
    let mut fields = findings.fields(node, "a case")?;
    let name = fields
        .require("name", findings)
        .and_then(|node| findings.text(node, "the case's name"));
    let request = fields
        .require("request", findings)
        .and_then(|node| request(node, defaults, findings));
    let response = fields.take("response").map(|node| response(node, findings));
    let expect = fields
        .require("expect", findings)
        .and_then(|node| expected::read(node, findings));
    fields.finish(findings);
    let response = match response {
        None => None,
        Some(response) => Some(response?),
    };
    Some(Case {
        name: name?,
        request: request?,
        response,
        expect: expect?,
    })
}

fn request(node: &Node, defaults: &Defaults, findings: &mut Findings<'_>) -> Option<Request> {
    let mut fields = findings.fields(node, "`request`")?;
    let before = findings.count();
    let head = head(&mut fields, findings);
    let body = body::read(&mut fields, "a request", findings);
    fields.finish(findings);
    let method = head.method.or_else(|| defaults.method.clone());
    let host = head.host.or_else(|| defaults.host.clone());
    let target = head.path.or_else(|| defaults.path.clone());
    if findings.count() == before {
        for (word, there) in [("host", host.is_some()), ("path", target.is_some())] {
            if !there {
                let message = format!("a request needs `{word}`, here or in `defaults`");
                findings.at("missing-word", node.span, message);
            }
        }
    }
    let mut headers = defaults.headers.clone();
    for name in head.headers.keys() {
        headers.remove(name);
    }
    headers.extend(head.headers);
    Some(Request {
        method: method.unwrap_or(if body.is_some() {
            Method::POST
        } else {
            Method::GET
        }),
        host: host?,
        target: target?,
        headers: with_type(headers, body.as_ref()),
        caller: head.caller.or_else(|| defaults.caller.clone()),
        body,
    })
}

fn response(node: &Node, findings: &mut Findings<'_>) -> Option<Response> {
    let mut fields = findings.fields(node, "`response`")?;
    let status = fields
        .take("status")
        .and_then(|node| findings.integer(node, "`status`", 200..=599))
        .and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok());
    let headers = fields
        .take("headers")
        .map(|node| headers(node, findings))
        .unwrap_or_default();
    let body = body::read(&mut fields, "a response", findings);
    fields.finish(findings);
    Some(Response {
        status: status.unwrap_or(StatusCode::OK),
        headers: with_type(headers, body.as_ref()),
        body,
    })
}

/// A body is JSON, or a form, or lines of JSON, unless a header says otherwise.
fn with_type(mut headers: HeaderMap, body: Option<&Body>) -> HeaderMap {
    let kind = match body {
        None => return headers,
        Some(Body::Form(_)) => "application/x-www-form-urlencoded",
        Some(Body::Records(_)) => "application/x-ndjson",
        Some(_) => "application/json",
    };
    let kind = HeaderValue::from_static(kind);
    headers.entry(http::header::CONTENT_TYPE).or_insert(kind);
    headers
}

/// A code of the agent's answers.
fn code(node: &Node, what: &str, findings: &mut Findings<'_>) -> Option<Marked<Code>> {
    let words: Vec<(&'static str, Code)> = TABLE.iter().map(|row| (row.word, row.code)).collect();
    let text = findings.text(node, what)?;
    if let Some((_, code)) = words.iter().find(|(word, _)| *word == text.value) {
        return Some(Marked {
            value: *code,
            span: text.span,
        });
    }
    let known = words.iter().map(|(word, _)| *word);
    let hint = crate::diagnostic::did_you_mean(&text.value, known)
        .unwrap_or_else(|| "the codes are listed in docs/errors.md".to_owned());
    let message = format!("{} is no code of a refusal", quoted(&text.value));
    findings.at_with_hint("unknown-value", text.span, message, hint);
    None
}

/// A text, or a list of texts.
fn texts(node: &Node, what: &str, max: usize, findings: &mut Findings<'_>) -> Vec<Marked<String>> {
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    bounded(items.len(), max, node.span, "items", findings);
    let items = items.iter().take(max);
    items.filter_map(|item| findings.text(item, what)).collect()
}

fn bounded(count: usize, max: usize, span: Span, what: &str, findings: &mut Findings<'_>) {
    if count > max {
        let message = format!("{count} {what}; at most {max} are allowed");
        findings.at("too-many", span, message);
    }
}
