//! How connections come in and go out: where a listener listens, TLS on either side, versions of HTTP.

use super::written::{bounded, path, socket_address};
use super::{Ca, ClientCa, Speak, TlsFiles};
use crate::diagnostic::quoted;
use crate::marked::{Fields, Findings, Marked, Node};
use crate::policy::HostPattern;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Hosts of one listener.
const HOSTS_MAX: usize = 256;
/// Bytes of a Unix socket's path that every system takes.
const UNIX_PATH_BYTES_MAX: usize = 107;
/// A Unix socket's permissions: its own user's alone.
pub(super) const SOCKET_MODE_DEFAULT: u32 = 0o600;

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// Port 0 takes a free one.
    Tcp(SocketAddr),
    /// `unix:PATH`.
    Unix {
        /// The socket's file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bind::Tcp(address) => address.fmt(f),
            Bind::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Bind {
    /// An address and port, or `unix:` and a path that is relative to `base`.
    pub(super) fn parse(text: &str, base: &Path) -> Option<Bind> {
        let Some(path) = text.strip_prefix("unix:") else {
            return socket_address(text).map(Bind::Tcp);
        };
        let whole = base.join(path);
        let fits = !path.is_empty()
            && !path.ends_with('/')
            && !path.contains('\0')
            && whole.as_os_str().len() <= UNIX_PATH_BYTES_MAX;
        fits.then_some(Bind::Unix {
            path: whole,
            mode: SOCKET_MODE_DEFAULT,
        })
    }

    /// Two cannot listen there.
    pub(super) fn collides(&self, other: &Bind) -> bool {
        match (self, other) {
            // Port 0 is a new port each time.
            (Bind::Tcp(one), Bind::Tcp(other)) => {
                one.port() != 0
                    && one.port() == other.port()
                    && (one.ip() == other.ip()
                        || one.ip().is_unspecified()
                        || other.ip().is_unspecified())
            }
            (Bind::Unix { path: one, .. }, Bind::Unix { path: other, .. }) => one == other,
            _ => false,
        }
    }
}

/// A listener's `bind`.
pub(super) fn place(node: &Node, base: &Path, findings: &mut Findings<'_>) -> Option<Marked<Bind>> {
    let text = findings.text(node, "`bind`")?;
    if let Some(value) = Bind::parse(&text.value, base) {
        return Some(Marked {
            value,
            span: text.span,
        });
    }
    let (what, hint) = if text.value.starts_with("unix:") {
        (
            "no path for a socket",
            "for example unix:/run/fieldveil/agent.sock; at most 107 bytes",
        )
    } else {
        (
            "no address and port",
            "for example 127.0.0.1:8080, [::1]:8080 or unix:/run/fieldveil/agent.sock",
        )
    };
    let message = format!("{} is {what}", quoted(&text.value));
    findings.at_with_hint("bad-address", text.span, message, hint);
    None
}

/// A Unix socket's permissions in octal, such as `0660`.
pub(super) fn socket_mode(node: &Node, findings: &mut Findings<'_>) -> Option<Marked<u32>> {
    let text = findings.text(node, "`socket_mode`")?;
    let digits = text.value.strip_prefix('0').unwrap_or(&text.value);
    let octal = digits.len() == 3 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    match u32::from_str_radix(digits, 8) {
        Ok(value) if octal => Some(Marked {
            value,
            span: text.span,
        }),
        _ => {
            let message = format!("{} are no permissions", quoted(&text.value));
            findings.at_with_hint(
                "bad-mode",
                text.span,
                message,
                "three octal digits, as in 0600 (the own user) or 0660 (its group, too)",
            );
            None
        }
    }
}

/// A listener's `upstream`, or its `upstreams` by host.
pub(super) fn destination(
    fields: &mut Fields<'_>,
    findings: &mut Findings<'_>,
) -> Option<Vec<(Option<HostPattern>, Marked<String>)>> {
    let Some(hosts) = fields.take("upstreams") else {
        let node = fields.require("upstream", findings)?;
        let name = findings.text(node, "`upstream`")?;
        return Some(vec![(None, name)]);
    };
    if let Some(one) = fields.take("upstream") {
        findings.at_with_hint(
            "conflict",
            one.span,
            "a listener has either `upstream` or `upstreams`",
            "keep one of them",
        );
        return None;
    }
    let entries = findings.entries(hosts, "`upstreams`");
    bounded(entries.len(), HOSTS_MAX, hosts.span, "hosts", findings);
    if entries.is_empty() {
        findings.at_with_hint(
            "missing-word",
            hosts.span,
            "`upstreams` names no host",
            "for example upstreams: {api.example.com: api, \"*.partner.example\": partner}",
        );
        return None;
    }
    let mut found: Vec<(Option<HostPattern>, Marked<String>)> = Vec::new();
    for entry in entries.iter().take(HOSTS_MAX) {
        let name = findings.text(&entry.node, "an upstream's name");
        match HostPattern::parse(&entry.key) {
            Ok(host) => {
                if found.iter().any(|(known, _)| known.as_ref() == Some(&host)) {
                    let message = format!("{} is there already", quoted(&entry.key));
                    findings.at("duplicate-host", entry.key_span, message);
                }
                found.extend(name.map(|name| (Some(host), name)));
            }
            Err(wrong) => findings.at("bad-host", entry.key_span, wrong),
        }
    }
    Some(found)
}

/// A listener's `tls`: both files, and whose certificates clients may show.
pub(super) fn listener_tls(
    node: &Node,
    base: &Path,
    findings: &mut Findings<'_>,
) -> Option<(TlsFiles, Option<ClientCa>)> {
    let mut fields = findings.fields(node, "`tls`")?;
    let cert = fields
        .require("cert", findings)
        .and_then(|node| path(node, base, "`cert`", findings));
    let key = fields
        .require("key", findings)
        .and_then(|node| path(node, base, "`key`", findings));
    let file = fields
        .take("client_ca")
        .and_then(|node| path(node, base, "`client_ca`", findings));
    let wanted = fields.take("client_cert");
    let choices = [("required", true), ("optional", false)];
    let required = wanted.and_then(|node| findings.choice(node, "`client_cert`", &choices));
    if let (Some(node), None) = (wanted, &file) {
        let message = "`client_cert` needs `client_ca`: a file with the certificates of the clients' authorities";
        findings.at("missing-word", node.span, message);
    }
    fields.finish(findings);
    let files = TlsFiles {
        cert: cert?,
        key: key?,
    };
    let required = required.unwrap_or(true);
    Some((files, file.map(|file| ClientCa { file, required })))
}

/// What an upstream's `tls` says.
#[derive(Default)]
pub(super) struct UpstreamTls {
    pub ca: Option<Marked<Ca>>,
    pub identity: Option<Marked<TlsFiles>>,
}

/// An upstream's `tls`.
pub(super) fn upstream_tls(
    node: &Node,
    base: &Path,
    findings: &mut Findings<'_>,
) -> Option<UpstreamTls> {
    let mut fields = findings.fields(node, "`tls`")?;
    let ca = fields.take("ca").and_then(|node| {
        let value = match findings.text(node, "`ca`")?.value.as_str() {
            "system" => Ca::System,
            _ => Ca::File(path(node, base, "`ca`", findings)?),
        };
        Some(Marked {
            value,
            span: node.span,
        })
    });
    let (cert, key) = (fields.take("cert"), fields.take("key"));
    fields.finish(findings);
    let identity = match (cert, key) {
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => {
            findings.at(
                "missing-word",
                one.span,
                "a client certificate needs both `cert` and `key`",
            );
            None
        }
        (Some(cert), Some(key)) => {
            let span = cert.span;
            let cert = path(cert, base, "`cert`", findings);
            let key = path(key, base, "`key`", findings);
            cert.zip(key).map(|(cert, key)| Marked {
                value: TlsFiles { cert, key },
                span,
            })
        }
    };
    Some(UpstreamTls { ca, identity })
}

/// An upstream's `http`.
pub(super) fn speak(node: &Node, findings: &mut Findings<'_>) -> Option<Speak> {
    let versions = [
        ("auto", Speak::Either),
        ("1.1", Speak::Http1),
        ("2", Speak::Http2),
    ];
    findings.choice(node, "`http`", &versions)
}
