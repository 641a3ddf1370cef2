//! A text laid out evenly: two spaces a level, no spaces at the ends of lines, no more than one empty line. Comments, quotes and
//! everything within a line stay as they are, and so does the meaning, which is read again to see that it does.

use super::{Node, Value, parse};
use crate::diagnostic::{Diagnostic, Source, Span};

/// Spaces of one level.
const LEVEL: usize = 2;

/// What becomes of each line of a text, without line ends; `None`: it goes.
pub(crate) type Lines = Vec<Option<String>>;

/// How often a text is laid out anew before it is given up: what goes may show more that goes.
const ROUNDS_MAX: usize = 4;

/// Lays a text out, for good: laid out again, it stays.
///
/// Errors: it is not one that can be read, or it would come to mean something else, which is not done.
pub(crate) fn lay_out(source: &Source) -> Result<Lines, Vec<Diagnostic>> {
    let mut lines = once(source)?;
    for _ in 0..ROUNDS_MAX {
        let text = joined(&lines);
        let again = once(&Source::new(source.name(), &text))?;
        if joined(&again) == text {
            return Ok(lines);
        }
        let left = lines.iter_mut().filter(|line| line.is_some());
        for (line, then) in left.zip(again) {
            *line = then;
        }
    }
    Err(vec![risky(source, Span::default())])
}

fn once(source: &Source) -> Result<Lines, Vec<Diagnostic>> {
    let root = parse(source)?;
    let text = source.text();
    let mut sheet = Sheet::new(text);
    sheet.node(&root, 0);
    let lines = sheet.lines();
    let new = joined(&lines);
    let read = Source::new(source.name(), &new);
    let same = parse(&read).is_ok_and(|again| means_the_same(&root, &again));
    if same && comments(text) == comments(&new) {
        return Ok(lines);
    }
    Err(vec![risky(source, root.span)])
}

fn risky(source: &Source, span: Span) -> Diagnostic {
    let found = source.diagnostic(
        "not-formatted",
        span,
        "this cannot be laid out without a risk to its meaning, and stays as it is",
    );
    let hint = "indent it by hand, two spaces a level; block texts (`|`, `>`) with an indent of their own are not moved";
    found.without_line().hint(hint)
}

/// The text of such lines.
pub(crate) fn joined(lines: &Lines) -> String {
    let mut text = String::new();
    for line in lines.iter().flatten() {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn means_the_same(one: &Node, other: &Node) -> bool {
    match (&one.value, &other.value) {
        (
            Value::Scalar { text, plain, .. },
            Value::Scalar {
                text: other,
                plain: other_plain,
                ..
            },
        ) => text == other && plain == other_plain,
        (Value::List(ones), Value::List(others)) => {
            ones.len() == others.len() && ones.iter().zip(others).all(|(a, b)| means_the_same(a, b))
        }
        (Value::Map(ones), Value::Map(others)) => {
            let same = ones.iter().zip(others);
            ones.len() == others.len()
                && same
                    .into_iter()
                    .all(|(a, b)| a.key == b.key && means_the_same(&a.node, &b.node))
        }
        _ => false,
    }
}

/// Everything behind a `#`, which is a comment or something that looks like one: none of it may be lost.
fn comments(text: &str) -> Vec<&str> {
    let behind = |line| str::split_once(line, '#').map(|(_, behind)| behind.trim_end());
    text.lines().filter_map(behind).collect()
}

/// The lines of a text, and what is known of each.
struct Sheet<'t> {
    text: &'t str,
    /// Where each line begins.
    starts: Vec<usize>,
    /// The column at which a line that begins a key or an item is to begin.
    wanted: Vec<Option<usize>>,
    /// Spaces behind an item's dash that go.
    gaps: Vec<Option<(usize, usize)>>,
    /// Within a text of several lines: nothing but its place changes.
    within: Vec<bool>,
}

impl<'t> Sheet<'t> {
    fn new(text: &'t str) -> Sheet<'t> {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        let mut starts: Vec<usize> = std::iter::once(0).chain(breaks).collect();
        if starts.last() == Some(&text.len()) {
            starts.pop();
        }
        let count = starts.len();
        Sheet {
            text,
            starts,
            wanted: vec![None; count],
            gaps: vec![None; count],
            within: vec![false; count],
        }
    }

    fn line_of(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at).max(1) - 1
    }

    /// What stands before a place in its line.
    fn before(&self, at: usize) -> &'t str {
        self.text
            .get(self.starts[self.line_of(at)]..at)
            .unwrap_or_default()
    }

    /// The thing at this place is to begin at a column, if its line begins with it.
    fn want(&mut self, at: usize, column: usize) {
        if self.before(at).trim_start_matches(' ').is_empty() {
            let line = self.line_of(at);
            self.wanted[line] = Some(column);
        }
    }

    /// A node, the keys or dashes of which begin at a column.
    fn node(&mut self, node: &Node, column: usize) {
        let flow = self.is_flow(node);
        match &node.value {
            Value::Scalar { plain, .. } => {
                let first = node.span.start;
                let last = self.line_of(node.span.end.saturating_sub(1).max(first));
                // A block text begins behind its first line, if there is any of it; a text in quotes, and a plain one, where they are opened.
                let opened = self.text.get(first..).and_then(|text| text.chars().next());
                let block = !plain && !matches!(opened, Some('"' | '\'' | '|' | '>'));
                let alone = self.before(first).trim_start_matches(' ').is_empty();
                let from = self.line_of(first) + usize::from(!alone);
                if from <= last && (block || self.line_of(first) < last) {
                    self.within[from..=last].fill(true);
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    if !flow {
                        self.want(entry.key_span.start, column);
                    }
                    self.node(&entry.node, column + LEVEL);
                }
            }
            Value::List(items) => {
                for item in items {
                    if !flow {
                        self.item(item, column);
                    }
                    self.node(item, column + LEVEL);
                }
            }
        }
    }

    fn is_flow(&self, node: &Node) -> bool {
        let text = self.text.get(node.span.start..);
        text.is_some_and(|text| text.starts_with(['[', '{']))
    }

    /// The dash before an item.
    fn item(&mut self, item: &Node, column: usize) {
        let flow = self.is_flow(item);
        let start = match &item.value {
            Value::Map(entries) if !entries.is_empty() && !flow => entries[0].key_span.start,
            _ => item.span.start,
        };
        let before = self.before(start);
        let Some(dash) = before.rfind('-') else {
            return;
        };
        let line = self.line_of(start);
        let gap = &before[dash + 1..];
        if before[..dash].trim_start_matches(' ').is_empty() && gap.bytes().all(|b| b == b' ') {
            self.wanted[line] = Some(column);
            if !gap.is_empty() {
                self.gaps[line] = Some((dash + 2, dash + 1 + gap.len()));
            }
        }
    }

    fn lines(&self) -> Lines {
        let mut lines: Lines = Vec::new();
        let mut moved = 0_isize;
        // An empty line at the beginning goes, too.
        let mut empty = true;
        for (at, start) in self.starts.iter().enumerate() {
            let end = self.starts.get(at + 1).copied();
            let raw = &self.text[*start..end.unwrap_or(self.text.len())];
            let raw = raw.trim_end_matches(['\n', '\r']);
            let line = match self.within[at] {
                true => raw,
                false => raw.trim_end_matches([' ', '\t']),
            };
            if line.trim().is_empty() && !self.within[at] {
                lines.push((!empty).then(String::new));
                empty = true;
                continue;
            }
            empty = false;
            let indent = line.len() - line.trim_start_matches(' ').len();
            let column = match self.wanted[at] {
                Some(wanted) => {
                    moved = wanted as isize - indent as isize;
                    wanted
                }
                None if line.trim_start().starts_with('#') && !self.within[at] => {
                    self.of_comment(at, indent, moved)
                }
                None => indent.saturating_add_signed(moved),
            };
            let mut rest = line[indent..].to_owned();
            if let Some((from, to)) = self.gaps[at].filter(|(_, to)| *to <= line.len()) {
                rest.replace_range(from - indent..to - indent, "");
            }
            let blank = rest.is_empty();
            lines.push(Some(if blank {
                rest
            } else {
                format!("{}{rest}", " ".repeat(column))
            }));
        }
        while let Some(last) = lines.iter_mut().rfind(|line| line.is_some()) {
            if last.as_ref().is_some_and(|line| !line.is_empty()) {
                break;
            }
            *last = None;
        }
        lines
    }

    /// A comment goes with what follows or precedes it at its own column, or else with what precedes it.
    fn of_comment(&self, at: usize, indent: usize, moved: isize) -> usize {
        let column = |line: usize| {
            let text = &self.text[self.starts[line]..];
            text.len() - text.trim_start_matches(' ').len()
        };
        let anchored = |line: &usize| self.wanted[*line].is_some() && column(*line) == indent;
        let next = (at + 1..self.starts.len()).find(|line| self.wanted[*line].is_some());
        let next = next.filter(|line| column(*line) == indent);
        match next.or_else(|| (0..at).rev().find(anchored)) {
            Some(line) => self.wanted[line].unwrap_or(indent),
            None => indent.saturating_add_signed(moved),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let laid = |text: &str| lay_out(&Source::new("a.yaml", text)).map(|lines| joined(&lines));
        assert_eq!(laid(text).as_deref(), Ok(expected), "{text}");
        assert_eq!(laid(expected).as_deref(), Ok(expected), "twice: {text}");
    }

    #[test]
    fn levels_are_two_spaces() {
        check(
            "a:\n    b: 1\n    c:\n     - 2\n     -   d: 3\n         e: 4\n",
            "a:\n  b: 1\n  c:\n    - 2\n    - d: 3\n      e: 4\n",
        );
        check(
            "a:\n- b\n- c: 1\n  d: 2\n",
            "a:\n  - b\n  - c: 1\n    d: 2\n",
        );
        check(
            "a:\n    {b: 1,\n     c: 2}\n",
            "a:\n    {b: 1,\n     c: 2}\n",
        );
        check(
            "a:\n   - {b: [1,\n         2]}\n",
            "a:\n  - {b: [1,\n        2]}\n",
        );
    }

    #[test]
    fn ends_and_empty_lines() {
        check("\n\na: 1  \r\n\n\n\nb: 2\t\n\n\n", "a: 1\n\nb: 2\n");
        check("a: 1", "a: 1\n");
    }

    #[test]
    fn comments_stay_and_go_along() {
        check(
            "# top\na: # here\n    # of b\n    b: 'x # no comment'   # behind\n    # at the end of a\n# of c\nc:\n - 1\n # - 2\n",
            "# top\na: # here\n  # of b\n  b: 'x # no comment'   # behind\n  # at the end of a\n# of c\nc:\n  - 1\n  # - 2\n",
        );
    }

    #[test]
    fn texts_of_several_lines_keep_their_own() {
        check(
            "a:\n    b: |\n        x  \n\n\n          y\n    c: 1\n",
            "a:\n  b: |\n      x  \n\n\n        y\n  c: 1\n",
        );
        check("a: |-  \n   x \n", "a: |-\n   x \n");
        check("a: |\n   x \nb: 1\n", "a: |\n   x \nb: 1\n");
        // Where an empty one ends shows only when the lines behind it are gone.
        check("|- \n\r\n", "|-\n");
        check("a:\n    b: \"x\n\n      y\"\n", "a:\n  b: \"x\n\n    y\"\n");
    }

    #[test]
    fn what_would_mean_something_else_is_not_touched() {
        let refused = |text: &str| lay_out(&Source::new("a.yaml", text)).is_err();
        assert!(refused("a: ["));
        assert!(refused("a: 1\na: 2\n"));
    }

    mod any {
        use super::*;
        use proptest::prelude::*;

        proptest! {
            /// Whatever is accepted means the same afterwards, and is laid out for good.
            #[test]
            fn stays_what_it_is(text in "([a-c]: ?|- |  |    |\n|# x|\\{a: b\\}|'c'|\"d\"|\\||\\[1,\n2\\]|\r\n){0,24}") {
                if let Ok(lines) = lay_out(&Source::new("a", &text)) {
                    let laid = joined(&lines);
                    let again = lay_out(&Source::new("a", &laid)).map(|lines| joined(&lines));
                    prop_assert_eq!(again.as_deref(), Ok(laid.as_str()));
                }
            }
        }
    }
}
