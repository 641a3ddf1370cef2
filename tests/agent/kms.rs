//! `fieldveil kms check`: a round trip with every KEK, and what it says of those that fail.

use crate::harness::{Place, command, done};
use std::os::unix::fs::PermissionsExt;

/// A keyring `local` with the key `cards`, and a port where nobody listens any more.
fn made(place: &Place) -> (String, String) {
    let (dir, key) = (place.path("keyring"), place.path("kek"));
    let line = ["keyring", "init", "--name", "local", "--dir"];
    let (code, _, err) = done(
        command(line)
            .arg(&dir)
            .arg("--key-file")
            .arg(&key)
            .arg("cards"),
    );
    assert_eq!(code, 0, "{err}");
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let gone = socket.local_addr().expect("bound").to_string();
    let local = format!(
        "local: {{type: keyring, dir: {}, unlock: {{key_file: {}}}}}",
        dir.display(),
        key.display()
    );
    (local, gone)
}

fn check(place: &Place, kms: &str, keys: &str, more: &[&str]) -> (i32, String, String) {
    std::fs::create_dir_all(place.path("policies")).expect("a directory");
    let text = format!("policy: {{dir: policies}}\nkms:\n  {kms}\nkeys:\n  {keys}\n");
    let file = place.write("settings.yaml", &text);
    done(command(["kms", "check", "--settings"]).arg(file).args(more))
}

#[test]
fn every_kek_is_tried_and_told() {
    let place = Place::new();
    let (local, gone) = made(&place);
    let good = "cards: {seal_with: [local/cards]}";
    let (code, out, err) = check(&place, &local, good, &[]);
    assert_eq!(code, 0, "{out}{err}");
    for part in ["keyring:local/cards", "key cards", "ok: version 1, wrap "] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (code, out, _) = check(&place, &local, good, &["--output", "json"]);
    let told: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &told["ok"]), (0, &true.into()));
    let one = &told["kms"][0];
    assert_eq!(one["identity"], "keyring:local/cards");
    assert_eq!(
        (&one["outcome"], &one["version"]),
        (&"ok".into(), &"1".into())
    );
    assert_eq!(one["blob_bytes"], 64);

    // One that is not there does not hide the others.
    let (code, out, _) = check(
        &place,
        &local,
        "cards: {seal_with: [local/cards], open_also: [local/old]}",
        &[],
    );
    assert_eq!(code, 78, "{out}");
    assert!(
        out.contains("ok: version 1") && out.contains("settings: "),
        "{out}"
    );

    // Nobody there.
    let token = place.write("token", "s.hunter2");
    std::fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).expect("made");
    let vault = format!(
        "{local}\n  vault: {{type: transit, address: \"http://{gone}\", identity: v/transit, auth: {{token_file: {}}}}}",
        token.display()
    );
    let keys = "cards: {seal_with: [local/cards], open_also: [vault/cards]}";
    let (code, out, err) = check(&place, &vault, keys, &[]);
    assert_eq!(code, 69, "{out}{err}");
    for part in [
        "transit:v/transit/cards",
        "opens only",
        "unreachable: wrap after ",
        "hint: ",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(!out.contains("hunter2") && !err.contains("hunter2"));
}

/// A look makes nothing.
#[test]
fn an_empty_data_directory_stays_empty() {
    let place = Place::new();
    let data = place.path("data");
    let line = [
        "kms",
        "check",
        "--seal",
        "$..ssn",
        "--upstream",
        "http://127.0.0.1:1",
    ];
    let (code, out, err) = done(command(line).arg("--data-dir").arg(&data));
    assert_eq!(code, 78, "{out}{err}");
    assert!(!data.exists());
}
