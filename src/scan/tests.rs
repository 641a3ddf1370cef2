use super::*;
use crate::path::{Path, Selector, Step};
use proptest::prelude::*;

/// A node as a slow and obvious reader sees it.
struct Node {
    start: usize,
    end: usize,
    children: Vec<(Key, Node)>,
}

enum Key {
    Name(Option<String>),
    Index(u32),
}

/// Reads a document that is known to be well-formed.
fn read(b: &[u8], at: &mut usize) -> Node {
    let space = |at: &mut usize| {
        while b.get(*at).is_some_and(|c| c.is_ascii_whitespace()) {
            *at += 1
        }
    };
    let string = |at: &mut usize| {
        let from = *at;
        *at += 1;
        while b[*at] != b'"' {
            *at += if b[*at] == b'\\' { 2 } else { 1 };
        }
        *at += 1;
        serde_json::from_slice::<String>(&b[from..*at]).ok()
    };
    space(at);
    let start = *at;
    let mut children = Vec::new();
    match b[*at] {
        open @ (b'{' | b'[') => {
            *at += 1;
            space(at);
            while !matches!(b[*at], b'}' | b']') {
                let key = if open == b'{' {
                    let name = string(at);
                    space(at);
                    *at += 1;
                    Key::Name(name)
                } else {
                    Key::Index(children.len() as u32)
                };
                children.push((key, read(b, at)));
                space(at);
                if b[*at] == b',' {
                    *at += 1;
                    space(at);
                }
            }
            *at += 1;
        }
        b'"' => {
            string(at);
        }
        _ => {
            while b
                .get(*at)
                .is_some_and(|c| !matches!(c, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t'))
            {
                *at += 1
            }
        }
    }
    Node {
        start,
        end: *at,
        children,
    }
}

fn selects(selector: &Selector, key: &Key) -> bool {
    match (selector, key) {
        (Selector::Wildcard, _) => true,
        (Selector::Name(name), Key::Name(Some(key))) => **name == **key,
        (Selector::Index(index), Key::Index(key)) => index == key,
        (Selector::Slice { start, end, step }, Key::Index(key)) => {
            key >= start && key < end && (key - start) % step == 0
        }
        _ => false,
    }
}

fn walk(node: &Node, steps: &[Step], out: &mut Vec<(usize, usize)>) {
    let Some((step, rest)) = steps.split_first() else {
        out.push((node.start, node.end));
        return;
    };
    for (key, child) in &node.children {
        for selector in &step.selectors {
            if selects(selector, key) {
                walk(child, rest, out);
            }
        }
        if step.descend {
            walk(child, steps, out);
        }
    }
}

fn everything(paths: &[&str]) -> (Vec<Path>, Automaton) {
    let paths: Vec<Path> = paths
        .iter()
        .map(|path| Path::parse(path).unwrap())
        .collect();
    let tagged: Vec<_> = paths
        .iter()
        .zip(0..)
        .map(|(path, tag)| (path.steps().unwrap(), tag))
        .collect();
    let automaton = Automaton::build(&tagged, |tags| {
        if tags.is_empty() {
            Interest::NONE
        } else {
            Interest::EVERY
        }
    })
    .unwrap();
    (paths, automaton)
}

#[track_caller]
fn check(paths: &[&str], document: &str, expected: &[&str]) {
    let (_, automaton) = everything(paths);
    let found = scan(&automaton, 128, document.as_bytes()).unwrap();
    let spans: Vec<&str> = found
        .hits
        .iter()
        .map(|hit| &document[hit.start..hit.end])
        .collect();
    assert_eq!(spans, expected, "{paths:?} in {document}");
}

#[test]
fn names_wildcards_and_descendants() {
    check(&["$"], " [1] ", &["[1]"]);
    check(&["$"], "7", &["7"]);
    check(&["$.a"], r#"{"b":1,"a":"x","a":[2]}"#, &["\"x\"", "[2]"]);
    check(&["$.a"], r#"{"\u0061":1,"A":2,"a ":3,"":4}"#, &["1"]);
    check(&["$['']"], r#"{"":4,"a":1}"#, &["4"]);
    check(
        &["$..ssn"],
        r#"{"ssn":{"ssn":1},"x":[{"ssn":null}]}"#,
        &["{\"ssn\":1}", "1", "null"],
    );
    check(&["$.*"], r#"{"a":1,"b":[2]}"#, &["1", "[2]"]);
    check(
        &["$..*"],
        r#"[[1,{}],true]"#,
        &["[1,{}]", "1", "{}", "true"],
    );
    check(
        &["$.a.b", "$.a.c"],
        r#"{"a":{"c":1,"b":2,"d":3}}"#,
        &["1", "2"],
    );
    check(&["$['a','b']"], r#"{"a":1,"b":2,"c":3}"#, &["1", "2"]);
    check(
        &["$.long_name_over_eight", "$.long_name_over_nines"],
        r#"{"long_name_over_eight":1,"long_name_over_nine":2,"long_name":3}"#,
        &["1"],
    );
    check(
        &["$['é','😀']"],
        "{\"\\u00e9\":1,\"\\ud83d\\ude00\":2,\"\\ud83d\":3,\"é\":4}",
        &["1", "2", "4"],
    );
    check(
        &["$.a..b[*].c"],
        r#"{"a":{"x":{"b":[{"c":1}]},"b":{"q":{"c":2}}},"b":[{"c":3}]}"#,
        &["1", "2"],
    );
}

#[test]
fn indexes_and_slices() {
    check(&["$[0]"], "[10,11]", &["10"]);
    check(&["$[1]", "$[3]"], "[10,11,12,13,14]", &["11", "13"]);
    check(&["$[1:3]"], "[10,11,12,13]", &["11", "12"]);
    check(&["$[::2]"], "[10,11,12,13,14]", &["10", "12", "14"]);
    check(
        &["$[1:]", "$[::3]"],
        "[10,11,12,13]",
        &["10", "11", "12", "13"],
    );
    check(&["$[::0]"], "[10,11]", &[]);
    check(&["$[0]"], r#"{"0":1}"#, &[]);
    check(&["$[0][0]", "$[*][1]"], "[[1,2],[3,4]]", &["1", "2", "4"]);
    check(&["$[99999999999]"], "[1]", &[]);
}

#[test]
fn kinds_and_parents() {
    let (_, automaton) = everything(&["$..*"]);
    let document = br#" {"a": "x\n", "b": [1, true, null, "y"]}"#;
    let found = scan(&automaton, 8, document).unwrap();
    let kinds: Vec<Kind> = found.hits.iter().map(|hit| hit.kind).collect();
    assert_eq!(
        kinds,
        [
            Kind::Escaped,
            Kind::Array,
            Kind::Number,
            Kind::Boolean,
            Kind::Null,
            Kind::Plain
        ]
    );
    assert_eq!(found.hits[0].parent, 1);
    assert_eq!(found.hits[2].parent, found.hits[1].start);
}

#[track_caller]
fn refuse(document: &[u8]) {
    let whole = validate(128, document);
    assert!(
        whole.is_err(),
        "accepted {:?}",
        String::from_utf8_lossy(document)
    );
    for cut in 0..document.len() {
        let automaton = Automaton::nothing();
        let mut scanner = Scanner::new(&automaton, 128);
        let parts = scanner
            .feed(&document[..cut])
            .and_then(|()| scanner.feed(&document[cut..]))
            .and_then(|()| scanner.finish())
            .map(|_| ());
        assert_eq!(
            parts,
            whole,
            "cut at {cut}: {:?}",
            String::from_utf8_lossy(document)
        );
    }
}

#[test]
fn what_is_not_json_is_refused_at_any_cut() {
    for text in [
        "",
        " ",
        "nul",
        "nulL",
        "truee",
        "tru",
        "NaN",
        "Infinity",
        "-",
        "+1",
        "01",
        "-01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "1.e3",
        "0x1",
        "1 2",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[",
        "]",
        "[1}",
        "{\"a\":1]",
        "{",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\" 1}",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "{1:1}",
        "'a'",
        "\"a",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\u12",
        "\"\t\"",
        "\"\u{0}\"",
        "\u{feff}{}",
        "// c\n1",
        "[1]\u{a0}",
        "\u{c}1",
        "{\"a\":1}}",
        "\"a\"b",
        "[\"a\",\n4,\n1,,]",
        "{\"a\":\"b\"}#",
        "nullx",
        "[1\u{b}2]",
    ] {
        refuse(text.as_bytes());
    }
    for bytes in [
        &b"\"\x80\""[..],
        b"\"\xc0\x80\"",
        b"\"\xc1\xbf\"",
        b"\"\xe0\x80\x80\"",
        b"\"\xed\xa0\x80\"",
        b"\"\xf0\x80\x80\x80\"",
        b"\"\xf4\x90\x80\x80\"",
        b"\"\xf5\x80\x80\x80\"",
        b"\"\xff\"",
        b"\"\xe2\x82\"",
        b"\"\xc3\"",
        b"\xff",
        b"\xff\xfe[\0]\0",
        b"\0[\0]",
        b"{\"\xc3\":1}",
        b"[1\x80]",
    ] {
        refuse(bytes);
    }
}

#[test]
fn depth_is_limited_and_brackets_cost_nothing() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(validate(128, nested(128).as_bytes()), Ok(()));
    assert_eq!(
        validate(128, nested(129).as_bytes()),
        Err(Fault::TooDeep { offset: 128 })
    );
    assert_eq!(
        validate(128, "[".repeat(1_000_000).as_bytes()),
        Err(Fault::TooDeep { offset: 128 })
    );
    assert_eq!(validate(0, b"1"), Ok(()));
    assert_eq!(validate(0, b"[]"), Err(Fault::TooDeep { offset: 0 }));
}

#[test]
fn a_state_explosion_is_refused() {
    let path = format!("$..a{}", ".*".repeat(20));
    let path = Path::parse(&path).unwrap();
    let built = Automaton::build(&[(path.steps().unwrap(), 0)], |_| Interest::NONE);
    assert_eq!(built.err(), Some(TooComplex));
}

/// Documents in odd spellings: white space, escapes, numbers, duplicates, depth.
fn document() -> impl Strategy<Value = String> {
    let space = prop::sample::select(vec!["", "", "", " ", "\n", "\t \r\n", "          "]);
    let name = prop::sample::select(vec![
        "a",
        "b",
        "ssn",
        "\\u0073sn",
        "s\\u0073n",
        "",
        "id",
        "a_name_of_more_than_eight",
        "a_name_of_more_than_eight_",
        "é",
        "\\u00e9",
        "x\\\"y",
        "😀",
        "\\ud83d\\ude00",
        "\\ud800",
    ]);
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "0",
            "-0",
            "1.5",
            "1e400",
            "-12345678901234567890.5E-7",
            "true",
            "false",
            "null"
        ])
        .prop_map(str::to_owned),
        prop::sample::select(vec![
            "",
            "fv1~AA~",
            "f",
            "\\u0066v1~x~",
            "plain text over eight bytes",
            "é",
            "日本語のテキスト",
            "\\ud83d\\ude00",
            "\\uD800",
            "\\\\\\\"\\/\\b"
        ])
        .prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        let (space, name) = (space.clone(), name.clone());
        let s = space.clone();
        prop_oneof![
            prop::collection::vec((space.clone(), inner.clone(), space.clone()), 0..6).prop_map(
                move |elements| {
                    let elements: Vec<String> = elements
                        .into_iter()
                        .map(|(a, value, b)| format!("{a}{value}{b}"))
                        .collect();
                    format!("[{}]", elements.join(","))
                }
            ),
            (
                prop::collection::vec((space.clone(), name, space, inner), 0..6),
                s
            )
                .prop_map(|(members, s)| {
                    let members: Vec<String> = members
                        .into_iter()
                        .map(|(a, name, b, value)| format!("{a}\"{name}\"{b}:{s}{value}{b}"))
                        .collect();
                    format!("{{{}}}", members.join(","))
                }),
        ]
    })
}

fn paths() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(
        prop::sample::select(vec![
            "$",
            "$..*",
            "$..ssn",
            "$.a.b",
            "$..a..b",
            "$[0]",
            "$[1:3]",
            "$..[::2]",
            "$['é','id']",
            "$..['a','ssn'][*]",
            "$.*.*",
            "$..a_name_of_more_than_eight",
            "$..['']",
            "$..['x\"y','😀']",
            "$..b[1]",
        ]),
        1..5,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn hits_are_those_of_the_slow_reader_in_any_chunks(
        document in document(),
        paths in paths(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let (parsed, automaton) = everything(&paths);
        let found = scan(&automaton, 128, document.as_bytes()).unwrap();
        let tree = read(document.as_bytes(), &mut 0);
        for (tag, path) in parsed.iter().enumerate() {
            let mut expected = Vec::new();
            walk(&tree, path.steps().unwrap(), &mut expected);
            expected.sort_unstable();
            expected.dedup();
            let mut spans: Vec<_> = found.hits.iter()
                .filter(|hit| automaton.selected(hit.state).contains(&(tag as Tag)))
                .map(|hit| (hit.start, hit.end))
                .collect();
            spans.sort_unstable();
            prop_assert_eq!(spans, expected, "{}", path.as_str());
        }

        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(document.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(document.len());
        let mut scanner = Scanner::new(&automaton, 128);
        let mut from = 0;
        for cut in cuts {
            scanner.feed(&document.as_bytes()[from..cut]).unwrap();
            from = cut;
        }
        prop_assert_eq!(scanner.finish().unwrap().hits, found.hits);
    }

    #[test]
    fn every_byte_a_chunk_and_tokens_only(document in document()) {
        let path = Path::parse("$..a").unwrap();
        let automaton = Automaton::build(&[(path.steps().unwrap(), 0)], |tags| match tags {
            [] => Interest::TOKENS.and(Interest::COUNTED),
            _ => Interest::WHOLE,
        }).unwrap();
        let whole = scan(&automaton, 128, document.as_bytes()).unwrap();
        let mut scanner = Scanner::new(&automaton, 128);
        for byte in document.as_bytes() {
            scanner.feed(std::slice::from_ref(byte)).unwrap();
        }
        let pieces = scanner.finish().unwrap();
        prop_assert_eq!(pieces.hits, whole.hits);
        prop_assert_eq!(pieces.counted, whole.counted);
    }

    #[test]
    fn any_bytes_get_the_same_verdict_in_any_chunks(
        bytes in prop::collection::vec(prop::sample::select(br#"{}[]:,"\u0eE+-.1tfn aAd8"#.to_vec()), 0..24),
        cut in any::<prop::sample::Index>(),
    ) {
        let whole = validate(4, &bytes);
        let cut = cut.index(bytes.len() + 1);
        let automaton = Automaton::nothing();
        let mut scanner = Scanner::new(&automaton, 4);
        let pieces = scanner.feed(&bytes[..cut]).and_then(|()| scanner.feed(&bytes[cut..])).and_then(|()| scanner.finish());
        prop_assert_eq!(pieces.map(|_| ()), whole);
        if let Ok(text) = std::str::from_utf8(&bytes) {
            // serde_json is as strict, but for unpaired surrogates, huge numbers and depth.
            let theirs = serde_json::from_str::<serde_json::Value>(text);
            if theirs.is_ok() {
                prop_assert!(whole.is_ok() || matches!(whole, Err(Fault::TooDeep { .. })), "{}", text);
            }
        }
    }
}

/// Names of one length that begin alike share a slot, whatever the hash function.
#[test]
fn names_that_begin_alike_are_told_apart() {
    let names: Vec<String> = (0..40).map(|n| format!("customer_{n:02}")).collect();
    let paths: Vec<String> = names
        .iter()
        .step_by(2)
        .map(|name| format!("$.{name}"))
        .collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let members: Vec<String> = names
        .iter()
        .zip(0..)
        .map(|(name, n)| format!("\"{name}\":{n}"))
        .collect();
    let document = format!(
        "{{{},\"customer_0\":-1,\"customer_000\":-1}}",
        members.join(",")
    );
    let expected: Vec<String> = (0..40).step_by(2).map(|n| n.to_string()).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check(&paths, &document, &expected);
}

#[test]
fn many_names_are_found_and_no_others() {
    let document: Vec<String> = (0..500).map(|n| format!("\"m{n}\":{n}")).collect();
    let document = format!("{{{}}}", document.join(","));
    let paths: Vec<String> = (0..500).step_by(3).map(|n| format!("$.m{n}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let expected: Vec<String> = (0..500).step_by(3).map(|n| n.to_string()).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check(&paths, &document, &expected);
}
