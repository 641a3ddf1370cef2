//! A JSON array that is far larger than what is held: sealed on its way up and opened on its way back, in bounded memory.
//!
//! `FIELDVEIL_LARGE_MB` says how large; benches/README.md has what a gigabyte gave.

use crate::agent::Agent;
use crate::large::{Array, SECRET, Store, get, put};

/// Megabytes. Tests are built without optimisation: enough of them to tell a bound from its absence, and no more.
fn megabytes() -> usize {
    match std::env::var("FIELDVEIL_LARGE_MB") {
        Ok(text) => text.parse().expect("FIELDVEIL_LARGE_MB is a number"),
        Err(_) => 24,
    }
}

const SETTINGS: &str = "limits: {held_body: 256KiB}\n";
const FLAGS: &[&str] = &["--seal", "$[*].ssn", "--open", "$[*].ssn"];
/// Bytes that the agent may have resident, whatever the body's length.
const RESIDENT_MAX: usize = 64 << 20;

fn there_and_back(gzip: bool) {
    let store = Store::start();
    let agent = Agent::with_settings(store.address, SETTINGS, FLAGS);
    let array = Array::new(megabytes() << 20);
    let (status, sent) = put(agent.address, array, gzip).expect("an answer");
    assert_eq!(status, 204, "{}", agent.log());

    let (mut sealed, mut last) = (0, Vec::new());
    store.look(|block| {
        // What one block ends with and the next begins with belongs together.
        last.extend_from_slice(block);
        let text = String::from_utf8_lossy(&last);
        assert!(!text.contains(SECRET), "a value is there in clear");
        sealed += String::from_utf8_lossy(block).matches("\"fv1~").count();
        last.drain(..last.len().saturating_sub(SECRET.len() - 1));
    });
    assert!(sealed > megabytes() << 10, "{sealed} tokens");

    let answer = get(agent.address).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.head);
    let head = answer.head.to_ascii_lowercase();
    assert_eq!(head.contains("content-encoding: gzip"), gzip);
    assert!(
        answer.digest == sent,
        "other bytes than those that were sent"
    );
    let most = agent.resident_most();
    assert!(most <= RESIDENT_MAX, "{most} bytes resident");
    let log = agent.log();
    assert!(!log.contains(SECRET), "a value is in the log");
}

#[test]
fn a_large_array_is_sealed_and_opened_in_little_memory() {
    there_and_back(false);
}

#[test]
fn a_large_array_in_gzip_is_sealed_and_opened_in_little_memory() {
    there_and_back(true);
}

#[test]
fn an_error_in_the_middle_is_no_clean_end() {
    let store = Store::start();
    let agent = Agent::with_settings(store.address, SETTINGS, FLAGS);
    for broken in ["},]", "\u{0}"] {
        let blocks = Array::new(2 << 20).chain([broken.as_bytes().to_vec()]);
        let answered = put(agent.address, blocks, false);
        assert!(!store.has_one(), "the upstream took a part for the whole");
        if let Ok((status, _)) = answered {
            assert_eq!(status, 400, "{}", agent.log());
        }
    }
    assert!(!agent.log().contains(SECRET));
}
