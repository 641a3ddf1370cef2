//! KMSs from settings: files read, secrets fetched, nothing asked yet. Blocking: not for an async thread.

use super::certificates::Certificate;
use super::{StartError, secrets};
use crate::arena::Arena;
use crate::dek::Scope;
use crate::kms::azure::{self, Azure};
use crate::kms::bearer;
use crate::kms::gcp::{self, Gcp};
use crate::kms::http::Trust;
use crate::kms::keyring::Keyring;
use crate::kms::transit::{self, Login, Transit};
use crate::kms::{self, Answer, Kms, Random, Unwrapped};
use crate::settings::{self, AzureAuth, Ca, GcpLogin, Kek, Provider, TlsFiles, TransitAuth};
use crate::tls::{BadRoots, Roots};
use std::collections::HashMap;
use std::sync::Arc;
use zeroize::Zeroizing;

/// KMSs by the names that the settings give them.
pub type Opened = HashMap<Arc<str>, Arc<dyn Kms>>;

/// What providers are built with.
pub struct Building<'a> {
    pub arena: &'a Arena,
    pub random: &'a Random,
    /// Certificates that providers show, to be watched.
    pub certificates: &'a mut Vec<Certificate>,
}

/// The KEKs of one KMS that keys name, each once, in order.
pub fn keks<'a>(keys: &'a [settings::Key], kms: &str) -> Vec<&'a str> {
    let of_all = keys
        .iter()
        .flat_map(|key| key.seal_with.iter().chain(&key.open_also));
    let mut keks: Vec<&str> = of_all
        .filter(|kek: &&Kek| *kek.kms == *kms)
        .map(|kek| &*kek.kek)
        .collect();
    keks.sort_unstable();
    keks.dedup();
    keks
}

impl Building<'_> {
    /// One KMS, for these KEKs.
    pub fn open(&mut self, kms: &settings::Kms, keks: &[&str]) -> Result<Arc<dyn Kms>, StartError> {
        let name = Arc::clone(&kms.name);
        Ok(match &kms.provider {
            Provider::Keyring(keyring) => {
                let keyring = secrets::keyring(&name, keyring, keks, self.arena, self.random)?;
                Arc::new(Named { name, keyring })
            }
            Provider::Transit(transit) => {
                let trust = self.trust(&name, &transit.ca, transit.certificate.as_ref())?;
                let built = Transit::new(transit::Settings {
                    name: Arc::clone(&name),
                    address: transit.address.to_string(),
                    identity: transit.identity.clone(),
                    mount: transit.mount.clone(),
                    namespace: transit.namespace.clone(),
                    trust,
                    login: login(&transit.auth)?,
                    relogin_after: transit::RELOGIN_AFTER,
                    look_again: transit::LOOK_AGAIN,
                });
                Arc::new(built.map_err(|bad| no_trust(&name, &bad))?)
            }
            #[cfg(feature = "aws")]
            Provider::Aws(aws) => {
                let built = kms::aws::Aws::new(kms::aws::Settings {
                    name: Arc::clone(&name),
                    region: aws.region.clone(),
                    credentials: None,
                    endpoint: aws.endpoint.as_ref().map(ToString::to_string),
                    trust: self.trust(&name, &aws.ca, None)?,
                    relogin_after: kms::aws::RELOGIN_AFTER,
                });
                Arc::new(built.map_err(|bad| no_trust(&name, &bad))?)
            }
            Provider::Gcp(gcp) => {
                let trust = self.trust(&name, &gcp.ca, None)?;
                // A metadata server is on this machine, so to say, and speaks no TLS.
                let (login, login_trust) = match &gcp.login {
                    GcpLogin::Metadata(address) => {
                        let address = address.as_ref().map(ToString::to_string);
                        let address = address.unwrap_or_else(|| gcp::METADATA.to_owned());
                        (gcp::Login::Metadata(address), trust.clone())
                    }
                    GcpLogin::File(file) => (gcp::Login::File(file.clone()), Trust::default()),
                };
                let endpoint = gcp.endpoint.as_ref().map(ToString::to_string);
                let built = Gcp::new(gcp::Settings {
                    name: Arc::clone(&name),
                    endpoint: endpoint.unwrap_or_else(|| gcp::ENDPOINT.to_owned()),
                    trust,
                    login_trust,
                    login,
                    relogin_after: bearer::RELOGIN_AFTER,
                });
                Arc::new(built.map_err(|bad| no_trust(&name, &bad))?)
            }
            Provider::Azure(azure) => Arc::new(self.azure(name, azure)?),
            #[cfg(feature = "pkcs11")]
            Provider::Pkcs11(pkcs11) => {
                let built = kms::pkcs11::Pkcs11::new(kms::pkcs11::Settings {
                    name: Arc::clone(&name),
                    library: pkcs11.library.clone(),
                    token: pkcs11.token.clone(),
                    pin: secret(&pkcs11.pin)?,
                    sessions: pkcs11.sessions,
                    random: self.random.clone(),
                    restart_after: kms::pkcs11::RESTART_AFTER,
                });
                Arc::new(built.map_err(|bad| {
                    StartError::Settings(
                        format!("kms {name}: {bad}"),
                        format!(
                            "`library` of the KMS `{name}` is the file that the HSM's maker names"
                        ),
                    )
                })?)
            }
            #[cfg(not(all(feature = "aws", feature = "pkcs11")))]
            other => {
                let word = other.word();
                return Err(StartError::Settings(
                    format!("the KMS `{name}` is of type {word}, which this build does not have"),
                    format!("build with the feature `{word}`"),
                ));
            }
        })
    }

    fn azure(&mut self, name: Arc<str>, azure: &settings::Azure) -> Result<Azure, StartError> {
        let trust = self.trust(&name, &azure.ca, None)?;
        let authority = azure.authority.as_ref().map(ToString::to_string);
        let app = |tenant: &String, client_id: &String| azure::App {
            authority: authority.unwrap_or_else(|| azure::AUTHORITY.to_owned()),
            tenant: tenant.clone(),
            client_id: client_id.clone(),
        };
        // A metadata service is on this machine, so to say, and speaks no TLS.
        let (login, login_trust) = match &azure.auth {
            AzureAuth::Managed {
                client_id,
                metadata,
            } => {
                let login = azure::Login::Managed {
                    metadata: metadata.to_string(),
                    client_id: client_id.clone(),
                };
                (login, trust.clone())
            }
            AzureAuth::ClientSecret {
                tenant,
                client_id,
                secret: place,
            } => {
                let (app, secret) = (app(tenant, client_id), secret(place)?);
                (azure::Login::ClientSecret { app, secret }, Trust::default())
            }
            AzureAuth::Workload {
                tenant,
                client_id,
                token_file,
            } => {
                let app = app(tenant, client_id);
                let token = kms::secret::Secret::File(token_file.clone());
                (azure::Login::Workload { app, token }, Trust::default())
            }
        };
        let endpoint = azure.endpoint.as_ref().map(ToString::to_string);
        let built = Azure::new(azure::Settings {
            name: Arc::clone(&name),
            vault: azure.vault.clone(),
            endpoint: endpoint.unwrap_or_else(|| format!("https://{}", azure.vault)),
            algorithm: match azure.aes {
                true => azure::Algorithm::A256Kw,
                false => azure::Algorithm::RsaOaep256,
            },
            trust,
            login_trust,
            login,
            relogin_after: bearer::RELOGIN_AFTER,
            look_again: azure::LOOK_AGAIN,
        });
        built.map_err(|bad| no_trust(&name, &bad))
    }

    fn trust(
        &mut self,
        name: &str,
        ca: &Ca,
        certificate: Option<&TlsFiles>,
    ) -> Result<Trust, StartError> {
        let roots = match ca {
            Ca::System => Roots::System,
            Ca::File(file) => Roots::Pem(std::fs::read(file).map_err(|error| {
                StartError::Settings(
                    format!("kms {name}: {}: cannot be read: {error}", file.display()),
                    format!("correct `tls` of the KMS `{name}` in the settings"),
                )
            })?),
        };
        let mut identity = None;
        if let Some(files) = certificate {
            let certificate = Certificate::read(format!("kms {name}"), files.clone())?;
            identity = Some(certificate.identity());
            self.certificates.push(certificate);
        }
        Ok(Trust { roots, identity })
    }
}

fn no_trust(name: &str, bad: &BadRoots) -> StartError {
    StartError::Settings(
        format!("kms {name}: {bad}"),
        format!("correct `tls` of the KMS `{name}` in the settings"),
    )
}

fn login(auth: &TransitAuth) -> Result<Login, StartError> {
    Ok(match auth {
        TransitAuth::Token(place) => Login::Token(secret(place)?),
        TransitAuth::AppRole {
            mount,
            role_id,
            secret_id,
        } => Login::AppRole {
            mount: mount.clone(),
            role_id: role_id.clone(),
            secret_id: secret(secret_id)?,
        },
        TransitAuth::Kubernetes {
            mount,
            role,
            jwt_file,
        } => Login::Kubernetes {
            mount: mount.clone(),
            role: role.clone(),
            jwt: kms::secret::Secret::File(jwt_file.clone()),
        },
    })
}

/// A file is left to be read when it is needed; a variable is read now, for it cannot change any more.
fn secret(place: &settings::Secret) -> Result<kms::secret::Secret, StartError> {
    match place {
        settings::Secret::File(path) => Ok(kms::secret::Secret::File(path.clone())),
        settings::Secret::Environment(variable) => {
            let bytes = secrets::from_environment(variable)?;
            let text = std::str::from_utf8(&bytes).ok();
            let text = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
            let text = text.ok_or_else(|| {
                StartError::Settings(
                    format!("{variable} holds no secret of visible characters"),
                    format!("correct {variable}, or name a file"),
                )
            })?;
            Ok(kms::secret::Secret::Given(Arc::new(Zeroizing::new(
                text.to_owned(),
            ))))
        }
    }
}

/// A keyring under the name that the settings give it, which may differ from the one in its keys' identity.
struct Named {
    name: Arc<str>,
    keyring: Keyring,
}

impl Kms for Named {
    fn name(&self) -> &str {
        &self.name
    }
    fn uri(&self, kek: &str) -> String {
        self.keyring.uri(kek)
    }
    fn authenticates_context(&self) -> bool {
        self.keyring.authenticates_context()
    }
    fn version(&self, blob: &[u8]) -> Option<String> {
        self.keyring.version(blob)
    }
    fn wrap<'a>(
        &'a self,
        kek: &'a str,
        dek: &'a [u8; 32],
        scope: &'a Scope,
    ) -> Answer<'a, Vec<u8>> {
        self.keyring.wrap(kek, dek, scope)
    }
    fn unwrap<'a>(
        &'a self,
        kek: &'a str,
        blob: &'a [u8],
        scope: &'a Scope,
    ) -> Answer<'a, Unwrapped> {
        self.keyring.unwrap(kek, blob, scope)
    }
}
