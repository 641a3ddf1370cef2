//! The words of a KMS of type `gcp`: Google Cloud KMS.

use super::{TEXT_BYTES_MAX, upstream_tls};
use crate::marked::{Fields, Findings};
use crate::settings::written::{parse_url, path};
use crate::settings::{Ca, Url};
use std::path::{Path, PathBuf};

/// Google Cloud KMS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gcp {
    /// Instead of Google's own address.
    pub endpoint: Option<Url>,
    /// Who vouches for the endpoint's certificate.
    pub ca: Ca,
    /// Who the agent is.
    pub login: GcpLogin,
}

/// Who the agent is at Google.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GcpLogin {
    /// As the metadata server says; `None`: at its usual address.
    Metadata(Option<Url>),
    /// As this file says; read at every login.
    File(PathBuf),
}

/// `projects/P/locations/L/keyRings/R/cryptoKeys/K`.
pub(super) fn is_key(text: &str) -> bool {
    let word = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    // A project of a domain is `example.com:name`.
    let project = |text: &str| {
        !matches!(text, "" | "." | "..")
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
    };
    let parts: Vec<&str> = text.split('/').collect();
    let [projects, p, locations, l, rings, r, keys, k] = parts[..] else {
        return false;
    };
    text.len() <= TEXT_BYTES_MAX
        && (projects, locations, rings, keys) == ("projects", "locations", "keyRings", "cryptoKeys")
        && project(p)
        && word(l)
        && word(r)
        && word(k)
}

pub(super) fn gcp(mut fields: Fields<'_>, base: &Path, findings: &mut Findings<'_>) -> Option<Gcp> {
    let before = findings.count();
    let mut url = |word: &'static str, findings: &mut Findings<'_>| {
        let node = fields.take(word)?;
        let text = findings.text(node, word)?;
        parse_url(text, findings)
    };
    let endpoint = url("endpoint", findings);
    let metadata = url("metadata", findings);
    let tls = fields.take("tls").map(|node| (node.span, node));
    let ca = tls.and_then(|(_, node)| {
        let tls = upstream_tls(node, base, findings)?;
        if let Some(identity) = tls.identity {
            let message = "Google Cloud KMS asks for no client certificate: `tls` has `ca` alone";
            findings.at("misplaced-word", identity.span, message);
        }
        tls.ca
    });
    if let (Some((span, _)), Some(false)) = (tls, endpoint.as_ref().map(|url| url.value.tls)) {
        findings.at(
            "tls-without-https",
            span,
            "`tls` is for an address with https://",
        );
    }
    let file = fields.take("credentials_file");
    if let (Some(_), Some(node)) = (&metadata, file) {
        findings.at("one-of", node.span, "one of credentials_file, metadata");
    }
    let file = file.and_then(|node| path(node, base, "`credentials_file`", findings));
    for word in ["credentials", "private_key", "token", "access_token"] {
        let hint = "name the file where they are: credentials_file";
        fields.misplaced(word, hint, findings);
    }
    fields.finish(findings);
    (findings.count() == before).then(|| Gcp {
        endpoint: endpoint.map(|url| url.value),
        ca: ca.map(|ca| ca.value).unwrap_or_default(),
        login: match file {
            Some(file) => GcpLogin::File(file),
            None => GcpLogin::Metadata(metadata.map(|url| url.value)),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::is_key;

    #[test]
    fn key_names() {
        for good in [
            "projects/p-1/locations/europe-west3/keyRings/r_1/cryptoKeys/K",
            "projects/example.com:p/locations/global/keyRings/r/cryptoKeys/k",
        ] {
            assert!(is_key(good), "{good}");
        }
        for bad in [
            "",
            "k",
            "projects/p/locations/l/keyRings/r/cryptoKeys",
            "projects/p/locations/l/keyRings/r/cryptoKeys/",
            "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1",
            "projects/../locations/l/keyRings/r/cryptoKeys/k",
            "projects/p/locations/l/keyRings/r/cryptoKeys/k:encrypt",
            "projects/p/locations/l/keyRings/r%2F/cryptoKeys/k",
            "project/p/locations/l/keyRings/r/cryptoKeys/k",
        ] {
            assert!(!is_key(bad), "{bad}");
        }
    }
}
