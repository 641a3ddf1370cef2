//! TLS to the upstream.

use crate::harness::{Raw, Setup};
use fieldveil::upstream::{Roots, Speak};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::PrivatePkcs8KeyDer;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

/// What a handshake came to: protocol and key exchange.
type Seen = Arc<Mutex<Vec<(Option<Vec<u8>>, Option<rustls::NamedGroup>)>>>;

/// A certificate for `name` in PEM, and who shows it and speaks these.
fn acceptor(name: &str, protocols: &[&[u8]]) -> (TlsAcceptor, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let pem = made.cert.pem().into_bytes();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .expect("a key");
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    (TlsAcceptor::from(Arc::new(config)), pem)
}

/// An upstream with a certificate for `name`, and that certificate in PEM.
async fn upstream(name: &str) -> (Raw, Vec<u8>, Seen) {
    let (acceptor, pem) = acceptor(name, &[b"h2", b"http/1.1"]);
    let seen = Seen::default();
    let handshakes = seen.clone();
    let raw = Raw::new(move |line| {
        let (acceptor, handshakes) = (acceptor.clone(), handshakes.clone());
        async move {
            let Ok(mut stream) = acceptor.accept(line.stream).await else {
                return;
            };
            let session = stream.get_ref().1;
            let group = session
                .negotiated_key_exchange_group()
                .map(|group| group.name());
            handshakes
                .lock()
                .expect("seen")
                .push((session.alpn_protocol().map(<[u8]>::to_vec), group));
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else {
                    return;
                };
                bytes.push(byte);
            }
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")
                .await;
            let _ = stream.flush().await;
            let _ = stream.read_u8().await;
        }
    })
    .await;
    (raw, pem, seen)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Before this upstream, which may speak either version.
fn by_name(raw: &Raw, pem: Vec<u8>) -> Setup {
    let mut setup = Setup::before(raw.address);
    let url = format!("https://localhost:{}", raw.address.port());
    setup.upstream.url = url.parse().expect("a URL");
    setup.upstream.roots = Roots::Pem(pem);
    setup
}

async fn ask(raw: &Raw, host: &str, roots: Roots) -> crate::harness::Message {
    let mut setup = Setup::before(raw.address);
    setup.upstream.url = format!("https://{host}:{}", raw.address.port())
        .parse()
        .expect("a URL");
    setup.upstream.roots = roots;
    setup.upstream.speak = Speak::Http1;
    setup.start().await.ask(GET).await
}

#[tokio::test]
async fn an_upstream_is_known_by_its_certificate() {
    let (raw, pem, seen) = upstream("localhost").await;
    assert_eq!(
        ask(&raw, "localhost", Roots::Pem(pem.clone())).await.text(),
        "secret"
    );
    assert_eq!(
        *seen.lock().expect("seen"),
        [(
            Some(b"http/1.1".to_vec()),
            Some(rustls::NamedGroup::X25519MLKEM768)
        )]
    );
    // Another root, another name: no request is sent.
    let (_, other, _) = upstream("localhost").await;
    for (host, roots) in [
        ("localhost", Roots::Pem(other)),
        ("127.0.0.1", Roots::Pem(pem)),
    ] {
        let answer = ask(&raw, host, roots).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (502, "upstream-tls")
        );
    }
    assert_eq!(seen.lock().expect("seen").len(), 1);
}

#[tokio::test]
async fn an_upstream_that_speaks_no_tls_is_not_spoken_to_in_the_clear() {
    let raw = Raw::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let (_, pem, _) = upstream("localhost").await;
    let answer = tokio::time::timeout(
        crate::harness::SOON,
        ask(&raw, "localhost", Roots::Pem(pem)),
    )
    .await;
    let answer = answer.expect("soon");
    assert!(
        matches!(
            answer.code().as_str(),
            "upstream-tls" | "upstream-connect-timeout"
        ),
        "{}",
        answer.code()
    );
    assert!(!raw.text().contains("GET"));
}

/// Also in the first request, before anybody knows which version the upstream speaks: nginx takes a Host field for a second host.
#[tokio::test]
async fn over_http_2_the_host_is_in_the_authority_alone() {
    let (acceptor, pem) = acceptor("localhost", &[b"h2", b"http/1.1"]);
    let heads: Arc<Mutex<Vec<_>>> = Arc::default();
    let kept = heads.clone();
    let raw = Raw::new(move |line| {
        let (acceptor, kept) = (acceptor.clone(), kept.clone());
        async move {
            let stream = acceptor.accept(line.stream).await.expect("a handshake");
            let service = service_fn(move |request: Request<Incoming>| {
                kept.lock().expect("heads").push(request.into_parts().0);
                async { Ok::<_, Infallible>(Response::new(String::new())) }
            });
            let _ = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await;
    let port = raw.address.port();
    let agent = by_name(&raw, pem).start().await;
    let mut line = agent.line().await;
    for te in ["", "TE: trailers\r\nConnection: TE\r\n"] {
        line.say(format!("GET / HTTP/1.1\r\nHost: a\r\n{te}\r\n").as_bytes())
            .await;
        assert_eq!(line.answer().await.status(), 200);
    }
    let heads = heads.lock().expect("heads");
    assert_eq!(heads.len(), 2);
    for (head, te) in heads.iter().zip([None, Some("trailers")]) {
        let host = head.uri.authority().map(ToString::to_string);
        assert_eq!(host, Some(format!("localhost:{port}")));
        assert_eq!(head.headers.get("host"), None);
        assert_eq!(
            head.headers.get("te").map(|te| te.as_bytes()),
            te.map(str::as_bytes)
        );
    }
}

/// The host is there where the upstream speaks HTTP/1.1 after all.
#[tokio::test]
async fn over_http_1_the_host_is_a_field() {
    let (acceptor, pem) = acceptor("localhost", &[b"http/1.1"]);
    let raw = Raw::new(move |line| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(line.stream).await.expect("a handshake");
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"\r\n\r\n") {
                bytes.push(stream.read_u8().await.expect("a byte"));
            }
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
            let answer = [answer.as_bytes(), &bytes].concat();
            stream.write_all(&answer).await.expect("sent");
            stream.flush().await.expect("sent");
            let _ = stream.read_u8().await;
        }
    })
    .await;
    let answer = by_name(&raw, pem).start().await.ask(GET).await;
    let host = format!("\r\nhost: localhost:{}\r\n", raw.address.port());
    assert!(answer.text().contains(&host), "{}", answer.text());
}
