//! Any bytes as a coded body: one verdict however they are cut, never more than is allowed.
#![no_main]

use fieldveil::body::coding::{Coding, Codings, Decoder};
use libfuzzer_sys::fuzz_target;

const ALL: [Coding; 4] = [Coding::Gzip, Coding::Zlib, Coding::Brotli, Coding::Zstd];

fn decoded(codings: &Codings, pieces: &[&[u8]]) -> Option<Vec<u8>> {
    let mut decoder = Decoder::new(codings);
    let mut out = Vec::new();
    for piece in pieces {
        decoder.feed(piece, &mut out).ok()?;
    }
    decoder.finish().ok().map(|_| out)
}

fuzz_target!(|bytes: &[u8]| {
    let [which, cut, coded @ ..] = bytes else { return };
    let [outer, inner] = [which & 3, which >> 2 & 3].map(|n| ALL[usize::from(n)]);
    let codings = match which >> 4 & 1 {
        0 => Codings::from([outer]),
        _ => Codings::from([inner, outer]),
    };
    let whole = decoded(&codings, &[coded]);
    if let Some(whole) = &whole {
        assert!(whole.len() <= (1 << 20) + 100 * coded.len());
    }
    // A piece is bounded by what came so far: beyond the first MiB, the first one may be given up where the whole is not.
    let (one, two) = coded.split_at(usize::from(*cut).min(coded.len()));
    if whole.as_ref().is_none_or(|whole| whole.len() <= 1 << 20) {
        assert_eq!(whole, decoded(&codings, &[one, two]));
    }
});
