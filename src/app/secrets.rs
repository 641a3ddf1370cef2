//! Secrets, fetched from where the settings say that they are, or made where they may be.
//!
//! They come from files and environment variables alone. None is ever in an error, a log or a `Debug` output.

use super::StartError;
use crate::admin::{TOKEN_LEN_MIN, Token};
use crate::arena::Arena;
use crate::kms::Random;
use crate::kms::keyring::{Keyring, KeyringError, Trouble, Unlock, create_secret, read_secret};
use crate::settings::{self, Secret};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::SystemTime;
use zeroize::Zeroizing;

/// Bytes of an admin token's file.
const TOKEN_FILE_LEN_MAX: u64 = 4096;

/// What unlocks a keyring.
pub fn unlock(with: &settings::Unlock) -> Result<Unlock, StartError> {
    Ok(match with {
        settings::Unlock::KeyFile(path) => Unlock::from_key_file(path)?,
        settings::Unlock::Passphrase(Secret::File(path)) => Unlock::from_passphrase_file(path)?,
        settings::Unlock::Passphrase(Secret::Environment(variable)) => {
            Unlock::Passphrase(from_environment(variable)?)
        }
    })
}

/// The bytes of an environment variable.
pub fn from_environment(variable: &str) -> Result<Zeroizing<Vec<u8>>, StartError> {
    match std::env::var_os(variable) {
        Some(value) if !value.is_empty() => Ok(Zeroizing::new(value.into_vec())),
        _ => Err(StartError::Settings(
            format!("{variable} is not set"),
            format!("set {variable}, or name a file"),
        )),
    }
}

/// The keyring of the settings, with these keys. One that may be made is made where there is none, and gets the keys that
/// it lacks; of another, a missing key is an error.
pub fn keyring(
    name: &str,
    settings: &settings::Keyring,
    keks: &[&str],
    arena: &Arena,
    random: &Random,
) -> Result<Keyring, StartError> {
    let dir = &settings.dir;
    let is_there = Keyring::is_at(dir)?;
    if settings.initialise {
        whole_or_nothing(settings, is_there)?;
        if !is_there {
            return first(name, settings, keks, arena, random);
        }
    }
    let keyring = Keyring::open(
        dir,
        &unlock(&settings.unlock)?,
        arena.clone(),
        random.clone(),
    )?;
    let known: Vec<String> = keyring
        .status()?
        .keys
        .into_iter()
        .map(|key| key.name)
        .collect();
    for kek in keks
        .iter()
        .filter(|kek| !known.iter().any(|name| name == *kek))
    {
        if settings.initialise {
            keyring.add(kek, SystemTime::now())?;
            tracing::warn!(dir = %dir.display(), key = kek, "made a new key: back the data directory up again");
        } else {
            let trouble = Trouble::UnknownKey((*kek).to_owned());
            let error = KeyringError {
                path: dir.clone(),
                trouble,
            };
            let hint = format!(
                "make it: fieldveil keyring add --dir {} … {kek}; or correct `keys` in the settings",
                dir.display()
            );
            return Err(StartError::Settings(error.to_string(), hint));
        }
    }
    Ok(keyring)
}

/// A key file without its keyring, or the other way round, is what is left of something: a new one in its place would look
/// as if all were well, and open nothing.
pub fn whole_or_nothing(keyring: &settings::Keyring, is_there: bool) -> Result<(), StartError> {
    let settings::Unlock::KeyFile(key_file) = &keyring.unlock else {
        return Ok(());
    };
    let (dir, key) = (keyring.dir.display(), key_file.display());
    let has_key = key_file
        .try_exists()
        .map_err(|error| StartError::System("the key file cannot be looked at", error))?;
    match (is_there, has_key) {
        (true, false) => Err(StartError::Settings(
            format!("{dir} holds a keyring, and {key}, which unlocks it, is not there"),
            "restore the key file from the backup".to_owned(),
        )),
        (false, true) => Err(StartError::Settings(
            format!("{key} is there, and the keyring that it unlocks is not in {dir}"),
            "restore the keyring from the backup; if nothing was ever sealed with it, remove the key file".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// The first start in an empty data directory.
fn first(
    name: &str,
    keyring: &settings::Keyring,
    keks: &[&str],
    arena: &Arena,
    random: &Random,
) -> Result<Keyring, StartError> {
    let unlock = match &keyring.unlock {
        settings::Unlock::KeyFile(path) => {
            make_parent(path)?;
            Unlock::create_key_file(path, random)?
        }
        passphrase => unlock(passphrase)?,
    };
    let (arena, random) = (arena.clone(), random.clone());
    let made = Keyring::init(
        &keyring.dir,
        &unlock,
        name,
        keks,
        arena,
        random,
        SystemTime::now(),
    )?;
    tracing::warn!(
        dir = %keyring.dir.display(),
        "made a new key store: back it up now, with what unlocks it; without both, nothing that it sealed can be opened"
    );
    Ok(made)
}

fn make_parent(path: &Path) -> Result<(), StartError> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
    made.map_err(|error| {
        let trouble = Trouble::Io("cannot be made", error);
        StartError::Keyring(KeyringError {
            path: parent.to_owned(),
            trouble,
        })
    })
}

/// The admin API's token: read, or made where it may be and is not there.
pub fn token(admin: &settings::Admin, random: &Random) -> Result<Token, StartError> {
    let (text, place) = match &admin.token {
        Secret::Environment(variable) => (from_environment(variable)?, variable.to_string()),
        Secret::File(path) => {
            let is_there = path
                .try_exists()
                .map_err(|error| StartError::System("the token's file", error))?;
            if admin.initialise && !is_there {
                make_parent(path)?;
                create_secret(path, &new_token(random)?)?;
                tracing::info!(file = %path.display(), "made a token for the admin API");
            }
            (
                read_secret(path, TOKEN_FILE_LEN_MAX)?,
                path.display().to_string(),
            )
        }
    };
    Token::new(&text).ok_or_else(|| {
        StartError::Settings(
            format!("{place} holds no token for the admin API"),
            format!(
                "put at least {TOKEN_LEN_MIN} of A-Z a-z 0-9 - . _ ~ + / = there, and nothing else"
            ),
        )
    })
}

/// 32 random bytes as text, with a line break.
fn new_token(random: &Random) -> Result<Zeroizing<Vec<u8>>, StartError> {
    let mut bytes = Zeroizing::new([0; 32]);
    random(&mut bytes[..])
        .map_err(|error: io::Error| StartError::System("no randomness", error))?;
    let mut text = Zeroizing::new(URL_SAFE_NO_PAD.encode(&bytes[..]).into_bytes());
    text.push(b'\n');
    Ok(text)
}
