//! What is shown of a value to those who may see a part of it, and how a text so made is known when it comes back.
//!
//! A masked value is never taken for a value: where its class is sealed, it is refused. So every mask has a form that no value has.

use crate::scan::text;
use std::sync::Arc;

/// Stands for what is not shown, however long that is: four times U+2022.
pub const RUN: &str = "••••";
/// The most characters that a mask may keep.
pub const KEEP_MAX: u8 = 16;
/// The most characters of a fixed mask: it is shorter than the token that it stands for.
pub const FIXED_CHARS_MAX: usize = 24;

/// How the values of a class are masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mask {
    /// So many characters of the beginning, and [`RUN`].
    KeepFirst(u8),
    /// [`RUN`], and so many characters of the end.
    KeepLast(u8),
    /// Always this.
    Fixed(Arc<str>),
}

impl Mask {
    /// Appends what is shown of `value`, a JSON text, as a JSON string. Of a text of fewer than twice as many characters as are kept,
    /// and of everything that is no text, nothing is shown.
    pub fn write(&self, value: &[u8], out: &mut Vec<u8>) {
        let mut decoded = Vec::new();
        let shown = match self {
            Mask::Fixed(_) => "",
            Mask::KeepFirst(count) => shown(value, &mut decoded, usize::from(*count), true),
            Mask::KeepLast(count) => shown(value, &mut decoded, usize::from(*count), false),
        };
        out.push(b'"');
        match self {
            Mask::Fixed(mask) => push(mask, out),
            Mask::KeepFirst(_) => {
                push(shown, out);
                push(RUN, out);
            }
            Mask::KeepLast(_) => {
                push(RUN, out);
                push(shown, out);
            }
        }
        out.push(b'"');
    }

    /// Whether a text, decoded, has the form of a masked value of this class, or of what it would be if the class kept more or less.
    pub fn is_masked(&self, text: &[u8]) -> bool {
        if let Mask::Fixed(mask) = self
            && mask.as_bytes() == text
        {
            return true;
        }
        let run = RUN.as_bytes();
        let rest = text.strip_prefix(run).or_else(|| text.strip_suffix(run));
        // Characters of UTF-8 that begin there: a text from the scanner is UTF-8.
        let chars = |rest: &[u8]| rest.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
        rest.is_some_and(|rest| chars(rest) <= usize::from(KEEP_MAX))
    }
}

/// So many characters of one end of a text. Nothing, where that would be more than half of it.
fn shown<'d>(value: &[u8], decoded: &'d mut Vec<u8>, count: usize, first: bool) -> &'d str {
    let Some(inner) = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
    else {
        return "";
    };
    if text::unescape(inner, decoded).is_err() {
        return "";
    }
    let Ok(text) = std::str::from_utf8(decoded) else {
        return "";
    };
    let all = text.chars().count();
    if all < 2 * count {
        return "";
    }
    let (at, _) = text
        .char_indices()
        .nth(if first { count } else { all - count })
        .unwrap_or((text.len(), ' '));
    if first { &text[..at] } else { &text[at..] }
}

/// Appends a text as JSON writes it within quotes.
fn push(text: &str, out: &mut Vec<u8>) {
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
            c if c < ' ' => out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes()),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(mask: &Mask, value: &str, expected: &str) {
        let mut out = Vec::new();
        mask.write(value.as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{value}");
        let parsed: String = serde_json::from_str(expected).unwrap();
        assert!(mask.is_masked(parsed.as_bytes()));
    }

    #[test]
    fn half_of_a_text_at_most_is_shown() {
        let last = Mask::KeepLast(4);
        check(&last, r#""4111111111111111""#, r#""••••1111""#);
        check(&last, r#""12345678""#, r#""••••5678""#);
        check(&last, r#""1234567""#, r#""••••""#);
        check(&last, r#""""#, r#""••••""#);
        check(&Mask::KeepLast(1), r#""ab""#, r#""••••b""#);
        check(&Mask::KeepLast(1), r#""a""#, r#""••••""#);
        check(&Mask::KeepFirst(2), r#""Adams""#, r#""Ad••••""#);
        check(&Mask::KeepFirst(2), r#""Ada""#, r#""••••""#);
        check(&Mask::Fixed("***".into()), r#""anything""#, r#""***""#);
    }

    #[test]
    fn characters_are_kept_and_not_bytes() {
        check(&Mask::KeepFirst(2), r#""ÄÖÜß""#, r#""ÄÖ••••""#);
        check(&Mask::KeepLast(1), r#""a\ud83d\ude00""#, r#""••••😀""#);
        check(&Mask::KeepLast(2), r#""ab\"\\""#, r#""••••\"\\""#);
        check(&Mask::KeepFirst(1), r#""\u0001b""#, r#""\u0001••••""#);
        check(&Mask::Fixed("\"\\".into()), "1", r#""\"\\""#);
    }

    #[test]
    fn nothing_is_shown_of_what_is_no_text() {
        let odd = [
            "4111111111111111",
            "-1.5",
            "true",
            "null",
            "[1,2,3]",
            r#"{"a":"bcdefgh"}"#,
            r#""\ud800bcdefghi""#,
        ];
        for value in odd {
            check(&Mask::KeepLast(2), value, r#""••••""#);
            check(&Mask::KeepFirst(2), value, r#""••••""#);
        }
    }

    #[test]
    fn a_mask_is_known_by_its_form() {
        let last = Mask::KeepLast(4);
        for text in [
            "••••",
            "••••1",
            "••••1111",
            "1111••••",
            "••••••••",
            "•••• 1111",
        ] {
            assert!(last.is_masked(text.as_bytes()), "{text}");
            assert!(Mask::Fixed("x".into()).is_masked(text.as_bytes()), "{text}");
        }
        let long = format!("{RUN}{}", "1".repeat(17));
        for text in ["", "1111", "•••1111", "11••••11", long.as_str()] {
            assert!(!last.is_masked(text.as_bytes()), "{text}");
        }
        assert!(Mask::Fixed("***".into()).is_masked(b"***"));
        assert!(!Mask::Fixed("***".into()).is_masked(b"****"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_known_and_shows_half_at_most(value in any::<String>(), count in 1..=KEEP_MAX, first in any::<bool>()) {
            let mask = if first { Mask::KeepFirst(count) } else { Mask::KeepLast(count) };
            let mut out = Vec::new();
            mask.write(serde_json::to_string(&value).unwrap().as_bytes(), &mut out);
            let masked: String = serde_json::from_slice(&out).unwrap();
            prop_assert!(mask.is_masked(masked.as_bytes()));
            let shown = if first { masked.strip_suffix(RUN) } else { masked.strip_prefix(RUN) }.unwrap();
            let stands = if first { value.starts_with(shown) } else { value.ends_with(shown) };
            prop_assert!(stands);
            let (all, kept) = (value.chars().count(), shown.chars().count());
            prop_assert!(2 * kept <= all && (kept == usize::from(count) || kept == 0));
        }
    }
}
