//! HashiCorp Vault's and OpenBao's transit engine: wrap is `encrypt`, unwrap is `decrypt`.
//!
//! Blob: `key version as u32be || the decoded base64 of "vault:vN:..."`. No context goes with it, so that the server's own
//! `rewrap` works; two key names therefore never share a key of it. Whether a blob's version is superseded is known from
//! the key's metadata where the policy lets it be read, otherwise from what `encrypt` last said.
//!
//! `encrypt` makes a key that is not there, for whoever may create one. That a key is missing is therefore asked first.
//!
//! Never here: the server's error texts (they are sorted by known phrases, and not passed on), a batch, a second try other
//! than the one with a fresh login.

mod login;
mod wire;

use super::http::{Ask, Http, Reply, Trust, secret};
use super::{Answer, Failure, Kms, KmsError, Unwrapped};
use crate::dek::Scope;
use crate::tls::BadRoots;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
pub use login::Login;
use login::Sessions;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

/// A token that is younger than this and refused was refused for good: no login mends it, and each would leave a token behind
/// at the server.
pub const RELOGIN_AFTER: Duration = Duration::from_secs(10);
/// How long a key's latest version, once read, is taken for the latest.
pub const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How long it is not asked for where it may not be read.
const UNTOLD_FOR: Duration = Duration::from_secs(600);
/// What an unwrap waits for the metadata at most: it is worth a rotation that is seen late.
const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// What a transit engine is reached with.
pub struct Settings {
    /// What the settings call it; for logs and metrics.
    pub name: Arc<str>,
    /// `https://host[:port]`.
    pub address: String,
    /// What its KEKs' URIs begin with, wherever it is.
    pub identity: String,
    /// Where the engine is mounted.
    pub mount: String,
    /// Sent with every request.
    pub namespace: Option<String>,
    /// TLS.
    pub trust: Trust,
    /// How the agent is let in.
    pub login: Login,
    /// [`RELOGIN_AFTER`], but in tests.
    pub relogin_after: Duration,
    /// [`LOOK_AGAIN`], but in tests.
    pub look_again: Duration,
}

/// A transit engine.
pub struct Transit {
    name: Arc<str>,
    identity: String,
    mount: String,
    server: Server,
    sessions: Arc<Sessions>,
    look_again: Duration,
    latest: Mutex<HashMap<String, Latest>>,
}

/// What is known of a key's latest version.
#[derive(Clone, Copy, Default)]
struct Latest {
    version: u32,
    /// No need to ask before.
    until: Option<Instant>,
}

/// The server, with what goes along with every request.
#[derive(Clone)]
struct Server {
    http: Http,
    address: String,
    namespace: Option<HeaderValue>,
}

impl Server {
    /// `path` is what stands behind `/v1/`.
    async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&HeaderValue>,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Reply, KmsError> {
        let mut headers = HeaderMap::new();
        // Refused by an agent's or a proxy's listener that wants it; ignored elsewhere.
        headers.insert(
            HeaderName::from_static("x-vault-request"),
            HeaderValue::from_static("true"),
        );
        if let Some(namespace) = &self.namespace {
            headers.insert(
                HeaderName::from_static("x-vault-namespace"),
                namespace.clone(),
            );
        }
        if let Some(token) = token {
            headers.insert(HeaderName::from_static("x-vault-token"), token.clone());
        }
        let url = format!("{}/v1/{path}", self.address);
        let ask = Ask {
            method,
            url,
            headers,
            body,
        };
        self.http.send(ask).await
    }
}

impl Transit {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// TLS has nothing to trust.
    pub fn new(settings: Settings) -> Result<Transit, BadRoots> {
        let server = Server {
            http: Http::new(&settings.trust)?,
            address: settings.address,
            namespace: settings.namespace.as_deref().and_then(secret),
        };
        let sessions = Sessions::new(server.clone(), settings.login, settings.relogin_after);
        Ok(Transit {
            name: settings.name,
            identity: settings.identity,
            mount: settings.mount,
            server,
            sessions,
            look_again: settings.look_again,
            latest: Mutex::default(),
        })
    }

    /// One call with the session at hand, and where that is refused, once more with a fresh one.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Reply, KmsError> {
        let session = self.sessions.current().await?;
        let again = body.clone();
        let send = |token, body| self.server.send(method.clone(), path, Some(token), body);
        let reply = send(session.token(), body).await?;
        if reply.status != StatusCode::FORBIDDEN {
            return Ok(reply);
        }
        match self.sessions.after_refusal(&session).await? {
            Some(fresh) => send(fresh.token(), again).await,
            None => Ok(reply),
        }
    }

    fn latest(&self) -> MutexGuard<'_, HashMap<String, Latest>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn latest_of(&self, kek: &str) -> Latest {
        self.latest().get(kek).copied().unwrap_or_default()
    }

    fn note(&self, kek: &str, version: u32, again: Option<Duration>) {
        let mut latest = self.latest();
        let known = latest.entry(kek.to_owned()).or_default();
        known.version = known.version.max(version);
        if let Some(again) = again {
            known.until = Some(Instant::now() + again);
        }
    }

    /// Asks for the key's metadata, unless that was done a moment ago. Err: the key is not there. What keeps it from being
    /// known otherwise is no failure: the call that it goes with will meet it.
    async fn look(&self, kek: &str) -> Result<(), KmsError> {
        let known = self.latest_of(kek);
        if known.until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        let Ok(session) = self.sessions.current().await else {
            return Ok(());
        };
        let path = format!("{}/keys/{kek}", self.mount);
        let token = Some(session.token());
        let body = Zeroizing::default();
        let Ok(reply) = self.server.send(Method::GET, &path, token, body).await else {
            return Ok(());
        };
        match reply.status {
            StatusCode::OK => {
                if let Some(version) = wire::latest_version(&reply.body) {
                    self.note(kek, version, Some(self.look_again));
                }
                Ok(())
            }
            StatusCode::NOT_FOUND => Err(reply.failure(Failure::NotFound, "there is no such key")),
            StatusCode::FORBIDDEN => {
                self.note(kek, 0, Some(UNTOLD_FOR));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn encrypt(&self, kek: &str, dek: &[u8; 32]) -> Result<Vec<u8>, KmsError> {
        self.look(kek).await?;
        let path = format!("{}/encrypt/{kek}", self.mount);
        let reply = self.call(Method::POST, &path, wire::plaintext(dek)).await?;
        let (version, blob) = wire::encrypted(&reply)?;
        self.note(kek, version, None);
        Ok(blob)
    }

    async fn decrypt(&self, kek: &str, blob: &[u8]) -> Result<Unwrapped, KmsError> {
        let (version, body) = wire::ciphertext(blob)?;
        let path = format!("{}/decrypt/{kek}", self.mount);
        // One login for both.
        self.sessions.current().await?;
        let (reply, _) = tokio::join!(
            self.call(Method::POST, &path, body),
            timeout(LOOK_WITHIN, self.look(kek)),
        );
        let dek = wire::decrypted(&reply?)?;
        Ok(Unwrapped {
            dek,
            superseded: version < self.latest_of(kek).version,
        })
    }
}

impl Kms for Transit {
    fn name(&self) -> &str {
        &self.name
    }

    fn uri(&self, kek: &str) -> String {
        format!("transit:{}/{kek}", self.identity)
    }

    fn authenticates_context(&self) -> bool {
        false
    }

    fn version(&self, blob: &[u8]) -> Option<String> {
        super::leading_version(blob)
    }

    fn wrap<'a>(&'a self, kek: &'a str, dek: &'a [u8; 32], _: &'a Scope) -> Answer<'a, Vec<u8>> {
        Box::pin(self.encrypt(kek, dek))
    }

    fn unwrap<'a>(&'a self, kek: &'a str, blob: &'a [u8], _: &'a Scope) -> Answer<'a, Unwrapped> {
        Box::pin(self.decrypt(kek, blob))
    }
}

impl fmt::Debug for Transit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transit")
            .field("name", &self.name)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
