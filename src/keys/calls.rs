//! Calls to KMSs: so many at a time to each, the urgent first, each with a deadline, repeated within a budget, none into a wall.

use super::breaker::{ATTEMPTS_MAX, Breaker, Budget, Nearness, retry_pause};
use super::turnstile::{Rank, Turnstile};
use super::{Binding, Observe};
use crate::dek::Scope;
use crate::kms::{Answer, Failure, Kms, KmsError, Random, Unwrapped};
use crate::token::{KekId, kek_id};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A KMS as the room calls it, and how well it was reached of late. All its KEKs share one.
pub struct Line {
    kms: Arc<dyn Kms>,
    turnstile: Arc<Turnstile>,
    health: Mutex<Health>,
    withheld: AtomicU64,
}

#[derive(Default)]
struct Health {
    breaker: Breaker,
    budget: Budget,
    nearness: Nearness,
}

impl Line {
    /// `calls_max`: under way at a time.
    pub fn new(kms: Arc<dyn Kms>, calls_max: usize) -> Line {
        Line {
            kms,
            turnstile: Turnstile::new(calls_max),
            health: Mutex::default(),
            withheld: AtomicU64::new(0),
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is the way to this KMS.
    pub fn is_to(&self, kms: &Arc<dyn Kms>) -> bool {
        Arc::ptr_eq(&self.kms, kms)
    }

    /// What the settings call it.
    pub fn name(&self) -> &str {
        self.kms.name()
    }

    /// Whether it was not reached of late, and is left alone but for calls that find out whether it is back.
    pub fn is_left_alone_at(&self, now: Instant) -> bool {
        self.health().breaker.is_open_at(now)
    }

    /// Calls that were not made because of that.
    pub fn withheld(&self) -> u64 {
        self.withheld.load(Relaxed)
    }

    /// How long no call will be made, because the last ones reached nobody. None: one may be.
    pub fn left_alone_at(&self, now: Instant) -> Option<Duration> {
        self.health().breaker.wait_at(now)
    }
}

/// A KEK behind its KMS.
pub struct Kek {
    pub line: Arc<Line>,
    name: String,
    pub uri: String,
    pub id: KekId,
    pub anyone_may_wrap: bool,
}

impl Kek {
    pub fn new(binding: &Binding, line: Arc<Line>) -> Kek {
        let uri = binding.kms.uri(&binding.kek);
        Kek {
            line,
            name: binding.kek.clone(),
            id: kek_id(&uri),
            anyone_may_wrap: binding.kms.anyone_may_wrap(&binding.kek),
            uri,
        }
    }

    /// Whether a call would not be made now, because the last ones reached nobody.
    pub fn is_unreachable_at(&self, now: Instant) -> bool {
        self.line.left_alone_at(now).is_some()
    }

    /// Smaller is asked first: one that answers before one that does not, then the nearer one.
    pub fn rank_at(&self, now: Instant) -> (bool, u32) {
        let health = self.line.health();
        (
            health.breaker.wait_at(now).is_some(),
            health.nearness.rank(),
        )
    }
}

/// How a call is made.
#[derive(Clone, Copy)]
pub struct Manner<'a> {
    pub rank: Rank,
    /// Whether a call that reached nobody is made again: where nobody else can be asked.
    pub again: bool,
    /// Asked when its turn comes: those who wanted it may have gone.
    pub wanted: &'a (dyn Fn() -> bool + Sync),
}

/// Why a call brought nothing.
pub enum Unanswered {
    Failed(KmsError),
    /// It was not made: nobody wants it any more.
    Unwanted,
}

/// What a call brought, and when it was sent.
pub struct Answered<T> {
    pub answer: T,
    pub sent: Instant,
}

/// The way to all KMSs.
pub struct Calls {
    deadline: Duration,
    random: Random,
    observe: Arc<dyn Observe>,
}

impl Calls {
    pub fn new(deadline: Duration, random: Random, observe: Arc<dyn Observe>) -> Calls {
        Calls {
            deadline,
            random,
            observe,
        }
    }

    /// A point in a range. Without randomness its beginning, which is safe.
    pub fn luck(&self) -> u16 {
        let mut bytes = [0; 2];
        match (self.random)(&mut bytes) {
            Ok(()) => u16::from_be_bytes(bytes),
            Err(_) => 0,
        }
    }

    pub async fn wrap(
        &self,
        manner: Manner<'_>,
        kek: &Kek,
        dek: &[u8; 32],
        scope: &Scope,
    ) -> Result<Answered<Vec<u8>>, Unanswered> {
        let attempt = || kek.line.kms.wrap(&kek.name, dek, scope);
        self.call("wrap", manner, kek, attempt).await
    }

    pub async fn unwrap(
        &self,
        manner: Manner<'_>,
        kek: &Kek,
        blob: &[u8],
        scope: &Scope,
    ) -> Result<Answered<Unwrapped>, Unanswered> {
        let attempt = || kek.line.kms.unwrap(&kek.name, blob, scope);
        self.call("unwrap", manner, kek, attempt).await
    }

    /// Waits for a turn, then asks until there is an answer, or no more time, budget or hope.
    async fn call<'a, T>(
        &self,
        verb: &'static str,
        manner: Manner<'_>,
        kek: &Kek,
        attempt: impl Fn() -> Answer<'a, T>,
    ) -> Result<Answered<T>, Unanswered> {
        let line = &*kek.line;
        let _turn = Turnstile::enter(&line.turnstile, manner.rank).await;
        if !(manner.wanted)() {
            return Err(Unanswered::Unwanted);
        }
        let until = Instant::now() + self.deadline;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let sent = Instant::now();
            if let Err(left) = line.health().breaker.admit_at(sent) {
                line.withheld.fetch_add(1, Relaxed);
                return Err(Unanswered::Failed(KmsError {
                    retry_after: Some(left),
                    ..KmsError::new(
                        Failure::Unreachable,
                        "not called: the last calls reached nobody",
                    )
                }));
            }
            let error = match self.ask(verb, kek, sent, until, attempt()).await {
                Ok(answer) => return Ok(Answered { answer, sent }),
                Err(error) => error,
            };
            let pause = retry_pause(attempts, self.luck());
            let may_again = manner.again
                && error.failure == Failure::Unreachable
                && error.retry_after.is_none()
                && attempts < ATTEMPTS_MAX
                && Instant::now() + pause < until
                && line.left_alone_at(sent).is_none()
                && line.health().budget.spend();
            if !may_again {
                if error.failure == Failure::Unreachable {
                    let luck = self.luck();
                    let mut health = line.health();
                    let now = Instant::now();
                    health.breaker.unreached(sent, now, error.retry_after, luck);
                }
                return Err(Unanswered::Failed(error));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// One attempt, and what is learnt from it.
    async fn ask<T>(
        &self,
        verb: &'static str,
        kek: &Kek,
        sent: Instant,
        until: Instant,
        answer: Answer<'_, T>,
    ) -> Result<T, KmsError> {
        let line = &*kek.line;
        let under_way = UnderWay { line, sent };
        let answer = match tokio::time::timeout_at(until, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(KmsError::new(Failure::Unreachable, "no answer in time")),
        };
        std::mem::forget(under_way);
        let took = sent.elapsed();
        let outcome = match &answer {
            Err(error) => error.failure.word(),
            Ok(_) => "ok",
        };
        if outcome != Failure::Unreachable.word() {
            let mut health = line.health();
            health.breaker.reached();
            health.budget.earn();
            health.nearness.took(took);
        }
        if let Err(error) = &answer {
            tracing::warn!(kms = line.name(), kek = %kek.uri, verb, %error, "KMS call failed");
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.observe.kms_call(line.name(), verb, outcome, micros);
        answer
    }
}

/// A call that is given up without an answer has told something, too: how long it took at least.
struct UnderWay<'a> {
    line: &'a Line,
    sent: Instant,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let time = self.sent.elapsed();
        self.line.health().nearness.outrun(time);
    }
}
