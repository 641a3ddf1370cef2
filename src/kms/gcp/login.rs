//! Whose account it is: tokens from the metadata server, for a service account's key, or in exchange for somebody else's token.

use super::Login;
use crate::kms::bearer::{Granted, Source, granted, refusal};
use crate::kms::http::{Ask, FORM, Http, Reply, form};
use crate::kms::secret::{Secret, document};
use crate::kms::{Answer, Failure, KmsError};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// What a token may be used for: the KMS alone.
const SCOPE: &str = "https://www.googleapis.com/auth/cloudkms";
/// Where a scope is that the token service of a workload identity takes.
const STS_SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// Seconds that a signed request for a token is good, and a token of an impersonated account lives.
const HOUR: u64 = 3600;
/// Says that it is the metadata server which is asked, and which answers.
const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");
const GOOGLE: HeaderValue = HeaderValue::from_static("Google");

pub struct Accounts {
    pub http: Http,
    pub login: Login,
}

/// A file of credentials, as Google's tools write them.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Credentials {
    ServiceAccount(Account),
    ExternalAccount(Box<External>),
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Account {
    client_email: String,
    private_key: Zeroizing<String>,
    #[serde(default)]
    private_key_id: String,
    token_uri: String,
}

#[derive(Deserialize)]
struct External {
    audience: String,
    subject_token_type: String,
    token_url: String,
    service_account_impersonation_url: Option<String>,
    credential_source: CredentialSource,
}

#[derive(Deserialize)]
struct CredentialSource {
    /// The only kind of source that is read; others lead to addresses and programs.
    file: Option<PathBuf>,
    #[serde(default)]
    format: Format,
}

#[derive(Default, Deserialize)]
struct Format {
    #[serde(default, rename = "type")]
    kind: String,
    subject_token_field_name: Option<String>,
}

/// Nothing that waiting mends, and nobody's no.
fn bad_file(path: &Path, what: &str) -> KmsError {
    KmsError::new(Failure::Unreachable, format!("{}: {what}", path.display()))
}

impl Source for Accounts {
    fn fetch(&self) -> Answer<'_, Granted> {
        Box::pin(async {
            match &self.login {
                Login::Metadata(address) => self.of_the_machine(address).await,
                Login::File(path) => self.of_a_file(path).await,
            }
        })
    }
}

impl Accounts {
    async fn of_the_machine(&self, address: &str) -> Result<Granted, KmsError> {
        let path = "computeMetadata/v1/instance/service-accounts/default/token";
        let ask = Ask {
            method: Method::GET,
            url: format!("{address}/{path}"),
            headers: HeaderMap::from_iter([(FLAVOR, GOOGLE)]),
            body: Zeroizing::default(),
        };
        let reply = self.http.send(ask).await?;
        if reply.headers.get(FLAVOR) != Some(&GOOGLE) && reply.status.is_success() {
            let what = "it is not Google's metadata server that answers";
            return Err(reply.failure(Failure::Malformed, what));
        }
        granted(&reply)
    }

    async fn of_a_file(&self, path: &Path) -> Result<Granted, KmsError> {
        let bytes = document(path).await?;
        let credentials: Credentials = serde_json::from_slice(&bytes)
            .map_err(|_| bad_file(path, "is no file of Google's credentials"))?;
        match credentials {
            Credentials::ServiceAccount(account) => self.of_an_account(path, &account).await,
            Credentials::ExternalAccount(external) => self.of_a_workload(path, &external).await,
            Credentials::Other => Err(bad_file(
                path,
                "is neither of type service_account nor of external_account",
            )),
        }
    }

    async fn post(
        &self,
        path: &Path,
        url: &str,
        headers: HeaderMap,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Reply, KmsError> {
        if !is_private(url) {
            return Err(bad_file(path, "names an address that is not https://"));
        }
        let ask = Ask {
            method: Method::POST,
            url: url.to_owned(),
            headers,
            body,
        };
        self.http.send(ask).await
    }

    /// RFC 7523 section 2.1.
    async fn of_an_account(&self, path: &Path, account: &Account) -> Result<Granted, KmsError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_err(|_| bad_file(path, "the clock is before 1970"))?;
        let assertion = assertion(account, now.as_secs())
            .ok_or_else(|| bad_file(path, "holds no RSA key that can sign"))?;
        let body = form(&[
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", &assertion),
        ]);
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, FORM)]);
        let reply = self.post(path, &account.token_uri, headers, body).await?;
        granted(&reply)
    }

    /// RFC 8693 section 2.1, and then as the account that it may act for.
    async fn of_a_workload(&self, path: &Path, external: &External) -> Result<Granted, KmsError> {
        let Some(file) = &external.credential_source.file else {
            return Err(bad_file(
                path,
                "has a credential_source other than a file, which is not built in",
            ));
        };
        let subject = subject(file, &external.credential_source.format).await?;
        let body = form(&[
            (
                "grant_type",
                "urn:ietf:params:oauth:grant-type:token-exchange",
            ),
            ("audience", &external.audience),
            ("scope", STS_SCOPE),
            (
                "requested_token_type",
                "urn:ietf:params:oauth:token-type:access_token",
            ),
            ("subject_token_type", &external.subject_token_type),
            ("subject_token", &subject),
        ]);
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, FORM)]);
        let reply = self.post(path, &external.token_url, headers, body).await?;
        let own = granted(&reply)?;
        match &external.service_account_impersonation_url {
            Some(url) => self.impersonated(path, url, &own).await,
            None => Ok(own),
        }
    }

    async fn impersonated(
        &self,
        path: &Path,
        url: &str,
        own: &Granted,
    ) -> Result<Granted, KmsError> {
        let authorization = Zeroizing::new(format!("Bearer {}", *own.token));
        let authorization = crate::kms::http::secret(&authorization);
        let authorization = authorization
            .ok_or_else(|| KmsError::new(Failure::Malformed, "the token is no header's value"))?;
        let json = HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter([
            (header::AUTHORIZATION, authorization),
            (header::CONTENT_TYPE, json),
        ]);
        let body = format!(r#"{{"scope":["{SCOPE}"],"lifetime":"{HOUR}s"}}"#);
        let body = Zeroizing::new(body.into_bytes());
        let reply = self.post(path, url, headers, body).await?;
        if reply.status.as_u16() != 200 {
            return Err(refusal(&reply, None));
        }
        #[derive(Deserialize)]
        struct Answered {
            #[serde(rename = "accessToken")]
            access_token: Zeroizing<String>,
        }
        let answered: Answered = serde_json::from_slice(&reply.body)
            .map_err(|_| reply.failure(Failure::Malformed, "the answer is no token"))?;
        Ok(Granted {
            token: answered.access_token,
            lives: Duration::from_secs(HOUR),
        })
    }
}

/// Over TLS, or not over a network at all.
fn is_private(url: &str) -> bool {
    let Ok(url) = url.parse::<http::Uri>() else {
        return false;
    };
    let names_a_user = url
        .authority()
        .is_some_and(|all| all.as_str().contains('@'));
    match (url.scheme_str(), url.host()) {
        (Some("https"), Some(_)) => !names_a_user,
        (Some("http"), Some("127.0.0.1" | "[::1]")) => !names_a_user,
        _ => false,
    }
}

/// Whoever the workload is elsewhere: a token in a file, or in a member of a document.
async fn subject(file: &Path, format: &Format) -> Result<Zeroizing<String>, KmsError> {
    if format.kind != "json" {
        return Secret::File(file.to_owned()).read().await;
    }
    let bytes = document(file).await?;
    let bad = || bad_file(file, "has no token where the configuration says");
    let field = format.subject_token_field_name.as_deref().ok_or_else(bad)?;
    let mut all: std::collections::HashMap<&str, serde_json::Value> =
        serde_json::from_slice(&bytes).map_err(|_| bad())?;
    match all.remove(field) {
        Some(serde_json::Value::String(token)) => Ok(Zeroizing::new(token)),
        _ => Err(bad()),
    }
}

/// A signed request for a token: `base64url(header).base64url(claims).base64url(RS256)` (RFC 7515). None: the key cannot sign.
fn assertion(account: &Account, now: u64) -> Option<Zeroizing<String>> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let header = format!(
        r#"{{"alg":"RS256","typ":"JWT","kid":{}}}"#,
        quoted(&account.private_key_id)
    );
    let claims = format!(
        r#"{{"iss":{},"scope":"{SCOPE}","aud":{},"iat":{now},"exp":{}}}"#,
        quoted(&account.client_email),
        quoted(&account.token_uri),
        now + HOUR
    );
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let key = PrivatePkcs8KeyDer::from_pem_slice(account.private_key.as_bytes()).ok()?;
    let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).ok()?;
    let mut signature = vec![0; key.public_modulus_len()];
    let random = SystemRandom::new();
    key.sign(
        &RSA_PKCS1_SHA256,
        &random,
        signed.as_bytes(),
        &mut signature,
    )
    .ok()?;
    let signature = URL_SAFE_NO_PAD.encode(signature);
    Some(Zeroizing::new(format!("{signed}.{signature}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_asked_for_in_private_alone() {
        for good in ["https://oauth2.example/token", "http://127.0.0.1:1/token"] {
            assert!(is_private(good), "{good}");
        }
        for bad in [
            "http://oauth2.example/token",
            "http://127.0.0.1.example/",
            "http://127.0.0.1@example/",
            "http://127.0.0.1:1@example/",
            "ftp://x",
            "",
        ] {
            assert!(!is_private(bad), "{bad}");
        }
    }

    #[test]
    fn a_key_that_cannot_sign() {
        let account = |key: &str| Account {
            client_email: "a@b".into(),
            private_key: Zeroizing::new(key.to_owned()),
            private_key_id: String::new(),
            token_uri: "https://x".into(),
        };
        for key in [
            "",
            "hunter2",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            assert!(assertion(&account(key), 0).is_none());
        }
    }
}
