//! What the words of the settings mean together, with flags and environment variables laid over them.

use super::keys::KeyWords;
use super::kms::{KmsWords, ProviderWords};
use super::overlay::{address_flag, flag_environment, flag_finding, flag_listener, flag_upstream};
use super::ways;
use super::written::{AdminWords, ListenerWords, SettingsFile};
use super::{
    ADMIN_TOKEN_VARIABLE, Admin, Bind, Destination, GRACE_DEFAULT, Kek, Key, Keyring, Kms,
    LEASE_DEFAULT, LOCAL_KMS, Limits, Listener, Log, Overrides, PASSPHRASE_VARIABLE, PolicySource,
    Provider, ROTATE_DEFAULT, Secret, Settings, Unlock, Upstream,
};
use crate::diagnostic::{Span, did_you_mean, quoted};
use crate::marked::amount::show_duration;
use crate::marked::{Findings, Marked};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub(super) const CONNECT_DEFAULT: Duration = Duration::from_secs(5);
pub(super) const RESPONSE_DEFAULT: Duration = Duration::from_secs(60);

/// What the settings are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// An agent, which listens.
    Agent,
    /// Policies and keys; listeners are checked where they are written, and may be missing.
    Keys,
}

/// `has_file`: findings about what is missing point to the file, or name the flag. None only together with findings.
pub(super) fn check(
    mut file: SettingsFile,
    overrides: &Overrides,
    purpose: Purpose,
    has_file: bool,
    findings: &mut Findings<'_>,
) -> Option<Settings> {
    let missing = |what: &str, flag: &str, findings: &mut Findings<'_>| {
        let found = findings
            .source
            .diagnostic("missing-word", Span::default(), what.to_owned())
            .without_line();
        findings.report(found.hint(if has_file {
            flag.to_owned()
        } else {
            format!("add {flag}")
        }));
    };
    check_names(&file, findings);
    flag_environment(&mut file, overrides, findings);
    flag_upstream(&mut file, overrides, findings);
    flag_listener(&mut file, overrides, findings);
    // What was written wrongly is not missing as well.
    let sound = findings.is_empty();
    if sound && file.listeners.is_empty() && purpose == Purpose::Agent {
        missing(
            "nothing listens: there is no listener with an upstream",
            "--upstream URL, or `listeners` and `upstreams`",
            findings,
        );
    }
    let policy = policy(&file, overrides, findings);
    if sound && policy == Ok(None) {
        missing(
            "there is no policy",
            "--seal PATH, --open PATH, --policies DIR, or `policy: {dir: DIR}`",
            findings,
        );
    }
    let other_keys = other_keys(&file, overrides);
    let kms = kms(&file, overrides, findings);
    if sound && kms.is_empty() && file.kms.is_empty() {
        missing(
            "there is no KMS: where are the keys?",
            "--data-dir DIR, or `kms` and `keys`",
            findings,
        );
    }
    let keys = keys(&file, &kms, findings);
    let admin = admin(&file, overrides, findings);
    let probes = address_flag("--probes", overrides.probes.as_deref(), findings)
        .or_else(|| file.probes.clone());
    distinct_addresses(
        &file.listeners,
        admin.as_ref().map(|(_, bind)| bind),
        probes.as_ref(),
        findings,
    );
    let (listeners, upstreams) = (listeners(&file, findings), upstreams(&file, findings));
    let limits = limits(&file);
    if !limits.loopback_upstreams {
        for upstream in &file.upstreams {
            let loopback = upstream
                .url
                .value
                .address()
                .is_some_and(|address| address.is_loopback());
            if loopback || upstream.url.value.host == "localhost" {
                findings.at(
                    "loopback-upstream",
                    upstream.url.span,
                    "`loopback_upstreams: false` refuses this upstream",
                );
            }
        }
    }
    if !findings.is_empty() {
        return None;
    }
    Some(Settings {
        environment: file.environment.map(|environment| environment.value.into()),
        policy: policy.ok().flatten()?,
        reload: file.reload,
        listeners,
        upstreams,
        kms,
        keys,
        other_keys,
        store: file.store,
        ca: file.ca,
        mark: file.mark,
        admin: admin.map(|(admin, _)| admin),
        probes: probes.map(|probes| probes.value),
        limits,
        log: Log {
            format: overrides.log_format.or(file.log_format).unwrap_or_default(),
            level: overrides.log_level.or(file.log_level).unwrap_or_default(),
        },
    })
}

/// 1 to 64 of `A-Z a-z 0-9 . _ -`, the first a letter or digit, as in policies.
fn check_name(name: &Marked<String>, findings: &mut Findings<'_>) {
    if let Some(wrong) = crate::policy::bad_name(&name.value) {
        findings.at("bad-name", name.span, wrong);
    }
}

fn check_names(file: &SettingsFile, findings: &mut Findings<'_>) {
    let mut listeners: HashMap<&str, Span> = HashMap::new();
    for listener in &file.listeners {
        if listeners
            .insert(&listener.name.value, listener.name.span)
            .is_some()
        {
            let message = format!(
                "there is a listener {} already",
                quoted(&listener.name.value)
            );
            findings.at("duplicate-listener", listener.name.span, message);
        }
    }
    let names = (file.environment.iter())
        .chain(file.listeners.iter().map(|listener| &listener.name))
        .chain(file.upstreams.iter().map(|upstream| &upstream.name))
        .chain(file.kms.iter().map(|kms| &kms.name))
        .chain(file.keys.iter().map(|key| &key.name));
    for name in names {
        check_name(name, findings);
    }
}

/// None: there is none. Err: reported.
fn policy(
    file: &SettingsFile,
    overrides: &Overrides,
    findings: &mut Findings<'_>,
) -> Result<Option<PolicySource>, ()> {
    let directory = overrides.policies.clone().or_else(|| file.policies.clone());
    let has_flags = !overrides.seal.is_empty() || !overrides.open.is_empty();
    match directory {
        // Neither may silently take the place of the other.
        Some(_) if has_flags => {
            let message = "--seal and --open are a policy of their own, and there is a directory of policies, too".to_owned();
            let found = flag_finding("--seal", "", "conflict", message).without_line();
            findings.report(found.hint("keep one of them"));
            Err(())
        }
        Some(directory) => Ok(Some(PolicySource::Directory(directory))),
        None if has_flags => Ok(Some(PolicySource::Flags {
            seal: overrides.seal.clone(),
            open: overrides.open.clone(),
        })),
        None => Ok(None),
    }
}

/// A data directory without further words holds every key that the policies ask for.
fn other_keys(file: &SettingsFile, overrides: &Overrides) -> Option<Arc<str>> {
    (overrides.data_dir.is_some() && file.keys.is_empty() && file.kms.is_empty())
        .then(|| LOCAL_KMS.into())
}

fn kms(file: &SettingsFile, overrides: &Overrides, findings: &mut Findings<'_>) -> Vec<Kms> {
    let environment = || Unlock::Passphrase(Secret::Environment(PASSPHRASE_VARIABLE.into()));
    let provider = |words: &KmsWords, findings: &mut Findings<'_>| match &words.provider {
        ProviderWords::Other(provider) => Some(provider.clone()),
        ProviderWords::Keyring { dir, unlock } => {
            let unlock = match unlock {
                Some(unlock) => unlock.clone(),
                None if overrides.passphrase_in_environment => environment(),
                None => {
                    let message =
                        format!("the keyring {} needs `unlock`", quoted(&words.name.value));
                    let hint = format!(
                        "unlock: {{key_file: FILE}} or {{passphrase_file: FILE}}, or set {PASSPHRASE_VARIABLE}"
                    );
                    findings.at_with_hint("missing-word", words.name.span, message, hint);
                    return None;
                }
            };
            Some(Provider::Keyring(Keyring {
                dir: dir.clone(),
                unlock,
                initialise: false,
            }))
        }
    };
    let mut all: Vec<Kms> = Vec::new();
    for words in &file.kms {
        let name = words.name.value.as_str().into();
        all.extend(provider(words, findings).map(|provider| Kms { name, provider }));
    }
    if let Some(data) = &overrides.data_dir {
        if file.kms.is_empty() {
            let unlock = if overrides.passphrase_in_environment {
                environment()
            } else {
                Unlock::KeyFile(data.join("keyring.key"))
            };
            let keyring = Keyring {
                dir: data.join("keyring"),
                unlock,
                initialise: true,
            };
            all.push(Kms {
                name: LOCAL_KMS.into(),
                provider: Provider::Keyring(keyring),
            });
        } else {
            let message =
                "the file says where the keys are; a data directory would hold others".to_owned();
            let found = flag_finding("--data-dir", "", "conflict", message).without_line();
            findings.report(found.hint("leave out --data-dir, or `kms`"));
        }
    }
    all
}

fn keys(file: &SettingsFile, known: &[Kms], findings: &mut Findings<'_>) -> Vec<Key> {
    let kek = |words: &Marked<(String, String)>, findings: &mut Findings<'_>| {
        let (kms, kek) = &words.value;
        let provider = known.iter().find(|known| &*known.name == kms.as_str());
        let made = known.iter().map(|known| &*known.name);
        let known: Vec<&str> = file
            .known_kms
            .iter()
            .map(String::as_str)
            .chain(made)
            .collect();
        if !known.contains(&kms.as_str()) {
            let message = format!("there is no KMS {}", quoted(kms));
            let hint = did_you_mean(kms, known.iter().copied());
            findings.report(
                findings
                    .source
                    .diagnostic("unknown-kms", words.span, message)
                    .maybe_hint(hint),
            );
        }
        if let Some(wrong) = provider.and_then(|kms| kms.provider.bad_kek(kek)) {
            findings.at("bad-kek", words.span, format!("{} is {wrong}", quoted(kek)));
        }
        Kek {
            kms: kms.as_str().into(),
            kek: kek.as_str().into(),
        }
    };
    // What the key room would refuse when the agent starts is found here, where it has a place.
    let key = |words: &KeyWords, findings: &mut Findings<'_>| {
        let of_key: Vec<_> = words.seal_with.iter().chain(&words.open_also).collect();
        for (at, kek) in of_key.iter().enumerate() {
            if of_key[..at].iter().any(|other| other.value == kek.value) {
                let message = "this key has this KEK already: what it seals with opens, too";
                findings.at("duplicate-kek", kek.span, message);
            }
        }
        let lease = words.lease.unwrap_or(LEASE_DEFAULT);
        let rotate = words.rotate.unwrap_or(ROTATE_DEFAULT);
        if rotate < lease {
            let message = format!(
                "`rotate` is no less than `lease`; here they are {} and {}",
                show_duration(rotate),
                show_duration(lease)
            );
            findings.at("rotate-below-lease", words.name.span, message);
        }
        Key {
            name: words.name.value.as_str().into(),
            seal_with: words
                .seal_with
                .iter()
                .map(|with| kek(with, findings))
                .collect(),
            need: words.need,
            open_also: words
                .open_also
                .iter()
                .map(|also| kek(also, findings))
                .collect(),
            lease,
            grace: words.grace.unwrap_or(GRACE_DEFAULT),
            rotate,
        }
    };
    file.keys.iter().map(|words| key(words, findings)).collect()
}

fn admin(
    file: &SettingsFile,
    overrides: &Overrides,
    findings: &mut Findings<'_>,
) -> Option<(Admin, Marked<SocketAddr>)> {
    let flag = address_flag("--admin", overrides.admin.as_deref(), findings);
    let bind = flag.or_else(|| file.admin.as_ref().map(|admin| admin.bind.clone()))?;
    let token_file = file
        .admin
        .as_ref()
        .and_then(|admin: &AdminWords| admin.token_file.clone());
    let (token, initialise) = if overrides.admin_token_in_environment {
        (Secret::Environment(ADMIN_TOKEN_VARIABLE.into()), false)
    } else if let Some(token) = token_file {
        (Secret::File(token), false)
    } else if let Some(data) = &overrides.data_dir {
        (Secret::File(data.join("admin.token")), true)
    } else {
        let span = file
            .admin
            .as_ref()
            .map_or(Span::default(), |admin| admin.span);
        let hint = format!("`token_file: FILE`, or set {ADMIN_TOKEN_VARIABLE}");
        findings.at_with_hint(
            "missing-word",
            span,
            "the admin API wants a token, also on a loopback address",
            hint,
        );
        return None;
    };
    Some((
        Admin {
            bind: bind.value,
            token,
            initialise,
        },
        bind,
    ))
}

fn distinct_addresses(
    listeners: &[ListenerWords],
    admin: Option<&Marked<SocketAddr>>,
    probes: Option<&Marked<SocketAddr>>,
    findings: &mut Findings<'_>,
) {
    let tcp = |bind: &Marked<SocketAddr>| Marked {
        value: Bind::Tcp(bind.value),
        span: bind.span,
    };
    let others = admin.into_iter().chain(probes).map(tcp);
    let binds = listeners.iter().map(|listener| listener.bind.clone());
    let mut seen: Vec<Bind> = Vec::new();
    for bind in binds.chain(others) {
        if seen.iter().any(|other| other.collides(&bind.value)) {
            findings.at(
                "duplicate-address",
                bind.span,
                format!("{} is used twice", bind.value),
            );
        }
        seen.push(bind.value);
    }
}

fn listeners(file: &SettingsFile, findings: &mut Findings<'_>) -> Vec<Listener> {
    let mut all = Vec::new();
    for words in &file.listeners {
        let made = file.upstreams.iter().map(|made| made.name.value.as_str());
        let known: Vec<&str> = file
            .known_upstreams
            .iter()
            .map(String::as_str)
            .chain(made)
            .collect();
        let mut upstream = match &words.forward {
            Some(forward) => Destination::Any(forward.clone()),
            None => Destination::ByHost(Vec::new()),
        };
        if words.forward.is_some() && !file.has_ca {
            ways::wants_ca(words.name.span, findings);
        }
        for (host, name) in &words.upstreams {
            if !known.contains(&name.value.as_str()) {
                let message = format!("there is no upstream {}", quoted(&name.value));
                let hint = did_you_mean(&name.value, known.iter().copied());
                findings.report(
                    findings
                        .source
                        .diagnostic("unknown-upstream", name.span, message)
                        .maybe_hint(hint),
                );
            }
            let name = name.value.as_str().into();
            match (host, &mut upstream) {
                (Some(host), Destination::ByHost(hosts)) => hosts.push((host.clone(), name)),
                _ => upstream = Destination::One(name),
            }
        }
        all.push(Listener {
            name: words.name.value.as_str().into(),
            bind: words.bind.value.clone(),
            upstream,
            tls: words.tls.as_ref().map(|(files, _)| files.clone()),
            client_ca: words.tls.as_ref().and_then(|(_, ca)| ca.clone()),
            http2: words.http2.unwrap_or(true),
        });
    }
    all
}

fn upstreams(file: &SettingsFile, findings: &mut Findings<'_>) -> Vec<Upstream> {
    let mut all = Vec::new();
    for words in &file.upstreams {
        let tls = &words.tls;
        let span = tls.ca.as_ref().map(|ca| ca.span);
        let span = span.or(tls.identity.as_ref().map(|identity| identity.span));
        if let (Some(span), false) = (span, words.url.value.tls) {
            findings.at(
                "tls-without-https",
                span,
                "`tls` is for an upstream with https://",
            );
        }
        all.push(Upstream {
            name: words.name.value.as_str().into(),
            url: words.url.value.clone(),
            ca: tls
                .ca
                .as_ref()
                .map(|ca| ca.value.clone())
                .unwrap_or_default(),
            identity: tls.identity.as_ref().map(|files| files.value.clone()),
            speak: words.speak.unwrap_or_default(),
            connect: words.connect.unwrap_or(CONNECT_DEFAULT),
            response: words.response.unwrap_or(RESPONSE_DEFAULT),
            idle: words.idle,
        });
    }
    all
}

fn limits(file: &SettingsFile) -> Limits {
    let (words, default) = (&file.limits, Limits::default());
    let count = |written: Option<u64>, default: usize| {
        written.map_or(default, |number| {
            usize::try_from(number).unwrap_or(usize::MAX)
        })
    };
    let held_body = count(words.held_body, default.held_body);
    Limits {
        held_body,
        // One body must fit.
        held_total: count(words.held_total, default.held_total)
            .max(held_body)
            .max(count(words.window, default.window)),
        record: count(words.record, default.record),
        window: count(words.window, default.window),
        keys_per_body: count(words.keys_per_body, default.keys_per_body),
        new_tenants: count(words.new_tenants, default.new_tenants),
        in_flight: count(words.in_flight, default.in_flight),
        connections: count(words.connections, default.connections),
        streams: words.streams.map_or(default.streams, |streams| {
            u32::try_from(streams).unwrap_or(u32::MAX)
        }),
        drain: words.drain.unwrap_or(default.drain),
        head_timeout: words.head_timeout.unwrap_or(default.head_timeout),
        idle_timeout: words.idle_timeout.unwrap_or(default.idle_timeout),
        body_timeout: words.body_timeout.unwrap_or(default.body_timeout),
        body_rate: words.body_rate.unwrap_or(default.body_rate),
        write_timeout: words.write_timeout.unwrap_or(default.write_timeout),
        answer_timeout: words.answer_timeout.unwrap_or(default.answer_timeout),
        exchange_timeout: words.exchange_timeout.unwrap_or(default.exchange_timeout),
        tunnel_idle: words.tunnel_idle.unwrap_or(default.tunnel_idle),
        loopback_upstreams: words
            .loopback_upstreams
            .unwrap_or(default.loopback_upstreams),
    }
}
