use super::*;

#[track_caller]
fn selects(path: &str, document: &str, expected: &[&str]) {
    let document: Value = serde_json::from_str(document).expect("JSON");
    let path = Path::parse(path).expect("a path");
    let selected = path.select(&document).expect("within the bound");
    let mut found = Vec::new();
    collect(&document, String::new(), &selected, &mut found);
    found.sort();
    assert_eq!(found, expected, "{path:?}");
}

/// JSON pointers of the selected nodes.
fn collect(node: &Value, at: String, selected: &HashSet<*const Value>, out: &mut Vec<String>) {
    if selected.contains(&std::ptr::from_ref(node)) {
        out.push(at.clone());
    }
    match node {
        Value::Object(members) => members
            .iter()
            .for_each(|(name, child)| collect(child, format!("{at}/{name}"), selected, out)),
        Value::Array(elements) => elements
            .iter()
            .enumerate()
            .for_each(|(index, child)| collect(child, format!("{at}/{index}"), selected, out)),
        _ => {}
    }
}

#[track_caller]
fn refused(path: &str, at: usize, what: &str) {
    let error = Path::parse(path).expect_err(path);
    assert_eq!(error.at, at, "{path:?}: {error}");
    assert!(error.what.contains(what), "{path:?}: {error}");
}

#[test]
fn white_space_stands_where_the_rfc_has_it() {
    for path in [
        "$ .a",
        "$.a .b",
        "$\t['a']",
        "$[ 'a' , 'b' ]",
        "$[ 1 : 2 : 3 ]",
        "$.a\r\n..b",
        "$[? @.a ]",
        "$[?@.a == -1]",
        "$[?@.a == 'b c']",
        "$[?! (@.a)]",
        "$[?count( @.* ) == 1 ]",
        "$[' a ']",
        "$[?@.a && @ .b]",
        "$[?length($ .a) > 1]",
        "$['\u{3000}']",
        "$[?(@.a) ]",
        "$[* , 0]",
    ] {
        assert!(Path::parse(path).is_ok(), "{path:?}");
    }
    let nowhere = "no white space here";
    refused(" $", 0, nowhere);
    refused("$.a ", 3, "no white space behind a path");
    refused("$\n", 1, "no white space behind a path");
    refused("$.a b", 3, nowhere);
    refused("$.a\tb.c", 3, nowhere);
    refused("$. a", 2, nowhere);
    refused("$.. a", 3, nowhere);
    refused("$. .a", 2, nowhere);
    refused("$[- 1]", 3, nowhere);
    refused("$[1 2]", 3, nowhere);
    refused("$[?@.a == 1 e3]", 11, nowhere);
    refused("$[?@.a == 1e -3]", 12, nowhere);
    refused("$[?@.a == 1. 5]", 12, nowhere);
    refused("$[?length (@) > 1]", 9, nowhere);
    refused("$[?len gth(@) > 1]", 6, nowhere);
    refused("$[?tr ue == @]", 5, nowhere);
    refused("$.ä b", 4, nowhere);
    refused("$.a\u{3000}", 3, "in quotes");
    refused("$.\u{a0}a", 2, "in quotes");
    for path in [
        "$[?@.a = = 1]",
        "$[?@.a & & @.b]",
        "$[?@.a | | @.b]",
        "$[?@.a == 1 .5]",
    ] {
        assert!(Path::parse(path).is_err(), "{path:?}");
    }
}

#[test]
fn numbers_are_compared_by_their_value() {
    selects(
        "$[?@ == 1]",
        "[1, 1.0, 10e-1, 1.0000000000000002, \"1\", true]",
        &["/0", "/1", "/2"],
    );
    selects(
        "$[?@ == 0]",
        "[0, -0, -0.0, 1e-17, 5e-324]",
        &["/0", "/1", "/2"],
    );
    selects(
        "$[?@ == $[0]]",
        "[9007199254740993, 9007199254740992, 9007199254740993.0, 18446744073709551615]",
        &["/0"],
    );
    selects(
        "$[?@ > $[0]]",
        "[9007199254740993, 9007199254740992, 9007199254740994]",
        &["/2"],
    );
    selects(
        "$[?@ < 0.5]",
        "[0, 1, -1, 0.5, 0.49999999999999994, -1e300]",
        &["/0", "/2", "/4", "/5"],
    );
    selects(
        "$[?@ >= $[0]]",
        "[18446744073709551615, 1e30, 18446744073709551614]",
        &["/0", "/1"],
    );
    selects(
        "$[?@ == 0.1234567890123456789]",
        "[0.1234567890123456789, 0.12345678901234568]",
        &["/0", "/1"],
    );
    refused("$[?@ == 1e400]", 0, "out of range");
}

#[test]
fn values_are_compared_deeply() {
    selects(
        "$[?@.a == @.b]",
        r#"[{"a":[1,{"x":2}],"b":[1.0,{"x":2.0}]},{"a":[1],"b":[1,2]}]"#,
        &["/0"],
    );
    selects(
        "$[?@.a == @.b]",
        r#"[{"a":{"x":1},"b":{"y":1}},{"a":{},"b":{}},{"a":{},"b":[]}]"#,
        &["/1"],
    );
    selects(
        "$[?@.a == @.b]",
        r#"[{},{"a":null},{"b":null},{"a":null,"b":null}]"#,
        &["/0", "/3"],
    );
    selects(
        "$[?@.a <= @.b]",
        r#"[{},{"a":null,"b":null},{"a":[],"b":[]},{"a":1,"b":"1"}]"#,
        &["/0", "/1", "/2"],
    );
    selects(
        "$[?@ < 'b']",
        r#"["a", "B", "b", "", 1, "\u00e4"]"#,
        &["/0", "/1", "/3"],
    );
}

#[test]
fn filters_look_into_filters() {
    selects(
        "$[?@[?@ > 1]]",
        "[[0, 2], [1], [], {\"a\": 3}, 4]",
        &["/0", "/3"],
    );
    selects(
        "$[?@.a[?@.b[?@ == 1]]]",
        r#"[{"a":[{"b":[1]}]},{"a":[{"b":[2]}]}]"#,
        &["/0"],
    );
    selects(
        "$[?!@[?@ == $[1][0]]]",
        "[[1], [2], [3, 2], []]",
        &["/0", "/3"],
    );
    selects(
        "$[?@[0, ?@.x]]",
        r#"[[1], [], {"k":{"x":1}}, {"k":1}]"#,
        &["/0", "/2"],
    );
}

#[test]
fn functions_see_what_is_not_there() {
    selects(
        "$[?count(@.a) == 0]",
        r#"[{}, {"a":1}, 5, []]"#,
        &["/0", "/2", "/3"],
    );
    selects("$[?count(@['a','a']) == 2]", r#"[{"a":1}, {}]"#, &["/0"]);
    selects(
        "$[?value(@..a) == 1]",
        r#"[{"a":1}, {"a":1,"b":{"a":1}}, {"b":{"a":1}}]"#,
        &["/0", "/2"],
    );
    selects("$[?length(@) == length(@.none)]", "[1, \"\", []]", &["/0"]);
    selects(
        "$[?length(@) == 2]",
        r#"["\ud83d\ude00ä", [1,2], {"a":1,"b":2}, "abc", 22]"#,
        &["/0", "/1", "/2"],
    );
    selects(
        "$[?count(@..*) > length(@.a)]",
        r#"[{"a":"x"}, {"a":"xy"}, {"a":[1]}]"#,
        &["/2"],
    );
}

#[test]
fn a_node_is_selected_once_and_in_whatever_way() {
    selects("$[-1, -1, 0]", "[1, 2]", &["/0", "/1"]);
    selects("$[-3]", "[1, 2]", &[]);
    selects("$[::-2]", "[0, 1, 2, 3]", &["/1", "/3"]);
    selects("$[-9007199254740991]", "[1]", &[]);
    selects("$[-1:]['a']", r#"[{"a":1},{"a":2}]"#, &["/1/a"]);
    selects("$..[-1]", "[[1, 2], [3]]", &["/0/1", "/1", "/1/0"]);
    selects(
        "$[9007199254740991:-9007199254740991:-9007199254740991]",
        "[1, 2]",
        &["/1"],
    );
}

#[test]
fn patterns_are_those_of_rfc_9485() {
    selects(
        "$[?match(@, 'a[^b-d.]?')]",
        r#"["a", "ab", "ae", "a.", "aee", "xa"]"#,
        &["/0", "/2"],
    );
    selects(
        "$[?search(@, '[-a]')]",
        r#"["-", "b", "xax"]"#,
        &["/0", "/2"],
    );
    selects(
        "$[?search(@, '[b-]')]",
        r#"["-", "b", "xax"]"#,
        &["/0", "/1"],
    );
    selects(
        "$[?match(@, '(a|b){2,3}')]",
        r#"["a", "ab", "bab", "abab"]"#,
        &["/1", "/2"],
    );
    selects(
        "$[?match(@, 'a|b')]",
        r#"["a", "b", "ab", "ax", "xb"]"#,
        &["/0", "/1"],
    );
    selects(
        "$[?match(@, '.')]",
        "[\"\\n\", \"\\r\", \"\\u2028\", \"\u{10ffff}\", \"\\u0000\"]",
        &["/2", "/3", "/4"],
    );
    selects("$[?match(@, 'a')]", r#"["a\n", "a"]"#, &["/1"]);
    selects(
        r"$[?match(@, '\\p{Lu}[\\P{L}]\\n\\^')]",
        r#"["A1\n^", "a1\n^", "AB\n^"]"#,
        &["/0"],
    );
    selects("$[?match(@, '[$]&&~#')]", r#"["$&&~#", "x"]"#, &["/0"]);
    selects("$[?match(@, '')]", r#"["", "a"]"#, &["/0"]);
    selects("$[?match(@, 1)]", r#"["", "1", 1]"#, &[]);
    let wrong = "not one of RFC 9485";
    for pattern in [
        r"\\d",
        r"\\w",
        r"a**",
        "a*?",
        "(?i)a",
        "(?:a)",
        "[a",
        "a]",
        "[]",
        "[^]",
        "(a",
        "a)",
        "{2}",
        "a{",
        "a{,2}",
        "a{x}",
        "a{2,1}",
        r"\\p{Lx}",
        r"\\p{X}",
        r"\\pL",
        r"\\p{Latin}",
        "[z-a]",
        "[a-b-c]",
        "[[:alpha:]]",
        "[a&&[b]]",
        r"\\x41",
        r"\\b",
        "*",
        r"a{1000000}",
        r"\\",
    ] {
        refused(&format!("$[?match(@, '{pattern}')]"), 0, wrong);
    }
    let deep = "(".repeat(65) + &")".repeat(65);
    refused(&format!("$[?search(@, '{deep}')]"), 0, "groups");
    refused("$[?match(@, '^a')]", 0, "anchors");
    refused("$[?match(@, 'a$')]", 0, "anchors");
    refused("$[?match(@, $.p)]", 0, "not taken from a document");
}

#[test]
fn ill_typed_functions_are_refused() {
    refused("$[?length(@)]", 0, "compare it");
    refused("$[?match(@, 'a') == true]", 0, "");
    refused("$[?count(1) == 1]", 0, "");
    refused("$[?count(length(@)) == 1]", 0, "takes a query");
    refused("$[?value(1) == 1]", 0, "takes a query");
    refused("$[?length(@.*) == 1]", 0, "takes a value");
    refused("$[?length(@..a) == 1]", 0, "takes a value");
    refused("$[?length(@[0,1]) == 1]", 0, "takes a value");
    refused("$[?in(@, $.a)]", 0, "no function of RFC 9535");
    refused("$[?match(match(@, 'a'), 'b')]", 0, "cannot be compared");
}

#[test]
fn the_work_is_bounded() {
    // Each level of `..` with a filter multiplies the work by the number of nodes.
    let document: Value =
        serde_json::from_str(&format!("[{}1]", "[1],".repeat(3_000))).expect("JSON");
    let path = Path::parse("$..[?count($..*) == count($..[?@ == 2])]").expect("a path");
    assert_eq!(path.select(&document), Err(Unselected));
    let path = Path::parse("$[?@ == $[-1]]").expect("a path");
    assert!(path.select(&document).is_ok());
}
