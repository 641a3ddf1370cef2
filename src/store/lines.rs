//! Entries as lines of JSON: what a backup is made of, and the bytes of a row in the embedded file.
//!
//! Canonical in the sense that matters here: what [`parse`] accepts, [`write()`] gives back with the same meaning; unknown members,
//! broken records and numbers out of range are refused.

use super::{Entry, Row, Tombstone};
use crate::dek::{Kid, Scope};
use crate::token::Record;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The first line of a backup.
pub const HEAD: &str = r#"{"fieldveil-store":1}"#;

/// The longest line, in bytes: a record of 4,096 and names of 65,535, escaped.
pub const LINE_MAX: usize = 1 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    kid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<u64>,
}

/// A line that is no entry; which part of it is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadLine(pub &'static str);

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no entry of a store: {}", self.0)
    }
}

impl std::error::Error for BadLine {}

/// One entry, without the line's end.
pub fn write(entry: &Entry) -> String {
    let line = match entry {
        Entry::Row(row) => Line {
            kid: row.kid.to_string(),
            key: Some(row.scope.key.to_string()),
            tenant: row.scope.tenant.as_deref().map(str::to_owned),
            epoch: Some(row.epoch),
            created: Some(row.created),
            record: Some(URL_SAFE_NO_PAD.encode(&row.record)),
            mac: Some(URL_SAFE_NO_PAD.encode(row.mac)),
            deleted: None,
        },
        Entry::Tombstone(tombstone) => {
            let scope = tombstone.was.as_ref().map(|was| &was.0);
            Line {
                kid: tombstone.kid.to_string(),
                key: scope.map(|scope| scope.key.to_string()),
                tenant: scope.and_then(|scope| scope.tenant.as_deref().map(str::to_owned)),
                epoch: tombstone.was.as_ref().map(|was| was.1),
                created: None,
                record: None,
                mac: None,
                deleted: Some(tombstone.deleted),
            }
        }
    };
    serde_json::to_string(&line).expect("texts and numbers are JSON")
}

/// One entry of a line, without the line's end.
///
/// # Errors
/// Which part is wrong; nothing of it is repeated.
pub fn parse(line: &[u8]) -> Result<Entry, BadLine> {
    if line.len() > LINE_MAX {
        return Err(BadLine("it is over 1 MiB"));
    }
    let line: Line =
        serde_json::from_slice(line).map_err(|_| BadLine("not the members of an entry"))?;
    let kid = kid(&line.kid).ok_or(BadLine("`kid` is 32 lower-case hexadecimal digits"))?;
    let scope = line.key.map(|key| Scope {
        key: key.into(),
        tenant: line.tenant.as_deref().map(Into::into),
    });
    if scope.is_none() && line.tenant.is_some() {
        return Err(BadLine("a tenant without a key"));
    }
    if line
        .epoch
        .is_some_and(|epoch| i64::try_from(epoch).is_err())
    {
        return Err(BadLine("`epoch` is out of range"));
    }
    if let Some(deleted) = line.deleted {
        if line.record.is_some() || line.mac.is_some() || line.created.is_some() {
            return Err(BadLine("deleted, and yet a record"));
        }
        let was = match (scope, line.epoch) {
            (Some(scope), Some(epoch)) => Some((scope, epoch)),
            (None, None) => None,
            _ => return Err(BadLine("`key` and `epoch` belong together")),
        };
        return Ok(Entry::Tombstone(Tombstone { kid, deleted, was }));
    }
    let (Some(scope), Some(epoch), Some(created)) = (scope, line.epoch, line.created) else {
        return Err(BadLine("`key`, `epoch` or `created` is missing"));
    };
    let bytes = |text: Option<String>| URL_SAFE_NO_PAD.decode(text?).ok();
    let record = bytes(line.record).filter(|record| Record::parse(record).is_ok());
    let record = record.ok_or(BadLine("`record` is no wrapped-DEK record"))?;
    let mac = bytes(line.mac).and_then(|mac| mac.try_into().ok());
    Ok(Entry::Row(Row {
        kid,
        scope,
        epoch,
        created,
        record: record.into_boxed_slice(),
        mac: mac.ok_or(BadLine("`mac` is 16 bytes"))?,
    }))
}

/// A kid as texts have it: 32 hexadecimal digits, lower case.
pub fn kid(text: &str) -> Option<Kid> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let bytes: Option<Vec<u8>> = pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect();
    bytes?.try_into().ok().map(Kid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tenant: Option<&str>) -> Row {
        Row {
            kid: Kid([0xab; 16]),
            scope: Scope {
                key: "cards".into(),
                tenant: tenant.map(Into::into),
            },
            epoch: 3,
            created: 1_700_000_000,
            record: Record::build(&[(*b"kek-id-8", b"blob")]).unwrap(),
            mac: [7; 16],
        }
    }

    #[test]
    fn what_was_written_reads_back() {
        let buried = |was| {
            Entry::Tombstone(Tombstone {
                kid: Kid([1; 16]),
                deleted: 5,
                was,
            })
        };
        for entry in [
            Entry::Row(row(None)),
            Entry::Row(row(Some(""))),
            Entry::Row(row(Some("a\"\u{0}ü"))),
            buried(None),
            buried(Some((row(Some("x")).scope, 9))),
        ] {
            assert_eq!(parse(write(&entry).as_bytes()), Ok(entry));
        }
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let good = write(&Entry::Row(row(Some("t"))));
        let record = r#""record":""#;
        let cases = [
            String::new(),
            "{}".to_owned(),
            "[]".to_owned(),
            good.replace("abab", "ABAB"),
            good.replace("abab", "ab"),
            good.replace(r#""key":"cards","#, ""),
            good.replace(r#""epoch":3"#, r#""epoch":-3"#),
            good.replace(r#""epoch":3"#, r#""epoch":9223372036854775808"#),
            good.replace(r#""epoch":3"#, r#""epoch":3,"more":1"#),
            good.replace(record, r#""record":"AA"#),
            good.replace(r#""mac":""#, r#""mac":"AA"#),
            good.replace(r#""created":1700000000,"#, r#""deleted":1,"#),
            format!("{good}{good}"),
        ];
        for case in cases {
            assert!(parse(case.as_bytes()).is_err(), "{case}");
        }
        assert!(parse(good.as_bytes()).is_ok());
    }
}
