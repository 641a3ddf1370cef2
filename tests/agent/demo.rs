//! `fieldveil demo`, as anybody would try it.

use crate::harness::{
    JSON, ORDER, Program, ask, command, connect, done, get, post, read_answer, send,
};
use std::net::{SocketAddr, TcpListener};

fn demo(more: &[&str]) -> (Program, SocketAddr) {
    let args = ["demo", "--listen", "127.0.0.1:0"].iter().chain(more);
    let mut demo = Program::start(&mut command(args));
    let address = demo.wait_for("its address", |out, _| {
        let line = out
            .lines()
            .find(|line| line.starts_with("The agent listens on "))?;
        line.trim_start_matches("The agent listens on ")
            .split(';')
            .next()?
            .parse()
            .ok()
    });
    demo.wait_for("the whole beginning", |out, _| {
        out.contains("Ctrl-C ends it.").then_some(())
    });
    (demo, address)
}

/// The right columns of the lines that have two.
fn upstream_side(out: &str) -> String {
    let lines = out.lines().filter_map(|line| line.split_once(" │ "));
    lines.map(|(_, right)| format!("{right}\n")).collect()
}

#[test]
fn the_application_gets_its_plaintext_while_tokens_are_at_the_upstream() {
    let (mut demo, address) = demo(&[]);
    let made = post(address, "/orders", ORDER);
    assert_eq!((made.status, made.body.as_str()), (201, ORDER));
    assert_eq!(made.header("fieldveil-result"), Some("sealed=2, opened=2"));
    assert_eq!(made.header("location"), Some("/orders/1"));
    assert_eq!(get(address, "/orders/1").body, ORDER);
    assert_eq!(get(address, "/orders").body, format!("[{ORDER}]\n"));
    assert_eq!(get(address, "/orders/2").status, 404);
    assert_eq!(post(address, "/orders", "{\"name\":").status, 400);
    demo.wait_for("the last picture", |out, _| {
        out.contains("── 5. POST /orders").then_some(())
    });
    demo.signal(rustix::process::Signal::INT);
    let (status, out, err) = demo.end();
    assert_eq!(status.code(), Some(0), "{err}");
    assert_eq!(err, "", "nothing to complain about");

    // It says what it does, and what to try.
    assert!(
        out.contains("prints the bodies that pass through it"),
        "{out}"
    );
    let port = address.port();
    let curl =
        format!("curl -s localhost:{port}/orders -H 'content-type: application/json' -d '{ORDER}'");
    assert!(out.contains(&curl), "{out}");

    // Side by side: plaintext left, tokens right. Not a terminal: tokens are whole, and nothing is coloured.
    let (_, pictures) = out.split_once("── 1. POST /orders").expect("a picture");
    assert!(
        pictures.contains("the application sent") && pictures.contains("the upstream saw"),
        "{out}"
    );
    assert!(pictures.contains("\"ssn\": \"123-45-6789\""));
    let right = upstream_side(pictures);
    assert!(right.contains("\"name\": \"Ada\","), "{right}");
    assert!(
        right.contains("\"ssn\": \"fv1~") && right.contains("\"number\": \"fv1~"),
        "{right}"
    );
    assert!(
        !right.contains("123-45-6789") && !right.contains("4111"),
        "{right}"
    );
    let token = right
        .split("\"ssn\": \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("a token");
    assert!(fieldveil::cli::token::inspect(token).is_ok(), "{token}");
    assert!(right.contains("(nothing: the agent refused)"), "{right}");
    assert!(!out.contains('\x1b'), "{out}");
}

#[test]
fn what_is_difficult_to_follow_is_shown_too() {
    let (mut demo, address) = demo(&[]);
    // Two requests on one connection, the first in chunks.
    let stream = connect(address);
    let chunked = format!(
        "POST /orders HTTP/1.1\r\nHost: x\r\n{JSON}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{ORDER}\r\n0\r\n\r\n",
        ORDER.len()
    );
    std::io::Write::write_all(&mut &stream, chunked.as_bytes()).expect("sends");
    assert_eq!(read_answer(&stream).body, ORDER);
    send(&stream, "GET /orders/1", &[], "");
    assert_eq!(read_answer(&stream).body, ORDER);
    assert_eq!(ask(address, "DELETE /orders/1", &[], "").status, 405);
    demo.wait_for("three pictures", |out, _| {
        (out.contains("── 1. POST /orders ")
            && out.contains("── 2. GET /orders/1 ")
            && out.contains("── 3. DELETE /orders/1 "))
        .then_some(())
    });
    assert!(upstream_side(&demo.out()).contains("\"ssn\": \"fv1~"));
    demo.terminate();
}

#[test]
fn probes_and_metrics_are_on_a_free_port() {
    let (mut demo, address) = demo(&[]);
    let probes: SocketAddr = demo.wait_for("the probes", |out, _| {
        out.split("curl -s ")
            .find_map(|rest| rest.split("/readyz").next()?.parse().ok())
    });
    assert_eq!(post(address, "/orders", ORDER).status, 201);
    assert_eq!(get(probes, "/readyz").status, 200);
    let metrics = get(probes, "/metrics").body;
    assert!(
        metrics.contains(
            "fieldveil_fields_total{class=\"ssn\",operation=\"sealed\",mode=\"enforce\"} 1"
        ),
        "{metrics}"
    );
    demo.terminate();
}

#[test]
fn a_taken_port_is_said_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let (code, out, err) = done(&mut command(["demo", "--listen", &address]));
    assert_eq!((code, out.as_str()), (69, ""));
    assert!(
        err.contains(&format!("cannot listen on {address}")),
        "{err}"
    );
    assert!(err.contains("hint: stop what listens there, or choose another port: fieldveil demo --listen 127.0.0.1:"), "{err}");
}

#[test]
fn nobody_looking_ends_it() {
    let mut demo = command(["demo", "--listen", "127.0.0.1:0"]);
    let mut child = demo
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    // Closed before a word is read, as `| head -0` does it.
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
