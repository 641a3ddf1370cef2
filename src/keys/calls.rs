//! Calls to KMSs: so many at a time, the urgent first, each with a deadline, none into a wall.

use super::{Binding, Observe};
use crate::dek::Scope;
use crate::kms::{Failure, Kms, KmsError, Unwrapped};
use crate::token::{KekId, kek_id};
use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Who goes first when calls have to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rank {
    /// Keeps what is in use alive.
    Renewal,
    /// Something new; an outsider can ask for much of it.
    First,
}

/// A KEK behind its KMS, and how well that was reached of late.
pub struct Kek {
    kms: Arc<dyn Kms>,
    name: String,
    pub uri: String,
    pub id: KekId,
    breaker: Mutex<Breaker>,
}

impl Kek {
    pub fn new(binding: &Binding) -> Kek {
        let uri = binding.kms.uri(&binding.kek);
        Kek {
            kms: Arc::clone(&binding.kms),
            name: binding.kek.clone(),
            id: kek_id(&uri),
            uri,
            breaker: Mutex::default(),
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a call would not be made now, because the last ones reached nobody.
    pub fn is_unreachable_at(&self, now: Instant) -> bool {
        self.breaker().wait_at(now).is_some()
    }
}

/// After some calls that reached nobody, the next are answered here, at once, for a while.
#[derive(Default)]
struct Breaker {
    rounds: u32,
    /// Calls sent before the last change say nothing new.
    changed: Option<Instant>,
    open_until: Option<Instant>,
}

/// Isolated failures are no outage.
const ROUNDS_FREE: u32 = 3;
const OPEN_LEAST: Duration = Duration::from_millis(500);
/// Also how long after a KMS is back it may go unnoticed.
const OPEN_MOST: Duration = Duration::from_secs(5);
const RETRY_AFTER_MOST: Duration = Duration::from_secs(60);

impl Breaker {
    fn wait_at(&self, now: Instant) -> Option<Duration> {
        let left = self.open_until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Whether to call. After a pause one call goes ahead and the others wait for what it brings.
    fn admit_at(&mut self, now: Instant, deadline: Duration) -> Result<(), Duration> {
        if let Some(left) = self.wait_at(now) {
            return Err(left);
        }
        if self.rounds >= ROUNDS_FREE {
            self.open_until = Some(now + deadline);
        }
        Ok(())
    }

    fn unreached(&mut self, sent: Instant, now: Instant, retry_after: Option<Duration>) {
        if self.changed.is_some_and(|changed| sent < changed) {
            return;
        }
        self.rounds = self.rounds.saturating_add(1);
        let doublings = self.rounds.saturating_sub(ROUNDS_FREE).min(8);
        let pause = match retry_after {
            Some(asked) => Some(asked.min(RETRY_AFTER_MOST)),
            None if self.rounds < ROUNDS_FREE => None,
            None => Some((OPEN_LEAST * (1 << doublings)).min(OPEN_MOST)),
        };
        self.open_until = pause.map(|pause| now + pause);
        self.changed = Some(now);
    }

    fn reached(&mut self) {
        *self = Breaker::default();
    }
}

/// The way to all KMSs.
pub struct Calls {
    turnstile: Arc<Turnstile>,
    deadline: Duration,
    observe: Arc<dyn Observe>,
}

impl Calls {
    pub fn new(calls_max: usize, deadline: Duration, observe: Arc<dyn Observe>) -> Calls {
        Calls {
            turnstile: Arc::new(Turnstile {
                queues: Mutex::new(Queues {
                    free: calls_max,
                    urgent: VecDeque::new(),
                    ordinary: VecDeque::new(),
                }),
            }),
            deadline,
            observe,
        }
    }

    /// Waits for a turn. A waiter that is dropped gives its turn on.
    pub async fn enter(&self, rank: Rank) -> Permit {
        Turnstile::enter(&self.turnstile, rank).await
    }

    pub async fn wrap(
        &self,
        _permit: &Permit,
        kek: &Kek,
        dek: &[u8; 32],
        scope: &Scope,
    ) -> Result<Vec<u8>, KmsError> {
        self.call("wrap", kek, kek.kms.wrap(&kek.name, dek, scope))
            .await
    }

    pub async fn unwrap(
        &self,
        _permit: &Permit,
        kek: &Kek,
        blob: &[u8],
        scope: &Scope,
    ) -> Result<Unwrapped, KmsError> {
        self.call("unwrap", kek, kek.kms.unwrap(&kek.name, blob, scope))
            .await
    }

    async fn call<T>(
        &self,
        verb: &'static str,
        kek: &Kek,
        answer: impl Future<Output = Result<T, KmsError>>,
    ) -> Result<T, KmsError> {
        let sent = Instant::now();
        if let Err(left) = kek.breaker().admit_at(sent, self.deadline) {
            return Err(KmsError {
                retry_after: Some(left),
                ..KmsError::new(
                    Failure::Unreachable,
                    "not called: the last calls reached nobody",
                )
            });
        }
        let answer = match tokio::time::timeout(self.deadline, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(KmsError::new(Failure::Unreachable, "no answer in time")),
        };
        let now = Instant::now();
        let outcome = match &answer {
            Err(error) if error.failure == Failure::Unreachable => {
                kek.breaker().unreached(sent, now, error.retry_after);
                error.failure.word()
            }
            Err(error) => {
                kek.breaker().reached();
                error.failure.word()
            }
            Ok(_) => {
                kek.breaker().reached();
                "ok"
            }
        };
        if let Err(error) = &answer {
            tracing::warn!(kms = kek.kms.name(), kek = %kek.uri, verb, %error, "KMS call failed");
        }
        let micros = u64::try_from((now - sent).as_micros()).unwrap_or(u64::MAX);
        self.observe.kms_call(kek.kms.name(), verb, outcome, micros);
        answer
    }
}

/// So many at a time; of those who wait, renewals go first.
struct Turnstile {
    queues: Mutex<Queues>,
}

struct Queues {
    free: usize,
    urgent: VecDeque<oneshot::Sender<()>>,
    ordinary: VecDeque<oneshot::Sender<()>>,
}

/// A turn; given on when dropped.
pub struct Permit {
    turnstile: Arc<Turnstile>,
}

impl Turnstile {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn enter(turnstile: &Arc<Turnstile>, rank: Rank) -> Permit {
        let called = {
            let mut queues = turnstile.queues();
            if queues.free > 0 {
                queues.free -= 1;
                None
            } else {
                let (call, called) = oneshot::channel();
                match rank {
                    Rank::Renewal => queues.urgent.push_back(call),
                    Rank::First => queues.ordinary.push_back(call),
                }
                Some(called)
            }
        };
        if let Some(called) = called {
            let mut waiter = Waiter {
                turnstile,
                called,
                done: false,
            };
            // The sender lives in the queue until it sends.
            let _ = (&mut waiter.called).await;
            waiter.done = true;
        }
        Permit {
            turnstile: Arc::clone(turnstile),
        }
    }

    fn leave(&self) {
        let mut queues = self.queues();
        loop {
            let next = queues
                .urgent
                .pop_front()
                .or_else(|| queues.ordinary.pop_front());
            match next {
                // Those who went away meanwhile are passed over.
                Some(call) => {
                    if call.send(()).is_ok() {
                        return;
                    }
                }
                None => {
                    queues.free += 1;
                    return;
                }
            }
        }
    }
}

struct Waiter<'a> {
    turnstile: &'a Turnstile,
    called: oneshot::Receiver<()>,
    done: bool,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.called.close();
        // Called just before it went away: the turn is given on.
        if self.called.try_recv().is_ok() {
            self.turnstile.leave();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.turnstile.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    const SECOND: Duration = Duration::from_secs(1);

    fn turnstile(free: usize) -> Arc<Turnstile> {
        Arc::new(Turnstile {
            queues: Mutex::new(Queues {
                free,
                urgent: VecDeque::new(),
                ordinary: VecDeque::new(),
            }),
        })
    }

    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }

    #[test]
    fn renewals_go_first_and_then_by_arrival() {
        let turnstile = turnstile(1);
        let held = poll(pin!(Turnstile::enter(&turnstile, Rank::First))).unwrap();
        let mut first = pin!(Turnstile::enter(&turnstile, Rank::First));
        let mut second = pin!(Turnstile::enter(&turnstile, Rank::First));
        let mut urgent = pin!(Turnstile::enter(&turnstile, Rank::Renewal));
        assert!(poll(first.as_mut()).is_none());
        assert!(poll(second.as_mut()).is_none());
        assert!(poll(urgent.as_mut()).is_none());
        drop(held);
        assert!(poll(first.as_mut()).is_none());
        let held = poll(urgent.as_mut()).unwrap();
        drop(held);
        assert!(poll(second.as_mut()).is_none());
        drop(poll(first.as_mut()).unwrap());
        drop(poll(second.as_mut()).unwrap());
        assert_eq!(turnstile.queues().free, 1);
    }

    #[test]
    fn a_waiter_that_goes_away_loses_no_turn() {
        let turnstile = turnstile(1);
        let held = poll(pin!(Turnstile::enter(&turnstile, Rank::First))).unwrap();
        let mut stays = Box::pin(Turnstile::enter(&turnstile, Rank::First));
        {
            let mut leaves_early = Box::pin(Turnstile::enter(&turnstile, Rank::Renewal));
            assert!(poll(leaves_early.as_mut()).is_none());
        }
        let mut leaves_late = Box::pin(Turnstile::enter(&turnstile, Rank::Renewal));
        assert!(poll(leaves_late.as_mut()).is_none());
        assert!(poll(stays.as_mut()).is_none());
        drop(held);
        // Called, but it goes away before it looks.
        drop(leaves_late);
        drop(poll(stays.as_mut()).expect("the turn was given on"));
        assert_eq!(turnstile.queues().free, 1);
    }

    #[test]
    fn the_breaker_opens_after_three_rounds_and_probes_with_one() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        for round in 0..3 {
            // A whole volley counts once.
            for _ in 0..20 {
                assert_eq!(breaker.admit_at(now, SECOND), Ok(()), "round {round}");
            }
            let sent = now;
            now += SECOND;
            for _ in 0..20 {
                breaker.unreached(sent, now, None);
            }
        }
        assert_eq!(breaker.admit_at(now, SECOND), Err(OPEN_LEAST));
        now += OPEN_LEAST;
        assert_eq!(breaker.admit_at(now, SECOND), Ok(()), "the probe");
        assert_eq!(breaker.admit_at(now, SECOND), Err(SECOND), "no other");
        for _ in 0..20 {
            let sent = now;
            now += SECOND;
            breaker.unreached(sent, now, None);
        }
        assert_eq!(breaker.wait_at(now), Some(OPEN_MOST));
        breaker.reached();
        assert_eq!(breaker.admit_at(now, SECOND), Ok(()));
        assert_eq!(breaker.admit_at(now, SECOND), Ok(()));
    }

    #[test]
    fn a_kms_that_asks_for_days_is_asked_in_a_minute() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        breaker.unreached(now, now, Some(SECOND * 86_400));
        assert_eq!(breaker.wait_at(now), Some(RETRY_AFTER_MOST));
    }
}
