//! The strict grammar of a chunked body (RFC 9112 section 7.1), a byte at a time, so that the next head's beginning is
//! known. It keeps no byte of the body.

use super::head::{LINES_MAX, is_field_byte, is_tchar};
use crate::error::Code;

/// Digits of a chunk's size, leading zeros among them; the value stays below 2^63.
const SIZE_DIGITS_MAX: u8 = 16;
/// Bytes of one chunk's extensions.
const EXTENSION_BYTES_MAX: u32 = 256;
/// Bytes of all extensions of a body (hyper allows as many).
const EXTENSIONS_BYTES_MAX: u32 = 16 * 1024;
/// Bytes of the trailer section.
const TRAILER_BYTES_MAX: u32 = 8 * 1024;

/// Where in a chunked body we are.
#[derive(Debug)]
pub struct ChunkScan {
    state: State,
    extensions: u32,
    trailer_bytes: u32,
    trailer_lines: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Before the first digit of a size.
    SizeStart,
    /// The size so far, and its digits.
    Size(u64, u8),
    Extension(u64, u32),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    LineStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
}

impl Default for ChunkScan {
    fn default() -> ChunkScan {
        ChunkScan {
            state: State::SizeStart,
            extensions: 0,
            trailer_bytes: 0,
            trailer_lines: 0,
        }
    }
}

impl ChunkScan {
    /// Reads on. Returns how many bytes of `input` belong to this body, and whether it is complete; an error comes
    /// with the count of bytes before it.
    pub fn advance(&mut self, input: &[u8]) -> Result<(usize, bool), (usize, Code)> {
        let mut at = 0;
        while at < input.len() {
            if let State::Data(left) = self.state {
                let take = usize::try_from(left)
                    .unwrap_or(usize::MAX)
                    .min(input.len() - at);
                at += take;
                let left = left - take as u64;
                self.state = if left == 0 {
                    State::DataCr
                } else {
                    State::Data(left)
                };
                continue;
            }
            self.state = match self.step(input[at]) {
                Ok(Some(next)) => next,
                Ok(None) => return Ok((at + 1, true)),
                Err(code) => return Err((at, code)),
            };
            at += 1;
        }
        Ok((at, false))
    }

    /// One byte outside of chunk data; `None` is the end of the body.
    fn step(&mut self, byte: u8) -> Result<Option<State>, Code> {
        Ok(Some(match (self.state, byte) {
            (State::SizeStart, _) => State::Size(hex(byte).ok_or(Code::Chunk)?, 1),
            (State::Size(size, _), b'\r') => State::SizeLf(size),
            (State::Size(size, _), b';') => State::Extension(size, 0),
            (State::Size(size, digits), _) => {
                let digit = hex(byte).ok_or(Code::Chunk)?;
                if size >= 1 << 59 || digits >= SIZE_DIGITS_MAX {
                    return Err(Code::Chunk);
                }
                State::Size(size << 4 | digit, digits + 1)
            }
            (State::Extension(size, _), b'\r') => State::SizeLf(size),
            (State::Extension(size, seen), _) if is_field_byte(byte) => {
                self.extensions += 1;
                if seen >= EXTENSION_BYTES_MAX || self.extensions > EXTENSIONS_BYTES_MAX {
                    return Err(Code::Chunk);
                }
                State::Extension(size, seen + 1)
            }
            (State::SizeLf(0), b'\n') => State::LineStart,
            (State::SizeLf(size), b'\n') => State::Data(size),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::SizeStart,
            (State::LineStart, b'\r') => State::EndLf,
            (State::LineStart, _) if is_tchar(byte) => {
                self.trailer_lines += 1;
                if self.trailer_lines > LINES_MAX {
                    return Err(Code::Chunk);
                }
                self.trailer(State::TrailerName)?
            }
            (State::TrailerName, b':') => self.trailer(State::TrailerValue)?,
            (State::TrailerName, _) if is_tchar(byte) => self.trailer(State::TrailerName)?,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) if is_field_byte(byte) => self.trailer(State::TrailerValue)?,
            (State::TrailerLf, b'\n') => State::LineStart,
            (State::EndLf, b'\n') => return Ok(None),
            _ => return Err(Code::Chunk),
        }))
    }

    fn trailer(&mut self, next: State) -> Result<State, Code> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            Err(Code::Chunk)
        } else {
            Ok(next)
        }
    }
}

fn hex(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}
