//! The embedded key store: master keys in one file of a directory, for one agent without a KMS.
//!
//! Master keys (KEKs) have names and versions. The newest version wraps, all of them unwrap. On disk they are
//! encrypted under a passphrase (Argon2id) or a 32-byte key file (`docs/keyring.md` has the format); in memory they live in
//! the arena. A running process sees a rotation at its next call: the file is read again when it changed.
//!
//! Blob: `key version as u32be || 12-byte nonce || AES-256-GCM(DEK) and tag`, the associated data being
//! the context of [`context_aad`]. A nonce is random, which AES-GCM allows 2^32 times under one
//! version.
//!
//! Never here: a master key or passphrase in an error, a fallback to another key, or a write that could leave half
//! a file.

mod directory;
mod file;
mod trouble;
mod unlock;

use super::{Answer, Failure, Kms, KmsError, Random, Unwrapped, context_aad};
use crate::arena::Arena;
use crate::dek::Scope;
use crate::seal::{gcm256_open, gcm256_seal};
use directory::{Directory, Stamp};
pub use directory::{create_secret, read_secret};
pub use file::Cost;
use file::{Contents, Header};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;
pub use trouble::{KeyringError, Trouble};
pub use unlock::{PASSPHRASE_LEN_MIN, Unlock};

/// What `status` tells: names, versions and dates.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Status {
    /// The keyring's name, part of its keys' URIs.
    pub name: String,
    /// `passphrase`, `key-file` or `memory`.
    pub unlock: &'static str,
    /// Of a passphrase.
    pub cost: Option<Cost>,
    /// Ascending by name.
    pub keys: Vec<KeyStatus>,
}

/// One key of a keyring.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct KeyStatus {
    /// 1 to 64 of `a-z 0-9 - _ .`, the first a letter or digit.
    pub name: String,
    /// The KEK URI, `keyring:NAME/KEY`.
    pub uri: String,
    /// The version that wraps; all from 1 to it unwrap.
    pub current: u32,
    /// When that version was made, in seconds since 1970.
    pub since: u64,
}

/// An opened keyring; a cheap clone shares it.
#[derive(Clone)]
pub struct Keyring {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    arena: Arena,
    random: Random,
    place: Place,
    contents: RwLock<Arc<Contents>>,
}

enum Place {
    Memory,
    Directory {
        directory: Directory,
        header: Header,
        file_key: crate::arena::Slot,
        /// The file that `contents` came from.
        stamp: Mutex<Stamp>,
    },
}

impl Keyring {
    /// A keyring that lives and dies with the process, for demonstrations and tests.
    ///
    /// # Errors
    /// A bad name, no memory or no randomness.
    pub fn in_memory(
        name: &str,
        keys: &[&str],
        arena: Arena,
        random: Random,
    ) -> Result<Keyring, KeyringError> {
        let place = Path::new("(memory)");
        let contents = Contents::new(name, keys, &arena, &random, 0)
            .map_err(|trouble| KeyringError::at(place, trouble))?;
        Ok(Keyring::assemble(
            name,
            arena,
            random,
            Place::Memory,
            contents,
        ))
    }

    /// Makes a keyring with one version of each key in a directory, which is made (0700) if need be.
    ///
    /// # Errors
    /// There is one already, a bad name, a short passphrase, or the file system's refusals.
    pub fn init(
        dir: &Path,
        unlock: &Unlock,
        name: &str,
        keys: &[&str],
        arena: Arena,
        random: Random,
        now: SystemTime,
    ) -> Result<Keyring, KeyringError> {
        Keyring::init_at_cost(dir, unlock, name, keys, arena, random, now, Cost::DEFAULT)
    }

    /// As [`Keyring::init`], with other Argon2id parameters than the default.
    ///
    /// # Errors
    /// As [`Keyring::init`].
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a different thing, given once"
    )]
    pub fn init_at_cost(
        dir: &Path,
        unlock: &Unlock,
        name: &str,
        keys: &[&str],
        arena: Arena,
        random: Random,
        now: SystemTime,
        cost: Cost,
    ) -> Result<Keyring, KeyringError> {
        let fail = |trouble| KeyringError::at(dir, trouble);
        if let Unlock::Passphrase(text) = unlock
            && text.len() < PASSPHRASE_LEN_MIN
        {
            return Err(fail(Trouble::WeakPassphrase));
        }
        let contents = Contents::new(name, keys, &arena, &random, seconds(now)).map_err(fail)?;
        let header = Header::new(name, unlock, cost, &random).map_err(fail)?;
        let file_key = header.file_key(unlock, &arena).map_err(fail)?;
        let directory = Directory::create(dir)?;
        let lock = directory.lock()?;
        if directory.exists()? {
            return Err(KeyringError::at(&directory.file_path(), Trouble::Exists));
        }
        let sealed = header.seal(&contents, &file_key, &random).map_err(fail)?;
        let stamp = directory.replace(&lock, &sealed)?;
        let place = Place::Directory {
            directory,
            header,
            file_key,
            stamp: Mutex::new(stamp),
        };
        Ok(Keyring::assemble(name, arena, random, place, contents))
    }

    /// Whether there is a keyring in a directory; it may be one that does not open.
    ///
    /// # Errors
    /// The directory cannot be looked into, or is not private.
    pub fn is_at(dir: &Path) -> Result<bool, KeyringError> {
        match Directory::open(dir) {
            Ok(directory) => directory.exists(),
            Err(KeyringError {
                trouble: Trouble::Missing,
                ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens the keyring of a directory. Stretching a passphrase takes a good part of a second: not for an async thread.
    ///
    /// # Errors
    /// Anything that is not a whole, private keyring that this unlock opens.
    pub fn open(
        dir: &Path,
        unlock: &Unlock,
        arena: Arena,
        random: Random,
    ) -> Result<Keyring, KeyringError> {
        let directory = Directory::open(dir)?;
        let path = directory.file_path();
        let fail = |trouble| KeyringError::at(&path, trouble);
        let (bytes, stamp) = directory.read()?;
        let (header, rest) = Header::parse(&bytes).map_err(fail)?;
        let file_key = header.file_key(unlock, &arena).map_err(fail)?;
        let contents = header.open(rest, &file_key, &arena).map_err(fail)?;
        let name = header.name.clone();
        let place = Place::Directory {
            directory,
            header,
            file_key,
            stamp: Mutex::new(stamp),
        };
        Ok(Keyring::assemble(&name, arena, random, place, contents))
    }

    fn assemble(
        name: &str,
        arena: Arena,
        random: Random,
        place: Place,
        contents: Contents,
    ) -> Keyring {
        Keyring {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                arena,
                random,
                place,
                contents: RwLock::new(Arc::new(contents)),
            }),
        }
    }

    /// Names, versions and dates, as the file has them now.
    ///
    /// # Errors
    /// The file changed and cannot be read.
    pub fn status(&self) -> Result<Status, KeyringError> {
        let contents = self.inner.fresh()?;
        let (unlock, cost) = match &self.inner.place {
            Place::Memory => ("memory", None),
            Place::Directory { header, .. } => header.unlock_word(),
        };
        let keys = contents.keys.iter().map(|(name, kek)| KeyStatus {
            name: name.clone(),
            uri: self.uri(name),
            current: kek.current().number,
            since: kek.current().created,
        });
        Ok(Status {
            name: self.inner.name.clone(),
            unlock,
            cost,
            keys: keys.collect(),
        })
    }

    /// Makes a new version of a key, which wraps from now on; returns its number. Older versions keep unwrapping.
    ///
    /// # Errors
    /// No such key, another writer, or the file system's refusals; then nothing was changed.
    pub fn rotate(&self, key: &str, now: SystemTime) -> Result<u32, KeyringError> {
        self.inner
            .change(|contents, arena, random| contents.rotate(key, arena, random, seconds(now)))
    }

    /// Makes a new key with one version.
    ///
    /// # Errors
    /// A bad or used name, another writer, or the file system's refusals; then nothing was changed.
    pub fn add(&self, key: &str, now: SystemTime) -> Result<(), KeyringError> {
        self.inner
            .change(|contents, arena, random| contents.add(key, arena, random, seconds(now)))
    }
}

impl Inner {
    fn path(&self) -> PathBuf {
        match &self.place {
            Place::Memory => "(memory)".into(),
            Place::Directory { directory, .. } => directory.file_path(),
        }
    }

    fn held(&self) -> Arc<Contents> {
        Arc::clone(&self.contents.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn hold(&self, contents: Contents) -> Arc<Contents> {
        let contents = Arc::new(contents);
        *self
            .contents
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::clone(&contents);
        contents
    }

    /// The contents, read again if the file is another one than before.
    fn fresh(&self) -> Result<Arc<Contents>, KeyringError> {
        let Place::Directory {
            directory, stamp, ..
        } = &self.place
        else {
            return Ok(self.held());
        };
        // Held while reading, so that an older file is never put over a newer one.
        let mut stamp = stamp.lock().unwrap_or_else(PoisonError::into_inner);
        if directory.stamp()? == *stamp {
            return Ok(self.held());
        }
        let (contents, read) = self.read(directory)?;
        *stamp = read;
        Ok(self.hold(contents))
    }

    fn read(&self, directory: &Directory) -> Result<(Contents, Stamp), KeyringError> {
        let Place::Directory {
            header, file_key, ..
        } = &self.place
        else {
            return Err(KeyringError::at(&self.path(), Trouble::Missing));
        };
        let fail = |trouble| KeyringError::at(&directory.file_path(), trouble);
        let (bytes, stamp) = directory.read()?;
        let (found, rest) = Header::parse(&bytes).map_err(fail)?;
        if found != *header {
            return Err(fail(Trouble::Replaced));
        }
        let contents = header.open(rest, file_key, &self.arena).map_err(fail)?;
        Ok((contents, stamp))
    }

    /// Reads, changes and writes under the lock of writers.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Contents, &Arena, &Random) -> Result<T, Trouble>,
    ) -> Result<T, KeyringError> {
        let fail = |trouble| KeyringError::at(&self.path(), trouble);
        let Place::Directory {
            directory,
            header,
            file_key,
            stamp,
        } = &self.place
        else {
            let mut held = self
                .contents
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            let mut contents = held.copy(&self.arena).map_err(fail)?;
            let made = change(&mut contents, &self.arena, &self.random).map_err(fail)?;
            *held = Arc::new(contents);
            return Ok(made);
        };
        let lock = directory.lock()?;
        let mut stamp = stamp.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut contents, _) = self.read(directory)?;
        let made = change(&mut contents, &self.arena, &self.random).map_err(fail)?;
        let sealed = header
            .seal(&contents, file_key, &self.random)
            .map_err(fail)?;
        *stamp = directory.replace(&lock, &sealed)?;
        self.hold(contents);
        Ok(made)
    }

    fn wrap(
        &self,
        contents: &Contents,
        kek: &str,
        dek: &[u8; 32],
        scope: &Scope,
    ) -> Result<Vec<u8>, KmsError> {
        let kek = contents
            .keys
            .get(kek)
            .ok_or_else(|| unknown(kek))?
            .current();
        let aad = context_aad(scope).ok_or_else(too_long)?;
        let mut nonce = [0; 12];
        (self.random)(&mut nonce).map_err(|error| {
            KmsError::new(Failure::Unreachable, format!("no randomness: {error}"))
        })?;
        let sealed = gcm256_seal(kek.expose(), &nonce, &aad, dek);
        Ok([&kek.number.to_be_bytes()[..], &nonce, &sealed].concat())
    }

    fn unwrap(
        &self,
        contents: &Contents,
        kek: &str,
        blob: &[u8],
        scope: &Scope,
    ) -> Result<Unwrapped, KmsError> {
        let kek = contents.keys.get(kek).ok_or_else(|| unknown(kek))?;
        let malformed = |what: &str| KmsError::new(Failure::Malformed, what);
        let short = || malformed("the blob is too short");
        let (number, rest) = blob.split_first_chunk().ok_or_else(short)?;
        let (nonce, sealed) = rest.split_first_chunk().ok_or_else(short)?;
        let version = kek
            .version(u32::from_be_bytes(*number))
            .ok_or_else(|| malformed("the blob names a version that the key does not have"))?;
        let aad = context_aad(scope).ok_or_else(too_long)?;
        let dek = gcm256_open(version.expose(), nonce, &aad, sealed)
            .map_err(|_| malformed("the blob does not open under this key and context"))?;
        Ok(Unwrapped {
            dek,
            superseded: version.number != kek.current().number,
        })
    }
}

fn unknown(kek: &str) -> KmsError {
    KmsError::new(Failure::NotFound, format!("the keyring has no key `{kek}`"))
}

fn too_long() -> KmsError {
    KmsError::new(Failure::Malformed, "the key name or tenant is too long")
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl Keyring {
    /// The contents as the file has them now, read off the async threads. A file that is gone or cannot be read
    /// makes the keyring unreachable: what is cached lives to the end of lease and grace.
    async fn fresh(&self) -> Result<Arc<Contents>, KmsError> {
        if matches!(self.inner.place, Place::Memory) {
            return Ok(self.inner.held());
        }
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || inner.fresh()).await {
            Ok(Ok(contents)) => Ok(contents),
            Ok(Err(error)) => Err(KmsError::new(Failure::Unreachable, error.to_string())),
            Err(_) => Err(KmsError::new(
                Failure::Unreachable,
                "the reader was cut off",
            )),
        }
    }
}

impl Kms for Keyring {
    fn name(&self) -> &str {
        &self.inner.name
    }

    fn uri(&self, kek: &str) -> String {
        format!("keyring:{}/{kek}", self.inner.name)
    }

    fn authenticates_context(&self) -> bool {
        true
    }

    fn version(&self, blob: &[u8]) -> Option<String> {
        super::leading_version(blob)
    }

    fn wrap<'a>(
        &'a self,
        kek: &'a str,
        dek: &'a [u8; 32],
        scope: &'a Scope,
    ) -> Answer<'a, Vec<u8>> {
        Box::pin(async move {
            let contents = self.fresh().await?;
            self.inner.wrap(&contents, kek, dek, scope)
        })
    }

    fn unwrap<'a>(
        &'a self,
        kek: &'a str,
        blob: &'a [u8],
        scope: &'a Scope,
    ) -> Answer<'a, Unwrapped> {
        Box::pin(async move {
            let contents = self.fresh().await?;
            self.inner.unwrap(&contents, kek, blob, scope)
        })
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("name", &self.inner.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
