//! `fieldveil doctor`: what it says of an agent's circumstances, and that it leaves them as they are.

use crate::harness::{Place, Program, Upstream, command, done, run};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Exit code and document, after a look for secrets of the data directory.
#[track_caller]
fn doctor(place: &Place, command: &mut Command) -> (i32, Value) {
    let (code, out, err) = done(command.args(["--output", "json"]));
    assert_eq!(err, "");
    if let Ok(token) = std::fs::read_to_string(place.path("data/admin.token")) {
        assert!(!out.contains(token.trim()), "{out}");
    }
    (code, serde_json::from_str(&out).expect("one document"))
}

/// State, what was found, and the hint, of the only such check.
#[track_caller]
fn found<'d>(document: &'d Value, area: &str, name: &str) -> (&'d str, &'d str, &'d str) {
    let checks = document["checks"].as_array().expect("checks");
    let mut of_name = checks
        .iter()
        .filter(|check| check["area"] == area && check["name"].as_str().unwrap().starts_with(name));
    let check = of_name
        .next()
        .unwrap_or_else(|| panic!("{area} {name}: {document:#}"));
    assert!(of_name.next().is_none(), "{area} {name}: {document:#}");
    let text = |word: &str| check[word].as_str().unwrap_or_default();
    (text("state"), text("what"), text("hint"))
}

#[test]
fn beside_a_running_agent_all_is_well() {
    let (place, upstream) = (Place::new(), Upstream::start());
    let mut agent = Program::start(&mut run(&upstream.url(), &place.path("data"), &[]));
    let mut looking = command(["doctor", "--seal", "$..ssn=default", "--open", "$..*"]);
    looking.args(["--upstream", &upstream.url()]);
    looking.arg("--data-dir").arg(place.path("data"));
    for (flag, listener) in [
        ("--listen", "out"),
        ("--admin", "admin"),
        ("--probes", "probes"),
    ] {
        looking.args([flag, &agent.address(listener).to_string()]);
    }
    let (code, document) = doctor(&place, &mut looking);
    assert_eq!(
        (code, &document["ok"]),
        (0, &Value::Bool(true)),
        "{document:#}"
    );
    for listener in ["out", "admin", "probes"] {
        let (state, what, _) = found(&document, "listener", listener);
        assert_eq!(state, "ok", "{listener}");
        assert!(
            what.ends_with("an agent of fieldveil listens there already"),
            "{what}"
        );
    }
    let (state, what, _) = found(&document, "key", "default (local/default)");
    assert!(
        state == "ok" && what.starts_with("wrapped and unwrapped"),
        "{what}"
    );
    let (state, what, _) = found(&document, "upstream", "api");
    assert!(
        state == "ok" && what.ends_with("it answers HEAD / with 200"),
        "{what}"
    );
    for (area, name) in [("settings", ""), ("policy", ""), ("secret", "/")] {
        let checks = document["checks"].as_array().expect("checks");
        let mut of_area = checks.iter().filter(|check| check["area"] == area);
        assert!(of_area.all(|check| check["state"] == "ok"), "{area} {name}");
    }
    assert_eq!(
        found(&document, "clock", "").0,
        "warn",
        "this upstream has no clock"
    );
    assert_eq!(upstream.count(), 0, "nothing was posted there");
    agent.terminate();
}

#[test]
fn what_is_wrong_is_told_with_what_to_do() {
    let (place, other) = (Place::new(), Upstream::start());
    let taken = other.address.to_string();
    let mut looking = command([
        "doctor",
        "--seal",
        "$..ssn",
        "--upstream",
        "http://127.0.0.1:9",
    ]);
    looking.args(["--listen", &taken]);
    looking.arg("--data-dir").arg(place.path("data"));
    let (code, document) = doctor(&place, &mut looking);
    assert_eq!((code, &document["ok"]), (1, &Value::Bool(false)));
    let (state, what, hint) = found(&document, "listener", "out");
    assert!(
        state == "fail" && what.contains("cannot listen on"),
        "{what}"
    );
    assert!(
        hint.starts_with("another process listens on port"),
        "{hint}"
    );
    let (state, what, hint) = found(&document, "upstream", "api");
    assert!(
        state == "fail" && what.contains("upstream-unreachable"),
        "{what}"
    );
    assert!(hint.starts_with("is it up"), "{hint}");
    let (state, what, _) = found(&document, "key", "local");
    assert!(
        state == "warn" && what.starts_with("the next start makes a keyring"),
        "{what}"
    );
    assert!(!place.path("data").exists(), "nothing was made");
}

#[test]
fn a_key_file_that_others_may_read_is_told() {
    let place = Place::new();
    let key = place.path("kek");
    let ring = place.path("ring");
    let mut init = command(["keyring", "init", "--dir"]);
    init.arg(&ring).arg("--key-file").arg(&key).arg("cards");
    assert_eq!(done(&mut init).0, 0);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("a mode");
    let policy = "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {name: p}\nclasses: {pan: {key: cards}}\n\
        routes: [{name: all, match: {path: \"/**\"}, request: {rules: [{at: $.pan, seal: pan}]}}]\n";
    place.write("policies/p.yaml", policy);
    let settings = "policy: {dir: policies}\nlisteners: [{name: out, bind: \"unix:agent.sock\", upstream: api}]\n\
        upstreams: {api: {url: \"http://127.0.0.1:9\"}}\nkms: {local: {type: keyring, dir: ring, unlock: {key_file: kek}}}\n\
        keys: {cards: {seal_with: [local/cards, local/missing]}}\n";
    let file = place.write("settings.yaml", settings);
    let looking = || {
        let mut looking = command(["doctor", "--config"]);
        looking.arg(&file);
        looking
    };
    let (code, document) = doctor(&place, &mut looking());
    assert_eq!(code, 1);
    let (state, _, hint) = found(&document, "secret", "/");
    assert_eq!(
        (state, hint),
        ("fail", &*format!("chmod 400 {}", key.display()))
    );
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o400)).expect("a mode");
    let (_, document) = doctor(&place, &mut looking());
    assert_eq!(found(&document, "secret", "/").0, "ok");
    assert_eq!(found(&document, "key", "cards (local/cards)").0, "ok");
    let (state, what, _) = found(&document, "key", "cards (local/missing)");
    assert!(
        state == "fail" && what.contains("has no key `missing`"),
        "{what}"
    );
    assert_eq!(found(&document, "listener", "out").0, "ok");
    // A line for each finding, and nothing else.
    place.write("settings.yaml", &settings.replace("keys:", "keyz:"));
    let (code, out, err) = done(&mut looking());
    assert_eq!((code, &*err), (1, ""));
    assert!(
        out.starts_with("fail  settings") && out.contains("settings.yaml:5:1"),
        "{out}"
    );
    assert!(!out.contains('\x1b'), "not a terminal");
}

/// Files that let the agent in at a KMS, whichever it is.
#[test]
fn credentials_that_others_may_read_are_told() {
    let place = Place::new();
    for file in ["google.json", "azure.secret"] {
        let file = place.write(file, "{}");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("a mode");
    }
    place.write(
        "policies/p.yaml",
        "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {name: p}\nclasses: {pan: {key: cards}}\n\
         routes: [{name: all, match: {path: \"/**\"}, request: {rules: [{at: $.pan, seal: pan}]}}]\n",
    );
    let settings = place.write(
        "settings.yaml",
        "policy: {dir: policies}\nlisteners: [{name: out, bind: \"unix:agent.sock\", upstream: api}]\n\
         upstreams: {api: {url: \"http://127.0.0.1:9\"}}\nkms:\n  \
         google: {type: gcp, endpoint: \"http://127.0.0.1:9\", credentials_file: google.json}\n  \
         azure: {type: azure, vault: v.vault.azure.net, endpoint: \"http://127.0.0.1:9\", \
         auth: {client_secret: {tenant: t, client_id: c, secret_file: azure.secret}}}\n\
         keys: {cards: {seal_with: [google/projects/p/locations/l/keyRings/r/cryptoKeys/k, azure/cards]}}\n",
    );
    let (code, document) = doctor(&place, command(["doctor", "--config"]).arg(&settings));
    assert_eq!(code, 1);
    for (file, kek) in [
        (
            "google.json",
            "google/projects/p/locations/l/keyRings/r/cryptoKeys/k",
        ),
        ("azure.secret", "azure/cards"),
    ] {
        let path = place.path(file).display().to_string();
        let (state, what, hint) = found(&document, "secret", &path);
        assert_eq!((state, hint), ("warn", &*format!("chmod 400 {path}")));
        assert!(what.contains("0644"), "{what}");
        let (state, _, hint) = found(&document, "key", &format!("cards ({kek})"));
        assert_eq!(state, "fail");
        assert!(hint.contains("tokens come from"), "{hint}");
    }
}
