//! TLS towards the upstream: whom it trusts, what it shows of itself, and which versions of HTTP it offers.

use super::{BadSettings, Settings, Speak};
use crate::tls::{H2, protocols};

/// Trust in the roots alone, the client certificate where there is one, and the versions of HTTP by ALPN.
///
/// # Errors
/// There is nothing to trust, or not PEM.
pub(super) fn config(settings: &Settings) -> Result<rustls::ClientConfig, BadSettings> {
    let protocols = match settings.speak {
        Speak::Either => protocols(true),
        Speak::Http1 => protocols(false),
        Speak::Http2 => vec![H2.to_vec()],
    };
    settings
        .roots
        .client(settings.identity.as_ref(), protocols)
        .map_err(|bad| BadSettings(bad.to_string()))
}
