//! What is logged, at the most talkative level.

use crate::harness::{Raw, Setup, post};
use std::io::Write;
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("kept").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn records_are_logged_and_no_value_path_or_query_is() {
    let kept = Kept::default();
    let writer = kept.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // With only one subscriber alive, an event that another test's thread meets first would be off for ever.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let upstream = Raw::echo().await;
    let agent = Setup::before(upstream.address)
        .policy(crate::rewriting::POLICY)
        .start()
        .await;
    let mut line = agent.line().await;
    line.say(
        post(
            "/people?needle-query",
            "{\"ssn\":\"needle-value\",\"needle-name\":1}",
        )
        .as_bytes(),
    )
    .await;
    assert_eq!(line.answer().await.status(), 200);
    line.say(post("/people?needle-query", "{\"ssn\":\"needle-value\",needle").as_bytes())
        .await;
    assert_eq!(line.answer().await.status(), 400);
    line.say(post("/needle-path", "needle-value").as_bytes())
        .await;
    assert_eq!(line.answer().await.status(), 200);
    line.say(b"GET /needle-path HTTP/1.1\r\nHost: needle-host@x\r\nX: needle-header\r\n\r\n")
        .await;
    assert_eq!(line.answer().await.status(), 400);
    let log = String::from_utf8(kept.0.lock().expect("kept").clone()).expect("text");
    assert!(!log.contains("needle"), "{log}");
    for said in [
        "fieldveil::access",
        "listener=\"test\"",
        "route=\"people\"",
        "method=\"POST\"",
        "status=200",
        "outcome=\"answered\"",
        "request=sealed.ssn=1",
        "response=opened.ssn=1",
        "outcome=\"not-json\"",
        "fault=\"client\"",
        "note=\"not-json at byte",
        "outcome=\"host-invalid\"",
        "added_us=",
    ] {
        assert!(log.contains(said), "{said} in {log}");
    }
}
