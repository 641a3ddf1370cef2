use super::super::first::TLS_HANDSHAKE;
use super::super::first::tests::{extended, hello_for, in_records, length, named, old};
use super::*;
use crate::audit::{Entry, Observe, Outcome, Passed};
use crate::dek::{Needs, Ring};
use crate::error::Error;
use crate::intercept::{LEAVES_MAX, Names, made};
use crate::listener::{Listener, Settings};
use crate::policy::{Policies, Policy};
use crate::proxy::{KeySource, Limits, Proxy};
use crate::upstream::{self, OwnAddresses, Roots, Targets, Upstreams};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::SystemTime;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const SOON: Duration = Duration::from_secs(20);

/// What came of connections and requests.
#[derive(Default)]
struct Records(Mutex<Vec<&'static str>>, Mutex<Vec<Outcome>>);

impl Observe for Records {
    fn observe(&self, entry: &Entry) {
        self.1.lock().expect("sound").push(entry.outcome);
    }
    fn passed(&self, passed: &Passed) {
        self.0.lock().expect("sound").push(passed.outcome);
    }
}

struct NoKeys;

impl KeySource for NoKeys {
    fn fetch<'k>(
        &'k self,
        _: &'k Needs,
    ) -> Pin<Box<dyn Future<Output = Result<Ring, Error>> + Send + 'k>> {
        Box::pin(async { Err(Code::KeysUnreachable.into()) })
    }
}

/// Where connections were going: it speaks TLS for the names of its certificate, answers every request, and keeps what came.
struct Far {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// In TLS, and without it.
    got: Arc<Mutex<(Vec<u8>, Vec<u8>)>>,
    certificate: Vec<u8>,
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

impl Far {
    async fn new() -> Far {
        let names = ["api.example.com", "*.many.example.com", "127.0.0.1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).expect("made");
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(crate::tls::provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .expect("a key");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let far = Far {
            address: socket.local_addr().expect("bound"),
            connections: Arc::default(),
            got: Arc::default(),
            certificate: made.cert.pem().into_bytes(),
        };
        let (connections, got) = (far.connections.clone(), far.got.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = socket.accept().await {
                connections.fetch_add(1, SeqCst);
                let (acceptor, got) = (acceptor.clone(), got.clone());
                tokio::spawn(async move {
                    let mut first = [0; 11];
                    let Ok(count @ 1..) = stream.peek(&mut first).await else {
                        return;
                    };
                    let mut bytes = [0; 4096];
                    // The agent speaks TLS 1.2 and 1.3: what is older is the client's own.
                    if first[0] == TLS_HANDSHAKE && count == 11 && first[10] == 3 {
                        let Ok(mut stream) = acceptor.accept(stream).await else {
                            return;
                        };
                        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                            got.lock()
                                .expect("sound")
                                .0
                                .extend_from_slice(&bytes[..count]);
                            let _ = stream.write_all(ANSWER).await;
                        }
                        return;
                    }
                    while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                        got.lock()
                            .expect("sound")
                            .1
                            .extend_from_slice(&bytes[..count]);
                        let _ = stream.write_all(ANSWER).await;
                    }
                });
            }
        });
        far
    }

    fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
    fn within_tls(&self) -> Vec<u8> {
        self.got.lock().expect("sound").0.clone()
    }
    fn bare(&self) -> Vec<u8> {
        self.got.lock().expect("sound").1.clone()
    }
}

/// The agent between, for connections that were going there.
struct Between {
    service: Arc<Service>,
    transparent: Arc<Transparent>,
    records: Arc<Records>,
    ca: String,
    address: SocketAddr,
    /// Held, so that nothing drains.
    signals: (watch::Sender<bool>, watch::Sender<bool>),
}

const POLICY: &str = "{apiVersion: fieldveil/v1, kind: Policy, metadata: {name: test}, classes: {ssn: {key: identity}}, routes: [\
    {name: api, match: {host: \"api.example.com\"}, request: {rules: [{at: $.ssn, seal: ssn}]}}, \
    {name: many, match: {host: \"*.many.example.com\"}, request: {rules: [{at: $.ssn, seal: ssn}]}}]}";

impl Between {
    async fn before(far: &Far, policy: &str, covered_only: bool) -> Between {
        let (ca, key) = made(&Names::default(), SystemTime::now(), 30).expect("made");
        let authority = Authority::new(ca.as_bytes(), key.as_bytes(), Names::default());
        let mut otherwise = upstream::Settings::new("http://unused".parse().expect("a URL"));
        otherwise.roots = Roots::Pem(far.certificate.clone());
        let targets = Targets::new(otherwise, Vec::new(), true, OwnAddresses::default());
        let policy = Policy::load(policy, "test.yaml", None).expect("a policy");
        let policies = Policies::new(vec![policy]).unwrap_or_else(|_| panic!("one policy"));
        let records = Arc::new(Records::default());
        let proxy = Proxy::new(
            "test",
            Upstreams::from(Arc::new(targets.expect("targets"))),
            Arc::new(policies),
            Arc::new(NoKeys),
            Limits::default(),
            records.clone(),
        );
        let proxy = match covered_only {
            true => proxy.covered_only(),
            false => proxy,
        };
        let transparent = Transparent {
            authority: Arc::new(authority.expect("an authority")),
            silent: false,
            quiet: SOON,
        };
        let settings = Settings {
            transparent: Some(transparent.clone()),
            ..Settings::default()
        };
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let listener = Listener::new(socket, Arc::new(proxy), settings).expect("a listener");
        Between {
            service: listener.service.clone(),
            transparent: Arc::new(transparent),
            records,
            ca,
            address: far.address,
            signals: (watch::channel(false).0, watch::channel(false).0),
        }
    }

    /// A connection that was going to the far side.
    async fn connect(&self) -> TcpStream {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("bound");
        let (near, accepted) = tokio::join!(TcpStream::connect(address), socket.accept());
        let (service, transparent) = (self.service.clone(), self.transparent.clone());
        let (stream, address) = (accepted.expect("accepted").0, self.address);
        let (drain, cut) = (self.signals.0.subscribe(), self.signals.1.subscribe());
        tokio::spawn(async move {
            let (drain, cut) = (Bell::new(drain), Bell::new(cut));
            let stream = Stream::Tcp(stream);
            service
                .toward(address, &transparent, stream, drain, cut)
                .await;
        });
        near.expect("connected")
    }

    /// What is answered to these bytes, to the end.
    async fn told(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect().await;
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = timeout(SOON, stream.read_to_end(&mut answer))
            .await
            .expect("soon");
        answer
    }

    async fn passed(&self, count: usize) -> Vec<&'static str> {
        let begun = Instant::now();
        loop {
            let passed = self.records.0.lock().expect("sound").clone();
            if passed.len() >= count {
                return passed;
            }
            assert!(begun.elapsed() < SOON, "{passed:?}");
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// TLS with the agent, by a client that trusts its CA.
    fn connector(&self) -> TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca.as_bytes()).expect("PEM");
        roots.add(ca).expect("a root");
        let config = rustls::ClientConfig::builder_with_provider(crate::tls::provider());
        let config = config.with_safe_default_protocol_versions().expect("TLS");
        TlsConnector::from(Arc::new(
            config.with_root_certificates(roots).with_no_client_auth(),
        ))
    }

    /// A request in TLS that is answered by the far side, over the agent.
    async fn still_serves(&self, host: &str) {
        let name = ServerName::try_from(host.to_owned()).expect("a name");
        let stream = self.connect().await;
        let stream = timeout(SOON, self.connector().connect(name, stream)).await;
        let mut stream = stream.expect("soon").expect("trusted");
        let get = format!(
            "GET / HTTP/1.1\r\nHost: {host}:{}\r\nConnection: close\r\n\r\n",
            self.address.port()
        );
        stream.write_all(get.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        let _ = timeout(SOON, stream.read_to_end(&mut answer))
            .await
            .expect("soon");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

/// One alert, and it is fatal.
#[track_caller]
fn is_alert(answer: &[u8]) {
    assert_eq!(
        (answer.len(), answer[0], answer[5]),
        (7, 21, 2),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_covered_host_is_covered_for_clients_of_any_age() {
    let far = Far::new().await;
    let between = Between::before(&far, POLICY, false).await;
    let covered = named("api.example.com");
    let mut count = 0;
    for version in [[3, 0], [3, 1], [3, 2]] {
        let hello = old(version, &covered);
        for bytes in [hello.clone(), in_records(&hello, 1)] {
            is_alert(&between.told(&bytes).await);
            count += 1;
        }
    }
    assert_eq!(between.passed(count).await, vec!["handshake"; count]);
    assert_eq!(far.bare(), b"", "the client's hello went on");
    assert_eq!(far.within_tls(), b"");
    between.still_serves("api.example.com").await;
    // What is for another host goes on as it came.
    let hello = old([3, 1], &named("other.example.com"));
    let mut stream = between.connect().await;
    stream.write_all(&hello).await.expect("sent");
    let mut answer = [0; ANSWER.len()];
    let read = timeout(SOON, stream.read_exact(&mut answer)).await;
    read.expect("soon").expect("an answer");
    assert_eq!(far.bare(), hello);
    drop(stream);
    let passed = between.passed(count + 2).await;
    assert_eq!(passed[count..], ["intercepted", "tunnelled"]);
    // Unless only what is covered may pass.
    let between = Between::before(&far, POLICY, true).await;
    for extensions in [named("other.example.com"), Vec::new()] {
        assert_eq!(between.told(&old([3, 1], &extensions)).await, b"");
    }
    assert_eq!(between.passed(2).await, ["uncovered"; 2]);
    assert_eq!(far.bare(), hello);
}

#[tokio::test]
async fn tls_for_nobody_knows_whom_goes_nowhere() {
    let far = Far::new().await;
    let between = Between::before(&far, POLICY, false).await;
    let long = old(
        [3, 3],
        &extended(&[
            (
                0,
                &length(&[&[0][..], &length(b"api.example.com")].concat()),
            ),
            (21, &[0; 12_000]),
        ]),
    );
    for bytes in [
        &in_records(&long, 1)[..],
        &[22, 3, 1, 0, 4, 2],
        &[22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff],
        &[&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc][..], &[0xff; 0x1fc]].concat(),
        &old([3, 3], &named("a b")),
    ] {
        is_alert(&between.told(bytes).await);
    }
    assert_eq!(between.passed(5).await, ["handshake"; 5]);
    assert_eq!(far.connections(), 0);
    // It is read as far as the bound, in whatever records it comes.
    is_alert(&between.told(&in_records(&long, 1_000)).await);
    assert_eq!(far.bare(), b"");
}

#[tokio::test]
async fn no_spelling_of_a_request_goes_by_unseen() {
    let far = Far::new().await;
    let between = Between::before(&far, POLICY, false).await;
    let body = r#"{"ssn":"078-05-1120"}"#;
    let blank = "\r\n".repeat(40) + "POST";
    let long = "M".repeat(40);
    for method in [
        "POST",
        "patch",
        "\r\nPOST",
        "\n\r\nPut",
        &blank,
        &long,
        " POST",
        "\u{feff}POST",
        "post people",
        "\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\0\x50\0\x50POST",
    ] {
        let request = format!(
            "{method} /people HTTP/1.1\r\nHost: api.example.com:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            far.address.port(),
            body.len()
        );
        let answer = between.told(request.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with("HTTP/1.1 4") || answer.contains("keys-unreachable"),
            "{method}: {answer}"
        );
    }
    assert_eq!(far.connections(), 0);
}

#[tokio::test]
async fn what_is_neither_tls_nor_http_does_not_reach_a_covered_address() {
    let far = Far::new().await;
    let policy = POLICY.replace("api.example.com", "127.0.0.1");
    let between = Between::before(&far, &policy, false).await;
    // Of which the first is a hello of SSL 2.0.
    for bytes in [
        &b"\x80\x2e\x01\x03\x01\0\x15"[..],
        b"\0\x01078-05-1120",
        b"set ssn 078-05-1120\r\n",
    ] {
        assert_eq!(between.told(bytes).await, b"");
    }
    assert_eq!(between.passed(3).await, ["not-tls"; 3]);
    // Nor does TLS without a name.
    is_alert(&between.told(&old([3, 1], &[])).await);
    assert_eq!(far.bare(), b"");
}

/// Where a server is that says this first, and then listens; what it hears.
async fn greeting(words: &'static [u8]) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("bound");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let all = heard.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            let _ = stream.write_all(words).await;
            let _ = stream.shutdown().await;
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes).await;
            all.lock().expect("sound").extend(bytes);
        }
    });
    (address, heard)
}

impl Between {
    /// In front of another service, with those let through that speak first.
    fn before_one_that_speaks(mut self, address: SocketAddr) -> Between {
        let transparent = Transparent {
            silent: true,
            ..(*self.transparent).clone()
        };
        (self.address, self.transparent) = (address, Arc::new(transparent));
        self
    }
}

/// A client that takes its time is no client that waits for the server: what servers of HTTP say meanwhile makes no tunnel.
#[tokio::test]
async fn a_slow_client_of_a_covered_host_is_not_tunnelled() {
    let far = Arc::new(Far::new().await);
    let all: [&'static [u8]; 5] = [
        b"",
        b"H",
        b"HTTP/1.1 408 Request Timeout\r\n\r\n",
        &[
            0, 0, 12, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100, 0, 4, 0, 1, 0, 0,
        ],
        &[21, 3, 3, 0, 2, 1, 0],
    ];
    let slow = async |far: Arc<Far>, words| {
        let (address, heard) = greeting(words).await;
        let between = Between::before(&far, POLICY, false).await;
        let between = between.before_one_that_speaks(address);
        let mut stream = between.connect().await;
        sleep(SILENT_FOR + Duration::from_millis(500)).await;
        let body = r#"{"ssn":"078-05-1120"}"#;
        let request = format!(
            "POST /people HTTP/1.1\r\nHost: api.example.com:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            address.port(),
            body.len()
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        let read = timeout(SOON, stream.read_to_end(&mut answer)).await;
        read.expect("soon").expect("an end");
        let answer = String::from_utf8_lossy(&answer);
        // There are no keys here, so its route answers.
        assert!(answer.contains("keys-unreachable"), "{words:?}: {answer}");
        assert_eq!(*heard.lock().expect("sound"), b"", "{words:?}");
    };
    for client in all.map(|words| tokio::spawn(slow(far.clone(), words))) {
        client.await.expect("no panic");
    }
}

/// What speaks first is tunnelled, where that is allowed, but not from an address that a policy names.
#[tokio::test]
async fn a_server_that_speaks_first() {
    let far = Far::new().await;
    let (address, _) = greeting(b"220 ready").await;
    for (host, heard, outcome) in [
        ("api.example.com", &b"220 ready"[..], "tunnelled"),
        ("127.0.0.1", b"", "not-tls"),
    ] {
        let policy = POLICY.replace("api.example.com", host);
        let between = Between::before(&far, &policy, false).await;
        let between = between.before_one_that_speaks(address);
        let mut answer = Vec::new();
        let mut stream = between.connect().await;
        let read = timeout(SOON, stream.read_to_end(&mut answer)).await;
        read.expect("soon").expect("an end");
        drop(stream);
        assert_eq!(answer, heard, "{host}");
        assert_eq!(between.passed(1).await, [outcome]);
    }
}

#[tokio::test]
async fn ten_thousand_names_leave_bounded_leaves_and_an_agent_that_serves() {
    let far = Far::new().await;
    let between = Arc::new(Between::before(&far, POLICY, false).await);
    let covered = LEAVES_MAX + 100;
    let clients = (0..32).map(|first| {
        let between = between.clone();
        tokio::spawn(async move {
            for number in (first..10_000).step_by(32) {
                let (hello, answered) = match number < covered {
                    true => {
                        let name = format!("h{number}.many.example.com");
                        let name = ServerName::try_from(name).expect("a name");
                        (hello_for(name), TLS_HANDSHAKE)
                    }
                    false => {
                        let name = named(&format!("h{number}.example.org"));
                        (old([3, 1], &name), ANSWER[0])
                    }
                };
                let mut stream = between.connect().await;
                stream.write_all(&hello).await.expect("sent");
                let answer = timeout(SOON, stream.read_u8()).await.expect("soon");
                assert_eq!(answer.ok(), Some(answered), "{number}");
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("no panic");
    }
    assert_eq!(between.transparent.authority.kept_leaves(), LEAVES_MAX);
    assert!(far.connections() >= 10_000);
    between.still_serves("api.example.com").await;
    let passed = between.passed(10_001).await;
    let tunnelled = passed.iter().filter(|outcome| **outcome == "tunnelled");
    assert_eq!(tunnelled.count(), 10_000 - covered);
}
