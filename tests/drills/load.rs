//! Clients that ask again as soon as they are answered, and keep what became of every request.

use crate::client::{Answer, Client};
use crate::site::{MARK, wait_for};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

/// Between an answer and the next request: this is no bench, and the machine has other tests to run.
const PAUSE: Duration = Duration::from_millis(3);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A value goes out, and comes back in the answer.
    Seal,
    /// A value that was sealed before comes back.
    Open,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// The client has its value.
    Right,
    /// The client has a token.
    LeftSealed,
    /// With status and code.
    Refused(u16, String),
    /// Anything else.
    Wrong(String),
}

#[derive(Clone, Debug)]
pub struct Outcome {
    pub kind: Kind,
    pub begun: Instant,
    pub took: Duration,
    pub what: What,
}

/// What is asked for over and over: documents that the upstream keeps.
#[derive(Clone)]
pub struct Documents {
    pub tenant: String,
    pub count: usize,
    /// Further members of each, behind a comma.
    pub also: &'static str,
}

impl Documents {
    fn body(&self, ssn: &str) -> String {
        format!(r#"{{"ssn":"{MARK}{ssn}"{}}}"#, self.also)
    }

    pub fn document(&self, number: usize) -> String {
        self.body(&format!("keep-{number}"))
    }
}

pub fn document(number: usize) -> String {
    format!(r#"{{"ssn":"{MARK}keep-{number}"}}"#)
}

/// Four clients. They end when this is dropped.
pub struct Load {
    over: Arc<AtomicBool>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(agent: SocketAddr, documents: &Documents) -> Load {
        let (over, outcomes) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let clients = (0..4).map(|client| {
            let (over, outcomes) = (Arc::clone(&over), Arc::clone(&outcomes));
            let documents = documents.clone();
            std::thread::spawn(move || ask_on(agent, client, &documents, &over, &outcomes))
        });
        Load {
            clients: clients.collect(),
            over,
            outcomes,
        }
    }

    /// Outcomes of requests that were begun after this.
    pub fn since(&self, begin: Instant) -> Vec<Outcome> {
        let outcomes = self.outcomes.lock().expect("outcomes");
        let since = outcomes.iter().filter(|one| one.begun >= begin);
        since.cloned().collect()
    }

    /// Waits until requests of either kind that are begun from now on go well.
    #[track_caller]
    pub fn wait_until_right(&self) {
        let begin = Instant::now();
        let right = |kind| {
            let since = self.since(begin);
            let right = since.iter().filter(|one| one.kind == kind);
            right.filter(|one| one.what == What::Right).count() >= 20
        };
        wait_for("traffic that goes well", || {
            right(Kind::Seal) && right(Kind::Open)
        });
    }

    /// All that were begun after this went well; how many there were, and the longest.
    #[track_caller]
    pub fn all_right_since(&self, begin: Instant) -> (usize, Duration) {
        let since = self.since(begin);
        for kind in [Kind::Seal, Kind::Open] {
            assert!(since.iter().any(|one| one.kind == kind), "no {kind:?}");
        }
        let failed: Vec<_> = since.iter().filter(|one| one.what != What::Right).collect();
        let few = &failed[..failed.len().min(5)];
        assert!(
            failed.is_empty(),
            "{} of {}: {few:?}",
            failed.len(),
            since.len()
        );
        let longest = since.iter().map(|one| one.took).max();
        (since.len(), longest.unwrap_or_default())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        for client in self.clients.drain(..) {
            // What it panicked about is told already.
            let _ = client.join();
        }
    }
}

/// Requests of both kinds are among these, and each ended like this.
#[track_caller]
pub fn nothing_but(outcomes: &[Outcome], [sealing, opening]: [What; 2]) {
    for (kind, expected) in [(Kind::Seal, sealing), (Kind::Open, opening)] {
        let of_kind = outcomes.iter().filter(|one| one.kind == kind);
        assert!(of_kind.clone().count() > 0, "no {kind:?}");
        let other = of_kind.clone().find(|one| one.what != expected);
        assert!(other.is_none(), "{other:?}");
    }
}

fn ask_on(
    agent: SocketAddr,
    client: usize,
    documents: &Documents,
    over: &AtomicBool,
    outcomes: &Mutex<Vec<Outcome>>,
) {
    let mut connection = Client::to(agent);
    let tenant = format!("X-Tenant: {}\r\n", documents.tenant);
    for round in 0.. {
        if over.load(SeqCst) {
            return;
        }
        let kind = match (round + client) % 2 {
            0 => Kind::Seal,
            _ => Kind::Open,
        };
        let begun = Instant::now();
        let (expected, answer) = match kind {
            Kind::Seal => {
                let body = documents.body(&format!("{client}-{round}"));
                let head = format!(
                    "POST /echo HTTP/1.1\r\nHost: x\r\n{tenant}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                connection.say((head + &body).as_bytes());
                (body, connection.answer())
            }
            Kind::Open => {
                let number = round / 2 % documents.count;
                let head = format!("GET /keep/{number} HTTP/1.1\r\nHost: x\r\n{tenant}\r\n");
                connection.say(head.as_bytes());
                (documents.document(number), connection.answer())
            }
        };
        let what = judged(&expected, answer.as_ref());
        if answer.is_none() {
            connection = Client::to(agent);
        }
        let outcome = Outcome {
            kind,
            begun,
            took: begun.elapsed(),
            what,
        };
        outcomes.lock().expect("outcomes").push(outcome);
        sleep(PAUSE);
    }
}

fn judged(expected: &str, answer: Option<&Answer>) -> What {
    let Some(answer) = answer else {
        return What::Wrong("the connection ended".to_owned());
    };
    let body = String::from_utf8_lossy(&answer.body);
    match answer.status {
        200 if body == expected => What::Right,
        200 if body.contains("fv1~") && !body.contains(MARK) => What::LeftSealed,
        status @ (429 | 503) => What::Refused(status, answer.code()),
        _ => What::Wrong(format!("{answer:?}")),
    }
}
