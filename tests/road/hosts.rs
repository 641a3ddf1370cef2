//! Several upstreams behind one listener, by the host that a request is for.

use crate::harness::{Agent, Line, Raw, Setup};
use crate::multiplexed::{Pieces, ask, client};
use http::Request;

fn answer(word: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{word}",
        word.len()
    )
}

struct Behind {
    agent: Agent,
    /// `api`, `partner`, `ported`.
    upstreams: [Raw; 3],
}

async fn behind() -> Behind {
    let upstreams = [
        Raw::answering(answer("api")).await,
        Raw::answering(answer("partner")).await,
        Raw::answering(answer("ported")).await,
    ];
    let mut setup = Setup::before(upstreams[0].address);
    setup.hosts = vec![
        ("*.partner.example", upstreams[1].address),
        ("api.example.com", upstreams[0].address),
        ("api.example.com:8443", upstreams[2].address),
        ("api.partner.example", upstreams[0].address),
    ];
    Behind {
        agent: setup.start().await,
        upstreams,
    }
}

/// Who answers, or the code of the refusal.
const HOSTS: [(&str, &str); 10] = [
    ("api.example.com", "api"),
    ("API.example.COM", "api"),
    ("api.example.com:80", "api"),
    ("api.example.com:8443", "ported"),
    ("one.partner.example", "partner"),
    ("one.partner.example:9000", "partner"),
    ("api.partner.example", "api"),
    ("two.one.partner.example", "host-unknown"),
    ("partner.example", "host-unknown"),
    ("127.0.0.1", "host-unknown"),
];

#[tokio::test]
async fn http1_goes_by_its_host() {
    let behind = behind().await;
    let mut line = behind.agent.line().await;
    for (host, expected) in HOSTS {
        line.say(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
            .await;
        check(&mut line, host, expected).await;
        // The absolute form, whose authority is the one that counts.
        line.say(format!("GET http://{host}/x HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
            .await;
        check(&mut line, host, expected).await;
    }
    // What goes up says the upstream's own name.
    let [api, ..] = &behind.upstreams;
    let own = format!("host: {}\r\n", api.address);
    assert!(api.text().to_lowercase().contains(&own), "{}", api.text());
    assert!(!api.text().contains("example"), "{}", api.text());
}

async fn check(line: &mut Line, host: &str, expected: &str) {
    let answer = line.answer().await;
    if expected == "host-unknown" {
        assert_eq!(
            (answer.status(), &*answer.code()),
            (421, expected),
            "{host}"
        );
    } else {
        assert_eq!((answer.status(), answer.text()), (200, expected), "{host}");
    }
}

#[tokio::test]
async fn a_request_without_a_host_goes_nowhere() {
    let behind = behind().await;
    let answer = behind.agent.ask("GET /x HTTP/1.0\r\n\r\n").await;
    assert_eq!((answer.status(), &*answer.code()), (421, "host-unknown"));
    // And one whose body is not asked for.
    let refused = "POST /x HTTP/1.1\r\nHost: other\r\nContent-Length: 9\r\n\r\n";
    let answer = behind.agent.ask(refused).await;
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(behind.upstreams.iter().all(|up| up.connections() == 0));
}

#[tokio::test]
async fn http2_goes_by_its_authority() {
    let behind = behind().await;
    let mut client = client(&behind.agent).await;
    for (host, expected) in HOSTS {
        let request = Request::get(format!("http://{host}/x"))
            .body(Pieces::default())
            .expect("a request");
        let whole = ask(&mut client, request).await;
        if expected == "host-unknown" {
            assert_eq!(whole.head.status, 421, "{host}");
            assert!(whole.body.contains("\"host-unknown\""), "{}", whole.body);
        } else {
            assert_eq!(
                (whole.head.status.as_u16(), &*whole.body),
                (200, expected),
                "{host}"
            );
        }
    }
}
