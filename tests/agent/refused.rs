//! What does not start, and says why.

use crate::harness::{ORDER, Place, Program, Upstream, command, done, post, run};
use std::net::TcpListener;

const UPSTREAM: &str = "http://127.0.0.1:9";

#[track_caller]
fn check(command: &mut std::process::Command, code: i32, said: &[&str]) {
    let (found, out, err) = done(command);
    assert_eq!(found, code, "{out}{err}");
    for text in said {
        assert!(err.contains(text), "{text} in:\n{err}");
    }
}

#[test]
fn a_taken_port_is_69() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    for (flag, who) in [
        ("--listen", "listener out"),
        ("--probes", "probes"),
        ("--admin", "admin"),
    ] {
        let place = Place::new();
        let mut command = command(["run", "--upstream", UPSTREAM, "--seal", "$.a", "--data-dir"]);
        command.arg(place.path("data")).args([flag, &address]);
        if flag != "--listen" {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let said = format!("{who}: cannot listen on {address}");
        check(
            &mut command,
            69,
            &[&said, "hint: another process listens on port"],
        );
    }
}

#[test]
fn what_is_wrong_is_78_with_its_place() {
    let place = Place::new();
    let policy = place.write("policies/p.yaml", "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {name: p}\nroutes:\n  - {name: r, match: {}, request: {rules: [{at: $..ssn, seal: nope}]}}\n");
    let data = place.path("data");
    let base = |more: &[&str]| {
        let mut command = command(["run", "--listen", "127.0.0.1:0"]);
        command.args(more);
        command
    };
    let policies = policy
        .parent()
        .expect("a directory")
        .to_str()
        .expect("UTF-8");
    check(
        base(&["--upstream", UPSTREAM, "--policies", policies, "--data-dir"]).arg(&data),
        78,
        &["p.yaml:5:", "error[unknown-class]", "^^^^"],
    );
    assert!(!data.exists(), "nothing is made for a policy that is wrong");
    check(
        base(&["--upstream", "nonsense", "--seal", "$.a", "--data-dir"]).arg(&data),
        78,
        &["--upstream:1:1", "error[bad-url]"],
    );
    check(
        base(&["--upstream", UPSTREAM, "--seal", "$.a[", "--data-dir"]).arg(&data),
        78,
        &["--seal:1:", "error[bad-path]"],
    );
    // Where the keys are is not guessed.
    check(
        &mut base(&["--upstream", UPSTREAM, "--seal", "$.a"]),
        78,
        &["where are the keys?", "hint: add --data-dir DIR"],
    );
    check(
        &mut base(&["--upstream", UPSTREAM, "--data-dir", "d"]),
        78,
        &["there is no policy"],
    );
    check(
        &mut base(&["--config", "/nonexistent/settings.yaml"]),
        78,
        &["error[unreadable]"],
    );
    check(&mut base(&["--nonsense"]), 64, &["--nonsense"]);
    let (code, out, err) = done(
        base(&[
            "--upstream",
            UPSTREAM,
            "--policies",
            policies,
            "--output",
            "json",
            "--data-dir",
        ])
        .arg(&data),
    );
    assert_eq!((code, err.as_str()), (78, ""));
    let document: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(document["ok"], false);
    assert_eq!(document["diagnostics"][0]["code"], "unknown-class");
}

/// It would run, answer 200 and seal nothing.
#[test]
fn a_policy_for_other_hosts_than_the_upstreams_is_refused() {
    let place = Place::new();
    let policies = concat!(env!("CARGO_MANIFEST_DIR"), "/policies/payments.yaml");
    let policy = std::fs::read_to_string(policies).expect("a policy");
    let policy = place.write("policies/payments.yaml", &policy);
    let data = place.path("data");
    let mut command = command(["run", "--listen", "127.0.0.1:0", "--upstream", UPSTREAM]);
    command.args(["--environment", "production", "--policies"]);
    command.arg(policy.parent().expect("a directory"));
    command.arg("--data-dir").arg(&data);
    let said = [
        "no route of the policies is for 127.0.0.1:9",
        "nothing would be sealed",
        "match: {host",
    ];
    check(&mut command, 78, &said);
    assert!(!data.exists());
}

#[test]
fn a_data_directory_of_which_a_part_is_lost_is_not_begun_anew() {
    let (place, upstream) = (Place::new(), Upstream::start());
    let data = place.path("data");
    let mut agent = Program::start(&mut run(&upstream.url(), &data, &[]));
    agent.address("out");
    agent.terminate();
    let (key, keyring) = (data.join("keyring.key"), data.join("keyring/keyring"));
    let kept = std::fs::read(&key).expect("a key");
    std::fs::remove_file(&key).expect("removed");
    check(
        &mut run(&upstream.url(), &data, &[]),
        78,
        &["which unlocks it, is not there", "restore the key file"],
    );
    assert!(!key.exists());
    std::fs::write(&key, kept).expect("written");
    // Others may read it now.
    check(
        &mut run(&upstream.url(), &data, &[]),
        78,
        &["others may use it", "hint: chmod"],
    );
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("changed");
    std::fs::remove_file(&keyring).expect("removed");
    check(
        &mut run(&upstream.url(), &data, &[]),
        78,
        &[
            "the keyring that it unlocks is not in",
            "restore the keyring",
        ],
    );
    assert!(!keyring.exists());
}

#[test]
fn a_token_that_is_none() {
    let place = Place::new();
    let data = place.path("data");
    let short = |command: &mut std::process::Command| {
        check(
            command,
            78,
            &["holds no token for the admin API", "at least 16"],
        )
    };
    short(run(UPSTREAM, &data, &[]).env("FIELDVEIL_ADMIN_TOKEN", "short"));
}

#[test]
fn the_agents_own_addresses_are_no_upstream() {
    let place = Place::new();
    for own in ["--listen", "--probes", "--admin"] {
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("a port")
            .port();
        for host in ["127.0.0.1", "localhost"] {
            let data = place.path(&format!("{own}-{host}"));
            let url = format!("http://{host}:{port}");
            let mut command = command([
                "run",
                "--seal",
                "$..ssn",
                "--log-format",
                "json",
                "--upstream",
                &url,
                "--data-dir",
            ]);
            command.arg(data);
            for flag in ["--listen", "--probes", "--admin"] {
                command
                    .arg(flag)
                    .arg(format!("127.0.0.1:{}", if flag == own { port } else { 0 }));
            }
            let mut agent = Program::start(&mut command);
            let answer = post(agent.address("out"), "/livez", ORDER);
            assert_eq!(
                (answer.status, &answer.json()["code"]),
                (502, &"upstream-forbidden".into()),
                "{own} {host}"
            );
            agent.terminate();
        }
    }
}

#[test]
fn commands_and_their_exit_codes() {
    let place = Place::new();
    let payments = concat!(env!("CARGO_MANIFEST_DIR"), "/policies/payments.yaml");
    let (code, out, _) = done(&mut command(["policy", "check", payments]));
    assert_eq!(code, 0);
    assert!(
        out.ends_with("payments.yaml: ok: policy payments, 5 classes, 4 routes\n"),
        "{out}"
    );
    check(
        &mut command(["policy", "check", "/nonexistent"]),
        78,
        &["error[unreadable]", "1 error found"],
    );

    let (code, out, _) = done(&mut command(["token", "inspect", "078-05-1120"]));
    assert_eq!(
        (code, out.as_str()),
        (65, "not a token of version 1 (malformed)\n")
    );

    let keyring = |verb: &str, more: &[&str]| {
        let mut command = command(["keyring", verb, "--dir"]);
        command.arg(place.path("keyring")).args(more);
        command
    };
    let key_file = place.path("kek");
    let key_file = key_file.to_str().expect("UTF-8");
    check(
        &mut keyring("status", &["--key-file", key_file]),
        78,
        &["cannot be opened"],
    );
    check(
        &mut keyring("init", &["cards"]),
        64,
        &["what is the keyring unlocked with?", "--key-file FILE"],
    );
    let (code, out, err) = done(&mut keyring("init", &["--key-file", key_file, "cards"]));
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("back it up now") && out.contains("keyring:local/cards  version 1"),
        "{out}"
    );
    check(
        &mut keyring("init", &["--key-file", key_file, "cards"]),
        78,
        &["there is one already", "nothing was changed"],
    );
    assert_eq!(
        done(&mut keyring("rotate", &["--key-file", key_file, "cards"])).0,
        0
    );
    assert_eq!(
        done(&mut keyring("add", &["--key-file", key_file, "contact"])).0,
        0
    );
    let (code, out, _) = done(&mut keyring(
        "status",
        &["--key-file", key_file, "--output", "json"],
    ));
    let document: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (
            code,
            &document["keys"][0]["current"],
            &document["keys"][1]["name"]
        ),
        (0, &2.into(), &"contact".into())
    );
    let (code, out, err) = done(&mut keyring(
        "rotate",
        &["--key-file", key_file, "nope", "--output", "json"],
    ));
    assert_eq!((code, err.as_str()), (78, ""));
    let document: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert!(
        document["error"]["hint"]
            .as_str()
            .expect("a hint")
            .contains("keyring status"),
        "{document}"
    );
}

#[test]
fn who_has_read_enough_is_not_complained_to() {
    let payments = concat!(env!("CARGO_MANIFEST_DIR"), "/policies/payments.yaml");
    let mut child = command(["policy", "check", payments])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert_eq!(
        (output.status.code(), &output.stderr[..]),
        (Some(0), &b""[..])
    );
}
