//! Streams of records, each rewritten by itself and passed on as soon as it is whole.

use super::Engine;
use crate::audit::Side;
use crate::body::Broken;
use crate::body::coding::Undecodable;
use crate::body::flow::{Rewrite, Work};
use crate::body::records::{Cutter, Document, Framing, Piece};
use crate::error::Code;
use crate::transform::{Gather, GatheredPart, Refusal, quoted};
use http::HeaderMap;
use std::ops::Range;

/// Rewrites a stream of records.
pub struct Records {
    engine: Engine,
    framing: Framing,
    cutter: Cutter,
    gather: Option<Gather>,
    template: Template,
    ended: bool,
}

impl Records {
    /// `limit`: bytes of one record, at most.
    pub fn new(engine: Engine, framing: Framing, limit: usize) -> Records {
        Records {
            gather: engine.gather(),
            engine,
            framing,
            cutter: Cutter::new(framing, limit),
            template: Template {
                framing,
                record: Vec::new(),
                text: 0..0,
            },
            ended: false,
        }
    }

    async fn record(
        &mut self,
        all: Range<usize>,
        text: Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        let gathering = self.gather.as_ref().map_or(0, Gather::memory);
        let kept = self.cutter.pending() + out.len() + gathering;
        let document = Document::of(self.framing, self.cutter.bytes(), all, text);
        if let Some(offset) = document.foreign()
            && self.engine.must_understand()
        {
            let what = "a line of an event is no comment and no field of events";
            self.engine
                .judge(Refusal::NotJson { offset, what }.into())?;
            out.extend_from_slice(document.whole());
            return Ok(());
        }
        let Some(text) = document.text() else {
            // What ends a stream says that nothing goes on.
            if document.is_mark()
                && let Some(gather) = &mut self.gather
            {
                for before in gather.flush() {
                    self.template.write(&before, out);
                }
            }
            out.extend_from_slice(document.whole());
            return Ok(());
        };
        let rewritten = self.engine.rewrite(text, kept).await;
        let mut new = match rewritten {
            Ok(new) => new,
            Err(failure) => {
                self.engine.judge(failure)?;
                out.extend_from_slice(document.whole());
                return Ok(());
            }
        };
        if let Some(gather) = &mut self.gather {
            let plain = new.as_deref().unwrap_or(text);
            let gathered = self.engine.apart(gather, plain);
            for before in gathered.before {
                self.template.write(&before, out);
            }
            self.template.like(&document, gather);
            let mut joined = Vec::new();
            let mut copied = 0;
            for (span, parts) in gathered.texts {
                joined.extend_from_slice(&plain[copied..span.start]);
                match self.engine.together(&parts).await {
                    Ok(text) => joined.extend_from_slice(&text),
                    Err(failure) => {
                        self.engine.judge(failure)?;
                        joined.extend_from_slice(&as_it_came(&parts));
                    }
                }
                copied = span.end;
            }
            if copied > 0 {
                joined.extend_from_slice(&plain[copied..]);
                new = Some(joined);
            }
        }
        match new {
            None => out.extend_from_slice(document.whole()),
            Some(new) => document.write(&new, out),
        }
        Ok(())
    }

    /// The stream is over: what is held back goes on.
    fn flush(&mut self, out: &mut Vec<u8>) {
        let held = self.gather.as_mut().map(Gather::flush).unwrap_or_default();
        if !held.is_empty() && !matches!(self.template.record.last(), Some(b'\n' | b'\r')) {
            // The last record had no end, which it needs now.
            out.extend_from_slice(match self.framing {
                Framing::Events => b"\n\n",
                Framing::Lines | Framing::Sequence => &b"\n"[..],
            });
        }
        for document in held {
            self.template.write(&document, out);
        }
    }
}

/// A gathered text whose tokens could not be looked into.
fn as_it_came(parts: &[GatheredPart]) -> Vec<u8> {
    let texts = parts.iter().map(|part| match part {
        GatheredPart::Text(text) | GatheredPart::Token(_, text) => text.as_str(),
    });
    quoted(&texts.collect::<String>())
}

/// How a record stood in the stream, for one that is made of what was held back.
struct Template {
    framing: Framing,
    /// The last record that something was held back of.
    record: Vec<u8>,
    text: Range<usize>,
}

impl Template {
    /// Keeps this record's form, while something is held back.
    fn like(&mut self, document: &Document<'_>, gather: &Gather) {
        if gather.memory() > 0 {
            self.record.clear();
            self.record.extend_from_slice(document.whole());
            self.text = document.span();
        }
    }

    fn write(&self, text: &[u8], out: &mut Vec<u8>) {
        let all = 0..self.record.len();
        Document::of(self.framing, &self.record, all, self.text.clone()).write(text, out);
    }
}

impl Rewrite for Records {
    fn push(&mut self, bytes: &[u8]) {
        self.engine.came(bytes.len());
        self.cutter.push(bytes);
    }

    fn end(&mut self) {
        self.cutter.end();
        self.ended = true;
    }

    async fn work(&mut self, out: &mut Vec<u8>) -> Result<Work, Broken> {
        match self.cutter.cut() {
            None => {
                if self.ended {
                    self.flush(out);
                }
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
