//! The agent's own certificate authority, by which it stands in for hosts that a policy names: TLS with a client that means to speak to
//! one of them.
//!
//! It vouches for nobody of its own accord: whoever calls [`Authority::greet`] has first seen the real host's certificate to be good. It
//! reads no file, knows no policy, and never sees a request.
//!
//! Leaves are made as they are needed, of one key that lives as long as the process, and are kept for a day in a bounded cache together
//! with the configuration of TLS that shows them; what is pushed out is made again. Sessions resume by tickets, under keys of this process.

mod der;
mod made;

pub use made::{BadNames, Names, made};

use crate::entropy;
use crate::tls::{protocols, provider};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{AlertDescription, ServerConfig};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

/// Hosts whose leaves are kept. One more takes the place of the oldest.
pub const LEAVES_MAX: usize = 1024;
/// How long a leaf is shown.
const SHOWN_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long it is good: longer than it is shown, since sessions last, and clocks differ.
const GOOD_FOR: Duration = Duration::from_secs(48 * 3600);
/// Clocks of clients that are behind ours by this much still take a leaf.
const GOOD_SINCE: Duration = Duration::from_secs(24 * 3600);
/// What a client is told that is turned away before TLS is spoken with it: fatal alerts (RFC 8446 section 6.2, RFC 6066 section 3), by
/// their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alert {
    /// It cannot be served.
    HandshakeFailure = 40,
    /// What it sent cannot be read.
    DecodeError = 50,
    /// The host that it names is not there.
    UnrecognizedName = 112,
}

impl Alert {
    /// Tells a client, whether or not it is still there to read it, and ends the connection. Takes as long as the client does: the caller
    /// bounds it.
    pub async fn tell(self, io: &mut (impl AsyncWrite + Unpin)) {
        // A record of TLS 1.2, as which any version is begun: type, version, length, level.
        let _ = io.write_all(&[21, 3, 3, 0, 2, 2, self as u8]).await;
        let _ = io.shutdown().await;
    }
}

/// Why a certificate and its key are no authority of ours. It says what is wrong, and nothing of what is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAuthority(&'static str);

impl fmt::Display for BadAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadAuthority {}

/// Why a client was not served TLS. The words are stable: metrics carry them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ungreeted {
    /// It named no host (SNI), though it means one with a name.
    NoName,
    /// It named another host than the connection was opened to.
    OtherName,
    /// It does not trust the authority.
    Untrusting,
    /// Versions, suites or messages did not fit; what rustls says of it, which is no data.
    Handshake(String),
    /// It hung up.
    Gone,
    /// The authority may not vouch for the host, or could not.
    Unvouched,
}

impl Ungreeted {
    /// The word of [`Ungreeted::Handshake`], also where what came is not given to rustls at all.
    pub const HANDSHAKE: &str = "handshake";

    /// The stable word.
    pub fn word(&self) -> &'static str {
        match self {
            Ungreeted::NoName => "no-sni",
            Ungreeted::OtherName => "other-sni",
            Ungreeted::Untrusting => "untrusted",
            Ungreeted::Handshake(_) => Ungreeted::HANDSHAKE,
            Ungreeted::Gone => "gone",
            Ungreeted::Unvouched => "unvouched",
        }
    }
}

/// A certificate authority with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    names: Names,
    /// When its own certificate ends.
    good_until: SystemTime,
    /// Of all leaves.
    leaf_key: KeyPair,
    /// The same, as handshakes sign with it: a key is checked when it is read, which takes longer than a signature.
    leaf_signer: Arc<dyn SigningKey>,
    provider: Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
    leaves: Mutex<HashMap<Box<str>, Leaf>>,
}

/// What is shown for a host: with HTTP/2 on offer, and without.
#[derive(Clone)]
struct Leaf {
    made: SystemTime,
    either: Arc<ServerConfig>,
    http1: Arc<ServerConfig>,
}

impl Authority {
    /// What [`made`] made: one certificate and its key, in PEM. `names`: those that it was made for.
    ///
    /// # Errors
    /// Something else, a certificate for other names, or a key that is not its own.
    pub fn new(certificate: &[u8], key: &[u8], names: Names) -> Result<Authority, BadAuthority> {
        let mut certificates = CertificateDer::pem_slice_iter(certificate);
        let (Some(Ok(certificate)), None) = (certificates.next(), certificates.next()) else {
            return Err(BadAuthority("there is not exactly one certificate in PEM"));
        };
        let facts = der::facts(&certificate).ok_or(BadAuthority(
            "the certificate is none that `fieldveil ca init` made",
        ))?;
        let parsed = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| BadAuthority("there is no private key in PEM"))?;
        if let Err(error) = CertifiedKey::from_der(vec![certificate.clone()], parsed, &provider()) {
            return Err(BadAuthority(match error {
                rustls::Error::InconsistentKeys(_) => {
                    "the private key is not that of the certificate"
                }
                rustls::Error::InvalidCertificate(_) => "the certificate is malformed",
                _ => "the private key is of no known kind",
            }));
        }
        let key = std::str::from_utf8(key)
            .ok()
            .and_then(|key| KeyPair::from_pem(key).ok())
            .ok_or(BadAuthority("the private key is of no known kind"))?;
        // Made again of the same words, a certificate has the same name and the same constraints, or it is none of ours.
        let params = made::params(&facts.name, &names);
        let again = params
            .self_signed(&key)
            .map_err(|_| BadAuthority("the key does not sign"))?;
        let (own, again) = (
            webpki::anchor_from_trusted_cert(&certificate),
            webpki::anchor_from_trusted_cert(again.der()),
        );
        match (own, again) {
            (Ok(own), Ok(again)) if own.subject != again.subject => {
                return Err(BadAuthority(
                    "the certificate is none that `fieldveil ca init` made",
                ));
            }
            (Ok(own), Ok(again)) if own.name_constraints != again.name_constraints => {
                return Err(BadAuthority(
                    "the certificate was made for other names than `ca: {names: ...}` says",
                ));
            }
            (Ok(_), Ok(_)) => {}
            _ => return Err(BadAuthority("the certificate is malformed")),
        }
        let failed = |_| BadAuthority("the random source fails");
        let no_key = BadAuthority("no key can be made");
        let leaf_key = KeyPair::generate().map_err(|_| no_key)?;
        let provider = provider();
        let leaf_der = Zeroizing::new(leaf_key.serialize_der());
        let leaf_signer = PrivateKeyDer::try_from(leaf_der.as_slice())
            .ok()
            .and_then(|key| provider.key_provider.load_private_key(key.clone_key()).ok())
            .ok_or(no_key)?;
        Ok(Authority {
            issuer: Issuer::new(params, key),
            names,
            good_until: facts.good_until,
            leaf_key,
            leaf_signer,
            provider,
            tickets: rustls::crypto::aws_lc_rs::Ticketer::new().map_err(failed)?,
            leaves: Mutex::new(HashMap::new()),
        })
    }

    /// Whether it may vouch for this host: a name, or an address without brackets.
    pub fn vouches_for(&self, host: &str) -> bool {
        self.names.permit(host)
    }

    /// When its certificate ends, and nobody takes its leaves any more.
    pub fn good_until(&self) -> SystemTime {
        self.good_until
    }

    /// TLS as `host` would speak it; `http2`: on offer by ALPN, too. `None`: it may not vouch for this host, or is not good any more.
    pub fn server_at(&self, host: &str, http2: bool, now: SystemTime) -> Option<Arc<ServerConfig>> {
        if !self.vouches_for(host) || now >= self.good_until {
            return None;
        }
        let leaf = match self.kept(host, now) {
            Some(leaf) => leaf,
            // Made without the lock: two at once make two, and one stays.
            None => self.keep(host, self.leaf(host, now)?),
        };
        Some(if http2 { leaf.either } else { leaf.http1 })
    }

    /// Leaves that are kept now.
    pub fn kept_leaves(&self) -> usize {
        self.locked().len()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<Box<str>, Leaf>> {
        self.leaves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self, host: &str, now: SystemTime) -> Option<Leaf> {
        let leaves = self.locked();
        let leaf = leaves.get(host)?;
        // A clock that was set back makes a leaf anew, too.
        let age = now.duration_since(leaf.made).ok()?;
        (age < SHOWN_FOR).then(|| leaf.clone())
    }

    fn keep(&self, host: &str, leaf: Leaf) -> Leaf {
        let mut leaves = self.locked();
        if leaves.len() >= LEAVES_MAX && !leaves.contains_key(host) {
            let oldest = leaves.iter().min_by_key(|(_, leaf)| leaf.made);
            let oldest = oldest.map(|(host, _)| host.clone());
            oldest.and_then(|oldest| leaves.remove(&oldest));
        }
        leaves.insert(host.into(), leaf.clone());
        leaf
    }

    fn leaf(&self, host: &str, now: SystemTime) -> Option<Leaf> {
        let mut params = CertificateParams::new([host.to_owned()]).ok()?;
        let good_until = (now + GOOD_FOR).min(self.good_until);
        made::limit(&mut params, now.checked_sub(GOOD_SINCE)?, good_until)?;
        // Serials of one issuer are never the same twice.
        let mut serial = [0; 16];
        entropy::fill(&mut serial);
        serial[0] = serial[0] & 0x7f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.distinguished_name = DistinguishedName::new();
        let common = if host.len() <= 64 { host } else { "fieldveil" };
        params
            .distinguished_name
            .push(DnType::CommonName, common.to_owned());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&self.leaf_key, &self.issuer).ok()?;
        let shown = CertifiedKey::new(vec![leaf.into()], self.leaf_signer.clone());
        let shown = Arc::new(Shown(Arc::new(shown)));
        let config = |http2| {
            let config = ServerConfig::builder_with_provider(self.provider.clone());
            let config = config.with_safe_default_protocol_versions().ok()?;
            let mut config = config
                .with_no_client_auth()
                .with_cert_resolver(shown.clone());
            config.alpn_protocols = protocols(http2);
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.ticketer = self.tickets.clone();
            Some(Arc::new(config))
        };
        Some(Leaf {
            made: now,
            either: config(true)?,
            http1: config(false)?,
        })
    }

    /// The handshake with a client that opened a connection to `host` (a name, or an address without brackets): what it names (SNI) must be
    /// that host. `http2`: it may choose that. Takes as long as the client does: the caller bounds it.
    ///
    /// # Errors
    /// It was turned away, with an alert where one fits.
    pub async fn greet<T>(&self, io: T, host: &str, http2: bool) -> Result<TlsStream<T>, Ungreeted>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let mut hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), io);
        let mut begun = match (&mut hello).await {
            Ok(begun) => begun,
            Err(error) => {
                // rustls has an alert for what it does not agree to, and seldom one for what it cannot read.
                if let (true, Some(mut io)) = (is_unreadable(&error), hello.take_io()) {
                    Alert::DecodeError.tell(&mut io).await;
                }
                return Err(ungreeted(error));
            }
        };
        let is_address = host.parse::<std::net::IpAddr>().is_ok();
        let refused = match begun.client_hello().server_name() {
            Some(name) if !name.trim_end_matches('.').eq_ignore_ascii_case(host) => {
                Some(Ungreeted::OtherName)
            }
            None if !is_address => Some(Ungreeted::NoName),
            _ => None,
        };
        if let Some(refused) = refused {
            Alert::UnrecognizedName.tell(&mut begun.io).await;
            return Err(refused);
        }
        let Some(config) = self.server_at(host, http2, SystemTime::now()) else {
            Alert::UnrecognizedName.tell(&mut begun.io).await;
            return Err(Ungreeted::Unvouched);
        };
        begun.into_stream(config).await.map_err(ungreeted)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority")
    }
}

/// The one certificate of a host.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// What came is no message of a client's.
fn is_unreadable(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(rustls::Error::InvalidMessage(_)))
}

fn ungreeted(error: io::Error) -> Ungreeted {
    use AlertDescription::{
        BadCertificate, CertificateExpired, CertificateUnknown, UnknownCA, UnsupportedCertificate,
    };
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::AlertReceived(
            BadCertificate
            | CertificateExpired
            | CertificateUnknown
            | UnknownCA
            | UnsupportedCertificate,
        )) => Ungreeted::Untrusting,
        Some(error) => Ungreeted::Handshake(error.to_string()),
        None => Ungreeted::Gone,
    }
}

#[cfg(test)]
mod tests;
