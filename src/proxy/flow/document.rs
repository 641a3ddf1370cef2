//! One JSON document that is too large to be held, rewritten in pieces while it flows.

use super::{Engine, Failure};
use crate::body::Broken;
use crate::body::coding::Undecodable;
use crate::body::flow::{Rewrite, Work};
use crate::dek::Ring;
use crate::transform::{Piece, Pieces, Refusal, Rules};
use http::HeaderMap;
use std::sync::Arc;

/// Rewrites a document in pieces.
pub struct Document {
    engine: Engine,
    pieces: Pieces<Arc<Rules>>,
    /// The rest goes on as it comes.
    passing: bool,
    /// All of it was read, and what was counted beside the pieces was told.
    told: bool,
}

impl Document {
    /// `window`: bytes that wait for something, at most.
    pub fn new(engine: Engine, window: usize) -> Document {
        let (rules, circumstances) = (Arc::clone(&engine.rules), engine.circumstances.clone());
        Document {
            engine,
            pieces: Pieces::new(rules, circumstances, window),
            passing: false,
            told: false,
        }
    }

    /// The rest passes sealed, if it may.
    fn give_up(&mut self, refusal: Refusal, out: &mut Vec<u8>) -> Result<Work, Broken> {
        self.tell();
        self.engine.judge(refusal.into())?;
        self.passing = true;
        out.append(&mut self.pieces.rest());
        Ok(Work::Wanting)
    }

    fn tell(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            self.engine.slip.tally(&self.pieces.unforeseen());
        }
    }
}

/// The keys of a piece, and what they make of it.
async fn rewrite(engine: &mut Engine, piece: &Piece<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
    if piece.is_unchanged() {
        engine.slip.tally(piece.tally());
        out.extend_from_slice(&piece.bytes);
        return Ok(());
    }
    let ring = engine
        .keys
        .fetch_further(piece.needs(), &mut engine.uncached);
    let ring: Ring = ring.await?;
    let mut random = |buffer: &mut [u8]| engine.keys.random(buffer);
    let tally = piece.apply(&ring, &mut random, out)?;
    engine.slip.tally(&tally);
    Ok(())
}

impl Rewrite for Document {
    fn push(&mut self, bytes: &[u8]) {
        self.engine.came(bytes.len());
        self.pieces.push(bytes);
    }

    fn end(&mut self) {
        self.pieces.end();
    }

    async fn work(&mut self, out: &mut Vec<u8>) -> Result<Work, Broken> {
        if self.passing {
            out.append(&mut self.pieces.rest());
            return Ok(Work::Wanting);
        }
        let before = out.len();
        match self.pieces.piece() {
            Ok(Some(piece)) => {
                let rewritten = rewrite(&mut self.engine, &piece, out).await;
                if let Err(failure) = rewritten {
                    self.engine.judge(failure)?;
                    out.truncate(before);
                    out.extend_from_slice(&piece.bytes);
                }
                Ok(Work::More)
            }
            Ok(None) => {
                if self.pieces.is_over() {
                    self.tell();
                }
                Ok(Work::Wanting)
            }
            Err(refusal) => self.give_up(refusal, out),
        }
    }

    fn undecodable(&mut self, why: Undecodable, begun: bool) -> Result<(), Broken> {
        self.engine.undecodable(why, begun)
    }

    fn trailers(&mut self, trailers: &mut HeaderMap) {
        self.engine.trailers(trailers);
    }
}
