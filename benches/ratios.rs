//! The engine's rows of the design's table, as ratios: each way is timed in turn, many rounds, so that a machine that slows down slows
//! all of them. Prints the median and the best round of each, and the ratios to the validating pass.
//!
//! `cargo bench --bench ratios`; see benches/README.md.

mod bodies;
mod engine_keys;

use bodies::bodies;
use engine_keys::{key, opening_key, opening_ring, opening_rules, random, ring, rules};
use fieldveil::context::Circumstances;
use fieldveil::scan;
use fieldveil::transform::{Pieces, Rules, WINDOW_MIN, plan};
use serde::de::IgnoredAny;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const ROUNDS: usize = 200;

/// What is timed, by name, and the microseconds of each round.
type Way<'w> = (&'w str, &'w mut dyn FnMut(&[u8]) -> bool, Vec<f64>);

fn main() {
    let (small, large) = bodies();
    let (rules, key, here) = (rules(), Arc::new(key()), Circumstances::default());
    for (name, bodies) in [
        ("2 KB, 7 fields", &small[..]),
        ("1 MB, 3,584 fields", &[large][..]),
    ] {
        let mut out = Vec::new();
        let validating = |body: &[u8]| serde_json::from_slice::<IgnoredAny>(body).is_ok();
        let scanning = |body: &[u8]| scan::validate(128, body).is_ok();
        let planning = |body: &[u8]| plan(&rules, body, &here).is_ok();
        let mut sealing = |body: &[u8]| {
            let plan = plan(&rules, body, &here).expect("a good body");
            let ring = ring(plan.needs(), &key);
            out.clear();
            plan.apply(body, &ring, &mut random, &mut out).is_ok()
        };
        let fresh = |body: &[u8]| {
            let plan = plan(&rules, body, &here).expect("a good body");
            let ring = ring(plan.needs(), &key);
            plan.apply(body, &ring, &mut random, &mut Vec::new())
                .is_ok()
        };
        // As it comes off a connection.
        let mut parts = Vec::new();
        let mut in_pieces = |body: &[u8]| {
            let mut pieces = Pieces::new(&rules, here.clone(), WINDOW_MIN);
            parts.clear();
            let mut work = |pieces: &mut Pieces<&Rules>| {
                while let Some(piece) = pieces.piece().expect("a good body") {
                    let ring = ring(piece.needs(), &key);
                    piece.apply(&ring, &mut random, &mut parts).expect("sealed");
                }
            };
            for chunk in body.chunks(16 << 10) {
                pieces.push(chunk);
                work(&mut pieces);
            }
            pieces.end();
            work(&mut pieces);
            !parts.is_empty()
        };
        let (opening_rules, dek) = (opening_rules(), opening_key());
        let sealed: Vec<String> = bodies
            .iter()
            .map(|body| {
                let plan = plan(&rules, body.as_bytes(), &here).expect("a good body");
                let mut out = Vec::new();
                plan.apply(
                    body.as_bytes(),
                    &ring(plan.needs(), &key),
                    &mut random,
                    &mut out,
                )
                .expect("sealed");
                String::from_utf8(out).expect("JSON")
            })
            .collect();
        // The way back: the bodies that the first way made, in the same order.
        let (mut turn, mut opened) = (sealed.iter().cycle(), Vec::new());
        let mut opening = |_: &[u8]| {
            let body = turn.next().map_or(&b""[..], |body| body.as_bytes());
            let plan = plan(&opening_rules, body, &here).expect("a good body");
            opened.clear();
            let tally = plan
                .apply(
                    body,
                    &opening_ring(plan.needs(), &dek),
                    &mut random,
                    &mut opened,
                )
                .expect("genuine");
            tally.left.is_empty() && !tally.opened.is_empty()
        };
        let mut ways: [Way<'_>; 7] = [
            (
                "serde_json IgnoredAny (the validating pass)",
                &mut { validating },
                Vec::new(),
            ),
            ("scan, nothing selected", &mut { scanning }, Vec::new()),
            ("plan", &mut { planning }, Vec::new()),
            ("plan + apply", &mut sealing, Vec::new()),
            (
                "plan + apply, output allocated afresh",
                &mut { fresh },
                Vec::new(),
            ),
            ("in pieces: plan + apply", &mut in_pieces, Vec::new()),
            ("the sealed body: plan + apply", &mut opening, Vec::new()),
        ];
        for _ in 0..ROUNDS {
            for (_, way, times) in &mut ways {
                let start = Instant::now();
                let good = bodies
                    .iter()
                    .filter(|body| way(black_box(body.as_bytes())))
                    .count();
                times.push(start.elapsed().as_secs_f64() * 1e6 / bodies.len() as f64);
                assert_eq!(good, bodies.len());
            }
        }
        let bytes = bodies.iter().map(String::len).sum::<usize>() / bodies.len();
        println!(
            "{name} ({bytes} bytes)\n{:>58} {:>10} {:>8}",
            "median us", "best us", "ratio"
        );
        let base = best(&mut ways[0].2);
        for (way, _, times) in &mut ways {
            let best = best(times);
            println!(
                "  {way:45} {:>10.2} {best:>10.2} {:>8.2}",
                times[times.len() / 2],
                best / base
            );
        }
    }
}

/// Sorts `times`; the first of a hundred, since noise only ever adds.
fn best(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 100]
}
