//! What there is to be searched in a body: itself, or each record of a stream, out of its content codings.

use crate::body::coding::{Codings, Decoder};
use crate::body::held::{Declared, declared};
use crate::body::records::{Cutter, Document, Piece};
use http::HeaderMap;

/// Bytes that a body may become without its codings.
const DECODED_BYTES_MAX: usize = 64 << 20;

/// A body taken apart.
pub struct Documents {
    /// The texts of a stream's records, marks and comments left out; else all of the body.
    pub texts: Vec<Vec<u8>>,
    /// They are records.
    pub are_records: bool,
}

impl Documents {
    /// Of a body as these headers declare it. What does not come out of its codings stays as it is.
    pub fn of(headers: &HeaderMap, body: &[u8]) -> Documents {
        let plain = plain(headers, body).unwrap_or_else(|| body.to_vec());
        let Declared::Records(framing) = declared(headers) else {
            return Documents {
                texts: vec![plain],
                are_records: false,
            };
        };
        let mut cutter = Cutter::new(framing, usize::MAX);
        cutter.push(&plain);
        cutter.end();
        let mut texts = Vec::new();
        while let Some(piece) = cutter.cut() {
            if let Piece::Record { all, text } = piece {
                let document = Document::of(framing, cutter.bytes(), all, text);
                texts.extend(document.text().map(<[u8]>::to_vec));
            }
        }
        Documents {
            texts,
            are_records: true,
        }
    }
}

fn plain(headers: &HeaderMap, body: &[u8]) -> Option<Vec<u8>> {
    let codings = Codings::of(headers).ok()?;
    if codings.is_identity() {
        return None;
    }
    let mut plain = Vec::new();
    let mut decoder = Decoder::new(&codings).limited(DECODED_BYTES_MAX);
    decoder.feed(body, &mut plain).ok()?;
    decoder.finish().ok().map(|_| plain)
}
