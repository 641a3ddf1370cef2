//! What a connection's three parties share: the door reads the bytes, hyper calls the service, the connection's task
//! keeps the time. Counts and moments only.

use crate::error::Code;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::time::Instant;

/// How long a client may take for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From accepting the connection, or from a later head's first byte, to the head's end.
    pub head: Duration,
    /// Between the end of an answer and the first byte of the next request.
    pub idle: Duration,
    /// So much of `idle` a connection of HTTP/1.1 keeps the memory in which it reads the next request.
    pub awake: Duration,
    /// For the next byte of a body that somebody waits for.
    pub body: Duration,
    /// For the client to take the next byte of an answer.
    pub write: Duration,
    /// From a request's head to its answer's last byte.
    pub exchange: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(360),
            awake: Duration::from_secs(1),
            body: Duration::from_secs(30),
            write: Duration::from_secs(60),
            exchange: Duration::from_secs(3600),
        }
    }
}

/// How long a client may go on sending after an answer that it did not wait for.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// Which patience has run out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// Nothing of the (next) request came: close in silence.
    Idle,
    /// A head was begun: 408.
    Head,
    /// A body was begun: 408.
    Body,
    /// The answer is not taken: drop the connection.
    Write,
    /// The client goes on sending after the last answer: drop the connection.
    Linger,
}

/// One connection. Moments are microseconds since `born`, plus one; 0 is "not now".
#[derive(Debug)]
pub struct Wire {
    born: Instant,
    /// Heads that the door has let through, a refusal's stand-in among them.
    heads: AtomicU64,
    /// Requests that hyper has handed to the service.
    served: AtomicU64,
    /// Requests whose answer is complete or given up.
    answered: AtomicU64,
    /// The request that hyper works on was handed to the service.
    serving_since: AtomicU64,
    /// The door has seen the end of the last request, and nothing behind it.
    between: AtomicBool,
    idle_since: AtomicU64,
    head_since: AtomicU64,
    body_since: AtomicU64,
    write_since: AtomicU64,
    closing_since: AtomicU64,
    /// When an idle connection ends, however long it has been idle.
    leaves_at: AtomicU64,
    /// Request number (from 1) and why its head is refused.
    refused_head: OnceLock<(u64, Code)>,
    /// Request number (from 1) and what broke its body.
    broken_body: OnceLock<(u64, Code)>,
    expired: OnceLock<Expiry>,
    /// Bytes came behind a CONNECT.
    early: AtomicBool,
    /// The latest CONNECT led nowhere, and the door does not know yet.
    connect_refused: AtomicBool,
    /// The last answer is a switch to another protocol.
    switched: AtomicBool,
    /// The door waits for the answer to a request to upgrade.
    waiting: Mutex<Option<Waker>>,
}

impl Wire {
    /// `born`: when the connection was accepted.
    pub fn since(born: Instant) -> Wire {
        Wire {
            born,
            heads: AtomicU64::new(0),
            served: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            serving_since: AtomicU64::new(0),
            between: AtomicBool::new(false),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            body_since: AtomicU64::new(0),
            write_since: AtomicU64::new(0),
            closing_since: AtomicU64::new(0),
            leaves_at: AtomicU64::new(0),
            refused_head: OnceLock::new(),
            broken_body: OnceLock::new(),
            expired: OnceLock::new(),
            early: AtomicBool::new(false),
            connect_refused: AtomicBool::new(false),
            switched: AtomicBool::new(false),
            waiting: Mutex::new(None),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX - 1) + 1
    }

    // --- the door -----------------------------------------------------------------------------------------------

    pub(super) fn heads_are(&self, heads: u64) {
        self.heads.store(heads, Relaxed);
    }
    /// Nothing of a request is under way, or something is.
    pub(super) fn between(&self, between: bool) {
        self.between.store(between, Relaxed);
    }
    /// A head's first bytes came, or (`false`) it is complete.
    pub(super) fn in_head(&self, begun: bool) {
        mark(&self.head_since, begun, || self.now());
    }
    /// Somebody waits for the client's body, or no longer.
    pub(super) fn in_body(&self, waiting: bool) {
        mark(&self.body_since, waiting, || self.now());
    }
    /// The client does not take bytes, or does again.
    pub(super) fn write_blocked(&self, blocked: bool) {
        mark(&self.write_since, blocked, || self.now());
    }
    /// Our side is closed; the client may read on for a while.
    pub(super) fn closing(&self) {
        mark(&self.closing_since, true, || self.now());
    }
    pub(super) fn refuse_head(&self, code: Code) {
        let number = self.heads.fetch_add(1, Relaxed) + 1;
        // The first refusal shuts the gate: there is no second one.
        let _ = self.refused_head.set((number, code));
    }
    pub(super) fn break_body(&self, code: Code) {
        let _ = self.broken_body.set((self.heads.load(Relaxed), code));
    }
    /// Bytes came behind a CONNECT: before its answer, unless that is on its way.
    pub(super) fn came_early(&self, came: bool) {
        if came {
            self.early.store(true, Relaxed);
        }
    }
    /// The door may look for requests again. Once for each CONNECT that was refused.
    pub(super) fn is_connect_over(&self) -> bool {
        self.connect_refused.swap(false, Relaxed)
    }
    /// Whether every request is answered, the last one with something else than a switch to another protocol. If not,
    /// the task is woken when that changes.
    pub(super) fn is_answered(&self, cx: &Context<'_>) -> bool {
        if !self.switched.load(Relaxed) && self.answered.load(Relaxed) >= self.heads.load(Relaxed) {
            return true;
        }
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        false
    }
    pub(super) fn is_body_broken(&self) -> bool {
        self.broken_body.get().is_some()
    }
    pub(super) fn expired(&self) -> Option<Expiry> {
        self.expired.get().copied()
    }

    // --- the service --------------------------------------------------------------------------------------------

    /// The next request's number, from 1.
    pub(super) fn serve(&self) -> u64 {
        self.serving_since.store(self.now(), Relaxed);
        self.served.fetch_add(1, Relaxed) + 1
    }
    /// Why request `number` is refused: what the service got in its place is the door's stand-in.
    pub(super) fn refusal(&self, number: u64) -> Option<Code> {
        self.refused_head
            .get()
            .filter(|(refused, _)| *refused == number)
            .map(|(_, code)| *code)
    }
    /// What broke the body of request `number`, if the client's bytes did.
    pub(super) fn broken(&self, number: u64) -> Option<Code> {
        self.broken_body
            .get()
            .filter(|(broken, _)| *broken == number)
            .map(|(_, code)| *code)
    }
    /// Whether bytes have come behind a CONNECT that is not answered.
    pub(super) fn is_early(&self) -> bool {
        self.early.load(Relaxed)
    }
    /// A CONNECT leads nowhere.
    pub(super) fn connect_refused(&self) {
        self.connect_refused.store(true, Relaxed);
    }
    /// The answer is a switch to another protocol: no request follows.
    pub(super) fn switch(&self) {
        self.switched.store(true, Relaxed);
    }
    pub(super) fn answered(&self) {
        self.serving_since.store(0, Relaxed);
        self.idle_since.store(self.now(), Relaxed);
        self.answered.fetch_add(1, Relaxed);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = waiting.take() {
            waiting.wake();
        }
    }

    // --- the connection's task ----------------------------------------------------------------------------------

    /// When which patience ends, as things stand. `None`: nothing is asked of the client now.
    pub(super) fn deadline(&self, patience: &Patience) -> Option<(Instant, Expiry)> {
        let at = |since: u64, patience: Duration| {
            self.born + Duration::from_micros(since - 1) + patience
        };
        let since = self.closing_since.load(Relaxed);
        if since != 0 {
            return Some((at(since, LINGER), Expiry::Linger));
        }
        let since = self.write_since.load(Relaxed);
        if since != 0 {
            let next = at(since, patience.write);
            // Whoever takes a byte now and then has no more time for the whole.
            let until = match self.serving_since.load(Relaxed) {
                0 => next,
                begun => next.min(at(begun, patience.exchange + LINGER)),
            };
            return Some((until, Expiry::Write));
        }
        if self.expired.get().is_some() {
            return None;
        }
        let heads = self.heads.load(Relaxed);
        if heads > self.answered.load(Relaxed) {
            let since = self.body_since.load(Relaxed);
            return (since != 0).then(|| (at(since, patience.body), Expiry::Body));
        }
        let since = self.head_since.load(Relaxed);
        if since != 0 {
            let begun = if heads == 0 { 1 } else { since };
            return Some((at(begun, patience.head), Expiry::Head));
        }
        let idle = match heads {
            0 => self.born + patience.head,
            _ => at(self.idle_since.load(Relaxed).max(1), patience.idle),
        };
        let until = match self.leaves_at.load(Relaxed) {
            0 => idle,
            leaves => idle.min(at(leaves, Duration::ZERO)),
        };
        Some((until, Expiry::Idle))
    }

    /// A request is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.heads.load(Relaxed) > self.answered.load(Relaxed)
    }

    /// From now on, the connection may be idle for so long.
    pub(super) fn leave_within(&self, most: Duration) {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX / 2);
        self.leaves_at
            .store(self.now().saturating_add(most), Relaxed);
    }

    /// Whether it is about to end.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaves_at.load(Relaxed) != 0
    }

    /// When a connection on which nothing is under way may let go of what it does not need until the next request.
    pub(super) fn dozes_at(&self, patience: &Patience) -> Option<Instant> {
        if !self.between.load(Relaxed) {
            return None;
        }
        let dozing = Patience {
            idle: patience.awake,
            ..*patience
        };
        match self.deadline(&dozing) {
            Some((at, Expiry::Idle)) if self.heads.load(Relaxed) > 0 => Some(at),
            _ => None,
        }
    }

    pub(super) fn expire(&self, expiry: Expiry) {
        let _ = self.expired.set(expiry);
    }
}

/// Notes the moment when `on` begins; keeps it while it lasts.
pub(super) fn mark(moment: &AtomicU64, on: bool, now: impl FnOnce() -> u64) {
    match (on, moment.load(Relaxed)) {
        (true, 0) => moment.store(now(), Relaxed),
        (false, 1..) => moment.store(0, Relaxed),
        _ => {}
    }
}
