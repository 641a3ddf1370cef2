//! `fieldveil kms check`: a round trip with every KEK of the settings, told KEK by KEK with what to do about a failure.

use super::{Exit, KmsCommand, Output, RunArgs, run, trouble};
use crate::app::{Checked, Outcome, StartError, check_kms};
use crate::kms::Failure;
use crate::settings::Settings;
use serde_json::{Value, json};
use std::io::{self, Write};

/// `fieldveil kms …`: 0, 1 where a KMS says no, 69 where one cannot be reached, 78 with what is wrong in the settings.
pub fn command(command: KmsCommand, output: Output) -> io::Result<Exit> {
    let KmsCommand::Check(args) = command;
    Ok(check(*args, output))
}

fn check(args: RunArgs, output: Output) -> Exit {
    let settings = match run::settings_without_listeners(args) {
        Ok(settings) => settings,
        Err(found) => return trouble::not_started(&StartError::Findings(found), output),
    };
    run::on_a_runtime(output, async {
        let checked = check_kms(&settings).await?;
        let told = tell(&settings, &checked, output);
        told.map_err(|error| StartError::System("standard output", error))?;
        Ok(exit(&checked))
    })
}

fn exit(checked: &[Checked]) -> Exit {
    let mut worst = Exit::Success;
    for one in checked {
        worst = match (&one.outcome, worst) {
            (Outcome::Settings(..), _) => return Exit::Configuration,
            (Outcome::Failed { failure, .. }, worst) => match (failure, worst) {
                (Failure::Unreachable, Exit::Success) => Exit::Unavailable,
                (Failure::Unreachable, worst) => worst,
                _ => Exit::No,
            },
            (_, worst) => worst,
        };
    }
    worst
}

fn tell(_: &Settings, checked: &[Checked], output: Output) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if output == Output::Json {
        let is_well = |one: &Checked| matches!(one.outcome, Outcome::Well { .. } | Outcome::Unused);
        let ok = checked.iter().all(is_well);
        let all: Vec<Value> = checked.iter().map(document).collect();
        return writeln!(out, "{}", json!({"ok": ok, "kms": all}));
    }
    for one in checked {
        let what = one.uri.clone().unwrap_or_else(|| one.kek.clone());
        let (word, rest) = match &one.outcome {
            Outcome::Well {
                version,
                blob_bytes,
                authenticates_context,
                wrap_micros,
                unwrap_micros,
            } => {
                let version = version
                    .as_ref()
                    .map_or("version not told".to_owned(), |version| {
                        format!("version {version}")
                    });
                let context = if *authenticates_context {
                    "held to"
                } else {
                    "without"
                };
                let rest = format!(
                    "{version}, wrap {}, unwrap {}, {blob_bytes} bytes, {context} its context",
                    millis(*wrap_micros),
                    millis(*unwrap_micros)
                );
                ("ok", rest)
            }
            Outcome::Failed {
                verb,
                failure,
                detail,
                micros,
            } => (
                failure.word(),
                format!("{verb} after {}: {detail}", millis(*micros)),
            ),
            Outcome::Settings(what, _) => ("settings", what.clone()),
            Outcome::Unused => ("unused", "no key names a KEK of this KMS".to_owned()),
        };
        let key = match &one.key {
            Some((key, true)) => format!(" (key {key})"),
            Some((key, false)) => format!(" (key {key}, opens only)"),
            None => String::new(),
        };
        writeln!(out, "{}  {}{key}", one.kms, what)?;
        writeln!(out, "  {word}: {rest}")?;
        if let Some(hint) = one.hint() {
            writeln!(out, "  hint: {hint}")?;
        }
    }
    Ok(())
}

fn millis(micros: u128) -> String {
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}

fn document(one: &Checked) -> Value {
    let mut document = json!({
        "name": &*one.kms,
        "type": one.provider,
        "kek": one.kek,
        "identity": one.uri,
        "key": one.key.as_ref().map(|(key, _)| &**key),
        "seals": one.key.as_ref().map(|(_, seals)| seals),
        "hint": one.hint(),
    });
    let more = match &one.outcome {
        Outcome::Well {
            version,
            blob_bytes,
            authenticates_context,
            wrap_micros,
            unwrap_micros,
        } => json!({
            "outcome": "ok",
            "version": version,
            "blob_bytes": blob_bytes,
            "authenticates_context": authenticates_context,
            "wrap_us": u64::try_from(*wrap_micros).ok(),
            "unwrap_us": u64::try_from(*unwrap_micros).ok(),
        }),
        Outcome::Failed {
            verb,
            failure,
            detail,
            micros,
        } => json!({
            "outcome": failure.word(),
            "verb": verb,
            "detail": detail,
            "after_us": u64::try_from(*micros).ok(),
        }),
        Outcome::Settings(what, _) => json!({"outcome": "settings", "detail": what}),
        Outcome::Unused => json!({"outcome": "unused"}),
    };
    if let (Value::Object(all), Value::Object(more)) = (&mut document, more) {
        all.extend(more);
    }
    document
}
