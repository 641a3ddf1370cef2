//! The name (SNI, RFC 6066 section 3) in a TLS client's first message, whatever version and suites it offers: whether a connection is this
//! agent's business must not depend on whether its handshake would succeed here.
//!
//! It reads the ClientHello of SSL 3.0 to TLS 1.3 (RFC 8446 section 4.1.2) as far as its extensions, out of as many records as it comes in,
//! and judges nothing else of it.

use super::{TLS_HANDSHAKE, TLS_MAJOR};
use std::net::IpAddr;

/// Bytes of the records that it may come in; what needs more of them is not read.
const BYTES_MAX: usize = 16 * 1024;
/// Bytes of a record's content (RFC 8446 section 5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;
/// The type of a ClientHello.
const CLIENT_HELLO: u8 = 1;
/// The type of the extension with the name.
const SERVER_NAME: u16 = 0;
/// The one type of a name.
const HOST_NAME: u8 = 0;

/// What a client's first bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hello {
    /// It is for the host of this name, in lower case.
    Named(String),
    /// It says no name; an address is none.
    Nameless,
    /// It is none, or too long.
    Unreadable,
}

/// Reads it from its first record on. `None`: that takes more bytes.
pub(super) fn hello(begun: &[u8]) -> Option<Hello> {
    // Not one more, or the verdict would depend on how much came at once.
    let begun = &begun[..begun.len().min(BYTES_MAX)];
    match gathered(begun) {
        Ok(Some(message)) => Some(name(&message).unwrap_or(Hello::Unreadable)),
        Ok(None) if begun.len() < BYTES_MAX => None,
        Ok(None) | Err(Unreadable) => Some(Hello::Unreadable),
    }
}

struct Unreadable;

/// The message out of its records, without its head. `None`: it is not whole yet.
fn gathered(begun: &[u8]) -> Result<Option<Vec<u8>>, Unreadable> {
    let mut message = Vec::new();
    let mut rest = begun;
    loop {
        if let [kind, ..] = message[..]
            && kind != CLIENT_HELLO
        {
            return Err(Unreadable);
        }
        if let [_, high, middle, low, ..] = message[..] {
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            if length > BYTES_MAX {
                return Err(Unreadable);
            }
            if message.len() >= 4 + length {
                message.truncate(4 + length);
                return Ok(Some(message.split_off(4)));
            }
        }
        let (head, content) = match *rest {
            [] => return Ok(None),
            [kind, ..] if kind != TLS_HANDSHAKE => return Err(Unreadable),
            [_, major, ..] if major != TLS_MAJOR => return Err(Unreadable),
            [_, _, _, high, low, ref content @ ..] => (u16::from_be_bytes([high, low]), content),
            _ => return Ok(None),
        };
        let length = usize::from(head);
        if length == 0 || length > RECORD_BYTES_MAX {
            return Err(Unreadable);
        }
        let (now, after) = content.split_at(length.min(content.len()));
        message.extend_from_slice(now);
        rest = after;
    }
}

/// `None`: it is not as it should be.
fn name(message: &[u8]) -> Option<Hello> {
    let mut rest = message;
    // The version and the random bytes, the session, the suites, the compressions.
    take(&mut rest, 2 + 32)?;
    short(&mut rest)?;
    long(&mut rest)?;
    short(&mut rest)?;
    if rest.is_empty() {
        return Some(Hello::Nameless);
    }
    let mut extensions = alone(rest)?;
    let mut found = None;
    while !extensions.is_empty() {
        let kind = take(&mut extensions, 2)?;
        let content = long(&mut extensions)?;
        if kind == SERVER_NAME.to_be_bytes() && found.replace(content).is_some() {
            return None;
        }
    }
    let Some(found) = found else {
        return Some(Hello::Nameless);
    };
    let mut names = alone(found)?;
    if take(&mut names, 1)? != [HOST_NAME] {
        return None;
    }
    let name = std::str::from_utf8(alone(names)?).ok()?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    Some(match name.parse::<IpAddr>() {
        Ok(_) => Hello::Nameless,
        Err(_) => Hello::Named(name.to_ascii_lowercase()),
    })
}

fn take<'b>(rest: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(taken)
}

/// Behind a length of one byte.
fn short<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = take(rest, 1)?[0];
    take(rest, length.into())
}

/// Behind a length of two bytes.
fn long<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = take(rest, 2)?.try_into().ok()?;
    take(rest, u16::from_be_bytes(length).into())
}

/// As [`long`], and nothing follows.
fn alone(mut rest: &[u8]) -> Option<&[u8]> {
    let content = long(&mut rest)?;
    rest.is_empty().then_some(content)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{extended, in_records, named, old};
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: Hello) {
        assert_eq!(hello(bytes), Some(expected));
    }

    #[test]
    fn a_name_is_read_whatever_version_offers_it() {
        let api = || Hello::Named("api.example.com".to_owned());
        for version in [[3, 0], [3, 1], [3, 2], [3, 3]] {
            check(&old(version, &named("API.example.com")), api());
        }
        check(&old([3, 1], &named("api.example.com")), api());
        check(&old([3, 0], &[]), Hello::Nameless);
        check(
            &old([3, 1], &extended(&[(10, &[0, 2, 0, 23])])),
            Hello::Nameless,
        );
        check(&old([3, 3], &named("192.0.2.1")), Hello::Nameless);
        check(&old([3, 3], &named("2001:db8::1")), Hello::Nameless);
        // What comes behind it is another matter.
        check(
            &[old([3, 1], &named("api.example.com")), b"more".to_vec()].concat(),
            api(),
        );
    }

    #[test]
    fn it_may_come_in_records_of_any_size_and_bytes_at_a_time() {
        let whole = old([3, 1], &named("api.example.com"));
        for size in [1, 2, 5, 40] {
            let records = in_records(&whole, size);
            for end in 0..records.len() {
                // The last record may have more than the message needs: here it has not.
                assert_eq!(hello(&records[..end]), None, "{size} {end}");
            }
            check(&records, Hello::Named("api.example.com".to_owned()));
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_to_be_so_and_not_waited_for() {
        let two = extended(&[(0, &[0, 4, 0, 0, 1, b'a']), (0, &[0, 4, 0, 0, 1, b'b'])]);
        let list = extended(&[(0, &[0, 8, 0, 0, 1, b'a', 0, 0, 1, b'b'])]);
        let mut cut = old([3, 1], &named("api.example.com"));
        // The last extension claims a byte more than there is.
        let at = cut.len() - "api.example.com".len() - 1;
        cut[at] += 1;
        for bytes in [
            &old([3, 3], &two)[..],
            &old([3, 3], &list),
            &old([3, 3], &named("")),
            &old([3, 3], &named("a b")),
            &old([3, 3], &named("\u{e9}.example")),
            &old([3, 3], &[0]),
            &cut,
            // A server's message, another record, a record of no bytes, one too long, a message too long.
            &[22, 3, 1, 0, 4, 2],
            &[22, 3, 1, 0, 1, 1, 21],
            &[22, 3, 1, 0, 0],
            &[22, 3, 1, 0x40, 1],
            &[22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff],
            &[22, 2],
        ] {
            check(bytes, Hello::Unreadable);
        }
        // Within the bound by what it says, and not by the records that it comes in.
        let drip = in_records(&old([3, 3], &extended(&[(21, &[0; 8_000])])), 1);
        assert_eq!(hello(&drip[..BYTES_MAX - 1]), None);
        check(&drip[..BYTES_MAX], Hello::Unreadable);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200), body in any::<bool>()) {
            let bytes = match body {
                true => [&[22, 3, 1, 0, 200, 1, 0, 0, 196][..], &bytes].concat(),
                false => bytes,
            };
            let _ = hello(&bytes);
        }
    }
}
