//! `application/x-www-form-urlencoded` (WHATWG URL, section 5.1), strictly: the fields of a form or of a query, where their values
//! stand, and text written as such a value.

/// The most fields of one form or query.
pub(super) const FIELDS_MAX: usize = 8_192;

/// One field, and where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Field<'f> {
    /// As it is sent.
    pub(super) name: &'f [u8],
    /// Of the value's first byte.
    pub(super) start: usize,
    /// Behind its last byte.
    pub(super) end: usize,
    /// There is no `=` before the value, which is empty.
    pub(super) bare: bool,
}

/// The fields in their order; empty ones are left out.
pub(super) fn fields(form: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut next = 0;
    form.split(|byte| *byte == b'&').filter_map(move |pair| {
        let start = next;
        next += pair.len() + 1;
        if pair.is_empty() {
            return None;
        }
        let equals = pair.iter().position(|byte| *byte == b'=');
        let name = &pair[..equals.unwrap_or(pair.len())];
        Some(Field {
            name,
            start: start + equals.map_or(pair.len(), |at| at + 1),
            end: start + pair.len(),
            bare: equals.is_none(),
        })
    })
}

/// Where a document of JSON begins that stands in a form's place: an object, an array or a string, behind blanks and byte order marks. Forms have
/// these characters percent-encoded.
pub(super) fn json(form: &[u8]) -> Option<usize> {
    let is_before = |byte: &u8| *byte <= b' ' || b"\xEF\xBB\xBF\xFE\xFF".contains(byte);
    let begin = form.iter().position(|byte| !is_before(byte))?;
    matches!(form[begin], b'{' | b'[' | b'"').then_some(begin)
}

/// The text of a name or value; `None`: a broken percent-encoding, or no UTF-8.
pub fn decode(text: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => digit(*rest.next()?)? << 4 | digit(*rest.next()?)?,
            byte => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// Appends a text as a value: all but RFC 3986's unreserved characters percent-encoded, a space as `%20`, which reads the same
/// in a query and in a form.
pub fn encode(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            out.push(b'%');
            out.push(b"0123456789ABCDEF"[usize::from(byte >> 4)]);
            out.push(b"0123456789ABCDEF"[usize::from(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(form: &str, expected: &[(&str, &str, bool)]) {
        let found: Vec<_> = fields(form.as_bytes())
            .map(|field| {
                let name = std::str::from_utf8(field.name).unwrap();
                (name, &form[field.start..field.end], field.bare)
            })
            .collect();
        assert_eq!(found, expected, "{form}");
    }

    #[test]
    fn fields_stand_where_they_stand() {
        check("a=1&b=2", &[("a", "1", false), ("b", "2", false)]);
        check(
            "&&a=&=b&c",
            &[("a", "", false), ("", "b", false), ("c", "", true)],
        );
        check("a=b=c", &[("a", "b=c", false)]);
        check("", &[]);
        check("&", &[]);
    }

    #[test]
    fn json_begins_as_no_form_does() {
        for (body, at) in [
            (&b"{\"ssn\":\"1\"}"[..], 0),
            (b"[{}]", 0),
            (b"\"ssn\"", 0),
            (b" \r\n\t{}=", 4),
            (b"\xEF\xBB\xBF{}", 3),
            (b"\xFF\xFE{\0}\0", 2),
            (b"\0{\0}", 1),
        ] {
            assert_eq!(json(body), Some(at), "{body:?}");
        }
        for body in [
            "", " ", "a={}", "a[0]=1", "%7B%7D=", "=[", "&{", "1", "null", "'{",
        ] {
            assert_eq!(json(body.as_bytes()), None, "{body:?}");
        }
    }

    #[test]
    fn texts_are_decoded_strictly() {
        assert_eq!(decode(b"a+b%20%C3%a9").as_deref(), Some("a b \u{e9}"));
        for broken in ["%", "%2", "%zz", "%ff", "%+1", "%C3"] {
            assert_eq!(decode(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_what_it_was() {
        for text in [
            "",
            "a b&c=d+e%",
            "\u{e9}\u{1f600}",
            "fv1~A-_9~",
            "\r\n\0\"#",
        ] {
            let mut out = Vec::new();
            encode(text, &mut out);
            assert!(out.is_ascii() && !out.iter().any(|b| b"&=+# \r\n".contains(b)));
            assert_eq!(decode(&out).as_deref(), Some(text));
        }
        let mut token = Vec::new();
        encode("fv1~A-_9~", &mut token);
        assert_eq!(token, b"fv1~A-_9~", "a token needs no encoding");
    }
}
