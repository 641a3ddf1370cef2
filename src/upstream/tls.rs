//! TLS towards the upstream: whom it trusts, what it shows of itself, and which versions of HTTP it offers.

use super::{BadSettings, Settings, Speak};
use crate::tls::{H2, protocols, provider};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
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

/// Trust in the roots alone, the client certificate where there is one, and the versions of HTTP by ALPN.
///
/// # Errors
/// There is nothing to trust, or not PEM.
pub(super) fn config(settings: &Settings) -> Result<rustls::ClientConfig, BadSettings> {
    let mut store = RootCertStore::empty();
    match &settings.roots {
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(found.certs);
            if store.is_empty() {
                return Err(BadSettings(
                    "the system has no certificates to trust; set tls.ca to a PEM file".into(),
                ));
            }
        }
        Roots::Pem(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate =
                    certificate.map_err(|_| BadSettings("tls.ca is not PEM".into()))?;
                store
                    .add(certificate)
                    .map_err(|_| BadSettings("tls.ca holds a broken certificate".into()))?;
            }
            if store.is_empty() {
                return Err(BadSettings("tls.ca holds no certificate".into()));
            }
        }
    }
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| BadSettings(error.to_string()))?
        .with_root_certificates(store);
    let mut config = match &settings.identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(identity.clone())),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = match settings.speak {
        Speak::Either => protocols(true),
        Speak::Http1 => protocols(false),
        Speak::Http2 => vec![H2.to_vec()],
    };
    Ok(config)
}
