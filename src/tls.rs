//! TLS as every edge of the agent speaks it: one provider (aws-lc-rs, post-quantum key exchange preferred), TLS 1.2 and
//! 1.3, and certificates with their keys that can be exchanged while connections are up.
//!
//! It reads no file: the roof does, and calls [`Identity::replace`] when what it read has changed.

mod roots;

pub use roots::{BadRoots, Roots, system_roots};

use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SignatureScheme};
use std::fmt;
use std::sync::{Arc, RwLock};

/// HTTP/2 as ALPN names it (RFC 9113 section 3.1).
pub const H2: &[u8] = b"h2";
/// HTTP/1.1 as ALPN names it (RFC 7301 section 6).
pub const HTTP11: &[u8] = b"http/1.1";

/// What all TLS is made with. It prefers X25519MLKEM768 (a test keeps it so).
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Why a certificate and a key are none to use. It says what is wrong, and nothing of what is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadIdentity(&'static str);

impl fmt::Display for BadIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadIdentity {}

/// A certificate chain with its private key, for a listener or towards an upstream. Clones are the same one: what
/// [`Identity::replace`] puts in its place is shown in every handshake from then on.
#[derive(Clone)]
pub struct Identity(Arc<RwLock<Arc<CertifiedKey>>>);

impl Identity {
    /// A chain (the end's certificate first) and the private key that belongs to it, both in PEM.
    ///
    /// # Errors
    /// Either is not there, not PEM, or the two do not belong together.
    pub fn new(chain: &[u8], key: &[u8]) -> Result<Identity, BadIdentity> {
        Ok(Identity(Arc::new(RwLock::new(certified(chain, key)?))))
    }

    /// Shows another certificate from now on; connections that are up keep theirs.
    ///
    /// # Errors
    /// As [`Identity::new`]; the old one then stays in force.
    pub fn replace(&self, chain: &[u8], key: &[u8]) -> Result<(), BadIdentity> {
        let new = certified(chain, key)?;
        *self
            .0
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = new;
        Ok(())
    }

    fn current(&self) -> Arc<CertifiedKey> {
        self.0
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    /// What a listener with this identity negotiates. `http2`: by ALPN, too. Without ALPN, HTTP/1.1 is spoken; a client
    /// that offers other protocols alone is turned away in the handshake. The name that a client asks for (SNI) plays no
    /// part.
    /// `clients`: whose certificates are asked for.
    pub fn server(
        &self,
        http2: bool,
        clients: Option<&Clients>,
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        let verifier = match clients {
            Some(clients) => clients.verifier()?,
            None => Arc::new(NoClientAuth),
        };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = protocols(http2);
        Ok(Arc::new(config))
    }
}

/// Whose certificates a listener takes from its clients.
#[derive(Clone, Debug)]
pub struct Clients {
    roots: Arc<RootCertStore>,
    required: bool,
}

impl Clients {
    /// Certificates that one of these authorities (PEM) signed. `required`: a client without one is turned away.
    ///
    /// # Errors
    /// There is none, or something else.
    pub fn new(authorities: &[u8], required: bool) -> Result<Clients, BadIdentity> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authorities) {
            let certificate = certificate
                .map_err(|_| BadIdentity("the authorities' certificates are not PEM"))?;
            let added = roots.add(certificate);
            added.map_err(|_| BadIdentity("an authority's certificate is malformed"))?;
        }
        if roots.is_empty() {
            return Err(BadIdentity("there is no certificate of an authority"));
        }
        Ok(Clients {
            roots: Arc::new(roots),
            required,
        })
    }

    fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
        let mut verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider());
        if !self.required {
            verifier = verifier.allow_unauthenticated();
        }
        let built = verifier.build();
        built.map_err(|error| rustls::Error::General(error.to_string()))
    }
}

/// What a client's certificate calls it: its one URI (as of SPIFFE), or, where it has none, its one DNS name. Several of a kind name
/// nobody. The certificate was verified before.
pub fn name_of(certificate: &CertificateDer<'_>) -> Option<Arc<str>> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut uris = certificate.valid_uri_names();
    let name = match (uris.next(), uris.next()) {
        (Some(uri), None) => uri.to_owned(),
        (Some(_), Some(_)) => return None,
        (None, _) => {
            let mut names = certificate.valid_dns_names();
            match (names.next(), names.next()) {
                (Some(name), None) => name.to_ascii_lowercase(),
                _ => return None,
            }
        }
    };
    Some(name.into())
}

/// The protocols to offer or accept, the preferred one first.
pub fn protocols(http2: bool) -> Vec<Vec<u8>> {
    if http2 {
        vec![H2.to_vec(), HTTP11.to_vec()]
    } else {
        vec![HTTP11.to_vec()]
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
    fn has_certs(&self) -> bool {
        true
    }
}

fn certified(chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, BadIdentity> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|_| BadIdentity("the certificate is not PEM"))?;
    if chain.is_empty() {
        return Err(BadIdentity("there is no certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| BadIdentity("there is no private key in PEM (an encrypted one is none)"))?;
    CertifiedKey::from_der(chain, key, &provider())
        .map(Arc::new)
        .map_err(|error| {
            BadIdentity(match error {
                rustls::Error::InconsistentKeys(_) => {
                    "the private key is not that of the certificate"
                }
                rustls::Error::InvalidCertificate(_) => "the certificate is malformed",
                _ => "the private key is of no known kind",
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[track_caller]
    fn check(chain: &str, key: &str, expected: &str) {
        let error = Identity::new(chain.as_bytes(), key.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn what_is_no_identity() {
        let ((chain, key), (other, _)) = (made(), made());
        check("", &key, "no certificate");
        check("nonsense", &key, "no certificate");
        check(
            "-----BEGIN CERTIFICATE-----\n???\n-----END CERTIFICATE-----\n",
            &key,
            "not PEM",
        );
        check(
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &key,
            "malformed",
        );
        check(&chain, "", "no private key");
        check(&chain, &chain, "no private key");
        check(
            &chain,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "no known kind",
        );
        check(&other, &key, "not that of");
    }

    #[test]
    fn a_bad_replacement_leaves_the_old_one_in_force() {
        let ((chain, key), (new_chain, new_key)) = (made(), made());
        let identity = Identity::new(chain.as_bytes(), key.as_bytes()).unwrap();
        let seen = identity.clone();
        let old = seen.current().cert.clone();
        assert!(
            identity
                .replace(new_chain.as_bytes(), key.as_bytes())
                .is_err()
        );
        assert_eq!(seen.current().cert, old);
        identity
            .replace(new_chain.as_bytes(), new_key.as_bytes())
            .unwrap();
        assert_ne!(seen.current().cert, old);
        assert_eq!(format!("{identity:?}"), "Identity");
    }

    #[track_caller]
    fn named(names: &[rcgen::SanType], expected: Option<&str>) {
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        let key = rcgen::KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        assert_eq!(name_of(made.der()).as_deref(), expected, "{names:?}");
    }

    #[test]
    fn a_certificate_has_one_name_or_none() {
        let uri = |text: &str| rcgen::SanType::URI(text.try_into().unwrap());
        let dns = |text: &str| rcgen::SanType::DnsName(text.try_into().unwrap());
        let (billing, web) = ("spiffe://example.org/billing", "web.example.org");
        named(&[uri(billing)], Some(billing));
        named(&[dns(web), uri(billing), dns("x.example")], Some(billing));
        named(&[dns("Web.Example.org")], Some(web));
        named(&[uri(billing), uri("spiffe://example.org/web")], None);
        named(&[dns(web), dns("x.example")], None);
        named(&[rcgen::SanType::IpAddress([127, 0, 0, 1].into())], None);
        named(&[], None);
        assert_eq!(name_of(&CertificateDer::from(vec![0x30, 0])), None);
    }

    #[test]
    fn what_are_no_authorities() {
        let (chain, _) = made();
        assert!(Clients::new(chain.as_bytes(), true).is_ok());
        let nonsense = "-----BEGIN CERTIFICATE-----\n???\n-----END CERTIFICATE-----\n";
        for bad in ["", "nonsense", nonsense, &nonsense.replace("???", "AAAA")] {
            assert!(Clients::new(bad.as_bytes(), true).is_err(), "{bad}");
        }
    }

    #[test]
    fn post_quantum_key_exchange_comes_first() {
        assert_eq!(
            provider().kx_groups[0].name(),
            rustls::NamedGroup::X25519MLKEM768
        );
    }
}
