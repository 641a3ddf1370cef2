//! What takes too long: bodies that drip, answers that stall, exchanges without an end.

use crate::harness::{Agent, Raw, Setup, eventually};
use crate::multiplexed::{Pieces, client};
use crate::streams::live_echo;
use bytes::Bytes;
use fieldveil::body::pace::Rate;
use http::Request;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

const SHORT: Duration = Duration::from_millis(200);

/// Begins an answer of pieces, and goes no further.
async fn stalling() -> Raw {
    Raw::new(|mut line| async move {
        while line.request().await.is_some() {
            line.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n")
                .await;
        }
    })
    .await
}

/// Nothing is left of it.
async fn over(agent: &Agent) {
    eventually("nothing is in flight", || {
        agent.gauges.requests() == 0 && agent.request_permits.available_permits() == 1024
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_stalls_is_cut_off() {
    for whole in [false, true] {
        let upstream = stalling().await;
        let mut setup = Setup::before(upstream.address);
        match whole {
            false => setup.limits.answer = SHORT,
            true => setup.limits.exchange = SHORT,
        }
        let agent = setup.start().await;
        let mut line = agent.line().await;
        line.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = line.head().await.expect("an answer's head");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(line.body(head, false).await.is_none(), "visibly unfinished");
        over(&agent).await;

        // Over HTTP/2, the stream alone.
        let mut client = client(&agent).await;
        let request = Request::get("http://a/").body(Pieces::default());
        let answer = client.send_request(request.expect("a request")).await;
        let answer = answer.expect("an answer's head");
        assert!(answer.into_body().collect().await.is_err());
        over(&agent).await;
        assert!(client.ready().await.is_ok(), "the connection goes on");
    }
}

#[tokio::test]
async fn an_exchange_without_an_answer_ends() {
    let silent = Raw::new(|mut line| async move { while line.more().await {} }).await;
    let mut setup = Setup::before(silent.address);
    setup.limits.exchange = SHORT;
    let agent = setup.start().await;
    let answer = agent.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(
        (answer.status(), &*answer.code()),
        (504, "exchange-timeout")
    );
    over(&agent).await;
}

/// A body at the slowest pace there is, on a route that holds it and on one that does not.
#[tokio::test]
async fn a_body_that_drips_is_given_up() {
    for path in ["/people", "/other"] {
        let upstream = Raw::echo().await;
        let mut setup = Setup::before(upstream.address).policy(crate::rewriting::POLICY);
        setup.limits.body_rate = Rate {
            bytes_per_second: 1 << 20,
            grace: SHORT,
        };
        let agent = setup.start().await;
        let mut line = agent.line().await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n["
        );
        line.say(head.as_bytes()).await;
        let (mut reading, mut writing) = line.stream.into_split();
        let dripping = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            while writing.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let mut answer = Vec::new();
        // Closed with an answer; what is still on its way may reset the connection behind it.
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 408"), "{path}: {answer}");
        assert!(answer.contains("\"body-timeout\""), "{path}: {answer}");
        over(&agent).await;
        dripping.abort();
    }
}

/// Whoever does not take the answer has the time for the whole exchange at most, even if he took a byte now and then.
#[tokio::test]
async fn a_client_that_does_not_take_the_answer_is_let_go() {
    let endless = Raw::new(|mut line| async move {
        if line.request().await.is_some() {
            line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
                .await;
            let piece = vec![b' '; 1 << 20];
            for _ in 0..900 {
                line.say(&piece).await;
            }
        }
    })
    .await;
    let mut setup = Setup::before(endless.address);
    setup.listener.patience.exchange = SHORT;
    let agent = setup.start().await;
    let mut line = agent.line().await;
    line.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("in flight", || agent.gauges.requests() == 1).await;
    over(&agent).await;
    drop(line);
}

/// A piece, a rest, and another piece.
struct Resting {
    pieces: Vec<&'static str>,
    rest: Pin<Box<Sleep>>,
}

impl Body for Resting {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.pieces.len() == 1 {
            ready!(self.rest.as_mut().poll(cx));
        }
        let piece = self.pieces.pop();
        Poll::Ready(piece.map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes())))))
    }
}

/// Its answer has begun, or it is a call: then it may rest.
#[tokio::test]
async fn one_side_of_a_conversation_may_rest() {
    for (upstream, media, status) in [
        (live_echo().await, "application/octet-stream", 200),
        (Raw::echo().await, "application/grpc", 200),
        (Raw::echo().await, "application/octet-stream", 408),
    ] {
        let mut setup = Setup::before(upstream.address);
        setup.listener.patience.body = SHORT;
        setup.limits.body_rate = Rate {
            bytes_per_second: 1 << 20,
            grace: SHORT,
        };
        let agent = setup.start().await;
        let stream = TcpStream::connect(agent.address).await.expect("connects");
        let (mut client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a handshake");
        tokio::spawn(connection);
        let body = Resting {
            pieces: vec!["two", "one"],
            rest: Box::pin(sleep(SHORT * 4)),
        };
        let request = Request::post("http://a/").header("content-type", media);
        let request = request.body(body).expect("a request");
        let answer = client.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), status, "{media}");
        let body = answer.into_body().collect().await.expect("whole");
        if status == 200 {
            assert_eq!(body.to_bytes(), "onetwo");
        }
        over(&agent).await;
    }
}
