//! Any bytes as the first ones of a connection: no panic, and what they are does not change when more of them come.
#![no_main]

use fieldveil::listener::first::{First, what};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = what(bytes);
    if let Some(First::Tls(Some(name))) = &whole {
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()));
    }
    // Each prefix of a long input would take the square of its length.
    let step = bytes.len() / 64 + 1;
    for end in (0..bytes.len()).step_by(step) {
        if let Some(early) = what(&bytes[..end]) {
            assert_eq!(whole, Some(early));
        }
    }
});
