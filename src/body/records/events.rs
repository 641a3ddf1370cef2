//! One server-sent event: the text that its `data` lines hold together, and the event with another one.

use std::borrow::Cow;
use std::ops::Range;

/// The `data` of an event.
pub struct Data<'e> {
    event: &'e [u8],
    /// Its lines of `data`.
    lines: Vec<Line>,
    foreign: Option<usize>,
}

/// One line, in the event.
struct Line {
    /// With its end.
    all: Range<usize>,
    /// What is said.
    value: Range<usize>,
}

impl<'e> Data<'e> {
    /// Of an event as it came.
    pub fn of(event: &'e [u8]) -> Data<'e> {
        let mut lines = Vec::new();
        let mut foreign = None;
        let mut at = 0;
        while at < event.len() {
            let length = event[at..].iter().position(|b| matches!(b, b'\r' | b'\n'));
            let end = length.map_or(event.len(), |length| at + length);
            let next = match &event[end..] {
                [b'\r', b'\n', ..] => end + 2,
                [] => end,
                _ => end + 1,
            };
            let line = &event[at..end];
            let value = match line.strip_prefix(b"data") {
                Some([b':', b' ', rest @ ..] | [b':', rest @ ..]) => Some(end - rest.len()..end),
                Some([]) => Some(end..end),
                _ => None,
            };
            if let Some(value) = value {
                let all = at..next;
                lines.push(Line { all, value });
            } else if !is_known(line) {
                foreign.get_or_insert(at);
            }
            at = next;
        }
        Data {
            event,
            lines,
            foreign,
        }
    }

    /// It has no such line.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Where the first line begins that is no comment and has the name of no field. Readers pass over it; what it says is nobody's.
    pub fn foreign(&self) -> Option<usize> {
        self.foreign
    }

    /// The lines' values, a line feed between two.
    pub fn text(&self) -> Cow<'e, [u8]> {
        let values = self
            .lines
            .iter()
            .map(|line| &self.event[line.value.clone()]);
        match self.lines.len() {
            1 => Cow::Borrowed(&self.event[self.lines[0].value.clone()]),
            _ => Cow::Owned(values.collect::<Vec<_>>().join(&b'\n')),
        }
    }

    /// Appends the event with `text` for its own: in the lines that there are, with as many more like the last one as it takes.
    pub fn write(&self, text: &[u8], out: &mut Vec<u8>) {
        let mut values = Values(Some(text));
        let mut copied = 0;
        for (index, line) in self.lines.iter().enumerate() {
            out.extend_from_slice(&self.event[copied..line.all.start]);
            copied = line.all.end;
            let is_last = index + 1 == self.lines.len();
            while let Some(value) = values.next() {
                let (before, after) = self.around(line);
                out.extend_from_slice(before);
                // `data` alone has an empty value.
                if before == b"data" && !value.is_empty() {
                    out.push(b':');
                }
                out.extend_from_slice(value);
                match after {
                    [] if values.0.is_some() => out.push(b'\n'),
                    after => out.extend_from_slice(after),
                }
                if !is_last {
                    break;
                }
            }
        }
        out.extend_from_slice(&self.event[copied..]);
    }

    /// What stands before a line's value, and its end.
    fn around(&self, line: &Line) -> (&'e [u8], &'e [u8]) {
        let before = &self.event[line.all.start..line.value.start];
        (before, &self.event[line.value.end..line.all.end])
    }
}

/// A line without `data` that events have: a comment, or a field by its exact name. One of blanks says nothing.
fn is_known(line: &[u8]) -> bool {
    let fields = [&b"event"[..], b"id", b"retry"];
    line.starts_with(b":")
        || line.iter().all(|byte| matches!(byte, b' ' | b'\t'))
        || fields
            .iter()
            .any(|name| matches!(line.strip_prefix(*name), Some([] | [b':', ..])))
}

/// A text's lines, whatever ends them: no line's end must come into a field.
struct Values<'t>(Option<&'t [u8]>);

impl<'t> Iterator for Values<'t> {
    type Item = &'t [u8];

    fn next(&mut self) -> Option<&'t [u8]> {
        let text = self.0?;
        let Some(end) = text.iter().position(|b| matches!(b, b'\r' | b'\n')) else {
            self.0 = None;
            return Some(text);
        };
        let next = match &text[end..] {
            [b'\r', b'\n', ..] => end + 2,
            _ => end + 1,
        };
        self.0 = Some(&text[next..]);
        Some(&text[..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(event: &str, text: &str, new: &str, written: &str) {
        let data = Data::of(event.as_bytes());
        assert_eq!(data.foreign(), None, "{event:?}");
        assert_eq!(data.text(), text.as_bytes(), "{event:?}");
        let mut out = Vec::new();
        data.write(text.as_bytes(), &mut out);
        assert_eq!(String::from_utf8_lossy(&out), event, "the same again");
        out.clear();
        data.write(new.as_bytes(), &mut out);
        assert_eq!(String::from_utf8_lossy(&out), written, "{event:?}");
    }

    #[test]
    fn lines_are_joined_and_split_again() {
        check("data: 1\n\n", "1", "22", "data: 22\n\n");
        check("data:1\r\r", "1", "2\r\n3", "data:2\rdata:3\r\r");
        check("data:  1", " 1", "2\n3", "data: 2\ndata: 3");
        check(
            "id: 7\r\ndata: [1,\r\n: note\r\ndata:2]\r\nretry: 1\r\n\r\n",
            "[1,\n2]",
            "3",
            "id: 7\r\ndata: 3\r\n: note\r\nretry: 1\r\n\r\n",
        );
        check(
            "data: [1,\n: note\ndata: 2]\n\n",
            "[1,\n2]",
            "[1,\r3,\n2\n]",
            "data: [1,\n: note\ndata: 3,\ndata: 2\ndata: ]\n\n",
        );
        check("data\ndata: {}\n\n", "\n{}", "{}", "data:{}\n\n");
    }

    #[test]
    fn only_data_is_data() {
        for event in [
            "\n",
            ": data: 1\n\n",
            " \t\r\n\r\n",
            "id: data\revent\nretry:1\r\n\n",
        ] {
            let data = Data::of(event.as_bytes());
            assert!(data.is_empty() && data.foreign().is_none(), "{event:?}");
        }
    }

    #[test]
    fn a_line_of_another_name_is_foreign() {
        for (event, at) in [
            ("dataset: 1\n\n", 0),
            (" data: 1\n\n", 0),
            ("Data: 1\n\n", 0),
            ("data : 1\n\n", 0),
            ("data\t: 1\n\n", 0),
            ("\u{c}data: 1\n\n", 0),
            ("\u{feff}data: 1\n\n", 0),
            ("{\"a\":1}", 0),
            ("{\n\"a\": 1\n}\n\n", 0),
            ("1\n\n", 0),
            (" \u{c}\n\n", 0),
            ("ids: 1\n\n", 0),
            ("Retry: 1\n\n", 0),
            (": x\r\nevent: x\r\nname\r\n\r\n", 15),
        ] {
            let data = Data::of(event.as_bytes());
            assert!(data.is_empty(), "{event:?}");
            assert_eq!(data.foreign(), Some(at), "{event:?}");
        }
        let data = Data::of(b"data:\n{\"a\":1}\n\n");
        assert_eq!((data.is_empty(), data.foreign()), (false, Some(6)));
    }
}
