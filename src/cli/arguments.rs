//! What can be typed: commands, their flags, and what `--help` says of them. It does nothing.

mod ca;
mod config;
mod filter;
mod keyring;
mod keys;
mod policy;
mod probe;
mod redirect;
mod store;

pub use ca::{CaArgs, CaCommand, CaInitArgs, CaTrustArgs};
pub use config::{ConfigCommand, ConfigShowArgs};
pub use filter::{FilterArgs, FilterSide, OnOpenError, OnSealError, OpenArgs, SealArgs};
pub use keyring::{KeyringArgs, KeyringCommand, KeyringInitArgs, KeyringKeyArgs, UnlockArgs};
pub use keys::{AdminArgs, KeysCommand, KeysPurgeArgs};
pub use policy::{
    CoverageSide, Deny, PolicyCheckArgs, PolicyCommand, PolicyCoverageArgs, PolicyDiffArgs,
    PolicyExplainArgs, PolicyFmtArgs, PolicySchemaArgs, PolicyTestArgs, SchemaOf,
};
pub use probe::{ProbeArgs, ProbeOf};
pub use redirect::{RedirectArgs, RedirectCommand};
pub use store::{
    StoreArgs, StoreCommand, StoreConvertArgs, StoreDeleteArgs, StoreFileArgs, StoreListArgs,
    StoreRewrapArgs, StoreRotateArgs, StoreVerifyArgs,
};

use crate::settings::{ADMIN_TOKEN_VARIABLE, LogFormat, LogLevel, Overrides, PASSPHRASE_VARIABLE};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `fieldveil COMMAND`. The texts are what `--help` says.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Shows the agent at work: a small API behind it, keys in memory, what was sent and what the API saw
    Demo(DemoArgs),
    /// Looks at everything that `run` would need, and says what is wrong and what to do: 0, or 1 if something fails
    #[command(after_help = "\
Takes what `fieldveil run` takes, with one line for each thing that it looks at. Nothing is made or changed; upstreams are
asked for HEAD /, keys wrap and unwrap random bytes, and whoever listens at the agent's places is asked who it is.

Examples:
  fieldveil doctor --config /etc/fieldveil/settings.yaml
  fieldveil doctor --output json --upstream https://api.example.com --policies ./policies --data-dir ./data")]
    Doctor(Box<RunArgs>),
    /// Runs the agent
    // A run is a handful of words, once a process.
    Run(Box<RunArgs>),
    /// Seals records on standard input by a route's rules: for what is stored already
    Seal(Box<SealArgs>),
    /// Opens records on standard input by a route's rules
    Open(Box<OpenArgs>),
    /// Works on settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Works on policies
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Works on tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Works on the CA by which the agent stands in for hosts that a policy names
    #[command(subcommand)]
    Ca(CaCommand),
    /// Works on the embedded key store
    #[command(subcommand)]
    Keyring(KeyringCommand),
    /// Asks a running agent about its data keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Works on the KMSs of the settings
    #[command(subcommand)]
    Kms(KmsCommand),
    /// Asks a running agent whether it is live, or ready: 0, or 1 if it is not, 69 if nobody answers
    Probe(ProbeArgs),
    /// Leads connections of this network namespace to a transparent listener
    #[command(subcommand)]
    Redirect(RedirectCommand),
    /// Works on the store of wrapped data keys
    #[command(subcommand)]
    Store(StoreCommand),
    /// Prints completions for a shell
    #[command(after_help = "\
Examples:
  source <(fieldveil completions bash)
  fieldveil completions zsh > ~/.zfunc/_fieldveil
  fieldveil completions fish > ~/.config/fish/completions/fieldveil.fish")]
    Completions(CompletionsArgs),
    /// Prints the manual page, or writes those of all commands
    #[command(after_help = "\
Examples:
  fieldveil man | man -l -
  fieldveil man --dir /usr/local/share/man/man1")]
    Man(ManArgs),
}

/// `fieldveil completions`.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// For which shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: clap_complete::Shell,
}

/// `fieldveil man`.
#[derive(Args, Debug)]
pub struct ManArgs {
    /// Writes one page for each command into this directory, and prints their names
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// `fieldveil kms COMMAND`.
#[derive(Subcommand, Debug)]
pub enum KmsCommand {
    /// Wraps and unwraps with every KEK of the settings: 0, 1 if a KMS says no, 69 if one cannot be reached
    #[command(after_help = "\
Takes what `fieldveil run` takes, so that it asks as the agent would.

Examples:
  fieldveil kms check --config /etc/fieldveil/settings.yaml
  fieldveil kms check --output json --config settings.yaml")]
    Check(Box<RunArgs>),
}

/// `fieldveil demo`.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  fieldveil demo &
  curl -s localhost:8080/orders -H 'content-type: application/json' -d '{\"name\":\"Ada\",\"ssn\":\"123-45-6789\"}'")]
pub struct DemoArgs {
    /// Where the agent listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = address)]
    pub listen: std::net::SocketAddr,
    /// Shows tokens whole; on a terminal they are shortened
    #[arg(long)]
    pub full: bool,
}

/// `fieldveil run`.
#[derive(Args, Debug, Default)]
#[command(after_help = "\
Flags go over environment variables, those over the file, that over defaults. Secrets come from files, or from
FIELDVEIL_ADMIN_TOKEN and FIELDVEIL_KEYRING_PASSPHRASE.

Examples:
  fieldveil run --config /etc/fieldveil/settings.yaml
  fieldveil run --upstream https://api.example.com --policies ./policies --data-dir ./data
  fieldveil run --upstream http://127.0.0.1:9000 --seal '$..ssn' --seal '$.cards[*].number=pan' --open '$..*' --data-dir ./data")]
pub struct RunArgs {
    /// The settings file
    #[arg(
        long,
        alias = "settings",
        value_name = "FILE",
        env = "FIELDVEIL_CONFIG"
    )]
    pub config: Option<PathBuf>,
    /// Selects an environment of the policies
    #[arg(long, value_name = "NAME", env = "FIELDVEIL_ENVIRONMENT")]
    pub environment: Option<String>,
    /// Where the agent listens [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", env = "FIELDVEIL_LISTEN")]
    pub listen: Option<String>,
    /// Where requests go. A URL that makes no upstream is a finding of the settings.
    #[arg(
        long,
        value_name = "URL",
        env = "FIELDVEIL_UPSTREAM",
        help = "Where requests go: http://HOST[:PORT] or https://HOST[:PORT]"
    )]
    pub upstream: Option<String>,
    /// Certificates (PEM) that vouch for the upstream, instead of the system's
    #[arg(long, value_name = "FILE", env = "FIELDVEIL_UPSTREAM_CA")]
    pub upstream_ca: Option<PathBuf>,
    /// A directory of policies
    #[arg(long, value_name = "DIR", env = "FIELDVEIL_POLICIES", conflicts_with_all = ["seal", "open"])]
    pub policies: Option<PathBuf>,
    /// Seals what a JSONPath selects in requests; the class is `field` unless named; repeatable
    #[arg(
        long,
        value_name = "PATH[=CLASS]",
        env = "FIELDVEIL_SEAL",
        value_delimiter = '\n'
    )]
    pub seal: Vec<String>,
    /// Opens tokens that a JSONPath selects in responses; repeatable
    #[arg(
        long,
        value_name = "PATH",
        env = "FIELDVEIL_OPEN",
        value_delimiter = '\n'
    )]
    pub open: Vec<String>,
    /// Where an embedded key store is kept; an empty directory is initialised. Back it up: without it nothing opens
    #[arg(long, value_name = "DIR", env = "FIELDVEIL_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the admin API listens; it wants a token, which --data-dir keeps in admin.token
    #[arg(long, value_name = "ADDRESS", env = "FIELDVEIL_ADMIN")]
    pub admin: Option<String>,
    /// Where /livez, /readyz and /metrics are served without a token
    #[arg(long, value_name = "ADDRESS", env = "FIELDVEIL_PROBES")]
    pub probes: Option<String>,
    /// text or json [default: text]
    #[arg(
        long,
        value_name = "FORMAT",
        env = "FIELDVEIL_LOG_FORMAT",
        hide_possible_values = true
    )]
    pub log_format: Option<LogFormat>,
    /// error, warn, info, debug or trace [default: info]
    #[arg(
        long,
        value_name = "LEVEL",
        env = "FIELDVEIL_LOG_LEVEL",
        hide_possible_values = true
    )]
    pub log_level: Option<LogLevel>,
}
impl RunArgs {
    /// What is laid over the settings file. `is_set` tells whether an environment variable has a value.
    pub fn overrides(self, is_set: impl Fn(&str) -> bool) -> Overrides {
        Overrides {
            config: self.config,
            environment: self.environment,
            listen: self.listen,
            upstream: self.upstream,
            upstream_ca: self.upstream_ca,
            policies: self.policies,
            seal: self.seal,
            open: self.open,
            data_dir: self.data_dir,
            admin: self.admin,
            probes: self.probes,
            log_format: self.log_format,
            log_level: self.log_level,
            admin_token_in_environment: is_set(ADMIN_TOKEN_VARIABLE),
            passphrase_in_environment: is_set(PASSPHRASE_VARIABLE),
        }
    }
}

/// `fieldveil token COMMAND`.
#[derive(Subcommand, Debug)]
pub enum TokenCommand {
    /// Tells what a token says about itself; needs no key, and opens nothing
    #[command(after_help = "\
Examples:
  fieldveil token inspect 'fv1~…~'
  fieldveil token inspect --class ssn --class pan < tokens.txt")]
    Inspect(TokenInspectArgs),
}

/// `fieldveil token inspect`.
#[derive(Args, Debug)]
pub struct TokenInspectArgs {
    /// The token; without it, one token a line is read from standard input
    #[arg(value_name = "TOKEN")]
    pub token: Option<String>,
    /// A class that the token may be of, to tell which; repeatable
    #[arg(long = "class", value_name = "CLASS")]
    pub classes: Vec<String>,
}
fn address(text: &str) -> Result<std::net::SocketAddr, String> {
    crate::settings::socket_address(text)
        .ok_or_else(|| "an address and a port, as in 127.0.0.1:8080".to_owned())
}
