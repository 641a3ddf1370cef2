//! `fieldveil run`: with flags alone, and with files.

use crate::harness::{JSON, ORDER, Place, Program, Upstream, ask, command, done, get, post, run};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[track_caller]
fn check_mode(path: &Path, expected: u32) {
    let mode = std::fs::metadata(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, expected, "{}", path.display());
}

#[test]
fn flags_alone_are_enough_and_a_second_start_opens_what_the_first_sealed() {
    let (place, upstream) = (Place::new(), Upstream::start());
    let data = place.path("data");
    let mut first = Program::start(&mut run(&upstream.url(), &data, &[]));
    let answer = post(first.address("out"), "/anything", ORDER);
    assert_eq!((answer.status, answer.body.as_str()), (200, ORDER));
    let sealed = upstream.last();
    assert!(
        !sealed.contains("123-45") && !sealed.contains("4111"),
        "{sealed}"
    );
    assert_eq!(sealed.matches("\"fv1~").count(), 2, "{sealed}");
    let (_, err) = first.terminate();
    assert!(
        err.contains("made a new key store: back it up now"),
        "{err}"
    );

    for (name, mode) in [
        ("", 0o700),
        ("keyring.key", 0o600),
        ("admin.token", 0o600),
        ("keyring", 0o700),
        ("keyring/keyring", 0o600),
    ] {
        check_mode(&data.join(name), mode);
    }

    let mut second = Program::start(&mut run(&upstream.url(), &data, &[]));
    assert_eq!(get(second.address("out"), "/anything").body, ORDER);
    let (_, err) = second.terminate();
    assert!(!err.contains("made a new"), "{err}");
}

#[test]
fn a_new_class_gets_its_key() {
    // All classes of flags share a key; policies do not.
    let (place, upstream) = (Place::new(), Upstream::start());
    let policy = |key: &str| {
        format!(
            "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {{name: p}}\nclasses: {{ssn: {{key: {key}}}}}\n\
             routes: [{{name: r, match: {{}}, request: {{rules: [{{at: $..ssn, seal: ssn}}]}}}}]\n"
        )
    };
    let url = upstream.url();
    let start = |key: &str| {
        let file = place.write("policies/p.yaml", &policy(key));
        let mut command = command([
            "run",
            "--listen",
            "127.0.0.1:0",
            "--upstream",
            &url,
            "--log-format",
            "json",
            "--policies",
        ]);
        command
            .arg(file.parent().expect("a directory"))
            .arg("--data-dir")
            .arg(place.path("data"));
        let mut program = Program::start(&mut command);
        assert_eq!(post(program.address("out"), "/", ORDER).status, 200);
        program.terminate().1
    };
    assert!(start("one").contains("made a new key store"));
    assert!(start("two").contains("made a new key: back the data directory up again"));
}

#[test]
fn settings_and_the_payments_policy() {
    let (place, upstream) = (Place::new(), Upstream::start());
    // The policy's host is the upstream's name; a test's is an address.
    let text = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/policies/payments.yaml"
    ))
    .expect("a policy");
    place.write(
        "policies/payments.yaml",
        &text.replace("api.payments.example", "127.0.0.1"),
    );
    let (code, out, err) = done(
        command([
            "keyring", "init", "--name", "shop", "identity", "cards", "contact", "--dir",
        ])
        .arg(place.path("keyring"))
        .arg("--key-file")
        .arg(place.path("kek")),
    );
    assert_eq!(code, 0, "{out}{err}");
    let settings = place.write(
        "settings.yaml",
        &format!(
            "environment: production\n\
             policy: {{dir: policies}}\n\
             listeners: [{{name: shop, bind: \"127.0.0.1:0\", upstream: payments}}]\n\
             upstreams: {{payments: {{url: \"{}\"}}}}\n\
             kms: {{local: {{type: keyring, dir: keyring, unlock: {{key_file: kek}}}}}}\n\
             keys:\n  identity: {{seal_with: [local/identity]}}\n  cards: {{seal_with: [local/cards]}}\n  \
             contact: {{seal_with: [local/contact]}}\n\
             probes: {{bind: \"127.0.0.1:0\"}}\n\
             log: {{format: json}}\n",
            upstream.url()
        ),
    );
    let mut agent = Program::start(command(["run", "--config"]).arg(settings));
    let address = agent.address("shop");
    let customer = r#"{"name":"Ada","ssn":"123-45-6789","email":"ada@example.com","cards":[{"id":"c1","number":"4111111111111111","cvc":"737"}]}"#;
    let merchant = "X-Merchant: acme";
    let billing = "X-Caller: billing";
    let head = [JSON, merchant, billing];
    let answer = ask(address, "POST /v1/customers/7", &head, customer);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.header("fieldveil-result"),
        Some("sealed=4, opened=3")
    );
    let sealed = upstream.last();
    for plain in ["123-45", "ada@example.com", "4111", "737"] {
        assert!(!sealed.contains(plain), "{sealed}");
    }
    assert!(
        sealed.contains("\"name\":\"Ada\"") && sealed.contains("\"id\":\"c1\""),
        "{sealed}"
    );
    // The verification code stays sealed; the rest is what was sent.
    let read = ask(address, "GET /v1/customers/7", &[merchant, billing], "").json();
    assert_eq!(read["ssn"], "123-45-6789");
    assert_eq!(read["cards"][0]["number"], "4111111111111111");
    assert!(
        read["cards"][0]["cvc"]
            .as_str()
            .expect("text")
            .starts_with("fv1~")
    );
    // Another customer, another merchant: the tokens do not open.
    let other = ask(address, "GET /v1/customers/8", &[merchant, billing], "").json();
    assert!(other["ssn"].as_str().expect("text").starts_with("fv1~"));
    assert_eq!(other["email"], "ada@example.com");
    let other = ask(address, "GET /v1/customers/7", &["X-Merchant: evil"], "").json();
    assert!(other["email"].as_str().expect("text").starts_with("fv1~"));
    // No tenant; a route that nobody wrote, in production; a value that nobody named.
    let came = upstream.count();
    assert_eq!(
        ask(address, "POST /v1/customers/7", &[JSON], customer).json()["code"],
        "tenant-missing"
    );
    assert_eq!(
        ask(address, "POST /v1/unknown", &[JSON, merchant], "{}").json()["code"],
        "unmatched"
    );
    let unclaimed = ask(
        address,
        "POST /v1/customers/7",
        &[JSON, merchant],
        r#"{"nickname":"a"}"#,
    );
    assert_eq!(unclaimed.json()["code"], "unclaimed");
    assert_eq!(upstream.count(), came, "nothing of it went on");
    agent.terminate();
}

#[test]
fn an_argument_goes_over_the_environment() {
    let (place, upstream) = (Place::new(), Upstream::start());
    let mut command = run(&upstream.url(), &place.path("data"), &[]);
    command
        .env("FIELDVEIL_UPSTREAM", "http://127.0.0.1:1")
        .env("FIELDVEIL_LOG_LEVEL", "debug");
    let mut agent = Program::start(&mut command);
    assert_eq!(post(agent.address("out"), "/", ORDER).status, 200);
    agent.terminate();
}

#[test]
fn a_passphrase_from_the_environment() {
    let (place, upstream) = (Place::new(), Upstream::start());
    let data = place.path("data");
    let variable = "FIELDVEIL_KEYRING_PASSPHRASE";
    let start = |passphrase: &str| {
        let mut command = run(&upstream.url(), &data, &[]);
        command
            .env(variable, passphrase)
            .env("FIELDVEIL_ADMIN_TOKEN", "a-token-of-an-operator");
        command
    };
    let mut first = Program::start(&mut start("correct horse battery"));
    let answer = post(first.address("out"), "/", ORDER);
    assert_eq!(answer.body, ORDER);
    let admin = first.address("admin");
    assert_eq!(
        ask(
            admin,
            "GET /livez",
            &["Authorization: Bearer a-token-of-an-operator"],
            ""
        )
        .status,
        200
    );
    let (_, err) = first.terminate();
    assert!(
        !err.contains("correct horse") && !err.contains("a-token-of"),
        "{err}"
    );
    assert!(!data.join("keyring.key").exists() && !data.join("admin.token").exists());
    let (code, _, err) = done(&mut start("another passphrase"));
    assert_eq!(code, 78);
    assert!(
        err.contains("the passphrase or key is wrong") && !err.contains("another passphrase"),
        "{err}"
    );
}
