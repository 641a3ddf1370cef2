//! Nodes read as what a word wants, with everything that is wrong collected on the way.

use super::{Entry, Marked, Node, Value, may_be_secret};
use crate::diagnostic::{Diagnostic, Source, Span, did_you_mean, quoted};

/// Further findings of one text are counted, not shown.
pub(super) const FINDINGS_MAX: usize = 50;

/// Reads nodes as what a word wants, and collects what is wrong with them.
pub(crate) struct Findings<'s> {
    pub source: &'s Source,
    found: Vec<Diagnostic>,
    beyond: usize,
    /// Places where someone may have written a secret.
    withheld: Vec<Span>,
}

impl<'s> Findings<'s> {
    pub fn new(source: &'s Source) -> Findings<'s> {
        Findings {
            source,
            found: Vec::new(),
            beyond: 0,
            withheld: Vec::new(),
        }
    }

    pub fn report(&mut self, diagnostic: Diagnostic) {
        if self.found.len() < FINDINGS_MAX {
            self.found.push(diagnostic)
        } else {
            self.beyond += 1
        }
    }

    pub fn at(&mut self, code: &'static str, span: Span, message: impl Into<String>) {
        self.report(self.source.diagnostic(code, span, message));
    }

    pub fn at_with_hint(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.report(self.source.diagnostic(code, span, message).hint(hint));
    }

    /// No finding shows a line of `span`.
    pub fn withhold(&mut self, span: Span) {
        self.withheld.push(span);
    }

    /// How many there are so far: more of them after reading something says that it is not sound.
    pub fn count(&self) -> usize {
        self.found.len() + self.beyond
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Nothing found, or all findings in the order of their places.
    pub fn finish(self) -> Result<(), Vec<Diagnostic>> {
        let line_at = |at: usize| self.source.diagnostic("", Span::new(at, at), "").line;
        let withheld: Vec<_> = self
            .withheld
            .iter()
            .map(|span| line_at(span.start)..=line_at(span.end))
            .collect();
        let show = |diagnostic: Diagnostic| {
            let secret = withheld
                .iter()
                .any(|lines| lines.contains(&diagnostic.line));
            if secret && *diagnostic.file == *self.source.name() {
                diagnostic.without_line()
            } else {
                diagnostic
            }
        };
        let mut found: Vec<Diagnostic> = self.found.into_iter().map(show).collect();
        if found.is_empty() {
            return Ok(());
        }
        found.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
        if self.beyond > 0 {
            let message = format!("{} more findings are not shown", self.beyond);
            found.push(
                self.source
                    .diagnostic("too-many-findings", Span::default(), message),
            );
        }
        Err(found)
    }

    fn wrong_kind(&mut self, node: &Node, what: &str, wanted: &str) {
        self.at(
            "wrong-type",
            node.span,
            format!("{what} is {wanted}, and here stands {}", node.kind()),
        );
    }

    /// A mapping of known words.
    pub fn fields<'n>(&mut self, node: &'n Node, what: &'static str) -> Option<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            self.wrong_kind(node, what, "a mapping");
            return None;
        };
        Some(Fields {
            what,
            span: node.span,
            left: entries.iter().collect(),
            known: Vec::new(),
        })
    }

    /// A mapping from names that the author chose.
    pub fn entries<'n>(&mut self, node: &'n Node, what: &str) -> &'n [Entry] {
        match &node.value {
            Value::Map(entries) => entries,
            _ => {
                self.wrong_kind(node, what, "a mapping");
                &[]
            }
        }
    }

    pub fn list<'n>(&mut self, node: &'n Node, what: &str) -> &'n [Node] {
        match &node.value {
            Value::List(items) => items,
            _ => {
                self.wrong_kind(node, what, "a list");
                &[]
            }
        }
    }

    /// A text as written; nothing and collections are no text.
    pub fn text(&mut self, node: &Node, what: &str) -> Option<Marked<String>> {
        match &node.value {
            Value::Scalar { text, .. } if !node.is_null() => Some(Marked {
                value: text.clone(),
                span: node.span,
            }),
            _ => {
                self.wrong_kind(node, what, "a text");
                None
            }
        }
    }

    /// One word of a few.
    pub fn choice<T: Copy>(
        &mut self,
        node: &Node,
        what: &str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(node, what)?;
        if let Some((_, chosen)) = choices.iter().find(|(word, _)| *word == text.value) {
            return Some(*chosen);
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let hint = did_you_mean(&text.value, words.iter().copied());
        let one_of = if words.len() == 1 { "" } else { "one of " };
        let message = format!(
            "{what} is {one_of}{}; {} is not",
            words.join(", "),
            quoted(&text.value)
        );
        self.report(
            self.source
                .diagnostic("unknown-value", text.span, message)
                .maybe_hint(hint),
        );
        None
    }

    /// `true` or `false`, and no other spelling.
    pub fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        self.choice(node, what, &[("true", true), ("false", false)])
    }

    /// A whole number in decimal digits, without sign or leading zeros.
    pub fn integer(
        &mut self,
        node: &Node,
        what: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let text = self.text(node, what)?;
        let digits = text.value.bytes().all(|byte| byte.is_ascii_digit());
        let number = text
            .value
            .parse::<u64>()
            .ok()
            .filter(|number| digits && number.to_string() == text.value);
        if let Some(number) = number.filter(|number| range.contains(number)) {
            return Some(number);
        }
        let message = format!(
            "{what} is a whole number from {} to {}",
            range.start(),
            range.end()
        );
        self.at("bad-number", text.span, message);
        None
    }
}

/// The words of one mapping. Every word is taken, or reported by [`Fields::finish`].
pub(crate) struct Fields<'n> {
    what: &'static str,
    pub span: Span,
    left: Vec<&'n Entry>,
    known: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    pub fn take_entry(&mut self, word: &'static str) -> Option<&'n Entry> {
        self.known.push(word);
        let at = self.left.iter().position(|entry| entry.key == word)?;
        Some(self.left.remove(at))
    }

    pub fn take(&mut self, word: &'static str) -> Option<&'n Node> {
        self.take_entry(word).map(|entry| &entry.node)
    }

    /// The word must be there.
    pub fn require(&mut self, word: &'static str, findings: &mut Findings<'_>) -> Option<&'n Node> {
        let node = self.take(word);
        if node.is_none() {
            findings.at(
                "missing-word",
                self.span,
                format!("{} needs `{word}`", self.what),
            );
        }
        node
    }

    /// Words of the language whose feature this version does not have: never silently ignored.
    pub fn not_built(&mut self, words: &[&'static str], findings: &mut Findings<'_>) {
        for word in words {
            // Not among the suggestions: nobody is led to a word that is refused.
            let Some(at) = self.left.iter().position(|entry| entry.key == *word) else {
                continue;
            };
            let entry = self.left.remove(at);
            not_built(
                findings,
                entry.key_span,
                &format!("`{word}` in {}", self.what),
            );
        }
    }

    /// A word that exists, at another place.
    pub fn misplaced(&mut self, word: &str, hint: &str, findings: &mut Findings<'_>) {
        let Some(at) = self.left.iter().position(|entry| entry.key == word) else {
            return;
        };
        let entry = self.left.remove(at);
        findings.at_with_hint(
            "misplaced-word",
            entry.key_span,
            format!("`{word}` has no place in {}", self.what),
            hint,
        );
        if may_be_secret(word) {
            findings.withhold(Span::new(entry.key_span.start, entry.node.span.end));
        }
    }

    pub fn finish(self, findings: &mut Findings<'_>) {
        for entry in self.left {
            let message = format!("unknown word {} in {}", quoted(&entry.key), self.what);
            let hint = did_you_mean(&entry.key, self.known.iter().copied())
                .unwrap_or_else(|| format!("known here: {}", self.known.join(", ")));
            let found = findings
                .source
                .diagnostic("unknown-word", entry.key_span, message)
                .hint(hint);
            findings.report(found);
            if may_be_secret(&entry.key) {
                findings.withhold(Span::new(entry.key_span.start, entry.node.span.end));
            }
        }
    }
}

/// The finding about a word or value whose feature is not in this version.
pub(crate) fn not_built(findings: &mut Findings<'_>, span: Span, what: &str) {
    findings.at_with_hint(
        "not-built",
        span,
        format!("{what} is not built yet in this version"),
        "remove it for now",
    );
}
