//! A forward proxy as a process: its settings, its CA, and what the commands say of them.

use crate::harness::{ORDER, Place, Program, Upstream, ask, command, done};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

/// Settings with one forward listener of these words.
fn settings(place: &Place, words: &str, ca: &str) -> PathBuf {
    let text = format!(
        "listeners: [{{name: out, mode: forward, bind: 127.0.0.1:0, {words}}}]\nca: {{{ca}}}\nlog: {{format: json, level: debug}}\n"
    );
    place.write("settings.yaml", &text)
}

fn with(place: &Place, what: &[&str]) -> Command {
    let mut command = command(what);
    command.arg("--config").arg(place.path("settings.yaml"));
    command
}

/// With a policy and keys.
fn with_all(place: &Place, what: &str) -> Command {
    let mut command = with(place, &[what, "--seal", "$..ssn", "--open", "$..*"]);
    command.arg("--data-dir").arg(place.path("data"));
    command
}

#[test]
fn a_ca_is_made_once_shown_and_explained() {
    let place = Place::new();
    settings(
        &place,
        "loopback_upstreams: true",
        "dir: ca, names: [example.com, 127.0.0.1]",
    );
    let (code, out, err) = done(&mut with(&place, &["ca", "init"]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        out.contains("ca.pem") && !out.contains("every host"),
        "{out}"
    );
    let key = std::fs::read_to_string(place.path("ca/ca.key")).expect("a key");
    let mode = std::fs::metadata(place.path("ca/ca.key"))
        .expect("a key")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600);

    // Never over what is there.
    let (code, _, err) = done(&mut with(&place, &["ca", "init"]));
    assert_eq!(code, 78);
    assert!(err.contains("exists already"), "{err}");
    assert_eq!(
        std::fs::read_to_string(place.path("ca/ca.key")).expect("a key"),
        key
    );

    let certificate = std::fs::read_to_string(place.path("ca/ca.pem")).expect("a certificate");
    let (code, out, _) = done(&mut with(&place, &["ca", "print"]));
    assert_eq!((code, &out), (0, &certificate));
    let bundle = place.path("bundle.pem");
    let mut trust = with(&place, &["ca", "trust"]);
    trust.arg("--bundle");
    // Roots for a machine that has none.
    let (code, out, err) = done(
        trust
            .arg(&bundle)
            .env("SSL_CERT_FILE", place.path("ca/ca.pem"))
            .env("SSL_CERT_DIR", place.path("policies")),
    );
    assert_eq!(code, 0, "{err}");
    for client in [
        "NODE_EXTRA_CA_CERTS=",
        "REQUESTS_CA_BUNDLE=",
        "update-ca-certificates",
        "keytool",
    ] {
        assert!(out.contains(client), "{client}: {out}");
    }
    let bundle = std::fs::read_to_string(bundle).expect("a bundle");
    assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(bundle.ends_with(&certificate) && !bundle.contains("PRIVATE"));
    let (code, out, _) = done(&mut with(&place, &["ca", "trust", "--output", "json"]));
    let document: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &document["ok"]), (0, &Value::Bool(true)));

    // Without settings, by its directory; without names, for all.
    let other = place.path("other");
    let (code, out, _) = done(command(["ca", "init", "--dir"]).arg(&other));
    assert!(code == 0 && out.contains("every host"), "{out}");
    let (code, out, _) = done(command(["ca", "print", "--output", "json", "--dir"]).arg(&other));
    let document: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(code, 0);
    assert!(
        document["pem"]
            .as_str()
            .expect("PEM")
            .starts_with("-----BEGIN CERTIFICATE-----")
    );
    let (code, _, err) = done(command(["ca", "print", "--dir"]).arg(place.path("nowhere")));
    assert!(code == 78 && err.contains("ca init"), "{err}");
}

#[test]
fn requests_to_any_host_are_sealed_through_the_proxy() {
    let (place, upstream) = (Place::new(), Upstream::start());
    settings(&place, "loopback_upstreams: true", "dir: ca");
    assert_eq!(done(&mut with(&place, &["ca", "init"])).0, 0);
    let mut agent = Program::start(&mut with_all(&place, "run"));
    let address = agent.address("out");
    let authority = upstream.address.to_string();
    // Host says where the request goes to, as the target does.
    let posting = format!(
        "POST http://{authority}/orders HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{ORDER}",
        ORDER.len()
    );
    let stream = crate::harness::connect(address);
    std::io::Write::write_all(&mut &stream, posting.as_bytes()).expect("sent");
    let answer = crate::harness::read_answer(&stream);
    assert_eq!((answer.status, answer.body.as_str()), (200, ORDER));
    assert!(!upstream.last().contains("123-45"), "{}", upstream.last());
    // What is for a reverse listener is told what this is.
    let answer = ask(address, "GET /orders", &[], "");
    assert!(
        answer.status == 400 && answer.body.contains("proxy-form"),
        "{answer:?}"
    );
    let (_, err) = agent.terminate();
    assert!(!err.contains("123-45-6789"), "{err}");
}

#[test]
fn what_a_forward_listener_lacks_ends_the_start() {
    let place = Place::new();
    let start = || {
        let (code, _, err) = done(&mut with_all(&place, "run"));
        assert_eq!(code, 78, "{err}");
        err
    };
    settings(
        &place,
        "loopback_upstreams: true",
        "dir: ca, names: [example.com]",
    );
    let err = start();
    assert!(
        err.contains("ca.pem") && err.contains("fieldveil ca init"),
        "{err}"
    );
    assert_eq!(done(&mut with(&place, &["ca", "init"])).0, 0);

    // Made for other names than the settings say.
    settings(&place, "loopback_upstreams: true", "dir: ca");
    assert!(start().contains("other names"));
    settings(
        &place,
        "credentials_file: users",
        "dir: ca, names: [example.com]",
    );
    assert!(start().contains("users"));
    let users = place.write("users", "app:0123456789abcdef\n");
    std::fs::set_permissions(&users, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    assert!(start().contains("0644"));
    std::fs::set_permissions(&users, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    std::fs::write(&users, "app:short\n").expect("written");
    let err = start();
    assert!(
        err.contains("less than 12") && !err.contains("short\n"),
        "{err}"
    );
    std::fs::write(&users, "app:0123456789abcdef\n").expect("written");
    let key = place.path("ca/ca.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    assert!(start().contains("0644"));
}

#[test]
fn the_doctor_looks_at_the_ca_and_at_credentials() {
    let place = Place::new();
    settings(&place, "credentials_file: users", "dir: ca");
    let users = place.write("users", "app:0123456789abcdef\n");
    std::fs::set_permissions(&users, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    let look = || {
        let (_, out, _) = done(with_all(&place, "doctor").args(["--output", "json"]));
        let document: Value = serde_json::from_str(&out).expect("JSON");
        let checks = document["checks"].as_array().expect("checks").clone();
        let of = |name: &str| {
            let check = checks
                .iter()
                .find(|check| check["name"].as_str().expect("a name").ends_with(name));
            let check = check.unwrap_or_else(|| panic!("{name}: {document:#}"));
            (
                check["state"].as_str().expect("a state").to_owned(),
                check["what"].as_str().expect("what").to_owned(),
            )
        };
        (of("ca/ca.pem"), of("users"))
    };
    assert_eq!(look().0.0, "fail");
    assert_eq!(
        done(&mut with(&place, &["ca", "init", "--days", "20"])).0,
        0
    );
    let (ca, users) = look();
    assert!(
        ca.0 == "warn" && ca.1.contains("good for 19 days") || ca.1.contains("good for 20 days"),
        "{ca:?}"
    );
    assert_eq!(users.0, "ok");
    for file in ["ca/ca.pem", "ca/ca.key"] {
        std::fs::remove_file(place.path(file)).expect("removed");
    }
    assert_eq!(done(&mut with(&place, &["ca", "init"])).0, 0);
    let (ca, _) = look();
    assert!(ca.0 == "warn" && ca.1.contains("every host"), "{ca:?}");
}
