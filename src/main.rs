//! The binary: forbids core dumps, reads the command line, and does what it says.

use fieldveil::arena::forbid_core_dumps;
use fieldveil::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything secret is read. Where the kernel refuses, key memory is still left out of dumps by itself.
    if let Err(error) = forbid_core_dumps() {
        eprintln!("warning: core dumps cannot be forbidden: {error}");
    }
    match Cli::from_arguments(std::env::args_os()) {
        Ok(cli) => cli.run().into(),
        Err(exit) => exit.into(),
    }
}
