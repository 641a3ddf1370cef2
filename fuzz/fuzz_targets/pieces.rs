//! Any bytes as a document in pieces: planning never panics, the chunks do not matter, and with room enough the verdict is that on the whole.
#![no_main]

use fieldveil::context::{Circumstances, Class};
use fieldveil::path::Path;
use fieldveil::transform::{
    Action, At, Attitude, Bind, BindSource, Manner, Pieces, Refusal, Reveal, Rule, Rules, plan,
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
    let bound = |source| Bind {
        name: "record".into(),
        source,
    };
    let root = Path::parse("$.id").expect("a path");
    let places = [
        ("$..ssn", vec![bound(BindSource::Sibling("id".into()))]),
        ("$.a[*].b", vec![bound(BindSource::Root(root))]),
        ("json:$..p then:$..n", vec![]),
        ("$.x", vec![]),
    ];
    let rules = places.map(|(at, bind)| Rule {
        at: At::parse(at).expect("a selector"),
        action: Action::Seal(class.clone()),
        bind,
        reveal: Reveal::default(),
        gather: false,
    });
    let manner = Manner {
        stray: Attitude::Report,
        unclaimed: Attitude::Report,
        depth_max: 128,
        ..Manner::default()
    };
    Rules::compile(rules.into(), manner).expect("good rules")
});

/// What was given out, how many values are to be sealed, and what stopped it.
fn cut(text: &[u8], chunk: usize, step: usize, window: usize) -> (Vec<u8>, u64, Option<Refusal>) {
    let mut pieces = Pieces::bounded(&*RULES, Circumstances::default(), window, step);
    let (mut out, mut values) = (Vec::new(), 0);
    let mut drain = |pieces: &mut Pieces<&Rules>| {
        while let Some(piece) = pieces.piece()? {
            out.extend_from_slice(&piece.bytes);
            values += piece.needs().sealing.iter().map(|need| need.values).sum::<u64>();
        }
        Ok(())
    };
    let mut chunks = text.chunks(chunk);
    let stopped = chunks.try_for_each(|chunk| {
        pieces.push(chunk);
        drain(&mut pieces)
    });
    let stopped = stopped.and_then(|()| {
        pieces.end();
        drain(&mut pieces)
    });
    out.extend(pieces.rest());
    (out, values, stopped.err())
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&[step, window, chunk], text)) = bytes.split_first_chunk() else {
        return;
    };
    let (step, window, chunk) = (1 + usize::from(step), 1 + usize::from(window), 1 + usize::from(chunk));
    let (one, other) = (cut(text, chunk, step, window), cut(text, 1, step, window));
    assert_eq!((one.1, &one.2), (other.1, &other.2));
    let (out, values, stopped) = cut(text, chunk, step, usize::MAX);
    let whole = plan(&RULES, text, &Circumstances::default());
    assert_eq!(stopped.is_some(), whole.is_err());
    if let Ok(plan) = whole {
        let planned = plan.needs().sealing.iter().map(|need| need.values).sum::<u64>();
        assert_eq!((out.as_slice(), values), (text, planned));
    }
});
