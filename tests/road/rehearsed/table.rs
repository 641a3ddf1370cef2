//! What is sent both ways: requests, and what is answered to them.

use crate::coded::coded;
use fieldveil::context::Class;
use fieldveil::dek::Suite;
use fieldveil::rehearsal::{Kept, Keys};
use http::{HeaderMap, HeaderName, HeaderValue};

/// A message's headers and body, as a test writes them.
#[derive(Clone, Default)]
pub struct Said {
    pub lines: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Said {
    pub fn line(mut self, name: &'static str, value: &str) -> Said {
        self.lines.push((name, value.to_owned()));
        self
    }
    fn with(mut self, body: Vec<u8>) -> Said {
        self.body = body;
        self
    }
    fn coded(mut self, names: &str) -> Said {
        self.body = coded(names, &self.body);
        self.line("content-encoding", names)
    }
    pub fn headers(&self) -> HeaderMap {
        let lines = self.lines.iter().map(|(name, value)| {
            let value = HeaderValue::from_str(value).expect("a value");
            (HeaderName::from_static(name), value)
        });
        lines.collect()
    }
    pub fn written(&self) -> String {
        let lines = self.lines.iter();
        lines
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect()
    }
}

fn typed(kind: &str, body: impl Into<Vec<u8>>) -> Said {
    let body = body.into();
    Said::default().line("content-type", kind).with(body)
}

fn json(body: impl Into<Vec<u8>>) -> Said {
    typed("application/json", body)
}

/// One exchange.
pub struct Case {
    pub name: String,
    pub method: &'static str,
    pub target: &'static str,
    pub request: Said,
    /// Status and message; `None`: the upstream echoes.
    pub answer: Option<(u16, Said)>,
}

fn post(name: &str, target: &'static str, request: Said) -> Case {
    Case {
        name: name.to_owned(),
        method: "POST",
        target,
        request,
        answer: None,
    }
}

fn get(name: &str, target: &'static str, status: u16, answer: Said) -> Case {
    Case {
        name: name.to_owned(),
        method: "GET",
        target,
        request: Said::default(),
        answer: Some((status, answer)),
    }
}

/// A token that was sealed earlier.
fn token(bind: &[(String, String)], value: &str) -> String {
    let class = Class {
        name: "ssn".into(),
        formerly: Vec::new(),
        key: "identity".into(),
        suite: Suite::Xaes256Gcm,
        keep_sealed: true,
        mask: None,
    };
    let kept = Kept {
        class: &class,
        tenant: None,
        bind,
        value,
    };
    Keys::default().token(&kept).expect("a token")
}

fn delta(content: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{content}\"}}}}]}}\n\n")
}

/// All of them.
pub fn cases() -> Vec<Case> {
    const PERSON: &str = r#"{ "name": "Ada", "ssn" : "078-05-1120", "n":1.50, "id": 7 }"#;
    const LINES: &str = "application/x-ndjson";
    const EVENTS: &str = "text/event-stream";
    const SEQUENCE: &str = "application/json-seq";
    const MULTIPART: &str = "multipart/form-data; boundary=B";
    let bound = [("record".to_owned(), "\"7\"".to_owned())];
    let (free, own) = (
        token(&[], "\"078-05-1120\""),
        token(&bound, "\"078-05-1120\""),
    );
    let filler = "x".repeat(5 << 10);
    let large = format!(
        r#"{{"id":"a","list":[{}"ssn"],"id":"b","ssn":"1"}}"#,
        r#"{"id":"0123456789","n":1},"#.repeat(400)
    );
    let parts = "--B\r\nContent-Disposition: form-data; name=\"ssn\"\r\n\r\n078\r\n--B\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\nx\r\n--B--\r\n";
    let stored = |token: &str| format!(r#"{{"ssn":"{token}"}}"#);
    let lines = "{\"ssn\":\"1\"}\n{\"id\":2}\n\n{\"n\":3}\n";
    let long_line = format!(
        "{{\"ssn\":\"1\"}}\n{{\"ssn\":\"{}\"}}\n{{}}\n",
        "1".repeat(2 << 10)
    );
    let broken_line = "{\"ssn\":\"1\"}\n{\"ssn\":\n{}\n";
    let events =
        "event: a\ndata: {\"ssn\":\"1\"}\n\n: ping\n\ndata: {\"id\":\ndata: 7}\n\ndata: [DONE]\n\n";
    let sequence = "\u{1e}{\"ssn\":\"1\"}\n\u{1e}{\"id\":\n2}\n";
    let split = |text: &str, each: usize| -> String {
        let all: Vec<char> = text.chars().collect();
        let pieces = all
            .chunks(each)
            .map(|piece| piece.iter().collect::<String>());
        pieces.map(|piece| delta(&piece)).collect()
    };
    let said = format!("Dear {free}, fv1~ and {free}!");
    let mut cases = vec![
        // Round trips of what is held.
        post("a document", "/records/7", json(PERSON)),
        post(
            "a suffix of JSON",
            "/records/7",
            typed("application/vnd.x+json; charset=utf-8", PERSON),
        ),
        post("nothing to seal", "/records/7", json("[1, 2]")),
        post("an empty body", "/records/7", json("")),
        post("white space alone", "/records/7", json("  ")),
        post("no route", "/other", json(PERSON)),
        post(
            "JSON in a string",
            "/records/7",
            json(r#"{"payload":"{\"ssn\": \"1\"}"}"#),
        ),
        post(
            "no JSON in a string",
            "/records/7",
            json(r#"{"payload":"{\"ssn\": "}"#),
        ),
        post("sealed already", "/records/7", json(stored(&own))),
        post(
            "a form",
            "/records/7",
            typed(
                "application/x-www-form-urlencoded",
                "a=1&ssn=078-05-1120&ssn=",
            ),
        ),
        post(
            "a broken form",
            "/records/7",
            typed("application/x-www-form-urlencoded", "a=1&ssn=%zz"),
        ),
        post("a multipart form", "/records/7", typed(MULTIPART, parts)),
        post(
            "a broken multipart form",
            "/records/7",
            typed(MULTIPART, &parts[..90]),
        ),
        post(
            "a merge patch",
            "/records/7",
            typed("application/merge-patch+json", PERSON),
        ),
        post(
            "a patch",
            "/records/7",
            typed(
                "application/json-patch+json",
                r#"[{"op":"add","path":"/ssn","value":"1"},{"op":"remove","path":"/x"}]"#,
            ),
        ),
        post(
            "a patch that moves what is sealed",
            "/records/7",
            typed(
                "application/json-patch+json",
                r#"[{"op":"move","from":"/ssn","path":"/open"}]"#,
            ),
        ),
        post(
            "a broken patch",
            "/records/7",
            typed("application/json-patch+json", r#"[{"op":"add"}]"#),
        ),
        // What cannot be read, where it would be sealed.
        post("broken JSON", "/records/7", json(r#"{"ssn": "1"#)),
        post("behind JSON", "/records/7", json("{} {}")),
        post("not UTF-8", "/records/7", json(*b"{\"ssn\":\"\xff\"}")),
        post(
            "too deep",
            "/records/7",
            json("[".repeat(1_000) + &"]".repeat(1_000)),
        ),
        post("text", "/records/7", typed("text/plain", PERSON)),
        post("no type", "/records/7", Said::default().with(PERSON.into())),
        post(
            "two types",
            "/records/7",
            json(PERSON).line("content-type", "text/plain"),
        ),
        post(
            "a charset",
            "/records/7",
            typed("application/json; charset=utf-16", PERSON),
        ),
        post(
            "an unknown coding",
            "/records/7",
            json(PERSON).line("content-encoding", "x"),
        ),
        post(
            "no coding at all",
            "/records/7",
            json(PERSON).line("content-encoding", "gzip"),
        ),
        post(
            "a composite value",
            "/records/7",
            json(r#"{"payload":"{\"ssn\": {\"a\":1}}"}"#),
        ),
        post(
            "signed over its body",
            "/records/7",
            json(PERSON)
                .line("content-digest", "sha-256=:AA==:")
                .line("signature-input", "a=(\"content-digest\")")
                .line("signature", "a=:AA==:"),
        ),
        post(
            "a method override",
            "/puts",
            json(PERSON).line("x-http-method-override", "PUT"),
        ),
        post("a path by a detour", "/records/%2e%2e/strict", json(PERSON)),
        post(
            "an ambiguous path",
            "/records/7%2f..%2f..%2fstrict",
            json(PERSON),
        ),
        // Larger than what is held.
        post("a large document", "/records/7", json(large.clone())),
        post(
            "a large document that a bind may come behind of",
            "/records/7",
            json(format!(r#"{{"pad":"{filler}","ssn":"1"}}"#)),
        ),
        post(
            "a large broken document",
            "/records/7",
            json(format!("{}}}", &large[..large.len() - 30])),
        ),
        post(
            "a large form",
            "/records/7",
            typed("application/x-www-form-urlencoded", format!("a={filler}")),
        ),
        post(
            "a large text where nothing is sealed",
            "/opens",
            typed("text/plain", filler.clone()),
        ),
        post(
            "a large document that is only watched",
            "/watched",
            json(format!(r#"{{"pad":"{filler}","ssn":"1"}}"#)),
        ),
        // Strict ones.
        post("unclaimed", "/strict", json(r#"{"ssn":"1","n":1}"#)),
        post(
            "a stray token",
            "/strict",
            json(format!(r#"{{"x":["{free}"]}}"#)),
        ),
        post("a near miss", "/near", json(r#"{"SSN":"1"}"#)),
        post("only what is named", "/strict", json(r#"{"ssn":"1"}"#)),
        post(
            "broken, where it is only watched",
            "/watched",
            json(r#"{"ssn":"1"#),
        ),
        post(
            "text, where it is only watched",
            "/watched",
            typed("text/plain", "x"),
        ),
        post("a document that is only watched", "/watched", json(PERSON)),
        // Heads.
        post(
            "heads",
            "/heads?a=1&ssn=078",
            Said::default()
                .line("x-ssn", "078-05-1120")
                .line("x-ssn", "2"),
        ),
        post(
            "heads beside a text",
            "/heads?ssn=%zz",
            typed("text/plain", "x").line("x-ssn", "1"),
        ),
        get("a query", "/heads?b=%20&ssn=1&ssn=2", 200, json("{}")),
        // Streams of records outward.
        post("lines", "/records/7", typed(LINES, lines)),
        post("events", "/records/7", typed(EVENTS, events)),
        post(
            "JSON that is declared as events",
            "/records/7",
            typed(EVENTS, PERSON),
        ),
        post("a sequence", "/records/7", typed(SEQUENCE, sequence)),
        post(
            "lines without end",
            "/records/7",
            typed(LINES, lines.trim_end()),
        ),
        post("a broken line", "/records/7", typed(LINES, broken_line)),
        post(
            "a line that is too long",
            "/records/7",
            typed(LINES, long_line.clone()),
        ),
        post(
            "a line that is too long, where nothing is sealed",
            "/opens",
            typed(LINES, long_line.clone()),
        ),
        post(
            "broken lines that are only watched",
            "/watched",
            typed(LINES, broken_line),
        ),
        // Answers.
        get("an answer", "/records/7", 200, json(stored(&own))),
        get(
            "a token of another record",
            "/records/8",
            200,
            json(stored(&own)),
        ),
        get("a broken answer", "/records/7", 200, json(r#"{"ssn":"#)),
        get(
            "an answer of text",
            "/records/7",
            200,
            typed("text/plain", stored(&own)),
        ),
        get(
            "a part of an answer",
            "/records/7",
            206,
            json(stored(&own)).line("content-range", "bytes 0-9/20"),
        ),
        get(
            "an answer with a tag",
            "/records/7",
            200,
            json(stored(&own)).line("etag", "\"a\""),
        ),
        get(
            "a tag of what stays as it is",
            "/puts",
            200,
            json(stored(&own)).line("etag", "\"a\""),
        ),
        get("not modified", "/records/7", 304, json("")),
        get(
            "an answer that says no",
            "/records/7",
            404,
            json(stored(&own)),
        ),
        get(
            "masked for nobody in particular",
            "/opens",
            200,
            json(stored(&free)),
        ),
        get(
            "a forged token",
            "/records/7",
            200,
            json(r#"{"ssn":"fv1~AAAA~"}"#),
        ),
        get(
            "a token that does not open, refused",
            "/strict",
            200,
            json(stored(&own)),
        ),
        get("sealed on the way back", "/inbound", 200, json(PERSON)),
        get("broken on the way back", "/inbound", 200, json("{")),
        get(
            "text on the way back",
            "/inbound",
            200,
            typed("text/plain", "x"),
        ),
        get(
            "too large on the way back",
            "/inbound",
            200,
            json(format!("[\"{filler}\"]")),
        ),
        get("a part on the way back", "/inbound", 206, json(PERSON)),
        get(
            "coded unknown on the way back",
            "/inbound",
            200,
            json(PERSON).line("content-encoding", "x"),
        ),
        get(
            "lines on the way back",
            "/inbound",
            200,
            typed(LINES, lines),
        ),
        get(
            "a broken line on the way back",
            "/inbound",
            200,
            typed(LINES, broken_line),
        ),
        get(
            "a long line on the way back",
            "/inbound",
            200,
            typed(LINES, long_line),
        ),
        get(
            "a broken line of an answer",
            "/records/7",
            200,
            typed(LINES, format!("{{\n{}\n", stored(&own))),
        ),
        get(
            "a large answer",
            "/records/7",
            200,
            json(format!(r#"{{"ssn":"{own}","pad":["{filler}"]}}"#)),
        ),
        get(
            "a large broken answer",
            "/records/7",
            200,
            json(format!(r#"{{"ssn":"{own}","list":[{}"#, "1,".repeat(4_000))),
        ),
        get(
            "a header of an answer",
            "/heads",
            200,
            typed("text/plain", "x")
                .line("x-back", &free)
                .line("x-back", "2"),
        ),
        // Gathered.
        get(
            "gathered to the end",
            "/chat",
            200,
            typed(EVENTS, split(&said, 3)),
        ),
        get(
            "gathered to the mark",
            "/chat",
            200,
            typed(EVENTS, split(&said, 7) + "data: [DONE]\n\n"),
        ),
        get(
            "half a token",
            "/chat",
            200,
            typed(EVENTS, split(&free[..40], 9) + "data: {\"choices\":[]}\n\n"),
        ),
        get(
            "gathered in lines",
            "/chat",
            200,
            typed(
                LINES,
                split(&said, 11).replace("data: ", "").replace("\n\n", "\n"),
            ),
        ),
        get(
            "gathered and broken",
            "/chat",
            200,
            typed(EVENTS, split(&said, 20) + "data: {\n\n"),
        ),
    ];
    for names in ["gzip", "deflate", "br", "zstd", "zstd, gzip"] {
        cases.push(post(
            &format!("in {names}"),
            "/records/7",
            json(PERSON).coded(names),
        ));
        let answer = typed(EVENTS, split(&said, 5)).coded(names);
        cases.push(get(&format!("gathered in {names}"), "/chat", 200, answer));
    }
    let mut bomb = json(format!("[{}1]", "1,".repeat(1_000_000))).coded("gzip");
    cases.push(post("a bomb", "/records/7", bomb.clone()));
    bomb.body.truncate(40);
    cases.push(post("a broken coding", "/records/7", bomb));
    let large = json(large).coded("gzip");
    cases.push(post("large in its coding alone", "/records/7", large));
    let mut asked = get("full for the clerk", "/opens", 200, json(stored(&free)));
    asked.request = asked.request.line("x-caller", "clerk");
    cases.push(asked);
    for (status, target, to) in [
        (307, "/records/7", "https://elsewhere.example/records/7"),
        (308, "/watched", "//elsewhere.example/"),
        (302, "/records/7", "https://elsewhere.example/"),
        (307, "/records/7", "/records/8"),
        (307, "/opens", "https://elsewhere.example/"),
        (303, "/heads", "https://elsewhere.example/"),
    ] {
        let mut case = post(&format!("{status} to {to}"), target, json(PERSON));
        case.answer = Some((status, Said::default().line("location", to)));
        cases.push(case);
    }
    for target in ["/records/7", "/watched", "/puts"] {
        let mut asked = get(&format!("an upgrade at {target}"), target, 200, json("{}"));
        let upgrade = asked.request.line("connection", "upgrade");
        asked.request = upgrade.line("upgrade", "websocket");
        cases.push(asked);
    }
    let mut asked = get("only a head", "/records/7", 200, json(stored(&own)));
    asked.method = "HEAD";
    cases.push(asked);
    cases
}
