//! The KMS as the key room sees it: two verbs, and answers sorted by what they oblige the caller to.
//!
//! A provider wraps a DEK under a KEK that never leaves the KMS, and unwraps it again. It keeps no
//! DEK, has no policy, retries nothing and sets no deadline: those are the key room's. What it
//! reports in an error is for the log, and holds no key and no blob.

#[cfg(feature = "aws")]
pub mod aws;
pub mod azure;
pub mod bearer;
pub mod fake;
pub mod gcp;
pub mod http;
pub mod keyring;
#[cfg(feature = "pkcs11")]
pub mod pkcs11;
pub mod secret;
pub mod transit;

use crate::dek::Scope;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// What a provider's verb returns; boxed, so that providers can stand behind one pointer.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, KmsError>> + Send + 'a>>;

/// Fills a buffer with unpredictable bytes. An argument wherever randomness is needed.
pub type Random = Arc<dyn Fn(&mut [u8]) -> io::Result<()> + Send + Sync>;

/// The operating system's generator.
pub fn os_random() -> Random {
    Arc::new(crate::entropy::system)
}

/// An upstream that keeps KEKs.
///
/// A future that is dropped must leave nothing half done: deadlines are kept by dropping it.
pub trait Kms: Send + Sync {
    /// What the settings call it; for logs and metrics.
    fn name(&self) -> &str;

    /// The KEK's identity (TOKEN.md, "Wrapped-DEK record"): apart from the address where it is reached, and without
    /// a version.
    fn uri(&self, kek: &str) -> String;

    /// Whether the KMS itself refuses a blob under another key name or tenant. Where it does not, two
    /// key names must not share a KEK.
    fn authenticates_context(&self) -> bool;

    /// Whether anyone may wrap under this KEK, as under the public half of an RSA key: then nothing that was wrapped under it
    /// says who made it.
    fn anyone_may_wrap(&self, kek: &str) -> bool {
        let _ = kek;
        false
    }

    /// The KEK's version that a blob is under, for people; `None` where a blob does not tell.
    fn version(&self, blob: &[u8]) -> Option<String> {
        let _ = blob;
        None
    }

    /// Wraps a DEK under the current version of `kek` in the context `scope`. The blob is 1 to 2,048 bytes.
    fn wrap<'a>(&'a self, kek: &'a str, dek: &'a [u8; 32], scope: &'a Scope)
    -> Answer<'a, Vec<u8>>;

    /// Unwraps a blob that `kek` made in the context `scope`.
    fn unwrap<'a>(
        &'a self,
        kek: &'a str,
        blob: &'a [u8],
        scope: &'a Scope,
    ) -> Answer<'a, Unwrapped>;
}

/// The version of a blob that begins with it as u32be.
pub(crate) fn leading_version(blob: &[u8]) -> Option<String> {
    let (version, _) = blob.split_first_chunk()?;
    Some(u32::from_be_bytes(*version).to_string())
}

/// What a KMS gave back. Whether it is a DEK at all (32 bytes, the right kid) is for the caller to check.
pub struct Unwrapped {
    /// The plaintext, wiped when dropped.
    pub dek: Zeroizing<Vec<u8>>,
    /// The blob is under a version of the KEK that is no longer the current one. False where the KMS
    /// does not tell.
    pub superseded: bool,
}

impl fmt::Debug for Unwrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unwrapped(.., superseded: {})", self.superseded)
    }
}

/// What kind of no, and what it obliges the caller to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Failure {
    /// No answer: connection, timeout, throttling, a fault of the server's. What is cached may be used
    /// to the end of lease and grace; then fail closed. May be tried again.
    Unreachable,
    /// This agent may not (after one fresh login). Purge the DEK at once, fail closed, never fall
    /// through to another KEK.
    Denied,
    /// The KEK is switched off. As `Denied`.
    Disabled,
    /// The KEK, or the version that the blob needs, is destroyed or about to be. As `Denied`.
    Destroyed,
    /// The KMS does not know the KEK. Refuse; a cached DEK that was asked for again is purged.
    NotFound,
    /// The blob is none of this KEK and context, or the answer cannot be understood. Refuse; a lease is not
    /// extended by it, and gets no grace.
    Malformed,
}

impl Failure {
    /// Denied, disabled or destroyed: the KMS knows what it is asked, and says no.
    pub fn is_no(self) -> bool {
        matches!(
            self,
            Failure::Denied | Failure::Disabled | Failure::Destroyed
        )
    }

    /// Stable; for metrics, logs and records.
    pub fn word(self) -> &'static str {
        match self {
            Failure::Unreachable => "unreachable",
            Failure::Denied => "denied",
            Failure::Disabled => "disabled",
            Failure::Destroyed => "destroyed",
            Failure::NotFound => "not-found",
            Failure::Malformed => "malformed",
        }
    }
}

/// A classified failure of one call.
#[derive(Clone, Debug)]
pub struct KmsError {
    /// What it obliges the caller to.
    pub failure: Failure,
    /// With `Unreachable`: how long the KMS asked to be left alone.
    pub retry_after: Option<Duration>,
    /// For the log: what happened, in a few words; no key, no blob.
    pub detail: String,
}

impl KmsError {
    /// `detail`: a few words for the log; no key, no blob. Without a time to come back.
    pub fn new(failure: Failure, detail: impl Into<String>) -> KmsError {
        KmsError {
            failure,
            retry_after: None,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for KmsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.failure.word(), self.detail)
    }
}

impl std::error::Error for KmsError {}

/// The context of a scope as associated data: `"fieldveil/v1" || entry*`, entries `key` and, when there is
/// one, `tenant`; `entry = u16be(len(name)) || name || u16be(len(value)) || value` (TOKEN.md). None: a
/// name is over 65,535 bytes.
pub fn context_aad(scope: &Scope) -> Option<Vec<u8>> {
    let mut aad = b"fieldveil/v1".to_vec();
    let key = Some(("key", &scope.key));
    let tenant = scope.tenant.as_ref().map(|tenant| ("tenant", tenant));
    for (name, value) in key.into_iter().chain(tenant) {
        for text in [name, value] {
            aad.extend(u16::try_from(text.len()).ok()?.to_be_bytes());
            aad.extend(text.as_bytes());
        }
    }
    Some(aad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_is_entries_in_order() {
        let mut scope = Scope {
            key: "cards".into(),
            tenant: None,
        };
        assert_eq!(
            context_aad(&scope).unwrap(),
            b"fieldveil/v1\0\x03key\0\x05cards"
        );
        scope.tenant = Some("acme".into());
        assert_eq!(
            context_aad(&scope).unwrap(),
            b"fieldveil/v1\0\x03key\0\x05cards\0\x06tenant\0\x04acme"
        );
        scope.tenant = Some("".into());
        assert_eq!(
            context_aad(&scope).unwrap(),
            b"fieldveil/v1\0\x03key\0\x05cards\0\x06tenant\0\0",
            "an empty tenant is not the same as none"
        );
        scope.tenant = Some("x".repeat(65_536).into());
        assert_eq!(context_aad(&scope), None);
    }

    #[test]
    fn the_systems_generator_fills() {
        let mut bytes = [0; 64];
        os_random()(&mut bytes).unwrap();
        assert_ne!(bytes, [0; 64]);
    }
}
