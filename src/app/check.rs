//! A round trip with every KEK that the settings name: what `fieldveil kms check` tells. It wraps random bytes that protect
//! nothing, and seals nothing.

use super::StartError;
use super::providers::{Building, keks};
use crate::arena::Arena;
use crate::dek::Scope;
use crate::kms::{Failure, Kms, KmsError, os_random};
use crate::settings::{self, Key, Settings};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

/// For one call.
const DEADLINE: Duration = Duration::from_secs(10);

/// How it went with one KEK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// As the settings call it.
    pub kms: Arc<str>,
    /// Its type.
    pub provider: &'static str,
    /// The KEK's name there; empty where no key names one of this KMS.
    pub kek: String,
    /// Its identity, where the KMS could be opened.
    pub uri: Option<String>,
    /// The key whose KEK it is, and whether it seals with it.
    pub key: Option<(Arc<str>, bool)>,
    /// What came of it.
    pub outcome: Outcome,
}

impl Checked {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let (failure, verb) = match &self.outcome {
            Outcome::Failed { failure, verb, .. } => (*failure, *verb),
            Outcome::Settings(_, hint) => return hint.clone(),
            Outcome::Well { .. } | Outcome::Unused => return None,
        };
        let seals = self.key.as_ref().is_some_and(|(_, seals)| *seals);
        let hint = match (failure, self.provider) {
            (Failure::Denied, _) if verb == "wrap" && !seals => {
                "the key only opens with this KEK, for which the right to unwrap is enough; that cannot be tried without wrapping"
            }
            (Failure::Unreachable, "transit") => {
                "is the server up and unsealed, the address right, and its certificate one that tls.ca vouches for?"
            }
            (Failure::Unreachable, "aws") => {
                "are there credentials (AWS_ACCESS_KEY_ID, a profile, a web identity, a metadata service), and a way to the key's region?"
            }
            (Failure::Unreachable, "gcp") => {
                "is there a way to cloudkms.googleapis.com (or the endpoint), and to whom tokens come from: the metadata server, or as credentials_file says?"
            }
            (Failure::Unreachable, "azure") => {
                "is there a way to the vault, and to whom tokens come from: the metadata service (169.254.169.254), or login.microsoftonline.com?"
            }
            (Failure::Unreachable, "pkcs11") => {
                "is there a token of this label (pkcs11-tool --list-slots), the PIN's file readable, and the HSM up?"
            }
            (Failure::Unreachable, _) => "can the keyring's file be read?",
            (Failure::Denied, "transit") => {
                "does the login work, and does its policy have update on encrypt/KEY and decrypt/KEY? See docs/kms.md"
            }
            (Failure::Denied, "aws") => {
                "does the role have kms:Encrypt and kms:Decrypt on this key, for this encryption context? See docs/kms.md"
            }
            (Failure::Denied, "gcp") => {
                "has the account roles/cloudkms.cryptoKeyEncrypterDecrypter on this key, and is the API enabled? Google also says so of keys that are not there. See docs/kms.md"
            }
            (Failure::Denied, "azure") => {
                "has the identity wrapKey and unwrapKey on this key (Key Vault Crypto Service Encryption User), is it of the vault's tenant, and does the vault's firewall let it in? See docs/kms.md"
            }
            (Failure::Denied, "pkcs11") => {
                "is the PIN the user's, and the token not locked? A PIN that was refused is not tried again: correct it, and log in once with another tool if it was tried often"
            }
            (Failure::Disabled, "pkcs11") => {
                "set CKA_ENCRYPT and CKA_DECRYPT of the key, if it was not meant to be switched off"
            }
            (Failure::Disabled, "aws") => "enable the key, if it was not meant to be disabled",
            (Failure::Destroyed, "aws") => {
                "the key is about to be deleted: cancel that, if it was not meant, before everything under it is lost"
            }
            (Failure::Disabled | Failure::Destroyed, _) => {
                "restore the key, if it was not meant to be switched off"
            }
            (Failure::NotFound, "transit") => {
                "is the key made, and are mount and namespace right? vault write -f MOUNT/keys/KEY"
            }
            (Failure::NotFound, "pkcs11") => {
                "has the token an AES key of this label? pkcs11-tool --keygen --key-type AES:32 --label KEY --id 01 --sensitive"
            }
            (Failure::NotFound, _) => "is the KEK in `keys` named rightly?",
            (Failure::Malformed, "transit") => {
                "is it a transit engine that answers, and the key of type aes256-gcm96, not derived?"
            }
            (Failure::Malformed, "gcp") => {
                "is the key one for symmetric encryption (purpose ENCRYPT_DECRYPT), and is it Google that answers?"
            }
            (Failure::Malformed, "azure") => {
                "does the key fit `algorithm` (RSA; or AES of 256 bits in a Managed HSM: A256KW), and is `vault` the host name of the vault that answers?"
            }
            (Failure::Malformed, "pkcs11") => {
                "does the HSM have CKM_AES_GCM, and is the key with the greatest CKA_ID of its label the only one with it?"
            }
            (Failure::Malformed | Failure::Denied, _) => {
                "is it the KMS that answers, and not something between?"
            }
        };
        Some(hint.to_owned())
    }
}

/// What came of a round trip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What was wrapped came back.
    Well {
        /// The KEK's version, where a blob tells.
        version: Option<String>,
        /// Bytes of the blob.
        blob_bytes: usize,
        /// Whether the KMS itself holds blobs to their key name and tenant.
        authenticates_context: bool,
        /// For wrapping, microseconds.
        wrap_micros: u128,
        /// For unwrapping, microseconds.
        unwrap_micros: u128,
    },
    /// A call failed.
    Failed {
        /// `wrap` or `unwrap`.
        verb: &'static str,
        /// What kind of no.
        failure: Failure,
        /// What happened.
        detail: String,
        /// For the failed call, microseconds.
        micros: u128,
    },
    /// The KMS cannot be opened: what is wrong with settings or files, and what to do.
    Settings(String, Option<String>),
    /// No key names a KEK of this KMS: there is nothing to ask it for.
    Unused,
}

/// A round trip with each KEK that keys name, one after the other, in the order of the settings.
///
/// # Errors
/// Which keys there are, the policies say (`--data-dir`), and they cannot be loaded.
pub async fn check_kms(settings: &Settings) -> Result<Vec<Checked>, StartError> {
    let mut keys = settings.keys.clone();
    if settings.other_keys.is_some() {
        let policies = super::prepare::load(settings)?;
        keys = settings.keys_for(&policies.keys())?;
    }
    Ok(check(settings, &keys).await)
}

async fn check(settings: &Settings, keys: &[Key]) -> Vec<Checked> {
    let mut all = Vec::new();
    for kms in &settings.kms {
        let names: Vec<String> = keks(keys, &kms.name)
            .into_iter()
            .map(str::to_owned)
            .collect();
        let found = |kek: &str, uri: Option<String>, outcome| Checked {
            kms: Arc::clone(&kms.name),
            provider: kms.provider.word(),
            kek: kek.to_owned(),
            uri,
            key: of_key(keys, &kms.name, kek),
            outcome,
        };
        if names.is_empty() {
            all.push(found("", None, Outcome::Unused));
            continue;
        }
        // As an agent opens it; each KEK for itself, so that a missing one does not hide the others.
        for kek in &names {
            all.push(match open(kms.clone(), kek.clone()).await {
                Ok(opened) => {
                    let scope = Scope {
                        key: of_key(keys, &kms.name, kek).map_or("check".into(), |(key, _)| key),
                        tenant: None,
                    };
                    let outcome = round_trip(&*opened, kek, &scope).await;
                    found(kek, Some(opened.uri(kek)), outcome)
                }
                Err(error) => {
                    let outcome = Outcome::Settings(error.to_string(), error.hint());
                    found(kek, None, outcome)
                }
            });
        }
    }
    all
}

fn of_key(keys: &[Key], kms: &str, kek: &str) -> Option<(Arc<str>, bool)> {
    let is_it = |one: &settings::Kek| *one.kms == *kms && *one.kek == *kek;
    let seals = keys.iter().find(|key| key.seal_with.iter().any(is_it));
    let opens = || keys.iter().find(|key| key.open_also.iter().any(is_it));
    seals
        .map(|key| (Arc::clone(&key.name), true))
        .or_else(|| opens().map(|key| (Arc::clone(&key.name), false)))
}

async fn open(kms: settings::Kms, kek: String) -> Result<Arc<dyn Kms>, StartError> {
    let opened = tokio::task::spawn_blocking(move || {
        let arena =
            Arena::new().map_err(|error| StartError::System("no memory for keys", error))?;
        let mut building = Building {
            arena: &arena,
            random: &os_random(),
            certificates: &mut Vec::new(),
        };
        building.open(&kms, &[&kek])
    });
    opened
        .await
        .map_err(|error| StartError::System("the check was cut off", error.into()))?
}

async fn in_time<T>(
    call: impl Future<Output = Result<T, KmsError>>,
) -> (Result<T, KmsError>, u128) {
    let begun = Instant::now();
    let answer = match timeout(DEADLINE, call).await {
        Ok(answer) => answer,
        Err(_) => Err(KmsError::new(
            Failure::Unreachable,
            format!("no answer within {} s", DEADLINE.as_secs()),
        )),
    };
    (answer, begun.elapsed().as_micros())
}

async fn round_trip(kms: &dyn Kms, kek: &str, scope: &Scope) -> Outcome {
    let failed = |verb, error: KmsError, micros| Outcome::Failed {
        verb,
        failure: error.failure,
        detail: error.detail,
        micros,
    };
    let mut dek = Zeroizing::new([0; 32]);
    if let Err(error) = os_random()(&mut dek[..]) {
        return Outcome::Settings(format!("no randomness: {error}"), None);
    }
    let (wrapped, wrap_micros) = in_time(kms.wrap(kek, &dek, scope)).await;
    let blob = match wrapped {
        Ok(blob) => blob,
        Err(error) => return failed("wrap", error, wrap_micros),
    };
    let (unwrapped, unwrap_micros) = in_time(kms.unwrap(kek, &blob, scope)).await;
    match unwrapped {
        Ok(unwrapped) if unwrapped.dek[..] == dek[..] => Outcome::Well {
            version: kms.version(&blob),
            blob_bytes: blob.len(),
            authenticates_context: kms.authenticates_context(),
            wrap_micros,
            unwrap_micros,
        },
        Ok(_) => {
            let error = KmsError::new(Failure::Malformed, "what came back is not what was wrapped");
            failed("unwrap", error, unwrap_micros)
        }
        Err(error) => failed("unwrap", error, unwrap_micros),
    }
}
