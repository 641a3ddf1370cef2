//! The road in process: one request at a time over one connection, through an agent with warm keys, beside the same request without an
//! agent. The difference is what the agent adds, sockets included.
//!
//! `cargo bench --bench road`; see benches/README.md.

mod bodies;

use bodies::{PATHS, bodies};
use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use fieldveil::app::{App, Given, Running};
use fieldveil::cli::{Cli, Command};
use fieldveil::settings::Settings;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// An upstream that answers 200 with a short body, whatever it gets.
async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let answer = service_fn(|request: Request<Incoming>| async move {
                let _ = request.into_body().collect().await;
                let body = Full::new(Bytes::from_static(b"{\"ok\":true}"));
                let answer = Response::builder().header("content-type", "application/json");
                Ok::<_, Infallible>(answer.body(body).expect("a good answer"))
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer),
            );
        }
    });
    address
}

/// An agent before it, from flags as a user would give them.
async fn agent(upstream: SocketAddr, seal: &[&str], data_dir: &std::path::Path) -> Running {
    let upstream = format!("http://{upstream}");
    let mut words = vec![
        "fieldveil",
        "run",
        "--listen",
        "127.0.0.1:0",
        "--upstream",
        &upstream,
    ];
    for path in seal {
        words.extend(["--seal", path]);
    }
    let Ok(cli) = Cli::from_arguments(words.into_iter().map(Into::into)) else {
        panic!("good arguments");
    };
    let Command::Run(mut args) = cli.command else {
        panic!("the command that was given");
    };
    args.data_dir = Some(data_dir.to_owned());
    let settings = Settings::load(&args.overrides(|_| false), |path| {
        std::fs::read_to_string(path)
    })
    .unwrap_or_else(|_| panic!("good settings"));
    App::start(settings, Given::default())
        .await
        .unwrap_or_else(|error| panic!("an agent: {error:?}"))
}

async fn connect(address: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    sender
}

async fn exchange(sender: &mut SendRequest<Full<Bytes>>, body: Bytes) {
    let request = Request::post("/orders")
        .header("host", "api.example.com")
        .header("content-type", "application/json")
        .body(Full::new(body))
        .expect("a good request");
    let answer = sender.send_request(request).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    answer.into_body().collect().await.expect("its body");
}

fn road(c: &mut Criterion) {
    let runtime = Runtime::new().expect("threads");
    let directory = tempfile::tempdir().expect("a directory");
    let (small, _) = bodies();
    let bodies: Vec<Bytes> = small.into_iter().map(Bytes::from).collect();
    let (direct, passing, sealing) = runtime.block_on(async {
        let direct = upstream().await;
        let nowhere = ["$.nothing_of_this_name"];
        let passing = agent(direct, &nowhere, &directory.path().join("passing")).await;
        let sealing = agent(direct, &PATHS, &directory.path().join("sealing")).await;
        (direct, passing, sealing)
    });
    let address = |running: &Running| running.listeners()[0].1;
    let mut group = c.benchmark_group("road, 2 KB request");
    for (name, address) in [
        ("without an agent", direct),
        ("nothing sealed", address(&passing)),
        ("7 fields sealed", address(&sealing)),
    ] {
        let mut sender = runtime.block_on(connect(address));
        let mut turn = bodies.iter().cycle();
        group.bench_function(name, |b| {
            b.iter(|| {
                let body = turn.next().cloned().unwrap_or_default();
                runtime.block_on(exchange(&mut sender, body));
            });
        });
    }
    group.finish();
    runtime.block_on(async {
        passing.drain().await;
        sealing.drain().await;
    });
}

criterion_group!(benches, road);
criterion_main!(benches);
