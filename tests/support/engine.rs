//! The engine without a road: plan, a ring of the test's own keys, apply.

use super::ring::ring;
use fieldveil::context::{Circumstances, Class};
use fieldveil::path::Path;
use fieldveil::token::Token;
use fieldveil::transform::{self, Action, Attitude, Manner, Refusal, Reveal, Rule, Rules};
use std::sync::Arc;

/// Rules that seal what `path` selects.
pub fn sealing(path: Path) -> Rules {
    rules(path, Action::Seal)
}

/// Rules that open what `path` selects.
pub fn opening(path: Path) -> Rules {
    rules(path, |class| Action::Open(vec![class]))
}

fn rules(at: Path, action: impl FnOnce(Arc<Class>) -> Action) -> Rules {
    let class = Arc::new(Class {
        name: "field".into(),
        formerly: Vec::new(),
        key: "key".into(),
        suite: fieldveil::dek::Suite::Xaes256Gcm,
        keep_sealed: true,
        mask: None,
    });
    let rule = Rule {
        at: at.into(),
        action: action(class),
        bind: Vec::new(),
        reveal: Reveal::default(),
        gather: false,
    };
    let manner = Manner {
        stray: Attitude::Report,
        unclaimed: Attitude::Allow,
        depth_max: 128,
        ..Manner::default()
    };
    Rules::compile(vec![rule], manner).expect("rules that compile")
}

/// The body as it goes out.
pub fn run(rules: &Rules, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let plan = transform::plan(rules, body, &Circumstances::default())?;
    let mut counter = 0u8;
    // Nonces of a test may repeat between documents: nothing is secret here.
    let mut random = |buffer: &mut [u8]| {
        for byte in buffer {
            counter = counter.wrapping_mul(31).wrapping_add(7);
            *byte = counter;
        }
    };
    let mut out = Vec::new();
    plan.apply(body, &ring(plan.needs()), &mut random, &mut out)?;
    Ok(out)
}

/// The text with its tokens replaced by `<>`.
pub fn masked(text: &[u8]) -> String {
    let text = std::str::from_utf8(text).expect("UTF-8");
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("\"fv1~") {
        let end = at + 1 + rest[at + 1..].find('"').expect("a closing quote");
        out += &rest[..at];
        match Token::decode(&rest.as_bytes()[at + 1..end], &mut Vec::new()) {
            Ok(_) => out += "<>",
            Err(_) => out += &rest[at..=end],
        }
        rest = &rest[end + 1..];
    }
    out + rest
}
