//! Google Cloud KMS: wrap is `encrypt`, unwrap is `decrypt`, over its REST interface.
//!
//! Blob: the ciphertext of `encrypt`. The context goes along as `additionalAuthenticatedData`. A KEK's name is the resource name of a
//! symmetric CryptoKey, whose primary version wraps; which version a blob is under Google knows, and says whether it is the
//! primary one. What is sent and what is answered is checked by CRC32C on either side.
//!
//! Never here: Google's texts of errors (they are sorted by code and state, and not passed on), a second try other than the one
//! with a fresh token.

mod login;
mod wire;

use super::bearer::Bearer;
use super::http::{Ask, Http, Reply, Trust};
use super::{Answer, Failure, Kms, KmsError, Unwrapped, context_aad};
use crate::dek::Scope;
use crate::tls::BadRoots;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Google's own address.
pub const ENDPOINT: &str = "https://cloudkms.googleapis.com";
/// The metadata server of Google's machines and clusters, by its address: no name is looked up.
pub const METADATA: &str = "http://169.254.169.254";

/// How the agent is let in.
#[derive(Clone, Debug)]
pub enum Login {
    /// As the service account of the machine or pod: the metadata server at this address (`http://host[:port]`).
    Metadata(String),
    /// As this file says, which is read at every login: a service account's key, or the configuration of a workload identity.
    File(PathBuf),
}

/// What Google Cloud KMS is reached with.
pub struct Settings {
    /// What the settings call it; for logs and metrics.
    pub name: Arc<str>,
    /// [`ENDPOINT`], or instead of it: `https://host[:port]`.
    pub endpoint: String,
    /// TLS with the endpoint.
    pub trust: Trust,
    /// TLS with those who give out tokens.
    pub login_trust: Trust,
    /// How the agent is let in.
    pub login: Login,
    /// [`super::bearer::RELOGIN_AFTER`], but in tests.
    pub relogin_after: Duration,
}

/// Google Cloud KMS, in one account's name.
pub struct Gcp {
    name: Arc<str>,
    endpoint: String,
    http: Http,
    bearer: Arc<Bearer>,
}

impl Gcp {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// TLS has nothing to trust.
    pub fn new(settings: Settings) -> Result<Gcp, BadRoots> {
        let source = login::Accounts {
            http: Http::new(&settings.login_trust)?,
            login: settings.login,
        };
        Ok(Gcp {
            name: settings.name,
            endpoint: settings.endpoint,
            http: Http::new(&settings.trust)?,
            bearer: Bearer::new(Box::new(source), settings.relogin_after),
        })
    }

    async fn send(
        &self,
        url: String,
        authorization: HeaderValue,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Reply, KmsError> {
        let json = HeaderValue::from_static("application/json");
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, authorization);
        headers.insert(header::CONTENT_TYPE, json);
        let ask = Ask {
            method: Method::POST,
            url,
            headers,
            body,
        };
        self.http.send(ask).await
    }

    /// One call with the token at hand, and where that is refused, once more with a fresh one.
    async fn call(
        &self,
        kek: &str,
        verb: &str,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Reply, KmsError> {
        let url = format!("{}/v1/{kek}:{verb}", self.endpoint);
        let token = self.bearer.current().await?;
        let reply = self.send(url.clone(), token.header(), body.clone()).await?;
        if reply.status != StatusCode::UNAUTHORIZED {
            return Ok(reply);
        }
        match self.bearer.after_refusal(&token).await? {
            Some(fresh) => self.send(url, fresh.header(), body).await,
            None => Ok(reply),
        }
    }

    async fn encrypt(&self, kek: &str, dek: &[u8; 32], scope: &Scope) -> Result<Vec<u8>, KmsError> {
        let body = wire::Sent::Plaintext(dek).body(&aad(scope)?);
        let reply = self.call(kek, "encrypt", body).await?;
        wire::encrypted(&reply, kek)
    }

    async fn decrypt(&self, kek: &str, blob: &[u8], scope: &Scope) -> Result<Unwrapped, KmsError> {
        let body = wire::Sent::Ciphertext(blob).body(&aad(scope)?);
        let reply = self.call(kek, "decrypt", body).await?;
        wire::decrypted(&reply)
    }
}

fn aad(scope: &Scope) -> Result<Vec<u8>, KmsError> {
    let long = || KmsError::new(Failure::Malformed, "the context has too long a name");
    context_aad(scope).ok_or_else(long)
}

impl Kms for Gcp {
    fn name(&self) -> &str {
        &self.name
    }

    fn uri(&self, kek: &str) -> String {
        format!("gcp-kms:{kek}")
    }

    fn authenticates_context(&self) -> bool {
        true
    }

    fn wrap<'a>(
        &'a self,
        kek: &'a str,
        dek: &'a [u8; 32],
        scope: &'a Scope,
    ) -> Answer<'a, Vec<u8>> {
        Box::pin(self.encrypt(kek, dek, scope))
    }

    fn unwrap<'a>(
        &'a self,
        kek: &'a str,
        blob: &'a [u8],
        scope: &'a Scope,
    ) -> Answer<'a, Unwrapped> {
        Box::pin(self.decrypt(kek, blob, scope))
    }
}

impl fmt::Debug for Gcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gcp")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
