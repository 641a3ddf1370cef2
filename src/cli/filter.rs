//! `fieldveil seal` and `fieldveil open`: records from standard input to standard output, for filling back what is stored
//! already, and for looking into it.
//!
//! What it says goes to standard error, and holds line numbers, codes and counts, never a value.

mod progress;

use super::run::{on_a_runtime, read};
use super::trouble::{self, say};
use super::{
    Exit, FilterArgs, FilterSide, OnOpenError, OnSealError, OpenArgs, Output, SealArgs, colour,
};
use crate::app::{Given, KeyRoom, StartError};
use crate::audit::Side;
use crate::backfill::{self, Job, OnFault, Stop, Summary, Unfit, Verb, Watch};
use crate::diagnostic::{did_you_mean, quoted};
use crate::path::Path;
use crate::policy::{Policies, Route};
use crate::settings::{Overrides, PASSPHRASE_VARIABLE, Settings};
use crate::telemetry;
use crate::transform::Action;
use progress::Progress;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use tracing::level_filters::LevelFilter;

/// Bytes that are read and written at once.
const BUFFER_BYTES: usize = 256 << 10;

/// `fieldveil seal`.
pub fn seal(args: &SealArgs, output: Output) -> Exit {
    let on_fault = match args.on_error {
        OnSealError::Stop => OnFault::Stop,
        OnSealError::Skip => OnFault::Skip,
    };
    let side = side(args.side, Side::Request);
    run(&args.filter, None, Verb::Seal, side, on_fault, output)
}

/// `fieldveil open`.
pub fn open(args: &OpenArgs, output: Output) -> Exit {
    let on_fault = match args.on_error {
        OnOpenError::Stop => OnFault::Stop,
        OnOpenError::Skip => OnFault::Skip,
        OnOpenError::Leave => OnFault::Leave,
    };
    let side = side(args.side, Side::Response);
    let caller = args.caller.as_deref();
    run(&args.filter, caller, Verb::Open, side, on_fault, output)
}

fn side(wanted: Option<FilterSide>, usual: Side) -> Side {
    match wanted {
        None => usual,
        Some(FilterSide::Request) => Side::Request,
        Some(FilterSide::Response) => Side::Response,
    }
}

fn run(
    args: &FilterArgs,
    caller: Option<&str>,
    verb: Verb,
    side: Side,
    on_fault: OnFault,
    output: Output,
) -> Exit {
    let refuse = |unfit: &Unfit| {
        tell(&unfit.what, Some(&unfit.hint), output);
        Exit::Configuration
    };
    let given = match given(args, caller) {
        Ok(given) => given,
        Err(unfit) => return refuse(&unfit),
    };
    let overrides = Overrides {
        config: args.config.clone(),
        environment: args.environment.clone(),
        policies: args.policy.clone(),
        data_dir: args.data_dir.clone(),
        passphrase_in_environment: std::env::var_os(PASSPHRASE_VARIABLE)
            .is_some_and(|value| !value.is_empty()),
        admin_token_in_environment: true,
        ..Overrides::default()
    };
    let settings = match Settings::load_without_listeners(&overrides, read) {
        Ok(settings) => settings,
        Err(found) => return not_started(&StartError::Findings(found), output),
    };
    let settings = match verb {
        Verb::Seal => settings,
        Verb::Open => settings.making_nothing(),
    };
    let log = telemetry::Settings {
        json: output == Output::Json,
        level: LevelFilter::WARN,
        colour: colour(&io::stderr()),
    };
    let _lines = match telemetry::start(log) {
        Ok(lines) => lines,
        Err(error) => return not_started(&StartError::System("no log", error), output),
    };
    let limits = (settings.limits.held_body, settings.limits.keys_per_body);
    on_a_runtime(Output::Text, async {
        let room = match KeyRoom::open(settings, Given::default()).await {
            Ok(room) => room,
            Err(error) => return Ok(not_started(&error, output)),
        };
        let job = route(&room.policies, args.route.as_deref(), verb, side)
            .and_then(|route| Job::new(verb, route, side, &given, on_fault, limits));
        let job = match job {
            Ok(job) => job,
            Err(unfit) => return Ok(refuse(&unfit)),
        };
        let rejects = match rejects(args, on_fault) {
            Ok(rejects) => rejects,
            Err(unfit) => return Ok(refuse(&unfit)),
        };
        let mut watch = Noting {
            rejects,
            progress: Progress::new(args.quiet),
        };
        let input = BufReader::with_capacity(BUFFER_BYTES, io::stdin().lock());
        let out = BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock());
        let mut done = backfill::run(&job, &room.keys, args.ndjson, input, out, &mut watch).await;
        watch.progress.end();
        if let (Some(rejects), Ok(summary)) = (&mut watch.rejects, &done)
            && let Err(error) = rejects.flush()
        {
            done = Err((summary.clone(), Stop::Tell(error)));
        }
        room.keys.close().await;
        Ok(end(verb, done, args.quiet, output))
    })
}

/// What a request would have told.
fn given(args: &FilterArgs, caller: Option<&str>) -> Result<backfill::Given, Unfit> {
    let mut binds = Vec::new();
    for (name, text) in &args.bind {
        let path = Path::parse(text).map_err(|error| Unfit {
            what: format!("--bind {name}: {} is no JSONPath: {error}", quoted(text)),
            hint: "for example --bind record='$.id'".to_owned(),
        })?;
        if !path.is_singular() {
            return Err(Unfit {
                what: format!("--bind {name}: {} may select several values", quoted(text)),
                hint: "names and indexes alone, as in $.customer.id".to_owned(),
            });
        }
        binds.push((name.clone(), path));
    }
    Ok(backfill::Given {
        tenant: args.tenant.clone(),
        caller: caller.map(str::to_owned),
        headers: args.header.clone(),
        query: args.query.clone(),
        path: args.path.clone(),
        binds,
    })
}

/// The route of this name, or the only one that fits.
fn route<'p>(
    policies: &'p Policies,
    name: Option<&str>,
    verb: Verb,
    side: Side,
) -> Result<&'p Route, Unfit> {
    let names = || policies.routes().map(|route| &*route.name);
    let Some(name) = name else {
        let fits = |route: &&Route| {
            let rules = match side {
                Side::Request => &route.request_rules,
                Side::Response => &route.response_rules,
            };
            rules.iter().any(|rule| match rule.action {
                Action::Seal(_) => verb == Verb::Seal,
                Action::Open(_) => verb == Verb::Open,
                Action::Pass => false,
            })
        };
        let mut fitting = policies.routes().filter(fits);
        return match (fitting.next(), fitting.next()) {
            (Some(only), None) => Ok(only),
            (first, _) => Err(Unfit {
                what: match first {
                    Some(_) => "several routes have such rules: which one is meant?".to_owned(),
                    None => format!("no route has rules that {}", verb.word()),
                },
                hint: format!(
                    "name one with --route: {}",
                    Vec::from_iter(names()).join(", ")
                ),
            }),
        };
    };
    let found = policies.routes().find(|route| *route.name == *name);
    found.ok_or_else(|| Unfit {
        what: format!("there is no route {}", quoted(name)),
        hint: did_you_mean(name, names())
            .unwrap_or_else(|| format!("routes: {}", Vec::from_iter(names()).join(", "))),
    })
}

/// The file of what is left out.
fn rejects(args: &FilterArgs, on_fault: OnFault) -> Result<Option<BufWriter<File>>, Unfit> {
    match (&args.rejects, on_fault) {
        (Some(path), OnFault::Skip) => {
            let mut options = OpenOptions::new();
            let file = options.write(true).create_new(true).mode(0o600).open(path);
            file.map(|file| Some(BufWriter::new(file)))
                .map_err(|error| Unfit {
                    what: format!("{}: cannot be made: {error}", path.display()),
                    hint: "name a file that is not there yet, in a directory that is".to_owned(),
                })
        }
        (None, OnFault::Skip) => Err(Unfit {
            what: "--on-error skip leaves records out, and there is nowhere to note which"
                .to_owned(),
            hint: "add --rejects FILE".to_owned(),
        }),
        (Some(_), _) => Err(Unfit {
            what: "--rejects is for --on-error skip; otherwise nothing is left out".to_owned(),
            hint: "add --on-error skip, or leave --rejects out".to_owned(),
        }),
        (None, _) => Ok(None),
    }
}

struct Noting {
    rejects: Option<BufWriter<File>>,
    progress: Progress,
}

impl Watch for Noting {
    fn skipped(&mut self, line: u64, code: &'static str) -> io::Result<()> {
        match &mut self.rejects {
            Some(rejects) => writeln!(rejects, "{line}\t{code}"),
            None => Ok(()),
        }
    }

    fn progress(&mut self, summary: &Summary) {
        self.progress.show(summary);
    }
}

/// Says what was done, and decides how the program ends.
fn end(verb: Verb, done: Result<Summary, (Summary, Stop)>, quiet: bool, output: Output) -> Exit {
    let (summary, stop) = match done {
        Ok(summary) => (summary, None),
        Err((summary, stop)) => (summary, Some(stop)),
    };
    let ended = stop.as_ref().map(|stop| trouble_of(verb, stop, &summary));
    let exit = match &ended {
        Some(ended) => ended.exit,
        None if summary.skipped + summary.left > 0 => Exit::No,
        None => Exit::Success,
    };
    let mut err = io::stderr().lock();
    if output == Output::Json {
        let error = ended.as_ref().map(|ended| {
            json!({"line": ended.line, "code": ended.code, "message": ended.what, "hint": ended.hint})
        });
        let document = json!({
            "ok": exit == Exit::Success,
            "records": summary.records,
            "written": summary.written,
            "skipped": summary.skipped,
            "left": summary.left,
            "bytes": summary.bytes,
            "line": summary.line,
            "sealed": summary.sealed,
            "kept": summary.kept,
            "opened": summary.opened,
            "unopened": summary.unopened,
            "strays": summary.strays,
            "unclaimed": summary.unclaimed,
            "plaintext": summary.plaintext,
            "error": error,
        });
        if !quiet || error.is_some() {
            // Where nobody can read it, nothing can be done about it.
            let _ = writeln!(err, "{document}");
        }
        return exit;
    }
    if !quiet && exit != Exit::PipeClosed {
        let _ = writeln!(err, "{}", sentence(verb, &summary));
    }
    drop(err);
    if let Some(ended) = ended.filter(|ended| ended.exit != Exit::PipeClosed) {
        say(&ended.what, Some(&ended.hint));
    }
    exit
}

/// `sealed 7 values in 3 records (email 3, ssn 4); 1 skipped`.
fn sentence(verb: Verb, summary: &Summary) -> String {
    let (classes, done) = match verb {
        Verb::Seal => (&summary.sealed, "sealed"),
        Verb::Open => (&summary.opened, "opened"),
    };
    let values: u64 = classes.values().sum();
    let plural = |count: u64, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    let mut text = format!(
        "{done} {} in {}",
        plural(values, "value"),
        plural(summary.written, "record")
    );
    let each: Vec<String> = classes
        .iter()
        .map(|(class, n)| format!("{class} {n}"))
        .collect();
    if !each.is_empty() {
        text += &format!(" ({})", each.join(", "));
    }
    let more = [
        (summary.kept.values().sum(), "sealed before and kept"),
        (summary.unopened.values().sum(), "stayed sealed"),
        (summary.plaintext, "at opening places were no tokens"),
        (summary.strays, "tokens where no rule looks"),
        (summary.unclaimed, "values that no rule names"),
        (summary.skipped, "records skipped"),
        (summary.left, "records left as they were, in part or whole"),
    ];
    for (count, what) in more.into_iter().filter(|(count, _)| *count > 0) {
        text += &format!("; {count} {what}");
    }
    text
}

struct Ended {
    exit: Exit,
    line: Option<u64>,
    code: &'static str,
    what: String,
    hint: String,
}

fn trouble_of(verb: Verb, stop: &Stop, summary: &Summary) -> Ended {
    let resume = match summary.line {
        0 => "nothing was written".to_owned(),
        line => format!(
            "lines up to {line} are done; to go on: tail -n +{}",
            line + 1
        ),
    };
    match stop {
        Stop::Record {
            line,
            fault,
            document,
        } => {
            let note = match fault.note.is_empty() {
                true => String::new(),
                false => format!(" ({})", fault.note),
            };
            let hint = match (document, fault.code) {
                (true, "not-json" | "body-too-large") => {
                    "the first line is no document by itself, so the input was taken for one; if every line is one, say --ndjson".to_owned()
                }
                (_, "body-too-large") => "raise limits.held_body in the settings".to_owned(),
                (true, _) => "nothing was written".to_owned(),
                (false, _) => format!(
                    "{resume}; --on-error skip --rejects FILE leaves such records out"
                ),
            };
            Ended {
                exit: Exit::Data,
                line: Some(*line),
                code: fault.code,
                what: format!("line {line}: {}: {}{note}", fault.code, fault.title),
                hint,
            }
        }
        Stop::Keys { line, error } => {
            let row = error.code().row();
            let note = match error.note() {
                "" => String::new(),
                note => format!(" ({note})"),
            };
            Ended {
                exit: Exit::Unavailable,
                line: Some(*line),
                code: row.word,
                what: format!(
                    "cannot {} from line {line} on: {}{note}",
                    verb.word(),
                    row.title
                ),
                hint: resume,
            }
        }
        Stop::Read(error) => ended(
            Exit::Unavailable,
            "read",
            "standard input cannot be read",
            error,
            resume,
        ),
        Stop::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => ended(
            Exit::PipeClosed,
            "pipe",
            "whoever read the output stopped",
            error,
            resume,
        ),
        Stop::Write(error) => ended(
            Exit::Unavailable,
            "write",
            "standard output cannot be written",
            error,
            resume,
        ),
        Stop::Tell(error) => ended(
            Exit::Unavailable,
            "rejects",
            "the file of rejects cannot be written",
            error,
            resume,
        ),
    }
}

fn ended(exit: Exit, code: &'static str, what: &str, error: &io::Error, hint: String) -> Ended {
    Ended {
        exit,
        line: None,
        code,
        what: format!("{what}: {error}"),
        hint,
    }
}

/// Standard output belongs to records: everything else is told on standard error.
fn tell(what: &str, hint: Option<&str>, output: Output) {
    if output == Output::Json {
        let document = json!({"ok": false, "error": {"message": what, "hint": hint}});
        let _ = writeln!(io::stderr().lock(), "{document}");
    } else {
        say(what, hint);
    }
}

fn not_started(error: &StartError, output: Output) -> Exit {
    if output == Output::Json {
        let document = match error {
            StartError::Findings(found) => {
                let found: Vec<_> = found
                    .iter()
                    .map(crate::diagnostic::Diagnostic::to_json)
                    .collect();
                json!({"ok": false, "diagnostics": found})
            }
            other => {
                json!({"ok": false, "error": {"message": other.to_string(), "hint": other.hint()}})
            }
        };
        let _ = writeln!(io::stderr().lock(), "{document}");
        return match error.is_unavailability() {
            true => Exit::Unavailable,
            false => Exit::Configuration,
        };
    }
    trouble::not_started(error, Output::Text)
}

/// Whether both ends of the work are out of a person's sight, and standard error is in it.
fn is_watched() -> bool {
    io::stderr().is_terminal() && !io::stdout().is_terminal()
}
