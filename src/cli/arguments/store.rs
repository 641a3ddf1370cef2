//! What can be typed after `fieldveil store`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `fieldveil store COMMAND`.
#[derive(Subcommand, Debug)]
pub enum StoreCommand {
    /// Makes the store that the settings name, or brings it up to date
    #[command(after_help = "\
Example:
  fieldveil store init --config settings.yaml")]
    Init(StoreArgs),
    /// Tells which store it is and how much is in it
    Status(StoreArgs),
    /// Lists data keys and deleted ones, in the order of their kids
    #[command(after_help = "\
Example:
  fieldveil store list --config settings.yaml --key cards --tenant acme")]
    List(StoreListArgs),
    /// Opens every record, and says which KEK versions are still needed
    #[command(after_help = "\
Exit codes: 0 everything opens, 1 something does not, 69 a KMS or the store gave no answer.

Examples:
  fieldveil store verify --config settings.yaml
  fieldveil store verify --config settings.yaml --backup store.backup")]
    Verify(StoreVerifyArgs),
    /// Wraps records anew that are not under the KEKs which seal now; may be stopped and begun again, and runs beside agents
    #[command(after_help = "\
First give the agents settings that seal with the new KEK and open with the old one as well
(keys: {cards: {seal_with: [new/cards], open_also: [old/cards]}}); then rewrap; then verify says whether the old one is still needed.

Exit codes: 0 all records are under the KEKs that seal, 1 some do not open and were left, 69 a KMS or the store gave no
answer: what is done is done, run it again.

Examples:
  fieldveil store rewrap --config settings.yaml
  fieldveil store rewrap --config settings.yaml --dry-run")]
    Rewrap(StoreRewrapArgs),
    /// Puts another data key in the place of a deterministic one: equal values get other tokens from then on, old tokens still open
    #[command(after_help = "\
Agents follow within one lease; until then some seal with the old one, some with the new one.

Example:
  fieldveil store rotate-deterministic --config settings.yaml --key contact --tenant acme --yes")]
    RotateDeterministic(StoreRotateArgs),
    /// Deletes data keys for ever, and with them all that they sealed; agents follow within one lease
    #[command(after_help = "\
Example:
  fieldveil store delete --config settings.yaml 3f0c…e2 --yes")]
    Delete(StoreDeleteArgs),
    /// Writes a backup of everything, records as the KMS wrapped them
    #[command(after_help = "\
Example:
  fieldveil store export --config settings.yaml store.backup")]
    Export(StoreFileArgs),
    /// Puts in what a backup has and the store has not; deleted ones stay deleted
    #[command(after_help = "\
Example:
  fieldveil store init --config settings.yaml
  fieldveil store import --config settings.yaml store.backup
  fieldveil store verify --config settings.yaml")]
    Import(StoreFileArgs),
    /// Copies everything into the store of other settings: from a file into a database, or back
    #[command(after_help = "\
What agents make meanwhile stays where they make it: run it once more when all agents have the new settings.

Example:
  fieldveil store convert --config file.yaml --to postgres.yaml")]
    Convert(StoreConvertArgs),
}

/// Which store; what every command on one takes.
#[derive(Args, Debug)]
pub struct StoreArgs {
    /// The settings file: where the store and the keys are
    #[arg(long, value_name = "FILE", env = "FIELDVEIL_CONFIG")]
    pub config: PathBuf,
    /// Where an embedded key store is kept, as for `fieldveil run`; nothing is made in it
    #[arg(long, value_name = "DIR", env = "FIELDVEIL_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
}

/// `fieldveil store list`.
#[derive(Args, Debug)]
pub struct StoreListArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Those of this key alone
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Those of this tenant alone
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Deterministic ones alone
    #[arg(long)]
    pub deterministic: bool,
}

/// `fieldveil store verify`.
#[derive(Args, Debug)]
pub struct StoreVerifyArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// A backup, instead of the store itself
    #[arg(long, value_name = "FILE")]
    pub backup: Option<PathBuf>,
    /// No progress on standard error
    #[arg(long, short)]
    pub quiet: bool,
}

/// `fieldveil store rewrap`.
#[derive(Args, Debug)]
pub struct StoreRewrapArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Does everything but change records
    #[arg(long)]
    pub dry_run: bool,
    /// No progress on standard error
    #[arg(long, short)]
    pub quiet: bool,
}

/// `fieldveil store rotate-deterministic`.
#[derive(Args, Debug)]
pub struct StoreRotateArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The key's name
    #[arg(long, value_name = "KEY")]
    pub key: String,
    /// The tenant, where the policy declares one
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Does not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// `fieldveil store delete`.
#[derive(Args, Debug)]
pub struct StoreDeleteArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Which data keys: 32 hexadecimal digits each, as `list` and `token inspect` show them
    #[arg(required = true, value_name = "KID", value_parser = kid)]
    pub kids: Vec<crate::dek::Kid>,
    /// Does not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// `fieldveil store export` and `fieldveil store import`.
#[derive(Args, Debug)]
pub struct StoreFileArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The backup; `export` makes a new file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// No progress on standard error
    #[arg(long, short)]
    pub quiet: bool,
}

/// `fieldveil store convert`.
#[derive(Args, Debug)]
pub struct StoreConvertArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The settings of the other store, which `init` has made
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// No progress on standard error
    #[arg(long, short)]
    pub quiet: bool,
}

fn kid(text: &str) -> Result<crate::dek::Kid, String> {
    crate::store::lines::kid(text).ok_or_else(|| "32 hexadecimal digits, lower case".to_owned())
}
