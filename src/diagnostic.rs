//! What is wrong in a text that a person wrote (a policy, settings, a flag), and where: `file:line:column`, the line,
//! a caret below it, and a hint.
//!
//! It never sees traffic: only configuration texts come here. A line that may hold a secret is not shown
//! ([`Diagnostic::without_line`]), and control characters of a text never reach a terminal.

use std::fmt;
use std::sync::Arc;

/// Characters of a line that are shown around the caret.
const LINE_CHARS_MAX: usize = 120;
/// Characters of a written word that a message repeats.
const QUOTED_CHARS_MAX: usize = 60;

/// A text and the name by which its author knows it: a file's path, or a flag.
#[derive(Clone, Debug)]
pub struct Source {
    name: Arc<str>,
    text: Arc<str>,
}

impl Source {
    /// `name`: a path or a flag, as findings show it.
    pub fn new(name: &str, text: &str) -> Source {
        Source {
            name: name.into(),
            text: text.into(),
        }
    }

    /// What findings show before the line's number.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A finding about `span` of this text.
    pub fn diagnostic(
        &self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
    ) -> Diagnostic {
        let start = floor_char(&self.text, span.start);
        let end = floor_char(&self.text, span.end).max(start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..]
            .find('\n')
            .map_or(self.text.len(), |at| start + at);
        let line = self.text[line_start..line_end].trim_end_matches('\r');
        Diagnostic {
            code,
            severity: Severity::Error,
            file: Arc::clone(&self.name),
            line: 1 + self.text[..line_start].matches('\n').count(),
            column: 1 + self.text[line_start..start].chars().count(),
            width: self.text[start..end.min(line_end)]
                .trim_end()
                .chars()
                .count()
                .max(1),
            excerpt: Some(line.to_owned()),
            message: message.into(),
            hint: None,
        }
    }
}

fn floor_char(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A half-open range of bytes in a [`Source`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte behind the last one; `start` for a mere place.
    pub end: usize,
}

impl Span {
    /// Bytes `start..end`; need not be within a text, or at its characters' bounds.
    pub fn new(start: usize, end: usize) -> Span {
        Span { start, end }
    }
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Probably not what was meant; it works as it is written.
    Warning,
    /// It is refused.
    Error,
}

impl Severity {
    /// The word that is shown.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// One finding. `code` is stable and listed in the documentation; message and hint are for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// As in `error[unknown-word]`.
    pub code: &'static str,
    /// How much it weighs.
    pub severity: Severity,
    /// The [`Source`]'s name.
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Characters that the carets underline, at least 1, on this line only.
    pub width: usize,
    /// What is wrong: one line, which may quote words of the text.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    excerpt: Option<String>,
}

impl Diagnostic {
    /// It matters less than an error.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Diagnostic {
        self.severity = severity;
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the hint when there is one.
    #[must_use]
    pub fn maybe_hint(mut self, hint: Option<String>) -> Diagnostic {
        self.hint = hint.or(self.hint);
        self
    }

    /// The line may hold a secret that was written in the wrong place: it is not shown.
    #[must_use]
    pub fn without_line(mut self) -> Diagnostic {
        self.excerpt = None;
        self
    }

    /// Text for a terminal or a log, several lines without a final line break; coloured only where asked.
    pub fn render(&self, colour: bool) -> String {
        let (red, blue, bold, reset) = if colour {
            let alarm = match self.severity {
                Severity::Error => "\x1b[1;31m",
                Severity::Warning => "\x1b[1;33m",
                Severity::Info => "\x1b[1;36m",
            };
            (alarm, "\x1b[1;34m", "\x1b[1m", "\x1b[0m")
        } else {
            ("", "", "", "")
        };
        let mut text = format!(
            "{bold}{}:{}:{}:{reset} {red}{}[{}]{reset}{bold}: {}{reset}",
            printable(&self.file),
            self.line,
            self.column,
            self.severity.word(),
            self.code,
            printable(&self.message)
        );
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        if let Some(line) = &self.excerpt {
            let (shown, before) = crop(line, self.column - 1, self.width);
            let width = self
                .width
                .min(shown.chars().count().saturating_sub(before))
                .max(1);
            text.push_str(&format!(
                "\n{blue}{margin} |{reset}\n{blue}{number} |{reset} {shown}\n{blue}{margin} |{reset} {}{red}{}{reset}",
                " ".repeat(before),
                "^".repeat(width)
            ));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!(
                "\n{blue}{margin} ={reset} hint: {}",
                printable(hint)
            ));
        }
        text
    }

    /// For machines: file, line, column, severity, code, message and hint (or null).
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "file": &*self.file,
            "line": self.line,
            "column": self.column,
            "severity": self.severity.word(),
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
        })
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostic {}

/// The part of `line` around the caret, and how many characters stand before the caret in it.
fn crop(line: &str, column: usize, width: usize) -> (String, usize) {
    let chars: Vec<char> = printable(line).chars().collect();
    if chars.len() <= LINE_CHARS_MAX {
        return (chars.into_iter().collect(), column);
    }
    let lead = LINE_CHARS_MAX.saturating_sub(width.min(LINE_CHARS_MAX / 2)) / 2;
    let from = column.saturating_sub(lead).min(chars.len());
    let to = (from + LINE_CHARS_MAX).min(chars.len());
    let mut shown = String::new();
    if from > 0 {
        shown.push('…');
    }
    shown.extend(&chars[from..to]);
    if to < chars.len() {
        shown.push('…');
    }
    (shown, column - from + usize::from(from > 0))
}

/// `text` with each control, direction or invisible formatting character replaced by one visible character.
pub(crate) fn printable(text: &str) -> String {
    let visible = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}'
        | '\u{feff}' => '\u{fffd}',
        c => c,
    };
    text.chars().map(visible).collect()
}

/// A written word for a message: in backquotes, without control characters, cut after 60 characters.
pub fn quoted(word: &str) -> String {
    let mut text: String = printable(word).chars().take(QUOTED_CHARS_MAX).collect();
    if word.chars().count() > QUOTED_CHARS_MAX {
        text.push('…');
    }
    format!("`{text}`")
}

/// "did you mean …?" when one of the `known` words is near enough to `word`.
pub fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    let word: Vec<char> = word.to_lowercase().chars().take(64).collect();
    let near = known
        .into_iter()
        .map(|candidate| {
            (
                distance(&word, &candidate.to_lowercase().chars().collect::<Vec<_>>()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| {
            *distance <= (candidate.chars().count().max(word.len()) / 3).max(1)
        })
        .min_by_key(|(distance, _)| *distance)?;
    // Of a one-letter word everything is one letter away.
    (near.0 < word.len()).then(|| format!("did you mean {}?", quoted(near.1)))
}

/// Insertions, deletions, substitutions and swaps of neighbours between two words (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let substituted = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = substituted.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, start: usize, end: usize, expected: &str) {
        let source = Source::new("f.yaml", text);
        let found = source
            .diagnostic("bad", Span::new(start, end), "wrong")
            .hint("do this")
            .render(false);
        assert_eq!(found, expected);
    }

    #[test]
    fn points_at_the_place() {
        check(
            "a: b\n",
            3,
            4,
            "f.yaml:1:4: error[bad]: wrong\n  |\n1 | a: b\n  |    ^\n  = hint: do this",
        );
        check(
            "a\nbb: cc\nd",
            2,
            4,
            "f.yaml:2:1: error[bad]: wrong\n  |\n2 | bb: cc\n  | ^^\n  = hint: do this",
        );
        // Columns count characters, not bytes; a span over two lines is underlined on its first.
        check(
            "é: x\ny",
            4,
            7,
            "f.yaml:1:4: error[bad]: wrong\n  |\n1 | é: x\n  |    ^\n  = hint: do this",
        );
        // The end of the text, beyond it, and in the middle of a character.
        check(
            "",
            0,
            0,
            "f.yaml:1:1: error[bad]: wrong\n  |\n1 | \n  | ^\n  = hint: do this",
        );
        check(
            "a\n",
            99,
            100,
            "f.yaml:2:1: error[bad]: wrong\n  |\n2 | \n  | ^\n  = hint: do this",
        );
        check(
            "é",
            1,
            1,
            "f.yaml:1:1: error[bad]: wrong\n  |\n1 | é\n  | ^\n  = hint: do this",
        );
        check(
            "a: b\r\nc",
            3,
            4,
            "f.yaml:1:4: error[bad]: wrong\n  |\n1 | a: b\n  |    ^\n  = hint: do this",
        );
    }

    #[test]
    fn long_lines_are_cropped_around_the_caret() {
        let text = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let shown = Source::new("f", &text)
            .diagnostic("bad", Span::new(500, 501), "w")
            .render(false);
        let lines: Vec<&str> = shown.lines().collect();
        let caret = lines[3].chars().position(|c| c == '^').unwrap();
        assert_eq!(lines[2].chars().nth(caret), Some('X'), "{shown}");
        assert!(lines[2].chars().count() < 140, "{shown}");
        let whole = Source::new("f", &text)
            .diagnostic("bad", Span::new(0, 1001), "w")
            .render(false);
        assert!(
            whole.lines().all(|line| line.chars().count() < 140),
            "{whole}"
        );
    }

    #[test]
    fn a_terminal_sees_no_control_characters_and_no_withheld_line() {
        let source = Source::new("f\x1b[2J", "k: \x1b[31mred \u{202e}x");
        let found = source.diagnostic("bad", Span::new(0, 1), "got \x1b[1m");
        assert!(!found.render(false).contains(['\x1b', '\u{202e}']));
        assert!(found.render(true).contains("\x1b[1;31merror[bad]"));
        assert!(!found.without_line().render(false).contains("red"));
    }

    #[test]
    fn as_json() {
        let found = Source::new("f", "a: b").diagnostic("bad", Span::new(3, 4), "w\"");
        assert_eq!(
            found.to_json().to_string(),
            r#"{"code":"bad","column":4,"file":"f","hint":null,"line":1,"message":"w\"","severity":"error"}"#
        );
    }

    #[test]
    fn suggests_near_words_only() {
        let known = ["request", "response", "rules", "mode", "at"];
        assert_eq!(
            did_you_mean("reqeust", known),
            Some("did you mean `request`?".to_owned())
        );
        assert_eq!(
            did_you_mean("Mode", known),
            Some("did you mean `mode`?".to_owned())
        );
        assert_eq!(
            did_you_mean("mod", known),
            Some("did you mean `mode`?".to_owned())
        );
        assert_eq!(
            did_you_mean("rule", known),
            Some("did you mean `rules`?".to_owned())
        );
        assert_eq!(did_you_mean("xyz", known), None);
        assert_eq!(did_you_mean("x", known), None);
        assert_eq!(did_you_mean("", known), None);
        assert_eq!(did_you_mean(&"m".repeat(10_000), known), None);
    }

    #[test]
    fn quoted_words_are_short() {
        assert_eq!(quoted("a\nb"), "`a\u{fffd}b`");
        assert_eq!(
            quoted(&"x".repeat(99)).chars().count(),
            QUOTED_CHARS_MAX + 3
        );
    }
}
