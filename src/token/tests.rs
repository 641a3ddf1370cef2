use super::*;
use proptest::prelude::*;

const KID: Kid = Kid(*b"0123456789abcdef");
const NONCE: [u8; 24] = *b"twelve-bytesand-12-more!";

fn record() -> Box<[u8]> {
    Record::build(&[(*b"kek-id-8", &[9; 64])]).unwrap()
}

fn sample(record: Option<&[u8]>) -> Token<'_> {
    Token {
        suite: Suite::Xaes256Gcm,
        class: ClassHint::of("ssn"),
        kid: KID,
        record,
        nonce: Some(&NONCE),
        sealed: b"ciphertext, then 16 bytes of tag",
    }
}

fn text_of(payload: &[u8]) -> Vec<u8> {
    let mut text = MARK.to_vec();
    text.extend(URL_SAFE_NO_PAD.encode(payload).bytes());
    text.push(END);
    text
}

fn payload_of(text: &[u8]) -> Vec<u8> {
    URL_SAFE_NO_PAD
        .decode(&text[4..text.len() - 1])
        .expect("a token's text")
}

#[track_caller]
fn refused(text: impl AsRef<[u8]>, why: TokenError) {
    let mut payload = Vec::new();
    assert_eq!(Token::decode(text.as_ref(), &mut payload), Err(why));
}

#[track_caller]
fn accepted(text: impl AsRef<[u8]>) {
    let mut payload = b"left over".to_vec();
    let token = Token::decode(text.as_ref(), &mut payload).expect("a token");
    assert_eq!(token.encode().as_bytes(), text.as_ref());
}

#[test]
fn parts_come_back() {
    let record = record();
    for record in [None, Some(&*record)] {
        let token = sample(record);
        let mut payload = Vec::new();
        assert_eq!(
            Token::decode(token.encode().as_bytes(), &mut payload),
            Ok(token)
        );
    }
    let siv = Token {
        suite: Suite::Aes256Siv,
        nonce: None,
        ..sample(None)
    };
    let mut payload = Vec::new();
    assert_eq!(
        Token::decode(siv.encode().as_bytes(), &mut payload),
        Ok(siv)
    );
}

#[test]
fn class_hints_are_the_head_of_sha_256() {
    // FIPS 180-2, appendix B.1.
    assert_eq!(ClassHint::of("abc"), ClassHint([0xba, 0x78, 0x16, 0xbf]));
    assert_eq!(ClassHint::of("abc").to_string(), "ba7816bf");
    assert_eq!(KID.to_string(), "30313233343536373839616263646566");
}

#[test]
fn every_truncation_is_refused() {
    let record = record();
    let payload = payload_of(sample(Some(&record)).encode().as_bytes());
    let whole = payload.len() - sample(None).sealed.len() + TAG_LEN;
    for len in 0..whole {
        refused(text_of(&payload[..len]), TokenError::Malformed);
    }
    accepted(text_of(&payload[..whole]));
    let text = sample(Some(&record)).encode();
    for len in 0..text.len() {
        refused(&text[..len], TokenError::Malformed);
    }
}

#[test]
fn suites_and_forms_of_another_version_are_unsupported() {
    for suite in (0..=255).filter(|suite| !(1..=2).contains(suite)) {
        refused(text_of(&[suite]), TokenError::Unsupported);
        refused(text_of(&[suite, 9, 1, 2, 3]), TokenError::Unsupported);
    }
    for form in 2..=255 {
        refused(text_of(&[1, form]), TokenError::Unsupported);
        refused(text_of(&[2, form]), TokenError::Unsupported);
    }
    refused(text_of(&[1]), TokenError::Malformed);
    refused(text_of(&[1, 0]), TokenError::Malformed);
}

#[test]
fn the_deterministic_suite_has_no_inline_form() {
    let record = record();
    let mut payload = payload_of(sample(Some(&record)).encode().as_bytes());
    payload[0] = 2;
    refused(text_of(&payload), TokenError::Malformed);
    payload[1] = 0;
    accepted(text_of(&payload));
}

#[test]
fn text_is_canonical() {
    // 22 + 24 + 16 bytes fill no whole group, so the last character has unused bits.
    let text = Token {
        sealed: &[0; 16],
        ..sample(None)
    }
    .encode();
    accepted(&text);
    let (head, last) = (&text[..text.len() - 2], text.as_bytes()[text.len() - 2]);
    assert_eq!(last, b'A');
    for other in [
        "B", "C", "D", "_", "=", "A=", "A==", "AAA", "+", "/", ".", "\n", "A ", "é",
    ] {
        refused(format!("{head}{other}~"), TokenError::Malformed);
    }
    for (from, to) in [
        ("fv1~", "FV1~"),
        ("fv1~", "fv2~"),
        ("fv1~", "fv1"),
        ("fv1~", " fv1~"),
        ("fv1~", "fv1~~"),
        ("fv1~", "fv1~ "),
        ("A~", "A"),
        ("A~", "A~~"),
        ("A~", "A~ "),
        ("A~", "A~\n"),
        ("A~", "A\0~"),
    ] {
        refused(text.replacen(from, to, 1), TokenError::Malformed);
    }
    for text in ["", "~", "fv1", "fv1~", "fv1~~", "fv1~A~", "fv1~AQ", "AQ~"] {
        refused(text, TokenError::Malformed);
    }
}

#[test]
fn a_token_is_at_most_one_mebibyte() {
    let prefix = Prefix::new(Suite::Aes256Siv, ClassHint::of("ssn"), KID, None, None);
    // 1,048,571 characters between the marks hold 786,428 bytes, 22 of them before the sealed value.
    let fits = 786_428 - 22;
    assert_eq!(prefix.text_len(fits), TEXT_MAX);
    assert_eq!(prefix.text_len(usize::MAX), usize::MAX);
    for (len, result) in [(fits, true), (fits + 1, false)] {
        let mut text = Vec::new();
        prefix.write(&vec![5; len], &mut text);
        assert_eq!(text.len(), prefix.text_len(len));
        assert_eq!(Token::decode(&text, &mut Vec::new()).is_ok(), result);
    }
}

#[test]
fn a_refused_text_leaves_no_payload_of_another() {
    let mut payload = Vec::new();
    Token::decode(sample(None).encode().as_bytes(), &mut payload).unwrap();
    assert!(Token::decode(b"nothing", &mut payload).is_err());
    assert!(payload.is_empty());
}

#[test]
fn prefixes_carry_what_fills_no_group() {
    for blob in 1..=6 {
        let record = Record::build(&[(*b"kek-id-8", &vec![3; blob])]).unwrap();
        for sealed in 16..=20 {
            let sealed = &vec![0xfe; sealed];
            let token = Token {
                sealed,
                ..sample(Some(&record))
            };
            let prefix = Prefix::new(
                token.suite,
                token.class,
                token.kid,
                token.record,
                NONCE.first_chunk(),
            );
            let mut text = b"before ".to_vec();
            prefix.write(&[&NONCE[12..], sealed].concat(), &mut text);
            assert_eq!(text.len(), 7 + prefix.text_len(sealed.len()));
            // The whole payload, encoded in one go.
            let mut payload = vec![1, 1];
            payload.extend(token.class.0);
            payload.extend(token.kid.0);
            payload.extend(u16::try_from(record.len()).unwrap().to_be_bytes());
            payload.extend(&*record);
            payload.extend(NONCE);
            payload.extend(sealed);
            assert_eq!(&text[7..], text_of(&payload));
        }
    }
}

#[test]
#[should_panic(expected = "not a wrapped-DEK record")]
fn an_unreadable_record_is_never_written() {
    Prefix::new(
        Suite::Xaes256Gcm,
        ClassHint::of("ssn"),
        KID,
        Some(&[0]),
        Some(&[0; 12]),
    );
}

#[test]
fn reserved_texts() {
    for text in [
        "fv1~~",
        "fv1~AQ~",
        "fv2~x~",
        "fv007~ anything \n at all~",
        "fv12345678901234567890~~",
    ] {
        assert!(is_reserved(text.as_bytes()), "{text}");
    }
    for text in [
        "",
        "f",
        "fv",
        "fv1",
        "fv1~",
        "fv~~",
        "fv1a~~",
        "fv1~a",
        "fv1~a~ ",
        " fv1~a~",
        "Fv1~a~",
        "fv-1~a~",
        "fv\u{661}~a~",
    ] {
        assert!(!is_reserved(text.as_bytes()), "{text}");
    }
}

#[track_caller]
fn finds(text: &str, expect: &[&str]) {
    let found: Vec<_> = find(text.as_bytes()).map(|at| &text[at]).collect();
    assert_eq!(found, expect);
}

#[test]
fn tokens_are_found_in_other_text() {
    let one = &sample(None).encode();
    let two = &sample(Some(&record())).encode();
    finds("", &[]);
    finds("fv1~", &[]);
    finds("fv1~~ fv1~AQ~", &[]);
    finds(one, &[one]);
    finds(&format!("a={one}&b={two};"), &[one, two]);
    finds(&format!("{one}{two}{one}"), &[one, two, one]);
    finds(&format!("fv1~{one}"), &[one]);
    finds(&format!("fv1~fv1~fv1~{one}~"), &[one]);
    finds(&format!("fv1~ broken ~{one}"), &[one]);
    finds(&format!("fv1fv1~{}", &one[4..]), &[one]);
    finds(&format!("fv1~AQ{one}"), &[one]);
    finds(&one[..one.len() - 1], &[]);
    finds(&one.replace("fv1~", "fv2~"), &[]);
}

#[test]
fn finding_is_linear() {
    // Quadratic work over a million starts would take hours.
    let starts = "fv1~".repeat(1 << 20);
    finds(&starts, &[]);
    finds(&starts.replace('~', "-"), &[]);
    let one = sample(None).encode();
    finds(&format!("{starts}{one}"), &[&one]);
}

fn tokens() -> impl Strategy<Value = String> {
    let wrapping = (any::<[u8; 8]>(), prop::collection::vec(any::<u8>(), 1..40));
    let record = prop::option::of(prop::collection::vec(wrapping, 1..=4));
    let sealed = prop::collection::vec(any::<u8>(), 16..60);
    (
        any::<[u8; 4]>(),
        any::<[u8; 16]>(),
        record,
        prop::option::of(any::<[u8; 24]>()),
        sealed,
    )
        .prop_map(|(class, kid, record, nonce, sealed)| {
            let suite = if nonce.is_some() {
                Suite::Xaes256Gcm
            } else {
                Suite::Aes256Siv
            };
            let record = record.filter(|_| nonce.is_some()).map(|wrappings| {
                let wrappings: Vec<_> = wrappings
                    .iter()
                    .map(|(kek, blob)| (*kek, &**blob))
                    .collect();
                Record::build(&wrappings).unwrap()
            });
            Token {
                suite,
                class: ClassHint(class),
                kid: Kid(kid),
                record: record.as_deref(),
                nonce: nonce.as_ref(),
                sealed: &sealed,
            }
            .encode()
        })
}

proptest! {
    #[test]
    fn what_was_written_reads_back(text in tokens()) {
        let mut payload = Vec::new();
        prop_assert_eq!(Token::decode(text.as_bytes(), &mut payload).map(|token| token.encode()), Ok(text));
    }

    #[test]
    fn what_is_read_writes_back(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut payload = Vec::new();
        if let Ok(token) = Token::decode(&text, &mut payload) {
            prop_assert_eq!(token.encode().into_bytes(), text.clone());
        }
        is_reserved(&text);
        prop_assert!(find(&text).all(|at| at.end <= text.len()));
    }

    #[test]
    fn any_payload_is_read_or_refused(start in prop::sample::select(vec![vec![1, 0], vec![1, 1], vec![2, 0], vec![2, 1]]),
                                      rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let text = text_of(&[start, rest].concat());
        let mut payload = Vec::new();
        if let Ok(token) = Token::decode(&text, &mut payload) {
            prop_assert_eq!(token.encode().into_bytes(), text);
        }
    }

    #[test]
    fn a_changed_character_is_refused_or_another_token(text in tokens(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut changed = text.clone().into_bytes();
        let at = at.index(changed.len());
        prop_assume!(changed[at] != to);
        changed[at] = to;
        let (mut payload, mut other) = (Vec::new(), Vec::new());
        let token = Token::decode(text.as_bytes(), &mut payload).unwrap();
        if let Ok(changed) = Token::decode(&changed, &mut other) {
            prop_assert_ne!(changed, token);
        }
    }
}

proptest! {
    #[test]
    fn our_base64_is_the_crates(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut text = b"before".to_vec();
        append_base64url(&bytes, &mut text);
        prop_assert_eq!(text, [b"before", URL_SAFE_NO_PAD.encode(&bytes).as_bytes()].concat());
    }
}

#[test]
fn every_pair_of_base64_is_the_crates() {
    for bits in 0..4096u32 {
        let [high, middle, low, _] = (bits << 20 | bits << 8).to_be_bytes();
        let bytes = [high, middle, low];
        let mut text = Vec::new();
        append_base64url(&bytes, &mut text);
        assert_eq!(text, URL_SAFE_NO_PAD.encode(bytes).as_bytes());
    }
}
