//! TLS to the upstream.

use crate::harness::{Raw, Setup};
use fieldveil::upstream::{Roots, Speak};
use rustls::pki_types::PrivatePkcs8KeyDer;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

/// What a handshake came to: protocol and key exchange.
type Seen = Arc<Mutex<Vec<(Option<Vec<u8>>, Option<rustls::NamedGroup>)>>>;

/// An upstream with a certificate for `name`, and that certificate in PEM.
async fn upstream(name: &str) -> (Raw, Vec<u8>, Seen) {
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
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
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

async fn ask(raw: &Raw, host: &str, roots: Roots) -> crate::harness::Message {
    let mut setup = Setup::before(raw.address);
    setup.upstream.url = format!("https://{host}:{}", raw.address.port())
        .parse()
        .expect("a URL");
    setup.upstream.roots = roots;
    setup.upstream.speak = Speak::Http1;
    setup
        .start()
        .await
        .ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
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
