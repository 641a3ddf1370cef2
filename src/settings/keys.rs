//! The words of `keys`.

use super::written::{PLACES_MAX, bounded, period, seconds};
use crate::diagnostic::quoted;
use crate::keys::Need;
use crate::marked::{Findings, Marked, Node};
use crate::token::WRAPPINGS_MAX;
use std::time::Duration;

pub(super) struct KeyWords {
    pub name: Marked<String>,
    pub seal_with: Vec<Marked<(String, String)>>,
    pub need: Need,
    pub open_also: Vec<Marked<(String, String)>>,
    pub lease: Option<Duration>,
    pub grace: Option<Duration>,
    pub rotate: Option<Duration>,
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
