//! What each provider makes of every answer: the table of docs/kms.md, row by row.

use super::login::{given, transit, trust};
use super::stub::{Say, Stub, within};
use super::suite::{DEK, scope};
use fieldveil::kms::{Failure, Kms};
use std::time::Duration;

/// A provider that talks to a stub; its KEK, and a blob that it would send.
struct Talker {
    name: &'static str,
    kms: Box<dyn Kms>,
    kek: &'static str,
    blob: Vec<u8>,
}

const ARN: &str = "arn:aws:kms:us-east-1:000000000000:key/1234";

fn talkers(url: &str) -> Vec<Talker> {
    vec![
        Talker {
            name: "transit",
            kms: Box::new(transit(url, given("t"), Duration::ZERO)),
            kek: "cards",
            blob: vec![0, 0, 0, 1, 9, 9, 9],
        },
        #[cfg(feature = "aws")]
        Talker {
            name: "aws",
            kms: Box::new(aws(url)),
            kek: ARN,
            blob: vec![9; 100],
        },
    ]
}

#[cfg(feature = "aws")]
pub fn aws(url: &str) -> fieldveil::kms::aws::Aws {
    fieldveil::kms::aws::Aws::new(fieldveil::kms::aws::Settings {
        name: "aws".into(),
        region: Some("us-east-1".into()),
        endpoint: Some(url.to_owned()),
        credentials: Some(("id".into(), "secret".into())),
        trust: trust(),
        relogin_after: Duration::from_secs(3600),
    })
    .unwrap()
}

fn of_aws(code: &str, message: &str) -> String {
    format!(r#"{{"__type":"com.amazonaws.kms#{code}","message":"{message}"}}"#)
}

fn of_transit(error: &str) -> String {
    format!(r#"{{"errors":["{error}"]}}"#)
}

/// The provider, the status and body of an answer to unwrap, and what it means.
fn answers() -> Vec<(&'static str, u16, String, Failure)> {
    use Failure::{Denied, Destroyed, Disabled, Malformed, NotFound, Unreachable};
    let mut rows = Vec::new();
    let mut transit = |status, error: &str, failure| {
        rows.push(("transit", status, of_transit(error), failure));
    };
    transit(403, "permission denied", Denied);
    transit(401, "x", Denied);
    transit(
        400,
        "ciphertext or signature version is disallowed by policy (too old)",
        Disabled,
    );
    transit(400, "key is soft deleted", Destroyed);
    transit(400, "encryption key not found", NotFound);
    transit(404, "no handler for route", NotFound);
    transit(404, "namespace not found", NotFound);
    transit(405, "unsupported operation", NotFound);
    transit(400, "invalid ciphertext: no prefix", Malformed);
    transit(400, "invalid ciphertext: version is too new", Malformed);
    transit(400, "cipher: message authentication failed", Malformed);
    transit(400, "missing 'context' for key derivation", Malformed);
    transit(400, "something else", Malformed);
    transit(418, "x", Malformed);
    transit(307, "x", Unreachable);
    transit(412, "required index state not present", Unreachable);
    transit(429, "rate limit quota exceeded", Unreachable);
    transit(472, "x", Unreachable);
    transit(473, "x", Unreachable);
    transit(500, "internal error", Unreachable);
    transit(502, "x", Unreachable);
    transit(503, "Vault is sealed", Unreachable);
    let mut aws = |status, code: &str, message: &str, failure| {
        rows.push(("aws", status, of_aws(code, message), failure));
    };
    if cfg!(feature = "aws") {
        aws(
            400,
            "AccessDeniedException",
            "User is not authorized",
            Denied,
        );
        aws(400, "UnrecognizedClientException", "x", Denied);
        aws(400, "ExpiredTokenException", "x", Denied);
        aws(403, "SomethingNew", "x", Denied);
        aws(400, "DisabledException", "x", Disabled);
        aws(
            400,
            "KMSInvalidStateException",
            "arn is pending deletion.",
            Destroyed,
        );
        aws(
            400,
            "KMSInvalidStateException",
            "arn is pending import.",
            Disabled,
        );
        aws(
            400,
            "KMSInvalidStateException",
            "arn is unavailable.",
            Unreachable,
        );
        aws(400, "NotFoundException", "x", NotFound);
        aws(400, "InvalidCiphertextException", "x", Malformed);
        aws(400, "IncorrectKeyException", "x", Malformed);
        aws(400, "InvalidKeyUsageException", "x", Malformed);
        aws(400, "ValidationException", "x", Malformed);
        aws(400, "SomethingNew", "x", Malformed);
        aws(400, "ThrottlingException", "Rate exceeded", Unreachable);
        aws(400, "KeyUnavailableException", "x", Unreachable);
        aws(500, "KMSInternalException", "x", Unreachable);
        aws(503, "DependencyTimeoutException", "x", Unreachable);
        aws(503, "ServiceUnavailable", "x", Unreachable);
    }
    rows
}

#[tokio::test]
async fn every_answer_has_its_class() {
    for (provider, status, body, expected) in answers() {
        let (said, again) = (body.clone(), body.clone());
        let stub = Stub::new(move |_| Say::json(status, &said)).await;
        let talkers = talkers(&stub.url);
        let talker = talkers.iter().find(|one| one.name == provider).unwrap();
        let scope = scope("cards", None);
        let error = talker
            .kms
            .unwrap(talker.kek, &talker.blob, &scope)
            .await
            .unwrap_err();
        assert_eq!(
            error.failure, expected,
            "{provider} {status} {again}: {error}"
        );
        // What a server says is not repeated in a log.
        for said in [
            "User is not",
            "Rate exceeded",
            "message authentication",
            "handler",
        ] {
            assert!(!error.detail.contains(said), "{error}");
        }
    }
}

#[tokio::test]
async fn what_is_no_answer_has_its_class_too() {
    let cases: Vec<(&str, Say, Failure)> = vec![
        ("nothing", Say::Raw(Vec::new()), Failure::Unreachable),
        (
            "no HTTP",
            Say::Raw(b"SSH-2.0-x\r\n\r\n".to_vec()),
            Failure::Unreachable,
        ),
        (
            "cut off",
            Say::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_vec()),
            Failure::Unreachable,
        ),
        (
            "a page",
            Say::json(200, "<html>Sign in</html>"),
            Failure::Malformed,
        ),
        ("empty", Say::json(200, ""), Failure::Malformed),
        ("another object", Say::json(200, "{}"), Failure::Malformed),
        (
            "huge",
            Say::Answer(200, "", "x".repeat(1 << 20)),
            Failure::Malformed,
        ),
        ("endless", Say::Endless, Failure::Malformed),
        (
            "a huge error",
            Say::Answer(503, "", "x".repeat(1 << 20)),
            Failure::Unreachable,
        ),
    ];
    for (case, say, expected) in cases {
        let stub = Stub::new(move |_| say.clone()).await;
        for talker in talkers(&stub.url) {
            let scope = scope("cards", None);
            for outcome in [
                talker
                    .kms
                    .unwrap(talker.kek, &talker.blob, &scope)
                    .await
                    .map(|_| ()),
                talker.kms.wrap(talker.kek, &DEK, &scope).await.map(|_| ()),
            ] {
                let error = outcome.unwrap_err();
                assert_eq!(error.failure, expected, "{} {case}: {error}", talker.name);
            }
        }
    }
}

#[tokio::test]
async fn nobody_there() {
    // A port that was just given back.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    drop(socket);
    for talker in talkers(&url) {
        let outcome = talker
            .kms
            .wrap(talker.kek, &DEK, &scope("cards", None))
            .await;
        let error = outcome.unwrap_err();
        assert_eq!(error.failure, Failure::Unreachable, "{}", talker.name);
        assert!(error.detail.contains("refused"), "{}: {error}", talker.name);
    }
}

#[tokio::test]
async fn when_to_come_back_is_passed_on() {
    let stub = Stub::new(|_| Say::Answer(429, "retry-after: 7\r\n", String::new())).await;
    for talker in talkers(&stub.url) {
        let outcome = talker
            .kms
            .wrap(talker.kek, &DEK, &scope("cards", None))
            .await;
        let error = outcome.unwrap_err();
        assert_eq!(
            error.retry_after,
            Some(Duration::from_secs(7)),
            "{}: {error}",
            talker.name
        );
    }
}

#[tokio::test]
async fn no_redirection_is_followed_and_nothing_is_sent_twice() {
    let other = Stub::new(|_| Say::json(200, "{}")).await;
    let to: &'static str = Box::leak(format!("location: {}/\r\n", other.url).into_boxed_str());
    for status in [301, 307, 308, 500, 503] {
        let stub = Stub::new(move |_| Say::Answer(status, to, String::new())).await;
        for talker in talkers(&stub.url) {
            let before = stub.asked().len();
            let outcome = talker
                .kms
                .unwrap(talker.kek, &talker.blob, &scope("cards", None))
                .await;
            outcome.unwrap_err();
            let after = stub.asked().len();
            assert_eq!(after, before + 1, "{} {status}", talker.name);
        }
    }
    assert!(other.asked().is_empty());
}

#[tokio::test]
async fn a_dropped_call_leaves_nothing_that_hinders_the_next() {
    let stub = Stub::new(|_| Say::Silence).await;
    for talker in talkers(&stub.url) {
        stub.tell(|_| Say::Silence);
        let scope = scope("cards", None);
        let before = stub.asked().len();
        tokio::select! {
            outcome = talker.kms.unwrap(talker.kek, &talker.blob, &scope) => panic!("{outcome:?}"),
            () = async {
                while stub.asked().len() == before {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            } => {}
        }
        stub.tell(|_| Say::json(503, "{}"));
        let next = within(talker.kms.unwrap(talker.kek, &talker.blob, &scope)).await;
        let error = next.expect("an answer").unwrap_err();
        assert_eq!(error.failure, Failure::Unreachable, "{}", talker.name);
    }
}

#[cfg(feature = "aws")]
#[tokio::test]
async fn an_answer_in_another_keys_name_is_none() {
    use base64::Engine;
    let plaintext = base64::engine::general_purpose::STANDARD.encode(DEK);
    for (key, goes_well) in [
        (ARN, true),
        ("arn:aws:kms:us-east-1:000000000000:key/9", false),
    ] {
        let body = format!(r#"{{"KeyId":"{key}","Plaintext":"{plaintext}"}}"#);
        let stub = Stub::new(move |_| Say::json(200, &body)).await;
        let outcome = aws(&stub.url)
            .unwrap(ARN, &[9; 100], &scope("cards", Some("acme")))
            .await;
        assert_eq!(outcome.is_ok(), goes_well, "{key}");
        let asked: serde_json::Value = serde_json::from_str(&stub.asked()[0].body).unwrap();
        assert_eq!(asked["KeyId"], ARN);
        assert_eq!(
            asked["EncryptionContext"],
            serde_json::json!({"fieldveil:key": "cards", "fieldveil:tenant": "acme"})
        );
    }
}
