//! Cutting a stream into its records: lines of JSON, JSON text sequences (RFC 7464), server-sent events (HTML Living Standard,
//! section 9.2.6). A record is given out as soon as it is whole, wherever the stream was split before.
//!
//! What a record says is nobody's business here; every byte of the stream is given out once, in its order.

pub mod events;

use events::Data;
use std::borrow::Cow;
use std::ops::Range;

/// How records stand in a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// One JSON document a line: NDJSON, JSON Lines.
    Lines,
    /// Each behind a record separator (0x1E).
    Sequence,
    /// Fields in lines, an empty line behind each event.
    Events,
}

/// What ends streams of some services that are JSON otherwise.
const DONE: &[u8] = b"[DONE]";

/// A stretch of the stream, in [`Cutter::bytes`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// A record with its separators. `text`: where the JSON text is, in a stretch of lines or of a sequence.
    Record {
        /// All of it.
        all: Range<usize>,
        /// Between its separators; of an event, all.
        text: Range<usize>,
    },
    /// No part of a record, or the rest of one that is [passed over](Cutter::pass_over).
    Between(Range<usize>),
    /// A record that is longer than the limit has begun; it is not given out until it is passed over.
    TooLong,
}

const SEPARATOR: u8 = 0x1e;
/// What an empty buffer may keep of its memory.
const KEPT_BYTES: usize = 64 << 10;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// The cutter of one stream.
pub struct Cutter {
    framing: Framing,
    /// Bytes of a record, at most.
    limit: usize,
    buffer: Vec<u8>,
    /// Given out up to here.
    given: usize,
    /// Looked at up to here.
    seen: usize,
    scan: Scan,
    /// The rest of this record is given out as it comes.
    passing: bool,
    ended: bool,
    /// Nothing was given out yet.
    fresh: bool,
}

/// Where the scan is within a record.
#[derive(Clone, Copy, Default)]
struct Scan {
    /// Of a sequence: containers that are open.
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// Something that is not white space stood in this record.
    some: bool,
    /// Of events: the line has a byte.
    in_line: bool,
    /// The byte before was a CR that ended a line.
    behind_cr: bool,
}

impl Cutter {
    /// `limit`: bytes of one record, at most.
    pub fn new(framing: Framing, limit: usize) -> Cutter {
        Cutter {
            framing,
            limit,
            buffer: Vec::new(),
            given: 0,
            seen: 0,
            scan: Scan::default(),
            passing: false,
            ended: false,
            fresh: true,
        }
    }

    /// More of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.given);
        self.seen -= self.given;
        self.given = 0;
        if self.buffer.is_empty() {
            self.buffer.shrink_to(KEPT_BYTES);
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The stream is over: what there is is a record.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// What the ranges of pieces are of, until more is pushed.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Bytes that came and were not given out.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.given
    }

    /// Gives out the record under way as it comes, to its end.
    pub fn pass_over(&mut self) {
        self.passing = true;
    }

    /// The next piece; `None` until more is pushed.
    pub fn cut(&mut self) -> Option<Piece> {
        if self.fresh && self.framing == Framing::Events {
            let head = &self.buffer[..self.buffer.len().min(BOM.len())];
            if head == BOM {
                self.fresh = false;
                self.seen = BOM.len();
                return Some(Piece::Between(self.give(BOM.len())));
            }
            if BOM.starts_with(head) && !self.ended {
                return None;
            }
        }
        self.fresh = false;
        let found = match self.framing {
            Framing::Lines => self.line(),
            Framing::Sequence => self.element(),
            Framing::Events => self.event(),
        };
        if let Some(end) = found {
            self.seen = end;
            return Some(self.whole(end));
        }
        let rest = self.pending();
        if self.passing && rest > 0 {
            return Some(Piece::Between(self.give(self.buffer.len())));
        }
        if self.ended && rest > 0 {
            return Some(self.whole(self.buffer.len()));
        }
        (rest > self.limit).then_some(Piece::TooLong)
    }

    /// Up to here it is a record, or what stands between two.
    fn whole(&mut self, end: usize) -> Piece {
        if end - self.given > self.limit && !self.passing {
            // It is looked at again when it is known what becomes of it.
            self.seen = self.given;
            self.scan = Scan {
                behind_cr: false,
                ..Scan::default()
            };
            return Piece::TooLong;
        }
        let some = self.scan.some;
        self.scan = Scan {
            behind_cr: self.scan.behind_cr,
            ..Scan::default()
        };
        let all = self.give(end);
        if std::mem::take(&mut self.passing) || !some {
            return Piece::Between(all);
        }
        let bytes = &self.buffer[all.clone()];
        let text = match self.framing {
            Framing::Lines => {
                let end = bytes.strip_suffix(b"\n").unwrap_or(bytes).len();
                all.start..all.start + end
            }
            Framing::Sequence => {
                let separators = bytes.iter().take_while(|b| **b == SEPARATOR).count();
                all.start + separators..all.end
            }
            Framing::Events => all.clone(),
        };
        Piece::Record { all, text }
    }

    fn give(&mut self, end: usize) -> Range<usize> {
        let all = self.given..end;
        self.given = end;
        all
    }

    /// Behind the next line feed.
    fn line(&mut self) -> Option<usize> {
        while let Some(byte) = self.buffer.get(self.seen) {
            self.seen += 1;
            match byte {
                b'\n' => return Some(self.seen),
                b' ' | b'\t' | b'\r' => {}
                _ => self.scan.some = true,
            }
        }
        None
    }

    /// Behind the line feed that ends an element, or before the separator of the next one.
    fn element(&mut self) -> Option<usize> {
        while let Some(byte) = self.buffer.get(self.seen) {
            let scan = &mut self.scan;
            // It stands in no JSON text, so that even a broken element ends here.
            if *byte == SEPARATOR {
                if scan.some {
                    return Some(self.seen);
                }
                self.seen += 1;
                continue;
            }
            self.seen += 1;
            match byte {
                _ if scan.escaped => scan.escaped = false,
                b'\\' if scan.in_string => scan.escaped = true,
                b'"' => {
                    scan.in_string = !scan.in_string;
                    scan.some = true;
                }
                _ if scan.in_string => {}
                b'{' | b'[' => {
                    scan.depth = scan.depth.saturating_add(1);
                    scan.some = true;
                }
                b'}' | b']' => {
                    scan.depth = scan.depth.saturating_sub(1);
                    scan.some = true;
                }
                b'\n' if scan.depth == 0 && scan.some => return Some(self.seen),
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ => scan.some = true,
            }
        }
        None
    }

    /// Behind the empty line that ends an event.
    fn event(&mut self) -> Option<usize> {
        while let Some(byte) = self.buffer.get(self.seen).copied() {
            let at_start = self.seen == self.given;
            self.seen += 1;
            let scan = &mut self.scan;
            let behind_cr = std::mem::take(&mut scan.behind_cr);
            match byte {
                // The second half of a line's end; it may come behind the event that the first half ended.
                b'\n' if behind_cr => {
                    if at_start {
                        return Some(self.seen);
                    }
                }
                b'\r' | b'\n' if scan.in_line => {
                    scan.in_line = false;
                    scan.behind_cr = byte == b'\r';
                }
                b'\r' | b'\n' => {
                    let both = byte == b'\r' && self.buffer.get(self.seen) == Some(&b'\n');
                    self.seen += usize::from(both);
                    scan.behind_cr = byte == b'\r' && !both;
                    return Some(self.seen);
                }
                _ => {
                    scan.in_line = true;
                    scan.some = true;
                }
            }
        }
        None
    }
}

/// A record and the JSON text in it.
pub struct Document<'s> {
    whole: &'s [u8],
    /// In `whole`; of an event, all.
    text: Range<usize>,
    /// Of an event that has some.
    data: Option<(Data<'s>, Cow<'s, [u8]>)>,
    foreign: Option<usize>,
    framing: Framing,
}

impl<'s> Document<'s> {
    /// Of a [`Piece::Record`] that was cut from `bytes`.
    pub fn of(framing: Framing, bytes: &'s [u8], all: Range<usize>, text: Range<usize>) -> Self {
        let whole = &bytes[all.clone()];
        let data = match framing {
            Framing::Events => Some(Data::of(whole)),
            Framing::Lines | Framing::Sequence => None,
        };
        let foreign = data.as_ref().and_then(Data::foreign);
        Document {
            whole,
            text: text.start - all.start..text.end - all.start,
            data: data.filter(|data| !data.is_empty()).map(|data| {
                let text = data.text();
                (data, text)
            }),
            foreign,
            framing,
        }
    }

    /// As it came.
    pub fn whole(&self) -> &'s [u8] {
        self.whole
    }

    /// Where the JSON text stands in it; of an event, all.
    pub fn span(&self) -> Range<usize> {
        self.text.clone()
    }

    /// Where a line begins that belongs to no event: it is not looked into, and might say anything.
    pub fn foreign(&self) -> Option<usize> {
        self.foreign
    }

    /// An event that only says that the stream is over.
    pub fn is_mark(&self) -> bool {
        let data = self.data.as_ref();
        data.is_some_and(|(_, text)| text.trim_ascii() == DONE)
    }

    /// What should be JSON; `None`: an event without data, or with a mark that is known to be none.
    pub fn text(&self) -> Option<&[u8]> {
        let text = match (self.framing, &self.data) {
            (Framing::Events, None) => return None,
            (_, Some((_, text))) => text,
            (Framing::Lines | Framing::Sequence, None) => &self.whole[self.text.clone()],
        };
        let bare = text.trim_ascii();
        (!bare.is_empty() && bare != DONE).then_some(text)
    }

    /// Appends the record with another text.
    pub fn write(&self, text: &[u8], out: &mut Vec<u8>) {
        if let Some((data, _)) = &self.data {
            return data.write(text, out);
        }
        out.extend_from_slice(&self.whole[..self.text.start]);
        out.extend_from_slice(text);
        out.extend_from_slice(&self.whole[self.text.end..]);
    }
}

#[cfg(test)]
mod tests;
