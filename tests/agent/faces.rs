//! What operators see: readiness, metrics, the admin API, the log.

use crate::harness::{
    JSON, ORDER, Place, Program, Upstream, ask, command, connect, done, get, post, read_answer, run,
};
use fieldveil::app::{App, Given, Running};
use fieldveil::kms::fake::Fake;
use fieldveil::kms::{Failure, Kms};
use fieldveil::settings::{Overrides, Settings};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

fn token(place: &Place) -> String {
    std::fs::read_to_string(place.path("data/admin.token"))
        .expect("a token")
        .trim()
        .to_owned()
}

#[test]
fn metrics_have_what_happened() {
    let (place, upstream) = (Place::new(), Upstream::start());
    let mut agent = Program::start(&mut run(&upstream.url(), &place.path("data"), &[]));
    let (out, probes) = (agent.address("out"), agent.address("probes"));
    assert_eq!(post(out, "/", ORDER).status, 200);
    assert_eq!(post(out, "/", "{").status, 400);
    let answer = get(probes, "/metrics");
    assert_eq!(
        answer.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    for line in [
        "fieldveil_requests_total{listener=\"out\",route=\"flags\",outcome=\"answered\"} 1",
        "fieldveil_requests_total{listener=\"out\",route=\"flags\",outcome=\"not-json\"} 1",
        "fieldveil_fields_total{class=\"field\",operation=\"sealed\",mode=\"enforce\"} 1",
        "fieldveil_fields_total{class=\"pan\",operation=\"opened\",mode=\"enforce\"} 1",
        "fieldveil_request_added_seconds_count{listener=\"out\"} 2",
        "fieldveil_kms_calls_total{kms=\"local\",verb=\"wrap\",outcome=\"ok\"} 1",
        "fieldveil_data_keys{use=\"seal\"} 1.0",
        "fieldveil_requests_in_flight{listener=\"out\"} 0.0",
        "fieldveil_ready 1.0",
    ] {
        assert!(
            answer.body.lines().any(|found| found == line),
            "no `{line}` in\n{}",
            answer.body
        );
    }
    agent.terminate();
}

#[test]
fn the_admin_api_wants_its_token() {
    let (place, upstream) = (Place::new(), Upstream::start());
    let mut agent = Program::start(&mut run(&upstream.url(), &place.path("data"), &[]));
    let (out, admin, probes) = (
        agent.address("out"),
        agent.address("admin"),
        agent.address("probes"),
    );
    assert_eq!(post(out, "/", ORDER).status, 200);
    for line in [
        "GET /livez",
        "GET /readyz",
        "GET /metrics",
        "GET /api/v1/keys",
        "POST /api/v1/keys/default/purge",
    ] {
        let refused = ask(
            admin,
            line,
            &["Authorization: Bearer wrong-wrong-wrong-wrong"],
            "",
        );
        assert_eq!(
            (refused.status, &refused.json()["code"]),
            (401, &"admin-unauthorized".into()),
            "{line}"
        );
        assert_eq!(
            refused.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(ask(admin, line, &[], "").status, 401, "{line}");
    }
    let authorization = format!("Authorization: Bearer {}", token(&place));
    let authorized = [authorization.as_str()];
    let keys = ask(admin, "GET /api/v1/keys", &authorized, "");
    assert_eq!(keys.json()["keys"][0]["name"], "default");
    assert_eq!(keys.json()["keys"][0]["seal"]["data_keys"], 1);
    let purged = ask(admin, "POST /api/v1/keys/default/purge", &authorized, "{}");
    assert_eq!(
        (purged.status, &purged.json()["purged"]),
        (200, &2.into()),
        "one that seals, one that opens"
    );
    assert_eq!(
        post(out, "/", ORDER).status,
        200,
        "the next request gets a fresh one"
    );
    assert!(
        get(probes, "/api/v1/keys").status == 404
            && ask(probes, "POST /api/v1/keys/default/purge", &authorized, "").status == 404
    );
    let (_, err) = agent.terminate();
    assert!(
        err.contains("the admin API was asked to") && !err.contains(&token(&place)),
        "{err}"
    );
}

#[test]
fn the_command_line_asks_a_running_agent_about_its_keys() {
    let (place, upstream) = (Place::new(), Upstream::start());
    let data = place.path("data");
    let mut agent = Program::start(&mut run(&upstream.url(), &data, &[]));
    let out = agent.address("out");
    let admin = agent.address("admin").to_string();
    assert_eq!(post(out, "/", ORDER).status, 200);
    let data = data.to_str().expect("a path");
    let keys = |line: &[&str]| {
        let line = [&["keys"], line, &["--admin", &*admin]].concat();
        done(&mut command(line))
    };
    let (code, table, _) = keys(&["status", "--data-dir", data]);
    assert!(code == 0 && table.contains("default"), "{table}");
    let (code, json, _) = keys(&["status", "--data-dir", data, "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let seal = &json["keys"][0]["seal"];
    assert_eq!((code, &seal["data_keys"]), (0, &1.into()));
    assert!(seal["survives_ms"].as_u64().expect("a time") > 20 * 60 * 1000);
    let (code, purged, _) = keys(&["purge", "default", "--data-dir", data]);
    assert_eq!(
        (code, &*purged),
        (0, "let go of 2 data keys of `default`\n")
    );

    let (code, _, err) = keys(&["purge", "nobody", "--data-dir", data]);
    assert!(code == 65 && err.contains("no key of this name"), "{err}");
    assert_eq!(keys(&["purge", "a/../b", "--data-dir", data]).0, 64);
    let wrong = place.write("wrong", "wrong-wrong-wrong-wrong");
    std::fs::set_permissions(&wrong, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let wrong = wrong.to_str().expect("a path");
    let (code, _, err) = keys(&["status", "--token-file", wrong]);
    assert!(code == 78 && !err.contains("wrong-wrong"), "{err}");
    assert_eq!(keys(&["status"]).0, 64, "without a token");
    agent.terminate();
    let (code, _, err) = keys(&["status", "--data-dir", data]);
    assert!(code == 69 && err.contains(&*admin), "{err}");
}

#[test]
fn names_from_elsewhere_are_refused() {
    let (place, upstream) = (Place::new(), Upstream::start());
    let mut agent = Program::start(&mut run(&upstream.url(), &place.path("data"), &[]));
    agent.address("admin");
    let authorization = format!("Authorization: Bearer {}", token(&place));
    for (listener, authorization) in [("probes", ""), ("admin", &*authorization)] {
        for (host, status) in [("localhost", 200), ("evil.example", 421)] {
            let mut stream = connect(agent.address(listener));
            let colon = if authorization.is_empty() { "" } else { "\r\n" };
            write!(
                stream,
                "GET /livez HTTP/1.1\r\nHost: {host}\r\n{authorization}{colon}\r\n"
            )
            .expect("sends");
            assert_eq!(read_answer(&stream).status, status, "{listener} {host}");
        }
    }
    agent.terminate();
}

/// Whoever sends nothing, or slowly, does not keep the others out, and is let go of.
#[test]
fn idle_connections_to_the_probes_end() {
    let (place, upstream) = (Place::new(), Upstream::start());
    let mut agent = Program::start(&mut run(&upstream.url(), &place.path("data"), &[]));
    let probes = agent.address("probes");
    let mut idle: Vec<_> = (0..100).map(|_| connect(probes)).collect();
    let mut half = idle.pop().expect("one");
    half.write_all(b"GET /livez HT").expect("sends");
    assert_eq!(
        get(probes, "/livez").status,
        200,
        "as soon as the first of them were let go of"
    );
    let mut rest = Vec::new();
    // Closed, with an answer or without.
    let _ = half.read_to_end(&mut rest);
    drop(idle);
    agent.terminate();
}

async fn in_process(fake: &Arc<Fake>, place: &Place) -> Running {
    let upstream = "http://127.0.0.1:9".to_owned();
    let overrides = Overrides {
        listen: Some("127.0.0.1:0".into()),
        upstream: Some(upstream),
        seal: vec!["$..ssn".into()],
        data_dir: Some(place.path("data")),
        probes: Some("127.0.0.1:0".into()),
        ..Overrides::default()
    };
    let settings = Settings::load(&overrides, |_| unreachable!("no file")).expect("settings");
    let kms: Arc<dyn Kms> = fake.clone();
    let given = Given {
        kms: vec![("local".into(), kms)],
        ..Given::default()
    };
    App::start(settings, given)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

async fn probe(address: SocketAddr, target: &'static str) -> (u16, String) {
    let answer = tokio::task::spawn_blocking(move || get(address, target))
        .await
        .expect("asked");
    (answer.status, answer.body)
}

#[tokio::test]
async fn readiness_names_what_stands_in_its_way() {
    let (place, fake) = (Place::new(), Arc::new(Fake::new("fake")));
    fake.fail(Failure::Unreachable);
    let running = in_process(&fake, &place).await;
    let probes = running.probes().expect("probes");
    assert_eq!(probe(probes, "/livez").await.0, 200, "without the KMS, too");
    for _ in 0..200 {
        let (status, body) = probe(probes, "/readyz").await;
        assert_eq!(status, 503);
        if body == "not ready\n[-] keys:default: the KMS does not answer\n" {
            break;
        }
        assert_eq!(
            body,
            "not ready\n[-] keys:default: the KMS has not answered yet\n"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let metrics = probe(probes, "/metrics").await.1;
    assert!(metrics.contains("fieldveil_ready 0.0"), "{metrics}");
    assert!(
        metrics.contains(
            "fieldveil_kms_calls_total{kms=\"fake\",verb=\"wrap\",outcome=\"unreachable\"}"
        ),
        "{metrics}"
    );
    fake.recover();
    for _ in 0..2_000 {
        if probe(probes, "/readyz").await.0 == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let ready = probe(probes, "/readyz?verbose").await;
    let version = fieldveil::policy::version(["--seal $..ssn\n"]);
    assert_eq!(
        ready,
        (
            200,
            format!(
                "ready\n[+] draining\n[+] keys:default\n[+] listener:out\n\
                 [+] policy: version {version} is in force\n"
            )
        )
    );
    let (keys, listener) = (running.keys().clone(), running.listeners()[0].1);
    running.drain().await;
    assert_eq!(keys.tasks(), 0, "nothing of the key room runs any more");
    for address in [probes, listener] {
        assert!(
            tokio::net::TcpStream::connect(address).await.is_err(),
            "nobody listens"
        );
    }
}

/// Who cannot send a request runs a command: it ends as the probes say.
#[tokio::test]
async fn the_command_line_asks_the_probes() {
    let (place, fake) = (Place::new(), Arc::new(Fake::new("fake")));
    let settings = |probes: &str| {
        let text = format!("policy: {{dir: nowhere}}\nlisteners: []\n{probes}");
        place.write("settings.yaml", &text)
    };
    let asked = async |line: &[&str], file: Option<std::path::PathBuf>| {
        let mut program = command([&["probe"], line].concat());
        if let Some(file) = file {
            program.arg("--config").arg(file);
        }
        tokio::task::spawn_blocking(move || done(&mut program))
            .await
            .expect("asked")
    };
    fake.fail(Failure::Unreachable);
    let running = in_process(&fake, &place).await;
    let probes = running.probes().expect("probes").to_string();
    let file = settings(&format!("probes: {{bind: {probes}}}\n"));
    // Of the settings nothing counts but where the probes are.
    let (code, said, _) = asked(&["live"], Some(file.clone())).await;
    assert_eq!((code, &*said), (0, "live\n"));
    let (code, said, _) = asked(&["ready"], Some(file.clone())).await;
    assert!(
        code == 1 && said.starts_with("not ready\n[-] keys:default: "),
        "{said}"
    );
    let (code, said, _) = asked(&["ready", "--output", "json"], Some(file.clone())).await;
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &said["ready"]), (1, &false.into()));
    assert_eq!(said["blockers"][0]["name"], "keys:default");
    let (code, said, _) = asked(&["live", "--output", "json"], Some(file.clone())).await;
    assert_eq!((code, &*said), (0, "{\"live\":true}\n"));
    fake.recover();
    for _ in 0..2_000 {
        if probe(running.probes().expect("probes"), "/readyz").await.0 == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The flag goes over the file.
    let elsewhere = settings("probes: {bind: \"127.0.0.1:1\"}\n");
    let (code, said, _) = asked(&["ready", "--probes", &probes], Some(elsewhere)).await;
    assert_eq!((code, &*said), (0, "ready\n"));
    // A listener is no probe: it answers something else, or nothing.
    let listener = running.listeners()[0].1.to_string();
    let (code, _, err) = asked(&["ready", "--probes", &listener], None).await;
    assert!(code == 69 && err.contains(&listener), "{code} {err}");
    running.drain().await;

    let (code, said, err) = asked(&["ready", "--probes", &probes], None).await;
    assert!(
        code == 69 && said.is_empty() && err.contains(&probes),
        "{err}"
    );
    assert_eq!(asked(&["live"], None).await.0, 64, "where?");
    for (none, why) in [
        ("", "the settings have no `probes`"),
        ("probes: {bind: \"127.0.0.1:0\"}\n", "which port"),
        ("probes: {bnd: \"127.0.0.1:1\"}\n", "bind"),
    ] {
        let (code, _, err) = asked(&["live"], Some(settings(none))).await;
        assert!(code == 78 && err.contains(why), "{none}: {err}");
    }
    let (code, _, err) = asked(&["live"], Some(place.path("missing.yaml"))).await;
    assert!(code == 78 && err.contains("missing.yaml"), "{err}");
}

/// Everything that must not be in a log, in a request's every part.
fn needles(address: SocketAddr) {
    let body = r#"{"ssn":"needle-value","needle-name":"needle-other","number":987654321987}"#;
    let headers = [
        JSON,
        "X-Secret: needle-header",
        "Cookie: needle-cookie",
        "Authorization: Bearer needle-token",
    ];
    assert_eq!(
        ask(
            address,
            "POST /needle-path/x?needle=query&token=needle",
            &headers,
            body
        )
        .status,
        200
    );
    assert_eq!(
        ask(address, "GET /needle-path?needle=query", &headers[1..], "").status,
        200
    );
    assert_eq!(
        ask(
            address,
            "POST /needle-path?needle",
            &headers,
            &body.replace('}', "needle")
        )
        .status,
        400
    );
    assert_eq!(
        ask(
            address,
            "POST /needle?needle",
            &headers,
            r#"{"ssn":"fv1~needle~"}"#
        )
        .status,
        422
    );
    assert_eq!(
        ask(address, "POST /needle?needle", &["X-A: needle"], body).status,
        415
    );
    let mut odd = connect(address);
    odd.write_all(b"GET /needle HTTP/1.1\r\nHost: needle@x\r\nX: needle\r\n\r\n")
        .expect("sends");
    assert_eq!(read_answer(&odd).status, 400);
    // Hung up in the middle.
    let mut gone = connect(address);
    write!(
        gone,
        "POST /needle HTTP/1.1\r\nHost: x\r\n{JSON}\r\nContent-Length: 99\r\n\r\n{{\"ssn\":\"needle"
    )
    .expect("sends");
}

#[test]
fn no_log_at_any_level_has_a_value_a_key_a_path_or_a_query() {
    for format in ["json", "text"] {
        let (place, upstream) = (Place::new(), Upstream::start());
        let more = ["--log-level", "trace", "--log-format", format];
        let mut command = run(&upstream.url(), &place.path("data"), &more);
        // What others may want to hear is not asked for here.
        command.env("RUST_LOG", "trace");
        let mut agent = Program::start(&mut command);
        let (address, admin) = (agent.address("out"), agent.address("admin"));
        let wrong = ["Authorization: Bearer needle-needle-needle"];
        assert_eq!(ask(admin, "GET /livez?needle", &wrong, "").status, 401);
        needles(address);
        let secrets = [token(&place), key(&place)];
        let (out, err) = agent.terminate();
        assert_eq!(out, "");
        for said in [
            "fieldveil::access",
            "answered",
            "not-json",
            "host-invalid",
            "made a new key store",
        ] {
            assert!(err.contains(said), "{said} in\n{err}");
        }
        for word in ["needle", "987654321987", "fv1~"]
            .into_iter()
            .chain(secrets.iter().map(String::as_str))
        {
            assert!(!err.contains(word), "{word} in\n{err}");
        }
        assert!(!err.contains('\x1b'), "not a terminal: no colour");
        assert!(
            !err.contains("hyper"),
            "other crates are silent below `warn`\n{err}"
        );
    }
}

/// The key file's bytes as someone might print them.
fn key(place: &Place) -> String {
    let bytes = std::fs::read(place.path("data/keyring.key")).expect("a key");
    bytes
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
