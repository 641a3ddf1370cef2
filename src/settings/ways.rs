//! Ways in besides a reverse proxy: a forward listener's own words, and the CA by which the agent stands in for hosts.

use super::written::path;
use super::{Bind, ClientCa, Forward, OwnCa, Silent, TlsFiles};
use crate::diagnostic::Span;
use crate::intercept::Names;
use crate::marked::{Fields, Findings, Marked, Node};
use std::path::Path;

/// What a forward or transparent listener alone has, with the modes that have it.
const FORWARD_WORDS: [(&str, &[Way]); 4] = [
    ("uncovered", &[Way::Forward, Way::Transparent]),
    ("credentials_file", &[Way::Forward]),
    ("loopback_upstreams", &[Way::Forward, Way::Transparent]),
    ("silent", &[Way::Transparent]),
];

/// How a listener's clients say where they want to go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// They do not: the listener has its upstreams.
    Reverse,
    /// As to a proxy.
    Forward,
    /// By the address that they connect to, from which they are redirected.
    Transparent,
}

/// The words of a forward listener; those of other modes have no place in it, and the other way round.
pub(super) fn forward(
    way: Way,
    fields: &mut Fields<'_>,
    base: &Path,
    findings: &mut Findings<'_>,
) -> Option<Forward> {
    for (word, ways) in FORWARD_WORDS {
        if !ways.contains(&way) {
            let hint = match ways {
                [Way::Forward] => "it is for a listener with `mode: forward`",
                [Way::Transparent] => "it is for a listener with `mode: transparent`",
                _ => "it is for a listener with `mode: forward` or `transparent`",
            };
            elsewhere(word, hint, fields, findings);
        }
    }
    let hint = match way {
        Way::Reverse => return None,
        Way::Forward => {
            "with `mode: forward`, requests name where they go; what `upstreams` of the settings says of the same URL holds"
        }
        Way::Transparent => {
            "with `mode: transparent`, connections go where they were going; what `upstreams` of the settings says of the same URL holds"
        }
    };
    for word in ["upstream", "upstreams"] {
        elsewhere(word, hint, fields, findings);
    }
    if way == Way::Transparent {
        let hint = "what was redirected brings the TLS of the host that it was meant for";
        elsewhere("tls", hint, fields, findings);
    }
    let choices = [("tunnel", false), ("refuse", true)];
    let uncovered = fields
        .take("uncovered")
        .and_then(|node| findings.choice(node, "`uncovered`", &choices));
    let credentials = fields
        .take("credentials_file")
        .and_then(|node| path(node, base, "`credentials_file`", findings));
    let loopback = fields
        .take("loopback_upstreams")
        .and_then(|node| findings.boolean(node, "`loopback_upstreams`"));
    let silences = [("refuse", Silent::Refuse), ("tunnel", Silent::Tunnel)];
    let silent = fields
        .take("silent")
        .and_then(|node| findings.choice(node, "`silent`", &silences));
    Some(Forward {
        transparent: (way == Way::Transparent).then_some(silent.unwrap_or_default()),
        covered_only: uncovered.unwrap_or(false),
        credentials,
        loopback: loopback.unwrap_or(false),
    })
}

/// A word of a listener, but not of one of this mode.
fn elsewhere(word: &'static str, hint: &str, fields: &mut Fields<'_>, findings: &mut Findings<'_>) {
    if let Some(entry) = fields.take_entry(word) {
        let message = format!("`{word}` has no place in a listener of this mode");
        findings.at_with_hint("misplaced-word", entry.key_span, message, hint);
    }
}

/// A proxy that whoever reaches it may use is an open one.
pub(super) fn closed(
    bind: &Marked<Bind>,
    forward: &Forward,
    client_ca: Option<&ClientCa>,
    findings: &mut Findings<'_>,
) {
    if forward.transparent.is_some() {
        if let Bind::Unix { .. } = bind.value {
            findings.at(
                "bad-address",
                bind.span,
                "connections are redirected to an address and port",
            );
        }
        return;
    }
    let elsewhere = matches!(&bind.value, Bind::Tcp(address) if !address.ip().is_loopback());
    let certified = client_ca.is_some_and(|ca| ca.required);
    if elsewhere && forward.credentials.is_none() && !certified {
        findings.at_with_hint(
            "open-proxy",
            bind.span,
            "whoever reaches this address could use the proxy",
            "`credentials_file: FILE` with user:password, `tls` with `client_ca`, or a loopback address",
        );
    }
}

/// The settings' `ca`.
pub(super) fn ca(node: &Node, base: &Path, findings: &mut Findings<'_>) -> Option<OwnCa> {
    let mut fields = findings.fields(node, "`ca`")?;
    let dir = fields.take("dir");
    let (cert, key) = (fields.take("cert"), fields.take("key"));
    let names = fields.take("names").map(|node| names(node, findings));
    fields.finish(findings);
    let mut file = |node, what| path(node, base, what, findings);
    let files = match (dir, cert, key) {
        (Some(dir), None, None) => file(dir, "`dir`").map(|dir| OwnCa::files_in(&dir)),
        (None, Some(cert), Some(key)) => file(cert, "`cert`")
            .zip(file(key, "`key`"))
            .map(|(cert, key)| TlsFiles { cert, key }),
        _ => {
            findings.at_with_hint(
                "missing-word",
                node.span,
                "`ca` has either `dir`, or `cert` and `key`",
                "`fieldveil ca init` makes the files",
            );
            None
        }
    };
    Some(OwnCa {
        files: files?,
        names: names.unwrap_or(Some(Names::default()))?,
    })
}

fn names(node: &Node, findings: &mut Findings<'_>) -> Option<Names> {
    let mut texts = Vec::new();
    for item in findings.list(node, "`names`") {
        let text = findings.text(item, "a name")?;
        if let Err(wrong) = Names::new([text.value.as_str()]) {
            findings.at("bad-name", text.span, wrong.to_string());
            return None;
        }
        texts.push(text.value);
    }
    if texts.is_empty() {
        findings.at(
            "missing-word",
            node.span,
            "`names` names nobody: leave it out, and the CA may vouch for every host",
        );
        return None;
    }
    match Names::new(texts.iter().map(String::as_str)) {
        Ok(names) => Some(names),
        Err(wrong) => {
            findings.at("too-many", node.span, wrong.to_string());
            None
        }
    }
}

/// Where the CA is missed.
pub(super) fn wants_ca(span: Span, findings: &mut Findings<'_>) {
    findings.at_with_hint(
        "missing-word",
        span,
        "a listener of this mode needs `ca`: by it the agent stands in for the hosts that the policy names",
        "ca: {dir: DIR}, made by `fieldveil ca init`",
    );
}
