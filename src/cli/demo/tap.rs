//! A relay before the agent: bytes go through as they are, and a copy of them is read to be shown.

use super::api;
use super::message::{Message, Reader};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections at once; this is no place for load.
const CONNECTIONS_MAX: usize = 256;
/// After a failed accept.
const PAUSE: Duration = Duration::from_millis(100);
/// How long relays go on after the agent has ended: their ends see it at once.
const LAST_BYTES: Duration = Duration::from_secs(6);

/// What the application sent and what it got.
#[derive(Debug)]
pub struct Exchange {
    /// Empty where it could not be followed.
    pub request: Message,
    /// The final answer.
    pub answer: Message,
}

impl Exchange {
    /// The number under which the API remembers it. None: it did not get there.
    pub fn seen_as(&self) -> Option<u64> {
        self.answer.field(api::EXCHANGE)?.parse().ok()
    }
}

/// The relay to one agent.
#[derive(Clone)]
pub struct Tap {
    agent: SocketAddr,
    exchanges: Sender<Exchange>,
}

impl Tap {
    /// To this agent; what was exchanged is sent there.
    pub fn new(agent: SocketAddr, exchanges: Sender<Exchange>) -> Tap {
        Tap { agent, exchanges }
    }

    /// Relays until `stop` turns true and the connections have ended.
    pub async fn serve(self, socket: TcpListener, mut stop: watch::Receiver<bool>) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut tasks = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                Some(_) = tasks.join_next() => continue,
                accepted = async {
                    let permit = Arc::clone(&permits).acquire_owned().await;
                    socket.accept().await.map(|(stream, _)| (stream, permit))
                } => accepted,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let tap = self.clone();
                    tasks.spawn(async move {
                        // A connection that fails, fails at both ends.
                        let _ = tap.relay(stream).await;
                        drop(permit);
                    });
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
        drop(socket);
        let ended = async { while tasks.join_next().await.is_some() {} };
        if timeout(LAST_BYTES, ended).await.is_err() {
            tasks.shutdown().await;
        }
    }

    async fn relay(self, client: TcpStream) -> std::io::Result<()> {
        let agent = TcpStream::connect(self.agent).await?;
        client.set_nodelay(true)?;
        agent.set_nodelay(true)?;
        let ((from_client, to_client), (from_agent, to_agent)) =
            (client.into_split(), agent.into_split());
        let watched = Arc::new(Mutex::new(Watched::default()));
        let sent = Arc::clone(&watched);
        let outward = tokio::spawn(copy(from_client, to_agent, move |bytes| {
            lock(&sent).sent(bytes)
        }));
        let exchanges = self.exchanges;
        let inward = copy(from_agent, to_client, move |bytes| {
            for exchange in lock(&watched).got(bytes) {
                // Nobody looks any more; the bytes go on.
                let _ = exchanges.send(exchange);
            }
        });
        inward.await;
        // The agent has closed: there is nobody to send to.
        outward.abort();
        Ok(())
    }
}

fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Copies to the end, and shows each piece before it is handed on; the end itself as an empty one.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut show: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = from.read(&mut buffer).await.unwrap_or_default();
        // So that a request is known when its answer comes.
        show(&buffer[..count]);
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            let _ = to.shutdown().await;
            return;
        }
    }
}

/// One connection's two directions.
#[derive(Default)]
struct Watched {
    requests: Reader,
    answers: Reader,
    waiting: VecDeque<Message>,
}

impl Watched {
    fn sent(&mut self, bytes: &[u8]) {
        self.waiting.extend(self.requests.push(bytes, false));
    }

    fn got(&mut self, bytes: &[u8]) -> Vec<Exchange> {
        let to_head = self
            .waiting
            .front()
            .is_some_and(|request| request.first() == "HEAD");
        let mut answers = self.answers.push(bytes, to_head);
        if bytes.is_empty() {
            answers.extend(self.answers.end());
        }
        // What is only interim is not the answer.
        answers.retain(|answer| !answer.second().starts_with('1'));
        let request = |watched: &mut Watched| {
            // An answer may come before the request's end.
            let begun = |watched: &mut Watched| watched.requests.take_begun();
            watched
                .waiting
                .pop_front()
                .or_else(|| begun(watched))
                .unwrap_or_default()
        };
        answers
            .into_iter()
            .map(|answer| Exchange {
                request: request(self),
                answer,
            })
            .collect()
    }
}
