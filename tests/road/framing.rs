//! Messages that stream through: what changes hands unchanged, and what is made anew.

use crate::harness::{Raw, Setup, eventually};
use tokio::io::AsyncWriteExt;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_request_goes_up_as_it_is_but_for_its_connection() {
    let upstream = Raw::answering("HTTP/1.1 200 Fine\r\nServer: s\r\nX-A: 1\r\nx-a: 2\r\nConnection: x-hop\r\nX-Hop: 1\r\nFieldveil-Result: sealed=9\r\nContent-Length: 2\r\n\r\nok").await;
    let agent = Setup::before(upstream.address).start().await;
    let answer = agent
        .ask("GET /a/../b%2F?q=%20&x HTTP/1.1\r\nHost: app:1\r\nAccept: */*\r\nX-B: \u{e9}\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nUpgrade: h2c\r\nMax-Forwards: 3\r\nVia: 1.0 front\r\nAccept-Encoding: gzip\r\nRange: bytes=0-1\r\n\r\n")
        .await;
    assert!(
        answer.head.starts_with("HTTP/1.1 200 Fine\r\n"),
        "{}",
        answer.head
    );
    assert_eq!(answer.text(), "ok");
    let head = answer.head.to_lowercase();
    assert!(
        head.contains("x-a: 1\r\nx-a: 2\r\n") && head.contains("server: s\r\n"),
        "{head}"
    );
    assert!(
        !head.contains("x-hop") && !head.contains("fieldveil"),
        "{head}"
    );
    let got = upstream.text();
    assert!(
        got.starts_with("GET /a/../b%2F?q=%20&x HTTP/1.1\r\n"),
        "{got}"
    );
    let got = got.to_lowercase();
    assert!(
        got.contains(&format!("host: {}\r\n", upstream.address)),
        "{got}"
    );
    for kept in [
        "accept: */*",
        "x-b: \u{e9}",
        "max-forwards: 3",
        "via: 1.0 front",
        "accept-encoding: gzip",
        "range: bytes=0-1",
    ] {
        assert!(got.contains(&format!("{kept}\r\n")), "{kept} in {got}");
    }
    assert!(got.contains("via: 1.1 fieldveil-"), "{got}");
    for gone in ["x-hop", "upgrade", "connection", "keep-alive", "app:1"] {
        assert!(!got.contains(gone), "{gone} in {got}");
    }
}

#[tokio::test]
async fn targets_of_every_form_go_up_in_origin_form() {
    let upstream = Raw::answering(OK).await;
    let agent = Setup::before(upstream.address).start().await;
    for (sent, seen) in [
        ("GET http://app/x?y HTTP/1.1", "GET /x?y HTTP/1.1"),
        ("GET http://APP HTTP/1.1", "GET / HTTP/1.1"),
        ("GET http://app?y HTTP/1.1", "GET /?y HTTP/1.1"),
        ("OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1"),
        ("GET //x//y HTTP/1.1", "GET //x//y HTTP/1.1"),
        ("GET /? HTTP/1.1", "GET /? HTTP/1.1"),
        ("PURGE /x HTTP/1.0", "PURGE /x HTTP/1.1"),
    ] {
        upstream.got.lock().expect("got").clear();
        let answer = agent.ask(format!("{sent}\r\nHost: app\r\n\r\n")).await;
        assert_eq!(answer.status(), 200, "{sent}");
        assert!(
            upstream.text().starts_with(&format!("{seen}\r\n")),
            "{sent}: {}",
            upstream.text()
        );
    }
}

#[tokio::test]
async fn pipelined_and_kept_alive_requests_are_answered_in_order() {
    let upstream = Raw::new(|mut line| async move {
        while let Some(message) = line.request().await {
            let path = message.head.split(' ').nth(1).expect("a path").to_owned();
            line.say(
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}",
                    path.len()
                )
                .as_bytes(),
            )
            .await;
        }
    })
    .await;
    let agent = Setup::before(upstream.address).start().await;
    let mut line = agent.line().await;
    let requests: String = (0..50)
        .map(|n| match n % 3 {
            0 => format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"),
            1 => format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n\r\n\r\nG"),
            _ => format!("POST /{n} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n"),
        })
        .collect();
    line.say(requests.as_bytes()).await;
    for n in 0..50 {
        assert_eq!(line.answer().await.text(), format!("/{n}"));
    }
    assert_eq!(
        upstream.connections(),
        1,
        "connections to the upstream are pooled"
    );
    // And the same, cut at every place.
    for cut in 0..140 {
        let (one, two) = requests.as_bytes()[..140].split_at(cut);
        let mut line = agent.line().await;
        line.say(one).await;
        tokio::task::yield_now().await;
        line.say(two).await;
        assert_eq!(line.answer().await.text(), "/0", "{cut}");
        assert_eq!(line.answer().await.text(), "/1", "{cut}");
    }
}

#[tokio::test]
async fn every_clean_request_is_served() {
    let upstream = Raw::answering(OK).await;
    let agent = Setup::before(upstream.address).start().await;
    for request in crate::heads::clean() {
        let answer = agent.ask(&request).await;
        assert_eq!(
            (answer.status(), answer.text()),
            (200, "ok"),
            "{}",
            String::from_utf8_lossy(&request)
        );
    }
}

#[tokio::test]
async fn chunks_and_trailers_go_both_ways() {
    let upstream = Raw::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n3;ext=1\r\nabc\r\n4\r\ndefg\r\n0\r\nX-End: yes\r\n\r\n",
    )
    .await;
    let agent = Setup::before(upstream.address).start().await;
    for method in ["POST", "GET", "DELETE"] {
        upstream.got.lock().expect("got").clear();
        let answer = agent
            .ask(format!("{method} / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n1;x\r\n!\r\n0\r\nX-Sum: 7\r\n\r\n"))
            .await;
        assert_eq!(answer.text(), "abcdefg");
        assert_eq!(answer.trailers.to_lowercase(), "x-end: yes\n");
        let got = upstream.text().to_lowercase();
        assert!(
            got.contains("transfer-encoding: chunked\r\n") && !got.contains("content-length"),
            "{got}"
        );
        assert!(
            got.contains("te: trailers\r\n") && got.contains("trailer: x-sum\r\n"),
            "{got}"
        );
        assert!(got.ends_with("\r\n0\r\nx-sum: 7\r\n\r\n"), "{got}");
    }
    // Who did not ask for trailers gets none.
    let answer = agent.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((answer.text(), answer.trailers.as_str()), ("abcdefg", ""));
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    for (method, answer, length) in [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nETag: \"a\"\r\n\r\n",
            Some("1234"),
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            None,
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", None),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
            None,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            Some("0"),
        ),
    ] {
        let upstream = Raw::answering(answer).await;
        let agent = Setup::before(upstream.address).start().await;
        let mut line = agent.line().await;
        for _ in 0..2 {
            line.say(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
                .await;
            let got = line.answer_without(method == "HEAD").await;
            assert_eq!(got.header("content-length"), length, "{method} {answer}");
            assert_eq!(got.status().to_string(), answer[9..12]);
            assert_eq!(got.header("etag").is_some(), answer.contains("ETag"));
        }
        assert_eq!(upstream.connections(), 1, "the connection goes on");
    }
}

#[tokio::test]
async fn bodies_that_end_with_the_connection_and_old_clients() {
    let upstream = Raw::new(|mut line| async move {
        line.request().await;
        line.say(b"HTTP/1.0 200 OK\r\n\r\nto the end").await;
    })
    .await;
    let agent = Setup::before(upstream.address).start().await;
    let answer = agent.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.head.starts_with("HTTP/1.1 "), "{}", answer.head);
    assert_eq!(answer.text(), "to the end");
    let mut line = agent.line().await;
    line.say(b"GET / HTTP/1.0\r\n\r\n").await;
    let answer = line.answer().await;
    assert_eq!(
        (answer.text(), answer.header("transfer-encoding")),
        ("to the end", None)
    );
    assert!(line.is_over().await);
}

#[tokio::test]
async fn a_waiting_client_is_told_to_continue_when_its_body_is_wanted() {
    let upstream = Raw::echo().await;
    let agent = Setup::before(upstream.address).start().await;
    let mut line = agent.line().await;
    line.say(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .await;
    assert_eq!(
        line.head().await.expect("a head"),
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    line.say(b"null").await;
    assert_eq!(line.answer().await.text(), "null");
    assert!(!upstream.text().to_lowercase().contains("expect"));
}

#[tokio::test]
async fn an_early_answer_comes_through_before_the_body_is_sent() {
    let upstream = Raw::new(|mut line| async move {
        line.head().await;
        line.say(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
            .await;
    })
    .await;
    let agent = Setup::before(upstream.address).start().await;
    let mut line = agent.line().await;
    line.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbegin")
        .await;
    let answer = line.answer().await;
    assert_eq!((answer.status(), answer.text()), (401, "no"));
}

#[tokio::test]
async fn early_hints_are_not_an_answer() {
    let upstream = Raw::answering(format!(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{OK}"
    ))
    .await;
    let agent = Setup::before(upstream.address).start().await;
    assert_eq!(
        agent.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.text(),
        "ok"
    );
}

#[tokio::test]
async fn a_stream_arrives_piece_by_piece_and_waits_for_a_slow_reader() {
    let upstream = Raw::new(|mut line| async move {
        line.request().await;
        line.say(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
            .await;
        // Far more than any buffer between: this stands still until the client reads on.
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..32 {
            line.stream.write_all(&chunk).await.expect("taken at last");
        }
    })
    .await;
    let agent = Setup::before(upstream.address).start().await;
    let mut line = agent.line().await;
    line.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = line.head().await.expect("a head").to_lowercase();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    line.more().await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let message = line.body(head, false).await.expect("whole");
    assert_eq!(message.body.len(), 9 + (32 << 20));
}

#[tokio::test]
async fn a_long_upload_is_not_a_late_answer() {
    let upstream = Raw::echo().await;
    let mut setup = Setup::before(upstream.address);
    setup.upstream.response = std::time::Duration::from_millis(400);
    let agent = setup.start().await;
    let mut line = agent.line().await;
    line.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
        .await;
    for _ in 0..10 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        line.say(b"1").await;
    }
    assert_eq!(line.answer().await.text(), "1111111111");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_cut_off_visibly() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    ] {
        let upstream = Raw::new(move |mut line| async move {
            line.request().await;
            line.say(answer.as_bytes()).await;
        })
        .await;
        let agent = Setup::before(upstream.address).start().await;
        let mut line = agent.line().await;
        line.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = line.head().await.expect("a head");
        assert!(line.body(head, false).await.is_none(), "{answer}");
        eventually("nothing is left", || {
            agent.gauges.requests() == 0 && agent.gauges.connections() == 0
        })
        .await;
    }
}

/// RFC 9112 section 6.3: chunks win over a length, and the length must not go on.
#[tokio::test]
async fn an_answer_with_chunks_and_a_length_keeps_the_chunks() {
    for length in [3, 300] {
        let upstream = Raw::answering(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nabcdefg\r\n0\r\n\r\n"
        ))
        .await;
        let agent = Setup::before(upstream.address).start().await;
        let answer = agent.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!((answer.status(), answer.text()), (200, "abcdefg"));
        assert_eq!(answer.header("content-length"), None);
    }
}
