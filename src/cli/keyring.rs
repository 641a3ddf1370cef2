//! `fieldveil keyring init | status | rotate | add`: what each does and reports. Arguments are parsed, and reports
//! printed, elsewhere: as text by `Display`, as JSON by `Serialize`. No report holds a key.

use super::{Exit, KeyringArgs, KeyringCommand, Output, UnlockArgs, trouble};
use crate::arena::Arena;
use crate::kms::keyring::{KeyStatus, Keyring, KeyringError, Status, Trouble, Unlock};
use crate::kms::os_random;
use crate::settings::PASSPHRASE_VARIABLE;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use zeroize::Zeroizing;

/// What a command did, and how the keyring stands.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Report {
    /// As given on the command line.
    pub dir: PathBuf,
    /// What was changed.
    pub did: Did,
    /// Names, versions and dates afterwards.
    #[serde(flatten)]
    pub status: Status,
}

/// What a command changed in the keyring.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Did {
    /// There is a keyring now, with version 1 of each key.
    Initialised,
    /// Nothing: this is how it stands.
    Looked,
    /// A key has a new current version.
    Rotated {
        /// Its name.
        key: String,
        /// The number that wraps from now on, at least 2.
        version: u32,
    },
    /// There is a new key, at version 1.
    Added {
        /// Its name.
        key: String,
    },
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dir = self.dir.display();
        match &self.did {
            Did::Initialised => {
                writeln!(f, "made keyring `{}` in {dir}", self.status.name)?;
                writeln!(
                    f,
                    "back it up now, with what unlocks it: without both, nothing it sealed can be opened"
                )?;
            }
            Did::Looked => writeln!(f, "keyring `{}` in {dir}", self.status.name)?,
            Did::Rotated { key, version } => {
                writeln!(
                    f,
                    "key `{key}` is at version {version}; the older ones keep opening"
                )?;
                writeln!(f, "back it up now; a running agent follows by itself")?;
            }
            Did::Added { key } => {
                writeln!(f, "made key `{key}`")?;
                writeln!(f, "back it up now; a running agent follows by itself")?;
            }
        }
        write!(f, "unlocked by: {}", self.status.unlock)?;
        if let Some(cost) = self.status.cost {
            let (mib, passes, lanes) = (cost.memory_kib / 1024, cost.passes, cost.lanes);
            write!(f, " (Argon2id, {mib} MiB, {passes} passes, {lanes} lanes)")?;
        }
        writeln!(f)?;
        for KeyStatus {
            uri,
            current,
            since,
            ..
        } in &self.status.keys
        {
            writeln!(f, "{uri}  version {current}, since {}", date(*since))?;
        }
        Ok(())
    }
}

/// `fieldveil keyring …`: 0, 64 without a key file or passphrase, 78 with what is wrong.
///
/// # Errors
/// Standard output cannot be written.
pub fn command(command: &KeyringCommand, output: Output) -> io::Result<Exit> {
    let (keyring, makes) = match command {
        KeyringCommand::Init(args) => (&args.keyring, true),
        KeyringCommand::Status(args) => (args, false),
        KeyringCommand::Rotate(args) | KeyringCommand::Add(args) => (&args.keyring, false),
    };
    let KeyringArgs { dir, unlock } = keyring;
    let done = match unlock_with(unlock, makes) {
        Ok(Some(unlock)) => match command {
            KeyringCommand::Init(args) => {
                let keys: Vec<&str> = args.keys.iter().map(String::as_str).collect();
                init(dir, &unlock, &args.name, &keys)
            }
            KeyringCommand::Status(_) => status(dir, &unlock),
            KeyringCommand::Rotate(args) => rotate(dir, &unlock, &args.key),
            KeyringCommand::Add(args) => add(dir, &unlock, &args.key),
        },
        Ok(None) => {
            let hint =
                format!("--key-file FILE, --passphrase-file FILE, or set {PASSPHRASE_VARIABLE}");
            trouble::say("what is the keyring unlocked with?", Some(&hint));
            return Ok(Exit::Usage);
        }
        Err(error) => Err(error),
    };
    match done {
        Ok(report) => {
            let mut out = io::stdout().lock();
            match output {
                Output::Text | Output::Junit | Output::Github | Output::Sarif => {
                    write!(out, "{report}")?
                }
                Output::Json => {
                    serde_json::to_writer(&mut out, &report)?;
                    writeln!(out)?;
                }
            }
            out.flush()?;
            Ok(Exit::Success)
        }
        Err(error) => {
            trouble::tell(&error.to_string(), Some(&error.hint()), output)?;
            Ok(Exit::Configuration)
        }
    }
}

/// What the arguments or the environment say. None: neither says anything.
fn unlock_with(args: &UnlockArgs, makes: bool) -> Result<Option<Unlock>, KeyringError> {
    if let Some(path) = &args.key_file {
        let unlock = match Unlock::from_key_file(path) {
            Err(KeyringError {
                trouble: Trouble::Io(_, error),
                ..
            }) if makes && error.kind() == io::ErrorKind::NotFound => {
                Unlock::create_key_file(path, &os_random())
            }
            read => read,
        };
        return unlock.map(Some);
    }
    if let Some(path) = &args.passphrase_file {
        return Unlock::from_passphrase_file(path).map(Some);
    }
    let text = std::env::var_os(PASSPHRASE_VARIABLE).filter(|text| !text.is_empty());
    Ok(text.map(|text| Unlock::Passphrase(Zeroizing::new(text.into_vec()))))
}

/// Makes a keyring of these keys, each with one version.
///
/// # Errors
/// As [`Keyring::init`].
pub fn init(
    dir: &Path,
    unlock: &Unlock,
    name: &str,
    keys: &[&str],
) -> Result<Report, KeyringError> {
    let keyring = Keyring::init(
        dir,
        unlock,
        name,
        keys,
        arena(dir)?,
        os_random(),
        SystemTime::now(),
    )?;
    report(dir, Did::Initialised, &keyring)
}

/// How a keyring stands. Opening it checks every byte.
///
/// # Errors
/// As [`Keyring::open`].
pub fn status(dir: &Path, unlock: &Unlock) -> Result<Report, KeyringError> {
    report(dir, Did::Looked, &open(dir, unlock)?)
}

/// Makes a new version of a key.
///
/// # Errors
/// As [`Keyring::open`] and [`Keyring::rotate`].
pub fn rotate(dir: &Path, unlock: &Unlock, key: &str) -> Result<Report, KeyringError> {
    let keyring = open(dir, unlock)?;
    let version = keyring.rotate(key, SystemTime::now())?;
    let key = key.to_owned();
    report(dir, Did::Rotated { key, version }, &keyring)
}

/// Makes a new key.
///
/// # Errors
/// As [`Keyring::open`] and [`Keyring::add`].
pub fn add(dir: &Path, unlock: &Unlock, key: &str) -> Result<Report, KeyringError> {
    let keyring = open(dir, unlock)?;
    keyring.add(key, SystemTime::now())?;
    let key = key.to_owned();
    report(dir, Did::Added { key }, &keyring)
}

fn open(dir: &Path, unlock: &Unlock) -> Result<Keyring, KeyringError> {
    Keyring::open(dir, unlock, arena(dir)?, os_random())
}

fn arena(dir: &Path) -> Result<Arena, KeyringError> {
    Arena::new().map_err(|_| KeyringError {
        path: dir.to_owned(),
        trouble: Trouble::Memory,
    })
}

fn report(dir: &Path, did: Did, keyring: &Keyring) -> Result<Report, KeyringError> {
    Ok(Report {
        dir: dir.to_owned(),
        did,
        status: keyring.status()?,
    })
}

/// A UTC date of the proleptic Gregorian calendar: `days_from_civil` turned round, in eras of 400 years.
pub(super) fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unlock() -> Unlock {
        Unlock::Key(Zeroizing::new([7; 32]))
    }

    #[test]
    fn a_keyring_is_made_looked_at_and_rotated() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/keyring");
        let made = init(&dir, &unlock(), "local", &["cards", "mail"]).unwrap();
        assert_eq!(made.did, Did::Initialised);
        let names: Vec<_> = made
            .status
            .keys
            .iter()
            .map(|key| key.uri.as_str())
            .collect();
        assert_eq!(names, ["keyring:local/cards", "keyring:local/mail"]);
        let rotated = rotate(&dir, &unlock(), "mail").unwrap();
        let key = "mail".to_owned();
        assert_eq!(rotated.did, Did::Rotated { key, version: 2 });
        add(&dir, &unlock(), "more").unwrap();
        let looked = status(&dir, &unlock()).unwrap();
        let versions: Vec<_> = looked.status.keys.iter().map(|key| key.current).collect();
        assert_eq!(versions, [1, 2, 1]);
        assert!(
            looked
                .to_string()
                .contains("keyring:local/mail  version 2, since 20")
        );
    }

    #[test]
    fn reports_are_json_too() {
        let parent = tempfile::tempdir().unwrap();
        let made = init(&parent.path().join("k"), &unlock(), "local", &["cards"]).unwrap();
        let json = serde_json::to_value(&made).unwrap();
        assert_eq!(json["did"], "initialised");
        assert_eq!(json["unlock"], "key-file");
        assert_eq!(json["keys"][0]["current"], 1);
        let rotated = rotate(&made.dir, &unlock(), "cards").unwrap();
        let json = serde_json::to_value(&rotated).unwrap();
        assert_eq!(json["did"]["rotated"]["version"], 2);
    }

    #[test]
    fn errors_say_what_to_do() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("k");
        let missing = status(&dir, &unlock()).err().unwrap();
        assert!(
            missing.hint().contains("keyring init"),
            "{}",
            missing.hint()
        );
        init(&dir, &unlock(), "local", &["cards"]).unwrap();
        let unknown = rotate(&dir, &unlock(), "nope").err().unwrap();
        assert!(
            unknown.to_string().ends_with("has no key `nope`"),
            "{unknown}"
        );
        let again = init(&dir, &unlock(), "local", &["cards"]).err().unwrap();
        assert!(matches!(again.trouble, Trouble::Exists), "{again}");
    }

    #[test]
    fn dates() {
        let day = 86_400;
        for (seconds, expect) in [
            (0, "1970-01-01"),
            (day - 1, "1970-01-01"),
            (day * 59, "1970-03-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (4_107_542_399, "2100-02-28"),
            (4_107_542_400, "2100-03-01"),
            (1_767_225_599, "2025-12-31"),
        ] {
            assert_eq!(date(seconds), expect, "{seconds}");
        }
    }
}
