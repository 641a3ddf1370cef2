//! A slow and obvious reader of well-formed JSON: which span of the text is which node, by its normalized path (RFC 9535
//! section 2.7).

use std::collections::HashMap;

/// (start, end) -> normalized path.
pub fn of(text: &[u8]) -> HashMap<(usize, usize), String> {
    let mut out = HashMap::new();
    let mut at = 0;
    value(text, &mut at, "$".to_owned(), &mut out);
    out
}

/// The text with the outermost of the chosen nodes replaced by `<>`.
pub fn replaced(text: &[u8], chosen: impl Fn(&str) -> bool) -> String {
    let mut spans: Vec<_> = of(text)
        .into_iter()
        .filter(|(_, path)| chosen(path))
        .map(|(span, _)| span)
        .collect();
    // The longer of two that start together is the outer one.
    spans.sort_by_key(|(start, end)| (*start, usize::MAX - end));
    let (mut out, mut copied) = (Vec::new(), 0);
    for (start, end) in spans {
        if start >= copied {
            out.extend_from_slice(&text[copied..start]);
            out.extend_from_slice(b"<>");
            copied = end;
        }
    }
    out.extend_from_slice(&text[copied..]);
    String::from_utf8(out).expect("UTF-8")
}

/// The normalized path of a member.
pub fn member(at: &str, name: &str) -> String {
    let mut out = format!("{at}['");
    for c in name.chars() {
        match c {
            '\u{8}' => out += "\\b",
            '\t' => out += "\\t",
            '\n' => out += "\\n",
            '\u{c}' => out += "\\f",
            '\r' => out += "\\r",
            '\'' => out += "\\'",
            '\\' => out += "\\\\",
            c if c < ' ' => out += &format!("\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out + "']"
}

fn blank(text: &[u8], at: &mut usize) {
    while text.get(*at).is_some_and(u8::is_ascii_whitespace) {
        *at += 1;
    }
}

fn string(text: &[u8], at: &mut usize) -> String {
    let from = *at;
    *at += 1;
    while text[*at] != b'"' {
        *at += if text[*at] == b'\\' { 2 } else { 1 };
    }
    *at += 1;
    let raw = &text[from..*at];
    // A name that is not Unicode (half of a surrogate pair) is equal to none that a path can spell.
    serde_json::from_slice(raw).unwrap_or_else(|_| format!("?{}", String::from_utf8_lossy(raw)))
}

fn value(text: &[u8], at: &mut usize, path: String, out: &mut HashMap<(usize, usize), String>) {
    blank(text, at);
    let start = *at;
    match text[start] {
        open @ (b'{' | b'[') => {
            *at += 1;
            blank(text, at);
            let mut index = 0;
            while !matches!(text[*at], b'}' | b']') {
                let child = if open == b'{' {
                    let name = string(text, at);
                    blank(text, at);
                    *at += 1;
                    member(&path, &name)
                } else {
                    format!("{path}[{index}]")
                };
                index += 1;
                value(text, at, child, out);
                blank(text, at);
                if text[*at] == b',' {
                    *at += 1;
                    blank(text, at);
                }
            }
            *at += 1;
        }
        b'"' => {
            string(text, at);
        }
        _ => {
            while text
                .get(*at)
                .is_some_and(|c| !matches!(c, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t'))
            {
                *at += 1;
            }
        }
    }
    out.insert((start, *at), path);
}
