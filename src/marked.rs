//! YAML in which every node knows its place: the common ground of the policy's and the settings' languages.
//!
//! A text becomes a tree of `Node`s, or diagnostics. Of YAML only what can be read in one way is taken: mappings with
//! scalar keys, lists and scalars. Anchors, aliases, tags, directives, duplicate keys and further documents are refused,
//! and a scalar is the text that was written: what it means (number, duration, path) the word that it stands behind decides,
//! so that `no` is never a boolean and `1e3` never a number by accident.
//!
//! The tree is built from parser events rather than by serde, because a derived deserializer stops at its first error and
//! loses positions where a word takes two shapes; a person who edits a policy wants all findings at once, each at its place.

pub(crate) mod amount;
pub(crate) mod layout;
mod reading;

use crate::diagnostic::{Diagnostic, Source, Span, quoted};
use granit_parser::{Event, Parser, ScalarStyle};
use std::borrow::Cow;

pub(crate) use reading::{Fields, Findings, not_built};

/// A policy or settings text is at most this long.
pub(crate) const TEXT_BYTES_MAX: usize = 1 << 20;
/// Mappings and lists nest at most this deep, of each kind of notation.
const NESTING_MAX: usize = 32;
/// Said where a star was taken for an alias.
const STAR_HINT: &str = "a text that begins with `*` is written in quotes: \"*\"";

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marked<T> {
    pub value: T,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub value: Value,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// `plain`: without quotes. `verbatim`: the text stands in the source as it is, so that offsets in it are offsets there.
    Scalar {
        text: String,
        plain: bool,
        verbatim: Option<usize>,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub key_span: Span,
    pub node: Node,
}

impl Node {
    /// The place of `text[at..]` within this scalar, or the whole node where escapes make that unclear.
    pub fn span_at(&self, at: usize) -> Span {
        match &self.value {
            Value::Scalar {
                text,
                verbatim: Some(start),
                ..
            } => {
                let at = at.min(text.len());
                let width = text
                    .get(at..)
                    .and_then(|rest| rest.chars().next())
                    .map_or(1, char::len_utf8);
                Span::new(start + at, start + at + width)
            }
            _ => self.span,
        }
    }

    fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true, .. }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    fn kind(&self) -> &'static str {
        match &self.value {
            _ if self.is_null() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

enum Frame {
    List {
        items: Vec<Node>,
        start: usize,
    },
    Map {
        entries: Vec<Entry>,
        key: Option<(String, Span)>,
        start: usize,
    },
}

/// Parses one document. Errors: not YAML, or YAML that may mean more than one thing.
pub(crate) fn parse(source: &Source) -> Result<Node, Vec<Diagnostic>> {
    let mut findings = Findings::new(source);
    let root = build(source, &mut findings);
    // What a broken text means is not known: a line that may hold a secret is not shown.
    let mut at = 0;
    for line in source.text().split_inclusive('\n') {
        if may_be_secret(line) {
            findings.withhold(Span::new(at, at));
        }
        at += line.len();
    }
    match (root, findings.finish()) {
        (Some(root), Ok(())) => Ok(root),
        (None, Ok(())) => Err(vec![source.diagnostic(
            "empty",
            Span::default(),
            "there is nothing in this file",
        )]),
        (_, Err(found)) => Err(found),
    }
}

fn build(source: &Source, findings: &mut Findings<'_>) -> Option<Node> {
    let text = source.text();
    if text.len() > TEXT_BYTES_MAX {
        let message = format!(
            "the file has {} bytes; at most {TEXT_BYTES_MAX} are read",
            text.len()
        );
        findings.report(source.diagnostic("too-large", Span::default(), message));
        return None;
    }
    let mut options = granit_parser::options! {
        strict_indentation: true,
        disallow_directives: true,
        emit_unresolved_aliases: true,
        emit_anchor_events: true,
        flow_nesting_limit: NESTING_MAX,
        block_nesting_limit: NESTING_MAX,
    };
    options.set_emit_comments(false);
    let mut stack: Vec<Frame> = Vec::new();
    let mut root: Option<Node> = None;
    let mut documents = 0;
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, at) = match event {
            Ok(event) => event,
            Err(error) => {
                let at = error.marker().byte_offset().unwrap_or(text.len());
                let message = format!("this is not YAML: {}", error.info());
                let found = source.diagnostic("yaml-syntax", Span::new(at, at + 1), message);
                let before = text.get(..at).unwrap_or(text).trim_end();
                let starred =
                    before.ends_with('*') || text.get(at..).is_some_and(|t| t.starts_with('*'));
                findings.report(found.maybe_hint(starred.then(|| STAR_HINT.to_owned())));
                return None;
            }
        };
        let span = bytes(at);
        if let Some(tag) = at.tag_span() {
            findings.report(source.diagnostic(
                "yaml-tag",
                bytes(tag),
                "tags are not used in this language",
            ));
        }
        match event {
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 {
                    let message = "a file holds one document; here a second begins";
                    findings.report(source.diagnostic("yaml-documents", span, message));
                    return None;
                }
            }
            Event::Anchor(..) => {
                findings.report(source.diagnostic(
                    "yaml-anchor",
                    span,
                    "anchors are not used in this language",
                ));
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                let found =
                    source.diagnostic("yaml-alias", span, "aliases are not used in this language");
                findings.report(found.hint(STAR_HINT));
                place(
                    &mut stack,
                    &mut root,
                    scalar(source, Cow::Borrowed(""), false, span),
                    findings,
                );
            }
            Event::Scalar(value, style, _, _) => {
                let node = scalar(source, value, style == ScalarStyle::Plain, span);
                place(&mut stack, &mut root, node, findings);
            }
            Event::SequenceStart(..) => stack.push(Frame::List {
                items: Vec::new(),
                start: span.start,
            }),
            Event::MappingStart(..) => {
                stack.push(Frame::Map {
                    entries: Vec::new(),
                    key: None,
                    start: span.start,
                });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let node = match stack.pop()? {
                    Frame::List { items, start } => {
                        let end = items.last().map_or(span.end, |last| last.span.end);
                        Node {
                            value: Value::List(items),
                            span: Span::new(start, end.max(start)),
                        }
                    }
                    Frame::Map { entries, start, .. } => {
                        let end = entries.last().map_or(span.end, |last| last.node.span.end);
                        Node {
                            value: Value::Map(entries),
                            span: Span::new(start, end.max(start)),
                        }
                    }
                };
                place(&mut stack, &mut root, node, findings);
            }
            // The stream's and the document's ends; comments, which are not emitted.
            _ => {}
        }
    }
    root
}

fn bytes(span: granit_parser::Span) -> Span {
    // Texts held whole always have byte offsets.
    let start = span.start.byte_offset().unwrap_or_default();
    Span::new(start, span.end.byte_offset().unwrap_or(start).max(start))
}

fn scalar(source: &Source, value: Cow<'_, str>, plain: bool, span: Span) -> Node {
    let written = source.text().get(span.start..span.end).unwrap_or_default();
    let verbatim = if written == value {
        Some(span.start)
    } else if written.get(1..written.len().saturating_sub(1)) == Some(&*value) {
        Some(span.start + 1)
    } else {
        None
    };
    Node {
        value: Value::Scalar {
            text: value.into_owned(),
            plain,
            verbatim,
        },
        span,
    }
}

/// Puts a finished node where it belongs: into the innermost open list or mapping, as a key or a value, or at the root.
fn place(stack: &mut [Frame], root: &mut Option<Node>, node: Node, findings: &mut Findings<'_>) {
    match stack.last_mut() {
        None => *root = Some(node),
        Some(Frame::List { items, .. }) => items.push(node),
        Some(Frame::Map { entries, key, .. }) => match key.take() {
            Some((key, key_span)) => entries.push(Entry {
                key,
                key_span,
                node,
            }),
            None => {
                let Value::Scalar { text, .. } = node.value else {
                    findings.at("bad-key", node.span, "a key is a single word");
                    *key = Some((String::new(), node.span));
                    return;
                };
                if let Some(first) = entries.iter().find(|entry| entry.key == text) {
                    let line = findings.source.diagnostic("", first.key_span, "").line;
                    let message = format!("{} is written twice in this mapping", quoted(&text));
                    let found = findings
                        .source
                        .diagnostic("duplicate-key", node.span, message);
                    findings.report(found.hint(format!("the first is in line {line}")));
                }
                *key = Some((text, node.span));
            }
        },
    }
}

/// Behind such a word someone may have written a secret itself, which no diagnostic may repeat.
fn may_be_secret(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let words = [
        "url",
        "passphrase",
        "password",
        "passwd",
        "secret",
        "token",
        "credential",
        "private",
        "auth",
    ];
    words.iter().any(|word| text.contains(word))
        || matches!(&*text, "key" | "pin" | "user_pin" | "userpin")
}

#[cfg(test)]
mod tests {
    use super::reading::FINDINGS_MAX;
    use super::*;

    fn outline(node: &Node) -> String {
        match &node.value {
            Value::Scalar {
                text, plain: true, ..
            } => text.clone(),
            Value::Scalar { text, .. } => format!("{text:?}"),
            Value::List(items) => format!(
                "[{}]",
                items.iter().map(outline).collect::<Vec<_>>().join(" ")
            ),
            Value::Map(entries) => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|e| format!("{}={}", e.key, outline(&e.node)))
                    .collect();
                format!("{{{}}}", entries.join(" "))
            }
        }
    }

    #[track_caller]
    fn reads(text: &str, expected: &str) {
        assert_eq!(
            parse(&Source::new("f", text)).map(|node| outline(&node)),
            Ok(expected.to_owned())
        );
    }

    #[track_caller]
    fn refuses(text: &str, expected: &[(&str, usize, usize)]) {
        let found = parse(&Source::new("f", text))
            .map(|node| outline(&node))
            .expect_err("must be refused");
        let found: Vec<_> = found.iter().map(|d| (d.code, d.line, d.column)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn scalars_are_what_was_written() {
        reads(
            "a: no\nb: 'no'\nc: 0x10\nd: 1e3\ne:\nf: \"\\u0041\"",
            "{a=no b=\"no\" c=0x10 d=1e3 e=~ f=\"A\"}",
        );
        reads("{a: [1, {b: c}], d: []}", "{a=[1 {b=c}] d=[]}");
        reads("at: $..ssn", "{at=$..ssn}");
        reads("at: '$[?@.a == \"x\"]'", "{at=\"$[?@.a == \\\"x\\\"]\"}");
        reads("---\na: b\n...\n", "{a=b}");
        reads("# c\na: |\n  x\n  y\n", "{a=\"x\\ny\\n\"}");
    }

    #[test]
    fn what_may_mean_two_things_is_refused() {
        refuses("a: 1\nb: 2\na: 3", &[("duplicate-key", 3, 1)]);
        refuses("{a: 1, \"a\": 2}", &[("duplicate-key", 1, 8)]);
        refuses(
            "a: &x 1\nb: *x",
            &[("yaml-anchor", 1, 4), ("yaml-alias", 2, 4)],
        );
        refuses("open: *", &[("yaml-syntax", 1, 7)]);
        refuses("open: *all", &[("yaml-alias", 1, 7)]);
        refuses(
            "a: !!str 1\nb: !x {}",
            &[("yaml-tag", 1, 4), ("yaml-tag", 2, 4)],
        );
        refuses("a: 1\n---\nb: 2", &[("yaml-documents", 2, 1)]);
        refuses("? [a, b]\n: c", &[("bad-key", 1, 3)]);
        refuses("? {a: b}\n: c", &[("bad-key", 1, 3)]);
    }

    #[test]
    fn broken_texts_have_a_place() {
        refuses("", &[("empty", 1, 1)]);
        refuses("# only words\n", &[("empty", 1, 1)]);
        for text in [
            "a: [",
            "a: {b",
            "a: \"x",
            "a:\n\tb: c",
            "a: b: c",
            "- a\nb: c",
            "a: @x",
            "%TAG ! x\n---\na",
        ] {
            let found = parse(&Source::new("f", text))
                .map(|n| outline(&n))
                .expect_err(text);
            assert_eq!(found[0].code, "yaml-syntax", "{text}");
        }
    }

    #[test]
    fn size_and_nesting_are_bounded() {
        refuses(
            &format!("a: {}", "x".repeat(TEXT_BYTES_MAX)),
            &[("too-large", 1, 1)],
        );
        for text in [
            "[".repeat(100_000),
            "{a: ".repeat(10_000),
            "- ".repeat(100_000),
        ] {
            let found = parse(&Source::new("f", &text))
                .map(|n| outline(&n))
                .expect_err("too deep");
            assert_eq!(found[0].code, "yaml-syntax");
        }
        let many: String = (0..1000).map(|_| "a: 1\n").collect();
        let found = parse(&Source::new("f", &many))
            .map(|n| outline(&n))
            .expect_err("duplicates");
        assert_eq!(found.len(), FINDINGS_MAX + 1);
    }

    #[test]
    fn offsets_in_scalars() {
        let place = |text: &str, at: usize| {
            let source = Source::new("f", text);
            let node = parse(&source).unwrap();
            let Value::Map(entries) = &node.value else {
                panic!("{text}")
            };
            entries[0].node.span_at(at)
        };
        assert_eq!(place("a: $.b", 2), Span::new(5, 6));
        assert_eq!(place("a: '$.b'", 2), Span::new(6, 7));
        assert_eq!(place("a: \"$.b\"", 9), Span::new(7, 8));
        // With an escape the whole node is meant.
        assert_eq!(place("a: \"$.\\u0062\"", 2), Span::new(3, 13));
    }

    #[test]
    fn words_are_taken_or_reported() {
        let source = Source::new(
            "f",
            "mode: x\nmoed: 1\npassword: hunter2\nreveal: 1\nn: 010",
        );
        let node = parse(&source).unwrap();
        let mut findings = Findings::new(&source);
        let mut fields = findings.fields(&node, "a thing").unwrap();
        let mode = fields.take("mode").unwrap();
        assert_eq!(findings.choice(mode, "mode", &[("a", 1), ("b", 2)]), None);
        let n = fields.take("n").unwrap();
        assert_eq!(findings.integer(n, "n", 0..=100), None);
        fields.not_built(&["reveal", "caller"], &mut findings);
        assert!(fields.require("must", &mut findings).is_none());
        fields.finish(&mut findings);
        let found = findings.finish().unwrap_err();
        let codes: Vec<_> = found.iter().map(|d| d.code).collect();
        assert_eq!(
            codes,
            [
                "missing-word",
                "unknown-value",
                "unknown-word",
                "unknown-word",
                "not-built",
                "bad-number"
            ]
        );
        assert_eq!(found[2].hint.as_deref(), Some("did you mean `mode`?"));
        assert!(found.iter().all(|d| !d.render(false).contains("hunter2")));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[a-c:\\-\\[\\]{}&*!|>'\"#%,?\n\t \u{e9}]{0,40}") {
            let _ = parse(&Source::new("f", &text));
        }
    }
}
