//! Warm traffic before a KMS that answers after ten seconds, beside the same traffic before one that is well: two agents in one
//! process, asked in turn, so that the machine's noise hits both alike.

use bytes::Bytes;
use fieldveil::app::{App, Given, Running};
use fieldveil::cli::{Cli, Command};
use fieldveil::kms::Kms;
use fieldveil::kms::fake::{Fake, Verb};
use fieldveil::settings::Settings;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};

/// As long as there is one number for each.
const ROUNDS: usize = 12;
const ROUND: Duration = Duration::from_secs(5);
const BODY: &str = r#"{"name":"Ada","ssn":"123-45-6789","cards":[{"number":"4111111111111111"},{"number":"5555555555554444"}]}"#;

const POLICY: &str = "\
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: bench}
classes: {ssn: {key: cards}}
routes:
  - name: all
    match: {path: \"/{rest*}\"}
    request: {rules: [{at: $..ssn, seal: ssn}, {at: $..number, seal: ssn}]}
    response: {rules: [{at: $..ssn, open: ssn}, {at: $..number, open: ssn}]}
";

/// Answers with what it got.
async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let echo = service_fn(|request: Request<Incoming>| async move {
                let body = request.into_body().collect().await;
                let body = body.map(|body| body.to_bytes()).unwrap_or_default();
                let answer = Response::builder().header("content-type", "application/json");
                Ok::<_, Infallible>(answer.body(Full::new(body)).expect("a good answer"))
            });
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), echo));
        }
    });
    address
}

/// A lease is renewed some thirty times in the time of the bench.
async fn agent(upstream: SocketAddr, dir: &Path, fake: &Arc<Fake>) -> Running {
    std::fs::create_dir_all(dir.join("policies")).expect("a directory");
    std::fs::write(dir.join("policies/bench.yaml"), POLICY).expect("a file");
    let text = format!(
        "\
policy: {{dir: policies}}
listeners: [{{name: out, bind: 127.0.0.1:0, upstream: api}}]
upstreams: {{api: {{url: http://{upstream}}}}}
kms: {{fake: {{type: keyring, dir: none, unlock: {{key_file: none}}}}}}
keys: {{cards: {{seal_with: [fake/k], lease: 2s, grace: 1h}}}}
"
    );
    let file = dir.join("settings.yaml");
    std::fs::write(&file, text).expect("a file");
    let words = ["fieldveil", "run", "--config"].map(Into::into);
    let words = words.into_iter().chain([file.into_os_string()]);
    let Ok(cli) = Cli::from_arguments(words) else {
        panic!("good arguments");
    };
    let Command::Run(args) = cli.command else {
        panic!("the command that was given");
    };
    let settings = Settings::load(&args.overrides(|_| false), |path| {
        std::fs::read_to_string(path)
    });
    let settings = settings.unwrap_or_else(|_| panic!("good settings"));
    let given = Given {
        kms: vec![("fake".into(), Arc::clone(fake) as Arc<dyn Kms>)],
        ..Given::default()
    };
    let started = App::start(settings, given).await;
    started.unwrap_or_else(|error| panic!("an agent: {error:?}"))
}

async fn connect(agent: &Running) -> SendRequest<Full<Bytes>> {
    let address = agent.listeners()[0].1;
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    sender
}

async fn exchange(sender: &mut SendRequest<Full<Bytes>>) -> Duration {
    sender.ready().await.expect("a connection");
    let begun = Instant::now();
    let request = Request::post("/orders")
        .header("host", "api.example.com")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from_static(BODY.as_bytes())))
        .expect("a good request");
    let answer = sender.send_request(request).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.expect("its body");
    assert_eq!(body.to_bytes(), BODY.as_bytes());
    begun.elapsed()
}

fn at(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share) as usize]
}

pub async fn run() {
    let upstream = upstream().await;
    let dir = tempfile::tempdir().expect("a directory");
    let fakes = [Arc::new(Fake::new("fake")), Arc::new(Fake::new("fake"))];
    let [well, slow] = &fakes;
    fakes
        .iter()
        .for_each(|fake| fake.set_latency(Duration::from_millis(5)));
    let agents = [
        agent(upstream, &dir.path().join("well"), well).await,
        agent(upstream, &dir.path().join("slow"), slow).await,
    ];
    let mut senders = [connect(&agents[0]).await, connect(&agents[1]).await];
    for _ in 0..2_000 {
        for sender in &mut senders {
            exchange(sender).await;
        }
    }
    slow.set_latency(Duration::from_secs(10));
    let before = slow.count(Verb::Unwrap);
    let (mut all, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
    for _ in 0..ROUNDS {
        let mut times = [Vec::new(), Vec::new()];
        let begun = Instant::now();
        while begun.elapsed() < ROUND {
            for (sender, times) in senders.iter_mut().zip(&mut times) {
                times.push(exchange(sender).await);
            }
        }
        let [well, slow] = [0, 1].map(|which| at(&mut times[which], 0.99));
        ratios.push(slow.as_secs_f64() / well.as_secs_f64());
        for (all, times) in all.iter_mut().zip(times) {
            all.extend(times);
        }
    }
    let asked = slow.count(Verb::Unwrap) - before;
    assert!(asked > 0, "no lease came to be renewed");
    println!(
        "slow KMS: answers after 10 s, lease 2 s; {asked} calls in {ROUNDS} rounds of {ROUND:?}, none answered in time"
    );
    for (name, times) in ["healthy", "slow"].iter().zip(&mut all) {
        let count = times.len();
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| at(times, share));
        println!("  {name}: {count} requests, p50 {p50:?}, p99 {p99:?}, p99.9 {p999:?}");
    }
    let [well, slow] = [0, 1].map(|which| at(&mut all[which], 0.99).as_secs_f64());
    ratios.sort_unstable_by(f64::total_cmp);
    println!(
        "  p99 slow to healthy: {:.3} over all, {:.3} the median of the rounds ({:.3} to {:.3})",
        slow / well,
        ratios[ROUNDS / 2],
        ratios[0],
        ratios[ROUNDS - 1]
    );
    for agent in agents {
        agent.drain().await;
    }
}
