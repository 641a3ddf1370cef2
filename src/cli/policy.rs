//! `fieldveil policy …`: what is wrong with policies, whether they do what their tests expect, and why.

mod coverage;
mod difference;
mod explain;
mod format;
mod report;
mod testing;

use super::{Deny, Exit, Output, PolicyCheckArgs, PolicyCommand, SchemaOf};
use crate::app::policies::load;
use crate::diagnostic::{Diagnostic, Severity, printable};
use crate::policy::{Policy, lint, schema};
use crate::transform::{Action, Reveal, Rule};
use report::{Suite, SuiteCase};
use std::io::{self, Write};

/// Does what a command says: answers on `out`, what is wrong on `err`.
///
/// # Errors
/// `out` or `err` cannot be written.
pub fn run(
    command: &PolicyCommand,
    output: Output,
    colour: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Exit> {
    match command {
        PolicyCommand::Check(args) => check(args, output, colour, out, err),
        PolicyCommand::Test(args) => testing::test(args, output, colour, out, err),
        PolicyCommand::Explain(args) => explain::explain(args, output, colour, out, err),
        PolicyCommand::Coverage(args) => coverage::coverage(args, output, colour, out, err),
        PolicyCommand::Diff(args) => difference::diff(args, output, colour, out, err),
        PolicyCommand::Fmt(args) => format::format(args, output, colour, out, err),
        PolicyCommand::Schema(args) => {
            let schema = match args.of {
                SchemaOf::Policy => schema::policy(),
                SchemaOf::Test => crate::rehearsal::script::schema(),
            };
            writeln!(out, "{schema:#}")?;
            Ok(Exit::Success)
        }
    }
}

/// Checks, and says what it found: text for people (findings on `err`), or one document on `out`.
///
/// # Errors
/// `out` or `err` cannot be written.
pub fn check(
    args: &PolicyCheckArgs,
    output: Output,
    colour: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Exit> {
    let loaded = load(&args.paths, args.environment.as_deref());
    let (policies, found): (Vec<&Policy>, Vec<Diagnostic>) = match &loaded {
        Ok(policies) => (policies.iter().collect(), lint(policies)),
        Err(found) => (Vec::new(), found.clone()),
    };
    let of = |severity| found.iter().filter(|one| one.severity == severity).count();
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    let denied = args.deny == Some(Deny::Warnings) && warnings > 0;
    let ok = errors == 0 && !denied;
    let all: Vec<&Diagnostic> = found.iter().collect();
    match output {
        Output::Text => {
            for one in &found {
                writeln!(err, "{}\n", one.render(colour))?;
            }
            for policy in &policies {
                let (routes, classes) = (policy.routes.len(), policy.classes.len());
                writeln!(
                    out,
                    "{}: ok: policy {}, {classes} classes, {routes} routes",
                    policy.file(),
                    policy.name
                )?;
            }
            match (errors, warnings) {
                (0, 0) => {}
                (0, warnings) => writeln!(err, "{} found", count(warnings, "warning"))?,
                (errors, _) => writeln!(err, "{} found", count(errors, "error"))?,
            }
        }
        Output::Json => {
            let summary = |policy: &&Policy| {
                serde_json::json!({
                    "file": policy.file(),
                    "policy": &*policy.name,
                    "classes": policy.classes.iter().map(|class| &*class.name).collect::<Vec<_>>(),
                    "routes": policy.routes.iter().map(|route| &*route.name).collect::<Vec<_>>(),
                })
            };
            let document = serde_json::json!({
                "ok": ok,
                "policies": policies.iter().map(summary).collect::<Vec<_>>(),
                "diagnostics": found.iter().map(Diagnostic::to_json).collect::<Vec<_>>(),
            });
            writeln!(out, "{document}")?;
        }
        Output::Github => report::github(&all, out)?,
        Output::Sarif => report::sarif(&all, out)?,
        Output::Junit => report::junit(&suites(&policies, &found, args.deny), out)?,
    }
    Ok(if ok {
        Exit::Success
    } else {
        Exit::Configuration
    })
}

/// A file is a case; it fails by what ends the check with an error.
fn suites<'r>(
    policies: &[&'r Policy],
    found: &'r [Diagnostic],
    deny: Option<Deny>,
) -> Vec<Suite<'r>> {
    let least = match deny {
        Some(Deny::Warnings) => Severity::Warning,
        None => Severity::Error,
    };
    let mut files: Vec<&str> = policies.iter().map(|policy| policy.file()).collect();
    files.extend(found.iter().map(|one| &*one.file));
    files.sort_unstable();
    files.dedup();
    let suite = |file: &'r str| Suite {
        file,
        cases: vec![SuiteCase {
            name: "check",
            line: 1,
            failures: found
                .iter()
                .filter(|one| *one.file == *file && one.severity >= least)
                .collect(),
        }],
    };
    files.into_iter().map(suite).collect()
}

/// What is wrong, where a command cannot go on.
fn refuse(
    found: &[Diagnostic],
    output: Output,
    colour: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<()> {
    if output == Output::Json {
        let found: Vec<_> = found.iter().map(Diagnostic::to_json).collect();
        let document = serde_json::json!({"ok": false, "diagnostics": found});
        return writeln!(out, "{document}");
    }
    for one in found {
        writeln!(err, "{}\n", one.render(colour))?;
    }
    writeln!(err, "{} found", count(found.len(), "error"))
}

/// `seal ssn`, `open *`, `pass`; `open pan (masked; billing full)`.
fn deed(rule: &Rule) -> String {
    let opens = match &rule.action {
        Action::Seal(class) => return format!("seal {}", class.name),
        Action::Pass => return "pass".to_owned(),
        Action::Open(classes) if classes.len() == 1 => format!("open {}", classes[0].name),
        Action::Open(_) => "open *".to_owned(),
    };
    let reveal = &rule.reveal;
    if *reveal == Reveal::default() {
        return opens;
    }
    let mut shown = vec![reveal.default.word().to_owned()];
    let callers = reveal.callers.iter();
    shown.extend(callers.map(|(name, level)| format!("{} {}", printable(name), level.word())));
    format!("{opens} ({})", shown.join("; "))
}

/// `1 error`, `2 errors`.
fn count(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marked::TEXT_BYTES_MAX;
    use std::fs;

    const GOOD: &str = "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {name: NAME}\nroutes: [{name: NAME, match: {}}]\n";

    struct Place(tempfile::TempDir);

    impl Place {
        fn new(files: &[(&str, &str)]) -> Place {
            let place = tempfile::tempdir().expect("a directory");
            for (name, text) in files {
                let path = place.path().join(name);
                fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
                fs::write(path, text).expect("a file");
            }
            Place(place)
        }

        /// Exit, standard output and standard error, with the place's own name taken out.
        fn check(&self, paths: &[&str], output: Output) -> (Exit, String, String) {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let paths = paths.iter().map(|path| self.0.path().join(path)).collect();
            let args = PolicyCheckArgs {
                paths,
                environment: None,
                deny: None,
            };
            let exit =
                check(&args, output, false, &mut out, &mut err).expect("memory can be written");
            let here = format!("{}/", self.0.path().display());
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8").replace(&here, "");
            (exit, text(out), text(err))
        }
    }

    fn named(name: &str) -> String {
        GOOD.replace("NAME", name)
    }

    #[test]
    fn directories_are_searched_in_order() {
        let place = Place::new(&[
            ("b.yaml", &named("b")),
            ("a/z.yaml", &named("z")),
            ("c.yml", "not: read"),
            ("notes.txt", "not read"),
            ("..data/b.yaml", "not read"),
            (".hidden.yaml", "not read"),
        ]);
        let (exit, out, err) = place.check(&["."], Output::Text);
        assert_eq!((exit, err.as_str()), (Exit::Success, ""));
        let files: Vec<&str> = out
            .lines()
            .filter_map(|line| line.split(": ok").next())
            .collect();
        assert_eq!(files, ["./a/z.yaml", "./b.yaml"]);
        // A file that is named twice is one file.
        assert_eq!(
            place
                .check(&["b.yaml", "b.yaml", "a/../b.yaml"], Output::Text)
                .0,
            Exit::Success
        );
    }

    #[test]
    fn findings_of_all_files_come_together() {
        let place = Place::new(&[
            ("a.yaml", &named("a")),
            ("b.yaml", &named("b").replace("match", "mach")),
            ("c.yaml", &named("a").replace("[{name: a", "[{name: c")),
            ("d.yaml", "\u{feff}["),
            ("empty/x.txt", ""),
        ]);
        let (exit, out, err) = place.check(
            &["a.yaml", "b.yaml", "c.yaml", "d.yaml", "empty", "none.yaml"],
            Output::Text,
        );
        assert_eq!((exit, out.as_str()), (Exit::Configuration, ""));
        for expected in [
            "b.yaml:4:20: error[unknown-word]: unknown word `mach` in a route\n",
            "= hint: did you mean `match`?\n",
            "c.yaml:3:18: error[duplicate-policy]: a policy `a` is already in a.yaml\n",
            "d.yaml:1:",
            "empty:1:1: error[no-policies]",
            "none.yaml:1:1: error[unreadable]",
        ] {
            assert!(err.contains(expected), "{expected}\n{err}");
        }
        assert!(err.ends_with("errors found\n"), "{err}");
    }

    #[test]
    fn for_programs() {
        let place = Place::new(&[("a.yaml", &named("a")), ("b.yaml", "a: b")]);
        let parse = |text: &str| {
            serde_json::from_str::<serde_json::Value>(text).expect("one JSON document")
        };
        let (exit, out, err) = place.check(&["a.yaml"], Output::Json);
        assert_eq!((exit, err.as_str()), (Exit::Success, ""));
        assert_eq!(
            parse(&out),
            serde_json::json!({"ok": true, "diagnostics": [],
                "policies": [{"file": "a.yaml", "policy": "a", "classes": [], "routes": ["a"]}]})
        );
        let (exit, out, _) = place.check(&["a.yaml", "b.yaml"], Output::Json);
        let found = parse(&out);
        assert_eq!(
            (exit, &found["ok"]),
            (Exit::Configuration, &serde_json::json!(false))
        );
        assert_eq!(found["diagnostics"][0]["code"], "missing-word");
        assert_eq!(found["diagnostics"][0]["line"], 1);
    }

    #[test]
    fn files_that_are_no_text_or_too_long() {
        let place = Place::new(&[("long.yaml", &format!("a: {}", "é".repeat(TEXT_BYTES_MAX)))]);
        fs::write(place.0.path().join("latin.yaml"), b"a: \xe9").expect("a file");
        let (_, _, err) = place.check(&["long.yaml"], Output::Text);
        assert!(err.contains("too-large"), "{err}");
        assert!(
            place
                .check(&["latin.yaml"], Output::Text)
                .2
                .contains("unreadable")
        );
    }
}
