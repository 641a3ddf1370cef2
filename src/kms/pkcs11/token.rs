//! A token: found by its label, logged in to, its keys looked up, its sessions kept for the next call. All of it blocks.
//!
//! Keys are looked up at every call, of which there is one per data key and lease: what was removed or added is seen at once, and
//! no handle outlives what it stood for. A login is one for all sessions of the process; it goes with the last of them.

use super::module::{Entered, Used};
use super::verdict::{After, Trouble};
use super::{CHECK_LEN, IV_LEN, TAG_LEN};
use crate::kms::secret::Secret;
use crate::kms::{Failure, KmsError, Unwrapped};
use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;
use std::ffi::c_ulong;
use std::sync::{Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

const TAG_BITS: c_ulong = 128;
/// Keys of one label that are looked at.
const VERSIONS_MAX: usize = 64;

/// A token with its sessions.
pub struct Token {
    module: Used,
    label: String,
    pin: Secret,
    /// Open and logged in, each with the epoch that it is of; at most one for every turn.
    sessions: Mutex<Vec<(u64, Session)>>,
    /// Held while somebody logs in. A PIN that was refused is not tried again: after some tries the token would lock.
    refused: Mutex<Option<Zeroizing<String>>>,
}

/// A key of a label.
struct Version {
    key: ObjectHandle,
    /// `CKA_ID` without leading zeros.
    id: Vec<u8>,
    check: [u8; CHECK_LEN],
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Token {
    pub fn new(module: Used, label: String, pin: Secret) -> Token {
        Token {
            module,
            label,
            pin,
            sessions: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    /// Those that wait for a call.
    pub fn sessions_kept(&self) -> usize {
        lock(&self.sessions).len()
    }

    /// The blob of a DEK, under the KEK's current version.
    pub fn encrypt(
        &self,
        kek: &str,
        dek: &[u8; 32],
        iv: [u8; IV_LEN],
        aad: &[u8],
    ) -> Result<Vec<u8>, KmsError> {
        self.in_session(|session| {
            let versions = versions(session, kek)?;
            let current = current(&versions)?.ok_or_else(|| {
                let what = "several keys of this label have the greatest CKA_ID: which one wraps?";
                Trouble::new(Failure::Malformed, what)
            })?;
            let (iv, sealed) = seal(session, current.key, dek, iv, aad)?;
            if sealed.len() != dek.len() + TAG_LEN {
                let what = "what the HSM made has another length than AES-GCM gives it";
                return Err(Trouble::new(Failure::Malformed, what));
            }
            Ok([&current.check[..], &iv, &sealed].concat())
        })
    }

    /// The DEK of a blob, whose length is right.
    pub fn decrypt(&self, kek: &str, blob: &[u8], aad: &[u8]) -> Result<Unwrapped, KmsError> {
        let (check, rest) = blob.split_at(CHECK_LEN);
        let (iv, sealed) = rest.split_at(IV_LEN);
        self.in_session(|session| {
            let versions = versions(session, kek)?;
            let newest = current(&versions)?;
            let superseded = newest.is_some_and(|newest| newest.check[..] != *check);
            let mut last = Trouble::new(
                Failure::Malformed,
                "the blob is under none of the keys of this label",
            );
            // A check value is short: two versions may have the same.
            for version in versions.iter().filter(|one| one.check[..] == *check) {
                match open(session, version.key, iv, aad, sealed) {
                    Ok(dek) => return Ok(Unwrapped { dek, superseded }),
                    Err(trouble) if trouble.error.failure == Failure::Malformed => last = trouble,
                    Err(trouble) => return Err(trouble),
                }
            }
            Err(last)
        })
    }

    /// Does `work` in a session that is kept from before, or else in a fresh one; and once more in a library that was begun anew,
    /// where the token cannot be reached otherwise.
    fn in_session<T>(&self, work: impl Fn(&Session) -> Result<T, Trouble>) -> Result<T, KmsError> {
        let (trouble, epoch) = match self.attempt(&work) {
            Ok(done) => return Ok(done),
            Err(failed) => failed,
        };
        if trouble.after == After::Afresh && self.module.restart(epoch) {
            return self.attempt(&work).map_err(|(trouble, _)| trouble.error);
        }
        Err(trouble.error)
    }

    fn attempt<T>(
        &self,
        work: &impl Fn(&Session) -> Result<T, Trouble>,
    ) -> Result<T, (Trouble, u64)> {
        let entered = self.module.enter().map_err(|trouble| (trouble, 0))?;
        let epoch = entered.epoch;
        if let Some(session) = self.kept(epoch) {
            match self.work(work, session, &entered) {
                Err(trouble) if trouble.after == After::Afresh => {
                    // The others are no better.
                    while let Some(session) = self.kept(epoch) {
                        let _ = session.close();
                    }
                }
                done => return done.map_err(|trouble| (trouble, epoch)),
            }
        }
        let session = self.fresh(&entered).map_err(|trouble| (trouble, epoch))?;
        self.work(work, session, &entered)
            .map_err(|trouble| (trouble, epoch))
    }

    fn work<T>(
        &self,
        work: &impl Fn(&Session) -> Result<T, Trouble>,
        session: Session,
        entered: &Entered<'_>,
    ) -> Result<T, Trouble> {
        let done = work(&session).or_else(|trouble| {
            // A key that is not there may be one of a token that is not there.
            if trouble.error.failure == Failure::NotFound {
                self.slot(entered.library)?;
            }
            Err(trouble)
        });
        if done
            .as_ref()
            .is_err_and(|trouble| trouble.after == After::Afresh)
        {
            let _ = session.close();
        } else {
            lock(&self.sessions).push((entered.epoch, session));
        }
        done
    }

    /// A session of this epoch. Those of earlier ones are forgotten, not closed: their numbers may be others' now.
    fn kept(&self, epoch: u64) -> Option<Session> {
        let mut sessions = lock(&self.sessions);
        sessions.retain(|(of, _)| *of == epoch);
        sessions.pop().map(|(_, session)| session)
    }

    fn fresh(&self, entered: &Entered<'_>) -> Result<Session, Trouble> {
        let (slot, info) = self.slot(entered.library)?;
        // Not closed by itself: see `kept`.
        let session = entered.library.open_ro_session_no_drop(slot)?;
        match self.log_in(&session, &info) {
            Ok(()) => Ok(session),
            Err(trouble) => {
                let _ = session.close();
                Err(trouble)
            }
        }
    }

    fn slot(&self, library: &Pkcs11) -> Result<(Slot, TokenInfo), Trouble> {
        let mut found = None;
        let mut unread = None;
        for slot in library.get_slots_with_token()? {
            match library.get_token_info(slot) {
                Ok(info) if info.label() == self.label => {
                    if found.replace((slot, info)).is_some() {
                        let what = "several tokens have this label: which one is meant?";
                        return Err(Trouble::new(Failure::Unreachable, what));
                    }
                }
                Ok(_) => {}
                // Perhaps another's; it matters if there is none better.
                Err(error) => unread = Some(error),
            }
        }
        found.ok_or_else(|| match unread {
            Some(error) => error.into(),
            None => Trouble {
                after: After::Afresh,
                ..Trouble::new(Failure::Unreachable, "no slot has a token of this label")
            },
        })
    }

    fn log_in(&self, session: &Session, info: &TokenInfo) -> Result<(), Trouble> {
        // One at a time: several at once would be as many tries of one wrong PIN.
        let mut refused = lock(&self.refused);
        let state = session.get_session_info()?.session_state();
        let is_in = matches!(state, SessionState::RoUser | SessionState::RwUser);
        if is_in || !info.login_required() {
            return Ok(());
        }
        if info.user_pin_locked() {
            return Err(Trouble::new(Failure::Denied, "the PIN is locked"));
        }
        if info.user_pin_final_try() {
            let what = "one more wrong PIN would lock the token: none is tried until somebody has logged in otherwise";
            return Err(Trouble::new(Failure::Denied, what));
        }
        let pin = self.pin.read_blocking().map_err(|error| Trouble {
            error,
            after: After::Keep,
            vague: false,
        })?;
        if refused.as_ref() == Some(&pin) {
            let what = "this PIN was refused before, and is not tried again";
            return Err(Trouble::new(Failure::Denied, what));
        }
        match session.login(UserType::User, Some(&AuthPin::new(pin.as_str().into()))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                *refused = None;
                Ok(())
            }
            Err(error) => {
                let trouble = Trouble::from(error);
                if trouble.error.failure == Failure::Denied {
                    *refused = Some(pin);
                }
                Err(trouble)
            }
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if let Some(entered) = self.module.inside() {
            while let Some(session) = self.kept(entered.epoch) {
                let _ = session.close();
            }
        }
    }
}

/// The AES keys of a label; at least one.
fn versions(session: &Session, label: &str) -> Result<Vec<Version>, Trouble> {
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Label(label.as_bytes().to_vec()),
    ];
    let mut keys = Vec::new();
    for found in session.iter_objects(&template)? {
        if keys.len() == VERSIONS_MAX {
            let what = "more than 64 keys have this label";
            return Err(Trouble::new(Failure::Malformed, what));
        }
        keys.push(found?);
    }
    if keys.is_empty() {
        let what = "the token has no AES key of this label";
        return Err(Trouble::new(Failure::NotFound, what));
    }
    keys.into_iter().map(|key| version(session, key)).collect()
}

fn version(session: &Session, key: ObjectHandle) -> Result<Version, Trouble> {
    let (mut id, mut check) = (Vec::new(), None);
    for attribute in session.get_attributes(key, &[AttributeType::Id, AttributeType::CheckValue])? {
        match attribute {
            Attribute::Id(bytes) => id = bytes,
            Attribute::CheckValue(bytes) => check = bytes.first_chunk().copied(),
            _ => {}
        }
    }
    let zeros = id.iter().take_while(|byte| **byte == 0).count();
    id.drain(..zeros);
    let check = match check {
        Some(check) => check,
        None => computed(session, key)?,
    };
    Ok(Version { key, id, check })
}

/// What `CKA_CHECK_VALUE` is (PKCS #11 v3.0, section 4.10.2), where a token does not have it.
fn computed(session: &Session, key: ObjectHandle) -> Result<[u8; CHECK_LEN], Trouble> {
    let block = session.encrypt(&Mechanism::AesEcb, key, &[0; 16])?;
    block.first_chunk().copied().ok_or_else(|| {
        let what = "the HSM tells no check value of the key";
        Trouble::new(Failure::Malformed, what)
    })
}

/// The version that wraps: the greatest `CKA_ID`, as a number. None: it is not the only one.
fn current(versions: &[Version]) -> Result<Option<&Version>, Trouble> {
    let rank = |version: &&Version| (version.id.len(), version.id.clone());
    let newest = versions.iter().max_by_key(rank);
    let newest = newest.ok_or_else(|| Trouble::new(Failure::NotFound, "no key"))?;
    let peers = versions.iter().filter(|one| one.id == newest.id).count();
    Ok((peers == 1).then_some(newest))
}

/// The IV that was used, and the ciphertext with its tag. Some HSMs choose the IV themselves, and write it over the given one.
fn seal(
    session: &Session,
    key: ObjectHandle,
    plaintext: &[u8],
    mut iv: [u8; IV_LEN],
    aad: &[u8],
) -> Result<([u8; IV_LEN], Vec<u8>), Trouble> {
    let params = GcmParams::new(&mut iv, aad, TAG_BITS.into())?;
    let sealed = session.encrypt(&Mechanism::AesGcm(params), key, plaintext)?;
    Ok((iv, sealed))
}

fn open(
    session: &Session,
    key: ObjectHandle,
    iv: &[u8],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Trouble> {
    let mut used = iv.to_vec();
    let params = GcmParams::new(&mut used, aad, TAG_BITS.into())?;
    let opened = session.decrypt(&Mechanism::AesGcm(params), key, sealed);
    match opened.map(Zeroizing::new).map_err(Trouble::from) {
        Err(trouble) if trouble.vague && is_sound(session, key, aad) => Err(Trouble::new(
            Failure::Malformed,
            "the blob does not open under this key and context",
        )),
        done => done,
    }
}

/// Whether the HSM still does what it should with this key. Many have no word for a tag that does not fit other than that it failed.
fn is_sound(session: &Session, key: ObjectHandle, aad: &[u8]) -> bool {
    let mut iv = [0xA5; IV_LEN];
    if crate::entropy::system(&mut iv).is_err() {
        return false;
    }
    let (mut iv, sealed) = match seal(session, key, &[0; 32], iv, aad) {
        Ok(sealed) => sealed,
        // A key that only opens: the HSM is there to say so.
        Err(trouble) => return trouble.error.failure == Failure::Disabled,
    };
    let params = GcmParams::new(&mut iv, aad, TAG_BITS.into());
    params.is_ok_and(|params| {
        let opened = session.decrypt(&Mechanism::AesGcm(params), key, &sealed);
        opened.is_ok_and(|opened| opened == [0; 32])
    })
}
