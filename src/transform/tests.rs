use super::*;
use crate::context::{Circumstances, Outside};
use crate::dek::{Dek, Kid, MATERIAL_LEN, Material, Needs, Ring, SealingKey, Unopened, schedule};
use crate::mask::Mask;
use crate::token::Token;
use crate::token::record::{Record, kek_id};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

struct Plainly([u8; MATERIAL_LEN]);

impl Material for Plainly {
    fn expose(&self) -> &[u8; MATERIAL_LEN] {
        &self.0
    }
}

/// A key room of the test: a DEK is the hash of its scope, and its record names it in clear.
fn dek_of(seed: &[u8]) -> Dek {
    let dek: [u8; 32] = Sha256::digest(seed).into();
    let mut material = [0; MATERIAL_LEN];
    let kid = schedule(&dek, &mut material);
    Dek::new(kid, Box::new(Plainly(material)))
}

fn seed(scope: &crate::dek::Scope) -> String {
    format!("{} {:?}", scope.key, scope.tenant)
}

pub(super) fn keys(needs: &Needs) -> Ring {
    Ring {
        sealing: needs
            .sealing
            .iter()
            .map(|need| {
                let stored = need.suite == crate::dek::Suite::Aes256Siv;
                let mut seed = seed(&need.scope);
                if stored {
                    seed = format!("alike {seed}");
                }
                let blob = seed.as_bytes().to_vec();
                Arc::new(SealingKey {
                    dek: dek_of(&blob),
                    record: Record::build(&[(kek_id("test:kek"), &blob)]).unwrap(),
                    stored,
                })
            })
            .collect(),
        opening: needs
            .opening
            .iter()
            .map(|need| {
                let Some(record) = need.record.as_deref() else {
                    // A reference: the store has the scope's deterministic DEK, and no other.
                    let dek = dek_of(format!("alike {}", seed(&need.scope)).as_bytes());
                    return match dek.kid() == need.kid {
                        true => Ok(Arc::new(dek)),
                        false => Err(Unopened::NotFound),
                    };
                };
                let record = Record::parse(record).map_err(|_| Unopened::Mismatch)?;
                let blob = record.wrappings().next().unwrap().1;
                let dek = dek_of(blob);
                // As the key room does: it opens for the scope that it was wrapped for, and only as the kid that it has.
                if blob != seed(&need.scope).as_bytes() {
                    return Err(Unopened::Denied);
                }
                if dek.kid() != need.kid {
                    Err(Unopened::Mismatch)
                } else {
                    Ok(Arc::new(dek))
                }
            })
            .collect(),
    }
}

pub(super) fn class(name: &str) -> Arc<Class> {
    Arc::new(Class {
        name: name.into(),
        formerly: vec![],
        key: "k".into(),
        suite: crate::dek::Suite::Xaes256Gcm,
        keep_sealed: true,
        mask: None,
    })
}

pub(super) fn rule(at: &str, action: Action) -> Rule {
    Rule {
        at: Path::parse(at).unwrap().into(),
        action,
        bind: vec![],
        reveal: Reveal::default(),
        gather: false,
    }
}

pub(super) fn seal(at: &str, name: &str) -> Rule {
    rule(at, Action::Seal(class(name)))
}

pub(super) fn open(at: &str, names: &[&str]) -> Rule {
    rule(
        at,
        Action::Open(names.iter().map(|name| class(name)).collect()),
    )
}

pub(super) fn pass(at: &str) -> Rule {
    rule(at, Action::Pass)
}

pub(super) fn sibling(mut rule: Rule, name: &str, member: &str) -> Rule {
    rule.bind.push(Bind {
        name: name.into(),
        source: BindSource::Sibling(member.into()),
    });
    rule
}

pub(super) const MANNER: Manner = Manner {
    stray: Attitude::Report,
    unclaimed: Attitude::Report,
    plaintext: Attitude::Report,
    near_miss: Attitude::Report,
    unopened: Fallback::Leave,
    depth_max: 128,
};

pub(super) fn compile(rules: Vec<Rule>) -> Rules {
    Rules::compile(rules, MANNER).unwrap()
}

pub(super) fn run_in(
    rules: &Rules,
    body: &str,
    circumstances: &Circumstances,
) -> Result<(String, Tally), Refusal> {
    let plan = plan(rules, body.as_bytes(), circumstances)?;
    let mut counter = 0u8;
    let mut random = |buffer: &mut [u8]| {
        for byte in buffer {
            counter = counter.wrapping_mul(31).wrapping_add(7);
            *byte = counter;
        }
    };
    let mut out = Vec::new();
    let tally = plan.apply(body.as_bytes(), &keys(plan.needs()), &mut random, &mut out)?;
    Ok((String::from_utf8(out).unwrap(), tally))
}

fn run(rules: &Rules, body: &str) -> Result<(String, Tally), Refusal> {
    run_in(rules, body, &Circumstances::default())
}

fn count(counts: &[(Arc<Class>, u32)]) -> u32 {
    counts.iter().map(|(_, count)| count).sum()
}

/// The tokens of a text are replaced by `<>`, so that the rest can be compared.
pub(super) fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\"fv1~") {
        let end = at + 1 + rest[at + 1..].find('"').unwrap();
        let token = Token::decode(&rest.as_bytes()[at + 1..end], &mut Vec::new()).is_ok();
        let (kept, mark) = if token { (at, "<>") } else { (end + 1, "") };
        out.push_str(&rest[..kept]);
        out.push_str(mark);
        rest = &rest[end + 1..];
    }
    out + rest
}

/// Seals by `rules`: what goes out, with `<>` for tokens; and it opens to exactly what was sealed.
#[track_caller]
fn check(rules: Vec<Rule>, body: &str, expected: &str) {
    let names: Vec<Arc<Class>> = rules
        .iter()
        .filter_map(|rule| match &rule.action {
            Action::Seal(class) => Some(class.clone()),
            _ => None,
        })
        .collect();
    let binds: Vec<Rule> = rules
        .iter()
        .filter(|rule| !rule.bind.is_empty())
        .map(|rule| Rule {
            action: Action::Open(names.clone()),
            ..rule.clone()
        })
        .collect();
    let (sealed, tally) = run(&compile(rules), body).unwrap();
    assert_eq!(masked(&sealed), expected);
    let back = if binds.is_empty() {
        vec![
            rule("$", Action::Open(names.clone())),
            rule("$..*", Action::Open(names)),
        ]
    } else {
        binds
    };
    let (opened, back) = run(&compile(back), &sealed).unwrap();
    assert_eq!(opened, body);
    assert_eq!(count(&back.opened), count(&tally.sealed));
    assert_eq!(back.left, []);
}

#[test]
fn values_of_every_type_are_sealed_and_come_back_exactly() {
    let s = || vec![seal("$.s", "c")];
    check(s(), r#"{"s":"078-05-1120","t":1}"#, r#"{"s":<>,"t":1}"#);
    check(s(), r#" { "s" : 1250.50 } "#, r#" { "s" : <> } "#);
    for value in [
        "true",
        "false",
        "null",
        "0",
        "-0",
        "1e400",
        "[]",
        "{}",
        "\"\"",
        "[1, {\"a\":[ ]}]",
        "{\"a\": 1, \"a\" :2}",
        "\"\\u0073\\ud800\"",
        "\"é😀\"",
    ] {
        check(s(), &format!("{{\"s\":{value}}}"), "{\"s\":<>}");
    }
    check(vec![seal("$", "c")], " [1, 2] ", " <> ");
    check(vec![seal("$", "c")], "7", "<>");
    check(
        s(),
        r#"{"s":1,"\u0073":2,"S":3,"s":4}"#,
        r#"{"s":<>,"\u0073":<>,"S":3,"s":<>}"#,
    );
    check(s(), "{}", "{}");
    check(
        vec![seal("$..n", "c"), seal("$[*].m", "d")],
        r#"[{"n":1,"m":[2]},{"n":3}]"#,
        "[{\"n\":<>,\"m\":<>},{\"n\":<>}]",
    );
}

#[test]
fn the_first_rule_wins_and_an_enclosing_value_wins_over_its_parts() {
    check(
        vec![seal("$.a", "c"), seal("$.a.b", "d")],
        r#"{"a":{"b":1}}"#,
        r#"{"a":<>}"#,
    );
    check(
        vec![seal("$.a.b", "d"), seal("$.a", "c")],
        r#"{"a":{"b":1}}"#,
        r#"{"a":<>}"#,
    );
    check(
        vec![pass("$.a"), seal("$..*", "c")],
        r#"{"a":1,"b":2}"#,
        r#"{"a":1,"b":<>}"#,
    );
    check(
        vec![seal("$.a", "c"), pass("$..*")],
        r#"{"a":1,"b":2}"#,
        r#"{"a":<>,"b":2}"#,
    );
    let (_, tally) = run(
        &compile(vec![seal("$.a", "c"), seal("$.a", "d")]),
        r#"{"a":1}"#,
    )
    .unwrap();
    assert_eq!(tally.sealed, [(class("c"), 1)]);
    // A rule that passes a container does not hide what a rule seals inside of it.
    check(
        vec![pass("$.a"), seal("$.a.b", "c")],
        r#"{"a":{"b":1,"x":2}}"#,
        r#"{"a":{"b":1,"x":2}}"#,
    );
}

#[test]
fn short_values_are_padded_and_long_ones_have_their_length() {
    let length = |value: &str| run(&compile(vec![seal("$", "c")]), value).unwrap().0.len();
    assert_eq!(length("true"), length("false"));
    assert_eq!(length("1"), length("12345678"));
    assert!(length("123456789") > length("12345678"));
    let long = format!("\"{}\"", "x".repeat(800_000));
    assert!(matches!(
        run(
            &compile(vec![seal("$.s", "c")]),
            &format!("{{\"s\":{long}}}")
        ),
        Err(Refusal::TooLong { offset: 5 })
    ));
    check(
        vec![seal("$.s", "c")],
        &format!("{{\"s\":{}}}", "9".repeat(500_000)),
        "{\"s\":<>}",
    );
}

#[test]
fn a_token_at_a_sealing_place_stays_if_it_opens_there() {
    let rules = compile(vec![seal("$.s", "c"), seal("$.t", "d")]);
    let (sealed, _) = run(&rules, r#"{"s":1,"t":2}"#).unwrap();
    let (again, tally) = run(&rules, &sealed).unwrap();
    assert_eq!(again, sealed);
    assert_eq!((count(&tally.kept), count(&tally.sealed)), (2, 0));
    // Mixed plaintext and tokens.
    let mixed = sealed.replace("\"t\":", "\"u\":").replace('}', ",\"t\":3}");
    let (out, tally) = run(&rules, &mixed).unwrap();
    assert_eq!(
        (count(&tally.kept), count(&tally.sealed), tally.strays),
        (1, 1, 1)
    );
    assert!(out.starts_with(&mixed[..mixed.len() - 2]));
    // Of another class, forged, truncated, of an unknown suite, merely of reserved form: refused.
    let swapped = sealed.replace("\"s\"", "\"x\"").replace("\"t\"", "\"s\"");
    let start = swapped.find("\"s\":").unwrap() + 4;
    assert_eq!(
        run(&rules, &swapped).unwrap_err(),
        Refusal::Token { offset: start }
    );
    let flipped = sealed.replacen("~\"", "A~\"", 1);
    for bad in [
        flipped.as_str(),
        r#"{"s":"fv1~~"}"#,
        r#"{"s":"fv2~AAAA~"}"#,
        r#"{"s":"fv123~ ~"}"#,
        r#"{"s":"fv1~CQEA43_6wyW7~"}"#,
        r#"{"s":"\u0066v1~AAAA~"}"#,
    ] {
        assert_eq!(run(&rules, bad).unwrap_err().word(), "token", "{bad}");
    }
    // An escape in its spelling changes nothing.
    let (out, tally) = run(&rules, &sealed.replace("fv1~", "\\u0066\\u00761~")).unwrap();
    assert_eq!(
        (out, count(&tally.kept)),
        (sealed.replace("fv1~", "\\u0066\\u00761~"), 2)
    );
    let strict = Class {
        suite: crate::dek::Suite::Xaes256Gcm,
        keep_sealed: false,
        mask: None,
        ..(*class("c")).clone()
    };
    let rules = compile(vec![rule("$.s", Action::Seal(Arc::new(strict)))]);
    assert_eq!(
        run(&rules, &sealed).unwrap_err(),
        Refusal::Token { offset: 5 }
    );
}

#[test]
fn tokens_open_in_their_context_only() {
    let tenant = |name: &str| Circumstances {
        tenant: Some(name.into()),
        outside: vec![],
        ..Circumstances::default()
    };
    let rules = compile(vec![seal("$.s", "c")]);
    let (sealed, _) = run_in(&rules, r#"{"s":"v"}"#, &tenant("acme")).unwrap();
    let opening = compile(vec![open("$..*", &["c", "d"])]);
    assert_eq!(
        run_in(&opening, &sealed, &tenant("acme")).unwrap().0,
        r#"{"s":"v"}"#
    );
    let (out, tally) = run_in(&opening, &sealed, &tenant("evil")).unwrap();
    assert_eq!((out, tally.left), (sealed.clone(), vec![("denied", 1)]));
    assert_eq!(run(&opening, &sealed).unwrap().1.left, [("denied", 1)]);
    let (_, tally) = run_in(
        &compile(vec![open("$..*", &["d"])]),
        &sealed,
        &tenant("acme"),
    )
    .unwrap();
    assert_eq!((tally.left, tally.strays), (vec![("class", 1)], 0));
    let (_, tally) = run_in(
        &compile(vec![open("$.other", &["d"])]),
        &sealed,
        &tenant("acme"),
    )
    .unwrap();
    assert_eq!(tally.strays, 1);
    // A class that was renamed opens what was sealed under its old name.
    let renamed = Class {
        formerly: vec!["c".into()],
        ..(*class("new")).clone()
    };
    let opening = compile(vec![rule("$..*", Action::Open(vec![Arc::new(renamed)]))]);
    assert_eq!(
        run_in(&opening, &sealed, &tenant("acme")).unwrap().0,
        r#"{"s":"v"}"#
    );
}

#[test]
fn forged_tokens_stay_sealed_and_are_counted() {
    let opening = compile(vec![open("$..*", &["c"])]);
    for (value, word) in [
        ("fv1~~", "malformed"),
        ("fv9~AAAA~", "malformed"),
        ("fv1~AQEA43_6wyW76Weh3Q66ON1xKFTW~", "malformed"),
    ] {
        let body = format!("{{\"a\":[\"{value}\"]}}");
        let (out, tally) = run(&opening, &body).unwrap();
        assert_eq!((out, tally.left), (body, vec![(word, 1)]));
    }
    let (sealed, _) = run(
        &compile(vec![seal("$.s", "c")]),
        r#"{"s":"value of some length"}"#,
    )
    .unwrap();
    // Any change to the sealed bytes: refused. 24 bytes before the end stand inside of ciphertext and tag.
    let at = sealed.len() - 24;
    let mut forged = sealed.clone().into_bytes();
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    let (out, tally) = run(&opening, &forged).unwrap();
    assert_eq!((out, tally.left), (forged, vec![("refused", 1)]));
}

#[test]
fn what_opens_must_be_exactly_one_json_value() {
    use crate::seal::Sealer;
    use crate::token::{ClassHint, Prefix, Suite};
    let needs = Needs {
        sealing: vec![crate::dek::SealNeed {
            scope: crate::dek::Scope {
                key: "k".into(),
                tenant: None,
            },
            suite: Suite::Xaes256Gcm,
            values: 1,
        }],
        opening: vec![],
    };
    let ring = keys(&needs);
    let key = &ring.sealing[0];
    let forge = |plaintext: &[u8]| {
        let (mut entries, mut aad, mut buf, mut out) = (vec![], vec![], vec![9; 12], vec![]);
        crate::context::push_entry("class", b"c", &mut entries);
        crate::context::associated_data(Suite::Xaes256Gcm, key.dek.kid(), &entries, &mut aad);
        buf.extend_from_slice(plaintext);
        Sealer::new(&key.dek, [7; 12]).seal([9; 12], &aad, &mut buf, 12);
        Prefix::new(
            Suite::Xaes256Gcm,
            ClassHint::of("c"),
            key.dek.kid(),
            Some(&key.record),
            Some(&[7; 12]),
        )
        .write(&buf, &mut out);
        format!("[\"{}\"]", String::from_utf8(out).unwrap())
    };
    let opening = compile(vec![open("$..*", &["c"])]);
    assert_eq!(run(&opening, &forge(b"\"ok\"    ")).unwrap().0, "[\"ok\"]");
    for bad in [
        "",
        "        ",
        "1,2",
        "1 2",
        "\"a\",\"admin\":true",
        " 1",
        "1\n",
        "nul",
        "{\"a\":1}}",
        "\u{feff}1",
        "\"\u{1}\"",
    ] {
        let body = forge(bad.as_bytes());
        let (out, tally) = run(&opening, &body).unwrap();
        assert_eq!((out, tally.left), (body, vec![("refused", 1)]), "{bad}");
    }
}

#[test]
fn bound_values_come_from_siblings_root_and_outside() {
    let bound = |at: &str| sibling(seal(at, "c"), "record", "id");
    check(
        vec![bound("$..n")],
        r#"[{"n":1,"id":"x"},{"id":7,"n":2}]"#,
        r#"[{"n":<>,"id":"x"},{"id":7,"n":<>}]"#,
    );
    // Exchanged between two objects, they do not open.
    let (sealed, _) = run(
        &compile(vec![bound("$..n")]),
        r#"[{"n":1,"id":"x"},{"n":2,"id":"y"}]"#,
    )
    .unwrap();
    let swapped = sealed
        .replace("\"x\"", "\"?\"")
        .replace("\"y\"", "\"x\"")
        .replace("\"?\"", "\"y\"");
    let opening = compile(vec![sibling(open("$..n", &["c"]), "record", "id")]);
    assert_eq!(run(&opening, &swapped).unwrap().1.left, [("refused", 2)]);
    // Equal texts in other spellings are equal.
    let respelt = sealed.replace("\"x\"", "\"\\u0078\"");
    assert_eq!(count(&run(&opening, &respelt).unwrap().1.opened), 2);
    for (body, what) in [
        (r#"{"n":1}"#, "missing"),
        (r#"{"n":1,"id":"a","id":"a"}"#, "repeated"),
        (r#"{"n":1,"id":"a","i\u0064":"a"}"#, "repeated"),
        (r#"{"n":1,"id":null}"#, "type"),
        (r#"{"n":1,"id":1.5}"#, "type"),
        (r#"{"n":1,"id":1e3}"#, "type"),
        (r#"{"n":1,"id":true}"#, "type"),
        (r#"{"n":1,"id":["a"]}"#, "type"),
        (r#"{"n":1,"id":"fv1~AA~"}"#, "sealed"),
        (r#"{"n":1,"id":"\u0066v1~AA~"}"#, "sealed"),
        (r#"{"x":{"id":1},"n":1}"#, "missing"),
    ] {
        let refusal = run(&compile(vec![bound("$.n")]), body).unwrap_err();
        assert_eq!(
            refusal,
            Refusal::Bind {
                name: "record".into(),
                what
            },
            "{body}"
        );
    }
    let long = format!(r#"{{"n":1,"id":"{}"}}"#, "x".repeat(65_534));
    assert_eq!(
        run(&compile(vec![bound("$.n")]), &long).unwrap_err(),
        Refusal::Bind {
            name: "record".into(),
            what: "length"
        }
    );
    // A sibling that is sealed itself binds nothing: the other side would see its token.
    let rules = compile(vec![bound("$.n"), seal("$.id", "d")]);
    assert_eq!(
        run(&rules, r#"{"n":1,"id":"a"}"#).unwrap_err(),
        Refusal::Bind {
            name: "record".into(),
            what: "sealed"
        }
    );
    // When opening, it stays sealed.
    let (out, tally) = run(&opening, &sealed.replace("\"id\"", "\"di\"")).unwrap();
    assert_eq!(
        (out, tally.left),
        (sealed.replace("\"id\"", "\"di\""), vec![("bind", 2)])
    );

    let mut root = seal("$..n", "c");
    root.bind.push(Bind {
        name: "a".into(),
        source: BindSource::Root(Path::parse("$.meta.id").unwrap()),
    });
    root.bind.push(Bind {
        name: "z".into(),
        source: BindSource::Outside(0),
    });
    let outside = |outside| Circumstances {
        tenant: None,
        outside: vec![outside],
        ..Circumstances::default()
    };
    let rules = compile(vec![root.clone()]);
    let here = outside(Outside::Text("p\"1".into()));
    let (sealed, _) = run_in(&rules, r#"{"x":[{"n":1}],"meta":{"id":"m"},"n":2}"#, &here).unwrap();
    assert_eq!(
        masked(&sealed),
        r#"{"x":[{"n":<>}],"meta":{"id":"m"},"n":<>}"#
    );
    root.action = Action::Open(vec![class("c")]);
    let opening = compile(vec![root]);
    assert_eq!(
        count(&run_in(&opening, &sealed, &here).unwrap().1.opened),
        2
    );
    assert_eq!(
        run_in(&opening, &sealed, &outside(Outside::Text("q".into())))
            .unwrap()
            .1
            .left,
        [("refused", 2)]
    );
    for (value, what) in [
        (Outside::Missing, "missing"),
        (Outside::Repeated, "repeated"),
    ] {
        let refusal = run_in(&rules, r#"{"n":1,"meta":{"id":1}}"#, &outside(value)).unwrap_err();
        assert_eq!(
            refusal,
            Refusal::Bind {
                name: "z".into(),
                what
            }
        );
    }
}

#[test]
fn strays_unclaimed_leaves_and_plaintext_are_counted_or_refused() {
    let manner = |stray, unclaimed| Manner {
        stray,
        unclaimed,
        ..MANNER
    };
    let rules = |manner| Rules::compile(vec![seal("$.s", "c"), pass("$.p")], manner).unwrap();
    let body = r#"{"s":{"x":"fv1~AA~"},"p":{"q":[1,"a"]},"t":"fv1~AA~","u":null,"v":[]}"#;
    let (_, tally) = run(&rules(MANNER), body).unwrap();
    assert_eq!(
        (tally.strays, tally.unclaimed, count(&tally.sealed)),
        (1, 2, 1)
    );
    let (_, tally) = run(&rules(manner(Attitude::Allow, Attitude::Allow)), body).unwrap();
    assert_eq!((tally.strays, tally.unclaimed), (0, 0));
    let stray = body.find("\"t\":").unwrap() + 4;
    assert_eq!(
        run(&rules(manner(Attitude::Reject, Attitude::Report)), body).unwrap_err(),
        Refusal::Stray { offset: stray }
    );
    assert_eq!(
        run(&rules(manner(Attitude::Allow, Attitude::Reject)), body).unwrap_err(),
        Refusal::Unclaimed { offset: stray }
    );
    assert!(
        run(
            &rules(manner(Attitude::Reject, Attitude::Reject)),
            r#"{"s":1,"p":{"q":{"r":[2]}}}"#
        )
        .is_ok()
    );
    let (_, tally) = run(
        &compile(vec![open("$..n", &["c"])]),
        r#"{"n":"plain","x":{"n":null},"y":{"n":4}}"#,
    )
    .unwrap();
    assert_eq!(tally.plaintext, 2);
}

/// Which members of `body` are near misses under rules that seal `paths`: their values.
#[track_caller]
fn near(paths: &[&str], body: &str, count: u32, first: &str) {
    let rules = compile(paths.iter().map(|path| seal(path, "c")).collect());
    let tally = plan(&rules, body.as_bytes(), &Circumstances::default());
    let tally = tally.unwrap().tally().clone();
    assert_eq!(tally.near_misses, count, "{paths:?} {body}");
    let strict = Manner {
        near_miss: Attitude::Reject,
        ..MANNER
    };
    let all = paths.iter().map(|path| seal(path, "c")).collect();
    let strict = Rules::compile(all, strict).unwrap();
    let refused = plan(&strict, body.as_bytes(), &Circumstances::default()).err();
    let offset = body.find(first).unwrap();
    assert_eq!(
        refused,
        (count > 0).then_some(Refusal::NearMiss { offset }),
        "{paths:?} {body}"
    );
}

#[test]
fn names_that_are_nearly_those_of_sealed_values_are_seen() {
    for name in [
        "SSN",
        "Ssn",
        "\u{17f}sn",
        "s\u{17f}N",
        "ss\u{200b}n",
        "\u{feff}ssn",
        "\u{ff53}\u{ff53}\u{ff4e}",
        "\\u0053sn",
        "\\u017fsn",
        "s\\u200bsn",
    ] {
        near(&["$..ssn"], &format!(r#"{{"a":0,"{name}":77}}"#), 1, "77");
        near(
            &["$.p.ssn"],
            &format!(r#"{{"p":{{"{name}":[77]}}}}"#),
            1,
            "[77]",
        );
    }
    for name in [
        "ssn",
        "\\u0073sn",
        "sssn",
        "ssm",
        "s_sn",
        "",
        "\u{e4}sn",
        "ssn2",
        "sn",
    ] {
        near(&["$..ssn"], &format!(r#"{{"{name}":7}}"#), 0, "{");
    }
    for name in [
        "cardNumber",
        "card-number",
        "CARDNUMBER",
        "CardNumber",
        "CARD_NUMBER",
        "card_\u{200d}number",
    ] {
        near(&["$.card_number"], &format!(r#"{{"{name}":7}}"#), 1, "7");
        near(
            &["$.cardNumber", "$.x.card_number"],
            r#"{"x":{"card_numbers":7}}"#,
            0,
            "{",
        );
    }
    near(&["$.to\u{212a}en"], r#"{"token":7}"#, 1, "7");
    near(&["$.token"], "{\"to\u{212a}en\":7}", 1, "7");
    near(&["$['GR\u{d6}SSE']"], "{\"gr\u{f6}sse\":7}", 1, "7");
    near(&["$['gr\u{f6}sse']"], "{\"GR\u{d6}SSE\":7}", 1, "7");
    near(
        &["$['an_identifier_that_is_long']"],
        r#"{"anIdentifierThatIsLong":7,"an_identifier_that_is_lonG":8}"#,
        2,
        "7",
    );
    // A name within the path is one of its names; all members of such a name count once each.
    near(
        &["$.customer.ssn"],
        r#"{"Customer":{"ssn":1},"CUSTOMER":2}"#,
        2,
        r#"{"ssn"#,
    );
    near(
        &["$.customer.ssn"],
        r#"{"customer":{"SSN":1},"ssn":3}"#,
        1,
        "1",
    );
    // What another rule names, or seals, is no miss.
    near(&["$.ssn", "$.SSN"], r#"{"ssn":1,"SSN":2,"Ssn":3}"#, 1, "3");
    near(&["$.ssn", "$.*"], r#"{"SSN":2}"#, 0, "{");
    near(
        &["$.f[?@.t=='x'].number"],
        r#"{"f":[{"t":"x","number":1,"Number":2}]}"#,
        1,
        "2",
    );
}

#[test]
fn near_misses_are_found_in_any_pieces() {
    let rules = compile(vec![seal("$..card_number", "c")]);
    let body = "{\"Card\u{200b}Number\":1,\"x\":{\"card-number\":[2]}}";
    for cut in 0..body.len() {
        let mut scanner = crate::scan::Scanner::new(&rules.automaton, 32);
        scanner.feed(&body.as_bytes()[..cut]).unwrap();
        scanner.feed(&body.as_bytes()[cut..]).unwrap();
        assert_eq!(scanner.finish().unwrap().near.names, 2, "{cut}");
    }
}

#[test]
fn what_is_passed_or_named_is_still_told_from_a_near_miss() {
    let rules = compile(vec![seal("$.ssn", "c"), pass("$.SSN"), pass("$..*")]);
    let (out, tally) = run(&rules, r#"{"SSN":1,"Ssn":2}"#).unwrap();
    assert_eq!(
        (out.as_str(), tally.near_misses),
        (r#"{"SSN":1,"Ssn":2}"#, 1)
    );
    let opens = compile(vec![open("$.ssn", &["c"])]);
    assert_eq!(run(&opens, r#"{"SSN":1}"#).unwrap().1.near_misses, 0);
}

#[test]
fn plaintext_at_an_opening_place_is_counted_or_refused() {
    let rules = |plaintext| {
        let manner = Manner {
            plaintext,
            ..MANNER
        };
        Rules::compile(
            vec![open("$..n", &["c"]), open("$..*", &["c", "d"])],
            manner,
        )
        .unwrap()
    };
    let body = r#"{"n":null,"m":3,"x":{"n":"plain"}}"#;
    assert_eq!(run(&rules(Attitude::Allow), body).unwrap().1.plaintext, 0);
    assert_eq!(run(&rules(Attitude::Report), body).unwrap().1.plaintext, 1);
    let offset = body.find("\"plain").unwrap();
    assert_eq!(
        run(&rules(Attitude::Reject), body).unwrap_err(),
        Refusal::Plaintext { offset }
    );
    assert!(rules(Attitude::Reject).rejects() && !rules(Attitude::Report).rejects());
}

#[test]
fn a_token_that_does_not_open_stays_gives_way_to_null_or_stops_the_body() {
    let sealed = run(&compile(vec![seal("$.n", "c")]), r#"{"n":1}"#)
        .unwrap()
        .0;
    let token = &sealed[6..sealed.len() - 2];
    let rules = |unopened| {
        let manner = Manner { unopened, ..MANNER };
        let bound = sibling(open("$..n", &["c"]), "record", "id");
        Rules::compile(vec![bound, open("$.m", &["d"])], manner).unwrap()
    };
    // For want of a bind; sealed without one; of another class; no token at all; and one that no rule opens.
    for (body, why) in [
        (format!(r#"{{"n":"{token}"}}"#), "bind"),
        (format!(r#"{{"n":"{token}","id":1}}"#), "refused"),
        (format!(r#"{{"m":"{token}"}}"#), "class"),
        (r#"{"n":"fv1~A~","id":1}"#.to_owned(), "malformed"),
    ] {
        let (out, tally) = run(&rules(Fallback::Leave), &body).unwrap();
        assert_eq!(
            (out, tally.left.as_slice(), tally.nulled),
            (body.clone(), &[(why, 1)][..], 0)
        );
        assert!(!tally.replaces());
        let (out, tally) = run(&rules(Fallback::Null), &body).unwrap();
        let at = body.find("\"fv1~").unwrap();
        let end = body[at + 1..].find('"').unwrap() + at + 2;
        assert_eq!(out, format!("{}null{}", &body[..at], &body[end..]));
        assert_eq!((tally.left.as_slice(), tally.nulled), (&[(why, 1)][..], 1));
        assert!(tally.replaces());
        let refusal = run(&rules(Fallback::Reject), &body).unwrap_err();
        assert_eq!(refusal, Refusal::Unopened { offset: at });
    }
    let stray = format!(r#"{{"o":"{token}"}}"#);
    assert_eq!(run(&rules(Fallback::Null), &stray).unwrap().0, stray);
}

/// A class whose values are masked.
pub(super) fn masked_class(name: &str, mask: Mask) -> Arc<Class> {
    let class = Class::clone(&class(name));
    let mask = Some(mask);
    Arc::new(Class { mask, ..class })
}

fn revealing(
    at: &str,
    classes: Vec<Arc<Class>>,
    default: Level,
    callers: &[(&str, Level)],
) -> Rule {
    let mut rule = rule(at, Action::Open(classes));
    let callers = callers.iter().map(|(name, level)| ((*name).into(), *level));
    rule.reveal = Reveal {
        default,
        callers: callers.collect(),
    };
    rule
}

fn asked_by(caller: Option<&str>) -> Circumstances {
    Circumstances {
        caller: caller.map(Into::into),
        ..Circumstances::default()
    }
}

#[test]
fn each_caller_sees_what_it_may_see() {
    let pan = || masked_class("pan", Mask::KeepLast(4));
    let body = r#"{"n":"4111111111111111","m":12345678,"o":{"n":["x"]}}"#;
    let sealing = compile(vec![
        rule("$..n", Action::Seal(pan())),
        rule("$.m", Action::Seal(pan())),
    ]);
    let sealed = run(&sealing, body).unwrap().0;
    let callers = [("billing", Level::Full), ("clerk", Level::None)];
    let opening = compile(vec![revealing(
        "$..*",
        vec![pan()],
        Level::Masked,
        &callers,
    )]);
    let hidden = r#"{"n":"••••1111","m":"••••","o":{"n":"••••"}}"#;
    for caller in [None, Some("nobody"), Some("Billing"), Some("")] {
        let (out, tally) = run_in(&opening, &sealed, &asked_by(caller)).unwrap();
        assert_eq!(out, hidden, "{caller:?}");
        assert_eq!((count(&tally.masked), count(&tally.opened)), (3, 0));
        assert!(tally.replaces());
    }
    let (out, tally) = run_in(&opening, &sealed, &asked_by(Some("billing"))).unwrap();
    assert_eq!(out, body);
    assert_eq!((count(&tally.masked), count(&tally.opened)), (0, 3));
    // Nothing is asked of the key room for one who sees nothing.
    let circumstances = asked_by(Some("clerk"));
    let plan = plan(&opening, sealed.as_bytes(), &circumstances).unwrap();
    assert!(plan.needs().opening.is_empty() && plan.is_unchanged());
    let (out, tally) = run_in(&opening, &sealed, &circumstances).unwrap();
    assert_eq!(out, sealed);
    assert_eq!(tally.left, [("withheld", 3)]);
}

#[test]
fn what_is_withheld_is_not_a_token_that_does_not_open() {
    let sealed = run(&compile(vec![seal("$.n", "c")]), r#"{"n":1}"#)
        .unwrap()
        .0;
    for unopened in [Fallback::Null, Fallback::Reject] {
        let manner = Manner { unopened, ..MANNER };
        let rule = revealing("$.n", vec![class("c")], Level::None, &[]);
        let rules = Rules::compile(vec![rule], manner).unwrap();
        assert_eq!(run(&rules, &sealed).unwrap().0, sealed);
    }
}

#[test]
fn a_masked_token_must_open_all_the_same() {
    let pan = || masked_class("pan", Mask::KeepLast(1));
    let sealing = sibling(rule("$.n", Action::Seal(pan())), "id", "id");
    let sealed = run(&compile(vec![sealing]), r#"{"n":"ab","id":1}"#)
        .unwrap()
        .0;
    let moved = sealed.replace("\"id\":1", "\"id\":2");
    let opening = || {
        sibling(
            revealing("$.n", vec![pan()], Level::Masked, &[]),
            "id",
            "id",
        )
    };
    assert_eq!(
        run(&compile(vec![opening()]), &sealed).unwrap().0,
        r#"{"n":"••••b","id":1}"#
    );
    let (out, tally) = run(&compile(vec![opening()]), &moved).unwrap();
    assert_eq!((out, tally.left), (moved, vec![("refused", 1)]));
}

#[test]
fn masked_values_are_never_taken_back() {
    let rules = compile(vec![
        rule("$.n", Action::Seal(masked_class("pan", Mask::KeepLast(4)))),
        rule(
            "$.f",
            Action::Seal(masked_class("fix", Mask::Fixed("***".into()))),
        ),
        seal("$.plain", "plain"),
    ]);
    for body in [
        r#"{"n":"••••1111"}"#,
        r#"{"n":"••••"}"#,
        r#"{"n":"\u2022\u2022\u2022•1111"}"#,
        r#"{"f":"***"}"#,
        r#"{"f":"\u002a**"}"#,
        r#"{"f":"••••"}"#,
    ] {
        let offset = body.find(':').unwrap() + 1;
        assert_eq!(
            run(&rules, body).unwrap_err(),
            Refusal::Masked { offset },
            "{body}"
        );
    }
    for body in [
        r#"{"n":"4111"}"#,
        r#"{"n":"•••1111"}"#,
        r#"{"n":["••••"]}"#,
        r#"{"f":"**"}"#,
        r#"{"plain":"••••1111"}"#,
        r#"{"other":"••••1111"}"#,
    ] {
        assert!(run(&rules, body).is_ok(), "{body}");
    }
}

#[test]
fn filters_and_indexes_from_the_end_are_evaluated() {
    check(
        vec![seal("$.f[?@.type=='ssn'].value", "c")],
        r#"{"f":[{"type":"ssn","value":1},{"type":"x","value":2}]}"#,
        r#"{"f":[{"type":"ssn","value":<>},{"type":"x","value":2}]}"#,
    );
    check(vec![seal("$[-1]", "c")], "[1,2,3]", "[1,2,<>]");
    check(
        vec![seal("$[::-2]", "c"), seal("$[1]", "d")],
        "[1,2,3]",
        "[<>,<>,<>]",
    );
    check(
        vec![seal("$[?@.a.n]['a']", "c")],
        r#"[{"a":{"n":1}},{"a":{"m":1}}]"#,
        r#"[{"a":<>},{"a":{"m":1}}]"#,
    );
    check(
        vec![sibling(seal("$[?@.t==1].n", "c"), "record", "id")],
        r#"[{"t":1,"n":2,"id":3}]"#,
        r#"[{"t":1,"n":<>,"id":3}]"#,
    );
    let rules = compile(vec![seal("$[?@.t==1].n", "c")]);
    for bad in [
        r#"[{"t":1,"t":2}]"#,
        r#"[{"t":1,"\u0074":2}]"#,
        "[1e400]",
        r#"["\ud800"]"#,
    ] {
        assert_eq!(run(&rules, bad).unwrap_err().word(), "unevaluable", "{bad}");
    }
    assert_eq!(
        run(&rules, "[1,]").unwrap_err(),
        Refusal::NotJson {
            offset: 3,
            what: "no JSON value"
        }
    );
    let many = format!("[{}]", vec![r#"{"t":1,"n":2}"#; 5_000].join(","));
    assert_eq!(run(&rules, &many).unwrap_err().word(), "unevaluable");
}

#[test]
fn rules_that_mean_nothing_are_refused() {
    #[track_caller]
    fn refuse(rules: Vec<Rule>, rule: usize) {
        assert_eq!(Rules::compile(rules, MANNER).unwrap_err().rule, rule);
    }
    refuse(
        vec![seal("$.a", "c"), sibling(seal("$.a[0]", "c"), "r", "id")],
        1,
    );
    refuse(vec![sibling(seal("$", "c"), "r", "id")], 0);
    refuse(vec![sibling(seal("$.a", "c"), "class", "id")], 0);
    refuse(
        vec![sibling(sibling(seal("$.a", "c"), "r", "id"), "r", "di")],
        0,
    );
    let mut root = seal("$.a", "c");
    root.bind.push(Bind {
        name: "r".into(),
        source: BindSource::Root(Path::parse("$..id").unwrap()),
    });
    refuse(vec![root], 0);
    refuse(vec![seal(&format!("$..a{}", ".*".repeat(20)), "c")], 0);
}

#[test]
fn a_body_of_nothing_but_values_is_given_up() {
    let rules = compile(vec![seal("$[*]", "c")]);
    let body = |values: usize| format!("[{}]", vec!["1"; values].join(","));
    let planned = |values| plan(&rules, body(values).as_bytes(), &Circumstances::default()).err();
    assert_eq!(planned(1 << 18), None);
    assert_eq!(planned(1 << 19), Some(Refusal::TooMany));
    // Unselected values are as many as a body holds.
    let rules = compile(vec![seal("$.s", "c")]);
    assert!(plan(&rules, body(1 << 19).as_bytes(), &Circumstances::default()).is_ok());
}

#[test]
fn more_values_than_one_sealer_takes() {
    let body = format!("[{}]", vec!["1"; 9_000].join(","));
    check(
        vec![seal("$[*]", "c")],
        &body,
        &format!("[{}]", vec!["<>"; 9_000].join(",")),
    );
}

#[test]
fn bad_records_do_not_stand_in_the_way_of_a_good_one_and_are_bounded() {
    let (sealed, _) = run(&compile(vec![seal("$", "c")]), "1").unwrap();
    let mut payload = Vec::new();
    let token = Token::decode(&sealed.as_bytes()[1..sealed.len() - 1], &mut payload).unwrap();
    fn forged(token: &Token<'_>, n: u32) -> String {
        let record = Record::build(&[(kek_id("test:kek"), &n.to_be_bytes())]).unwrap();
        format!(
            "\"{}\"",
            Token {
                record: Some(&record),
                ..*token
            }
            .encode()
        )
    }
    let mut values: Vec<String> = Vec::new();
    for n in 0..5_000 {
        values.push(forged(&token, n));
    }
    values.insert(100, sealed.clone());
    let opening = compile(vec![open("$..*", &["c"])]);
    let body = format!("[{}]", values.join(","));
    let plan = plan(&opening, body.as_bytes(), &Circumstances::default()).unwrap();
    assert_eq!(plan.needs().opening.len(), 4_096);
    let (_, tally) = run(&opening, &body).unwrap();
    assert_eq!(count(&tally.opened), 1);
    assert_eq!(tally.left, [("over-budget", 905), ("denied", 4_095)]);
}

#[test]
fn a_kid_is_checked_with_its_record() {
    let (sealed, _) = run(&compile(vec![seal("$", "c")]), "1").unwrap();
    let mut payload = Vec::new();
    let token = Token::decode(&sealed.as_bytes()[1..sealed.len() - 1], &mut payload).unwrap();
    let other = format!(
        "\"{}\"",
        Token {
            kid: Kid([1; 16]),
            ..token
        }
        .encode()
    );
    let (_, tally) = run(&compile(vec![open("$", &["c"])]), &other).unwrap();
    assert_eq!(tally.left, [("mismatch", 1)]);
}

/// A JSON document as people and machines write them, and worse.
pub(crate) fn document() -> impl Strategy<Value = String> {
    let space = prop::sample::select(vec!["", "", " ", "\n\t", "\r\n          "]);
    let name = prop::sample::select(vec!["ssn", "\\u0073sn", "number", "id", "name", "", "é"]);
    let leaf = prop_oneof![
        Just("123-45-6789").prop_map(|text| format!("\"{text}\"")),
        prop::sample::select(vec![
            "0",
            "-0.0",
            "1.50",
            "1e400",
            "true",
            "null",
            "\"\"",
            "\"\\u0000\\ud800\"",
            "\"日本\"",
            "\"fv\"",
            "\"fv1~\"",
            "\"f\""
        ])
        .prop_map(str::to_owned),
        any::<f64>()
            .prop_filter("JSON has no such number", |n| n.is_finite())
            .prop_map(|n| n.to_string()),
        ".{0,20}".prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        let (a, b, name) = (space.clone(), space.clone(), name.clone());
        prop_oneof![
            prop::collection::vec((space.clone(), inner.clone()), 0..6).prop_map(|list| format!(
                "[{}]",
                list.into_iter()
                    .map(|(s, v)| format!("{s}{v}{s}"))
                    .collect::<Vec<_>>()
                    .join(",")
            )),
            prop::collection::vec((a, name, b, inner), 0..6).prop_map(|list| format!(
                "{{{}}}",
                list.into_iter()
                    .map(|(s, n, t, v)| format!("{s}\"{n}\"{t}:{t}{v}{s}"))
                    .collect::<Vec<_>>()
                    .join(",")
            )),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn outside_of_the_sealed_spans_the_output_is_the_input(body in document()) {
        let rules = compile(vec![seal("$..ssn", "c"), seal("$..number", "d")]);
        let plan = plan(&rules, body.as_bytes(), &Circumstances::default()).unwrap();
        let mut spans: Vec<_> = plan.edits.iter().map(|edit| (edit.start, edit.end)).collect();
        spans.sort_unstable();
        let (sealed, tally) = run(&rules, &body).unwrap();
        let mut expected = String::new();
        let mut from = 0;
        for (start, end) in &spans {
            expected.push_str(&body[from..*start]);
            expected.push_str("<>");
            from = *end;
        }
        expected.push_str(&body[from..]);
        prop_assert_eq!(masked(&sealed), expected);
        prop_assert_eq!(count(&tally.sealed) as usize, spans.len());
        let (opened, _) = run(&compile(vec![open("$..*", &["c", "d"])]), &sealed).unwrap();
        prop_assert_eq!(opened, body);
    }
}

#[test]
fn a_sibling_of_each_node_of_a_filter_costs_no_more_than_the_node() {
    // All nodes share a long way down, so that comparing two of their paths is dear.
    let nodes: Vec<String> = (0..2_000)
        .map(|id| format!("{{\"t\":1,\"v\":1,\"id\":{id}}}"))
        .collect();
    let (down, up) = ("[".repeat(120), "]".repeat(120));
    let body = format!("{down}{}{up}", nodes.join(","));
    let time = |rule: Rule| {
        let rules = compile(vec![rule]);
        let begun = std::time::Instant::now();
        assert_eq!(count(&run(&rules, &body).unwrap().1.sealed), 2_000);
        begun.elapsed()
    };
    let alone = time(seal("$..[?@.t==1].v", "v"));
    let beside = time(sibling(seal("$..[?@.t==1].v", "v"), "id", "id"));
    assert!(beside < alone * 8, "{beside:?} against {alone:?}");
}

pub(super) fn alike(name: &str) -> Arc<Class> {
    Arc::new(Class {
        suite: crate::dek::Suite::Aes256Siv,
        ..(*class(name)).clone()
    })
}

#[test]
fn equal_values_of_a_deterministic_class_have_equal_tokens() {
    let email = alike("email");
    let rules = compile(vec![rule("$..e", Action::Seal(email.clone()))]);
    let body = r#"{"a":{"e":"caf\u00e9"},"b":{"e":"café"},"c":{"e":"caf\u00E9 "},"d":{"e":1},"f":{"e":1.0},"g":{"e":true}}"#;
    let (out, tally) = run(&rules, body).unwrap();
    assert_eq!(count(&tally.sealed), 6);
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    let token = |name: &str| document[name]["e"].as_str().unwrap().to_owned();
    assert_eq!(token("a"), token("b"));
    let tokens: std::collections::HashSet<String> = ["a", "c", "d", "f", "g"].map(token).into();
    assert_eq!(tokens.len(), 5);
    // Again, with other nonces: the same tokens. They open as the canonical spelling.
    assert_eq!(run(&rules, body).unwrap().0, out);
    let opening = compile(vec![rule("$..e", Action::Open(vec![email]))]);
    let (back, tally) = run(&opening, &out).unwrap();
    assert_eq!(count(&tally.opened), 6);
    assert_eq!(back, body.replace("\\u00e9", "é").replace("\\u00E9", "é"));
}

#[test]
fn a_deterministic_class_takes_scalars_alone() {
    let rules = compile(vec![rule("$.e", Action::Seal(alike("email")))]);
    for body in [r#"{"e":{}}"#, r#"{"e":[1]}"#] {
        assert_eq!(run(&rules, body).unwrap_err().word(), "composite");
    }
    let long = format!(r#"{{"e":"{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(run(&rules, &long).unwrap_err().word(), "too-long");
}

#[test]
fn a_deterministic_token_is_for_its_context() {
    let email = alike("email");
    let seal = compile(vec![sibling(
        rule("$.e", Action::Seal(email.clone())),
        "id",
        "id",
    )]);
    let token = |id: u8| run(&seal, &format!(r#"{{"id":{id},"e":"x"}}"#)).unwrap().0;
    assert_ne!(
        token(1).replace("\"id\":1", ""),
        token(2).replace("\"id\":2", "")
    );
    let open = compile(vec![sibling(
        rule("$.e", Action::Open(vec![email])),
        "id",
        "id",
    )]);
    assert_eq!(run(&open, &token(1)).unwrap().0, r#"{"id":1,"e":"x"}"#);
    let moved = token(1).replace("\"id\":1", "\"id\":2");
    assert_eq!(run(&open, &moved).unwrap().1.left, vec![("refused", 1)]);
    // Where it stands already, it stays; one class's randomised and deterministic values side by side have keys of their own.
    assert_eq!(run(&seal, &token(1)).unwrap().0, token(1));
}
