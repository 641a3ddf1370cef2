//! Bad input on the wire: each kind has one answer, and what is refused never reaches the upstream.

use crate::agent::Agent;
use crate::client::{Answer, Client};
use crate::engine::masked;
use crate::upstream::Echo;
use std::collections::BTreeMap;

const JSON: &str = "Content-Type: application/json\r\n";

/// Two tenants, two classes; `number` and `note` are two places of one class, `owner` one of the other; `bound` is bound to its
/// record.
const POLICY: &str = "
apiVersion: fieldveil/v1
kind: Policy
metadata: {name: bad-input}
tenant: {header: X-Tenant}
classes:
  pan: {key: cards}
  ssn: {key: identity}
  once: {key: cards, scrutiny: high}
routes:
  - name: things
    match: {path: /things}
    request:
      rules:
        - {at: $.number, seal: pan}
        - {at: $.note, seal: pan}
        - {at: $.owner, seal: ssn}
        - {at: $.bound, seal: pan, bind: {record: {sibling: id}}}
        - {at: $.once, seal: once}
  - name: filtered
    match: {path: /filtered}
    request:
      rules:
        - {at: '$.items[?@.secret == true].value', seal: pan}
  - name: strict
    match: {path: /strict}
    request:
      stray: reject
      unclaimed: reject
      rules:
        - {at: $.number, seal: pan}
        - {at: $.open, pass: true}
";

struct Bench {
    echo: Echo,
    agent: Agent,
}

impl Bench {
    fn new() -> Bench {
        let echo = Echo::start();
        let agent = Agent::with_policy(echo.address, POLICY);
        Bench { echo, agent }
    }

    fn post(&self, lines: &str, path: &str, body: &[u8]) -> Answer {
        let lines = format!("X-Tenant: acme\r\n{lines}");
        Client::to(self.agent.address).post_as(&lines, path, body)
    }

    /// Refused with this status and code; the upstream saw nothing of it.
    #[track_caller]
    fn refused(&self, status: u16, code: &str, lines: &str, path: &str, body: &[u8]) {
        let answer = self.post(lines, path, body);
        assert_eq!(
            (answer.status, &*answer.code()),
            (status, code),
            "{lines}{path} {}",
            shown(body)
        );
        assert_eq!(
            self.echo.take().len(),
            0,
            "the upstream heard of it: {}",
            shown(body)
        );
    }

    /// What the upstream got for this body.
    #[track_caller]
    fn passed(&self, lines: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let answer = self.post(lines, path, body);
        assert_eq!(answer.status, 200, "{}: {answer:?}", shown(body));
        let mut got = self.echo.take();
        assert_eq!(got.len(), 1);
        let got = got.pop().expect("one").body;
        assert!(answer.body == got, "nothing is opened here");
        got
    }

    /// The token that the agent makes of a value at a place.
    #[track_caller]
    fn token(&self, tenant: &str, body: &str, member: &str) -> String {
        let lines = format!("{JSON}X-Tenant: {tenant}\r\n");
        let answer = Client::to(self.agent.address).post_as(&lines, "/things", body.as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        self.echo.take();
        let sealed: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        let token = sealed[member].as_str().expect("a string").to_owned();
        assert!(token.starts_with("fv1~") && token.ends_with('~'), "{token}");
        token
    }
}

fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned()
}

#[test]
fn what_is_no_json_document() {
    let bench = Bench::new();
    let sixteen = |text: &str, big: bool, mark: bool| -> Vec<u8> {
        let units = mark
            .then_some(0xfeff)
            .into_iter()
            .chain(text.encode_utf16());
        units
            .flat_map(|unit| {
                if big {
                    unit.to_be_bytes()
                } else {
                    unit.to_le_bytes()
                }
            })
            .collect()
    };
    let document = r#"{"number":"4111111111111111"}"#;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("white space alone", b" \n".to_vec()),
        (
            "a broken object",
            br#"{"number":"4111111111111111""#.to_vec(),
        ),
        (
            "a trailing comma",
            br#"{"number":"4111111111111111",}"#.to_vec(),
        ),
        ("a trailing comma in a list", b"[1,]".to_vec()),
        ("a comment", br#"{"number":1/* one */}"#.to_vec()),
        ("single quotes", b"{'number':'4111'}".to_vec()),
        ("no quotes", b"{number:1}".to_vec()),
        ("NaN", br#"{"number":NaN}"#.to_vec()),
        ("Infinity", br#"{"number":-Infinity}"#.to_vec()),
        ("hexadecimal", br#"{"number":0x10}"#.to_vec()),
        ("a leading zero", br#"{"number":010}"#.to_vec()),
        ("a plus sign", br#"{"number":+1}"#.to_vec()),
        ("a bare point", br#"{"number":1.}"#.to_vec()),
        ("two documents", b"{} {}".to_vec()),
        ("lines of JSON", b"{}\n{}\n".to_vec()),
        (
            "a byte order mark",
            [b"\xef\xbb\xbf", document.as_bytes()].concat(),
        ),
        ("UTF-16", sixteen(document, false, false)),
        ("UTF-16, the other way", sixteen(document, true, false)),
        ("UTF-16 with a mark", sixteen(document, false, true)),
        (
            "UTF-16 with a mark, the other way",
            sixteen(document, true, true),
        ),
        (
            "UTF-32",
            document
                .chars()
                .flat_map(|c| u32::from(c).to_le_bytes())
                .collect(),
        ),
        (
            "a byte that is not UTF-8, in a name",
            b"{\"n\xffumber\":1}".to_vec(),
        ),
        ("an overlong name", b"{\"\xc1\xaeumber\":1}".to_vec()),
        (
            "half a pair in UTF-8",
            b"{\"number\":\"\xed\xa0\x80\"}".to_vec(),
        ),
        (
            "beyond Unicode",
            b"{\"number\":\"\xf4\x90\x80\x80\"}".to_vec(),
        ),
        ("a raw control byte", b"{\"number\":\"a\nb\"}".to_vec()),
        ("NUL", b"{\"number\":\"a\"}\0".to_vec()),
        ("a wrong escape", br#"{"number":"\x41"}"#.to_vec()),
        ("a form", b"number=4111111111111111".to_vec()),
        ("XML", b"<number>4111111111111111</number>".to_vec()),
        ("a million open brackets", vec![b'['; 1_000_000]),
        (
            "a million brackets",
            [vec![b'['; 500_000], vec![b']'; 500_000]].concat(),
        ),
        ("a million objects", br#"{"a":"#.repeat(200_000)),
    ];
    for (what, body) in cases {
        let code = if what.starts_with("a million") {
            "too-deep"
        } else {
            "not-json"
        };
        let answer = bench.post(JSON, "/things", &body);
        assert_eq!((answer.status, &*answer.code()), (400, code), "{what}");
        for path in ["/things", "/strict"] {
            bench.refused(400, code, JSON, path, &body);
        }
    }
    assert_eq!(bench.echo.connections(), 0, "the upstream heard of it");
    let log = bench.agent.log();
    assert!(!log.contains("4111111111111111"), "a value is in the log");
}

#[test]
fn odd_documents_are_sealed_right() {
    let bench = Bench::new();
    for (body, expected) in [
        (
            r#"{"number":"1","number":"2"}"#,
            r#"{"number":<>,"number":<>}"#,
        ),
        (r#"{"\u006eumber":"1"}"#, r#"{"\u006eumber":<>}"#),
        (
            "{\"n\\u0075mb\\u0065r\"\r\n:\t\"1\" }",
            "{\"n\\u0075mb\\u0065r\"\r\n:\t<> }",
        ),
        (
            r#"{"Number":"1","number ":"2","number\u0000":"3"}"#,
            r#"{"Number":"1","number ":"2","number\u0000":"3"}"#,
        ),
        (
            r#"{"number":{"number":[1,{"a":null}]}}"#,
            r#"{"number":<>}"#,
        ),
        (
            r#"{"number":null,"owner":false}"#,
            r#"{"number":<>,"owner":<>}"#,
        ),
        (
            r#"{"number":"\ud800","x":"\udfff"}"#,
            r#"{"number":<>,"x":"\udfff"}"#,
        ),
        (
            r#"{"number":"fv1~","note":"fv~x~","owner":"~"}"#,
            r#"{"number":<>,"note":<>,"owner":<>}"#,
        ),
        (r#"[{"number":"1"}]"#, r#"[{"number":"1"}]"#),
        (r#""number""#, r#""number""#),
        ("", ""),
    ] {
        let got = bench.passed(JSON, "/things", body.as_bytes());
        assert_eq!(masked(&got), expected);
    }
    // A number of a million digits: classified and not.
    let digits = "7".repeat(1_000_000);
    let long = format!("{{\"x\":{digits}.0e-{digits}}}");
    assert!(bench.passed(JSON, "/things", long.as_bytes()) == long.as_bytes());
    bench.refused(
        413,
        "value-too-long",
        JSON,
        "/things",
        format!("{{\"number\":{digits}}}").as_bytes(),
    );
    bench.refused(
        413,
        "value-too-long",
        JSON,
        "/things",
        format!("{{\"number\":\"{digits}\"}}").as_bytes(),
    );
    let fits = format!("{{\"number\":{}}}", &digits[..700_000]);
    assert_eq!(
        masked(&bench.passed(JSON, "/things", fits.as_bytes())),
        r#"{"number":<>}"#
    );
    // 128 levels are the most.
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    assert!(bench.passed(JSON, "/things", nested(128).as_bytes()) == nested(128).as_bytes());
    bench.refused(400, "too-deep", JSON, "/things", nested(129).as_bytes());
    // 8 MiB are held; more goes in pieces, where the rules can be kept on parts.
    let padded = |size: usize| format!("{{\"number\":1{}}}", " ".repeat(size - 12)).into_bytes();
    assert!(
        masked(&bench.passed(JSON, "/things", &padded(8 << 20))).starts_with(r#"{"number":<> "#)
    );
    assert!(
        masked(&bench.passed(JSON, "/things", &padded((8 << 20) + 1)))
            .starts_with(r#"{"number":<> "#)
    );
}

#[test]
fn how_a_body_is_declared() {
    let bench = Bench::new();
    let body = br#"{"number":"4111111111111111"}"#;
    for lines in [
        "",
        "Content-Type:\r\n",
        "Content-Type: text/plain\r\n",
        "Content-Type: text/json\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: multipart/form-data; boundary=x\r\n",
        "Content-Type: application/octet-stream\r\n",
        "Content-Type: application/x-ndjson; charset=utf-16\r\n",
        "Content-Type: application/json; charset=utf-16\r\n",
        "Content-Type: application/json; charset=iso-8859-1\r\n",
        "Content-Type: application/json, text/plain\r\n",
        "Content-Type: application/json\r\nContent-Type: application/json\r\n",
    ] {
        bench.refused(415, "content-type", lines, "/things", body);
    }
    for coding in ["x", "compress", "gzip, x", "gzip;q=1", "gzip, br, gzip"] {
        let lines = format!("{JSON}Content-Encoding: {coding}\r\n");
        bench.refused(415, "content-coding", &lines, "/things", body);
    }
    for coding in [
        "gzip",
        "br",
        "deflate",
        "zstd",
        "identity, gzip",
        "gzip, gzip",
    ] {
        let lines = format!("{JSON}Content-Encoding: {coding}\r\n");
        bench.refused(400, "coding-broken", &lines, "/things", body);
    }
    assert_eq!(bench.echo.connections(), 0);
    for lines in [
        "Content-Type: application/json;charset=UTF-8\r\n",
        "Content-Type: Application/JSON\r\n",
        "Content-Type: application/vnd.api+json\r\n",
        "Content-Type: application/json\r\nContent-Encoding: identity\r\n",
    ] {
        let got = bench.passed(lines, "/things", body);
        assert!(got.starts_with(br#"{"number":"fv1~"#));
    }
    // Nothing leaks where there is nothing: however an empty body is declared.
    assert_eq!(bench.passed("", "/things", b""), b"");
    assert_eq!(
        bench.passed("Content-Type: text/plain\r\n", "/things", b""),
        b""
    );
    // A route that the policy does not have is not looked into.
    assert_eq!(
        bench.passed("Content-Type: text/plain\r\n", "/elsewhere", body),
        body
    );
}

#[test]
fn tokens_that_do_not_belong() {
    let bench = Bench::new();
    let body =
        r#"{"number":"4111111111111111","bound":"1","id":7,"owner":"078-05-1120","once":"9"}"#;
    let number = bench.token("acme", body, "number");
    let bound = bench.token("acme", body, "bound");
    let owner = bench.token("acme", body, "owner");
    let other_tenant = bench.token("globex", body, "number");
    // Another agent has other keys.
    let foreign = Bench::new().token("acme", body, "number");

    // Where it was made, and at another place of the class, a token stays as it is.
    for text in [
        format!(r#"{{"number":"{number}"}}"#),
        format!(r#"{{"note":"{number}"}}"#),
        format!(r#"{{"number":"{}"}}"#, number.replace('~', "\\u007e")),
        format!(r#"{{"bound":"{bound}","id":7}}"#),
        format!(r#"{{"id":7,"bound":"{bound}"}}"#),
    ] {
        let got = bench.passed(JSON, "/things", text.as_bytes());
        assert_eq!(String::from_utf8(got).expect("UTF-8"), text);
    }

    let mut refused = BTreeMap::from([
        ("of another class", format!(r#"{{"owner":"{number}"}}"#)),
        (
            "of another class, the other way",
            format!(r#"{{"number":"{owner}"}}"#),
        ),
        (
            "of another tenant",
            format!(r#"{{"number":"{other_tenant}"}}"#),
        ),
        ("of another agent", format!(r#"{{"number":"{foreign}"}}"#)),
        (
            "of another record",
            format!(r#"{{"bound":"{bound}","id":8}}"#),
        ),
        (
            "bound, at an unbound place",
            format!(r#"{{"number":"{bound}"}}"#),
        ),
        (
            "unbound, at a bound place",
            format!(r#"{{"bound":"{number}","id":7}}"#),
        ),
        (
            "at a place that takes none",
            format!(r#"{{"once":"{number}"}}"#),
        ),
        (
            "truncated",
            format!(r#"{{"number":"{}~"}}"#, &number[..number.len() - 5]),
        ),
        ("of nothing", r#"{"number":"fv1~~"}"#.to_owned()),
        ("of a later version", r#"{"number":"fv2~AAAA~"}"#.to_owned()),
        (
            "made up",
            format!(r#"{{"number":"fv1~{}~"}}"#, "A".repeat(200)),
        ),
        (
            "padded",
            format!(r#"{{"number":"{}=~"}}"#, &number[..number.len() - 1]),
        ),
        (
            "with a blank",
            format!(r#"{{"number":"{} ~"}}"#, &number[..number.len() - 1]),
        ),
    ]);
    // One byte of each part of the payload changed: header, kid, record, nonce, sealed.
    let flipped: Vec<String> = [
        4,
        6,
        9,
        20,
        40,
        60,
        number.len() / 2,
        number.len() - 20,
        number.len() - 4,
    ]
    .into_iter()
    .map(|at| {
        let mut bytes = number.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(bytes).expect("ASCII");
        format!(r#"{{"number":"{forged}"}}"#)
    })
    .collect();
    for (what, body) in refused
        .iter()
        .map(|(what, body)| (*what, body))
        .chain(flipped.iter().map(|body| ("forged", body)))
    {
        let answer = bench.post(JSON, "/things", body.as_bytes());
        assert_eq!(
            (answer.status, &*answer.code()),
            (422, "token-refused"),
            "{what}"
        );
        assert_eq!(
            bench.echo.take().len(),
            0,
            "{what}: the upstream heard of it"
        );
    }
    // They all look alike to the client, but for the request's id.
    refused.retain(|_, body| {
        let answer = bench.post(JSON, "/things", body.as_bytes());
        let document: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        let told: Vec<_> = ["type", "title", "status", "detail", "code"]
            .map(|member| document[member].to_string())
            .into();
        told.concat() != concat_of(&bench, &flipped[0])
    });
    assert!(refused.is_empty(), "told apart: {:?}", refused.keys());
}

fn concat_of(bench: &Bench, body: &str) -> String {
    let answer = bench.post(JSON, "/things", body.as_bytes());
    let document: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    ["type", "title", "status", "detail", "code"]
        .map(|member| document[member].to_string())
        .concat()
}

#[test]
fn binds_tenants_strays_and_filters() {
    let bench = Bench::new();
    for body in [
        r#"{"bound":"1"}"#,
        r#"{"bound":"1","id":1,"id":2}"#,
        r#"{"bound":"1","id":{}}"#,
        r#"{"bound":"1","id":1.5}"#,
        r#"{"bound":"1","id":null}"#,
    ] {
        bench.refused(422, "bind", JSON, "/things", body.as_bytes());
    }
    let token = bench.token("acme", r#"{"number":"1"}"#, "number");
    bench.refused(
        422,
        "bind",
        JSON,
        "/things",
        format!(r#"{{"bound":"1","id":"{token}"}}"#).as_bytes(),
    );
    bench.refused(
        422,
        "stray",
        JSON,
        "/strict",
        format!(r#"{{"elsewhere":"{token}"}}"#).as_bytes(),
    );
    bench.refused(
        422,
        "unclaimed",
        JSON,
        "/strict",
        br#"{"number":"1","elsewhere":2}"#,
    );
    bench.refused(
        422,
        "unevaluable",
        JSON,
        "/filtered",
        br#"{"items":[{"secret":true,"secret":false,"value":1}]}"#,
    );
    bench.refused(
        422,
        "unevaluable",
        JSON,
        "/filtered",
        br#"{"items":[{"secret":true,"value":1e999}]}"#,
    );
    let got = bench.passed(
        JSON,
        "/filtered",
        br#"{"items":[{"secret":true,"value":1},{"secret":1,"value":2}]}"#,
    );
    let got = String::from_utf8(got).expect("UTF-8");
    assert!(
        got.starts_with(r#"{"items":[{"secret":true,"value":"fv1~"#)
            && got.ends_with(r#"{"secret":1,"value":2}]}"#)
    );

    for lines in ["", "X-Tenant: a\r\nX-Tenant: b\r\n", "X-Tenant:\r\n"] {
        let lines = format!("{JSON}{lines}");
        let answer =
            Client::to(bench.agent.address).post_as(&lines, "/things", br#"{"number":"1"}"#);
        assert_eq!((answer.status, &*answer.code()), (400, "tenant-missing"));
        assert_eq!(bench.echo.take().len(), 0);
    }
}
