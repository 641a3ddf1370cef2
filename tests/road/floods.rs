//! HTTP/2 that means harm, or is merely wrong: bounded, refused clearly, and nothing of it goes upstream.

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frames, GOAWAY, HEADERS, PING,
    PREFACE, PROTOCOL_ERROR, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, request,
};
use crate::harness::{Agent, Raw, Setup, eventually};
use crate::records::around;
use fieldveil::audit::Outcome;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const SHORT: Duration = Duration::from_millis(150);
const WHOLE: u8 = END_HEADERS | END_STREAM;

async fn agent() -> (Raw, Agent) {
    let upstream = Raw::answering(OK).await;
    let agent = Setup::before(upstream.address).start().await;
    (upstream, agent)
}

fn get(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &request("GET", path, more))
}

/// Sends the same frames over and over, from the side, until the agent has had enough.
async fn flood(agent: &Agent, begin: &[u8], frames: impl Fn(u32) -> Vec<u8>) -> u32 {
    let mut client = Frames::to(agent.address).await;
    client.say(begin).await;
    for round in 0..200 {
        let bytes: Vec<u8> = (0..100).flat_map(|n| frames(round * 100 + n)).collect();
        client.say(&bytes).await;
    }
    client.goodbye().await
}

#[tokio::test]
async fn the_helper_speaks_http_2() {
    let (upstream, agent) = agent().await;
    let mut client = Frames::to(agent.address).await;
    client.say(&get(1, "/good", &[])).await;
    assert_eq!(client.outcome(1).await, Ok(b"ok".to_vec()));
    assert!(upstream.text().starts_with("GET /good HTTP/1.1\r\n"));
}

#[tokio::test]
async fn floods_of_frames_that_carry_nothing_end_the_connection() {
    let (upstream, agent) = agent().await;
    let post = request("POST", "/flood", &[]);
    let open = frame(HEADERS, END_HEADERS, 1, &post);
    for (name, begin, nothing) in [
        ("ping", &b""[..], frame(PING, 0, 0, b"12345678")),
        ("settings", b"", frame(SETTINGS, 0, 0, b"")),
        (
            "settings with one",
            b"",
            frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
        ),
        ("priority", b"", frame(2, 0, 1, &[0, 0, 0, 3, 16])),
        ("unknown", b"", frame(0xbe, 0, 0, b"x")),
        (
            "window update",
            b"",
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        ),
        ("empty data", &open, frame(DATA, 0, 1, b"")),
        ("padding", &open, frame(DATA, 0x8, 1, &[3, 0, 0, 0])),
    ] {
        let reason = flood(&agent, begin, |_| nothing.clone()).await;
        assert_eq!(reason, ENHANCE_YOUR_CALM, "{name}");
    }
    eventually("no connection", || agent.gauges.connections() == 0).await;
    eventually("no request", || agent.gauges.requests() == 0).await;
    let got = upstream.text();
    assert!(!got.contains("0\r\n\r\n"), "a broken body was ended: {got}");
}

#[tokio::test]
async fn requests_begun_and_given_up_end_the_connection() {
    let upstream = Raw::new(|mut line| async move { while line.more().await {} }).await;
    let agent = Setup::before(upstream.address).start().await;
    let reason = flood(&agent, b"", |n| {
        let stream = n * 2 + 1;
        [
            get(stream, "/", &[]),
            frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()),
        ]
        .concat()
    })
    .await;
    assert_eq!(reason, ENHANCE_YOUR_CALM);
    assert!(upstream.connections() < 1000, "{}", upstream.connections());
    eventually("nothing left", || {
        agent.gauges.connections() == 0 && agent.gauges.requests() == 0
    })
    .await;
    assert_eq!(agent.request_permits.available_permits(), 1024);

    // One after the other, each looked at before it is given up.
    let mut client = Frames::to(agent.address).await;
    for n in 0..2000 {
        let stream = n * 2 + 1;
        client.say(&get(stream, "/", &[])).await;
        eventually("begun or over", || {
            agent.gauges.requests() > 0 || agent.gauges.connections() == 0
        })
        .await;
        client
            .say(&frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()))
            .await;
        if agent.gauges.connections() == 0 {
            break;
        }
        eventually("given up", || agent.gauges.requests() == 0).await;
    }
    eventually("over", || agent.gauges.connections() == 0).await;
}

#[tokio::test]
async fn heads_without_end_end_the_connection() {
    let (upstream, agent) = agent().await;
    for (name, begin, more) in [
        ("empty", request("GET", "/", &[]), Vec::new()),
        (
            "full",
            request("GET", "/", &[]),
            block(&[(b"x", &[b'a'; 16_000])]),
        ),
        (
            "one long value",
            vec![0x10, 1, b'x', 127, 0xff, 0xff, 0xff, 0x7f],
            vec![b'a'; 16_000],
        ),
    ] {
        let mut client = Frames::to(agent.address).await;
        client.say(&frame(HEADERS, END_STREAM, 1, &begin)).await;
        for _ in 0..100 {
            client.say(&frame(CONTINUATION, 0, 1, &more)).await;
        }
        let reason = client.goodbye().await;
        assert!(
            [ENHANCE_YOUR_CALM, 0x9, PROTOCOL_ERROR].contains(&reason),
            "{name}: {reason}"
        );
    }
    assert_eq!(upstream.connections(), 0);
    assert_eq!(agent.records.outcomes().len(), 0);
}

#[tokio::test]
async fn large_heads_are_refused_whatever_they_are_packed_in() {
    let (upstream, agent) = agent().await;
    // Many fields within the size: our own answer.
    let mut client = Frames::to(agent.address).await;
    let many = vec![("x", "1"); 101];
    client.say(&get(1, "/", &many)).await;
    assert_eq!(client.code(1).await, "too-many-fields");
    // 40 KiB in three frames: 431 without ado.
    let mut client = Frames::to(agent.address).await;
    let large = request("GET", "/", &[("x", &"a".repeat(40_000))]);
    let pieces: Vec<&[u8]> = large.chunks(16_000).collect();
    client.say(&frame(HEADERS, END_STREAM, 3, pieces[0])).await;
    client.say(&frame(CONTINUATION, 0, 3, pieces[1])).await;
    client
        .say(&frame(CONTINUATION, END_HEADERS, 3, pieces[2]))
        .await;
    let answer = client.wait_for(HEADERS).await.expect("an answer");
    assert_eq!((answer.stream, answer.flags), (3, WHOLE));
    // The first on its connection: `:status` by its name's index, and 431 in Huffman's code (RFC 7541 section 6.2.1).
    assert_eq!(answer.payload, [0x48, 0x83, 0x69, 0x90, 0xff]);
    // A bomb: one entry of the table, named a thousand times. A block of a few bytes, a head of megabytes.
    let mut bomb = request("GET", "/", &[]);
    bomb.extend([0x40, 1, b'x', 127, 0xa1, 0x1e]);
    bomb.extend([b'a'; 4000]);
    bomb.extend([0xbe; 10_000]);
    client.say(&frame(HEADERS, WHOLE, 5, &bomb)).await;
    assert_eq!(client.goodbye().await, ENHANCE_YOUR_CALM);
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_table_larger_than_allowed_is_an_error() {
    let (upstream, agent) = agent().await;
    let mut client = Frames::to(agent.address).await;
    // Dynamic table size update to 2^30 (RFC 7541 section 6.3).
    let mut update = vec![0x3f, 0xe1, 0xff, 0xff, 0xff, 0x03];
    update.extend(request("GET", "/", &[]));
    client.say(&frame(HEADERS, WHOLE, 1, &update)).await;
    assert!([PROTOCOL_ERROR, 0x9].contains(&client.goodbye().await));
    assert_eq!(upstream.connections(), 0);
}

/// Sends this head on a connection of its own, and sees it refused: a stream error, or that of the connection where the
/// block cannot be decoded.
async fn refused(agent: &Agent, name: &str, bad: &[u8]) {
    let mut client = Frames::to(agent.address).await;
    client.say(&frame(HEADERS, WHOLE, 1, bad)).await;
    let reason = loop {
        match client.next().await {
            Some(frame) if matches!(frame.kind, RST_STREAM | GOAWAY) => break frame.reason(),
            Some(frame) => assert!(frame.stream == 0, "{name} was answered: {frame:?}"),
            None => panic!("{name}: silence"),
        }
    };
    assert!([PROTOCOL_ERROR, 0x9].contains(&reason), "{name}: {reason}");
}

#[tokio::test]
async fn bad_heads_go_nowhere() {
    let (upstream, agent) = agent().await;
    let pseudo: [(&[u8], &[u8]); 4] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"app"),
        (b":path", b"/bad"),
    ];
    let with = |name: &'static [u8], value: &'static [u8]| {
        block(&[&pseudo[..], &[(name, value)]].concat())
    };
    for (name, bad) in [
        ("CR LF in a value", with(b"x", b"a\r\nhost: b")),
        ("LF in a value", with(b"x", b"a\nb")),
        ("CR in a value", with(b"x", b"a\rb")),
        ("NUL in a value", with(b"x", b"a\0b")),
        (
            "a path with CR LF",
            block(&[
                pseudo[0],
                pseudo[1],
                pseudo[2],
                (b":path", b"/ HTTP/1.1\r\nx: y"),
            ]),
        ),
        (
            "a path with a space",
            block(&[pseudo[0], pseudo[1], pseudo[2], (b":path", b"/a b")]),
        ),
        (
            "an authority with CR LF",
            block(&[pseudo[0], pseudo[1], (b":authority", b"a\r\nb"), pseudo[3]]),
        ),
        (
            "a method with a space",
            block(&[(b":method", b"GET /x"), pseudo[1], pseudo[2], pseudo[3]]),
        ),
        ("connection", with(b"connection", b"close")),
        ("keep-alive", with(b"keep-alive", b"timeout=5")),
        ("proxy-connection", with(b"proxy-connection", b"close")),
        ("transfer-encoding", with(b"transfer-encoding", b"chunked")),
        ("upgrade", with(b"upgrade", b"websocket")),
        ("te", with(b"te", b"gzip")),
        ("no path", block(&pseudo[..3])),
        ("no method", block(&pseudo[1..])),
        ("no scheme", block(&[pseudo[0], pseudo[2], pseudo[3]])),
        ("two paths", block(&[&pseudo[..], &pseudo[3..]].concat())),
        (
            "a status",
            block(&[&pseudo[..], &[(&b":status"[..], &b"200"[..])]].concat()),
        ),
        (
            "pseudo behind a field",
            block(&[pseudo[0], pseudo[1], pseudo[2], (b"x", b"y"), pseudo[3]]),
        ),
        (
            "a protocol",
            block(&[
                (b":method", b"CONNECT"),
                pseudo[1],
                pseudo[2],
                pseudo[3],
                (b":protocol", b"websocket"),
            ]),
        ),
        ("a length without a body", with(b"content-length", b"5")),
        ("a length that is none", with(b"content-length", b"-1")),
    ] {
        refused(&agent, name, &bad).await;
    }
    assert_eq!(upstream.connections(), 0);
    // One that can be decoded ends its stream and no other.
    let mut client = Frames::to(agent.address).await;
    client
        .say(&frame(HEADERS, WHOLE, 1, &with(b"connection", b"close")))
        .await;
    assert_eq!(client.outcome(1).await, Err(PROTOCOL_ERROR));
    client.say(&get(3, "/good", &[])).await;
    assert_eq!(client.outcome(3).await, Ok(b"ok".to_vec()));
}

#[tokio::test]
async fn names_that_are_none_go_nowhere() {
    let (upstream, agent) = agent().await;
    for name in [&b"X-Upper"[..], b"a b", b"a\r\nb", b"a:b", b"", b"\x80"] {
        let mut bad = request("GET", "/", &[]);
        bad.extend(block(&[(name, b"v")]));
        refused(&agent, &String::from_utf8_lossy(name), &bad).await;
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn heads_that_the_door_would_refuse_are_answered() {
    let (upstream, agent) = agent().await;
    let mut client = Frames::to(agent.address).await;
    let long = format!("/{}", "a".repeat(16 * 1024));
    for (stream, (path, more, code)) in (1..).step_by(2).zip([
        ("/", &[("host", "other")][..], "host-mismatch"),
        (
            "/",
            &[("host", "app"), ("host", "app")][..],
            "host-repeated",
        ),
        ("/", &[("host", "u@app")][..], "host-invalid"),
        ("/", &[("content_length", "1")][..], "framing-twin"),
        (
            "/",
            &[("content-length", "0"), ("content-length", "0")][..],
            "content-length",
        ),
        ("/", &[("x", " a")][..], "field-value"),
        ("/a\"b", &[][..], "target"),
        ("*", &[][..], "target"),
    ]) {
        client.say(&get(stream, path, more)).await;
        assert_eq!(client.code(stream).await, code);
    }
    let long = request("GET", &long, &[]);
    let (one, other) = long.split_at(16_000);
    client.say(&frame(HEADERS, END_STREAM, 99, one)).await;
    client
        .say(&frame(CONTINUATION, END_HEADERS, 99, other))
        .await;
    assert_eq!(client.code(99).await, "target-too-long");
    // Without an authority, Host is as good; without either, nothing is.
    let bare: [(&[u8], &[u8]); 3] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
    ];
    client.say(&frame(HEADERS, WHOLE, 101, &block(&bare))).await;
    assert_eq!(client.code(101).await, "host-missing");
    assert_eq!(upstream.connections(), 0);
    let hosted = block(&[&bare[..], &[(&b"host"[..], &b"app"[..])]].concat());
    client.say(&frame(HEADERS, WHOLE, 103, &hosted)).await;
    assert_eq!(client.outcome(103).await, Ok(b"ok".to_vec()));
    for (stream, method) in [(105, "CONNECT"), (107, "TRACE")] {
        let fields: &[(&[u8], &[u8])] = match method {
            "CONNECT" => &[(b":method", b"CONNECT"), (b":authority", b"app:443")],
            _ => &[
                (b":method", b"TRACE"),
                (b":scheme", b"http"),
                (b":path", b"/"),
                (b":authority", b"app"),
            ],
        };
        client
            .say(&frame(HEADERS, WHOLE, stream, &block(fields)))
            .await;
        assert_eq!(client.code(stream).await, "method");
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_length_that_lies_never_makes_a_whole_request() {
    let upstream = Raw::new(|mut line| async move { while line.more().await {} }).await;
    for policy in [None, Some(crate::rewriting::POLICY)] {
        let mut setup = Setup::before(upstream.address);
        setup.policy = policy.map(str::to_owned);
        let agent = setup.start().await;
        for (length, body, end) in [
            ("3", &b"{}"[..], true),
            ("1", b"{}", true),
            ("1", b"{}", false),
        ] {
            let before = upstream.text().len();
            let mut client = Frames::to(agent.address).await;
            let more = [
                ("content-length", length),
                ("content-type", "application/json"),
            ];
            client
                .say(&frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &request("POST", "/people", &more),
                ))
                .await;
            client
                .say(&frame(DATA, if end { END_STREAM } else { 0 }, 1, body))
                .await;
            assert_eq!(
                client.outcome(1).await,
                Err(PROTOCOL_ERROR),
                "{length} {end}"
            );
            eventually("over", || agent.gauges.requests() == 0).await;
            let got = upstream.text()[before..].to_owned();
            assert!(!got.ends_with("{}"), "{got}");
            assert!(policy.is_none() || got.is_empty(), "{got}");
        }
    }
}

/// hyper takes NO_ERROR for an end.
#[tokio::test]
async fn a_body_that_is_cut_off_politely_is_cut_off() {
    let upstream = Raw::new(|mut line| async move { while line.more().await {} }).await;
    for policy in [None, Some(crate::rewriting::POLICY)] {
        let mut setup = Setup::before(upstream.address);
        setup.policy = policy.map(str::to_owned);
        let agent = setup.start().await;
        for reason in [0u32, 8] {
            let before = upstream.text().len();
            let mut client = Frames::to(agent.address).await;
            let more = [("content-type", "application/json")];
            client
                .say(&frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &request("POST", "/people", &more),
                ))
                .await;
            client.say(&frame(DATA, 0, 1, b"{}")).await;
            if policy.is_none() {
                eventually("it goes up", || upstream.text()[before..].contains("{}")).await;
            }
            client
                .say(&frame(RST_STREAM, 0, 1, &reason.to_be_bytes()))
                .await;
            eventually("over", || agent.gauges.requests() == 0).await;
            let got = upstream.text()[before..].to_owned();
            assert!(!got.contains("0\r\n\r\n"), "{got}");
            assert!(policy.is_none() || got.is_empty(), "{got}");
        }
    }
}

#[tokio::test]
async fn half_a_preface_is_half_a_head() {
    let upstream = Raw::answering(OK).await;
    let mut setup = Setup::before(upstream.address);
    setup.listener.patience.head = SHORT;
    let agent = setup.start().await;
    // The door has the say, as if it were HTTP/1.1.
    for (half, code) in [
        (&PREFACE[..5], "head-timeout"),
        (&PREFACE[..20], "http-version"),
    ] {
        let mut line = agent.line().await;
        line.say(half).await;
        assert_eq!(line.answer().await.code(), code);
        assert!(line.is_over().await);
    }
    // The preface and no more, byte by byte; the settings and no more; half a frame; a head that does not end.
    let settings = frame(SETTINGS, 0, 0, b"");
    let open = frame(HEADERS, END_STREAM, 1, &request("GET", "/", &[]));
    let half = &get(1, "/", &[])[..15];
    for more in [
        &b""[..],
        &settings,
        &settings[..4],
        &[&settings[..], &open].concat(),
        &[&settings[..], half].concat(),
    ] {
        let begun = Instant::now();
        let mut line = agent.line().await;
        for byte in PREFACE {
            line.say(&[*byte]).await;
        }
        line.say(more).await;
        let mut bytes = Vec::new();
        tokio::time::timeout(crate::harness::SOON, line.stream.read_to_end(&mut bytes))
            .await
            .expect("it ends")
            .expect("in peace");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    assert_eq!(upstream.connections(), 0);
    eventually("all gone", || agent.gauges.connections() == 0).await;
}

#[tokio::test]
async fn a_head_that_stalls_beside_good_streams_ends_the_connection() {
    let upstream = Raw::new(|mut line| async move { while line.more().await {} }).await;
    let mut setup = Setup::before(upstream.address);
    setup.listener.patience.head = SHORT;
    let agent = setup.start().await;
    let mut client = Frames::to(agent.address).await;
    client.say(&get(1, "/", &[])).await;
    eventually("it goes up", || upstream.connections() == 1).await;
    client
        .say(&frame(HEADERS, END_STREAM, 3, &request("GET", "/", &[])))
        .await;
    while client.next().await.is_some() {}
    eventually("all gone", || {
        agent.gauges.connections() == 0 && agent.gauges.requests() == 0
    })
    .await;
    assert_eq!(agent.records.outcomes(), [Outcome::Aborted]);
}

#[tokio::test]
async fn a_body_that_stalls_is_answered_408_and_the_connection_goes_on() {
    let upstream = Raw::new(|mut line| async move {
        while let Some(message) = line.request().await {
            if message.head.starts_with("GET") {
                line.say(OK.as_bytes()).await;
            }
        }
    })
    .await;
    for policy in [None, Some(crate::rewriting::POLICY)] {
        let mut setup = Setup::before(upstream.address);
        setup.policy = policy.map(str::to_owned);
        setup.listener.patience.body = SHORT;
        let agent = setup.start().await;
        let mut client = Frames::to(agent.address).await;
        let more = [("content-type", "application/json")];
        client
            .say(&frame(
                HEADERS,
                END_HEADERS,
                1,
                &request("POST", "/people", &more),
            ))
            .await;
        client.say(&frame(DATA, 0, 1, b"{")).await;
        assert_eq!(client.code(1).await, "body-timeout");
        client.say(&get(3, "/", &[])).await;
        assert_eq!(client.outcome(3).await, Ok(b"ok".to_vec()));
    }
}

#[tokio::test]
async fn an_answer_that_is_not_taken_is_given_up_and_the_connection_goes_on() {
    let upstream = Raw::answering(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}",
        "a".repeat(1_000_000)
    ))
    .await;
    let mut setup = Setup::before(upstream.address);
    setup.listener.patience.write = SHORT;
    let agent = setup.start().await;
    let mut client = Frames::to(agent.address).await;
    // The window of the stream stays as it is: 64 KiB; that of the connection is wide open.
    client
        .say(&frame(WINDOW_UPDATE, 0, 0, &[0x10, 0, 0, 0]))
        .await;
    client.say(&get(1, "/", &[])).await;
    eventually("given up", || agent.gauges.requests() == 0).await;
    assert_eq!(agent.request_permits.available_permits(), 1024);
    client.say(&frame(PING, 0, 0, b"12345678")).await;
    assert!(
        client.wait_for(PING).await.is_some(),
        "the connection goes on"
    );
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused() {
    let upstream = Raw::new(|mut line| async move { while line.more().await {} }).await;
    let mut setup = Setup::before(upstream.address);
    setup.listener.streams = 3;
    let agent = setup.start().await;
    let mut client = Frames::to(agent.address).await;
    for stream in [1, 3, 5, 7] {
        client.say(&get(stream, "/", &[])).await;
    }
    // REFUSED_STREAM (RFC 9113 section 8.7): it may be sent again.
    assert_eq!(client.outcome(7).await, Err(0x7));
    eventually("three at once", || agent.gauges.requests() == 3).await;
}

#[tokio::test]
async fn an_idle_connection_is_told_so() {
    let (_upstream, agent) = {
        let upstream = Raw::answering(OK).await;
        let mut setup = Setup::before(upstream.address);
        setup.listener.patience.idle = SHORT;
        let agent = setup.start().await;
        (upstream, agent)
    };
    let mut client = Frames::to(agent.address).await;
    client.say(&get(1, "/", &[])).await;
    assert_eq!(client.outcome(1).await, Ok(b"ok".to_vec()));
    assert_eq!(client.goodbye().await, 0);
    eventually("gone", || agent.gauges.connections() == 0).await;
}

/// Answers GET, and keeps what it gets of other requests.
async fn keeping() -> Raw {
    Raw::new(|mut line| async move {
        while let Some(message) = line.request().await {
            match message.head.starts_with("GET") {
                true => line.say(OK.as_bytes()).await,
                false => line.say(b"HTTP/1.1 204 No Content\r\n\r\n").await,
            }
        }
    })
    .await
}

/// What a body of this kind begins with, one record of it with a value to seal, and its end.
fn record(kind: &str) -> (&'static str, String, &'static str) {
    let around = around(kind);
    let one = around.record("{\"ssn\":\"078-05\"}");
    (around.open, one, around.close)
}

/// An agent that waits for its keys, and a client that has begun a body of so many records there.
async fn without_keys(upstream: &Raw, kind: &str, held: usize) -> (Agent, Frames, usize) {
    let mut setup = Setup::before(upstream.address).policy(crate::rewriting::POLICY);
    setup.limits.held_body = held;
    let agent = setup.start().await;
    agent.keys.stalled.send_replace(true);
    let mut client = Frames::to(agent.address).await;
    // The agent's windows count from here on.
    client.wait_for(SETTINGS).await.expect("settings");
    client.say(&frame(SETTINGS, 1, 0, b"")).await;
    let head = request("POST", "/people", &[("content-type", kind)]);
    client.say(&frame(HEADERS, END_HEADERS, 1, &head)).await;
    let (open, one, _) = record(kind);
    client.say(&frame(DATA, 0, 1, open.as_bytes())).await;
    // A document in pieces is asked for in steps of some kilobytes: enough of them to begin with.
    let records = 40_000 / one.len();
    for part in one.repeat(records).as_bytes().chunks(16_000) {
        client.say(&frame(DATA, 0, 1, part)).await;
    }
    (agent, client, records)
}

/// A byte each, and some without: nothing of a body goes up before its keys are there, and then all of it does. What is held is taken as it
/// comes, however small; what flows waits, a thousand pieces of it.
#[tokio::test]
async fn thousands_of_tiny_frames_wait_for_the_keys() {
    const WINDOW: usize = 256 << 10;
    for (kind, held, pieces) in [
        ("application/json", 8 << 20, 10_000),
        ("application/json", 1_000, 1_000),
        ("application/x-ndjson", 1_000, 1_000),
        ("text/event-stream", 1_000, 1_000),
    ] {
        let what = format!("{kind} over {held}");
        let upstream = keeping().await;
        let (agent, mut client, begun) = without_keys(&upstream, kind, held).await;
        let (_, one, close) = record(kind);
        let is_held = held > 1_000_000;
        if !is_held {
            eventually("keys are asked for", || agent.keys.calls.load(SeqCst) == 1).await;
        }
        let tiny = one.repeat(pieces / one.len());
        // All at once: whoever takes them must come to it.
        let mut frames = Vec::new();
        for (n, byte) in tiny.bytes().enumerate() {
            frames.extend(frame(DATA, 0, 1, &[byte]));
            if n % 200 == 0 {
                frames.extend(frame(DATA, 0, 1, b""));
            }
        }
        client.say(&frames).await;
        if !is_held {
            // As much as the window takes, and it is not opened further meanwhile.
            let filling = WINDOW - 60_000 - tiny.len();
            for part in vec![b' '; filling].chunks(16_000) {
                client.say(&frame(DATA, 0, 1, part)).await;
            }
            client.say(&frame(PING, 0, 0, b"12345678")).await;
            let mut more = 0;
            loop {
                let next = client.next().await.expect("the connection goes on");
                match (next.kind, next.stream) {
                    (PING, _) => break,
                    (WINDOW_UPDATE, 1) => {
                        let bytes = next.payload.try_into().expect("four bytes");
                        more += u32::from_be_bytes(bytes) as usize;
                    }
                    _ => assert_ne!(next.kind, GOAWAY, "{what}"),
                }
            }
            assert!(more < WINDOW, "{what}: {more} more");
        }
        client
            .say(&frame(DATA, END_STREAM, 1, close.as_bytes()))
            .await;
        // Others are served meanwhile, on this connection, too.
        client.say(&get(3, "/other", &[])).await;
        assert_eq!(client.outcome(3).await, Ok(b"ok".to_vec()), "{what}");
        eventually("keys are asked for", || agent.keys.calls.load(SeqCst) == 1).await;
        assert!(!upstream.text().contains("078-05"), "{what}");
        agent.keys.stalled.send_replace(false);
        assert_eq!(client.outcome(1).await, Ok(Vec::new()), "{what}");
        let got = upstream.text();
        assert!(!got.contains("078-05"), "{what}");
        let count = begun + pieces / one.len();
        assert_eq!(got.matches("\"fv1~").count(), count, "{what}");
        eventually("on record", || agent.records.all().len() == 2).await;
        assert_eq!(agent.records.outcomes(), [Outcome::Answered; 2], "{what}");
    }
}

/// More of them than are kept end the connection, and nothing else: what was asked on others is answered.
#[tokio::test]
async fn ten_thousand_tiny_frames_that_nobody_takes_end_the_connection() {
    for kind in [
        "application/json",
        "application/x-ndjson",
        "text/event-stream",
    ] {
        let upstream = keeping().await;
        let (agent, mut client, _) = without_keys(&upstream, kind, 1_000).await;
        let (_, one, _) = record(kind);
        eventually("keys are asked for", || agent.keys.calls.load(SeqCst) == 1).await;
        for byte in one.repeat(10_000 / one.len()).bytes() {
            client.say(&frame(DATA, 0, 1, &[byte])).await;
        }
        assert_eq!(client.goodbye().await, ENHANCE_YOUR_CALM, "{kind}");
        eventually("nothing is left", || {
            agent.gauges.connections() == 0 && agent.gauges.requests() == 0
        })
        .await;
        assert_eq!(agent.records.outcomes(), [Outcome::Aborted], "{kind}");
        agent.keys.stalled.send_replace(false);
        let got = upstream.text();
        assert!(
            !got.contains("078-05") && !got.contains("0\r\n\r\n"),
            "{kind}"
        );
        let mut client = Frames::to(agent.address).await;
        client.say(&get(1, "/other", &[])).await;
        assert_eq!(client.outcome(1).await, Ok(b"ok".to_vec()), "{kind}");
    }
}
