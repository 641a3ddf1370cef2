//! The words beside a side's rules, on the wire: near misses, plaintext where tokens are expected, tokens that do not open.

use crate::harness::{Agent, Message, Raw, Setup};

const POLICY: &str = r#"
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: test}
classes:
  ssn: {key: identity}
routes:
  - name: strict
    match: {path: "/strict"}
    request:
      near_miss: reject
      rules:
        - {at: $..ssn, seal: ssn}
    response:
      plaintext: reject
      unopened: reject
      rules:
        - {at: $..ssn, open: ssn}
  - name: counted
    match: {path: "/counted"}
    request:
      rules:
        - {at: $..ssn, seal: ssn}
    response:
      unopened: null
      rules:
        - {at: $..ssn, open: ssn, bind: {id: {sibling: id}}}
  - name: inbound
    match: {path: "/inbound"}
    request:
      plaintext: reject
      unopened: reject
      rules:
        - {at: $..ssn, open: ssn}
    response:
      near_miss: reject
      rules:
        - {at: $..ssn, seal: ssn}
"#;

const SECRET: &str = "078-05-1120";

async fn before(upstream: &Raw) -> Agent {
    Setup::before(upstream.address).policy(POLICY).start().await
}

fn json_answer(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Refused with this status and code, and nothing of the value in the answer.
#[track_caller]
fn refused(answer: &Message, status: u16, code: &str) {
    let text = answer.text();
    assert_eq!(answer.status(), status, "{text}");
    assert!(text.contains(&format!("\"code\":\"{code}\"")), "{text}");
    assert!(!text.contains(SECRET) && !text.contains("fv1~"), "{text}");
}

fn body_of(upstream: &Raw) -> String {
    let got = upstream.text();
    let body = got.split_once("\r\n\r\n").map(|(_, body)| body);
    body.unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_near_miss_is_refused_before_it_goes_up() {
    let upstream = Raw::echo().await;
    let agent = before(&upstream).await;
    for name in ["SSN", "\u{17f}sn", "\\u017fsn", "s\u{200b}sn"] {
        let body = format!("{{\"{name}\":\"{SECRET}\"}}");
        refused(&agent.post("/strict", &body).await, 422, "near-miss");
    }
    assert_eq!(upstream.connections(), 0);
    // Elsewhere it is counted.
    let body = format!("{{\"SSN\":\"{SECRET}\"}}");
    let answer = agent.post("/counted", &body).await;
    assert_eq!(answer.text(), body);
    assert_eq!(
        answer.header("fieldveil-result"),
        Some("sealed=0, opened=0, near-misses=1")
    );
    // An answer that would reach the client unsealed.
    let upstream = Raw::answering(json_answer(&body)).await;
    let agent = before(&upstream).await;
    let answer = agent.ask("GET /inbound HTTP/1.1\r\nHost: a\r\n\r\n").await;
    refused(&answer, 502, "upstream-refused");
}

#[tokio::test]
async fn plaintext_where_a_token_is_expected_is_refused() {
    let body = format!("{{\"ssn\":\"{SECRET}\"}}");
    let upstream = Raw::answering(json_answer(&body)).await;
    let agent = before(&upstream).await;
    let answer = agent.ask("GET /strict HTTP/1.1\r\nHost: a\r\n\r\n").await;
    refused(&answer, 502, "upstream-refused");
    refused(&agent.post("/inbound", &body).await, 422, "plaintext");
    assert_eq!(upstream.connections(), 1);
    // What cannot be looked into may hold some.
    let upstream = Raw::answering(json_answer("{\"ssn\":")).await;
    let agent = before(&upstream).await;
    let answer = agent.ask("GET /strict HTTP/1.1\r\nHost: a\r\n\r\n").await;
    refused(&answer, 502, "upstream-unreadable");
}

#[tokio::test]
async fn a_token_that_does_not_open_gives_way_to_null_or_stops_the_answer() {
    let upstream = Raw::echo().await;
    let agent = before(&upstream).await;
    agent
        .post("/counted", &format!("{{\"ssn\":\"{SECRET}\"}}"))
        .await;
    let sealed = body_of(&upstream);
    // Sealed without a bind, and to be opened with one.
    let bound = sealed.replace("\"}", "\",\"id\":7}");
    let answer = agent.post("/counted", &bound).await;
    refused_none(
        &answer,
        "{\"ssn\":null,\"id\":7}",
        "sealed=0, opened=0, kept=1, nulled=1, left=1;refused=1",
    );
    let broken = sealed.replace("fv1~", "fv1~AA");
    refused(&agent.post("/inbound", &broken).await, 422, "token-refused");
    let upstream = Raw::answering(json_answer(&broken)).await;
    let agent = before(&upstream).await;
    let answer = agent.ask("GET /strict HTTP/1.1\r\nHost: a\r\n\r\n").await;
    refused(&answer, 502, "upstream-refused");
    // For want of its key just now: the client may come again.
    let upstream = Raw::answering(json_answer(&sealed)).await;
    let agent = before(&upstream).await;
    agent
        .keys
        .gone
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let answer = agent.ask("GET /strict HTTP/1.1\r\nHost: a\r\n\r\n").await;
    refused(&answer, 503, "keys-unreachable");
}

#[track_caller]
fn refused_none(answer: &Message, body: &str, result: &str) {
    assert_eq!((answer.status(), answer.text()), (200, body));
    assert_eq!(answer.header("fieldveil-result"), Some(result));
}
