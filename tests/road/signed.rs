//! Requests that are signed over their bodies.

use crate::harness::{Agent, Raw, Setup};
use crate::rewriting::POLICY;

const AWS: &str = "Authorization: AWS4-HMAC-SHA256 Credential=A/20260101/eu-west-1/s3/aws4_request, SignedHeaders=host, Signature=00\r\n";

async fn send(agent: &Agent, path: &str, kind: &str, fields: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let answer = agent
        .ask(format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
        ))
        .await;
    let code = match answer.status() {
        200 => answer
            .header("fieldveil-result")
            .unwrap_or_default()
            .to_owned(),
        _ => answer.code(),
    };
    (answer.status(), code)
}

#[tokio::test]
async fn a_signed_body_is_not_changed() {
    let upstream = Raw::echo().await;
    let agent = Setup::before(upstream.address).policy(POLICY).start().await;
    for signed in [
        AWS,
        "Signature-Input: sig=(\"@method\" \"content-digest\");created=1\r\nSignature: sig=:AA==:\r\n",
        "Signature: keyId=\"k\",headers=\"host digest\",signature=\"AA==\"\r\n",
        "Authorization: Signature keyId=\"k\",headers=\"(request-target) digest\",signature=\"AA==\"\r\n",
    ] {
        for kind in ["application/json", "application/x-ndjson"] {
            let refused = send(&agent, "/people", kind, signed, "{\"ssn\":1}").await;
            assert_eq!(refused, (422, "signed-body".to_owned()), "{signed}");
        }
        assert_eq!(upstream.connections(), 0);
        let (status, result) = send(
            &agent,
            "/watched",
            "application/json",
            signed,
            "{\"ssn\":1}",
        )
        .await;
        assert_eq!(status, 200);
        assert!(result.contains("refused=signed-body"), "{result}");
        upstream
            .connections
            .store(0, std::sync::atomic::Ordering::SeqCst);
    }
    // Nothing to change, or nothing signed of it.
    let passed = send(&agent, "/people", "application/json", AWS, "{\"n\":1}").await;
    assert_eq!(passed.0, 200);
    for fields in [
        &*format!("{AWS}x-amz-content-sha256: UNSIGNED-PAYLOAD\r\n"),
        "Signature-Input: sig=(\"@method\" \"date\");created=1\r\n",
        "Authorization: Bearer content-digest\r\n",
    ] {
        let passed = send(&agent, "/people", "application/json", fields, "{\"ssn\":1}").await;
        assert_eq!(passed.0, 200, "{fields}");
    }
    let digest = "0".repeat(64);
    let fields = format!("x-amz-content-sha256: {digest}\r\n");
    assert_eq!(
        send(
            &agent,
            "/people",
            "application/json",
            &fields,
            "{\"ssn\":1}"
        )
        .await
        .0,
        200
    );
    assert!(!upstream.text().contains(&digest));
}

/// Where the service does not look at the signature: the body is sealed, and what tells of it is made anew as ever.
#[tokio::test]
async fn a_route_may_be_for_signed_bodies_too() {
    let upstream = Raw::echo().await;
    let allowing = POLICY.replacen("    request:\n", "    request:\n      signed: allow\n", 1);
    let agent = Setup::before(upstream.address).policy(&allowing);
    let agent = agent.start().await;
    for kind in ["application/json", "application/x-ndjson"] {
        let (status, _) = send(&agent, "/people", kind, AWS, "{\"ssn\":\"078-05\"}").await;
        assert_eq!(status, 200, "{kind}");
        let seen = upstream.text();
        assert!(
            seen.contains("\"fv1~") && !seen.contains("078-05"),
            "{seen}"
        );
        assert!(seen.contains("AWS4-HMAC-SHA256"), "{seen}");
    }
}
