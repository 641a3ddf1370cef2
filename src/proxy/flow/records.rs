//! Streams of records, each rewritten by itself and passed on as soon as it is whole.

use super::Engine;
use crate::audit::Side;
use crate::body::Broken;
use crate::body::coding::Undecodable;
use crate::body::flow::{Rewrite, Work};
use crate::body::records::{Cutter, Document, Framing, Piece};
use crate::error::Code;
use http::HeaderMap;
use std::ops::Range;

/// Rewrites a stream of records.
pub struct Records {
    engine: Engine,
    framing: Framing,
    cutter: Cutter,
}

impl Records {
    /// `limit`: bytes of one record, at most.
    pub fn new(engine: Engine, framing: Framing, limit: usize) -> Records {
        Records {
            engine,
            framing,
            cutter: Cutter::new(framing, limit),
        }
    }

    async fn record(
        &mut self,
        all: Range<usize>,
        text: Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        let kept = self.cutter.pending() + out.len();
        let document = Document::of(self.framing, self.cutter.bytes(), all, text);
        let rewritten = match document.text() {
            None => Ok(None),
            Some(text) => self.engine.rewrite(text, kept).await,
        };
        match rewritten {
            Ok(None) => out.extend_from_slice(document.whole()),
            Ok(Some(new)) => document.write(&new, out),
            Err(failure) => {
                self.engine.judge(failure)?;
                out.extend_from_slice(document.whole());
            }
        }
        Ok(())
    }
}

impl Rewrite for Records {
    fn push(&mut self, bytes: &[u8]) {
        self.engine.came(bytes.len());
        self.cutter.push(bytes);
    }

    fn end(&mut self) {
        self.cutter.end();
    }

    async fn work(&mut self, out: &mut Vec<u8>) -> Result<Work, Broken> {
        match self.cutter.cut() {
            None => {
                if let Err(failure) = self.engine.keep(self.cutter.pending()) {
                    self.engine.judge(failure)?;
                    self.cutter.pass_over();
                    return Ok(Work::More);
                }
                return Ok(Work::Wanting);
            }
            Some(Piece::Between(between)) => {
                out.extend_from_slice(&self.cutter.bytes()[between]);
            }
            Some(Piece::Record { all, text }) => self.record(all, text, out).await?,
            Some(Piece::TooLong) => {
                let code = match self.engine.side {
                    Side::Request => Code::RecordTooLarge,
                    Side::Response => Code::UpstreamUnreadable,
                };
                let error = code.because("a record over the limit");
                self.engine.unreadable(error, "too-large")?;
                self.cutter.pass_over();
            }
        }
        Ok(Work::More)
    }

    fn undecodable(&mut self, why: Undecodable, begun: bool) -> Result<(), Broken> {
        self.engine.undecodable(why, begun)
    }

    fn trailers(&mut self, trailers: &mut HeaderMap) {
        self.engine.trailers(trailers);
    }
}
