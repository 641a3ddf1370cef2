//! Any bytes as a form, a multipart form, a patch or JSON in a string, and as head: planning never panics, and gives the same
//! verdict again.
#![no_main]

use fieldveil::context::{Circumstances, Class};
use fieldveil::transform::{
    Action, At, Attitude, Manner, Message, Reveal, Rule, Rules, Shape, plan_message,
};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let class = Arc::new(Class {
        name: "c".into(),
        formerly: vec![],
        key: "k".into(),
        keep_sealed: true,
        suite: fieldveil::token::Suite::Xaes256Gcm,
        mask: None,
    });
    let places = [
        "header:x-ssn",
        "query:ssn",
        "form:ssn",
        "part:ssn",
        "json:$..p then:$..ssn",
        "$..ssn",
        "$.a[0].b",
    ];
    let rule = |at: &&str| Rule {
        at: At::parse(at).expect("a selector"),
        action: Action::Seal(class.clone()),
        bind: vec![],
        reveal: Reveal::default(),
        gather: false,
    };
    let manner = Manner {
        stray: Attitude::Report,
        unclaimed: Attitude::Report,
        depth_max: 128,
        ..Manner::default()
    };
    Rules::compile(places.iter().map(rule).collect(), manner).expect("good rules")
});

fuzz_target!(|bytes: &[u8]| {
    let shapes = [
        Shape::Json,
        Shape::MergePatch,
        Shape::JsonPatch,
        Shape::Form,
        Shape::Multipart { boundary: "B" },
        Shape::Unread,
    ];
    for shape in shapes {
        let message = Message {
            body: bytes,
            shape,
            lines: vec![("x-ssn", bytes)],
            query: std::str::from_utf8(bytes).ok(),
        };
        let verdict = || {
            let plan = plan_message(&RULES, &message, &Circumstances::default());
            plan.map(|plan| plan.needs().clone())
        };
        assert_eq!(verdict(), verdict());
    }
});
