//! A body that is held in its content codings: out of them, and back into the same ones.
//!
//! The work is done in short pieces with a pause for other tasks after each, since codecs take a hundred times as long as a scan.

use super::coding::{Codings, Decoder, Encoder, Undecodable};
use super::held::{Held, Room};
use bytes::Bytes;
use std::{io, mem};
use tokio::task::yield_now;

/// Bytes that are coded between two pauses, which takes about a millisecond.
const CODED_PIECE: usize = 16 << 10;
/// Bytes that are encoded between two pauses.
const PLAIN_PIECE: usize = 64 << 10;

/// What a held body was before its codings were taken off.
#[derive(Debug)]
pub struct Coded {
    /// As it came.
    pub bytes: Bytes,
    /// What was taken off, for [`encode`].
    pub codings: Codings,
}

/// Why the codings of a held body were not taken off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Undecoded {
    /// It is not what its codings say, or becomes too much.
    Undecodable(Undecodable),
    /// Other bodies take all the room.
    NoRoom,
}

impl From<Undecodable> for Undecoded {
    fn from(why: Undecodable) -> Undecoded {
        Undecoded::Undecodable(why)
    }
}

/// Takes the codings off: `held` has the plain bytes then, and room for both. After an error it is as it was.
///
/// # Errors
/// See [`Undecoded`].
pub async fn decode(
    held: &mut Held,
    codings: &Codings,
    limit: usize,
    room: &Room,
) -> Result<Coded, Undecoded> {
    let mut decoder = Decoder::new(codings).limited(limit);
    let mut plain = Vec::new();
    for piece in held.bytes.chunks(CODED_PIECE) {
        decoder.feed(piece, &mut plain)?;
        if !room.enlarge(&mut held.room, held.bytes.len() + plain.len()) {
            return Err(Undecoded::NoRoom);
        }
        yield_now().await;
    }
    let codings = decoder.finish()?;
    let bytes = mem::replace(&mut held.bytes, plain.into());
    Ok(Coded { bytes, codings })
}

/// A body in `codings`.
///
/// # Errors
/// As [`Encoder::feed`].
pub async fn encode(plain: &[u8], codings: &Codings) -> io::Result<Bytes> {
    let mut encoder = Encoder::new(codings);
    let mut coded = Vec::new();
    for piece in plain.chunks(PLAIN_PIECE) {
        encoder.feed(piece, &mut coded)?;
        yield_now().await;
    }
    encoder.finish(&mut coded)?;
    Ok(coded.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::coding::Coding;

    async fn held(plain: &[u8], codings: &Codings) -> Held {
        Held {
            bytes: encode(plain, codings).await.unwrap(),
            trailers: None,
            room: None,
        }
    }

    #[tokio::test]
    async fn out_and_back() {
        let codings = Codings::from([Coding::Gzip, Coding::Brotli]);
        let plain = b"{\"ssn\":\"078-05-1120\"}".repeat(20_000);
        let mut held = held(&plain, &codings).await;
        let as_it_came = held.bytes.clone();
        let room = Room::new(4 << 20);
        let coded = decode(&mut held, &codings, 1 << 20, &room).await.unwrap();
        assert!(held.bytes == plain);
        assert_eq!(coded.bytes, as_it_came);
        assert_eq!(coded.codings, codings);
        let taken = room
            .could_take(4 << 20)
            .then(|| (4 << 20) / 4096 - room.free());
        assert_eq!(taken, Some((plain.len() + as_it_came.len()).div_ceil(4096)));
        drop(held);
        assert_eq!(room.free(), (4 << 20) / 4096);
    }

    #[tokio::test]
    async fn bounds_are_kept_and_the_body_is_still_there() {
        let codings = Codings::from([Coding::Zstd]);
        let plain = b"[1,2,3]".repeat(30_000);
        let mut held = held(&plain, &codings).await;
        let as_it_came = held.bytes.clone();
        let (large, small) = (Room::new(4 << 20), Room::new(100 << 10));
        let limit = plain.len() - 1;
        let decoded = decode(&mut held, &codings, limit, &large).await;
        assert_eq!(decoded.map(drop), Err(Undecodable::TooLarge.into()));
        let decoded = decode(&mut held, &codings, plain.len(), &small).await;
        assert_eq!(decoded.map(drop), Err(Undecoded::NoRoom));
        held.bytes.truncate(as_it_came.len() - 1);
        let decoded = decode(&mut held, &codings, plain.len(), &large).await;
        let broken = Undecoded::Undecodable(Undecodable::Broken);
        assert_eq!(decoded.map(drop), Err(broken));
        held.bytes = as_it_came;
        assert!(
            decode(&mut held, &codings, plain.len(), &large)
                .await
                .is_ok()
        );
    }
}
