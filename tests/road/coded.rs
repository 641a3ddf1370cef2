//! Bodies in content codings: rewritten inside of them, and refused where they lie.

use crate::harness::{Agent, Message, Raw, Setup};
use crate::rewriting::POLICY;
use fieldveil::body::coding::{Codings, Decoder, Encoder};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, HeaderValue};

const PERSON: &str = r#"{ "name": "Ada", "ssn" : "078-05-1120", "n":1.50 }"#;
const KNOWN: [&str; 6] = ["gzip", "x-gzip", "deflate", "br", "zstd", "zstd, gzip"];

fn codings(names: &str) -> Codings {
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_ENCODING,
        HeaderValue::from_str(names).expect("names"),
    );
    Codings::of(&headers).expect("known")
}

pub fn coded(names: &str, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&codings(names));
    encoder.feed(plain, &mut out).expect("codes");
    encoder.finish(&mut out).expect("codes");
    out
}

/// In two parts, of which the first is as a service sends it that flushes what it has: these bytes of the plain can be read of it.
pub fn flushed(names: &str, plain: &[u8], at: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut one, mut other) = (Vec::new(), Vec::new());
    let mut encoder = Encoder::new(&codings(names));
    encoder.feed(&plain[..at], &mut one).expect("codes");
    encoder.flush(&mut one).expect("codes");
    encoder.feed(&plain[at..], &mut other).expect("codes");
    encoder.finish(&mut other).expect("codes");
    (one, other)
}

pub fn plain(names: &str, coded: &[u8]) -> String {
    let mut out = Vec::new();
    let mut decoder = Decoder::new(&codings(names));
    decoder.feed(coded, &mut out).expect("decodes");
    decoder.finish().expect("whole");
    String::from_utf8(out).expect("text")
}

/// Answers each request with its own body, in its own coding.
async fn mirror() -> Raw {
    Raw::new(|mut line| async move {
        while let Some(message) = line.request().await {
            let names = message.header("content-encoding").unwrap_or("identity");
            line.say(&answer(names, &message.body)).await;
        }
    })
    .await
}

fn answer(names: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: {names}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

async fn before(upstream: &Raw) -> Agent {
    Setup::before(upstream.address).policy(POLICY).start().await
}

async fn send(agent: &Agent, path: &str, names: &str, body: &[u8]) -> Message {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Encoding: {names}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    agent.ask([head.as_bytes(), body].concat()).await
}

/// The last request's body as the upstream got it.
fn body_of(upstream: &Raw) -> Vec<u8> {
    let got = upstream.got.lock().expect("got");
    let end = got.windows(4).rposition(|four| four == b"\r\n\r\n");
    got[end.expect("a head") + 4..].to_vec()
}

#[tokio::test]
async fn fields_are_replaced_inside_of_the_coding() {
    let upstream = mirror().await;
    let agent = before(&upstream).await;
    for names in KNOWN {
        let answer = send(&agent, "/people", names, &coded(names, PERSON.as_bytes())).await;
        assert_eq!(answer.status(), 200, "{names}");
        assert_eq!(answer.header("content-encoding"), Some(names));
        assert_eq!(plain(names, &answer.body), PERSON, "{names}");
        assert_eq!(
            answer.header("fieldveil-result"),
            Some("sealed=1, opened=1")
        );
        let seen = plain(names, &body_of(&upstream));
        assert!(
            seen.starts_with(r#"{ "name": "Ada", "ssn" : "fv1~"#),
            "{seen}"
        );
        assert!(!seen.contains("078-05"), "{seen}");
    }
}

#[tokio::test]
async fn what_is_not_changed_keeps_its_coded_bytes() {
    let upstream = mirror().await;
    let agent = before(&upstream).await;
    // As no encoder of ours makes it: stored, not compressed.
    let stored = b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x01\x02\0\xfd\xff{}\x43\xbf\xa6\xa3\x02\0\0\0";
    for (path, body) in [
        ("/people", stored.to_vec()),
        ("/watched", coded("gzip", PERSON.as_bytes())),
    ] {
        let answer = send(&agent, path, "gzip", &body).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.body, body, "{path}");
        assert_eq!(body_of(&upstream), body, "{path}");
    }
}

#[tokio::test]
async fn a_coding_that_lies_is_refused_before_anything_went_up() {
    let upstream = mirror().await;
    let agent = before(&upstream).await;
    let bomb = coded("gzip", &vec![b' '; 8 << 20]);
    for names in KNOWN {
        let whole = coded(names, PERSON.as_bytes());
        let trailed = [&whole[..], PERSON.as_bytes()].concat();
        for body in [PERSON.as_bytes(), &whole[..whole.len() - 1], &trailed] {
            let answer = send(&agent, "/people", names, body).await;
            assert_eq!(
                (answer.status(), &*answer.code()),
                (400, "coding-broken"),
                "{names}"
            );
        }
    }
    let answer = send(&agent, "/people", "gzip", &bomb).await;
    assert_eq!((answer.status(), &*answer.code()), (413, "inflation"));
    let twice = coded("gzip", &bomb);
    let answer = send(&agent, "/people", "gzip, gzip", &twice).await;
    assert_eq!((answer.status(), &*answer.code()), (413, "inflation"));
    // Within the limit as it comes, and not without its coding.
    let noise: String = (0_u64..1_000).map(|n| format!("{},", n * n)).collect();
    let mut setup = Setup::before(upstream.address).policy(POLICY);
    setup.limits.held_body = noise.len();
    setup.limits.window = 0;
    let agent = setup.start().await;
    let large = coded("gzip", format!("[{noise}1]").as_bytes());
    assert!(large.len() < noise.len());
    let answer = send(&agent, "/people", "gzip", &large).await;
    assert_eq!((answer.status(), &*answer.code()), (413, "body-too-large"));
    assert_eq!(upstream.connections(), 0);
    // Watched only, it goes up as it is.
    let answer = send(&agent, "/watched", "gzip", &bomb).await;
    assert_eq!((answer.status(), answer.body.len()), (200, bomb.len()));
}

#[tokio::test]
async fn an_answer_whose_coding_lies_passes_sealed_or_not_at_all() {
    let bomb = coded("br", &vec![b' '; 8 << 20]);
    for (names, body, why) in [
        ("gzip", b"{}".to_vec(), "coding-broken"),
        (
            "zstd",
            coded("zstd", PERSON.as_bytes())[..20].to_vec(),
            "coding-broken",
        ),
        ("br", bomb, "inflation"),
        ("compress", b"xx".to_vec(), "coding"),
    ] {
        let upstream = Raw::answering(answer(names, &body)).await;
        let agent = before(&upstream).await;
        let got = agent.ask("GET /people HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!((got.status(), &got.body), (200, &body), "{names}");
        let unread = format!("unread={why}");
        let result = got.header("fieldveil-result").unwrap_or_default();
        assert!(result.contains(&unread), "{result} for {names}");
        let got = agent.ask("GET /inbound HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(
            (got.status(), &*got.code()),
            (502, "upstream-unreadable"),
            "{names}"
        );
    }
}

#[tokio::test]
async fn the_upstream_is_asked_for_what_can_be_decoded() {
    let upstream = mirror().await;
    let agent = before(&upstream).await;
    for (asked, sent) in [
        ("br;q=0.9, dcz, gzip, *", "br;q=0.9, gzip"),
        ("compress", "identity"),
    ] {
        let request =
            format!("GET /people HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {asked}\r\n\r\n");
        agent.ask(request).await;
        let got = upstream.text().to_lowercase();
        assert!(
            got.contains(&format!("accept-encoding: {sent}\r\n")),
            "{got}"
        );
    }
}
