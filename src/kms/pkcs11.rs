//! An HSM behind PKCS #11: wrap is `CKM_AES_GCM` encryption under a key that never leaves the token, unwrap is decryption.
//!
//! Blob: `check value of the KEK (3 bytes) || IV (12 bytes) || ciphertext and tag`, with the context as associated data
//! (PKCS #11 v3.0, section 2.10.3). A KEK's name is the label of its AES keys; there may be several, which are its versions: the
//! one whose `CKA_ID` is the greatest wraps, and a blob's check value says which one unwraps.
//!
//! The library of the HSM runs in this process, and its calls block: each is made on a thread for blocking work, so many at a
//! time. A call that is given up goes on there, and keeps its turn to its end: an HSM that hangs takes these threads and no more.
//!
//! Never here: a key's bytes, a PIN that was refused once, a change of anything on the token.

mod module;
mod token;
mod verdict;

use super::secret::Secret;
use super::{Answer, Failure, Kms, KmsError, Random, Unwrapped, context_aad};
use crate::dek::Scope;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use token::Token;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Bytes of a check value, of an IV, and of a tag.
const CHECK_LEN: usize = 3;
const IV_LEN: usize = 12;
const TAG_LEN: usize = 16;
/// Bytes of every blob.
const BLOB_LEN: usize = CHECK_LEN + IV_LEN + 32 + TAG_LEN;
/// Between two times that a library which does not answer well is ended and begun anew.
pub const RESTART_AFTER: Duration = Duration::from_secs(10);

/// What a token is reached with.
pub struct Settings {
    /// What the settings call it; for logs and metrics.
    pub name: Arc<str>,
    /// The HSM's library, as its maker names it.
    pub library: PathBuf,
    /// The token's label.
    pub token: String,
    /// The user's PIN.
    pub pin: Secret,
    /// Calls at a time, each in a session of its own; at least one.
    pub sessions: usize,
    /// For the IVs.
    pub random: Random,
    /// [`RESTART_AFTER`], but in tests.
    pub restart_after: Duration,
}

/// A token of an HSM.
pub struct Pkcs11 {
    name: Arc<str>,
    label: String,
    token: Arc<Token>,
    turns: Arc<Semaphore>,
    random: Random,
}

/// A library that cannot be loaded, and why.
#[derive(Debug)]
pub struct BadLibrary(String);

impl fmt::Display for BadLibrary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadLibrary {}

impl Pkcs11 {
    /// Loads the library, and calls nothing of it yet.
    ///
    /// # Errors
    /// It cannot be loaded, or is no library of PKCS #11.
    pub fn new(settings: Settings) -> Result<Pkcs11, BadLibrary> {
        let module = module::load(&settings.library, settings.restart_after)?;
        let token = Token::new(module, settings.token.clone(), settings.pin);
        Ok(Pkcs11 {
            name: settings.name,
            label: settings.token,
            token: Arc::new(token),
            turns: Arc::new(Semaphore::new(settings.sessions.max(1))),
            random: settings.random,
        })
    }

    /// On a thread that may block, when it is this call's turn.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Token) -> Result<T, KmsError> + Send + 'static,
    ) -> Result<T, KmsError> {
        let cut_off = || KmsError::new(Failure::Unreachable, "the call was cut off");
        let turns = Arc::clone(&self.turns);
        let turn = turns.acquire_owned().await.map_err(|_| cut_off())?;
        let token = Arc::clone(&self.token);
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&token);
            drop(turn);
            done
        });
        done.await.map_err(|_| cut_off())?
    }

    async fn encrypt(&self, kek: &str, dek: &[u8; 32], scope: &Scope) -> Result<Vec<u8>, KmsError> {
        let aad = aad(scope)?;
        let mut iv = [0; IV_LEN];
        (self.random)(&mut iv).map_err(|error| {
            KmsError::new(Failure::Unreachable, format!("no randomness: {error}"))
        })?;
        let (kek, dek) = (kek.to_owned(), Zeroizing::new(*dek));
        self.blocking(move |token| token.encrypt(&kek, &dek, iv, &aad))
            .await
    }

    async fn decrypt(&self, kek: &str, blob: &[u8], scope: &Scope) -> Result<Unwrapped, KmsError> {
        let aad = aad(scope)?;
        if blob.len() != BLOB_LEN {
            let what = "this is no blob of an HSM's";
            return Err(KmsError::new(Failure::Malformed, what));
        }
        let (kek, blob) = (kek.to_owned(), blob.to_vec());
        self.blocking(move |token| token.decrypt(&kek, &blob, &aad))
            .await
    }
}

fn aad(scope: &Scope) -> Result<Vec<u8>, KmsError> {
    let long = || KmsError::new(Failure::Malformed, "the context has too long a name");
    context_aad(scope).ok_or_else(long)
}

/// Percent-encoded as in a PKCS #11 URI (RFC 7512 section 2.3): all but unreserved characters, so that there is one way to write it.
fn encoded(label: &str) -> String {
    let mut text = String::with_capacity(label.len());
    for byte in label.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

impl Kms for Pkcs11 {
    fn name(&self) -> &str {
        &self.name
    }

    fn uri(&self, kek: &str) -> String {
        format!(
            "pkcs11:token={};object={}",
            encoded(&self.label),
            encoded(kek)
        )
    }

    fn authenticates_context(&self) -> bool {
        true
    }

    fn version(&self, blob: &[u8]) -> Option<String> {
        let (check, _) = blob.split_first_chunk::<CHECK_LEN>()?;
        Some(token::hex(check))
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

impl fmt::Debug for Pkcs11 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pkcs11")
            .field("name", &self.name)
            .field("token", &self.label)
            .field("sessions", &self.token.sessions_kept())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(library: PathBuf) -> Settings {
        Settings {
            name: "hsm".into(),
            library,
            token: "a token".into(),
            pin: Secret::Given(Arc::new("1234".to_owned().into())),
            sessions: 1,
            random: crate::kms::os_random(),
            restart_after: RESTART_AFTER,
        }
    }

    #[test]
    fn what_is_no_library_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("text.so");
        std::fs::write(&text, "no library").unwrap();
        for library in [dir.path().join("none.so"), text] {
            let bad = Pkcs11::new(settings(library.clone())).unwrap_err();
            let shown = library.display().to_string();
            assert!(bad.to_string().contains(&shown), "{bad}");
            assert!(!bad.to_string().contains("1234"), "{bad}");
        }
    }

    #[test]
    fn labels_have_one_spelling() {
        assert_eq!(encoded("Cards-1._~"), "Cards-1._~");
        assert_eq!(
            encoded("a token;object=x%\u{e9}"),
            "a%20token%3Bobject%3Dx%25%C3%A9"
        );
    }
}
