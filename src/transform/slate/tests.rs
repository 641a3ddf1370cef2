//! Values outside of the body's JSON: what is selected, what comes back, what is refused.

use crate::context::{Circumstances, Class};
use crate::path::Path;
use crate::transform::tests::keys;
use crate::transform::{
    Action, At, Attitude, Bind, BindSource, Fallback, Heads, Manner, Message, Refusal, Rule, Rules,
    Shape, Spot, Tally, plan_message,
};
use proptest::prelude::*;
use std::sync::Arc;

fn class() -> Arc<Class> {
    Arc::new(Class {
        name: "c".into(),
        formerly: vec![],
        key: "k".into(),
        keep_sealed: true,
        mask: None,
        suite: crate::token::Suite::Xaes256Gcm,
    })
}

/// `query:email`, `json:$.payload then:$.x`, `$..ssn`.
fn at(text: &str) -> At {
    let path = |text: &str| Path::parse(text).unwrap();
    if let Some((outer, then)) = text
        .strip_prefix("json:")
        .and_then(|rest| rest.split_once(" then:"))
    {
        return At::inside(path(outer), path(then));
    }
    let spots = [Spot::Header, Spot::Query, Spot::Form, Spot::Part];
    let named = spots.into_iter().find_map(|spot| {
        let name = text.strip_prefix(spot.word())?.strip_prefix(':')?;
        Some(At::named(spot, name))
    });
    named.unwrap_or_else(|| path(text).into())
}

fn rule(text: &str, action: Action) -> Rule {
    Rule {
        at: at(text),
        action,
        bind: vec![],
        reveal: crate::transform::Reveal::default(),
        gather: false,
    }
}

fn sealing(places: &[&str]) -> Rules {
    compile(places, || Action::Seal(class()))
}

fn opening(places: &[&str]) -> Rules {
    compile(places, || Action::Open(vec![class()]))
}

fn compile(places: &[&str], action: impl Fn() -> Action) -> Rules {
    let rules = places.iter().map(|text| rule(text, action())).collect();
    Rules::compile(rules, MANNER).unwrap()
}

const MANNER: Manner = Manner {
    stray: Attitude::Report,
    unclaimed: Attitude::Report,
    plaintext: Attitude::Report,
    near_miss: Attitude::Report,
    unopened: Fallback::Leave,
    depth_max: 16,
};

/// A message that owns its texts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Letter {
    lines: Vec<(&'static str, Vec<u8>)>,
    query: Option<String>,
    body: Vec<u8>,
}

fn body(text: &str) -> Letter {
    Letter {
        lines: vec![],
        query: None,
        body: text.into(),
    }
}

fn query(text: &str) -> Letter {
    Letter {
        query: Some(text.into()),
        ..body("")
    }
}

const MULTIPART: Shape<'_> = Shape::Multipart { boundary: "B" };

fn run(rules: &Rules, shape: Shape<'_>, letter: &Letter) -> Result<(Letter, Tally), Refusal> {
    let message = Message {
        body: &letter.body,
        shape,
        lines: letter.lines.iter().map(|(n, v)| (*n, &v[..])).collect(),
        query: letter.query.as_deref(),
    };
    let plan = plan_message(rules, &message, &Circumstances::default())?;
    let mut random = |buffer: &mut [u8]| buffer.fill(7);
    let mut out = Vec::new();
    let ring = keys(plan.needs());
    let (tally, heads) = plan.apply_message(&message, &ring, &mut random, &mut out)?;
    let mut after = letter.clone();
    after.body = out;
    let Heads { lines, query } = heads;
    for (index, value) in lines {
        after.lines[index].1 = value;
    }
    after.query = query.or(after.query);
    Ok((after, tally))
}

/// Tokens replaced by `<>`.
fn masked(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut out = String::new();
    let mut rest = &*text;
    while let Some(at) = rest.find("fv1~") {
        let end = at + 4 + rest[at + 4..].find('~').unwrap() + 1;
        out.push_str(&rest[..at]);
        out.push_str("<>");
        rest = &rest[end..];
    }
    out + rest
}

/// Sealed it looks like `expected`, a second sealing keeps the tokens, and opened it is what it was.
#[track_caller]
fn check(places: &[&str], shape: Shape<'_>, before: &Letter, expected: &Letter) {
    check_back(places, shape, before, expected, before);
}

#[track_caller]
fn check_back(
    places: &[&str],
    shape: Shape<'_>,
    before: &Letter,
    expected: &Letter,
    back: &Letter,
) {
    let (sealed, tally) = run(&sealing(places), shape, before).unwrap();
    let mut shown = sealed.clone();
    shown.body = masked(&sealed.body).into();
    shown.query = sealed.query.as_ref().map(|query| masked(query.as_bytes()));
    for (_, value) in &mut shown.lines {
        *value = masked(value).into();
    }
    let text = |letter: &Letter| String::from_utf8_lossy(&letter.body).into_owned();
    assert_eq!(text(&shown), text(expected));
    assert_eq!(shown, *expected);
    let many = |counts: &[(Arc<Class>, u32)]| counts.iter().map(|(_, n)| *n).sum::<u32>();
    let (again, kept) = run(&sealing(places), shape, &sealed).unwrap();
    assert_eq!(
        (again, many(&kept.kept)),
        (sealed.clone(), many(&tally.sealed))
    );
    let (opened, told) = run(&opening(places), shape, &sealed).unwrap();
    assert_eq!(opened, *back);
    assert_eq!(many(&told.opened), many(&tally.sealed));
    assert_eq!(told.left, []);
}

#[track_caller]
fn refuse(places: &[&str], shape: Shape<'_>, letter: &Letter, word: &str) {
    let refusal = run(&sealing(places), shape, letter).map(drop);
    assert_eq!(refusal.map_err(|r| r.word()), Err(word), "{letter:?}");
    // Where nothing is sealed nothing is lost: it is not read, or it stays as it is.
    if let Ok((after, _)) = run(&opening(places), shape, letter) {
        assert_eq!(after, *letter);
    }
}

#[test]
fn parameters_of_a_query() {
    let e = &["query:email"][..];
    let q =
        |before: &str, expected: &str| check(e, Shape::Unread, &query(before), &query(expected));
    q("email=a%40b", "email=<>");
    q("x=1&email=a%40b&y=%zz", "x=1&email=<>&y=%zz");
    q("email=1&e=2&email=", "email=<>&e=2&email=<>");
    q("%65mail=7&EMAIL=8", "%65mail=<>&EMAIL=8");
    q("&&email=1&&", "&&email=<>&&");
    q("x=1", "x=1");
    q("", "");
    // What comes back is the same value, percent-encoded in one way.
    let both = |before: &str, sealed: &str, back: &str| {
        check_back(
            e,
            Shape::Unread,
            &query(before),
            &query(sealed),
            &query(back),
        );
    };
    both("email=a+b@c", "email=<>", "email=a%20b%40c");
    both("email=a;b&c;d=e", "email=<>&c;d=e", "email=a%3Bb&c;d=e");
    both("email&x", "email=<>&x", "email=&x");
    both("e=1&email=%c3%a9", "e=1&email=<>", "e=1&email=%C3%A9");
    for broken in [
        "email=%zz",
        "%zz=1",
        "email=%ff",
        "a=1;email=2",
        "a;email=2",
        "x=;%65mail=1",
    ] {
        refuse(e, Shape::Unread, &query(broken), "bad-form");
    }
}

#[test]
fn names_with_spaces_are_names() {
    check(
        &["form:full name"],
        Shape::Form,
        &body("full+name=x&full%20name=y&fullname=z"),
        &body("full+name=<>&full%20name=<>&fullname=z"),
    );
}

#[test]
fn lines_of_headers() {
    let lines = |one: &str, two: &str| Letter {
        lines: vec![("x-ssn", one.into()), ("x-ssn", two.into())],
        ..body("")
    };
    let h = &["header:x-ssn"][..];
    check(h, Shape::Unread, &lines("a, b", ""), &lines("<>", "<>"));
    check(
        h,
        Shape::Unread,
        &lines("\u{e9}", "\"\\"),
        &lines("<>", "<>"),
    );
    let mut latin = lines("a", "");
    latin.lines[1].1 = vec![0xE9];
    refuse(h, Shape::Unread, &latin, "not-text");
}

/// Names at each place that are nearly those of sealed values: counted, or refused.
#[test]
fn near_misses_outside_of_json() {
    #[track_caller]
    fn near(places: &[&str], shape: Shape<'_>, letter: &Letter, count: u32) {
        let (after, tally) = run(&sealing(places), shape, letter).unwrap();
        assert_eq!(tally.near_misses, count, "{letter:?}");
        assert!(count == 0 || after == *letter, "{after:?}");
        let strict = |near_miss| {
            let manner = Manner {
                near_miss,
                ..MANNER
            };
            let rules = places
                .iter()
                .map(|place| rule(place, Action::Seal(class())));
            let rules = Rules::compile(rules.collect(), manner).unwrap();
            run(&rules, shape, letter).map(|(_, tally)| tally.near_misses)
        };
        let refused = strict(Attitude::Reject).map_err(|refusal| refusal.word());
        assert_eq!(refused, if count > 0 { Err("near-miss") } else { Ok(0) });
        assert_eq!(strict(Attitude::Allow), Ok(0));
        // What only opens misses nothing.
        if let Ok((_, tally)) = run(&opening(places), shape, letter) {
            assert_eq!(tally.near_misses, 0);
        }
    }
    for (name, count) in [
        ("SSN", 1),
        ("%53sn", 1),
        ("%C5%BFsn", 1),
        ("s%E2%80%8Bsn", 1),
        ("ssn", 0),
        ("ssn2", 0),
        ("s_sn", 0),
        ("", 0),
        ("ssn[]", 1),
        ("ssn%5B0%5D", 1),
        ("user[ssn]", 1),
        ("user.ssn", 1),
        ("user.ssns", 0),
        ("%20ssn", 1),
        ("+ssn", 1),
        ("ssn%20", 1),
        ("ssn%00", 1),
        ("\r\nssn", 1),
    ] {
        let text = format!("a=1&{name}=7&b");
        near(&["query:ssn"], Shape::Unread, &query(&text), count);
        near(&["form:ssn"], Shape::Form, &body(&text), count);
    }
    let twice = "cardNumber=1&CARD-NUMBER=2&card_numbers=3&x=1;Card_Number=4";
    near(&["form:card_number"], Shape::Form, &body(twice), 3);
    // Elsewhere it is another name; what a rule names is none.
    near(&["form:ssn"], Shape::Unread, &query("SSN=7"), 0);
    near(&["query:ssn"], Shape::Form, &body("SSN=7"), 0);
    let (_, tally) = run(
        &sealing(&["form:ssn", "form:SSN"]),
        Shape::Form,
        &body("SSN=7"),
    )
    .unwrap();
    assert_eq!((tally.near_misses, tally.sealed.len()), (0, 1));
    near(&["part:ssn"], MULTIPART, &body(&part("Ssn", "7")), 1);
    near(&["part:ssn"], MULTIPART, &body(&part("san", "7")), 0);
    for name in [" ssn", "ssn ", "user[ssn]", "ssn[]", "user.ssn"] {
        near(&["part:ssn"], MULTIPART, &body(&part(name, "7")), 1);
    }
    let lines = |name: &'static str| Letter {
        lines: vec![(name, b"7".to_vec())],
        ..body("")
    };
    near(&["header:x-ssn"], Shape::Unread, &lines("xssn"), 1);
    near(&["header:x-ssn"], Shape::Unread, &lines("x-ssn-2"), 0);
    near(&["header:ssn"], Shape::Unread, &lines("x.ssn"), 0);
}

/// A token of what a JSON value says.
fn token(json: &str) -> String {
    let (sealed, _) = run(&sealing(&["$"]), Shape::Json, &body(json)).unwrap();
    let text = String::from_utf8(sealed.body).unwrap();
    text.trim_matches('"').to_owned()
}

#[test]
fn what_cannot_stand_at_its_place_stays_sealed() {
    let line = |text: &str| Letter {
        lines: vec![("x-ssn", text.into())],
        ..body("")
    };
    let stays = |places: &[&str], shape, letter: &Letter| {
        let (after, tally) = run(&opening(places), shape, letter).unwrap();
        assert_eq!(after, *letter);
        assert_eq!((tally.left, tally.opened), (vec![("refused", 1)], vec![]));
    };
    for json in [
        "\"a\\nb\"",
        "\"a\\u0000\"",
        "\" a\"",
        "\"\\u007f\"",
        "7",
        "{\"a\":1}",
        "\"\\ud800\"",
    ] {
        stays(&["header:x-ssn"], Shape::Unread, &line(&token(json)));
    }
    for json in ["7", "null", "[\"a\"]", "\"\\udc00\""] {
        stays(
            &["query:e"],
            Shape::Unread,
            &query(&format!("e={}", token(json))),
        );
    }
    let part = |content: &str| body(&part("n", content));
    stays(&["part:n"], MULTIPART, &part(&token("\"a\\r\\n--B--\"")));
}

#[test]
fn what_does_not_open_is_emptied_or_refused_where_that_is_asked() {
    let rules = |unopened| {
        let manner = Manner { unopened, ..MANNER };
        let rules = ["query:e", "json:$.p then:$.x"];
        let rule = |at: &&str| rule(at, Action::Open(vec![class()]));
        Rules::compile(rules.iter().map(rule).collect(), manner).unwrap()
    };
    let mut letter = query(&format!("a=1&e={}&b", token("7")));
    let inner = token("\"x\"").replace("fv1~AQ", "fv1~Ag");
    letter.body = format!("{{\"p\":\"{{\\\"x\\\":\\\"{inner}\\\"}}\"}}").into();
    let (after, tally) = run(&rules(Fallback::Null), Shape::Json, &letter).unwrap();
    assert_eq!(after.query.as_deref(), Some("a=1&e=&b"));
    assert_eq!(after.body, br#"{"p":"{\"x\":null}"}"#);
    assert_eq!(tally.opened, []);
    let refused = run(&rules(Fallback::Reject), Shape::Json, &letter).map(drop);
    assert_eq!(refused.map_err(|r| r.word()), Err("unopened"));
}

#[test]
fn fields_of_a_form() {
    let f = &["form:ssn"][..];
    check(f, Shape::Form, &body("ssn=1-2&a=b"), &body("ssn=<>&a=b"));
    refuse(f, Shape::Form, &body("ssn=%"), "bad-form");
    refuse(f, Shape::Form, &body(&"a=1&".repeat(9_000)), "too-many");
    let (_, tally) = run(&sealing(f), Shape::Form, &body("ssn=1&a=b&c=d")).unwrap();
    assert_eq!(tally.unclaimed, 2);
    let stray = format!("a={}", token("\"x\""));
    let (_, tally) = run(&sealing(f), Shape::Form, &body(&stray)).unwrap();
    assert_eq!((tally.strays, tally.unclaimed), (1, 1));
    let strict = |manner: Manner, text: &str| {
        let rules = vec![rule("form:ssn", Action::Seal(class()))];
        let rules = Rules::compile(rules, manner).unwrap();
        run(&rules, Shape::Form, &body(text)).map_err(|refusal| refusal.word())
    };
    let stray_refused = Manner {
        stray: Attitude::Reject,
        ..MANNER
    };
    assert_eq!(strict(stray_refused, &stray).map(drop), Err("stray"));
    let unclaimed_refused = Manner {
        unclaimed: Attitude::Reject,
        ..MANNER
    };
    assert_eq!(strict(unclaimed_refused, "a=1").map(drop), Err("unclaimed"));
    strict(unclaimed_refused, "ssn=1").unwrap();
}

fn part(name: &str, content: &str) -> String {
    let head = format!("Content-Disposition: form-data; name=\"{name}\"");
    format!("--B\r\n{head}\r\n\r\n{content}\r\n--B--\r\n")
}

#[test]
fn parts_of_a_form() {
    let p = &["part:ssn"][..];
    let file = "--B\r\nContent-Disposition: form-data; name=\"photo\"; filename=\"a;b.png\"\r\nContent-Type: image/png\r\n\r\n\u{1}\r\n\u{2}";
    let text = "--B\r\ncontent-disposition:form-data;name=ssn\r\nContent-Type: text/plain; charset=\"UTF-8\"\r\n\r\n";
    let letter = |value: &str| body(&format!("{file}\r\n{text}{value}\r\n--B--"));
    check(p, MULTIPART, &letter("1-2\r\n-3"), &letter("<>"));
    check(p, MULTIPART, &letter(""), &letter("<>"));
    check(p, MULTIPART, &body("--B--\r\n"), &body("--B--\r\n"));
    let no_head = "--B\r\n\r\n1\r\n--B--";
    refuse(p, MULTIPART, &body(no_head), "bad-form");
    let (_, tally) = run(&sealing(p), MULTIPART, &body(&part("other", "x"))).unwrap();
    assert_eq!(tally.unclaimed, 1);
}

#[test]
fn forms_that_two_readers_could_take_for_two() {
    let good = part("ssn", "1");
    let with = |line: &str| good.replacen("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"), 1);
    let disposed = |value: &str| good.replace("form-data; name=\"ssn\"", value);
    for text in [
        good.replace("--B--\r\n", ""),
        good.replace("--B--\r\n", "--B"),
        good.replace("--B--\r\n", "--B "),
        format!("preamble\r\n{good}"),
        format!("{good}epilogue"),
        good.replacen("--B\r\n", "--B \r\n", 1),
        good.replacen("--B\r\n", "--B\n", 1),
        good.replace("\r\n--B--", "\n--B--"),
        part("ssn", "1--B2"),
        part("ssn", "1\r\n--Bx"),
        good.replace("\r\n\r\n1", "\r\n1"),
        with("Content-Transfer-Encoding: base64"),
        with("Content-Type: multipart/mixed; boundary=C"),
        with("Content-Disposition: form-data; name=\"x\""),
        with("Content-Type: text/plain\r\nContent-Type: text/plain"),
        with(" folded"),
        with("No colon"),
        with("Content-Type: text/plain; charset"),
        disposed("form-data; name=\"x\"; name=\"ssn\""),
        disposed("form-data; name*=utf-8''ssn"),
        disposed("form-data; name*0=\"ssn\""),
        disposed("form-data; name=\"x\"; name*0*=utf-8''ssn"),
        disposed("form-data; Name*=utf-8''ssn; name=x"),
        disposed("form-data; name=\"ssn\"; filename*0=x"),
        disposed("form-data; name=\"x\"; filename*0*=utf-8''x"),
        disposed("form-data; name=\"x\"; filename*=x"),
        disposed("form-data; name=\"x\"; filename*=utf-8''x'y"),
        disposed("form-data; name=\"x\"; filename*=utf-8''x; filename*=utf-8''y"),
        disposed("form-data; name='ssn'"),
        disposed("form-data; name=\"'ssn'\""),
        disposed("form-data; name=\"=?utf-8?B?c3Nu?=\""),
        disposed("form-data; name=\"=?utf-8?Q?ssn?=\""),
        disposed("form-data; name=\"=?utf-8?Q?s\""),
        disposed("form-data; name=\"s =?utf-8?Q?sn?=\""),
        // Rack takes the last one that looks so; others, single quotes for quotes, or no backslash for an escape.
        disposed("form-data; name=\"x\"; filename=\"; name=ssn\""),
        disposed("form-data; name=x; a='; b=\"'; NAME =ssn; c='\""),
        disposed("form-data; name=\"x\"; a=\"\\\\\"; b=\"; name=ssn; c=\""),
        disposed("form-data"),
        disposed("attachment; name=\"ssn\""),
        disposed("form-data; name=\"s\\sn\""),
        disposed("form-data; name=\"%73sn\""),
        disposed("form-data; name=\"ssn"),
        part("_charset_", "utf-16"),
        with(&format!("X: {}", "x".repeat(9_000))),
    ] {
        refuse(&["part:ssn"], MULTIPART, &body(&text), "bad-form");
    }
    for kind in [
        "image/png",
        "application/json",
        "text/plain; charset=latin1",
    ] {
        let text = with(&format!("Content-Type: {kind}"));
        refuse(&["part:ssn"], MULTIPART, &body(&text), "not-text");
    }
    let mut bytes = body(&good);
    let at = bytes.body.iter().position(|b| *b == b'1').unwrap();
    bytes.body[at] = 0xFF;
    refuse(&["part:ssn"], MULTIPART, &bytes, "not-text");
    let many = format!(
        "{}--B--",
        "--B\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n".repeat(10_000)
    );
    refuse(&["part:ssn"], MULTIPART, &body(&many), "bad-form");
}

/// As HttpClient of .NET writes them.
#[test]
fn files_with_their_name_in_two_encodings_pass() {
    let file = "--B\r\nContent-Type: image/png\r\nContent-Disposition: form-data; name=photo; filename=\"=?utf-8?B?w6kucG5n?=\"; filename*=utf-8''%C3%A9.png\r\n\r\n\u{1}\r\n";
    let field =
        "--B\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=";
    let letter =
        |name: &str, value: &str| body(&format!("{file}{field}{name}\r\n\r\n{value}\r\n--B--\r\n"));
    let p = &["part:ssn"][..];
    check(p, MULTIPART, &letter("ssn", "1"), &letter("ssn", "<>"));
    for name in [
        "\"2+2=?\"",
        "\"a=?b\"",
        "\"it's\"",
        "\"name\"",
        "\"last name\"",
        "x; filename=name.png",
    ] {
        check(p, MULTIPART, &letter(name, "1"), &letter(name, "1"));
    }
    // A text is one also as a file.
    let named = "ssn; filename=a.txt; filename*=utf-8'en'a.txt";
    check(p, MULTIPART, &letter(named, "1"), &letter(named, "<>"));
    refuse(&["part:photo"], MULTIPART, &letter("ssn", "1"), "not-text");
}

#[test]
fn documents_within_strings() {
    let j = &["json:$.p then:$..x"][..];
    let c = |before: &str, expected: &str| check(j, Shape::Json, &body(before), &body(expected));
    c(
        r#"{"p":"{\"x\":\"1\",\"y\":2}","x":3}"#,
        r#"{"p":"{\"x\":\"<>\",\"y\":2}","x":3}"#,
    );
    c(
        r#"{"p": "{\"\\u0078\" : [1, {\"x\":null}]}"}"#,
        r#"{"p": "{\"\\u0078\" : \"<>\"}"}"#,
    );
    c(
        r#"{"p":"{\"y\":\"\u00e9\\n\\\"\",\"x\":true}"}"#,
        r#"{"p":"{\"y\":\"\u00e9\\n\\\"\",\"x\":\"<>\"}"}"#,
    );
    c(r#"{"p":"5","q":1}"#, r#"{"p":"5","q":1}"#);
    c(r#"{"p":null}"#, r#"{"p":null}"#);
    // The value within comes back exactly; how the outer string spells it is one way of many.
    let spelt = r#"{"p":"{\u0022x\u0022:\u0022\/\u0022}"}"#;
    let sealed = r#"{"p":"{\u0022x\u0022:\"<>\"}"}"#;
    let back = r#"{"p":"{\u0022x\u0022:\"/\"}"}"#;
    check_back(j, Shape::Json, &body(spelt), &body(sealed), &body(back));
    for broken in [
        r#"{"p":"{"}"#,
        r#"{"p":""}"#,
        r#"{"p":"plain"}"#,
        r#"{"p":7}"#,
        r#"{"p":{"x":1}}"#,
        r#"{"p":["x"]}"#,
        r#"{"p":"{\"x\":\"\ud800\"}"}"#,
        r#"{"p":"1 2"}"#,
    ] {
        refuse(j, Shape::Json, &body(broken), "not-inner");
    }
    let token = format!("{{\"p\":\"{}\"}}", token("\"x\""));
    refuse(j, Shape::Json, &body(&token), "not-inner");
    // Between values of the body, in its order; an enclosing value wins.
    check(
        &["$.a", "json:$.p then:$.x", "$.z"],
        Shape::Json,
        &body(r#"{"z":1,"p":"{\"x\":2}","a":3}"#),
        &body(r#"{"z":"<>","p":"{\"x\":\"<>\"}","a":"<>"}"#),
    );
    check(
        &["json:$.p then:$.x", "$.p"],
        Shape::Json,
        &body(r#"{"p":"{\"x\":2}"}"#),
        &body(r#"{"p":"<>"}"#),
    );
    // Several paths to one string.
    check(
        &["json:$.p then:$.x", "json:$..p then:$.y"],
        Shape::Json,
        &body(r#"{"p":"{\"x\":2,\"y\":3}"}"#),
        &body(r#"{"p":"{\"x\":\"<>\",\"y\":\"<>\"}"}"#),
    );
}

#[test]
fn binds_within_strings_are_of_the_document_there() {
    let bound = |action: Action| {
        let mut rule = rule("json:$.p then:$.x", action);
        rule.bind.push(Bind {
            name: "id".into(),
            source: BindSource::Sibling("id".into()),
        });
        Rules::compile(vec![rule], MANNER).unwrap()
    };
    let (seal, open) = (
        bound(Action::Seal(class())),
        bound(Action::Open(vec![class()])),
    );
    let letter = body(r#"{"id":1,"p":"{\"id\":7,\"x\":2}"}"#);
    let (sealed, _) = run(&seal, Shape::Json, &letter).unwrap();
    let (opened, _) = run(&open, Shape::Json, &sealed).unwrap();
    assert_eq!(opened, letter);
    let moved = String::from_utf8(sealed.body)
        .unwrap()
        .replace(":7,", ":8,");
    let (_, tally) = run(&open, Shape::Json, &body(&moved)).unwrap();
    assert_eq!(tally.left, [("refused", 1)]);
    let outside = body(r#"{"id":1,"p":"{\"x\":2}"}"#);
    let refusal = run(&seal, Shape::Json, &outside).map(drop);
    assert_eq!(refusal.map_err(|r| r.word()), Err("bind"));
    let mut wrong = rule("query:q", Action::Seal(class()));
    wrong.bind.push(Bind {
        name: "id".into(),
        source: BindSource::Sibling("id".into()),
    });
    assert!(Rules::compile(vec![wrong], MANNER).is_err());
}

#[test]
fn merge_patches() {
    let s = &["$.ssn", "$.cards[*].n", "$.whole"][..];
    let c = |before: &str, expected: &str| {
        check(s, Shape::MergePatch, &body(before), &body(expected));
    };
    c(r#"{"ssn":"1","x":null}"#, r#"{"ssn":"<>","x":null}"#);
    c(r#"{"ssn":null}"#, r#"{"ssn":null}"#);
    // An array is replaced whole, and a null in it is a value.
    c(r#"{"cards":[{"n":null}]}"#, r#"{"cards":[{"n":"<>"}]}"#);
    c(r#"{"whole":[1,null]}"#, r#"{"whole":"<>"}"#);
    refuse(
        s,
        Shape::MergePatch,
        &body(r#"{"whole":{"part":1}}"#),
        "patch",
    );
    refuse(s, Shape::MergePatch, &body("{"), "not-json");
    refuse(
        &["$.a[?@.x == 1].y"],
        Shape::MergePatch,
        &body("{}"),
        "unevaluable",
    );
}

#[test]
fn patches() {
    let s = &["$.ssn", "$.cards[*].n", "$.list[0]", "$.whole"][..];
    let op = |text: &str| body(&format!("[{text}]"));
    let c = |before: &str, expected: &str| {
        check(s, Shape::JsonPatch, &op(before), &op(expected));
    };
    c(
        r#"{"op":"replace","path":"/ssn","value":"1"}"#,
        r#"{"op":"replace","path":"/ssn","value":"<>"}"#,
    );
    c(
        r#"{"value":1,"path":"\/s\u0073n","op":"add"}"#,
        r#"{"value":"<>","path":"\/s\u0073n","op":"add"}"#,
    );
    c(
        r#"{"op":"add","path":"","value":{"ssn":1,"x":2}}"#,
        r#"{"op":"add","path":"","value":{"ssn":"<>","x":2}}"#,
    );
    c(
        r#"{"op":"add","path":"/cards/-","value":{"n":1,"m":2}}"#,
        r#"{"op":"add","path":"/cards/-","value":{"n":"<>","m":2}}"#,
    );
    c(
        r#"{"op":"add","path":"/cards/3/n","value":null}"#,
        r#"{"op":"add","path":"/cards/3/n","value":"<>"}"#,
    );
    c(
        r#"{"op":"add","path":"/x~1y~0","value":1},{"op":"remove","path":"/ssn"}"#,
        r#"{"op":"add","path":"/x~1y~0","value":1},{"op":"remove","path":"/ssn"}"#,
    );
    c(
        r#"{"op":"test","path":"/x","value":1}"#,
        r#"{"op":"test","path":"/x","value":1}"#,
    );
    c(
        r#"{"op":"move","from":"/cards/0/n","path":"/cards/1/n"}"#,
        r#"{"op":"move","from":"/cards/0/n","path":"/cards/1/n"}"#,
    );
    c(
        r#"{"op":"copy","from":"/x","path":"/y"}"#,
        r#"{"op":"copy","from":"/x","path":"/y"}"#,
    );
    check(s, Shape::JsonPatch, &body("[]"), &body("[]"));
    for refused in [
        r#"{"op":"test","path":"/ssn","value":"1"}"#,
        r#"{"op":"test","path":"","value":{"ssn":1}}"#,
        r#"{"op":"move","from":"/ssn","path":"/x"}"#,
        r#"{"op":"copy","from":"/x","path":"/ssn"}"#,
        r#"{"op":"copy","from":"/x","path":"/cards/0"}"#,
        r#"{"op":"move","from":"","path":"/x"}"#,
        r#"{"op":"add","path":"/whole/part","value":1}"#,
        r#"{"op":"remove","path":"/ssn/0"}"#,
        r#"{"op":"add","path":"/list/0","value":1}"#,
        r#"{"op":"add","path":"/list/-","value":1}"#,
        r#"{"op":"frob","path":"/ssn","value":1}"#,
        r#"{"op":"add","path":"/x"}"#,
        r#"{"op":"add","value":1}"#,
        r#"{"path":"/x","value":1}"#,
        r#"{"op":"add","path":"ssn","value":1}"#,
        r#"{"op":"add","path":"/~2","value":1}"#,
        r#"{"op":"add","path":7,"value":1}"#,
        r#"{"op":"add","path":"/x","path":"/ssn","value":1}"#,
        r#"{"op":"add","path":"/x","value":1,"v\u0061lue":2}"#,
        r#"{"op":"add","path":"/x","value":1,"ssn":"1"}"#,
        r#"{"op":"replace","path":"/ssn","value":"x","oldValue":"1"}"#,
        r#"{"op":"remove","path":"/ssn","old":"1"}"#,
        r#"{"op":"remove","path":"/cards/0","context":{"ssn":"1"}}"#,
        r#"{"op":"add","path":"/ssn","value":1,"Value":"1"}"#,
        r#"{"ssn":"1","op":"remove","path":"/x"}"#,
        r#"{"op":"remove","path":"/x","from":"1"}"#,
        "[1]",
        "7",
    ] {
        refuse(s, Shape::JsonPatch, &op(refused), "patch");
    }
    refuse(s, Shape::JsonPatch, &body("{}"), "patch");
    refuse(s, Shape::JsonPatch, &body("[{]"), "not-json");
    let many = vec![r#"{"op":"remove","path":"/x"}"#; 5_000].join(",");
    refuse(s, Shape::JsonPatch, &op(&many), "too-many");
    refuse(&["$.a[-1]"], Shape::JsonPatch, &body("[]"), "unevaluable");
    // As many elements as no body may have, before they are all noted.
    let many = vec!["1"; 300_000].join(",");
    refuse(s, Shape::JsonPatch, &op(&many), "too-many");
    // A value, or a pointer, that is not asked for goes on all the same.
    c(
        r#"{"op":"add","path":"/ssn","value":1,"from":""}"#,
        r#"{"op":"add","path":"/ssn","value":"<>","from":""}"#,
    );
    c(
        r#"{"op":"remove","path":"/ssn","value":1}"#,
        r#"{"op":"remove","path":"/ssn","value":"<>"}"#,
    );
}

/// A side that only opens opens beside members that it does not know; one that rejects anything does not let them pass.
#[test]
fn unknown_members_of_a_patch_where_nothing_is_sealed() {
    let text = r#"[{"was":{"ssn":1},"op":"add","path":"/ssn","value":"<>","from":"x"}]"#;
    let text = body(&text.replace("<>", &token("1")));
    let (after, tally) = run(&opening(&["$.ssn"]), Shape::JsonPatch, &text).unwrap();
    let opened = r#"[{"was":{"ssn":1},"op":"add","path":"/ssn","value":1,"from":"x"}]"#;
    assert_eq!(String::from_utf8(after.body).unwrap(), opened);
    assert_eq!(tally.opened.len(), 1);
    let manner = Manner {
        stray: Attitude::Reject,
        ..MANNER
    };
    let rules = vec![rule("$.ssn", Action::Open(vec![class()]))];
    let rules = Rules::compile(rules, manner).unwrap();
    let refused = run(&rules, Shape::JsonPatch, &text).map_err(|refusal| refusal.word());
    assert_eq!(refused.map(|_| ()), Err("patch"));
}

#[test]
fn one_plan_for_a_whole_message() {
    let places = &["$.ssn", "query:q", "header:x-ssn"];
    let letter = Letter {
        lines: vec![("x-ssn", b"h".to_vec())],
        query: Some("q=1".into()),
        body: b"{\"ssn\":2}".to_vec(),
    };
    let rules = sealing(places);
    let message = Message {
        body: &letter.body,
        shape: Shape::Json,
        lines: vec![("x-ssn", b"h")],
        query: Some("q=1"),
    };
    let plan = plan_message(&rules, &message, &Circumstances::default()).unwrap();
    let needs: Vec<u64> = plan
        .needs()
        .sealing
        .iter()
        .map(|need| need.values)
        .collect();
    assert_eq!(needs, [3], "one key, asked for once");
    let (sealed, _) = run(&rules, Shape::Json, &letter).unwrap();
    let (opened, _) = run(&opening(places), Shape::Json, &sealed).unwrap();
    assert_eq!(opened, letter);
}

proptest! {
    /// Whatever stands around them, the named values alone change, and come back as the same texts.
    #[test]
    fn forms_come_back(fields in prop::collection::vec(("[a-c]", "\\PC{0,12}"), 0..12)) {
        let mut form = String::new();
        for (name, value) in &fields {
            let mut spelt = Vec::new();
            crate::transform::forms::encode(value, &mut spelt);
            form.push_str(&format!("{name}={}&", String::from_utf8(spelt).unwrap()));
        }
        let places = &["form:b"];
        let (sealed, _) = run(&sealing(places), Shape::Form, &body(&form)).unwrap();
        let text = String::from_utf8(sealed.body.clone()).unwrap();
        for ((name, _), (before, after)) in fields.iter().zip(form.split('&').zip(text.split('&'))) {
            prop_assert_eq!(name == "b", before != after);
        }
        let (opened, _) = run(&opening(places), Shape::Form, &sealed).unwrap();
        prop_assert_eq!(opened.body, form.into_bytes());
    }

    /// Any bytes: no panic; and what is not refused differs in its spans only, and comes back.
    #[test]
    fn any_bytes(bytes in "(--B(\r\n|--)|Content-Disposition: form-data; name=\"?ssn\"?|\r\n|[a-z=&%;\\\\\"{}:,0-9]|ssn|\\[|\\])*") {
        let places = &["part:ssn", "form:ssn", "json:$..ssn then:$..ssn", "$..n"];
        for shape in [MULTIPART, Shape::Form, Shape::Json, Shape::JsonPatch, Shape::MergePatch] {
            let before = body(&bytes);
            if let Ok((sealed, _)) = run(&sealing(places), shape, &before) {
                let (_, told) = run(&opening(places), shape, &sealed).unwrap();
                prop_assert_eq!(told.left, vec![]);
            }
        }
    }

    /// JSON in a string, spelt in any way: the outer document differs in the spans of the inner values only.
    #[test]
    fn documents_in_strings_come_back(x in "\\PC{0,8}", y in "\\PC{0,8}") {
        let json = |text: &str| serde_json::to_string(text).unwrap();
        let inner = format!("{{\"y\":{},\"x\":{}}}", json(&y), json(&x));
        let outer = format!("{{\"p\":{}}}", json(&inner));
        let places = &["json:$.p then:$.x"];
        let (sealed, tally) = run(&sealing(places), Shape::Json, &body(&outer)).unwrap();
        prop_assert_eq!(tally.sealed.len(), 1);
        let parsed: serde_json::Value = serde_json::from_slice(&sealed.body).unwrap();
        let parsed: serde_json::Value = serde_json::from_str(parsed["p"].as_str().unwrap()).unwrap();
        prop_assert_eq!(parsed["y"].as_str().unwrap(), y);
        prop_assert!(parsed["x"].as_str().unwrap().starts_with("fv1~"));
        let (opened, _) = run(&opening(places), Shape::Json, &sealed).unwrap();
        prop_assert_eq!(opened.body, outer.into_bytes());
    }
}
