//! Golden cases of the two languages: `tests/policy_cases` and `tests/settings_cases`.
//!
//! A case is a YAML file and, beside it, what is found in it, as it is shown to a person (`ok` for nothing). Words in the
//! first line choose how it is read: `# environment: NAME`. Adding a case is adding two files; with `FIELDVEIL_BLESS=1`
//! the second is written, to be read before it is committed.

use fieldveil::diagnostic::Diagnostic;
use fieldveil::policy::Policy;
use fieldveil::settings::{Overrides, Settings};
use std::fs;
use std::path::{Path, PathBuf};

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
