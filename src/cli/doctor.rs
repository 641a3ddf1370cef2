//! `fieldveil doctor`: looks at everything that a run would need, and prints a line for each thing with what to do about it.

use super::{Exit, Output, RunArgs, colour, run, trouble};
use crate::app::{Check, StartError, State, checkup};
use crate::settings::Settings;
use serde_json::json;
use std::io::{self, Write};

/// `fieldveil doctor`: 0, or 1 where something fails.
///
/// # Errors
/// Standard output cannot be written.
pub fn command(args: RunArgs, output: Output) -> io::Result<Exit> {
    let config = args.config.clone();
    let checks = match Settings::load(&args.overrides(run::is_set), run::read) {
        Ok(settings) => {
            let name = config.map_or("command line".to_owned(), |file| file.display().to_string());
            let mut checks = vec![Check {
                area: "settings",
                name,
                state: State::Ok,
                what: "sound".to_owned(),
                hint: None,
            }];
            let runtime = match tokio::runtime::Runtime::new() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let error = StartError::System("no threads", error);
                    return Ok(trouble::not_started(&error, output));
                }
            };
            checks.extend(runtime.block_on(checkup(&settings)));
            runtime.shutdown_background();
            checks
        }
        Err(found) => Check::failed("settings", "", &StartError::Findings(found)),
    };
    let mut out = io::stdout().lock();
    let coloured = colour(&out);
    out.write_all(told(&checks, output, coloured).as_bytes())?;
    Ok(
        match checks.iter().any(|check| check.state == State::Fail) {
            true => Exit::No,
            false => Exit::Success,
        },
    )
}

fn told(checks: &[Check], output: Output, colour: bool) -> String {
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    let [fail, warn, ok] = [State::Fail, State::Warn, State::Ok].map(count);
    if output == Output::Json {
        let all: Vec<_> = checks
            .iter()
            .map(|check| {
                json!({
                    "area": check.area,
                    "name": check.name,
                    "state": check.state.word(),
                    "what": check.what,
                    "hint": check.hint,
                })
            })
            .collect();
        return format!(
            "{}\n",
            json!({"ok": fail == 0, "fail": fail, "warn": warn, "checks": all})
        );
    }
    let mut text = String::new();
    for check in checks {
        let (on, off) = match (colour, check.state) {
            (false, _) => ("", ""),
            (true, State::Ok) => ("\x1b[32m", "\x1b[0m"),
            (true, State::Warn) => ("\x1b[1;33m", "\x1b[0m"),
            (true, State::Fail) => ("\x1b[1;31m", "\x1b[0m"),
        };
        let name = match &*check.name {
            "" => String::new(),
            name => format!("{name}: "),
        };
        text += &format!(
            "{on}{:<4}{off}  {:<11}  {name}{}\n",
            check.state.word(),
            check.area,
            check.what
        );
        if let Some(hint) = &check.hint {
            text += &format!("      hint: {hint}\n");
        }
    }
    text + &format!("{fail} fail, {warn} warn, {ok} ok\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(state: State) -> Check {
        Check {
            area: "clock",
            name: String::new(),
            state,
            what: "off".to_owned(),
            hint: Some("set it".to_owned()),
        }
    }

    #[test]
    fn lines_and_colours() {
        let plain = told(&[one(State::Warn)], Output::Text, false);
        assert_eq!(
            plain,
            "warn  clock        off\n      hint: set it\n0 fail, 1 warn, 0 ok\n"
        );
        let coloured = told(&[one(State::Fail)], Output::Text, true);
        assert!(
            coloured.starts_with("\x1b[1;31mfail\x1b[0m  clock"),
            "{coloured:?}"
        );
    }
}
