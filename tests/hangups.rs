//! Ten thousand clients that hang up in mid-request, at any point, leave no task, connection, permit or file descriptor behind.
//!
//! Alone in its program, since it counts the process's file descriptors.

#[path = "support/documents.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod documents;

use documents::Luck;
use fieldveil::app::{App, Given, Running};
use fieldveil::settings::{Overrides, Settings};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const CLIENTS: usize = 10_000;
const AT_ONCE: usize = 32;
/// As few as may be, so that a lost one shows.
const CONNECTIONS: usize = 128;
const IN_FLIGHT: usize = 64;
const SOON: Duration = Duration::from_secs(60);

const POLICY: &str = "
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: hangups}
classes: {ssn: {key: default}}
routes:
  - name: sealed
    match: {path: '/sealed/{rest*}'}
    request: {rules: [{at: $..ssn, seal: ssn}]}
    response: {rules: [{at: $..*, open: ssn}]}
";

fn settings(directory: &Path, upstream: SocketAddr) -> Settings {
    let policies = directory.join("policies");
    std::fs::create_dir(&policies).expect("a directory");
    std::fs::write(policies.join("hangups.yaml"), POLICY).expect("a file");
    let text = format!(
        "listeners: [{{name: out, mode: reverse, bind: '127.0.0.1:0', upstream: api}}]\n\
         upstreams: {{api: {{url: 'http://{upstream}'}}}}\n\
         limits: {{in_flight: {IN_FLIGHT}, connections: {CONNECTIONS}}}\n"
    );
    let overrides = Overrides {
        config: Some(directory.join("settings.yaml")),
        policies: Some(policies),
        data_dir: Some(directory.join("data")),
        ..Overrides::default()
    };
    match Settings::load(&overrides, |_| Ok(text.clone())) {
        Ok(settings) => settings,
        Err(found) => panic!("{found:?}"),
    }
}

/// The agent, and what is counted of it.
struct Agent {
    runtime: Runtime,
    running: Running,
    address: SocketAddr,
}

/// What must be the same before and after.
#[derive(Debug, PartialEq)]
struct Left {
    connections: f64,
    in_flight: f64,
    tasks: usize,
    key_tasks: usize,
    descriptors: usize,
}

impl Agent {
    fn start(settings: Settings) -> Agent {
        let runtime = runtime();
        let running = runtime
            .block_on(App::start(settings, Given::default()))
            .expect("the agent starts");
        let address = running.listeners()[0].1;
        Agent {
            runtime,
            running,
            address,
        }
    }

    fn left(&self) -> Left {
        let metrics = self.running.metrics().encode();
        let gauge = |name: &str| {
            metrics
                .lines()
                .find(|line| line.starts_with(name))
                .and_then(|line| line.rsplit(' ').next()?.parse().ok())
                .unwrap_or_else(|| panic!("{name} in {metrics}"))
        };
        Left {
            connections: gauge("fieldveil_connections{"),
            in_flight: gauge("fieldveil_requests_in_flight{"),
            tasks: self.runtime.metrics().num_alive_tasks(),
            key_tasks: self.running.keys().tasks(),
            descriptors: std::fs::read_dir("/proc/self/fd").expect("/proc").count(),
        }
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Answers by the path's last word; a connection is a task, and all end with it.
struct Upstream {
    address: SocketAddr,
    waiting: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    async fn start(address: &str) -> Upstream {
        // The address is taken again at once: there may be connections on it that are not quite gone.
        let socket = TcpListener::bind(address).await.expect("an address");
        let mut upstream = Upstream {
            address: socket.local_addr().expect("bound"),
            waiting: Arc::default(),
            _tasks: JoinSet::new(),
        };
        let waiting = upstream.waiting.clone();
        upstream._tasks.spawn(async move {
            let mut lines = JoinSet::new();
            while let Ok((stream, _)) = socket.accept().await {
                let waiting = waiting.clone();
                lines.spawn(async move {
                    let _ = serve(stream, &waiting).await;
                });
                while lines.try_join_next().is_some() {}
            }
        });
        upstream
    }
}

async fn serve(mut stream: TcpStream, waiting: &AtomicUsize) -> std::io::Result<()> {
    let mut kept = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = kept.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = kept.drain(..end + 4).collect();
                break String::from_utf8_lossy(&head).to_ascii_lowercase();
            }
            more(&mut stream, &mut kept).await?;
        };
        let body = if head.contains("transfer-encoding: chunked") {
            loop {
                if let Some(end) = kept.windows(5).position(|window| window == b"0\r\n\r\n") {
                    break kept.drain(..end + 5).collect();
                }
                more(&mut stream, &mut kept).await?;
            }
        } else {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok())
                .unwrap_or(0);
            while kept.len() < length {
                more(&mut stream, &mut kept).await?;
            }
            kept.drain(..length).collect::<Vec<u8>>()
        };
        let path = head.split(' ').nth(1).unwrap_or_default();
        let answer = |length: usize| {
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
            )
        };
        if path.ends_with("/slow") {
            waiting.fetch_add(1, SeqCst);
            let gone = more(&mut stream, &mut kept).await;
            waiting.fetch_sub(1, SeqCst);
            gone?;
        } else if path.ends_with("/stall") {
            stream.write_all(answer(100_000).as_bytes()).await?;
            stream.write_all(b"[1, 2, ").await?;
            more(&mut stream, &mut kept).await?;
        } else if path.ends_with("/big") {
            let body = format!("[{}1]", "\"0123456789\", ".repeat(70_000));
            stream.write_all(answer(body.len()).as_bytes()).await?;
            stream.write_all(body.as_bytes()).await?;
        } else {
            stream.write_all(answer(body.len()).as_bytes()).await?;
            stream.write_all(&body).await?;
        }
    }
}

/// More bytes; an error at the end.
async fn more(stream: &mut TcpStream, kept: &mut Vec<u8>) -> std::io::Result<()> {
    let mut bytes = [0; 16_384];
    match stream.read(&mut bytes).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        count => {
            kept.extend_from_slice(&bytes[..count]);
            Ok(())
        }
    }
}

const BODY: &str = r#"{"name": "Ada", "ssn": "078-05-1120", "list": [{"ssn": 1}, {"ssn": null}]}"#;

fn head(path: &str, framing: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: api\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
    )
}

/// Where a client hangs up, in the order of a request's life. Each must happen.
const POINTS: usize = 9;

async fn hang_up(point: usize, luck: &mut Luck, agent: SocketAddr) -> std::io::Result<()> {
    let mut stream = timeout(SOON, TcpStream::connect(agent)).await??;
    stream.set_nodelay(true)?;
    let side = if luck.one_in(2) {
        "/sealed"
    } else {
        "/streamed"
    };
    let sized = format!("Content-Length: {}", BODY.len());
    let whole = |path: &str| head(&format!("{side}/{path}"), &sized) + BODY;
    match point {
        // At once.
        0 => {}
        // In the head.
        1 => {
            let head = head(&format!("{side}/echo"), &sized);
            stream
                .write_all(&head.as_bytes()[..luck.below(head.len())])
                .await?;
        }
        // In the body.
        2 => {
            let (whole, from) = (whole("echo"), head(&format!("{side}/echo"), &sized).len());
            let cut = from + luck.below(BODY.len());
            stream.write_all(&whole.as_bytes()[..cut]).await?;
        }
        // In a chunk, or between two.
        3 => {
            let chunked = head(&format!("{side}/echo"), "Transfer-Encoding: chunked")
                + &format!("{:x}\r\n{}\r\n5\r\n  ", 9, &BODY[..9]);
            let cut = chunked.len() - luck.below(20);
            stream.write_all(&chunked.as_bytes()[..cut]).await?;
        }
        // Having asked whether the body is wanted.
        4 => {
            let asking = head(
                &format!("{side}/echo"),
                &format!("{sized}\r\nExpect: 100-continue"),
            );
            stream.write_all(asking.as_bytes()).await?;
            if luck.one_in(2) {
                let _ = timeout(SOON, stream.read(&mut [0; 64])).await?;
            }
        }
        // While the upstream thinks.
        5 => {
            stream.write_all(whole("slow").as_bytes()).await?;
            sleep(Duration::from_millis(luck.below(4) as u64)).await;
        }
        // In an answer that the upstream never finishes.
        6 => {
            stream.write_all(whole("stall").as_bytes()).await?;
            sleep(Duration::from_millis(luck.below(4) as u64)).await;
        }
        // In an answer that is too much to take.
        7 => {
            stream.write_all(whole("big").as_bytes()).await?;
            let mut bytes = vec![0; 1 + luck.below(40_000)];
            let _ = timeout(SOON, stream.read(&mut bytes)).await?;
        }
        // Behind several requests at once, with an answer or none.
        _ => {
            let several = whole("echo").repeat(2) + &whole("big")[..luck.below(60)];
            stream.write_all(several.as_bytes()).await?;
            if luck.one_in(2) {
                let _ = timeout(SOON, stream.read(&mut [0; 64])).await?;
            }
        }
    }
    match luck.below(3) {
        // Half of the connection first.
        0 => stream.shutdown().await,
        // With a reset instead of an end.
        1 => stream.set_zero_linger(),
        _ => Ok(()),
    }
}

async fn ask(agent: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(agent).await?;
    let request = head(
        path,
        &format!("Content-Length: {}\r\nConnection: close", BODY.len()),
    ) + BODY;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await??;
    Ok(answer)
}

async fn serves(agent: SocketAddr) {
    for path in ["/sealed/echo", "/streamed/echo"] {
        let answer = ask(agent, path).await.expect("an answer");
        assert!(
            answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with(BODY),
            "{answer}"
        );
    }
}

#[track_caller]
fn eventually(what: &str, mut is: impl FnMut() -> Result<(), String>) {
    let begun = Instant::now();
    while let Err(found) = is() {
        assert!(begun.elapsed() < SOON, "{what}: {found}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn clients_that_hang_up_leave_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let world = runtime();
    let upstream = world.block_on(Upstream::start("127.0.0.1:0"));
    let address = upstream.address;
    let agent = Agent::start(settings(directory.path(), address));

    // One of each before the count begins, so that what is made once is made; and then without the pool's connections.
    let mut luck = Luck::new("hang-ups");
    world.block_on(async {
        serves(agent.address).await;
        for point in 0..POINTS {
            hang_up(point, &mut luck, agent.address)
                .await
                .expect("a connection");
        }
        serves(agent.address).await;
    });
    drop(upstream);
    let quiet = |left: &Left| left.connections == 0.0 && left.in_flight == 0.0;
    let mut before = agent.left();
    eventually("quiet", || {
        std::thread::sleep(Duration::from_millis(200));
        let now = agent.left();
        let same = quiet(&now) && now == before;
        before = now;
        if same {
            Ok(())
        } else {
            Err(format!("{before:?}"))
        }
    });

    println!("before: {before:?}");

    let upstream = world.block_on(Upstream::start(&address.to_string()));
    world.block_on(async {
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            if clients.len() == AT_ONCE {
                clients
                    .join_next()
                    .await
                    .expect("a client")
                    .expect("no panic");
            }
            let (mut luck, agent) = (luck.fork(), agent.address);
            // A reset by the agent, which refused what it had of the request, is an end like another.
            clients.spawn(async move { drop(hang_up(number % POINTS, &mut luck, agent).await) });
        }
        while let Some(client) = clients.join_next().await {
            client.expect("no panic");
        }
    });
    // The storm was one: requests ended in each way that a hang-up can end one.
    let metrics = agent.running.metrics().encode();
    let ended = |outcome: &str| -> u64 {
        metrics
            .lines()
            .filter(|line| line.starts_with("fieldveil_requests_total{"))
            .filter(|line| line.contains(&format!("outcome=\"{outcome}\"")))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    };
    for outcome in ["answered", "aborted", "body-broken"] {
        let count = ended(outcome);
        println!("{outcome}: {count}");
        assert!(count > CLIENTS as u64 / 20, "{outcome}: {count}");
    }
    assert_eq!(ended("upstream-broken"), 0, "it was never the upstream");
    eventually("no connection, no request", || {
        let left = agent.left();
        if quiet(&left) {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
    eventually("nothing waits at the upstream", || {
        match upstream.waiting.load(SeqCst) {
            0 => Ok(()),
            waiting => Err(waiting.to_string()),
        }
    });

    // Every permit is there: as many requests at once as may be, and no more; as many connections as may be.
    world.block_on(async {
        serves(agent.address).await;
        let mut asking = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            asking.spawn(ask(agent.address, "/sealed/slow"));
        }
        let begun = Instant::now();
        while upstream.waiting.load(SeqCst) < IN_FLIGHT {
            let waiting = upstream.waiting.load(SeqCst);
            assert!(
                begun.elapsed() < SOON,
                "{waiting} of {IN_FLIGHT} permits are left"
            );
            sleep(Duration::from_millis(5)).await;
        }
        let refused = ask(agent.address, "/sealed/echo").await.expect("an answer");
        assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
        asking.shutdown().await;
        let mut lines = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut line = TcpStream::connect(agent.address)
                .await
                .expect("a connection");
            line.write_all(b"GET /streamed/echo HTTP/1.1\r\nHost: api\r\n\r\n")
                .await
                .expect("sent");
            let count = timeout(SOON, line.read(&mut [0; 64])).await;
            assert!(
                matches!(count, Ok(Ok(1..))),
                "connection {} is not served",
                lines.len()
            );
            lines.push(line);
        }
    });

    drop(upstream);
    eventually("as before", || {
        let left = agent.left();
        if left == before {
            Ok(())
        } else {
            Err(format!("{left:?}, not {before:?}"))
        }
    });
    // And it serves as ever.
    let upstream = world.block_on(Upstream::start(&address.to_string()));
    world.block_on(serves(agent.address));
    drop(upstream);
    agent.runtime.block_on(agent.running.drain());
}
