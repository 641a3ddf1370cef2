//! Requests that are sent a second time: those of which the upstream says that it did nothing with them, and safe ones whose
//! connection ended without a word.

use crate::frames::{
    DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frames, GOAWAY, HEADERS, PREFACE, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, frame,
};
use crate::harness::{Agent, Line, Raw, Setup, post};
use crate::rewriting::POLICY;
use fieldveil::upstream::Speak;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

const NO_ERROR: u32 = 0;
const REFUSED_STREAM: u32 = 7;

/// How an upstream of HTTP/2 turns a request away.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Away {
    /// It takes the stream back.
    Stream(u32),
    /// It ends the connection, and names an earlier stream.
    Connection(u32),
}

/// When it does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    /// At the head.
    Head,
    /// Behind so many bytes of the body.
    Bytes(usize),
    /// Behind the whole request.
    Whole,
}

/// What such an upstream saw.
#[derive(Clone, Default)]
struct Seen {
    requests: Arc<AtomicUsize>,
    /// All bodies.
    data: Arc<Mutex<Vec<u8>>>,
}

impl Seen {
    fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
    fn data(&self) -> String {
        String::from_utf8_lossy(&self.data.lock().expect("data")).into_owned()
    }
}

/// An upstream that turns the first `turned` requests away, and answers the others with their own bodies.
async fn turning(turned: usize, away: Away, when: When) -> (Raw, Seen) {
    let seen = Seen::default();
    let told = seen.clone();
    let raw = Raw::new(move |line| {
        let seen = seen.clone();
        async move {
            let mut frames = Frames::over(line.stream);
            if frames.bytes(PREFACE.len()).await.as_deref() != Some(PREFACE) {
                return;
            }
            frames.say(&frame(SETTINGS, 0, 0, b"")).await;
            // Room for all that comes.
            let room = (1u32 << 20).to_be_bytes();
            frames.say(&frame(WINDOW_UPDATE, 0, 0, &room)).await;
            let mut bodies: HashMap<u32, (usize, Vec<u8>)> = HashMap::new();
            let (mut begun, mut taken) = (0u32, 0u32);
            while let Some(next) = frames.next().await {
                let id = next.stream;
                // Or they are trailers.
                if next.kind == HEADERS && id > begun {
                    begun = id;
                    bodies.insert(id, (seen.requests.fetch_add(1, SeqCst), Vec::new()));
                }
                if !matches!(next.kind, HEADERS | DATA) {
                    continue;
                }
                let Some((number, body)) = bodies.get_mut(&id) else {
                    continue;
                };
                if next.kind == DATA {
                    body.extend(&next.payload);
                    seen.data.lock().expect("data").extend(&next.payload);
                }
                let whole = next.flags & END_STREAM != 0;
                let now = match when {
                    When::Head => true,
                    When::Bytes(bytes) => body.len() >= bytes,
                    When::Whole => whole,
                };
                if *number < turned {
                    if now {
                        bodies.remove(&id);
                        let turn = match away {
                            Away::Stream(reason) => frame(RST_STREAM, 0, id, &reason.to_be_bytes()),
                            Away::Connection(reason) => {
                                let words = [taken.to_be_bytes(), reason.to_be_bytes()];
                                frame(GOAWAY, 0, 0, &words.concat())
                            }
                        };
                        frames.say(&turn).await;
                    }
                } else if whole {
                    taken = taken.max(id);
                    let (_, body) = bodies.remove(&id).expect("a request");
                    let mut fields: Vec<(&[u8], &[u8])> =
                        vec![(b":status", b"200"), (b"content-type", b"application/json")];
                    if next.kind == HEADERS && !body.is_empty() {
                        fields.push((b"x-trailers", b"came"));
                    }
                    let mut answer = frame(HEADERS, END_HEADERS, id, &block(&fields));
                    for part in body.chunks(16 << 10) {
                        answer.extend(frame(DATA, 0, id, part));
                    }
                    answer.extend(frame(DATA, END_STREAM, id, b""));
                    frames.say(&answer).await;
                }
            }
        }
    })
    .await;
    (raw, told)
}

async fn before(upstream: &Raw) -> Agent {
    let mut setup = Setup::before(upstream.address).policy(POLICY);
    setup.upstream.speak = Speak::Http2;
    setup.start().await
}

fn chunked(path: &str, parts: &[&str]) -> String {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    for part in parts {
        request += &format!("{:x}\r\n{part}\r\n", part.len());
    }
    request + "0\r\nx-sum: 1\r\n\r\n"
}

#[tokio::test]
async fn what_an_upstream_says_it_did_not_take_is_sent_again() {
    let large = format!("[\"{}\"]", "x".repeat(30_000));
    let requests = [
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            String::new(),
        ),
        (post("/", "{\"a\": 1}"), "{\"a\": 1}".to_owned()),
        (chunked("/", &["{\"a\"", ": 1}"]), "{\"a\": 1}".to_owned()),
        (post("/", &large), large),
        // Held whole, and its value sealed and opened.
        (
            post("/people", "{\"ssn\": \"078-05-1120\"}"),
            "{\"ssn\": \"078-05-1120\"}".to_owned(),
        ),
    ];
    for away in [Away::Stream(REFUSED_STREAM), Away::Connection(NO_ERROR)] {
        for when in [When::Head, When::Whole] {
            for (request, expected) in &requests {
                let (upstream, seen) = turning(2, away, when).await;
                let agent = before(&upstream).await;
                let answer = agent.ask(request).await;
                assert_eq!(answer.status(), 200, "{away:?} {when:?} {answer:?}");
                assert_eq!(answer.text(), expected, "{away:?} {when:?}");
                let trailers = request.contains("chunked").then_some("came");
                assert_eq!(answer.header("x-trailers"), trailers, "{away:?} {when:?}");
                assert_eq!(seen.requests(), 3);
                let connections = match away {
                    Away::Stream(_) => 1,
                    Away::Connection(_) => 3,
                };
                assert_eq!(
                    upstream.connections(),
                    connections,
                    "{away:?} {when:?} {request:.40}"
                );
                // One access, whatever it took.
                assert_eq!(agent.records.words(), ["answered"]);
                let data = seen.data();
                assert!(!data.contains("078-05"));
                assert_eq!(data.contains("fv1~"), request.contains("078-05"));
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_still_comes_goes_on_where_it_is_sent_again() {
    let (upstream, seen) = turning(1, Away::Connection(NO_ERROR), When::Bytes(4)).await;
    let agent = before(&upstream).await;
    let mut line = agent.line().await;
    line.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n[1, ")
        .await;
    crate::harness::eventually("sent again", || seen.requests() == 2).await;
    line.say(b"2, 3]\n").await;
    let answer = line.answer().await;
    assert_eq!((answer.status(), answer.text()), (200, "[1, 2, 3]\n"));
}

#[tokio::test]
async fn what_cannot_be_sent_again_is_said_to_be_untaken() {
    // Turned away for good.
    for away in [Away::Stream(REFUSED_STREAM), Away::Connection(NO_ERROR)] {
        let (upstream, seen) = turning(usize::MAX, away, When::Whole).await;
        let answer = before(&upstream).await.ask(post("/", "{}")).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (503, "upstream-untaken")
        );
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(seen.requests(), 3);
    }
    // More of it is gone than is kept; or it is rewritten while it flows.
    let long = "x".repeat(100_000);
    let lines = "{\"ssn\": \"078-05-1120\"}\n".repeat(9);
    let of_lines = format!(
        "POST /people HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n{lines}",
        lines.len()
    );
    for (request, bytes) in [(post("/", &long), 40_000), (of_lines, 1)] {
        let (upstream, seen) = turning(1, Away::Connection(NO_ERROR), When::Bytes(bytes)).await;
        let answer = before(&upstream).await.ask(request).await;
        assert_eq!(answer.code(), "upstream-untaken");
        assert_eq!(seen.requests(), 1);
    }
}

#[tokio::test]
async fn what_an_upstream_ends_for_another_reason_is_not_sent_again() {
    for away in [
        Away::Stream(ENHANCE_YOUR_CALM),
        Away::Stream(NO_ERROR),
        Away::Connection(ENHANCE_YOUR_CALM),
    ] {
        let (upstream, seen) = turning(1, away, When::Whole).await;
        let answer = before(&upstream).await.ask(post("/", "{}")).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (502, "upstream-broken"),
            "{away:?}"
        );
        assert_eq!(seen.requests(), 1);
    }
}

/// Answers one request on each connection, and ends at the next, which it read; the last connections it keeps.
async fn ending(kept: usize) -> Raw {
    let connections = AtomicUsize::new(0);
    Raw::new(move |mut line: Line| {
        let ends = connections.fetch_add(1, SeqCst) < kept;
        async move {
            let mut answered = 0;
            while line.request().await.is_some() {
                if ends && answered == 1 {
                    return;
                }
                answered += 1;
                line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn over_http_1_safe_methods_alone_are_sent_again() {
    for (method, length, status, connections) in [
        ("GET", "", 200, 2),
        ("HEAD", "", 200, 2),
        ("OPTIONS", "", 200, 2),
        ("GET", "Content-Length: 2\r\n", 200, 2),
        ("POST", "Content-Length: 2\r\n", 502, 1),
        ("PUT", "Content-Length: 2\r\n", 502, 1),
        ("DELETE", "", 502, 1),
    ] {
        let upstream = ending(1).await;
        let agent = Setup::before(upstream.address).start().await;
        let mut line = agent.line().await;
        line.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(line.answer().await.text(), "ok");
        let body = if length.is_empty() { "" } else { "{}" };
        line.say(format!("{method} / HTTP/1.1\r\nHost: a\r\n{length}\r\n{body}").as_bytes())
            .await;
        let answer = line.answer_without(method == "HEAD").await;
        assert_eq!(answer.status(), status, "{method}");
        assert_eq!(upstream.connections(), connections, "{method}");
        let word = if status == 200 {
            "answered"
        } else {
            "upstream-broken"
        };
        assert_eq!(agent.records.words(), ["answered", word], "{method}");
    }
}

#[tokio::test]
async fn a_safe_request_that_no_connection_answers_is_given_up() {
    let upstream = Raw::new(|mut line: Line| async move {
        line.request().await;
    })
    .await;
    let agent = Setup::before(upstream.address).start().await;
    let answer = agent.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(answer.code(), "upstream-broken");
    assert_eq!(upstream.connections(), 3);
}
