//! `fieldveil policy fmt PATH…`: policies laid out evenly. What a file means, and its comments, stay.

use crate::app::policies::{about, text, walk};
use crate::cli::{Exit, Output, PolicyFmtArgs};
use crate::diagnostic::{Diagnostic, Source, printable};
use crate::marked::layout::{Lines, joined, lay_out};
use serde_json::json;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Lays files out, or with `--check` says which are not.
///
/// # Errors
/// `out` or `err` cannot be written.
pub fn format(
    args: &PolicyFmtArgs,
    output: Output,
    colour: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Exit> {
    let mut files = Vec::new();
    let mut found: Vec<Diagnostic> = Vec::new();
    for path in &args.paths {
        if let Err(wrong) = walk(path, 0, &|name| name.ends_with(".yaml"), &mut files) {
            found.extend(wrong);
        }
    }
    let mut uneven = Vec::new();
    for file in &files {
        let laid = text(file).and_then(|old| {
            let source = Source::new(&file.display().to_string(), &old);
            lay_out(&source).map(|lines| (old, lines))
        });
        match laid {
            Ok((old, lines)) if joined(&lines) != old => uneven.push((file, old, lines)),
            Ok(_) => {}
            Err(wrong) => found.extend(wrong),
        }
    }
    let mut changed = Vec::new();
    for (file, old, lines) in &uneven {
        if args.check {
            changed.push(*file);
            if output == Output::Text {
                difference(file, old, lines, out)?;
            }
        } else {
            match replace(file, &joined(lines)) {
                Ok(()) => changed.push(*file),
                Err(error) => {
                    let message = format!("cannot be written: {error}");
                    found.push(about(file, "unwritable", message));
                }
            }
        }
    }
    let exit = match (found.is_empty(), args.check && !changed.is_empty()) {
        (false, _) => Exit::Configuration,
        (true, true) => Exit::No,
        (true, false) => Exit::Success,
    };
    if output == Output::Json {
        let names: Vec<String> = changed
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        let document = json!({
            "ok": exit == Exit::Success,
            "files": files.len(),
            "changed": names,
            "diagnostics": found.iter().map(Diagnostic::to_json).collect::<Vec<_>>(),
        });
        writeln!(out, "{document}")?;
        return Ok(exit);
    }
    for one in &found {
        writeln!(err, "{}\n", one.render(colour))?;
    }
    for file in changed {
        let what = if args.check {
            "would be laid out"
        } else {
            "laid out"
        };
        writeln!(err, "{}: {what}", file.display())?;
    }
    Ok(exit)
}

/// Whole or not at all: beside it first, then in its place.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let real = fs::canonicalize(file)?;
    let mut name = real.file_name().unwrap_or_default().to_owned();
    name.push(".fmt");
    let beside: PathBuf = real.with_file_name(name);
    let mut options = fs::OpenOptions::new();
    let mut made = options.write(true).create_new(true).open(&beside)?;
    let written = made
        .write_all(text.as_bytes())
        .and_then(|()| made.set_permissions(fs::metadata(&real)?.permissions()))
        .and_then(|()| made.sync_all())
        .and_then(|()| fs::rename(&beside, &real));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// A unified difference (as `diff -U0` and `patch` have it), from what became of each line.
fn difference(file: &Path, old: &str, lines: &Lines, out: &mut dyn Write) -> io::Result<()> {
    let name = file.display().to_string();
    let name = printable(&name);
    writeln!(out, "--- {name}\n+++ {name}")?;
    let olds: Vec<&str> = old.split_inclusive('\n').collect();
    let same = |at: usize| match (olds.get(at), &lines[at]) {
        (Some(old), Some(new)) => old.strip_suffix('\n') == Some(new),
        _ => false,
    };
    let (mut at, mut new) = (0, 0);
    while at < lines.len() {
        if same(at) {
            (at, new) = (at + 1, new + 1);
            continue;
        }
        let from = at;
        while at < lines.len() && !same(at) {
            at += 1;
        }
        let added: Vec<&String> = lines[from..at].iter().flatten().collect();
        let first = if added.is_empty() { new } else { new + 1 };
        writeln!(
            out,
            "@@ -{},{} +{first},{} @@",
            from + 1,
            at - from,
            added.len()
        )?;
        for old in olds.iter().take(at).skip(from) {
            writeln!(out, "-{}", printable(old.trim_end_matches('\n')))?;
            if !old.ends_with('\n') {
                writeln!(out, "\\ No newline at end of file")?;
            }
        }
        for new in &added {
            writeln!(out, "+{}", printable(new))?;
        }
        new += added.len();
    }
    Ok(())
}
