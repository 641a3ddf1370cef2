//! What the parties of an HTTP/2 connection share, as [`Wire`](super::wire::Wire) is it for HTTP/1.1: the sluice sees
//! the bytes, hyper opens streams, the connection's task keeps the time. Counts and moments only.

use super::wire::{Expiry, LINGER, Patience, mark};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::Instant;

/// One connection. Moments are microseconds since `born`, plus one; 0 is "not now".
#[derive(Debug)]
pub(super) struct Pulse {
    born: Instant,
    opened: AtomicU64,
    /// Streams whose answer is complete or given up.
    ended: AtomicU64,
    idle_since: AtomicU64,
    head_since: AtomicU64,
    write_since: AtomicU64,
    closing_since: AtomicU64,
    /// When the client last took bytes; noted while closing.
    taken_since: AtomicU64,
}

impl Pulse {
    /// `born`: when the connection was accepted.
    pub(super) fn since(born: Instant) -> Pulse {
        Pulse {
            born,
            opened: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            write_since: AtomicU64::new(0),
            closing_since: AtomicU64::new(0),
            taken_since: AtomicU64::new(0),
        }
    }

    /// Microseconds since `born`, plus one.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX - 1) + 1
    }

    /// The client has begun something that it must finish, or it is finished.
    pub(super) fn in_head(&self, begun: bool) {
        mark(&self.head_since, begun, || self.now());
    }
    /// The client does not take bytes, or does again.
    pub(super) fn write_blocked(&self, blocked: bool) {
        mark(&self.write_since, blocked, || self.now());
    }
    /// The client takes bytes: what of an answer hyper still holds goes on its way, also when all is answered.
    pub(super) fn took(&self) {
        if self.closing_since.load(Relaxed) != 0 {
            self.taken_since.store(self.now(), Relaxed);
        }
    }
    /// The connection has been told to end.
    pub(super) fn closing(&self) {
        mark(&self.closing_since, true, || self.now());
    }
    pub(super) fn opened(&self) {
        self.opened.fetch_add(1, Relaxed);
    }
    pub(super) fn ended(&self) {
        self.idle_since.store(self.now(), Relaxed);
        self.ended.fetch_add(1, Relaxed);
    }

    /// When which patience ends, as things stand. `None`: nothing is asked of the client now.
    pub(super) fn deadline(&self, patience: &Patience) -> Option<(Instant, Expiry)> {
        let at = |since: u64, patience: Duration| {
            self.born + Duration::from_micros(since.saturating_sub(1)) + patience
        };
        let moment = |since: &AtomicU64| Some(since.load(Relaxed)).filter(|since| *since != 0);
        let opened = self.opened.load(Relaxed);
        // The streams that are open may end before the connection does.
        let quiet = opened == self.ended.load(Relaxed);
        if let Some(since) = moment(&self.closing_since).filter(|_| quiet) {
            let since = since
                .max(self.idle_since.load(Relaxed))
                .max(self.taken_since.load(Relaxed));
            return Some((at(since, LINGER), Expiry::Linger));
        }
        if let Some(since) = moment(&self.write_since) {
            return Some((at(since, patience.write), Expiry::Write));
        }
        if let Some(since) = moment(&self.head_since) {
            let since = if opened == 0 { 1 } else { since };
            return Some((at(since, patience.head), Expiry::Head));
        }
        match opened {
            0 => Some((at(1, patience.head), Expiry::Idle)),
            _ if quiet => Some((
                at(self.idle_since.load(Relaxed), patience.idle),
                Expiry::Idle,
            )),
            _ => None,
        }
    }
}
