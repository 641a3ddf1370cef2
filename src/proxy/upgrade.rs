//! Upgrades (RFC 9110 section 7.8): which of them are carried, how they are asked for, and what must have been answered
//! before two connections are joined.
//!
//! What follows a switch is another protocol, into which nobody looks. So a route whose rules are for bodies refuses
//! it, and what would be HTTP again, past the policy (h2c, TLS within the connection), is never asked for: a server may
//! leave that unheeded, and the request is a request without it.

use super::route::Way;
use super::{Passage, Through, headers};
use crate::audit::{Record, RequestId, Side};
use crate::error::{Code, Error};
use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Version};
use hyper::upgrade::OnUpgrade;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Protocols that carry HTTP on: behind them requests would pass unseen.
const HTTP_AGAIN: [&str; 3] = ["h2c", "http", "tls"];

/// The protocols that a request asks for, as its Upgrade field has them; `None`: it stays what it is.
#[derive(Debug)]
pub struct Asked(HeaderValue);

impl Asked {
    /// Of a head as the client sent it. `ended`: there is no body. (Behind one, nobody waits for the switch.)
    pub fn of(head: &Parts, ended: bool) -> Option<Asked> {
        if head.version != Version::HTTP_11 || !ended || !head.headers.contains_key(UPGRADE) {
            return None;
        }
        let mut named = headers::names(&head.headers, CONNECTION);
        if !named.any(|name| name.eq_ignore_ascii_case("upgrade")) {
            return None;
        }
        let asked: Vec<&str> = headers::names(&head.headers, UPGRADE)
            .filter(|protocol| !is_http_again(protocol))
            .collect();
        if asked.is_empty() {
            return None;
        }
        HeaderValue::from_str(&asked.join(", ")).ok().map(Asked)
    }

    /// Not past a route whose rules would have to look into what follows.
    ///
    /// # Errors
    /// [`Code::UpgradeRefused`].
    pub fn may_pass(&self, way: &Way<'_>, record: &mut Record) -> Result<(), Error> {
        match way.rules(Side::Request).reads_bodies() || !way.rules(Side::Response).is_empty() {
            true => way.refuse(Code::UpgradeRefused.into(), record),
            false => Ok(()),
        }
    }

    /// Says so in a request that goes upstream.
    pub fn ask(&self, fields: &mut HeaderMap) {
        let connection = match fields.contains_key(CONNECTION) {
            // `headers::arrive` left `te` there.
            true => "te, upgrade",
            false => "upgrade",
        };
        fields.insert(CONNECTION, HeaderValue::from_static(connection));
        fields.insert(UPGRADE, self.0.clone());
    }

    /// Makes the head of a 101 one that may go back.
    ///
    /// # Errors
    /// The upstream switches to something else than it was asked to.
    pub fn agree(&self, fields: &mut HeaderMap) -> Result<(), Error> {
        let asked = self.0.to_str().unwrap_or_default();
        let chosen: Vec<&str> = headers::names(fields, UPGRADE).collect();
        if chosen.is_empty() {
            return Err(Code::UpstreamBroken.because("a 101 that names no protocol"));
        }
        let was_asked = |protocol: &str| {
            let mut asked = asked.split(", ");
            asked.any(|one| one.eq_ignore_ascii_case(protocol))
        };
        if !chosen.iter().all(|protocol| was_asked(protocol)) {
            return Err(Code::UpstreamBroken.because("a 101 to a protocol that nobody asked for"));
        }
        let chosen = HeaderValue::from_str(&chosen.join(", "))
            .map_err(|_| Code::UpstreamBroken.because("a 101 to a malformed protocol"))?;
        headers::back(fields);
        // A 101 has no body, and nothing that would say how long it is.
        for name in BODY {
            fields.remove(name);
        }
        fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(UPGRADE, chosen);
        Ok(())
    }
}

/// Fields that a 101 must not have (RFC 9110 section 8.6, RFC 9112 section 6.1).
const BODY: [HeaderName; 1] = [http::header::CONTENT_LENGTH];

fn is_http_again(protocol: &str) -> bool {
    let name = protocol.split('/').next().unwrap_or_default();
    HTTP_AGAIN
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

/// What the client's connection leads to behind a 101.
pub struct Switched {
    /// The upstream's connection, when it has left HTTP.
    pub upstream: OnUpgrade,
    /// Given up when nothing moves for so long.
    pub idle: Duration,
    /// It counts as a request as long as it is open.
    _permit: OwnedSemaphorePermit,
}

impl Switched {
    pub(super) fn new(
        upstream: OnUpgrade,
        idle: Duration,
        permit: OwnedSemaphorePermit,
    ) -> Switched {
        Switched {
            upstream,
            idle,
            _permit: permit,
        }
    }
    /// `id`: of the access that asked for it.
    pub(super) fn of(self, id: RequestId) -> Passage {
        let to = Through::Switched(self);
        Passage { id, to }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn asked(lines: &[(&'static str, &'static str)], version: Version) -> Option<String> {
        let mut request = Request::new(());
        *request.version_mut() = version;
        *request.headers_mut() = fields(lines);
        let asked = Asked::of(&request.into_parts().0, true)?;
        Some(asked.0.to_str().expect("text").to_owned())
    }

    #[test]
    fn what_is_asked_for() {
        let both = |upgrade| [("connection", "keep-alive, Upgrade"), ("upgrade", upgrade)];
        for (upgrade, expected) in [
            ("websocket", Some("websocket")),
            ("foo/1, bar", Some("foo/1, bar")),
            ("h2c", None),
            ("H2C, websocket", Some("websocket")),
            ("TLS/1.0, HTTP/1.1", None),
            ("HTTP/2.0", None),
            ("httpx", Some("httpx")),
            ("", None),
        ] {
            let found = asked(&both(upgrade), Version::HTTP_11);
            assert_eq!(found.as_deref(), expected, "{upgrade}");
        }
        assert_eq!(asked(&both("websocket"), Version::HTTP_10), None);
        assert_eq!(asked(&both("websocket"), Version::HTTP_2), None);
        assert_eq!(asked(&[("upgrade", "websocket")], Version::HTTP_11), None);
        assert_eq!(asked(&[("connection", "upgrade")], Version::HTTP_11), None);
    }

    #[test]
    fn what_may_be_answered() {
        let asked = Asked(HeaderValue::from_static("websocket, foo/2"));
        for (upgrade, expected) in [
            (Some("websocket"), true),
            (Some("WebSocket"), true),
            (Some("foo/2"), true),
            (Some("foo/2, websocket"), true),
            (Some("foo"), false),
            (Some("websocket, bar"), false),
            (Some("h2c"), false),
            (Some(""), false),
            (None, false),
        ] {
            let mut head = fields(&[("connection", "upgrade, x-hop"), ("x-hop", "1")]);
            head.append("content-length", HeaderValue::from_static("0"));
            if let Some(upgrade) = upgrade {
                head.append(UPGRADE, HeaderValue::from_static(upgrade));
            }
            let found = asked.agree(&mut head);
            assert_eq!(found.is_ok(), expected, "{upgrade:?}");
            match found {
                Ok(_) => {
                    assert_eq!(head.len(), 2, "{head:?}");
                    assert_eq!(head[CONNECTION], "upgrade");
                    assert_eq!(head[UPGRADE], upgrade.expect("one"));
                }
                Err(error) => assert_eq!(error.code(), Code::UpstreamBroken),
            }
        }
    }
}
