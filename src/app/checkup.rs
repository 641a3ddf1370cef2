//! What a start would trip over, and what it does not look at, each by itself: what `fieldveil doctor` tells. It makes nothing and changes
//! nothing; of a secret it tells where it is.

mod forward;
mod upstreams;

use super::certificates::Certificate;
use super::check::{Checked, Outcome, check_kms};
use super::{StartError, places, prepare, secrets, stores};
use crate::arena::Arena;
use crate::dek::Kid;
use crate::kms::keyring::{Keyring, read_secret};
use crate::kms::{Failure, os_random};
use crate::policy::Policies;
use crate::settings::{
    self, AzureAuth, Bind, GcpLogin, Provider, Secret, Settings, TlsFiles, Unlock,
};
use rustix::process::{Resource, getrlimit};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::time::timeout;

/// Bytes of a key's or a passphrase's file.
const SECRET_BYTES_MAX: u64 = 4096;
/// What a file of a secret must not allow: the group to write, everybody anything.
const EXPOSED: u32 = 0o027;

/// How it stands with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Ok,
    /// An agent starts with it, and somebody should know.
    Warn,
    /// An agent does not start with it, or cannot do its work.
    Fail,
}

impl State {
    /// `ok`, `warn` or `fail`.
    pub fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What kind of thing: `settings`, `policy`, `memory`, `secret`, `certificate`, `key`, `store`, `upstream`, `clock`, `listener`.
    pub area: &'static str,
    /// Which one; empty where there is only one.
    pub name: String,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Check {
    pub(super) fn new(
        area: &'static str,
        name: impl Into<String>,
        state: State,
        what: impl Into<String>,
    ) -> Check {
        Check {
            area,
            name: name.into(),
            state,
            what: what.into(),
            hint: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Check {
        self.hint = Some(hint.into());
        self
    }

    /// What is wrong with settings or policies, one check a finding; anything else is one.
    pub fn failed(area: &'static str, name: &str, error: &StartError) -> Vec<Check> {
        let StartError::Findings(found) = error else {
            let check = Check::new(area, name, State::Fail, error.to_string());
            return vec![Check {
                hint: error.hint(),
                ..check
            }];
        };
        let one = |found: &crate::diagnostic::Diagnostic| {
            let place = format!("{}:{}:{}", found.file, found.line, found.column);
            let what = format!("{} ({})", found.message, found.code);
            Check {
                hint: found.hint.clone(),
                ..Check::new(area, place, State::Fail, what)
            }
        };
        found.iter().map(one).collect()
    }
}

/// Looks at everything that these settings name. Takes some seconds where something does not answer.
pub async fn checkup(settings: &Settings) -> Vec<Check> {
    let mut all = Vec::new();
    match prepare::load(settings) {
        Ok(policies) => policy(settings, &policies, &mut all),
        Err(error) => all.extend(Check::failed("policy", "", &error)),
    }
    all.push(memory());
    secrets_of(settings, &mut all);
    forward::check(settings, SystemTime::now(), &mut all);
    keys(settings, &mut all).await;
    all.extend(store(settings).await);
    upstreams::check(settings, &mut all).await;
    for listener in &settings.listeners {
        let encrypted = listener.tls.is_some();
        all.push(places::check(&listener.name, &listener.bind, encrypted).await);
    }
    let admin = settings.admin.as_ref().map(|admin| ("admin", admin.bind));
    let probes = settings.probes.map(|probes| ("probes", probes));
    for (name, address) in admin.into_iter().chain(probes) {
        all.push(places::check(name, &Bind::Tcp(address), false).await);
    }
    all
}

fn policy(settings: &Settings, policies: &Policies, all: &mut Vec<Check>) {
    let what = format!(
        "version {}, routes: {}",
        policies.version(),
        Vec::from_iter(policies.routes().map(|route| &*route.name)).join(", ")
    );
    all.push(Check::new("policy", "", State::Ok, what));
    if let Err(error) = prepare::check_coverage(settings, policies) {
        all.extend(Check::failed("policy", "", &error));
    } else {
        for listener in &settings.listeners {
            for name in listener.upstream.names() {
                let host = settings
                    .upstream(name)
                    .map(|upstream| upstream.url.authority());
                if let Some(host) = host.filter(|host| !policies.names(host)) {
                    let what = format!("no route is for {host}: its traffic passes as it is");
                    let check = Check::new("policy", &*listener.name, State::Warn, what);
                    all.push(
                        check.hint("a route without `match: {host: …}` is for every upstream"),
                    );
                }
            }
        }
    }
    if let Err(error) = stores::check_store(settings, policies) {
        all.extend(Check::failed("policy", "", &error));
    }
    if let Err(error) = settings.keys_for(&policies.keys()) {
        all.extend(Check::failed("policy", "", &StartError::Findings(error)));
    }
}

/// Whether key memory can be locked, as this process may.
fn memory() -> Check {
    let limit = match getrlimit(Resource::Memlock).current {
        Some(bytes) => format!("RLIMIT_MEMLOCK is {} KiB", bytes >> 10),
        None => "RLIMIT_MEMLOCK is unlimited".to_owned(),
    };
    let check = |state, what: String| Check::new("memory", "", state, what);
    match Arena::new() {
        Ok(arena) if arena.locked() => check(
            State::Ok,
            format!("key memory is locked, and left out of core dumps; {limit}"),
        ),
        Ok(_) => check(
            State::Warn,
            format!("key memory cannot be locked, and might be swapped to a disk; {limit}"),
        )
        .hint("raise it (LimitMEMLOCK= of systemd, ulimit -l), or switch swap off"),
        Err(error) => check(State::Fail, format!("no memory for keys: {error}"))
            .hint("see what the operating system says"),
    }
}

/// Files of secrets, and certificates with their keys.
fn secrets_of(settings: &Settings, all: &mut Vec<Check>) {
    if let Some(admin) = &settings.admin {
        let looked = settings::Admin {
            initialise: false,
            ..admin.clone()
        };
        let place = match &admin.token {
            Secret::File(path) => path.display().to_string(),
            Secret::Environment(variable) => variable.to_string(),
        };
        let to_come =
            matches!(&admin.token, Secret::File(path) if admin.initialise && !path.exists());
        all.push(if to_come {
            Check::new(
                "secret",
                place,
                State::Ok,
                "the next start makes it: the admin API's token",
            )
        } else {
            match secrets::token(&looked, &os_random()) {
                Ok(_) => Check::new("secret", place, State::Ok, "the admin API's token"),
                Err(error) => return all.extend(Check::failed("secret", &place, &error)),
            }
        });
    }
    for kms in &settings.kms {
        let keyring = match &kms.provider {
            Provider::Keyring(keyring) => keyring,
            Provider::Pkcs11(pkcs11) => {
                // That it opens the token is found with its keys.
                if let Secret::File(path) = &pkcs11.pin {
                    all.extend(exposed(path));
                }
                continue;
            }
            Provider::Gcp(gcp) => {
                if let GcpLogin::File(path) = &gcp.login {
                    all.extend(exposed(path));
                }
                continue;
            }
            Provider::Azure(azure) => {
                if let AzureAuth::ClientSecret {
                    secret: Secret::File(path),
                    ..
                } = &azure.auth
                {
                    all.extend(exposed(path));
                }
                continue;
            }
            Provider::Transit(_) | Provider::Aws(_) => continue,
        };
        let (path, kind) = match &keyring.unlock {
            Unlock::KeyFile(path) => (path, "the key"),
            Unlock::Passphrase(Secret::File(path)) => (path, "the passphrase"),
            Unlock::Passphrase(Secret::Environment(_)) => continue,
        };
        // What is to come is told with the keyring.
        if keyring.initialise && !path.exists() {
            continue;
        }
        let place = path.display().to_string();
        match read_secret(path, SECRET_BYTES_MAX) {
            Ok(_) => {
                let what = format!("{kind} of the keyring `{}`, private", kms.name);
                all.push(Check::new("secret", place, State::Ok, what));
            }
            Err(error) => all.extend(Check::failed("secret", &place, &error.into())),
        }
    }
    let listeners = settings
        .listeners
        .iter()
        .map(|one| ("listener", &one.name, &one.tls));
    let upstreams = settings
        .upstreams
        .iter()
        .map(|one| ("upstream", &one.name, &one.identity));
    for (kind, name, files) in listeners.chain(upstreams) {
        if let Some(files) = files {
            certificate(format!("{kind} {name}"), files, all);
        }
    }
}

fn certificate(who: String, files: &TlsFiles, all: &mut Vec<Check>) {
    let name = files.cert.display().to_string();
    match Certificate::read(who.clone(), files.clone()) {
        Ok(_) => {
            let what = format!("certificate and key of the {who} fit each other");
            all.push(Check::new("certificate", name, State::Ok, what));
        }
        Err(error) => all.extend(Check::failed("certificate", &name, &error)),
    }
    all.extend(exposed(&files.key));
}

/// A private key that others may read. (That it cannot be looked at, its reader says.)
fn exposed(path: &Path) -> Option<Check> {
    let mode = std::fs::metadata(path).ok()?.mode() & 0o7777;
    let name = path.display().to_string();
    (mode & EXPOSED != 0).then(|| {
        let what = format!("others may use it (mode {mode:04o})");
        let check = Check::new("secret", name, State::Warn, what);
        check.hint(format!("chmod 400 {}", path.display()))
    })
}

/// A round trip with every KEK that the settings name.
async fn keys(settings: &Settings, all: &mut Vec<Check>) {
    let mut looked = settings.clone().making_nothing();
    // What `--data-dir` makes at the next start is not missing.
    let mut to_come: Vec<(Arc<str>, Vec<String>)> = Vec::new();
    for kms in &settings.kms {
        let Provider::Keyring(keyring) = &kms.provider else {
            continue;
        };
        if !keyring.initialise {
            continue;
        }
        match made(&kms.name, keyring) {
            Ok(Some(keks)) => to_come.push((Arc::clone(&kms.name), keks)),
            Ok(None) => {
                let what = format!(
                    "the next start makes a keyring in {}",
                    keyring.dir.display()
                );
                let check = Check::new("key", &*kms.name, State::Warn, what);
                all.push(
                    check.hint("back it up before anything is sealed: without it nothing opens"),
                );
                looked.kms.retain(|one| one.name != kms.name);
            }
            Err(error) => {
                all.extend(Check::failed("key", &kms.name, &error));
                looked.kms.retain(|one| one.name != kms.name);
            }
        }
    }
    match check_kms(&looked).await {
        Ok(checked) => {
            for one in &checked {
                let known = to_come.iter().find(|(kms, _)| *kms == one.kms);
                all.push(match known {
                    Some((_, keks)) if !keks.contains(&one.kek) && !one.kek.is_empty() => {
                        let what = "the next start adds this key to the keyring";
                        let check = Check::new("key", kek(one), State::Warn, what);
                        check.hint("back the data directory up again behind it")
                    }
                    _ => key(one),
                });
            }
        }
        // Only that the policies cannot be read, which was told.
        Err(error) => {
            let check = Check::new("key", "", State::Fail, "which keys there are is not known");
            all.push(check.hint(match error {
                StartError::Findings(_) => "correct the policies first".to_owned(),
                other => other.to_string(),
            }));
        }
    }
}

/// The keys of a keyring that a start may make and add to. None: it is not there yet.
fn made(name: &str, keyring: &settings::Keyring) -> Result<Option<Vec<String>>, StartError> {
    let is_there = Keyring::is_at(&keyring.dir)?;
    secrets::whole_or_nothing(keyring, is_there)?;
    if !is_there {
        return Ok(None);
    }
    let looked = settings::Keyring {
        initialise: false,
        ..keyring.clone()
    };
    let arena = Arena::new().map_err(|error| StartError::System("no memory for keys", error))?;
    let opened = secrets::keyring(name, &looked, &[], &arena, &os_random())?;
    let keys = opened.status()?.keys;
    Ok(Some(keys.into_iter().map(|key| key.name).collect()))
}

/// `KMS/KEK`, and whose it is.
fn kek(one: &Checked) -> String {
    match &one.key {
        Some((key, true)) => format!("{key} ({}/{})", one.kms, one.kek),
        Some((key, false)) => format!("{key} ({}/{}, opens only)", one.kms, one.kek),
        None => one.kms.to_string(),
    }
}

fn key(one: &Checked) -> Check {
    let check = |state, what| Check {
        hint: one.hint(),
        ..Check::new("key", kek(one), state, what)
    };
    match &one.outcome {
        Outcome::Well {
            wrap_micros,
            unwrap_micros,
            ..
        } => check(
            State::Ok,
            format!(
                "wrapped and unwrapped, in {} ms",
                (wrap_micros + unwrap_micros) / 1000
            ),
        ),
        Outcome::Unused => check(State::Ok, "no key names a KEK of this KMS".to_owned()),
        Outcome::Settings(what, _) => check(State::Fail, what.clone()),
        Outcome::Failed {
            verb,
            failure,
            detail,
            ..
        } => {
            // The right to unwrap is enough for such a KEK, and cannot be tried alone.
            let opens_only = matches!(&one.key, Some((_, false)));
            let state = match (*failure, *verb, opens_only) {
                (Failure::Denied, "wrap", true) => State::Warn,
                _ => State::Fail,
            };
            check(state, format!("{verb}: {}: {detail}", failure.word()))
        }
    }
}

async fn store(settings: &Settings) -> Vec<Check> {
    let Some(store) = &settings.store else {
        return Vec::new();
    };
    let opened = match stores::open(store) {
        Ok(opened) => opened,
        Err(error) => return Check::failed("store", "", &error),
    };
    let name = opened.name().to_owned();
    // Whatever is under it: that there is an answer is what counts.
    let failed = match timeout(store.deadline, opened.get(Kid([0; 16]))).await {
        Ok(Ok(_)) => return vec![Check::new("store", name, State::Ok, "it answers")],
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!(
            "no answer within {} ms (`store.deadline`)",
            store.deadline.as_millis()
        ),
    };
    let check = Check::new("store", name, State::Fail, failed);
    vec![
        check.hint(
            "is it up, is the URL in its file right, and was it made (`fieldveil store init`)?",
        ),
    ]
}
