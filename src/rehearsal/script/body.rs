//! A body in a test file: exact text, a YAML value written as JSON, or a file; tokens of earlier times among them.

use super::{ITEMS_MAX, bounded};
use crate::diagnostic::{Span, quoted};
use crate::marked::{Fields, Findings, Marked, Node, Value};
use crate::scan;
use crate::transform::encode_form;

/// A body of a test.
#[derive(Debug)]
pub(crate) enum Body {
    /// Parts of JSON text, and tokens between them.
    Pieces(Vec<Piece>),
    /// `form`: percent-encoded.
    Form(String),
    /// A file beside the test file.
    File(Marked<String>),
}

/// A part of a body.
#[derive(Debug)]
pub enum Piece {
    /// JSON text.
    Text(String),
    /// `$token`: a token in its quotes.
    Token(Box<KeptWords>),
}

/// `{$token: {class: ssn, value: …}}`: a token that the application or the upstream has kept from earlier.
#[derive(Debug)]
pub struct KeptWords {
    /// A name of a class, perhaps a former one.
    pub(crate) class: Marked<String>,
    /// Of the token.
    pub tenant: Option<String>,
    /// Names, and values as JSON text.
    pub(crate) bind: Vec<(Marked<String>, String)>,
    /// As JSON text.
    pub value: String,
    /// Where it is written.
    pub span: Span,
}

/// The member that stands for a token.
const TOKEN: &str = "$token";

/// `body` or `file`.
pub(super) fn read(
    fields: &mut Fields<'_>,
    what: &str,
    findings: &mut Findings<'_>,
) -> Option<Body> {
    let body = fields.take("body");
    if let Some(entry) = fields.take_entry("form") {
        if body.is_some() || fields.take("file").is_some() {
            let message = format!("{what} has one of body, form, file; here are several");
            findings.at("one-of", entry.key_span, message);
        }
        return Some(Body::Form(form(&entry.node, findings)));
    }
    let file = fields.take_entry("file");
    if let (Some(_), Some(entry)) = (body, file) {
        let message = format!("{what} has one of body, file; here are both");
        findings.at("one-of", entry.key_span, message);
    }
    if let Some(node) = body {
        return Some(Body::Pieces(pieces(node, findings)));
    }
    let file = findings.text(&file?.node, "`file`")?;
    Some(Body::File(file))
}

/// Names and values as `application/x-www-form-urlencoded`; of a list, each item is a value.
fn form(node: &Node, findings: &mut Findings<'_>) -> String {
    let mut form = Vec::new();
    let entries = findings.entries(node, "`form`");
    bounded(entries.len(), ITEMS_MAX, node.span, "fields", findings);
    for entry in entries.iter().take(ITEMS_MAX) {
        let values = match &entry.node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(&entry.node),
        };
        for value in values.iter().take(ITEMS_MAX) {
            let Some(text) = findings.text(value, "a field's value") else {
                continue;
            };
            if !form.is_empty() {
                form.push(b'&');
            }
            encode_form(&entry.key, &mut form);
            form.push(b'=');
            encode_form(&text.value, &mut form);
        }
    }
    // Percent-encoded, and so a text.
    String::from_utf8_lossy(&form).into_owned()
}

/// A single value is the body's text as it stands; a mapping or a list is written as JSON.
fn pieces(node: &Node, findings: &mut Findings<'_>) -> Vec<Piece> {
    if let Value::Scalar { text, .. } = &node.value {
        return vec![Piece::Text(text.clone())];
    }
    let mut pieces = vec![Piece::Text(String::new())];
    write(node, &mut pieces, findings);
    pieces
}

/// A node as JSON text, for values that hold no token.
pub(super) fn json(node: &Node, findings: &mut Findings<'_>) -> String {
    let mut pieces = vec![Piece::Text(String::new())];
    write(node, &mut pieces, findings);
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(part) => text.push_str(&part),
            Piece::Token(token) => findings.at(
                "misplaced-word",
                token.span,
                "a token stands in a body, not here",
            ),
        }
    }
    text
}

fn write(node: &Node, pieces: &mut Vec<Piece>, findings: &mut Findings<'_>) {
    match &node.value {
        Value::Scalar { text, plain, .. } => push(pieces, &scalar(text, *plain)),
        Value::List(items) => {
            push(pieces, "[");
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    push(pieces, ", ");
                }
                write(item, pieces, findings);
            }
            push(pieces, "]");
        }
        Value::Map(entries) => {
            if let [only] = entries.as_slice()
                && only.key == TOKEN
            {
                if let Some(token) = token(&only.node, findings) {
                    pieces.push(Piece::Token(Box::new(token)));
                    pieces.push(Piece::Text(String::new()));
                }
                return;
            }
            push(pieces, "{");
            for (index, entry) in entries.iter().enumerate() {
                if entry.key == TOKEN {
                    let message = "`$token` stands alone in its mapping";
                    findings.at("misplaced-word", entry.key_span, message);
                }
                if index > 0 {
                    push(pieces, ", ");
                }
                push(pieces, &string(&entry.key));
                push(pieces, ": ");
                write(&entry.node, pieces, findings);
            }
            push(pieces, "}");
        }
    }
}

fn push(pieces: &mut [Piece], text: &str) {
    if let Some(Piece::Text(last)) = pieces.last_mut() {
        last.push_str(text);
    }
}

/// What is written without quotes is a number, `true`, `false` or `null` where JSON has it so, else a text.
fn scalar(text: &str, plain: bool) -> String {
    if !plain {
        return string(text);
    }
    if matches!(text, "" | "~") {
        return "null".to_owned();
    }
    let literal = matches!(text, "true" | "false" | "null");
    let number = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    if literal || (number && scan::validate(1, text.as_bytes()).is_ok()) {
        text.to_owned()
    } else {
        string(text)
    }
}

fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn token(node: &Node, findings: &mut Findings<'_>) -> Option<KeptWords> {
    let mut fields = findings.fields(node, "`$token`")?;
    let class = fields
        .require("class", findings)
        .and_then(|node| findings.text(node, "`class`"));
    let tenant = fields
        .take("tenant")
        .and_then(|node| findings.text(node, "`tenant`"));
    let value = fields
        .require("value", findings)
        .map(|node| json(node, findings));
    let mut bind = Vec::new();
    if let Some(node) = fields.take("bind") {
        let entries = findings.entries(node, "`bind`");
        bounded(entries.len(), ITEMS_MAX, node.span, "binds", findings);
        for entry in entries.iter().take(ITEMS_MAX) {
            let value = json(&entry.node, findings);
            let fits =
                value.starts_with('"') || value.bytes().all(|c| c.is_ascii_digit() || c == b'-');
            if !fits || matches!(entry.key.as_str(), "class" | "tenant") {
                let message = format!(
                    "{} binds a text or a whole number, and not under `class` or `tenant`",
                    quoted(&entry.key)
                );
                findings.at("bad-bind", entry.key_span, message);
            }
            let name = Marked {
                value: entry.key.clone(),
                span: entry.key_span,
            };
            bind.push((name, value));
        }
    }
    fields.finish(findings);
    Some(KeptWords {
        class: class?,
        tenant: tenant.map(|tenant| tenant.value),
        bind,
        value: value?,
        span: node.span,
    })
}
