//! Any bytes as a body: the scanner gives one verdict however they are cut, takes what serde_json takes, and planning never panics.
#![no_main]

use fieldveil::context::{Circumstances, Class};
use fieldveil::path::Path;
use fieldveil::scan::{Automaton, Fault, Found, Interest, Scanner, scan};
use fieldveil::transform::{Action, Attitude, Manner, Reveal, Rule, Rules, plan};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};

const DEPTH_MAX: usize = 128;
const PATHS: [&str; 4] = ["$..ssn", "$.a[1:3].*", "$['b','\u{e9}']", "$..*"];

static AUTOMATON: LazyLock<Automaton> = LazyLock::new(|| {
    let paths: Vec<Path> = PATHS
        .iter()
        .map(|path| Path::parse(path).expect("a path"))
        .collect();
    let tagged: Vec<_> = paths
        .iter()
        .zip(0..)
        .filter_map(|(path, tag)| Some((path.steps()?, tag)))
        .collect();
    Automaton::build(&tagged, |tags| {
        if tags.is_empty() {
            Interest::COUNTED
        } else {
            Interest::EVERY
        }
    })
    .expect("few paths")
});

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let class = Arc::new(Class {
        name: "c".into(),
        formerly: vec![],
        key: "k".into(),
        keep_sealed: true,
        suite: fieldveil::token::Suite::Xaes256Gcm,
        mask: None,
    });
    let rule = |at: &str, action| Rule {
        at: Path::parse(at).expect("a path").into(),
        action,
        bind: vec![],
        reveal: Reveal::default(),
        gather: false,
    };
    let rules = vec![
        rule("$..ssn", Action::Seal(class.clone())),
        rule("$[?@.t == 'x'].v", Action::Seal(class.clone())),
        rule("$..*", Action::Open(vec![class])),
    ];
    let manner = Manner {
        stray: Attitude::Report,
        unclaimed: Attitude::Report,
        depth_max: DEPTH_MAX,
        ..Manner::default()
    };
    Rules::compile(rules, manner).expect("good rules")
});

fn in_pieces(body: &[u8], step: usize) -> Result<Found, Fault> {
    let mut scanner = Scanner::new(&*AUTOMATON, DEPTH_MAX);
    for piece in body.chunks(step) {
        scanner.feed(piece)?;
    }
    scanner.finish()
}

fuzz_target!(|body: &[u8]| {
    let whole = scan(&AUTOMATON, DEPTH_MAX, body);
    for step in [1, 7, 64] {
        match (&whole, in_pieces(body, step)) {
            (Ok(whole), Ok(pieces)) => {
                assert_eq!((&whole.hits, whole.counted), (&pieces.hits, pieces.counted))
            }
            (Err(whole), Err(pieces)) => assert_eq!(*whole, pieces),
            _ => panic!("two verdicts"),
        }
    }
    if serde_json::from_slice::<serde_json::Value>(body).is_ok() {
        assert!(whole.is_ok());
    }
    let _ = plan(&RULES, body, &Circumstances::default());
});
