//! Upgrades: what passes behind a 101, what does not, and that nothing is left of it.

use crate::frames::{
    END_HEADERS, END_STREAM, Frames, HEADERS, PROTOCOL_ERROR, SETTINGS, frame, request,
};
use crate::harness::{Agent, Line, Raw, Records, Setup, eventually};
use fieldveil::audit::{Outcome, Passed};
use fieldveil::listener::Settings;
use fieldveil::proxy::Limits;
use fieldveil::upstream::{self, Speak};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

const ASK: &str = "GET /live HTTP/1.1\r\nHost: app\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade, X-Hop\r\nX-Hop: 1\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Answers the first request with these bytes, then sends back what comes until the end, and then one word more.
async fn switching(answer: &'static str) -> Raw {
    Raw::new(move |mut line: Line| async move {
        if line.head().await.is_none() {
            return;
        }
        line.say(answer.as_bytes()).await;
        while let Some(bytes) = some(&mut line).await {
            line.say(&bytes).await;
        }
        line.say(b"bye").await;
    })
    .await
}

async fn some(line: &mut Line) -> Option<Vec<u8>> {
    let begun = line.all();
    if !begun.is_empty() {
        return Some(begun);
    }
    line.more().await.then(|| line.all())
}

async fn switched(agent: &Agent) -> (Line, String) {
    let mut line = agent.line().await;
    line.say(ASK.as_bytes()).await;
    let head = line.head().await.expect("an answer");
    (line, head)
}

/// Bytes from the client and to it, of the tunnels that are over.
fn tunnels(records: &Records) -> Vec<(u64, u64)> {
    let bytes = |passed: Passed| {
        assert_eq!(passed.outcome, "tunnelled");
        (passed.sent_bytes, passed.received_bytes)
    };
    records.passed().into_iter().map(bytes).collect()
}

/// All permits are there, but for the one of the next connection.
async fn nothing_is_left(agent: &Agent) {
    let (listener, limits) = (Settings::default(), Limits::default());
    eventually("the tunnel is over", || {
        agent.gauges.requests() == 0
            && agent.gauges.connections() == 0
            && agent.connection_permits.available_permits() == listener.connections - 1
            && agent.request_permits.available_permits() == limits.in_flight
    })
    .await;
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_side_ends_for_itself() {
    let upstream = switching(SWITCHED).await;
    let agent = Setup::before(upstream.address).start().await;
    let (mut line, head) = switched(&agent).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let lower = head.to_lowercase();
    for there in [
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n",
    ] {
        assert!(lower.contains(there), "{there}: {head}");
    }
    for gone in ["x-hop", "content-length", "transfer-encoding"] {
        assert!(!lower.contains(gone), "{gone}: {head}");
    }
    let asked = upstream.text().to_lowercase();
    for there in [
        "get /live http/1.1\r\n",
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-key: dghlihnhbxbszsbub25jzq==\r\n",
        "via: 1.1 fieldveil-",
    ] {
        assert!(asked.contains(there), "{there}: {asked}");
    }
    // The record is there before the first byte; the tunnel is a request in flight until its end.
    assert_eq!(agent.records.outcomes(), [Outcome::Answered]);
    assert_eq!(agent.gauges.requests(), 1);
    assert_eq!(
        agent.request_permits.available_permits(),
        Limits::default().in_flight - 1
    );
    for size in [1, 5_000, 300_000] {
        let sent: Vec<u8> = (0..size).map(|n: u32| n as u8).collect();
        line.say(&sent).await;
        assert!(line.exactly(sent.len()).await == sent, "{size}");
    }
    // What looks like HTTP is none any more.
    let request = b"GET /smuggled HTTP/1.1\nHost: a, b\n\n";
    line.say(request).await;
    assert_eq!(line.exactly(request.len()).await, request);
    line.end().await;
    assert_eq!(line.exactly(3).await, b"bye");
    assert!(line.is_over().await);
    nothing_is_left(&agent).await;
    let bytes = 1 + 5_000 + 300_000 + request.len() as u64;
    assert_eq!(tunnels(&agent.records), [(bytes, bytes + 3)]);
    assert_eq!(upstream.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn what_comes_ahead_of_the_answer_is_read_as_the_answer_has_it() {
    // Behind a 101 it is the other protocol's.
    let upstream = switching(SWITCHED).await;
    let agent = Setup::before(upstream.address).start().await;
    let mut line = agent.line().await;
    let early = vec![b'e'; 20_000];
    line.say(&[ASK.as_bytes(), &early].concat()).await;
    let head = line.head().await.expect("an answer");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(line.exactly(early.len()).await == early);

    // Behind any other answer it is the next request, with all that is asked of one.
    let upstream =
        Raw::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nUpgrade: websocket\r\n\r\nno")
            .await;
    let agent = Setup::before(upstream.address).start().await;
    let mut line = agent.line().await;
    line.say(format!("{ASK}GET /second HTTP/1.1\r\nHost: app\r\n\r\n").as_bytes())
        .await;
    for _ in 0..2 {
        let answer = line.answer().await;
        assert_eq!((answer.status(), answer.text()), (200, "no"));
        assert_eq!(answer.header("upgrade"), None);
    }
    assert!(upstream.text().contains("GET /second "));
    line.say([ASK.as_bytes(), b"\x81\x05hello"].concat().as_slice())
        .await;
    assert_eq!(line.answer().await.status(), 200);
    let answer = line.answer().await;
    assert_eq!((answer.status(), &*answer.code()), (400, "request-line"));
    assert!(line.is_over().await);
    assert!(!upstream.text().contains("hello"));
    nothing_is_left(&agent).await;
    assert_eq!(tunnels(&agent.records), []);
}

#[tokio::test]
async fn a_switch_that_was_not_asked_for_is_none() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nsecret",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket, x\r\n\r\nsecret",
        "HTTP/1.1 101 Switching Protocols\r\n\r\nsecret",
    ] {
        let upstream = switching(answer).await;
        let agent = Setup::before(upstream.address).start().await;
        let mut line = agent.line().await;
        line.say(ASK.as_bytes()).await;
        let refused = line.answer().await;
        assert_eq!(
            (refused.status(), &*refused.code()),
            (502, "upstream-broken"),
            "{answer}"
        );
        drop(line);
        nothing_is_left(&agent).await;
        assert_eq!(tunnels(&agent.records), [], "{answer}");
    }
}

#[tokio::test]
async fn what_would_be_http_again_is_not_asked_for() {
    let upstream = Raw::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let agent = Setup::before(upstream.address).start().await;
    for (upgrade, asked) in [
        ("h2c", None),
        ("TLS/1.2, HTTP/2.0", None),
        ("h2c, foo", Some("upgrade: foo\r\n")),
    ] {
        upstream.got.lock().expect("got").clear();
        let answer = agent
            .ask(format!("GET / HTTP/1.1\r\nHost: app\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABkAARAAAAA\r\n\r\n"))
            .await;
        assert_eq!(answer.status(), 200);
        let got = upstream.text().to_lowercase();
        assert!(!got.contains("http2-settings"), "{got}");
        match asked {
            None => assert!(!got.contains("upgrade"), "{got}"),
            Some(line) => assert!(got.contains(line), "{got}"),
        }
    }
}

fn policy(mode: &str, rules: &str) -> String {
    format!(
        "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {{name: test}}\nclasses: {{ssn: {{key: k}}}}\nroutes:\n  - name: all\n    mode: {mode}\n    match: {{path: /live}}\n    {rules}\n"
    )
}

#[tokio::test]
async fn a_route_that_looks_into_bodies_has_no_upgrade() {
    for rules in [
        "request: {rules: [{at: $..ssn, seal: ssn}]}",
        "request: {rules: [{at: $..ssn, open: ssn}]}",
        "response: {rules: [{at: $..ssn, open: ssn}]}",
        "request: {stray: reject, rules: [{at: {header: X-Ssn}, seal: ssn}]}",
    ] {
        let upstream = switching(SWITCHED).await;
        let agent = Setup::before(upstream.address)
            .policy(&policy("enforce", rules))
            .start()
            .await;
        let mut line = agent.line().await;
        line.say([ASK.as_bytes(), b"\x81\x05hello"].concat().as_slice())
            .await;
        let refused = line.answer().await;
        assert_eq!(
            (refused.status(), &*refused.code()),
            (403, "upgrade-refused"),
            "{rules}"
        );
        assert_eq!(upstream.connections(), 0, "{rules}");
    }
    // A rule for the head alone is kept, and then the rest is another protocol's.
    let upstream = switching(SWITCHED).await;
    let rules = "request: {rules: [{at: {header: X-Ssn}, seal: ssn}]}";
    let agent = Setup::before(upstream.address)
        .policy(&policy("enforce", rules))
        .start()
        .await;
    let mut line = agent.line().await;
    let ask = ASK.replace("Host: app\r\n", "Host: app\r\nX-Ssn: 078-05-1120\r\n");
    line.say(ask.as_bytes()).await;
    let head = line.head().await.expect("an answer");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("fieldveil-result: sealed=1"), "{head}");
    assert!(!upstream.text().contains("078-05-1120"));
    line.say(b"hello").await;
    assert_eq!(line.exactly(5).await, b"hello");
    // A route that only observes says that it would have refused.
    let upstream = switching(SWITCHED).await;
    let rules = "request: {rules: [{at: $..ssn, seal: ssn}]}";
    let agent = Setup::before(upstream.address)
        .policy(&policy("observe", rules))
        .start()
        .await;
    let (_line, head) = switched(&agent).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("refused=upgrade-refused"), "{head}");
}

#[tokio::test]
async fn a_drain_ends_tunnels_at_last() {
    let upstream = switching(SWITCHED).await;
    let mut setup = Setup::before(upstream.address);
    setup.listener.drain = Duration::from_millis(300);
    let agent = setup.start().await;
    let (mut line, _) = switched(&agent).await;
    agent.drain.send_replace(true);
    // In flight, as requests are: it goes on for a while.
    line.say(b"still here").await;
    assert_eq!(line.exactly(10).await, b"still here");
    agent.serving.await.expect("ends");
    assert_eq!(tunnels(&agent.records), [(10, 10)]);
    assert!(!line.more().await);
    assert_eq!(
        agent.request_permits.available_permits(),
        Limits::default().in_flight
    );
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_moves_is_given_up() {
    let upstream = switching(SWITCHED).await;
    let mut setup = Setup::before(upstream.address);
    setup.limits.tunnel_idle = Duration::from_millis(100);
    let agent = setup.start().await;
    let (mut line, _) = switched(&agent).await;
    assert!(!line.more().await);
    nothing_is_left(&agent).await;
    assert_eq!(tunnels(&agent.records), [(0, 0)]);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing() {
    // In the middle of the tunnel, and while its answer is waited for.
    let upstream = switching(SWITCHED).await;
    let agent = Setup::before(upstream.address).start().await;
    let (line, _) = switched(&agent).await;
    drop(line);
    nothing_is_left(&agent).await;

    let silent = Raw::new(|mut line: Line| async move { while line.more().await {} }).await;
    let agent = Setup::before(silent.address).start().await;
    let mut line = agent.line().await;
    line.say(ASK.as_bytes()).await;
    eventually("asked", || silent.connections() == 1).await;
    drop(line);
    nothing_is_left(&agent).await;
    assert_eq!(agent.records.outcomes(), [Outcome::Aborted]);
}

#[tokio::test]
async fn an_upstream_of_http2_alone_has_no_upgrade() {
    let upstream = switching(SWITCHED).await;
    let mut setup = Setup::before(upstream.address);
    setup.upstream = upstream::Settings {
        speak: Speak::Http2,
        ..setup.upstream
    };
    let agent = setup.start().await;
    let refused = agent.ask(ASK).await;
    assert_eq!(
        (refused.status(), &*refused.code()),
        (502, "upgrade-unspoken")
    );
    assert_eq!(upstream.connections(), 0);
}

/// RFC 8441: it is not on offer, and who asks for it all the same is refused without the connection.
#[tokio::test]
async fn a_websocket_within_http2_is_not_on_offer() {
    const ENABLE_CONNECT_PROTOCOL: [u8; 2] = [0, 8];
    let upstream = Raw::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let agent = Setup::before(upstream.address).start().await;
    let mut client = Frames::to(agent.address).await;
    let offered = client.wait_for(SETTINGS).await.expect("settings").payload;
    assert!(!offered.is_empty());
    let offers = |setting: &[u8]| setting.starts_with(&ENABLE_CONNECT_PROTOCOL);
    assert!(!offered.chunks(6).any(offers), "{offered:?}");

    let more = [(":protocol", "websocket"), ("sec-websocket-version", "13")];
    let asked = request("CONNECT", "/live", &more);
    client.say(&frame(HEADERS, END_HEADERS, 1, &asked)).await;
    assert_eq!(client.outcome(1).await, Err(PROTOCOL_ERROR));
    assert_eq!(upstream.connections(), 0);
    let get = request("GET", "/x", &[]);
    client
        .say(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &get))
        .await;
    assert_eq!(client.outcome(3).await, Ok(b"ok".to_vec()));
    assert_eq!(upstream.connections(), 1);
}
