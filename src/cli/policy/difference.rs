//! `fieldveil policy diff OLD NEW`: what gets weaker or stronger between two versions.

use crate::app::policies::load;
use crate::cli::{Exit, Output, PolicyDiffArgs};
use crate::diagnostic::{Diagnostic, printable};
use crate::policy::{Change, Direction, compare};
use serde_json::json;
use std::io::{self, Write};
use std::slice::from_ref;

/// Compares, and says what differs.
///
/// # Errors
/// `out` or `err` cannot be written.
pub fn diff(
    args: &PolicyDiffArgs,
    output: Output,
    colour: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Exit> {
    let environment = args.environment.as_deref();
    let versions = (
        load(from_ref(&args.old), environment),
        load(from_ref(&args.new), environment),
    );
    let (old, new) = match versions {
        (Ok(old), Ok(new)) => (old, new),
        (old, new) => {
            let found = [old.err(), new.err()];
            let found: Vec<Diagnostic> = found.into_iter().flatten().flatten().collect();
            super::refuse(&found, output, colour, out, err)?;
            return Ok(Exit::Configuration);
        }
    };
    let comparison = compare(&old, &new);
    let safe = comparison.is_safe();
    if output == Output::Json {
        let change = |change: &Change| {
            json!({
                "direction": change.direction.word(),
                "code": change.code,
                "about": change.about,
                "what": change.what,
            })
        };
        let changes: Vec<_> = comparison.changes.iter().map(change).collect();
        writeln!(out, "{}", json!({"ok": safe, "changes": changes}))?;
    } else {
        for change in &comparison.changes {
            writeln!(out, "{}", printable(&change.to_string()))?;
        }
        let of = |direction| {
            let same = |change: &&Change| change.direction == direction;
            comparison.changes.iter().filter(same).count()
        };
        match comparison.changes.is_empty() {
            true => writeln!(out, "no difference")?,
            false => writeln!(
                out,
                "\n{} weaker, {} orphan tokens, {} stronger, {} neutral",
                of(Direction::Weaker),
                of(Direction::Orphans),
                of(Direction::Stronger),
                of(Direction::Neutral)
            )?,
        }
    }
    Ok(if safe { Exit::Success } else { Exit::No })
}
