//! What can be typed after `fieldveil keyring`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `fieldveil keyring COMMAND`.
#[derive(Subcommand, Debug)]
pub enum KeyringCommand {
    /// Makes a keyring with one version of each key
    #[command(after_help = "\
Example:
  fieldveil keyring init --dir ./keyring --key-file ./kek --name local cards identity")]
    Init(KeyringInitArgs),
    /// Tells names, versions and dates of the keys
    Status(KeyringArgs),
    /// Makes a new version of a key, which wraps from then on; the old ones go on unwrapping
    #[command(after_help = "\
Example:
  fieldveil keyring rotate --dir ./keyring --key-file ./kek cards")]
    Rotate(KeyringKeyArgs),
    /// Makes a new key
    #[command(after_help = "\
Example:
  fieldveil keyring add --dir ./keyring --key-file ./kek contact")]
    Add(KeyringKeyArgs),
}

/// `fieldveil keyring status`, and what every command on a keyring takes.
#[derive(Args, Debug)]
pub struct KeyringArgs {
    /// The keyring's directory
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// How it is unlocked.
    #[command(flatten)]
    pub unlock: UnlockArgs,
}

/// What the master keys are encrypted under; `init` makes a key file that is not there. Without either: the passphrase in `FIELDVEIL_KEYRING_PASSPHRASE`.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub struct UnlockArgs {
    /// A file with the key of the keyring
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// A file with the passphrase of the keyring
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// `fieldveil keyring init`.
#[derive(Args, Debug)]
pub struct KeyringInitArgs {
    /// Which keyring.
    #[command(flatten)]
    pub keyring: KeyringArgs,
    /// The keyring's name: part of its keys' identity for ever, and different from every other keyring's
    #[arg(long, value_name = "NAME", default_value = crate::settings::LOCAL_KMS)]
    pub name: String,
    /// The keys to make
    #[arg(required = true, value_name = "KEY")]
    pub keys: Vec<String>,
}

/// A keyring, and one of its keys.
#[derive(Args, Debug)]
pub struct KeyringKeyArgs {
    /// Which keyring.
    #[command(flatten)]
    pub keyring: KeyringArgs,
    /// The key's name
    #[arg(value_name = "KEY")]
    pub key: String,
}
