//! What a connection's first bytes are, where either TLS or HTTP may come: transparent mode, and behind a CONNECT.

mod hello;

use super::door::head::is_tchar;
use super::stream::Stream;
use bytes::BytesMut;
use hello::{Hello, hello};
use tokio::io::AsyncReadExt;

/// Bytes within which a request shows: so many blanks are left to the door, and a word or a line that is longer is no HTTP.
const LINE_BYTES_MAX: usize = 16 << 10;
/// It is passed over at the beginning of texts.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// With a zero behind it, that is how version 2 of HAProxy's PROXY protocol begins: of whom it speaks cannot be told, and what follows may be HTTP.
const PROXY_BEGINS: &[u8] = b"\r\n\r\n";
/// The first byte of a record that begins a handshake (RFC 8446 section 5.1).
pub(super) const TLS_HANDSHAKE: u8 = 22;
/// The first byte of a record's version, in all versions.
const TLS_MAJOR: u8 = 3;

/// The first byte of a record that is an alert.
const TLS_ALERT: u8 = 21;
/// Bytes of a server's by which it is told whether HTTP is spoken: a frame's head.
pub(super) const HEARD_BYTES: usize = 9;

/// What the first bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// TLS, for the host of this name if it says one.
    Tls(Option<String>),
    /// TLS, and it cannot be told for whom.
    Unreadable,
    /// A request of HTTP, or the beginning of a connection of HTTP/2.
    Http,
    /// Neither.
    Other,
}

/// Reads until it shows what the first bytes are; they stay in `begun`.
///
/// # Errors
/// The word for a client that went.
pub(super) async fn look(stream: &mut Stream, begun: &mut BytesMut) -> Result<First, &'static str> {
    loop {
        if let Some(first) = what(begun) {
            return Ok(first);
        }
        match stream.read_buf(begun).await {
            Ok(1..) => {}
            Ok(0) if begun.is_empty() => return Err("gone"),
            Ok(0) => return Ok(First::Other),
            Err(_) => return Err("gone"),
        }
    }
}

/// What the first bytes are. `None`: that takes more of them. More of them never make it something else.
pub fn what(begun: &[u8]) -> Option<First> {
    if *begun.first()? == TLS_HANDSHAKE {
        // Something else may begin with this byte, too.
        if *begun.get(1)? != TLS_MAJOR {
            return Some(First::Other);
        }
        return hello(begun).map(|hello| match hello {
            Hello::Named(name) => First::Tls(Some(name)),
            Hello::Nameless => First::Tls(None),
            Hello::Unreadable => First::Unreadable,
        });
    }
    request(begun)
}

/// What is no TLS. A request that some server takes is one here, however it is spelt: the door says what is wrong with it.
fn request(begun: &[u8]) -> Option<First> {
    let begun = match begun.strip_prefix(BYTE_ORDER_MARK) {
        None if BYTE_ORDER_MARK.starts_with(begun) => return None,
        None => begun,
        Some(behind) => behind,
    };
    // Empty lines before a request are passed over (RFC 9112 section 2.2), by some servers in any number, and other blanks, too.
    let mut ahead = begun.iter().take(LINE_BYTES_MAX);
    let ahead = match ahead.position(|byte| !matches!(byte, b'\r' | b'\n' | b' ' | b'\t')) {
        None if begun.len() < LINE_BYTES_MAX => return None,
        None => return Some(First::Http),
        Some(ahead) => ahead,
    };
    let (ahead, begun) = begun.split_at(ahead);
    if (ahead, begun[0]) == (PROXY_BEGINS, 0) {
        return Some(First::Http);
    }
    let word = begun.iter().take(LINE_BYTES_MAX);
    let word = word.take_while(|byte| is_tchar(**byte)).count();
    if word == 0 || !matches!(begun.get(word)?, b' ' | b'\t') {
        return Some(First::Other);
    }
    let is_usual = |byte: &u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
    if begun[..word].iter().all(is_usual) {
        return Some(First::Http);
    }
    // Any token may be a method (RFC 9110 section 9.1), and is one to somebody. Other protocols have words, too: it takes a target, or a
    // version at the end of the line.
    let behind = &begun[word + 1..];
    if matches!(behind.first()?, b'/' | b'*' | b'h' | b'H') {
        return Some(First::Http);
    }
    let within = &behind[..behind.len().min(LINE_BYTES_MAX)];
    let is_end = |byte: &u8| byte.is_ascii_control() && !matches!(byte, b'\r' | b'\t');
    match within.iter().position(is_end) {
        None if behind.len() < LINE_BYTES_MAX => None,
        Some(end) if within[end] == b'\n' && names_version(&within[..end]) => Some(First::Http),
        _ => Some(First::Other),
    }
}

fn names_version(line: &[u8]) -> bool {
    line.windows(5)
        .any(|five| five.eq_ignore_ascii_case(b"HTTP/"))
}

/// Whether a server of HTTP, with TLS or without, may say this before it was asked anything: its end, an answer to a client that it does
/// not wait for, an alert, or its part of HTTP/2's preface (RFC 9113 section 3.4). `heard`: the first [`HEARD_BYTES`], or as many as came.
pub(super) fn may_be_http(heard: &[u8]) -> bool {
    let is = |bytes: &[u8], at: usize| {
        heard
            .iter()
            .skip(at)
            .zip(bytes)
            .all(|(one, other)| one == other)
    };
    is(b"HTTP/", 0)
        || is(&[TLS_ALERT, TLS_MAJOR], 0)
        // A frame of SETTINGS, which is shorter than 64 KiB, of the connection itself.
        || (is(&[0], 0) && is(&[4, 0, 0, 0, 0, 0], 3))
}

#[cfg(test)]
pub(super) mod tests;
