//! Header fields of a message that is carried on: what belongs to one connection and stays there, what the gateway
//! adds, and what a changed body makes false (RFC 9110 section 7.6, RFC 9530).

use crate::audit::RESULT;
use crate::body::coding;
use crate::entropy;
use crate::error::{Code, Error};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    ACCEPT_RANGES, ALT_SVC, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_RANGE, CONTENT_TYPE, COOKIE, ETAG, EXPECT, HOST, HeaderName, HeaderValue, IF_RANGE,
    RANGE, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, Method, Version};
use sha2::{Digest, Sha256, Sha512};
use std::fmt::Write as _;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const DIGEST: HeaderName = HeaderName::from_static("digest");
const SIGNATURE: HeaderName = HeaderName::from_static("signature");
const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
const X_AMZ_CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// Fields that end at this connection, whether or not Connection names them (RFC 9110 section 7.6.1).
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Fields that Connection must not name: without them the upstream reads another message than the one that was sent.
const END_TO_END: [HeaderName; 9] = [
    AUTHORIZATION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    HOST,
    SET_COOKIE,
    VIA,
];

/// Makes a client's request one that may go on: refuses what a gateway refuses, and removes what ends here.
/// `TE: trailers` and `Trailer` stay meaningful, since trailers are carried.
pub fn arrive(
    method: &Method,
    headers: &mut HeaderMap,
    pseudonym: &Pseudonym,
) -> Result<(), Error> {
    if *method == Method::CONNECT {
        return Err(Error::from(Code::Method).closing());
    }
    if *method == Method::TRACE {
        return Err(Code::Method.into());
    }
    // Most requests have none of these, and one look at what is there costs less than looking for each.
    let concerns =
        |name: &HeaderName| is_hop_by_hop(name) || matches!(name.as_str(), "expect" | "via");
    if !headers.keys().any(concerns) {
        return Ok(());
    }
    for expectation in headers.get_all(EXPECT) {
        if !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return Err(Code::Expectation.into());
        }
    }
    if pseudonym.is_in(headers) {
        return Err(Code::Loop.into());
    }
    let trailers = names(headers, TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    for named in named_by_connection(headers) {
        if END_TO_END.contains(&named) {
            return Err(Code::ConnectionField.because(named.to_string()));
        }
        headers.remove(named);
    }
    remove(headers, |name| is_hop_by_hop(name) || *name == EXPECT);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    Ok(())
}

/// One Cookie field of the several that HTTP/2 allows (RFC 9113 section 8.2.3): other protocols have one.
pub fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() < 2 {
        return;
    }
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}

/// Adds what a gateway adds to a request: itself in Via (RFC 9110 section 7.6.3), and the upstream's own Host.
pub fn send(headers: &mut HeaderMap, via: &HeaderValue, host: &HeaderValue) {
    headers.append(VIA, via.clone());
    headers.insert(HOST, host.clone());
}

/// What [`send`] and [`arrive`] wrote for HTTP/1.1 and an upstream of HTTP/2 has elsewhere: the host is its
/// `:authority`, and `te` needs no announcement.
pub fn send_multiplexed(headers: &mut HeaderMap) {
    remove(headers, |name| *name == HOST || *name == CONNECTION);
}

/// Whether the message is a gRPC call's: `application/grpc`, and what may follow it.
pub fn is_call(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = media.and_then(|media| media.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Leaves out of an answer what HTTP/2 does not have (RFC 9113 section 8.2.2).
pub fn multiplexed(headers: &mut HeaderMap) {
    let forbidden = [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    remove(headers, |name| forbidden.contains(name));
}

/// Makes an upstream's answer one that may go back. It cannot be refused any more: an essential field that Connection
/// names stays.
pub fn back(headers: &mut HeaderMap) {
    // The last two: ours alone; and another way to the same service would lead round the agent (RFC 7838).
    let ends_here = |name: &HeaderName| is_hop_by_hop(name) || *name == RESULT || *name == ALT_SVC;
    if !headers.keys().any(ends_here) {
        return;
    }
    for named in named_by_connection(headers) {
        if !END_TO_END.contains(&named) {
            headers.remove(named);
        }
    }
    // Chunks win over a length, which must not go on then (RFC 9112 section 6.3).
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    remove(headers, ends_here);
}

/// Asks the upstream for an answer that can be read: whole, and in no coding but those that can be taken off.
pub fn ask_for_readable(headers: &mut HeaderMap) {
    coding::accept(headers);
    remove(headers, |name| *name == RANGE || *name == IF_RANGE);
}

/// Takes back what an answer offers for parts of itself: this route gives out whole ones.
pub fn withhold_ranges(headers: &mut HeaderMap) {
    headers.remove(ACCEPT_RANGES);
}

/// The fields of a streaming message: chunks stay chunks, even on a GET.
pub fn stream(headers: &mut HeaderMap) {
    if !headers.contains_key(CONTENT_LENGTH) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// The framing fields of a held message: its true length, or chunks where trailers follow.
pub fn frame(headers: &mut HeaderMap, length: usize, trailers: Option<&HeaderMap>) {
    headers.remove(TRANSFER_ENCODING);
    match trailers {
        None => {
            headers.remove(TRAILER);
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        Some(trailers) => {
            headers.remove(CONTENT_LENGTH);
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            // hyper sends the trailers that are announced.
            let announced: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
            if let Ok(announced) = HeaderValue::from_str(&announced.join(", ")) {
                headers.insert(TRAILER, announced);
            }
        }
    }
}

/// The head of an answer without a body (to HEAD, or 304) where a body would have been changed, or of a body that will be changed
/// while it flows: what it says of that body is dropped, and its tag is the one that the body would have had.
pub fn unforeseen(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    without_digests(headers);
    weaken(headers);
}

/// What a request is signed with, where that covers its body: AWS Signature Version 4, HTTP Message Signatures (RFC 9421), and the drafts before those.
pub fn signed_over_body(headers: &HeaderMap) -> Option<&'static str> {
    let signs = |name: &HeaderName| {
        let name = name.as_str();
        matches!(name, "authorization" | "signature" | "signature-input")
    };
    if !headers.keys().any(signs) {
        return None;
    }
    let values = |name: HeaderName| {
        let lines = headers.get_all(name).into_iter();
        lines.map(|line| String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase())
    };
    let unsigned = |value: String| value.contains("unsigned-payload");
    let aws = |value: String| value.trim_ascii_start().starts_with("aws4-");
    if values(AUTHORIZATION).any(aws) && !values(X_AMZ_CONTENT_SHA256).any(unsigned) {
        return Some("AWS Signature Version 4");
    }
    let digests = [
        "content-digest",
        "repr-digest",
        "digest",
        "content-md5",
        "content-length",
    ];
    let names = |value: &String| {
        let mut words = value.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        words.any(|word| digests.contains(&word))
    };
    if values(SIGNATURE_INPUT).any(|value| names(&value)) {
        return Some("an HTTP message signature");
    }
    let draft = |value: &String| value.contains("signature=") && names(value);
    let mut signatures = values(AUTHORIZATION).chain(values(SIGNATURE));
    signatures
        .any(|value| draft(&value))
        .then_some("a signature of the message")
}

/// What it says is true of one body alone.
fn is_digest(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "content-digest" | "repr-digest" | "digest" | "content-md5" | "x-amz-content-sha256"
    )
}

/// Leaves out the digests of a body that is another one now.
pub fn without_digests(headers: &mut HeaderMap) {
    remove(headers, is_digest);
}

/// Makes true, weakens or drops what a changed body has made false.
pub fn changed(headers: &mut HeaderMap, body: &[u8]) {
    digests(headers, body);
    weaken(headers);
}

/// A strong tag promises the very bytes (RFC 9110 section 8.8.1).
fn weaken(headers: &mut HeaderMap) {
    let strong = headers
        .get(ETAG)
        .filter(|tag| tag.as_bytes().starts_with(b"\""));
    let weak = strong.map(|tag| HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()));
    if let Some(Ok(weak)) = weak {
        headers.insert(ETAG, weak);
    }
}

/// The digests of a changed body, in its head or in its trailers.
pub fn digests(headers: &mut HeaderMap, body: &[u8]) {
    if !headers.keys().any(is_digest) {
        return;
    }
    headers.remove(CONTENT_MD5);
    let amazon = headers.get(X_AMZ_CONTENT_SHA256);
    if amazon.is_some_and(|value| value.len() == 64) {
        let mut hex = String::with_capacity(64);
        for byte in Sha256::digest(body) {
            // A `String` takes what is written.
            let _ = write!(hex, "{byte:02x}");
        }
        if let Ok(value) = HeaderValue::from_str(&hex) {
            headers.insert(X_AMZ_CONTENT_SHA256, value);
        }
    }
    // Of a part, the whole's digest cannot be made anew.
    if headers.contains_key(CONTENT_RANGE) {
        remove(headers, |name| *name == REPR_DIGEST || *name == DIGEST);
    }
    for name in [CONTENT_DIGEST, REPR_DIGEST] {
        digest(headers, name, "=", |algorithm| match algorithm {
            "sha-256" => Some(format!(
                "sha-256=:{}:",
                STANDARD.encode(Sha256::digest(body))
            )),
            "sha-512" => Some(format!(
                "sha-512=:{}:",
                STANDARD.encode(Sha512::digest(body))
            )),
            _ => None,
        });
    }
    // RFC 3230, obsolete and in use.
    digest(headers, DIGEST, "=", |algorithm| match algorithm {
        "sha-256" => Some(format!("SHA-256={}", STANDARD.encode(Sha256::digest(body)))),
        "sha-512" => Some(format!("SHA-512={}", STANDARD.encode(Sha512::digest(body)))),
        _ => None,
    });
}

/// Replaces each digest of a field by one made anew; those that cannot be are left out, and a field of none is dropped.
fn digest(
    headers: &mut HeaderMap,
    name: HeaderName,
    separator: &str,
    make: impl Fn(&str) -> Option<String>,
) {
    if !headers.contains_key(&name) {
        return;
    }
    let made: Vec<String> = names(headers, name.clone())
        .filter_map(|item| {
            item.split_once(separator)
                .map(|(algorithm, _)| algorithm.trim().to_ascii_lowercase())
        })
        .filter_map(|algorithm| make(&algorithm))
        .collect();
    match HeaderValue::from_str(&made.join(", ")) {
        Ok(value) if !made.is_empty() => headers.insert(name, value),
        _ => headers.remove(name),
    };
}

/// The name by which this process knows its own requests, `fieldveil-` and 16 hexadecimal digits, as entries of Via.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pseudonym {
    name: String,
    received_1: HeaderValue,
    received_2: HeaderValue,
}

impl Pseudonym {
    /// A new name, at random.
    pub fn new() -> Pseudonym {
        let mut bytes = [0; 8];
        entropy::fill(&mut bytes);
        Pseudonym::of(u64::from_le_bytes(bytes))
    }

    fn of(number: u64) -> Pseudonym {
        let name = format!("fieldveil-{number:016x}");
        let entry = |version: &str| {
            HeaderValue::from_str(&format!("{version} {name}"))
                .unwrap_or(HeaderValue::from_static("1.1 fieldveil"))
        };
        Pseudonym {
            received_1: entry("1.1"),
            received_2: entry("2"),
            name,
        }
    }

    /// The entry for a message that came in this version of HTTP.
    pub fn via(&self, version: Version) -> &HeaderValue {
        match version {
            Version::HTTP_2 => &self.received_2,
            _ => &self.received_1,
        }
    }

    /// The request has passed this process before.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        // `[protocol-name "/"] protocol-version RWS received-by [RWS comment]`.
        names(headers, VIA).any(|hop| {
            hop.split_ascii_whitespace()
                .nth(1)
                .is_some_and(|name| name.eq_ignore_ascii_case(&self.name))
        })
    }
}

impl Default for Pseudonym {
    fn default() -> Pseudonym {
        Pseudonym::new()
    }
}

/// The members of a comma-separated field, over all its lines.
pub(super) fn names(headers: &HeaderMap, field: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers
        .get_all(field)
        .into_iter()
        .filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    if !headers.contains_key(CONNECTION) {
        return Vec::new();
    }
    // What connections mostly say is no field, or is removed anyway.
    let usual = |name: &&str| {
        ["keep-alive", "close"]
            .iter()
            .any(|usual| name.eq_ignore_ascii_case(usual))
    };
    names(headers, CONNECTION)
        .filter(|name| !usual(name))
        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        .collect()
}

fn remove(headers: &mut HeaderMap, is_unwanted: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| is_unwanted(name)) {
        let name = name.clone();
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).expect("value"));
        }
        headers
    }

    fn own() -> Pseudonym {
        Pseudonym::of(0xff)
    }

    #[track_caller]
    fn check_arrival(
        lines: &[(&'static str, &str)],
        expected: Result<&[(&'static str, &str)], Code>,
    ) {
        let mut headers = map(lines);
        let result = arrive(&Method::POST, &mut headers, &own());
        match expected {
            Ok(left) => {
                result.expect("goes on");
                assert_eq!(headers, map(left), "{lines:?}");
            }
            Err(code) => assert_eq!(result.expect_err("refused").code(), code, "{lines:?}"),
        }
    }

    #[test]
    fn what_belongs_to_the_connection_stays_there() {
        check_arrival(
            &[("accept", "a"), ("x", "1"), ("x", "2")],
            Ok(&[("accept", "a"), ("x", "1"), ("x", "2")]),
        );
        check_arrival(
            &[
                ("connection", "keep-alive, X-Hop,, upgrade"),
                ("connection", "x-other"),
                ("x-hop", "1"),
                ("x-other", "2"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "close"),
                ("proxy-authorization", "Basic x"),
                ("te", "gzip"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "websocket"),
                ("http2-settings", "AAAA"),
                ("expect", "100-Continue"),
                ("max-forwards", "3"),
            ],
            Ok(&[("max-forwards", "3")]),
        );
        check_arrival(
            &[("te", "gzip, trailers")],
            Ok(&[("te", "trailers"), ("connection", "te")]),
        );
    }

    #[test]
    fn what_a_gateway_refuses() {
        for name in [
            "Host",
            "content-length",
            "Content-Type",
            "authorization",
            "cookie",
            "via",
            "content-encoding",
        ] {
            check_arrival(&[("connection", name)], Err(Code::ConnectionField));
            check_arrival(
                &[
                    ("connection", "close"),
                    ("connection", &format!("x, {name}")),
                ],
                Err(Code::ConnectionField),
            );
        }
        check_arrival(&[("expect", "200-ok")], Err(Code::Expectation));
        check_arrival(
            &[("expect", "100-continue"), ("expect", "x")],
            Err(Code::Expectation),
        );
        check_arrival(
            &[("via", "1.1 fieldveil-00000000000000ff")],
            Err(Code::Loop),
        );
        check_arrival(
            &[(
                "via",
                "1.0 a, HTTP/1.1 FIELDVEIL-00000000000000FF (x), 1.1 b",
            )],
            Err(Code::Loop),
        );
        check_arrival(
            &[("via", "1.1 fieldveil-00000000000000fe")],
            Ok(&[("via", "1.1 fieldveil-00000000000000fe")]),
        );
        for method in [Method::CONNECT, Method::TRACE] {
            assert_eq!(
                arrive(&method, &mut HeaderMap::new(), &own())
                    .expect_err("refused")
                    .code(),
                Code::Method
            );
        }
    }

    #[test]
    fn pseudonyms_differ_and_are_recognised() {
        let (one, other) = (Pseudonym::new(), Pseudonym::new());
        assert_ne!(one, other);
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let mut headers = HeaderMap::new();
            let host = HeaderValue::from_static("h");
            send(&mut headers, one.via(version), &host);
            assert!(one.is_in(&headers));
            assert!(!other.is_in(&headers));
        }
        assert_eq!(own().via(Version::HTTP_2), "2 fieldveil-00000000000000ff");
        assert_eq!(
            own().via(Version::HTTP_10),
            "1.1 fieldveil-00000000000000ff"
        );
    }

    #[test]
    fn crumbs_of_a_cookie_are_joined() {
        for (crumbs, whole) in [
            (&[][..], None),
            (&["a=1"][..], Some("a=1")),
            (&["a=1", "b=2; c=3", "d"][..], Some("a=1; b=2; c=3; d")),
        ] {
            let mut headers = HeaderMap::new();
            for crumb in crumbs {
                headers.append(COOKIE, HeaderValue::from_static(crumb));
            }
            join_cookies(&mut headers);
            let expected: Vec<&str> = whole.into_iter().collect();
            assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn http_2_has_no_fields_of_a_connection() {
        let mut headers = map(&[
            ("connection", "close"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-a"),
            ("x", "1"),
        ]);
        multiplexed(&mut headers);
        assert_eq!(headers, map(&[("trailer", "x-a"), ("x", "1")]));
        let mut headers = map(&[("te", "trailers"), ("connection", "te"), ("host", "h")]);
        send_multiplexed(&mut headers);
        assert_eq!(headers, map(&[("te", "trailers")]));
    }

    #[test]
    fn calls_of_grpc() {
        for (media, is) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;a=b", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_call(&map(&[("content-type", media)])), is, "{media}");
        }
        assert!(!is_call(&HeaderMap::new()));
    }

    #[test]
    fn an_answer_keeps_what_it_needs() {
        let mut headers = map(&[
            ("connection", "close, content-type, x-hop"),
            ("content-type", "text/plain"),
            ("x-hop", "1"),
            ("fieldveil-result", "sealed=9"),
            ("transfer-encoding", "chunked"),
            ("alt-svc", "h3=\":443\""),
            ("date", "x"),
        ]);
        back(&mut headers);
        assert_eq!(
            headers,
            map(&[("content-type", "text/plain"), ("date", "x")])
        );
    }

    #[track_caller]
    fn check_changed(lines: &[(&'static str, &str)], expected: &[(&'static str, &str)]) {
        let mut headers = map(lines);
        changed(&mut headers, b"{\"hello\": \"world\"}\n");
        assert_eq!(headers, map(expected));
    }

    /// The SHA-256 and SHA-512 of RFC 9530 appendix B.1.
    #[test]
    fn digests_are_made_anew_or_dropped() {
        let sha256 = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
        let sha512 = "sha-512=:YMAam51Jz/jOATT6/zvHrLVgOYTGFy1d6GJiOHTohq4yP+pgk4vf2aCsyRZOtw8MjkM7iw7yZ/WkppmM44T3qg==:";
        check_changed(
            &[("content-digest", "sha-256=:AAAA:")],
            &[("content-digest", sha256)],
        );
        check_changed(
            &[
                ("repr-digest", "md5=:AA==:, sha-512=:AAAA:"),
                ("repr-digest", "sha-256=:AAAA:"),
            ],
            &[("repr-digest", &format!("{sha512}, {sha256}"))],
        );
        check_changed(
            &[
                ("digest", "SHA-256=AAAA,adler32=1"),
                ("content-md5", "AAAA"),
            ],
            &[(
                "digest",
                "SHA-256=RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=",
            )],
        );
        check_changed(
            &[
                ("content-digest", "md5=:AA==:"),
                ("repr-digest", ""),
                ("digest", "x"),
            ],
            &[],
        );
        check_changed(
            &[
                ("repr-digest", "sha-256=:AAAA:"),
                ("content-range", "bytes 0-1/9"),
            ],
            &[("content-range", "bytes 0-1/9")],
        );
        check_changed(
            &[("want-content-digest", "sha-256=1")],
            &[("want-content-digest", "sha-256=1")],
        );
    }

    #[test]
    fn a_changed_body_has_a_weak_tag() {
        check_changed(&[("etag", "\"abc\"")], &[("etag", "W/\"abc\"")]);
        check_changed(&[("etag", "W/\"abc\"")], &[("etag", "W/\"abc\"")]);
        check_changed(&[("etag", "odd")], &[("etag", "odd")]);
    }

    #[test]
    fn held_messages_are_framed_truly() {
        let mut headers = map(&[
            ("content-length", "5"),
            ("trailer", "x-a"),
            ("transfer-encoding", "chunked"),
        ]);
        frame(&mut headers, 7, None);
        assert_eq!(headers, map(&[("content-length", "7")]));
        frame(&mut headers, 7, Some(&map(&[("x-a", "1"), ("x-b", "2")])));
        assert_eq!(
            headers,
            map(&[("transfer-encoding", "chunked"), ("trailer", "x-a, x-b")])
        );
    }
}
