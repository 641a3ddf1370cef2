//! However a body is cut on its way, the same bytes come of it: every kind of body, in every coding, over every framing, both ways.

use crate::coded::{coded, plain};
use crate::harness::{Agent, Line, Raw, SOON, Setup};
use crate::multiplexed::{Pieces, client, parts};
use crate::records::around;
use crate::rewriting::POLICY;
use fieldveil::upstream::Speak;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::sync::{Arc, Mutex};
use tokio::time::timeout;

/// What stands in all that is sealed: escapes, and code points of every length.
const SECRET: &str = "\u{e9}\\u20ac\u{1f980}\\n\\ud83e\\udd80\\\"";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// A document that is held.
    Held,
    /// One that is too large for that.
    Large,
    Lines,
    Sequence,
    Events,
}

impl Kind {
    fn declared(self) -> &'static str {
        match self {
            Kind::Held | Kind::Large => "application/json",
            Kind::Lines => "application/x-ndjson",
            Kind::Sequence => "application/json-seq",
            Kind::Events => "text/event-stream",
        }
    }

    /// With so many values to seal, in odd spellings.
    fn body(self, count: usize) -> String {
        let one = |n: usize| {
            let filling = "\u{e9}\\u00e9\\\\".repeat(n % 40);
            format!("{{ \"\\u0073sn\" :\"{SECRET}\", \"t\":\"{filling}\",\"n\":[1.50,{n}e1] }}")
        };
        let all = (0..count).map(one);
        let around = around(self.declared());
        let records =
            |odd: &str| -> String { all.clone().map(|one| around.record(&(one + odd))).collect() };
        match self {
            Kind::Held | Kind::Large => {
                format!(" {}{}{}\r\n", around.open, records("\r\n"), around.close)
            }
            Kind::Lines => records("\r\n"),
            Kind::Sequence => records(""),
            // With fields of others between, and every end of a line.
            Kind::Events => all
                .enumerate()
                .map(|(n, one)| {
                    let end = ["\n", "\r", "\r\n"][n % 3];
                    let (head, tail) = one.split_at(1);
                    format!(": {n}{end}data: {head}{end}data:{tail}{end}id: {n}{end}{end}")
                })
                .collect(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Framing {
    Length,
    Chunked,
    Http2,
}

/// How the upstream frames and cuts its next answer.
type Told = Arc<Mutex<(Framing, Vec<usize>)>>;
/// The last body that came to it.
type Seen = Arc<Mutex<Vec<u8>>>;

/// Answers each request with its own body, in its kind and coding, over HTTP/1.1.
async fn mirror(told: Told, seen: Seen) -> Raw {
    Raw::new(move |mut line: Line| {
        let (told, seen) = (told.clone(), seen.clone());
        async move {
            while let Some(message) = line.request().await {
                message.body.clone_into(&mut seen.lock().expect("sound"));
                let (framing, sizes) = told.lock().expect("sound").clone();
                let field = |name| message.header(name).unwrap_or("identity").to_owned();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Encoding: {}\r\n",
                    field("content-type"),
                    field("content-encoding")
                );
                say(&mut line, head, framing, &message.body, &sizes).await;
            }
        }
    })
    .await
}

/// The same over HTTP/2.
async fn mirror_in_frames(told: Told, seen: Seen) -> Raw {
    Raw::new(move |line: Line| {
        let (told, seen) = (told.clone(), seen.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (told, seen) = (told.clone(), seen.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                *seen.lock().expect("sound") = body.to_vec();
                let (_, sizes) = told.lock().expect("sound").clone();
                let mut answer = Response::new(in_frames(&body, &sizes));
                for name in ["content-type", "content-encoding"] {
                    if let Some(value) = head.headers.get(name) {
                        answer.headers_mut().insert(name, value.clone());
                    }
                }
                Ok::<_, hyper::Error>(answer)
            }
        });
        async move {
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(line.stream), service)
                .await;
        }
    })
    .await
}

/// Of these sizes, but no more frames than HTTP/2 bears that nobody took yet (floods.rs).
fn in_frames(body: &[u8], sizes: &[usize]) -> Pieces {
    let least = body.len() / 1_500 + 1;
    let sizes: Vec<usize> = sizes.iter().map(|size| least.max(*size)).collect();
    Pieces::cut(body, &sizes)
}

/// The rest of a head, and the body, cut.
async fn say(line: &mut Line, head: String, framing: Framing, body: &[u8], sizes: &[usize]) {
    let framed = match framing {
        Framing::Length => format!("Content-Length: {}", body.len()),
        _ => "Transfer-Encoding: chunked".to_owned(),
    };
    line.say(format!("{head}{framed}\r\n\r\n").as_bytes()).await;
    for part in parts(body, sizes) {
        match framing {
            Framing::Length => line.say(part).await,
            _ => line.say_chunk(part).await,
        }
        tokio::task::yield_now().await;
    }
    if framing != Framing::Length {
        line.say_chunk(b"").await;
    }
}

/// An agent before an upstream that speaks one way.
struct Way {
    agent: Agent,
}

impl Way {
    async fn before(upstream: &Raw, speak: Speak, held: usize) -> Way {
        let mut setup = Setup::before(upstream.address).policy(POLICY);
        setup.upstream.speak = speak;
        setup.limits.held_body = held;
        Way {
            agent: setup.start().await,
        }
    }

    /// What comes back.
    async fn send(
        &self,
        kind: Kind,
        names: &str,
        framing: Framing,
        body: &[u8],
        sizes: &[usize],
    ) -> Vec<u8> {
        let declared = kind.declared();
        if framing == Framing::Http2 {
            let request = Request::post("http://app/people")
                .header("content-type", declared)
                .header("content-encoding", names)
                .body(in_frames(body, sizes));
            // A connection without a request is closed in a while.
            let mut http2 = client(&self.agent).await;
            let answer = timeout(SOON, http2.send_request(request.expect("a request"))).await;
            let answer = answer.expect("soon").expect("an answer");
            assert_eq!(answer.status(), 200);
            let body = timeout(SOON, answer.into_body().collect())
                .await
                .expect("soon");
            return body.expect("a whole body").to_bytes().to_vec();
        }
        let mut line = self.agent.line().await;
        let head = format!(
            "POST /people HTTP/1.1\r\nHost: app\r\nContent-Type: {declared}\r\nContent-Encoding: {names}\r\n"
        );
        // An answer may begin while the body is sent.
        say(&mut line, head, framing, body, sizes).await;
        let answer = line.answer().await;
        assert_eq!(answer.status(), 200);
        answer.body
    }
}

#[test]
fn any_split_of_any_body_gives_the_same_bytes() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let told = Told::new(Mutex::new((Framing::Length, Vec::new())));
    let seen = Seen::default();
    let ways = runtime.block_on(async {
        let one = mirror(told.clone(), seen.clone()).await;
        let two = mirror_in_frames(told.clone(), seen.clone()).await;
        let mut ways = Vec::new();
        for held in [1_000, 1 << 20] {
            ways.push([
                Way::before(&one, Speak::Http1, held).await,
                Way::before(&two, Speak::Http2, held).await,
            ]);
        }
        (ways, one, two)
    });
    let ways = &ways.0;
    let kinds = [
        Kind::Held,
        Kind::Large,
        Kind::Lines,
        Kind::Sequence,
        Kind::Events,
    ];
    let codings = [
        "identity",
        "gzip",
        "deflate",
        "br",
        "zstd",
        "zstd, gzip",
        "gzip, br",
    ];
    let framings = [Framing::Length, Framing::Chunked, Framing::Http2];
    let sizes = || prop::collection::vec(prop_oneof![1usize..4, 1usize..40, 1usize..20_000], 0..5);
    let strategy = (
        prop::sample::select(framings.to_vec()),
        sizes(),
        prop::sample::select(framings.to_vec()),
        sizes(),
        1usize..60,
    );
    // Kinds and codings all in turn; what is cut where, by luck.
    for kind in kinds {
        for names in codings {
            let mut runner = TestRunner::new(Config {
                failure_persistence: None,
                ..Config::with_cases(4)
            });
            let run = runner.run(&strategy, |(up, cuts_up, down, cuts_down, count)| {
                let count = if kind == Kind::Large {
                    count + 20
                } else {
                    count
                };
                let body = kind.body(count);
                let sent = match names {
                    "identity" => body.clone().into_bytes(),
                    names => coded(names, body.as_bytes()),
                };
                let uncoded = |bytes: Vec<u8>| match names {
                    "identity" => String::from_utf8(bytes).expect("text"),
                    names => plain(names, &bytes),
                };
                *told.lock().expect("sound") = (down, cuts_down);
                let way =
                    &ways[usize::from(kind != Kind::Large)][usize::from(down == Framing::Http2)];
                let back = runtime.block_on(way.send(kind, names, up, &sent, &cuts_up));
                let came = uncoded(seen.lock().expect("sound").clone());
                prop_assert!(uncoded(back) == body, "other bytes came back");
                prop_assert!(!came.contains(SECRET), "a value went up in clear");
                prop_assert_eq!(came.matches("\"fv1~").count(), count);
                // Outside of what was sealed, all is as it was.
                prop_assert_eq!(
                    came.split("\"fv1~")
                        .map(|part| part.split_once("~\"").map_or(part, |(_, rest)| rest))
                        .collect::<String>(),
                    body.replace(&format!("\"{SECRET}\""), "")
                );
                Ok(())
            });
            run.unwrap_or_else(|error| panic!("{kind:?} in {names}: {error}"));
        }
    }
}
