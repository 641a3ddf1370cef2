//! Azure Key Vault and Managed HSM: wrap is `wrapKey` by the newest version of a key, unwrap is `unwrapKey` by the version that a blob
//! names.
//!
//! Blob: `key version (16 bytes) || the wrapped value`. No context goes with it: neither RSA-OAEP-256 nor A256KW takes any; two key
//! names therefore never share a key. Under RSA anyone who has the public half may wrap, so a blob does not say who made it.
//! Whether a blob's version is superseded is known from the key's properties where they may be read, otherwise from what
//! `wrapKey` last used.
//!
//! Never here: a token or a data key to who asks for tokens of another domain than the vault's, Azure's texts of errors, a second try
//! other than the one with a fresh token.

mod login;
mod wire;

use super::bearer::Bearer;
use super::http::{Ask, Http, Reply, Trust};
use super::secret::Secret;
use super::{Answer, Failure, Kms, KmsError, Unwrapped};
use crate::dek::Scope;
use crate::tls::BadRoots;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};
pub use wire::Algorithm;
use wire::{VERSION_LEN, Version};
use zeroize::Zeroizing;

/// The address of whoever gives out tokens, in the public cloud.
pub const AUTHORITY: &str = "https://login.microsoftonline.com";
/// How long a key's newest version, once read, is taken for the newest.
pub const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How long it is not asked for where it may not be read.
const UNTOLD_FOR: Duration = Duration::from_secs(600);
/// What an unwrap waits for the key's properties at most: they are worth a rotation that is seen late.
const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// How the agent is let in.
#[derive(Clone, Debug)]
pub enum Login {
    /// As the identity that Azure gave the machine.
    Managed {
        /// The metadata service, `http://host[:port]`.
        metadata: String,
        /// Which one, where it has several.
        client_id: Option<String>,
    },
    /// As an application, with its secret.
    ClientSecret {
        /// Who gives out tokens to it.
        app: App,
        /// Read at every login.
        secret: Secret,
    },
    /// As an application, with a token that somebody else vouches for it by (a pod's service account).
    Workload {
        /// Who gives out tokens to it.
        app: App,
        /// Read at every login.
        token: Secret,
    },
}

/// An application in a directory.
#[derive(Clone, Debug)]
pub struct App {
    /// [`AUTHORITY`], or another cloud's.
    pub authority: String,
    /// The directory's id or domain.
    pub tenant: String,
    /// The application's id.
    pub client_id: String,
}

/// What a vault is reached with.
pub struct Settings {
    /// What the settings call it; for logs and metrics.
    pub name: Arc<str>,
    /// The vault's host name: `NAME.vault.azure.net`, `NAME.managedhsm.azure.net`; what its KEKs' URIs begin with.
    pub vault: String,
    /// Where it is reached: `https://` and the host name, or instead of it `https://host[:port]`.
    pub endpoint: String,
    /// How its keys wrap.
    pub algorithm: Algorithm,
    /// TLS with the vault.
    pub trust: Trust,
    /// TLS with those who give out tokens.
    pub login_trust: Trust,
    /// How the agent is let in.
    pub login: Login,
    /// [`super::bearer::RELOGIN_AFTER`], but in tests.
    pub relogin_after: Duration,
    /// [`LOOK_AGAIN`], but in tests.
    pub look_again: Duration,
}

/// A vault.
pub struct Azure {
    name: Arc<str>,
    vault: String,
    endpoint: String,
    algorithm: Algorithm,
    http: Http,
    login_http: Http,
    login: Login,
    relogin_after: Duration,
    look_again: Duration,
    /// Held while the vault is asked what tokens it wants.
    entering: tokio::sync::Mutex<()>,
    /// Tokens of the kind that the vault wants.
    bearer: Mutex<Option<Arc<Bearer>>>,
    newest: Mutex<HashMap<String, Newest>>,
}

/// What is known of a key's newest version.
#[derive(Clone, Copy, Default)]
struct Newest {
    version: Option<Version>,
    /// No need to ask before.
    until: Option<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Azure {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// TLS has nothing to trust.
    pub fn new(settings: Settings) -> Result<Azure, BadRoots> {
        Ok(Azure {
            name: settings.name,
            vault: settings.vault.to_ascii_lowercase(),
            endpoint: settings.endpoint,
            algorithm: settings.algorithm,
            http: Http::new(&settings.trust)?,
            login_http: Http::new(&settings.login_trust)?,
            login: settings.login,
            relogin_after: settings.relogin_after,
            look_again: settings.look_again,
            entering: tokio::sync::Mutex::default(),
            bearer: Mutex::default(),
            newest: Mutex::default(),
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        authorization: Option<HeaderValue>,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Reply, KmsError> {
        let mut headers = HeaderMap::new();
        if let Some(authorization) = authorization {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        let url = format!("{}/keys/{path}?api-version=7.4", self.endpoint);
        let ask = Ask {
            method,
            url,
            headers,
            body,
        };
        self.http.send(ask).await
    }

    /// The tokens that the vault wants: it is asked once, with nothing but the question.
    async fn bearer(&self, path: &str) -> Result<Arc<Bearer>, KmsError> {
        let known = || lock(&self.bearer).clone();
        if let Some(bearer) = known() {
            return Ok(bearer);
        }
        let _entering = self.entering.lock().await;
        if let Some(bearer) = known() {
            return Ok(bearer);
        }
        let nothing = Zeroizing::default();
        let reply = self.send(Method::POST, path, None, nothing).await?;
        if reply.status != StatusCode::UNAUTHORIZED {
            return Err(match reply.status.is_success() {
                true => reply.failure(Failure::Malformed, "a vault that asks for no token is none"),
                false => wire::refusal(&reply),
            });
        }
        let resource = wire::resource(&reply, &self.vault)?;
        let source = login::Tokens {
            http: self.login_http.clone(),
            login: self.login.clone(),
            resource,
        };
        let bearer = Bearer::new(Box::new(source), self.relogin_after);
        *lock(&self.bearer) = Some(Arc::clone(&bearer));
        Ok(bearer)
    }

    /// One call with the token at hand, and where that is refused, once more with a fresh one.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Reply, KmsError> {
        let bearer = self.bearer(path).await?;
        let token = bearer.current().await?;
        let again = body.clone();
        let send = |token, body| self.send(method.clone(), path, Some(token), body);
        let reply = send(token.header(), body).await?;
        if reply.status != StatusCode::UNAUTHORIZED {
            return Ok(reply);
        }
        match bearer.after_refusal(&token).await? {
            Some(fresh) => send(fresh.header(), again).await,
            None => Ok(reply),
        }
    }

    fn newest_of(&self, kek: &str) -> Newest {
        lock(&self.newest).get(kek).copied().unwrap_or_default()
    }

    fn note(&self, kek: &str, version: Option<Version>, again: Option<Duration>) {
        let mut newest = lock(&self.newest);
        let known = newest.entry(kek.to_owned()).or_default();
        known.version = version.or(known.version);
        if let Some(again) = again {
            known.until = Some(Instant::now() + again);
        }
    }

    /// Asks for the key's properties. Whether the key is there; None: it is not told.
    async fn look(&self, kek: &str) -> Option<bool> {
        let nothing = Zeroizing::default();
        let reply = self.call(Method::GET, kek, nothing).await.ok()?;
        match reply.status {
            StatusCode::OK => {
                let version = wire::newest(&reply, kek);
                self.note(kek, version, Some(self.look_again));
                Some(true)
            }
            StatusCode::NOT_FOUND => Some(false),
            StatusCode::FORBIDDEN => {
                self.note(kek, None, Some(UNTOLD_FOR));
                None
            }
            _ => None,
        }
    }

    async fn wrap_key(&self, kek: &str, dek: &[u8; 32]) -> Result<Vec<u8>, KmsError> {
        let body = wire::value(self.algorithm, dek);
        let path = format!("{kek}/wrapkey");
        let reply = self.call(Method::POST, &path, body).await?;
        let (version, value) = wire::wrapped(&reply, kek, self.algorithm)?;
        self.note(kek, Some(version), None);
        Ok([&version[..], &value].concat())
    }

    async fn unwrap_key(&self, kek: &str, blob: &[u8]) -> Result<Unwrapped, KmsError> {
        let malformed = || KmsError::new(Failure::Malformed, "this is no blob of Azure's");
        let (version, value) = blob.split_first_chunk().ok_or_else(malformed)?;
        if !self.algorithm.fits(value) {
            return Err(malformed());
        }
        let path = format!("{kek}/{}/unwrapkey", wire::hex(version));
        let body = wire::value(self.algorithm, value);
        let reply = self.call(Method::POST, &path, body).await?;
        if reply.status == StatusCode::NOT_FOUND {
            // The key, or that version of it: another key's blobs name others.
            return Err(match self.look(kek).await {
                Some(true) => {
                    let what = "the blob is under no version of this key";
                    reply.failure(Failure::Malformed, what)
                }
                _ => wire::refusal(&reply),
            });
        }
        let dek = wire::unwrapped(&reply, kek, version)?;
        let known = self.newest_of(kek).until;
        if known.is_none_or(|until| Instant::now() >= until) {
            let _ = timeout(LOOK_WITHIN, self.look(kek)).await;
        }
        let newest = self.newest_of(kek).version;
        Ok(Unwrapped {
            dek,
            superseded: newest.is_some_and(|newest| newest != *version),
        })
    }
}

impl Kms for Azure {
    fn name(&self) -> &str {
        &self.name
    }

    /// Azure takes two spellings of a key's name for one key.
    fn uri(&self, kek: &str) -> String {
        format!("azure-kv:{}/keys/{}", self.vault, kek.to_ascii_lowercase())
    }

    fn authenticates_context(&self) -> bool {
        false
    }

    fn anyone_may_wrap(&self, _: &str) -> bool {
        self.algorithm == Algorithm::RsaOaep256
    }

    fn version(&self, blob: &[u8]) -> Option<String> {
        let (version, _) = blob.split_first_chunk::<VERSION_LEN>()?;
        Some(wire::hex(version))
    }

    fn wrap<'a>(&'a self, kek: &'a str, dek: &'a [u8; 32], _: &'a Scope) -> Answer<'a, Vec<u8>> {
        Box::pin(self.wrap_key(kek, dek))
    }

    fn unwrap<'a>(&'a self, kek: &'a str, blob: &'a [u8], _: &'a Scope) -> Answer<'a, Unwrapped> {
        Box::pin(self.unwrap_key(kek, blob))
    }
}

impl fmt::Debug for Azure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Azure")
            .field("name", &self.name)
            .field("vault", &self.vault)
            .finish_non_exhaustive()
    }
}
