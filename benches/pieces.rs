//! A large JSON array through the agent: what it has resident at most, whether the same bytes come back, and how fast, beside bodies
//! that are held.
//!
//! `cargo bench --bench pieces`; `FIELDVEIL_LARGE_MB` says how large (1024). See benches/README.md.

#[path = "../tests/support/agent.rs"]
#[expect(dead_code, reason = "tests use the rest")]
mod agent;
#[path = "../tests/support/large.rs"]
#[expect(dead_code, reason = "tests use the rest")]
mod large;

use agent::Agent;
use large::{Array, Store, get, put};
use std::time::Instant;

const FLAGS: &[&str] = &["--seal", "$[*].ssn", "--open", "$[*].ssn"];
const SMALL: &str = "limits: {held_body: 1MiB}\n";
/// So large that the bodies compared are held.
const LARGE: &str = "limits: {held_body: 512MiB, held_total: 4GiB}\n";
/// Megabytes of the bodies that are compared.
const COMPARED: usize = 64;
const ROUNDS: usize = 5;

fn main() {
    let megabytes = std::env::var("FIELDVEIL_LARGE_MB").map_or(1024, |text| {
        text.parse().expect("FIELDVEIL_LARGE_MB is a number")
    });
    for gzip in [false, true] {
        let store = Store::start();
        let agent = Agent::with_settings(store.address, SMALL, FLAGS);
        let (up, down) = there_and_back(&agent, megabytes, gzip);
        println!(
            "{megabytes} MB, {}: sealed in {up:.1} s, opened in {down:.1} s, the same bytes; {:.1} MB resident at most",
            if gzip { "gzip" } else { "plain" },
            agent.resident_most() as f64 / f64::from(1 << 20)
        );
    }
    let store = Store::start();
    let pieces = Agent::with_settings(store.address, SMALL, FLAGS);
    let held = Agent::with_settings(store.address, LARGE, FLAGS);
    let (mut in_pieces, mut whole) = ((f64::MAX, f64::MAX), (f64::MAX, f64::MAX));
    for _ in 0..ROUNDS {
        for (agent, best) in [(&pieces, &mut in_pieces), (&held, &mut whole)] {
            let (up, down) = there_and_back(agent, COMPARED, false);
            *best = (best.0.min(up), best.1.min(down));
        }
    }
    println!("{COMPARED} MB, plain, best of {ROUNDS}:");
    for (what, pieces, held) in [
        ("sealed", in_pieces.0, whole.0),
        ("opened", in_pieces.1, whole.1),
    ] {
        println!(
            "  {what}: in pieces {pieces:.2} s, held {held:.2} s, ratio {:.2}",
            pieces / held
        );
    }
}

/// Seconds up and down.
fn there_and_back(agent: &Agent, megabytes: usize, gzip: bool) -> (f64, f64) {
    let begun = Instant::now();
    let array = Array::new(megabytes << 20);
    let (status, sent) = put(agent.address, array, gzip).expect("an answer");
    let up = begun.elapsed().as_secs_f64();
    assert_eq!(status, 204, "{}", agent.log());
    let begun = Instant::now();
    let answer = get(agent.address).expect("an answer");
    let down = begun.elapsed().as_secs_f64();
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert!(answer.digest == sent, "other bytes came back");
    (up, down)
}
