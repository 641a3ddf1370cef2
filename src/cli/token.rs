//! `fieldveil token inspect [TOKEN]`: what a token says about itself, without a key.
//!
//! It opens nothing, asks no KMS, and repeats no input: what is not a token may be a value.

use super::{Exit, Output, TokenInspectArgs};
use crate::token::{ClassHint, Record, Token, TokenError};
use serde::{Serialize, Serializer};
use std::fmt;
use std::io::{self, BufRead, Read, Write};

/// The parts of a token that are legible to anyone who holds it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Inspection {
    /// The algorithm's name.
    pub suite: &'static str,
    /// `inline`: the wrapped DEK is in the token; `reference`: it is in the store, under the kid.
    pub form: &'static str,
    /// The first 4 bytes of SHA-256(class name).
    #[serde(serialize_with = "hex")]
    pub class_hint: [u8; 4],
    /// The class with this hint, where it was among the names given to [`Inspection::named`].
    pub class: Option<String>,
    /// The data key's id.
    #[serde(serialize_with = "hex")]
    pub kid: [u8; 16],
    /// Empty in the reference form.
    pub wrappings: Vec<Wrapping>,
    /// Suite 1 only.
    #[serde(serialize_with = "maybe_hex")]
    pub nonce: Option<[u8; 24]>,
    /// Ciphertext and tag, in bytes.
    pub sealed_bytes: usize,
}

/// The DEK under one KEK.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Wrapping {
    /// The first 8 bytes of SHA-256(KEK URI).
    #[serde(serialize_with = "hex")]
    pub kek_id: [u8; 8],
    /// The length of what the KMS made, in bytes.
    pub blob_bytes: usize,
}

/// Reads a token's legible parts.
///
/// # Errors
/// As [`Token::decode`].
pub fn inspect(text: &str) -> Result<Inspection, TokenError> {
    let mut payload = Vec::new();
    let token = Token::decode(text.as_bytes(), &mut payload)?;
    let wrappings = match token.record {
        Some(record) => Record::parse(record)?.wrappings().collect(),
        None => Vec::new(),
    };
    Ok(Inspection {
        suite: token.suite.name(),
        form: if token.record.is_some() {
            "inline"
        } else {
            "reference"
        },
        class_hint: token.class.0,
        class: None,
        kid: token.kid.0,
        wrappings: wrappings
            .into_iter()
            .map(|(kek_id, blob)| Wrapping {
                kek_id,
                blob_bytes: blob.len(),
            })
            .collect(),
        nonce: token.nonce.copied(),
        sealed_bytes: token.sealed.len(),
    })
}

impl Inspection {
    /// Names the class, if its hint is that of one of `classes`.
    #[must_use]
    pub fn named<S: AsRef<str>>(self, classes: &[S]) -> Inspection {
        let class = classes
            .iter()
            .map(AsRef::as_ref)
            .find(|name| ClassHint::of(name).0 == self.class_hint);
        Inspection {
            class: class.map(str::to_owned),
            ..self
        }
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "suite   {}", self.suite)?;
        writeln!(f, "form    {}", self.form)?;
        match &self.class {
            Some(class) => writeln!(f, "class   {class} (hint {})", Hex(&self.class_hint))?,
            None => writeln!(f, "class   hint {}", Hex(&self.class_hint))?,
        }
        writeln!(f, "kid     {}", Hex(&self.kid))?;
        for wrapping in &self.wrappings {
            writeln!(
                f,
                "wrapped under KEK {}, {} bytes",
                Hex(&wrapping.kek_id),
                wrapping.blob_bytes
            )?;
        }
        if let Some(nonce) = &self.nonce {
            writeln!(f, "nonce   {}", Hex(nonce))?;
        }
        writeln!(f, "sealed  {} bytes", self.sealed_bytes)
    }
}

/// How inspections are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// For people: a paragraph a token.
    #[default]
    Text,
    /// For programs: an object a line. What is no token becomes `{"error": reason word}`.
    Json,
}

/// `fieldveil token inspect`: 0, or 65 if something was no token.
///
/// # Errors
/// Standard input cannot be read or standard output not written.
pub fn command(args: &TokenInspectArgs, output: Output) -> io::Result<Exit> {
    let format = match output {
        Output::Text | Output::Junit | Output::Github | Output::Sarif => Format::Text,
        Output::Json => Format::Json,
    };
    let out = io::BufWriter::new(io::stdout().lock());
    let refused = run(
        args.token.as_deref(),
        &args.classes,
        format,
        io::stdin().lock(),
        out,
    )?;
    Ok(if refused == 0 {
        Exit::Success
    } else {
        Exit::Data
    })
}

/// Inspects `token`, or each line of `input` that is not blank; writes to `output` what it finds. Returns how many were no token.
///
/// # Errors
/// Reading `input` or writing `output` failed; input that is not UTF-8 is no token, not an error.
pub fn run<S: AsRef<str>>(
    token: Option<&str>,
    classes: &[S],
    format: Format,
    input: impl BufRead,
    mut output: impl Write,
) -> io::Result<usize> {
    let mut refused = 0;
    let mut answer = |line: Option<usize>, text: &[u8]| {
        let found = str::from_utf8(text.trim_ascii())
            .map_err(|_| TokenError::Malformed)
            .and_then(inspect);
        refused += usize::from(found.is_err());
        match (format, found) {
            (Format::Text, Ok(inspection)) => {
                let gap = if line.is_some_and(|line| line > 1) {
                    "\n"
                } else {
                    ""
                };
                write!(output, "{gap}{}", inspection.named(classes))
            }
            (Format::Text, Err(why)) => match line {
                Some(line) => writeln!(output, "line {line}: not a token of version 1 ({why})"),
                None => writeln!(output, "not a token of version 1 ({why})"),
            },
            (Format::Json, Ok(inspection)) => {
                serde_json::to_writer(&mut output, &inspection.named(classes))?;
                writeln!(output)
            }
            (Format::Json, Err(why)) => writeln!(output, "{{\"error\":\"{}\"}}", why.word()),
        }
    };
    match token {
        Some(text) => answer(None, text.as_bytes())?,
        None => each_line(input, |number, line| {
            if line.trim_ascii().is_empty() {
                Ok(())
            } else {
                answer(Some(number), line)
            }
        })?,
    }
    output.flush()?;
    Ok(refused)
}

/// Lines without their ends, counted from 1, each in bounded memory: of a line over twice a token's length, the start alone is kept.
fn each_line(
    mut input: impl BufRead,
    mut act: impl FnMut(usize, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    const LINE_MAX: u64 = 2 * crate::token::TEXT_MAX as u64;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if (&mut input).take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.len() as u64 == LINE_MAX && line.last() != Some(&b'\n') {
            input.skip_until(b'\n')?;
        }
        act(number, &line)?;
    }
    Ok(())
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn hex<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Hex(bytes))
}

#[expect(
    clippy::ref_option,
    reason = "serde hands over a reference to the field"
)]
fn maybe_hex<S: Serializer>(bytes: &Option<[u8; 24]>, serializer: S) -> Result<S::Ok, S::Error> {
    match bytes {
        Some(bytes) => hex(bytes, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dek::Kid;
    use crate::token::Suite;

    fn inline() -> String {
        let record = Record::build(&[(*b"kek-id-8", &[7; 64]), (*b"another1", &[7; 300])]).unwrap();
        Token {
            suite: Suite::Xaes256Gcm,
            class: ClassHint::of("ssn"),
            kid: Kid([0xab; 16]),
            record: Some(&record),
            nonce: Some(&[0x01; 24]),
            sealed: &[0; 29],
        }
        .encode()
    }

    fn reference() -> String {
        Token {
            suite: Suite::Aes256Siv,
            class: ClassHint::of("email"),
            kid: Kid([0xcd; 16]),
            record: None,
            nonce: None,
            sealed: &[0; 16],
        }
        .encode()
    }

    #[track_caller]
    fn check(token: Option<&str>, input: &[u8], format: Format, expect: &str, refused: usize) {
        let mut output = Vec::new();
        let count = run(token, &["pan", "ssn"], format, input, &mut output).unwrap();
        assert_eq!(String::from_utf8(output).unwrap(), expect);
        assert_eq!(count, refused);
    }

    const INLINE_TEXT: &str = "\
suite   XAES-256-GCM
form    inline
class   ssn (hint efa5ff7e)
kid     abababababababababababababababab
wrapped under KEK 6b656b2d69642d38, 64 bytes
wrapped under KEK 616e6f7468657231, 300 bytes
nonce   010101010101010101010101010101010101010101010101
sealed  29 bytes
";

    const INLINE_JSON: &str = concat!(
        r#"{"suite":"XAES-256-GCM","form":"inline","class_hint":"efa5ff7e","class":"ssn","#,
        r#""kid":"abababababababababababababababab","wrappings":[{"kek_id":"6b656b2d69642d38","blob_bytes":64},"#,
        r#"{"kek_id":"616e6f7468657231","blob_bytes":300}],"#,
        r#""nonce":"010101010101010101010101010101010101010101010101","sealed_bytes":29}"#,
        "\n"
    );

    #[test]
    fn one_token() {
        check(Some(&inline()), b"not read", Format::Text, INLINE_TEXT, 0);
        check(
            Some(&format!(" {}\n", inline())),
            b"",
            Format::Text,
            INLINE_TEXT,
            0,
        );
        check(Some(&inline()), b"", Format::Json, INLINE_JSON, 0);
        let expect = "suite   AES-256-SIV\nform    reference\nclass   hint 82244417\nkid     \
                      cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd\nsealed  16 bytes\n";
        check(Some(&reference()), b"", Format::Text, expect, 0);
    }

    #[test]
    fn what_is_no_token_is_not_repeated() {
        check(
            Some("078-05-1120"),
            b"",
            Format::Text,
            "not a token of version 1 (malformed)\n",
            1,
        );
        check(
            Some("fv1~CQ~"),
            b"",
            Format::Text,
            "not a token of version 1 (unsupported)\n",
            1,
        );
        check(
            Some(""),
            b"",
            Format::Json,
            "{\"error\":\"malformed\"}\n",
            1,
        );
    }

    #[test]
    fn lines_of_input() {
        let lines = format!("\n{}\r\nsecret\n  \n{}", inline(), inline());
        let expect =
            format!("\n{INLINE_TEXT}line 3: not a token of version 1 (malformed)\n\n{INLINE_TEXT}");
        check(None, lines.as_bytes(), Format::Text, &expect, 1);
        let expect = format!("{INLINE_JSON}{{\"error\":\"malformed\"}}\n{INLINE_JSON}");
        check(None, lines.as_bytes(), Format::Json, &expect, 1);
        check(
            None,
            b"\xff\xfe\n",
            Format::Json,
            "{\"error\":\"malformed\"}\n",
            1,
        );
        check(None, b"", Format::Json, "", 0);
    }

    #[test]
    fn a_line_without_end_is_one_refusal() {
        let mut lines = vec![b'x'; 5 << 20];
        lines.push(b'\n');
        lines.extend(inline().bytes());
        check(
            None,
            &lines,
            Format::Json,
            &format!("{{\"error\":\"malformed\"}}\n{INLINE_JSON}"),
            1,
        );
    }
}
