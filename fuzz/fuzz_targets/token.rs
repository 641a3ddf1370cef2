//! Any bytes as the text of a token and as other text: nothing panics, what is accepted writes back to itself, what is found is a
//! token, and nothing opens.
#![no_main]

use fieldveil::dek::{Dek, MATERIAL_LEN, Material, schedule};
use fieldveil::seal::{Refused, open};
use fieldveil::token::{Record, Token, find, is_reserved};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

struct Boxed(Box<[u8; MATERIAL_LEN]>);

impl Material for Boxed {
    fn expose(&self) -> &[u8; MATERIAL_LEN] {
        &self.0
    }
}

static DEK: LazyLock<Dek> = LazyLock::new(|| {
    let mut material = Box::new([0; MATERIAL_LEN]);
    let kid = schedule(&[0xa5; 32], &mut material);
    Dek::new(kid, Box::new(Boxed(material)))
});

fn check(text: &[u8]) -> bool {
    let mut payload = Vec::new();
    let Ok(token) = Token::decode(text, &mut payload) else {
        return false;
    };
    assert_eq!(token.encode().as_bytes(), text);
    assert!(is_reserved(text));
    if let Some(record) = token.record {
        let record = Record::parse(record).expect("checked when decoded");
        let wrappings: Vec<_> = record.wrappings().collect();
        assert_eq!(
            Record::build(&wrappings).expect("it was a record"),
            record.bytes().into()
        );
    }
    let mut out = Vec::new();
    assert_eq!(
        open(&DEK, token.suite, token.nonce, b"", token.sealed, &mut out),
        Err(Refused)
    );
    assert!(out.is_empty());
    true
}

fuzz_target!(|text: &[u8]| {
    check(text);
    for at in find(text) {
        assert!(check(&text[at]));
    }
    // The fuzzer rarely guesses base64, so its bytes are a payload, too.
    let mut whole = b"fv1~".to_vec();
    for group in text.chunks(3) {
        let mut bytes = [0; 3];
        bytes[..group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        whole.extend((0..=group.len()).map(|at| alphabet[(bits >> (18 - 6 * at) & 63) as usize]));
    }
    whole.push(b'~');
    check(&whole);
});
