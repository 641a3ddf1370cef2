//! The words of a KMS of type `pkcs11`: the token of an HSM.

use super::{TEXT_BYTES_MAX, secret};
use crate::diagnostic::quoted;
use crate::marked::{Fields, Findings, Node};
use crate::settings::Secret;
use crate::settings::written::path;
use std::path::{Path, PathBuf};

/// Bytes of a token's label, as the standard has it.
const LABEL_BYTES_MAX: usize = 32;
/// Calls at a time, unless the file says otherwise, and at most.
const SESSIONS: usize = 4;
const SESSIONS_MAX: u64 = 64;

/// A token of an HSM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkcs11 {
    /// The HSM's library.
    pub library: PathBuf,
    /// The token's label; part of its KEKs' URIs.
    pub token: String,
    /// The user's PIN. A file is read again at every login.
    pub pin: Secret,
    /// Calls at a time.
    pub sessions: usize,
}

/// Whether a token's keys can have this label.
pub(super) fn is_label(text: &str) -> bool {
    (1..=TEXT_BYTES_MAX).contains(&text.len())
        && !text.chars().any(char::is_control)
        && text.trim() == text
}

pub(super) fn pkcs11(
    mut fields: Fields<'_>,
    base: &Path,
    findings: &mut Findings<'_>,
) -> Option<Pkcs11> {
    let library = fields
        .require("library", findings)
        .and_then(|node| path(node, base, "`library`", findings));
    let token = fields
        .require("token", findings)
        .and_then(|node| label(node, findings));
    let before = findings.count();
    let pin = secret(&mut fields, "pin_file", "pin_env", base, findings);
    fields.misplaced("pin", "name where it is: pin_file or pin_env", findings);
    if pin.is_none() && findings.count() == before {
        let message = "a KMS of type `pkcs11` has one of pin_file, pin_env";
        findings.at("one-of", fields.span, message);
    }
    let sessions = fields
        .take("sessions")
        .map(|node| findings.integer(node, "`sessions`", 1..=SESSIONS_MAX));
    fields.finish(findings);
    Some(Pkcs11 {
        library: library?,
        token: token?,
        pin: pin?,
        sessions: match sessions {
            Some(sessions) => usize::try_from(sessions?).ok()?,
            None => SESSIONS,
        },
    })
}

fn label(node: &Node, findings: &mut Findings<'_>) -> Option<String> {
    let text = findings.text(node, "`token`")?;
    if text.value.len() > LABEL_BYTES_MAX || !is_label(&text.value) {
        let message = format!(
            "`token` is a token's label, at most {LABEL_BYTES_MAX} bytes; {} is not",
            quoted(&text.value)
        );
        findings.at("bad-name", text.span, message);
        return None;
    }
    Some(text.value)
}
