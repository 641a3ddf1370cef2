//! The command line: what can be typed. It parses, and leaves the doing to the rooms below it.
//!
//! Exit codes are those of sysexits: 0, 1 where a check says no, 64 usage, 65 bad input, 69 a service is unavailable, 70 internal, 78
//! configuration; and 130 after a second signal. Secrets are never taken from flags: other processes can read those.

pub mod demo;
pub mod keyring;
pub mod policy;
pub mod run;
pub mod token;
mod trouble;

use crate::settings::{ADMIN_TOKEN_VARIABLE, LogFormat, LogLevel, Overrides, PASSPHRASE_VARIABLE};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

/// How a run of the program ended, for whoever started it (BSD sysexits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// EX_OK: done, or help was asked for.
    Success = 0,
    /// The work was done, and the answer is no: a test failed, a policy got weaker, too little is covered.
    No = 1,
    /// EX_USAGE: the command line is wrong.
    Usage = 64,
    /// EX_DATAERR: what was given to be looked at is not what it should be.
    Data = 65,
    /// EX_UNAVAILABLE: an address, a KMS or another service that is needed.
    Unavailable = 69,
    /// EX_SOFTWARE: a defect.
    Internal = 70,
    /// EX_CONFIG: a policy, the settings or a key store.
    Configuration = 78,
    /// A second signal cut the end short (128 + SIGINT, as shells have it).
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Seals classified JSON fields of an application's HTTP traffic on the way out, and opens them on the way back.
#[derive(Parser, Debug)]
#[command(
    name = "fieldveil",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  fieldveil demo
  fieldveil run --upstream https://api.example.com --seal '$..ssn' --open '$..*' --data-dir ./data
  fieldveil policy check policies/

Exit codes: 0 done, 1 a check says no, 64 usage, 65 bad input, 69 unavailable, 70 internal, 78 configuration,
130 cut short."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How answers and findings are printed
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "FIELDVEIL_OUTPUT"
    )]
    pub output: Output,
}

/// How answers and findings are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Text,
    /// For programs: one JSON document on standard output
    Json,
    /// `policy check` and `policy test`: JUnit XML
    Junit,
    /// `policy check` and `policy test`: workflow commands that annotate files on GitHub
    Github,
    /// `policy check` and `policy test`: SARIF 2.1.0
    Sarif,
}

impl Output {
    /// One of those that only commands with findings have.
    fn is_report(self) -> bool {
        matches!(self, Output::Junit | Output::Github | Output::Sarif)
    }
}

/// `fieldveil COMMAND`. The texts are what `--help` says.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Shows the agent at work: a small API behind it, keys in memory, what was sent and what the API saw
    Demo(DemoArgs),
    /// Runs the agent
    // A run is a handful of words, once a process.
    Run(Box<RunArgs>),
    /// Works on policies
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Works on tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Works on the embedded key store
    #[command(subcommand)]
    Keyring(KeyringCommand),
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
    #[arg(long, value_name = "FILE", env = "FIELDVEIL_CONFIG")]
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

/// `fieldveil policy COMMAND`.
#[derive(Subcommand, Debug)]
pub enum PolicyCommand {
    /// Checks policy files, and says what in them is probably not meant: 0, or 78 with what is wrong and where
    #[command(after_help = "\
Examples:
  fieldveil policy check policies/payments.yaml
  fieldveil policy check --environment production --deny warnings /etc/fieldveil/policies
  fieldveil --output sarif policy check policies/")]
    Check(PolicyCheckArgs),
    /// Runs the tests beside policies: 0, 1 if one fails, 78 if a policy or a test file is wrong
    #[command(after_help = "\
Examples:
  fieldveil policy test policies/
  fieldveil policy test --output github policies/payments.test.yaml
  fieldveil policy test --output junit policies/ > tests.xml")]
    Test(PolicyTestArgs),
    /// Tells what would happen to a request, value by value, and why
    #[command(after_help = "\
Examples:
  fieldveil policy explain --policy policies/payments.yaml --method POST --body customer.json \\
    --header 'X-Merchant: acme' https://api.payments.example/v1/customers/c_42
  fieldveil policy explain --policy policies/ api.payments.example/v1/charges")]
    Explain(PolicyExplainArgs),
    /// Tells which values of sample bodies no rule names
    #[command(after_help = "\
Examples:
  fieldveil policy coverage --policy policies/payments.yaml --route customers bodies/*.json
  fieldveil policy coverage --policy policies/payments.yaml --route customers --fail-under 100 customer.json")]
    Coverage(PolicyCoverageArgs),
    /// Compares two policies: 0 if the new one protects as much, 1 if something gets weaker
    #[command(after_help = "\
Examples:
  fieldveil policy diff old.yaml new.yaml
  git show main:policies/payments.yaml > /tmp/old.yaml && fieldveil policy diff /tmp/old.yaml policies/payments.yaml")]
    Diff(PolicyDiffArgs),
    /// Prints the JSON Schema of policies, or of their tests, for editors
    #[command(after_help = "\
Examples:
  fieldveil policy schema > policy.schema.json
  fieldveil policy schema test > policy-test.schema.json")]
    Schema(PolicySchemaArgs),
}

/// `fieldveil policy check`.
#[derive(Args, Debug)]
pub struct PolicyCheckArgs {
    /// Files, and directories that are searched for *.yaml but *.test.yaml
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Applies this environment of the policies
    #[arg(long, value_name = "NAME", env = "FIELDVEIL_ENVIRONMENT")]
    pub environment: Option<String>,
    /// Findings that count as errors
    #[arg(long, value_name = "WHAT", value_enum)]
    pub deny: Option<Deny>,
}

/// What `policy check --deny` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Deny {
    /// What is probably not meant
    Warnings,
}

/// `fieldveil policy test`.
#[derive(Args, Debug)]
pub struct PolicyTestArgs {
    /// Test files, policies (their tests are beside them), and directories that are searched for *.test.yaml
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Runs the cases whose name holds this text
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Lists the cases that passed, too
    #[arg(long, short)]
    pub verbose: bool,
}

/// `fieldveil policy explain`.
#[derive(Args, Debug)]
pub struct PolicyExplainArgs {
    /// A policy, or a directory of policies
    #[arg(long, value_name = "PATH", required = true)]
    pub policy: Vec<PathBuf>,
    /// Applies this environment of the policies
    #[arg(long, value_name = "NAME", env = "FIELDVEIL_ENVIRONMENT")]
    pub environment: Option<String>,
    /// The request's method [default: POST with a body, else GET]
    #[arg(long, short = 'X', value_name = "METHOD")]
    pub method: Option<String>,
    /// A header, `Name: value`; repeatable
    #[arg(long, short = 'H', value_name = "HEADER")]
    pub header: Vec<String>,
    /// A file with the body; `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub body: Option<PathBuf>,
    /// A file with the upstream's answer, to be explained, too
    #[arg(long, value_name = "FILE")]
    pub response: Option<PathBuf>,
    /// Shows the values themselves
    #[arg(long)]
    pub show_values: bool,
    /// Host, path and query: api.example.com/v1/customers/7?full=1; a scheme before it is ignored
    #[arg(value_name = "REQUEST")]
    pub request: String,
}

/// `fieldveil policy coverage`.
#[derive(Args, Debug)]
pub struct PolicyCoverageArgs {
    /// A policy, or a directory of policies
    #[arg(long, value_name = "PATH", required = true)]
    pub policy: Vec<PathBuf>,
    /// The route whose rules are asked; needed unless there is only one that has some
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// Which of its rules
    #[arg(long, value_enum, default_value_t)]
    pub side: CoverageSide,
    /// Ends with 1 if less than this percentage of the values is named
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub fail_under: Option<u8>,
    /// Files with sample bodies, one JSON document each
    #[arg(required = true, value_name = "BODY")]
    pub bodies: Vec<PathBuf>,
}

/// What `policy coverage --side` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CoverageSide {
    /// Those for requests
    #[default]
    Request,
    /// Those for responses
    Response,
}

/// `fieldveil policy diff`.
#[derive(Args, Debug)]
pub struct PolicyDiffArgs {
    /// Applies this environment of both
    #[arg(long, value_name = "NAME", env = "FIELDVEIL_ENVIRONMENT")]
    pub environment: Option<String>,
    /// The policy as it was, or a directory of policies
    #[arg(value_name = "OLD")]
    pub old: PathBuf,
    /// As it will be
    #[arg(value_name = "NEW")]
    pub new: PathBuf,
}

/// `fieldveil policy schema`.
#[derive(Args, Debug)]
pub struct PolicySchemaArgs {
    /// Of which files
    #[arg(value_enum, default_value_t)]
    pub of: SchemaOf,
}

/// What `policy schema` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SchemaOf {
    /// Policies
    #[default]
    Policy,
    /// Tests of policies
    Test,
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

fn address(text: &str) -> Result<std::net::SocketAddr, String> {
    crate::settings::socket_address(text)
        .ok_or_else(|| "an address and a port, as in 127.0.0.1:8080".to_owned())
}

impl Cli {
    /// Does what was asked for. What it prints goes to standard output, errors to standard error.
    pub fn run(self) -> Exit {
        let output = self.output;
        let done = match self.command {
            Command::Run(args) => Ok(run::run(*args, output)),
            Command::Demo(args) => Ok(demo::run(&args)),
            Command::Policy(command) => {
                let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
                let colour = colour(&err);
                policy::run(&command, output, colour, &mut out, &mut err)
            }
            Command::Token(TokenCommand::Inspect(args)) => token::command(&args, output),
            Command::Keyring(command) => keyring::command(&command, output),
        };
        match done {
            Ok(exit) => exit,
            // Whoever read has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
            Err(error) => {
                trouble::say(&format!("cannot write: {error}"), None);
                Exit::Unavailable
            }
        }
    }

    /// Parses a command line; help, version and mistakes are printed here.
    ///
    /// Errors: how to end without doing anything: 0 after help, 64 after a mistake.
    pub fn from_arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, Exit> {
        let parsed = Cli::try_parse_from(arguments).and_then(Cli::with_a_fit_output);
        parsed.map_err(|error| {
            // Nowhere to say that it could not be said.
            let _ = error.print();
            usage(&error)
        })
    }

    /// Formats for findings belong to the commands that have some.
    fn with_a_fit_output(self) -> Result<Cli, clap::Error> {
        let finds = matches!(
            self.command,
            Command::Policy(PolicyCommand::Check(_) | PolicyCommand::Test(_))
        );
        if self.output.is_report() && !finds {
            let message =
                "this output is for `policy check` and `policy test`; here are text and json";
            return Err(<Cli as clap::CommandFactory>::command()
                .error(clap::error::ErrorKind::InvalidValue, message));
        }
        Ok(self)
    }
}

fn usage(error: &clap::Error) -> Exit {
    match error.kind() {
        clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion => {
            Exit::Success
        }
        _ => Exit::Usage,
    }
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

/// Whether text for people on a terminal is coloured: unless `NO_COLOR` has a value (no-color.org).
pub fn colour(terminal: &impl IsTerminal) -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !no_color && terminal.is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[track_caller]
    fn parse(line: &[&str]) -> Result<Cli, Exit> {
        Cli::try_parse_from(std::iter::once("fieldveil").chain(line.iter().copied()))
            .and_then(Cli::with_a_fit_output)
            .map_err(|error| usage(&error))
    }

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    /// Every command and flag is on the page.
    #[test]
    fn the_page_in_the_docs_is_complete() {
        let page = include_str!("../docs/cli.md");
        fn walk(command: &clap::Command, name: &str, page: &str) {
            assert!(
                page.contains(&format!("`{name}`")) || page.contains(&format!("## {name}")),
                "{name}"
            );
            for argument in command
                .get_arguments()
                .filter(|argument| !argument.is_hide_set())
            {
                let shown = match argument.get_long() {
                    Some(long) => format!("--{long}"),
                    None => argument.get_id().to_string().to_uppercase(),
                };
                assert!(page.contains(&shown), "{name} {shown}");
            }
            for command in command.get_subcommands() {
                walk(command, &format!("{name} {}", command.get_name()), page);
            }
        }
        walk(&Cli::command(), "fieldveil", page);
    }

    #[test]
    fn what_can_be_typed() {
        let run = parse(&[
            "run",
            "--upstream",
            "http://a",
            "--seal",
            "$..a",
            "--seal",
            "$..b=pan",
            "--open",
            "$..*",
        ]);
        let Ok(Cli {
            command: Command::Run(run),
            output: Output::Text,
        }) = run
        else {
            panic!("{run:?}")
        };
        assert_eq!(run.seal, ["$..a", "$..b=pan"]);
        assert_eq!(run.open, ["$..*"]);
        let overrides = run.overrides(|variable| variable == ADMIN_TOKEN_VARIABLE);
        assert!(overrides.admin_token_in_environment && !overrides.passphrase_in_environment);
        for line in [
            &["demo"][..],
            &["demo", "--listen", "127.0.0.1:0", "--full"],
            &["keyring", "add", "--dir", "d", "cards"],
            &["--output", "json", "policy", "check", "a", "b"],
            &[
                "policy",
                "check",
                "a",
                "--output",
                "json",
                "--environment",
                "production",
            ],
            &[
                "policy", "check", "a", "--deny", "warnings", "--output", "sarif",
            ],
            &["policy", "test", "a", "--output", "junit"],
            &["policy", "test", "a", "--filter", "x", "-v"],
            &["policy", "explain", "--policy", "p", "a/b", "-H", "a: b"],
            &["policy", "coverage", "--policy", "p", "b.json"],
            &["policy", "diff", "a", "b"],
            &["policy", "schema"],
            &["policy", "schema", "test"],
            &["token", "inspect"],
            &["token", "inspect", "fv1~~", "--class", "ssn"],
            &["keyring", "init", "--dir", "d", "--key-file", "f", "cards"],
            &["keyring", "status", "--dir", "d"],
            &[
                "keyring",
                "rotate",
                "--dir",
                "d",
                "--passphrase-file",
                "f",
                "cards",
            ],
            &["run", "--config", "f"],
            &["run"],
        ] {
            assert!(parse(line).is_ok(), "{line:?}: {:?}", parse(line));
        }
    }

    #[test]
    fn mistakes_are_64_and_help_is_0() {
        for line in [
            &[][..],
            &["nonsense"],
            &["policy"],
            &["policy", "check"],
            &["policy", "check", "a", "--deny", "infos"],
            &["policy", "diff", "a"],
            &["policy", "diff", "a", "b", "--output", "junit"],
            &[
                "policy",
                "coverage",
                "--policy",
                "p",
                "--fail-under",
                "101",
                "b",
            ],
            &["policy", "explain", "a/b"],
            &["token", "inspect", "--output", "sarif"],
            &["run", "--policies", "d", "--seal", "$"],
            &["run", "--admin-token", "x"],
            &["demo", "--listen", "nowhere"],
            &[
                "keyring",
                "status",
                "--dir",
                "d",
                "--key-file",
                "a",
                "--passphrase-file",
                "b",
            ],
            &["keyring", "rotate", "--dir", "d"],
            &["--output", "xml", "demo"],
        ] {
            assert_eq!(parse(line).err(), Some(Exit::Usage), "{line:?}");
        }
        for line in [
            &["--help"][..],
            &["run", "--help"],
            &["--version"],
            &["help", "policy", "check"],
        ] {
            assert_eq!(parse(line).err(), Some(Exit::Success), "{line:?}");
        }
        assert_eq!(Exit::Configuration as u8, 78);
    }
}
