//! Changed policies under a running agent: found, checked, and put in force whole, or not at all.
//!
//! One task does it, one attempt at a time, so that nobody who hangs up leaves it half done. It is asked to by SIGHUP and
//! by the admin API, and looks at the files by itself. What is refused leaves the old policies in force; the log, the
//! metrics and `/readyz?verbose` say so. A request is handled under the policies that were in force when its head came.

use super::StartError;
use super::policies::{Fingerprint, Texts};
use super::prepare::check_coverage;
use super::stores::check_store;
use crate::admin::{self, Finding, Outcome, Readiness, Reloaded};
use crate::dek::{Needs, Scope, SealNeed};
use crate::diagnostic::Diagnostic;
use crate::keys::Keys;
use crate::metrics::{Metrics, PolicyReading};
use crate::policy::{self, Direction, Policies};
use crate::proxy::Proxy;
use crate::settings::Settings;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

/// Attempts that may wait for their turn; whoever asks beyond them waits to ask.
const WAITING_MAX: usize = 4;
/// Between two looks at files that have just changed: they are read when they are the same twice.
const SETTLE: Duration = Duration::from_millis(500);
/// Readings of files that change under our eyes, in one attempt.
const READINGS_MAX: usize = 5;
/// For a key that nobody needed so far to be had.
const KEY_PATIENCE: Duration = Duration::from_secs(5);
/// Findings of one attempt that are logged, each in a line of its own.
const LOGGED_MAX: usize = 20;
/// The readiness check that the version stands beside.
const CHECK: &str = "policy";

/// Who had the policies read again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// SIGHUP.
    Signal,
    /// `POST /-/reload`.
    Admin,
    /// The files changed.
    Files,
}

impl Trigger {
    fn word(self) -> &'static str {
        match self {
            Trigger::Signal => "SIGHUP",
            Trigger::Admin => "admin API",
            Trigger::Files => "files changed",
        }
    }
}

/// Asks the reloading task, and knows how it stands. A cheap clone shares it.
#[derive(Clone)]
pub struct Reloading {
    ask: mpsc::Sender<Asked>,
    reading: Arc<Mutex<PolicyReading>>,
}

struct Asked {
    trigger: Trigger,
    told: oneshot::Sender<Reloaded>,
}

impl Reloading {
    /// Reads and checks the policies, and puts them in force if they are good. None: the agent is about to end.
    pub async fn reload(&self, trigger: Trigger) -> Option<Reloaded> {
        let (told, answer) = oneshot::channel();
        self.ask.send(Asked { trigger, told }).await.ok()?;
        answer.await.ok()
    }

    /// The same, without waiting. Where attempts wait for their turn already, theirs are enough.
    pub fn ask(&self, trigger: Trigger) {
        let (told, _) = oneshot::channel();
        // Full, or the agent is about to end.
        let _ = self.ask.try_send(Asked { trigger, told });
    }

    /// For the metrics.
    pub fn reading(&self) -> PolicyReading {
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        reading.clone()
    }
}

impl admin::Reload for Reloading {
    fn reload(&self) -> Pin<Box<dyn Future<Output = Option<Reloaded>> + Send + '_>> {
        Box::pin(self.reload(Trigger::Admin))
    }
}

/// What new policies are held against.
#[derive(Clone)]
pub struct Stand {
    /// What the agent was started with.
    pub settings: Arc<Settings>,
    /// The names of the keys that were opened at the start.
    pub opened: Arc<[Arc<str>]>,
    /// The policies in force.
    pub in_force: Arc<Policies>,
}

/// What is needed to put other policies in force.
pub struct Reloader {
    /// Where the policies are. None: they did not come from files, and never change.
    pub paths: Option<Vec<PathBuf>>,
    /// What new policies have to fit.
    pub stand: Stand,
    /// The roads of all listeners, by name.
    pub roads: Vec<(Arc<str>, Arc<Proxy>)>,
    /// Where new keys are asked for.
    pub keys: Keys,
    /// Where accesses under new policies are counted.
    pub metrics: Arc<Metrics>,
    /// Where operators are told.
    pub readiness: Arc<Readiness>,
}

/// What was found, before it is in force or refused.
enum Found {
    Same,
    Bad(Option<Arc<str>>, Vec<Finding>),
    /// With what of the old protection they do not have.
    New(Arc<Policies>, Vec<Finding>),
}

impl Stand {
    /// Everything that can be said without the KMS. Long policies take a while to compile: not for an async thread.
    fn check(&self, texts: Texts) -> Found {
        if texts.are_whole() && texts.version() == *self.in_force.version() {
            return Found::Same;
        }
        let policies = match texts.policies(self.settings.environment.as_deref()) {
            Ok(policies) => policies,
            Err(found) => return Found::Bad(None, found.iter().map(finding).collect()),
        };
        let mut findings = Vec::new();
        if let Err(error) = check_coverage(&self.settings, &policies) {
            findings.push(refusal(&error));
        }
        if let Err(error) = check_store(&self.settings, &policies) {
            findings.push(refusal(&error));
        }
        let names = policies.keys();
        match self.settings.keys_for(&names) {
            Err(found) => findings.extend(found.iter().map(finding)),
            Ok(_) => {
                let unopened = names.iter().filter(|name| !self.opened.contains(name));
                findings.extend(unopened.map(|name| Finding {
                    code: "missing-key",
                    at: "settings".to_owned(),
                    message: format!("a policy uses the key `{name}`, which is made at a start"),
                    hint: Some("restart the agent".to_owned()),
                }));
            }
        }
        if !findings.is_empty() {
            return Found::Bad(Some(Arc::clone(policies.version())), findings);
        }
        let losses = losses(&self.in_force, &policies);
        Found::New(Arc::new(policies), losses)
    }
}

/// What of the old protection the new policies do not have.
fn losses(old: &Policies, new: &Policies) -> Vec<Finding> {
    let grave = [Direction::Weaker, Direction::Orphans];
    let changes = policy::compare(old, new).changes.into_iter();
    changes
        .filter(|change| grave.contains(&change.direction))
        .map(|change| Finding {
            code: change.code,
            at: change.about,
            message: format!("{}: {}", change.direction.word(), change.what),
            hint: None,
        })
        .collect()
}

impl Reloader {
    /// The handle, and the task itself, which never ends.
    pub fn start(self) -> (Reloading, impl Future<Output = ()>) {
        let (ask, asked) = mpsc::channel(WAITING_MAX);
        let reading = PolicyReading {
            version: Arc::clone(self.stand.in_force.version()),
            loaded_at: now(),
            ..PolicyReading::default()
        };
        let reading = Arc::new(Mutex::new(reading));
        let handle = Reloading {
            ask,
            reading: Arc::clone(&reading),
        };
        let note = format!("version {} is in force", self.stand.in_force.version());
        self.readiness.note(CHECK, note);
        let attempts = Attempts {
            reloader: self,
            reading,
            tried: None,
            refused: None,
        };
        (handle, attempts.run(asked))
    }

    fn texts(paths: Vec<PathBuf>) -> impl Future<Output = Option<Texts>> {
        let read = tokio::task::spawn_blocking(move || Texts::read(&paths));
        async { read.await.ok() }
    }

    /// Reads until two readings agree: files that are replaced one after the other are not taken halfway.
    async fn settled(paths: &[PathBuf]) -> Option<Texts> {
        let mut texts = Reloader::texts(paths.to_vec()).await?;
        for _ in 1..READINGS_MAX {
            let again = Reloader::texts(paths.to_vec()).await?;
            if again.fingerprint() == texts.fingerprint() {
                break;
            }
            texts = again;
        }
        Some(texts)
    }

    /// Asks for the keys that nobody needed so far; those that cannot be had.
    async fn warm(&self, policies: &Policies) -> Vec<Finding> {
        let known = self.stand.in_force.keys();
        let new: Vec<_> = policies.keys();
        let mut findings = Vec::new();
        for name in new.into_iter().filter(|name| !known.contains(name)) {
            let scope = Scope {
                key: Arc::clone(&name),
                tenant: None,
            };
            let needs = Needs {
                sealing: vec![SealNeed {
                    scope,
                    suite: crate::dek::Suite::Xaes256Gcm,
                    values: 0,
                }],
                opening: Vec::new(),
            };
            let why = match timeout(KEY_PATIENCE, self.keys.fetch(&needs)).await {
                Ok(Ok(_)) => {
                    self.readiness.pass(format!("keys:{name}"));
                    continue;
                }
                Ok(Err(error)) => error.failure.word(),
                Err(_) => "no answer in time",
            };
            findings.push(Finding {
                code: "key-unavailable",
                at: format!("key {name}"),
                message: format!("no data key can be had: {why}"),
                hint: Some("the policies are tried again at every look".to_owned()),
            });
        }
        findings
    }

    fn put_in_force(&mut self, policies: Arc<Policies>) {
        for (listener, proxy) in &self.roads {
            let accesses = Arc::new(self.metrics.accesses(listener, &policies));
            proxy.enforce(Arc::clone(&policies), accesses);
        }
        self.stand.in_force = policies;
    }
}

struct Attempts {
    reloader: Reloader,
    reading: Arc<Mutex<PolicyReading>>,
    /// What was read by the last attempt that need not be repeated while nothing changes.
    tried: Option<Fingerprint>,
    /// How the last attempt was refused, if it was: the same again is worth less noise.
    refused: Option<Reloaded>,
}

impl Attempts {
    async fn run(mut self, mut asked: mpsc::Receiver<Asked>) {
        let look_every = self.reloader.stand.settings.reload.look_every;
        if let Some(paths) = &self.reloader.paths {
            // If they have changed since the start, they were not tried yet.
            let texts = Reloader::texts(paths.clone()).await;
            let version = self.reloader.stand.in_force.version();
            self.tried = texts
                .filter(|texts| texts.are_whole() && texts.version() == *version)
                .map(|texts| texts.fingerprint());
        }
        let mut next = Instant::now() + look_every;
        let mut seen = None;
        loop {
            tokio::select! {
                one = asked.recv() => {
                    let Some(Asked { trigger, told }) = one else {
                        // Nobody can ask any more: the files still may.
                        return;
                    };
                    let reloaded = self.attempt(trigger).await;
                    // Whoever asked may have gone.
                    let _ = told.send(reloaded);
                }
                () = sleep_until(next) => {
                    next = Instant::now() + look_every;
                    let found = self.look().await;
                    if found.is_some() && found == seen {
                        seen = None;
                        self.attempt(Trigger::Files).await;
                    } else {
                        if found.is_some() {
                            next = Instant::now() + look_every.min(SETTLE);
                        }
                        seen = found;
                    }
                }
            }
        }
    }

    /// What the files are now, if that was not tried yet.
    async fn look(&self) -> Option<Fingerprint> {
        let paths = self.reloader.paths.clone()?;
        let found = Reloader::texts(paths).await?.fingerprint();
        (self.tried != Some(found)).then_some(found)
    }

    async fn attempt(&mut self, trigger: Trigger) -> Reloaded {
        let reloaded = self.reload().await;
        self.account(trigger, &reloaded);
        self.refused = reloaded.outcome.is_refused().then(|| reloaded.clone());
        reloaded
    }

    async fn reload(&mut self) -> Reloaded {
        let reloader = &mut self.reloader;
        let outcome = |outcome, reloader: &Reloader, candidate, findings| Reloaded {
            outcome,
            version: Arc::clone(reloader.stand.in_force.version()),
            candidate,
            findings,
        };
        let Some(paths) = &reloader.paths else {
            return outcome(Outcome::Unchanged, reloader, None, Vec::new());
        };
        let Some(texts) = Reloader::settled(paths).await else {
            return outcome(Outcome::Unavailable, reloader, None, Vec::new());
        };
        self.tried = Some(texts.fingerprint());
        let stand = reloader.stand.clone();
        let checked = tokio::task::spawn_blocking(move || stand.check(texts)).await;
        let Ok(found) = checked else {
            return outcome(Outcome::Unavailable, reloader, None, Vec::new());
        };
        let (policies, losses) = match found {
            Found::Same => return outcome(Outcome::Unchanged, reloader, None, Vec::new()),
            Found::Bad(candidate, findings) => {
                return outcome(Outcome::Bad, reloader, candidate, findings);
            }
            Found::New(policies, losses) => (policies, losses),
        };
        let candidate = Some(Arc::clone(policies.version()));
        if !losses.is_empty() && !reloader.stand.settings.reload.allow_weaker {
            return outcome(Outcome::Weaker, reloader, candidate, losses);
        }
        let missing = reloader.warm(&policies).await;
        if !missing.is_empty() {
            self.tried = None;
            return outcome(Outcome::Unavailable, reloader, candidate, missing);
        }
        reloader.put_in_force(policies);
        outcome(Outcome::Loaded, reloader, None, losses)
    }

    /// Tells the log, the metrics and `/readyz?verbose`.
    fn account(&self, trigger: Trigger, reloaded: &Reloaded) {
        let (why, version) = (trigger.word(), &*reloaded.version);
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        match reloaded.outcome {
            Outcome::Loaded => {
                tracing::info!(version, was = &*reading.version, why, "new policy in force");
                for loss in &reloaded.findings {
                    tracing::warn!(
                        code = loss.code,
                        at = loss.at,
                        what = loss.message,
                        "the new policy protects less, which the settings allow"
                    );
                }
                reading.version = Arc::clone(&reloaded.version);
                reading.loaded_at = now();
                reading.loaded += 1;
            }
            Outcome::Unchanged => {
                tracing::info!(version, why, "the policy is as it was");
                reading.unchanged += 1;
            }
            Outcome::Bad | Outcome::Weaker | Outcome::Unavailable => {
                reading.refused += 1;
                if self.refused.as_ref() == Some(reloaded) && trigger == Trigger::Files {
                    tracing::debug!(version, "new policy refused as before");
                } else {
                    log_refusal(why, reloaded);
                }
            }
        }
        drop(reading);
        let refused = reloaded.outcome.is_refused().then(|| {
            let mut codes: Vec<&str> = reloaded.findings.iter().map(|f| f.code).collect();
            codes.sort_unstable();
            codes.dedup();
            let candidate = reloaded.candidate.as_deref().unwrap_or("another one");
            let outcome = reloaded.outcome.word();
            format!(
                "; {candidate} was refused ({outcome}: {}), see the log",
                codes.join(", ")
            )
        });
        let note = format!(
            "version {version} is in force{}",
            refused.unwrap_or_default()
        );
        self.reloader.readiness.note(CHECK, note);
    }
}

fn log_refusal(why: &str, reloaded: &Reloaded) {
    tracing::error!(
        version = &*reloaded.version,
        candidate = reloaded.candidate.as_deref(),
        outcome = reloaded.outcome.word(),
        findings = reloaded.findings.len(),
        why,
        "new policy refused; the old one stays in force"
    );
    for finding in reloaded.findings.iter().take(LOGGED_MAX) {
        tracing::error!(
            code = finding.code,
            at = finding.at,
            what = finding.message,
            hint = finding.hint,
            "why the new policy was refused"
        );
    }
}

fn finding(found: &Diagnostic) -> Finding {
    Finding {
        code: found.code,
        at: format!("{}:{}:{}", found.file, found.line, found.column),
        message: found.message.clone(),
        hint: found.hint.clone(),
    }
}

fn refusal(error: &StartError) -> Finding {
    Finding {
        code: "not-covered",
        at: "settings".to_owned(),
        message: error.to_string(),
        hint: error.hint(),
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}
