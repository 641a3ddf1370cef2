//! How errors are told: what is wrong on standard error, with what to do about it; or one JSON document on standard output.

use super::{Exit, Output, colour};
use crate::app::StartError;
use crate::diagnostic::Diagnostic;
use std::io::{self, Write};

/// An error for people, on standard error. Where nobody can read it, nothing can be done about it.
pub fn say(what: &str, hint: Option<&str>) {
    let mut err = io::stderr().lock();
    let (red, blue, reset) = if colour(&err) {
        ("\x1b[1;31m", "\x1b[1;34m", "\x1b[0m")
    } else {
        ("", "", "")
    };
    let _ = writeln!(err, "{red}error{reset}: {what}");
    if let Some(hint) = hint {
        let _ = writeln!(err, "  {blue}={reset} hint: {hint}");
    }
}

/// An error as the output format has it.
///
/// # Errors
/// Standard output cannot be written.
pub fn tell(what: &str, hint: Option<&str>, output: Output) -> io::Result<()> {
    match output {
        Output::Text | Output::Junit | Output::Github | Output::Sarif => say(what, hint),
        Output::Json => {
            let document =
                serde_json::json!({"ok": false, "error": {"message": what, "hint": hint}});
            writeln!(io::stdout().lock(), "{document}")?;
        }
    }
    Ok(())
}

/// Findings about settings or policies as the output format has them.
///
/// # Errors
/// Standard output cannot be written.
pub fn findings(found: &[Diagnostic], output: Output) -> io::Result<()> {
    match output {
        Output::Text | Output::Junit | Output::Github | Output::Sarif => {
            let mut err = io::stderr().lock();
            let colour = colour(&err);
            for diagnostic in found {
                let _ = writeln!(err, "{}\n", diagnostic.render(colour));
            }
        }
        Output::Json => {
            let found: Vec<_> = found.iter().map(Diagnostic::to_json).collect();
            let document = serde_json::json!({"ok": false, "diagnostics": found});
            writeln!(io::stdout().lock(), "{document}")?;
        }
    }
    Ok(())
}

/// Why an agent did not start, and how the program ends for it.
pub fn not_started(error: &StartError, output: Output) -> Exit {
    let told = match error {
        StartError::Findings(found) => findings(found, output),
        other => tell(&other.to_string(), other.hint().as_deref(), output),
    };
    // The exit code says it, too.
    drop(told);
    if error.is_unavailability() {
        Exit::Unavailable
    } else {
        Exit::Configuration
    }
}
