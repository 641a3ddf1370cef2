use super::super::tests::*;
use super::super::{Action, Attitude, Bind, BindSource, Fallback, Manner, Rule, plan};
use super::*;
use crate::path::Path;
use proptest::prelude::*;

/// How a document is cut: bytes of a chunk, bytes of a step of the scan, bytes of the window.
#[derive(Clone, Copy, Debug)]
struct Cuts {
    chunk: usize,
    step: usize,
    window: usize,
}

const WIDE: Cuts = Cuts {
    chunk: 5,
    step: 7,
    window: usize::MAX,
};

/// What went out, and what stopped it.
fn in_pieces(rules: &Rules, body: &[u8], cuts: Cuts) -> (Vec<u8>, Tally, Option<Refusal>) {
    let mut pieces = Pieces::bounded(rules, Circumstances::default(), cuts.window, cuts.step);
    let (mut out, mut tally) = (Vec::new(), Tally::default());
    let mut counter = 0u8;
    let mut random = |buffer: &mut [u8]| {
        for byte in buffer {
            counter = counter.wrapping_mul(31).wrapping_add(7);
            *byte = counter;
        }
    };
    let mut drain = |pieces: &mut Pieces<&Rules>, out: &mut Vec<u8>| {
        while let Some(piece) = pieces.piece()? {
            assert!(!piece.bytes.is_empty() || !piece.is_unchanged());
            tally.add(&piece.apply(&keys(piece.needs()), &mut random, out)?);
        }
        Ok(())
    };
    let mut chunks = body.chunks(cuts.chunk.max(1));
    let stopped = chunks
        .try_for_each(|chunk| {
            pieces.push(chunk);
            drain(&mut pieces, &mut out)
        })
        .and_then(|()| {
            pieces.end();
            drain(&mut pieces, &mut out)
        });
    tally.add(&pieces.unforeseen());
    if stopped.is_ok() {
        assert!(pieces.rest().is_empty(), "not all was given out");
    }
    (out, tally, stopped.err())
}

fn held(rules: &Rules, body: &[u8]) -> Result<(Vec<u8>, Tally), Refusal> {
    let plan = plan(rules, body, &Circumstances::default())?;
    let mut out = Vec::new();
    let tally = plan.apply(body, &keys(plan.needs()), &mut |b| b.fill(7), &mut out)?;
    Ok((out, tally))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Order aside: pieces meet classes and reasons one by one.
fn sorted(mut tally: Tally) -> Tally {
    for list in [
        &mut tally.sealed,
        &mut tally.kept,
        &mut tally.opened,
        &mut tally.masked,
    ] {
        list.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    }
    tally.left.sort_unstable();
    tally
}

fn root(mut rule: Rule, name: &str, path: &str) -> Rule {
    rule.bind.push(Bind {
        name: name.into(),
        source: BindSource::Root(Path::parse(path).unwrap()),
    });
    rule
}

fn opening(rule: &Rule) -> Rule {
    let Action::Seal(class) = &rule.action else {
        panic!("a rule that seals");
    };
    Rule {
        action: Action::Open(vec![class.clone()]),
        ..rule.clone()
    }
}

/// Rules of many kinds, and those that open what they seal.
fn all_kinds() -> Vec<(Vec<Rule>, Vec<Rule>)> {
    let mut all: Vec<Vec<Rule>> = vec![
        vec![seal("$..ssn", "c")],
        vec![seal("$", "c")],
        vec![seal("$..a", "c"), seal("$..*", "d")],
        vec![seal("$[*]", "c"), seal("$[1:3]..b", "d")],
        vec![pass("$..b"), seal("$.*.*", "c")],
        vec![sibling(seal("$..ssn", "c"), "record", "id")],
        vec![sibling(seal("$..*", "c"), "record", "id")],
        vec![
            root(seal("$..ssn", "c"), "record", "$.id"),
            sibling(seal("$..b", "d"), "x", "a"),
        ],
    ];
    let mut inner = seal("$", "c");
    inner.at =
        super::super::At::inside(Path::parse("$..a").unwrap(), Path::parse("$..ssn").unwrap());
    all.push(vec![inner]);
    all.push(vec![Rule {
        action: Action::Seal(alike("x")),
        ..seal("$..ssn", "x")
    }]);
    all.into_iter()
        .map(|rules| {
            let seals = |rule: &&Rule| matches!(rule.action, Action::Seal(_));
            let opens = rules.iter().filter(seals).map(opening).collect();
            (rules, opens)
        })
        .collect()
}

#[track_caller]
fn same_as_held(sealing: Vec<Rule>, opens: Vec<Rule>, body: &[u8], cuts: Cuts) {
    let (sealing, opens) = (compile(sealing), compile(opens));
    let (sealed, tally, stopped) = in_pieces(&sealing, body, cuts);
    match held(&sealing, body) {
        Ok((whole, whole_tally)) => {
            assert_eq!(stopped, None);
            assert_eq!(masked(text(&sealed)), masked(text(&whole)));
            assert_eq!(sorted(tally), sorted(whole_tally));
        }
        Err(_) => assert!(stopped.is_some()),
    }
    let Ok((sealed, _)) = held(&sealing, body) else {
        return;
    };
    let whole = held(&opens, &sealed).unwrap();
    let (opened, tally, stopped) = in_pieces(&opens, &sealed, cuts);
    assert_eq!((text(&opened), stopped), (text(&whole.0), None));
    assert_eq!(sorted(tally), sorted(whole.1));
}

fn cuts() -> impl Strategy<Value = Cuts> {
    (1usize..60, 1usize..40).prop_map(|(chunk, step)| Cuts {
        chunk,
        step,
        window: usize::MAX,
    })
}

#[test]
fn what_came_behind_a_step_does_not_matter() {
    let rules = compile(all_kinds().swap_remove(4).0);
    let body = b"{\"number\":\"fv1~\"}";
    let cut = |chunk| {
        let cuts = Cuts {
            chunk,
            step: 7,
            window: 1,
        };
        in_pieces(&rules, body, cuts)
    };
    let (out, tally, stopped) = cut(1);
    assert_eq!((text(&out), &stopped), (text(body), &None));
    // The value is no rule's: it passes as it came, and is counted once.
    let unclaimed = Tally {
        unclaimed: 1,
        ..Tally::default()
    };
    assert_eq!(tally, unclaimed);
    assert_eq!(cut(3), (out, tally, stopped));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn pieces_are_what_the_whole_would_be(
        body in document(),
        kind in 0..all_kinds().len(),
        cuts in cuts(),
    ) {
        let (sealing, opens) = all_kinds().swap_remove(kind);
        same_as_held(sealing, opens, body.as_bytes(), cuts);
    }

    #[test]
    fn the_chunks_do_not_matter(
        body in document(),
        kind in 0..all_kinds().len(),
        step in 1usize..40,
        window in 1usize..80,
        chunks in (1usize..100, 1usize..100),
    ) {
        let rules = compile(all_kinds().swap_remove(kind).0);
        let cut = |chunk| in_pieces(&rules, body.as_bytes(), Cuts { chunk, step, window });
        let (one, other) = (cut(chunks.0), cut(chunks.1));
        // What is stopped may end within a character.
        prop_assert_eq!(one.0, other.0);
        prop_assert_eq!(one.1, other.1);
        prop_assert_eq!(one.2, other.2);
    }

    /// However narrow the window: what goes out is right, or it stops.
    #[test]
    fn a_narrow_window_stops_or_changes_nothing(
        body in document(),
        kind in 0..all_kinds().len(),
        step in 1usize..20,
        window in 1usize..60,
    ) {
        let (sealing, opens) = all_kinds().swap_remove(kind);
        let sealing = compile(sealing);
        let (sealed, _, stopped) = in_pieces(&sealing, body.as_bytes(), Cuts { chunk: 9, step, window });
        if stopped.is_none() {
            let (whole, _) = held(&sealing, body.as_bytes()).unwrap();
            prop_assert_eq!(masked(text(&sealed)), masked(text(&whole)));
            let opened = held(&compile(opens), &sealed).unwrap();
            let back = held(&compile(all_kinds().swap_remove(kind).1), &whole).unwrap();
            prop_assert_eq!(text(&opened.0), text(&back.0));
        }
    }
}

/// Where each of `paths` is sealed, `body` in pieces with this window: what goes out, tokens as `<>`, and what stops it.
#[track_caller]
fn check(rules: Vec<Rule>, body: &str, window: usize, expected: &str, stop: Option<Refusal>) {
    let cuts = Cuts {
        chunk: 3,
        step: 4,
        window,
    };
    let (out, _, stopped) = in_pieces(&compile(rules), body.as_bytes(), cuts);
    assert_eq!((masked(text(&out)).as_str(), stopped), (expected, stop));
}

#[test]
fn a_value_waits_for_its_bind_as_far_as_the_window_reaches() {
    let rules = || vec![sibling(seal("$..n", "c"), "record", "id")];
    let far = format!(r#"{{"n":1,"x":"{}","id":2}}"#, "x".repeat(60));
    let late = Refusal::Bind {
        name: "record".into(),
        what: "late",
    };
    check(rules(), &far, 90, &far.replacen('1', "<>", 1), None);
    check(rules(), &far, 40, r#"{"n":"#, Some(late.clone()));
    // What stands before the value is remembered, however far.
    let far = format!(r#"{{"id":2,"x":"{}","n":1}}"#, "x".repeat(60));
    check(rules(), &far, 10, &far.replacen(":1", ":<>", 1), None);
    let far = format!(r#"{{"id":2,"n":1,"x":"{}"}}"#, "x".repeat(60));
    check(rules(), &far, 10, &far.replacen(":1", ":<>", 1), None);
    // Once it was relied on, there must not be another.
    let far = format!(r#"{{"id":2,"n":1,"x":"{}","id":3}}"#, "x".repeat(60));
    let repeated = Refusal::Bind {
        name: "record".into(),
        what: "repeated",
    };
    let cuts = Cuts {
        chunk: 3,
        step: 4,
        window: 10,
    };
    let (out, _, stopped) = in_pieces(&compile(rules()), far.as_bytes(), cuts);
    let out = masked(text(&out));
    assert!(out.starts_with(r#"{"id":2,"n":<>,"x":"xxx"#) && !out.contains('3'));
    assert_eq!(stopped, Some(repeated));
    // From the root, likewise; missing altogether, it is no better known.
    let rules = || vec![root(seal("$..n", "c"), "record", "$.id")];
    let near = r#"{"x":[{"n":1},{"n":2}],"id":5,"y":[{"n":3}]}"#;
    let sealed = r#"{"x":[{"n":<>},{"n":<>}],"id":5,"y":[{"n":<>}]}"#;
    check(rules(), near, 60, sealed, None);
    check(rules(), near, 15, r#"{"x":[{"n":"#, Some(late));
}

#[test]
fn what_comes_too_late_leaves_sealed_on_the_way_back() {
    let sealed = held(
        &compile(vec![sibling(seal("$..n", "c"), "record", "id")]),
        br#"[{"n":1,"id":2},{"n":3,"id":4}]"#,
    );
    let sealed = String::from_utf8(sealed.unwrap().0).unwrap();
    let far = sealed.replacen(
        r#","id":2"#,
        &format!(r#","x":"{}","id":2"#, "x".repeat(700)),
        1,
    );
    let rules = compile(vec![sibling(open("$..n", &["c"]), "record", "id")]);
    let cuts = Cuts {
        chunk: 100,
        step: 10,
        window: 600,
    };
    let (out, tally, stopped) = in_pieces(&rules, far.as_bytes(), cuts);
    let out = text(&out);
    assert_eq!(stopped, None);
    assert_eq!(tally.left, [("bind", 1)]);
    assert!(out.contains(r#"{"n":3,"id":4}"#) && out.starts_with(r#"[{"n":"fv1~"#));
}

#[test]
fn long_values_pass_or_stop_by_what_is_done_with_them() {
    let long = "x".repeat(100);
    let body = format!(
        r#"{{"a":"f{long}","b":["fv1~{long}~","\u0066{long}",{}],"c":1}}"#,
        "1".repeat(90)
    );
    check(
        vec![seal("$.c", "c")],
        &body,
        30,
        &body.replace(":1}", ":<>}"),
        None,
    );
    let offset = body.find("\"f").unwrap();
    check(
        vec![seal("$.a", "c")],
        &body,
        30,
        r#"{"a":"#,
        Some(Refusal::TooLong { offset }),
    );
    let offset = body.find('[').unwrap();
    let (out, _, stopped) = in_pieces(
        &compile(vec![seal("$.b", "c")]),
        body.as_bytes(),
        Cuts {
            chunk: 8,
            step: 8,
            window: 30,
        },
    );
    assert_eq!(stopped, Some(Refusal::TooLong { offset }));
    assert_eq!(text(&out), &body[..offset]);
    // A bound value that is too long is just that, as it is when the body is held; without its text nobody looks closer.
    let rules = vec![sibling(seal("$.c", "c"), "record", "a")];
    let (_, _, stopped) = in_pieces(
        &compile(rules),
        body.as_bytes(),
        Cuts { window: 30, ..WIDE },
    );
    let length = Refusal::Bind {
        name: "record".into(),
        what: "length",
    };
    assert_eq!(stopped, Some(length));
    // Opening: no token is so long, and what is plain is counted as ever.
    let rules = compile(vec![
        open("$.a", &["c"]),
        open("$.b[0]", &["c"]),
        open("$.b[2]", &["c"]),
    ]);
    let cuts = Cuts { window: 30, ..WIDE };
    let (out, tally, stopped) = in_pieces(&rules, body.as_bytes(), cuts);
    assert_eq!((text(&out), stopped), (body.as_str(), None));
    assert_eq!(
        (tally.left.as_slice(), tally.plaintext, tally.strays),
        (&[("malformed", 1)][..], 1, 1)
    );
}

#[test]
fn what_is_rejected_stops_it_where_it_stands() {
    let manner = |unclaimed, stray, near_miss| Manner {
        unclaimed,
        stray,
        near_miss,
        ..MANNER
    };
    let (no, yes) = (Attitude::Report, Attitude::Reject);
    let body = r#"[{"n":1},{"n":2,"N":3,"m":[4],"t":"fv1~AA~"},{"n":5}]"#;
    for (manner, word) in [
        (manner(yes, no, no), "unclaimed"),
        (manner(no, yes, no), "stray"),
        (manner(no, no, yes), "near-miss"),
    ] {
        let rules = Rules::compile(vec![seal("$..n", "c")], manner).unwrap();
        let cuts = Cuts { step: 4, ..WIDE };
        let (out, _, stopped) = in_pieces(&rules, body.as_bytes(), cuts);
        assert_eq!(stopped.map(|refusal| refusal.word()), Some(word));
        assert!(masked(text(&out)).starts_with(r#"[{"n":<>}"#), "{word}");
        assert!(!masked(text(&out)).contains('5'));
    }
    let manner = Manner {
        unopened: Fallback::Reject,
        ..MANNER
    };
    let rules = Rules::compile(vec![open("$..t", &["c"])], manner).unwrap();
    let (_, _, stopped) = in_pieces(&rules, body.as_bytes(), WIDE);
    let offset = body.find("\"fv1").unwrap();
    assert_eq!(stopped, Some(Refusal::Unopened { offset }));
}

#[test]
fn a_broken_end_is_no_end() {
    let rules = compile(vec![seal("$[*].n", "c")]);
    for body in [
        r#"[{"n":1},{"n":2}"#,
        r#"[{"n":1}]]"#,
        r#"[{"n":1},{"n""#,
        "",
        r#"[{"n":1},}"#,
    ] {
        let (_, _, stopped) = in_pieces(&rules, body.as_bytes(), WIDE);
        assert!(
            matches!(stopped, Some(Refusal::NotJson { .. })),
            "{body}: {stopped:?}"
        );
    }
}

#[test]
fn what_is_kept_does_not_grow_with_the_body() {
    let rules = compile(vec![
        sibling(seal("$..n", "c"), "record", "id"),
        root(seal("$..m", "c"), "root", "$[0].root"),
    ]);
    let mut pieces = Pieces::new(&rules, Circumstances::default(), 0);
    let element = r#"{"id":"record","m":7,"n":8,"o":{"id":1,"id":2,"x":[{"id":4}]}},"#;
    pieces.push(br#"[{"root":1},"#);
    let (mut most, mut values) = (0, 0);
    for _ in 0..2_000 {
        pieces.push(element.repeat(20).as_bytes());
        while let Some(piece) = pieces.piece().unwrap() {
            assert!(piece.needs().sealing[0].values as usize <= PIECE_VALUES_MAX);
            values += piece.needs().sealing[0].values;
        }
        most = most.max(pieces.hits.len() + pieces.captures.len() + pieces.text.len() / 100);
    }
    assert!(values > 79_000 && most < 3_000, "{values} {most}");
}
