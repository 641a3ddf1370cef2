//! TLS and Unix sockets towards the application; versions and client certificates towards upstreams.

use crate::frames::{END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, request};
use crate::harness::{Agent, Raw, SOON, Setup, eventually};
use bytes::Bytes;
use fieldveil::listener::Socket;
use fieldveil::tls::{H2, HTTP11, Identity};
use fieldveil::upstream::{Roots, Speak};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A certificate for localhost and 127.0.0.1, and its key, in PEM.
struct Made {
    cert: String,
    key: String,
    der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

fn made() -> Made {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    Made {
        cert: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
        der: made.cert.der().clone(),
        key_der: made.signing_key.serialize_der(),
    }
}

impl Made {
    fn identity(&self) -> Identity {
        Identity::new(self.cert.as_bytes(), self.key.as_bytes()).expect("an identity")
    }
    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a root");
        roots
    }
}

async fn secure(made: &Made, http2: bool) -> (Raw, Agent) {
    let upstream = Raw::answering(OK).await;
    let mut setup = Setup::before(upstream.address);
    setup.listener.tls = Some(made.identity());
    setup.listener.http2 = http2;
    setup.listener.patience.head = Duration::from_secs(2);
    (upstream, setup.start().await)
}

/// Shakes hands with the agent as `name`, offering these protocols.
async fn shake(
    agent: &Agent,
    made: &Made,
    name: &'static str,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = ClientConfig::builder_with_provider(fieldveil::tls::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(made.roots())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(agent.address).await.expect("connects");
    let name = ServerName::try_from(name).expect("a name");
    timeout(
        SOON,
        TlsConnector::from(Arc::new(config)).connect(name, stream),
    )
    .await
    .expect("soon")
}

async fn over_http_1(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    stream
        .write_all(b"GET /one HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .expect("sent");
    let mut text = String::new();
    timeout(SOON, stream.read_to_string(&mut text))
        .await
        .expect("soon")
        .expect("an answer");
    text
}

async fn over_http_2<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: T) -> Bytes {
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a handshake");
    tokio::spawn(connection);
    let request = Request::get("https://localhost/two")
        .body(Empty::<Bytes>::new())
        .expect("a request");
    let answer = timeout(SOON, client.send_request(request))
        .await
        .expect("soon")
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    answer
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes()
}

#[tokio::test]
async fn a_listener_with_tls_negotiates_the_version() {
    let made = made();
    let (upstream, agent) = secure(&made, true).await;
    // An address has no SNI.
    for name in ["localhost", "127.0.0.1"] {
        let stream = shake(&agent, &made, name, &[H2, HTTP11])
            .await
            .expect("TLS");
        let session = stream.get_ref().1;
        assert_eq!(session.alpn_protocol(), Some(H2));
        assert_eq!(
            session
                .negotiated_key_exchange_group()
                .map(|group| group.name()),
            Some(rustls::NamedGroup::X25519MLKEM768)
        );
        assert_eq!(over_http_2(stream).await, "ok");
        for alpn in [&[HTTP11][..], &[]] {
            let stream = shake(&agent, &made, name, alpn).await.expect("TLS");
            let text = over_http_1(stream).await;
            assert!(
                text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("ok"),
                "{text}"
            );
        }
    }
    // Other protocols alone are turned away in the handshake.
    assert!(
        shake(&agent, &made, "localhost", &[b"spdy/3"])
            .await
            .is_err()
    );
    // HTTP/2 is negotiated here, never presumed.
    let mut stream = shake(&agent, &made, "localhost", &[]).await.expect("TLS");
    stream.write_all(PREFACE).await.expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("an answer");
    assert!(
        text.starts_with("HTTP/1.1 505") && text.contains("http-version"),
        "{text}"
    );

    let (_plain, agent) = secure(&made, false).await;
    assert!(shake(&agent, &made, "localhost", &[H2]).await.is_err());
    let stream = shake(&agent, &made, "localhost", &[H2, HTTP11])
        .await
        .expect("TLS");
    assert!(over_http_1(stream).await.ends_with("ok"));
    assert_eq!(upstream.text().matches("GET /two").count(), 2);
}

#[tokio::test]
async fn what_is_no_tls_goes_nowhere() {
    let made = made();
    let (upstream, agent) = secure(&made, true).await;
    // A hello of TLS 1.1 (RFC 4346): refused with handshake_failure or protocol_version.
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0xc0, 0x13, 0x00, 0x2f, 1, 0]);
    let mut message = vec![1, 0, 0, hello.len() as u8];
    message.extend(hello);
    let mut record = vec![0x16, 3, 1, 0, message.len() as u8];
    record.extend(message);
    for (bytes, alert) in [
        (&record[..], true),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", false),
        (PREFACE, false),
        (&record[..20], false),
    ] {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(agent.address).await.expect("connects");
        stream.write_all(bytes).await.expect("sent");
        let mut got = Vec::new();
        // A reset is an end, too.
        let _ = timeout(SOON, stream.read_to_end(&mut got))
            .await
            .expect("soon");
        assert!(!got.starts_with(b"HTTP"), "{got:?}");
        if alert {
            assert!(matches!(got[..], [0x15, _, _, 0, 2, 2, 40 | 70]), "{got:?}");
        }
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    assert_eq!(upstream.connections(), 0);
    eventually("all gone", || agent.gauges.connections() == 0).await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections() {
    let (old, new) = (made(), made());
    let identity = old.identity();
    let upstream = Raw::answering(OK).await;
    let mut setup = Setup::before(upstream.address);
    setup.listener.tls = Some(identity.clone());
    let agent = setup.start().await;
    let before = shake(&agent, &old, "localhost", &[]).await.expect("TLS");
    identity
        .replace(new.cert.as_bytes(), new.key.as_bytes())
        .expect("a good one");
    assert!(shake(&agent, &old, "localhost", &[]).await.is_err());
    let after = shake(&agent, &new, "localhost", &[]).await.expect("TLS");
    for stream in [before, after] {
        assert!(over_http_1(stream).await.ends_with("ok"));
    }
}

#[tokio::test]
async fn a_unix_socket_speaks_either_version() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("agent.sock");
    let upstream = Raw::answering(OK).await;
    let mut setup = Setup::before(upstream.address);
    setup.socket = Some(Socket::unix(&path, 0o600).expect("a socket"));
    let agent = setup.start().await;
    let connect = || UnixStream::connect(&path);
    assert!(
        over_http_1(connect().await.expect("connects"))
            .await
            .ends_with("ok")
    );
    assert_eq!(over_http_2(connect().await.expect("connects")).await, "ok");
    let mut raw = connect().await.expect("connects");
    let get = frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &request("GET", "/", &[("connection", "close")]),
    );
    raw.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b""), &get].concat())
        .await
        .expect("sent");
    raw.shutdown().await.expect("half closed");
    let mut got = Vec::new();
    timeout(SOON, raw.read_to_end(&mut got))
        .await
        .expect("soon")
        .expect("in peace");
    assert!(!got.windows(2).any(|window| window == b"ok"));
    agent.drain.send(true).expect("it listens");
    timeout(SOON, agent.serving)
        .await
        .expect("soon")
        .expect("no panic");
    assert!(!path.exists());
}

/// The protocols that handshakes came to, and whether the client showed a certificate.
type Shaken = Arc<Mutex<Vec<(Option<Vec<u8>>, bool)>>>;

/// An upstream with TLS that speaks what it negotiates: of these protocols, for clients of this certificate.
async fn upstream(made: &Made, alpn: &[&[u8]], client: Option<&Made>) -> (SocketAddr, Shaken) {
    let builder = rustls::ServerConfig::builder_with_provider(fieldveil::tls::provider())
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match client {
        None => builder.with_no_client_auth(),
        Some(client) => builder.with_client_cert_verifier(
            rustls::server::WebPkiClientVerifier::builder_with_provider(
                Arc::new(client.roots()),
                fieldveil::tls::provider(),
            )
            .build()
            .expect("a verifier"),
        ),
    };
    let key = PrivatePkcs8KeyDer::from(made.key_der.clone());
    let mut config = builder
        .with_single_cert(vec![made.der.clone()], key.into())
        .expect("a key");
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("bound");
    let shaken = Shaken::default();
    let kept = shaken.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            let session = stream.get_ref().1;
            let protocol = session.alpn_protocol().map(<[u8]>::to_vec);
            let multiplexed = protocol.as_deref() == Some(H2);
            let known = session.peer_certificates().is_some();
            kept.lock().expect("kept").push((protocol, known));
            let service = service_fn(|request: Request<Incoming>| async move {
                // In the target, in fields, or both.
                let target = request.uri().authority().map(|host| host.as_str());
                let hosts: Vec<_> = request.headers().get_all("host").iter().collect();
                let said = format!("{:?} {target:?} {hosts:?}", request.version());
                Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(said))))
            });
            let io = TokioIo::new(stream);
            if multiplexed {
                tokio::spawn(async move {
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(io, service).await;
                });
            } else {
                tokio::spawn(async move {
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(io, service).await;
                });
            }
        }
    });
    (address, shaken)
}

async fn before_tls(
    address: SocketAddr,
    made: &Made,
    speak: Speak,
    identity: Option<Identity>,
) -> Agent {
    let mut setup = Setup::before(address);
    setup.upstream.url = format!("https://localhost:{}", address.port())
        .parse()
        .expect("a URL");
    setup.upstream.roots = Roots::Pem(made.cert.clone().into_bytes());
    setup.upstream.speak = speak;
    setup.upstream.identity = identity;
    setup.start().await
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn an_upstream_is_spoken_to_as_it_negotiates() {
    let made = made();
    for (alpn, speak, expected) in [
        (&[H2, HTTP11][..], Speak::Either, Some(Version::HTTP_2)),
        (&[HTTP11], Speak::Either, Some(Version::HTTP_11)),
        (&[], Speak::Either, Some(Version::HTTP_11)),
        (&[H2, HTTP11], Speak::Http1, Some(Version::HTTP_11)),
        (&[H2, HTTP11], Speak::Http2, Some(Version::HTTP_2)),
        (&[HTTP11], Speak::Http2, None),
        (&[], Speak::Http2, None),
        (&[H2], Speak::Http1, None),
    ] {
        let (address, shaken) = upstream(&made, alpn, None).await;
        let agent = before_tls(address, &made, speak, None).await;
        let first = agent.ask(GET).await;
        let Some(version) = expected else {
            assert_eq!(first.code(), "upstream-tls", "{alpn:?} {speak:?}");
            continue;
        };
        // `:authority` alone says the host, also in the first request, when nobody knows the version yet: nginx takes a field beside it
        // for a second host.
        let host = format!("localhost:{}", address.port());
        let expected = match version {
            Version::HTTP_2 => format!("{version:?} {:?} []", Some(&host)),
            _ => format!("{version:?} None [{host:?}]"),
        };
        assert_eq!(first.text(), expected, "{alpn:?} {speak:?}");
        for _ in 0..2 {
            assert_eq!(agent.ask(GET).await.text(), expected, "{alpn:?} {speak:?}");
        }
        // The first connection is among those of HTTP/2, wherever that is possible.
        let unexpected = speak == Speak::Either && version == Version::HTTP_11;
        assert_eq!(
            shaken.lock().expect("shaken").len(),
            1 + usize::from(unexpected),
            "{alpn:?} {speak:?}"
        );
    }
}

#[tokio::test]
async fn an_upstream_may_ask_for_a_certificate() {
    let (server, own, other) = (made(), made(), made());
    for (identity, welcome) in [(Some(&own), true), (Some(&other), false), (None, false)] {
        let (address, shaken) = upstream(&server, &[H2, HTTP11], Some(&own)).await;
        let identity = identity.map(Made::identity);
        let agent = before_tls(address, &server, Speak::Either, identity).await;
        let answer = agent.ask(GET).await;
        let shaken = shaken.lock().expect("shaken").clone();
        if welcome {
            assert_eq!(answer.status(), 200);
            assert_eq!(shaken, [(Some(H2.to_vec()), true)]);
        } else {
            // TLS 1.3 tells the client after its own end of the handshake.
            assert_eq!(answer.status(), 502);
            assert!(["upstream-tls", "upstream-broken"].contains(&answer.code().as_str()));
            assert_eq!(shaken, []);
        }
    }
}
