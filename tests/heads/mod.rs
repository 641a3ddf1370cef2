//! Heads and chunked bodies that the door refuses, each with its code, and ones that it lets through: one list for the
//! pure machine and for the wire.

/// Name, bytes, code.
pub fn refused() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let get = |lines: &str| format!("GET /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes();
    let post = |lines: &str| format!("POST /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n{{}}").into_bytes();
    let host = |value: &str| format!("GET /x HTTP/1.1\r\nHost:{value}\r\n\r\n").into_bytes();
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n").into_bytes();
    let raw = |bytes: &[u8]| bytes.to_vec();
    let many = |count: usize| get(&"X: y\r\n".repeat(count));
    vec![
        // Host.
        ("no host", raw(b"GET /x HTTP/1.1\r\n\r\n"), "host-missing"),
        (
            "no host, other fields",
            raw(b"GET /x HTTP/1.1\r\nHostx: a\r\nX-Host: a\r\n\r\n"),
            "host-missing",
        ),
        ("two hosts", get("Host: a\r\n"), "host-repeated"),
        ("two hosts, other case", get("hOST: b\r\n"), "host-repeated"),
        ("empty host", host(""), "host-invalid"),
        ("blank host", host("  "), "host-invalid"),
        ("userinfo in host", host(" user@a"), "host-invalid"),
        (
            "userinfo and password in host",
            host(" user:pw@a"),
            "host-invalid",
        ),
        ("list in host", host(" a, b"), "host-invalid"),
        ("list in host without space", host(" a,b"), "host-invalid"),
        ("space in host", host(" a b"), "host-invalid"),
        ("path in host", host(" a/b"), "host-invalid"),
        ("query in host", host(" a?b"), "host-invalid"),
        ("percent in host", host(" a%2e"), "host-invalid"),
        ("letters as port", host(" a:http"), "host-invalid"),
        ("empty port", host(" a:"), "host-invalid"),
        ("port too large", host(" a:65536"), "host-invalid"),
        ("signed port", host(" a:+80"), "host-invalid"),
        ("two ports", host(" a:80:80"), "host-invalid"),
        ("open bracket", host(" [::1"), "host-invalid"),
        ("not an address in brackets", host(" [a]"), "host-invalid"),
        (
            "zone in brackets",
            host(" [fe80::1%25eth0]"),
            "host-invalid",
        ),
        ("text behind brackets", host(" [::1]x"), "host-invalid"),
        (
            "non-ASCII host",
            raw(b"GET /x HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n"),
            "host-invalid",
        ),
        // Framing.
        (
            "length, then chunked",
            post("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"),
            "framing-conflict",
        ),
        (
            "chunked, then length",
            post("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n"),
            "framing-conflict",
        ),
        (
            "length and identity",
            post("Content-Length: 2\r\nTransfer-Encoding: identity\r\n"),
            "framing-conflict",
        ),
        (
            "gzip, chunked",
            post("Transfer-Encoding: gzip, chunked\r\n"),
            "transfer-coding",
        ),
        (
            "identity",
            post("Transfer-Encoding: identity\r\n"),
            "transfer-coding",
        ),
        (
            "gzip",
            post("Transfer-Encoding: gzip\r\n"),
            "transfer-coding",
        ),
        (
            "chunked twice",
            post("Transfer-Encoding: chunked, chunked\r\n"),
            "transfer-coding",
        ),
        (
            "two chunked",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            "transfer-coding",
        ),
        (
            "chunked, then identity",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
            "transfer-coding",
        ),
        (
            "xchunked",
            post("Transfer-Encoding: xchunked\r\n"),
            "transfer-coding",
        ),
        (
            "quoted chunked",
            post("Transfer-Encoding: \"chunked\"\r\n"),
            "transfer-coding",
        ),
        (
            "chunked with a parameter",
            post("Transfer-Encoding: chunked;q=1\r\n"),
            "transfer-coding",
        ),
        (
            "empty transfer coding",
            post("Transfer-Encoding:\r\n"),
            "transfer-coding",
        ),
        (
            "chunked in 1.0",
            raw(b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            "transfer-coding",
        ),
        (
            "two lengths that agree",
            post("Content-Length: 2\r\nContent-Length: 2\r\n"),
            "content-length",
        ),
        (
            "two lengths that differ",
            post("Content-Length: 2\r\nContent-Length: 3\r\n"),
            "content-length",
        ),
        (
            "list of lengths",
            post("Content-Length: 2, 2\r\n"),
            "content-length",
        ),
        ("plus", post("Content-Length: +2\r\n"), "content-length"),
        ("minus", post("Content-Length: -2\r\n"), "content-length"),
        (
            "space within",
            post("Content-Length: 2 2\r\n"),
            "content-length",
        ),
        (
            "empty length",
            post("Content-Length:\r\n"),
            "content-length",
        ),
        (
            "hexadecimal length",
            post("Content-Length: 0x2\r\n"),
            "content-length",
        ),
        (
            "leading zero",
            post("Content-Length: 02\r\n"),
            "content-length",
        ),
        (
            "decimal point",
            post("Content-Length: 2.0\r\n"),
            "content-length",
        ),
        (
            "2^63",
            post("Content-Length: 9223372036854775808\r\n"),
            "content-length",
        ),
        (
            "2^64",
            post("Content-Length: 18446744073709551616\r\n"),
            "content-length",
        ),
        (
            "twenty digits",
            post("Content-Length: 99999999999999999999\r\n"),
            "content-length",
        ),
        (
            "non-ASCII digit",
            raw(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \xd9\xa2\r\n\r\n"),
            "content-length",
        ),
        (
            "underscore length",
            post("Content_Length: 2\r\n"),
            "framing-twin",
        ),
        (
            "underscore length, other case",
            post("content_LENGTH: 2\r\n"),
            "framing-twin",
        ),
        (
            "underscore coding",
            post("Transfer_Encoding: chunked\r\n"),
            "framing-twin",
        ),
        // Lines.
        ("obs-fold", get("X: a\r\n b\r\n"), "obs-fold"),
        ("obs-fold with a tab", get("X: a\r\n\tb\r\n"), "obs-fold"),
        (
            "folded first line",
            raw(b"GET /x HTTP/1.1\r\n Host: a\r\n\r\n"),
            "obs-fold",
        ),
        ("space before the colon", get("X : a\r\n"), "field-name"),
        (
            "tab before the colon",
            get("Content-Length\t: 2\r\n"),
            "field-name",
        ),
        (
            "space before the colon of the coding",
            post("Transfer-Encoding : chunked\r\n"),
            "field-name",
        ),
        ("no colon", get("X\r\n"), "field-name"),
        ("empty name", get(": x\r\n"), "field-name"),
        ("bracket in a name", get("X[0]: x\r\n"), "field-name"),
        (
            "non-ASCII name",
            raw(b"GET / HTTP/1.1\r\nHost: a\r\n\xc3\xa9: x\r\n\r\n"),
            "field-name",
        ),
        (
            "NUL in a name",
            raw(b"GET / HTTP/1.1\r\nHost: a\r\nX\0: x\r\n\r\n"),
            "field-name",
        ),
        (
            "NUL in a value",
            raw(b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
            "control-byte",
        ),
        (
            "escape in a value",
            raw(b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x1bb\r\n\r\n"),
            "control-byte",
        ),
        (
            "DEL in a value",
            raw(b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n"),
            "control-byte",
        ),
        (
            "bare CR in a value",
            raw(b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"),
            "line-ending",
        ),
        (
            "bare CR in a name",
            raw(b"GET / HTTP/1.1\r\nHost: a\r\nX\rY: b\r\n\r\n"),
            "line-ending",
        ),
        (
            "CR CR LF",
            raw(b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"),
            "line-ending",
        ),
        (
            "bare CR in the request line",
            raw(b"GET /\rx HTTP/1.1\r\nHost: a\r\n\r\n"),
            "line-ending",
        ),
        (
            "bare LF behind the request line",
            raw(b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
            "line-ending",
        ),
        (
            "bare LF behind a field",
            raw(b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"),
            "line-ending",
        ),
        (
            "bare LF at the end",
            raw(b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
            "line-ending",
        ),
        (
            "bare LFs",
            raw(b"GET / HTTP/1.1\nHost: a\n\n"),
            "line-ending",
        ),
        // The request line.
        (
            "a TLS hello",
            raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
            "request-line",
        ),
        ("a leading space", line(" GET / HTTP/1.1"), "request-line"),
        ("two spaces", line("GET  / HTTP/1.1"), "request-line"),
        (
            "two spaces before the version",
            line("GET /  HTTP/1.1"),
            "request-line",
        ),
        ("a trailing space", line("GET / HTTP/1.1 "), "request-line"),
        ("tabs", line("GET\t/\tHTTP/1.1"), "request-line"),
        ("no version", line("GET /"), "request-line"),
        (
            "a space in the target",
            line("GET /a b HTTP/1.1"),
            "request-line",
        ),
        ("a bad method", line("G{T / HTTP/1.1"), "request-line"),
        (
            "a long method",
            line(&format!("{} / HTTP/1.1", "M".repeat(33))),
            "request-line",
        ),
        (
            "lower-case protocol",
            line("GET / http/1.1"),
            "request-line",
        ),
        ("another protocol", line("GET / HTTQ/1.1"), "request-line"),
        (
            "NUL in the version",
            line("GET / HTTP/1.1\0"),
            "request-line",
        ),
        (
            "two empty lines first",
            raw(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            "request-line",
        ),
        (
            "HTTP/2 preface",
            raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            "http-version",
        ),
        ("HTTP/1.2", line("GET / HTTP/1.2"), "http-version"),
        ("HTTP/0.9", line("GET / HTTP/0.9"), "http-version"),
        // Targets.
        ("a NUL in the target", line("GET /\0 HTTP/1.1"), "target"),
        ("a fragment", line("GET /a#b HTTP/1.1"), "target"),
        ("a quote", line("GET /?a=\"b\" HTTP/1.1"), "target"),
        ("a backslash", line("GET /a\\b HTTP/1.1"), "target"),
        ("angle brackets", line("GET /<a> HTTP/1.1"), "target"),
        (
            "non-ASCII target",
            raw(b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n"),
            "target",
        ),
        ("a relative path", line("GET a/b HTTP/1.1"), "target"),
        ("asterisk with GET", line("GET * HTTP/1.1"), "target"),
        ("another scheme", line("GET ftp://a/ HTTP/1.1"), "target"),
        (
            "userinfo in the target",
            line("GET http://u@a/ HTTP/1.1"),
            "target",
        ),
        (
            "no authority in the target",
            line("GET http:///x HTTP/1.1"),
            "target",
        ),
        (
            "another authority of a WebSocket",
            line("GET ws://b/ HTTP/1.1"),
            "host-mismatch",
        ),
        (
            "another authority",
            line("GET http://b/ HTTP/1.1"),
            "host-mismatch",
        ),
        (
            "another port",
            line("GET http://a:81/ HTTP/1.1"),
            "host-mismatch",
        ),
        (
            "CONNECT elsewhere",
            line("CONNECT b:443 HTTP/1.1"),
            "host-mismatch",
        ),
        ("CONNECT to a path", line("CONNECT /x HTTP/1.1"), "target"),
        // Sizes.
        (
            "a target over 16 KiB",
            line(&format!("GET /{} HTTP/1.1", "a".repeat(16 * 1024))),
            "target-too-long",
        ),
        (
            "an endless target",
            format!("GET /{}", "a".repeat(40_000)).into_bytes(),
            "target-too-long",
        ),
        ("100 further fields", many(100), "too-many-fields"),
        ("a thousand fields", many(1000), "too-many-fields"),
        (
            "a head over 32 KiB",
            get(&format!("X: {}\r\n", "a".repeat(33_000))),
            "head-too-large",
        ),
        (
            "a head over 32 KiB in many fields",
            get(&format!("X: {}\r\n", "a".repeat(1000)).repeat(40)),
            "head-too-large",
        ),
        (
            "an endless field",
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(40_000)).into_bytes(),
            "head-too-large",
        ),
    ]
}

/// Bodies that break the grammar of chunks, behind a head that says `Transfer-Encoding: chunked`.
pub fn bad_chunks() -> Vec<(&'static str, Vec<u8>)> {
    let raw = |bytes: &[u8]| bytes.to_vec();
    vec![
        ("no size", raw(b"\r\n{}\r\n0\r\n\r\n")),
        ("not a digit", raw(b"g\r\n{}\r\n0\r\n\r\n")),
        ("0x", raw(b"0x2\r\n{}\r\n0\r\n\r\n")),
        ("plus", raw(b"+2\r\n{}\r\n0\r\n\r\n")),
        ("minus", raw(b"-2\r\n{}\r\n0\r\n\r\n")),
        ("space before the size", raw(b" 2\r\n{}\r\n0\r\n\r\n")),
        ("space behind the size", raw(b"2 \r\n{}\r\n0\r\n\r\n")),
        ("underscore", raw(b"0_2\r\n{}\r\n0\r\n\r\n")),
        (
            "seventeen digits",
            raw(b"00000000000000002\r\n{}\r\n0\r\n\r\n"),
        ),
        ("2^63", raw(b"8000000000000000\r\n{}\r\n0\r\n\r\n")),
        ("bare LF behind the size", raw(b"2\n{}\r\n0\r\n\r\n")),
        ("bare CR behind the size", raw(b"2\r{}\r\n0\r\n\r\n")),
        ("too much data", raw(b"2\r\n{} \r\n0\r\n\r\n")),
        ("bare LF behind the data", raw(b"2\r\n{}\n0\r\n\r\n")),
        ("bare LF in an extension", raw(b"2;a\n{}\r\n0\r\n\r\n")),
        ("NUL in an extension", raw(b"2;a\0\r\n{}\r\n0\r\n\r\n")),
        (
            "a long extension",
            format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "a".repeat(300)).into_bytes(),
        ),
        (
            "many extensions",
            format!("1;{}\r\n \r\n", "a".repeat(200))
                .repeat(100)
                .into_bytes(),
        ),
        ("bare LF at the end", raw(b"2\r\n{}\r\n0\r\n\n")),
        (
            "a trailer without a name",
            raw(b"2\r\n{}\r\n0\r\n: a\r\n\r\n"),
        ),
        (
            "a trailer without a colon",
            raw(b"2\r\n{}\r\n0\r\nabc\r\n\r\n"),
        ),
        (
            "a folded trailer",
            raw(b"2\r\n{}\r\n0\r\na: b\r\n c\r\n\r\n"),
        ),
        ("NUL in a trailer", raw(b"2\r\n{}\r\n0\r\na: \0\r\n\r\n")),
        (
            "bare LF behind a trailer",
            raw(b"2\r\n{}\r\n0\r\na: b\n\r\n"),
        ),
        (
            "many trailers",
            format!("2\r\n{{}}\r\n0\r\n{}\r\n", "a: b\r\n".repeat(101)).into_bytes(),
        ),
        (
            "a long trailer",
            format!("2\r\n{{}}\r\n0\r\na: {}\r\n\r\n", "b".repeat(9000)).into_bytes(),
        ),
    ]
}

/// Whole requests that pass.
pub fn clean() -> Vec<Vec<u8>> {
    let raw = |bytes: &[u8]| bytes.to_vec();
    vec![
        raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        raw(b"\r\nGET / HTTP/1.1\r\nhost:a\r\n\r\n"),
        raw(b"GET / HTTP/1.0\r\n\r\n"),
        raw(b"GET /a%20b?x={y:[1|2]}&z='!*() HTTP/1.1\r\nHOST: \t a.example.com:8080 \t\r\n\r\n"),
        raw(b"GET http://A.example.com/x HTTP/1.1\r\nHost: a.EXAMPLE.com:80\r\n\r\n"),
        raw(b"GET http://a?x HTTP/1.1\r\nHost: a\r\n\r\n"),
        raw(b"GET ws://a/x HTTP/1.1\r\nHost: a\r\n\r\n"),
        raw(b"GET WSS://a:8443/x HTTP/1.1\r\nHost: a:8443\r\n\r\n"),
        raw(b"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"),
        raw(b"M-SEARCH /x HTTP/1.1\r\nHost: a_b.c\r\nX:\r\nY:\t\r\nZ: \xff\xfe obs\r\n\r\n"),
        raw(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
        raw(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n\r\n\r\n\0"),
        raw(b"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: \tChunked \r\n\r\n0\r\n\r\n"),
        raw(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\" ;c\r\n\r\n\r\n\0\r\n00A\r\n0123456789\r\n0;x\r\nA: b\r\nC:\r\n\r\n"),
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(16 * 1024 - 1)).into_bytes(),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(99)).into_bytes(),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(32_000)).into_bytes(),
    ]
}
