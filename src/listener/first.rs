//! What a connection's first bytes are, where either TLS or HTTP may come: transparent mode, and behind a CONNECT.

mod hello;

use super::door::head::is_tchar;
use super::stream::Stream;
use bytes::BytesMut;
use hello::{Hello, hello};
use tokio::io::AsyncReadExt;

/// Bytes of a method's name: what has no blank behind so many is no HTTP.
const METHOD_BYTES_MAX: usize = 32;
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
    // Empty lines before a request are passed over (RFC 9112 section 2.2).
    let mut ahead = begun.iter().take(METHOD_BYTES_MAX);
    let begun = match ahead.position(|byte| !matches!(byte, b'\r' | b'\n')) {
        None if begun.len() < METHOD_BYTES_MAX => return None,
        None => return Some(First::Other),
        Some(blank) => &begun[blank..],
    };
    let word = begun.iter().take(METHOD_BYTES_MAX);
    let word = word.take_while(|byte| is_tchar(**byte)).count();
    let is_usual = |byte: &u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
    match begun.get(word)? {
        b' ' if word > 0 && begun[..word].iter().all(is_usual) => Some(First::Http),
        // Any token may be a method (RFC 9110 section 9.1), and is one to somebody. Other protocols have words, too; no target of HTTP
        // begins as what follows them.
        b' ' if word > 0 => match begun.get(word + 1)? {
            b'/' | b'*' | b'h' | b'H' => Some(First::Http),
            _ => Some(First::Other),
        },
        _ => Some(First::Other),
    }
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
