//! The check of an HTTP/2 request's head: what the [door](super::door) is to HTTP/1.1 heads, for those that hyper has
//! decoded (RFC 9113 section 8).
//!
//! hyper resets the stream over pseudo-header fields that are missing, repeated or misplaced, over upper-case names and
//! over control bytes in values. What is left to refuse here is whatever a server behind us might read in another way.

use super::door::head::{
    LINES_MAX, METHOD_BYTES_MAX, TARGET_BYTES_MAX, content_length, is_host, is_target, is_twin,
    same_host,
};
use crate::error::Code;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::request::Parts;
use http::uri::Scheme;

/// Why a request is refused. `ended`: its head is all there is of it.
pub fn judge(head: &Parts, ended: bool) -> Result<(), Code> {
    if head.method.as_str().len() > METHOD_BYTES_MAX {
        return Err(Code::RequestLine);
    }
    target(head)?;
    if head.headers.len() > LINES_MAX {
        return Err(Code::TooManyFields);
    }
    for (name, value) in &head.headers {
        field(name, value)?;
    }
    host(head)?;
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(()),
        (Some(length), None) => match content_length(length.as_bytes()) {
            Some(0) => Ok(()),
            Some(_) if !ended => Ok(()),
            _ => Err(Code::ContentLength),
        },
        _ => Err(Code::ContentLength),
    }
}

/// `:path` and `:scheme`.
fn target(head: &Parts) -> Result<(), Code> {
    let target = head
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    if target.len() > TARGET_BYTES_MAX {
        return Err(Code::TargetTooLong);
    }
    let connect = head.method == http::Method::CONNECT;
    let shaped = target.starts_with('/')
        || (target == "*" && head.method == http::Method::OPTIONS)
        || (target.is_empty() && connect);
    if !shaped || !target.bytes().all(is_target) {
        return Err(Code::Target);
    }
    match head.uri.scheme() {
        Some(scheme) if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS => Err(Code::Target),
        _ => Ok(()),
    }
}

fn field(name: &HeaderName, value: &HeaderValue) -> Result<(), Code> {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if blank(value.as_bytes().first()) || blank(value.as_bytes().last()) {
        return Err(Code::FieldValue);
    }
    if *name == CONNECTION
        || *name == TRANSFER_ENCODING
        || *name == UPGRADE
        || *name == "keep-alive"
        || *name == "proxy-connection"
        || (*name == TE && value.as_bytes() != b"trailers")
    {
        return Err(Code::ConnectionSpecific);
    }
    let name = name.as_str().as_bytes();
    let twin = |real: &[u8]| name.len() == real.len() && name != real && is_twin(name, real);
    if twin(b"content-length") || twin(b"transfer-encoding") {
        return Err(Code::FramingTwin);
    }
    Ok(())
}

/// `:authority` and Host: at least one, and if both, the same.
fn host(head: &Parts) -> Result<(), Code> {
    let authority = head
        .uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    let host = one(&head.headers)?;
    if let Some(authority) = authority
        && !is_host(authority)
    {
        return Err(Code::Target);
    }
    if let Some(host) = host
        && !is_host(host)
    {
        return Err(Code::HostInvalid);
    }
    match (authority, host) {
        (None, None) => Err(Code::HostMissing),
        (Some(authority), Some(host)) if !same_host(authority, host) => Err(Code::HostMismatch),
        _ => Ok(()),
    }
}

fn one(headers: &HeaderMap) -> Result<Option<&[u8]>, Code> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (host, None) => Ok(host.map(HeaderValue::as_bytes)),
        (_, Some(_)) => Err(Code::HostRepeated),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Method, Request, Uri, uri};

    /// A head as hyper makes it of HTTP/2: from parts, which the `http` crate alone checks.
    fn head(
        method: &str,
        authority: Option<&str>,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Option<Parts> {
        let mut parts = uri::Parts::default();
        if let Some(authority) = authority {
            // CONNECT has neither scheme nor path.
            parts.scheme = (!path.is_empty()).then_some(Scheme::HTTP);
            parts.authority = Some(authority.parse().ok()?);
        }
        if !path.is_empty() {
            parts.path_and_query = Some(path.parse().ok()?);
        }
        let mut request = Request::new(());
        *request.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
        *request.uri_mut() = Uri::from_parts(parts).ok()?;
        for (name, value) in fields {
            request.headers_mut().append(
                HeaderName::from_bytes(name.as_bytes()).ok()?,
                HeaderValue::from_str(value).ok()?,
            );
        }
        Some(request.into_parts().0)
    }

    #[track_caller]
    fn check(
        method: &str,
        authority: Option<&str>,
        path: &str,
        fields: &[(&str, &str)],
        expected: Result<(), Code>,
    ) {
        let head = head(method, authority, path, fields).expect("a head that hyper may make");
        assert_eq!(
            judge(&head, false),
            expected,
            "{method} {authority:?} {path} {fields:?}"
        );
    }

    #[test]
    fn hosts() {
        let bad = Err;
        for (authority, fields, expected) in [
            (Some("a"), &[][..], Ok(())),
            (None, &[("host", "a:80")][..], Ok(())),
            (Some("a.example:80"), &[("host", "A.example")][..], Ok(())),
            (Some("[::1]:8080"), &[][..], Ok(())),
            (None, &[][..], bad(Code::HostMissing)),
            (Some("a"), &[("host", "b")][..], bad(Code::HostMismatch)),
            (
                Some("a:8080"),
                &[("host", "a:8081")][..],
                bad(Code::HostMismatch),
            ),
            (
                Some("a"),
                &[("host", "a"), ("host", "a")][..],
                bad(Code::HostRepeated),
            ),
            (None, &[("host", "a, b")][..], bad(Code::HostInvalid)),
            (None, &[("host", "")][..], bad(Code::HostInvalid)),
            (None, &[("host", "u@a")][..], bad(Code::HostInvalid)),
            (None, &[("host", "a/b")][..], bad(Code::HostInvalid)),
            (Some("u@a"), &[][..], bad(Code::Target)),
            (Some("u:p@a:80"), &[][..], bad(Code::Target)),
            (Some("a:99999"), &[][..], bad(Code::Target)),
        ] {
            check("GET", authority, "/", fields, expected);
        }
    }

    #[test]
    fn targets() {
        for (method, path, expected) in [
            ("GET", "/a/%2F?b={c|d}", Ok(())),
            ("OPTIONS", "*", Ok(())),
            ("GET", "*", Err(Code::Target)),
            ("GET", "/a\"b", Err(Code::Target)),
            ("GET", "/a?b<c", Err(Code::Target)),
            ("CONNECT", "", Ok(())),
            (
                "M23456789012345678901234567890123",
                "/",
                Err(Code::RequestLine),
            ),
        ] {
            let Some(head) = head(method, Some("a"), path, &[]) else {
                // The `http` crate is stricter here: hyper resets the stream.
                assert_eq!(expected, Err(Code::Target), "{path}");
                continue;
            };
            assert_eq!(judge(&head, true), expected, "{method} {path}");
        }
        let long = format!("/{}", "a".repeat(TARGET_BYTES_MAX));
        check("GET", Some("a"), &long, &[], Err(Code::TargetTooLong));
    }

    #[test]
    fn fields() {
        for (field, expected) in [
            (("te", "trailers"), Ok(())),
            (("x", ""), Ok(())),
            (("x", "a b"), Ok(())),
            (("content-length", "5"), Ok(())),
            (("te", "gzip"), Err(Code::ConnectionSpecific)),
            (("connection", "close"), Err(Code::ConnectionSpecific)),
            (("keep-alive", "x"), Err(Code::ConnectionSpecific)),
            (("proxy-connection", "x"), Err(Code::ConnectionSpecific)),
            (
                ("transfer-encoding", "chunked"),
                Err(Code::ConnectionSpecific),
            ),
            (("upgrade", "websocket"), Err(Code::ConnectionSpecific)),
            (("content_length", "5"), Err(Code::FramingTwin)),
            (("transfer_encoding", "x"), Err(Code::FramingTwin)),
            (("content-length", "05"), Err(Code::ContentLength)),
            (("content-length", "+5"), Err(Code::ContentLength)),
            (("content-length", "5, 5"), Err(Code::ContentLength)),
            (("content-length", ""), Err(Code::ContentLength)),
            (("x", " a"), Err(Code::FieldValue)),
            (("x", "a\t"), Err(Code::FieldValue)),
        ] {
            check("POST", Some("a"), "/", &[field], expected);
        }
        let twice = [("content-length", "5"), ("content-length", "5")];
        check("POST", Some("a"), "/", &twice, Err(Code::ContentLength));
        let many = vec![("x", "1"); LINES_MAX + 1];
        check("GET", Some("a"), "/", &many, Err(Code::TooManyFields));
        check("GET", Some("a"), "/", &many[1..], Ok(()));
    }

    #[test]
    fn a_length_without_a_body_lies() {
        for (length, expected) in [("0", Ok(())), ("1", Err(Code::ContentLength))] {
            let head = head("POST", Some("a"), "/", &[("content-length", length)]).expect("a head");
            assert_eq!(judge(&head, true), expected);
        }
    }
}
