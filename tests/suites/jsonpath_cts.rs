//! The JSONPath Compliance Test Suite (RFC 9535) against our paths: every invalid selector is refused, every valid one selects the
//! suite's nodes, as a set, or is in [`REFUSED`].
//!
//! `FIELDVEIL_JSONPATH_CTS` names the suite's `cts.json`.

#[path = "../support/engine.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod engine;
#[path = "../support/ring.rs"]
mod ring;
#[path = "../support/spans.rs"]
mod spans;

use fieldveil::path::Path;
use fieldveil::scan::{self, Automaton, Interest};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Valid selectors that are refused when a policy is loaded, and why. `docs/jsonpath.md` says the same.
const REFUSED: &[(&str, &str)] = &[
    ("$.values[?match(@, $.regex)]", FROM_DOCUMENT),
    ("$.values[?search(@, $.regex)]", FROM_DOCUMENT),
    ("$.values[?match(@.a, value($..['regex']))]", FROM_DOCUMENT),
    ("$.values[?search(@, value($..['regex']))]", FROM_DOCUMENT),
    ("$[?match(@, '^ab.*')]", ANCHOR),
    ("$[?match(@, '.*bc$')]", ANCHOR),
];
const FROM_DOCUMENT: &str = "A pattern out of the document is the client's";
const ANCHOR: &str = "takes `^` and `$` for characters";

struct Suite {
    invalid: Vec<(String, String)>,
    valid: Vec<Case>,
}

struct Case {
    name: String,
    selector: String,
    document: Value,
    paths: BTreeSet<String>,
}

fn suite() -> Suite {
    let path = std::env::var_os("FIELDVEIL_JSONPATH_CTS")
        .expect("FIELDVEIL_JSONPATH_CTS names cts.json of the JSONPath Compliance Test Suite");
    let text = std::fs::read(&path).expect("the suite's file is readable");
    let suite: Value = serde_json::from_slice(&text).expect("the suite is JSON");
    let mut sorted = Suite {
        invalid: Vec::new(),
        valid: Vec::new(),
    };
    for test in suite["tests"].as_array().expect("tests") {
        let text = |member: &str| test[member].as_str().expect("text").to_owned();
        let (name, selector) = (text("name"), text("selector"));
        if test["invalid_selector"] == true {
            sorted.invalid.push((name, selector));
            continue;
        }
        // Where several orders are right, the nodes are the same.
        let paths = match &test["result_paths"] {
            Value::Null => &test["results_paths"][0],
            paths => paths,
        };
        sorted.valid.push(Case {
            name,
            selector,
            document: test["document"].clone(),
            paths: paths
                .as_array()
                .expect("paths")
                .iter()
                .map(|path| path.as_str().expect("a path").to_owned())
                .collect(),
        });
    }
    assert!(
        sorted.invalid.len() >= 240 && sorted.valid.len() >= 450,
        "the suite has at least its 703 cases of version 2024"
    );
    sorted
}

#[test]
fn every_invalid_selector_is_refused() {
    let accepted: Vec<_> = suite()
        .invalid
        .into_iter()
        .filter(|(_, selector)| Path::parse(selector).is_ok())
        .collect();
    assert!(accepted.is_empty(), "accepted: {accepted:#?}");
}

#[test]
fn the_refused_ones_are_the_written_ones() {
    let refused: BTreeMap<_, _> = suite()
        .valid
        .into_iter()
        .filter_map(|case| Some((case.selector.clone(), Path::parse(&case.selector).err()?)))
        .collect();
    let written: BTreeSet<_> = REFUSED.iter().map(|(selector, _)| *selector).collect();
    let found: BTreeSet<_> = refused.keys().map(String::as_str).collect();
    assert_eq!(found, written, "{refused:#?}");
    let page = include_str!("../../docs/jsonpath.md");
    for (selector, why) in REFUSED {
        assert!(
            page.contains(&format!("`{selector}`")) && page.contains(why),
            "docs/jsonpath.md says that {selector} is refused: {why}"
        );
    }
}

/// The suite's valid cases that are not refused, with their paths.
fn accepted() -> Vec<(Case, Path)> {
    let cases: Vec<_> = suite()
        .valid
        .into_iter()
        .filter_map(|case| {
            let path = Path::parse(&case.selector).ok()?;
            Some((case, path))
        })
        .collect();
    assert!(cases.len() >= 440);
    cases
}

#[track_caller]
fn all_agree(wrong: Vec<String>) {
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn evaluation_selects_the_suites_nodes() {
    let mut wrong = Vec::new();
    for (case, path) in accepted() {
        let selected = path.select(&case.document).expect("within the bound");
        let mut found = BTreeSet::new();
        names(&case.document, "$".to_owned(), &selected, &mut found);
        if found != case.paths {
            wrong.push(format!(
                "{} {}: {found:?}, not {:?}",
                case.name, case.selector, case.paths
            ));
        }
    }
    all_agree(wrong);
}

fn names(node: &Value, at: String, selected: &HashSet<*const Value>, out: &mut BTreeSet<String>) {
    if selected.contains(&std::ptr::from_ref(node)) {
        out.insert(at.clone());
    }
    match node {
        Value::Object(members) => {
            for (name, child) in members {
                names(child, spans::member(&at, name), selected, out);
            }
        }
        Value::Array(elements) => {
            for (index, child) in elements.iter().enumerate() {
                names(child, format!("{at}[{index}]"), selected, out);
            }
        }
        _ => {}
    }
}

#[test]
fn the_scanner_selects_the_suites_nodes() {
    let (mut wrong, mut followed) = (Vec::new(), 0);
    for (case, path) in accepted() {
        let Some(steps) = path.steps() else { continue };
        followed += 1;
        let interest = |tags: &[scan::Tag]| match tags {
            [] => Interest::NONE,
            _ => Interest::EVERY,
        };
        let automaton = Automaton::build(&[(steps, 0)], interest).expect("not too complex");
        // Once as short as can be, once with white space everywhere.
        for text in [
            case.document.to_string(),
            serde_json::to_string_pretty(&case.document).expect("text"),
        ] {
            let places = spans::of(text.as_bytes());
            let hits = scan::scan(&automaton, 128, text.as_bytes())
                .expect("JSON")
                .hits;
            let found: BTreeSet<_> = hits
                .iter()
                .map(|hit| places[&(hit.start, hit.end)].clone())
                .collect();
            if found != case.paths {
                wrong.push(format!(
                    "{} {}: {found:?}, not {:?}",
                    case.name, case.selector, case.paths
                ));
            }
        }
    }
    assert!(
        followed >= 140,
        "the scanner followed {followed} paths only"
    );
    all_agree(wrong);
}

#[test]
fn the_engine_seals_the_suites_nodes_and_nothing_else() {
    let mut wrong = Vec::new();
    for (case, path) in accepted() {
        let text = case.document.to_string();
        let rules = engine::sealing(path);
        let sealed = match engine::run(&rules, text.as_bytes()) {
            Ok(sealed) => sealed,
            Err(refusal) => {
                wrong.push(format!("{} {}: {refusal:?}", case.name, case.selector));
                continue;
            }
        };
        // An enclosing value that is sealed wins over its parts.
        let expected = spans::replaced(text.as_bytes(), |path| case.paths.contains(path));
        let found = engine::masked(&sealed);
        if found != expected {
            wrong.push(format!(
                "{} {}: {found}, not {expected}",
                case.name, case.selector
            ));
        }
    }
    all_agree(wrong);
}
