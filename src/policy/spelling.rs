//! The ways in which an upstream may read the path of a request.
//!
//! One resource has many spellings (`/v1/%63ards`, `/v1//cards`, `/v1/./cards`, `/v1/cards;a=b`, `/v1/cards/`), and not every
//! server resolves all of them. A request must not come past a route by its spelling, so the path is decoded once and then
//! read in each of these ways; `matching` refuses a request whose readings would take different routes. Spellings that no
//! honest client needs, and that servers disagree about, are refused here. What is forwarded is what the client sent.

use std::fmt;

/// A path that can be understood in more than one way. The word is stable; it holds nothing of the path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PathRefused {
    /// `ambiguous`, `encoded-slash`, `not-utf8` and the like.
    pub what: &'static str,
}

impl fmt::Display for PathRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the path is refused: {}", self.what)
    }
}

impl std::error::Error for PathRefused {}

fn refuse<T>(what: &'static str) -> Result<T, PathRefused> {
    Err(PathRefused { what })
}

/// A path as its decoded segments. A slash at the end makes no segment.
pub(super) type Segments = Vec<String>;

/// All readings of a raw path (RFC 3986 section 3.3, without query), each once. The first is the normal one: decoded,
/// double slashes merged, dot segments removed (section 5.2.4), parameters behind `;` kept.
///
/// Refused: a path that is not absolute, a bad percent-encoding, what does not decode to UTF-8, encoded slashes,
/// backslashes and control characters however written, percent-encoding under percent-encoding.
pub(super) fn readings(raw: &str) -> Result<Vec<Segments>, PathRefused> {
    let Some(rest) = (if raw.is_empty() {
        Some("")
    } else {
        raw.strip_prefix('/')
    }) else {
        return refuse("not-absolute");
    };
    let written: Vec<&str> = rest.split('/').collect();
    let whole = written
        .iter()
        .map(|segment| decode(segment))
        .collect::<Result<Segments, _>>()?;
    // Nearly all paths are read in one way by everyone.
    let is_odd = |segment: &String| matches!(segment.as_str(), "" | "." | "..");
    if !whole.iter().any(is_odd) && !rest.contains(';') {
        return Ok(vec![whole]);
    }
    let mut readings = vec![without_dots(without_empty(whole.clone()))];
    let mut add = |mut reading: Segments| {
        if reading.last().is_some_and(String::is_empty) {
            reading.pop();
        }
        if !readings.contains(&reading) {
            readings.push(reading);
        }
    };
    let mut spread = |segments: Segments| {
        add(without_dots(segments.clone()));
        add(without_empty(without_dots(segments.clone())));
        add(without_empty(segments.clone()));
        add(without_dots(without_empty(segments.clone())));
        add(segments);
    };
    if whole.iter().any(is_odd) {
        spread(whole);
    }
    if rest.contains(';') {
        // Path parameters: `/cards;v=1/7` is `/cards/7` to some servers. An encoded semicolon is not one.
        let cut = |segment: &&str| decode(segment.split(';').next().unwrap_or_default());
        spread(written.iter().map(cut).collect::<Result<Segments, _>>()?);
    }
    Ok(readings)
}

/// Percent-decodes one segment, once.
fn decode(segment: &str) -> Result<String, PathRefused> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if segment.bytes().all(is_plain) {
        return Ok(segment.to_owned());
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        match (rest.next().and_then(hex), rest.next().and_then(hex)) {
            (Some(high), Some(low)) => match high << 4 | low {
                b'/' => return refuse("encoded-slash"),
                decoded => bytes.push(decoded),
            },
            _ => return refuse("bad-percent-encoding"),
        }
    }
    let Ok(text) = String::from_utf8(bytes) else {
        return refuse("not-utf8");
    };
    if text.contains('\\') {
        return refuse("backslash");
    }
    if text.chars().any(char::is_control) {
        return refuse("control-character");
    }
    if segment.contains(['?', '#']) {
        return refuse("not-a-path");
    }
    if text
        .as_bytes()
        .windows(3)
        .any(|w| w[0] == b'%' && hex(w[1]).is_some() && hex(w[2]).is_some())
    {
        return refuse("double-encoded");
    }
    Ok(text)
}

/// The value of a hexadecimal digit.
pub(super) fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

fn without_empty(segments: Segments) -> Segments {
    segments
        .into_iter()
        .filter(|segment| !segment.is_empty())
        .collect()
}

/// RFC 3986 section 5.2.4; `..` at the root stays at the root.
fn without_dots(segments: Segments) -> Segments {
    let mut kept = Segments::new();
    for segment in segments {
        match segment.as_str() {
            "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(raw: &str, expected: Result<&[&str], &'static str>) {
        let found = readings(raw)
            .map(|all| all[0].clone())
            .map_err(|refused| refused.what);
        let expected = expected.map(|segments| {
            segments
                .iter()
                .map(|s| (*s).to_owned())
                .collect::<Segments>()
        });
        assert_eq!(found, expected, "{raw}");
    }

    #[test]
    fn the_normal_reading() {
        check("/", Ok(&[]));
        check("", Ok(&[]));
        check("/v1/cards", Ok(&["v1", "cards"]));
        check("/v1/cards/", Ok(&["v1", "cards"]));
        check("/v1/%63ards", Ok(&["v1", "cards"]));
        check("/v1/%63%61%52ds", Ok(&["v1", "caRds"]));
        check("//v1///cards//", Ok(&["v1", "cards"]));
        check("/v1/./cards/.", Ok(&["v1", "cards"]));
        check("/v1/x/../cards/y/..", Ok(&["v1", "cards"]));
        check("/../../v1", Ok(&["v1"]));
        check("/v1/%2e%2E/cards", Ok(&["cards"]));
        check("/v1//../cards", Ok(&["cards"]));
        check("/a%20b/c+d", Ok(&["a b", "c+d"]));
        check("/100%25", Ok(&["100%"]));
        check("/%C3%A9/é", Ok(&["é", "é"]));
        check("/a;b=c/d", Ok(&["a;b=c", "d"]));
        check("/a%3Bb", Ok(&["a;b"]));
        check("/.../a..", Ok(&["...", "a.."]));
    }

    #[test]
    fn what_is_refused() {
        check("v1", Err("not-absolute"));
        check("http://a/b", Err("not-absolute"));
        check("/a%2Fb", Err("encoded-slash"));
        check("/a%2fb", Err("encoded-slash"));
        check("/a%5Cb", Err("backslash"));
        check("/a\\b", Err("backslash"));
        check("/a%00", Err("control-character"));
        check("/a\u{7f}", Err("control-character"));
        check("/a%0d%0a", Err("control-character"));
        check("/%C2%85", Err("control-character"));
        check("/%", Err("bad-percent-encoding"));
        check("/%4", Err("bad-percent-encoding"));
        check("/%4g", Err("bad-percent-encoding"));
        check("/%+4", Err("bad-percent-encoding"));
        check("/%u0041", Err("bad-percent-encoding"));
        check("/%ff", Err("not-utf8"));
        check("/%c0%ae%c0%ae/x", Err("not-utf8"));
        check("/%c0%af", Err("not-utf8"));
        check("/%252e%252e/x", Err("double-encoded"));
        check("/%2563ards", Err("double-encoded"));
        check("/a?b", Err("not-a-path"));
        check("/a#b", Err("not-a-path"));
        // What stands behind a semicolon is looked at, too.
        check("/a;%2f", Err("encoded-slash"));
    }

    #[test]
    fn all_readings() {
        let of = |raw: &str| {
            readings(raw)
                .unwrap()
                .iter()
                .map(|s| s.join("/"))
                .collect::<Vec<_>>()
        };
        assert_eq!(of("/a/b"), ["a/b"]);
        assert_eq!(of("/a/b/"), ["a/b"]);
        assert_eq!(of("/a/../b"), ["b", "a/../b"]);
        assert_eq!(of("/a//b"), ["a/b", "a//b"]);
        assert_eq!(of("/a;x/b"), ["a;x/b", "a/b"]);
        assert_eq!(of("/a/..;x/b"), ["a/..;x/b", "b", "a/../b"]);
        // RFC 3986 and servers that merge slashes first disagree here.
        assert_eq!(of("/a//../b"), ["b", "a/b", "a/../b", "a//../b"]);
    }

    proptest! {
        #[test]
        fn normalising_is_idempotent(raw in "/[a-c./;%25eEfFcC3A9\\\\é ]{0,24}") {
            let Ok(all) = readings(&raw) else { return Ok(()) };
            let encoded: String = all[0]
                .iter()
                .map(|segment| {
                    let marks = [("%", "%25"), (";", "%3B"), ("?", "%3F"), ("#", "%23")];
                    marks.iter().fold(format!("/{segment}"), |text, (mark, code)| text.replace(mark, code))
                })
                .collect();
            let again = readings(&encoded).map_err(|refused| TestCaseError::fail(refused.what))?;
            prop_assert_eq!(&again, &vec![all[0].clone()]);
        }

        #[test]
        fn an_honest_spelling_has_one_reading(raw in "(/[a-z0-9_~-]{1,5}){0,5}/?") {
            prop_assert_eq!(readings(&raw).map(|all| all.len()), Ok(1));
        }

        #[test]
        fn never_panics(raw in "\\PC{0,40}|/[%/.;0-9a-f]{0,40}") {
            let _ = readings(&raw);
        }
    }
}
