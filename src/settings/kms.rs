//! `kms`: which key managers there are, where each is, and where what it takes to be let in is kept. Never a secret itself.

mod azure;
mod gcp;
mod pkcs11;

use super::edges::upstream_tls;
use super::written::{parse_url, path};
use super::{Ca, Secret, TlsFiles, Unlock, Url};
use crate::diagnostic::quoted;
use crate::marked::{Fields, Findings, Marked, Node, not_built};
pub use azure::{Azure, AzureAuth};
pub(super) use azure::{FEDERATED, METADATA};
pub use gcp::{Gcp, GcpLogin};
pub use pkcs11::Pkcs11;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of an identity, a mount, a namespace, a role or a variable's name.
const TEXT_BYTES_MAX: usize = 256;
/// Where Kubernetes mounts the token of a pod's service account.
pub(super) const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// A KMS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kms {
    /// Unique; keys refer to it.
    pub name: Arc<str>,
    /// What it is.
    pub provider: Provider,
}

/// What a KMS is: its `type`, and the words of that type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    /// The embedded key store.
    Keyring(Keyring),
    /// The transit engine of HashiCorp Vault or OpenBao.
    Transit(Box<Transit>),
    /// AWS KMS.
    Aws(Aws),
    /// Google Cloud KMS.
    Gcp(Gcp),
    /// Azure Key Vault or Managed HSM.
    Azure(Box<Azure>),
    /// The token of an HSM.
    Pkcs11(Pkcs11),
}

impl Provider {
    /// The word in the file.
    pub fn word(&self) -> &'static str {
        match self {
            Provider::Keyring(_) => "keyring",
            Provider::Transit(_) => "transit",
            Provider::Aws(_) => "aws",
            Provider::Gcp(_) => "gcp",
            Provider::Azure(_) => "azure",
            Provider::Pkcs11(_) => "pkcs11",
        }
    }

    /// Why it can have no KEK of this name; None: it can.
    pub(super) fn bad_kek(&self, kek: &str) -> Option<&'static str> {
        let fits = match self {
            Provider::Keyring(_) => {
                let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
                kek.len() <= crate::policy::NAME_CHARS_MAX
                    && kek.bytes().all(|byte| word(byte) || b"-_.".contains(&byte))
                    && kek.bytes().next().is_some_and(word)
            }
            Provider::Transit(_) => {
                let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                kek.len() <= TEXT_BYTES_MAX
                    && kek.bytes().all(|byte| word(byte) || b"-.".contains(&byte))
                    && kek.bytes().next().is_some_and(word)
                    && kek.bytes().next_back().is_some_and(word)
            }
            Provider::Aws(_) => is_key_arn(kek),
            Provider::Gcp(_) => gcp::is_key(kek),
            Provider::Azure(_) => azure::is_key(kek),
            Provider::Pkcs11(_) => pkcs11::is_label(kek),
        };
        let what = match self {
            Provider::Keyring(_) => {
                "no name of a key in a keyring: lower-case letters, digits, `.`, `_`, `-`"
            }
            Provider::Transit(_) => "no name of a key of transit: letters, digits, `.`, `_`, `-`",
            Provider::Aws(_) => {
                "no ARN of an AWS KMS key: arn:aws:kms:REGION:ACCOUNT:key/ID (an alias may be pointed elsewhere, and is refused)"
            }
            Provider::Gcp(_) => {
                "no name of a Google Cloud KMS key: projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY, without a version"
            }
            Provider::Azure(_) => {
                "no name of a key in a vault: letters, digits and `-`, without a version"
            }
            Provider::Pkcs11(_) => {
                "no label of a key: at most 256 bytes, no control characters, no space at its ends"
            }
        };
        (!fits).then_some(what)
    }
}

/// `arn:PARTITION:kms:REGION:ACCOUNT:key/ID`.
fn is_key_arn(text: &str) -> bool {
    let word = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let parts: Vec<&str> = text.split(':').collect();
    let [arn, partition, service, region, account, resource] = parts[..] else {
        return false;
    };
    let account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= TEXT_BYTES_MAX
        && arn == "arn"
        && partition.starts_with("aws")
        && word(partition)
        && service == "kms"
        && word(region)
        && account
        && resource.strip_prefix("key/").is_some_and(word)
}

/// The embedded key store: for one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyring {
    /// The keyring's directory, private to the agent's user.
    pub dir: PathBuf,
    /// How the agent unlocks it.
    pub unlock: Unlock,
    /// Make keyring and key file where there are none (`--data-dir`).
    pub initialise: bool,
}

/// A transit engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transit {
    /// Where the server is.
    pub address: Url,
    /// What tokens know it by, wherever it is: part of its KEKs' URIs.
    pub identity: String,
    /// Where the engine is mounted, without slashes at its ends.
    pub mount: String,
    /// Sent with every request.
    pub namespace: Option<String>,
    /// Used for https alone.
    pub ca: Ca,
    /// Shown to a server that asks for it; used for https alone.
    pub certificate: Option<TlsFiles>,
    /// How the agent logs in.
    pub auth: TransitAuth,
}

/// How the agent logs in to a Vault or OpenBao.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransitAuth {
    /// A token that somebody else has had made. A file is read again when its token is no good any more.
    Token(Secret),
    /// As an AppRole.
    AppRole {
        /// Where the method is mounted.
        mount: String,
        /// Not a secret.
        role_id: String,
        /// Read at every login.
        secret_id: Secret,
    },
    /// As the service account of a Kubernetes pod.
    Kubernetes {
        /// Where the method is mounted.
        mount: String,
        /// The role that the service account is bound to.
        role: String,
        /// The service account's token; read at every login.
        jwt_file: PathBuf,
    },
}

/// AWS KMS. Who the agent is there, the SDK's own chain of credentials says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aws {
    /// Where credentials are asked for; `None`: as the environment says. A key's region is in its ARN.
    pub region: Option<String>,
    /// Instead of AWS's own addresses.
    pub endpoint: Option<Url>,
    /// Who vouches for its certificate.
    pub ca: Ca,
}

pub(super) struct KmsWords {
    pub name: Marked<String>,
    pub provider: ProviderWords,
}

pub(super) enum ProviderWords {
    /// A keyring's unlocking may come from the environment.
    Keyring {
        dir: PathBuf,
        unlock: Option<Unlock>,
    },
    Other(Provider),
}

pub(super) fn kms(
    name: Marked<String>,
    node: &Node,
    base: &Path,
    findings: &mut Findings<'_>,
) -> Option<KmsWords> {
    let mut fields = findings.fields(node, "a KMS")?;
    let kinds = ["keyring", "transit", "aws", "gcp", "azure", "pkcs11"].map(|kind| (kind, kind));
    let kind = fields.require("type", findings)?;
    let provider = match findings.choice(kind, "a KMS's `type`", &kinds)? {
        "keyring" => keyring(fields, base, findings),
        "transit" => {
            let transit = transit(fields, base, findings);
            transit.map(|transit| ProviderWords::Other(Provider::Transit(Box::new(transit))))
        }
        "aws" if cfg!(feature = "aws") => {
            let aws = aws(fields, base, findings);
            aws.map(|aws| ProviderWords::Other(Provider::Aws(aws)))
        }
        "gcp" => {
            let gcp = gcp::gcp(fields, base, findings);
            gcp.map(|gcp| ProviderWords::Other(Provider::Gcp(gcp)))
        }
        "azure" => {
            let azure = azure::azure(fields, base, findings);
            azure.map(|azure| ProviderWords::Other(Provider::Azure(Box::new(azure))))
        }
        "pkcs11" if cfg!(feature = "pkcs11") => {
            let pkcs11 = pkcs11::pkcs11(fields, base, findings);
            pkcs11.map(|pkcs11| ProviderWords::Other(Provider::Pkcs11(pkcs11)))
        }
        other => {
            // The words of another type would only be unknown here.
            not_built(findings, kind.span, &format!("a KMS of type `{other}`"));
            None
        }
    };
    Some(KmsWords {
        name,
        provider: provider?,
    })
}

fn keyring(
    mut fields: Fields<'_>,
    base: &Path,
    findings: &mut Findings<'_>,
) -> Option<ProviderWords> {
    let dir = fields
        .require("dir", findings)
        .and_then(|node| path(node, base, "`dir`", findings));
    let unlock = fields
        .take("unlock")
        .map(|node| unlock(node, base, findings));
    fields.finish(findings);
    let unlock = match unlock {
        Some(None) => return None,
        Some(words) => words,
        None => None,
    };
    Some(ProviderWords::Keyring { dir: dir?, unlock })
}

fn unlock(node: &Node, base: &Path, findings: &mut Findings<'_>) -> Option<Unlock> {
    let before = findings.count();
    let mut fields = findings.fields(node, "`unlock`")?;
    let key_file = fields
        .take("key_file")
        .and_then(|node| path(node, base, "`key_file`", findings));
    let passphrase = fields
        .take("passphrase_file")
        .and_then(|node| path(node, base, "`passphrase_file`", findings));
    let span = fields.span;
    let hint = "a secret is named by its file: key_file or passphrase_file";
    for word in ["key", "passphrase", "password"] {
        fields.misplaced(word, hint, findings);
    }
    fields.finish(findings);
    match (key_file, passphrase) {
        (Some(file), None) => Some(Unlock::KeyFile(file)),
        (None, Some(file)) => Some(Unlock::Passphrase(Secret::File(file))),
        _ => {
            // Another finding may have said it better.
            if findings.count() == before {
                findings.at(
                    "one-of",
                    span,
                    "`unlock` has one of key_file, passphrase_file",
                );
            }
            None
        }
    }
}

fn transit(mut fields: Fields<'_>, base: &Path, findings: &mut Findings<'_>) -> Option<Transit> {
    let address = fields
        .require("address", findings)
        .and_then(|node| findings.text(node, "`address`"))
        .and_then(|text| parse_url(text, findings));
    let identity = fields
        .require("identity", findings)
        .and_then(|node| segments(node, "`identity`", findings));
    let mount = mount(&mut fields, "transit", findings);
    let namespace = fields
        .take("namespace")
        .map(|node| segments(node, "`namespace`", findings));
    let tls = fields.take("tls").map(|node| (node.span, node));
    let tls_span = tls.as_ref().map(|(span, _)| *span);
    let tls = tls
        .and_then(|(_, node)| upstream_tls(node, base, findings))
        .unwrap_or_default();
    if let (Some(span), Some(false)) = (tls_span, address.as_ref().map(|url| url.value.tls)) {
        findings.at(
            "tls-without-https",
            span,
            "`tls` is for an address with https://",
        );
    }
    let auth = fields
        .require("auth", findings)
        .and_then(|node| transit_auth(node, base, findings));
    fields.finish(findings);
    Some(Transit {
        address: address?.value,
        identity: identity?,
        mount: mount?,
        namespace: match namespace {
            Some(namespace) => Some(namespace?),
            None => None,
        },
        ca: tls.ca.map(|ca| ca.value).unwrap_or_default(),
        certificate: tls.identity.map(|files| files.value),
        auth: auth?,
    })
}

fn transit_auth(node: &Node, base: &Path, findings: &mut Findings<'_>) -> Option<TransitAuth> {
    let before = findings.count();
    let mut fields = findings.fields(node, "`auth`")?;
    let span = fields.span;
    let mut ways = Vec::new();
    if let Some(secret) = secret(&mut fields, "token_file", "token_env", base, findings) {
        ways.push(TransitAuth::Token(secret));
    }
    fields.misplaced(
        "token",
        "name where it is: token_file or token_env",
        findings,
    );
    if let Some(node) = fields.take("approle") {
        ways.extend(approle(node, base, findings));
    }
    if let Some(node) = fields.take("kubernetes") {
        ways.extend(kubernetes(node, base, findings));
    }
    fields.finish(findings);
    if ways.len() == 1 && findings.count() == before {
        return ways.pop();
    }
    if findings.count() == before {
        findings.at(
            "one-of",
            span,
            "`auth` has one of token_file, token_env, approle, kubernetes",
        );
    }
    None
}

fn approle(node: &Node, base: &Path, findings: &mut Findings<'_>) -> Option<TransitAuth> {
    let mut fields = findings.fields(node, "`approle`")?;
    let mount = mount(&mut fields, "approle", findings);
    let role_id = fields
        .require("role_id", findings)
        .and_then(|node| bounded_text(node, "`role_id`", findings));
    let before = findings.count();
    let files = ("secret_id_file", "secret_id_env");
    let secret_id = secret(&mut fields, files.0, files.1, base, findings);
    fields.misplaced(
        "secret_id",
        "name where it is: secret_id_file or secret_id_env",
        findings,
    );
    if secret_id.is_none() && findings.count() == before {
        findings.at(
            "one-of",
            fields.span,
            "`approle` has one of secret_id_file, secret_id_env",
        );
    }
    fields.finish(findings);
    Some(TransitAuth::AppRole {
        mount: mount?,
        role_id: role_id?,
        secret_id: secret_id?,
    })
}

fn kubernetes(node: &Node, base: &Path, findings: &mut Findings<'_>) -> Option<TransitAuth> {
    let mut fields = findings.fields(node, "`kubernetes`")?;
    let mount = mount(&mut fields, "kubernetes", findings);
    let role = fields
        .require("role", findings)
        .and_then(|node| bounded_text(node, "`role`", findings));
    let jwt_file = match fields.take("jwt_file") {
        Some(node) => path(node, base, "`jwt_file`", findings),
        None => Some(SERVICE_ACCOUNT.into()),
    };
    fields.finish(findings);
    Some(TransitAuth::Kubernetes {
        mount: mount?,
        role: role?,
        jwt_file: jwt_file?,
    })
}

/// A secret's place: a file, or the name of an environment variable; not both.
fn secret(
    fields: &mut Fields<'_>,
    in_file: &'static str,
    in_environment: &'static str,
    base: &Path,
    findings: &mut Findings<'_>,
) -> Option<Secret> {
    let file = fields.take(in_file);
    let variable = fields.take(in_environment);
    if let (Some(_), Some(node)) = (file, variable) {
        let message = format!("one of {in_file}, {in_environment}");
        findings.at("one-of", node.span, message);
        return None;
    }
    if let Some(node) = file {
        return path(node, base, &format!("`{in_file}`"), findings).map(Secret::File);
    }
    let text = bounded_text(variable?, &format!("`{in_environment}`"), findings)?;
    let name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if text.bytes().all(name) && !text.as_bytes()[0].is_ascii_digit() {
        return Some(Secret::Environment(text.into()));
    }
    // Somebody may have written the secret itself.
    let span = variable?.span;
    findings.withhold(span);
    let message = format!("`{in_environment}` is the name of an environment variable");
    findings.at("bad-name", span, message);
    None
}

fn aws(mut fields: Fields<'_>, base: &Path, findings: &mut Findings<'_>) -> Option<Aws> {
    let region = fields
        .take("region")
        .map(|node| bounded_text(node, "`region`", findings));
    let endpoint = fields.take("endpoint").map(|node| {
        findings
            .text(node, "`endpoint`")
            .and_then(|text| parse_url(text, findings))
    });
    let ca = fields.take("tls").and_then(|node| {
        let tls = upstream_tls(node, base, findings)?;
        if let Some(identity) = tls.identity {
            let message = "AWS KMS asks for no client certificate: `tls` has `ca` alone";
            findings.at("misplaced-word", identity.span, message);
        }
        tls.ca
    });
    for word in [
        "access_key_id",
        "secret_access_key",
        "session_token",
        "profile",
        "role_arn",
    ] {
        let hint = "who the agent is, AWS's own files and variables say: see docs/kms.md";
        fields.misplaced(word, hint, findings);
    }
    fields.finish(findings);
    Some(Aws {
        region: match region {
            Some(region) => Some(region?),
            None => None,
        },
        endpoint: match endpoint {
            Some(endpoint) => Some(endpoint?.value),
            None => None,
        },
        ca: ca.map(|ca| ca.value).unwrap_or_default(),
    })
}

fn mount(fields: &mut Fields<'_>, default: &str, findings: &mut Findings<'_>) -> Option<String> {
    match fields.take("mount") {
        Some(node) => segments(node, "`mount`", findings),
        None => Some(default.to_owned()),
    }
}

fn bounded_text(node: &Node, what: &str, findings: &mut Findings<'_>) -> Option<String> {
    let text = findings.text(node, what)?;
    let fits = (1..=TEXT_BYTES_MAX).contains(&text.value.len())
        && text.value.bytes().all(|byte| byte.is_ascii_graphic());
    if !fits {
        let message = format!("{what} is 1 to {TEXT_BYTES_MAX} visible characters of ASCII");
        findings.at("bad-name", text.span, message);
        return None;
    }
    Some(text.value)
}

/// Words between slashes, without one at either end: it becomes part of a path.
fn segments(node: &Node, what: &str, findings: &mut Findings<'_>) -> Option<String> {
    let text = findings.text(node, what)?;
    let word = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
    };
    if text.value.len() > TEXT_BYTES_MAX || !text.value.split('/').all(word) {
        let message = format!(
            "{what} is words of letters, digits, `-`, `_`, `.`, `:` with `/` between them; {} is not",
            quoted(&text.value)
        );
        findings.at("bad-name", text.span, message);
        return None;
    }
    Some(text.value)
}

#[cfg(test)]
mod tests {
    use super::is_key_arn;

    #[test]
    fn key_arns() {
        for good in [
            "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-1234",
        ] {
            assert!(is_key_arn(good), "{good}");
        }
        for bad in [
            "",
            "alias/cards",
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws:kms:eu-central-1:111122223333:alias/cards",
            "arn:aws:s3:eu-central-1:111122223333:key/1",
            "arn:aws:kms::111122223333:key/1",
            "arn:aws:kms:eu-central-1:1111:key/1",
            "arn:aws:kms:eu-central-1:111122223333:key/1/2",
            "arn:aws:kms:eu-central-1:111122223333:key/1:2",
        ] {
            assert!(!is_key_arn(bad), "{bad}");
        }
    }
}
