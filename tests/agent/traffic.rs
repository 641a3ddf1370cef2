//! Under traffic: policies that change a hundred times and an end, and an agent that may open few files.

use crate::harness::{
    Answer, JSON, ORDER, Place, Program, SOON, Upstream, ask, command, connect, get, read_next,
};
use rustix::process::Signal;
use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: usize = 4;
const RELOADS: usize = 100;
/// Between two reloads, so that each meets exchanges of all kinds.
const ANSWERS_BETWEEN: usize = 40;

fn policy(field: &str) -> String {
    format!(
        "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {{name: orders}}\nclasses: {{{field}: {{key: k}}}}\nroutes:\n  \
         - {{name: orders, match: {{methods: [POST]}}, request: {{rules: [{{at: $..{field}, seal: {field}}}]}}, \
         response: {{rules: [{{at: $..{field}, open: {field}}}]}}}}\n"
    )
}

fn settings(place: &Place, upstream: &Upstream, more: &str) -> Vec<String> {
    place.write("policies/orders.yaml", &policy("ssn"));
    let text = format!(
        "policy: {{dir: policies, look_every: 1h, allow_weaker: true}}\n\
         listeners: [{{name: out, bind: '127.0.0.1:0', upstream: api}}]\nupstreams: {{api: {{url: '{}'}}}}\n\
         admin: {{bind: '127.0.0.1:0'}}\nprobes: {{bind: '127.0.0.1:0'}}\nlog: {{format: json}}\n{more}",
        upstream.url()
    );
    let file = place.write("settings.yaml", &text);
    let text = |path: std::path::PathBuf| path.to_str().expect("UTF-8").to_owned();
    let data = text(place.path("data"));
    vec![
        "run".into(),
        "--config".into(),
        text(file),
        "--data-dir".into(),
        data,
    ]
}

fn order() -> String {
    format!(
        "POST /orders HTTP/1.1\r\nHost: app\r\n{JSON}\r\nContent-Length: {}\r\n\r\n{ORDER}",
        ORDER.len()
    )
}

/// Sends orders on one connection after the other, until the agent lets go of it before an answer and takes no other.
/// Every answer that begins is whole, and has back what was sent.
fn client(out: SocketAddr, answers: &AtomicUsize) {
    let request = order();
    while let Ok(mut stream) = std::net::TcpStream::connect(out) {
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        while stream.write_all(request.as_bytes()).is_ok() {
            let Some(Answer { status, body, .. }) = read_next(&stream) else {
                break;
            };
            assert_eq!((status, &*body), (200, ORDER), "not of one version");
            answers.fetch_add(1, SeqCst);
        }
    }
}

#[test]
fn a_hundred_reloads_and_an_end_fail_no_request_and_mix_no_versions() {
    let (place, upstream) = (Place::new(), Upstream::start());
    let mut agent = Program::start(&mut command(settings(&place, &upstream, "")));
    let (out, admin) = (agent.address("out"), agent.address("admin"));
    let token = std::fs::read_to_string(place.path("data/admin.token")).expect("a token");
    let authorization = format!("Authorization: Bearer {}", token.trim());

    let answers = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let answers = Arc::clone(&answers);
            thread::spawn(move || client(out, &answers))
        })
        .collect();
    let await_answers = |more: usize| {
        let (begun, before) = (Instant::now(), answers.load(SeqCst));
        while answers.load(SeqCst) < before + more {
            assert!(begun.elapsed() < SOON, "no answers any more");
            thread::sleep(Duration::from_millis(1));
        }
    };
    for reload in 0..RELOADS {
        await_answers(ANSWERS_BETWEEN);
        let field = ["number", "ssn"][reload % 2];
        place.write("policies/orders.yaml", &policy(field));
        let reloaded = ask(admin, "POST /-/reload", &[&authorization], "");
        assert_eq!(
            (reloaded.status, &reloaded.json()["outcome"]),
            (200, &"loaded".into()),
            "{}",
            reloaded.body
        );
    }
    await_answers(ANSWERS_BETWEEN);
    agent.signal(Signal::TERM);
    for client in clients {
        client.join().expect("no request failed");
    }
    let (status, _, err) = agent.end();
    assert_eq!(status.code(), Some(0));

    // What went up was answered, and had one of the two fields sealed.
    let bodies = upstream.bodies();
    assert_eq!(bodies.len(), answers.load(SeqCst));
    let mut seen = [0; 2];
    for body in &bodies {
        let sealed = (!body.contains("123-45-6789"), !body.contains("411111"));
        assert!(sealed.0 != sealed.1, "not of one version: {body}");
        seen[usize::from(sealed.1)] += 1;
    }
    assert!(seen.iter().all(|count| *count >= RELOADS), "{seen:?}");
    // And the record says which: as many as the upstream saw of each.
    for (field, count) in ["ssn", "number"].into_iter().zip(seen) {
        let version = fieldveil::policy::version([&*policy(field)]);
        let word = format!("\"policy\":\"{version}\"");
        let recorded = err.lines().filter(|line| line.contains(&word)).count();
        assert_eq!(recorded, count, "{field}");
    }
}

/// More connections than files: what is too much waits, the rest is served, and nothing turns in circles.
#[test]
fn few_files_are_enough() {
    let (place, upstream) = (Place::new(), Upstream::start());
    let arguments = settings(&place, &upstream, "limits: {head_timeout: 300ms}\n");
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""]);
    shell
        .arg(env!("CARGO_BIN_EXE_fieldveil"))
        .args(&arguments)
        .stdin(std::process::Stdio::null());
    let mut agent = Program::start(&mut shell);
    let (out, probes) = (agent.address("out"), agent.address("probes"));
    let fewer = "fewer connections than limits.connections";
    agent.wait_for("a warning", |_, err| err.contains(fewer).then_some(()));

    let silent: Vec<_> = (0..100).map(|_| connect(out)).collect();
    // Behind all of them, in its turn.
    let stop = Arc::new(AtomicBool::new(false));
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut answers = 0;
                while !stop.load(SeqCst) || answers == 0 {
                    assert_eq!(crate::harness::post(out, "/", ORDER).body, ORDER);
                    answers += 1;
                }
            })
        })
        .collect();
    // Operators get through meanwhile.
    assert_eq!(get(probes, "/livez").status, 200);
    stop.store(true, SeqCst);
    for one in asking {
        one.join().expect("answered");
    }
    drop(silent);
    for _ in 0..20 {
        assert_eq!(crate::harness::post(out, "/", ORDER).body, ORDER);
    }
    let metrics = get(probes, "/metrics").body;
    assert!(
        metrics.contains("fieldveil_requests_in_flight{listener=\"out\"} 0"),
        "{metrics}"
    );
    let (_, err) = agent.terminate();
    assert!(!err.contains("cannot accept"), "{err}");
}

/// No file left for a connection: the agent says so, waits longer each time, and takes those that came as soon as it may.
#[test]
fn who_cannot_accept_does_not_turn_in_circles() {
    const SEEN: usize = 8;
    let (place, upstream) = (Place::new(), Upstream::start());
    let mut agent = Program::start(&mut command(settings(&place, &upstream, "")));
    let (out, probes) = (agent.address("out"), agent.address("probes"));
    assert_eq!(crate::harness::post(out, "/", ORDER).body, ORDER);

    let (begun, before) = (Instant::now(), agent.cpu_time());
    // Fewer than it has open: not one more.
    agent.limit_files(Some(1));
    let waiting: Vec<_> = (0..3).map(|_| connect(out)).collect();
    agent.wait_for("pauses", |_, err| {
        (err.matches("cannot accept").count() >= SEEN).then_some(())
    });
    let spent = agent.cpu_time().saturating_sub(before);
    agent.limit_files(None);
    let elapsed = begun.elapsed();

    // Those that waited are served, and further ones.
    for mut stream in waiting {
        stream.write_all(order().as_bytes()).expect("sent");
        assert_eq!(read_next(&stream).expect("an answer").body, ORDER);
    }
    assert_eq!(crate::harness::post(out, "/", ORDER).body, ORDER);
    let metrics = get(probes, "/metrics").body;
    let errors: u64 = metrics
        .lines()
        .find_map(|line| line.strip_prefix("fieldveil_accept_errors_total{listener=\"out\"} "))
        .and_then(|count| count.parse().ok())
        .expect("counted");
    // From 10 ms on each pause is twice the last one, up to a second: a loop without them would be at it millions of times.
    let most = SEEN as u64 + 1 + elapsed.as_secs();
    assert!(
        (SEEN as u64..=most).contains(&errors),
        "{errors} in {elapsed:?}"
    );
    assert!(
        spent * 2 < elapsed,
        "{spent:?} of processors in {elapsed:?}"
    );
    agent.terminate();
}
