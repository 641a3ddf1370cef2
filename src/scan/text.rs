//! The text of JSON strings: unescaped, to compare it; and in the one canonical spelling that is bound to a token.

/// A `\u` escape names half of a surrogate pair, or the text is cut: it is no Unicode text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lone;

/// Appends the text that `raw` (a JSON string without its quotes, valid by RFC 8259) denotes, in UTF-8.
///
/// # Errors
/// [`Lone`]: it denotes no Unicode text. What was appended until then stays.
pub fn unescape(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Lone> {
    pieces(raw, |piece| {
        match piece {
            Piece::Plain(bytes) => out.extend_from_slice(bytes),
            Piece::Char(c) => push(c, out),
            Piece::Unpaired(_) => return Err(Lone),
        }
        Ok(())
    })
}

/// Appends the canonical JSON text (TOKEN.md, Canonical text) of the string `raw` (without its quotes), quotes included: decoded and
/// encoded again with only `"`, `\` and control characters escaped; an unpaired surrogate keeps its escape, in lower case.
pub fn canonical(raw: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let whole = pieces(raw, |piece| {
        match piece {
            Piece::Plain(bytes) => bytes.iter().for_each(|&byte| escape(byte, out)),
            Piece::Char(c) if c.is_ascii() => escape(c as u8, out),
            Piece::Char(c) => push(c, out),
            Piece::Unpaired(unit) => hex(unit, out),
        }
        Ok(())
    });
    debug_assert_eq!(whole, Ok(()), "the scanner lets no broken escape pass");
    out.push(b'"');
}

/// As [`canonical`], for text from outside of JSON (a header, a path or query parameter).
pub fn canonical_of_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    text.bytes().for_each(|byte| escape(byte, out));
    out.push(b'"');
}

fn push(c: char, out: &mut Vec<u8>) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// One byte of UTF-8 text, escaped where it must be.
fn escape(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        0x08 => out.extend_from_slice(b"\\b"),
        0x0C => out.extend_from_slice(b"\\f"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0x00..=0x1F => hex(u16::from(byte), out),
        _ => out.push(byte),
    }
}

fn hex(unit: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        out.push(b"0123456789abcdef"[usize::from(unit >> shift & 15)]);
    }
}

enum Piece<'a> {
    /// UTF-8 without escapes.
    Plain(&'a [u8]),
    Char(char),
    /// A surrogate without its other half.
    Unpaired(u16),
}

fn pieces(mut raw: &[u8], mut take: impl FnMut(Piece<'_>) -> Result<(), Lone>) -> Result<(), Lone> {
    while !raw.is_empty() {
        let plain = raw.iter().position(|&c| c == b'\\').unwrap_or(raw.len());
        if plain > 0 {
            take(Piece::Plain(&raw[..plain]))?;
            raw = &raw[plain..];
            continue;
        }
        let (piece, len) = match raw.get(1).ok_or(Lone)? {
            b'b' => (Piece::Char('\u{8}'), 2),
            b'f' => (Piece::Char('\u{c}'), 2),
            b'n' => (Piece::Char('\n'), 2),
            b'r' => (Piece::Char('\r'), 2),
            b't' => (Piece::Char('\t'), 2),
            b'u' => match (unit(raw)?, raw.get(6..)) {
                (high @ 0xD800..=0xDBFF, Some(rest))
                    if let Some(low @ 0xDC00..=0xDFFF) = pair(rest) =>
                {
                    let code =
                        0x1_0000 + (u32::from(high - 0xD800) << 10) + u32::from(low - 0xDC00);
                    (Piece::Char(char::from_u32(code).ok_or(Lone)?), 12)
                }
                (unit, _) => match char::from_u32(u32::from(unit)) {
                    Some(c) => (Piece::Char(c), 6),
                    None => (Piece::Unpaired(unit), 6),
                },
            },
            &other => (Piece::Char(char::from(other)), 2),
        };
        take(piece)?;
        raw = raw.get(len..).ok_or(Lone)?;
    }
    Ok(())
}

/// The code unit of the `\uXXXX` that `raw` begins with.
fn unit(raw: &[u8]) -> Result<u16, Lone> {
    let digits = raw.get(2..6).ok_or(Lone)?;
    let digits = std::str::from_utf8(digits).map_err(|_| Lone)?;
    u16::from_str_radix(digits, 16).map_err(|_| Lone)
}

fn pair(rest: &[u8]) -> Option<u16> {
    if rest.starts_with(b"\\u") {
        unit(rest).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &str, expected: &str, text: Result<&str, Lone>) {
        let mut out = Vec::new();
        canonical(raw.as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("\"{expected}\""));
        let mut out = Vec::new();
        let done = unescape(raw.as_bytes(), &mut out);
        assert_eq!(
            done.map(|()| String::from_utf8(out).unwrap()),
            text.map(str::to_owned)
        );
    }

    #[test]
    fn canonical_spelling_and_text() {
        check("", "", Ok(""));
        check("plain é", "plain é", Ok("plain é"));
        check("\\u0073sn", "ssn", Ok("ssn"));
        check("\\ud83d\\ude00", "😀", Ok("😀"));
        check("\\uD83D\\uDE00x", "😀x", Ok("😀x"));
        check("\\uD800x", "\\ud800x", Err(Lone));
        check("\\ud800\\ud800\\udc00", "\\ud800\u{10000}", Err(Lone));
        check("\\udc00", "\\udc00", Err(Lone));
        check("\\uD800\\n", "\\ud800\\n", Err(Lone));
        check("\\/\\\"\\\\", "/\\\"\\\\", Ok("/\"\\"));
        check("\\b\\f\\n\\r\\t", "\\b\\f\\n\\r\\t", Ok("\u{8}\u{c}\n\r\t"));
        check(
            "\\u0008\\u000A\\u001F\\u007f",
            "\\b\\n\\u001f\u{7f}",
            Ok("\u{8}\n\u{1f}\u{7f}"),
        );
    }

    #[test]
    fn text_from_elsewhere_is_spelt_alike() {
        let mut out = Vec::new();
        canonical_of_text("a\"\\\n\u{1}é", &mut out);
        assert_eq!(out, "\"a\\\"\\\\\\n\\u0001é\"".as_bytes());
    }

    #[test]
    fn cut_escapes_are_refused_and_do_not_panic() {
        for cut in ["\\", "\\u", "\\u00", "\\u00e", "\\ud83d\\", "\\ud83d\\u1"] {
            let _ = unescape(cut.as_bytes(), &mut Vec::new());
        }
        assert_eq!(unescape(b"\\u00", &mut Vec::new()), Err(Lone));
    }
}
