//! What can go wrong with a keyring, and what to do about it. Names paths, names and modes; never a secret.

use super::unlock::PASSPHRASE_LEN_MIN;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What went wrong with a keyring, where, and what to do about it.
#[derive(Debug)]
pub struct KeyringError {
    /// The file or directory in question; `(memory)` for a keyring without one.
    pub path: PathBuf,
    /// What is wrong with it.
    pub trouble: Trouble,
}

/// What can be wrong. The texts name paths, modes and keys.
#[derive(Debug)]
pub enum Trouble {
    /// The operating system refused: what could not be done, and its answer.
    Io(&'static str, io::Error),
    /// Others may read or write it: the mode found, and the mode wanted.
    Exposed(u32, u32),
    /// Not what it should be in the file system (a link, of another owner, …).
    Odd(&'static str),
    /// There is no keyring, or no directory.
    Missing,
    /// There is one where a new one was to be made.
    Exists,
    /// Not a keyring's file, cut short, or not canonical.
    Damaged(&'static str),
    /// There is no room for more keys or versions.
    Full(&'static str),
    /// Written by another version of this program.
    OtherFormat,
    /// It does not decrypt.
    WontOpen,
    /// It wants a passphrase and got a key file, or the other way round.
    OtherUnlock(&'static str),
    /// Someone re-created it under the feet of this process.
    Replaced,
    /// Another process is writing.
    Busy,
    /// No key has this name (cut to 64 characters).
    UnknownKey(String),
    /// A key has this name already.
    KeyExists(String),
    /// No name for a keyring or key (cut to 64 characters).
    BadName(String),
    /// A new passphrase is shorter than [`PASSPHRASE_LEN_MIN`].
    WeakPassphrase,
    /// The operating system gave no randomness.
    Random(io::Error),
    /// No memory for the keys, or for stretching the passphrase.
    Memory,
}

impl KeyringError {
    pub(super) fn at(path: &Path, trouble: Trouble) -> KeyringError {
        KeyringError {
            path: path.to_owned(),
            trouble,
        }
    }

    /// What to do, in one sentence.
    pub fn hint(&self) -> String {
        let path = self.path.display();
        match &self.trouble {
            Trouble::Exposed(_, wanted) => format!("chmod {wanted:o} {path}"),
            Trouble::Odd(_) => "point to the real file or directory, owned by the agent's user".into(),
            Trouble::Missing => {
                "make one with `fieldveil keyring init`, or restore it from the backup".into()
            }
            Trouble::Exists => "use it, or give another directory; nothing was changed".into(),
            Trouble::Damaged(_) => "restore it from the backup".into(),
            Trouble::Full(_) => "begin another keyring, and keep this one to open with".into(),
            Trouble::OtherFormat => "use the version of fieldveil that wrote it".into(),
            Trouble::WontOpen => {
                "check the passphrase or key file; if it is the right one, restore the keyring from the backup".into()
            }
            Trouble::OtherUnlock(wanted) => format!("unlock it with {wanted}"),
            Trouble::Replaced => "restart the agent with the unlock of the new keyring".into(),
            Trouble::Busy => "try again when the other command is done".into(),
            Trouble::UnknownKey(_) => "`fieldveil keyring status` lists the keys".into(),
            Trouble::KeyExists(_) => "`fieldveil keyring rotate` makes a new version of it".into(),
            Trouble::BadName(_) => {
                "use 1 to 64 of a-z, 0-9, `-`, `_` and `.`, beginning with a letter or digit".into()
            }
            Trouble::WeakPassphrase => {
                format!("take at least {PASSPHRASE_LEN_MIN} bytes, or a key file")
            }
            Trouble::Io(..) | Trouble::Random(_) | Trouble::Memory => {
                "see what the operating system says".into()
            }
        }
    }
}

impl fmt::Display for KeyringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.trouble {
            Trouble::Io(what, error) => write!(f, "{what}: {error}"),
            Trouble::Exposed(mode, _) => write!(f, "others may use it (mode {mode:04o})"),
            Trouble::Odd(what) | Trouble::Damaged(what) | Trouble::Full(what) => f.write_str(what),
            Trouble::Missing => f.write_str("there is no keyring"),
            Trouble::Exists => f.write_str("there is one already"),
            Trouble::OtherFormat => f.write_str("is of a version that this program does not know"),
            Trouble::WontOpen => f.write_str(
                "does not open: the passphrase or key is wrong, or the file was changed",
            ),
            Trouble::OtherUnlock(wanted) => write!(f, "is locked with {wanted}"),
            Trouble::Replaced => f.write_str("was replaced by one with another lock"),
            Trouble::Busy => f.write_str("another process is changing it"),
            Trouble::UnknownKey(key) => write!(f, "has no key `{key}`"),
            Trouble::KeyExists(key) => write!(f, "has a key `{key}` already"),
            Trouble::BadName(name) => write!(f, "`{name}` is no name for a keyring or key"),
            Trouble::WeakPassphrase => f.write_str("the passphrase is too short"),
            Trouble::Random(error) => write!(f, "no randomness: {error}"),
            Trouble::Memory => f.write_str("not enough memory"),
        }
    }
}

impl std::error::Error for KeyringError {}
