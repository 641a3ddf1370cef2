//! Bodies that a route rewrites, and what becomes of their heads.

use crate::harness::{Agent, Line, Message, Raw, SOON, Setup, eventually, post};
use fieldveil::audit::Outcome;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio::time::timeout;

pub const POLICY: &str = r#"
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
        - {at: $..ssn, seal: ssn}
    response:
      rules:
        - {at: $..ssn, open: ssn}
  - name: watched
    mode: observe
    match: {path: "/watched"}
    request:
      stray: reject
      rules:
        - {at: $..ssn, seal: ssn}
    response:
      rules:
        - {at: $..ssn, open: ssn}
  - name: inbound
    match: {path: "/inbound"}
    request:
      rules:
        - {at: $..ssn, open: ssn}
    response:
      rules:
        - {at: $..ssn, seal: ssn}
"#;

async fn before(upstream: &Raw) -> Agent {
    Setup::before(upstream.address).policy(POLICY).start().await
}

/// A request's body as the upstream got it.
fn body_of(upstream: &Raw) -> String {
    let got = upstream.text();
    got.split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .unwrap_or_default()
}

fn json_answer(extra: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{extra}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn the_upstream_sees_tokens_and_the_client_its_plaintext() {
    let upstream = Raw::echo().await;
    let agent = before(&upstream).await;
    let sent = "{ \"name\": \"Ada\", \"ssn\" : \"078-05-1120\",\r\n\"n\":1.50, \"deep\":[{\"\\u0073sn\":{\"a\": 1}}] }";
    let answer = agent.post("/people", sent).await;
    assert_eq!(answer.text(), sent);
    assert_eq!(
        answer.header("fieldveil-result"),
        Some("sealed=2, opened=2")
    );
    let seen = body_of(&upstream);
    assert!(
        !seen.contains("078-05") && seen.matches("\"fv1~").count() == 2,
        "{seen}"
    );
    assert!(
        seen.starts_with("{ \"name\": \"Ada\", \"ssn\" : \"fv1~") && seen.ends_with("~\"}] }"),
        "{seen}"
    );
    let head = upstream.text().to_lowercase();
    assert!(
        head.contains(&format!("content-length: {}\r\n", seen.len())),
        "{head}"
    );
    assert!(head.contains("accept-encoding: identity\r\n"), "{head}");
    assert_eq!(agent.records.outcomes(), [Outcome::Answered]);
}

#[tokio::test]
async fn chunked_bodies_are_held_and_measured() {
    let upstream = Raw::echo().await;
    let agent = before(&upstream).await;
    let answer = agent
        .ask("POST /people HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{\"ssn\":\r\n5\r\n\"x\"} \r\n0\r\n\r\n")
        .await;
    assert_eq!(answer.text(), "{\"ssn\":\"x\"} ");
    assert!(!upstream.text().to_lowercase().contains("transfer-encoding"));
    // With trailers they stay chunked, and a digest in a trailer is made anew.
    upstream.got.lock().expect("got").clear();
    let answer = agent
        .ask("POST /people HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Digest, X-T\r\n\r\na\r\n{\"ssn\":1} \r\n0\r\nX-T: 1\r\nContent-Digest: sha-256=:AAAA:\r\n\r\n")
        .await;
    assert_eq!(answer.text(), "{\"ssn\":1} ");
    let got = upstream.text().to_lowercase();
    assert!(
        got.contains("transfer-encoding: chunked") && got.contains("x-t: 1\r\n"),
        "{got}"
    );
    assert!(
        got.contains("content-digest: sha-256=:") && !got.contains("aaaa:"),
        "{got}"
    );
}

#[track_caller]
fn check_refused(answer: &Message, status: u16, code: &str) {
    assert_eq!((answer.status(), answer.code().as_str()), (status, code));
}

#[tokio::test]
async fn what_cannot_be_understood_is_refused_before_it_goes_up() {
    let upstream = Raw::echo().await;
    let mut setup = Setup::before(upstream.address).policy(POLICY);
    (setup.limits.held_body, setup.limits.window) = (1000, 0);
    let agent = setup.start().await;
    for (body, status, code) in [
        ("{", 400, "not-json"),
        ("{} {}", 400, "not-json"),
        ("\u{feff}{}", 400, "not-json"),
        ("NaN", 400, "not-json"),
        ("{\"ssn\":1,}", 400, "not-json"),
        ("{\"ssn\":\"fv1~AAAA~\"}", 422, "token-refused"),
        (
            "{\"ssn\":\"fv1~AQEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA~\"}",
            422,
            "token-refused",
        ),
    ] {
        let answer = agent.post("/people", body).await;
        check_refused(&answer, status, code);
        assert!(body.len() < 4 || !answer.text().contains(body));
    }
    check_refused(
        &agent.post("/people", &"[".repeat(500)).await,
        400,
        "too-deep",
    );
    check_refused(
        &agent.post("/people", &" ".repeat(1001)).await,
        413,
        "body-too-large",
    );
    let with = |headers: &str, body: &str| {
        format!(
            "POST /people HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for (headers, status, code) in [
        ("", 415, "content-type"),
        ("Content-Type: text/plain\r\n", 415, "content-type"),
        (
            "Content-Type: application/json; charset=utf-16\r\n",
            415,
            "content-type",
        ),
        (
            "Content-Type: application/json\r\nContent-Type: text/plain\r\n",
            415,
            "content-type",
        ),
        (
            "Content-Type: application/json\r\nContent-Encoding: compress\r\n",
            415,
            "content-coding",
        ),
        (
            "Content-Type: application/json\r\nContent-Encoding: identity, x\r\n",
            415,
            "content-coding",
        ),
    ] {
        check_refused(&agent.ask(with(headers, "{\"ssn\":1}")).await, status, code);
        let chunked = format!(
            "POST /people HTTP/1.1\r\nHost: a\r\n{headers}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
        );
        check_refused(&agent.ask(chunked).await, status, code);
    }
    agent.keys.gone.store(true, SeqCst);
    let answer = agent.post("/people", "{\"ssn\":1}").await;
    check_refused(&answer, 503, "keys-unreachable");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn empty_bodies_pass_whatever_they_are_declared_to_be() {
    let upstream = Raw::echo().await;
    let agent = before(&upstream).await;
    for request in [
        "GET /people HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /people HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "POST /people HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let answer = agent.ask(request).await;
        assert_eq!((answer.status(), answer.text()), (200, ""), "{request}");
    }
}

#[tokio::test]
async fn a_waiting_client_is_not_told_to_continue_with_what_is_refused() {
    let upstream = Raw::echo().await;
    let mut setup = Setup::before(upstream.address).policy(POLICY);
    setup.limits.window = 0;
    let agent = setup.start().await;
    for (headers, code) in [
        (
            "Content-Type: application/json\r\nContent-Length: 9000000\r\n",
            "body-too-large",
        ),
        (
            "Content-Type: text/plain\r\nContent-Length: 9\r\n",
            "content-type",
        ),
    ] {
        let mut line = agent.line().await;
        line.say(
            format!("POST /people HTTP/1.1\r\nHost: a\r\n{headers}Expect: 100-continue\r\n\r\n")
                .as_bytes(),
        )
        .await;
        let answer = line.answer().await;
        assert_eq!(answer.code(), code);
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(line.is_over().await);
    }
    let mut line = agent.line().await;
    line.say(b"POST /people HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n").await;
    assert_eq!(line.answer().await.status(), 100);
    line.say(b"{\"ssn\":1}").await;
    assert_eq!(line.answer().await.text(), "{\"ssn\":1}");
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn heads_are_made_true_where_bodies_change_and_left_alone_where_not() {
    let upstream = Raw::echo().await;
    let agent = before(&upstream).await;
    let token = {
        agent.post("/people", "{\"ssn\":1}").await;
        body_of(&upstream)
    };
    let digest = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
    let extra = format!(
        "ETag: \"a\"\r\nContent-Digest: {digest}, md5=:AA==:\r\nContent-MD5: x\r\nAccept-Ranges: bytes\r\nLast-Modified: x\r\n"
    );
    let upstream = Raw::answering(json_answer(&extra, &token)).await;
    let agent = before(&upstream).await;
    let answer = agent.ask("GET /people HTTP/1.1\r\nHost: a\r\nRange: bytes=0-3\r\nIf-Range: \"a\"\r\nAccept-Encoding: br\r\n\r\n").await;
    assert_eq!(answer.text(), "{\"ssn\":1}");
    assert_eq!(answer.header("content-length"), Some("9"));
    assert_eq!(answer.header("etag"), Some("W/\"a\""));
    let made = answer.header("content-digest").expect("a digest");
    assert!(
        made.starts_with("sha-256=:") && made != digest && !made.contains("md5"),
        "{made}"
    );
    assert_eq!(
        (answer.header("content-md5"), answer.header("accept-ranges")),
        (None, None)
    );
    assert_eq!(answer.header("last-modified"), Some("x"));
    let got = upstream.text().to_lowercase();
    assert!(
        !got.contains("range") && got.contains("accept-encoding: br\r\n"),
        "{got}"
    );
    // Nothing to open: only ranges are withheld.
    let upstream = Raw::answering(json_answer(&extra, "{\"a\":1}")).await;
    let answer = before(&upstream)
        .await
        .ask("GET /people HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(
        (
            answer.text(),
            answer.header("etag"),
            answer.header("content-md5")
        ),
        ("{\"a\":1}", Some("\"a\""), Some("x"))
    );
    assert_eq!(answer.header("accept-ranges"), None);
    // HEAD: the length would be that of another body.
    let upstream =
        Raw::answering("HTTP/1.1 200 OK\r\nETag: \"a\"\r\nContent-Length: 99\r\n\r\n").await;
    let agent = before(&upstream).await;
    let mut line = agent.line().await;
    line.say(b"HEAD /people HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = line.answer_without(true).await;
    assert_eq!(
        (answer.header("content-length"), answer.header("etag")),
        (None, Some("W/\"a\""))
    );
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_passes_sealed_unless_it_is_to_be_sealed() {
    let long = format!("[{}1]", "1,".repeat(600));
    for (answer, why) in [
        (json_answer("Content-Encoding: compress\r\n", "xx"), "coding"),
        ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nxx".to_owned(), "content-type"),
        ("HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nxx".to_owned(), "content-type"),
        (json_answer("", "{"), "not-json"),
        (json_answer("", &long), "too-large"),
        (format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{long}"), "too-large"),
        ("HTTP/1.1 206 Partial\r\nContent-Type: application/json\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n\r\n{}".to_owned(), "partial"),
    ] {
        let body = answer.split_once("\r\n\r\n").expect("a body").1.to_owned();
        let upstream = {
            let answer = answer.clone();
            Raw::new(move |mut line| {
                let answer = answer.clone();
                async move {
                    line.request().await;
                    line.say(answer.as_bytes()).await;
                }
            })
            .await
        };
        let mut setup = Setup::before(upstream.address).policy(POLICY);
        (setup.limits.held_body, setup.limits.window) = (1000, 0);
        let agent = setup.start().await;
        let passed = agent.ask("GET /people HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(passed.text(), body, "{why}");
        assert_eq!(passed.header("fieldveil-result"), Some(format!("sealed=0, opened=0, unread={why}").as_str()));
        let refused = agent.ask("GET /inbound HTTP/1.1\r\nHost: a\r\n\r\n").await;
        check_refused(&refused, 502, "upstream-unreadable");
    }
}

#[tokio::test]
async fn tokens_that_do_not_open_stay_and_are_counted_by_reason() {
    let upstream = Raw::echo().await;
    let agent = before(&upstream).await;
    agent.post("/people", "{\"ssn\":1}").await;
    let token = body_of(&upstream);
    let upstream = Raw::answering(json_answer("", &token)).await;
    let agent = before(&upstream).await;
    agent.keys.gone.store(true, SeqCst);
    let answer = agent.ask("GET /people HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(answer.text(), token);
    assert_eq!(
        answer.header("fieldveil-result"),
        Some("sealed=0, opened=0, left=1;unreachable=1")
    );
}

#[tokio::test]
async fn an_inbound_route_opens_requests_and_seals_answers() {
    let upstream = Raw::echo().await;
    let agent = before(&upstream).await;
    agent.post("/people", "{\"ssn\":1}").await;
    let token = body_of(&upstream);
    upstream.got.lock().expect("got").clear();
    let answer = agent.post("/inbound", &token).await;
    assert_eq!(body_of(&upstream), "{\"ssn\":1}");
    assert!(
        answer.text().starts_with("{\"ssn\":\"fv1~"),
        "{}",
        answer.text()
    );
    assert_eq!(
        answer.header("fieldveil-result"),
        Some("sealed=1, opened=1")
    );
    // What only opens lets pass what it cannot read.
    upstream.got.lock().expect("got").clear();
    let text = "POST /inbound HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi";
    agent.ask(text).await;
    assert_eq!(body_of(&upstream), "hi");
}

#[tokio::test]
async fn an_observing_route_changes_nothing_and_says_what_it_would_have_done() {
    let upstream = Raw::echo().await;
    let mut setup = Setup::before(upstream.address).policy(POLICY);
    (setup.limits.held_body, setup.limits.window) = (1000, 0);
    let agent = setup.start().await;
    let long = format!("[{}1]", "1,".repeat(600));
    let check = async |headers: &str, body: &str, result: &str| {
        upstream.got.lock().expect("got").clear();
        let answer = agent
            .ask(format!("POST /watched HTTP/1.1\r\nHost: a\r\nAccept-Encoding: br\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()))
            .await;
        assert_eq!(answer.text(), body);
        assert_eq!(body_of(&upstream), body);
        assert_eq!(answer.header("fieldveil-result"), Some(result));
        assert!(
            upstream
                .text()
                .to_lowercase()
                .contains("accept-encoding: br\r\n")
        );
    };
    let json = "Content-Type: application/json\r\n";
    check(
        json,
        "{\"ssn\":1}",
        "sealed=1, opened=0, plaintext=1, observe",
    )
    .await;
    check(
        json,
        "{",
        "sealed=0, opened=0, unread=not-json, observe;refused=not-json",
    )
    .await;
    check(
        "",
        "hi",
        "sealed=0, opened=0, unread=not-json, observe;refused=content-type",
    )
    .await;
    check(
        json,
        &long,
        "sealed=0, opened=0, unread=too-large, observe;refused=body-too-large",
    )
    .await;
    agent.keys.gone.store(true, SeqCst);
    check(
        json,
        "{\"ssn\":1}",
        "sealed=0, opened=0, plaintext=1, observe;refused=keys-unreachable",
    )
    .await;
    assert!(
        agent
            .records
            .outcomes()
            .iter()
            .all(|outcome| *outcome == Outcome::Answered)
    );
}

#[tokio::test]
async fn what_no_route_takes_passes_untouched_or_is_rejected() {
    let upstream = Raw::echo().await;
    let agent = before(&upstream).await;
    let answer = agent.post("/elsewhere", "{\"ssn\":\"078-05-1120\"").await;
    assert_eq!(
        (answer.text(), answer.header("fieldveil-result")),
        ("{\"ssn\":\"078-05-1120\"", None)
    );
    let strict = POLICY.replace("metadata:", "unmatched: reject\nmetadata:");
    let agent = Setup::before(upstream.address)
        .policy(&strict)
        .start()
        .await;
    check_refused(&agent.post("/elsewhere", "{}").await, 403, "unmatched");
    assert_eq!(
        agent.records.outcomes(),
        [Outcome::Refused {
            code: "unmatched",
            fault: "policy"
        }]
    );
    check_refused(
        &agent.post("/people/../%70eople%2f..", "{}").await,
        400,
        "path-ambiguous",
    );
}

#[tokio::test]
async fn a_method_override_does_not_dodge_a_route() {
    let upstream = Raw::echo().await;
    let policy = POLICY.replace("path:", "methods: [POST], path:");
    assert_ne!(policy, POLICY);
    let agent = Setup::before(upstream.address)
        .policy(&policy)
        .start()
        .await;
    let ask = |method: &str, header: &str| {
        format!(
            "{method} /people HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{header}Content-Length: 9\r\n\r\n{{\"ssn\":1}}"
        )
    };
    for (method, header) in [
        ("PUT", "X-HTTP-Method-Override: POST\r\n"),
        ("PUT", "X-HTTP-Method-Override: post \r\n"),
        ("GET", "X-HTTP-Method: POST\r\n"),
        ("POST", "X-Method-Override: PATCH\r\n"),
        ("PUT", "X_HTTP_Method-Override: POST\r\n"),
        (
            "POST",
            "X-HTTP-Method-Override: POST\r\nX-HTTP-Method-Override: PUT\r\n",
        ),
    ] {
        check_refused(
            &agent.ask(ask(method, header)).await,
            400,
            "method-override",
        );
    }
    assert_eq!(upstream.connections(), 0);
    // Where it changes nothing for the policy, it is the application's own business.
    for (method, header) in [
        ("POST", "X-HTTP-Method-Override: POST\r\n"),
        ("PUT", "X-HTTP-Method: DELETE\r\n"),
    ] {
        assert_eq!(agent.ask(ask(method, header)).await.status(), 200);
    }
}

#[tokio::test]
async fn a_declared_tenant_is_asked_for_and_binds() {
    let upstream = Raw::echo().await;
    let policy = POLICY.replace("classes:", "tenant: {header: X-Tenant}\nclasses:");
    let agent = Setup::before(upstream.address)
        .policy(&policy)
        .start()
        .await;
    let with = |headers: &str, body: &str| {
        format!(
            "POST /people HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for headers in [
        "",
        "X-Tenant:\r\n",
        "X-Tenant: a\r\nX-Tenant: a\r\n",
        "X-Tenant: a\r\nConnection: x-tenant\r\n",
    ] {
        check_refused(
            &agent.ask(with(headers, "{\"ssn\":1}")).await,
            400,
            "tenant-missing",
        );
    }
    assert_eq!(upstream.connections(), 0);
    assert_eq!(
        agent
            .ask(with("X-Tenant: a\r\n", "{\"ssn\":1}"))
            .await
            .text(),
        "{\"ssn\":1}"
    );
    let of_a = body_of(&upstream);
    // Another tenant's token: refused outward, left sealed on the way back.
    check_refused(
        &agent.ask(with("X-Tenant: b\r\n", &of_a)).await,
        422,
        "token-refused",
    );
    let upstream = Raw::answering(json_answer("", &of_a)).await;
    let agent = Setup::before(upstream.address)
        .policy(&policy)
        .start()
        .await;
    let answer = agent
        .ask("GET /people HTTP/1.1\r\nHost: a\r\nX-Tenant: b\r\n\r\n")
        .await;
    assert_eq!(answer.text(), of_a);
    assert_eq!(
        answer.header("fieldveil-result"),
        Some("sealed=0, opened=0, left=1;refused=1")
    );
}

/// An answer that comes too slowly to be held goes on sealed; one that is to be sealed is refused.
#[tokio::test]
async fn an_answer_that_does_not_end_in_time() {
    let upstream = Raw::new(|mut line| async move {
        line.request().await;
        line.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[1,")
            .await;
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        line.say(b"2]").await;
    })
    .await;
    let mut setup = Setup::before(upstream.address).policy(POLICY);
    setup.upstream.response = std::time::Duration::from_millis(200);
    let agent = setup.start().await;
    let answer = agent.ask("GET /people HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(answer.text(), "[1,2]");
    assert_eq!(
        answer.header("fieldveil-result"),
        Some("sealed=0, opened=0, unread=late")
    );
    check_refused(
        &agent.ask("GET /inbound HTTP/1.1\r\nHost: a\r\n\r\n").await,
        504,
        "upstream-timeout",
    );
}

/// An upstream that redirects.
async fn redirecting(status: u16, location: &str) -> Raw {
    Raw::answering(format!(
        "HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    ))
    .await
}

#[tokio::test]
async fn a_redirection_does_not_lead_round_the_agent() {
    // Back to the upstream itself: relative, so that it leads to the listener.
    for (location, expected) in [
        ("http://UPSTREAM/b?c=1#d", "/b?c=1#d"),
        ("HTTP://UPSTREAM", "/"),
        ("//UPSTREAM/b", "/b"),
        ("http://UPSTREAM//b", "/.//b"),
        ("http://UPSTREAM?c", "/?c"),
        ("/b", "/b"),
        ("b/../c", "b/../c"),
    ] {
        let upstream = Raw::new(move |mut line: Line| async move {
            let own = line.request().await.expect("a request");
            let host = own.header("host").expect("a host").to_owned();
            let location = location.replace("UPSTREAM", &host);
            let answer = format!(
                "HTTP/1.1 307 Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
            );
            line.say(answer.as_bytes()).await;
        })
        .await;
        let agent = before(&upstream).await;
        let answer = agent.post("/people", "{\"ssn\":1}").await;
        assert_eq!(
            (answer.status(), answer.header("location")),
            (307, Some(expected))
        );
    }
    // To another service, with the plaintext in the client's hands: not from a sealing route.
    for (status, method, location) in [
        (307, "POST", "http://other.example/"),
        (308, "POST", "https://other.example"),
        (308, "POST", "//other.example/x"),
        (307, "POST", "/\\other.example/x"),
        (307, "POST", "/b\r\nLocation: http://other.example/"),
        (301, "PUT", "http://other.example/"),
        (302, "PATCH", "http://other.example/"),
    ] {
        let upstream = redirecting(status, location).await;
        let agent = before(&upstream).await;
        let ask = post("/people", "{\"ssn\":1}").replacen("POST", method, 1);
        check_refused(&agent.ask(ask).await, 502, "upstream-redirect");
    }
    // Where no body follows, or none is sealed, it is the application's own business.
    for (status, method, path) in [
        (303, "POST", "/people"),
        (302, "POST", "/people"),
        (307, "POST", "/elsewhere"),
    ] {
        let upstream = redirecting(status, "http://other.example/").await;
        let agent = before(&upstream).await;
        let ask = post(path, "{\"ssn\":1}").replacen("POST", method, 1);
        let answer = agent.ask(ask).await;
        assert_eq!(
            (answer.status(), answer.header("location")),
            (status, Some("http://other.example/"))
        );
    }
}

#[tokio::test]
async fn held_bodies_have_one_room_together() {
    let upstream = Raw::echo().await;
    let mut setup = Setup::before(upstream.address).policy(POLICY);
    setup.limits.held_total = 16 << 10;
    let agent = setup.start().await;
    let body = format!("{{\"ssn\":1,\"x\":\"{}\"}}", "x".repeat(20 << 10));
    check_refused(&agent.post("/people", &body).await, 503, "busy");
    assert_eq!(upstream.connections(), 0);
    // Two that fit one after the other do not fit together.
    let body = format!("{{\"ssn\":1,\"x\":\"{}\"}}", "x".repeat(9 << 10));
    let mut first = agent.line().await;
    let ask = post("/people", &body);
    first.say(&ask.as_bytes()[..ask.len() - 1]).await;
    eventually("the first is being held", || {
        agent.request_permits.available_permits() < 1024
    })
    .await;
    check_refused(&agent.post("/people", &body).await, 503, "busy");
    first.say(&ask.as_bytes()[ask.len() - 1..]).await;
    assert_eq!(first.answer().await.status(), 200);
    assert_eq!(agent.post("/people", &body).await.status(), 200);
}

#[tokio::test]
async fn an_opening_side_that_rejects_strays_refuses_what_it_cannot_read() {
    let upstream = Raw::echo().await;
    let policy = POLICY.replace(
        "match: {path: \"/inbound\"}\n    request:\n",
        "match: {path: \"/inbound\"}\n    request:\n      stray: reject\n",
    );
    assert_ne!(policy, POLICY);
    let agent = Setup::before(upstream.address)
        .policy(&policy)
        .start()
        .await;
    let ask = post("/inbound", "{\"x\":1}").replace("application/json", "text/plain");
    check_refused(&agent.ask(ask).await, 415, "content-type");
    check_refused(&agent.post("/inbound", "{\"x\":1,}").await, 400, "not-json");
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_token_that_cannot_be_checked_for_want_of_its_key_is_not_called_a_wrong_one() {
    let upstream = Raw::echo().await;
    let agent = before(&upstream).await;
    agent.post("/people", "{\"ssn\":1}").await;
    let sealed = body_of(&upstream);
    let connections = upstream.connections();
    agent.keys.gone.store(true, SeqCst);
    let answer = agent.post("/people", &sealed).await;
    check_refused(&answer, 503, "keys-unreachable");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(upstream.connections(), connections);
    agent.keys.gone.store(false, SeqCst);
    assert_eq!(agent.post("/people", &sealed).await.status(), 200);
}

#[tokio::test]
async fn a_side_that_only_lets_pass_refuses_nothing() {
    let upstream = Raw::echo().await;
    let policy = POLICY.replace(
        "match: {path: \"/inbound\"}\n    request:\n      rules:\n        - {at: $..ssn, open: ssn}",
        "match: {path: \"/inbound\"}\n    request:\n      unclaimed: report\n      rules:\n        - {at: $.x, pass: true}",
    );
    assert_ne!(policy, POLICY);
    let policy = policy.replace(
        "\n    response:\n      rules:\n        - {at: $..ssn, seal: ssn}",
        "",
    );
    let agent = Setup::before(upstream.address)
        .policy(&policy)
        .start()
        .await;
    let ask = post("/inbound", "a=1").replace("application/json", "text/plain");
    let answer = agent.ask(ask).await;
    assert_eq!((answer.status(), answer.text()), (200, "a=1"));
    assert_eq!(
        answer.header("fieldveil-result"),
        Some("sealed=0, opened=0, unread=content-type")
    );
}

#[tokio::test]
async fn a_body_keeps_its_room_until_it_is_sent() {
    // It takes the head and no more.
    let upstream = Raw::new(|mut line| async move {
        line.head().await;
        std::future::pending().await
    })
    .await;
    let mut setup = Setup::before(upstream.address).policy(POLICY);
    setup.limits.held_total = 24 << 20;
    setup.upstream.response = Duration::from_secs(3);
    let agent = setup.start().await;
    // More than the kernel's buffers on the way take.
    let body = format!("{{\"ssn\":1,\"x\":\"{}\"}}", "x".repeat(7_500_000));
    let mut lines = Vec::new();
    for begun in 1..=3 {
        let mut line = agent.line().await;
        line.say(post("/people", &body).as_bytes()).await;
        eventually("it goes up", || upstream.connections() == begun).await;
        lines.push(line);
    }
    check_refused(&agent.post("/people", &body).await, 503, "busy");
    drop(lines);
    // There is room again when the connections to the upstream are gone: the request goes up, and is not answered.
    let begun = std::time::Instant::now();
    while let Ok(answer) = timeout(Duration::from_secs(1), agent.post("/people", &body)).await {
        check_refused(&answer, 503, "busy");
        assert!(begun.elapsed() < SOON, "the room was not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_becomes_of_a_body_needs_room_too() {
    let upstream = Raw::echo().await;
    let mut setup = Setup::before(upstream.address).policy(&POLICY.replace("$..ssn", "\"$[*]\""));
    setup.limits.held_total = 1 << 20;
    let agent = setup.start().await;
    let values = |count: usize| format!("[1{}]", ",1".repeat(count));
    // 20 KB of which a token each would make 2 MB.
    check_refused(
        &agent.post("/people", &values(10_000)).await,
        413,
        "too-many",
    );
    assert_eq!(upstream.connections(), 0);
    let answer = agent.post("/people", &values(1_000)).await;
    assert_eq!((answer.status(), answer.text()), (200, &*values(1_000)));
    // All of it was given back.
    let answer = agent.post("/people", &values(1_000)).await;
    assert_eq!((answer.status(), answer.text()), (200, &*values(1_000)));
}
