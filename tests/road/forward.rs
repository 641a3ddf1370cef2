//! Forward listeners: absolute targets, tunnels, intercepted TLS, and what is refused of each.

use crate::frames::{self, END_HEADERS, Frames, HEADERS, PROTOCOL_ERROR, frame};
use crate::harness::{Agent, Line, Raw, SOON, Setup, eventually, post};
use crate::multiplexed::Pieces;
use fieldveil::audit::Passed;
use fieldveil::intercept::{Authority, Names, made};
use fieldveil::listener::{Credentials, Forward};
use fieldveil::upstream::{self, OwnAddresses, Roots};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Seals `ssn` on the way to a host, and opens it on the way back.
fn policy(host: &str) -> String {
    format!(
        "{{apiVersion: fieldveil/v1, kind: Policy, metadata: {{name: test}}, classes: {{ssn: {{key: identity}}}}, routes: [{{name: all, \
         match: {{host: \"{host}\"}}, request: {{rules: [{{at: $.ssn, seal: ssn}}]}}, response: {{rules: [{{at: $.ssn, open: ssn}}]}}}}]}}"
    )
}

trait Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Io for T {}

/// A service that speaks TLS as `localhost`, or none, answers with what it got, and keeps it.
struct Service {
    address: SocketAddr,
    certificate: Vec<u8>,
    got: Arc<Mutex<Vec<(http::request::Parts, String)>>>,
}

impl Service {
    async fn speaking(protocols: &[&str]) -> Service {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let mut config = rustls::ServerConfig::builder_with_provider(fieldveil::tls::provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .expect("a key");
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Service::of(Some(acceptor), made.cert.pem().into_bytes(), false).await
    }

    /// Without TLS; `http2`: in that alone.
    async fn plain(http2: bool) -> Service {
        Service::of(None, Vec::new(), http2).await
    }

    async fn of(acceptor: Option<TlsAcceptor>, certificate: Vec<u8>, http2: bool) -> Service {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let service = Service {
            address: socket.local_addr().expect("bound"),
            certificate,
            got: Arc::default(),
        };
        let got = service.got.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let (acceptor, got) = (acceptor.clone(), got.clone());
                tokio::spawn(async move {
                    let (stream, http2): (Box<dyn Io>, bool) = match acceptor {
                        None => (Box::new(stream), http2),
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(stream).await else {
                                return;
                            };
                            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                            (Box::new(stream), http2)
                        }
                    };
                    let echo = service_fn(move |request: Request<Incoming>| {
                        let got = got.clone();
                        async move {
                            let (head, body) = request.into_parts();
                            let body = body.collect().await?.to_bytes();
                            let text = String::from_utf8_lossy(&body).into_owned();
                            got.lock().expect("got").push((head, text));
                            let answer =
                                Response::builder().header("content-type", "application/json");
                            Ok::<_, hyper::Error>(answer.body(Full::new(body)).expect("an answer"))
                        }
                    });
                    let io = TokioIo::new(stream);
                    let _ = match http2 {
                        true => {
                            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                                .serve_connection(io, echo)
                                .await
                        }
                        false => {
                            hyper::server::conn::http1::Builder::new()
                                .serve_connection(io, echo)
                                .await
                        }
                    };
                });
            }
        });
        service
    }

    /// The bodies that came.
    fn bodies(&self) -> Vec<String> {
        let got = self.got.lock().expect("got");
        got.iter().map(|(_, body)| body.clone()).collect()
    }

    fn known(&self) -> upstream::Settings {
        let url = format!("https://localhost:{}", self.address.port());
        let mut settings = upstream::Settings::new(url.parse().expect("a URL"));
        settings.roots = Roots::Pem(self.certificate.clone());
        settings
    }

    /// As the settings name what speaks no TLS.
    fn known_plain(&self) -> upstream::Settings {
        upstream::Settings::new(
            format!("http://{}", self.authority())
                .parse()
                .expect("a URL"),
        )
    }

    fn authority(&self) -> String {
        format!("localhost:{}", self.address.port())
    }
}

/// An agent that is a forward proxy, and its CA's certificate.
struct Behind {
    agent: Agent,
    ca: String,
}

/// What differs from the usual.
#[derive(Default)]
struct Ways {
    policy: Option<String>,
    known: Vec<upstream::Settings>,
    guarded: bool,
    covered_only: bool,
    names: Names,
    credentials: Option<&'static str>,
    quiet: Option<Duration>,
    own: OwnAddresses,
    drain: Option<Duration>,
}

impl Ways {
    async fn start(self) -> Behind {
        let (ca, key) = made(&self.names, SystemTime::now(), 30).expect("made");
        let authority = Authority::new(ca.as_bytes(), key.as_bytes(), self.names);
        let mut setup = Setup::before(SocketAddr::from(([127, 0, 0, 1], 9)));
        // Roots that vouch for nobody here: whom to trust is said by host.
        setup.upstream.roots = Roots::Pem(ca.clone().into_bytes());
        setup.policy = self.policy;
        setup.targets = Some((self.known, !self.guarded));
        setup.covered_only = self.covered_only;
        setup.own = self.own;
        setup.listener.patience.head = Duration::from_secs(2);
        setup.listener.drain = self.drain.unwrap_or(setup.listener.drain);
        setup.listener.forward = Some(Forward {
            authority: Arc::new(authority.expect("an authority")),
            credentials: self
                .credentials
                .map(|text| Credentials::new(text.as_bytes()).expect("credentials")),
            quiet: self.quiet.unwrap_or(SOON),
        });
        Behind {
            agent: setup.start().await,
            ca,
        }
    }
}

impl Behind {
    /// Sends a CONNECT, and reads the answer's head.
    async fn connect(&self, authority: &str) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(self.agent.address)
            .await
            .expect("connects");
        let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let head = head(&mut stream).await;
        (stream, head)
    }

    /// A tunnel to a host, which is open.
    async fn tunnel(&self, authority: &str) -> TcpStream {
        let (stream, head) = self.connect(authority).await;
        assert_eq!(head, "HTTP/1.1 200 OK\r\n", "{authority}");
        stream
    }

    /// TLS through a tunnel, with a client that trusts the agent's CA alone.
    async fn tls(
        &self,
        stream: TcpStream,
        name: &str,
        protocols: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca.as_bytes()).expect("PEM");
        roots.add(ca).expect("a root");
        let config = rustls::ClientConfig::builder_with_provider(fieldveil::tls::provider());
        let config = config.with_safe_default_protocol_versions().expect("TLS");
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        timeout(SOON, connecting).await.expect("soon")
    }

    async fn passed(&self, count: usize) -> Vec<Passed> {
        let records = self.agent.records.clone();
        eventually("connections are on record", || {
            records.passed().len() >= count
        })
        .await;
        records.passed()
    }

    async fn outcome(&self) -> &'static str {
        self.passed(1).await[0].outcome
    }
}

/// The status line, and whatever else the head says but for the date.
async fn head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let byte = timeout(SOON, stream.read_u8()).await.expect("soon");
        bytes.push(byte.expect("a head"));
    }
    let text = String::from_utf8(bytes).expect("text");
    let lines = text.split_inclusive("\r\n");
    lines
        .filter(|line| !line.starts_with("date:") && *line != "\r\n")
        .collect()
}

/// One request on a line of bytes; the answer's status and body.
async fn ask(
    stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
    bytes: &str,
) -> (u16, String) {
    stream.write_all(bytes.as_bytes()).await.expect("sent");
    let head = head(stream).await;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length: ")?
            .parse()
            .ok()
    });
    let mut body = Vec::new();
    if chunked {
        while !body.ends_with(b"0\r\n\r\n") {
            body.push(
                timeout(SOON, stream.read_u8())
                    .await
                    .expect("soon")
                    .expect("a chunk"),
            );
        }
    } else {
        body.resize(length.unwrap_or(0), 0);
        timeout(SOON, stream.read_exact(&mut body))
            .await
            .expect("soon")
            .expect("a body");
    }
    (
        status.expect("a status"),
        String::from_utf8(body).expect("text"),
    )
}

fn posting(target: &str, host: &str, body: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: Basic c2VjcmV0\r\nProxy-Connection: keep-alive\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

const SSN: &str = r#"{"ssn":"078-05-1120"}"#;

#[tokio::test]
async fn an_absolute_target_is_the_upstream() {
    let upstream = Raw::echo().await;
    let host = upstream.address.to_string();
    let behind = Ways {
        policy: Some(policy(&host)),
        ..Ways::default()
    }
    .start()
    .await;
    let mut line = behind.agent.line().await;
    for target in [
        format!("http://{host}/a?b=c"),
        format!("HTTP://{host}/a?b=c"),
    ] {
        line.say(posting(&target, &host, SSN).as_bytes()).await;
        let answer = line.answer().await;
        assert_eq!((answer.status(), answer.text()), (200, SSN));
    }
    let got = upstream.text();
    assert!(got.starts_with("POST /a?b=c HTTP/1.1\r\n"), "{got}");
    assert!(!got.contains("078-05-1120") && got.contains("fv1"), "{got}");
    assert!(!got.to_ascii_lowercase().contains("proxy-"), "{got}");
    assert!(got.contains("via: 1.1 fieldveil-"), "{got}");
    assert_eq!(upstream.connections(), 1, "they are kept");
}

#[tokio::test]
async fn an_absolute_https_target_gets_tls_from_the_agent() {
    for protocols in [&["http/1.1"][..], &["h2"], &[]] {
        let service = Service::speaking(protocols).await;
        let host = service.authority();
        let behind = Ways {
            policy: Some(policy(&host)),
            known: vec![service.known()],
            ..Ways::default()
        };
        let behind = behind.start().await;
        let answer = behind
            .agent
            .ask(posting(&format!("https://{host}/x"), &host, SSN))
            .await;
        assert_eq!(
            (answer.status(), answer.text()),
            (200, SSN),
            "{protocols:?}"
        );
        assert!(service.bodies()[0].contains("fv1"));
    }
}

#[tokio::test]
async fn over_http_2_every_target_is_absolute() {
    let upstream = Raw::echo().await;
    let host = upstream.address.to_string();
    let behind = Ways {
        policy: Some(policy(&host)),
        ..Ways::default()
    }
    .start()
    .await;
    let mut client = crate::multiplexed::client(&behind.agent).await;
    let request =
        Request::post(format!("http://{host}/x")).header("content-type", "application/json");
    let request = request.body(Pieces::of(&[SSN], &[])).expect("a request");
    let answer = crate::multiplexed::ask(&mut client, request).await;
    assert_eq!(
        (answer.head.status.as_u16(), answer.body.as_str()),
        (200, SSN)
    );
    assert!(upstream.text().contains("fv1"));

    // CONNECT is for HTTP/1.1, and so are upgrades: what RFC 8441 makes of the two is not on offer.
    let mut client = Frames::to(behind.agent.address).await;
    let asked = frames::request("CONNECT", "/live", &[(":protocol", "websocket")]);
    client.say(&frame(HEADERS, END_HEADERS, 1, &asked)).await;
    assert_eq!(client.outcome(1).await, Err(PROTOCOL_ERROR));
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn what_is_no_request_to_a_proxy() {
    let upstream = Raw::echo().await;
    let host = upstream.address;
    let behind = Ways::default().start().await;
    for (head, status, code) in [
        (
            format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            400,
            "proxy-form",
        ),
        (
            format!("GET http://{host}/ HTTP/1.1\r\nHost: other.example\r\n\r\n"),
            400,
            "host-mismatch",
        ),
        (
            format!("GET http://u:p@{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            400,
            "target",
        ),
        (
            format!("GET ftp://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            400,
            "target",
        ),
        (
            "GET http://127.1/ HTTP/1.1\r\nHost: 127.1\r\n\r\n".to_owned(),
            400,
            "target",
        ),
        (
            "GET http://2130706433/ HTTP/1.1\r\nHost: 2130706433\r\n\r\n".to_owned(),
            400,
            "target",
        ),
        (
            format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", host.ip()),
            400,
            "target",
        ),
        (
            "CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            400,
            "target",
        ),
        (
            format!("CONNECT http://{host} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            400,
            "target",
        ),
        (
            format!("CONNECT {host} HTTP/1.1\r\nHost: other.example\r\n\r\n"),
            400,
            "host-mismatch",
        ),
        (
            format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\n\r\nabc"),
            400,
            "early-data",
        ),
        (
            format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n\x16\x03\x01"),
            400,
            "early-data",
        ),
        (
            format!("TRACE http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            405,
            "method",
        ),
    ] {
        let answer = behind.agent.ask(&head).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (status, code),
            "{head}"
        );
    }
    assert_eq!(upstream.text(), "");
    // And a reverse listener is no proxy.
    let reverse = Setup::before(upstream.address).start().await;
    let answer = reverse
        .ask(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .await;
    assert_eq!((answer.status(), answer.code().as_str()), (405, "method"));
}

/// Bytes that come while the host is being connected to.
#[tokio::test]
async fn early_data_of_its_own_packet_is_refused_and_goes_nowhere() {
    // It accepts, and does not shake hands until it is told to.
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let host = format!("localhost:{}", socket.local_addr().expect("bound").port());
    let behind = Ways {
        policy: Some(policy(&host)),
        ..Ways::default()
    }
    .start()
    .await;
    let mut line = behind.agent.line().await;
    line.say(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
        .await;
    let (mut far, _) = timeout(SOON, socket.accept())
        .await
        .expect("soon")
        .expect("dialled");
    // What the agent itself says is its hello.
    assert_eq!(far.read_u8().await.expect("a hello"), 22);
    line.say(b"GET /secret HTTP/1.1\r\n").await;
    drop(far);
    let answer = line.answer().await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (400, "early-data")
    );
    assert!(line.is_over().await);
}

#[tokio::test]
async fn a_host_that_the_policy_names_is_intercepted() {
    for (speaks, offers, chosen) in [
        (&["h2", "http/1.1"][..], &["h2", "http/1.1"][..], Some("h2")),
        (&["h2", "http/1.1"], &["http/1.1"], Some("http/1.1")),
        // HTTP/2 is not on offer where the service has none.
        (&["http/1.1"], &["h2", "http/1.1"], Some("http/1.1")),
        (&[], &[], None),
    ] {
        let service = Service::speaking(speaks).await;
        let host = service.authority();
        let behind = Ways {
            policy: Some(policy(&host)),
            known: vec![service.known()],
            ..Ways::default()
        };
        let behind = behind.start().await;
        let stream = behind.tunnel(&host).await;
        let mut stream = behind
            .tls(stream, "localhost", offers)
            .await
            .expect("trusted");
        let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(
            protocol.as_deref(),
            chosen.map(str::as_bytes),
            "{speaks:?} {offers:?}"
        );
        if chosen == Some("h2") {
            let io = TokioIo::new(stream);
            let (mut client, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                    .await
                    .expect("HTTP/2");
            tokio::spawn(connection);
            for path in ["/a", "/b"] {
                let request = Request::post(format!("https://{host}{path}"));
                let request = request.header("content-type", "application/json");
                let request = request.body(Pieces::of(&[SSN], &[])).expect("a request");
                let answer = crate::multiplexed::ask(&mut client, request).await;
                assert_eq!(
                    (answer.head.status.as_u16(), answer.body.as_str()),
                    (200, SSN)
                );
            }
        } else {
            for path in ["/a", "/b"] {
                let answer = ask(&mut stream, &posting(path, &host, SSN)).await;
                assert_eq!(answer, (200, SSN.to_owned()));
            }
        }
        let bodies = service.bodies();
        assert_eq!(bodies.len(), 2);
        assert!(
            bodies
                .iter()
                .all(|body| body.contains("fv1") && !body.contains("078-05-1120")),
            "{bodies:?}"
        );
        assert_eq!(behind.outcome().await, "intercepted");
        let got = service.got.lock().expect("got");
        assert!(got.iter().all(|(head, _)| head.headers.contains_key("via")));
        assert!(got.iter().all(|(head, _)| {
            !head
                .headers
                .keys()
                .any(|name| name.as_str().starts_with("proxy-"))
        }));
    }
}

#[tokio::test]
async fn a_host_that_no_policy_names_is_tunnelled_byte_for_byte() {
    // Ends its side only when the client has ended its own.
    let upstream = Raw::new(|mut line| async move {
        while line.more().await {}
        line.say(b"behind the end").await;
    })
    .await;
    let behind = Ways {
        policy: Some(policy("api.example.com")),
        ..Ways::default()
    }
    .start()
    .await;
    let mut stream = behind.tunnel(&upstream.address.to_string()).await;
    let bytes: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
    stream.write_all(&bytes).await.expect("sent");
    stream.shutdown().await.expect("ended");
    let mut back = Vec::new();
    timeout(SOON, stream.read_to_end(&mut back))
        .await
        .expect("soon")
        .expect("read");
    assert_eq!(back, b"behind the end");
    assert_eq!(*upstream.got.lock().expect("got"), bytes);
    let passed = &behind.passed(1).await[0];
    assert_eq!(
        (passed.outcome, passed.sent_bytes, passed.received_bytes),
        ("tunnelled", 100_000, 14)
    );
    assert!(passed.id.is_some());
}

#[tokio::test]
async fn what_is_not_covered_is_refused_where_the_settings_say_so() {
    let upstream = Raw::echo().await;
    let host = upstream.address.to_string();
    let behind = Ways {
        policy: Some(policy("api.example.com")),
        covered_only: true,
        ..Ways::default()
    };
    let behind = behind.start().await;
    for head in [
        format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    ] {
        let answer = behind.agent.ask(&head).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (403, "uncovered"),
            "{head}"
        );
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_bad_certificate_of_the_service_is_the_answer_to_connect() {
    let service = Service::speaking(&["http/1.1"]).await;
    let host = service.authority();
    // Whom to trust is not said: nobody vouches for it.
    let behind = Ways {
        policy: Some(policy(&host)),
        ..Ways::default()
    }
    .start()
    .await;
    for head in [
        format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        posting(&format!("https://{host}/"), &host, SSN),
    ] {
        let answer = behind.agent.ask(&head).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (502, "upstream-tls"),
            "{head}"
        );
    }
    // Trusted, but for another name.
    let address = service.address;
    let mut known = service.known();
    known.url = format!("https://{address}").parse().expect("a URL");
    let behind = Ways {
        policy: Some(policy(&address.to_string())),
        known: vec![known],
        ..Ways::default()
    };
    let (_, head) = behind.start().await.connect(&address.to_string()).await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    assert!(service.bodies().is_empty());
}

#[tokio::test]
async fn a_host_outside_of_the_cas_names_is_refused_and_not_tunnelled() {
    let service = Service::speaking(&["http/1.1"]).await;
    let host = service.authority();
    let behind = Ways {
        policy: Some(policy(&host)),
        known: vec![service.known()],
        names: Names::new(["example.com"]).expect("names"),
        ..Ways::default()
    };
    let answer = behind
        .start()
        .await
        .agent
        .ask(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (403, "not-vouched")
    );
}

async fn intercepting() -> (Behind, Service, String) {
    let service = Service::speaking(&["http/1.1"]).await;
    let host = service.authority();
    let behind = Ways {
        policy: Some(policy(&host)),
        known: vec![service.known()],
        ..Ways::default()
    };
    (behind.start().await, service, host)
}

#[tokio::test]
async fn a_name_that_is_not_the_connects_is_refused() {
    let (behind, service, host) = intercepting().await;
    let stream = behind.tunnel(&host).await;
    let error = behind
        .tls(stream, "other.example", &[])
        .await
        .expect_err("an alert");
    assert!(error.to_string().to_lowercase().contains("name"), "{error}");
    assert_eq!(behind.outcome().await, "other-sni");
    // An address is no name to ask for: there is none in the hello then.
    let stream = behind.tunnel(&host).await;
    behind
        .tls(stream, "127.0.0.1", &[])
        .await
        .expect_err("an alert");
    assert_eq!(behind.passed(2).await[1].outcome, "no-sni");
    assert!(service.bodies().is_empty());
}

#[tokio::test]
async fn a_host_that_is_not_the_connects_is_misdirected() {
    let (behind, service, host) = intercepting().await;
    let stream = behind.tunnel(&host).await;
    let mut stream = behind.tls(stream, "localhost", &[]).await.expect("trusted");
    for head in [
        "GET / HTTP/1.1\r\nHost: other.example\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        "GET https://other.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n".to_owned(),
    ] {
        let (status, body) = ask(&mut stream, &head).await;
        assert!(
            status == 421 && body.contains("misdirected"),
            "{head}: {status} {body}"
        );
    }
    // The same connection is good for what it is for, however that is spelt.
    let upper = host.to_ascii_uppercase();
    for head in [
        format!("GET / HTTP/1.1\r\nHost: {upper}\r\n\r\n"),
        format!("GET https://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    ] {
        assert_eq!(ask(&mut stream, &head).await.0, 200, "{head}");
    }
    // And leads nowhere else.
    let (status, body) = ask(
        &mut stream,
        &format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    )
    .await;
    assert!(status == 405 && body.contains("method"), "{status} {body}");
    assert_eq!(service.bodies().len(), 2);
}

#[tokio::test]
async fn what_is_no_tls_behind_a_connect_is_told_so() {
    let (behind, service, host) = intercepting().await;
    let mut stream = behind.tunnel(&host).await;
    let (status, body) = ask(&mut stream, &post("/x", SSN)).await;
    assert!(status == 400 && body.contains("not-tls"), "{status} {body}");
    // HTTP/2 without TLS, in pieces.
    let mut stream = behind.tunnel(&host).await;
    let (status, _) = ask(&mut stream, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(status, 400);
    // Something else entirely: nothing is said.
    let mut stream = behind.tunnel(&host).await;
    stream.write_all(b"\0\x01\x02").await.expect("sent");
    assert_eq!(
        timeout(SOON, stream.read(&mut [0; 16]))
            .await
            .expect("soon")
            .unwrap_or(0),
        0
    );
    // A client that says nothing is given up in time.
    let mut stream = behind.tunnel(&host).await;
    assert_eq!(
        timeout(SOON, stream.read(&mut [0; 16]))
            .await
            .expect("soon")
            .unwrap_or(0),
        0
    );
    // A record that is none.
    let mut stream = behind.tunnel(&host).await;
    stream
        .write_all(b"\x16GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("sent");
    let mut answer = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answer))
        .await
        .expect("soon");
    let passed = behind.passed(5).await;
    let outcomes: Vec<_> = passed.iter().map(|passed| passed.outcome).collect();
    assert_eq!(
        outcomes,
        ["not-tls", "not-tls", "not-tls", "timeout", "handshake"]
    );
    assert!(service.bodies().is_empty());
}

#[tokio::test]
async fn plain_http_behind_a_connect_is_under_the_policy() {
    // Whether that is in the settings, or seen when TLS is tried.
    for known in [true, false] {
        let service = Service::plain(false).await;
        let host = service.authority();
        let behind = Ways {
            policy: Some(policy(&host)),
            known: known.then(|| service.known_plain()).into_iter().collect(),
            ..Ways::default()
        };
        let behind = behind.start().await;
        let mut stream = behind.tunnel(&host).await;
        for _ in 0..2 {
            let answer = ask(&mut stream, &posting("/a?b=c", &host, SSN)).await;
            assert_eq!(answer, (200, SSN.to_owned()));
        }
        let bodies = service.bodies();
        assert!(bodies.len() == 2 && bodies.iter().all(|body| body.contains("fv1~")));
        let misdirected = [
            "GET / HTTP/1.1\r\nHost: other.example\r\n\r\n".to_owned(),
            format!("GET https://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        ];
        for head in misdirected {
            let (status, body) = ask(&mut stream, &head).await;
            assert!(
                status == 421 && body.contains("misdirected"),
                "{head}: {status} {body}"
            );
        }
        let connect = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let (status, body) = ask(&mut stream, &connect).await;
        assert!(status == 405 && body.contains("method"), "{status} {body}");
        assert_eq!(service.bodies().len(), 2);
        assert_eq!(behind.outcome().await, "plain");
    }
}

#[tokio::test]
async fn plain_http2_behind_a_connect_is_under_the_policy() {
    let service = Service::plain(true).await;
    let host = service.authority();
    let behind = Ways {
        policy: Some(policy(&host)),
        ..Ways::default()
    };
    let behind = behind.start().await;
    let stream = behind.tunnel(&host).await;
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let request =
        Request::post(format!("http://{host}/x")).header("content-type", "application/json");
    let request = request.body(Full::new(SSN.into())).expect("a request");
    let request: Request<Full<bytes::Bytes>> = request;
    let answer = client.send_request(request).await.expect("an answer");
    let body = answer.into_body().collect().await.expect("a body");
    assert_eq!(body.to_bytes(), SSN);
    let bodies = service.bodies();
    assert!(
        bodies.len() == 1 && bodies[0].contains("fv1~"),
        "{bodies:?}"
    );
}

#[tokio::test]
async fn what_is_no_http_behind_a_connect_to_a_host_without_tls_ends() {
    let greeting = Raw::new(|mut line| async move {
        line.say(b"220 mail.example ready\r\n").await;
        while line.more().await {}
    });
    let greeting = greeting.await;
    let host = format!("localhost:{}", greeting.address.port());
    let plain = Service::plain(false).await;
    let behind = Ways {
        policy: Some(policy("localhost")),
        known: vec![plain.known_plain()],
        ..Ways::default()
    };
    let behind = behind.start().await;
    let ended = async |mut stream: TcpStream| {
        let mut answer = Vec::new();
        let _ = timeout(SOON, stream.read_to_end(&mut answer))
            .await
            .expect("soon");
        answer
    };
    // The service speaks first, and so nobody does: what it says does not pass unseen.
    let stream = behind.tunnel(&host).await;
    assert!(ended(stream).await.is_empty());
    // Half a word.
    let mut stream = behind.tunnel(&host).await;
    stream.write_all(b"HALFAMETHOD").await.expect("sent");
    assert!(ended(stream).await.is_empty());
    // No HTTP.
    let mut stream = behind.tunnel(&plain.authority()).await;
    stream.write_all(b"SSH-2.0-client\r\n").await.expect("sent");
    assert!(ended(stream).await.is_empty());
    // TLS, where nobody can see a certificate: an alert.
    let stream = behind.tunnel(&plain.authority()).await;
    let error = behind.tls(stream, "localhost", &[]).await;
    let error = error.expect_err("an alert").to_string();
    assert!(error.contains("HandshakeFailure"), "{error}");
    // The client goes.
    drop(behind.tunnel(&host).await);
    let passed = behind.passed(5).await;
    let outcomes: Vec<_> = passed.iter().map(|passed| passed.outcome).collect();
    let expected = ["silent", "timeout", "not-tls", "upstream-not-tls", "gone"];
    assert_eq!(outcomes, expected);
    assert!(plain.bodies().is_empty());
    assert!(!greeting.text().contains("HALFAMETHOD"));
}

#[tokio::test]
async fn tls_is_not_left_off_for_a_service_that_the_settings_call_plain() {
    // Called so by mistake: its clients' TLS is, and theirs is what counts.
    let service = Service::speaking(&["http/1.1"]).await;
    let host = service.authority();
    let behind = Ways {
        policy: Some(policy(&host)),
        known: vec![service.known_plain()],
        ..Ways::default()
    };
    let behind = behind.start().await;
    let stream = behind.tunnel(&host).await;
    // Nobody vouches for its certificate.
    let error = behind.tls(stream, "localhost", &[]).await;
    let error = error.expect_err("an alert").to_string();
    assert!(error.contains("HandshakeFailure"), "{error}");
    assert_eq!(behind.outcome().await, "upstream-tls");
}

#[tokio::test]
async fn the_address_of_what_is_plain_is_checked_before_the_answer() {
    let behind = Ways {
        policy: Some(policy("localhost")),
        guarded: true,
        ..Ways::default()
    };
    let (_, head) = behind.start().await.connect("localhost:80").await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
}

#[tokio::test]
async fn a_client_without_credentials_is_asked_for_them() {
    let upstream = Raw::echo().await;
    let host = upstream.address;
    let behind = Ways {
        credentials: Some("app:0123456789abcdef"),
        ..Ways::default()
    }
    .start()
    .await;
    let mut line = behind.agent.line().await;
    for (method, target) in [
        ("GET", format!("http://{host}/")),
        ("CONNECT", host.to_string()),
    ] {
        for field in ["", "Proxy-Authorization: Basic YXBwOndyb25n\r\n"] {
            line.say(
                format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{field}\r\n").as_bytes(),
            )
            .await;
            let answer = line.answer().await;
            assert_eq!(
                (answer.status(), answer.code().as_str()),
                (407, "proxy-credentials")
            );
            assert_eq!(
                answer.header("proxy-authenticate"),
                Some("Basic realm=\"fieldveil\"")
            );
        }
    }
    // On the same connection, with them.
    let right = "Proxy-Authorization: Basic YXBwOjAxMjM0NTY3ODlhYmNkZWY=\r\n";
    line.say(format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n{right}\r\n").as_bytes())
        .await;
    assert_eq!(line.answer().await.status(), 200);
    assert!(
        !upstream
            .text()
            .to_lowercase()
            .contains("proxy-authorization"),
        "{}",
        upstream.text()
    );
    line.say(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{right}\r\n").as_bytes())
        .await;
    assert!(
        line.head()
            .await
            .expect("an answer")
            .starts_with("HTTP/1.1 200")
    );
    line.say(b"GET /through HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(line.answer().await.status(), 200);
    assert!(upstream.text().contains("GET /through"));
    // A body that nobody asked for closes the connection over it.
    let mut line = behind.agent.line().await;
    line.say(posting(&format!("http://{host}/"), &host.to_string(), SSN).as_bytes())
        .await;
    assert_eq!(line.answer().await.header("connection"), Some("close"));
}

#[tokio::test]
async fn guarded_addresses_are_not_reached_by_any_name() {
    let upstream = Raw::echo().await;
    let port = upstream.address.port();
    let behind = Ways {
        guarded: true,
        ..Ways::default()
    }
    .start()
    .await;
    for host in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        "169.254.169.254:80".to_owned(),
        "[fd00:ec2::254]:80".to_owned(),
    ] {
        for head in [
            format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        ] {
            let answer = behind.agent.ask(&head).await;
            assert_eq!(
                (answer.status(), answer.code().as_str()),
                (502, "upstream-forbidden"),
                "{head}"
            );
        }
    }
    assert_eq!(upstream.connections(), 0);
    // The agent itself is not reached even where loopback is.
    let own = OwnAddresses::default();
    let behind = Ways {
        own,
        ..Ways::default()
    }
    .start()
    .await;
    let own = behind.agent.address;
    for host in [own.to_string(), format!("localhost:{}", own.port())] {
        let answer = behind
            .agent
            .ask(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (502, "upstream-forbidden"),
            "{host}"
        );
    }
}

#[tokio::test]
async fn a_refused_connect_leaves_the_connection_to_other_requests() {
    let upstream = Raw::echo().await;
    let host = upstream.address;
    let behind = Ways::default().start().await;
    let mut line = behind.agent.line().await;
    // Nobody listens at port 1.
    line.say(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
        .await;
    assert_eq!(line.answer().await.status(), 502);
    line.say(format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
        .await;
    assert_eq!(line.answer().await.status(), 200);
    line.say(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
        .await;
    assert!(
        line.head()
            .await
            .expect("an answer")
            .starts_with("HTTP/1.1 200")
    );
    line.say(b"GET /through HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(line.answer().await.status(), 200);
}

#[tokio::test]
async fn http_1_0_opens_tunnels_without_a_host() {
    let upstream = Raw::echo().await;
    let behind = Ways::default().start().await;
    let mut line = behind.agent.line().await;
    line.say(format!("CONNECT {} HTTP/1.0\r\n\r\n", upstream.address).as_bytes())
        .await;
    assert!(line.head().await.expect("an answer").contains(" 200 "));
    line.say(b"GET /through HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(line.answer().await.status(), 200);
}

#[tokio::test]
async fn tunnels_end_when_nothing_moves_and_when_the_agent_ends() {
    let upstream = Raw::echo().await;
    let host = upstream.address.to_string();
    let behind = Ways {
        quiet: Some(Duration::from_millis(100)),
        ..Ways::default()
    }
    .start()
    .await;
    let mut stream = behind.tunnel(&host).await;
    assert_eq!(
        timeout(SOON, stream.read(&mut [0; 16]))
            .await
            .expect("soon")
            .unwrap_or(0),
        0
    );
    assert_eq!(behind.outcome().await, "tunnelled");

    let behind = Ways {
        drain: Some(Duration::from_millis(100)),
        ..Ways::default()
    }
    .start()
    .await;
    let mut stream = behind.tunnel(&host).await;
    behind.agent.drain.send_replace(true);
    timeout(SOON, behind.agent.serving)
        .await
        .expect("soon")
        .expect("ended");
    assert_eq!(
        timeout(SOON, stream.read(&mut [0; 16]))
            .await
            .expect("soon")
            .unwrap_or(0),
        0
    );
}

/// When the drain has begun, nothing would be served behind it: the answer says so, and the host is not connected to.
#[tokio::test]
async fn a_connect_that_crosses_the_drain_is_refused() {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let host = format!("localhost:{}", socket.local_addr().expect("bound").port());
    for covered in [false, true] {
        let behind = Ways {
            policy: covered.then(|| policy(&host)),
            ..Ways::default()
        }
        .start()
        .await;
        let mut line = behind.agent.line().await;
        let connect = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        line.say(&connect.as_bytes()[..9]).await;
        eventually("it has begun", || behind.agent.gauges.connections() == 1).await;
        behind.agent.drain.send_replace(true);
        line.say(&connect.as_bytes()[9..]).await;
        let answer = line.answer().await;
        assert_eq!(answer.status(), 503, "{answer:?}");
        assert!(answer.text().contains("\"draining\""), "{answer:?}");
        assert!(line.is_over().await);
        behind.agent.serving.await.expect("it ends");
    }
    timeout(Duration::from_millis(10), socket.accept())
        .await
        .expect_err("it was connected to");
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_nothing_behind() {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let host = format!("localhost:{}", socket.local_addr().expect("bound").port());
    let behind = Ways {
        policy: Some(policy(&host)),
        ..Ways::default()
    }
    .start()
    .await;
    let mut line = behind.agent.line().await;
    line.say(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
        .await;
    let (mut far, _) = timeout(SOON, socket.accept())
        .await
        .expect("soon")
        .expect("dialled");
    assert_eq!(far.read_u8().await.expect("a hello"), 22);
    drop(line);
    // The agent lets go of the host, too, long before its time to connect is over.
    let mut rest = Vec::new();
    let _ = timeout(SOON, far.read_to_end(&mut rest))
        .await
        .expect("soon");
    let gauges = behind.agent.gauges.clone();
    eventually("nothing is open", || {
        gauges.connections() == 0 && gauges.requests() == 0
    })
    .await;
}

#[tokio::test]
async fn redirections_are_left_alone_but_for_those_past_the_policy() {
    let location = Arc::new(Mutex::new(String::new()));
    let told = location.clone();
    let upstream = Raw::new(move |mut line: Line| {
        let told = told.clone();
        async move {
            while line.request().await.is_some() {
                let to = told.lock().expect("told").clone();
                let answer = format!(
                    "HTTP/1.1 307 Elsewhere\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"
                );
                line.say(answer.as_bytes()).await;
            }
        }
    })
    .await;
    let host = upstream.address.to_string();
    let behind = Ways {
        policy: Some(policy(&host)),
        ..Ways::default()
    }
    .start()
    .await;
    for (to, status) in [
        (format!("https://{host}/x"), 307),
        (format!("http://{host}/x"), 307),
        ("/x".to_owned(), 307),
        ("https://elsewhere.example/x".to_owned(), 502),
        (format!("https://{host}@elsewhere.example/x"), 502),
    ] {
        to.clone_into(&mut location.lock().expect("told"));
        let answer = behind
            .agent
            .ask(posting(&format!("http://{host}/"), &host, SSN))
            .await;
        assert_eq!(answer.status(), status, "{to}");
        if status == 307 {
            assert_eq!(answer.header("location"), Some(to.as_str()));
        }
    }
}

/// A hello of this version for `localhost`, as clients of TLS 1.0 sent it: no extension but the name.
fn old_hello(version: u8) -> Vec<u8> {
    let mut hello = vec![22, 3, version.min(1), 0, 67, 1, 0, 0, 63, 3, version];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0xc0, 0x13, 0, 0x2f, 1, 0]);
    hello.extend([0, 18, 0, 0, 0, 14, 0, 12, 0, 0, 9]);
    hello.extend(b"localhost");
    hello
}

#[tokio::test]
async fn a_hello_that_is_too_old_too_long_or_none_gets_an_alert() {
    let (behind, service, host) = intercepting().await;
    let whole = old_hello(3);
    let mut split = Vec::new();
    for byte in &old_hello(1)[5..] {
        split.extend([22, 3, 1, 0, 1, *byte]);
    }
    // The first record, full, of a message of 64 KiB.
    let long = [&[22, 3, 1, 0x40, 0, 1, 1, 0, 0][..], &[0; 0x4000 - 4]].concat();
    let bad = [
        old_hello(0),
        old_hello(1),
        old_hello(2),
        split,
        long,
        [&whole[..5], &[0xff; 67]].concat(),
        vec![22, 3, 1, 0, 4, 2, 0, 0, 0],
    ];
    for (number, hello) in bad.iter().enumerate() {
        let mut stream = behind.tunnel(&host).await;
        let _ = stream.write_all(hello).await;
        let mut answer = Vec::new();
        let read = timeout(SOON, stream.read_to_end(&mut answer)).await;
        let _ = read.expect("soon");
        assert!(
            matches!(answer[..], [21, _, _, _, _, 2, _, ..]),
            "{number}: {answer:?}"
        );
    }
    let passed = behind.passed(bad.len()).await;
    assert!(
        passed.iter().all(|passed| passed.outcome == "handshake"),
        "{passed:?}"
    );
    assert!(service.bodies().is_empty());

    // A good one is served, a byte at a time.
    let config = rustls::ClientConfig::builder_with_provider(fieldveil::tls::provider())
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("written");
    let mut stream = behind.tunnel(&host).await;
    stream.set_nodelay(true).expect("nodelay");
    for byte in hello {
        stream.write_all(&[byte]).await.expect("sent");
        tokio::task::yield_now().await;
    }
    let first = timeout(SOON, stream.read_u8()).await.expect("soon");
    assert_eq!(first.expect("an answer"), 22);
}

/// Addresses of this machine, all of them distinct hosts.
fn hosts(count: usize, port: u16) -> impl Iterator<Item = String> {
    (0..count).map(move |n| format!("127.1.{}.{}:{port}", n / 250, n % 250 + 1))
}

#[tokio::test]
async fn ten_thousand_hosts_leave_nothing_behind() {
    let socket = TcpListener::bind("0.0.0.0:0").await.expect("a port");
    let port = socket.local_addr().expect("bound").port();
    let open = Arc::new(AtomicUsize::new(0));
    let accepted = Arc::new(AtomicUsize::new(0));
    let (counted, all) = (open.clone(), accepted.clone());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            let counted = counted.clone();
            counted.fetch_add(1, SeqCst);
            all.fetch_add(1, SeqCst);
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while let Ok(1..) = stream.read(&mut bytes).await {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    let _ = stream.write_all(answer).await;
                }
                counted.fetch_sub(1, SeqCst);
            });
        }
    });
    let behind = Ways::default().start().await;
    let get = |host: &str, target: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    // Tunnels, each to another host.
    for host in hosts(2_000, port) {
        let mut line = behind.agent.line().await;
        line.say(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
            .await;
        let head = line.head().await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        line.say(get(&host, "/").as_bytes()).await;
        assert_eq!(line.answer().await.status(), 200);
    }
    // Requests, whose upstreams are kept for the next one: some of them.
    let mut line = behind.agent.line().await;
    for host in hosts(10_000, port) {
        line.say(get(&host, &format!("http://{host}/")).as_bytes())
            .await;
        assert_eq!(line.answer().await.status(), 200, "{host}");
    }
    eventually("only what is pooled is open", || open.load(SeqCst) <= 256).await;
    drop(line);
    eventually("nothing of the clients is", || {
        behind.agent.gauges.connections() == 0 && behind.agent.gauges.requests() == 0
    })
    .await;
    // Where only what is covered may pass, none is even dialled.
    let strict = Ways {
        covered_only: true,
        policy: Some(policy("api.example.com")),
        ..Ways::default()
    };
    let strict = strict.start().await;
    let before = accepted.load(SeqCst);
    assert!(before >= 12_000, "{before}");
    let mut line = strict.agent.line().await;
    for host in hosts(10_000, port) {
        line.say(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
            .await;
        let answer = line.answer().await;
        assert_eq!((answer.status(), &*answer.code()), (403, "uncovered"));
    }
    // Who was dialled last comes last: a connection of our own is accepted behind all others.
    drop(TcpStream::connect(("127.0.0.1", port)).await);
    eventually("ours is accepted", || accepted.load(SeqCst) > before).await;
    assert_eq!(accepted.load(SeqCst), before + 1, "some were dialled");
}
