//! A KMS for tests: it keeps the promises of [`Kms`], and does what it is told besides.
//!
//! It wraps in earnest (AES-256-GCM, context authenticated, versions), keeps a log of calls, takes its time
//! by tokio's clock, fails by script or by switch, and can be held at a gate. It is never reached from the
//! settings; its KEKs are made up from their names.

use super::{Answer, Failure, Kms, KmsError, Unwrapped, context_aad};
use crate::dek::Scope;
use crate::seal::{gcm256_open, gcm256_seal};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Which verb was called.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verb {
    /// [`Kms::wrap`].
    Wrap,
    /// [`Kms::unwrap`].
    Unwrap,
}

/// One call that reached the fake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// What was asked for.
    pub verb: Verb,
    /// The KEK's name in this KMS.
    pub kek: String,
    /// The context, authenticated or not.
    pub scope: Scope,
    /// The blob to be unwrapped, or the one that was made (empty if none was).
    pub blob: Vec<u8>,
}

/// How the fake answers until told otherwise.
#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Well,
    Failing(KmsError),
    /// Never answers.
    Hanging,
    /// Answers an unwrap with these bytes.
    Answering(Vec<u8>),
}

/// See the module.
pub struct Fake {
    name: String,
    authenticates_context: bool,
    inner: Mutex<Inner>,
    gate: Semaphore,
}

#[derive(Default)]
struct Inner {
    calls: Vec<Call>,
    in_flight: usize,
    in_flight_max: usize,
    latency: Duration,
    state: State,
    script: VecDeque<Option<KmsError>>,
    failing_keks: HashMap<String, Failure>,
    failing_verbs: HashMap<Verb, Failure>,
    failing_blobs: HashMap<Vec<u8>, Failure>,
    versions: HashMap<String, u32>,
    nonces: u64,
    gated: bool,
}

impl Fake {
    /// All is well, no latency, and the context authenticated. `name` stands in its URIs, and its KEKs derive from it.
    pub fn new(name: &str) -> Fake {
        Fake {
            name: name.to_owned(),
            authenticates_context: true,
            inner: Mutex::default(),
            gate: Semaphore::new(0),
        }
    }

    /// A fake that, like transit, authenticates no context.
    pub fn without_context(name: &str) -> Fake {
        Fake {
            authenticates_context: false,
            ..Fake::new(name)
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calls so far, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.inner().calls.clone()
    }

    /// How many calls of one verb there were.
    pub fn count(&self, verb: Verb) -> usize {
        self.inner().calls.iter().filter(|c| c.verb == verb).count()
    }

    /// Calls under way now, and the most there ever were.
    pub fn in_flight(&self) -> (usize, usize) {
        let inner = self.inner();
        (inner.in_flight, inner.in_flight_max)
    }

    /// How long each answer takes.
    pub fn set_latency(&self, latency: Duration) {
        self.inner().latency = latency;
    }

    /// All calls fail like this, until [`Fake::recover`].
    pub fn fail(&self, failure: Failure) {
        self.inner().state = State::Failing(KmsError::new(failure, "as told"));
    }

    /// As [`Fake::fail`] with `Unreachable` and a time to be left alone.
    pub fn throttle(&self, retry_after: Duration) {
        self.inner().state = State::Failing(KmsError {
            retry_after: Some(retry_after),
            ..KmsError::new(Failure::Unreachable, "throttled")
        });
    }

    /// All calls on one KEK fail like this, until [`Fake::recover`].
    pub fn fail_kek(&self, kek: &str, failure: Failure) {
        self.inner().failing_keks.insert(kek.to_owned(), failure);
    }

    /// All calls of one verb fail like this, until [`Fake::recover`].
    pub fn fail_verb(&self, verb: Verb, failure: Failure) {
        self.inner().failing_verbs.insert(verb, failure);
    }

    /// All unwraps of one blob fail like this, until [`Fake::recover`].
    pub fn fail_blob(&self, blob: &[u8], failure: Failure) {
        self.inner().failing_blobs.insert(blob.to_vec(), failure);
    }

    /// The next calls fail like this, one by one; None is a call that goes well.
    pub fn script(&self, outcomes: impl IntoIterator<Item = Option<Failure>>) {
        let script = outcomes
            .into_iter()
            .map(|outcome| outcome.map(|failure| KmsError::new(failure, "by script")));
        self.inner().script.extend(script);
    }

    /// Calls never return, until [`Fake::recover`] (for those that come after).
    pub fn hang(&self) {
        self.inner().state = State::Hanging;
    }

    /// Unwraps return these bytes, whatever the blob.
    pub fn answer(&self, bytes: &[u8]) {
        self.inner().state = State::Answering(bytes.to_vec());
    }

    /// All is well again.
    pub fn recover(&self) {
        let mut inner = self.inner();
        inner.state = State::Well;
        inner.failing_keks.clear();
        inner.failing_verbs.clear();
        inner.failing_blobs.clear();
        inner.script.clear();
    }

    /// From now on each call waits at a gate, until [`Fake::let_through`].
    pub fn close_gate(&self) {
        self.inner().gated = true;
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets so many calls pass the gate.
    pub fn let_through(&self, calls: usize) {
        self.gate.add_permits(calls);
    }

    /// Later calls do not stop at the gate, and those that stand there go on.
    pub fn open_gate(&self) {
        self.inner().gated = false;
        self.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// A new version of the KEK becomes the current one; blobs of the older ones still open.
    pub fn rotate(&self, kek: &str) {
        *self.inner().versions.entry(kek.to_owned()).or_insert(1) += 1;
    }

    fn kek(&self, kek: &str, version: u32) -> [u8; 32] {
        let text = format!("fake\0{}\0{kek}\0{version}", self.name);
        Sha256::digest(text).into()
    }

    fn aad(&self, scope: &Scope) -> Vec<u8> {
        if self.authenticates_context {
            context_aad(scope).unwrap_or_default()
        } else {
            Vec::new()
        }
    }

    /// What every call goes through: log, latency, gate, script, state. Returns the call's index in the log.
    async fn pass(
        &self,
        verb: Verb,
        kek: &str,
        scope: &Scope,
        blob: &[u8],
    ) -> Result<usize, KmsError> {
        let (index, latency, gated, state, scripted) = {
            let mut inner = self.inner();
            inner.calls.push(Call {
                verb,
                kek: kek.to_owned(),
                scope: scope.clone(),
                blob: blob.to_vec(),
            });
            inner.in_flight += 1;
            inner.in_flight_max = inner.in_flight_max.max(inner.in_flight);
            let switched = inner
                .failing_keks
                .get(kek)
                .or(inner.failing_verbs.get(&verb))
                .or(inner.failing_blobs.get(blob))
                .map(|failure| KmsError::new(*failure, "as told"));
            let scripted = inner.script.pop_front().flatten().or(switched);
            (
                inner.calls.len() - 1,
                inner.latency,
                inner.gated,
                inner.state.clone(),
                scripted,
            )
        };
        let _under_way = UnderWay(self);
        if gated && let Ok(permit) = self.gate.acquire().await {
            permit.forget();
        }
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        if let Some(error) = scripted {
            return Err(error);
        }
        match state {
            State::Failing(error) => Err(error),
            State::Hanging => std::future::pending().await,
            State::Well | State::Answering(_) => Ok(index),
        }
    }
}

/// Counts the call out again, also when its future is dropped.
struct UnderWay<'a>(&'a Fake);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.inner().in_flight -= 1;
    }
}

impl Kms for Fake {
    fn name(&self) -> &str {
        &self.name
    }

    fn uri(&self, kek: &str) -> String {
        format!("fake:{}/{kek}", self.name)
    }

    fn authenticates_context(&self) -> bool {
        self.authenticates_context
    }

    fn version(&self, blob: &[u8]) -> Option<String> {
        super::leading_version(blob)
    }

    fn wrap<'a>(
        &'a self,
        kek: &'a str,
        dek: &'a [u8; 32],
        scope: &'a Scope,
    ) -> Answer<'a, Vec<u8>> {
        Box::pin(async move {
            let index = self.pass(Verb::Wrap, kek, scope, &[]).await?;
            let mut inner = self.inner();
            let version = *inner.versions.get(kek).unwrap_or(&1);
            inner.nonces += 1;
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&inner.nonces.to_be_bytes());
            let sealed = gcm256_seal(&self.kek(kek, version), &nonce, &self.aad(scope), dek);
            let blob = [&version.to_be_bytes()[..], &nonce, &sealed].concat();
            inner.calls[index].blob.clone_from(&blob);
            Ok(blob)
        })
    }

    fn unwrap<'a>(
        &'a self,
        kek: &'a str,
        blob: &'a [u8],
        scope: &'a Scope,
    ) -> Answer<'a, Unwrapped> {
        Box::pin(async move {
            self.pass(Verb::Unwrap, kek, scope, blob).await?;
            let (state, current) = {
                let inner = self.inner();
                let current = *inner.versions.get(kek).unwrap_or(&1);
                (inner.state.clone(), current)
            };
            if let State::Answering(bytes) = state {
                return Ok(Unwrapped {
                    dek: bytes.into(),
                    superseded: false,
                });
            }
            let malformed = || KmsError::new(Failure::Malformed, "not a blob of this KEK");
            let (version, rest) = blob.split_first_chunk().ok_or_else(malformed)?;
            let (nonce, sealed) = rest.split_first_chunk().ok_or_else(malformed)?;
            let version = u32::from_be_bytes(*version);
            let dek = gcm256_open(&self.kek(kek, version), nonce, &self.aad(scope), sealed)
                .map_err(|_| malformed())?;
            Ok(Unwrapped {
                dek,
                superseded: version != current,
            })
        })
    }
}
