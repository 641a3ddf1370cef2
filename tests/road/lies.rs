//! Content codings that lie while a body flows: bombs, cuts, and what stands behind an end. Visible on both sides, never a clean end.

use crate::coded::{coded, plain};
use crate::harness::{Agent, Line, Message, Raw, Setup, eventually};
use crate::records::around;
use crate::rewriting::POLICY;
use fieldveil::audit::Outcome;
use std::sync::{Arc, Mutex};

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const SEQUENCE: &str = "application/json-seq";
const EVENTS: &str = "text/event-stream";
const KINDS: [&str; 4] = [JSON, LINES, SEQUENCE, EVENTS];
const CODINGS: [&str; 5] = ["gzip", "deflate", "br", "zstd", "zstd, gzip"];
/// JSON over this goes in pieces here.
const HELD: usize = 1_000;
/// What a body may decode to whatever its length, and how much more each of its bytes.
const FREE: usize = 1 << 20;
const INFLATION: usize = 100;

async fn before(upstream: &Raw) -> Agent {
    let mut setup = Setup::before(upstream.address).policy(POLICY);
    setup.limits.held_body = HELD;
    setup.start().await
}

/// The beginning of a body with values to seal, of about this many bytes, and what it may end with.
fn begun(kind: &str, bytes: usize) -> (String, &'static str) {
    let around = around(kind);
    let mut body = around.open.to_owned();
    for number in 0.. {
        if body.len() >= bytes {
            break;
        }
        // Numbers that do not press well, so that this is no bomb.
        let noise = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number + 1);
        body += &around.record(&format!("{{\"n\":{noise},\"ssn\":\"078-05-{number}\"}}"));
    }
    (body, around.close)
}

/// What goes on without end, and says nothing.
fn nothing(kind: &str, bytes: usize) -> String {
    match kind {
        // An element more; white space would be of the one before.
        SEQUENCE => format!("\u{1e}{{{}}}\n", " ".repeat(1_000)).repeat(bytes / 1_000),
        _ => "\n".repeat(bytes),
    }
}

/// How a coded body lies, and the code of it on a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    Bomb,
    Cut(usize),
    Trailed(&'static [u8]),
}

impl Lie {
    fn code(self) -> &'static str {
        match self {
            Lie::Bomb => "inflation",
            Lie::Cut(_) | Lie::Trailed(_) => "coding-broken",
        }
    }

    fn body(self, kind: &str, names: &str) -> Vec<u8> {
        let (mut body, close) = begun(kind, 10_000);
        match self {
            Lie::Bomb => {
                body += &nothing(kind, 3 << 20);
                coded(names, (body + close).as_bytes())
            }
            Lie::Cut(bytes) => {
                let mut whole = coded(names, (body + close).as_bytes());
                whole.truncate(whole.len() - bytes);
                whole
            }
            Lie::Trailed(junk) => [&coded(names, (body + close).as_bytes()), junk].concat(),
        }
    }
}

fn lies() -> Vec<Lie> {
    let mut lies = vec![Lie::Bomb];
    lies.extend([1, 1_000].map(Lie::Cut));
    lies.extend([&b"\x1f"[..], b"{\"ssn\":\"078-05-1120\"}\n"].map(Lie::Trailed));
    lies
}

/// What an upstream got of one request, out of its chunks, and whether it came to its end.
type Got = Arc<Mutex<Vec<(Vec<u8>, bool)>>>;

/// As much of a body as comes, and whether it came to its end.
async fn read(line: &mut Line, head: &str) -> (Vec<u8>, bool) {
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        let message = line.body(head.to_owned(), false).await;
        return message.map_or((Vec::new(), false), |message| (message.body, true));
    }
    let mut body = Vec::new();
    loop {
        match line.chunk().await {
            None => return (body, false),
            Some(chunk) if chunk.is_empty() => return (body, true),
            Some(chunk) => body.extend(chunk),
        }
    }
}

async fn listening() -> (Raw, Got) {
    let got = Got::default();
    let kept = got.clone();
    let upstream = Raw::new(move |mut line: Line| {
        let kept = kept.clone();
        async move {
            while let Some(head) = line.head().await {
                assert!(head.starts_with("POST "));
                let (body, whole) = read(&mut line, &head).await;
                kept.lock().expect("kept").push((body, whole));
                if !whole {
                    return;
                }
                line.say(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        }
    })
    .await;
    (upstream, got)
}

async fn send(agent: &Agent, path: &str, kind: &str, names: &str, body: &[u8]) -> Message {
    let mut line = agent.line().await;
    line.say(
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Encoding: {names}\r\nTransfer-Encoding: chunked\r\n\r\n")
            .as_bytes(),
    )
    .await;
    for piece in body.chunks(5_000) {
        line.say_chunk(piece).await;
    }
    line.say_chunk(b"").await;
    line.answer().await
}

/// Answers each request with this body, in chunks, to a clean end.
async fn answering(kind: &str, names: &str, body: Vec<u8>) -> Raw {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Encoding: {names}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let answer = Arc::new((head, body));
    Raw::new(move |mut line: Line| {
        let answer = answer.clone();
        async move {
            while line.request().await.is_some() {
                line.say(answer.0.as_bytes()).await;
                for piece in answer.1.chunks(5_000) {
                    line.say_chunk(piece).await;
                }
                line.say_chunk(b"").await;
            }
        }
    })
    .await
}

/// What came of an answer's body, and whether it came to its end.
async fn fetch(agent: &Agent, path: &str) -> (String, Vec<u8>, bool) {
    let mut line = agent.line().await;
    line.say(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
        .await;
    let head = line.head().await.expect("an answer");
    let (body, whole) = read(&mut line, &head).await;
    (head, body, whole)
}

/// What of a cut body can be decoded.
fn decodable(names: &str, body: &[u8]) -> Vec<u8> {
    use fieldveil::body::coding::{Codings, Decoder, Undecodable};
    let mut headers = http::HeaderMap::new();
    headers.insert("content-encoding", names.parse().expect("a name"));
    let mut decoder = Decoder::new(&Codings::of(&headers).expect("known"));
    let mut out = Vec::new();
    // Coded anew it may be shorter than it came, and more than a reader like ours would take.
    let fed = decoder.feed(body, &mut out);
    assert!(
        matches!(fed, Ok(()) | Err(Undecodable::Inflation)),
        "{names}"
    );
    assert!(
        decoder.is_whole().is_err(),
        "{names}: a clean end of the coding"
    );
    out
}

/// What only opens may pass what it has decoded nothing of yet, sealed: some codings say nothing before a block is whole.
#[track_caller]
fn as_it_came(sent: &[u8], (came, whole): &(Vec<u8>, bool), what: &str) {
    assert!(*whole && came == sent && sent.len() < 8 << 10, "{what}");
}

#[tokio::test]
async fn a_request_whose_coding_lies_never_comes_to_a_clean_end() {
    for kind in KINDS {
        for names in CODINGS {
            for lie in lies() {
                let what = format!("{kind} in {names}: {lie:?}");
                let body = lie.body(kind, names);
                // Sealed on its way up, and opened.
                for path in ["/people", "/inbound"] {
                    let (upstream, got) = listening().await;
                    let agent = before(&upstream).await;
                    let answer = send(&agent, path, kind, names, &body).await;
                    if path == "/inbound" && answer.status() == 204 {
                        as_it_came(&body, &got.lock().expect("got")[0], &what);
                        continue;
                    }
                    assert_eq!(answer.code(), lie.code(), "{what}");
                    let connected = upstream.connections();
                    eventually("it is cut off upstream", || {
                        got.lock().expect("got").len() == connected
                    })
                    .await;
                    for (came, whole) in got.lock().expect("got").iter() {
                        assert!(!whole, "{what}: a clean end");
                        let came = decodable(names, came);
                        assert!(came.len() <= FREE + INFLATION * body.len(), "{what}");
                        let came = String::from_utf8_lossy(&came);
                        assert!(path != "/people" || !came.contains("078-05"), "{what}");
                    }
                    let outcomes = agent.records.outcomes();
                    assert!(
                        matches!(outcomes[..], [Outcome::Refused { code, .. }] if code == lie.code()),
                        "{what}: {outcomes:?}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn an_answer_whose_coding_lies_never_comes_to_a_clean_end() {
    for kind in KINDS {
        for names in CODINGS {
            for lie in lies() {
                let what = format!("{kind} in {names}: {lie:?}");
                let body = lie.body(kind, names);
                let upstream = answering(kind, names, body.clone()).await;
                // Opened on its way back, and sealed.
                for path in ["/people", "/inbound"] {
                    let agent = before(&upstream).await;
                    let (head, came, whole) = fetch(&agent, path).await;
                    assert!(head.starts_with("HTTP/1.1 200 "), "{what}: {head}");
                    if path == "/people" && whole {
                        as_it_came(&body, &(came, whole), &what);
                        continue;
                    }
                    assert!(!whole, "{what}: a clean end");
                    let came = decodable(names, &came);
                    assert!(came.len() <= FREE + INFLATION * body.len(), "{what}");
                    let came = String::from_utf8_lossy(&came);
                    assert!(path != "/inbound" || !came.contains("078-05"), "{what}");
                    eventually("on record", || !agent.records.cuts().is_empty()).await;
                    assert_eq!(agent.records.cuts(), ["upstream-unreadable"], "{what}");
                }
            }
        }
    }
}

/// RFC 1952 section 2.2, RFC 8878 section 3: members and frames follow each other, and frames may be skipped.
#[tokio::test]
async fn members_and_frames_that_follow_each_other_are_one_body() {
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    for kind in KINDS {
        let (body, close) = begun(kind, 40_000);
        let body = body + close;
        let (one, rest) = body.as_bytes().split_at(17_001);
        let (two, three) = rest.split_at(1);
        for (names, behind) in [("gzip", &b""[..]), ("zstd", &b""[..]), ("zstd", &skipped)] {
            let what = format!("{kind} in {names}");
            let members = [one, two, b"", three].map(|part| coded(names, part));
            let sent = members.iter().flat_map(|member| [member, behind].concat());
            let sent: Vec<u8> = sent.collect();
            let (upstream, got) = listening().await;
            let agent = before(&upstream).await;
            let answer = send(&agent, "/people", kind, names, &sent).await;
            assert_eq!(answer.status(), 204, "{what}");
            let (came, whole) = got.lock().expect("got").remove(0);
            assert!(whole);
            let came = plain(names, &came);
            assert_eq!(
                came.matches("\"fv1~").count(),
                body.matches("078-05").count(),
                "{what}"
            );
            assert!(!came.contains("078-05"));
            // And home again.
            let members = came
                .as_bytes()
                .chunks(came.len() / 3)
                .map(|part| coded(names, part));
            let upstream = answering(kind, names, members.collect::<Vec<_>>().concat()).await;
            let agent = before(&upstream).await;
            let (_, came, whole) = fetch(&agent, "/people").await;
            assert!(whole, "{what}");
            assert_eq!(plain(names, &came), body, "{what}");
            // The last of them, or what is skipped behind it, lacks a byte.
            let half = &sent[..sent.len() - 1];
            let answer = send(&agent, "/people", kind, names, half).await;
            assert_eq!(answer.code(), "coding-broken", "{what}");
        }
    }
}

/// A thousand members of nothing weigh no more than their bytes, and a body of no bytes has no coding that could lie.
#[tokio::test]
async fn empty_members_and_empty_bodies_pass() {
    for kind in KINDS {
        for names in ["gzip", "zstd"] {
            let (body, close) = begun(kind, 2_000);
            let body = body + close;
            let sent = [
                coded(names, b"").repeat(1_000),
                coded(names, body.as_bytes()),
            ]
            .concat();
            let (upstream, got) = listening().await;
            let agent = before(&upstream).await;
            let answer = send(&agent, "/people", kind, names, &sent).await;
            assert_eq!(answer.status(), 204, "{kind} in {names}");
            assert!(got.lock().expect("got")[0].1);
        }
        for names in CODINGS {
            let upstream = answering(kind, names, Vec::new()).await;
            let agent = before(&upstream).await;
            for path in ["/people", "/inbound"] {
                let (_, came, whole) = fetch(&agent, path).await;
                assert!(whole && came.is_empty(), "{kind} in {names} at {path}");
            }
            let (upstream, got) = listening().await;
            let agent = before(&upstream).await;
            for path in ["/people", "/inbound"] {
                let answer = send(&agent, path, kind, names, b"").await;
                assert_eq!(answer.status(), 204, "{kind} in {names} at {path}");
                assert_eq!(got.lock().expect("got").pop(), Some((Vec::new(), true)));
            }
        }
    }
}
