//! Values outside of the body's JSON, on the wire: heads, forms, JSON within strings, patches.

use crate::harness::{Agent, Message, Raw, Setup};

const POLICY: &str = r#"
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: test}
classes:
  ssn: {key: identity}
routes:
  - name: heads
    match: {path: "/heads"}
    request:
      rules:
        - {at: {query: ssn}, seal: ssn}
        - {at: {header: X-SSN}, seal: ssn}
    response:
      rules:
        - {at: {header: X-Back}, open: ssn}
  - name: forms
    match: {path: "/forms"}
    request:
      rules:
        - {at: {form: ssn}, seal: ssn}
        - {at: {part: ssn}, seal: ssn}
        - {at: {query: q}, seal: ssn}
    response:
      rules:
        - {at: {form: ssn}, open: ssn}
        - {at: {part: ssn}, open: ssn}
  - name: both
    match: {path: "/both"}
    request:
      rules:
        - {at: $..ssn, seal: ssn}
        - {at: {form: ssn}, open: ssn}
        - {at: {part: numéro}, seal: ssn}
    response:
      rules:
        - {at: {form: ssn}, open: ssn}
        - {at: {part: numéro}, open: ssn}
  - name: json
    match: {path: "/json"}
    request:
      rules:
        - {at: $.ssn, seal: ssn}
        - {at: {json: $.payload, then: $..ssn}, seal: ssn}
        - {at: {header: x-ssn}, seal: ssn}
    response:
      rules:
        - {at: $.ssn, open: ssn}
        - {at: {json: $.payload, then: $..ssn}, open: ssn}
  - name: inbound
    match: {path: "/inbound"}
    request:
      rules:
        - {at: {query: ssn}, open: ssn}
        - {at: $.ssn, open: ssn}
    response:
      rules:
        - {at: {header: x-ssn}, seal: ssn}
  - name: exact
    match: {path: "/exact"}
    request:
      near_miss: reject
      rules:
        - {at: {query: ssn}, seal: ssn}
        - {at: {form: ssn}, seal: ssn}
        - {at: {part: ssn}, seal: ssn}
        - {at: {header: x-ssn}, seal: ssn}
  - name: watched
    mode: observe
    match: {path: "/watched"}
    request: {rules: [{at: {query: ssn}, seal: ssn}]}
"#;

/// Answers with the body and type that it got, and what came in X-SSN as X-Back.
async fn mirror() -> Raw {
    Raw::new(|mut line| async move {
        while let Some(message) = line.request().await {
            let kind = message.header("content-type").unwrap_or("text/plain");
            let back = message.header("x-ssn").unwrap_or("none");
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nX-Back: {back}\r\nX-SSN: 078-05-1120\r\nContent-Length: {}\r\n\r\n",
                message.body.len()
            );
            line.say(&[head.as_bytes(), &message.body].concat()).await;
        }
    })
    .await
}

async fn before(upstream: &Raw) -> Agent {
    Setup::before(upstream.address).policy(POLICY).start().await
}

fn request(target: &str, lines: &str, body: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nHost: app\r\n{lines}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const JSON: &str = "Content-Type: application/json\r\n";
const PATCH: &str = "Content-Type: application/json-patch+json\r\n";
const MERGE: &str = "Content-Type: application/merge-patch+json\r\n";
const PARTS: &str = "Content-Type: multipart/form-data; boundary=\"B b\"\r\n";

/// Sent, it comes back; and the upstream sees `tokens` tokens and nothing of what is secret.
#[track_caller]
fn check(upstream: &Raw, answer: &Message, tokens: usize) {
    let seen = upstream.text();
    assert!(!seen.contains("078-05"), "{seen}");
    assert!(!seen.contains("078%2D05"), "{seen}");
    assert_eq!(seen.matches("fv1~").count(), tokens, "{seen}");
    assert_eq!(answer.status(), 200, "{answer:?}");
}

#[tokio::test]
async fn heads_are_sealed_with_or_without_a_body() {
    for (body, lines) in [
        ("", ""),
        ("any\u{1}thing", "Content-Type: image/png\r\n"),
        ("{", JSON),
    ] {
        let upstream = mirror().await;
        let agent = before(&upstream).await;
        let lines = format!("{lines}X-SSN: 078-05-1120\r\nx_ssn: 078-05-1120\r\nX-Other: 1, 2\r\n");
        let target = "/heads?a=%zz&ssn=078-05-1120&%73sn=078%2D05&b";
        let answer = agent.ask(request(target, &lines, body)).await;
        check(&upstream, &answer, 4);
        assert_eq!(answer.text(), body);
        assert_eq!(answer.header("x-back"), Some("078-05-1120"));
        let seen = upstream.text();
        assert!(seen.starts_with("POST /heads?a=%zz&ssn=fv1~"), "{seen}");
        assert!(
            seen.contains("~&%73sn=fv1~") && seen.contains("~&b HTTP/1.1"),
            "{seen}"
        );
        assert!(seen.to_lowercase().contains("x-other: 1, 2\r\n"), "{seen}");
    }
}

#[tokio::test]
async fn trailers_do_not_say_what_the_head_seals() {
    let upstream = mirror().await;
    let agent = before(&upstream).await;
    let chunked = "POST /heads HTTP/1.1\r\nHost: a\r\nTrailer: x-ssn, x-ok\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx-ssn: 078-05-1120\r\nX_SSN: 078-05-1120\r\nx-ok: 7\r\n\r\n";
    let answer = agent.ask(chunked).await;
    check(&upstream, &answer, 0);
    assert!(upstream.text().contains("x-ok: 7"), "{}", upstream.text());
}

/// What no rule of the route reads is refused however long it is, and however long that takes to show.
#[tokio::test]
async fn a_foreign_body_that_is_too_long_to_be_held_is_refused() {
    let upstream = Raw::echo().await;
    let mut setup = Setup::before(upstream.address).policy(POLICY);
    setup.limits.held_body = 1_000;
    let agent = setup.start().await;
    let body = format!(
        "{{\"p\":\"{}\",\"ssn\":\"078-05-1120\"}}",
        "x".repeat(20_000)
    );
    for kind in ["application/json", "text/plain", "application/x-ndjson"] {
        let request = format!(
            "POST /forms HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        let answer = agent.ask(request).await;
        assert_eq!(
            (answer.status(), answer.code()),
            (415, "content-type".to_owned()),
            "{kind}"
        );
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn forms_are_sealed_in_place_and_come_back() {
    let parts = "--B b\r\nContent-Disposition: form-data; name=\"photo\"; filename=\"x.png\"\r\nContent-Type: image/png\r\n\r\n\u{1}\u{2}\r\n--B b\r\nContent-Disposition: form-data; name=\"ssn\"\r\n\r\n078-05-1120\r\n--B b--\r\n";
    for (kind, body) in [(FORM, "a=1&ssn=078-05-1120&b=%2B"), (PARTS, parts)] {
        let upstream = mirror().await;
        let agent = before(&upstream).await;
        let answer = agent.ask(request("/forms?q=078-05", kind, body)).await;
        check(&upstream, &answer, 2);
        assert_eq!(answer.text(), body);
        assert_eq!(
            answer.header("fieldveil-result"),
            Some("sealed=2, opened=1")
        );
    }
}

/// Where forms are only opened, what is none passes as it came.
#[tokio::test]
async fn an_answer_that_is_json_in_a_forms_place_passes() {
    let upstream = Raw::answering(format!(
        "HTTP/1.1 200 OK\r\n{FORM}Content-Length: 9\r\n\r\n{{\"ssn\":1}}"
    ))
    .await;
    let agent = before(&upstream).await;
    let answer = agent.ask(request("/both", FORM, "a=[1]&b={}")).await;
    assert_eq!((answer.status(), answer.text()), (200, "{\"ssn\":1}"));
    assert!(
        upstream.text().ends_with("a=[1]&b={}"),
        "{}",
        upstream.text()
    );
}

/// .NET writes names that are not ASCII in a way that its servers decode.
#[tokio::test]
async fn a_part_is_sealed_or_refused_however_its_name_is_encoded() {
    let parts = |disposition: &str| {
        format!(
            "--B b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n078-05-1120\r\n--B b\r\nContent-Type: image/png\r\nContent-Disposition: form-data; name=photo; filename=x.png; filename*=utf-8''x.png\r\n\r\n\u{1}\r\n--B b--\r\n"
        )
    };
    let upstream = mirror().await;
    let agent = before(&upstream).await;
    let sent = parts("name=\"numéro\"");
    let answer = agent.ask(request("/both", PARTS, &sent)).await;
    check(&upstream, &answer, 1);
    assert_eq!(answer.text(), sent);
    for disposition in [
        "name=\"=?utf-8?B?bnVtw6lybw==?=\"",
        "name=\"=?utf-8?Q?num=C3=A9ro?=\"",
        "name='numero'",
        "name*=utf-8''num%C3%A9ro",
        "name*0=\"num\"; name*1*=utf-8''%C3%A9ro",
        "name=x; filename*0=\"y\"",
        "name=\"x\"; filename=\"; name=numéro\"",
    ] {
        let answer = agent
            .ask(request("/both", PARTS, &parts(disposition)))
            .await;
        assert_eq!(answer.code(), "bad-form", "{disposition}");
    }
    let seen = upstream.text();
    assert!(!seen.contains("078-05"), "{seen}");
    assert_eq!(seen.matches("POST ").count(), 1, "{seen}");
}

#[tokio::test]
async fn documents_in_strings_and_patches_are_sealed() {
    for (kind, body, tokens) in [
        (
            JSON,
            r#"{"ssn":"078-05-1120","payload":"{\"ssn\":\"078-05-1120\",\"n\":[1]}"}"#,
            3,
        ),
        (
            MERGE,
            r#"{"ssn":null,"payload":"{\"ssn\":\"078-05-1120\"}"}"#,
            2,
        ),
        (MERGE, r#"{"ssn":"078-05-1120"}"#, 2),
    ] {
        let upstream = mirror().await;
        let agent = before(&upstream).await;
        let lines = format!("{kind}X-SSN: 078-05-1120\r\n");
        let answer = agent.ask(request("/json", &lines, body)).await;
        check(&upstream, &answer, tokens);
        assert_eq!(answer.text(), body);
    }
    let upstream = mirror().await;
    let agent = before(&upstream).await;
    let body =
        r#"[{"op":"add","path":"/ssn","value":"078-05-1120"},{"op":"add","path":"/x","value":2}]"#;
    let answer = agent.ask(request("/json", PATCH, body)).await;
    check(&upstream, &answer, 1);
    assert_eq!(answer.text(), body);
}

#[tokio::test]
async fn what_has_no_single_meaning_is_refused_before_it_goes_up() {
    let upstream = mirror().await;
    let agent = before(&upstream).await;
    let long = "x".repeat(14_000);
    for (target, lines, body, status, code) in [
        ("/heads?ssn=%zz", "", "", 400, "bad-form"),
        ("/heads?a=1;ssn=2", "", "", 400, "bad-form"),
        (
            "/heads?ssn=%ff",
            "Content-Type: text/plain\r\n",
            "x",
            400,
            "bad-form",
        ),
        ("/heads", "X-SSN: \u{80}\u{81}\r\n", "", 200, ""),
        (&*format!("/heads?ssn={long}"), "", "", 431, "sealed-head"),
        ("/forms", FORM, "ssn=%", 400, "bad-form"),
        ("/forms", FORM, "%=1", 400, "bad-form"),
        ("/forms", PARTS, "--B b\r\n", 400, "bad-form"),
        (
            "/forms",
            "Content-Type: multipart/form-data\r\n",
            "x",
            415,
            "content-type",
        ),
        (
            "/forms",
            "Content-Type: multipart/mixed; boundary=b\r\n",
            "x",
            415,
            "content-type",
        ),
        (
            "/forms",
            "Content-Type: application/x-www-form-urlencoded; charset=latin1\r\n",
            "ssn=1",
            415,
            "content-type",
        ),
        ("/forms", JSON, "{\"ssn\":1}", 415, "content-type"),
        // What clients that do not know better send.
        ("/forms", FORM, "{\"ssn\":1}", 400, "bad-form"),
        ("/both", FORM, "{\"ssn\":1}", 400, "bad-form"),
        ("/both", FORM, " \n[{\"ssn\":1}]", 400, "bad-form"),
        ("/both", FORM, "{\"ssn\":1}=", 400, "bad-form"),
        ("/both", FORM, "\"{}\"", 400, "bad-form"),
        ("/json", FORM, "ssn=1", 415, "content-type"),
        (
            "/json",
            JSON,
            "{\"payload\":\"ssn\"}",
            400,
            "inner-not-json",
        ),
        (
            "/json",
            PATCH,
            "[{\"op\":\"test\",\"path\":\"/ssn\",\"value\":1}]",
            422,
            "patch-refused",
        ),
        (
            "/json",
            PATCH,
            "[{\"op\":\"replace\",\"path\":\"/ssn\",\"value\":1,\"oldValue\":\"078-05-1120\"}]",
            422,
            "patch-refused",
        ),
        (
            "/json",
            PATCH,
            "[{\"op\":\"add\",\"path\":\"/a\",\"value\":1,\"ssn\":\"078-05-1120\"}]",
            422,
            "patch-refused",
        ),
        (
            "/json",
            PATCH,
            "[{\"op\":\"remove\",\"path\":\"/a/0\",\"context\":{\"ssn\":\"078-05-1120\"}}]",
            422,
            "patch-refused",
        ),
        ("/json", MERGE, "{\"ssn\":{\"a\":1}}", 422, "patch-refused"),
    ] {
        let answer = agent.ask(request(target, lines, body)).await;
        assert_eq!(answer.status(), status, "{code} {body}");
        if status != 200 {
            assert_eq!(answer.code(), code, "{body}");
        }
    }
    let mut latin = request("/heads", "X-SSN: ?\r\n", "").into_bytes();
    let at = latin.iter().rposition(|b| *b == b'?').expect("a mark");
    latin[at] = 0xE9;
    assert_eq!(agent.ask(latin).await.code(), "not-text");
    agent
        .keys
        .gone
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let answer = agent.ask(request("/heads?ssn=1", JSON, "{}")).await;
    assert_eq!(answer.code(), "keys-unreachable");
    assert_eq!(upstream.connections(), 1, "the one that was not refused");
}

#[tokio::test]
async fn an_agent_before_the_service_opens_queries_and_seals_headers() {
    let upstream = mirror().await;
    let agent = before(&upstream).await;
    let answer = agent.ask(request("/inbound", "", "")).await;
    let token = answer.header("x-ssn").expect("a header").to_owned();
    assert!(token.starts_with("fv1~"), "{token}");
    let target = format!("/inbound?ssn={token}&x=1");
    // A body that cannot be read passes; the query is opened all the same.
    let answer = agent.ask(request(&target, JSON, "{")).await;
    assert_eq!((answer.status(), answer.text()), (200, "{"));
    let seen = upstream.text();
    assert!(
        seen.contains("/inbound?ssn=078-05-1120&x=1 HTTP/1.1"),
        "{seen}"
    );
}

#[tokio::test]
async fn an_observed_head_is_not_changed() {
    let upstream = mirror().await;
    let agent = before(&upstream).await;
    agent.ask(request("/watched?ssn=1", "", "")).await;
    assert!(upstream.text().starts_with("POST /watched?ssn=1 HTTP/1.1"));
    let answer = agent.ask(request("/watched?ssn=%", "", "")).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_sealed_header_is_not_sent_to_another_service() {
    let upstream = Raw::answering(
        "HTTP/1.1 303 See Other\r\nLocation: https://elsewhere.example/\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let agent = before(&upstream).await;
    let answer = agent.ask(request("/heads", "X-SSN: 1\r\n", "")).await;
    assert_eq!(answer.code(), "upstream-redirect");
}

/// A name that is nearly that of a sealed value is refused wherever it stands, before anything goes up.
#[tokio::test]
async fn near_misses_outside_of_json_are_refused() {
    let upstream = mirror().await;
    let agent = before(&upstream).await;
    let part =
        "--B b\r\nContent-Disposition: form-data; name=\"Ssn\"\r\n\r\n078-05-1120\r\n--B b--\r\n";
    for (target, lines, body) in [
        ("/exact?SSN=078-05-1120", "", ""),
        ("/exact", FORM, "a=1&Ssn=078-05-1120"),
        ("/exact?user%5Bssn%5D=078-05-1120", "", ""),
        ("/exact?%20ssn=078-05-1120", "", ""),
        ("/exact", FORM, "user[ssn]=078-05-1120"),
        ("/exact", FORM, "user.ssn=078-05-1120"),
        ("/exact", FORM, "ssn[]=078-05-1120&ssn[]=078-05-1120"),
        ("/exact", FORM, "+ssn=078-05-1120"),
        ("/exact", FORM, "ssn%00=078-05-1120"),
        ("/exact", FORM, "\r\nssn=078-05-1120"),
        ("/exact", PARTS, part),
        ("/exact", PARTS, &part.replace("Ssn", " ssn")),
        ("/exact", PARTS, &part.replace("Ssn", "users[0][ssn]")),
        ("/exact", "XSSN: 078-05-1120\r\n", ""),
    ] {
        let answer = agent.ask(&request(target, lines, body)).await;
        let text = answer.text();
        assert_eq!(answer.status(), 422, "{text}");
        assert!(text.contains("\"code\":\"near-miss\""), "{text}");
        assert!(!text.contains("078-05"), "{text}");
    }
    assert_eq!(upstream.connections(), 0);
    // Where it is reported, it goes on and is counted.
    let answer = agent.ask(&request("/heads", "XSSN: 7\r\n", "")).await;
    // The upstream's own `X-Back` is no token.
    assert_eq!(
        answer.header("fieldveil-result"),
        Some("sealed=0, opened=0, plaintext=1, near-misses=1")
    );
}
