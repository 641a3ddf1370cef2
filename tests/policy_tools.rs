//! The policy's tools from end to end: the worked policies pass their tests, broken ones fail usefully, and each finding of the
//! checker has a case that shows it and one that does not.
//!
//! Golden cases are files: `tests/failing_cases/NAME.yaml` and `NAME.test.yaml`, run by `policy test`, and
//! `tests/lint_cases/NAME.yaml`, read by `policy check`; beside each, in `NAME.txt`, what a person is shown. With
//! `FIELDVEIL_BLESS=1` they are written, to be read before they are committed.

use fieldveil::cli::{Cli, Command, Exit, Output, policy};
use fieldveil::policy::schema;
use fieldveil::rehearsal::script;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

mod schema_validator;
use schema_validator::{as_json, known, mappings, validate};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command line in memory: how it ends, standard output, standard error. `{}` stands for `place`, and is put back.
fn run(line: &[&str], place: &Path) -> (Exit, String, String) {
    let place = place.display().to_string();
    let words = line.iter().map(|word| word.replace("{}", &place));
    let words = std::iter::once("fieldveil".to_owned()).chain(words);
    let cli = Cli::from_arguments(words.map(Into::into)).expect("a command line");
    let Command::Policy(command) = &cli.command else {
        panic!("not a command about policies: {line:?}")
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = policy::run(command, cli.output, false, &mut out, &mut err);
    let text = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).expect("UTF-8");
        text.replace(&format!("{place}/"), "").replace(&place, ".")
    };
    (exit.expect("memory can be written"), text(out), text(err))
}

fn files(directory: &Path, suffix: &str) -> Vec<String> {
    let names = fs::read_dir(directory).expect("the cases").map(|entry| {
        let name = entry.expect("a case").file_name();
        name.to_string_lossy().into_owned()
    });
    let mut names: Vec<String> = names.filter(|name| name.ends_with(suffix)).collect();
    names.sort();
    names
}

/// Compares what is shown with what is expected, for every case of a directory.
fn golden(directory: &str, suffix: &str, command: &[&str]) -> Vec<(String, String)> {
    let directory = root().join("tests").join(directory);
    let mut wrong = Vec::new();
    let mut shown = Vec::new();
    for file in files(&directory, suffix) {
        let name = file.strip_suffix(suffix).expect("the suffix");
        let path = format!("{{}}/{file}");
        let line: Vec<&str> = command.iter().copied().chain([path.as_str()]).collect();
        let (exit, out, err) = run(&line, &directory);
        let text = format!("exit {}\n\n{out}{err}", exit as u8);
        let expected = directory.join(format!("{name}.txt"));
        if std::env::var_os("FIELDVEIL_BLESS").is_some() {
            fs::write(&expected, &text).expect("the expectation can be written");
        } else if fs::read_to_string(&expected).ok().as_deref() != Some(&*text) {
            wrong.push(format!("{name}:\n{text}"));
        }
        shown.push((name.to_owned(), text));
    }
    assert!(wrong.is_empty(), "not as expected:\n{}", wrong.join("\n"));
    shown
}

#[test]
fn the_worked_policies_pass_their_tests() {
    let place = root().join("policies");
    let (exit, out, err) = run(&["policy", "test", "{}"], &place);
    assert_eq!((exit, err.as_str()), (Exit::Success, ""), "{out}");
    let policies = files(&place, ".yaml");
    let policies = policies
        .iter()
        .filter(|name| !name.ends_with(script::SUFFIX));
    for policy in policies {
        let stem = policy.strip_suffix(".yaml").expect("a policy");
        assert!(
            out.contains(&format!("{stem}.test.yaml: ")),
            "{policy} has no tests"
        );
    }
    let (exit, _, err) = run(&["policy", "check", "--deny", "warnings", "{}"], &place);
    assert_eq!((exit, err.as_str()), (Exit::Success, ""));
}

#[test]
fn broken_policies_fail_usefully() {
    let shown = golden("failing_cases", ".test.yaml", &["policy", "test"]);
    assert!(shown.len() >= 10);
    for (name, text) in shown {
        let ends = text.lines().next().expect("an exit");
        assert!(matches!(ends, "exit 1" | "exit 78"), "{name}: {ends}");
        assert!(text.contains("error["), "{name}");
    }
}

#[test]
fn each_finding_has_a_case_for_and_one_against() {
    let shown = golden("lint_cases", ".yaml", &["policy", "check"]);
    let page = fs::read_to_string(root().join("docs/policy.md")).expect("a page");
    for (name, text) in shown {
        let code = name.strip_suffix("-not").unwrap_or(&name);
        let found = text.contains(&format!("[{code}]"));
        assert_eq!(found, code == name, "{name}: {text}");
        assert!(
            text.starts_with("exit 0\n"),
            "{name}: warnings end nothing unless denied"
        );
        assert!(
            page.contains(&format!("`{code}`")),
            "{code} is not documented"
        );
    }
    let place = root().join("tests/lint_cases");
    let denied = |file: &str| run(&["policy", "check", "--deny", "warnings", file], &place).0;
    assert_eq!(denied("{}/unused-class.yaml"), Exit::Configuration);
    assert_eq!(
        denied("{}/never-opened.yaml"),
        Exit::Success,
        "an info is no warning"
    );
}

#[test]
fn every_output_says_the_same() {
    let place = root().join("tests/failing_cases");
    let file = "{}/values-differ.test.yaml";
    let shown = |output: &str| run(&["--output", output, "policy", "test", file], &place);
    let (exit, text, _) = shown("text");
    assert_eq!(exit, Exit::No);
    let failures = text.matches(": error[").count();
    assert!(failures > 3, "{text}");
    let (_, github, _) = shown("github");
    assert_eq!(
        github
            .matches("::error file=values-differ.test.yaml,line=")
            .count(),
        failures
    );
    let (_, sarif, _) = shown("sarif");
    let sarif: Value = serde_json::from_str(&sarif).expect("JSON");
    assert_eq!(
        sarif["runs"][0]["results"].as_array().map(Vec::len),
        Some(failures)
    );
    let (_, json, _) = shown("json");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        json["files"][0]["cases"][0]["failures"]
            .as_array()
            .map(Vec::len),
        Some(failures)
    );
    assert_eq!((&json["ok"], &json["failed"]), (&json!(false), &json!(1)));
    let (_, junit, _) = shown("junit");
    assert!(junit.contains("tests=\"1\" failures=\"1\""), "{junit}");
    assert_eq!(junit.matches(": error[").count(), failures);
    // What cannot be run is no success in any format.
    for output in ["text", "json", "junit", "github", "sarif"] {
        let file = "{}/policy-broken.test.yaml";
        let (exit, out, err) = run(&["policy", "test", "--output", output, file], &place);
        assert_eq!(exit, Exit::Configuration, "{output}");
        assert!(
            out.contains("unknown-class") || err.contains("unknown-class"),
            "{output}"
        );
    }
}

#[test]
fn cases_are_chosen_and_listed() {
    let place = root().join("policies");
    let (exit, out, _) = run(
        &[
            "policy",
            "test",
            "-v",
            "--filter",
            "token of another",
            "{}/payments.yaml",
        ],
        &place,
    );
    assert_eq!(exit, Exit::Success);
    assert!(
        out.contains("payments.test.yaml: 1 passed\n  ok    a token of another customer"),
        "{out}"
    );
    let nothing = ["policy", "test", "--filter", "no such case", "{}"];
    assert_eq!(run(&nothing, &place).0, Exit::Configuration);
    let (exit, _, err) = run(&["policy", "test", "{}/bodies"], &place);
    assert_eq!(exit, Exit::Configuration);
    assert!(err.contains("error[no-tests]"), "{err}");
}

#[test]
fn explained_without_values() {
    let place = root().join("policies");
    let line = [
        "policy",
        "explain",
        "--policy",
        "{}/payments.yaml",
        "-X",
        "PUT",
        "-H",
        "X-Merchant: acme",
        "--body",
        "{}/bodies/payments-customer.json",
        "https://api.payments.example/v1/customers/c_42",
    ];
    let (exit, out, err) = run(&line, &place);
    assert_eq!((exit, err.as_str()), (Exit::Success, ""));
    for expected in [
        "  route customers (payments.yaml:",
        "  not customer-reads: takes GET\n",
        "  $.cards[0].number   sealed           rule 3, $.cards[*].number: seal pan\n",
        "  $.address.city      as it is         no rule\n",
        "  3 counted as `unclaimed`\n",
    ] {
        assert!(out.contains(expected), "{expected}\n{out}");
    }
    for value in ["Ada", "4242", "078-05", "London", "fv1~"] {
        assert!(!out.contains(value), "{value}");
        let shown: Vec<&str> = line.iter().copied().chain(["--show-values"]).collect();
        assert!(run(&shown, &place).1.contains(value), "{value}");
    }
    let json: Vec<&str> = line.iter().copied().chain(["--output", "json"]).collect();
    let document: Value = serde_json::from_str(&run(&json, &place).1).expect("JSON");
    assert_eq!(document["route"], "customers");
    let sealed = document["request"]["values"]
        .as_array()
        .expect("values")
        .iter();
    assert_eq!(sealed.filter(|value| value["fate"] == "sealed").count(), 8);
    assert!(!document.to_string().contains("4242"));
    // Of a refused request, why; of one that no route takes, why none.
    let (_, out, _) = run(
        &[
            "policy",
            "explain",
            "--policy",
            "{}/payments.yaml",
            "api.payments.example/v1/customers/7",
        ],
        &place,
    );
    assert!(out.contains("refused: 400 tenant-missing"), "{out}");
    let (_, out, _) = run(
        &["policy", "explain", "--policy", "{}", "nowhere.example"],
        &place,
    );
    assert!(out.contains("  no route\n"), "{out}");
    let wrong = run(
        &[
            "policy", "explain", "--policy", "{}", "-H", "no colon", "a/b",
        ],
        &place,
    );
    assert_eq!(wrong.0, Exit::Usage);
}

#[test]
fn records_of_streams_are_explained_one_by_one() {
    let place = root().join("target/tmp/explained");
    fs::create_dir_all(&place).expect("a directory");
    let policy = root().join("tests/failing_cases/stream-records.yaml");
    let policy = fs::read_to_string(policy).expect("a policy");
    let policy = policy.replace(
        "{at: $.text, open: ssn}",
        "{at: $.text, open: ssn, gather: true}",
    );
    fs::write(place.join("streams.yaml"), policy).expect("written");
    fs::write(
        place.join("lines"),
        "{\"ssn\":\"1\"}\n{\"a\":2}\n{\"ssn\":3}\n",
    )
    .expect("written");
    let events = "data: {\"text\":\"an f\"}\n\ndata: {\"text\":\"v1~x\",\"n\":1}\n\ndata: {}\n\ndata: [DONE]\n\n";
    fs::write(place.join("events"), events).expect("written");
    let line = [
        "policy",
        "explain",
        "--policy",
        "{}/streams.yaml",
        "-H",
        "Content-Type: application/x-ndjson",
        "--body",
        "{}/lines",
        "--response",
        "{}/events",
        "--response-header",
        "Content-Type: text/event-stream",
        "api.example/records",
    ];
    let (exit, out, err) = run(&line, &place);
    assert_eq!((exit, err.as_str()), (Exit::Success, ""));
    for expected in [
        "  record 1 $.ssn  sealed           rule 1, $.ssn: seal ssn\n",
        "  record 2 $.a    as it is         no rule\n",
        "  record 3 $.ssn  sealed           rule 1, $.ssn: seal ssn\n",
        "  record 1 $.text  gathered         rule 1, $.text: open ssn\n",
        "  record 2 $.n     as it is         no rule\n",
    ] {
        assert!(out.contains(expected), "{expected}\n{out}");
    }
    // A stream that ends in its midst says so.
    fs::write(place.join("lines"), "{\"ssn\":\"1\"}\n{\n{\"ssn\":3}\n").expect("written");
    let (_, out, _) = run(&line, &place);
    assert!(out.contains("\nrefused: 400 not-json"), "{out}");
    assert!(out.contains("record 1 $.ssn  sealed"), "{out}");
    assert!(out.contains("record 3 $.ssn  would be sealed"), "{out}");
}

#[test]
fn coverage_of_samples() {
    let place = root().join("policies");
    let line = [
        "policy",
        "coverage",
        "--policy",
        "{}/payments.yaml",
        "--route",
        "customers",
    ];
    let sample = "{}/bodies/payments-customer.json";
    let with = |more: &[&str]| run(&[&line, more].concat(), &place);
    let (exit, out, _) = with(&[sample, sample]);
    assert_eq!(exit, Exit::Success);
    assert!(
        out.contains("- $.address.city           2  no rule\n"),
        "{out}"
    );
    assert!(
        out.ends_with("34 of 40 values are named by a rule, 85.0 %\n"),
        "{out}"
    );
    assert_eq!(with(&["--fail-under", "85", sample]).0, Exit::Success);
    assert_eq!(with(&["--fail-under", "86", sample]).0, Exit::No);
    let (exit, out, _) = with(&["--output", "json", "--side", "response", sample]);
    assert_eq!(exit, Exit::Success);
    let document: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (&document["values"], &document["route"]),
        (&json!(20), &json!("customers"))
    );
    // The formats of other programs name paths and places, and no value.
    let (exit, github, _) = with(&["--output", "github", sample]);
    assert_eq!(exit, Exit::Success);
    assert!(github.starts_with("::warning file="), "{github}");
    assert!(
        github.contains("title=uncovered::no rule names $."),
        "{github}"
    );
    let (exit, github, _) = with(&["--output", "github", "--fail-under", "100", sample]);
    assert_eq!(exit, Exit::No);
    assert!(github.starts_with("::error file="), "{github}");
    let (_, sarif, _) = with(&["--output", "sarif", sample]);
    let sarif: Value = serde_json::from_str(&sarif).expect("JSON");
    let results = sarif["runs"][0]["results"].as_array().expect("results");
    assert_eq!(results.len(), github.lines().count());
    assert_eq!(results[0]["ruleId"], "uncovered");
    let (_, junit, _) = with(&["--output", "junit", "--fail-under", "100", sample]);
    assert!(junit.contains("failures=\"1\""), "{junit}");
    let (_, junit, _) = with(&["--output", "junit", "--fail-under", "1", sample]);
    assert!(junit.contains("failures=\"0\""), "{junit}");
    let (exit, _, err) = run(
        &["policy", "coverage", "--policy", "{}/payments.yaml", sample],
        &place,
    );
    assert_eq!(exit, Exit::Configuration);
    assert!(err.contains("routes: customers, "), "{err}");
    let (exit, _, err) = with(&["{}/payments.yaml"]);
    assert_eq!(exit, Exit::Configuration);
    assert!(err.contains("error[bad-body]"), "{err}");
}

#[test]
fn versions_are_compared() {
    let place = tempfile::tempdir().expect("a directory");
    let base = fs::read_to_string(root().join("policies/payments.yaml")).expect("a policy");
    let write = |name: &str, text: &str| fs::write(place.path().join(name), text).expect("a file");
    write("old.yaml", &base);
    let against = |text: &str, environment: &[&str]| {
        write("new.yaml", text);
        run(
            &[
                &["policy", "diff"],
                environment,
                &["{}/old.yaml", "{}/new.yaml"],
            ]
            .concat(),
            place.path(),
        )
    };
    let (exit, out, _) = against(&base, &[]);
    assert_eq!((exit, out.as_str()), (Exit::Success, "no difference\n"));
    let weaker = base.replace("{at: $.notes, seal: note}", "{at: $.notes, pass: true}");
    let (exit, out, _) = against(&weaker, &[]);
    assert_eq!(exit, Exit::No);
    assert!(
        out.starts_with(
            "weaker[rule-removed]: route customers, request: $.notes is not sealed any more\n"
        ),
        "{out}"
    );
    let (exit, out, _) = run(
        &[
            "policy",
            "diff",
            "--output",
            "json",
            "{}/new.yaml",
            "{}/old.yaml",
        ],
        place.path(),
    );
    let document: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (exit, &document["ok"]),
        (Exit::Success, &json!(true)),
        "{out}"
    );
    // What an environment changes counts where it is chosen.
    let production = base.replace("    unmatched: reject\n", "");
    assert_eq!(against(&production, &[]).0, Exit::Success);
    let (exit, out, _) = against(&production, &["--environment", "production"]);
    assert_eq!(exit, Exit::No);
    assert!(out.contains("weaker[unmatched]"), "{out}");
    assert_eq!(against("kind: Policy", &[]).0, Exit::Configuration);
    let page = fs::read_to_string(root().join("docs/policy-testing.md")).expect("a page");
    for source in ["comparison.rs", "comparison/rules.rs"] {
        let text = fs::read_to_string(root().join("src/policy").join(source)).expect("a source");
        let codes = text.split('"').skip(1).step_by(2);
        let codes = codes.filter(|word| {
            word.contains('-') && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
        });
        for code in codes {
            assert!(
                page.contains(&format!("`{code}`")),
                "{code} is not documented"
            );
        }
    }
}

// --- the schemas ---------------------------------------------------------------------------------

#[test]
fn the_schemas_take_what_the_readers_take() {
    let (of_policies, of_tests) = (schema::policy(), script::schema());
    let mut checked = 0;
    for directory in [
        "policies",
        "tests/failing_cases",
        "tests/lint_cases",
        "tests/policy_cases",
    ] {
        let directory = root().join(directory);
        for file in files(&directory, ".yaml") {
            let text = fs::read_to_string(directory.join(&file)).expect("a case");
            let is_test = file.ends_with(script::SUFFIX);
            let taken = match is_test {
                true => script::Script::load(&text, &file).is_ok(),
                false => fieldveil::policy::Policy::load(&text, &file, None).is_ok(),
            };
            let schema = if is_test { &of_tests } else { &of_policies };
            let Some(document) = as_json(&text) else {
                continue;
            };
            if taken {
                assert_eq!(validate(schema, &document), Ok(()), "{file}");
                checked += 1;
            }
        }
    }
    assert!(checked > 40, "{checked}");
}

/// Mistakes that a schema can see.
#[test]
fn the_schemas_refuse_what_the_readers_refuse_for_their_words() {
    let seen = [
        "unknown-word",
        "missing-word",
        "misplaced-word",
        "not-built",
        "one-of",
        "wrong-type",
        "unknown-value",
        "bad-number",
    ];
    let mut refused = 0;
    for directory in ["tests/policy_cases", "tests/failing_cases"] {
        let directory = root().join(directory);
        for file in files(&directory, ".yaml") {
            let text = fs::read_to_string(directory.join(&file)).expect("a case");
            let (found, schema) = match file.ends_with(script::SUFFIX) {
                true => (script::Script::load(&text, &file).err(), script::schema()),
                false => (
                    fieldveil::policy::Policy::load(&text, &file, None).err(),
                    schema::policy(),
                ),
            };
            let found = found.unwrap_or_default();
            let Some(document) = as_json(&text) else {
                continue;
            };
            if !found.is_empty() && found.iter().all(|one| seen.contains(&one.code)) {
                assert!(validate(&schema, &document).is_err(), "{file}");
                refused += 1;
            }
        }
    }
    assert!(refused > 8, "{refused}");
}

#[test]
fn the_schemas_have_the_words_of_the_readers() {
    type Load = dyn Fn(&str) -> Vec<fieldveil::diagnostic::Diagnostic>;
    let policy: &Load = &|text| {
        fieldveil::policy::Policy::load(text, "p", None)
            .err()
            .unwrap_or_default()
    };
    let test: &Load = &|text| script::Script::load(text, "t").err().unwrap_or_default();
    for (schema, load) in [(schema::policy(), policy), (script::schema(), test)] {
        let mut all = Vec::new();
        mappings(&schema, &schema, Vec::new(), &mut all);
        assert!(all.len() > 8);
        for (path, words) in all {
            assert_eq!(known(&path, load), words, "at {path:?}");
        }
    }
}

#[test]
fn schemas_are_printed() {
    let (exit, out, _) = run(&["policy", "schema"], root());
    assert_eq!(exit, Exit::Success);
    let printed: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(printed, schema::policy());
    let (_, out, _) = run(&["policy", "schema", "test"], root());
    assert_eq!(
        serde_json::from_str::<Value>(&out).expect("JSON"),
        script::schema()
    );
    assert_eq!(Output::default(), Output::Text);
}

/// The examples of the page about testing are test files; parts are completed.
#[test]
fn examples_of_the_page() {
    let page = fs::read_to_string(root().join("docs/policy-testing.md")).expect("a page");
    let blocks = page.split("```yaml\n").skip(1);
    let blocks: Vec<&str> = blocks
        .filter_map(|block| block.split("```").next())
        .collect();
    let tests = blocks
        .iter()
        .filter(|block| block.contains("cases:") || block.starts_with("- name: "));
    let mut count = 0;
    for block in tests {
        let whole = match block.starts_with("apiVersion") {
            true => (*block).to_owned(),
            false => format!("apiVersion: fieldveil/v1\nkind: PolicyTest\ncases:\n{block}"),
        };
        if let Err(found) = script::Script::load(&whole, "policy-testing.md") {
            panic!("{whole}\n{}", found[0]);
        }
        count += 1;
    }
    assert!(count >= 2);
}

/// What the project ships is laid out; what is not is shown, changed, and then is.
#[test]
fn policies_are_laid_out() {
    let (exit, out, _) = run(
        &["policy", "fmt", "--check", "{}"],
        &root().join("policies"),
    );
    assert_eq!((exit, out.as_str()), (Exit::Success, ""));
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("a.yaml");
    let text = "# kept\nroutes:\n    - name: a   # too\n      match: {}  \n\n\n";
    fs::write(&file, text).expect("a file");
    fs::write(place.path().join("b.yaml"), "a: [").expect("a file");
    let (exit, out, _) = run(&["policy", "fmt", "--check", "{}/a.yaml"], place.path());
    let expected = "--- a.yaml\n+++ a.yaml\n@@ -3,4 +3,2 @@\n-    - name: a   # too\n-      match: {}  \n-\n-\n+  - name: a   # too\n+    match: {}\n";
    assert_eq!((exit, out.as_str()), (Exit::No, expected));
    assert_eq!(fs::read_to_string(&file).expect("a file"), text);
    let (exit, out, err) = run(&["policy", "fmt", "{}"], place.path());
    assert_eq!((exit, out.as_str()), (Exit::Configuration, ""));
    assert!(
        err.contains("b.yaml") && err.contains("a.yaml: laid out"),
        "{err}"
    );
    let laid = "# kept\nroutes:\n  - name: a   # too\n    match: {}\n";
    assert_eq!(fs::read_to_string(&file).expect("a file"), laid);
    assert_eq!(
        fs::read_to_string(place.path().join("b.yaml")).expect("a file"),
        "a: ["
    );
    let line = ["policy", "fmt", "--check", "--output", "json", "{}/a.yaml"];
    let (exit, out, _) = run(&line, place.path());
    let out: Value = serde_json::from_str(&out).expect("one document");
    assert_eq!((exit, &out["changed"]), (Exit::Success, &json!([])));
}
