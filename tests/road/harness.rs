//! An agent in process, an upstream that does as it is told, and a client that sends bytes.

use fieldveil::audit::{Caller, Entry, Observe, Outcome, Passed};
use fieldveil::body::Body;
use fieldveil::dek::{
    Dek, Kid, MATERIAL_LEN, Material, Needs, Ring, SealingKey, Unopened, schedule,
};
use fieldveil::error::{Code, Error};
use fieldveil::listener::{self, Gauges, Listener, Socket};
use fieldveil::policy::{HostPattern, Policies, Policy};
use fieldveil::proxy::{KeySource, Limits, Proxy};
use fieldveil::transform::Tally;
use fieldveil::upstream::{self, OwnAddresses, Targets, Upstream, Upstreams};
use http::Method;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Long enough on a busy machine, short enough to fail.
pub const SOON: Duration = Duration::from_secs(20);

/// An upstream: what it got, byte for byte, and how many connections. When it goes, the test fails if one of its scripts did.
#[derive(Clone)]
pub struct Raw {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    pub got: Arc<Mutex<Vec<u8>>>,
    _serving: Arc<Serving>,
}

struct Serving {
    task: JoinHandle<()>,
    failed: Arc<AtomicBool>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
        // What runs still is not looked at, nor anything of a test that fails already.
        let failed = self.failed.load(SeqCst) && !std::thread::panicking();
        assert!(!failed, "an upstream's script failed, above");
    }
}

/// Lives as long as a script does, and goes with it.
struct Watch {
    failed: Arc<AtomicBool>,
    in_vain: Arc<AtomicBool>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A connection that nobody needs any more is waited on until its time is over: that is no failure.
        if std::thread::panicking() && !self.in_vain.load(SeqCst) {
            self.failed.store(true, SeqCst);
        }
    }
}

impl Raw {
    /// Every connection is handled by `script`.
    pub async fn new<F, S>(script: S) -> Raw
    where
        S: Fn(Line) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("bound");
        let (connections, got) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(Mutex::new(Vec::new())),
        );
        let (count, bytes) = (connections.clone(), got.clone());
        let failed = Arc::new(AtomicBool::new(false));
        let tells = failed.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                count.fetch_add(1, SeqCst);
                let _ = stream.set_nodelay(true);
                let line = Line {
                    stream,
                    got: bytes.clone(),
                    kept: Vec::new(),
                    in_vain: Arc::default(),
                };
                let watch = Watch {
                    failed: tells.clone(),
                    in_vain: line.in_vain.clone(),
                };
                let script = script(line);
                tokio::spawn(async move {
                    let _watch = watch;
                    script.await;
                });
            }
        });
        Raw {
            address,
            connections,
            got,
            _serving: Arc::new(Serving { task, failed }),
        }
    }

    /// Answers each request, when its head and body are there, with these bytes.
    pub async fn answering(answer: impl Into<Vec<u8>>) -> Raw {
        let answer = Arc::new(answer.into());
        Raw::new(move |mut line| {
            let answer = answer.clone();
            async move {
                while line.request().await.is_some() {
                    line.say(&answer).await;
                }
            }
        })
        .await
    }

    /// Answers each request with its own body, as JSON.
    pub async fn echo() -> Raw {
        Raw::new(|mut line| async move {
            while let Some(message) = line.request().await {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    message.body.len()
                );
                line.say(&[head.as_bytes(), &message.body].concat()).await;
            }
        })
        .await
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.got.lock().expect("got")).into_owned()
    }
    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

/// A message off the wire. The body is decoded; the head is as it came.
#[derive(Debug, Clone)]
pub struct Message {
    pub head: String,
    pub body: Vec<u8>,
    /// As they came.
    pub trailers: String,
}

impl Message {
    pub fn status(&self) -> u16 {
        self.head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status")
    }
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
    /// The code of a problem document.
    pub fn code(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let document: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        assert_eq!(document["status"], self.status());
        document["code"].as_str().expect("a code").to_owned()
    }
}

/// One end of a connection that speaks bytes.
pub struct Line {
    pub stream: TcpStream,
    got: Arc<Mutex<Vec<u8>>>,
    kept: Vec<u8>,
    /// Waited for bytes longer than it should.
    in_vain: Arc<AtomicBool>,
}

impl Line {
    pub async fn to(address: SocketAddr) -> Line {
        let stream = TcpStream::connect(address).await.expect("connects");
        stream.set_nodelay(true).expect("nodelay");
        Line {
            stream,
            got: Arc::default(),
            kept: Vec::new(),
            in_vain: Arc::default(),
        }
    }
    pub async fn say(&mut self, bytes: &[u8]) {
        // The other side may have gone; what it did not read shows elsewhere.
        let _ = self.stream.write_all(bytes).await;
    }
    /// More bytes; false at the end.
    pub async fn more(&mut self) -> bool {
        let mut bytes = [0; 16384];
        let read = timeout(SOON, self.stream.read(&mut bytes)).await;
        self.in_vain.store(read.is_err(), SeqCst);
        match read.expect("bytes or an end, soon") {
            Ok(count @ 1..) => {
                self.kept.extend_from_slice(&bytes[..count]);
                self.got
                    .lock()
                    .expect("got")
                    .extend_from_slice(&bytes[..count]);
                true
            }
            _ => false,
        }
    }
    /// The next head, with its empty line.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self
                .kept
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                let head: Vec<u8> = self.kept.drain(..end + 4).collect();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            if !self.more().await {
                assert!(
                    self.kept.is_empty(),
                    "an unfinished head: {}",
                    String::from_utf8_lossy(&self.kept)
                );
                return None;
            }
        }
    }
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.kept.len() < count {
            assert!(
                self.more().await,
                "ended after {} of {count} bytes",
                self.kept.len()
            );
        }
        self.kept.drain(..count).collect()
    }
    /// What was read and not taken yet.
    pub fn all(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.kept)
    }
    /// Sends no more; still reads.
    pub async fn end(&mut self) {
        let _ = self.stream.shutdown().await;
    }
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.kept.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.kept.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }
    /// The next chunk of a body; empty at its end, `None` where it is cut off.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        let (chunk, behind) = self.chunk_and_line().await?;
        assert_eq!(behind, "");
        Some(chunk)
    }
    /// The same, with the line behind the chunk: behind the last one, that is the first trailer.
    pub async fn chunk_and_line(&mut self) -> Option<(Vec<u8>, String)> {
        let size = self.line().await?;
        let size = usize::from_str_radix(&size, 16).expect("a size");
        while self.kept.len() < size + 2 {
            if !self.more().await {
                return None;
            }
        }
        let chunk: Vec<u8> = self.kept.drain(..size).collect();
        assert!(size == 0 || self.kept.starts_with(b"\r\n"));
        Some((chunk, self.line().await?))
    }
    /// Sends a chunk of a body; an empty one ends it.
    pub async fn say_chunk(&mut self, bytes: &[u8]) {
        let size = format!("{:x}\r\n", bytes.len());
        self.say(&[size.as_bytes(), bytes, b"\r\n"].concat()).await;
    }
    /// The rest of a message whose head was read. `None`: it was cut off.
    pub async fn body(&mut self, head: String, without: bool) -> Option<Message> {
        let mut message = Message {
            head,
            body: Vec::new(),
            trailers: String::new(),
        };
        if without {
            return Some(message);
        }
        if message
            .header("transfer-encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
        {
            loop {
                let size = self.line().await?;
                let size = usize::from_str_radix(size.split(';').next().expect("a size"), 16)
                    .expect("a size");
                if size == 0 {
                    break;
                }
                while self.kept.len() < size + 2 {
                    if !self.more().await {
                        return None;
                    }
                }
                message.body.extend(self.kept.drain(..size));
                assert_eq!(self.exactly(2).await, b"\r\n");
            }
            loop {
                let line = self.line().await?;
                if line.is_empty() {
                    return Some(message);
                }
                message.trailers += &line;
                message.trailers += "\n";
            }
        }
        match message
            .header("content-length")
            .map(|length| length.parse::<usize>().expect("a length"))
        {
            Some(length) => {
                while self.kept.len() < length {
                    if !self.more().await {
                        return None;
                    }
                }
                message.body = self.kept.drain(..length).collect();
            }
            None if message.head.starts_with("HTTP/") => {
                while self.more().await {}
                message.body = std::mem::take(&mut self.kept);
            }
            None => {}
        }
        Some(message)
    }
    /// The next request, whole.
    pub async fn request(&mut self) -> Option<Message> {
        let head = self.head().await?;
        self.body(head, false).await
    }
    /// The next answer. `without`: to HEAD, so that no body follows.
    pub async fn answer_without(&mut self, without: bool) -> Message {
        let head = self.head().await.expect("an answer");
        let bodiless = head.starts_with("HTTP/1.1 204")
            || head.starts_with("HTTP/1.1 304")
            || head.starts_with("HTTP/1.1 100");
        self.body(head, without || bodiless)
            .await
            .expect("a whole answer")
    }
    pub async fn answer(&mut self) -> Message {
        self.answer_without(false).await
    }
    /// The connection ends here, and in peace.
    pub async fn is_over(&mut self) -> bool {
        !self.more().await && self.kept.is_empty()
    }
}

/// What the agent recorded.
#[derive(Default)]
pub struct Records(
    Mutex<Vec<Kept>>,
    Mutex<Vec<Passed>>,
    Mutex<Vec<&'static str>>,
);

/// Of one access.
#[derive(Clone)]
pub struct Kept {
    pub outcome: Outcome,
    pub method: Option<Method>,
    pub route: Option<Arc<str>>,
    pub observed: Option<&'static str>,
    pub unread: Option<&'static str>,
    pub caller: Caller,
    pub total: Duration,
    pub added: Duration,
    pub request: Tally,
    pub response: Tally,
    pub unread_records: Vec<(&'static str, u32)>,
}

impl Observe for Records {
    fn observe(&self, entry: &Entry) {
        self.0.lock().expect("records").push(Kept {
            outcome: entry.outcome,
            method: entry.method.clone(),
            route: entry.route.clone(),
            observed: entry.observed,
            unread: entry.unread,
            caller: entry.caller.clone(),
            total: entry.total,
            added: entry.added,
            request: entry.request.clone(),
            response: entry.response.clone(),
            unread_records: entry.unread_records.clone(),
        });
    }
    fn passed(&self, passed: &Passed) {
        self.1.lock().expect("records").push(passed.clone());
    }
    fn cut_off(&self, _: &Arc<str>, _: Option<&Arc<str>>, why: &'static str) {
        self.2.lock().expect("records").push(why);
    }
}

impl Records {
    pub fn all(&self) -> Vec<Kept> {
        self.0.lock().expect("records").clone()
    }
    /// Why answers were cut off.
    pub fn cuts(&self) -> Vec<&'static str> {
        self.2.lock().expect("records").clone()
    }
    /// What became of connections, besides requests.
    pub fn passed(&self) -> Vec<Passed> {
        self.1.lock().expect("records").clone()
    }
    /// What became of accesses, by its word: of a refusal, the code.
    pub fn words(&self) -> Vec<&'static str> {
        self.all().iter().map(|kept| kept.outcome.word()).collect()
    }
    pub fn outcomes(&self) -> Vec<Outcome> {
        self.all().iter().map(|kept| kept.outcome).collect()
    }
}

/// A key room with one key, which can be taken away, and which can let those who ask wait.
#[derive(Default)]
pub struct OneKey {
    pub gone: AtomicBool,
    pub calls: AtomicUsize,
    /// Nobody is answered until it is false again.
    pub stalled: watch::Sender<bool>,
}

struct Plain([u8; MATERIAL_LEN]);

impl Material for Plain {
    fn expose(&self) -> &[u8; MATERIAL_LEN] {
        &self.0
    }
}

fn dek() -> Dek {
    let mut material = [0; MATERIAL_LEN];
    let kid = schedule(&[7; 32], &mut material);
    Dek::new(kid, Box::new(Plain(material)))
}

/// A record that passes the structure check of the token room: one wrapping of one byte under a KEK id of zeros.
fn record() -> Box<[u8]> {
    fieldveil::token::Record::build(&[([0; 8], &[1])]).expect("a record")
}

impl KeySource for OneKey {
    fn fetch<'k>(
        &'k self,
        needs: &'k Needs,
    ) -> Pin<Box<dyn Future<Output = Result<Ring, Error>> + Send + 'k>> {
        self.calls.fetch_add(1, SeqCst);
        Box::pin(async move {
            let mut stalled = self.stalled.subscribe();
            let _ = stalled.wait_for(|stalled| !stalled).await;
            let gone = self.gone.load(SeqCst);
            if gone && !needs.sealing.is_empty() {
                return Err(Code::KeysUnreachable.into());
            }
            let kid: Kid = dek().kid();
            Ok(Ring {
                sealing: needs
                    .sealing
                    .iter()
                    .map(|_| {
                        Arc::new(SealingKey {
                            dek: dek(),
                            record: record(),
                            stored: false,
                        })
                    })
                    .collect(),
                opening: needs
                    .opening
                    .iter()
                    .map(|need| match (gone, need.kid == kid) {
                        (true, _) => Err(Unopened::Unreachable),
                        (false, true) => Ok(Arc::new(dek())),
                        (false, false) => Err(Unopened::Foreign),
                    })
                    .collect(),
            })
        })
    }
}

/// An agent before an upstream.
pub struct Agent {
    pub address: SocketAddr,
    pub gauges: Arc<Gauges>,
    pub connection_permits: Arc<Semaphore>,
    pub request_permits: Arc<Semaphore>,
    pub records: Arc<Records>,
    pub keys: Arc<OneKey>,
    pub drain: watch::Sender<bool>,
    pub serving: JoinHandle<()>,
}

/// What differs from the defaults.
pub struct Setup {
    /// Instead of a free port.
    pub socket: Option<Socket>,
    pub policy: Option<String>,
    pub listener: listener::Settings,
    pub limits: Limits,
    pub upstream: upstream::Settings,
    /// Instead of the one upstream for all requests: those of these hosts.
    pub hosts: Vec<(&'static str, SocketAddr)>,
    /// Instead of either: whatever requests name. With these known, and loopback allowed or not.
    pub targets: Option<(Vec<upstream::Settings>, bool)>,
    pub covered_only: bool,
    pub own: OwnAddresses,
    /// Instead of the one key.
    pub source: Option<Arc<dyn KeySource>>,
}

impl Setup {
    pub fn before(upstream: SocketAddr) -> Setup {
        let url = format!("http://{upstream}").parse().expect("a URL");
        Setup {
            socket: None,
            policy: None,
            listener: listener::Settings::default(),
            limits: Limits::default(),
            upstream: upstream::Settings::new(url),
            hosts: Vec::new(),
            targets: None,
            covered_only: false,
            own: OwnAddresses::default(),
            source: None,
        }
    }
    pub fn policy(mut self, text: &str) -> Setup {
        self.policy = Some(text.to_owned());
        self
    }
    pub async fn start(self) -> Agent {
        let policies = match &self.policy {
            None => Policies::default(),
            Some(text) => match Policy::load(text, "test.yaml", None) {
                Ok(policy) => Policies::new(vec![policy]).unwrap_or_else(|_| panic!("one policy")),
                Err(found) => panic!("{found:?}"),
            },
        };
        let socket = match self.socket {
            Some(socket) => socket,
            None => Socket::Tcp(TcpListener::bind("127.0.0.1:0").await.expect("a port")),
        };
        let address = socket
            .address()
            .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        self.own.add(address);
        let made = |settings| Upstream::new(settings, self.own.clone()).expect("an upstream");
        let upstreams = if let Some((known, loopback)) = self.targets {
            let targets = Targets::<Body>::new(self.upstream, known, loopback, self.own.clone());
            Upstreams::from(Arc::new(targets.expect("targets")))
        } else if self.hosts.is_empty() {
            Upstreams::from(made(self.upstream))
        } else {
            let hosts = self.hosts.iter().map(|(host, address)| {
                let url = format!("http://{address}").parse().expect("a URL");
                let host = HostPattern::parse(host).expect("a host");
                (host, made(upstream::Settings::new(url)))
            });
            Upstreams::by_host(hosts.collect())
        };
        let (records, keys) = (Arc::new(Records::default()), Arc::new(OneKey::default()));
        let proxy = Proxy::new(
            "test",
            upstreams,
            Arc::new(policies),
            self.source.unwrap_or_else(|| keys.clone()),
            self.limits,
            records.clone(),
        );
        let proxy = match self.covered_only {
            true => proxy.covered_only(),
            false => proxy,
        };
        let request_permits = proxy.permits();
        let listener = Listener::new(socket, Arc::new(proxy), self.listener).expect("a listener");
        let (drain, draining) = watch::channel(false);
        Agent {
            address,
            gauges: listener.gauges(),
            connection_permits: listener.permits(),
            request_permits,
            records,
            keys,
            drain,
            serving: tokio::spawn(listener.serve(draining)),
        }
    }
}

impl Agent {
    pub async fn line(&self) -> Line {
        Line::to(self.address).await
    }
    /// Sends a request on a new connection and returns the answer.
    pub async fn ask(&self, bytes: impl AsRef<[u8]>) -> Message {
        let mut line = self.line().await;
        line.say(bytes.as_ref()).await;
        line.answer().await
    }
    /// Posts JSON on a new connection.
    pub async fn post(&self, path: &str, body: &str) -> Message {
        self.ask(post(path, body)).await
    }
}

pub fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: app\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Waits until it is so.
#[track_caller]
pub fn eventually(what: &str, mut is: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let begun = std::time::Instant::now();
        while !is() {
            assert!(begun.elapsed() < SOON, "{place}: not so: {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
