//! Everything of a start that touches files or stretches passphrases, before anything listens. Blocking: not for an async
//! thread.

use super::certificates::{Certificate, clients};
use super::forward::{self, Forwarding};
use super::providers::{Building, Opened, keks};
use super::stores::{self, check_store};
use super::{Given, StartError, policies, secrets};
use crate::admin::Token;
use crate::arena::Arena;
use crate::body::Body;
use crate::keys::Terms;
use crate::keys::{Binding, KeySettings, TERMS};
use crate::kms::{Random, os_random};
use crate::policy::{Policies, Policy};
use crate::settings::{self, Ca, Kek, PolicySource, Settings, TlsFiles};
use crate::store::Store;
use crate::tls::{Clients, Identity};
use crate::upstream::{self, OwnAddresses, Roots, Upstream};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// What a start needs of files and secrets.
pub struct Prepared {
    pub policies: Arc<Policies>,
    pub keys: Vec<KeySettings>,
    pub arena: Arena,
    pub random: Random,
    pub store: Option<Arc<dyn Store>>,
    /// By name.
    pub upstreams: HashMap<Arc<str>, Upstream<Body>>,
    /// Of the forward listeners, by name.
    pub forward: HashMap<Arc<str>, Forwarding>,
    /// Of the listeners that have TLS, by name; with whose certificates they take from clients.
    pub identities: HashMap<Arc<str>, (Identity, Option<Clients>)>,
    /// Everything in force that came from files that may change.
    pub certificates: Vec<Certificate>,
    pub token: Option<Token>,
}

/// Reads and checks everything; the first thing that is wrong ends it, but all findings of a kind come together.
pub fn prepare(
    settings: &Settings,
    given: &mut Given,
    own: &OwnAddresses,
) -> Result<Prepared, StartError> {
    let policies = match given.policies.take() {
        Some(policies) => policies,
        None => load(settings)?,
    };
    check_coverage(settings, &policies)?;
    check_store(settings, &policies)?;
    check_mark(settings)?;
    let mut certificates = Vec::new();
    let mut certified = |who: String, files: &Option<TlsFiles>| {
        let Some(files) = files else {
            return Ok(None);
        };
        let certificate = Certificate::read(who, files.clone())?;
        let identity = certificate.identity();
        certificates.push(certificate);
        Ok::<_, StartError>(Some(identity))
    };
    let mut upstreams = HashMap::new();
    let mut known = Vec::new();
    for one in &settings.upstreams {
        let identity = certified(format!("upstream {}", one.name), &one.identity)?;
        let built = upstream(one, identity.clone(), settings, own)?;
        upstreams.insert(Arc::clone(&one.name), built);
        known.push(made_with(one, identity, settings)?);
    }
    let forward = forward::prepare(settings, &known, own)?;
    let mut identities = HashMap::new();
    for one in &settings.listeners {
        if let Some(identity) = certified(format!("listener {}", one.name), &one.tls)? {
            let ca = one.client_ca.as_ref();
            let clients = ca.map(|ca| clients(&one.name, ca)).transpose()?;
            identities.insert(Arc::clone(&one.name), (identity, clients));
        }
    }
    let arena = Arena::new().map_err(|error| StartError::System("no memory for keys", error))?;
    let random = os_random();
    // Those that no policy uses as yet, too: one that comes later may.
    let mut named = settings.keys_for(&policies.keys())?;
    let used = named.len();
    for key in &settings.keys {
        if !named[..used].iter().any(|known| known.name == key.name) {
            named.push(key.clone());
        }
    }
    let mut building = Building {
        arena: &arena,
        random: &random,
        certificates: &mut certificates,
    };
    let keys = bound(settings, &named, given, &mut building)?;
    let token = settings
        .admin
        .as_ref()
        .map(|admin| secrets::token(admin, &random))
        .transpose()?;
    Ok(Prepared {
        policies: Arc::new(policies),
        keys,
        arena,
        random,
        store: settings.store.as_ref().map(stores::open).transpose()?,
        upstreams,
        forward,
        identities,
        certificates,
        token,
    })
}

/// What is behind each of these keys, its KMSs opened.
pub fn bound(
    settings: &Settings,
    named: &[settings::Key],
    given: &Given,
    building: &mut Building<'_>,
) -> Result<Vec<KeySettings>, StartError> {
    let kmss = kmss(settings, named, given, building)?;
    named.iter().map(|key| bind(key, &kmss)).collect()
}

/// Connections that cannot be marked would come back to the agent, or not be made at all.
fn check_mark(settings: &Settings) -> Result<(), StartError> {
    let marked = settings.mark.map_or(Ok(()), upstream::can_mark);
    marked.map_err(|error| {
        StartError::Settings(
            format!("`redirect.mark`: connections cannot be marked: {error}"),
            "that takes CAP_NET_ADMIN (systemd: AmbientCapabilities, Kubernetes: securityContext.capabilities); or run the agent as a user of its own \
             and say `fieldveil redirect up --uid`"
                .to_owned(),
        )
    })
}

/// A policy that names other hosts than the upstreams would protect nothing, and every answer would be 200.
pub fn check_coverage(settings: &Settings, policies: &Policies) -> Result<(), StartError> {
    let (mut missed, mut all) = (Vec::new(), 0);
    for listener in &settings.listeners {
        for name in listener.upstream.names() {
            let upstream = settings.upstream(name);
            let host = upstream.map(|upstream| upstream.url.authority());
            all += 1;
            if let Some(host) = host.filter(|host| !policies.names(host)) {
                missed.push((&listener.name, host));
            }
        }
    }
    if !missed.is_empty() && missed.len() == all {
        let hosts: Vec<_> = missed.iter().map(|(_, host)| host.as_str()).collect();
        return Err(StartError::Settings(
            format!("no route of the policies is for {}: nothing would be sealed", hosts.join(" or ")),
            "a route's `match: {host: …}` is compared with the host of the upstream's URL; without `host` it is for all of them"
                .to_owned(),
        ));
    }
    for (listener, host) in missed {
        tracing::warn!(%listener, upstream = %host, "no route is for this listener's upstream: its traffic passes as it is");
    }
    Ok(())
}

/// The policies that the settings name.
pub fn load(settings: &Settings) -> Result<Policies, StartError> {
    match &settings.policy {
        PolicySource::Directory(directory) => Ok(policies::load(
            std::slice::from_ref(directory),
            settings.environment.as_deref(),
        )?),
        PolicySource::Flags { seal, open } => {
            Ok(Policies::new(vec![Policy::from_flags(seal, open)?])?)
        }
    }
}

/// What speaks to this upstream; nothing is connected to yet.
pub fn upstream(
    one: &settings::Upstream,
    identity: Option<Identity>,
    settings: &Settings,
    own: &OwnAddresses,
) -> Result<Upstream<Body>, StartError> {
    let built = made_with(one, identity, settings)?;
    Upstream::new(built, own.clone()).map_err(|error| wrong(one, error.to_string()))
}

fn wrong(one: &settings::Upstream, what: String) -> StartError {
    StartError::Settings(
        what,
        format!("correct the upstream `{}` in the settings", one.name),
    )
}

/// What an upstream is made with.
fn made_with(
    one: &settings::Upstream,
    identity: Option<Identity>,
    settings: &Settings,
) -> Result<upstream::Settings, StartError> {
    let wrong = |what| wrong(one, what);
    let url = one
        .url
        .to_string()
        .parse()
        .map_err(|_| wrong(format!("{} is no URL", one.url)))?;
    let mut built = upstream::Settings::new(url);
    built.identity = identity;
    built.speak = one.speak;
    built.connect = one.connect;
    built.response = one.response;
    built.idle = one.idle;
    built.loopback = settings.limits.loopback_upstreams;
    built.mark = settings.mark;
    if let Ca::File(file) = &one.ca {
        let read = |error: io::Error| wrong(format!("{}: cannot be read: {error}", file.display()));
        built.roots = Roots::Pem(std::fs::read(file).map_err(read)?);
    }
    Ok(built)
}

/// The KMSs that the keys name, opened.
fn kmss(
    settings: &Settings,
    keys: &[settings::Key],
    given: &Given,
    building: &mut Building<'_>,
) -> Result<Opened, StartError> {
    let mut opened: Opened = given.kms.iter().cloned().collect();
    for kms in &settings.kms {
        let keks = keks(keys, &kms.name);
        // What no key names is not opened either: nothing would ever ask it.
        if !keks.is_empty() && !opened.contains_key(&kms.name) {
            opened.insert(Arc::clone(&kms.name), building.open(kms, &keks)?);
        }
    }
    Ok(opened)
}

fn bind(key: &settings::Key, kmss: &Opened) -> Result<KeySettings, StartError> {
    let binding = |kek: &Kek| match kmss.get(&kek.kms) {
        Some(kms) => Ok(Binding {
            kms: Arc::clone(kms),
            kek: kek.kek.to_string(),
        }),
        None => Err(StartError::Settings(
            format!(
                "the key `{}` is at the KMS `{}`, and there is none of this name",
                key.name, kek.kms
            ),
            "correct `keys` or `kms` in the settings".to_owned(),
        )),
    };
    Ok(KeySettings {
        name: Arc::clone(&key.name),
        seal_with: key
            .seal_with
            .iter()
            .map(binding)
            .collect::<Result<_, _>>()?,
        need: key.need,
        open_also: key
            .open_also
            .iter()
            .map(binding)
            .collect::<Result<_, _>>()?,
        terms: Terms {
            lease: key.lease,
            grace: key.grace,
            rotate: key.rotate,
            ..TERMS
        },
    })
}
