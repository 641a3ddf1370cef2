//! The token format against vectors made by an independent implementation of it (`vectors/token-v1.json`).
//!
//! Context bytes, padding and canonical text are written out here once more from FORMAT.md, apart from the engine's, so that the two
//! check one another.

use fieldveil::dek::{Dek, Kid, MATERIAL_LEN, Material, schedule};
use fieldveil::seal::{Opener, Refused, Sealer, open, siv_seal};
use fieldveil::token::{self, ClassHint, Prefix, Record, Suite, Token};
use proptest::prelude::*;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::LazyLock;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    format: String,
    good: Vec<Good>,
    refused: Vec<RefusedCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Good {
    suite: u8,
    dek: String,
    kid: String,
    context: BTreeMap<String, String>,
    /// The value as it stood in the document.
    written: String,
    /// What was sealed: padded in suite 1, canonical in suite 2.
    plaintext: String,
    nonce: Option<String>,
    record: Option<String>,
    aad: String,
    token: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefusedCase {
    refused_as: String,
    case: String,
    token: String,
}

static VECTORS: LazyLock<Vectors> = LazyLock::new(|| {
    serde_json::from_str(include_str!("vectors/token-v1.json")).expect("the vectors' file")
});

struct Boxed([u8; MATERIAL_LEN]);

impl Material for Boxed {
    fn expose(&self) -> &[u8; MATERIAL_LEN] {
        &self.0
    }
}

impl Good {
    fn suite(&self) -> Suite {
        match self.suite {
            1 => Suite::Xaes256Gcm,
            2 => Suite::Aes256Siv,
            other => panic!("suite {other}"),
        }
    }

    fn dek(&self) -> Dek {
        let mut material = [0; MATERIAL_LEN];
        let kid = schedule(&bytes(&self.dek), &mut material);
        Dek::new(kid, Box::new(Boxed(material)))
    }
}

#[track_caller]
fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex"))
        .collect()
}

#[track_caller]
fn bytes<const N: usize>(text: &str) -> [u8; N] {
    unhex(text)
        .try_into()
        .expect("as many bytes as the format says")
}

fn entry(aad: &mut Vec<u8>, text: &str) {
    aad.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
    aad.extend_from_slice(text.as_bytes());
}

/// FORMAT.md, Context. A `BTreeMap` of strings is in the byte order of its names.
fn context_bytes(suite: Suite, kid: Kid, context: &BTreeMap<String, String>) -> Vec<u8> {
    let mut aad = b"fieldveil/v1".to_vec();
    aad.push(suite.byte());
    aad.extend_from_slice(&kid.0);
    for (name, value) in context {
        entry(&mut aad, name);
        entry(&mut aad, value);
    }
    aad
}

/// FORMAT.md, Plaintext: the padding of suite 1.
fn padded(written: &str) -> String {
    let spaces = 8_usize.saturating_sub(written.len());
    written.to_owned() + &" ".repeat(spaces)
}

/// FORMAT.md, Canonical text: for strings, over the escapes that JSON has.
fn canonical(written: &str) -> String {
    let Some(inside) = written
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    else {
        return written.to_owned();
    };
    let mut units: Vec<u16> = Vec::new();
    let mut rest = inside.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
            continue;
        }
        units.push(match rest.next().unwrap() {
            'b' => 8,
            't' => 9,
            'n' => 10,
            'f' => 12,
            'r' => 13,
            'u' => u16::from_str_radix(&rest.by_ref().take(4).collect::<String>(), 16).unwrap(),
            other => other as u16,
        });
    }
    let mut out = String::from("\"");
    for unit in char::decode_utf16(units) {
        match unit {
            Ok('"') => out += "\\\"",
            Ok('\\') => out += "\\\\",
            Ok('\u{8}') => out += "\\b",
            Ok('\t') => out += "\\t",
            Ok('\n') => out += "\\n",
            Ok('\u{c}') => out += "\\f",
            Ok('\r') => out += "\\r",
            Ok(c) if c < ' ' => out += &format!("\\u{:04x}", u32::from(c)),
            Ok(c) => out.push(c),
            Err(lone) => out += &format!("\\u{:04x}", lone.unpaired_surrogate()),
        }
    }
    out + "\""
}

#[test]
fn the_file_is_the_one_meant() {
    assert_eq!(VECTORS.format, "fieldveil token v1");
    assert_eq!((VECTORS.good.len(), VECTORS.refused.len()), (48, 16));
}

#[track_caller]
fn check_good(case: &Good) {
    let (suite, dek) = (case.suite(), case.dek());
    assert_eq!(dek.kid().to_string(), case.kid);

    let aad = context_bytes(suite, dek.kid(), &case.context);
    assert_eq!(aad, unhex(&case.aad));

    let expect = match suite {
        Suite::Xaes256Gcm => padded(&case.written),
        Suite::Aes256Siv => canonical(&case.written),
    };
    assert_eq!(case.plaintext, expect);

    // Sealed as the engine does it: nonce tail and plaintext in one buffer, written behind the body's prefix.
    let record = case.record.as_deref().map(unhex);
    let nonce: Option<[u8; 24]> = case.nonce.as_deref().map(bytes);
    let hint = ClassHint::of(&case.context["class"]);
    let prefix = Prefix::new(
        suite,
        hint,
        dek.kid(),
        record.as_deref(),
        nonce.as_ref().and_then(|n| n.first_chunk()),
    );
    let mut rest = Vec::new();
    match nonce {
        Some(nonce) => {
            rest.extend_from_slice(&nonce[12..]);
            rest.extend_from_slice(case.plaintext.as_bytes());
            let sealer = Sealer::new(&dek, *nonce.first_chunk().unwrap());
            sealer.seal(*nonce.last_chunk().unwrap(), &aad, &mut rest, 12);
        }
        None => {
            rest.extend_from_slice(case.plaintext.as_bytes());
            siv_seal(&dek, &aad, &mut rest, 0);
        }
    }
    let mut text = Vec::new();
    prefix.write(&rest, &mut text);
    assert_eq!(String::from_utf8(text).unwrap(), case.token);
    assert_eq!(prefix.text_len(case.plaintext.len() + 16), case.token.len());

    let mut payload = Vec::new();
    let token = Token::decode(case.token.as_bytes(), &mut payload).expect("a good token");
    assert_eq!(
        (token.suite, token.class, token.kid),
        (suite, hint, dek.kid())
    );
    assert_eq!(
        (token.record, token.nonce),
        (record.as_deref(), nonce.as_ref())
    );
    assert_eq!(token.encode(), case.token);

    let mut out = Vec::new();
    assert_eq!(
        open(&dek, token.suite, token.nonce, &aad, token.sealed, &mut out),
        Ok(())
    );
    assert_eq!(out, case.plaintext.as_bytes());

    // Form and record are outside the associated data: the other form opens as well.
    if suite == Suite::Xaes256Gcm {
        let other = Record::build(&[(token::kek_id("keyring:demo/payments"), b"blob")]).unwrap();
        let moved = Token {
            record: if record.is_some() { None } else { Some(&other) },
            ..token
        }
        .encode();
        let mut payload = Vec::new();
        let moved = Token::decode(moved.as_bytes(), &mut payload).unwrap();
        assert_eq!(
            open(&dek, moved.suite, moved.nonce, &aad, moved.sealed, &mut out),
            Ok(())
        );
    }
}

#[test]
fn good_tokens() {
    VECTORS.good.iter().for_each(check_good);
}

#[test]
fn refused_tokens() {
    for case in &VECTORS.refused {
        let mut payload = Vec::new();
        let result = Token::decode(case.token.as_bytes(), &mut payload).map(|_| ());
        assert_eq!(
            result.map_err(|refused| refused.word()),
            Err(&*case.refused_as),
            "{}",
            case.case
        );
    }
}

/// The example of FORMAT.md, section 8, is a vector of the file, with XAES's steps in between.
#[test]
fn the_worked_example() {
    use cmac::{Cmac, KeyInit, Mac};
    let page = include_str!("../FORMAT.md");
    let example: String = page
        .split_once("## 8.")
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let case = VECTORS
        .good
        .iter()
        .find(|case| page.contains(&case.dek))
        .expect("the example's DEK");
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };

    let dek: [u8; 32] = bytes(&case.dek);
    let mut material = [0; MATERIAL_LEN];
    schedule(&dek, &mut material);
    let nonce = unhex(case.nonce.as_deref().unwrap());
    let cmac = |counter: u8| {
        let mut cmac = Cmac::<aes::Aes256>::new_from_slice(&material[..32]).unwrap();
        cmac.update(&[&[0, counter, 0x58, 0], &nonce[..12]].concat());
        cmac.finalize().into_bytes()
    };
    let mut payload = Vec::new();
    let token = Token::decode(case.token.as_bytes(), &mut payload).unwrap();
    let (ciphertext, tag) = token.sealed.split_last_chunk::<16>().unwrap();
    for (what, value) in [
        ("kid", format!("kid{}", case.kid)),
        ("key 1", format!("key1{}", hex(&material[..32]))),
        ("nonce", format!("nonce{}", hex(&nonce))),
        ("Kx", format!("Kx{}{}", hex(&cmac(1)), hex(&cmac(2)))),
        (
            "plaintext",
            format!("plaintext{}", hex(case.plaintext.as_bytes())),
        ),
        ("ciphertext", format!("ciphertext{}", hex(ciphertext))),
        ("tag", format!("tag{}", hex(tag))),
        ("token", case.token.clone()),
    ] {
        assert!(example.contains(&value), "{what}: {value}");
    }
    // Hex alone, without the words beside it.
    let digits = |from: &str, to: &str| -> String {
        let part = page.split_once(from).unwrap().1.split_once(to).unwrap().0;
        let lines = part.lines().map(|line| {
            line.split("    ")
                .find(|cell| !cell.trim().is_empty())
                .unwrap_or("")
        });
        lines
            .flat_map(str::chars)
            .filter(char::is_ascii_hexdigit)
            .collect()
    };
    assert_eq!(digits("    aad      ", "    plaintext"), case.aad);
    assert_eq!(
        digits("field by field:\n", "The token, in"),
        hex(&payload_of(&case.token))
    );
}

fn payload_of(token: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(&token[4..token.len() - 1])
        .unwrap()
}

#[test]
fn a_token_opens_only_in_its_context() {
    let mut opener = Opener::new();
    for case in &VECTORS.good {
        let (suite, dek) = (case.suite(), case.dek());
        let mut payload = Vec::new();
        let token = Token::decode(case.token.as_bytes(), &mut payload).unwrap();
        let with = |name: &str, value: &str| {
            let mut context = case.context.clone();
            context.insert(name.into(), value.into());
            context
        };
        let mut without = case.context.clone();
        without.pop_last();
        // Name and value divide at their lengths, not anywhere.
        let (name, value) = case.context.last_key_value().unwrap();
        let mut shifted = without.clone();
        let (first, rest) = value.split_at(value.chars().next().map_or(0, char::len_utf8));
        shifted.insert(format!("{name}{first}"), rest.into());
        for context in [
            with("class", "other"),
            with("tenant", "other"),
            with("record", "\"x\""),
            without,
            shifted,
        ] {
            let aad = context_bytes(suite, dek.kid(), &context);
            let mut out = Vec::new();
            assert_eq!(
                opener.open(&dek, suite, token.nonce, &aad, token.sealed, &mut out),
                Err(Refused)
            );
            assert!(out.is_empty());
        }
        for other in VECTORS.good.iter().filter(|other| other.dek != case.dek) {
            let mut out = Vec::new();
            let aad = unhex(&case.aad);
            assert_eq!(
                opener.open(
                    &other.dek(),
                    suite,
                    token.nonce,
                    &aad,
                    token.sealed,
                    &mut out
                ),
                Err(Refused)
            );
        }
    }
}

proptest! {
    /// What a change to the text cannot do: open to something else. (A changed class hint or record still opens here, as both
    /// stand outside the associated data: the hint must match the class that opens it, the record must yield the kid.)
    #[test]
    fn no_changed_token_opens_to_another_value(case in 0..48_usize, at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let case = &VECTORS.good[case];
        let dek = case.dek();
        let mut text = case.token.clone().into_bytes();
        let at = at.index(text.len());
        prop_assume!(text[at] != to);
        text[at] = to;
        let (mut payload, mut original) = (Vec::new(), Vec::new());
        let was = Token::decode(case.token.as_bytes(), &mut original).unwrap();
        if let Ok(token) = Token::decode(&text, &mut payload) {
            prop_assert_ne!(token, was);
            let aad = context_bytes(token.suite, token.kid, &case.context);
            let mut out = Vec::new();
            let result = open(&dek, token.suite, token.nonce, &aad, token.sealed, &mut out);
            if (token.suite, token.kid, token.nonce, token.sealed) == (was.suite, was.kid, was.nonce, was.sealed) {
                prop_assert!(token.class != was.class || token.record != was.record);
                prop_assert_eq!(out, case.plaintext.as_bytes());
            } else {
                prop_assert_eq!((result, out), (Err(Refused), vec![]));
            }
        }
    }
}
