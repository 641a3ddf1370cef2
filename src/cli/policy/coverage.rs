//! `fieldveil policy coverage --policy P BODY…`: which values of sample bodies no rule names.

use super::report::{self, Suite, SuiteCase};
use crate::app::policies::{about, load, read};
use crate::cli::{CoverageSide, Exit, Output, PolicyCoverageArgs};
use crate::diagnostic::{Diagnostic, Severity, Source, Span, did_you_mean, printable, quoted};
use crate::policy::{Policies, Route};
use crate::transform::{Action, Place, Refusal, Rule, Rules, places};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

/// Bytes of one sample.
const SAMPLE_BYTES_MAX: usize = 64 << 20;

/// The scalars at places that look alike.
#[derive(Default)]
struct Line {
    /// In the order in which they were first seen.
    first: usize,
    count: usize,
    unnamed: usize,
    /// What the rules do there, each once.
    claims: Vec<String>,
    /// The first of those that no rule names: in which sample, and where it is said to stand.
    example: Option<Diagnostic>,
}

/// Counts, and says what no rule names.
///
/// # Errors
/// `out` or `err` cannot be written.
pub fn coverage(
    args: &PolicyCoverageArgs,
    output: Output,
    colour: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Exit> {
    let counted = load(&args.policy, None).and_then(|policies| {
        let route = route(&policies, args)?;
        let (rules, written) = match args.side {
            CoverageSide::Request => (&route.request, &route.request_rules),
            CoverageSide::Response => (&route.response, &route.response_rules),
        };
        let lines = count(rules, written, &args.bodies)?;
        Ok((route.name.to_string(), lines))
    });
    let (route, lines) = match counted {
        Ok(counted) => counted,
        Err(found) => {
            super::refuse(&found, output, colour, out, err)?;
            return Ok(Exit::Configuration);
        }
    };
    let (all, unnamed) = lines.iter().fold((0, 0), |(all, unnamed), (_, line)| {
        (all + line.count, unnamed + line.unnamed)
    });
    // Of nothing, all is named. Rounded down: 100 % means all.
    let percent = ((all - unnamed) * 1000).checked_div(all).unwrap_or(1000);
    let enough = args
        .fail_under
        .is_none_or(|least| percent >= usize::from(least) * 10);
    if output.is_report() {
        let found = uncovered(lines, enough, args.fail_under.is_some());
        report(&found, args, enough, output, out)?;
    } else if output == Output::Json {
        let line = |(path, line): &(String, Line)| json!({"path": path, "count": line.count, "unnamed": line.unnamed, "rules": line.claims});
        let document = json!({
            "ok": enough,
            "route": route,
            "values": all,
            "unnamed": unnamed,
            "percent": percent as f64 / 10.0,
            "paths": lines.iter().map(line).collect::<Vec<_>>(),
        });
        writeln!(out, "{document}")?;
    } else {
        let width = lines.iter().map(|(path, _)| path.chars().count()).max();
        let width = width.unwrap_or_default().clamp(4, 60);
        for (path, line) in &lines {
            let what = match line.claims.is_empty() {
                true => "no rule".to_owned(),
                false => line.claims.join(", "),
            };
            let some = match line.unnamed {
                0 => String::new(),
                unnamed if unnamed == line.count => String::new(),
                unnamed => format!(" ({unnamed} of them: no rule)"),
            };
            let mark = if line.unnamed > 0 { '-' } else { ' ' };
            let path = printable(path);
            writeln!(out, "{mark} {path:width$}  {:>6}  {what}{some}", line.count)?;
        }
        writeln!(
            out,
            "\nroute {route}: {} of {all} values are named by a rule, {}.{} %",
            all - unnamed,
            percent / 10,
            percent % 10
        )?;
        if let (false, Some(least)) = (enough, args.fail_under) {
            writeln!(err, "less than {least} %")?;
        }
    }
    Ok(if enough { Exit::Success } else { Exit::No })
}

/// A finding for each path at which no rule names a value: errors where that is too many, a notice where it is known to be few enough.
fn uncovered(lines: Vec<(String, Line)>, enough: bool, judged: bool) -> Vec<Diagnostic> {
    let severity = match (enough, judged) {
        (false, _) => Severity::Error,
        (true, true) => Severity::Info,
        (true, false) => Severity::Warning,
    };
    let told = |(path, line): (String, Line)| {
        let mut found = line.example?;
        let values = super::count(line.unnamed, "value");
        found.message = format!("no rule names {} ({values})", printable(&path));
        let hint = "add a rule for it: seal, or pass: true if it may go";
        Some(found.severity(severity).hint(hint))
    };
    lines.into_iter().filter_map(told).collect()
}

/// In the formats that other programs read. A sample is a case; it fails where too little is named.
fn report(
    found: &[Diagnostic],
    args: &PolicyCoverageArgs,
    enough: bool,
    output: Output,
    out: &mut dyn Write,
) -> io::Result<()> {
    let all: Vec<&Diagnostic> = found.iter().collect();
    if output != Output::Junit {
        return match output {
            Output::Sarif => report::sarif(&all, out),
            _ => report::github(&all, out),
        };
    }
    let names: Vec<String> = args
        .bodies
        .iter()
        .map(|f| f.display().to_string())
        .collect();
    let mut suites = Vec::with_capacity(names.len());
    for file in &names {
        let here = found.iter().filter(|one| !enough && *one.file == **file);
        suites.push(Suite {
            file,
            cases: vec![SuiteCase {
                name: "coverage",
                line: 1,
                failures: here.collect(),
            }],
        });
    }
    report::junit(&suites, out)
}

/// The route that was named, or the only one with rules on that side.
fn route<'p>(
    policies: &'p Policies,
    args: &PolicyCoverageArgs,
) -> Result<&'p Route, Vec<Diagnostic>> {
    let place = args.policy.first().cloned().unwrap_or_default();
    let with_rules = |route: &&Route| match args.side {
        CoverageSide::Request => !route.request.is_empty(),
        CoverageSide::Response => !route.response.is_empty(),
    };
    let names = policies.routes().map(|route| &*route.name);
    let Some(name) = &args.route else {
        let mut routes = policies.routes().filter(with_rules);
        return match (routes.next(), routes.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(vec![about(
                &place,
                "unknown-route",
                "no route has such rules",
            )]),
            _ => {
                let message = "several routes have such rules: name one with --route";
                let found = about(&place, "unknown-route", message);
                Err(vec![found.hint(format!(
                    "routes: {}",
                    Vec::from_iter(names).join(", ")
                ))])
            }
        };
    };
    let mut routes = policies.routes();
    routes.find(|route| *route.name == **name).ok_or_else(|| {
        let message = format!("there is no route {}", quoted(name));
        let hint = did_you_mean(name, policies.routes().map(|route| &*route.name));
        vec![about(&place, "unknown-route", message).maybe_hint(hint)]
    })
}

fn count(
    rules: &Rules,
    written: &[Rule],
    bodies: &[PathBuf],
) -> Result<Vec<(String, Line)>, Vec<Diagnostic>> {
    let mut lines: BTreeMap<String, Line> = BTreeMap::new();
    let mut found = Vec::new();
    for file in bodies {
        let body = match read(file, SAMPLE_BYTES_MAX) {
            Ok(body) if body.len() <= SAMPLE_BYTES_MAX => body,
            Ok(_) => {
                let message = format!("at most {SAMPLE_BYTES_MAX} bytes are read");
                found.push(about(file, "too-large", message));
                continue;
            }
            Err(what) => {
                found.push(about(file, "unreadable", format!("cannot be read: {what}")));
                continue;
            }
        };
        match places(rules, &body) {
            Ok(places) => {
                let text = String::from_utf8_lossy(&body);
                let source = Source::new(&file.display().to_string(), &text);
                add(&places, written, &source, &mut lines);
            }
            Err(refusal) => {
                let message = match refusal {
                    Refusal::NotJson { offset, what } => {
                        format!("not one JSON document: byte {offset}: {what}")
                    }
                    refusal => format!("cannot be searched: {}", refusal.word()),
                };
                found.push(about(file, "bad-body", message));
            }
        }
    }
    if !found.is_empty() {
        return Err(found);
    }
    let mut lines: Vec<(String, Line)> = lines.into_iter().collect();
    lines.sort_by_key(|(_, line)| line.first);
    Ok(lines)
}

/// Adds the scalars of one body; those within a sealed or passed value count as named.
fn add(places: &[Place], written: &[Rule], source: &Source, lines: &mut BTreeMap<String, Line>) {
    // Behind the value that is sealed whole: what lies before, lies in it.
    let mut sealed: Option<(usize, String)> = None;
    for place in places {
        let inside = sealed.as_ref().filter(|(end, _)| place.start < *end);
        let claim = match inside {
            Some((_, claim)) => Some(claim.clone()),
            None => {
                let decides = |rule: &&usize| match written.get(**rule).map(|r| &r.action) {
                    Some(Action::Open(_)) | None => false,
                    Some(Action::Seal(_) | Action::Pass) => true,
                };
                let first = place.rules.iter().find(decides).or(place.rules.first());
                let claim = first.and_then(|rule| Some(said(*rule, written.get(*rule)?)));
                let seals = first.is_some_and(|rule| {
                    matches!(written.get(*rule).map(|r| &r.action), Some(Action::Seal(_)))
                });
                if let (true, Some(claim)) = (seals, &claim) {
                    sealed = Some((place.end, claim.clone()));
                }
                claim
            }
        };
        if !place.kind.is_scalar() {
            continue;
        }
        let next = lines.len();
        let line = lines.entry(place.general()).or_insert_with(|| Line {
            first: next,
            ..Line::default()
        });
        line.count += 1;
        match claim {
            Some(claim) if !line.claims.contains(&claim) => line.claims.push(claim),
            Some(_) => {}
            None => {
                line.unnamed += 1;
                line.example.get_or_insert_with(|| {
                    let span = Span::new(place.start, place.end);
                    // The line is somebody's data.
                    source.diagnostic("uncovered", span, "").without_line()
                });
            }
        }
    }
}

/// `seal ssn, rule 1`.
fn said(index: usize, rule: &Rule) -> String {
    let what = super::deed(rule);
    format!("{what} (rule {})", index + 1)
}
