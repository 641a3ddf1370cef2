//! The command line: what can be typed (`arguments`), and what it comes to. It parses, and leaves the doing to the rooms below it.
//!
//! Exit codes are those of sysexits: 0, 1 where a check says no, 64 usage, 65 bad input, 69 a service is unavailable, 70 internal, 78
//! configuration; 130 after a second signal, 141 where nobody reads a filter's output any more. Secrets are never taken from flags: other processes can read those.

mod arguments;
pub mod ca;
pub mod config;
pub mod demo;
pub mod doctor;
mod exchange;
pub mod filter;
pub mod keyring;
pub mod keys;
pub mod kms;
pub mod policy;
pub mod probe;
pub mod redirect;
pub mod run;
pub mod shell;
pub mod store;
#[cfg(test)]
mod tests;
pub mod token;
mod trouble;

pub use arguments::*;

use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};
use std::ffi::OsString;
use std::io::{self, IsTerminal};
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
    /// Whoever read the output of a filter stopped before its end (128 + SIGPIPE, as shells have it).
    PipeClosed = 141,
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
    /// `policy check`, `policy test` and `policy coverage`: JUnit XML
    Junit,
    /// `policy check`, `policy test` and `policy coverage`: workflow commands that annotate files on GitHub
    Github,
    /// `policy check`, `policy test` and `policy coverage`: SARIF 2.1.0
    Sarif,
}

impl Output {
    /// One of those that only commands with findings have.
    fn is_report(self) -> bool {
        matches!(self, Output::Junit | Output::Github | Output::Sarif)
    }
}

impl Cli {
    /// Does what was asked for. What it prints goes to standard output, errors to standard error.
    pub fn run(self) -> Exit {
        let output = self.output;
        let done = match self.command {
            Command::Run(args) => Ok(run::run(*args, output)),
            Command::Doctor(args) => doctor::command(*args, output),
            Command::Config(command) => config::command(command, output),
            Command::Demo(args) => Ok(demo::run(&args)),
            Command::Policy(command) => {
                let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
                let colour = colour(&err);
                policy::run(&command, output, colour, &mut out, &mut err)
            }
            Command::Token(TokenCommand::Inspect(args)) => token::command(&args, output),
            Command::Seal(args) => Ok(filter::seal(&args, output)),
            Command::Open(args) => Ok(filter::open(&args, output)),
            Command::Completions(args) => shell::completions(&args, &mut io::stdout().lock()),
            Command::Man(args) => shell::man(&args, &mut io::stdout().lock()),
            Command::Ca(command) => ca::command(&command, output),
            Command::Keyring(command) => keyring::command(&command, output),
            Command::Keys(command) => keys::command(&command, output),
            Command::Kms(command) => kms::command(command, output),
            Command::Probe(args) => probe::command(&args, output),
            Command::Redirect(command) => redirect::command(&command, output),
            Command::Store(command) => Ok(store::run(&command, output)),
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
        let parsed = Cli::parsed(arguments).and_then(Cli::with_a_fit_output);
        parsed.map_err(|error| {
            // Nowhere to say that it could not be said.
            let _ = error.print();
            usage(&error)
        })
    }

    /// As `try_parse_from`, and where `config show` was asked for, which arguments stood on the command line.
    fn parsed<A: Into<OsString> + Clone>(
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Cli, clap::Error> {
        let mut command = <Cli as CommandFactory>::command();
        let mut matches = command.try_get_matches_from_mut(arguments)?;
        let typed = config::typed(&matches);
        let mut cli =
            Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))?;
        if let Command::Config(ConfigCommand::Show(show)) = &mut cli.command {
            show.typed = typed;
        }
        Ok(cli)
    }

    /// Formats for findings belong to the commands that have some.
    fn with_a_fit_output(self) -> Result<Cli, clap::Error> {
        let finds = matches!(
            self.command,
            Command::Policy(
                PolicyCommand::Check(_) | PolicyCommand::Test(_) | PolicyCommand::Coverage(_)
            )
        );
        if self.output.is_report() && !finds {
            let message = "this output is for `policy check`, `policy test` and `policy coverage`; here are text and json";
            return Err(<Cli as CommandFactory>::command()
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

/// Whether text for people on a terminal is coloured: unless `NO_COLOR` has a value (no-color.org).
pub fn colour(terminal: &impl IsTerminal) -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !no_color && terminal.is_terminal()
}
