//! Streams of language models: tokens that come in pieces, opened whole.

use crate::harness::{Agent, Raw, Setup, eventually};
use fieldveil::audit::Outcome;

const POLICY: &str = r#"
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: chat}
classes:
  name: {key: people}
routes:
  - name: chat
    match: {path: "/chat"}
    request:
      rules:
        - {at: "$.messages[*].content", seal: name}
    response:
      rules:
        - {at: "$.choices[*].delta.content", open: "*", gather: true}
        - {at: $.delta.text, open: "*", gather: true}
        - {at: $.message.content, open: "*", gather: true}
"#;

async fn before(upstream: &Raw) -> Agent {
    Setup::before(upstream.address).policy(POLICY).start().await
}

/// The token of a JSON value.
async fn token(value: &str) -> String {
    let upstream = Raw::echo().await;
    let agent = before(&upstream).await;
    let body = format!("{{\"messages\":[{{\"content\":{value}}}]}}");
    agent.post("/chat", &body).await;
    let got = upstream.text();
    let start = got.find("fv1~").expect("a token");
    let end = got[start..].find("~\"").expect("its end");
    got[start..=start + end].to_owned()
}

/// What the client gets of this answer; what was opened; what was left.
async fn answered(kind: &str, body: &str) -> (String, u32) {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let upstream = Raw::answering(answer).await;
    let agent = before(&upstream).await;
    let got = agent.ask("GET /chat HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("on record", || agent.records.all().len() == 1).await;
    let record = &agent.records.all()[0];
    assert_eq!(record.outcome, Outcome::Answered);
    let opened = record.response.opened.iter().map(|(_, count)| count).sum();
    (got.text().to_owned(), opened)
}

fn delta(index: u32, content: &str) -> String {
    let content = serde_json::to_string(content).expect("text");
    format!(
        "data: {{\"id\":\"c\",\"choices\":[{{\"delta\":{{\"content\":{content}}},\"index\":{index}}}]}}\n\n"
    )
}

/// All that the deltas of a choice say together.
fn said(stream: &str, index: u64) -> String {
    let mut all = String::new();
    for line in stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: {"))
    {
        let event: serde_json::Value = serde_json::from_str(&format!("{{{line}")).expect("JSON");
        for choice in event["choices"].as_array().into_iter().flatten() {
            if choice["index"] == index {
                all += choice["delta"]["content"].as_str().unwrap_or_default();
            }
        }
    }
    all
}

#[tokio::test]
async fn a_token_in_pieces_is_opened_whole_wherever_it_is_cut() {
    let token = token("\"Ada \\\"L\\\"\"").await;
    let text = format!("Dear {token}, f fv1~ fv1~x~ {token}{token}.");
    let expected = "Dear Ada \"L\", f fv1~ fv1~x~ Ada \"L\"Ada \"L\".";
    for size in [1, 2, 3, 5, 17, 1_000_000] {
        let characters: Vec<char> = text.chars().collect();
        let pieces = characters.chunks(size);
        let mut stream: String = pieces
            .map(|piece| delta(0, &piece.iter().collect::<String>()))
            .collect();
        stream += "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
        let (got, opened) = answered("text/event-stream", &stream).await;
        assert_eq!((said(&got, 0), opened), (expected.to_owned(), 3), "{size}");
        assert!(got.ends_with("\"stop\"}]}\n\ndata: [DONE]\n\n"), "{got}");
    }
}

#[tokio::test]
async fn what_is_no_token_is_let_go_of_before_the_stream_goes_on_or_ends() {
    for end in [
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}]}\n\n",
        "data: [DONE]\n\n",
        "",
    ] {
        let stream = format!("{}{}{end}", delta(0, "half: fv1~AQ"), delta(0, "EBAQ"));
        let (got, opened) = answered("text/event-stream", &stream).await;
        assert_eq!((said(&got, 0), opened), ("half: fv1~AQEBAQ".to_owned(), 0));
        assert!(got.ends_with(end), "{got}");
        assert!(got.starts_with(&delta(0, "half: ")), "{got}");
    }
    // Nothing of what cannot begin a token waits.
    let stream = format!("{}{}", delta(0, "leaf "), delta(0, "fv2~"));
    let (got, _) = answered("text/event-stream", &stream).await;
    assert_eq!(got, stream);
}

#[tokio::test]
async fn texts_side_by_side_are_kept_apart() {
    let token = token("\"Ada\"").await;
    let (one, other) = token.split_at(30);
    let stream = [
        delta(0, one),
        delta(1, "and f"),
        "data: {\"type\":\"ping\"}\n\n".to_owned(),
        delta(1, "ine"),
        delta(0, other),
    ]
    .concat();
    let (got, opened) = answered("text/event-stream", &stream).await;
    assert_eq!(
        (said(&got, 0), said(&got, 1), opened),
        ("Ada".into(), "and fine".into(), 1)
    );
    // As other services have it, and in lines.
    let (got, opened) = answered(
        "text/event-stream",
        &format!("event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{one}\"}}}}\n\nevent: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{other}!\"}}}}\n\n"),
    )
    .await;
    assert!(
        got.contains("\"text\":\"\"") && got.contains("\"text\":\"Ada!\"") && opened == 1,
        "{got}"
    );
    let lines = format!(
        "{{\"message\":{{\"content\":\"{one}\"}}}}\n{{\"message\":{{\"content\":\"{other}\"}}}}\n{{\"done\":true}}"
    );
    let (got, opened) = answered("application/x-ndjson", &lines).await;
    assert_eq!(
        got,
        "{\"message\":{\"content\":\"\"}}\n{\"message\":{\"content\":\"Ada\"}}\n{\"done\":true}"
    );
    assert_eq!(opened, 1);
}
