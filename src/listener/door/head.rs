//! The strict reading of one request head (RFC 9112 sections 2 to 6), line by line as the lines arrive.
//!
//! It decides and keeps nothing: a head that passes goes on byte for byte. What it refuses is whatever two servers
//! are known to read in two ways, and what hyper would quietly put right.

use crate::error::Code;
use std::ops::Range;

/// Bytes of a head, from the first byte of the request line to the empty line.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a request target.
pub const TARGET_BYTES_MAX: usize = 16 * 1024;
/// Header lines of a head, or of a trailer section.
pub const LINES_MAX: usize = 100;
/// Bytes of a method's name. The longest registered one has 17.
pub const METHOD_BYTES_MAX: usize = 32;
/// A request line that is longer than this has a target that is too long.
const REQUEST_LINE_BYTES_MAX: usize =
    METHOD_BYTES_MAX + 1 + TARGET_BYTES_MAX + " HTTP/1.1\r\n".len();

/// How the body behind a head is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// That many bytes; 0 without Content-Length.
    Length(u64),
    Chunked,
}

/// What has been read of a head so far. Offsets count from the head's first byte.
#[derive(Debug, Default)]
pub struct HeadScan {
    /// Bytes searched for the end of a line.
    scanned: usize,
    /// Where the current line begins.
    line: usize,
    /// The request line is behind us; header lines seen.
    lines: Option<usize>,
    /// One empty line before the request line was passed over (RFC 9112 section 2.2).
    blank: bool,
    minor: u8,
    /// The authority in the target: absolute form and CONNECT.
    authority: Option<Range<usize>>,
    connect: bool,
    /// An Upgrade field, which HTTP/1.0 does not have.
    upgrade: bool,
    host: Option<Range<usize>>,
    length: Option<u64>,
    chunked: bool,
}

impl HeadScan {
    /// Reads on. `head`: all bytes since the head's first one. `Ok(Some(n, framing))`: the head is complete and has
    /// `n` bytes. The verdict is the same whatever pieces the head arrived in.
    pub fn advance(&mut self, head: &[u8]) -> Result<Option<(usize, Framing)>, Code> {
        loop {
            let max = if self.lines.is_some() {
                HEAD_BYTES_MAX
            } else {
                self.line + REQUEST_LINE_BYTES_MAX
            };
            let seen = &head[..head.len().min(max)];
            // What does not even begin like a request (a TLS hello, say) is refused at its first byte.
            if self.lines.is_none()
                && seen
                    .get(self.line)
                    .is_some_and(|&b| !is_tchar(b) && b != b'\r' && b != b'\n')
            {
                return Err(Code::RequestLine);
            }
            let Some(found) = memchr::memchr(b'\n', &seen[self.scanned..]) else {
                self.scanned = seen.len();
                return match (seen.len() == max, self.lines) {
                    (false, _) => Ok(None),
                    (true, None) => Err(Code::TargetTooLong),
                    (true, Some(_)) => Err(Code::HeadTooLarge),
                };
            };
            let end = self.scanned + found;
            if end == self.line || head[end - 1] != b'\r' {
                return Err(Code::LineEnding);
            }
            let line = self.line..end - 1;
            self.line = end + 1;
            self.scanned = end + 1;
            match self.lines {
                None if line.is_empty() && !self.blank => self.blank = true,
                None => {
                    self.request_line(head, line)?;
                    self.lines = Some(0);
                }
                Some(_) if line.is_empty() => {
                    return self.finish(head).map(|framing| Some((end + 1, framing)));
                }
                Some(LINES_MAX) => return Err(Code::TooManyFields),
                Some(lines) => {
                    self.field_line(head, line)?;
                    self.lines = Some(lines + 1);
                }
            }
        }
    }

    /// `method SP request-target SP HTTP-version`, RFC 9112 section 3.
    fn request_line(&mut self, head: &[u8], line: Range<usize>) -> Result<(), Code> {
        let text = &head[line.clone()];
        let (method, target, version) = words(text).ok_or_else(|| malformed(text))?;
        if method.is_empty() || method.len() > METHOD_BYTES_MAX {
            return Err(Code::RequestLine);
        }
        if target.len() > TARGET_BYTES_MAX {
            return Err(Code::TargetTooLong);
        }
        self.minor = minor_of(version).map_err(|code| match text.contains(&b'\r') {
            true => Code::LineEnding,
            false => code,
        })?;
        let at = line.start + method.len() + 1;
        self.connect = method == b"CONNECT";
        self.authority = match target {
            _ if method == b"CONNECT" => Some(at..at + target.len()),
            [b'/', ..] => None,
            b"*" if method == b"OPTIONS" => None,
            _ => Some(authority_of(target, at).ok_or(Code::Target)?),
        };
        match &self.authority {
            Some(range) if !is_host(&head[range.clone()]) => Err(Code::Target),
            _ => Ok(()),
        }
    }

    /// `field-name ":" OWS field-value OWS`, RFC 9112 section 5, and the five names that matter here.
    fn field_line(&mut self, head: &[u8], line: Range<usize>) -> Result<(), Code> {
        let text = &head[line.clone()];
        if matches!(text[0], b' ' | b'\t') {
            return Err(Code::ObsFold);
        }
        let colon = text
            .iter()
            .position(|&b| !is_tchar(b))
            .filter(|&at| at > 0 && text[at] == b':');
        let Some(colon) = colon else {
            return Err(if text.contains(&b'\r') {
                Code::LineEnding
            } else {
                Code::FieldName
            });
        };
        let (name, value) = (&text[..colon], &text[colon + 1..]);
        // Without a way out, so that it is done for many bytes at a time.
        if !value.iter().fold(true, |good, &b| good & is_field_byte(b)) {
            return Err(match value.iter().find(|&&b| !is_field_byte(b)) {
                Some(b'\r') => Code::LineEnding,
                _ => Code::ControlByte,
            });
        }
        // Only names of these lengths matter: host, upgrade, content-length, transfer-encoding.
        match name.len() {
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade |= self.minor == 1,
            4 if name.eq_ignore_ascii_case(b"host") => {
                let value = value.trim_ascii();
                if self.host.is_some() {
                    return Err(Code::HostRepeated);
                }
                if !is_host(value) {
                    return Err(Code::HostInvalid);
                }
                let start = line.start + text.len() - text[colon + 1..].trim_ascii_start().len();
                self.host = Some(start..start + value.len());
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.chunked {
                    return Err(Code::FramingConflict);
                }
                let length = content_length(value.trim_ascii()).ok_or(Code::ContentLength)?;
                if self.length.replace(length).is_some() {
                    return Err(Code::ContentLength);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.length.is_some() {
                    return Err(Code::FramingConflict);
                }
                if self.chunked
                    || self.minor == 0
                    || !value.trim_ascii().eq_ignore_ascii_case(b"chunked")
                {
                    return Err(Code::TransferCoding);
                }
                self.chunked = true;
            }
            14 if is_twin(name, b"content-length") => return Err(Code::FramingTwin),
            17 if is_twin(name, b"transfer-encoding") => return Err(Code::FramingTwin),
            _ => {}
        }
        Ok(())
    }

    /// The empty line: what a whole head must have.
    fn finish(&self, head: &[u8]) -> Result<Framing, Code> {
        if self.host.is_none() && self.minor == 1 {
            return Err(Code::HostMissing);
        }
        if let (Some(authority), Some(host)) = (&self.authority, &self.host)
            && !self.agree(&head[authority.clone()], &head[host.clone()])
        {
            return Err(Code::HostMismatch);
        }
        Ok(if self.chunked {
            Framing::Chunked
        } else {
            Framing::Length(self.length.unwrap_or(0))
        })
    }

    /// Target and Host. Many clients leave a CONNECT's port out of Host.
    fn agree(&self, authority: &[u8], host: &[u8]) -> bool {
        let (name, port) = split_port(host);
        match (self.connect, port) {
            (true, None) => split_port(authority).0.eq_ignore_ascii_case(name),
            _ => same_host(authority, host),
        }
    }

    /// The method is CONNECT.
    pub fn is_connect(&self) -> bool {
        self.connect
    }

    /// It asks for another protocol (RFC 9110 section 7.8).
    pub fn asks_to_upgrade(&self) -> bool {
        self.upgrade
    }

    /// Where in `head` the request line's first byte and the bytes searched so far are: nothing arrived yet?
    pub fn is_untouched(&self) -> bool {
        self.scanned == 0
    }
}

/// The three words of a request line, as long as the first two have no byte that they must not have.
fn words(line: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (method, rest) = line.split_at(line.iter().position(|&b| !is_tchar(b))?);
    let rest = rest.strip_prefix(b" ")?;
    let (target, rest) = rest.split_at(rest.iter().position(|&b| !is_target(b))?);
    Some((method, target, rest.strip_prefix(b" ")?))
}

/// What is wrong with a line that has no such words.
fn malformed(line: &[u8]) -> Code {
    if line.contains(&b'\r') {
        return Code::LineEnding;
    }
    let mut words = line.split(|&b| b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Code::RequestLine;
    };
    if method.len() > METHOD_BYTES_MAX || !method.iter().copied().all(is_tchar) {
        return Code::RequestLine;
    }
    if target.len() > TARGET_BYTES_MAX {
        return Code::TargetTooLong;
    }
    minor_of(version).err().unwrap_or(Code::Target)
}

/// The minor version of HTTP/1.
fn minor_of(version: &[u8]) -> Result<u8, Code> {
    match version {
        b"HTTP/1.1" => Ok(1),
        b"HTTP/1.0" => Ok(0),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Code::HttpVersion)
        }
        _ => Err(Code::RequestLine),
    }
}

const TCHAR: u8 = 1;
const TARGET: u8 = 2;
const HOST: u8 = 4;

/// What each byte may be.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        let mark = matches!(
            b,
            b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        );
        if b.is_ascii_alphanumeric() || mark {
            classes[byte] |= TCHAR;
        }
        if matches!(b, b'!'..=b'~') && !matches!(b, b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`')
        {
            classes[byte] |= TARGET;
        }
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') {
            classes[byte] |= HOST;
        }
        byte += 1;
    }
    classes
};

/// RFC 9110 section 5.6.2.
pub fn is_tchar(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TCHAR != 0
}

/// field-vchar, SP and HTAB (RFC 9110 section 5.5), obs-text among them.
pub fn is_field_byte(byte: u8) -> bool {
    (byte >= b' ') & (byte != 0x7f) | (byte == b'\t')
}

/// RFC 3986, and `{`, `|`, `}`, which clients send bare in queries. What passes here, the `http` crate takes, too.
pub fn is_target(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TARGET != 0
}

/// The authority in an absolute-form target that begins `offset` bytes into the head. Some clients of WebSocket write its own
/// schemes there (RFC 6455 section 3).
fn authority_of(target: &[u8], offset: usize) -> Option<Range<usize>> {
    let scheme = [&b"http://"[..], b"https://", b"ws://", b"wss://"]
        .into_iter()
        .find(|scheme| {
            target
                .get(..scheme.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        })?
        .len();
    let rest = &target[scheme..];
    let len = rest
        .iter()
        .position(|&b| matches!(b, b'/' | b'?'))
        .unwrap_or(rest.len());
    Some(offset + scheme..offset + scheme + len)
}

/// `uri-host [":" port]` of names, IPv4 addresses and bracketed IPv6 addresses; no userinfo, list or percent-encoding.
pub fn is_host(text: &[u8]) -> bool {
    let (host, port) = split_port(text);
    let host_is_good = match host {
        [b'[', inside @ .., b']'] => {
            std::str::from_utf8(inside).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
        }
        [] => false,
        name => name.len() <= 255 && name.iter().all(|&b| CLASSES[usize::from(b)] & HOST != 0),
    };
    let port_is_good = port.is_none_or(|port| decimal(port).is_some_and(|port| port <= 0xffff));
    host_is_good && port_is_good
}

/// Host and port, at the last colon outside of brackets.
fn split_port(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match text.iter().rposition(|&b| b == b':') {
        Some(colon) if !text[colon..].contains(&b']') => (&text[..colon], Some(&text[colon + 1..])),
        _ => (text, None),
    }
}

/// The same host and port; a missing port is 80 or 443, whichever the other side says.
pub fn same_host(one: &[u8], other: &[u8]) -> bool {
    let ((host_one, port_one), (host_other, port_other)) = (split_port(one), split_port(other));
    let same_port = match (port_one, port_other) {
        (None, None) => true,
        (Some(one), Some(other)) => one == other,
        (Some(port), None) | (None, Some(port)) => port == b"80" || port == b"443",
    };
    same_port && host_one.eq_ignore_ascii_case(host_other)
}

/// `1*DIGIT` without leading zeros, below 2^63.
pub fn content_length(text: &[u8]) -> Option<u64> {
    if text.len() > 19 || (text.len() > 1 && text[0] == b'0') {
        return None;
    }
    decimal(text).filter(|&value| value <= i64::MAX as u64)
}

/// `1*DIGIT`; what is too large is the largest number.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |sum, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        Some(sum.saturating_mul(10).saturating_add(digit))
    })
}

/// `name` is `real` but for case and `_` in the place of `-`: some servers (CGI, WSGI) take it for the real one.
pub fn is_twin(name: &[u8], real: &[u8]) -> bool {
    name.iter()
        .zip(real)
        .all(|(&a, &b)| a.eq_ignore_ascii_case(&b) || (a == b'_' && b == b'-'))
}
