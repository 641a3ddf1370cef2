//! Being let in at a transit engine: renewal, a fresh login once, and no more than once.

use super::stub::{Asked, Say, Stub};
use super::suite::{DEK, scope};
use fieldveil::kms::http::Trust;
use fieldveil::kms::secret::Secret;
use fieldveil::kms::transit::{LOOK_AGAIN, Login, Settings, Transit};
use fieldveil::kms::{Failure, Kms};
use fieldveil::tls::Roots;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

pub const ENCRYPTED: &str = r#"{"data":{"ciphertext":"vault:v1:AAAA","key_version":1}}"#;
pub const KEY: &str = r#"{"data":{"latest_version":1}}"#;

pub fn transit(address: &str, login: Login, relogin_after: Duration) -> Transit {
    Transit::new(Settings {
        name: "vault".into(),
        address: address.to_owned(),
        identity: "vault.example/transit".into(),
        mount: "transit".into(),
        namespace: Some("team/one".into()),
        trust: trust(),
        login,
        relogin_after,
        look_again: LOOK_AGAIN,
    })
    .unwrap()
}

/// One certificate, quickly read: nothing is asked over TLS here.
pub fn trust() -> Trust {
    static ROOT: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        made.cert.pem().into_bytes()
    });
    Trust {
        roots: Roots::Pem(ROOT.clone()),
        identity: None,
    }
}

pub fn given(token: &str) -> Login {
    Login::Token(Secret::Given(Arc::new(token.to_owned().into())))
}

fn approle(secret: &str) -> Login {
    Login::AppRole {
        mount: "approle".into(),
        role_id: "role".into(),
        secret_id: Secret::Given(Arc::new(secret.to_owned().into())),
    }
}

fn granted(token: &str, seconds: u64) -> Say {
    Say::json(
        200,
        &format!(
            r#"{{"auth":{{"client_token":"{token}","lease_duration":{seconds},"renewable":true}}}}"#
        ),
    )
}

fn answer(asked: &Asked) -> Say {
    match asked.line.split('/').nth(3) {
        Some("keys") => Say::json(200, KEY),
        _ => Say::json(200, ENCRYPTED),
    }
}

fn is_login(asked: &Asked) -> bool {
    asked.line == "POST /v1/auth/approle/login"
}

#[tokio::test]
async fn a_session_is_shared_and_says_who_and_where() {
    let stub = Stub::new(|asked| match asked {
        asked if is_login(asked) => granted("t1", 3600),
        asked => answer(asked),
    })
    .await;
    let transit = transit(&stub.url, approle("s3cret"), Duration::ZERO);
    let scope = scope("cards", None);
    let calls = (0..20).map(|_| transit.wrap("cards", &DEK, &scope));
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    assert_eq!(stub.count("approle/login"), 1);
    let asked = stub.asked();
    assert_eq!(asked[0].body, r#"{"role_id":"role","secret_id":"s3cret"}"#);
    assert_eq!(asked[0].header("x-vault-token"), None);
    for one in &asked {
        assert_eq!(one.header("x-vault-namespace"), Some("team/one"));
    }
    for one in &asked[1..] {
        assert_eq!(one.header("x-vault-token"), Some("t1"));
    }
    assert!(!format!("{transit:?}").contains("s3cret"));
}

#[tokio::test]
async fn a_refused_session_is_exchanged_once() {
    // The first token is no good any more; the second is.
    let logins = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&logins);
    let stub = Stub::new(move |asked| match asked {
        asked if is_login(asked) => granted(&format!("t{}", counted.fetch_add(1, SeqCst)), 3600),
        asked if asked.header("x-vault-token") == Some("t0") => Say::json(403, "{}"),
        asked => answer(asked),
    })
    .await;
    let built = transit(&stub.url, approle("s"), Duration::ZERO);
    let scope = scope("cards", None);
    built.wrap("cards", &DEK, &scope).await.unwrap();
    assert_eq!(logins.load(SeqCst), 2);

    // Refused whatever the token: one fresh login, and the no is final.
    stub.tell(|asked| match asked {
        asked if is_login(asked) => granted("fresh", 3600),
        _ => Say::json(403, "{}"),
    });
    let before = stub.count("login");
    let error = built
        .unwrap("cards", &[0, 0, 0, 1, 9], &scope)
        .await
        .unwrap_err();
    assert_eq!(error.failure, Failure::Denied);
    assert_eq!(stub.count("login"), before + 1);
    assert_eq!(stub.count("decrypt/cards"), 2);

    // A session that is new and refused is not exchanged at all: no pile of tokens at the server.
    let patient = transit(&stub.url, approle("s"), Duration::from_secs(3600));
    let before = stub.count("login");
    for _ in 0..10 {
        let error = patient
            .unwrap("cards", &[0, 0, 0, 1, 9], &scope)
            .await
            .unwrap_err();
        assert_eq!(error.failure, Failure::Denied);
    }
    assert_eq!(stub.count("login"), before + 1);
}

#[tokio::test]
async fn a_refused_login_is_a_no_and_a_missing_one_is_not() {
    for (status, expected) in [
        (400, Failure::Denied),
        (403, Failure::Denied),
        (429, Failure::Unreachable),
        (500, Failure::Unreachable),
        (503, Failure::Unreachable),
    ] {
        let stub = Stub::new(move |_| Say::json(status, r#"{"errors":["x"]}"#)).await;
        let transit = transit(&stub.url, approle("s"), Duration::ZERO);
        let error = transit
            .wrap("cards", &DEK, &scope("cards", None))
            .await
            .unwrap_err();
        assert_eq!(error.failure, expected, "{status}");
    }
}

#[tokio::test]
async fn a_tokens_file_is_read_again_when_the_token_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "old\n").unwrap();
    let stub = Stub::new(|asked| match asked.header("x-vault-token") {
        Some("new") => answer(asked),
        _ => Say::json(403, "{}"),
    })
    .await;
    let login = Login::Token(Secret::File(file.clone()));
    let transit = transit(&stub.url, login, Duration::from_secs(3600));
    let scope = scope("cards", None);
    let error = transit.wrap("cards", &DEK, &scope).await.unwrap_err();
    assert_eq!(error.failure, Failure::Denied);
    assert_eq!(
        stub.count("encrypt"),
        1,
        "the same token is not tried twice"
    );
    std::fs::write(&file, "new\n").unwrap();
    transit.wrap("cards", &DEK, &scope).await.unwrap();
}

#[tokio::test]
async fn a_session_is_renewed_ahead_of_its_end_without_a_call() {
    // Granted for three seconds: after two it is renewed by itself, for ever.
    let stub = Stub::new(|asked| match asked {
        asked if is_login(asked) => granted("t1", 3),
        asked if asked.line.ends_with("renew-self") => granted("t1", 0),
        asked => answer(asked),
    })
    .await;
    let transit = transit(&stub.url, approle("s"), Duration::ZERO);
    let scope = scope("cards", None);
    transit.wrap("cards", &DEK, &scope).await.unwrap();
    while stub.count("renew-self") == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    transit.wrap("cards", &DEK, &scope).await.unwrap();
    assert_eq!(stub.count("approle/login"), 1);
}

#[tokio::test]
async fn a_session_that_cannot_be_renewed_is_taken_anew() {
    let logins = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&logins);
    let stub = Stub::new(move |asked| match asked {
        asked if is_login(asked) => {
            let seconds = if counted.fetch_add(1, SeqCst) == 0 {
                3
            } else {
                3600
            };
            granted("t", seconds)
        }
        asked if asked.line.ends_with("renew-self") => Say::json(400, r#"{"errors":["x"]}"#),
        asked => answer(asked),
    })
    .await;
    let transit = transit(&stub.url, approle("s"), Duration::ZERO);
    transit
        .wrap("cards", &DEK, &scope("cards", None))
        .await
        .unwrap();
    while logins.load(SeqCst) < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_missing_key_is_not_made_by_wrapping() {
    let stub = Stub::new(|asked| match asked.line.split('/').nth(3) {
        Some("keys") => Say::json(404, r#"{"errors":[]}"#),
        _ => Say::json(200, ENCRYPTED),
    })
    .await;
    let transit = transit(&stub.url, given("t"), Duration::ZERO);
    let error = transit
        .wrap("cards", &DEK, &scope("cards", None))
        .await
        .unwrap_err();
    assert_eq!(error.failure, Failure::NotFound);
    assert_eq!(stub.count("encrypt"), 0);
}

#[tokio::test]
async fn as_the_service_account_of_a_pod() {
    let dir = tempfile::tempdir().unwrap();
    let jwt = dir.path().join("token");
    let stub = Stub::new(|asked| match &*asked.line {
        "POST /v1/auth/clusters/one/login" if asked.body.contains("jwt.of.today") => {
            granted("t1", 3600)
        }
        "POST /v1/auth/clusters/one/login" if asked.body.contains("jwt.of.tomorrow") => {
            granted("t2", 3600)
        }
        line if line.ends_with("/login") => Say::json(403, r#"{"errors":["permission denied"]}"#),
        _ if asked.header("x-vault-token") == Some("t1") && asked.line.contains("decrypt") => {
            Say::json(403, "{}")
        }
        _ => answer(asked),
    })
    .await;
    let login = Login::Kubernetes {
        mount: "clusters/one".into(),
        role: "fieldveil".into(),
        jwt: Secret::File(jwt.clone()),
    };
    let transit = transit(&stub.url, login, Duration::ZERO);
    let scope = scope("cards", None);
    // The pod's token is not there yet.
    let error = transit.wrap("cards", &DEK, &scope).await.unwrap_err();
    assert_eq!(error.failure, Failure::Unreachable, "{error}");
    assert!(stub.asked().is_empty());
    std::fs::write(&jwt, "jwt.of.today\n").unwrap();
    transit.wrap("cards", &DEK, &scope).await.unwrap();
    let body = &stub.asked()[0].body;
    assert_eq!(body, r#"{"role":"fieldveil","jwt":"jwt.of.today"}"#);
    // Renewed by the kubelet, it is what the next login shows.
    std::fs::write(&jwt, "jwt.of.tomorrow").unwrap();
    let _ = transit.unwrap("cards", &[0, 0, 0, 1, 9], &scope).await;
    assert_eq!(stub.count("clusters/one/login"), 2);
    let last = stub
        .asked()
        .into_iter()
        .rfind(|asked| asked.line.contains("decrypt"));
    assert_eq!(last.unwrap().header("x-vault-token"), Some("t2"));
    // The role is not bound to it any more.
    std::fs::write(&jwt, "jwt.of.another").unwrap();
    stub.tell(|asked| match asked.line.ends_with("/login") {
        true => Say::json(403, r#"{"errors":["permission denied"]}"#),
        false => Say::json(403, "{}"),
    });
    let error = transit.wrap("cards", &DEK, &scope).await.unwrap_err();
    assert_eq!(error.failure, Failure::Denied, "{error}");
}

/// The server takes nobody who does not show a certificate that it knows.
#[tokio::test]
async fn with_a_client_certificate() {
    use fieldveil::tls::{Clients, Identity};
    let made = || {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    };
    let identity =
        |(cert, key): &(String, String)| Identity::new(cert.as_bytes(), key.as_bytes()).unwrap();
    let (server, client, stranger) = (made(), made(), made());
    let clients = Clients::new(client.0.as_bytes(), true).unwrap();
    let config = identity(&server).server(false, Some(&clients)).unwrap();
    let stub = Stub::over_tls(config, answer).await;
    for (shown, trusted, expected) in [
        (Some(&client), &server, None),
        (Some(&stranger), &server, Some(Failure::Unreachable)),
        (None, &server, Some(Failure::Unreachable)),
        // Nor does the agent talk to a server that it does not know.
        (Some(&client), &stranger, Some(Failure::Unreachable)),
    ] {
        let transit = Transit::new(Settings {
            name: "vault".into(),
            address: stub.url.clone(),
            identity: "vault.example/transit".into(),
            mount: "transit".into(),
            namespace: None,
            trust: Trust {
                roots: Roots::Pem(trusted.0.clone().into_bytes()),
                identity: shown.map(identity),
            },
            login: given("t"),
            relogin_after: Duration::ZERO,
            look_again: LOOK_AGAIN,
        });
        let outcome = transit
            .unwrap()
            .wrap("cards", &DEK, &scope("cards", None))
            .await;
        let failure = outcome.err().map(|error| error.failure);
        assert_eq!(failure, expected, "{}", shown.is_some());
    }
}
