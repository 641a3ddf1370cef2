//! JSON bodies that are too large to be held, rewritten in pieces.

use crate::coded::{coded, plain};
use crate::harness::{Agent, Message, Raw, Setup, eventually};
use fieldveil::audit::Outcome;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const POLICY: &str = r#"
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: test}
classes:
  ssn: {key: identity}
routes:
  - name: people
    match: {path: "/people"}
    request:
      rules:
        - {at: $..ssn, seal: ssn, bind: {record: {sibling: id}}}
        - {at: {header: x-ssn}, seal: ssn}
    response:
      rules:
        - {at: $..ssn, open: ssn, bind: {record: {sibling: id}}}
  - name: inbound
    match: {path: "/inbound"}
    request:
      rules:
        - {at: $..ssn, open: ssn}
    response:
      rules:
        - {at: $..ssn, seal: ssn}
  - name: strict
    match: {path: "/strict"}
    request:
      unclaimed: reject
      rules:
        - {at: $..ssn, seal: ssn}
        - {at: $..id, pass: true}
  - name: filtered
    match: {path: "/filtered"}
    request:
      rules:
        - {at: "$[?@.id > 3].ssn", seal: ssn}
  - name: watched
    mode: observe
    match: {path: "/watched"}
    request:
      rules:
        - {at: $..ssn, seal: ssn}
"#;

/// Bodies over this are in pieces here.
const HELD: usize = 1_000;

async fn before(upstream: &Raw) -> Agent {
    let mut setup = Setup::before(upstream.address).policy(POLICY);
    setup.limits.held_body = HELD;
    setup.start().await
}

/// An array over several of the engine's steps, in odd spellings.
fn people(count: usize) -> String {
    let people = (0..count).map(|n| {
        let filling = "é\\u00e9\\n\"".replace('"', "\\\"").repeat(n % 40);
        format!(r#"{{ "ssn" :"078-05-{n}", "x":{{"ssn":[1.50,{n}e1],"id":-{n}}},"t":"{filling}","id":"{n}" }}"#)
    });
    format!("[{}]\n", people.collect::<Vec<_>>().join(",\r\n"))
}

/// Answers each request with its own body, in its own coding, in chunks of odd sizes.
async fn mirror() -> Raw {
    Raw::new(|mut line| async move {
        while let Some(message) = line.request().await {
            let names = message.header("content-encoding").unwrap_or("identity");
            line.say(
                format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: {names}\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes(),
            )
            .await;
            for (at, piece) in message.body.chunks(4_099).enumerate() {
                let (one, other) = piece.split_at(piece.len().min(at % 97));
                for chunk in [one, other] {
                    if !chunk.is_empty() {
                        line.say_chunk(chunk).await;
                    }
                }
            }
            line.say_chunk(b"").await;
        }
    })
    .await
}

/// A body in chunks of these sizes, in turn; with none, it has a length.
async fn send(
    agent: &Agent,
    path: &str,
    names: &str,
    body: &[u8],
    sizes: &[usize],
) -> Option<Message> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Encoding: {names}\r\nX-Ssn: 1\r\n"
    );
    let mut line = agent.line().await;
    if sizes.is_empty() {
        let length = format!("Content-Length: {}\r\n\r\n", body.len());
        line.say(&[head.as_bytes(), length.as_bytes(), body].concat())
            .await;
    } else {
        line.say(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes())
            .await;
        let mut wire = Vec::new();
        let (mut rest, mut sizes) = (body, sizes.iter().cycle());
        while !rest.is_empty() {
            let size = sizes.next().copied().unwrap_or(1).clamp(1, rest.len());
            let (chunk, after) = rest.split_at(size);
            wire.extend_from_slice(format!("{size:x}\r\n").as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
            rest = after;
        }
        wire.extend_from_slice(b"0\r\n\r\n");
        line.say(&wire).await;
    }
    let head = line.head().await?;
    line.body(head, false).await
}

/// The body of the last request as the upstream got it, out of its chunks.
fn upstream_saw(upstream: &Raw) -> Vec<u8> {
    let got = upstream.got.lock().expect("got");
    let head = got.windows(5).rposition(|five| five == b"POST ");
    let got = &got[head.expect("a request")..];
    let end = got.windows(4).position(|four| four == b"\r\n\r\n");
    let mut rest = &got[end.expect("a head") + 4..];
    let mut body = Vec::new();
    while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&rest[..at]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        body.extend_from_slice(&rest[at + 2..][..size]);
        rest = &rest[at + 2 + size + 2..];
    }
    body
}

#[test]
fn any_split_of_a_body_gives_the_same_bytes() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (upstream, agent) = runtime.block_on(async {
        let upstream = mirror().await;
        let agent = before(&upstream).await;
        (upstream, agent)
    });
    let names = prop::sample::select(vec![
        "identity",
        "gzip",
        "deflate",
        "br",
        "zstd",
        "zstd, gzip",
    ]);
    let sizes = prop::collection::vec(prop_oneof![1usize..40, 1usize..20_000], 0..5);
    let mut runner = TestRunner::new(Config::with_cases(40));
    let run = runner.run(&(names, sizes, 30usize..500), |(names, sizes, count)| {
        let body = people(count);
        let sent = match names {
            "identity" => body.clone().into_bytes(),
            names => coded(names, body.as_bytes()),
        };
        runtime.block_on(async {
            let answer = send(&agent, "/people", names, &sent, &sizes).await;
            let answer = answer.expect("a whole answer");
            prop_assert_eq!(answer.status(), 200);
            let saw = upstream_saw(&upstream);
            let (saw, back) = match names {
                "identity" => (
                    String::from_utf8(saw).expect("text"),
                    answer.text().to_owned(),
                ),
                names => (plain(names, &saw), plain(names, &answer.body)),
            };
            prop_assert!(back == body, "other bytes came back");
            prop_assert!(!saw.contains("078-05"), "a value went up in clear");
            prop_assert_eq!(saw.matches("\"fv1~").count(), 2 * count);
            Ok(())
        })
    });
    run.unwrap_or_else(|error| panic!("{error}"));
    let seen = upstream.text();
    assert!(
        !seen.contains("x-ssn: 1\r") && seen.contains("fv1~"),
        "the head is sealed, too"
    );
}

#[tokio::test]
async fn what_was_done_is_on_record_when_it_is_over() {
    let upstream = mirror().await;
    let agent = before(&upstream).await;
    let body = people(100);
    let answer = send(&agent, "/people", "identity", body.as_bytes(), &[]).await;
    let answer = answer.expect("a whole answer");
    assert_eq!(
        answer.header("fieldveil-result"),
        Some("sealed=1, request=streamed, response=streamed")
    );
    assert_eq!(answer.header("content-length"), None);
    eventually("its record", || !agent.records.all().is_empty()).await;
    let kept = agent.records.all().remove(0);
    let sum = |counts: &[(std::sync::Arc<fieldveil::context::Class>, u32)]| {
        counts.iter().map(|(_, count)| *count).sum::<u32>()
    };
    assert_eq!(kept.outcome, Outcome::Answered);
    assert_eq!(
        (sum(&kept.request.sealed), sum(&kept.response.opened)),
        (201, 200)
    );
}

#[tokio::test]
async fn a_small_body_that_becomes_large_without_its_coding_goes_in_pieces() {
    let upstream = mirror().await;
    let agent = before(&upstream).await;
    let body = format!("[{}{{\"ssn\":1,\"id\":2}}]", "1,".repeat(20_000));
    let small = coded("br", body.as_bytes());
    assert!(small.len() < HELD);
    let answer = send(&agent, "/people", "br", &small, &[]).await;
    let answer = answer.expect("a whole answer");
    assert_eq!(plain("br", &answer.body), body);
    assert!(plain("br", &upstream_saw(&upstream)).contains(r#"{"ssn":"fv1~"#));
}

#[tokio::test]
async fn an_error_in_the_middle_ends_a_request_visibly() {
    let upstream = mirror().await;
    let agent = before(&upstream).await;
    let good = people(600);
    let cut = &good[..good.len() - 40];
    let late = format!(r#"[{{"ssn":"078-05-1120"}},{}"#, &good[1..]);
    for (path, body, status, code) in [
        ("/people", format!("{cut}]"), 400, "not-json"),
        ("/people", format!("{good}x"), 400, "not-json"),
        ("/people", late, 422, "bind"),
        (
            "/people",
            good.replace("\"078-05-500\"", "\"fv1~AAAA~\""),
            422,
            "token-refused",
        ),
        ("/strict", good.clone(), 422, "unclaimed"),
    ] {
        let mut setup = Setup::before(upstream.address).policy(POLICY);
        setup.limits.held_body = HELD;
        let agent = setup.start().await;
        upstream.got.lock().expect("got").clear();
        let answer = send(&agent, path, "identity", body.as_bytes(), &[]).await;
        let answer = answer.expect("an answer");
        assert_eq!((answer.status(), &*answer.code()), (status, code), "{path}");
        let got = upstream.text();
        assert!(!got.contains("078-05"), "a value went up in clear");
        assert!(
            !got.ends_with("\r\n0\r\n\r\n"),
            "the upstream took a part for the whole"
        );
    }
    // Codings that lie, behind what was good.
    let mut lying = coded("gzip", good.as_bytes());
    lying.truncate(lying.len() - 9);
    let answer = send(&agent, "/people", "gzip", &lying, &[]).await;
    assert_eq!(answer.expect("an answer").code(), "coding-broken");
    // Keys that go away: nothing went up, so the answer is whole.
    agent
        .keys
        .gone
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let answer = send(&agent, "/people", "identity", good.as_bytes(), &[]).await;
    assert_eq!(answer.expect("an answer").code(), "keys-unreachable");
}

#[tokio::test]
async fn what_only_opens_leaves_sealed_what_it_cannot_read() {
    let whole = people(300);
    let upstream = mirror().await;
    let agent = before(&upstream).await;
    // Up, /inbound only opens.
    let broken = format!("{whole}]");
    let answer = send(&agent, "/inbound", "identity", broken.as_bytes(), &[]).await;
    // Back it seals, and what is broken is not passed on for a whole.
    assert!(answer.is_none(), "a clean end");
    assert_eq!(upstream_saw(&upstream), broken.as_bytes());
    eventually("its record", || agent.records.cuts().len() == 1).await;
    // Back on /people, a part is opened before the break, and the rest passes.
    let raw = Raw::answering(
        [
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                broken.len()
            )
            .as_bytes(),
            broken.as_bytes(),
        ]
        .concat(),
    )
    .await;
    let agent = before(&raw).await;
    let answer = agent
        .ask("POST /people HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(answer.text(), broken);
    eventually("its record", || !agent.records.all().is_empty()).await;
    let kept = agent.records.all().remove(0);
    assert_eq!(kept.unread_records, [("not-json", 1)]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_cut_off() {
    let body = people(300);
    let raw = Raw::new(move |mut line| {
        let body = body.clone();
        async move {
            line.request().await;
            line.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999999\r\n\r\n")
                .await;
            line.say(body.as_bytes()).await;
        }
    })
    .await;
    let agent = before(&raw).await;
    for path in ["/people", "/inbound"] {
        let answer = send(&agent, path, "identity", b"[]", &[]).await;
        assert!(answer.is_none(), "{path}: a clean end");
    }
}

#[tokio::test]
async fn what_needs_the_whole_is_refused_as_before() {
    let upstream = mirror().await;
    let agent = before(&upstream).await;
    let body = people(300);
    let answer = send(&agent, "/filtered", "identity", body.as_bytes(), &[]).await;
    assert_eq!(answer.expect("an answer").code(), "body-too-large");
    assert_eq!(upstream.connections(), 0);
    // An observing route looks, and changes nothing.
    let answer = send(&agent, "/watched", "identity", body.as_bytes(), &[]).await;
    assert_eq!(answer.expect("an answer").text(), body);
    eventually("its record", || agent.records.all().len() == 2).await;
    let kept = agent.records.all().remove(1);
    assert_eq!(kept.request.sealed[0].1, 600);
}

#[tokio::test]
async fn windows_are_taken_from_the_room_for_held_bodies_and_given_back() {
    let upstream = mirror().await;
    let mut setup = Setup::before(upstream.address).policy(POLICY);
    setup.limits.held_body = HELD;
    setup.limits.held_total = setup.limits.window - 1;
    let agent = setup.start().await;
    let body = people(300);
    let answer = send(&agent, "/people", "identity", body.as_bytes(), &[]).await;
    assert_eq!(answer.expect("an answer").code(), "busy");
    let mut setup = Setup::before(upstream.address).policy(POLICY);
    setup.limits.held_body = HELD;
    // One for the way up and one for the way back.
    setup.limits.held_total = 2 * setup.limits.window + (1 << 20);
    let agent = setup.start().await;
    for _ in 0..5 {
        let answer = send(&agent, "/people", "identity", body.as_bytes(), &[]).await;
        assert_eq!(answer.expect("an answer").text(), body);
    }
}
