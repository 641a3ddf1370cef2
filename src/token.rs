//! The token: what stands in a document in place of a value, as text and as parts (FORMAT.md).
//!
//! Canonical or refused: for every text that [`Token::decode`] accepts, [`Token::encode`] gives that text back. Nothing here
//! panics on outside input, holds a key or decides whether a token is genuine; that is `seal`'s.

pub mod record;

use crate::dek::Kid;
pub use crate::dek::Suite;
pub use crate::seal::{NONCE_LEN, TAG_LEN};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
pub use record::{KekId, Record, WRAPPINGS_MAX, Wrapping, kek_id};
use sha2::{Digest, Sha256};
use std::fmt;
use std::ops::Range;

/// A token's first four characters: the format and its version.
pub const MARK: &[u8; 4] = b"fv1~";

/// A token's last character.
pub const END: u8 = b'~';

/// The longest token, in bytes of text (which are its characters).
pub const TEXT_MAX: usize = 1 << 20;

/// First 4 bytes of SHA-256(class name): finds the class among the policy's, proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ClassHint(pub [u8; 4]);

impl ClassHint {
    /// The hint of the class of this name (UTF-8, as the policy spells it).
    pub fn of(class: &str) -> ClassHint {
        let digest = Sha256::digest(class.as_bytes());
        ClassHint([digest[0], digest[1], digest[2], digest[3]])
    }
}

/// Eight hexadecimal digits, lower case.
impl fmt::Display for ClassHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why a text is no token. Both look alike to a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenError {
    /// Not canonical, cut short, too long, or its parts do not add up.
    Malformed,
    /// A suite or form of another version of the format.
    Unsupported,
}

impl TokenError {
    /// The stable reason word, for metrics and records.
    pub const fn word(self) -> &'static str {
        match self {
            TokenError::Malformed => "malformed",
            TokenError::Unsupported => "unsupported",
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl std::error::Error for TokenError {}

/// The parts of a token's payload, borrowed from the decoded bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token<'a> {
    /// The algorithm, which fixes whether there is a nonce.
    pub suite: Suite,
    /// To find the class; proves nothing.
    pub class: ClassHint,
    /// The id of the DEK that seals it.
    pub kid: Kid,
    /// Form 1 carries the wrapped-DEK record (structure checked); form 0 carries none.
    pub record: Option<&'a [u8]>,
    /// Present exactly in suite 1.
    pub nonce: Option<&'a [u8; NONCE_LEN]>,
    /// suite 1: ciphertext || tag; suite 2: SIV || ciphertext.
    pub sealed: &'a [u8],
}

impl<'a> Token<'a> {
    /// Decodes `fv1~...~`. `payload` is scratch: cleared, then filled with the decoded bytes that the result borrows.
    pub fn decode(text: &[u8], payload: &'a mut Vec<u8>) -> Result<Token<'a>, TokenError> {
        payload.clear();
        let encoded = text
            .strip_prefix(MARK)
            .and_then(|rest| rest.strip_suffix(&[END]))
            .ok_or(TokenError::Malformed)?;
        if text.len() > TEXT_MAX {
            return Err(TokenError::Malformed);
        }
        // The error names the offending byte; it is dropped here, since that byte may belong to a value.
        URL_SAFE_NO_PAD
            .decode_vec(encoded, payload)
            .map_err(|_| TokenError::Malformed)?;
        Token::parse(payload)
    }

    /// Reads the payload: suite (1), form (1), class hint (4), kid (16), record (2 + n, form 1), nonce (24, suite 1), sealed.
    fn parse(payload: &'a [u8]) -> Result<Token<'a>, TokenError> {
        const SHORT: TokenError = TokenError::Malformed;
        let (&suite, rest) = payload.split_first().ok_or(SHORT)?;
        let suite = Suite::from_byte(suite).ok_or(TokenError::Unsupported)?;
        let (&form, rest) = rest.split_first().ok_or(SHORT)?;
        let inline = match form {
            0 => false,
            1 => true,
            _ => return Err(TokenError::Unsupported),
        };
        // A deterministic DEK lives in the store alone, so suite 2 has no inline form.
        if inline && suite == Suite::Aes256Siv {
            return Err(TokenError::Malformed);
        }
        let (&class, rest) = rest.split_first_chunk().ok_or(SHORT)?;
        let (&kid, rest) = rest.split_first_chunk().ok_or(SHORT)?;
        let (record, rest) = if inline {
            let (&len, rest) = rest.split_first_chunk().ok_or(SHORT)?;
            let (record, rest) = rest
                .split_at_checked(usize::from(u16::from_be_bytes(len)))
                .ok_or(SHORT)?;
            (Some(Record::parse(record)?.bytes()), rest)
        } else {
            (None, rest)
        };
        let (nonce, sealed) = match suite {
            Suite::Xaes256Gcm => rest
                .split_first_chunk()
                .map(|(nonce, sealed)| (Some(nonce), sealed))
                .ok_or(SHORT)?,
            Suite::Aes256Siv => (None, rest),
        };
        if sealed.len() < TAG_LEN {
            return Err(SHORT);
        }
        Ok(Token {
            suite,
            class: ClassHint(class),
            kid: Kid(kid),
            record,
            nonce,
            sealed,
        })
    }

    /// The token's text, for anything but the road (which writes through a [`Prefix`]).
    ///
    /// # Panics
    /// Where [`Prefix::new`] does.
    pub fn encode(&self) -> String {
        let (prefix_nonce, tail) = match self.nonce {
            Some(nonce) => (nonce.first_chunk(), &nonce[12..]),
            None => (None, &[][..]),
        };
        let prefix = Prefix::new(self.suite, self.class, self.kid, self.record, prefix_nonce);
        let mut text = Vec::with_capacity(prefix.text_len(self.sealed.len()));
        prefix.write(&[tail, self.sealed].concat(), &mut text);
        text.iter().copied().map(char::from).collect()
    }
}

/// The text that the tokens of one class, data key and body have in common, encoded once.
///
/// Base64 works in groups of 3 bytes; the 0 to 2 bytes that fill no group are carried over to each token.
#[derive(Clone, Debug)]
pub struct Prefix {
    /// `fv1~`, then the encoded whole groups.
    text: Vec<u8>,
    carry: [u8; 2],
    carried: usize,
    /// Bytes of the nonce that come with each value.
    tail_len: usize,
}

impl Prefix {
    /// `record` makes the token inline, else it is a reference. `nonce_prefix`: the 12 nonce bytes that a body's values share,
    /// exactly in suite 1.
    ///
    /// # Panics
    /// If the parts make no token: a nonce prefix missing in suite 1 or present in suite 2, a record in suite 2, or one that
    /// [`Record::parse`] refuses. Such a token could never be opened, so it must not be made.
    pub fn new(
        suite: Suite,
        class: ClassHint,
        kid: Kid,
        record: Option<&[u8]>,
        nonce_prefix: Option<&[u8; 12]>,
    ) -> Prefix {
        let randomised = suite == Suite::Xaes256Gcm;
        assert!(
            nonce_prefix.is_some() == randomised,
            "a nonce belongs to suite 1 alone"
        );
        assert!(record.is_none() || randomised, "suite 2 is never inline");
        let mut head = Vec::with_capacity(36 + record.map_or(0, <[u8]>::len));
        head.extend_from_slice(&[suite.byte(), u8::from(record.is_some())]);
        head.extend_from_slice(&class.0);
        head.extend_from_slice(&kid.0);
        if let Some(record) = record {
            assert!(Record::parse(record).is_ok(), "not a wrapped-DEK record");
            let len = u16::try_from(record.len()).expect("a record is at most 4096 bytes");
            head.extend_from_slice(&len.to_be_bytes());
            head.extend_from_slice(record);
        }
        head.extend_from_slice(nonce_prefix.map_or(&[], <[u8; 12]>::as_slice));

        let carried = head.len() % 3;
        let (groups, rest) = head.split_at(head.len() - carried);
        let mut carry = [0; 2];
        carry[..carried].copy_from_slice(rest);
        let mut text = Vec::with_capacity(MARK.len() + groups.len() / 3 * 4);
        text.extend_from_slice(MARK);
        append_base64url(groups, &mut text);
        Prefix {
            text,
            carry,
            carried,
            tail_len: if randomised { NONCE_LEN - 12 } else { 0 },
        }
    }

    /// Bytes of text of the finished token, exactly. `sealed_len`: bytes of ciphertext and tag, without the nonce. To be at
    /// most [`TEXT_MAX`].
    pub fn text_len(&self, sealed_len: usize) -> usize {
        let rest = self
            .carried
            .saturating_add(self.tail_len)
            .saturating_add(sealed_len);
        self.text
            .len()
            .saturating_add(base64url_len(rest))
            .saturating_add(1)
    }

    /// Appends the token's text to `out`. `rest`: suite 1, the value's 12 nonce bytes || ciphertext || tag; suite 2, SIV ||
    /// ciphertext.
    pub fn write(&self, rest: &[u8], out: &mut Vec<u8>) {
        out.reserve(self.text.len() + base64url_len(self.carried + rest.len()) + 1);
        out.extend_from_slice(&self.text);
        let rest = if self.carried == 0 {
            rest
        } else {
            let (fill, rest) = rest.split_at(rest.len().min(3 - self.carried));
            let mut group = [0; 3];
            group[..self.carried].copy_from_slice(&self.carry[..self.carried]);
            group[self.carried..self.carried + fill.len()].copy_from_slice(fill);
            append_base64url(&group[..self.carried + fill.len()], out);
            rest
        };
        append_base64url(rest, out);
        out.push(END);
    }
}

/// Characters of `len` bytes in base64 without padding.
const fn base64url_len(len: usize) -> usize {
    (len / 3)
        .saturating_mul(4)
        .saturating_add((len % 3 * 4).div_ceil(3))
}

/// RFC 4648 section 5, without padding. Ours, since a token's text is short and the crate's encoder, made for long ones, takes longer on
/// it: two characters come from one look-up.
fn append_base64url(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(base64url_len(bytes.len()));
    let (sixes, rest) = bytes.as_chunks();
    for six in sixes {
        out.extend_from_slice(&characters(*six));
    }
    let mut last = [0; 6];
    last[..rest.len()].copy_from_slice(rest);
    out.extend_from_slice(&characters(last)[..base64url_len(rest.len())]);
}

/// The characters of six bytes.
#[inline(always)]
fn characters([a, b, c, d, e, f]: [u8; 6]) -> [u8; 8] {
    let bits = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    let mut characters = [0; 8];
    let (pairs, _) = characters.as_chunks_mut();
    for (pair, shift) in pairs.iter_mut().zip([36, 24, 12, 0]) {
        *pair = PAIRS[(bits >> shift) as usize & 0xFFF];
    }
    characters
}

/// By twelve bits: their two characters.
static PAIRS: [[u8; 2]; 4096] = {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut pairs = [[0; 2]; 4096];
    let mut bits = 0;
    while bits < 4096 {
        pairs[bits] = [alphabet[bits >> 6], alphabet[bits & 63]];
        bits += 1;
    }
    pairs
};

/// True for `fv` digits `~` ... `~`: reserved, whatever stands between. This and later versions of the format look so.
pub fn is_reserved(text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(b"fv") else {
        return false;
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && matches!(&rest[digits..], [b'~', .., b'~'])
}

/// The places of the tokens in other text: from `fv1~` to the next `~`, where that decodes. After a failed start the search goes
/// on behind it. Linear in the text's length.
pub fn find(text: &[u8]) -> Found<'_> {
    Found {
        text,
        at: 0,
        payload: Vec::new(),
    }
}

/// The iterator of [`find`].
#[derive(Clone, Debug)]
pub struct Found<'t> {
    text: &'t [u8],
    at: usize,
    payload: Vec<u8>,
}

impl Iterator for Found<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        loop {
            let start = self.at
                + self.text[self.at..]
                    .windows(MARK.len())
                    .position(|window| window == MARK)?;
            self.at = start + MARK.len();
            // Without a `~` behind this start there is none behind a later one.
            let end = self.at + self.text[self.at..].iter().position(|&byte| byte == END)? + 1;
            // The next start holds a `~`, so it lies at most three bytes before `end`: no byte is decoded twice over but those.
            if Token::decode(&self.text[start..end], &mut self.payload).is_ok() {
                self.at = end;
                return Some(start..end);
            }
        }
    }
}

#[cfg(test)]
mod tests;
