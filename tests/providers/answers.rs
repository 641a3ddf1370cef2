//! What each provider makes of every answer: the table of docs/kms.md, row by row.

use super::stub::{Say, Stub, within};
use super::suite::{DEK, scope};
use super::talkers::{Talker, talkers};
use fieldveil::kms::Failure;
use std::collections::HashMap;
use std::time::Duration;

#[tokio::test]
async fn every_answer_has_its_class() {
    let stub = Stub::new(|_| Say::Silence).await;
    for talker in talkers(&stub.url) {
        for (status, body, expected) in &talker.answers {
            let (status, said) = (*status, body.clone());
            stub.tell(talker.only_to_calls(move |_| Say::json(status, &said)));
            let scope = scope("cards", None);
            let outcome = talker.kms.unwrap(talker.kek, &talker.blob, &scope).await;
            let error = outcome.unwrap_err();
            assert_eq!(
                error.failure, *expected,
                "{} {status} {body}: {error}",
                talker.name
            );
            // What a server says is not repeated in a log.
            for said in [
                "User is not",
                "Rate exceeded",
                "message authentication",
                "handler",
                "Permission",
                "Quota",
                "Operation is",
                "verify that",
            ] {
                assert!(!error.detail.contains(said), "{error}");
            }
        }
    }
}

/// The cells of the table of docs/kms.md: by class and provider.
fn documented() -> HashMap<(String, String), String> {
    let page = include_str!("../../docs/kms.md");
    let cells = |line: &str| -> Vec<String> {
        let cells = line.trim_matches('|').split('|');
        cells
            .map(|cell| cell.trim().trim_matches('`').to_owned())
            .collect()
    };
    let mut lines = page.lines().skip_while(|line| !line.starts_with("| | `"));
    let providers = cells(lines.next().expect("the table of answers"));
    let mut found = HashMap::new();
    for line in lines.skip(1).take_while(|line| line.starts_with('|')) {
        let row = cells(line);
        for (provider, cell) in providers.iter().zip(&row).skip(1) {
            found.insert((row[0].clone(), provider.clone()), cell.clone());
        }
    }
    found
}

/// One table: for each class of answer every provider has some, or the page says `n/a`.
#[test]
fn every_class_has_its_answers_or_no_meaning() {
    use Failure::{Denied, Destroyed, Disabled, Malformed, NotFound, Unreachable};
    let documented = documented();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    for talker in talkers("http://127.0.0.1:1") {
        for class in [
            Unreachable,
            Denied,
            Disabled,
            Destroyed,
            NotFound,
            Malformed,
        ] {
            let at = (class.word().replace('-', " "), talker.name.to_owned());
            let cell = documented.get(&at);
            let cell = cell.unwrap_or_else(|| panic!("no cell for {at:?} in docs/kms.md"));
            let known = talker.answers.iter().any(|(_, _, meant)| *meant == class);
            assert_eq!(known, cell != "n/a", "{at:?}: {cell}");
            assert!(!cell.is_empty(), "{at:?}");
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
        let stub = Stub::new(|_| Say::Silence).await;
        for talker in talkers(&stub.url) {
            let said = say.clone();
            stub.tell(talker.only_to_calls(move |_| said.clone()));
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
    let stub = Stub::new(|_| Say::Silence).await;
    for talker in talkers(&stub.url) {
        let busy = |_: &_| Say::Answer(429, "retry-after: 7\r\n", String::new());
        stub.tell(talker.only_to_calls(busy));
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

/// How many requests were the call itself.
fn calls(stub: &Stub, talker: &Talker) -> usize {
    let asked = stub.asked();
    asked.iter().filter(|asked| (talker.is_call)(asked)).count()
}

#[tokio::test]
async fn no_redirection_is_followed_and_nothing_is_sent_twice() {
    let other = Stub::new(|_| Say::json(200, "{}")).await;
    let to: &'static str = Box::leak(format!("location: {}/\r\n", other.url).into_boxed_str());
    for status in [301, 307, 308, 500, 503] {
        let stub = Stub::new(|_| Say::Silence).await;
        for talker in talkers(&stub.url) {
            stub.tell(talker.only_to_calls(move |_| Say::Answer(status, to, String::new())));
            let before = calls(&stub, &talker);
            let outcome = talker
                .kms
                .unwrap(talker.kek, &talker.blob, &scope("cards", None))
                .await;
            outcome.unwrap_err();
            assert_eq!(
                calls(&stub, &talker),
                before + 1,
                "{} {status}",
                talker.name
            );
        }
    }
    assert!(other.asked().is_empty());
}

#[tokio::test]
async fn a_dropped_call_leaves_nothing_that_hinders_the_next() {
    let stub = Stub::new(|_| Say::Silence).await;
    for talker in talkers(&stub.url) {
        stub.tell(talker.only_to_calls(|_| Say::Silence));
        let scope = scope("cards", None);
        let before = calls(&stub, &talker);
        tokio::select! {
            outcome = talker.kms.unwrap(talker.kek, &talker.blob, &scope) => panic!("{outcome:?}"),
            () = async {
                while calls(&stub, &talker) == before {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            } => {}
        }
        stub.tell(talker.only_to_calls(|_| Say::json(503, "{}")));
        let next = within(talker.kms.unwrap(talker.kek, &talker.blob, &scope)).await;
        let error = next.expect("an answer").unwrap_err();
        assert_eq!(error.failure, Failure::Unreachable, "{}", talker.name);
    }
}

#[cfg(feature = "aws")]
#[tokio::test]
async fn an_answer_in_another_keys_name_is_none() {
    use super::talkers::{ARN, aws_at};
    use base64::Engine;
    use fieldveil::kms::Kms;
    let plaintext = base64::engine::general_purpose::STANDARD.encode(DEK);
    for (key, goes_well) in [
        (ARN, true),
        ("arn:aws:kms:us-east-1:000000000000:key/9", false),
    ] {
        let body = format!(r#"{{"KeyId":"{key}","Plaintext":"{plaintext}"}}"#);
        let stub = Stub::new(move |_| Say::json(200, &body)).await;
        let outcome = aws_at(&stub.url)
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
