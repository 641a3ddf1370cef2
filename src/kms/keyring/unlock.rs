//! What a keyring is locked with: a passphrase, or 32 bytes of a file.

use super::{KeyringError, Random, Trouble, directory};
use std::fmt;
use std::path::Path;
use zeroize::Zeroizing;

/// What the file is encrypted under.
pub enum Unlock {
    /// Stretched by Argon2id.
    Passphrase(Zeroizing<Vec<u8>>),
    /// 32 random bytes from a file.
    Key(Zeroizing<[u8; 32]>),
}

/// The shortest passphrase that a new keyring accepts, in bytes.
pub const PASSPHRASE_LEN_MIN: usize = 12;

impl Unlock {
    /// The text of a file, without the line break at its end.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or it is empty.
    pub fn from_passphrase_file(path: &Path) -> Result<Unlock, KeyringError> {
        let mut text = directory::read_secret(path, 4096)?;
        while text
            .last()
            .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
        {
            text.pop();
        }
        if text.is_empty() {
            return Err(KeyringError::at(path, Trouble::Damaged("is empty")));
        }
        Ok(Unlock::Passphrase(text))
    }

    /// 32 raw bytes, or 64 hexadecimal digits and perhaps a line break.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or it holds something else.
    pub fn from_key_file(path: &Path) -> Result<Unlock, KeyringError> {
        let bytes = directory::read_secret(path, 66)?;
        let mut key = Zeroizing::new([0; 32]);
        if bytes.len() == key.len() {
            key.copy_from_slice(&bytes);
            return Ok(Unlock::Key(key));
        }
        let odd = || {
            let what = "holds neither 32 bytes nor 64 hexadecimal digits";
            KeyringError::at(path, Trouble::Damaged(what))
        };
        let digits = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let digits = digits.strip_suffix(b"\r").unwrap_or(digits);
        if digits.len() != 64 {
            return Err(odd());
        }
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            let (high, low) = (digit(0).ok_or_else(odd)?, digit(1).ok_or_else(odd)?);
            *byte = (high << 4 | low) as u8;
        }
        Ok(Unlock::Key(key))
    }

    /// Makes a key file (mode 0600) that must not exist yet, and unlocks with it.
    ///
    /// # Errors
    /// The file exists or cannot be written, or there is no randomness.
    pub fn create_key_file(path: &Path, random: &Random) -> Result<Unlock, KeyringError> {
        let mut key = Zeroizing::new([0; 32]);
        random(&mut key[..]).map_err(|error| KeyringError::at(path, Trouble::Random(error)))?;
        directory::create_secret(path, &key[..])?;
        Ok(Unlock::Key(key))
    }
}

impl fmt::Debug for Unlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unlock::Passphrase(_) => "Passphrase(..)",
            Unlock::Key(_) => "Key(..)",
        })
    }
}
