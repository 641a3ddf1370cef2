//! AWS KMS: wrap is `Encrypt`, unwrap is `Decrypt`, which always names the key.
//!
//! Blob: the `CiphertextBlob`. The context goes along as the encryption context `fieldveil:key` and, when there is one,
//! `fieldveil:tenant`: policies can ask for it, and CloudTrail shows it. A KEK's name is its key's ARN, and the ARN's region
//! is where it is asked for. Rotation happens inside of AWS and does not show in a blob: no blob is ever superseded.
//!
//! The SDK signs, and finds credentials by its own chain; it carries nothing itself (`connector`), retries nothing and keeps
//! no time. Its texts of errors are not passed on.

mod connector;

use super::http::{Http, Trust};
use super::{Answer, Failure, Kms, KmsError, Unwrapped};
use crate::dek::Scope;
use crate::tls::BadRoots;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{Builder, StalledStreamProtectionConfig};
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use connector::Connector;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// Credentials that are younger than this and refused were refused for good.
pub const RELOGIN_AFTER: Duration = Duration::from_secs(10);

/// What AWS KMS is reached with.
pub struct Settings {
    /// What the settings call it; for logs and metrics.
    pub name: Arc<str>,
    /// Where credentials are asked for; `None`: as the environment says.
    pub region: Option<String>,
    /// Instead of AWS's own addresses: `https://host[:port]`.
    pub endpoint: Option<String>,
    /// Access key id and secret access key; `None`: AWS's own chain, which is what the settings have.
    pub credentials: Option<(String, String)>,
    /// TLS.
    pub trust: Trust,
    /// [`RELOGIN_AFTER`], but in tests.
    pub relogin_after: Duration,
}

/// AWS KMS, in one account's name.
pub struct Aws {
    name: Arc<str>,
    region: Option<String>,
    endpoint: Option<String>,
    credentials: Option<(String, String)>,
    http: Http,
    relogin_after: Duration,
    /// Held while the chain of credentials is built.
    entering: tokio::sync::Mutex<()>,
    session: Mutex<Option<Arc<Session>>>,
}

/// The chain of credentials as it was built, and a client for each region.
struct Session {
    config: SdkConfig,
    since: Instant,
    clients: Mutex<HashMap<String, Client>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    fn client(&self, region: &str) -> Client {
        let mut clients = lock(&self.clients);
        let made = || {
            let region = Region::new(region.to_owned());
            let config = Builder::from(&self.config).region(region).build();
            Client::from_conf(config)
        };
        clients
            .entry(region.to_owned())
            .or_insert_with(made)
            .clone()
    }
}

/// What a call came to, before it is known whether fresh credentials would help.
enum Failed {
    /// The credentials are no good, or none any more.
    Credentials(KmsError),
    For(KmsError),
}

impl Failed {
    fn error(self) -> KmsError {
        match self {
            Failed::Credentials(error) | Failed::For(error) => error,
        }
    }
}

impl Aws {
    /// Connects to nothing yet, and asks for no credentials.
    ///
    /// # Errors
    /// TLS has nothing to trust.
    pub fn new(settings: Settings) -> Result<Aws, BadRoots> {
        Ok(Aws {
            name: settings.name,
            region: settings.region,
            endpoint: settings.endpoint,
            credentials: settings.credentials,
            http: Http::new(&settings.trust)?,
            relogin_after: settings.relogin_after,
            entering: tokio::sync::Mutex::default(),
            session: Mutex::default(),
        })
    }

    fn in_force(&self) -> Option<Arc<Session>> {
        lock(&self.session).clone()
    }

    async fn current(&self) -> Arc<Session> {
        if let Some(session) = self.in_force() {
            return session;
        }
        let _entering = self.entering.lock().await;
        match self.in_force() {
            Some(session) => session,
            None => self.enter().await,
        }
    }

    /// Builds the chain of credentials anew; under `entering`.
    async fn enter(&self) -> Arc<Session> {
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(Connector::new(self.http.clone()))
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some((id, secret)) = &self.credentials {
            loader = loader.credentials_provider(Credentials::new(id, secret, None, None, "given"));
        }
        let mut config = loader.load().await;
        if let Some(endpoint) = &self.endpoint {
            // Of the KMS alone: credentials come from where they always do.
            config = config.into_builder().endpoint_url(endpoint).build();
        }
        let session = Arc::new(Session {
            config,
            since: Instant::now(),
            clients: Mutex::default(),
        });
        *lock(&self.session) = Some(Arc::clone(&session));
        session
    }

    /// A session to try once more with, when the credentials of one were refused. None: the no is final.
    async fn after_refusal(&self, refused: &Arc<Session>) -> Option<Arc<Session>> {
        let _entering = self.entering.lock().await;
        match self.in_force() {
            Some(session) if !Arc::ptr_eq(&session, refused) => Some(session),
            _ if refused.since.elapsed() < self.relogin_after => None,
            _ => Some(self.enter().await),
        }
    }

    async fn twice<T, F>(&self, kek: &str, call: impl Fn(Client) -> F) -> Result<T, KmsError>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let region = kek.split(':').nth(3).filter(|region| !region.is_empty());
        let region = region.ok_or_else(|| KmsError::new(Failure::NotFound, "no key's ARN"))?;
        let session = self.current().await;
        match call(session.client(region)).await {
            Err(Failed::Credentials(error)) => match self.after_refusal(&session).await {
                Some(fresh) => call(fresh.client(region)).await.map_err(Failed::error),
                None => Err(error),
            },
            done => done.map_err(Failed::error),
        }
    }

    async fn encrypt(&self, kek: &str, dek: &[u8; 32], scope: &Scope) -> Result<Vec<u8>, KmsError> {
        self.twice(kek, |client| async move {
            let asked = client
                .encrypt()
                .key_id(kek)
                .plaintext(Blob::new(dek.to_vec()))
                .set_encryption_context(Some(context(scope)))
                .send()
                .await;
            let answer = asked.map_err(|error| classify(&error))?;
            same_key(kek, answer.key_id())?;
            let blob = answer.ciphertext_blob.ok_or_else(not_understood)?;
            Ok(blob.into_inner())
        })
        .await
    }

    async fn decrypt(&self, kek: &str, blob: &[u8], scope: &Scope) -> Result<Unwrapped, KmsError> {
        self.twice(kek, |client| async move {
            let asked = client
                .decrypt()
                .key_id(kek)
                .ciphertext_blob(Blob::new(blob))
                .set_encryption_context(Some(context(scope)))
                .send()
                .await;
            let answer = asked.map_err(|error| classify(&error))?;
            let key_id = answer.key_id.clone();
            let plaintext = answer.plaintext.ok_or_else(not_understood)?;
            let dek = Zeroizing::new(plaintext.into_inner());
            same_key(kek, key_id.as_deref())?;
            Ok(Unwrapped {
                dek,
                superseded: false,
            })
        })
        .await
    }
}

fn context(scope: &Scope) -> HashMap<String, String> {
    let key = Some(("fieldveil:key", &scope.key));
    let tenant = scope
        .tenant
        .as_ref()
        .map(|tenant| ("fieldveil:tenant", tenant));
    key.into_iter()
        .chain(tenant)
        .map(|(name, value)| (name.to_owned(), value.to_string()))
        .collect()
}

fn not_understood() -> Failed {
    Failed::For(KmsError::new(
        Failure::Malformed,
        "the answer cannot be understood",
    ))
}

/// An answer in another key's name is none to this question.
fn same_key(kek: &str, answered: Option<&str>) -> Result<(), Failed> {
    match answered {
        Some(key) if key == kek => Ok(()),
        _ => Err(Failed::For(KmsError::new(
            Failure::Malformed,
            "the answer is another key's",
        ))),
    }
}

/// What AWS's codes mean. The third column: fresh credentials may mend it.
const CODES: &[(&str, Failure, bool)] = &[
    ("AccessDeniedException", Failure::Denied, false),
    ("AccessDenied", Failure::Denied, false),
    ("OptInRequired", Failure::Denied, false),
    ("ExpiredTokenException", Failure::Denied, true),
    ("ExpiredToken", Failure::Denied, true),
    ("UnrecognizedClientException", Failure::Denied, true),
    ("InvalidClientTokenId", Failure::Denied, true),
    ("InvalidSignatureException", Failure::Denied, true),
    ("SignatureDoesNotMatch", Failure::Denied, true),
    ("IncompleteSignatureException", Failure::Denied, true),
    ("IncompleteSignature", Failure::Denied, true),
    ("MissingAuthenticationTokenException", Failure::Denied, true),
    ("MissingAuthenticationToken", Failure::Denied, true),
    ("DisabledException", Failure::Disabled, false),
    ("NotFoundException", Failure::NotFound, false),
    ("InvalidArnException", Failure::NotFound, false),
    ("InvalidCiphertextException", Failure::Malformed, false),
    ("IncorrectKeyException", Failure::Malformed, false),
    ("InvalidKeyUsageException", Failure::Malformed, false),
    ("InvalidGrantTokenException", Failure::Malformed, false),
    ("ValidationException", Failure::Malformed, false),
    ("SerializationException", Failure::Malformed, false),
    ("ThrottlingException", Failure::Unreachable, false),
    ("TooManyRequestsException", Failure::Unreachable, false),
    ("RequestLimitExceeded", Failure::Unreachable, false),
    ("LimitExceededException", Failure::Unreachable, false),
    ("KMSInternalException", Failure::Unreachable, false),
    ("DependencyTimeoutException", Failure::Unreachable, false),
    ("KeyUnavailableException", Failure::Unreachable, false),
    (
        "CloudHsmClusterInvalidConfigurationException",
        Failure::Unreachable,
        false,
    ),
    ("RequestExpired", Failure::Unreachable, false),
];

/// A key in a state that does not allow it: AWS says in words which.
fn of_state(message: &str) -> Failure {
    let message = message.to_ascii_lowercase();
    if message.contains("pending deletion") || message.contains("pendingdeletion") {
        Failure::Destroyed
    } else if message.contains("pending import")
        || message.contains("pendingimport")
        || message.contains("disabled")
    {
        // Key material that was imported, and expired or was removed, can be imported again.
        Failure::Disabled
    } else {
        Failure::Unreachable
    }
}

fn classify<E>(error: &SdkError<E, HttpResponse>) -> Failed
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let (status, retry_after) = match error.raw_response() {
        Some(raw) => {
            let seconds = raw
                .headers()
                .get("retry-after")
                .and_then(|text| text.parse().ok());
            (raw.status().as_u16(), seconds.map(Duration::from_secs))
        }
        None => (0, None),
    };
    match error {
        SdkError::ServiceError(_) => {
            let code = error.code().unwrap_or_default();
            let (failure, credentials) = sort(code, error.message().unwrap_or_default(), status);
            let code = if code.is_empty() { "no code" } else { code };
            let unreachable = failure == Failure::Unreachable;
            let error = KmsError {
                retry_after: retry_after.filter(|_| unreachable),
                ..KmsError::new(failure, format!("{status}: {}", plain(code)))
            };
            if credentials {
                Failed::Credentials(error)
            } else {
                Failed::For(error)
            }
        }
        // An answer that is no answer.
        SdkError::ResponseError(_) if status < 500 => Failed::For(KmsError::new(
            Failure::Malformed,
            format!("{status}: the answer cannot be understood"),
        )),
        other => Failed::For(connector::failure(other)),
    }
}

fn sort(code: &str, message: &str, status: u16) -> (Failure, bool) {
    if matches!(code, "KMSInvalidStateException" | "InvalidStateException") {
        return (of_state(message), false);
    }
    if let Some((_, failure, credentials)) = CODES.iter().find(|(known, ..)| *known == code) {
        return (*failure, *credentials);
    }
    let failure = match status {
        401 | 403 => Failure::Denied,
        429 | 500..=599 => Failure::Unreachable,
        _ => Failure::Malformed,
    };
    (failure, false)
}

/// A code as it may stand in a log, whoever sent it.
fn plain(code: &str) -> &str {
    let fits = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if fits || code == "no code" {
        code
    } else {
        "an unknown code"
    }
}

impl Kms for Aws {
    fn name(&self) -> &str {
        &self.name
    }

    fn uri(&self, kek: &str) -> String {
        format!("aws-kms:{kek}")
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

impl fmt::Debug for Aws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aws")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
