//! `fieldveil store` and `fieldveil run` on one store: made, rewrapped under traffic, backed up and restored, deleted.

use crate::harness::{JSON, Place, Program, Upstream, ask, command, done, get};
use serde_json::Value;
use std::net::SocketAddr;

const POLICY: &str = "\
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: shop}
classes: {ssn: {key: cards}, email: {key: cards, mode: deterministic}}
routes:
  - name: customers
    match: {path: \"/{id}\"}
    request: {rules: [{at: $..ssn, seal: ssn}, {at: $..email, seal: email}]}
    response: {rules: [{at: $..ssn, open: ssn}, {at: $..email, open: email}]}
";

const BODY: &str = r#"{"ssn":"1-2","email":"a@b.example"}"#;

struct Shop {
    place: Place,
    upstream: Upstream,
}

impl Shop {
    /// Two keyrings, and a store.
    fn new() -> Shop {
        let place = Place::new();
        place.write("policies/shop.yaml", POLICY);
        for name in ["old", "new"] {
            let args = ["keyring", "init", "--name", name, "--dir"];
            let mut init = command(args);
            init.arg(place.path(name));
            init.arg("--key-file")
                .arg(place.path(&format!("{name}.key")));
            let (exit, _, err) = done(init.arg("cards"));
            assert_eq!(exit, 0, "{err}");
        }
        let shop = Shop {
            place,
            upstream: Upstream::start(),
        };
        shop.settings("old.yaml", "store", "old/cards", "");
        shop.settings(
            "both.yaml",
            "store",
            "new/cards",
            ", open_also: [old/cards]",
        );
        shop.settings("new.yaml", "store", "new/cards", "");
        shop
    }

    fn settings(&self, file: &str, store: &str, seal_with: &str, more: &str) {
        let upstream = self.upstream.url();
        let text = format!(
            "\
policy: {{dir: policies}}
listeners: [{{name: out, bind: 127.0.0.1:0, upstream: api}}]
upstreams: {{api: {{url: {upstream}}}}}
kms:
  old: {{type: keyring, dir: old, unlock: {{key_file: old.key}}}}
  new: {{type: keyring, dir: new, unlock: {{key_file: new.key}}}}
keys: {{cards: {{seal_with: [{seal_with}]{more}, lease: 1s, grace: 0s}}}}
store: {{type: embedded, file: {store}}}
"
        );
        self.place.write(file, &text);
    }

    fn store(&self, verb: &str, settings: &str, more: &[&str]) -> (i32, Value, String) {
        let mut command = command(["--output", "json", "store", verb, "--config"]);
        command.arg(self.place.path(settings)).args(more);
        let (exit, out, err) = done(&mut command);
        let document = serde_json::from_str(&out);
        (exit, document.unwrap_or_else(|_| panic!("{out}{err}")), err)
    }

    #[track_caller]
    fn good(&self, verb: &str, settings: &str, more: &[&str]) -> Value {
        let (exit, document, err) = self.store(verb, settings, more);
        assert_eq!(exit, 0, "{document} {err}");
        assert_eq!(document["ok"], true);
        document
    }

    fn agent(&self, settings: &str) -> (Program, SocketAddr) {
        let mut run = command(["run", "--config"]);
        run.arg(self.place.path(settings));
        let mut agent = Program::start(&mut run);
        let out = agent.address("out");
        (agent, out)
    }

    fn file(&self, name: &str) -> String {
        self.place.path(name).display().to_string()
    }
}

/// Sends the values; what the upstream got.
#[track_caller]
fn send(shop: &Shop, out: SocketAddr) -> String {
    let answer = ask(out, "POST /a", &[JSON], BODY);
    assert_eq!((answer.status, &*answer.body), (200, BODY), "{answer:?}");
    let sealed = shop.upstream.last();
    assert!(
        !sealed.contains("1-2") && !sealed.contains("a@b"),
        "{sealed}"
    );
    sealed
}

#[track_caller]
fn opens(shop: &Shop, out: SocketAddr, sealed: &str) {
    let answer = ask(out, "POST /a", &[JSON], sealed);
    assert_eq!((answer.status, &*answer.body), (200, BODY), "{answer:?}");
    assert_eq!(shop.upstream.last(), sealed);
}

fn email(sealed: &str) -> String {
    let document: Value = serde_json::from_str(sealed).expect("JSON");
    document["email"].as_str().expect("a token").to_owned()
}

/// From one KEK to another while an agent runs, and then without the first.
#[test]
fn records_move_to_another_kms_while_an_agent_runs() {
    let shop = Shop::new();
    let (exit, missing, _) = shop.store("status", "old.yaml", &[]);
    assert_eq!((exit, &missing["ok"]), (78, &Value::Bool(false)));
    let hint = missing["error"]["hint"].as_str().expect("a hint");
    assert!(hint.contains("fieldveil store init"), "{hint}");
    assert_eq!(shop.good("init", "old.yaml", &[])["made"], true);
    assert_eq!(shop.good("init", "old.yaml", &[])["made"], false);
    let (old, out) = shop.agent("old.yaml");
    let first = send(&shop, out);
    old.terminate();
    let (both, out) = shop.agent("both.yaml");
    opens(&shop, out, &first);
    let before = shop.good("verify", "both.yaml", &[]);
    let needed = |verified: &Value, kek: &str| {
        let keks = verified["keks"].as_array().expect("KEKs");
        let one = keks.iter().find(|one| one["kek"] == kek);
        one.map_or(0, |one| one["needed"].as_u64().expect("a number"))
    };
    assert!(needed(&before, "keyring:old/cards") >= 2, "{before}");
    let tried = shop.good("rewrap", "both.yaml", &["--dry-run"]);
    let moved = shop.good("rewrap", "both.yaml", &[]);
    assert_eq!(tried["rewrapped"], moved["rewrapped"]);
    assert_eq!(shop.good("rewrap", "both.yaml", &[])["rewrapped"], 0);
    opens(&shop, out, &first);
    assert_eq!(email(&send(&shop, out)), email(&first));
    both.terminate();
    std::fs::remove_dir_all(shop.place.path("old")).expect("the old keyring");
    let after = shop.good("verify", "new.yaml", &[]);
    assert_eq!(needed(&after, "keyring:old/cards"), 0, "{after}");
    assert_eq!(after["failed"], 0);
    let (new, out) = shop.agent("new.yaml");
    opens(&shop, out, &first);
    new.terminate();
}

#[test]
fn a_backup_restores_what_was_lost() {
    let shop = Shop::new();
    shop.good("init", "old.yaml", &[]);
    let (agent, out) = shop.agent("old.yaml");
    let sealed = send(&shop, out);
    let backup = shop.file("backup");
    let exported = shop.good("export", "old.yaml", &[&backup]);
    assert!(exported["entries"].as_u64() >= Some(2));
    agent.terminate();
    let (exit, again, _) = shop.store("export", "old.yaml", &[&backup]);
    assert_eq!(exit, 69, "{again}");
    std::fs::remove_file(shop.place.path("store")).expect("the store");
    let tried = shop.good("verify", "old.yaml", &["--backup", &backup]);
    assert_eq!(tried["data_keys"], exported["entries"]);
    // One that was cut short is refused whole.
    let text = std::fs::read(&backup).expect("the backup");
    let cut = shop.place.path("cut").display().to_string();
    std::fs::write(&cut, &text[..text.len() - 1]).expect("a file");
    shop.good("init", "old.yaml", &[]);
    let (exit, refused, _) = shop.store("import", "old.yaml", &[&cut]);
    assert_eq!(exit, 65, "{refused}");
    assert_eq!(shop.good("status", "old.yaml", &[])["data_keys"], 0);
    let restored = shop.good("import", "old.yaml", &[&backup]);
    assert_eq!(restored["restored"], exported["entries"]);
    assert_eq!(shop.good("import", "old.yaml", &[&backup])["restored"], 0);
    let (agent, out) = shop.agent("old.yaml");
    opens(&shop, out, &sealed);
    agent.terminate();
    // Into another store, whole.
    shop.settings("other.yaml", "other", "old/cards", "");
    shop.good("init", "other.yaml", &[]);
    let to = shop.file("other.yaml");
    let copied = shop.good("convert", "old.yaml", &["--to", &to]);
    let here = shop.good("list", "old.yaml", &[]);
    assert_eq!(
        copied["copied"].as_u64(),
        here["entries"].as_array().map(|all| all.len() as u64)
    );
    assert_eq!(shop.good("list", "other.yaml", &[]), here);
}

#[test]
fn what_is_deleted_does_not_open_and_what_is_rotated_does() {
    let shop = Shop::new();
    shop.good("init", "old.yaml", &[]);
    let (agent, out) = shop.agent("old.yaml");
    let first = send(&shop, out);
    agent.terminate();
    let listed = shop.good("list", "old.yaml", &["--deterministic", "--key", "cards"]);
    let [listed] = &listed["entries"].as_array().expect("entries")[..] else {
        panic!("{listed}");
    };
    let none = shop.good("list", "old.yaml", &["--tenant", "acme"]);
    assert_eq!(none["entries"], Value::Array(vec![]));
    let (exit, asked, _) = shop.store("rotate-deterministic", "old.yaml", &["--key", "cards"]);
    assert_eq!(exit, 64, "{asked}");
    let rotated = shop.good(
        "rotate-deterministic",
        "old.yaml",
        &["--key", "cards", "--yes"],
    );
    assert_eq!(
        (&rotated["epoch"], &rotated["replaced"]),
        (&2.into(), &listed["kid"])
    );
    let (exit, none, _) = shop.store(
        "rotate-deterministic",
        "old.yaml",
        &["--key", "cards", "--tenant", "x", "--yes"],
    );
    assert_eq!(exit, 78, "{none}");
    let (agent, out) = shop.agent("old.yaml");
    assert_ne!(email(&send(&shop, out)), email(&first));
    opens(&shop, out, &first);
    agent.terminate();
    let kid = listed["kid"].as_str().expect("a kid");
    let (exit, asked, _) = shop.store("delete", "old.yaml", &[kid]);
    assert_eq!(exit, 64, "{asked}");
    let deleted = shop.good("delete", "old.yaml", &[kid, "--yes"]);
    assert_eq!(deleted["deleted"], Value::Array(vec![kid.into()]));
    let again = shop.good("delete", "old.yaml", &[kid, "--yes"]);
    assert_eq!(again["deleted_before"], deleted["deleted"]);
    let (agent, out) = shop.agent("old.yaml");
    let document: Value = get(out, "/a").json();
    assert_eq!(document["ssn"], "1-2");
    assert_eq!(document["email"], email(&first), "stays sealed");
    agent.terminate();
    assert_eq!(shop.good("status", "old.yaml", &[])["deleted"], 1);
}

/// What does not open is told by kid, and 1.
#[test]
fn what_does_not_open_is_found() {
    let shop = Shop::new();
    shop.good("init", "old.yaml", &[]);
    let (agent, out) = shop.agent("old.yaml");
    send(&shop, out);
    agent.terminate();
    let (exit, verified, _) = shop.store("verify", "new.yaml", &[]);
    assert_eq!(exit, 1, "{verified}");
    assert_eq!(verified["failed"], verified["data_keys"]);
    assert_eq!(verified["failures"][0]["why"][0], "foreign");
    let (exit, left, _) = shop.store("rewrap", "new.yaml", &[]);
    assert_eq!((exit, &left["rewrapped"]), (1, &0.into()), "{left}");
    let mut plain = command(["store", "verify", "--config"]);
    plain.arg(shop.place.path("old.yaml"));
    let (exit, out, err) = done(&mut plain);
    assert_eq!(exit, 0, "{err}");
    assert!(out.ends_with("everything opens\n"), "{out}");
}
