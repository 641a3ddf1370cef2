//! The settings file word by word: which words stand where, and of which kind their values are.

use super::edges::{
    UpstreamTls, destination, listener_tls, place, socket_mode, speak, upstream_tls,
};
use super::keys::{KeyWords, key};
use super::kms::{KmsWords, kms};
use super::limits::{LimitWords, limits};
use super::store::store;
use super::ways::{self, Way};
use super::{
    Bind, ClientCa, Forward, LogFormat, LogLevel, OwnCa, Reload, Speak, Store, TlsFiles, Url,
};
use crate::diagnostic::{Span, quoted};
use crate::marked::amount::{duration, show_duration};
use crate::marked::{Fields, Findings, Marked, Node, Value};
use crate::policy::HostPattern;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Listeners, upstreams, KMSs: at most so many of each.
pub(super) const PLACES_MAX: usize = 64;
/// Keys; KEKs of one key that open, too.
pub(super) const KEYS_MAX: usize = 256;

#[derive(Default)]
pub(super) struct SettingsFile {
    /// Everything under `upstreams` and `kms`, also what is wrong otherwise: a reference to it is not.
    pub known_upstreams: Vec<String>,
    pub known_kms: Vec<String>,
    pub environment: Option<Marked<String>>,
    pub policies: Option<PathBuf>,
    pub reload: Reload,
    pub listeners: Vec<ListenerWords>,
    pub upstreams: Vec<UpstreamWords>,
    pub kms: Vec<KmsWords>,
    pub keys: Vec<KeyWords>,
    pub admin: Option<AdminWords>,
    pub probes: Option<Marked<SocketAddr>>,
    pub limits: LimitWords,
    pub store: Option<Store>,
    pub ca: Option<OwnCa>,
    pub mark: Option<u32>,
    /// It stands there, if perhaps wrongly.
    pub has_ca: bool,
    pub log_format: Option<LogFormat>,
    pub log_level: Option<LogLevel>,
}

pub(super) struct ListenerWords {
    pub name: Marked<String>,
    pub bind: Marked<Bind>,
    /// One without a host, or any number with.
    pub upstreams: Vec<(Option<HostPattern>, Marked<String>)>,
    /// It is a forward proxy.
    pub forward: Option<Forward>,
    pub tls: Option<(TlsFiles, Option<ClientCa>)>,
    pub http2: Option<bool>,
}

pub(super) struct UpstreamWords {
    pub name: Marked<String>,
    pub url: Marked<Url>,
    pub tls: UpstreamTls,
    pub speak: Option<Speak>,
    pub connect: Option<Duration>,
    pub response: Option<Duration>,
    pub idle: Option<Duration>,
}

pub(super) struct AdminWords {
    pub span: Span,
    pub bind: Marked<SocketAddr>,
    pub token_file: Option<PathBuf>,
}

pub(super) const fn seconds(from: u64, to: u64) -> RangeInclusive<Duration> {
    Duration::from_secs(from)..=Duration::from_secs(to)
}

pub(super) const fn millis(from: u64, to_seconds: u64) -> RangeInclusive<Duration> {
    Duration::from_millis(from)..=Duration::from_secs(to_seconds)
}

/// Reads the whole file; `base` is what its relative paths are relative to.
pub(super) fn read(root: &Node, base: &Path, findings: &mut Findings<'_>) -> Option<SettingsFile> {
    let mut fields = findings.fields(root, "the settings")?;
    let mut file = SettingsFile {
        environment: fields
            .take("environment")
            .and_then(|node| findings.text(node, "`environment`")),
        ..SettingsFile::default()
    };
    if let Some(node) = fields.take("policy") {
        (file.policies, file.reload) = policy(node, base, findings);
    }
    if let Some(node) = fields.take("listeners") {
        let items = findings.list(node, "`listeners`");
        bounded(items.len(), PLACES_MAX, node.span, "listeners", findings);
        file.listeners = items
            .iter()
            .take(PLACES_MAX)
            .filter_map(|item| listener(item, base, findings))
            .collect();
    }
    if let Some(node) = fields.take("upstreams") {
        file.known_upstreams = names(node);
        file.upstreams = named(
            node,
            "upstreams",
            PLACES_MAX,
            findings,
            |name, node, findings| upstream(name, node, base, findings),
        );
    }
    if let Some(node) = fields.take("kms") {
        file.known_kms = names(node);
        file.kms = named(node, "kms", PLACES_MAX, findings, |name, node, findings| {
            kms(name, node, base, findings)
        });
    }
    if let Some(node) = fields.take("keys") {
        file.keys = named(node, "keys", KEYS_MAX, findings, key);
    }
    if let Some(node) = fields.take("store") {
        file.store = store(node, base, findings);
    }
    if let Some(node) = fields.take("ca") {
        file.has_ca = true;
        file.ca = ways::ca(node, base, findings);
    }
    file.mark = fields
        .take("redirect")
        .and_then(|node| redirect(node, findings));
    file.admin = fields
        .take("admin")
        .and_then(|node| admin(node, base, findings));
    file.probes = fields
        .take("probes")
        .and_then(|node| probes(node, findings));
    if let Some(node) = fields.take("limits") {
        file.limits = limits(node, findings);
    }
    if let Some(node) = fields.take("log") {
        log(node, &mut file, findings);
    }
    fields.not_built(&["ledger", "telemetry"], findings);
    fields.finish(findings);
    Some(file)
}

pub(super) fn bounded(
    count: usize,
    max: usize,
    span: Span,
    what: &str,
    findings: &mut Findings<'_>,
) {
    if count > max {
        findings.at(
            "too-many",
            span,
            format!("{count} {what}; at most {max} are allowed"),
        );
    }
}

fn names(node: &Node) -> Vec<String> {
    match &node.value {
        Value::Map(entries) => entries.iter().map(|entry| entry.key.clone()).collect(),
        _ => Vec::new(),
    }
}

/// The entries of a mapping from names to things.
fn named<T>(
    node: &Node,
    what: &str,
    max: usize,
    findings: &mut Findings<'_>,
    read: impl Fn(Marked<String>, &Node, &mut Findings<'_>) -> Option<T>,
) -> Vec<T> {
    let entries = findings.entries(node, &format!("`{what}`"));
    bounded(entries.len(), max, node.span, what, findings);
    let mut things = Vec::new();
    for entry in entries.iter().take(max) {
        let name = Marked {
            value: entry.key.clone(),
            span: entry.key_span,
        };
        things.extend(read(name, &entry.node, findings));
    }
    things
}

pub(super) fn path(
    node: &Node,
    base: &Path,
    what: &str,
    findings: &mut Findings<'_>,
) -> Option<PathBuf> {
    let text = findings.text(node, what)?;
    if text.value.is_empty() || text.value.contains('\0') {
        findings.at("bad-path-name", text.span, format!("{what} names a file"));
        return None;
    }
    Some(base.join(text.value))
}

fn policy(node: &Node, base: &Path, findings: &mut Findings<'_>) -> (Option<PathBuf>, Reload) {
    let mut reload = Reload::default();
    let Some(mut fields) = findings.fields(node, "`policy`") else {
        return (None, reload);
    };
    let dir = fields
        .require("dir", findings)
        .and_then(|node| path(node, base, "`dir`", findings));
    let weaker = fields.take("allow_weaker");
    if let Some(may) = weaker.and_then(|node| findings.boolean(node, "`allow_weaker`")) {
        reload.allow_weaker = may;
    }
    let every = fields.take("look_every");
    if let Some(every) =
        every.and_then(|node| period(node, "`look_every`", millis(100, 3600), findings))
    {
        reload.look_every = every;
    }
    fields.finish(findings);
    (dir, reload)
}

/// `127.0.0.1:8080` or `[::1]:8080`: an address, so that nothing is looked up to listen.
pub(crate) fn socket_address(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| {
        text.strip_prefix("localhost:")
            .and_then(|port| format!("127.0.0.1:{port}").parse().ok())
    })
}

fn bind(fields: &mut Fields<'_>, findings: &mut Findings<'_>) -> Option<Marked<SocketAddr>> {
    let node = fields.require("bind", findings)?;
    let text = findings.text(node, "`bind`")?;
    match socket_address(&text.value) {
        Some(value) => Some(Marked {
            value,
            span: text.span,
        }),
        None => {
            let message = format!("{} is no address and port", quoted(&text.value));
            findings.at_with_hint(
                "bad-address",
                text.span,
                message,
                "for example 127.0.0.1:8080 or [::1]:8080",
            );
            None
        }
    }
}

fn listener(node: &Node, base: &Path, findings: &mut Findings<'_>) -> Option<ListenerWords> {
    let mut fields = findings.fields(node, "a listener")?;
    let name = fields
        .require("name", findings)
        .and_then(|node| findings.text(node, "the listener's name"));
    let mut way = Some(Way::Reverse);
    if let Some(node) = fields.take("mode") {
        let modes = [
            ("reverse", Way::Reverse),
            ("forward", Way::Forward),
            ("transparent", Way::Transparent),
        ];
        way = findings.choice(node, "a listener's `mode`", &modes);
    }
    let mut bind = fields
        .require("bind", findings)
        .and_then(|node| place(node, base, findings));
    if let Some(wanted) = fields
        .take("socket_mode")
        .and_then(|node| socket_mode(node, findings))
    {
        match bind.as_mut().map(|bind| &mut bind.value) {
            Some(Bind::Unix { mode, .. }) => *mode = wanted.value,
            Some(Bind::Tcp(_)) => findings.at(
                "socket-mode-without-socket",
                wanted.span,
                "`socket_mode` is for a listener on unix:PATH",
            ),
            None => {}
        }
    }
    let forward = ways::forward(way?, &mut fields, base, findings);
    let upstreams = match forward {
        Some(_) => Some(Vec::new()),
        None => destination(&mut fields, findings),
    };
    let tls = fields
        .take("tls")
        .and_then(|node| listener_tls(node, base, findings));
    let client_ca = tls.as_ref().and_then(|(_, ca)| ca.as_ref());
    if let (Some(forward), Some(bind)) = (&forward, &bind) {
        ways::closed(bind, forward, client_ca, findings);
    }
    let http2 = fields
        .take("http2")
        .and_then(|node| findings.boolean(node, "`http2`"));
    fields.finish(findings);
    Some(ListenerWords {
        name: name?,
        bind: bind?,
        upstreams: upstreams?,
        forward,
        tls,
        http2,
    })
}

fn upstream(
    name: Marked<String>,
    node: &Node,
    base: &Path,
    findings: &mut Findings<'_>,
) -> Option<UpstreamWords> {
    let mut fields = findings.fields(node, "an upstream")?;
    let url = fields
        .require("url", findings)
        .and_then(|node| findings.text(node, "`url`"));
    let url = url.and_then(|text| parse_url(text, findings));
    let tls = fields
        .take("tls")
        .and_then(|node| upstream_tls(node, base, findings))
        .unwrap_or_default();
    let speak = fields.take("http").and_then(|node| speak(node, findings));
    let connect = fields
        .take("connect")
        .and_then(|node| period(node, "`connect`", millis(10, 300), findings));
    let response = fields
        .take("response")
        .and_then(|node| period(node, "`response`", millis(100, 3600), findings));
    let idle = fields
        .take("idle")
        .and_then(|node| period(node, "`idle`", millis(100, 3600), findings));
    fields.finish(findings);
    Some(UpstreamWords {
        name,
        url: url?,
        tls,
        speak,
        connect,
        response,
        idle,
    })
}

pub(super) fn parse_url(text: Marked<String>, findings: &mut Findings<'_>) -> Option<Marked<Url>> {
    match Url::parse(&text.value) {
        Ok(value) => Some(Marked {
            value,
            span: text.span,
        }),
        Err(bad) => {
            let found = findings.source.diagnostic(
                "bad-url",
                text.span,
                format!("not an upstream's URL: {}", bad.what),
            );
            findings.report(if bad.secret {
                found.without_line()
            } else {
                found
            });
            None
        }
    }
}

fn admin(node: &Node, base: &Path, findings: &mut Findings<'_>) -> Option<AdminWords> {
    let mut fields = findings.fields(node, "`admin`")?;
    let bind = bind(&mut fields, findings);
    let token_file = fields
        .take("token_file")
        .and_then(|node| path(node, base, "`token_file`", findings));
    fields.finish(findings);
    Some(AdminWords {
        span: node.span,
        bind: bind?,
        token_file,
    })
}

fn probes(node: &Node, findings: &mut Findings<'_>) -> Option<Marked<SocketAddr>> {
    let mut fields = findings.fields(node, "`probes`")?;
    let bind = bind(&mut fields, findings);
    fields.finish(findings);
    bind
}

fn redirect(node: &Node, findings: &mut Findings<'_>) -> Option<u32> {
    let mut fields = findings.fields(node, "`redirect`")?;
    let mark = fields.require("mark", findings);
    let mark = mark.and_then(|node| findings.integer(node, "`mark`", 1..=u64::from(u32::MAX)));
    fields.finish(findings);
    u32::try_from(mark?).ok()
}

fn log(node: &Node, file: &mut SettingsFile, findings: &mut Findings<'_>) {
    let Some(mut fields) = findings.fields(node, "`log`") else {
        return;
    };
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    file.log_format = fields
        .take("format")
        .and_then(|node| findings.choice(node, "`format`", &formats));
    let levels = [
        LogLevel::Error,
        LogLevel::Warn,
        LogLevel::Info,
        LogLevel::Debug,
        LogLevel::Trace,
    ];
    let words = ["error", "warn", "info", "debug", "trace"];
    let levels: Vec<(&'static str, LogLevel)> = words.into_iter().zip(levels).collect();
    file.log_level = fields
        .take("level")
        .and_then(|node| findings.choice(node, "`level`", &levels));
    fields.finish(findings);
}

pub(super) fn period(
    node: &Node,
    what: &str,
    range: RangeInclusive<Duration>,
    findings: &mut Findings<'_>,
) -> Option<Duration> {
    let text = findings.text(node, what)?;
    let found = duration(&text.value);
    if let Some(found) = found.filter(|found| range.contains(found)) {
        return Some(found);
    }
    let bounds = format!(
        "from {} to {}",
        show_duration(*range.start()),
        show_duration(*range.end())
    );
    let message = format!(
        "{what} is a duration {bounds}; {} is not",
        quoted(&text.value)
    );
    findings.at_with_hint(
        "bad-duration",
        text.span,
        message,
        "a whole number and one of ms, s, m, h, d, as in 10m",
    );
    None
}
