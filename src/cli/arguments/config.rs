//! What can be typed after `fieldveil config`.

use super::RunArgs;
use clap::{Args, Subcommand};

/// `fieldveil config COMMAND`.
#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Prints the settings that `run` would go by: 0, or 78 with what is wrong and where
    #[command(after_help = "\
Takes what `fieldveil run` takes; reads the settings file and nothing else. The output is a settings file again; what no file
can say, such as --seal, stands in comments. Secrets are shown by their place. Paths are as the agent opens them.

Examples:
  fieldveil config show --config /etc/fieldveil/settings.yaml
  fieldveil config show --origin --config settings.yaml --log-level debug
  fieldveil config show --origin --output json --config settings.yaml | jq '.settings[] | select(.origin.from != \"default\")'")]
    Show(Box<ConfigShowArgs>),
    /// Prints the JSON Schema of settings files, for editors
    #[command(after_help = "\
Example:
  fieldveil config schema > settings.schema.json")]
    Schema,
}

/// `fieldveil config show`.
#[derive(Args, Debug)]
pub struct ConfigShowArgs {
    /// What `run` takes.
    #[command(flatten)]
    pub run: RunArgs,
    /// Says of each value where it came from: the file with line and column, a variable, a flag, or the default
    #[arg(long)]
    pub origin: bool,
    /// Names of those arguments that stood on the command line.
    #[arg(skip)]
    pub typed: Vec<String>,
}
