//! Lines of a reader, each in bounded memory, with their ends.

use std::io::{self, BufRead, Read};

/// Bytes of a piece of what is too long to be held.
const PIECE_BYTES: usize = 64 << 10;

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Nothing: the input is at its end.
    End,
    /// It is there to its end.
    Whole,
    /// Its start; the rest is to be taken with [`Records::piece`].
    TooLong,
}

/// A reader that counts its lines.
pub struct Records<R> {
    input: R,
    /// The line that was read last, from 1.
    line: u64,
    bytes: u64,
    max: usize,
    /// The last piece ended the line.
    ended: bool,
}

impl<R: BufRead> Records<R> {
    /// `max`: bytes of a line without its end.
    pub fn new(input: R, max: usize) -> Records<R> {
        Records {
            input,
            line: 0,
            bytes: 0,
            max,
            ended: false,
        }
    }

    /// The line that was read last, from 1; of a whole document, where that begins.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Bytes that were read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends the next line and its end.
    ///
    /// # Errors
    /// The input cannot be read.
    pub fn next(&mut self, text: &mut Vec<u8>) -> io::Result<Line> {
        let from = text.len();
        let most = self.max as u64 + 2;
        let read = (&mut self.input).take(most).read_until(b'\n', text)?;
        self.bytes += read as u64;
        if read == 0 {
            return Ok(Line::End);
        }
        self.line += 1;
        self.ended = text.ends_with(b"\n");
        let end = match text[from..] {
            [.., b'\r', b'\n'] => 2,
            [.., b'\n'] => 1,
            _ => 0,
        };
        Ok(if read - end > self.max {
            Line::TooLong
        } else {
            Line::Whole
        })
    }

    /// Appends everything to the end of the input, to one record with the line that was read last.
    ///
    /// # Errors
    /// The input cannot be read.
    pub fn rest(&mut self, text: &mut Vec<u8>) -> io::Result<Line> {
        let most = (self.max as u64 + 1).saturating_sub(text.len() as u64);
        self.bytes += (&mut self.input).take(most).read_to_end(text)? as u64;
        self.ended = false;
        Ok(if text.len() > self.max {
            Line::TooLong
        } else {
            Line::Whole
        })
    }

    /// A piece of what is left of the line, or of all that is `whole`; empty at its end.
    ///
    /// # Errors
    /// The input cannot be read.
    pub fn piece(&mut self, whole: bool) -> io::Result<Vec<u8>> {
        let mut piece = Vec::new();
        if self.ended && !whole {
            return Ok(piece);
        }
        let input = (&mut self.input).take(PIECE_BYTES as u64);
        if whole {
            let mut input = input;
            input.read_to_end(&mut piece)?;
        } else {
            let mut input = input;
            input.read_until(b'\n', &mut piece)?;
        }
        self.bytes += piece.len() as u64;
        self.ended = piece.ends_with(b"\n");
        Ok(piece)
    }
}
