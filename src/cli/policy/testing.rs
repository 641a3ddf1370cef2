//! `fieldveil policy test PATH…`: the tests beside policies, run by the engine in memory.

use super::report;
use super::report::{Suite, SuiteCase};
use crate::app::policies::{about, load, read, text, walk};
use crate::cli::{Exit, Output, PolicyTestArgs};
use crate::diagnostic::Diagnostic;
use crate::policy::Policies;
use crate::rehearsal::script::{SUFFIX, Script};
use crate::rehearsal::{CaseResult, run};
use serde_json::json;
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Bytes of a body in a file of its own.
const BODY_BYTES_MAX: usize = 16 << 20;

/// What came of one test file.
struct FileResult {
    file: String,
    cases: Vec<CaseResult>,
}

/// Policies by the files and the environment that they were loaded with.
type Loaded = HashMap<(Vec<PathBuf>, Option<String>), Result<Policies, Vec<Diagnostic>>>;

/// Runs, and says what came of it.
///
/// # Errors
/// `out` or `err` cannot be written.
pub fn test(
    args: &PolicyTestArgs,
    output: Output,
    colour: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Exit> {
    let (files, mut broken) = files(&args.paths);
    let mut loaded = Loaded::new();
    let mut results = Vec::new();
    for file in &files {
        match one(file, args.filter.as_deref(), &mut loaded) {
            Ok(result) => results.push(result),
            // A broken policy is broken for each of its test files: once is enough.
            Err(found) => {
                for one in found {
                    if !broken.contains(&one) {
                        broken.push(one);
                    }
                }
            }
        }
    }
    let ran = results.iter().any(|result| !result.cases.is_empty());
    if let (false, true, Some(path)) = (ran, broken.is_empty(), args.paths.first()) {
        broken.push(about(path, "no-tests", "no case has such a name"));
    }
    match output {
        Output::Text => show(&results, &broken, args.verbose, colour, out, err)?,
        Output::Json => {
            let document = document(&results, &broken);
            writeln!(out, "{document}")?;
        }
        Output::Junit => report::junit(&suites(&results, &broken), out)?,
        Output::Github => report::github(&all(&results, &broken), out)?,
        Output::Sarif => report::sarif(&all(&results, &broken), out)?,
    }
    let failed = results.iter().any(|result| result.failed() > 0);
    Ok(match (broken.is_empty(), failed) {
        (false, _) => Exit::Configuration,
        (true, true) => Exit::No,
        (true, false) => Exit::Success,
    })
}

impl FileResult {
    fn failed(&self) -> usize {
        let failed = self.cases.iter().filter(|case| !case.failures.is_empty());
        failed.count()
    }
}

/// The test files of what was named: itself, the one beside a policy, or all of a directory.
fn files(paths: &[PathBuf]) -> (Vec<PathBuf>, Vec<Diagnostic>) {
    let (mut files, mut broken) = (Vec::new(), Vec::new());
    for path in paths {
        let before = files.len();
        let name = path.to_string_lossy();
        let beside = match name.strip_suffix(".yaml") {
            Some(stem) if !name.ends_with(SUFFIX) && !path.is_dir() => {
                PathBuf::from(format!("{stem}{SUFFIX}"))
            }
            _ => path.clone(),
        };
        if let Err(found) = walk(&beside, 0, &|name| name.ends_with(SUFFIX), &mut files) {
            broken.extend(found);
        } else if files.len() == before {
            let message = format!("there is no *{SUFFIX} here");
            broken.push(about(path, "no-tests", message));
        }
    }
    let mut seen = Vec::new();
    files.retain(|file| {
        let new = !seen.contains(file);
        seen.push(file.clone());
        new
    });
    (files, broken)
}

/// Runs one file.
fn one(
    file: &Path,
    filter: Option<&str>,
    loaded: &mut Loaded,
) -> Result<FileResult, Vec<Diagnostic>> {
    let shown = file.display().to_string();
    let mut script = Script::load(&text(file)?, &shown)?;
    if let Some(filter) = filter {
        script.cases.retain(|case| case.name.value.contains(filter));
    }
    let directory = file.parent().unwrap_or(Path::new(""));
    let mut policies: Vec<PathBuf> = script
        .policies
        .iter()
        .map(|name| directory.join(&name.value))
        .collect();
    if policies.is_empty() {
        let own = shown.strip_suffix(SUFFIX).unwrap_or(&shown);
        policies.push(PathBuf::from(format!("{own}.yaml")));
    }
    let key = (policies, script.environment.clone());
    let policies = loaded
        .entry(key)
        .or_insert_with_key(|(paths, environment)| load(paths, environment.as_deref()));
    let policies = policies.as_ref().map_err(Clone::clone)?;
    let cases = run(&script, policies, &|name| {
        let bytes = read(&directory.join(name), BODY_BYTES_MAX)?;
        match bytes.len() > BODY_BYTES_MAX {
            true => Err(format!("it has more than {BODY_BYTES_MAX} bytes")),
            false => Ok(bytes),
        }
    })?;
    Ok(FileResult { file: shown, cases })
}

fn show(
    results: &[FileResult],
    broken: &[Diagnostic],
    verbose: bool,
    colour: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<()> {
    for found in broken {
        writeln!(err, "{}\n", found.render(colour))?;
    }
    let (mut passed, mut failed) = (0, 0);
    for result in results {
        let (count, bad) = (result.cases.len(), result.failed());
        passed += count - bad;
        failed += bad;
        match bad {
            0 => writeln!(out, "{}: {count} passed", result.file)?,
            bad => writeln!(out, "{}: {} passed, {bad} failed", result.file, count - bad)?,
        }
        for case in &result.cases {
            if case.failures.is_empty() {
                if verbose {
                    writeln!(out, "  ok    {}", case.name)?;
                }
                continue;
            }
            writeln!(out, "  FAIL  {}\n", case.name)?;
            for failure in &case.failures {
                for line in failure.render(colour).lines() {
                    writeln!(out, "    {line}")?;
                }
                writeln!(out)?;
            }
        }
    }
    if !results.is_empty() {
        writeln!(out, "{passed} passed, {failed} failed")?;
    }
    if !broken.is_empty() {
        writeln!(err, "{}", super::count(broken.len(), "error"))?;
    }
    Ok(())
}

fn document(results: &[FileResult], broken: &[Diagnostic]) -> serde_json::Value {
    let case = |case: &CaseResult| {
        json!({
            "name": case.name,
            "line": case.line,
            "ok": case.failures.is_empty(),
            "failures": case.failures.iter().map(Diagnostic::to_json).collect::<Vec<_>>(),
        })
    };
    let file = |result: &FileResult| json!({"file": result.file, "cases": result.cases.iter().map(case).collect::<Vec<_>>()});
    let failed: usize = results.iter().map(FileResult::failed).sum();
    let count: usize = results.iter().map(|result| result.cases.len()).sum();
    json!({
        "ok": failed == 0 && broken.is_empty(),
        "passed": count - failed,
        "failed": failed,
        "files": results.iter().map(file).collect::<Vec<_>>(),
        "diagnostics": broken.iter().map(Diagnostic::to_json).collect::<Vec<_>>(),
    })
}

fn all<'r>(results: &'r [FileResult], broken: &'r [Diagnostic]) -> Vec<&'r Diagnostic> {
    let failures = results
        .iter()
        .flat_map(|result| &result.cases)
        .flat_map(|case| &case.failures);
    broken.iter().chain(failures).collect()
}

/// What is broken is a case of its own, so that nobody takes a run without cases for a success.
fn suites<'r>(results: &'r [FileResult], broken: &'r [Diagnostic]) -> Vec<Suite<'r>> {
    let ran = results.iter().map(|result| Suite {
        file: &result.file,
        cases: result
            .cases
            .iter()
            .map(|case| SuiteCase {
                name: &case.name,
                line: case.line,
                failures: case.failures.iter().collect(),
            })
            .collect(),
    });
    let broken = broken.iter().map(|found| Suite {
        file: &found.file,
        cases: vec![SuiteCase {
            name: found.code,
            line: found.line,
            failures: vec![found],
        }],
    });
    ran.chain(broken).collect()
}
