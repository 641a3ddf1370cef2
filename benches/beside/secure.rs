//! The upstream with TLS: at every address of this machine's loopback network it shows a certificate for just that address, so that a proxy
//! meets as many hosts as a client names.

use super::upstream::answer;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider, kx_group};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// One key exchange on both sides of every proxy, whatever else it knows: what is compared is proxies.
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = default_provider();
    provider.kx_groups = vec![kx_group::X25519];
    Arc::new(provider)
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    // Leaves are called by rcgen's own default: an issuer of the same name would be taken for themselves.
    params
        .distinguished_name
        .push(DnType::CommonName, "the CA of a bench");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// A CA: its certificate, then its key.
///
/// # Errors
/// No key can be made.
pub fn authority() -> io::Result<String> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let issuer = CertifiedIssuer::self_signed(params(), key).map_err(io::Error::other)?;
    Ok(issuer.pem() + &issuer.key().serialize_pem())
}

/// Runs until it is killed. Only loopback addresses are served, though it listens on all.
///
/// # Errors
/// The address cannot be bound, or `ca` is none.
pub fn run(listen: SocketAddr, ca: &Path) -> io::Result<()> {
    let pem = std::fs::read_to_string(ca)?;
    let key = pem
        .find("-----BEGIN PRIVATE KEY")
        .map_or("", |at| &pem[at..]);
    let issuer = Issuer::new(params(), KeyPair::from_pem(key).map_err(io::Error::other)?);
    let leaves = Arc::new(Leaves {
        issuer,
        leaf_key: KeyPair::generate().map_err(io::Error::other)?,
        tickets: Ticketer::new().map_err(io::Error::other)?,
        made: Mutex::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let socket = TcpListener::bind(listen).await?;
        loop {
            let (stream, _) = socket.accept().await?;
            let here = stream.local_addr()?.ip();
            if !here.is_loopback() {
                continue;
            }
            stream.set_nodelay(true)?;
            let acceptor = TlsAcceptor::from(leaves.at(here)?);
            tokio::spawn(async move { answer(acceptor.accept(stream).await?).await });
        }
    })
}

struct Leaves {
    issuer: Issuer<'static, KeyPair>,
    leaf_key: KeyPair,
    tickets: Arc<dyn rustls::server::ProducesTickets>,
    made: Mutex<HashMap<IpAddr, Arc<ServerConfig>>>,
}

impl Leaves {
    fn at(&self, here: IpAddr) -> io::Result<Arc<ServerConfig>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = made.get(&here) {
            return Ok(config.clone());
        }
        let params = CertificateParams::new([here.to_string()]).map_err(io::Error::other)?;
        let leaf = params.signed_by(&self.leaf_key, &self.issuer);
        let leaf = leaf.map_err(io::Error::other)?;
        let key = PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der());
        let chain = vec![leaf.der().clone()];
        let shown = CertifiedKey::from_der(chain, key.into(), &provider());
        let shown = rustls::sign::SingleCertAndKey::from(shown.map_err(io::Error::other)?);
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let mut config = config
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(shown));
        // As services have it: a proxy that comes again may resume.
        config.ticketer = self.tickets.clone();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        // Each host once, or the same host for ever.
        if made.len() > 1024 {
            made.clear();
        }
        made.insert(here, config.clone());
        Ok(config)
    }
}
