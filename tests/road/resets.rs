//! Streams of HTTP/2, and connections of HTTP/1.1, that are reset in the middle of a body which is rewritten while it flows, by either side:
//! the other side sees it, never a clean end, and the record tells it.

use crate::frames::{
    DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, frame, request,
};
use crate::harness::{Agent, Line, Raw, Setup, eventually};
use crate::records::around;
use crate::rewriting::POLICY;
use fieldveil::audit::Outcome;
use fieldveil::upstream::Speak;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const CANCEL: u32 = 8;
const KINDS: [&str; 4] = [
    "application/json",
    "application/x-ndjson",
    "application/json-seq",
    "text/event-stream",
];

/// What is cut: records with values to seal, and half of one.
fn begun(kind: &str) -> Vec<u8> {
    let around = around(kind);
    let one = |n: u32| around.record(&format!("{{\"n\":{n},\"ssn\":\"078-05-{n}\"}}"));
    // Large enough that a document is in pieces, of which some went on.
    let mut body = around.open.to_owned() + &(0..1_200).map(one).collect::<String>();
    body.truncate(body.len() - 9);
    body.into_bytes()
}

/// DATA frames of one stream.
fn data(body: &[u8]) -> Vec<u8> {
    let frames = body.chunks(10_000).map(|part| frame(DATA, 0, 1, part));
    frames.collect::<Vec<_>>().concat()
}

fn reset(reason: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, 1, &reason.to_be_bytes())
}

async fn before(upstream: &Raw, speak: Speak) -> Agent {
    let mut setup = Setup::before(upstream.address).policy(POLICY);
    setup.upstream.speak = speak;
    setup.limits.held_body = 1_000;
    setup.start().await
}

/// What an upstream saw of one request.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    body: Vec<u8>,
    /// `Some(true)`: to its end; `Some(false)`: it was cut off.
    ended: Option<bool>,
}

impl Seen {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

type Kept = Arc<Mutex<Seen>>;

/// Reads requests over HTTP/1.1, and answers none.
async fn reading(kept: Kept) -> Raw {
    Raw::new(move |mut line: Line| {
        let kept = kept.clone();
        async move {
            line.head().await.expect("a request");
            let ended = loop {
                match line.chunk().await {
                    None => break false,
                    Some(chunk) if chunk.is_empty() => break true,
                    Some(chunk) => kept.lock().expect("kept").body.extend(chunk),
                }
            };
            kept.lock().expect("kept").ended = Some(ended);
        }
    })
    .await
}

/// The same over HTTP/2.
async fn reading_frames(kept: Kept) -> Raw {
    Raw::new(move |line: Line| {
        let kept = kept.clone();
        async move {
            let mut frames = Frames::over(line.stream);
            frames.bytes(PREFACE.len()).await.expect("a preface");
            frames.say(&frame(SETTINGS, 0, 0, b"")).await;
            while let Some(next) = frames.next().await {
                let mut kept = kept.lock().expect("kept");
                match next.kind {
                    DATA => kept.body.extend(&next.payload),
                    RST_STREAM => kept.ended = Some(false),
                    _ => {}
                }
                if matches!(next.kind, DATA | HEADERS) && next.flags & END_STREAM != 0 {
                    kept.ended = Some(true);
                }
            }
            let mut kept = kept.lock().expect("kept");
            kept.ended = kept.ended.or(Some(false));
        }
    })
    .await
}

#[tokio::test]
async fn a_request_that_its_client_resets_has_no_end_upstream() {
    for kind in KINDS {
        for speak in [Speak::Http1, Speak::Http2] {
            for reason in [NO_ERROR, CANCEL] {
                let what = format!("{kind} {speak:?} {reason}");
                let kept = Kept::default();
                let upstream = match speak {
                    Speak::Http2 => reading_frames(kept.clone()).await,
                    _ => reading(kept.clone()).await,
                };
                let agent = before(&upstream, speak).await;
                let mut client = Frames::to(agent.address).await;
                let head = request("POST", "/people", &[("content-type", kind)]);
                client.say(&frame(HEADERS, END_HEADERS, 1, &head)).await;
                client.say(&data(&begun(kind))).await;
                eventually("some of it went on", || {
                    kept.lock().expect("kept").text().contains("\"fv1~")
                })
                .await;
                client.say(&reset(reason)).await;
                eventually("it is over", || kept.lock().expect("kept").ended.is_some()).await;
                let seen = kept.lock().expect("kept").clone();
                assert_eq!(seen.ended, Some(false), "{what}: a clean end");
                assert!(!seen.text().contains("078-05"), "{what}");
                eventually("on record", || agent.records.all().len() == 1).await;
                assert_eq!(agent.records.outcomes(), [Outcome::Aborted], "{what}");
                eventually("nothing is left", || agent.gauges.requests() == 0).await;
                client.say(&frame(PING, 0, 0, b"12345678")).await;
                let goes_on = client.wait_for(PING).await;
                assert!(goes_on.is_some(), "{what}: the connection ended");
            }
        }
    }
}

/// Reads a request until some of it was sealed, and resets it: its stream, or with HTTP/1.1 its connection.
async fn resetting(kept: Kept, speak: Speak, reason: u32) -> Raw {
    Raw::new(move |mut line: Line| {
        let kept = kept.clone();
        async move {
            let enough = |bytes: &[u8]| {
                let mut kept = kept.lock().expect("kept");
                kept.body.extend(bytes);
                kept.text().contains("\"fv1~")
            };
            if speak == Speak::Http1 {
                line.head().await.expect("a request");
                while !enough(&line.chunk().await.expect("some")) {}
                line.stream.set_zero_linger().expect("RST instead of FIN");
                return;
            }
            let mut frames = Frames::over(line.stream);
            frames.bytes(PREFACE.len()).await.expect("a preface");
            frames.say(&frame(SETTINGS, 0, 0, b"")).await;
            while !enough(&frames.wait_for(DATA).await.expect("some").payload) {}
            frames.say(&reset(reason)).await;
            while frames.next().await.is_some() {}
        }
    })
    .await
}

#[tokio::test]
async fn a_request_that_its_upstream_resets_is_refused() {
    for kind in KINDS {
        for (speak, reason) in [
            (Speak::Http1, NO_ERROR),
            (Speak::Http2, NO_ERROR),
            (Speak::Http2, INTERNAL_ERROR),
            (Speak::Http2, CANCEL),
        ] {
            let what = format!("{kind} {speak:?} {reason}");
            let kept = Kept::default();
            let upstream = resetting(kept.clone(), speak, reason).await;
            let agent = before(&upstream, speak).await;
            let mut client = Frames::to(agent.address).await;
            let head = request("POST", "/people", &[("content-type", kind)]);
            client.say(&frame(HEADERS, END_HEADERS, 1, &head)).await;
            client.say(&data(&begun(kind))).await;
            assert_eq!(client.code(1).await, "upstream-broken", "{what}");
            let seen = kept.lock().expect("kept").text();
            assert!(
                seen.contains("\"fv1~") && !seen.contains("078-05"),
                "{what}"
            );
            eventually("on record", || agent.records.all().len() == 1).await;
            assert_eq!(agent.records.words(), ["upstream-broken"], "{what}");
            eventually("nothing is left", || agent.gauges.requests() == 0).await;
            assert_eq!(upstream.connections(), 1, "{what}: it was sent again");
            client.say(&frame(PING, 0, 0, b"12345678")).await;
            let goes_on = client.wait_for(PING).await;
            assert!(goes_on.is_some(), "{what}: the connection ended");
        }
    }
}

/// A connection on which the beginning of an answer was sent.
enum Begun {
    Http1(Line),
    Http2(Frames),
}

/// Answers the first request with the beginning of a body.
async fn begin(mut line: Line, kind: &str, speak: Speak) -> Begun {
    if speak == Speak::Http2 {
        let mut frames = Frames::over(line.stream);
        frames.bytes(PREFACE.len()).await.expect("a preface");
        frames.say(&frame(SETTINGS, 0, 0, b"")).await;
        frames.wait_for(HEADERS).await.expect("a request");
        let fields = [
            (&b":status"[..], &b"200"[..]),
            (b"content-type", kind.as_bytes()),
        ];
        let head = frame(HEADERS, END_HEADERS, 1, &block(&fields));
        frames.say(&head).await;
        frames.say(&data(&begun(kind))).await;
        return Begun::Http2(frames);
    }
    line.head().await.expect("a request");
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n");
    line.say(head.as_bytes()).await;
    line.say_chunk(&begun(kind)).await;
    Begun::Http1(line)
}

/// Breaks its answer off when it is told to, by a reset where there is a reason for one.
async fn breaking(kind: &'static str, speak: Speak, reason: Option<u32>, told: Arc<Notify>) -> Raw {
    Raw::new(move |line: Line| {
        let told = told.clone();
        async move {
            let begun = begin(line, kind, speak).await;
            told.notified().await;
            match (begun, reason) {
                (_, None) => {}
                (Begun::Http1(line), Some(_)) => {
                    line.stream.set_zero_linger().expect("RST instead of FIN");
                }
                (Begun::Http2(mut frames), Some(reason)) => {
                    // What comes before may be passed on first, or not.
                    frames.say(&reset(reason)).await;
                    while frames.next().await.is_some() {}
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_answer_that_its_upstream_breaks_off_is_reset() {
    for kind in KINDS {
        for (speak, reason) in [
            (Speak::Http1, None),
            (Speak::Http1, Some(NO_ERROR)),
            (Speak::Http2, None),
            (Speak::Http2, Some(NO_ERROR)),
            (Speak::Http2, Some(INTERNAL_ERROR)),
            (Speak::Http2, Some(CANCEL)),
        ] {
            // Opened on its way back, and sealed.
            for (path, at_once) in [
                ("/people", true),
                ("/people", false),
                ("/inbound", true),
                ("/inbound", false),
            ] {
                let what = format!("{kind} {speak:?} {reason:?} {path} {at_once}");
                let told = Arc::new(Notify::new());
                if at_once {
                    told.notify_one();
                }
                let upstream = breaking(kind, speak, reason, told.clone()).await;
                let agent = before(&upstream, speak).await;
                let mut client = Frames::to(agent.address).await;
                // Tokens are longer than what they stand for: room for all of them.
                let window = [&[0, 4][..], &(16u32 << 20).to_be_bytes()].concat();
                client.say(&frame(SETTINGS, 0, 0, &window)).await;
                client
                    .say(&frame(WINDOW_UPDATE, 0, 0, &(16u32 << 20).to_be_bytes()))
                    .await;
                let head = request("GET", path, &[]);
                client
                    .say(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head))
                    .await;
                let value = match path {
                    "/inbound" => "\"fv1~",
                    _ => "\"078-05-",
                };
                let (mut body, mut came) = (Vec::new(), false);
                let reset = loop {
                    let next = client.next().await.expect("the connection goes on");
                    if next.stream != 1 {
                        continue;
                    }
                    match next.kind {
                        DATA => body.extend(&next.payload),
                        RST_STREAM => break next.reason(),
                        _ => {}
                    }
                    assert_eq!(next.flags & END_STREAM, 0, "{what}: a clean end");
                    // Some of it came, and more may be on its way.
                    if !came && String::from_utf8_lossy(&body).contains(value) {
                        came = true;
                        told.notify_one();
                    }
                };
                assert!(came || at_once, "{what}: nothing came");
                assert_ne!(reset, NO_ERROR, "{what}");
                let body = String::from_utf8_lossy(&body);
                assert!(path != "/inbound" || !body.contains("078-05"), "{what}");
                eventually("on record", || agent.records.all().len() == 1).await;
                assert_eq!(agent.records.words(), ["upstream-broken"], "{what}");
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_its_client_resets_ends_upstream() {
    for kind in KINDS {
        for speak in [Speak::Http1, Speak::Http2] {
            let what = format!("{kind} {speak:?}");
            let gone = Arc::new(Mutex::new(false));
            let told = gone.clone();
            let upstream = Raw::new(move |line: Line| {
                let told = told.clone();
                async move {
                    match begin(line, kind, speak).await {
                        Begun::Http1(mut line) => {
                            assert!(!line.more().await, "the connection is another's now");
                        }
                        Begun::Http2(mut frames) => {
                            frames.wait_for(RST_STREAM).await.expect("a reset");
                        }
                    }
                    *told.lock().expect("told") = true;
                }
            })
            .await;
            let agent = before(&upstream, speak).await;
            let mut client = Frames::to(agent.address).await;
            let head = request("GET", "/inbound", &[]);
            client
                .say(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head))
                .await;
            client.wait_for(DATA).await.expect("some of it");
            client.say(&reset(CANCEL)).await;
            eventually("the upstream knows", || *gone.lock().expect("told")).await;
            eventually("on record", || agent.records.cuts() == ["aborted"]).await;
            assert_eq!(agent.records.outcomes(), [Outcome::Aborted], "{what}");
            eventually("nothing is left", || agent.gauges.requests() == 0).await;
        }
    }
}
