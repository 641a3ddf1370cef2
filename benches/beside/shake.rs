//! A client of intercepting proxies: CONNECT, TLS with the certificate that the proxy makes, a request; as many at a time as it is told, each
//! begun when the one before it is over (a closed loop).
//!
//! Under load it does not verify certificates, which would be the most of its own work; `prove` does, once for each proxy before it is measured.

use super::secure::provider;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, RootCertStore, SignatureScheme};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// An exchange that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is done over and over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// A full handshake with the same host.
    Once,
    /// A handshake that resumes a session where the other side does.
    Again,
    /// A full handshake, each with a host that nobody named before.
    Afresh,
    /// A request on a connection that is kept.
    Kept,
}

impl How {
    pub fn named(word: &str) -> Option<How> {
        match word {
            "once" => Some(How::Once),
            "again" => Some(How::Again),
            "afresh" => Some(How::Afresh),
            "kept" => Some(How::Kept),
            _ => None,
        }
    }
}

/// What all connections share.
struct Load {
    proxy: Option<SocketAddr>,
    port: u16,
    tls: TlsConnector,
    how: How,
    hosts: AtomicU32,
    done: AtomicU64,
    resumed: AtomicU64,
    failed: AtomicU64,
}

/// Runs for so many seconds, and prints one line of JSON: exchanges, how many of their handshakes were resumed, how many failed, and
/// microseconds. `proxy`: none goes to the upstream itself, which is what the load alone could do.
///
/// # Errors
/// The bodies or the root cannot be read.
pub fn run(
    proxy: Option<SocketAddr>,
    root: &Path,
    port: u16,
    how: How,
    seconds: u32,
    connections: u32,
    bodies: &Path,
) -> io::Result<()> {
    let mut config = config(root)?;
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(Unseen));
    config.resumption = match how {
        How::Again => Resumption::in_memory_sessions(1024),
        How::Once | How::Afresh | How::Kept => Resumption::disabled(),
    };
    let bodies = std::fs::read(bodies)?;
    let bodies: Vec<Vec<u8>> = bodies
        .split(|byte| *byte == 0)
        .filter(|body| !body.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    let load = Arc::new(Load {
        proxy,
        port,
        tls: TlsConnector::from(Arc::new(config)),
        how,
        // Runs of the same proxy must not meet each other's hosts.
        hosts: AtomicU32::new(std::process::id().wrapping_mul(0x9e37_79b1)),
        done: AtomicU64::new(0),
        resumed: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let taken = runtime.block_on(async {
        let begun = Instant::now();
        let end = begun + Duration::from_secs(seconds.into());
        let bodies = Arc::new(bodies);
        let tasks: Vec<_> = (0..connections)
            .map(|number| tokio::spawn(load.clone().repeat(number, end, bodies.clone())))
            .collect();
        for task in tasks {
            let _ = task.await;
        }
        begun.elapsed()
    });
    println!(
        "{{\"done\":{},\"resumed\":{},\"failed\":{},\"microseconds\":{}}}",
        load.done.load(Relaxed),
        load.resumed.load(Relaxed),
        load.failed.load(Relaxed),
        taken.as_micros()
    );
    Ok(())
}

/// One exchange through a proxy, with a body of the bench: the certificate is verified for the host, under `root` alone. Prints what came back
/// from an upstream that answers with what it got.
///
/// # Errors
/// The certificate is not good, or anything fails.
pub fn prove(proxy: SocketAddr, root: &Path, port: u16, bodies: &Path) -> io::Result<()> {
    let load = Load {
        proxy: Some(proxy),
        port,
        tls: TlsConnector::from(Arc::new(config(root)?)),
        how: How::Once,
        hosts: AtomicU32::new(0),
        done: AtomicU64::new(0),
        resumed: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    };
    let bodies = std::fs::read(bodies)?;
    let body = bodies.split(|byte| *byte == 0).next().unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let echo = runtime.block_on(async {
        let host = load.host();
        let mut stream = load.connect(host).await?;
        stream.write_all(&load.request(host, "/echo", body)).await?;
        answer(&mut stream).await
    })?;
    io::Write::write_all(&mut io::stdout(), &echo)
}

impl Load {
    async fn repeat(self: Arc<Self>, number: u32, end: Instant, bodies: Arc<Vec<Vec<u8>>>) {
        let mut turn = number as usize * 31;
        while Instant::now() < end {
            let through = async {
                let host = self.host();
                let mut stream = self.connect(host).await?;
                if self.how != How::Kept {
                    stream
                        .write_all(&self.request(host, "/shake", b"{}"))
                        .await?;
                    answer(&mut stream).await?;
                    self.done.fetch_add(1, Relaxed);
                    return stream.shutdown().await;
                }
                while Instant::now() < end {
                    turn += 1;
                    let body = &bodies[turn % bodies.len()];
                    stream
                        .write_all(&self.request(host, "/orders", body))
                        .await?;
                    answer(&mut stream).await?;
                    self.done.fetch_add(1, Relaxed);
                }
                Ok::<_, io::Error>(())
            };
            if !matches!(tokio::time::timeout(PATIENCE, through).await, Ok(Ok(())))
                && Instant::now() < end
            {
                self.failed.fetch_add(1, Relaxed);
            }
        }
    }

    /// The host of the next connection.
    fn host(&self) -> Ipv4Addr {
        if self.how != How::Afresh {
            return Ipv4Addr::LOCALHOST;
        }
        let [_, a, b, c] = self.hosts.fetch_add(1, Relaxed).to_be_bytes();
        Ipv4Addr::new(127, 1 + a % 250, b, c)
    }

    /// TLS with a host, through the proxy.
    async fn connect(&self, host: Ipv4Addr) -> io::Result<TlsStream<TcpStream>> {
        let there = SocketAddr::from((host, self.port));
        let mut stream = TcpStream::connect(self.proxy.unwrap_or(there)).await?;
        stream.set_nodelay(true)?;
        if self.proxy.is_some() {
            let connect = format!("CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n\r\n");
            stream.write_all(connect.as_bytes()).await?;
            let mut head = Vec::with_capacity(1024);
            while !head.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut head).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            if head.get(9..12) != Some(b"200") {
                let said = String::from_utf8_lossy(&head).into_owned();
                return Err(io::Error::other(said));
            }
        }
        let name = ServerName::IpAddress(std::net::IpAddr::V4(host).into());
        let stream = self.tls.connect(name, stream).await?;
        if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
            self.resumed.fetch_add(1, Relaxed);
        }
        Ok(stream)
    }

    fn request(&self, host: Ipv4Addr, path: &str, body: &[u8]) -> Vec<u8> {
        let there = SocketAddr::from((host, self.port));
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {there}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    }
}

/// Reads one answer; its body.
async fn answer(stream: &mut TlsStream<TcpStream>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(16 * 1024);
    let mut length = None;
    loop {
        if length.is_none()
            && let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n")
        {
            let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
            if text.get(9..12) != Some("200") {
                return Err(io::Error::other(text));
            }
            let field = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"));
            let field = field.and_then(|field| field.trim().parse::<usize>().ok());
            let field = field.ok_or_else(|| io::Error::other("an answer of no known length"))?;
            length = Some((head + 4, head + 4 + field));
        }
        if let Some((head, all)) = length
            && bytes.len() >= all
        {
            return Ok(bytes.split_off(head));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn roots(root: &Path) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let pem = std::fs::read(root)?;
    let certificate = CertificateDer::from_pem_slice(&pem).map_err(io::Error::other)?;
    roots.add(certificate).map_err(io::Error::other)?;
    Ok(roots)
}

fn config(root: &Path) -> io::Result<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let mut config = config
        .with_root_certificates(roots(root)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Looks at no certificate.
#[derive(Debug)]
struct Unseen;

impl ServerCertVerifier for Unseen {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
