//! The words of `store`.

use super::written::{millis, path, period};
use super::{Ca, Store, StoreKind};
use crate::marked::{Findings, Node};
use std::path::Path;
use std::time::Duration;

/// For one call to the store, unless the settings say otherwise.
pub(super) const DEADLINE_DEFAULT: Duration = Duration::from_secs(1);

/// None for `type: none`, and together with findings.
pub(super) fn store(node: &Node, base: &Path, findings: &mut Findings<'_>) -> Option<Store> {
    let mut fields = findings.fields(node, "`store`")?;
    let kind = fields.require("type", findings)?;
    let kinds = [("none", 0), ("embedded", 1), ("postgres", 2)];
    let chosen = findings.choice(kind, "the store's `type`", &kinds)?;
    let (file, url_file, tls) = match chosen {
        1 => (fields.require("file", findings), None, None),
        2 => {
            let hint = "a URL holds a password: put it into a file, and name that: url_file: FILE";
            for word in ["url", "password"] {
                fields.misplaced(word, hint, findings);
            }
            let url_file = fields.require("url_file", findings);
            (None, url_file, fields.take("tls"))
        }
        _ => {
            fields.finish(findings);
            return None;
        }
    };
    let deadline = fields
        .take("deadline")
        .and_then(|node| period(node, "`deadline`", millis(50, 10), findings));
    fields.finish(findings);
    let (ca, required) = match tls {
        Some(node) => store_tls(node, base, findings)?,
        None => (Ca::System, None),
    };
    let kind = match (file, url_file) {
        (Some(node), _) => StoreKind::Embedded {
            file: path(node, base, "`file`", findings)?,
        },
        (_, Some(node)) => {
            let url_file = path(node, base, "`url_file`", findings)?;
            StoreKind::Postgres {
                url_file,
                ca,
                tls: required,
            }
        }
        (None, None) => return None,
    };
    Some(Store {
        kind,
        deadline: deadline.unwrap_or(DEADLINE_DEFAULT),
    })
}

fn store_tls(node: &Node, base: &Path, findings: &mut Findings<'_>) -> Option<(Ca, Option<bool>)> {
    let mut fields = findings.fields(node, "`tls`")?;
    let ca = match fields.take("ca") {
        Some(node) => match findings.text(node, "`ca`")?.value.as_str() {
            "system" => Ca::System,
            _ => Ca::File(path(node, base, "`ca`", findings)?),
        },
        None => Ca::System,
    };
    let required = fields
        .take("required")
        .and_then(|node| findings.boolean(node, "`required`"));
    fields.finish(findings);
    Some((ca, required))
}
