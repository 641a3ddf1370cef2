//! Who asks, on the wire: by a header, by the user of a Unix socket, by the name in a client certificate; and how much each one sees.

use crate::harness::{Agent, Message, Raw, SOON, Setup, post};
use fieldveil::audit::Caller;
use fieldveil::listener::Socket;
use fieldveil::tls::{Clients, H2, Identity};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const NUMBER: &str = "4111111111111111";
const BILLING: &str = "spiffe://example.org/billing";

/// Sealed on the way out; on the way back, `full` sees all of it, `none` nothing, others the end.
fn policy(source: &str, full: &str, none: &str) -> String {
    format!(
        r#"
apiVersion: fieldveil/v1
kind: Policy
metadata: {{name: test}}
caller: {source}
classes:
  pan: {{key: cards, mask: {{keep_last: 4}}}}
routes:
  - name: cards
    match: {{path: "/cards"}}
    request:
      rules: [{{at: $.n, seal: pan}}]
    response:
      rules: [{{at: $.n, open: pan, reveal: {{default: masked, callers: {{"{full}": full, "{none}": none}}}}}}]
"#
    )
}

fn body() -> String {
    format!("{{\"n\":\"{NUMBER}\"}}")
}

fn full() -> String {
    body()
}

const HALF: &str = "{\"n\":\"••••1111\"}";

fn callers(agent: &Agent) -> Vec<Caller> {
    let all = agent.records.all();
    all.into_iter().map(|kept| kept.caller).collect()
}

fn with(header: &str) -> String {
    post("/cards", &body()).replace("Host: app\r\n", &format!("Host: app\r\n{header}"))
}

#[track_caller]
fn sees(answer: &Message, body: &str, result: &str) {
    assert_eq!((answer.status(), answer.text()), (200, body));
    assert_eq!(answer.header("fieldveil-result"), Some(result));
}

#[tokio::test]
async fn a_header_names_the_caller() {
    let upstream = Raw::echo().await;
    let policy = policy("{header: X-Caller}", "billing", "reporting");
    let agent = Setup::before(upstream.address)
        .policy(&policy)
        .start()
        .await;
    let answer = agent.ask(with("X-Caller: billing\r\n")).await;
    sees(&answer, &full(), "sealed=1, opened=1");
    // It goes on as the client sent it.
    assert!(
        upstream
            .text()
            .to_lowercase()
            .contains("\r\nx-caller: billing\r\n")
    );
    let masked = "sealed=1, opened=0, masked=1";
    for header in [
        "",
        "X-Caller: support\r\n",
        "X-Caller: Billing\r\n",
        "X-Caller:\r\n",
        "X-Caller: billing\r\nX-Caller: billing\r\n",
        "X_Caller: billing\r\n",
    ] {
        sees(&agent.ask(with(header)).await, HALF, masked);
    }
    let answer = agent.ask(with("X-Caller: reporting\r\n")).await;
    assert!(
        answer.text().starts_with("{\"n\":\"fv1~"),
        "{}",
        answer.text()
    );
    assert_eq!(
        answer.header("fieldveil-result"),
        Some("sealed=1, opened=0, left=1;withheld=1")
    );
    // The record has the policy's names, and no other.
    let listed = |name: &str| Caller::Listed(name.into());
    let (unknown, unlisted) = (Caller::Unknown, Caller::Unlisted);
    assert_eq!(
        callers(&agent),
        [
            listed("billing"),
            unknown.clone(),
            unlisted.clone(),
            unlisted,
            unknown.clone(),
            unknown.clone(),
            unknown,
            listed("reporting")
        ]
    );
}

#[tokio::test]
async fn a_masked_value_is_not_taken_back() {
    let upstream = Raw::echo().await;
    let policy = policy("{header: X-Caller}", "billing", "reporting");
    let agent = Setup::before(upstream.address)
        .policy(&policy)
        .start()
        .await;
    for body in [
        HALF,
        "{\"n\":\"\\u2022\\u2022\\u2022\\u20221111\"}",
        "{\"n\":\"••••\"}",
    ] {
        let answer = agent.post("/cards", body).await;
        assert_eq!(answer.status(), 422);
        assert!(
            answer.text().contains("\"code\":\"masked-value\""),
            "{}",
            answer.text()
        );
        assert!(!answer.text().contains("1111"));
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_key_that_is_gone_shows_nothing_to_anybody() {
    let upstream = Raw::echo().await;
    let policy = policy("{header: X-Caller}", "billing", "reporting");
    let agent = Setup::before(upstream.address)
        .policy(&policy)
        .start()
        .await;
    agent.post("/cards", &body()).await;
    let stored = upstream.text();
    let sealed = stored.split_once("\r\n\r\n").expect("a body").1.to_owned();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{sealed}",
        sealed.len()
    );
    let upstream = Raw::answering(answer).await;
    let agent = Setup::before(upstream.address)
        .policy(&policy)
        .start()
        .await;
    agent.keys.gone.store(true, SeqCst);
    let get = "GET /cards HTTP/1.1\r\nHost: a\r\n\r\n";
    sees(
        &agent.ask(get).await,
        &sealed,
        "sealed=0, opened=0, left=1;unreachable=1",
    );
}

async fn over_http_1(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let ask =
        post("/cards", &body()).replace("Host: app\r\n", "Host: app\r\nConnection: close\r\n");
    stream.write_all(ask.as_bytes()).await.expect("sent");
    let mut text = String::new();
    let read = stream.read_to_string(&mut text);
    timeout(SOON, read).await.expect("soon").expect("an answer");
    let (_, body) = text.split_once("\r\n\r\n").expect("an answer");
    body.to_owned()
}

async fn over_http_2<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: T) -> String {
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut client, connection) = shaken.await.expect("a handshake");
    tokio::spawn(connection);
    let request = Request::post("https://localhost/cards")
        .header("content-type", "application/json")
        .body(Full::new(bytes::Bytes::from(body())))
        .expect("a request");
    let answer = timeout(SOON, client.send_request(request)).await;
    let answer = answer.expect("soon").expect("an answer").into_body();
    let body = answer.collect().await.expect("a body").to_bytes();
    String::from_utf8(body.to_vec()).expect("UTF-8")
}

#[tokio::test]
async fn the_user_of_a_unix_socket_is_known_by_its_number() {
    let own = rustix::process::getuid().as_raw();
    let dir = tempfile::tempdir().expect("a directory");
    for (allowed, seen) in [(own, full()), (own + 1, HALF.to_owned())] {
        let upstream = Raw::echo().await;
        let path = dir.path().join(format!("{allowed}.sock"));
        let policy = policy("{peer: uid}", &allowed.to_string(), "99999");
        let mut setup = Setup::before(upstream.address).policy(&policy);
        setup.socket = Some(Socket::unix(&path, 0o600).expect("a socket"));
        let agent = setup.start().await;
        let connect = || UnixStream::connect(&path);
        assert_eq!(over_http_1(connect().await.expect("connects")).await, seen);
        assert_eq!(over_http_2(connect().await.expect("connects")).await, seen);
        let expected = match allowed == own {
            true => Caller::Listed(own.to_string().into()),
            false => Caller::Unlisted,
        };
        assert_eq!(callers(&agent), [expected.clone(), expected]);
    }
    // Over TCP nobody is known, whatever is said.
    let upstream = Raw::echo().await;
    let policy = policy("{peer: uid}", &own.to_string(), "99999");
    let agent = Setup::before(upstream.address)
        .policy(&policy)
        .start()
        .await;
    let answer = agent.ask(with(&format!("X-Caller: {own}\r\n"))).await;
    sees(&answer, HALF, "sealed=1, opened=0, masked=1");
    assert_eq!(callers(&agent), [Caller::Unknown]);
}

/// An authority of clients.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
type Shown = (CertificateDer<'static>, Vec<u8>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let issuer = Issuer::new(params, key);
        Authority { pem, issuer }
    }

    fn of(&self, names: &[SanType]) -> Shown {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        let key = KeyPair::generate().expect("a key");
        let made = params.signed_by(&key, &self.issuer).expect("a certificate");
        (made.der().clone(), key.serialize_der())
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("a URI"))
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().expect("a name"))
}

/// An agent with TLS that asks for certificates, and what its own is checked with.
async fn secure(upstream: &Raw, authority: &Authority, required: bool) -> (Agent, RootCertStore) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let policy = policy("{mtls: san}", BILLING, "reporting.example.org");
    let mut setup = Setup::before(upstream.address).policy(&policy);
    let identity = Identity::new(chain.as_bytes(), key.as_bytes());
    setup.listener.tls = Some(identity.expect("an identity"));
    let clients = Clients::new(authority.pem.as_bytes(), required);
    setup.listener.clients = Some(clients.expect("authorities"));
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    (setup.start().await, roots)
}

/// Shakes hands, showing a certificate or none.
async fn shake(
    agent: &Agent,
    roots: &RootCertStore,
    shown: Option<Shown>,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(fieldveil::tls::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots.clone());
    let mut config = match shown {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivatePkcs8KeyDer::from(key).into();
            let config = config.with_client_auth_cert(vec![certificate], key);
            config.expect("a certificate")
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(agent.address).await.expect("connects");
    let name = ServerName::try_from("localhost").expect("a name");
    let shaken = TlsConnector::from(Arc::new(config)).connect(name, stream);
    timeout(SOON, shaken).await.expect("soon")
}

#[tokio::test]
async fn a_client_certificate_names_the_caller() {
    let upstream = Raw::echo().await;
    let authority = Authority::new();
    let (agent, roots) = secure(&upstream, &authority, true).await;
    let ask = async |names: &[SanType], http2: bool| {
        let alpn: &[&[u8]] = if http2 { &[H2] } else { &[] };
        let shown = Some(authority.of(names));
        let stream = shake(&agent, &roots, shown, alpn).await.expect("TLS");
        if http2 {
            over_http_2(stream).await
        } else {
            over_http_1(stream).await
        }
    };
    for http2 in [false, true] {
        assert_eq!(
            ask(&[uri(BILLING), dns("billing.example.org")], http2).await,
            full()
        );
        assert_eq!(ask(&[uri("spiffe://example.org/web")], http2).await, HALF);
        assert_eq!(ask(&[dns("billing.example.org")], http2).await, HALF);
        assert_eq!(
            ask(&[uri(BILLING), uri("spiffe://example.org/web")], http2).await,
            HALF
        );
        let withheld = ask(&[dns("Reporting.example.org")], http2).await;
        assert!(withheld.starts_with("{\"n\":\"fv1~"), "{withheld}");
    }
    let listed = |name: &str| Caller::Listed(name.into());
    let each = [
        listed(BILLING),
        Caller::Unlisted,
        Caller::Unlisted,
        Caller::Unknown,
        listed("reporting.example.org"),
    ];
    assert_eq!(callers(&agent), [each.clone(), each].concat());
}

#[tokio::test]
async fn only_a_certificate_of_the_authority_is_taken() {
    let upstream = Raw::echo().await;
    let (authority, other) = (Authority::new(), Authority::new());
    for required in [true, false] {
        let (agent, roots) = secure(&upstream, &authority, required).await;
        let forged = Some(other.of(&[uri(BILLING)]));
        for (shown, taken) in [(forged, false), (None, !required)] {
            // With TLS 1.3 the client learns of it at its first read.
            let answer = match shake(&agent, &roots, shown, &[]).await {
                Ok(mut stream) => {
                    let ask = post("/cards", &body());
                    let _ = stream.write_all(ask.as_bytes()).await;
                    let mut text = vec![0; 12];
                    let read = timeout(SOON, stream.read_exact(&mut text))
                        .await
                        .expect("soon");
                    read.is_ok()
                        .then(|| String::from_utf8_lossy(&text).into_owned())
                }
                Err(_) => None,
            };
            assert_eq!(
                answer.as_deref(),
                taken.then_some("HTTP/1.1 200"),
                "{required}"
            );
        }
        let all = callers(&agent);
        assert!(
            all.iter().all(|caller| *caller == Caller::Unknown),
            "{all:?}"
        );
        assert_eq!(all.len(), usize::from(!required));
    }
}
