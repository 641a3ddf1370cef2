//! Connections and time: slow clients, clients that hang up, the bound on connections, the drain.

use crate::harness::{Line, Raw, SOON, Setup, eventually, post};
use fieldveil::audit::Outcome;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const SHORT: Duration = Duration::from_millis(150);

fn silent_upstream() -> impl Future<Output = Raw> {
    Raw::new(|mut line| async move {
        line.request().await;
        while line.more().await {}
    })
}

#[tokio::test]
async fn a_slow_head_is_answered_408_and_silence_with_silence() {
    let upstream = Raw::answering(OK).await;
    let mut setup = Setup::before(upstream.address);
    setup.listener.patience.head = SHORT;
    let agent = setup.start().await;

    let mut silent = agent.line().await;
    assert!(silent.is_over().await);

    let mut slow = agent.line().await;
    let begun = Instant::now();
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" {
        slow.say(&[*byte]).await;
        sleep(Duration::from_millis(10)).await;
        if begun.elapsed() > SHORT * 2 {
            break;
        }
    }
    let answer = slow.answer().await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (408, "head-timeout")
    );
    assert!(slow.is_over().await);

    // The second head on a connection has its own time, and so have the bytes of a pipelined one.
    let mut second = agent.line().await;
    for _ in 0..3 {
        second.say(GET).await;
        assert_eq!(second.answer().await.text(), "ok");
        sleep(SHORT / 2).await;
    }
    second.say(b"GET / HT").await;
    assert_eq!(second.answer().await.code(), "head-timeout");
    assert!(second.is_over().await);
    assert_eq!(agent.records.outcomes().len(), 5);
}

#[tokio::test]
async fn an_idle_connection_is_closed_but_not_while_an_answer_is_awaited() {
    let upstream = Raw::new(|mut line| async move {
        while line.request().await.is_some() {
            sleep(SHORT * 3).await;
            line.say(OK.as_bytes()).await;
        }
    })
    .await;
    let mut setup = Setup::before(upstream.address);
    setup.listener.patience.idle = SHORT;
    setup.listener.patience.head = SHORT;
    let agent = setup.start().await;
    let mut line = agent.line().await;
    line.say(GET).await;
    assert_eq!(line.answer().await.text(), "ok");
    let begun = Instant::now();
    assert!(line.is_over().await);
    assert!(begun.elapsed() >= SHORT / 2, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_unused_connection_to_the_upstream_is_given_up_before_the_upstream_does() {
    // It would answer on the old one still: the agent cannot know.
    for (idle, connections) in [(Some(SHORT), 3), (None, 1)] {
        let upstream = Raw::answering(OK).await;
        let mut setup = Setup::before(upstream.address);
        setup.upstream.idle = idle;
        let agent = setup.start().await;
        let mut line = agent.line().await;
        for _ in 0..3 {
            line.say(GET).await;
            assert_eq!(line.answer().await.text(), "ok");
            sleep(SHORT * 2).await;
        }
        assert_eq!(upstream.connections(), connections, "{idle:?}");
    }
}

/// Many servers keep theirs for five seconds.
#[tokio::test]
async fn by_default_that_is_less_than_five_seconds() {
    let upstream = Raw::answering(OK).await;
    let agent = Setup::before(upstream.address).start().await;
    let mut line = agent.line().await;
    for connections in [1, 2] {
        line.say(GET).await;
        assert_eq!(line.answer().await.text(), "ok");
        assert_eq!(upstream.connections(), connections);
        sleep(Duration::from_millis(4_500)).await;
    }
}

#[tokio::test]
async fn a_connection_that_dozes_misses_nothing() {
    let upstream = Raw::answering(OK).await;
    let mut setup = Setup::before(upstream.address);
    // Between any two requests.
    setup.listener.patience.awake = Duration::ZERO;
    setup.listener.patience.idle = SHORT * 4;
    let agent = setup.start().await;

    let mut line = agent.line().await;
    for _ in 0..3 {
        line.say(GET).await;
        assert_eq!(line.answer().await.text(), "ok");
        sleep(SHORT / 10).await;
    }
    // Two at once, and the beginning of a third.
    line.say(&[GET, GET, b"GE"].concat()).await;
    assert_eq!(line.answer().await.text(), "ok");
    assert_eq!(line.answer().await.text(), "ok");
    for byte in &GET[2..] {
        line.say(&[*byte]).await;
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(line.answer().await.text(), "ok");
    line.say(b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(line.answer().await.status(), 400);
    assert!(line.is_over().await);

    // Time that is up, a client that is gone, and the drain wake it.
    let mut idle = agent.line().await;
    idle.say(GET).await;
    assert_eq!(idle.answer().await.text(), "ok");
    assert!(idle.is_over().await);
    let mut gone = agent.line().await;
    gone.say(GET).await;
    assert_eq!(gone.answer().await.text(), "ok");
    drop(gone);
    eventually("the connections are gone", || {
        agent.gauges.connections() == 0
    })
    .await;
    let mut drained = agent.line().await;
    drained.say(GET).await;
    assert_eq!(drained.answer().await.text(), "ok");
    agent.drain.send(true).expect("it listens");
    assert!(drained.is_over().await);
}

#[tokio::test]
async fn a_request_that_crosses_the_drain_is_answered() {
    let upstream = Raw::answering(OK).await;
    for awake in [Duration::ZERO, SOON] {
        let mut setup = Setup::before(upstream.address);
        setup.listener.patience.awake = awake;
        let agent = setup.start().await;
        let (mut idle, mut begun) = (agent.line().await, agent.line().await);
        for line in [&mut idle, &mut begun] {
            line.say(GET).await;
            assert_eq!(line.answer().await.text(), "ok");
        }
        begun.say(&GET[..9]).await;
        agent.drain.send(true).expect("it listens");
        idle.say(GET).await;
        begun.say(&GET[9..]).await;
        for line in [&mut idle, &mut begun] {
            let answer = line.answer().await;
            assert_eq!(
                (answer.text(), answer.header("connection")),
                ("ok", Some("close"))
            );
            assert!(line.is_over().await);
        }
        agent.serving.await.expect("it ends");
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_answered_408() {
    let upstream = silent_upstream().await;
    for policy in [None, Some(crate::rewriting::POLICY)] {
        let mut setup = Setup::before(upstream.address);
        setup.policy = policy.map(str::to_owned);
        setup.listener.patience.body = SHORT;
        let agent = setup.start().await;
        for framing in [
            "Content-Length: 9\r\n\r\n{",
            "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
        ] {
            let mut line = agent.line().await;
            line.say(format!("POST /people HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{framing}").as_bytes()).await;
            let answer = line.answer().await;
            assert_eq!(
                (answer.status(), answer.code().as_str()),
                (408, "body-timeout")
            );
            assert!(line.is_over().await);
        }
    }
    // All of it has a bound, too, however steadily it comes.
    let mut setup = Setup::before(upstream.address).policy(crate::rewriting::POLICY);
    setup.limits.held_for = SHORT;
    let agent = setup.start().await;
    let mut line = agent.line().await;
    line.say(b"POST /people HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n").await;
    for _ in 0..30 {
        line.say(b" ").await;
        sleep(SHORT / 10).await;
    }
    assert_eq!(line.answer().await.code(), "body-timeout");
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_is_dropped() {
    let upstream = Raw::answering(
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 33554432\r\n\r\n".to_vec(),
            vec![b'x'; 32 << 20],
        ]
        .concat(),
    )
    .await;
    let mut setup = Setup::before(upstream.address);
    setup.listener.patience.write = SHORT;
    let agent = setup.start().await;
    let mut line = agent.line().await;
    line.say(GET).await;
    line.head().await.expect("a head");
    eventually("the connection is gone", || agent.gauges.connections() == 0).await;
    assert_eq!(agent.gauges.requests(), 0);
}

#[tokio::test]
async fn connections_over_the_bound_wait() {
    let upstream = Raw::answering(OK).await;
    let mut setup = Setup::before(upstream.address);
    setup.listener.connections = 2;
    let agent = setup.start().await;
    let (one, two) = (agent.line().await, agent.line().await);
    eventually("two are in", || {
        agent.connection_permits.available_permits() == 0
    })
    .await;
    let mut three = agent.line().await;
    three.say(GET).await;
    assert!(
        timeout(SHORT, three.answer()).await.is_err(),
        "a third is not served"
    );
    drop(one);
    assert_eq!(three.answer().await.text(), "ok");
    drop(two);
}

#[tokio::test]
async fn a_client_that_hangs_up_takes_its_request_with_it() {
    let upstream = silent_upstream().await;
    let agent = Setup::before(upstream.address).start().await;
    let mut line = agent.line().await;
    line.say(GET).await;
    eventually("it went up", || upstream.text().ends_with("\r\n\r\n")).await;
    drop(line);
    eventually("nothing is left", || {
        agent.gauges.connections() == 0
            && agent.gauges.requests() == 0
            && agent.request_permits.available_permits() == 1024
    })
    .await;
    assert_eq!(agent.records.outcomes(), [Outcome::Aborted]);
}

/// Clients that hang up at any place of a request, of a pipeline, and of an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_hang_up_leave_nothing_behind() {
    let clients: usize = std::env::var("FIELDVEIL_HANGUPS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(10_000);
    let upstream = Raw::new(|mut line| async move {
        while let Some(message) = line.request().await {
            if message.head.starts_with("GET /slow") {
                sleep(Duration::from_millis(20)).await;
            }
            line.say(OK.as_bytes()).await;
        }
    })
    .await;
    let mut setup = Setup::before(upstream.address).policy(crate::rewriting::POLICY);
    setup.upstream.idle = Some(Duration::from_millis(100));
    let agent = setup.start().await;
    let idle_tasks = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    let conversation = [
        post("/people", "{\"ssn\":\"078-05-1120\"}").as_bytes(),
        b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /other HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    ]
    .concat();
    let address = agent.address;
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..clients {
        let part = conversation[..1 + client * 7919 % conversation.len()].to_vec();
        tasks.spawn(async move {
            let mut line = Line::to(address).await;
            line.say(&part).await;
            if client % 3 == 0 {
                sleep(Duration::from_millis((client % 25) as u64)).await;
            }
        });
        if tasks.len() >= 200 {
            tasks.join_next().await;
        }
    }
    while tasks.join_next().await.is_some() {}
    eventually("no connection, request or permit is left", || {
        agent.gauges.connections() == 0
            && agent.gauges.requests() == 0
            && agent.connection_permits.available_permits() >= 9_999
            && agent.request_permits.available_permits() == 1024
    })
    .await;
    // The upstream's side ends when the pool lets go.
    eventually("no task is left", || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
            <= idle_tasks
    })
    .await;
    let outcomes = agent.records.outcomes();
    assert!(outcomes.contains(&Outcome::Aborted) && outcomes.contains(&Outcome::Answered));
    // And it still works.
    assert_eq!(agent.post("/people", "{}").await.status(), 200);
}

#[tokio::test]
async fn a_drain_lets_requests_finish_and_leaves_nothing() {
    let upstream = Raw::new(|mut line| async move {
        while line.request().await.is_some() {
            sleep(SHORT).await;
            line.say(OK.as_bytes()).await;
        }
    })
    .await;
    let agent = Setup::before(upstream.address).start().await;
    let mut busy = agent.line().await;
    let mut idle = agent.line().await;
    let mut kept = agent.line().await;
    kept.say(GET).await;
    kept.answer().await;
    busy.say(GET).await;
    eventually("all are in, one is busy", || {
        agent.gauges.connections() == 3 && agent.gauges.requests() == 1
    })
    .await;
    agent.drain.send(true).expect("it listens");
    assert!(idle.is_over().await);
    assert!(kept.is_over().await);
    let answer = busy.answer().await;
    assert_eq!(
        (answer.text(), answer.header("connection")),
        ("ok", Some("close"))
    );
    assert!(busy.is_over().await);
    timeout(SOON, agent.serving)
        .await
        .expect("soon")
        .expect("well");
    assert!(
        tokio::net::TcpStream::connect(agent.address).await.is_err(),
        "nobody listens any more"
    );
    assert_eq!(agent.gauges.connections(), 0);
}

#[tokio::test]
async fn a_drain_ends_when_its_time_is_up() {
    let upstream = silent_upstream().await;
    let mut setup = Setup::before(upstream.address);
    setup.listener.drain = SHORT;
    let agent = setup.start().await;
    let mut line = agent.line().await;
    line.say(GET).await;
    eventually("it is in flight", || agent.gauges.requests() == 1).await;
    agent.drain.send(true).expect("it listens");
    timeout(SOON, agent.serving)
        .await
        .expect("soon")
        .expect("well");
    assert_eq!(
        (agent.gauges.connections(), agent.gauges.requests()),
        (0, 0)
    );
    assert_eq!(agent.records.outcomes(), [Outcome::Aborted]);
    assert!(line.is_over().await);
}

#[tokio::test]
async fn what_the_agent_added_is_not_what_the_upstream_took() {
    let upstream = Raw::new(|mut line| async move {
        while line.request().await.is_some() {
            sleep(Duration::from_millis(300)).await;
            line.say(OK.as_bytes()).await;
        }
    })
    .await;
    let agent = Setup::before(upstream.address).start().await;
    assert_eq!(agent.ask(GET).await.status(), 200);
    let [kept] = &agent.records.all()[..] else {
        panic!("one record")
    };
    let (total, added) = (kept.total, kept.added);
    assert!(
        total >= Duration::from_millis(300) && added < Duration::from_millis(250),
        "{total:?} {added:?}"
    );
    assert_eq!(agent.keys.calls.load(SeqCst), 0);
    assert_eq!(agent.records.outcomes(), [Outcome::Answered]);
}
