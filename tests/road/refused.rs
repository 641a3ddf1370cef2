//! What never reaches the upstream.

use crate::harness::{Agent, Raw, SOON, Setup};
use crate::heads;
use fieldveil::audit::Outcome;
use fieldveil::error::TABLE;
use std::time::Duration;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn status_of(code: &str) -> u16 {
    TABLE
        .iter()
        .find(|row| row.word == code)
        .expect("a code of the table")
        .status
}

/// An agent that speaks HTTP/1.1 alone: of a preface of HTTP/2, too, the door has the say.
async fn agent() -> (Raw, Agent) {
    let upstream = Raw::answering(OK).await;
    let mut setup = Setup::before(upstream.address);
    setup.listener.http2 = false;
    (upstream, setup.start().await)
}

#[tokio::test]
async fn a_bad_head_is_refused_where_http_2_is_spoken_too() {
    let upstream = Raw::answering(OK).await;
    let agent = Setup::before(upstream.address).start().await;
    for (name, bytes, code) in heads::refused() {
        if bytes.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM") {
            continue;
        }
        let mut line = agent.line().await;
        line.say(&bytes).await;
        assert_eq!(line.answer().await.code(), code, "{name}");
        assert!(line.is_over().await, "{name}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn every_bad_head_is_answered_closed_and_kept_from_the_upstream() {
    let (upstream, agent) = agent().await;
    for (name, bytes, code) in heads::refused() {
        let mut line = agent.line().await;
        line.say(&bytes).await;
        let answer = line.answer().await;
        assert_eq!(answer.code(), code, "{name}");
        assert_eq!(answer.status(), status_of(code), "{name}");
        assert_eq!(answer.header("connection"), Some("close"), "{name}");
        assert_eq!(
            answer.header("fieldveil-result"),
            Some(format!("refused={code}").as_str()),
            "{name}"
        );
        assert!(line.is_over().await, "{name}");
    }
    // A method that was not understood is not said to be one.
    let records = agent.records.all();
    assert!(!records.is_empty() && records.iter().all(|kept| kept.method.is_none()));
    assert_eq!(upstream.connections(), 0);
    assert_eq!(agent.records.outcomes().len(), heads::refused().len());
    assert_eq!(agent.gauges.requests(), 0);
}

#[tokio::test]
async fn a_bad_head_byte_by_byte_is_refused_the_same() {
    let (upstream, agent) = agent().await;
    for (name, bytes, code) in heads::refused()
        .into_iter()
        .filter(|(_, bytes, _)| bytes.len() < 120)
    {
        let mut line = agent.line().await;
        for byte in bytes {
            line.say(&[byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(line.answer().await.code(), code, "{name}");
        assert!(line.is_over().await, "{name}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_bad_head_in_a_pipeline_is_answered_in_its_turn() {
    let (upstream, agent) = agent().await;
    for (name, bytes, code) in heads::refused() {
        if name == "two empty lines first" {
            continue;
        }
        let mut line = agent.line().await;
        line.say(
            &[
                b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
                &bytes[..],
            ]
            .concat(),
        )
        .await;
        assert_eq!(line.answer().await.text(), "ok", "{name}");
        assert_eq!(line.answer().await.text(), "ok", "{name}");
        assert_eq!(line.answer().await.code(), code, "{name}");
        assert!(line.is_over().await, "{name}");
    }
    assert!(!upstream.text().contains("/x"), "a refused request went up");
}

#[tokio::test]
async fn nothing_behind_a_refusal_is_served() {
    let (upstream, agent) = agent().await;
    let mut line = agent.line().await;
    line.say(b"GET / HTTP/1.1\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(line.answer().await.code(), "host-missing");
    line.say(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(line.is_over().await);
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn an_answer_to_a_refusal_survives_what_the_client_goes_on_to_send() {
    let (_upstream, agent) = agent().await;
    let mut line = agent.line().await;
    line.say(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\nContent-Length: 500000\r\n\r\n",
    )
    .await;
    for _ in 0..50 {
        line.say(&[b'x'; 10_000]).await;
    }
    assert_eq!(line.answer().await.code(), "content-length");
}

#[tokio::test]
async fn bad_chunks_break_the_request_off() {
    let upstream = Raw::new(|mut line| async move { while line.more().await {} }).await;
    let agent = Setup::before(upstream.address).start().await;
    for (name, body) in heads::bad_chunks() {
        let mut line = agent.line().await;
        line.say(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        line.say(&body).await;
        let answer = line.answer().await;
        assert_eq!(answer.code(), "chunk", "{name}");
        assert!(line.is_over().await, "{name}");
    }
    // A body that broke off never ends at the upstream.
    assert!(!upstream.text().contains("\r\n0\r\n\r\n"));
}

#[tokio::test]
async fn methods_and_fields_that_a_gateway_refuses() {
    let (upstream, agent) = agent().await;
    for (request, code) in [
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "method"),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "method"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n",
            "expectation",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, Host\r\n\r\n",
            "connection-field",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 2\r\n\r\n{}",
            "connection-field",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Authorization\r\nAuthorization: x\r\n\r\n",
            "connection-field",
        ),
    ] {
        let answer = agent.ask(request).await;
        assert_eq!(answer.code(), code, "{request}");
        assert_eq!(answer.status(), status_of(code), "{request}");
    }
    assert_eq!(
        agent
            .ask("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .header("allow")
            .map(|allow| allow.contains("TRACE")),
        Some(false)
    );
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_loop_is_seen_by_its_own_entry_in_via() {
    // The upstream sends what it got to the agent, once more.
    let slot: std::sync::Arc<std::sync::OnceLock<std::net::SocketAddr>> = Default::default();
    let back = slot.clone();
    let upstream = Raw::new(move |mut line| {
        let back = back.clone();
        async move {
            while let Some(message) = line.request().await {
                let mut again = crate::harness::Line::to(*back.get().expect("set")).await;
                again.say(message.head.as_bytes()).await;
                let answer = again.answer().await;
                line.say(answer.head.as_bytes()).await;
                line.say(&answer.body).await;
            }
        }
    })
    .await;
    let agent = Setup::before(upstream.address).start().await;
    slot.set(agent.address).expect("once");
    let answer = agent.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((answer.status(), answer.code().as_str()), (508, "loop"));
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn addresses_that_are_not_connected_to() {
    for (address, loopback) in [
        ("169.254.169.254:80", true),
        ("127.0.0.1:1", false),
        ("0.0.0.0:80", true),
        ("[::1]:1", false),
    ] {
        let mut setup = Setup::before("127.0.0.1:1".parse().expect("address"));
        setup.upstream.url = format!("http://{address}").parse().expect("a URL");
        setup.upstream.loopback = loopback;
        let agent = setup.start().await;
        let answer = agent.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (502, "upstream-forbidden"),
            "{address}"
        );
    }
    // The agent's own listener, by a port that is only known once it is bound.
    let upstream = Raw::answering(OK).await;
    let setup = Setup::before(upstream.address);
    setup.own.add(upstream.address);
    let answer = setup
        .start()
        .await
        .ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(answer.code(), "upstream-forbidden");
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn upstreams_that_do_not_answer() {
    let closed = {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        socket.local_addr().expect("bound")
    };
    let agent = Setup::before(closed).start().await;
    assert_eq!(
        agent.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.code(),
        "upstream-unreachable"
    );

    let silent = Raw::new(|mut line| async move {
        line.request().await;
        tokio::time::sleep(SOON).await;
    })
    .await;
    let mut setup = Setup::before(silent.address);
    setup.upstream.response = Duration::from_millis(100);
    let agent = setup.start().await;
    let answer = agent.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (504, "upstream-timeout")
    );

    for nonsense in [
        "",
        "HTTP/1.1 2",
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ] {
        let upstream = Raw::new(move |mut line| async move {
            line.request().await;
            line.say(nonsense.as_bytes()).await;
        })
        .await;
        let agent = Setup::before(upstream.address).start().await;
        let answer = agent
            .ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
            .await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (502, "upstream-broken"),
            "{nonsense}"
        );
        assert_eq!(
            upstream.connections(),
            1,
            "nothing that was begun is sent again"
        );
        assert_eq!(
            agent.records.outcomes(),
            [Outcome::Refused {
                code: "upstream-broken",
                fault: "upstream"
            }]
        );
    }
}

#[tokio::test]
async fn more_requests_than_may_be_in_flight_are_turned_away() {
    let silent = Raw::new(|mut line| async move {
        line.request().await;
        tokio::time::sleep(SOON).await;
    })
    .await;
    let mut setup = Setup::before(silent.address);
    setup.limits.in_flight = 1;
    let agent = setup.start().await;
    let mut first = agent.line().await;
    first.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    crate::harness::eventually("the first is in flight", || {
        agent.request_permits.available_permits() == 0
    })
    .await;
    let answer = agent.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((answer.status(), answer.code().as_str()), (503, "busy"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    drop(first);
    crate::harness::eventually("the permit is back", || {
        agent.request_permits.available_permits() == 1
    })
    .await;
}
