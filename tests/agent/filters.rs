//! `fieldveil seal` and `fieldveil open` between pipes.

use crate::harness::{JSON, Place, Program, Upstream, ask, command, run};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

const POLICY: &str = "\
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: shop}
tenant: {header: X-Tenant}
classes: {ssn: {key: identity}, email: {key: contact}}
routes:
  - name: customers
    match: {path: \"/customers/{id}\"}
    request: {rules: [{at: $..ssn, seal: ssn, bind: {customer: {path: id}}}, {at: $.email, seal: email}]}
    response: {rules: [{at: $..ssn, open: ssn, bind: {customer: {path: id}}}, {at: $.email, open: email}]}
";

fn filter(verb: &str, place: &Place, more: &[&str]) -> Command {
    let mut command = command([verb, "--tenant", "acme", "--bind", "customer=$.id"]);
    command
        .arg("--policy")
        .arg(place.write("policy.yaml", POLICY));
    command.arg("--data-dir").arg(place.path("data"));
    command.args(more);
    command
}

/// Feeds a filter and drains it: exit code, standard output, standard error.
fn through(command: &mut Command, input: &[u8]) -> (i32, Vec<u8>, String) {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.stderr(Stdio::piped()).spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    let output = std::thread::scope(|scope| {
        // One that refuses does not read on.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().expect("ends")
    });
    (
        output.status.code().expect("no signal"),
        output.stdout,
        String::from_utf8(output.stderr).expect("UTF-8"),
    )
}

/// 100,000 records of every spelling come back byte for byte, through two processes and two pipes.
#[test]
fn a_hundred_thousand_records_come_back() {
    let place = Place::new();
    let mut input = String::new();
    for id in 0..100_000_u32 {
        let (gap, end) = (
            ["", " "][id as usize % 2],
            ["\n", "\r\n", "\n\n"][id as usize % 3],
        );
        let name = ["ssn", "\\u0073sn"][id as usize % 5 / 4];
        let _ = write!(
            input,
            "{gap}{{\"id\":{gap}{id},\"email\":\"u{id}@é.example\",\"n\":1E{id},\"deep\":[{{\"{name}\":{gap}{id}}}]}}{end}"
        );
    }
    let summary = ["--output", "json"];
    let (exit, sealed, err) = through(&mut filter("seal", &place, &summary), input.as_bytes());
    assert_eq!(exit, 0, "{err}");
    assert!(
        !sealed
            .windows(10)
            .any(|part| part == "@é.example".as_bytes().split_at(10).0)
    );
    let summary_of = |err: &str| {
        let last = err.lines().last().expect("a summary").to_owned();
        serde_json::from_str::<serde_json::Value>(&last).expect("one document")
    };
    let sealing = summary_of(&err);
    assert_eq!(sealing["records"], 100_000);
    assert_eq!(
        sealing["sealed"],
        serde_json::json!({"ssn": 100_000, "email": 100_000})
    );
    assert_eq!(sealing["ok"], true);
    let (exit, opened, err) = through(&mut filter("open", &place, &summary), &sealed);
    assert_eq!(
        (exit, summary_of(&err)["opened"]["ssn"].as_u64()),
        (0, Some(100_000))
    );
    assert!(opened == input.as_bytes(), "not the same bytes");
}

/// What a filter seals, the agent opens, and the other way round.
#[test]
fn filters_and_agent_understand_each_other() {
    let (place, upstream) = (Place::new(), Upstream::start());
    let plain = "{\"id\":\"7\",\"ssn\":\"1-2\",\"email\":\"a\"}";
    let (exit, sealed, err) = through(&mut filter("seal", &place, &[]), plain.as_bytes());
    assert_eq!(exit, 0, "{err}");
    let policy = place.write("policies/policy.yaml", POLICY);
    let mut agent = run(&upstream.url(), &place.path("data"), &[]);
    let mut agent = {
        // The flags of a policy would contradict the directory.
        let kept: Vec<_> = agent.get_args().map(ToOwned::to_owned).collect();
        let mut without = Vec::new();
        let mut words = kept.into_iter();
        while let Some(word) = words.next() {
            if word == "--seal" || word == "--open" {
                words.next();
            } else {
                without.push(word);
            }
        }
        agent = command(without);
        agent
            .arg("--policies")
            .arg(policy.parent().expect("a directory"));
        Program::start(&mut agent)
    };
    let out = agent.address("out");
    let sealed = String::from_utf8(sealed).expect("UTF-8");
    let answer = ask(out, "POST /customers/7", &[JSON, "X-Tenant: acme"], &sealed);
    assert_eq!((answer.status, answer.body.as_str()), (200, plain));
    // Tokens stay as they are on the way up.
    assert_eq!(upstream.last(), sealed);
    let answer = ask(out, "POST /customers/7", &[JSON, "X-Tenant: acme"], plain);
    assert_eq!(answer.status, 200);
    let (exit, opened, err) = through(&mut filter("open", &place, &[]), upstream.last().as_bytes());
    assert_eq!((exit, opened.as_slice()), (0, plain.as_bytes()), "{err}");
    agent.terminate();
}

#[test]
fn records_that_are_refused_are_told_by_line_and_code() {
    let place = Place::new();
    let secret = "078-05-1120";
    let input = format!(
        "{{\"id\":1,\"ssn\":\"{secret}\"}}\n{{\"id\":1,\"ssn\":\"{secret}\"\n{{\"ssn\":\"{secret}\"}}\n{{\"id\":4,\"ssn\":4}}\n"
    );
    let (exit, out, err) = through(&mut filter("seal", &place, &[]), input.as_bytes());
    assert_eq!(exit, 65, "{err}");
    assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
    assert!(err.contains("error: line 2: not-json"), "{err}");
    assert!(err.contains("tail -n +2"), "{err}");
    let rejects = place.path("rejects.tsv");
    let more = [
        "--on-error",
        "skip",
        "--rejects",
        rejects.to_str().expect("UTF-8"),
    ];
    let (exit, out, told) = through(&mut filter("seal", &place, &more), input.as_bytes());
    assert_eq!(exit, 1, "{told}");
    assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 2);
    let noted = std::fs::read_to_string(&rejects).expect("a file");
    assert_eq!(noted, "2\tnot-json\n3\tbind\n");
    assert!(told.contains("2 records skipped"), "{told}");
    // What another run noted is not lost.
    let (exit, out, again) = through(&mut filter("seal", &place, &more), input.as_bytes());
    assert_eq!((exit, out.len()), (78, 0), "{again}");
    for text in [&err, &told, &noted, &again] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(!String::from_utf8_lossy(&out).contains(secret));
}

#[test]
fn what_does_not_fit_is_said_before_anything_is_read() {
    let place = Place::new();
    let check = |command: &mut Command, code: i32, expected: &str| {
        let (exit, out, err) = through(command, b"{\"id\":1}");
        assert_eq!((exit, out.as_slice()), (code, &b""[..]), "{err}");
        assert!(err.contains(expected) && err.contains("hint: "), "{err}");
    };
    let bare = |verb: &str, more: &[&str]| {
        let mut command = command([verb, "--policy"]);
        command.arg(place.write("policy.yaml", POLICY));
        command.arg("--data-dir").arg(place.path("data")).args(more);
        command
    };
    check(&mut bare("open", &[]), 78, "keyring");
    assert!(!place.path("data").exists(), "opening made a key store");
    check(&mut bare("seal", &[]), 78, "declares a tenant");
    check(
        &mut bare("seal", &["--tenant", "a"]),
        78,
        "binds `customer`",
    );
    check(
        &mut filter("seal", &place, &["--route", "custmers"]),
        78,
        "did you mean `customers`",
    );
    check(
        &mut filter("seal", &place, &["--side", "response"]),
        78,
        "no route has rules that seal",
    );
    check(
        &mut filter("seal", &place, &["--bind", "x=$.y"]),
        78,
        "binds `x`",
    );
    check(
        &mut filter("seal", &place, &["--bind", "customer=$..y"]),
        78,
        "several values",
    );
    check(
        &mut filter("seal", &place, &["--on-error", "skip"]),
        78,
        "--rejects FILE",
    );
    check(
        &mut filter("seal", &place, &["--path", "/elsewhere"]),
        78,
        "does not take this path",
    );
    let (exit, ..) = through(&mut filter("seal", &place, &["--on-error", "leave"]), b"");
    assert_eq!(exit, 64, "nothing unsealed is written by `seal`");
}

/// A reader that has seen enough ends it, at once and without a word.
#[test]
fn a_reader_that_goes_away_ends_it() {
    let place = Place::new();
    let mut command = filter("seal", &place, &[]);
    // Made beforehand, so that nothing is said of it.
    through(
        &mut filter("seal", &place, &[]),
        b"{\"id\":1,\"ssn\":1,\"email\":1}",
    );
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.stderr(Stdio::piped()).spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = child.stdout.take().expect("piped");
    let writing = std::thread::spawn(move || {
        let record = b"{\"id\":1,\"ssn\":1,\"email\":1}\n";
        // More would be taken if it did not end.
        while stdin.write_all(record).is_ok() {}
    });
    stdout.read_exact(&mut [0; 1000]).expect("some output");
    drop(stdout);
    let output = child.wait_with_output().expect("ends");
    writing.join().expect("stops");
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
