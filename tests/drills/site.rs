//! Where a drill happens: a policy, an upstream that keeps what it is told to keep, settings, and agents.

use crate::bao::Bao;
use crate::client::{Answer, Client};
use crate::emulator::Emulator;
use crate::harness::{Place, Program, command, done, get};
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What is waited for comes sooner, on any machine.
pub const SOON: Duration = Duration::from_secs(60);

/// Values begin with it, so that one in clear is seen.
pub const MARK: &str = "clear-";

const POLICY: &str = "\
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: drill}
tenant: {header: X-Tenant}
classes: {ssn: {key: cards}}
routes:
  - name: all
    match: {path: \"/{rest*}\"}
    request: {rules: [{at: $..ssn, seal: ssn}]}
    response: {rules: [{at: $..ssn, open: ssn}]}
";

/// As above, with a deterministic class.
const POLICY_DETERMINISTIC: &str = "\
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: drill}
tenant: {header: X-Tenant}
classes: {ssn: {key: cards}, email: {key: cards, mode: deterministic}}
routes:
  - name: all
    match: {path: \"/{rest*}\"}
    request: {rules: [{at: $..ssn, seal: ssn}, {at: $..email, seal: email}]}
    response: {rules: [{at: $..ssn, open: ssn}, {at: $..email, open: email}]}
";

/// Keeps the body of `POST /keep/N` for `GET /keep/N`; answers every POST with what it got.
#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    kept: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    in_clear: Arc<AtomicUsize>,
}

impl Upstream {
    fn start() -> Upstream {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let upstream = Upstream {
            address: socket.local_addr().expect("bound"),
            kept: Arc::default(),
            in_clear: Arc::default(),
        };
        let serving = upstream.clone();
        std::thread::spawn(move || {
            for stream in socket.incoming() {
                let (serving, stream) = (serving.clone(), stream.expect("a connection"));
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        upstream
    }

    /// Requests with a Content-Length, one after the other. None: the connection ended.
    fn serve(&self, stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut reader = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head).ok()? == 0 {
                    return None;
                }
            }
            let target = head.split(' ').nth(1)?.to_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                let is_it = name.eq_ignore_ascii_case("content-length");
                is_it.then(|| value.trim().parse().expect("a length"))
            });
            let mut body = vec![0; length.unwrap_or(0)];
            reader.read_exact(&mut body).ok()?;
            if body.windows(MARK.len()).any(|part| part == MARK.as_bytes()) {
                self.in_clear.fetch_add(1, SeqCst);
            }
            let mut kept = self.kept.lock().expect("kept");
            let answer = match head.starts_with("POST") {
                true => {
                    if target.starts_with("/keep/") {
                        kept.insert(target, body.clone());
                    }
                    body
                }
                false => kept.get(&target).cloned().unwrap_or_default(),
            };
            drop(kept);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                answer.len()
            );
            let answer = [head.as_bytes(), &answer].concat();
            reader.get_mut().write_all(&answer).ok()?;
        }
    }

    /// What it got and keeps under this number.
    pub fn kept(&self, number: usize) -> Value {
        let kept = self.kept.lock().expect("kept");
        serde_json::from_slice(&kept[&format!("/keep/{number}")]).expect("JSON")
    }

    /// How many bodies came with a value in clear.
    pub fn in_clear(&self) -> usize {
        self.in_clear.load(SeqCst)
    }
}

pub struct Site {
    pub place: Place,
    pub upstream: Upstream,
}

impl Site {
    pub fn new() -> Site {
        Site::with_policy(POLICY)
    }

    pub fn with_deterministic() -> Site {
        Site::with_policy(POLICY_DETERMINISTIC)
    }

    fn with_policy(policy: &str) -> Site {
        let place = Place::new();
        place.write("policies/drill.yaml", policy);
        let site = Site {
            place,
            upstream: Upstream::start(),
        };
        site.private("admin.token", "0123456789abcdef0123456789abcdef");
        site
    }

    /// A settings file with these KMSs, keys and further lines.
    pub fn settings(&self, file: &str, kms: &[String], cards: &str, more: &str) {
        let (upstream, kms) = (self.upstream.address, kms.join("\n  "));
        let text = format!(
            "\
policy: {{dir: policies}}
listeners: [{{name: out, bind: 127.0.0.1:0, upstream: api}}]
upstreams: {{api: {{url: http://{upstream}}}}}
probes: {{bind: 127.0.0.1:0}}
admin: {{bind: 127.0.0.1:0, token_file: admin.token}}
log: {{format: json, level: info}}
limits: {{new_tenants: 100000}}
kms:
  {kms}
keys: {{cards: {{{cards}}}}}
{more}
"
        );
        self.place.write(file, &text);
    }

    /// The words of a KMS `vault`.
    pub async fn vault(&self, bao: &Bao) -> String {
        let (role_id, secret_id) = bao.role().await;
        let file = format!("{role_id}.secret");
        self.private(&file, &secret_id);
        let url = &bao.url;
        format!(
            "vault: {{type: transit, address: \"{url}\", identity: v/transit, auth: {{approle: {{role_id: {role_id}, secret_id_file: {file}}}}}}}"
        )
    }

    /// The words of a KMS `aws`.
    pub fn aws(emulator: &Emulator) -> String {
        let url = &emulator.url;
        format!("aws: {{type: aws, region: us-east-1, endpoint: \"{url}\"}}")
    }

    /// A file for nobody else.
    pub fn private(&self, name: &str, text: &str) {
        let path = self.place.write(name, text);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path, mode).expect("made");
    }

    pub fn agent(&self, settings: &str) -> Agent {
        let mut run = command(["run", "--config"]);
        run.arg(self.place.path(settings));
        run.env("AWS_ACCESS_KEY_ID", "id");
        run.env("AWS_SECRET_ACCESS_KEY", "secret");
        let mut program = Program::start(&mut run);
        let (out, probes) = (program.address("out"), program.address("probes"));
        let admin = program.address("admin");
        Agent {
            program,
            out,
            probes,
            admin,
        }
    }

    /// `fieldveil keys VERB` at this agent, which must go well.
    #[track_caller]
    pub fn keys(&self, agent: &Agent, words: &[&str]) -> Value {
        let mut command = command(["--output", "json", "keys"]);
        command.args(words).arg("--token-file");
        command.arg(self.place.path("admin.token"));
        command.arg("--admin").arg(agent.admin.to_string());
        let (exit, out, err) = done(&mut command);
        assert_eq!(exit, 0, "{out}{err}");
        serde_json::from_str(&out).expect("JSON")
    }

    /// `fieldveil store VERB`, which must go well.
    #[track_caller]
    pub fn store(&self, verb: &str, settings: &str, more: &[&str]) -> Value {
        let mut command = command(["--output", "json", "store", verb, "--config"]);
        command.arg(self.place.path(settings)).args(more);
        command.env("AWS_ACCESS_KEY_ID", "id");
        command.env("AWS_SECRET_ACCESS_KEY", "secret");
        let (exit, out, err) = done(&mut command);
        assert_eq!(exit, 0, "{out}{err}");
        serde_json::from_str(&out).expect("JSON")
    }
}

/// The program, running.
pub struct Agent {
    pub program: Program,
    pub out: SocketAddr,
    probes: SocketAddr,
    admin: SocketAddr,
}

impl Agent {
    /// The sum of a metric's series whose labels hold all of these.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let page = get(self.probes, "/metrics").body;
        let series = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labelled, value) = rest.rsplit_once(' ')?;
            let is_it = labelled.is_empty() || labelled.starts_with('{');
            let all = labels.iter().all(|label| labelled.contains(label));
            (is_it && all).then(|| value.parse::<f64>().expect("a number"))
        });
        series.sum()
    }

    pub fn calls(&self, labels: &[&str]) -> f64 {
        self.metric("fieldveil_kms_calls_total", labels)
    }

    /// One request for a tenant.
    pub fn ask(&self, tenant: &str, path: &str, body: Option<&str>) -> Answer {
        let mut client = Client::to(self.out);
        let tenant = format!("X-Tenant: {tenant}\r\n");
        match body {
            Some(body) => {
                let lines = format!("Content-Type: application/json\r\n{tenant}");
                client.post_as(&lines, path, body.as_bytes())
            }
            None => {
                client.say(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{tenant}\r\n").as_bytes());
                client.answer().expect("an answer")
            }
        }
    }

    /// Has the upstream keep this document, sealed, under a number.
    #[track_caller]
    pub fn keep(&self, tenant: &str, number: usize, body: &str) {
        let answer = self.ask(tenant, &format!("/keep/{number}"), Some(body));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body, body.as_bytes(), "{answer:?}");
    }
}

/// Waits until it is so.
#[track_caller]
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "{what} did not come");
        sleep(Duration::from_millis(20));
    }
}

/// A number from the environment.
pub fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is no number")),
        Err(_) => default,
    }
}
