//! Bodies that are rewritten while they flow, record by record.

use crate::coded::{coded, plain};
use crate::harness::{Agent, Message, Raw, Setup, eventually};
use crate::rewriting::POLICY;
use fieldveil::audit::Outcome;
use fieldveil::transform::Tally;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

const LINES: &str = "application/x-ndjson";
const EVENTS: &str = "text/event-stream";
const SEQUENCE: &str = "application/json-seq";

/// Sends back each chunk of a request's body as it comes, in the type and coding of the request.
pub async fn live_echo() -> Raw {
    Raw::new(|mut line| async move {
        while let Some(head) = line.head().await {
            let lines = head.lines().filter(|line| {
                let line = line.to_lowercase();
                line.starts_with("content-type:") || line.starts_with("content-encoding:")
            });
            let fields: String = lines.map(|line| format!("{line}\r\n")).collect();
            line.say(
                format!("HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\n\r\n").as_bytes(),
            )
            .await;
            loop {
                let Some(chunk) = line.chunk().await else {
                    return;
                };
                line.say_chunk(&chunk).await;
                if chunk.is_empty() {
                    break;
                }
            }
        }
    })
    .await
}

async fn before(upstream: &Raw) -> Agent {
    Setup::before(upstream.address).policy(POLICY).start().await
}

fn head(path: &str, kind: &str, extra: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n{extra}Transfer-Encoding: chunked\r\n\r\n"
    )
}

fn answer_of(kind: &str, extra: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{extra}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The bytes of the chunks that the upstream got.
fn upstream_saw(upstream: &Raw) -> String {
    let got = upstream.text();
    let (_, mut rest) = got.split_once("\r\n\r\n").expect("a head");
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        body += &after[..size];
        rest = &after[size + 2..];
    }
    body
}

fn sum(counts: &[(std::sync::Arc<fieldveil::context::Class>, u32)]) -> u32 {
    counts.iter().map(|(_, count)| count).sum()
}

/// Sealed and opened.
fn counts(tally: &Tally) -> (u32, u32) {
    (sum(&tally.sealed), sum(&tally.opened))
}

#[tokio::test]
async fn each_record_goes_on_as_soon_as_it_is_whole() {
    for (kind, records) in [
        (
            LINES,
            [
                "{\"ssn\":1}\n",
                "\r\n",
                "{ \"ssn\" : \"2\", \"n\":1.50}\r\n",
            ],
        ),
        (
            SEQUENCE,
            ["\x1e{\"ssn\":1}\n", "\x1e[]\n", "\x1e{\n\"ssn\" : \"2\"}\n"],
        ),
        (
            EVENTS,
            [
                "data: {\"ssn\":1}\n\n",
                ": ping\r\r",
                "id: 1\r\ndata:{\r\nevent: x\r\ndata: \"ssn\":2}\r\n\r\n",
            ],
        ),
    ] {
        let upstream = live_echo().await;
        let agent = before(&upstream).await;
        let mut client = agent.line().await;
        client.say(head("/people", kind, "").as_bytes()).await;
        let answer = client.head().await.expect("an answer");
        assert!(
            answer.contains("request=streamed, response=streamed"),
            "{answer}"
        );
        for record in records {
            // Not before it is whole.
            let (most, last) = record.split_at(record.len() - 1);
            client.say_chunk(most.as_bytes()).await;
            client.say_chunk(last.as_bytes()).await;
            let mut back = Vec::new();
            while back.len() < record.len() {
                back.extend(client.chunk().await.expect("it goes on"));
            }
            assert_eq!(String::from_utf8_lossy(&back), record);
        }
        assert!(agent.records.all().is_empty(), "the access is not over");
        client.say_chunk(b"").await;
        assert_eq!(client.chunk().await.as_deref(), Some(&b""[..]));
        eventually("the access is over", || agent.records.all().len() == 1).await;
        let record = &agent.records.all()[0];
        assert_eq!(record.outcome, Outcome::Answered);
        assert_eq!(counts(&record.request), (2, 0), "{kind}");
        assert_eq!(counts(&record.response), (0, 2), "{kind}");
        let saw = upstream_saw(&upstream);
        assert_eq!(saw.matches("\"fv1~").count(), 2, "{saw}");
        assert!(!saw.contains(":1}") && !saw.contains("\"2\""), "{saw}");
        assert!(agent.records.cuts().is_empty());
    }
}

#[tokio::test]
async fn a_bad_line_after_a_thousand_good_ones_ends_the_request_visibly() {
    let whole = Arc::new(Mutex::new(Vec::new()));
    let told = whole.clone();
    let upstream = Raw::new(move |mut line| {
        let told = told.clone();
        async move {
            let head = line.head().await.expect("a request");
            let came = line.body(head, false).await;
            told.lock().expect("told").push(came.is_some());
        }
    })
    .await;
    for (bad, code) in [
        ("{\"ssn\":1\n", "not-json"),
        ("[1]\n{\"ssn\":\"fv1~AAAA~\"}\n", "token-refused"),
        ("{\"ssn\":1} {}\n", "not-json"),
    ] {
        upstream.got.lock().expect("got").clear();
        whole.lock().expect("whole").clear();
        let agent = before(&upstream).await;
        let mut client = agent.line().await;
        client.say(head("/people", LINES, "").as_bytes()).await;
        client
            .say_chunk("{\"ssn\":\"078-05-1120\"}\n".repeat(1_000).as_bytes())
            .await;
        client.say_chunk(bad.as_bytes()).await;
        client.say_chunk(b"{\"ssn\":\"987-65-4321\"}\n").await;
        let answer = client.answer().await;
        assert_eq!(answer.code(), code);
        assert!(client.is_over().await);
        eventually("it ends upstream, and not cleanly", || {
            *whole.lock().expect("whole") == [false]
        })
        .await;
        let saw = upstream.text();
        assert!(saw.contains("\"fv1~"), "nothing of it went on");
        assert!(!saw.contains("078-05") && !saw.contains("987-65"));
        let records = agent.records.all();
        assert!(
            matches!(records[..], [ref one] if matches!(one.outcome, Outcome::Refused { code: refused, .. } if refused == code))
        );
        assert_eq!(counts(&records[0].request), (1_000, 0));
    }
}

/// What readers of events pass over may be read by others: JSON that is only declared as events is all of that kind.
#[tokio::test]
async fn lines_that_are_of_no_event_end_a_stream_that_is_sealed() {
    let said = "{\"ssn\":\"078-05-1120\"}";
    let mut strange: Vec<String> = [
        "data : ",
        "Data: ",
        " data: ",
        "data\t: ",
        "\u{c}data: ",
        "\u{feff}\u{feff}data: ",
        "",
        "data: [DONE]\n\n",
        "data:\n",
        "event: x\r",
        "data: {}\ndatum: ",
    ]
    .iter()
    .map(|before| format!("{before}{said}\n\n"))
    .collect();
    strange.push(said.to_owned());
    strange.push(said.replace(':', ":\n"));
    for stream in &strange {
        let upstream = live_echo().await;
        let agent = before(&upstream).await;
        let mut client = agent.line().await;
        client.say(head("/people", EVENTS, "").as_bytes()).await;
        client.say_chunk(stream.as_bytes()).await;
        client.say_chunk(b"").await;
        let answer = client.head().await.unwrap_or_default();
        eventually("the access is over", || agent.records.all().len() == 1).await;
        assert_eq!(agent.records.words(), ["not-json"], "{stream:?} {answer}");
        assert!(!upstream.text().contains("078-05"), "{stream:?}");

        // An answer that would be sealed, likewise.
        let upstream = Raw::answering(answer_of(EVENTS, "", stream.as_bytes())).await;
        let agent = before(&upstream).await;
        let mut client = agent.line().await;
        client
            .say(b"GET /inbound HTTP/1.1\r\nHost: a\r\n\r\n")
            .await;
        client.head().await.expect("a head");
        let mut came = Vec::new();
        while let Some(chunk) = client.chunk().await {
            assert!(!chunk.is_empty(), "no clean end");
            came.extend(chunk);
        }
        assert!(
            !String::from_utf8_lossy(&came).contains("078-05"),
            "{stream:?}"
        );
        eventually("the access is over", || agent.records.all().len() == 1).await;
        assert_eq!(agent.records.cuts(), ["upstream-unreadable"], "{stream:?}");

        // What only opens lets them pass, with what it can open beside them.
        let upstream = Raw::answering(answer_of(EVENTS, "", stream.as_bytes())).await;
        let agent = before(&upstream).await;
        let answer = agent.ask("GET /people HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(answer.text(), stream);

        // So does what observes, but that it says so.
        let upstream = live_echo().await;
        let agent = before(&upstream).await;
        let mut client = agent.line().await;
        client.say(head("/watched", EVENTS, "").as_bytes()).await;
        client.say_chunk(stream.as_bytes()).await;
        client.say_chunk(b"").await;
        assert_eq!(client.answer().await.text(), *stream);
        eventually("the access is over", || agent.records.all().len() == 1).await;
        assert_eq!(agent.records.outcomes(), [Outcome::Answered]);
        assert_eq!(agent.records.all()[0].observed, Some("not-json"));
    }
}

#[tokio::test]
async fn what_only_opens_passes_what_it_cannot_read_and_counts_it() {
    let upstream = live_echo().await;
    let agent = before(&upstream).await;
    let mut client = agent.line().await;
    client.say(head("/people", LINES, "").as_bytes()).await;
    client.say_chunk(b"{\"ssn\":1}\n").await;
    client.say_chunk(b"").await;
    assert_eq!(client.answer().await.text(), "{\"ssn\":1}\n");
    let sealed = upstream_saw(&upstream);
    let long = format!("[{}1]\n", "1,".repeat(1_000));
    let stream = format!("{sealed}{{bad\n{long}{{\"ssn\":2}}\n{sealed}");
    let upstream = Raw::answering(answer_of(
        LINES,
        "ETag: \"a\"\r\nContent-MD5: x\r\n",
        stream.as_bytes(),
    ))
    .await;
    let mut setup = Setup::before(upstream.address).policy(POLICY);
    setup.limits.record = 1_000;
    let agent = setup.start().await;
    let answer = agent.ask("GET /people HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(
        answer.text(),
        format!("{{\"ssn\":1}}\n{{bad\n{long}{{\"ssn\":2}}\n{{\"ssn\":1}}\n")
    );
    assert_eq!(answer.header("etag"), Some("W/\"a\""));
    assert_eq!(answer.header("content-md5"), None);
    eventually("the access is over", || agent.records.all().len() == 1).await;
    let record = &agent.records.all()[0];
    assert_eq!(record.outcome, Outcome::Answered);
    assert_eq!(record.unread_records, [("not-json", 1), ("too-large", 1)]);
    assert_eq!(
        (counts(&record.response), record.response.plaintext),
        ((0, 2), 1)
    );
    // Where answers are sealed, each of them is cut off before it.
    for (stream, good) in [
        ("{\"n\":1}\n{bad\n", 1),
        (&*format!("{{}}\n{{}}\n{long}"), 2),
    ] {
        let upstream = Raw::answering(answer_of(LINES, "", stream.as_bytes())).await;
        let mut setup = Setup::before(upstream.address).policy(POLICY);
        setup.limits.record = 1_000;
        let agent = setup.start().await;
        let mut client = agent.line().await;
        client
            .say(b"GET /inbound HTTP/1.1\r\nHost: a\r\n\r\n")
            .await;
        let head = client.head().await.expect("a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let mut came = Vec::new();
        while let Some(chunk) = client.chunk().await {
            assert!(!chunk.is_empty(), "no clean end");
            came.extend(chunk);
        }
        assert!(came.iter().filter(|b| **b == b'\n').count() <= good);
        eventually("the access is over", || agent.records.all().len() == 1).await;
        assert_eq!(agent.records.words(), ["upstream-unreadable"]);
        assert_eq!(agent.records.cuts(), ["upstream-unreadable"]);
    }
}

#[tokio::test]
async fn streams_in_codings_are_rewritten_inside_of_them_and_flushed_at_each_pause() {
    for names in ["gzip", "deflate", "br", "zstd", "zstd, gzip"] {
        let upstream = live_echo().await;
        let agent = before(&upstream).await;
        let mut client = agent.line().await;
        let fields = format!("Content-Encoding: {names}\r\n");
        client.say(head("/people", LINES, &fields).as_bytes()).await;
        let body = "{\"ssn\":\"078-05-1120\"}\n".repeat(3);
        client.say_chunk(&coded(names, body.as_bytes())).await;
        // The end is not there yet.
        let answer = client.head().await.expect("an answer");
        assert!(
            answer
                .to_lowercase()
                .contains(&format!("content-encoding: {names}")),
            "{answer}"
        );
        let mut back = client.chunk().await.expect("it goes on");
        client.say_chunk(b"").await;
        while let Some(chunk) = client.chunk().await {
            if chunk.is_empty() {
                break;
            }
            back.extend(chunk);
        }
        assert_eq!(plain(names, &back), body, "{names}");
    }
}

#[tokio::test]
async fn an_observing_route_lets_a_stream_pass_as_it_came_and_counts() {
    let upstream = live_echo().await;
    let agent = before(&upstream).await;
    let body = [
        coded("gzip", b"{\"ssn\":1}\n{bad\n"),
        coded("gzip", b"{\"ssn\":1}"),
    ]
    .concat();
    let mut client = agent.line().await;
    client
        .say(head("/watched", LINES, "Content-Encoding: gzip\r\n").as_bytes())
        .await;
    client.say_chunk(&body).await;
    client.say_chunk(b"").await;
    assert_eq!(client.answer().await.body, body);
    eventually("the access is over", || agent.records.all().len() == 1).await;
    let record = &agent.records.all()[0];
    assert_eq!(counts(&record.request), (2, 0));
    assert_eq!(record.outcome, Outcome::Answered);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_on_record_whether_it_is_rewritten_or_not() {
    for (path, kind) in [
        ("/people", EVENTS),
        ("/people", "text/html"),
        ("/other", EVENTS),
    ] {
        let upstream = Raw::new(move |mut line| async move {
            line.request().await;
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
            );
            line.say(head.as_bytes()).await;
            line.say_chunk(b"data: 1\n\n").await;
        })
        .await;
        let agent = before(&upstream).await;
        let mut client = agent.line().await;
        client
            .say(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
            .await;
        client.head().await.expect("a head");
        while let Some(chunk) = client.chunk().await {
            assert!(!chunk.is_empty(), "no clean end");
        }
        eventually("on record", || agent.records.cuts() == ["upstream-broken"]).await;
        let outcomes = agent.records.outcomes();
        match (path, kind) {
            ("/people", EVENTS) => assert!(matches!(
                outcomes[..],
                [Outcome::Refused {
                    code: "upstream-broken",
                    ..
                }]
            )),
            _ => assert_eq!(outcomes, [Outcome::Answered]),
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_stream_upstream() {
    let upstream = Raw::new(|mut line| async move {
        line.request().await;
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {EVENTS}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        line.say(head.as_bytes()).await;
        line.say_chunk(b"data: 1\n\n").await;
        while line.more().await {}
        line.say(b"gone").await;
    })
    .await;
    for path in ["/people", "/other"] {
        let agent = before(&upstream).await;
        let mut client = agent.line().await;
        client
            .say(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
            .await;
        client.head().await.expect("a head");
        client.chunk().await.expect("an event");
        drop(client);
        eventually("on record", || agent.records.cuts() == ["aborted"]).await;
        let outcome = match path {
            "/people" => Outcome::Aborted,
            _ => Outcome::Answered,
        };
        assert_eq!(agent.records.outcomes(), [outcome]);
    }
}

#[tokio::test]
async fn without_its_key_a_stream_ends_and_what_only_opens_stays_sealed() {
    let upstream = live_echo().await;
    let agent = before(&upstream).await;
    agent.keys.gone.store(true, SeqCst);
    let mut client = agent.line().await;
    client.say(head("/people", EVENTS, "").as_bytes()).await;
    client.say_chunk(b"data: {\"ssn\":1}\n\n").await;
    let mut answer: Option<Message> = None;
    // The upstream may have answered before the event came.
    if let Some(head) = client.head().await {
        answer = client.body(head, false).await;
    }
    if let Some(answer) = answer {
        assert_eq!(answer.code(), "keys-unreachable");
    }
    eventually("on record", || {
        agent.records.words() == ["keys-unreachable"]
    })
    .await;
    assert!(!upstream.text().contains("\"ssn\":1"));
}

#[tokio::test]
async fn bytes_without_the_coding_that_the_head_says_pass_where_nothing_is_sealed() {
    let event = b"data: {\"ssn\":1}\n\n";
    let upstream = Raw::answering(answer_of(EVENTS, "Content-Encoding: gzip\r\n", event)).await;
    let agent = before(&upstream).await;
    let answer = agent.ask("GET /people HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(answer.body, event);
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    eventually("on record", || agent.records.all().len() == 1).await;
    assert_eq!(
        agent.records.all()[0].unread_records,
        [("coding-broken", 1)]
    );
}

/// Numbers for a test that can be had again.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % most
    }
}

#[tokio::test]
async fn any_split_into_chunks_gives_the_same_bytes() {
    let sealed = {
        let upstream = live_echo().await;
        let agent = before(&upstream).await;
        let mut client = agent.line().await;
        client.say(head("/people", LINES, "").as_bytes()).await;
        client
            .say_chunk("{\"ssn\":\"\u{e9}\\u20ac\u{1f980}\\n\"}\n".as_bytes())
            .await;
        client.say_chunk(b"").await;
        client.answer().await;
        upstream_saw(&upstream).trim_end().to_owned()
    };
    let open = "{\"ssn\":\"\u{e9}\\u20ac\u{1f980}\\n\"}";
    let lines = |json: &str| {
        format!("{json}\n\r\n {{\"\\u0073sn\" : 1, \"x\":\"\u{1f980}\"}}\r\n{{bad\n{json}")
    };
    let sequence = |json: &str| format!("\x1e{json}\n\x1e\x1e[1,\n2]\n\x1e{json}\n");
    let events = |json: &str| {
        let (one, other) = json.split_at(1);
        format!(
            "\u{feff}: hi\r\rid: 1\r\ndata:{json}\r\n\r\ndata: {one}\rdata: {other}\revent: x\r\rdata: \u{e9}\n\ndata: [DONE]\n\ndata: {json}"
        )
    };
    let mut numbers = Numbers(11);
    for names in ["identity", "gzip", "br", "zstd, deflate"] {
        for (kind, came, expected) in [
            (LINES, lines(&sealed), lines(open)),
            (SEQUENCE, sequence(&sealed), sequence(open)),
            (EVENTS, events(&sealed), events(open)),
        ] {
            let body = coded(names, came.as_bytes());
            for turn in 0..12 {
                let most = [1, 3, 40, 1_000][turn % 4];
                let mut chunks = Vec::new();
                let mut rest = &body[..];
                while !rest.is_empty() {
                    let (chunk, after) = rest.split_at((1 + numbers.below(most)).min(rest.len()));
                    chunks.push(chunk.to_vec());
                    rest = after;
                }
                let chunks = std::sync::Arc::new(chunks);
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Encoding: {names}\r\nTransfer-Encoding: chunked\r\n\r\n"
                );
                let upstream = Raw::new(move |mut line| {
                    let (head, chunks) = (head.clone(), chunks.clone());
                    async move {
                        line.request().await;
                        line.say(head.as_bytes()).await;
                        for chunk in chunks.iter() {
                            line.say_chunk(chunk).await;
                            tokio::task::yield_now().await;
                        }
                        line.say_chunk(b"").await;
                    }
                })
                .await;
                let agent = before(&upstream).await;
                let answer = agent.ask("GET /people HTTP/1.1\r\nHost: a\r\n\r\n").await;
                assert_eq!(
                    plain(names, &answer.body),
                    expected,
                    "{names} {kind} {turn}"
                );
            }
        }
    }
}
