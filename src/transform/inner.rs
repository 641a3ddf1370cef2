//! A JSON document inside of a JSON string: where its bytes stand in the escaped text, and how what replaces them is escaped.
//!
//! One level deep. The text of such a string is read once, unescaped, by the same scanner; only the spans of its values are written.

use super::Manner;
use super::rules::{self, Compiled, Compiler, Level};
use crate::scan::{Automaton, text};

/// The strings at one path, and the automaton for what they hold.
#[derive(Debug)]
pub(super) struct Inner {
    /// The rules for it, in their order.
    pub(super) rules: Vec<usize>,
    pub(super) automaton: Automaton,
}

/// The automaton for a document that these rules look into.
pub(super) fn automaton(
    all: &[Compiled],
    manner: Manner,
    rules: &[usize],
) -> Result<Automaton, &'static str> {
    let mut compiler = Compiler::default();
    for rule in rules {
        compiler.within(*rule, &all[*rule])?;
    }
    rules::automaton(all, manner, &[], &compiler.paths, Level::Inner)
        .ok_or("the paths within a string are too complex together")
}

/// A way through the raw text of a string, beside the text that it denotes.
pub(super) struct Abreast<'r> {
    raw: &'r [u8],
    /// Bytes of the raw text so far.
    at: usize,
    /// Bytes of the text that they denote.
    denoted: usize,
}

impl<'r> Abreast<'r> {
    /// `raw`: without its quotes, and without unpaired surrogates.
    pub(super) fn new(raw: &'r [u8]) -> Abreast<'r> {
        Abreast {
            raw,
            at: 0,
            denoted: 0,
        }
    }

    /// Where the byte `denoted` of the text begins in the raw text; it is asked for from the start to the end.
    pub(super) fn raw_of(&mut self, denoted: usize) -> usize {
        while self.denoted < denoted && self.at < self.raw.len() {
            let (raw, text) = unit(&self.raw[self.at..]);
            self.at += raw;
            self.denoted += text;
        }
        self.at
    }
}

/// Bytes of the first character of a raw text, or of a byte of it where it is not escaped; and bytes of what it denotes.
fn unit(raw: &[u8]) -> (usize, usize) {
    if raw[0] != b'\\' {
        return (1, 1);
    }
    if raw.get(1) != Some(&b'u') {
        return (2, 1);
    }
    // One escape, or the two of a pair.
    let pair = raw.get(6..8) == Some(b"\\u");
    let mut denoted = Vec::with_capacity(4);
    if text::unescape(&raw[..raw.len().min(6)], &mut denoted).is_ok() || !pair {
        return (6, denoted.len());
    }
    (12, 4)
}

/// Appends JSON text as it stands in a string: its quotes, backslashes and control characters escaped.
pub(super) fn escaped(json: &[u8], out: &mut Vec<u8>) {
    let Ok(json) = std::str::from_utf8(json) else {
        unreachable!("JSON text that was sealed or written here is UTF-8");
    };
    let mut quoted = Vec::with_capacity(json.len() + 16);
    text::canonical_of_text(json, &mut quoted);
    out.extend_from_slice(&quoted[1..quoted.len() - 1]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_raw_text_is_found_beside_what_it_denotes() {
        let raw = r#"{\"a\": \"\u00e9\ud83d\ude00é\n\\\/\u0041\"}"#.as_bytes();
        let mut denoted = Vec::new();
        text::unescape(raw, &mut denoted).unwrap();
        let whole = std::str::from_utf8(&denoted).unwrap();
        let mut abreast = Abreast::new(raw);
        for (at, c) in whole.char_indices() {
            let from = abreast.raw_of(at);
            let to = abreast.raw_of(at + c.len_utf8());
            let mut one = Vec::new();
            text::unescape(&raw[from..to], &mut one).unwrap();
            assert_eq!(one, c.to_string().as_bytes(), "at {at}");
        }
        assert_eq!(abreast.raw_of(denoted.len()), raw.len());
    }

    #[test]
    fn what_is_escaped_reads_as_what_it_was() {
        for json in ["\"fv1~abc~\"", "{\"a\":\"\\u00e9\\n\"}", "[1,\n2]", "null"] {
            let mut out = Vec::new();
            escaped(json.as_bytes(), &mut out);
            let mut back = Vec::new();
            text::unescape(&out, &mut back).unwrap();
            assert_eq!(back, json.as_bytes());
        }
    }
}
