//! Content codings that lie while a body flows: bombs, cuts, and what stands behind an end. Visible on both sides, never a clean end.

use crate::coded::{coded, flushed, plain};
use crate::harness::{Agent, Line, Message, Raw, Setup, eventually};
use crate::records::around;
use crate::rewriting::POLICY;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

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

    fn tell(self, mut coded: Vec<u8>) -> Vec<u8> {
        match self {
            Lie::Bomb => {}
            Lie::Cut(bytes) => coded.truncate(coded.len() - bytes),
            Lie::Trailed(junk) => coded.extend(junk),
        }
        coded
    }

    /// A body that is there at once.
    fn body(self, kind: &str, names: &str) -> Vec<u8> {
        let (mut body, close) = begun(kind, 10_000);
        if self == Lie::Bomb {
            body += &nothing(kind, 3 << 20);
        }
        self.tell(coded(names, (body + close).as_bytes()))
    }

    /// A larger one, and what is good of it apart, which goes on before the lie is there.
    fn parts(self, kind: &str, names: &str) -> (Vec<u8>, Vec<u8>) {
        let (mut body, close) = begun(kind, 60_000);
        if self == Lie::Bomb {
            body += &nothing(kind, 6 << 20);
        }
        let plain = body + close;
        let (good, rest) = flushed(names, plain.as_bytes(), 40_000);
        let rest = self.tell(rest);
        let bound = bound(good.len() + rest.len());
        assert_eq!(plain.len() > bound, self == Lie::Bomb, "{kind} in {names}");
        (good, rest)
    }
}

/// What so many bytes may be decoded to.
fn bound(coded: usize) -> usize {
    FREE + INFLATION * coded
}

fn lies() -> Vec<Lie> {
    let mut lies = vec![Lie::Bomb];
    lies.extend([1, 1_000].map(Lie::Cut));
    lies.extend([&b"\x1f"[..], b"{\"ssn\":\"078-05-1120\"}\n"].map(Lie::Trailed));
    lies
}

/// What an upstream got of requests, out of their chunks, and whether they came to their ends.
type Got = Arc<Mutex<Vec<(Vec<u8>, bool)>>>;

/// As much of a body as comes, shown as it grows, and whether it came to its end.
async fn read(line: &mut Line, head: &str, mut show: impl FnMut(&[u8])) -> (Vec<u8>, bool) {
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
        show(&body);
    }
}

async fn listening() -> (Raw, Got) {
    showing(Arc::default()).await
}

/// The same, which shows the body that flows, as far as it came.
async fn showing(flowing: Arc<Mutex<Vec<u8>>>) -> (Raw, Got) {
    let got = Got::default();
    let kept = got.clone();
    let upstream = Raw::new(move |mut line: Line| {
        let (kept, flowing) = (kept.clone(), flowing.clone());
        async move {
            while let Some(head) = line.head().await {
                assert!(head.starts_with("POST "));
                let show = |body: &[u8]| body.clone_into(&mut flowing.lock().expect("flowing"));
                let (body, whole) = read(&mut line, &head, show).await;
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
    let line = open(agent, path, kind, names).await;
    end(line, body).await
}

/// A request without its body yet.
async fn open(agent: &Agent, path: &str, kind: &str, names: &str) -> Line {
    let mut line = agent.line().await;
    line.say(
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Encoding: {names}\r\nTransfer-Encoding: chunked\r\n\r\n")
            .as_bytes(),
    )
    .await;
    line
}

/// Sends what is left of it.
async fn end(mut line: Line, body: &[u8]) -> Message {
    for piece in body.chunks(5_000) {
        line.say_chunk(piece).await;
    }
    line.say_chunk(b"").await;
    line.answer().await
}

/// Answers each request with this body, in chunks, to a clean end.
async fn answering(kind: &str, names: &str, body: Vec<u8>) -> Raw {
    answering_in_parts(kind, names, (Vec::new(), body), Arc::default()).await
}

/// The same, but a first part goes ahead, and the rest follows when it is told to.
async fn answering_in_parts(
    kind: &str,
    names: &str,
    (good, rest): (Vec<u8>, Vec<u8>),
    told: Arc<Notify>,
) -> Raw {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Encoding: {names}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let answer = Arc::new((head, good, rest));
    Raw::new(move |mut line: Line| {
        let (answer, told) = (answer.clone(), told.clone());
        async move {
            let (head, good, rest) = &*answer;
            while line.request().await.is_some() {
                line.say(head.as_bytes()).await;
                if !good.is_empty() {
                    line.say_chunk(good).await;
                    told.notified().await;
                }
                for piece in rest.chunks(5_000) {
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
    fetch_and_show(agent, path, |_| ()).await
}

async fn fetch_and_show(
    agent: &Agent,
    path: &str,
    show: impl FnMut(&[u8]),
) -> (String, Vec<u8>, bool) {
    let mut line = agent.line().await;
    line.say(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
        .await;
    let head = line.head().await.expect("an answer");
    let (body, whole) = read(&mut line, &head, show).await;
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

/// What a value is where it is sealed, and where it is not.
fn value(sealed: bool) -> &'static str {
    match sealed {
        true => "\"fv1~",
        false => "\"078-05-",
    }
}

/// What came of a body before its lie: some of it, no more than may, and nothing in clear where it is sealed.
#[track_caller]
fn is_good(names: &str, came: &[u8], sent: usize, sealed: bool, what: &str) {
    let came = decodable(names, came);
    assert!(came.len() <= bound(sent), "{what}: {} bytes", came.len());
    let came = String::from_utf8_lossy(&came);
    assert!(came.contains(value(sealed)), "{what}: nothing came");
    assert!(!came.contains(value(!sealed)), "{what}");
}

#[tokio::test]
async fn a_request_whose_coding_lies_never_comes_to_a_clean_end() {
    for kind in KINDS {
        for names in CODINGS {
            for lie in lies() {
                let (good, rest) = lie.parts(kind, names);
                // Sealed on its way up, and opened.
                for (path, sealed) in [("/people", true), ("/inbound", false)] {
                    let what = format!("{kind} in {names} at {path}: {lie:?}");
                    let flowing = Arc::new(Mutex::new(Vec::new()));
                    let (upstream, got) = showing(flowing.clone()).await;
                    let agent = before(&upstream).await;
                    let mut line = open(&agent, path, kind, names).await;
                    line.say_chunk(&good).await;
                    eventually(&what, || {
                        let came = decodable(names, &flowing.lock().expect("flowing"));
                        String::from_utf8_lossy(&came).contains(value(sealed))
                    })
                    .await;
                    let answer = end(line, &rest).await;
                    assert_eq!(answer.code(), lie.code(), "{what}");
                    eventually("it is cut off upstream", || {
                        !got.lock().expect("got").is_empty()
                    })
                    .await;
                    let got = got.lock().expect("got").clone();
                    assert!(matches!(got[..], [(_, false)]), "{what}: a clean end");
                    is_good(names, &got[0].0, good.len() + rest.len(), sealed, &what);
                    eventually("on record", || agent.records.all().len() == 1).await;
                    assert_eq!(agent.records.words(), [lie.code()], "{what}");
                }
            }
        }
    }
}

/// The lie may be found before anything went on: then it is told all the same.
#[tokio::test]
async fn a_request_whose_coding_lies_at_once_is_refused() {
    for kind in KINDS {
        for names in CODINGS {
            for lie in lies() {
                let body = lie.body(kind, names);
                for path in ["/people", "/inbound"] {
                    let what = format!("{kind} in {names} at {path}: {lie:?}");
                    let (upstream, got) = listening().await;
                    let agent = before(&upstream).await;
                    let answer = send(&agent, path, kind, names, &body).await;
                    if path == "/inbound" && answer.status() == 204 {
                        as_it_came(&body, &got.lock().expect("got")[0], &what);
                        continue;
                    }
                    assert_eq!(answer.code(), lie.code(), "{what}");
                    eventually("on record", || agent.records.all().len() == 1).await;
                    assert_eq!(agent.records.words(), [lie.code()], "{what}");
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
                let (good, rest) = lie.parts(kind, names);
                let sent = good.len() + rest.len();
                let told = Arc::new(Notify::new());
                let upstream = answering_in_parts(kind, names, (good, rest), told.clone()).await;
                // Opened on its way back, and sealed.
                for (path, sealed) in [("/people", false), ("/inbound", true)] {
                    let what = format!("{kind} in {names} at {path}: {lie:?}");
                    let agent = before(&upstream).await;
                    let mut seen = false;
                    let show = |body: &[u8]| {
                        if !seen {
                            let came = decodable(names, body);
                            seen = String::from_utf8_lossy(&came).contains(value(sealed));
                            if seen {
                                told.notify_one();
                            }
                        }
                    };
                    let (head, came, whole) = fetch_and_show(&agent, path, show).await;
                    assert!(head.starts_with("HTTP/1.1 200 "), "{what}: {head}");
                    assert!(!whole, "{what}: a clean end");
                    is_good(names, &came, sent, sealed, &what);
                    eventually("on record", || !agent.records.cuts().is_empty()).await;
                    assert_eq!(agent.records.cuts(), ["upstream-unreadable"], "{what}");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_answer_whose_coding_lies_at_once_never_comes_to_a_clean_end() {
    for kind in KINDS {
        for names in CODINGS {
            for lie in lies() {
                let body = lie.body(kind, names);
                let upstream = answering(kind, names, body.clone()).await;
                for path in ["/people", "/inbound"] {
                    let what = format!("{kind} in {names} at {path}: {lie:?}");
                    let agent = before(&upstream).await;
                    let (head, came, whole) = fetch(&agent, path).await;
                    assert!(head.starts_with("HTTP/1.1 200 "), "{what}: {head}");
                    if path == "/people" && whole {
                        as_it_came(&body, &(came, whole), &what);
                        continue;
                    }
                    assert!(!whole, "{what}: a clean end");
                    // It may be cut off before anything of it came.
                    let came = decodable(names, &came);
                    assert!(came.len() <= bound(body.len()), "{what}");
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
            let (came, whole) = got.lock().expect("got").remove(0);
            assert!(whole);
            let came = plain(names, &came);
            assert!(!came.contains("078-05"), "{kind} in {names}");
            let count = body.matches("078-05").count();
            assert_eq!(came.matches("\"fv1~").count(), count, "{kind} in {names}");
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
