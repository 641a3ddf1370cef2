//! Any text as a policy, as a path, and as the path of a request: nothing panics, and what is a path writes back to itself.
#![no_main]

use fieldveil::path::Path;
use fieldveil::policy::{Policies, Policy};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static POLICIES: LazyLock<Policies> = LazyLock::new(|| {
    let text = "apiVersion: fieldveil/v1\nkind: Policy\nmetadata: {name: p}\nroutes: [{name: r, match: {path: \"/a/{id}/{rest*}\"}}]\n";
    let Ok(policy) = Policy::load(text, "p.yaml", None) else {
        panic!("a good policy");
    };
    let Ok(policies) = Policies::new(vec![policy]) else {
        panic!("one policy");
    };
    policies
});

fuzz_target!(|text: &str| {
    for diagnostic in Policy::load(text, "fuzz.yaml", None)
        .err()
        .into_iter()
        .flatten()
    {
        let _ = diagnostic.render(false);
    }
    if let Ok(path) = Path::parse(text) {
        assert_eq!(path.as_str(), text);
    }
    let _ = POLICIES.route("GET", "example.com", text);
});
