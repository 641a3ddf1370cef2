//! The words of `kms` and `keys`.

use super::written::{PLACES_MAX, bounded, path, period, seconds};
use crate::diagnostic::quoted;
use crate::keys::Need;
use crate::marked::{Findings, Marked, Node, not_built};
use crate::token::WRAPPINGS_MAX;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) struct KmsWords {
    pub name: Marked<String>,
    pub dir: PathBuf,
    pub unlock: Option<UnlockWords>,
}

pub(super) enum UnlockWords {
    KeyFile(PathBuf),
    PassphraseFile(PathBuf),
}

pub(super) struct KeyWords {
    pub name: Marked<String>,
    pub seal_with: Vec<Marked<(String, String)>>,
    pub need: Need,
    pub open_also: Vec<Marked<(String, String)>>,
    pub lease: Option<Duration>,
    pub grace: Option<Duration>,
    pub rotate: Option<Duration>,
}

pub(super) fn kms(
    name: Marked<String>,
    node: &Node,
    base: &Path,
    findings: &mut Findings<'_>,
) -> Option<KmsWords> {
    let mut fields = findings.fields(node, "a KMS")?;
    let kinds = ["keyring", "transit", "aws", "gcp", "azure", "pkcs11"]
        .map(|kind| (kind, kind == "keyring"));
    let kind = fields.require("type", findings)?;
    if !findings.choice(kind, "a KMS's `type`", &kinds)? {
        // The words of another type would only be unknown here.
        not_built(findings, kind.span, "a KMS other than `keyring`");
        return None;
    }
    let dir = fields
        .require("dir", findings)
        .and_then(|node| path(node, base, "`dir`", findings));
    let unlock = fields
        .take("unlock")
        .map(|node| unlock(node, base, findings));
    fields.finish(findings);
    let unlock = match unlock {
        Some(None) => return None,
        Some(Some(words)) => Some(words),
        None => None,
    };
    Some(KmsWords {
        name,
        dir: dir?,
        unlock,
    })
}

fn unlock(node: &Node, base: &Path, findings: &mut Findings<'_>) -> Option<UnlockWords> {
    let before = findings.count();
    let mut fields = findings.fields(node, "`unlock`")?;
    let key_file = fields
        .take("key_file")
        .and_then(|node| path(node, base, "`key_file`", findings));
    let passphrase = fields
        .take("passphrase_file")
        .and_then(|node| path(node, base, "`passphrase_file`", findings));
    let span = fields.span;
    let hint = "a secret is named by its file: key_file or passphrase_file";
    for word in ["key", "passphrase", "password"] {
        fields.misplaced(word, hint, findings);
    }
    fields.finish(findings);
    match (key_file, passphrase) {
        (Some(file), None) => Some(UnlockWords::KeyFile(file)),
        (None, Some(file)) => Some(UnlockWords::PassphraseFile(file)),
        _ => {
            // Another finding may have said it better.
            if findings.count() == before {
                findings.at(
                    "one-of",
                    span,
                    "`unlock` has one of key_file, passphrase_file",
                );
            }
            None
        }
    }
}

pub(super) fn key(
    name: Marked<String>,
    node: &Node,
    findings: &mut Findings<'_>,
) -> Option<KeyWords> {
    let mut fields = findings.fields(node, "a key")?;
    let seal_with = fields.require("seal_with", findings).and_then(|node| {
        let items = findings.list(node, "`seal_with`");
        if items.is_empty() {
            findings.at(
                "missing-word",
                node.span,
                "`seal_with` names a KEK: [KMS/KEK]",
            );
            return None;
        }
        bounded(
            items.len(),
            WRAPPINGS_MAX,
            node.span,
            "KEKs in `seal_with`",
            findings,
        );
        let keks = items.iter().take(WRAPPINGS_MAX);
        keks.map(|item| kek(item, findings)).collect()
    });
    let needs = [("any", Need::Any), ("all", Need::All)];
    let need = fields
        .take("need")
        .and_then(|node| findings.choice(node, "`need`", &needs));
    let open_also = fields
        .take("open_also")
        .map(|node| findings.list(node, "`open_also`"))
        .unwrap_or_default();
    bounded(
        open_also.len(),
        PLACES_MAX,
        fields.span,
        "KEKs in `open_also`",
        findings,
    );
    let open_also = open_also
        .iter()
        .take(PLACES_MAX)
        .filter_map(|item| kek(item, findings))
        .collect();
    let day = 24 * 60 * 60;
    let lease = fields
        .take("lease")
        .and_then(|node| period(node, "`lease`", seconds(1, day), findings));
    let grace = fields
        .take("grace")
        .and_then(|node| period(node, "`grace`", seconds(0, day), findings));
    let rotate = fields
        .take("rotate")
        .and_then(|node| period(node, "`rotate`", seconds(60, 90 * day), findings));
    fields.finish(findings);
    Some(KeyWords {
        name,
        seal_with: seal_with?,
        need: need.unwrap_or_default(),
        open_also,
        lease,
        grace,
        rotate,
    })
}

fn kek(node: &Node, findings: &mut Findings<'_>) -> Option<Marked<(String, String)>> {
    let text = findings.text(node, "a KEK")?;
    match text.value.split_once('/') {
        Some((kms, kek)) if !kms.is_empty() && !kek.is_empty() => Some(Marked {
            value: (kms.to_owned(), kek.to_owned()),
            span: text.span,
        }),
        _ => {
            findings.at(
                "bad-kek",
                text.span,
                format!(
                    "{} is no KEK: KMS/KEK, by the name in `kms`",
                    quoted(&text.value)
                ),
            );
            None
        }
    }
}
