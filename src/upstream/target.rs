//! Where a request goes when nobody configured it: the scheme, host and port that a client named.

use crate::policy::is_host_name;
use http::uri::{Authority, Scheme};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// Scheme, host and port; the address, where it must be that one whatever the name resolves to; and whether it is known to speak HTTP/2
/// without TLS.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Target {
    tls: bool,
    /// Lower case, without a dot at the end; an IPv6 address without brackets, as RFC 5952 spells it.
    host: String,
    port: u16,
    address: Option<SocketAddr>,
    http2: bool,
}

impl Target {
    /// `authority`: `host[:port]`, as in an absolute target, a CONNECT or a Host field. `tls`: whether that is spoken there; it
    /// decides the port where none is stated.
    ///
    /// `None`: it names no host. What a resolver might take for an address in an old notation (`127.1`, `0x7f000001`) is none.
    pub fn parse(tls: bool, authority: &str) -> Option<Target> {
        let (host, port) = match authority.rfind(':') {
            Some(at) if !authority[at..].contains(']') => {
                let digits = &authority[at + 1..];
                let number = digits.bytes().all(|digit| digit.is_ascii_digit());
                (&authority[..at], digits.parse().ok().filter(|_| number)?)
            }
            _ => (authority, if tls { 443 } else { 80 }),
        };
        if port == 0 {
            return None;
        }
        Some(Target {
            tls,
            host: host_name(host)?,
            port,
            address: None,
            http2: false,
        })
    }

    /// The same, connected to at this address alone.
    #[must_use]
    pub fn at(mut self, address: SocketAddr) -> Target {
        self.address = Some(address);
        self
    }

    /// The same host and port, with TLS or without.
    #[must_use]
    pub fn with_tls(mut self, tls: bool) -> Target {
        self.tls = tls;
        self
    }

    /// The same, and its client speaks HTTP/2 with it: by prior knowledge (RFC 9113 section 3.3), where it is without TLS.
    #[must_use]
    pub fn in_http2(mut self, http2: bool) -> Target {
        self.http2 = http2;
        self
    }

    /// Whether TLS is spoken there.
    pub fn tls(&self) -> bool {
        self.tls
    }
    /// The host: a name, or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }
    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
    /// The address to connect to, where it is fixed.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Whether it is known to speak HTTP/2 though no TLS says so.
    pub(super) fn speaks_http2(&self) -> bool {
        self.http2 && !self.tls
    }

    /// As in a Host field: the port only where it is not the scheme's own.
    pub fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.port == if self.tls { 443 } else { 80 } {
            true => host,
            false => format!("{host}:{}", self.port),
        }
    }

    /// The same, whatever the addresses.
    pub(super) fn is(&self, other: &Target) -> bool {
        (self.tls, &self.host, self.port) == (other.tls, &other.host, other.port)
    }

    /// For an upstream.
    pub(super) fn parts(&self) -> Option<(Scheme, Authority)> {
        let scheme = match self.tls {
            true => Scheme::HTTPS,
            false => Scheme::HTTP,
        };
        Some((scheme, self.authority().parse().ok()?))
    }
}

/// Where it goes, without the address: `https://api.example.com`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A host in its one spelling: a name in lower case without a dot at the end, or an address, that of IPv6 without its brackets.
///
/// `None`: it is no host. What ends in digits is an address to every resolver, in whatever old notation, so it has to be one.
pub fn host_name(host: &str) -> Option<String> {
    if let Some(inner) = host.strip_prefix('[') {
        let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        // What is mapped (RFC 4291 section 2.5.5.2) is connected to as IPv4, and is one host with it.
        return Some(address.to_canonical().to_string());
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let last = host.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    (is_host_name(&host) && (!numeric || host.parse::<Ipv4Addr>().is_ok())).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(tls: bool, authority: &str, expected: Option<&str>) {
        let found = Target::parse(tls, authority).map(|target| target.to_string());
        assert_eq!(found.as_deref(), expected, "{authority}");
    }

    #[test]
    fn one_spelling_of_each_target() {
        check(true, "api.example.com", Some("https://api.example.com"));
        check(
            true,
            "API.example.com.:443",
            Some("https://api.example.com"),
        );
        check(
            false,
            "api.example.com:443",
            Some("http://api.example.com:443"),
        );
        check(false, "a:80", Some("http://a"));
        check(true, "a:80", Some("https://a:80"));
        check(true, "a_b.svc:8443", Some("https://a_b.svc:8443"));
        check(false, "127.0.0.1:9000", Some("http://127.0.0.1:9000"));
        check(false, "[0:0::1]:9000", Some("http://[::1]:9000"));
        check(true, "[::ffff:10.0.0.5]:443", Some("https://10.0.0.5"));
        check(false, "[::FFFF:a00:5]", Some("http://10.0.0.5"));
        for none in [
            "",
            ":80",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a..b",
            ".",
            "-a",
            "a b",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "999.0.0.1",
            "[::1",
            "::1",
            "[fe80::1%25eth0]",
            "u@a",
            "a/b",
            "é.example",
        ] {
            check(true, none, None);
        }
    }
}
