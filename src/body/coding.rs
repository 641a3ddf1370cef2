//! Content codings (RFC 9110 section 8.4): taken off in pieces, within bounds, and put on again.
//!
//! The codecs are other people's; this room knows which codings there are, stacks two of them, bounds what comes out by what went in,
//! and tells a body that is whole from one that was cut. It waits for nothing and never looks into what it decodes.

use compression_codecs::brotli::params::EncoderParams as BrotliParams;
use compression_codecs::core::Level;
use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use compression_codecs::zstd::params::DParameter;
use compression_codecs::{
    BrotliDecoder, BrotliEncoder, DecodeV2, DeflateDecoder, DeflateEncoder, EncodeV2, GzipDecoder,
    GzipEncoder, ZlibDecoder, ZlibEncoder, ZstdDecoder, ZstdEncoder,
};
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue};
use std::{fmt, io};

/// The most codings on top of each other.
const STACKED_MAX: usize = 2;
/// What a body may decode to, whatever its length.
const INFLATED_FREE: u64 = 1 << 20;
/// Beyond that, how many bytes one byte may become.
const INFLATION_MAX: u64 = 100;
/// The window of zstd, in bits: 8 MB, which is what RFC 9659 allows on the web.
const ZSTD_WINDOW_BITS_MAX: u32 = 23;
/// Bytes that a codec is given room for at a time.
const WINDOW: usize = 16 << 10;

/// One content coding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coding {
    /// RFC 1952; also `x-gzip`.
    Gzip,
    /// `deflate`: a zlib stream (RFC 1950), as it should be.
    Zlib,
    /// `deflate`: bare (RFC 1951), as some send it.
    Deflate,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

/// The codings of one body, in the order in which they were put on. None at all is `identity`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Codings(Vec<Coding>);

/// A Content-Encoding that names what is not known here, or too much of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unknown;

impl Codings {
    /// What Content-Encoding says, over all its lines. `identity` and empty elements mean nothing.
    ///
    /// # Errors
    /// [`Unknown`]: a coding that is not known, a parameter, bytes beyond ASCII, or more than two codings.
    pub fn of(headers: &HeaderMap) -> Result<Codings, Unknown> {
        let mut codings = Vec::new();
        for line in headers.get_all(CONTENT_ENCODING) {
            for name in line.to_str().map_err(|_| Unknown)?.split(',') {
                let name = name.trim_matches([' ', '\t']);
                if !name.is_empty() && !name.eq_ignore_ascii_case("identity") {
                    codings.push(known(name).ok_or(Unknown)?);
                }
            }
        }
        match codings.len() {
            0..=STACKED_MAX => Ok(Codings(codings)),
            _ => Err(Unknown),
        }
    }

    /// No coding: the bytes are the body.
    pub fn is_identity(&self) -> bool {
        self.0.is_empty()
    }
}

impl<const N: usize> From<[Coding; N]> for Codings {
    fn from(codings: [Coding; N]) -> Codings {
        Codings(codings.into())
    }
}

/// A coding by its registered name. `deflate` shows in its first bytes which of the two it is.
fn known(name: &str) -> Option<Coding> {
    let names = [
        ("gzip", Coding::Gzip),
        ("x-gzip", Coding::Gzip),
        ("deflate", Coding::Zlib),
        ("br", Coding::Brotli),
        ("zstd", Coding::Zstd),
    ];
    let mut names = names.into_iter();
    names
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, coding)| coding)
}

/// Makes Accept-Encoding ask for nothing that cannot be decoded here: of what the client takes, what is known. Where nothing is left,
/// or the client said nothing, `identity`.
pub fn accept(headers: &mut HeaderMap) {
    let mut kept = Vec::new();
    for line in headers.get_all(ACCEPT_ENCODING) {
        for element in line.to_str().unwrap_or("").split(',') {
            let element = element.trim_matches([' ', '\t']);
            let name = element.split(';').next().unwrap_or("").trim_ascii_end();
            if known(name).is_some() || name.eq_ignore_ascii_case("identity") {
                kept.push(element);
            }
        }
    }
    let value = HeaderValue::from_str(&kept.join(", "));
    let value = value.ok().filter(|value| !value.is_empty());
    headers.insert(
        ACCEPT_ENCODING,
        value.unwrap_or(HeaderValue::from_static("identity")),
    );
}

/// Why a body cannot be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Undecodable {
    /// It is not what its coding says, it was cut, or something follows it.
    Broken,
    /// It becomes far more than it is: over 1 MiB, and over 100 times as long.
    Inflation,
    /// It becomes longer than its holder takes.
    TooLarge,
}

impl Undecodable {
    /// Stable; for records.
    pub fn word(self) -> &'static str {
        match self {
            Undecodable::Broken => "coding-broken",
            Undecodable::Inflation => "inflation",
            Undecodable::TooLarge => "too-large",
        }
    }
}

impl From<io::Error> for Undecodable {
    fn from(_: io::Error) -> Undecodable {
        Undecodable::Broken
    }
}

/// Takes codings off a body that comes in pieces.
pub struct Decoder {
    /// Outermost first.
    layers: Vec<Layer>,
    /// Coded bytes so far.
    taken: u64,
    /// What the output may grow to.
    limit: usize,
}

/// One coding, while it is taken off.
struct Layer {
    coding: Coding,
    codec: Box<dyn DecodeV2 + Send>,
    state: State,
    /// What it became so far.
    given: u64,
}

enum State {
    /// The first byte of `deflate`, if it came alone: with the second one it shows what it is.
    Sniffing(Option<u8>),
    Within,
    /// A member (gzip) or frame (zstd) is complete; another one may follow.
    Between,
}

impl Decoder {
    /// For a body with these codings.
    pub fn new(codings: &Codings) -> Decoder {
        let layers = codings.0.iter().rev().map(|coding| Layer::new(*coding));
        Decoder {
            layers: layers.collect(),
            taken: 0,
            limit: usize::MAX,
        }
    }

    /// Gives up before the output is longer than `limit`: a few bytes of zstd or brotli may become megabytes.
    pub fn limited(mut self, limit: usize) -> Decoder {
        self.limit = limit;
        self
    }

    /// Appends to `out` what the next piece decodes to: at most 1 MiB and 100 times all that came so far.
    ///
    /// # Errors
    /// See [`Undecodable`]; the decoder is of no more use then.
    pub fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), Undecodable> {
        self.taken += piece.len() as u64;
        let most = INFLATED_FREE.saturating_add(INFLATION_MAX.saturating_mul(self.taken));
        let bounds = Bounds {
            each: most,
            whole: self.limit,
        };
        peel(&mut self.layers, piece, bounds, out)
    }

    /// The body has ended: was it whole?
    ///
    /// # Errors
    /// [`Undecodable::Broken`]: it was cut.
    pub fn is_whole(&mut self) -> Result<(), Undecodable> {
        match self.layers.iter_mut().all(Layer::is_whole) {
            true => Ok(()),
            false => Err(Undecodable::Broken),
        }
    }

    /// The body has ended, and it was whole.
    ///
    /// # Errors
    /// As [`Decoder::is_whole`].
    pub fn finish(mut self) -> Result<Codings, Undecodable> {
        self.is_whole()?;
        let found = self.layers.iter().rev().map(|layer| layer.coding);
        Ok(Codings(found.collect()))
    }
}

/// What decoding may come to.
#[derive(Clone, Copy)]
struct Bounds {
    /// Bytes out of any layer so far.
    each: u64,
    /// Bytes of the output.
    whole: usize,
}

/// Through the first layer, and what comes out of it through those below.
fn peel(
    layers: &mut [Layer],
    piece: &[u8],
    bounds: Bounds,
    out: &mut Vec<u8>,
) -> Result<(), Undecodable> {
    let Some((layer, below)) = layers.split_first_mut() else {
        if piece.len() > bounds.whole.saturating_sub(out.len()) {
            return Err(Undecodable::TooLarge);
        }
        out.extend_from_slice(piece);
        return Ok(());
    };
    let sniffed;
    let mut piece = piece;
    if let State::Sniffing(first) = &mut layer.state {
        let together: Vec<u8> = first.iter().chain(piece).copied().collect();
        if let [only] = together[..] {
            *first = Some(only);
            return Ok(());
        }
        if together.is_empty() {
            return Ok(());
        }
        if !is_zlib(together[0], together[1]) {
            *layer = Layer::new(Coding::Deflate);
        }
        layer.state = State::Within;
        sniffed = together;
        piece = &sniffed;
    }
    let mut input = PartialBuffer::new(piece);
    let mut window = [0; WINDOW];
    loop {
        if input.unwritten().is_empty() {
            return Ok(());
        }
        if let State::Between = layer.state {
            match layer.coding {
                Coding::Gzip | Coding::Zstd => layer.codec.reinit()?,
                Coding::Zlib | Coding::Deflate | Coding::Brotli => {
                    return Err(Undecodable::Broken);
                }
            }
            layer.state = State::Within;
        }
        let mut output = WriteBuffer::new_initialized(&mut window);
        if layer.codec.decode(&mut input, &mut output)? {
            layer.state = State::Between;
        }
        // The deflate family has a window of its own, and stops where that is full whatever room there is here.
        let mut more = match layer.coding {
            Coding::Gzip | Coding::Zlib | Coding::Deflate => true,
            Coding::Brotli | Coding::Zstd => output.has_no_spare_space(),
        };
        layer.pass(output.written(), below, bounds, out)?;
        // What the codec still holds would have to wait for the next piece, which may not come before an answer to this one.
        while more && input.unwritten().is_empty() && matches!(layer.state, State::Within) {
            let mut output = WriteBuffer::new_initialized(&mut window);
            layer.drain(&mut output)?;
            more = match layer.coding {
                Coding::Gzip | Coding::Zlib | Coding::Deflate => output.written_len() > 0,
                Coding::Brotli | Coding::Zstd => output.has_no_spare_space(),
            };
            layer.pass(output.written(), below, bounds, out)?;
        }
    }
}

/// The header of a zlib stream (RFC 1950 section 2.2): method 8, a window of at most 32 KiB, and a check sum.
fn is_zlib(first: u8, second: u8) -> bool {
    first & 0x0f == 8 && first >> 4 <= 7 && u16::from_be_bytes([first, second]).is_multiple_of(31)
}

impl Layer {
    fn new(coding: Coding) -> Layer {
        let window = DParameter::window_log_max(ZSTD_WINDOW_BITS_MAX);
        let codec: Box<dyn DecodeV2 + Send> = match coding {
            Coding::Gzip => Box::new(GzipDecoder::new()),
            Coding::Zlib => Box::new(ZlibDecoder::new()),
            Coding::Deflate => Box::new(DeflateDecoder::new()),
            Coding::Brotli => Box::new(BrotliDecoder::new()),
            Coding::Zstd => Box::new(ZstdDecoder::new_with_params(&[window])),
        };
        let state = match coding {
            Coding::Zlib => State::Sniffing(None),
            _ => State::Within,
        };
        Layer {
            coding,
            codec,
            state,
            given: 0,
        }
    }

    /// What the codec has decoded and had no room for. The codecs of the deflate family take a call without input for an error, and do
    /// not say here that they have reached the end.
    fn drain(&mut self, output: &mut WriteBuffer<'_>) -> io::Result<()> {
        match self.coding {
            Coding::Gzip | Coding::Zlib | Coding::Deflate => self.codec.flush(output).map(drop),
            Coding::Brotli | Coding::Zstd => {
                if self.codec.decode(&mut PartialBuffer::new(&[]), output)? {
                    self.state = State::Between;
                }
                Ok(())
            }
        }
    }

    fn is_whole(&mut self) -> bool {
        match (&self.state, self.coding) {
            (State::Between, _) => true,
            (State::Within, Coding::Zlib | Coding::Deflate) => {
                let mut window = [0];
                let mut output = WriteBuffer::new_initialized(&mut window);
                let done = self.codec.finish(&mut output);
                matches!(done, Ok(true)) && output.written_len() == 0
            }
            _ => false,
        }
    }

    fn pass(
        &mut self,
        decoded: &[u8],
        below: &mut [Layer],
        bounds: Bounds,
        out: &mut Vec<u8>,
    ) -> Result<(), Undecodable> {
        self.given += decoded.len() as u64;
        if self.given > bounds.each {
            return Err(Undecodable::Inflation);
        }
        peel(below, decoded, bounds, out)
    }
}

/// Puts codings on a body that comes in pieces.
pub struct Encoder {
    /// Innermost first.
    layers: Vec<Box<dyn EncodeV2 + Send>>,
}

/// What an encoder is asked to do with what it has.
#[derive(Clone, Copy)]
enum Push {
    Feed,
    Flush,
    Finish,
}

impl Encoder {
    /// With the codings that [`Decoder::finish`] found, or a new body's. Levels are those at which a server codes on the fly.
    pub fn new(codings: &Codings) -> Encoder {
        let layers = codings.0.iter().map(|coding| -> Box<dyn EncodeV2 + Send> {
            let level = Level::Precise(4);
            match coding {
                Coding::Gzip => Box::new(GzipEncoder::new(level.into())),
                Coding::Zlib => Box::new(ZlibEncoder::new(level.into())),
                Coding::Deflate => Box::new(DeflateEncoder::new(level.into())),
                // 18 bits: 256 KiB, and memory to match.
                Coding::Brotli => Box::new(BrotliEncoder::new(
                    BrotliParams::default().quality(level).window_size(18),
                )),
                Coding::Zstd => Box::new(ZstdEncoder::new(3)),
            }
        });
        Encoder {
            layers: layers.collect(),
        }
    }

    /// Appends to `out` what of the coded body is ready.
    ///
    /// # Errors
    /// The codec's own; none is known.
    pub fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        wrap(&mut self.layers, piece, Push::Feed, out)
    }

    /// Appends to `out` all that is held back, so that the reader can decode what was fed so far.
    ///
    /// # Errors
    /// As [`Encoder::feed`].
    pub fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        wrap(&mut self.layers, &[], Push::Flush, out)
    }

    /// Appends the end.
    ///
    /// # Errors
    /// As [`Encoder::feed`].
    pub fn finish(mut self, out: &mut Vec<u8>) -> io::Result<()> {
        wrap(&mut self.layers, &[], Push::Finish, out)
    }
}

/// Through the first layer, what comes out of it through those above, and then the push itself.
fn wrap(
    layers: &mut [Box<dyn EncodeV2 + Send>],
    piece: &[u8],
    push: Push,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let Some((layer, above)) = layers.split_first_mut() else {
        out.extend_from_slice(piece);
        return Ok(());
    };
    let mut window = [0; WINDOW];
    let mut input = PartialBuffer::new(piece);
    while !input.unwritten().is_empty() {
        let mut output = WriteBuffer::new_initialized(&mut window);
        layer.encode(&mut input, &mut output)?;
        wrap(above, output.written(), Push::Feed, out)?;
    }
    loop {
        let mut output = WriteBuffer::new_initialized(&mut window);
        let done = match push {
            Push::Feed => return Ok(()),
            Push::Flush => layer.flush(&mut output)?,
            Push::Finish => layer.finish(&mut output)?,
        };
        wrap(above, output.written(), Push::Feed, out)?;
        if done {
            return wrap(above, &[], push, out);
        }
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoder({} layers)", self.layers.len())
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoder({} layers)", self.layers.len())
    }
}

#[cfg(test)]
mod tests;
