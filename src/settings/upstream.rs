//! The URL of an upstream: scheme, host and port, nothing else.

use crate::upstream::host_name;
use std::fmt;
use std::net::IpAddr;

/// `http://host:port` or `https://host:port`; no user, path, query or fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Whether the scheme is https.
    pub tls: bool,
    /// Lower case; an IPv6 address without its brackets.
    pub host: String,
    /// 1 to 65535; 80 or 443 where the text has none.
    pub port: u16,
}

/// What is wrong with a URL; whether it may hold a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadUrl {
    pub what: &'static str,
    pub secret: bool,
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Url, BadUrl> {
        let bad = |what| {
            Err(BadUrl {
                what,
                secret: false,
            })
        };
        // First of all: whatever else is wrong, a text with a password in it is not repeated.
        if text.contains('@') {
            return Err(BadUrl {
                what: "no user or password may stand in it",
                secret: true,
            });
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return bad("it begins with http:// or https://");
        };
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return bad("it begins with http:// or https://"),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '\\']) {
            return bad("host and port only: requests bring their own paths");
        }
        let (host, port) = match authority.rfind(':') {
            Some(at) if !authority[at..].contains(']') => {
                let digits = &authority[at + 1..];
                match digits.parse::<u16>() {
                    Ok(port) if port > 0 && port.to_string() == digits => (&authority[..at], port),
                    _ => return bad("the port is a number from 1 to 65535"),
                }
            }
            _ => (authority, if tls { 443 } else { 80 }),
        };
        match host_name(host) {
            Some(host) => Ok(Url { tls, host, port }),
            None => bad("this is no host"),
        }
    }

    /// As in a Host header: the port only where it is not the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == if self.tls { 443 } else { 80 } {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }

    /// The address, where the host is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}",
            if self.tls { "https" } else { "http" },
            self.authority()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let found = Url::parse(text)
            .map(|url| url.to_string())
            .map_err(|bad| bad.what);
        assert_eq!(
            found.as_deref(),
            expected
                .as_ref()
                .map(|url| *url)
                .map_err(|_| found.as_ref().err().unwrap_or(&"")),
            "{text}"
        );
        if let (Err(expected), Err(found)) = (expected, &found) {
            assert!(found.contains(expected), "{text}: {found}");
        }
    }

    #[test]
    fn urls() {
        check("https://api.example.com", Ok("https://api.example.com"));
        check(
            "https://API.example.com:443/",
            Ok("https://api.example.com"),
        );
        check("https://api.example.com./", Ok("https://api.example.com"));
        check("https://api.example.com..", Err("no host"));
        check("http://127.0.0.1:9000", Ok("http://127.0.0.1:9000"));
        check("http://[::1]:9000", Ok("http://[::1]:9000"));
        check("http://[0:0::1]", Ok("http://[::1]"));
        check("https://api_1.svc:8443", Ok("https://api_1.svc:8443"));
        check("api.example.com", Err("begins with"));
        check("ftp://a", Err("begins with"));
        check("HTTP://a", Err("begins with"));
        check("https://", Err("no host"));
        check("https://a/v1", Err("host and port only"));
        check("https://a?x", Err("host and port only"));
        check("https://a#x", Err("host and port only"));
        check("https://u:p@a", Err("no user"));
        check("u:p@a", Err("no user"));
        check("ftp://u:p@a", Err("no user"));
        check("https://a:0", Err("the port"));
        check("https://a:65536", Err("the port"));
        check("https://a:+1", Err("the port"));
        check("https://a:", Err("the port"));
        check("https://a..b", Err("no host"));
        check("https://a b", Err("no host"));
        check("https://-a", Err("no host"));
        check("https://é.example", Err("no host"));
        check("http://127.1", Err("no host"));
        check("http://2130706433", Err("no host"));
        check("http://0x7f.1", Err("no host"));
        check("http://0x7f000001", Err("no host"));
        check("http://999.0.0.1", Err("no host"));
        check("http://[::1", Err("no host"));
        check("http://[fe80::1%25eth0]", Err("no host"));
    }

    #[test]
    fn addresses() {
        assert_eq!(
            Url::parse("http://[::1]").unwrap().address(),
            Some(IpAddr::V6(Ipv6Addr::LOCALHOST))
        );
        assert_eq!(Url::parse("http://localhost").unwrap().address(), None);
    }
}
