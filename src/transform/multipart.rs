//! `multipart/form-data` (RFC 7578, RFC 2046 section 5.1), strictly: the parts of a form, their names, and where their contents stand.
//!
//! What two readers could take for two different forms is refused: a boundary that stands elsewhere than in a delimiter, text around
//! the parts, folded or doubled headers, names in several spellings, encodings that hide the content.

/// The most parts of one form.
pub(super) const PARTS_MAX: usize = 8_192;
/// The most bytes of one part's headers.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Characters of a boundary (RFC 2046 section 5.1.1).
const BOUNDARY_CHARS_MAX: usize = 70;

/// One part.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Its name in every spelling that readers know: as it stands, percent-decoded, with backslashes taken away.
    pub(super) names: Vec<String>,
    /// Declared as text in UTF-8, or not declared.
    pub(super) text: bool,
    /// The content's first byte.
    pub(super) start: usize,
    /// Behind its last byte.
    pub(super) end: usize,
}

/// What is wrong, and where.
pub(super) type Broken = (usize, &'static str);

/// The parts, in their order.
pub(super) fn parts(body: &[u8], boundary: &str) -> Result<Vec<Part>, Broken> {
    if boundary.is_empty() || boundary.len() > BOUNDARY_CHARS_MAX {
        return Err((0, "a boundary has from 1 to 70 characters"));
    }
    let delimiter = [b"--", boundary.as_bytes()].concat();
    if !body.starts_with(&delimiter) {
        return Err((0, "it does not begin with its boundary"));
    }
    let finder = memchr::memmem::Finder::new(&delimiter);
    let mut parts = Vec::new();
    // Behind a delimiter.
    let mut at = delimiter.len();
    loop {
        match body.get(at..at + 2) {
            Some(b"--") => {
                let rest = &body[at + 2..];
                return match rest.is_empty() || rest == b"\r\n" {
                    true => Ok(parts),
                    false => Err((at + 2, "something follows the last boundary")),
                };
            }
            Some(b"\r\n") => at += 2,
            Some(_) => return Err((at, "something stands behind a boundary")),
            None => return Err((at, "it ends early")),
        }
        let next = finder.find(&body[at..]).map(|found| at + found);
        let next = next.ok_or((body.len(), "it ends without its boundary"))?;
        // A part's end is the line end before the boundary; an empty content has only that of its head.
        let end = next
            .checked_sub(2)
            .filter(|end| *end >= at && &body[*end..next] == b"\r\n")
            .ok_or((next, "a boundary stands within a line"))?;
        if parts.len() == PARTS_MAX {
            return Err((at, "more than 8,192 parts"));
        }
        parts.push(part(body, at, end)?);
        at = next + delimiter.len();
    }
}

fn part(body: &[u8], from: usize, end: usize) -> Result<Part, Broken> {
    let whole = &body[from..end];
    let (head, start) = match whole.starts_with(b"\r\n") {
        true => (&whole[..0], from + 2),
        false => match memchr::memmem::find(whole, b"\r\n\r\n") {
            Some(at) => (&whole[..at], from + at + 4),
            None => return Err((from, "a part without an empty line behind its headers")),
        },
    };
    if head.len() > HEAD_BYTES_MAX {
        return Err((from, "a part's headers have over 8 KiB"));
    }
    let head = std::str::from_utf8(head).map_err(|_| (from, "a part's headers are not UTF-8"))?;
    let mut names = None;
    let mut text = None;
    for line in head.split("\r\n").filter(|line| !line.is_empty()) {
        let broken = (from, "a part's header is malformed");
        let (name, value) = line.split_once(':').ok_or(broken)?;
        let control = |c: char| c.is_control() && c != '\t';
        if !is_token(name) || value.contains(control) {
            return Err(broken);
        }
        let value = value.trim_matches([' ', '\t']);
        match name.to_ascii_lowercase().as_str() {
            "content-disposition" if names.is_some() => {
                return Err((from, "a part has several Content-Disposition"));
            }
            "content-disposition" => names = Some(disposition(value).map_err(|what| (from, what))?),
            "content-type" if text.is_some() => {
                return Err((from, "a part has several Content-Type"));
            }
            "content-type" => text = Some(is_text(value).map_err(|what| (from, what))?),
            "content-transfer-encoding"
                if !["7bit", "8bit", "binary"]
                    .iter()
                    .any(|known| value.eq_ignore_ascii_case(known)) =>
            {
                return Err((from, "a part has a Content-Transfer-Encoding"));
            }
            _ => {}
        }
    }
    let names = names.ok_or((from, "a part without Content-Disposition"))?;
    // The default of all parts' charsets (RFC 7578 section 4.6).
    if names.iter().any(|name| name == "_charset_")
        && !is_utf8(&String::from_utf8_lossy(&body[start..end]))
    {
        return Err((start, "a charset that is not UTF-8"));
    }
    Ok(Part {
        names,
        text: text.unwrap_or(true),
        start,
        end,
    })
}

/// The names in `form-data; name="…"; filename="…"`.
fn disposition(value: &str) -> Result<Vec<String>, &'static str> {
    let (kind, parameters) = value.split_once(';').unwrap_or((value, ""));
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return Err("a part's disposition is not form-data");
    }
    let (mut name, mut is_file) = (None, false);
    for (key, value, quoted) in self::parameters(parameters)? {
        match key.to_ascii_lowercase().as_str() {
            "name" if name.is_some() => return Err("a part has several names"),
            "name" => name = Some((value, quoted)),
            "filename*" if is_file => return Err("a part has several file names"),
            "filename*" if is_extended(value) => is_file = true,
            key if key.starts_with("name*") || key.starts_with("filename*") => {
                return Err("a part's name in the encoding of RFC 2231");
            }
            _ => {}
        }
    }
    let (name, quoted) = name.ok_or("a part without a name")?;
    if begins_of_names(parameters) > 1 {
        return Err("a part has what some readers take for another name");
    }
    // Some readers take single quotes for quotes, and decode what they find between such marks.
    if name.starts_with('\'') || is_encoded_word(name) {
        return Err("a part's name in single quotes, or in the encoding of RFC 2047");
    }
    let mut names = vec![name.to_owned()];
    let mut also = |spelling: Option<String>| {
        if let Some(spelling) = spelling
            && !names.contains(&spelling)
        {
            names.push(spelling);
        }
    };
    // Browsers write `%22` for a quote in a name, and do not encode `%`; a plus stays a plus.
    also(super::forms::decode(name.replace('+', "%2B").as_bytes()));
    if quoted {
        let mut plain = String::new();
        let mut rest = name.chars();
        while let Some(c) = rest.next() {
            plain.push(if c == '\\' {
                rest.next().unwrap_or(c)
            } else {
                c
            });
        }
        also(Some(plain));
    }
    Ok(names)
}

/// How often a name seems to begin, wherever it is: readers differ in where they see quoted texts end, and some look for no quotes at all.
fn begins_of_names(parameters: &str) -> usize {
    let lower = parameters.to_ascii_lowercase();
    let begins = |at: usize| {
        let before = lower[..at].chars().next_back();
        let behind = lower[at + "name".len()..].trim_start();
        !before.is_some_and(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
            && behind.starts_with(['=', '*'])
    };
    lower
        .match_indices("name")
        .filter(|(at, _)| begins(*at))
        .count()
}

/// `=?utf-8?B?…?=` (RFC 2047 section 2): as a whole, or in it.
fn is_encoded_word(name: &str) -> bool {
    let word = name.split_once("=?");
    word.is_some_and(|(before, rest)| before.is_empty() || rest.contains("?="))
}

/// `utf-8''a%20b` (RFC 8187 section 3.2.1).
fn is_extended(value: &str) -> bool {
    let mut parts = value.split('\'');
    let charset = parts.next().is_some_and(is_token);
    let language = parts
        .next()
        .is_some_and(|text| text.is_empty() || is_token(text));
    let text = parts
        .next()
        .is_some_and(|text| text.is_empty() || is_token(text));
    charset && language && text && parts.next().is_none()
}

/// True for text in UTF-8, false for anything else.
fn is_text(value: &str) -> Result<bool, &'static str> {
    let (essence, parameters) = value.split_once(';').unwrap_or((value, ""));
    let essence = essence.trim().to_ascii_lowercase();
    if essence.starts_with("multipart/") {
        return Err("a part of parts");
    }
    let mut charset = true;
    for (key, value, _) in self::parameters(parameters)? {
        if key.eq_ignore_ascii_case("charset") {
            charset = is_utf8(value);
        }
    }
    Ok(essence == "text/plain" && charset)
}

fn is_utf8(charset: &str) -> bool {
    ["utf-8", "utf8", "us-ascii"]
        .iter()
        .any(|known| charset.trim().eq_ignore_ascii_case(known))
}

/// Parameters as (name, value between its quotes, whether there are quotes).
fn parameters(text: &str) -> Result<Vec<(&str, &str, bool)>, &'static str> {
    const BROKEN: &str = "a part's header has malformed parameters";
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or(BROKEN)?;
        let name = name.trim();
        if !is_token(name) {
            return Err(BROKEN);
        }
        let (value, quoted, after) = match after.strip_prefix('"') {
            Some(inside) => {
                let mut escaped = false;
                let close = inside.bytes().position(|byte| match (escaped, byte) {
                    (false, b'"') => true,
                    (was, byte) => {
                        escaped = !was && byte == b'\\';
                        false
                    }
                });
                let close = close.ok_or(BROKEN)?;
                (&inside[..close], true, &inside[close + 1..])
            }
            None => {
                let end = after.find([';', ' ', '\t']).unwrap_or(after.len());
                if !is_token(&after[..end]) {
                    return Err(BROKEN);
                }
                (&after[..end], false, &after[end..])
            }
        };
        found.push((name, value, quoted));
        let after = after.trim_start();
        rest = match after.strip_prefix(';') {
            Some(more) => more.trim(),
            None if after.is_empty() => after,
            None => return Err(BROKEN),
        };
    }
    Ok(found)
}

fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}
