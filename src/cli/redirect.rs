//! `fieldveil redirect`: puts up, takes down or prints the rules that lead connections to a transparent listener.

use super::{Exit, Output, RedirectArgs, RedirectCommand, trouble};
use crate::redirect::{Exempt, Rules, take_down};
use serde_json::json;
use std::io::{self, Write};

/// 0; 69 where nft is not there or says no.
///
/// # Errors
/// Standard output cannot be written.
pub fn command(command: &RedirectCommand, output: Output) -> io::Result<Exit> {
    let done = match command {
        RedirectCommand::Print(args) => {
            let script = rules(args).script();
            let mut out = io::stdout().lock();
            match output {
                Output::Json => writeln!(out, "{}", json!({ "script": script }))?,
                _ => out.write_all(script.as_bytes())?,
            }
            return Ok(Exit::Success);
        }
        RedirectCommand::Up(args) => rules(args).up(),
        RedirectCommand::Down => take_down(),
    };
    match done {
        Ok(()) => {
            if output == Output::Json {
                let up = matches!(command, RedirectCommand::Up(_));
                writeln!(io::stdout().lock(), "{}", json!({ "redirected": up }))?;
            }
            Ok(Exit::Success)
        }
        Err(what) => {
            let hint = "run it as root, or with CAP_NET_ADMIN, in the network namespace of the application";
            trouble::tell(&what, Some(hint), output)?;
            Ok(Exit::Unavailable)
        }
    }
}

fn rules(args: &RedirectArgs) -> Rules {
    Rules {
        exempt: Exempt {
            uid: args.uid,
            mark: args.mark,
        },
        ports: args.ports.iter().copied().collect(),
        to: args.to,
        interfaces: args.interfaces.iter().cloned().collect(),
    }
}
