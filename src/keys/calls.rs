//! Calls to KMSs: so many at a time, the urgent first, each with a deadline, none into a wall.

use super::breaker::Breaker;
use super::turnstile::{Permit, Rank, Turnstile};
use super::{Binding, Observe};
use crate::dek::Scope;
use crate::kms::{Failure, Kms, KmsError, Unwrapped};
use crate::token::{KekId, kek_id};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A KEK behind its KMS, and how well that was reached of late.
pub struct Kek {
    kms: Arc<dyn Kms>,
    name: String,
    pub uri: String,
    pub id: KekId,
    pub anyone_may_wrap: bool,
    breaker: Mutex<Breaker>,
}

impl Kek {
    pub fn new(binding: &Binding) -> Kek {
        let uri = binding.kms.uri(&binding.kek);
        Kek {
            kms: Arc::clone(&binding.kms),
            name: binding.kek.clone(),
            id: kek_id(&uri),
            anyone_may_wrap: binding.kms.anyone_may_wrap(&binding.kek),
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

/// The way to all KMSs.
pub struct Calls {
    turnstile: Arc<Turnstile>,
    deadline: Duration,
    observe: Arc<dyn Observe>,
}

impl Calls {
    pub fn new(calls_max: usize, deadline: Duration, observe: Arc<dyn Observe>) -> Calls {
        Calls {
            turnstile: Turnstile::new(calls_max),
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
