//! Golden cases of the two languages: `tests/policy_cases` and `tests/settings_cases`.
//!
//! A case is a YAML file and, beside it, what is found in it, as it is shown to a person (`ok` for nothing). Words in the
//! first line choose how it is read: `# environment: NAME`. Adding a case is adding two files; with `FIELDVEIL_BLESS=1`
//! the second is written, to be read before it is committed.

use fieldveil::cli::config;
use fieldveil::diagnostic::Diagnostic;
use fieldveil::policy::Policy;
use fieldveil::settings::{Origin, Overrides, Settings, Step, schema};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

mod schema_validator;
use schema_validator::{as_json, known, mappings, validate};

fn shown(found: Result<(), Vec<Diagnostic>>) -> String {
    match found {
        Ok(()) => "ok\n".to_owned(),
        Err(found) => found
            .iter()
            .map(|diagnostic| format!("{diagnostic}\n\n"))
            .collect(),
    }
}

/// Checks every case of a directory; returns how many there were.
fn check(
    directory: &str,
    load: impl Fn(&str, &str, Option<&str>) -> Result<(), Vec<Diagnostic>>,
) -> usize {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(directory);
    let mut cases: Vec<PathBuf> = fs::read_dir(&directory)
        .expect("the cases")
        .map(|entry| entry.expect("a case").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    cases.sort();
    let mut wrong = Vec::new();
    for case in &cases {
        let text = fs::read_to_string(case).expect("a case in UTF-8");
        let name = case.file_name().expect("a file").to_string_lossy();
        let environment = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("# environment: "));
        let found = shown(load(&text, &name, environment));
        let expected = case.with_extension("txt");
        if std::env::var_os("FIELDVEIL_BLESS").is_some() {
            fs::write(&expected, &found).expect("the expectation can be written");
        } else if fs::read_to_string(&expected).ok().as_deref() != Some(&*found) {
            wrong.push(format!("{}:\n{found}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "not as expected:\n{}", wrong.join("\n"));
    cases.len()
}

#[test]
fn policies() {
    let load = |text: &str, name: &str, environment: Option<&str>| {
        Policy::load(text, name, environment).map(drop)
    };
    assert!(check("policy_cases", load) >= 20);
}

#[test]
fn settings() {
    let load = |text: &str, name: &str, _: Option<&str>| {
        let overrides = Overrides {
            config: Some(name.into()),
            ..Overrides::default()
        };
        Settings::load(&overrides, |_| Ok(text.to_owned())).map(drop)
    };
    assert!(check("settings_cases", load) >= 6);
}

/// The blocks of YAML in a page.
fn examples(page: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(page);
    let text = fs::read_to_string(path).expect("a page");
    let blocks = text.split("```yaml\n").skip(1);
    blocks
        .filter_map(|block| block.split("```").next())
        .map(str::to_owned)
        .collect()
}

/// What the documentation shows is the language; blocks that are parts of a policy are completed.
#[test]
fn examples_of_the_documentation() {
    let head = "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {name: p}\n";
    let route = "routes: [{name: customers, match: {}}]\n";
    let policies = examples("policy.md");
    assert_eq!(policies.len(), 5);
    for example in policies {
        let whole = if example.starts_with("apiVersion") {
            example
        } else {
            format!("{head}{route}{example}")
        };
        assert_eq!(
            shown(Policy::load(&whole, "policy.md", None).map(drop)),
            "ok\n",
            "{whole}"
        );
    }
    let settings = examples("settings.md");
    assert!(settings.len() >= 2);
    // What a page about KMSs shows is completed.
    let around = "policy: {dir: p}\nlisteners: [{name: out, bind: 127.0.0.1:0, upstream: api}]\nupstreams: {api: {url: https://a}}\n";
    let kms = examples("kms.md");
    assert!(kms.len() >= 2);
    let kms = kms.into_iter().map(|example| format!("{around}{example}"));
    for example in settings.into_iter().chain(kms) {
        let overrides = Overrides {
            config: Some("settings.md".into()),
            ..Overrides::default()
        };
        let found = Settings::load(&overrides, |_| Ok(example.clone())).map(drop);
        assert_eq!(shown(found), "ok\n", "{example}");
    }
}

/// Every code that a case shows is on the pages.
#[test]
fn codes_of_the_documentation() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages: String = ["policy.md", "settings.md"]
        .map(|page| fs::read_to_string(root.join("docs").join(page)).expect("a page"))
        .concat();
    for directory in ["policy_cases", "settings_cases"] {
        for case in fs::read_dir(root.join("tests").join(directory)).expect("the cases") {
            let path = case.expect("a case").path();
            if path.extension().is_some_and(|extension| extension == "txt") {
                let text = fs::read_to_string(&path).expect("a case in UTF-8");
                for code in text
                    .split("error[")
                    .skip(1)
                    .filter_map(|rest| rest.split(']').next())
                {
                    assert!(
                        pages.contains(&format!("`{code}`")),
                        "`{code}` is not documented"
                    );
                }
            }
        }
    }
}

// --- the settings' schema, and the settings as they are shown ----------------------------------------

fn load_settings(text: &str) -> Result<Settings, Vec<Diagnostic>> {
    let overrides = Overrides {
        config: Some("a.yaml".into()),
        ..Overrides::default()
    };
    Settings::load(&overrides, |_| Ok(text.to_owned()))
}

fn settings_cases() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/settings_cases");
    let mut cases = Vec::new();
    for case in fs::read_dir(&directory).expect("the cases") {
        let path = case.expect("a case").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let text = fs::read_to_string(&path).expect("a case in UTF-8");
            cases.push((path.display().to_string(), text));
        }
    }
    cases
}

#[test]
fn the_settings_schema_takes_what_the_reader_takes() {
    let schema = schema::settings();
    let (mut taken, mut refused) = (0, 0);
    // Mistakes that a schema can see.
    let seen = ["unknown-word", "not-built", "unknown-value", "wrong-type"];
    for (case, text) in settings_cases() {
        let Some(document) = as_json(&text) else {
            continue;
        };
        match load_settings(&text) {
            Ok(_) => {
                assert_eq!(validate(&schema, &document), Ok(()), "{case}");
                taken += 1;
            }
            Err(found) if found.iter().all(|one| seen.contains(&one.code)) => {
                assert!(validate(&schema, &document).is_err(), "{case}");
                refused += 1;
            }
            Err(_) => {}
        }
    }
    assert!(
        taken >= 8 && refused >= 3,
        "{taken} taken, {refused} refused"
    );
}

#[test]
fn the_settings_schema_has_the_words_of_the_reader_and_of_the_page() {
    let schema = schema::settings();
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md"))
        .expect("a page");
    let kms = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kms.md"))
        .expect("a page");
    let load = |text: &str| load_settings(text).err().unwrap_or_default();
    let mut all = Vec::new();
    mappings(&schema, &schema, Vec::new(), &mut all);
    assert!(all.len() > 15);
    for (path, words) in all {
        assert_eq!(known(&path, &load), words, "at {path:?}");
        for word in words {
            let on_a_page = page.contains(&word) || kms.contains(&word);
            assert!(on_a_page, "{word} is not documented");
        }
    }
}

/// The default that the schema has at a path; of several mappings the one that has the word.
fn default_at(schema: &Value, path: &[Step]) -> Option<Value> {
    let mut places = vec![schema];
    for step in path {
        let mut below = Vec::new();
        while let Some(at) = places.pop() {
            let name = at["$ref"]
                .as_str()
                .and_then(|to| to.strip_prefix("#/$defs/"));
            if let Some(name) = name {
                places.push(&schema["$defs"][name]);
            }
            places.extend(at["anyOf"].as_array().into_iter().flatten());
            let next = match step {
                Step::Item(_) => at.get("items"),
                Step::Word(word) => at["properties"]
                    .get(word)
                    .or_else(|| at.get("additionalProperties")),
            };
            below.extend(next.filter(|next| next.is_object()));
        }
        places = below;
    }
    places.iter().find_map(|at| at.get("default").cloned())
}

/// What `config show` prints is a settings file that means the same, and fits the schema, whose defaults are those that hold.
#[test]
fn what_is_shown_of_settings_is_what_holds() {
    let schema = schema::settings();
    let mut defaults = 0;
    for (case, text) in settings_cases() {
        let Ok(settings) = load_settings(&text) else {
            continue;
        };
        let overrides = Overrides {
            config: Some("a.yaml".into()),
            ..Overrides::default()
        };
        let given = |id: &str| panic!("{id} was not given");
        let (same, words) =
            Settings::load_with_origins(&overrides, &given, |_| Ok(text.clone())).expect("sound");
        assert_eq!(same, settings);
        for origins in [false, true] {
            let shown = config::file(&words, origins);
            let again = load_settings(&shown);
            assert_eq!(
                again.as_ref().ok(),
                Some(&settings),
                "{case}:\n{shown}\n{again:?}"
            );
        }
        let document = config::document(&words);
        assert_eq!(
            validate(&schema, &document),
            Ok(()),
            "{case}:\n{document:#}"
        );
        for word in &words {
            let found = match &word.origin {
                Origin::Default => {
                    defaults += 1;
                    let default = default_at(&schema, &word.path);
                    assert_eq!(default, Some(config::value(&word.value)), "{}", word.name());
                    continue;
                }
                Origin::File { line, column, .. } => {
                    let line = text.lines().nth(line - 1).expect("a line");
                    line.chars().skip(column - 1).collect::<String>()
                }
                other => panic!("{}: {other}", word.name()),
            };
            // The place is the value's: there begins a single value, and not a mapping or the word itself.
            assert!(
                !found.starts_with(['{', '[', ' ']),
                "{}: {found}",
                word.name()
            );
        }
    }
    assert!(defaults > 100, "{defaults}");
}
