//! HTTP/2 as it is meant: from the application, to the upstream, and mixed with HTTP/1.1.

use crate::frames::{
    DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PREFACE, RST_STREAM, SETTINGS, block, frame,
    request,
};
use crate::harness::{Agent, Raw, SOON, Setup, eventually, post};
use bytes::Bytes;
use fieldveil::audit::Outcome;
use fieldveil::upstream::Speak;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::time::timeout;

/// A body of pieces, without a length, and trailers.
#[derive(Default)]
pub struct Pieces(VecDeque<Frame<Bytes>>);

impl Pieces {
    pub fn of(data: &[&'static str], trailers: &[(&'static str, &'static str)]) -> Pieces {
        let mut frames: VecDeque<Frame<Bytes>> = data
            .iter()
            .map(|piece| Frame::data(Bytes::from_static(piece.as_bytes())))
            .collect();
        if !trailers.is_empty() {
            frames.push_back(Frame::trailers(fields(trailers)));
        }
        Pieces(frames)
    }

    /// Of these sizes, in turn; with none, in one.
    pub fn cut(body: &[u8], sizes: &[usize]) -> Pieces {
        let frames = parts(body, sizes).map(|part| Frame::data(Bytes::copy_from_slice(part)));
        Pieces(frames.collect())
    }
}

/// A body in parts of these sizes, in turn; with none, in one.
pub fn parts<'b>(body: &'b [u8], sizes: &[usize]) -> impl Iterator<Item = &'b [u8]> {
    let mut rest = body;
    let mut sizes = sizes.iter().copied().cycle();
    std::iter::from_fn(move || {
        let size = sizes
            .next()
            .unwrap_or(usize::MAX)
            .clamp(1, rest.len().max(1));
        let (part, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        (!part.is_empty()).then_some(part)
    })
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in lines {
        fields.append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    fields
}

/// A client of the agent, over HTTP/2.
pub async fn client(agent: &Agent) -> SendRequest<Pieces> {
    let stream = TcpStream::connect(agent.address).await.expect("connects");
    let (client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a handshake");
    tokio::spawn(connection);
    client
}

fn to(method: &str, path: &str, body: Pieces) -> Request<Pieces> {
    Request::builder()
        .method(method)
        .uri(format!("http://app{path}"))
        .body(body)
        .expect("a request")
}

/// A whole answer.
pub struct Whole {
    pub head: http::response::Parts,
    pub body: String,
    trailers: Option<HeaderMap>,
}

pub async fn ask(client: &mut SendRequest<Pieces>, request: Request<Pieces>) -> Whole {
    let answer = timeout(SOON, client.send_request(request)).await;
    let (head, body) = answer.expect("soon").expect("an answer").into_parts();
    let body = timeout(SOON, body.collect()).await.expect("soon");
    let body = body.expect("a whole body");
    let trailers = body.trailers().cloned();
    Whole {
        head,
        body: String::from_utf8(body.to_bytes().to_vec()).expect("text"),
        trailers,
    }
}

/// What an upstream of HTTP/2 got.
type Seen = Arc<Mutex<Vec<(http::request::Parts, String, Option<HeaderMap>)>>>;

/// An upstream of HTTP/2 by prior knowledge, that answers with what it got, and with trailers.
async fn echo() -> (SocketAddr, Seen) {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("bound");
    let seen = Seen::default();
    let kept = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let kept = kept.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let kept = kept.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await?;
                    let trailers = body.trailers().cloned();
                    let text = String::from_utf8(body.to_bytes().to_vec()).expect("text");
                    let answer = Response::builder()
                        .header("content-type", "application/json")
                        .header("alt-svc", "h3=\":443\"")
                        .status(if head.uri.path() == "/none" { 204 } else { 200 });
                    let mut back = Pieces::default();
                    if head.uri.path() != "/none" && head.method != "HEAD" {
                        back.0
                            .push_back(Frame::data(Bytes::from(text.clone().into_bytes())));
                        back.0.push_back(Frame::trailers(fields(&[("x-sum", "2")])));
                    }
                    kept.lock().expect("kept").push((head, text, trailers));
                    Ok::<_, hyper::Error>(answer.body(back).expect("an answer"))
                }
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (address, seen)
}

async fn before_echo(policy: Option<&str>) -> (Agent, Seen) {
    let (address, seen) = echo().await;
    let mut setup = Setup::before(address);
    setup.upstream.speak = Speak::Http2;
    setup.policy = policy.map(str::to_owned);
    (setup.start().await, seen)
}

#[tokio::test]
async fn from_http_2_to_http_1() {
    let upstream = Raw::answering(
        "HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\nConnection: close, x-hop\r\nX-Hop: 1\r\n\
         Keep-Alive: timeout=5\r\nAlt-Svc: h3=\":443\"\r\nX-End: 2\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",
    )
    .await;
    let agent = Setup::before(upstream.address).start().await;
    let mut client = client(&agent).await;
    let mut request = to(
        "POST",
        "/a?b",
        Pieces::of(&["one", "two"], &[("x-up", "1")]),
    );
    request.headers_mut().extend(fields(&[
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("te", "trailers"),
        ("trailer", "x-up"),
        ("x", "1"),
    ]));
    let answer = ask(&mut client, request).await;
    assert_eq!(answer.head.version, Version::HTTP_2);
    assert_eq!(
        (answer.head.status.as_u16(), answer.body.as_str()),
        (200, "ok")
    );
    assert_eq!(answer.trailers, Some(fields(&[("x-sum", "7")])));
    for gone in [
        "connection",
        "keep-alive",
        "x-hop",
        "alt-svc",
        "transfer-encoding",
    ] {
        assert!(!answer.head.headers.contains_key(gone), "{gone}");
    }
    assert_eq!(answer.head.headers["x-end"], "2");
    let got = upstream.text();
    let (head, body) = got.split_once("\r\n\r\n").expect("a head");
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("post /a?b http/1.1\r\n"), "{head}");
    for line in [
        "cookie: a=1; b=2",
        "te: trailers",
        "connection: te",
        "transfer-encoding: chunked",
        "x: 1",
        &format!("host: {}", upstream.address),
    ] {
        assert!(head.lines().any(|found| found == line), "{line}: {head}");
    }
    assert!(head.contains("\r\nvia: 2 fieldveil-"), "{head}");
    assert_eq!(head.matches("host:").count(), 1, "{head}");
    assert!(body.ends_with("0\r\nx-up: 1\r\n\r\n"), "{body}");
    assert_eq!(agent.records.outcomes().len(), 1);
}

#[tokio::test]
async fn from_http_1_to_http_2() {
    let (agent, seen) = before_echo(None).await;
    let answer = agent
        .ask(
            "POST /a?b HTTP/1.1\r\nHost: app\r\nTE: trailers\r\nConnection: te, x-hop\r\nX-Hop: 1\r\nX: 1\r\n\
             Transfer-Encoding: chunked\r\nTrailer: x-up\r\n\r\n2\r\nhi\r\n0\r\nX-Up: 1\r\n\r\n",
        )
        .await;
    assert_eq!((answer.status(), answer.text()), (200, "hi"));
    assert!(
        answer.head.starts_with("HTTP/1.1 200 OK\r\n"),
        "{}",
        answer.head
    );
    assert_eq!(answer.header("alt-svc"), None);
    let seen = seen.lock().expect("seen");
    let (head, body, trailers) = &seen[0];
    assert_eq!((head.version, body.as_str()), (Version::HTTP_2, "hi"));
    assert_eq!(head.uri.path_and_query().expect("a path"), "/a?b");
    assert!(
        head.uri
            .authority()
            .expect("an authority")
            .as_str()
            .starts_with("127.0.0.1:")
    );
    assert_eq!(trailers, &Some(fields(&[("x-up", "1")])));
    for gone in ["host", "connection", "x-hop", "transfer-encoding"] {
        assert!(!head.headers.contains_key(gone), "{gone}");
    }
    assert_eq!(
        (&head.headers["te"], &head.headers["x"]),
        (
            &HeaderValue::from_static("trailers"),
            &HeaderValue::from_static("1")
        )
    );
    assert!(
        head.headers["via"]
            .to_str()
            .expect("text")
            .starts_with("1.1 fieldveil-")
    );
}

#[tokio::test]
async fn from_http_2_to_http_2_with_many_streams_at_once() {
    let (agent, seen) = before_echo(None).await;
    let client = client(&agent).await;
    let asking: Vec<_> = (0..100)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move {
                ask(
                    &mut client,
                    to("POST", "/x", Pieces::of(&["a", "b"], &[("x-up", "1")])),
                )
                .await
            })
        })
        .collect();
    for one in asking {
        let answer = one.await.expect("no panic");
        assert_eq!(answer.body, "ab");
        assert_eq!(answer.trailers, Some(fields(&[("x-sum", "2")])));
    }
    assert_eq!(seen.lock().expect("seen").len(), 100);
    eventually("all over", || agent.gauges.requests() == 0).await;
    assert_eq!(agent.records.outcomes(), [Outcome::Answered; 100]);
    assert_eq!(agent.request_permits.available_permits(), 1024);
}

/// A body without bytes that ends when it is told.
struct Held(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Body for Held {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.as_mut().poll(cx).map(|()| None)
    }
}

/// No answer is over before all requests are there, and the upstream allows a hundred at a time on a connection.
#[tokio::test]
async fn more_streams_than_one_connection_takes_go_over_others() {
    const REQUESTS: usize = 250;
    let all_there = Arc::new(Barrier::new(REQUESTS));
    let upstream = Raw::new(move |line| {
        let all_there = all_there.clone();
        async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let all_there = all_there.clone();
                async move {
                    let wait = async move {
                        all_there.wait().await;
                    };
                    // Every other one begins at once.
                    let held: Pin<Box<dyn Future<Output = ()> + Send>> = match request.uri().path()
                    {
                        "/early" => Box::pin(wait),
                        _ => {
                            wait.await;
                            Box::pin(async {})
                        }
                    };
                    Ok::<_, Infallible>(Response::new(Held(held)))
                }
            });
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(100)
                .serve_connection(TokioIo::new(line.stream), service)
                .await;
        }
    })
    .await;
    let mut setup = Setup::before(upstream.address);
    setup.upstream.speak = Speak::Http2;
    let agent = Arc::new(setup.start().await);
    for _ in 0..2 {
        let asking: Vec<_> = (0..REQUESTS)
            .map(|number| {
                let agent = agent.clone();
                let path = if number % 2 == 0 { "early" } else { "late" };
                tokio::spawn(async move {
                    let request = format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n");
                    agent.ask(request).await.status()
                })
            })
            .collect();
        for one in asking {
            assert_eq!(one.await.expect("no panic"), 200);
        }
        // Places are given back: the same connections do.
        assert_eq!(upstream.connections(), 3);
        eventually("all over", || agent.gauges.requests() == 0).await;
    }
}

#[tokio::test]
async fn answers_without_a_body() {
    let (agent, _) = before_echo(Some(crate::rewriting::POLICY)).await;
    let mut client = client(&agent).await;
    for (method, path, status) in [
        ("HEAD", "/people", 200),
        ("GET", "/none", 204),
        ("HEAD", "/none", 204),
    ] {
        let answer = ask(&mut client, to(method, path, Pieces::default())).await;
        assert_eq!(
            (answer.head.status.as_u16(), answer.body.as_str()),
            (status, ""),
            "{method} {path}"
        );
        let answer = {
            let mut line = agent.line().await;
            line.say(format!("{method} {path} HTTP/1.1\r\nHost: app\r\n\r\n").as_bytes())
                .await;
            line.answer_without(method == "HEAD").await
        };
        assert_eq!(
            (answer.status(), answer.text()),
            (status, ""),
            "{method} {path}"
        );
    }
}

/// Python's httpx sends a POST without content so: a length of 0, and an empty DATA frame that ends the stream.
#[tokio::test]
async fn a_body_of_no_bytes_is_no_body_though_its_end_comes_later() {
    let (agent, seen) = before_echo(Some(crate::rewriting::POLICY)).await;
    let mut client = Frames::to(agent.address).await;
    let head = request("POST", "/people", &[("content-length", "0")]);
    client.say(&frame(HEADERS, END_HEADERS, 1, &head)).await;
    client.say(&frame(DATA, END_STREAM, 1, b"")).await;
    client.outcome(1).await.expect("an answer");
    let seen = seen.lock().expect("seen");
    assert_eq!(seen.len(), 1, "the upstream got it");
    assert_eq!(seen[0].1, "");
}

#[tokio::test]
async fn what_is_sealed_comes_back_over_either_version() {
    let (agent, seen) = before_echo(Some(crate::rewriting::POLICY)).await;
    let body = r#"{"ssn": "078-05-1120"}"#;
    let mut client = client(&agent).await;
    let mut request = to(
        "POST",
        "/people",
        Pieces::of(&[r#"{"ssn": "#, r#""078-05-1120"}"#], &[]),
    );
    request
        .headers_mut()
        .extend(fields(&[("content-type", "application/json")]));
    let answer = ask(&mut client, request).await;
    assert_eq!(answer.body, body);
    assert_eq!(
        answer.head.headers["fieldveil-result"],
        "sealed=1, opened=1"
    );
    assert_eq!(agent.post("/people", body).await.text(), body);
    for (head, body, _) in seen.lock().expect("seen").iter() {
        assert!(!body.contains("078") && body.contains("fv1"), "{body}");
        assert_eq!(head.headers["content-length"], body.len().to_string());
    }
    // What is no JSON is refused on its stream, and the connection goes on.
    let mut request = to("POST", "/people", Pieces::of(&["{"], &[]));
    request
        .headers_mut()
        .extend(fields(&[("content-type", "application/json")]));
    let answer = ask(&mut client, request).await;
    assert!(answer.body.contains("\"not-json\""), "{}", answer.body);
    assert!(!answer.head.headers.contains_key("connection"));
    assert_eq!(seen.lock().expect("seen").len(), 2);
    assert_eq!(
        ask(&mut client, to("GET", "/none", Pieces::default()))
            .await
            .head
            .status,
        204
    );
}

#[tokio::test]
async fn more_than_may_be_in_flight_is_turned_away_on_its_stream() {
    let upstream = Raw::new(|mut line| async move { while line.more().await {} }).await;
    let mut setup = Setup::before(upstream.address);
    setup.limits.in_flight = 1;
    let agent = setup.start().await;
    let mut first = client(&agent).await;
    let mut second = first.clone();
    let waiting =
        tokio::spawn(async move { first.send_request(to("GET", "/", Pieces::default())).await });
    eventually("one", || upstream.connections() == 1).await;
    let answer = ask(&mut second, to("GET", "/", Pieces::default())).await;
    assert_eq!(answer.head.status, 503);
    assert_eq!(answer.head.headers["retry-after"], "1");
    // Given up by its client, the first makes room.
    waiting.abort();
    eventually("room", || agent.request_permits.available_permits() == 1).await;
    assert!(agent.records.outcomes().contains(&Outcome::Aborted));
}

#[tokio::test]
async fn a_drain_says_goaway_and_lets_streams_finish() {
    let upstream = Raw::new(|mut line| async move {
        line.request().await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
    })
    .await;
    let agent = Setup::before(upstream.address).start().await;
    let mut frames = Frames::to(agent.address).await;
    let get = request("GET", "/", &[]);
    frames
        .say(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &get))
        .await;
    eventually("it goes up", || upstream.connections() == 1).await;
    let mut idle = Frames::to(agent.address).await;
    idle.say(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &get))
        .await;
    assert_eq!(idle.outcome(1).await, Ok(b"ok".to_vec()));
    agent.drain.send(true).expect("it listens");
    assert_eq!(idle.goodbye().await, 0);
    let (mut said, mut data) = (false, Vec::new());
    while let Some(frame) = frames.next().await {
        said |= frame.kind == crate::frames::GOAWAY && frame.reason() == 0;
        if frame.kind == DATA {
            data.extend(frame.payload);
        }
    }
    assert!(said && data == b"ok", "{said} {data:?}");
    timeout(SOON, agent.serving)
        .await
        .expect("soon")
        .expect("no panic");
    assert_eq!(
        (agent.gauges.connections(), agent.gauges.requests()),
        (0, 0)
    );
}

#[tokio::test]
async fn a_drain_that_takes_too_long_cuts_streams_off() {
    let upstream = Raw::new(|mut line| async move { while line.more().await {} }).await;
    let mut setup = Setup::before(upstream.address);
    setup.listener.drain = std::time::Duration::from_millis(100);
    let agent = setup.start().await;
    let mut client = client(&agent).await;
    let waiting =
        tokio::spawn(async move { client.send_request(to("GET", "/", Pieces::default())).await });
    eventually("it goes up", || upstream.connections() == 1).await;
    agent.drain.send(true).expect("it listens");
    timeout(SOON, agent.serving)
        .await
        .expect("soon")
        .expect("no panic");
    // Not eventually: when it returns.
    assert_eq!(
        (agent.gauges.connections(), agent.gauges.requests()),
        (0, 0)
    );
    assert_eq!(agent.records.outcomes(), [Outcome::Aborted]);
    assert!(waiting.await.expect("no panic").is_err());
}

/// An upstream of HTTP/2 that does as it is told: the first stream's answer is these frames, one part a while after
/// the other, behind the request's head and `wait` bytes of its body.
async fn scripted(wait: usize, answer: &[&[u8]]) -> Raw {
    let answer: Arc<Vec<Vec<u8>>> = Arc::new(answer.iter().map(|part| part.to_vec()).collect());
    Raw::new(move |line| {
        let answer = answer.clone();
        async move {
            let mut frames = Frames::over(line.stream);
            assert_eq!(frames.bytes(PREFACE.len()).await.as_deref(), Some(PREFACE));
            frames.say(&frame(SETTINGS, 0, 0, b"")).await;
            let (mut head, mut data) = (false, 0);
            while let Some(frame) = frames.next().await {
                match frame.kind {
                    HEADERS => head = true,
                    DATA => data += frame.payload.len(),
                    _ => {}
                }
                if head && data >= wait {
                    break;
                }
            }
            for part in &*answer {
                frames.say(part).await;
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            while frames.next().await.is_some() {}
        }
    })
    .await
}

async fn before_script(wait: usize, answer: &[&[u8]]) -> (Raw, Agent) {
    let upstream = scripted(wait, answer).await;
    let mut setup = Setup::before(upstream.address);
    setup.upstream.speak = Speak::Http2;
    let agent = setup.start().await;
    (upstream, agent)
}

/// `:status: 200`.
const FINE: &[u8] = &[0x88];

#[tokio::test]
async fn an_upstream_that_answers_early_is_heard() {
    let answer = [
        frame(HEADERS, END_HEADERS, 1, &block(&[(b":status", b"413")])),
        frame(DATA, END_STREAM, 1, b"enough"),
        frame(RST_STREAM, 0, 1, &0u32.to_be_bytes()),
    ]
    .concat();
    let (_upstream, agent) = before_script(1, &[&answer]).await;
    let mut line = agent.line().await;
    line.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx")
        .await;
    let answer = line.answer().await;
    assert_eq!((answer.status(), answer.text()), (413, "enough"));
}

#[tokio::test]
async fn an_upstream_that_resets_a_stream_is_broken() {
    // Another than REFUSED_STREAM: see `again`.
    for reason in [1u32, 2, 8] {
        let reset = frame(RST_STREAM, 0, 1, &reason.to_be_bytes());
        let (_upstream, agent) = before_script(1, &[&reset]).await;
        let answer = agent.ask(post("/", "{\"a\": 1}")).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (502, "upstream-broken"),
            "{reason}"
        );
    }
}

/// NO_ERROR or another reason, or the end of the connection: a part is not the whole.
#[tokio::test]
async fn an_answer_that_is_cut_off_is_cut_off_visibly() {
    let begun = [
        frame(HEADERS, END_HEADERS, 1, FINE),
        frame(DATA, 0, 1, b"part"),
    ]
    .concat();
    for end in [
        frame(RST_STREAM, 0, 1, &0u32.to_be_bytes()),
        frame(RST_STREAM, 0, 1, &2u32.to_be_bytes()),
        // A connection error: DATA on stream 0.
        frame(DATA, 0, 0, b""),
    ] {
        let (_upstream, agent) = before_script(0, &[&begun, &end]).await;
        let mut line = agent.line().await;
        line.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = line.head().await.expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(line.body(head, false).await.is_none(), "{end:?}");

        let (_upstream, agent) = before_script(0, &[&begun, &end]).await;
        let mut client = client(&agent).await;
        let answer = client.send_request(to("GET", "/", Pieces::default())).await;
        let answer = answer.expect("a head");
        assert_eq!(answer.status(), 200);
        assert!(answer.into_body().collect().await.is_err(), "{end:?}");
    }
}

/// Fields that an answer of HTTP/2 must not have, and a length that lies.
#[tokio::test]
async fn an_upstream_that_breaks_the_rules_is_broken() {
    for fields in [
        &[(&b":status"[..], &b"200"[..]), (b"connection", b"close")][..],
        &[(b":status", b"200"), (b"x", b"a\r\nb: c")],
        &[(b":status", b"abc")],
        &[(b"x", b"1")],
        &[(b":status", b"200"), (b"content-length", b"7")],
    ] {
        let answer = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields));
        let (_upstream, agent) = before_script(0, &[&answer]).await;
        let answer = agent.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(answer.code(), "upstream-broken", "{fields:?}");
    }
}
