//! Told to end.

use crate::harness::{
    ORDER, Place, Program, SOON, Upstream, connect, get, post, read_answer, run, send,
};
use rustix::process::Signal;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

#[track_caller]
fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < SOON, "not so: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_is_in_flight_finishes_and_nothing_else_begins() {
    let (place, upstream) = (Place::new(), Upstream::start());
    let mut agent = Program::start(&mut run(&upstream.url(), &place.path("data"), &[]));
    let (out, probes) = (agent.address("out"), agent.address("probes"));
    eventually("ready", || get(probes, "/readyz").status == 200);

    let slow = connect(out);
    send(&slow, "POST /slow", &[crate::harness::JSON], ORDER);
    upstream.await_slow();
    agent.signal(Signal::TERM);
    eventually("nobody listens", || TcpStream::connect(out).is_err());
    let ready = get(probes, "/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("[-] draining"), "{}", ready.body);
    assert_eq!(get(probes, "/livez").status, 200, "it lives");
    upstream.let_go();
    let answer = read_answer(&slow);
    assert_eq!((answer.status, answer.body.as_str()), (200, ORDER));
    let (status, _, err) = agent.end();
    assert_eq!(status.code(), Some(0), "{err}");
    assert!(
        err.contains("\"draining\"") && err.contains("\"ended\""),
        "{err}"
    );
    assert!(TcpStream::connect(probes).is_err());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (place, upstream) = (Place::new(), Upstream::start());
    let mut agent = Program::start(&mut run(&upstream.url(), &place.path("data"), &[]));
    let slow = connect(agent.address("out"));
    send(&slow, "POST /slow", &[crate::harness::JSON], ORDER);
    upstream.await_slow();
    agent.signal(Signal::INT);
    agent.wait_for("the drain", |_, err| {
        err.contains("\"draining\"").then_some(())
    });
    agent.signal(Signal::INT);
    let begun = Instant::now();
    let (status, _, err) = agent.end();
    assert_eq!(status.code(), Some(130), "{err}");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "not the 30 s of a drain"
    );
    upstream.let_go();
}

#[test]
fn a_drain_has_an_end() {
    let (place, upstream) = (Place::new(), Upstream::start());
    let settings = place.write(
        "settings.yaml",
        &format!(
            "policy: {{dir: policies}}\nlisteners: [{{name: out, bind: \"127.0.0.1:0\", upstream: api}}]\n\
             upstreams: {{api: {{url: \"{}\"}}}}\nlimits: {{drain: 200ms}}\nlog: {{format: json}}\n",
            upstream.url()
        ),
    );
    place.write("policies/p.yaml", "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {name: p}\nroutes: [{name: r, match: {}}]\n");
    let mut command = crate::harness::command(["run", "--config"]);
    command
        .arg(settings)
        .arg("--data-dir")
        .arg(place.path("data"));
    let mut agent = Program::start(&mut command);
    let slow = connect(agent.address("out"));
    send(&slow, "GET /slow", &[], "");
    upstream.await_slow();
    let (_, err) = agent.terminate();
    assert!(err.contains("drain: time is up"), "{err}");
    upstream.let_go();
}

#[test]
fn a_start_that_is_told_to_end_ends() {
    let (place, upstream) = (Place::new(), Upstream::start());
    for pause in [0, 1, 3, 10, 30] {
        let agent = Program::start(&mut run(&upstream.url(), &place.path("data"), &[]));
        thread::sleep(Duration::from_millis(pause));
        agent.signal(Signal::TERM);
        let (status, _, err) = agent.end();
        // Before it listens for signals, it dies of them as any program does.
        assert!(
            status.code() == Some(0)
                || std::os::unix::process::ExitStatusExt::signal(&status) == Some(15),
            "{status:?}: {err}"
        );
        // A start cut off in the middle of making the keys leaves what the next one has an opinion about.
        let _ = std::fs::remove_dir_all(place.path("data"));
    }
    let mut agent = Program::start(&mut run(&upstream.url(), &place.path("data"), &[]));
    assert_eq!(post(agent.address("out"), "/", ORDER).status, 200);
    agent.terminate();
}
