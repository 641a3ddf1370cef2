//! Whom TLS trusts as a client: towards upstreams, KMSs and whatever else the agent asks.

use super::{Identity, provider};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::sync::Arc;

/// Whom TLS trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// The operating system's store.
    #[default]
    System,
    /// These certificates alone, in PEM.
    Pem(Vec<u8>),
}

/// Why there is nobody to trust. For the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRoots(String);

impl BadRoots {
    pub(crate) fn new(what: impl Into<String>) -> BadRoots {
        BadRoots(what.into())
    }
}

impl fmt::Display for BadRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadRoots {}

/// The operating system's roots, in PEM.
///
/// # Errors
/// There are none.
pub fn system_roots() -> Result<String, BadRoots> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(BadRoots::new("the system has no certificates to trust"));
    }
    let mut text = String::new();
    for certificate in &found.certs {
        let coded = STANDARD.encode(certificate);
        text += "-----BEGIN CERTIFICATE-----\n";
        for line in coded.as_bytes().chunks(64) {
            text.extend(line.iter().map(|&byte| char::from(byte)));
            text.push('\n');
        }
        text += "-----END CERTIFICATE-----\n";
    }
    Ok(text)
}

impl Roots {
    /// Trust in these alone, the client certificate where there is one, and `protocols` by ALPN, the preferred one first.
    ///
    /// # Errors
    /// There is nothing to trust, or not PEM.
    pub fn client(
        &self,
        identity: Option<&Identity>,
        protocols: Vec<Vec<u8>>,
    ) -> Result<ClientConfig, BadRoots> {
        let bad = |what: &str| BadRoots::new(what);
        let mut store = RootCertStore::empty();
        match self {
            Roots::System => {
                let found = rustls_native_certs::load_native_certs();
                store.add_parsable_certificates(found.certs);
                if store.is_empty() {
                    return Err(bad(
                        "the system has no certificates to trust; set tls.ca to a PEM file",
                    ));
                }
            }
            Roots::Pem(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let certificate = certificate.map_err(|_| bad("tls.ca is not PEM"))?;
                    store
                        .add(certificate)
                        .map_err(|_| bad("tls.ca holds a broken certificate"))?;
                }
                if store.is_empty() {
                    return Err(bad("tls.ca holds no certificate"));
                }
            }
        }
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| BadRoots::new(error.to_string()))?
            .with_root_certificates(store);
        let mut config = match identity {
            Some(identity) => builder.with_client_cert_resolver(Arc::new(identity.clone())),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols;
        Ok(config)
    }
}
