//! No allocation per JSON node: a body with ten times as many nodes that no rule selects costs exactly as many allocations.
//!
//! A test target of its own, since the allocator that counts is the whole program's.
#![expect(
    unsafe_code,
    reason = "an allocator that counts is one by an unsafe trait"
)]

use fieldveil::context::{Circumstances, Class};
use fieldveil::dek::{Dek, MATERIAL_LEN, Material, Ring, SealingKey, schedule};
use fieldveil::path::Path;
use fieldveil::token::{Record, kek_id};
use fieldveil::transform::{Action, Attitude, Manner, Reveal, Rule, Rules, plan};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

/// The system's allocator; counts what each thread asks of it.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // A thread at its end has no counter any more.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is passed on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `System` with this layout.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `at` came from `System` with this layout.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Plainly([u8; MATERIAL_LEN]);

impl Material for Plainly {
    fn expose(&self) -> &[u8; MATERIAL_LEN] {
        &self.0
    }
}

fn key() -> Arc<SealingKey> {
    let mut material = [0; MATERIAL_LEN];
    let kid = schedule(&[7; 32], &mut material);
    Arc::new(SealingKey {
        dek: Dek::new(kid, Box::new(Plainly(material))),
        record: Record::build(&[(kek_id("test:kek"), &[5; 64])]).expect("a record"),
        stored: false,
    })
}

fn rules() -> Rules {
    let class = Arc::new(Class {
        name: "ssn".into(),
        formerly: vec![],
        key: "k".into(),
        suite: fieldveil::dek::Suite::Xaes256Gcm,
        keep_sealed: true,
        mask: None,
    });
    let rule = Rule {
        at: Path::parse("$..ssn").expect("a path").into(),
        action: Action::Seal(class),
        bind: vec![],
        reveal: Reveal::default(),
        gather: false,
    };
    let manner = Manner {
        stray: Attitude::Report,
        unclaimed: Attitude::Allow,
        depth_max: 128,
        ..Manner::default()
    };
    Rules::compile(vec![rule], manner).expect("good rules")
}

/// A body with `values` selected values, and `nodes` objects of every kind of value that are not. (A string that begins as a token may,
/// with an `f` or an escape, is looked at: it takes room in a list that doubles.)
fn body(values: usize, nodes: usize) -> String {
    let sealed = vec![r#"{"ssn":"078-05-1120"}"#; values].join(",");
    let node = r#"{"name":"Ada \"A\" Straße","a long name, over 16":[1,-2.5e3,{"x":{}},[]],"n\u0061":"x\u20ac","ok":[true,null]}"#;
    let nodes = vec![node; nodes].join(", ");
    format!("{{\"sealed\":[{sealed}],\n  \"rest\":[{nodes}]}}")
}

/// Allocations of plan and of apply, into an output that has room.
fn allocations(rules: &Rules, key: &Arc<SealingKey>, body: &str) -> (usize, usize) {
    let mut out = Vec::with_capacity(body.len() + (1 << 20));
    let before = COUNT.get();
    let plan = plan(rules, body.as_bytes(), &Circumstances::default()).expect("a good body");
    let planned = COUNT.get();
    let ring = Ring {
        sealing: plan.needs().sealing.iter().map(|_| key.clone()).collect(),
        opening: vec![],
    };
    let fetched = COUNT.get();
    let mut random = |buffer: &mut [u8]| buffer.fill(9);
    plan.apply(body.as_bytes(), &ring, &mut random, &mut out)
        .expect("sealed");
    (planned - before, COUNT.get() - fetched)
}

#[test]
fn none_is_made_for_a_node() {
    let (rules, key) = (rules(), key());
    let small = allocations(&rules, &key, &body(7, 100));
    let large = allocations(&rules, &key, &body(7, 1_000));
    assert_eq!(small, large, "(plan, apply)");
    println!("plan and apply of a body with 7 values: {small:?} allocations");
}

#[test]
fn few_are_made_for_a_value() {
    let (rules, key) = (rules(), key());
    let few = allocations(&rules, &key, &body(10, 1));
    let many = allocations(&rules, &key, &body(1_010, 1));
    // Vectors that double: a handful more for a thousand values more.
    assert!(many.0 - few.0 < 12, "plan: {few:?}, {many:?}");
    assert!(many.1 - few.1 < 12, "apply: {few:?}, {many:?}");
}

/// The counter counts: without this the tests above could not fail.
#[test]
fn a_vector_is_one_allocation() {
    let before = COUNT.get();
    drop(std::hint::black_box(Vec::<u8>::with_capacity(10)));
    assert_eq!(COUNT.get() - before, 1);
}
