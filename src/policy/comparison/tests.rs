use super::*;

const BASE: &str = "\
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: p}
tenant: {header: X-Tenant}
unmatched: report
classes:
  ssn: {key: identity}
  pan: {key: cards, formerly: [card], sealed: refuse}
  cvc: {key: cards}
routes:
  - name: write
    match: {host: a.example, methods: [POST, PUT], path: \"/v1/{id}\"}
    request:
      unclaimed: report
      rules:
        - {at: $..ssn, seal: ssn, bind: {record: {path: id}}}
        - {at: \"$.cards[*].number\", seal: pan}
        - {at: $.cvc, seal: cvc}
        - {at: $.name, pass: true}
    response: {rules: [{at: $..ssn, open: ssn, bind: {record: {path: id}}}]}
  - name: read
    match: {host: a.example, methods: [GET], path: \"/v1/{id}\"}
    response: {rules: [{at: $..ssn, open: ssn, bind: {record: {path: id}}}]}
";

fn policies(text: &str) -> Policies {
    let policy = Policy::load(text, "p.yaml", None).unwrap_or_else(|found| panic!("{found:?}"));
    Policies::new(vec![policy]).expect("one policy")
}

/// Replaces a text of the base policy, and compares.
#[track_caller]
fn check(from: &str, to: &str, expected: &[&str]) {
    assert!(BASE.contains(from), "{from}");
    let changed = BASE.replacen(from, to, 1);
    let comparison = compare(&policies(BASE), &policies(&changed));
    let shown: Vec<String> = comparison
        .changes
        .iter()
        .map(|change| {
            format!(
                "{}[{}] {}",
                change.direction.word(),
                change.code,
                change.about
            )
        })
        .collect();
    assert_eq!(shown, expected, "{to}");
    let grave = expected
        .iter()
        .any(|c| c.starts_with("weaker") || c.starts_with("orphans"));
    assert_eq!(comparison.is_safe(), !grave);
}

#[test]
fn nothing_changes() {
    check("kind: Policy", "kind: Policy # a remark", &[]);
    check("methods: [POST, PUT]", "methods: [PUT, POST]", &[]);
}

#[test]
fn what_concerns_a_policy() {
    check(
        "unmatched: report",
        "unmatched: pass",
        &["weaker[unmatched] policy p"],
    );
    check(
        "unmatched: report",
        "unmatched: reject",
        &["stronger[unmatched] policy p"],
    );
    check(
        "{header: X-Tenant}",
        "{header: X-Other}",
        &["orphans[tenant-changed] policy p"],
    );
    check(
        "tenant: {header: X-Tenant}\n",
        "",
        &[
            "weaker[tenant-removed] policy p",
            "orphans[tenant-changed] policy p",
        ],
    );
    // A policy by itself may change its name.
    check("{name: p}", "{name: q}", &[]);
}

#[test]
fn what_concerns_a_class() {
    check(
        "{key: identity}",
        "{key: other}",
        &["orphans[key-changed] class ssn"],
    );
    check(
        "formerly: [card], ",
        "",
        &["orphans[former-name-removed] class pan"],
    );
    check(
        "sealed: refuse",
        "sealed: keep",
        &["weaker[sealed] class pan"],
    );
    check(
        "  cvc: {key: cards}",
        "  cvc: {key: cards, sealed: refuse}",
        &["stronger[sealed] class cvc"],
    );
    check(
        "classes:\n",
        "classes:\n  new: {key: cards}\n",
        &["neutral[class-added] class new"],
    );
    let renamed = BASE.replace("seal: cvc", "seal: code").replace(
        "  cvc: {key: cards}",
        "  code: {key: cards, formerly: [cvc]}",
    );
    let shown = compare(&policies(BASE), &policies(&renamed)).changes;
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(
        (shown[0].code, shown[0].direction),
        ("class-renamed", Direction::Neutral)
    );
    let removed = BASE
        .replace("        - {at: $.cvc, seal: cvc}\n", "")
        .replace("  cvc: {key: cards}\n", "");
    let codes: Vec<&str> = compare(&policies(BASE), &policies(&removed))
        .changes
        .iter()
        .map(|c| c.code)
        .collect();
    assert_eq!(codes, ["rule-removed", "class-removed"]);
}

#[test]
fn what_concerns_a_route() {
    check(
        "name: write\n",
        "name: write\n    mode: observe\n",
        &["weaker[mode] route write"],
    );
    check(
        "[POST, PUT]",
        "[POST]",
        &["weaker[match-changed] route write"],
    );
    check(
        "methods: [POST, PUT]",
        "methods: [POST, PUT, PATCH]",
        &["stronger[match-wider] route write"],
    );
    check(
        "methods: [GET]",
        "methods: [HEAD]",
        &["neutral[match-changed] route read"],
    );
    check(
        "name: write",
        "name: writes",
        &["neutral[route-renamed] route write"],
    );
    check(
        "unclaimed: report",
        "unclaimed: allow",
        &["weaker[unclaimed] route write, request"],
    );
    check(
        "unclaimed: report",
        "unclaimed: reject",
        &["stronger[unclaimed] route write, request"],
    );
    check(
        "unclaimed: report",
        "unclaimed: report\n      stray: allow",
        &["weaker[stray] route write, request"],
    );
    check(
        "unclaimed: report",
        "unclaimed: report\n      near_miss: reject",
        &["stronger[near_miss] route write, request"],
    );
    check(
        "unclaimed: report",
        "unclaimed: report\n      near_miss: allow",
        &["weaker[near_miss] route write, request"],
    );
    check(
        "unclaimed: report",
        "unclaimed: report\n      signed: allow",
        &["neutral[signed] route write"],
    );
    for (words, expected) in [
        (
            "plaintext: reject",
            "stronger[plaintext] route write, response",
        ),
        (
            "plaintext: allow",
            "weaker[plaintext] route write, response",
        ),
        ("unopened: null", "stronger[unopened] route write, response"),
    ] {
        let to = format!("response: {{{words}, rules");
        check("response: {rules", &to, &[expected]);
    }
    let before =
        "routes:\n  - {name: first, match: {host: a.example, methods: [PUT], path: \"/v1/x\"}}\n";
    check(
        "routes:\n",
        before,
        &[
            "weaker[route-before] route first",
            "neutral[route-added] route first",
        ],
    );
    // It takes none of the requests of a route that seals.
    let elsewhere = before.replace("/v1/x", "/v2/x");
    check(
        "routes:\n",
        &elsewhere,
        &["neutral[route-added] route first"],
    );
}

#[test]
fn routes_that_are_gone_or_change_places() {
    let (head, rest) = BASE.split_once("  - name: write").expect("the routes");
    let (write, read) = rest.split_once("  - name: read").expect("two routes");
    let only_read = format!("{head}  - name: read{read}");
    let codes = |text: &str| -> Vec<String> {
        let changes = compare(&policies(BASE), &policies(text)).changes;
        changes
            .iter()
            .map(|c| format!("{}[{}]", c.direction.word(), c.code))
            .collect()
    };
    assert_eq!(codes(&only_read), ["weaker[route-removed]"]);
    let only_write = format!("{head}  - name: write{write}");
    assert_eq!(codes(&only_write), ["stronger[route-removed]"]);
    // They take no request of each other: their order does not matter.
    let swapped = format!("{head}  - name: read{read}  - name: write{write}");
    assert_eq!(codes(&swapped), Vec::<String>::new());
    let greedy = swapped.replace(", methods: [GET], path", ", path");
    let overlapping = BASE.replace(
        ", methods: [GET], path: \"/v1/{id}\"",
        ", path: \"/v1/{id}/{rest*}\"",
    );
    assert!(compare(&policies(BASE), &policies(&overlapping)).is_safe());
    assert!(
        Policy::load(&greedy, "p", None).is_err(),
        "a shadowed route"
    );
}

#[test]
fn rules_that_seal() {
    check(
        "        - {at: $.cvc, seal: cvc}\n",
        "",
        &["weaker[rule-removed] route write, request"],
    );
    check(
        "{at: $.cvc, seal: cvc}",
        "{at: $.cvc, pass: true}",
        &[
            "weaker[rule-removed] route write, request",
            "neutral[pass-added] route write, request",
        ],
    );
    check(
        "$.cvc, seal: cvc",
        "$..cvc, seal: cvc",
        &["stronger[rule-added] route write, request"],
    );
    check(
        "$.cvc, seal: cvc",
        "$.cvc, seal: pan",
        &["orphans[class-changed] route write, request"],
    );
    check(
        "$..ssn, seal: ssn",
        "$.ssn, seal: ssn",
        &[
            "weaker[rule-removed] route write, request",
            "stronger[rule-added] route write, request",
        ],
    );
    check(
        "seal: ssn, bind: {record: {path: id}}",
        "seal: ssn, bind: {record: {sibling: id}}",
        &["orphans[binds-changed] route write, request"],
    );
    check(
        "seal: ssn, bind: {record: {path: id}}",
        "seal: ssn",
        &[
            "weaker[binds-removed] route write, request",
            "orphans[binds-changed] route write, request",
        ],
    );
    check(
        "seal: pan}",
        "seal: pan, bind: {card: {sibling: id}}}",
        &["orphans[binds-changed] route write, request"],
    );
}

#[test]
fn the_order_of_rules() {
    let first = "      rules:\n        - {at: $.meta, seal: cvc}\n        - {at: $..ssn";
    check(
        "      rules:\n        - {at: $..ssn",
        first,
        &["stronger[rule-added] route write, request"],
    );
    let passing = "      rules:\n        - {at: $.person, pass: true}\n        - {at: $..ssn";
    check(
        "      rules:\n        - {at: $..ssn",
        passing,
        &[
            "weaker[pass-before] route write, request",
            "neutral[pass-added] route write, request",
        ],
    );
    let sealing = "      rules:\n        - {at: $.person.*, seal: pan}\n        - {at: $..ssn";
    check(
        "      rules:\n        - {at: $..ssn",
        sealing,
        &[
            "orphans[class-changed] route write, request",
            "stronger[rule-added] route write, request",
        ],
    );
    // A filter may select anything at its place.
    let filter =
        "      rules:\n        - {at: \"$.a[?@.b].ssn\", pass: true}\n        - {at: $..ssn";
    check(
        "      rules:\n        - {at: $..ssn",
        filter,
        &[
            "weaker[pass-before] route write, request",
            "neutral[pass-added] route write, request",
        ],
    );
}

#[test]
fn rules_that_open() {
    let read = "methods: [GET], path: \"/v1/{id}\"}\n    response: {rules: [{at: $..ssn, open: ssn";
    check(
        read,
        &read.replace("rules: [", "rules: [{at: $..number, open: pan}, "),
        &[
            "weaker[class-opened] class card",
            "weaker[class-opened] class pan",
            "neutral[opening-added] route read, response",
        ][1..],
    );
    check(
        read,
        &read.replace("$..ssn, open", "$.ssn, open"),
        &[
            "neutral[opening-removed] route read, response",
            "neutral[opening-added] route read, response",
        ],
    );
    check(
        read,
        &read.replace("open: ssn", "open: \"*\""),
        &[
            "weaker[class-opened] class cvc",
            "weaker[class-opened] class pan",
        ],
    );
    let without = "open: ssn, bind: {record: {path: id}}}]}\n  - name: read";
    check(
        without,
        "open: ssn}]}\n  - name: read",
        &["orphans[binds-changed] route write, response"],
    );
}

#[test]
fn opening_on_the_way_out_is_weaker() {
    check(
        "      rules:\n        - {at: $..ssn",
        "      rules:\n        - {at: $..ssn, open: ssn, bind: {record: {path: id}}}\n        - {at: $..ssn",
        &["weaker[opening-added] route write, request"],
    );
}

#[test]
fn passing_what_was_refused_is_weaker() {
    let strict = BASE.replace("unclaimed: report", "unclaimed: reject");
    let more = strict.replace("$.name, pass", "\"$['name','memo']\", pass");
    let shown = compare(&policies(&strict), &policies(&more)).changes;
    let codes: Vec<_> = shown.iter().map(|c| (c.direction, c.code)).collect();
    assert_eq!(
        codes,
        [
            (Direction::Weaker, "pass-added"),
            (Direction::Neutral, "pass-removed")
        ]
    );
}

#[test]
fn policies_come_and_go() {
    let (one, two) = (
        BASE,
        BASE.replace("{name: p}", "{name: q}")
            .replace("name: write", "name: w2")
            .replace("name: read", "name: r2")
            .replace("a.example", "b.example"),
    );
    let load = |texts: &[&str]| {
        let all = texts
            .iter()
            .map(|text| Policy::load(text, "p", None).expect("a policy"));
        Policies::new(all.collect()).expect("policies")
    };
    let both = load(&[one, &two]);
    let less = compare(&both, &load(&[one]));
    let codes: Vec<_> = less.changes.iter().map(|c| c.code).collect();
    assert_eq!(codes, ["policy-removed", "route-removed", "route-removed"]);
    assert!(!less.is_safe());
    assert!(compare(&load(&[one]), &both).is_safe());
}

/// Replaces a text of a policy that masks, and compares.
#[track_caller]
fn check_reveal(from: &str, to: &str, expected: &[&str]) {
    let old = BASE
        .replace(
            "unmatched: report",
            "unmatched: report\ncaller: {peer: uid}",
        )
        .replace(
            "ssn: {key: identity}",
            "ssn: {key: identity, mask: {keep_last: 4}}",
        )
        .replacen(
            "open: ssn,",
            "open: ssn, reveal: {default: masked, callers: {\"1\": full, \"2\": none}},",
            1,
        );
    assert!(old.contains(from), "{from}");
    let comparison = compare(&policies(&old), &policies(&old.replacen(from, to, 1)));
    let shown: Vec<String> = comparison
        .changes
        .iter()
        .map(|change| {
            format!(
                "{}[{}] {}",
                change.direction.word(),
                change.code,
                change.what
            )
        })
        .collect();
    assert_eq!(shown, expected, "{to}");
}

#[test]
fn who_sees_more_or_less() {
    check_reveal(
        "default: masked",
        "default: full",
        &["weaker[reveal] what everybody else sees at $..ssn was masked, and is full"],
    );
    check_reveal(
        "default: masked",
        "default: none",
        &["stronger[reveal] what everybody else sees at $..ssn was masked, and is none"],
    );
    check_reveal(
        "\"2\": none",
        "\"3\": full",
        &[
            "weaker[reveal] what caller `2` sees at $..ssn was none, and is masked",
            "weaker[reveal] what caller `3` sees at $..ssn was masked, and is full",
        ],
    );
    check_reveal(
        "\"1\": full, ",
        "",
        &["stronger[reveal] what caller `1` sees at $..ssn was full, and is masked"],
    );
    check_reveal(
        ", reveal: {default: masked, callers: {\"1\": full, \"2\": none}}",
        "",
        &[
            "weaker[reveal] what everybody else sees at $..ssn was masked, and is full",
            "weaker[reveal] what caller `2` sees at $..ssn was none, and is full",
        ],
    );
}

#[test]
fn how_a_caller_is_known_and_what_a_mask_shows() {
    let to_header = "how a caller is known was the user id of the socket's other end, and is the header x-caller";
    let weaker = format!("weaker[caller] {to_header}");
    check_reveal("{peer: uid}", "{header: X-Caller}", &[&weaker, &weaker]);
    check_reveal(
        "keep_last: 4",
        "fixed: hidden",
        &["stronger[mask] its mask shows nothing of a value"],
    );
    check_reveal(
        "keep_last: 4",
        "keep_last: 5",
        &["weaker[mask] its mask shows another part of a value"],
    );
    check_reveal(
        "keep_last: 4",
        "keep_first: 4",
        &["weaker[mask] its mask shows another part of a value"],
    );
    check(
        "unmatched: report",
        "unmatched: report\ncaller: {mtls: san}",
        &["neutral[caller] route write", "neutral[caller] route read"],
    );
}
