//! The engine without a network: scan, plan, apply, and the way back, over varied bodies, beside the pass that only validates.
//!
//! `cargo bench --bench engine`. Compare ratios within one run (`--bench ratios` measures them in turn); see benches/README.md.

mod bodies;
mod engine_keys;

use bodies::bodies;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine_keys::{key, opening_key, opening_ring, opening_rules, random, ring, rules};
use fieldveil::context::Circumstances;
use fieldveil::scan;
use fieldveil::transform::plan;
use serde::de::IgnoredAny;
use std::hint::black_box;
use std::sync::Arc;

fn engine(c: &mut Criterion) {
    let (small, large) = bodies();
    let (rules, key, here) = (rules(), Arc::new(key()), Circumstances::default());
    for (name, bodies) in [("2KB", &small[..]), ("1MB", std::slice::from_ref(&large))] {
        let bytes = bodies.iter().map(String::len).sum::<usize>() / bodies.len();
        let fields: usize = bodies
            .iter()
            .map(|body| {
                plan(&rules, body.as_bytes(), &here)
                    .map_or(0, |p| p.needs().sealing[0].values as usize)
            })
            .sum::<usize>()
            / bodies.len();
        eprintln!("{name}: {bytes} bytes, {fields} fields");
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(bytes as u64));
        let mut turn = bodies.iter().cycle();
        let mut next = move || turn.next().map_or(&b""[..], |body| body.as_bytes());
        group.bench_function("serde_json IgnoredAny", |b| {
            b.iter(|| serde_json::from_slice::<IgnoredAny>(black_box(next())).is_ok());
        });
        group.bench_function("validate", |b| {
            b.iter(|| scan::validate(128, black_box(next())).is_ok());
        });
        group.bench_function("plan", |b| {
            b.iter(|| plan(&rules, black_box(next()), &here).is_ok());
        });
        let mut out = Vec::new();
        let plans: Vec<_> = bodies
            .iter()
            .map(|body| plan(&rules, body.as_bytes(), &here).expect("a good body"))
            .map(|plan| (ring(plan.needs(), &key), plan))
            .collect();
        let mut planned = bodies.iter().zip(&plans).cycle();
        group.bench_function("apply", |b| {
            b.iter(|| {
                planned.next().map(|(body, (ring, plan))| {
                    out.clear();
                    plan.apply(black_box(body.as_bytes()), ring, &mut random, &mut out)
                        .is_ok()
                })
            });
        });
        group.bench_function("plan + apply", |b| {
            b.iter(|| {
                let body = black_box(next());
                let plan = plan(&rules, body, &here).expect("a good body");
                let ring = ring(plan.needs(), &key);
                out.clear();
                plan.apply(body, &ring, &mut random, &mut out).is_ok()
            });
        });
        group.bench_function("plan + apply, fresh output", |b| {
            b.iter(|| {
                let body = black_box(next());
                let plan = plan(&rules, body, &here).expect("a good body");
                let ring = ring(plan.needs(), &key);
                let mut out = Vec::new();
                plan.apply(body, &ring, &mut random, &mut out).is_ok()
            });
        });
        let (opening, dek) = (opening_rules(), opening_key());
        let sealed: Vec<Vec<u8>> = bodies
            .iter()
            .zip(&plans)
            .map(|(body, (ring, plan))| {
                let mut out = Vec::new();
                plan.apply(body.as_bytes(), ring, &mut random, &mut out)
                    .expect("sealed");
                out
            })
            .collect();
        let mut turn = sealed.iter().cycle();
        group.bench_function("open: plan + apply", |b| {
            b.iter(|| {
                let body = black_box(turn.next().map_or(&b""[..], Vec::as_slice));
                let plan = plan(&opening, body, &here).expect("a good body");
                let ring = opening_ring(plan.needs(), &dek);
                out.clear();
                let tally = plan
                    .apply(body, &ring, &mut random, &mut out)
                    .expect("genuine");
                assert!(!tally.opened.is_empty() && tally.left.is_empty());
            });
        });
        group.finish();
    }
}

criterion_group!(benches, engine);
criterion_main!(benches);
