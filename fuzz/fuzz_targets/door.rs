//! The door over any bytes: it never panics, clears nothing that it refuses, and judges the same however the bytes are
//! cut.
#![no_main]

use fieldveil::listener::door::gate::{Examined, Gate};
use libfuzzer_sys::fuzz_target;

/// What is cleared, and whether there is a violation.
fn run(stream: &[u8], step: usize) -> (Vec<u8>, bool) {
    let mut gate = Gate::default();
    let (mut cleared, mut kept) = (Vec::new(), Vec::new());
    for piece in stream.chunks(step) {
        kept.extend_from_slice(piece);
        let Examined {
            cleared: count,
            violation,
        } = gate.examine(&kept);
        cleared.extend(kept.drain(..count));
        if violation.is_some() {
            return (cleared, true);
        }
    }
    (cleared, false)
}

fuzz_target!(|stream: &[u8]| {
    let whole = run(stream, stream.len().max(1));
    assert!(stream.starts_with(&whole.0));
    assert_eq!(whole, run(stream, 1));
    assert_eq!(whole, run(stream, 17));
});
