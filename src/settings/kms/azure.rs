//! The words of a KMS of type `azure`: a Key Vault or a Managed HSM.

use super::{bounded_text, secret, upstream_tls};
use crate::diagnostic::quoted;
use crate::marked::{Fields, Findings, Node};
use crate::settings::written::{parse_url, path};
use crate::settings::{Ca, Secret, Url};
use std::path::Path;

/// Where the webhook of AKS mounts a pod's token.
pub const FEDERATED: &str = "/var/run/secrets/azure/tokens/azure-identity-token";
/// The metadata service, by its address: no name is looked up.
pub const METADATA: &str = "169.254.169.254";
/// Characters of a key's name.
const NAME_CHARS_MAX: usize = 127;
/// Characters of a host name.
const HOST_CHARS_MAX: usize = 253;

/// A Key Vault or a Managed HSM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Azure {
    /// Its host name, in lower case; part of its KEKs' URIs.
    pub vault: String,
    /// Instead of the host name's own address.
    pub endpoint: Option<Url>,
    /// Who vouches for its certificate.
    pub ca: Ca,
    /// AES (A256KW) instead of RSA (RSA-OAEP-256).
    pub aes: bool,
    /// Who gives out tokens to applications; `None`: the public cloud's.
    pub authority: Option<Url>,
    /// Who the agent is.
    pub auth: AzureAuth,
}

/// Who the agent is at Azure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AzureAuth {
    /// As the identity that Azure gave the machine.
    Managed {
        /// Which one, where it has several.
        client_id: Option<String>,
        /// The metadata service.
        metadata: Url,
    },
    /// As an application, with its secret.
    ClientSecret {
        /// The directory's id or domain.
        tenant: String,
        /// The application's id.
        client_id: String,
        /// Read at every login.
        secret: Secret,
    },
    /// As an application, with a token that somebody else vouches for it by.
    Workload {
        /// The directory's id or domain.
        tenant: String,
        /// The application's id.
        client_id: String,
        /// Read at every login.
        token_file: std::path::PathBuf,
    },
}

/// Letters, digits and hyphens.
pub(super) fn is_key(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=NAME_CHARS_MAX).contains(&text.len()) && text.bytes().all(word)
}

pub(super) fn azure(
    mut fields: Fields<'_>,
    base: &Path,
    findings: &mut Findings<'_>,
) -> Option<Azure> {
    let before = findings.count();
    let vault = fields
        .require("vault", findings)
        .and_then(|node| host(node, findings));
    let endpoint = url(&mut fields, "endpoint", findings);
    let authority = url(&mut fields, "authority", findings);
    let tls = fields.take("tls").map(|node| (node.span, node));
    let ca = tls.and_then(|(_, node)| {
        let tls = upstream_tls(node, base, findings)?;
        if let Some(identity) = tls.identity {
            let message = "Azure asks for no client certificate: `tls` has `ca` alone";
            findings.at("misplaced-word", identity.span, message);
        }
        tls.ca
    });
    if let (Some((span, _)), Some(false)) = (tls, endpoint.as_ref().map(|url| url.tls)) {
        let message = "`tls` is for an address with https://";
        findings.at("tls-without-https", span, message);
    }
    let aes = fields.take("algorithm").and_then(|node| {
        let known = [("RSA-OAEP-256", false), ("A256KW", true)];
        findings.choice(node, "`algorithm`", &known)
    });
    let auth = fields
        .require("auth", findings)
        .and_then(|node| auth(node, base, findings));
    fields.finish(findings);
    let (vault, auth) = (vault?, auth?);
    (findings.count() == before).then(|| Azure {
        vault,
        endpoint,
        ca: ca.map(|ca| ca.value).unwrap_or_default(),
        aes: aes.unwrap_or_default(),
        authority,
        auth,
    })
}

fn url(fields: &mut Fields<'_>, word: &'static str, findings: &mut Findings<'_>) -> Option<Url> {
    let node = fields.take(word)?;
    let text = findings.text(node, word)?;
    parse_url(text, findings).map(|url| url.value)
}

fn host(node: &Node, findings: &mut Findings<'_>) -> Option<String> {
    let text = findings.text(node, "`vault`")?;
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let labels: Vec<&str> = text.value.split('.').collect();
    if text.value.len() > HOST_CHARS_MAX || labels.len() < 3 || !labels.into_iter().all(label) {
        let message = format!(
            "`vault` is a vault's host name, as cards.vault.azure.net; {} is not",
            quoted(&text.value)
        );
        findings.at("bad-name", text.span, message);
        return None;
    }
    Some(text.value.to_ascii_lowercase())
}

fn auth(node: &Node, base: &Path, findings: &mut Findings<'_>) -> Option<AzureAuth> {
    let before = findings.count();
    let mut fields = findings.fields(node, "`auth`")?;
    let span = fields.span;
    let mut ways = Vec::new();
    if let Some(node) = fields.take("managed_identity") {
        ways.extend(managed(node, findings));
    }
    if let Some(node) = fields.take("client_secret") {
        ways.extend(client_secret(node, base, findings));
    }
    if let Some(node) = fields.take("workload_identity") {
        ways.extend(workload(node, base, findings));
    }
    fields.finish(findings);
    if findings.count() != before {
        return None;
    }
    if ways.len() != 1 {
        let message = "`auth` has one of managed_identity, client_secret, workload_identity";
        findings.at("one-of", span, message);
        return None;
    }
    ways.pop()
}

fn managed(node: &Node, findings: &mut Findings<'_>) -> Option<AzureAuth> {
    let mut fields = findings.fields(node, "`managed_identity`")?;
    let client_id = fields
        .take("client_id")
        .and_then(|node| bounded_text(node, "`client_id`", findings));
    let metadata = url(&mut fields, "metadata", findings);
    fields.finish(findings);
    Some(AzureAuth::Managed {
        client_id,
        metadata: metadata.unwrap_or_else(|| Url {
            tls: false,
            host: METADATA.to_owned(),
            port: 80,
        }),
    })
}

/// The directory, which becomes part of an address, and the application.
fn app(fields: &mut Fields<'_>, findings: &mut Findings<'_>) -> Option<(String, String)> {
    let tenant = fields.require("tenant", findings).and_then(|node| {
        let text = findings.text(node, "`tenant`")?;
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        let fits = (1..=HOST_CHARS_MAX).contains(&text.value.len())
            && text.value.bytes().all(word)
            && !text.value.starts_with('.');
        if !fits {
            let message = "`tenant` is a directory's id or domain";
            findings.at("bad-name", text.span, message);
        }
        fits.then_some(text.value)
    });
    let client_id = fields
        .require("client_id", findings)
        .and_then(|node| bounded_text(node, "`client_id`", findings));
    Some((tenant?, client_id?))
}

fn client_secret(node: &Node, base: &Path, findings: &mut Findings<'_>) -> Option<AzureAuth> {
    let mut fields = findings.fields(node, "`client_secret`")?;
    let app = app(&mut fields, findings);
    let before = findings.count();
    let secret = secret(&mut fields, "secret_file", "secret_env", base, findings);
    let hint = "name where it is: secret_file or secret_env";
    fields.misplaced("secret", hint, findings);
    if secret.is_none() && findings.count() == before {
        let message = "`client_secret` has one of secret_file, secret_env";
        findings.at("one-of", fields.span, message);
    }
    fields.finish(findings);
    let (tenant, client_id) = app?;
    Some(AzureAuth::ClientSecret {
        tenant,
        client_id,
        secret: secret?,
    })
}

fn workload(node: &Node, base: &Path, findings: &mut Findings<'_>) -> Option<AzureAuth> {
    let mut fields = findings.fields(node, "`workload_identity`")?;
    let app = app(&mut fields, findings);
    let token_file = match fields.take("token_file") {
        Some(node) => path(node, base, "`token_file`", findings),
        None => Some(FEDERATED.into()),
    };
    fields.finish(findings);
    let (tenant, client_id) = app?;
    Some(AzureAuth::Workload {
        tenant,
        client_id,
        token_file: token_file?,
    })
}
