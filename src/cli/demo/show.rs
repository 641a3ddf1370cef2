//! The picture of one exchange: what the application sent beside what the upstream saw, and what came back.
//!
//! JSON is laid out anew and not changed: strings and numbers are shown as they were written. Control characters never
//! reach the terminal.

use super::api::Seen;
use super::message::Message;
use super::tap::Exchange;
use std::fmt::Write as _;

/// Columns of the left side at most; wider documents are shown one above the other.
const LEFT_MAX: usize = 64;
/// Lines of one document.
const LINES_MAX: usize = 200;
/// Nesting that is shown by indentation.
const DEPTH_MAX: usize = 16;
/// Characters of a token's beginning and end that are shown where it is shortened.
const TOKEN_ENDS: (usize, usize) = (14, 5);

/// How it is drawn.
pub struct Show {
    /// With colours.
    pub colour: bool,
    /// Tokens are not shortened.
    pub whole: bool,
}

/// One column: a title and the lines of a document.
struct Side {
    title: String,
    lines: Vec<String>,
}

impl Show {
    /// One exchange, with line breaks at its end.
    pub fn draw(&self, number: u64, exchange: &Exchange, seen: Option<&Seen>) -> String {
        let Exchange { request, answer } = exchange;
        let (bold, dim, reset) = self.pick("\x1b[1m", "\x1b[2m", "\x1b[0m");
        let what = printable(&format!("{} {}", request.first(), request.second()));
        let mut text = format!(
            "{bold}── {number}. {what} {reset}{dim}{}{reset}\n",
            "─".repeat(60_usize.saturating_sub(what.len()))
        );
        let sent = self.side(
            "the application sent".to_owned(),
            &request.body,
            request.cut,
        );
        let saw = match seen {
            Some(seen) => self.side("the upstream saw".to_owned(), &seen.request, false),
            None => Side {
                title: "the upstream saw".to_owned(),
                lines: vec!["(nothing: the agent refused)".to_owned()],
            },
        };
        // Of most GETs there is nothing to see.
        if !(request.body.is_empty() && seen.is_some_and(|seen| seen.request.is_empty())) {
            self.beside(&mut text, &sent, &saw);
        }
        let got = self.side(
            format!("the application got: {}", status(answer)),
            &answer.body,
            answer.cut,
        );
        match seen {
            Some(seen) => {
                let answered = self.side(
                    format!("the upstream answered: {}", seen.status),
                    &seen.answer,
                    false,
                );
                self.beside(&mut text, &got, &answered);
            }
            None => self.alone(&mut text, &got, "\x1b[33m"),
        }
        if let Some(result) = answer.field("fieldveil-result") {
            let _ = writeln!(
                text,
                "  {dim}Fieldveil-Result: {}{reset}",
                printable(result)
            );
        }
        text.push('\n');
        text
    }

    fn pick(
        &self,
        bold: &'static str,
        dim: &'static str,
        reset: &'static str,
    ) -> (&'static str, &'static str, &'static str) {
        if self.colour {
            (bold, dim, reset)
        } else {
            ("", "", "")
        }
    }

    fn side(&self, title: String, body: &[u8], cut: bool) -> Side {
        let text = String::from_utf8_lossy(body);
        let mut lines: Vec<String> = layout(text.trim_end())
            .iter()
            .map(|line| printable(line))
            .map(|line| if self.whole { line } else { shortened(&line) })
            .collect();
        if lines.len() > LINES_MAX {
            lines.truncate(LINES_MAX);
            lines.push("…".to_owned());
        } else if cut {
            lines.push("… (cut off)".to_owned());
        }
        if body.is_empty() {
            lines = vec!["(no body)".to_owned()];
        }
        Side { title, lines }
    }

    /// Left and right, line by line; where they differ the right side stands out.
    fn beside(&self, text: &mut String, left: &Side, right: &Side) {
        let columns = |line: &String| line.chars().count();
        let width = left
            .lines
            .iter()
            .chain([&left.title])
            .map(columns)
            .max()
            .unwrap_or(0);
        if width > LEFT_MAX {
            self.alone(text, left, "\x1b[33m");
            return self.alone(text, right, "\x1b[32m");
        }
        let (bold, dim, reset) = self.pick("\x1b[1m", "\x1b[2m", "\x1b[0m");
        let (yellow, green, _) = self.pick("\x1b[33m", "\x1b[32m", "");
        let pad = |line: &str| " ".repeat(width - line.chars().count());
        let _ = writeln!(
            text,
            "  {bold}{}{reset}{} {dim}│{reset} {bold}{}{reset}",
            left.title,
            pad(&left.title),
            right.title
        );
        for at in 0..left.lines.len().max(right.lines.len()) {
            let line = |side: &Side| side.lines.get(at).cloned().unwrap_or_default();
            let (one, other) = (line(left), line(right));
            let (from, to, end) = if one == other {
                ("", "", "")
            } else {
                (yellow, green, reset)
            };
            let _ = writeln!(
                text,
                "  {from}{one}{end}{} {dim}│{reset} {to}{other}{end}",
                pad(&one)
            );
        }
    }

    fn alone(&self, text: &mut String, side: &Side, colour: &'static str) {
        let (bold, colour, reset) = self.pick("\x1b[1m", colour, "\x1b[0m");
        let _ = writeln!(text, "  {bold}{}{reset}", side.title);
        for line in &side.lines {
            let _ = writeln!(text, "  {colour}{line}{reset}");
        }
    }
}

fn status(answer: &Message) -> String {
    printable(answer.second())
}

/// Without characters that do something to a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// JSON with a line for each member; of anything else, its own lines.
fn layout(text: &str) -> Vec<String> {
    if !text.starts_with(['{', '[']) {
        return text.lines().map(str::to_owned).collect();
    }
    let mut lines = Vec::new();
    let (mut line, mut depth, mut chars) = (String::new(), 0_usize, text.chars().peekable());
    let mut start = |line: &mut String, depth: usize| {
        lines.push(std::mem::take(line));
        line.push_str(&"  ".repeat(depth.min(DEPTH_MAX)));
    };
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                line.push(c);
                let mut escaped = false;
                for c in chars.by_ref() {
                    line.push(c);
                    if c == '"' && !escaped {
                        break;
                    }
                    escaped = c == '\\' && !escaped;
                }
            }
            '{' | '[' => {
                line.push(c);
                while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
                match chars.next_if(|c| matches!(c, '}' | ']')) {
                    Some(end) => line.push(end),
                    None => {
                        depth += 1;
                        start(&mut line, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                start(&mut line, depth);
                line.push(c);
            }
            ',' => {
                line.push(c);
                start(&mut line, depth);
            }
            ':' => line.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => line.push(c),
        }
    }
    lines.push(line);
    lines
}

/// Tokens with their middle left out.
fn shortened(line: &str) -> String {
    let mut short = String::new();
    let mut rest = line;
    while let Some(start) = rest.find("fv1~") {
        let Some(length) = rest[start + 4..].find('~').map(|end| end + 5) else {
            break;
        };
        let token = &rest[start..start + length];
        short.push_str(&rest[..start]);
        let (head, tail) = TOKEN_ENDS;
        // Tokens are ASCII; what only looks like one is left alone.
        if token.is_ascii() && length > head + tail + 1 {
            short.push_str(&token[..head]);
            short.push('…');
            short.push_str(&token[length - tail..]);
        } else {
            short.push_str(token);
        }
        rest = &rest[start + length..];
    }
    short + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(layout(text), expected);
    }

    #[test]
    fn json_is_laid_out_and_not_changed() {
        check("{\"a\":1}", &["{", "  \"a\": 1", "}"]);
        check(" not json\nat all", &[" not json", "at all"]);
        check(
            r#"{"a" : [ 1.50,{} , []],"b\"{":"x,\\"}"#,
            &[
                "{",
                "  \"a\": [",
                "    1.50,",
                "    {},",
                "    []",
                "  ],",
                r#"  "b\"{": "x,\\""#,
                "}",
            ],
        );
        check("[1", &["[", "  1"]);
        check("]", &["]"]);
        check("", &[]);
    }

    #[test]
    fn deep_documents_have_an_end() {
        let lines = layout(&"[".repeat(10_000));
        assert!(lines.iter().all(|line| line.len() <= 2 * DEPTH_MAX + 1));
    }

    #[test]
    fn tokens_are_shortened_and_nothing_else() {
        assert_eq!(
            shortened("\"fv1~AQHvpf9-ABCDEFGHIJKLMNOPQRSTUVWXYZ~\","),
            "\"fv1~AQHvpf9-AB…WXYZ~\","
        );
        assert_eq!(shortened("fv1~short~"), "fv1~short~");
        assert_eq!(shortened("fv1~no end"), "fv1~no end");
        assert_eq!(
            shortened("é fv1~ééééééééééééééééééééééé~ é"),
            "é fv1~ééééééééééééééééééééééé~ é"
        );
        assert_eq!(shortened("plain"), "plain");
    }

    fn exchange(body: &str, answer: &str) -> Exchange {
        let message = |head: &str, body: &str| Message {
            head: head.to_owned(),
            body: body.into(),
            cut: false,
        };
        Exchange {
            request: message("POST /orders HTTP/1.1\r\nHost: x", body),
            answer: message(
                "HTTP/1.1 201 Created\r\nFieldveil-Result: sealed=1, opened=1",
                answer,
            ),
        }
    }

    #[test]
    fn two_columns() {
        let show = Show {
            colour: false,
            whole: true,
        };
        let seen = Seen {
            request: "{\"ssn\":\"fv1~A~\"}".into(),
            status: 201,
            answer: "{\"ssn\":\"fv1~A~\"}".into(),
        };
        let drawn = show.draw(1, &exchange("{\"ssn\":1}", "{\"ssn\":1}"), Some(&seen));
        let expected = "  the application sent │ the upstream saw
  {                    │ {
    \"ssn\": 1           │   \"ssn\": \"fv1~A~\"
  }                    │ }
  the application got: 201 │ the upstream answered: 201
  {                        │ {
    \"ssn\": 1               │   \"ssn\": \"fv1~A~\"
  }                        │ }
  Fieldveil-Result: sealed=1, opened=1

";
        let (title, rest) = drawn.split_once('\n').unwrap();
        assert!(title.starts_with("── 1. POST /orders ──"), "{title}");
        assert_eq!(rest, expected);
    }

    #[test]
    fn a_terminal_is_not_played_with() {
        let show = Show {
            colour: false,
            whole: false,
        };
        let drawn = show.draw(1, &exchange("{\"a\":\"\x1b[2J\u{9b}2J\"}", "\x07"), None);
        assert!(!drawn.contains(['\x1b', '\x07', '\u{9b}']), "{drawn:?}");
        assert!(drawn.contains("(nothing: the agent refused)"));
        let coloured = Show {
            colour: true,
            whole: false,
        }
        .draw(1, &exchange("{}", "{}"), None);
        assert!(coloured.contains("\x1b[1m") && coloured.ends_with("\n\n"));
    }
}
