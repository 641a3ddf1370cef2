//! A body in a test file: exact text, a YAML value written as JSON, the records of a stream, or a file; tokens of earlier times
//! among them.

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
    /// `records`: of a stream, each as the body of its own.
    Records(Vec<Vec<Piece>>),
    /// `form`: percent-encoded.
    Form(String),
    /// A file beside the test file.
    File(Marked<String>),
}

impl Body {
    /// All that stand in it.
    pub(crate) fn tokens(&self) -> Vec<&KeptWords> {
        let pieces: Vec<&Piece> = match self {
            Body::Pieces(pieces) => pieces.iter().collect(),
            Body::Records(records) => records.iter().flatten().collect(),
            Body::Form(_) | Body::File(_) => Vec::new(),
        };
        let inner = pieces.into_iter().flat_map(|piece| match piece {
            Piece::Split(words) => words.text.iter().collect(),
            piece => vec![piece],
        });
        let tokens = inner.filter_map(|piece| match piece {
            Piece::Token(words) => Some(&**words),
            _ => None,
        });
        tokens.collect()
    }
}

/// A part of a body.
#[derive(Debug)]
pub enum Piece {
    /// JSON text.
    Text(String),
    /// `$token`: a token in its quotes.
    Token(Box<KeptWords>),
    /// `$split`: a text whose record is sent several times, with a few characters of it each.
    Split(Box<SplitWords>),
}

/// `{$split: {text: [Dear, {$token: …}], each: 4}}`: a text as language models give it out.
#[derive(Debug)]
pub struct SplitWords {
    /// Texts and tokens, put together without anything between them.
    pub text: Vec<Piece>,
    /// Characters of one record.
    pub each: usize,
    /// Where it is written.
    pub span: Span,
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
/// The member that stands for a text in several records.
const SPLIT: &str = "$split";
/// Characters of such a text in one record, unless it says.
const SPLIT_CHARS: usize = 4;

/// What a body is written by.
const WORDS: [&str; 4] = ["body", "form", "records", "file"];

/// One of `WORDS`.
pub(super) fn read(
    fields: &mut Fields<'_>,
    what: &str,
    findings: &mut Findings<'_>,
) -> Option<Body> {
    let entries = WORDS.map(|word| fields.take_entry(word).map(|entry| (word, entry)));
    let mut entries = entries.into_iter().flatten();
    let (word, entry) = entries.next()?;
    for (_, other) in entries {
        let message = format!("{what} has one of {}; here are several", WORDS.join(", "));
        findings.at("one-of", other.key_span, message);
    }
    Some(match word {
        "form" => Body::Form(form(&entry.node, findings)),
        "records" => Body::Records(records(&entry.node, findings)),
        "file" => Body::File(findings.text(&entry.node, "`file`")?),
        _ => Body::Pieces(pieces(&entry.node, findings)),
    })
}

/// Each record is written as a body is; one may have one text that is split.
fn records(node: &Node, findings: &mut Findings<'_>) -> Vec<Vec<Piece>> {
    let items = findings.list(node, "`records`");
    bounded(items.len(), ITEMS_MAX, node.span, "records", findings);
    let mut records = Vec::new();
    for item in items.iter().take(ITEMS_MAX) {
        let mut record = vec![Piece::Text(String::new())];
        match &item.value {
            Value::Scalar { text, .. } => push(&mut record, text),
            _ => write(item, &mut record, findings),
        }
        let splits = record.iter().filter_map(|piece| match piece {
            Piece::Split(words) => Some(words.span),
            _ => None,
        });
        if let Some(second) = splits.skip(1).last() {
            let message = "a record has one text that is split";
            findings.at("misplaced-word", second, message);
        }
        records.push(record);
    }
    records
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
    for piece in &pieces {
        if let Piece::Split(words) = piece {
            let message = "a text is split in `records`";
            findings.at("misplaced-word", words.span, message);
        }
    }
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
            Piece::Split(words) => findings.at(
                "misplaced-word",
                words.span,
                "a text is split in `records`, not here",
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
            if let [only] = entries.as_slice() {
                let piece = match &*only.key {
                    TOKEN => Some(token(&only.node, findings).map(|t| Piece::Token(Box::new(t)))),
                    SPLIT => Some(split(&only.node, findings).map(|s| Piece::Split(Box::new(s)))),
                    _ => None,
                };
                if let Some(piece) = piece {
                    pieces.extend(piece);
                    pieces.push(Piece::Text(String::new()));
                    return;
                }
            }
            push(pieces, "{");
            for (index, entry) in entries.iter().enumerate() {
                if [TOKEN, SPLIT].contains(&&*entry.key) {
                    let message = format!("`{}` stands alone in its mapping", entry.key);
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

fn split(node: &Node, findings: &mut Findings<'_>) -> Option<SplitWords> {
    let mut fields = findings.fields(node, "`$split`")?;
    let each = fields
        .take("each")
        .and_then(|node| findings.integer(node, "`each`", 1..=1024));
    let parts = fields.require("text", findings);
    let mut text = Vec::new();
    if let Some(node) = parts {
        let items = findings.list(node, "`text`");
        bounded(items.len(), ITEMS_MAX, node.span, "texts", findings);
        for item in items.iter().take(ITEMS_MAX) {
            match &item.value {
                Value::Scalar { text: part, .. } => text.push(Piece::Text(part.clone())),
                Value::Map(entries) if matches!(&**entries, [only] if only.key == TOKEN) => {
                    let token = token(&entries[0].node, findings);
                    text.extend(token.map(|token| Piece::Token(Box::new(token))));
                }
                _ => {
                    let message = "a split text is made of texts and tokens";
                    findings.at("wrong-type", item.span, message);
                }
            }
        }
    }
    fields.finish(findings);
    Some(SplitWords {
        text,
        each: each.map_or(SPLIT_CHARS, |each| each as usize),
        span: node.span,
    })
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
