//! What can be typed after `fieldveil keys`.

use crate::settings::ADMIN_TOKEN_VARIABLE;
use clap::{Args, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// `fieldveil keys COMMAND`.
#[derive(Subcommand, Debug)]
pub enum KeysCommand {
    /// Tells how many data keys a running agent holds, and how long they last without a KMS
    #[command(after_help = "\
Example:
  fieldveil keys status --data-dir ./data")]
    Status(AdminArgs),
    /// Has a running agent let go of a key's data keys; what comes next asks the KMS anew
    #[command(after_help = "\
Example:
  fieldveil keys purge cards --token-file /run/secrets/admin")]
    Purge(KeysPurgeArgs),
}

/// Where a running agent's admin API is, and the token for it. Without a file: the token in `FIELDVEIL_ADMIN_TOKEN`.
#[derive(Args, Debug)]
pub struct AdminArgs {
    /// Where the agent's admin API listens
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "FIELDVEIL_ADMIN",
        default_value = "127.0.0.1:9901"
    )]
    pub admin: SocketAddr,
    /// The file that holds the admin API's token
    #[arg(long, value_name = "FILE", conflicts_with = "data_dir")]
    pub token_file: Option<PathBuf>,
    /// The agent's data directory, which holds the token in admin.token
    #[arg(long, value_name = "DIR", env = "FIELDVEIL_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
}

impl AdminArgs {
    /// The file of the token, if one is named.
    pub fn file(&self) -> Option<PathBuf> {
        let in_dir = || Some(self.data_dir.as_ref()?.join("admin.token"));
        self.token_file.clone().or_else(in_dir)
    }

    /// Where else the token may be.
    pub const VARIABLE: &'static str = ADMIN_TOKEN_VARIABLE;
}

/// `fieldveil keys purge`.
#[derive(Args, Debug)]
pub struct KeysPurgeArgs {
    /// The key's name in the policies and settings
    #[arg(value_name = "KEY")]
    pub key: String,
    /// The agent.
    #[command(flatten)]
    pub agent: AdminArgs,
}
