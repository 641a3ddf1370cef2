use super::*;
use crate::arena::Arena;
use crate::dek::{Needs, Scope, SealNeed};
use crate::keys;
use crate::kms::fake::Fake;
use crate::kms::os_random;
use http::StatusCode;
use http_body_util::BodyExt;

const TOKEN: &str = "0123456789abcdef-_";

fn keys() -> Keys {
    let key = keys::KeySettings {
        name: "cards".into(),
        seal_with: vec![keys::Binding {
            kms: Arc::new(Fake::new("fake")),
            kek: "k".into(),
        }],
        need: keys::Need::Any,
        open_also: vec![],
        terms: keys::TERMS,
    };
    Keys::new(keys::Settings::new(
        vec![key],
        Arena::new().unwrap(),
        os_random(),
    ))
    .unwrap()
}

fn shown(admin: bool) -> Shown {
    let readiness = Arc::new(Readiness::default());
    readiness.pass("policy");
    readiness.block("keys:cards", "the KMS does not answer");
    let admin = admin.then(|| (Token::new(TOKEN.as_bytes()).unwrap(), keys()));
    let face = Face {
        readiness,
        metrics: Arc::default(),
        admin,
        reload: None,
    };
    Shown {
        face,
        only_local_names: true,
    }
}

struct Answered {
    status: StatusCode,
    headers: http::HeaderMap,
    body: String,
}

async fn ask(shown: &Shown, line: &str, headers: &[(&str, &str)]) -> Answered {
    let (method, target) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (head, ()) = request.body(()).unwrap().into_parts();
    let (head, body) = shown.answer(&head).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answered {
        status: head.status,
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

/// Status and, of a problem, its code; of anything else the body.
#[track_caller]
fn check(
    shown: &Shown,
    line: &str,
    headers: &[(&str, &str)],
    status: u16,
    expected: &str,
) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let answered = ask(shown, line, headers).await;
        let found = match answered.headers[http::header::CONTENT_TYPE]
            .to_str()
            .unwrap()
        {
            "application/problem+json" => {
                let document: serde_json::Value = serde_json::from_str(&answered.body).unwrap();
                assert_eq!(document["status"], answered.status.as_u16());
                assert!(
                    document["detail"]
                        .as_str()
                        .is_some_and(|text| !text.is_empty())
                );
                document["code"].as_str().unwrap().to_owned()
            }
            _ => answered.body,
        };
        assert_eq!(
            (answered.status.as_u16(), &*found),
            (status, expected),
            "{place}: {line}"
        );
    }
}

const AUTHORIZED: (&str, &str) = ("authorization", "Bearer 0123456789abcdef-_");

#[tokio::test]
async fn probes_are_three_things_and_nothing_else() {
    let shown = shown(false);
    check(&shown, "GET /livez", &[], 200, "live\n").await;
    check(&shown, "HEAD /livez", &[], 200, "live\n").await;
    let not_ready = "not ready\n[-] keys:cards: the KMS does not answer\n";
    check(&shown, "GET /readyz", &[], 503, not_ready).await;
    check(
        &shown,
        "GET /readyz?verbose",
        &[],
        503,
        &format!("{not_ready}[+] policy\n"),
    )
    .await;
    check(
        &shown,
        "GET /readyz?a=b&verbose=1",
        &[],
        503,
        &format!("{not_ready}[+] policy\n"),
    )
    .await;
    shown.face.readiness.pass("keys:cards");
    check(&shown, "GET /readyz", &[], 200, "ready\n").await;
    check(
        &shown,
        "GET /readyz?verbose",
        &[],
        200,
        "ready\n[+] keys:cards\n[+] policy\n",
    )
    .await;
    let metrics = ask(&shown, "GET /metrics", &[]).await;
    assert!(metrics.body.ends_with("# EOF\n"), "{}", metrics.body);
    assert_eq!(
        metrics.headers[http::header::CONTENT_TYPE],
        crate::metrics::CONTENT_TYPE
    );
    for path in [
        "/",
        "/livez/",
        "/LIVEZ",
        "//livez",
        "/api/v1/keys",
        "/api/v1/keys/cards/purge",
        "/readyz/x",
        "*",
    ] {
        let line = format!("GET {path}");
        check(&shown, &line, &[AUTHORIZED], 404, "admin-not-found").await;
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        let answered = ask(&shown, &format!("POST {path}"), &[]).await;
        assert_eq!(answered.status, 405);
        assert_eq!(answered.headers[http::header::ALLOW], "GET, HEAD");
    }
}

#[tokio::test]
async fn readiness_in_json() {
    let shown = shown(false);
    let readiness = &shown.face.readiness;
    readiness.note("policy", "as it should be".to_owned());
    for accept in ["application/json", "text/html, Application/JSON;q=0.5"] {
        let answered = ask(&shown, "GET /readyz?verbose", &[("accept", accept)]).await;
        assert_eq!(
            answered.headers[http::header::CONTENT_TYPE],
            "application/json"
        );
        let document: serde_json::Value = serde_json::from_str(&answered.body).unwrap();
        let expected = serde_json::json!({
            "ready": false,
            "blockers": [{"name": "keys:cards", "why": "the KMS does not answer"}],
            "passed": ["policy"],
            "notes": {"policy": "as it should be"},
        });
        assert_eq!(document, expected);
    }
    for accept in ["*/*", "application/*", "text/plain"] {
        let answered = ask(&shown, "GET /readyz", &[("accept", accept)]).await;
        assert!(answered.body.starts_with("not ready\n"), "{accept}");
    }
}

#[tokio::test]
async fn the_admin_api_wants_its_token_for_everything() {
    let shown = shown(true);
    for line in [
        "GET /livez",
        "GET /readyz",
        "GET /metrics",
        "GET /api/v1/keys",
        "POST /api/v1/keys/cards/purge",
        "GET /none",
    ] {
        for authorization in [
            &[][..],
            &[("authorization", "Bearer 0123456789abcdef-")],
            &[("authorization", "Bearer 0123456789abcdef-_x")],
            &[("authorization", "Bearer ")],
            &[("authorization", "Bearer")],
            &[("authorization", "Basic 0123456789abcdef-_")],
            &[("authorization", "0123456789abcdef-_")],
            &[AUTHORIZED, AUTHORIZED],
        ] {
            check(&shown, line, authorization, 401, "admin-unauthorized").await;
        }
    }
    let refused = ask(&shown, "GET /livez", &[]).await;
    assert_eq!(
        refused.headers[http::header::WWW_AUTHENTICATE],
        "Bearer realm=\"fieldveil\""
    );
    check(&shown, "GET /livez", &[AUTHORIZED], 200, "live\n").await;
    check(
        &shown,
        "GET /livez",
        &[("authorization", "bearer  0123456789abcdef-_ ")],
        200,
        "live\n",
    )
    .await;
}

#[tokio::test]
async fn keys_are_listed_and_let_go_of() {
    let shown = shown(true);
    let Some((_, keys)) = &shown.face.admin else {
        unreachable!()
    };
    let none = "{\"keys\":[{\"name\":\"cards\",\"open\":{\"data_keys\":0,\"survives_ms\":null},\
                \"seal\":{\"data_keys\":0,\"incomplete\":0,\"survives_ms\":null}}]}\n";
    check(&shown, "GET /api/v1/keys", &[AUTHORIZED], 200, none).await;
    let scope = Scope {
        key: "cards".into(),
        tenant: None,
    };
    keys.fetch(&Needs {
        sealing: vec![SealNeed {
            scope,
            suite: crate::dek::Suite::Xaes256Gcm,
            values: 1,
        }],
        opening: vec![],
    })
    .await
    .unwrap();
    let listed = ask(&shown, "GET /api/v1/keys", &[AUTHORIZED]).await;
    let document: serde_json::Value = serde_json::from_str(&listed.body).unwrap();
    let seal = &document["keys"][0]["seal"];
    assert_eq!(seal["data_keys"], 1);
    let survives = seal["survives_ms"].as_u64().unwrap();
    assert!(
        (24 * 60_000..=25 * 60_000).contains(&survives),
        "{survives}"
    );
    let purge = "POST /api/v1/keys/cards/purge";
    check(
        &shown,
        purge,
        &[AUTHORIZED],
        200,
        "{\"key\":\"cards\",\"purged\":1}\n",
    )
    .await;
    check(
        &shown,
        purge,
        &[AUTHORIZED],
        200,
        "{\"key\":\"cards\",\"purged\":0}\n",
    )
    .await;
    check(&shown, "GET /api/v1/keys", &[AUTHORIZED], 200, none).await;
    check(
        &shown,
        "POST /api/v1/keys/other/purge",
        &[AUTHORIZED],
        404,
        "admin-unknown-key",
    )
    .await;
    check(
        &shown,
        "GET /api/v1/keys/cards/purge",
        &[AUTHORIZED],
        405,
        "admin-method",
    )
    .await;
    check(
        &shown,
        "POST /api/v1/keys",
        &[AUTHORIZED],
        405,
        "admin-method",
    )
    .await;
    check(
        &shown,
        "POST /api/v1/keys/cards",
        &[AUTHORIZED],
        404,
        "admin-not-found",
    )
    .await;
    check(
        &shown,
        "DELETE /api/v1/keys/cards/purge/x",
        &[AUTHORIZED],
        404,
        "admin-not-found",
    )
    .await;
}

#[tokio::test]
async fn names_that_others_could_have_made_are_refused() {
    let shown = shown(false);
    for host in [
        "127.0.0.1",
        "127.0.0.1:9902",
        "localhost",
        "LocalHost:9902",
        "[::1]:9902",
        "[::1]",
        "10.1.2.3:1",
    ] {
        check(&shown, "GET /livez", &[("host", host)], 200, "live\n").await;
    }
    for host in [
        "evil.example",
        "evil.example:9902",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "[evil]:1",
        "::1",
    ] {
        check(
            &shown,
            "GET /livez",
            &[("host", host)],
            421,
            "admin-misdirected",
        )
        .await;
    }
    check(
        &shown,
        "GET http://evil.example/livez",
        &[("host", "localhost")],
        421,
        "admin-misdirected",
    )
    .await;
    check(
        &shown,
        "GET /livez",
        &[("host", "localhost"), ("host", "localhost")],
        400,
        "admin-host",
    )
    .await;
    let anywhere = Shown {
        only_local_names: false,
        face: shown.face,
    };
    check(
        &anywhere,
        "GET /livez",
        &[("host", "fieldveil.default.svc")],
        200,
        "live\n",
    )
    .await;
}

#[test]
fn tokens() {
    for (text, is_one) in [
        ("0123456789abcdef", true),
        ("  0123456789abcdef\r\n", true),
        ("0123456789abcde", false),
        ("", false),
        ("0123456789 abcdef", false),
        ("0123456789abcdef\u{e9}", false),
    ] {
        assert_eq!(Token::new(text.as_bytes()).is_some(), is_one, "{text:?}");
    }
    let token = Token::new(TOKEN.as_bytes()).unwrap();
    assert!(token.is(TOKEN.as_bytes()) && !token.is(b"") && !token.is(b"0123456789abcdef-"));
    assert_eq!(format!("{token:?}"), "Token(..)");
}
