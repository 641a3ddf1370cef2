//! Outside of the sealed spans the output is the input, and what was sealed comes back exactly: over generated documents.
//!
//! `FIELDVEIL_DOCUMENTS` says how many; `FIELDVEIL_SEED` has a failed run again.

#[path = "support/documents.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod documents;
#[path = "support/engine.rs"]
mod engine;
#[path = "support/ring.rs"]
mod ring;
#[path = "support/spans.rs"]
mod spans;

use documents::{Luck, SECRETS, document};
use fieldveil::path::Path;
use fieldveil::scan::{self, Automaton, Interest, Scanner};

fn count() -> usize {
    match std::env::var("FIELDVEIL_DOCUMENTS") {
        Ok(text) => text.parse().expect("FIELDVEIL_DOCUMENTS is a number"),
        Err(_) => 100_000,
    }
}

fn is_ssn(path: &str) -> bool {
    path.ends_with("['ssn']")
}

#[test]
fn outside_the_sealed_spans_the_output_is_the_input() {
    let mut luck = Luck::new("sealing");
    let path = |text: &str| Path::parse(text).expect("a path");
    let (sealing, opening) = (
        engine::sealing(path("$..ssn")),
        engine::opening(path("$..*")),
    );
    let (mut sealed_values, mut secrets) = (0, 0);
    for _ in 0..count() {
        let text = document(&mut luck);
        let sealed = engine::run(&sealing, text.as_bytes()).expect(&text);
        let masked = engine::masked(&sealed);
        assert_eq!(masked, spans::replaced(text.as_bytes(), is_ssn), "{text}");
        sealed_values += masked.matches("<>").count();
        for secret in SECRETS {
            secrets += usize::from(text.contains(secret));
            assert!(!masked.contains(secret), "{text}");
        }
        let opened = engine::run(&opening, &sealed).expect(&text);
        assert_eq!(opened, text.as_bytes());
    }
    assert!(
        sealed_values > count() / 2 && secrets > count() / 4,
        "the documents test nothing"
    );
}

#[test]
fn chunks_change_nothing() {
    let mut luck = Luck::new("chunks");
    let paths = ["$..ssn", "$.a", "$[1:3].name", "$..*", "$"];
    let paths = paths.map(|text| Path::parse(text).expect("a path"));
    let steps: Vec<_> = paths
        .iter()
        .zip(0..)
        .map(|(path, tag)| (path.steps().expect("steps"), tag))
        .collect();
    let automaton = Automaton::build(&steps, |_| Interest::EVERY).expect("not too complex");
    for _ in 0..count() {
        let text = document(&mut luck);
        let whole = scan::scan(&automaton, 128, text.as_bytes()).expect(&text);
        let mut spans: Vec<_> = spans::of(text.as_bytes()).into_keys().collect();
        spans.sort_by_key(|(start, end)| (*start, usize::MAX - end));
        let found: Vec<_> = whole.hits.iter().map(|hit| (hit.start, hit.end)).collect();
        assert_eq!(found, spans, "{text}");

        let mut scanner = Scanner::new(&automaton, 128);
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            // Often one byte, so that every kind of place is cut.
            let size = if luck.one_in(2) {
                1
            } else {
                1 + luck.below(rest.len())
            };
            let (chunk, after) = rest.split_at(size);
            scanner.feed(chunk).expect(&text);
            rest = after;
        }
        assert_eq!(scanner.finish().expect(&text).hits, whole.hits, "{text}");
    }
}

#[test]
fn a_broken_document_breaks_at_the_same_byte_in_any_chunks() {
    let mut luck = Luck::new("broken");
    let automaton = Automaton::build(&[], |_| Interest::NONE).expect("nothing to look for");
    let mut broken = 0;
    for _ in 0..count() {
        let mut bytes = document(&mut luck).into_bytes();
        if bytes.is_empty() {
            continue;
        }
        let at = luck.below(bytes.len());
        match luck.below(3) {
            0 => bytes[at] = luck.next() as u8,
            1 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
        let whole = scan::scan(&automaton, 128, &bytes).map(|_| ());
        broken += usize::from(whole.is_err());
        // What serde_json refuses is refused. (It does not judge what it takes: surrogates, and numbers beyond a double.)
        let other = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes);
        if other.is_ok() != whole.is_ok() {
            assert!(
                other.is_ok() && std::str::from_utf8(&bytes).is_err(),
                "{bytes:?}: {whole:?}, {other:?}"
            );
        }
        let mut scanner = Scanner::new(&automaton, 128);
        let mut rest = &bytes[..];
        let chunked = loop {
            if rest.is_empty() {
                break scanner.finish().map(|_| ());
            }
            let (chunk, after) = rest.split_at(1 + luck.below(rest.len().min(7)));
            if let Err(fault) = scanner.feed(chunk) {
                break Err(fault);
            }
            rest = after;
        };
        assert_eq!(chunked, whole, "{bytes:?}");
    }
    assert!(broken > count() / 4, "the documents test nothing");
}
