//! `fieldveil store verify` and `rewrap`: every record, opened.

use super::backups::{self, Entries};
use super::meter::Meter;
use super::{Ended, count, grouped, open, print, rows, upkeep};
use crate::app::stores;
use crate::cli::{Exit, Output, StoreRewrapArgs, StoreVerifyArgs};
use crate::dek::Kid;
use crate::keys::upkeep::{Anew, Unfit, Wrapped};
use crate::store::{BATCH_MAX, Count, Entry, OWN, Row, Store};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// Data keys of which a report says why they do not open; of more it says how many.
const NAMED_MAX: usize = 1_000;

/// Pages of entries, from a store or from a backup.
enum Source {
    Store(Arc<dyn Store>, Option<Kid>),
    Backup(Entries),
}

impl Source {
    async fn page(&mut self) -> Result<Vec<Entry>, Ended> {
        match self {
            Source::Store(store, after) => {
                let page = store.list(*after, BATCH_MAX).await?;
                *after = page.last().map(Entry::kid).or(*after);
                Ok(page)
            }
            Source::Backup(entries) => entries.page(),
        }
    }
}

/// What was found of one version of one KEK.
#[derive(Default)]
struct Version {
    records: u64,
    open: u64,
    /// Nothing else opens those.
    alone: u64,
}

#[derive(Default)]
struct Found {
    count: Count,
    versions: BTreeMap<(String, Option<String>), Version>,
    failed: u64,
    failures: Vec<Value>,
    lines: String,
    is_unreachable: bool,
}

impl Found {
    fn add(&mut self, row: &Row, wrappings: &[Wrapped]) {
        self.count.rows += 1;
        self.count.durable += u64::from(row.epoch != OWN);
        let opening = wrappings.iter().filter(|one| one.opens.is_ok()).count();
        for one in wrappings {
            let known = (one.kek.clone(), one.version.clone());
            let version = self.versions.entry(known).or_default();
            version.records += 1;
            version.open += u64::from(one.opens.is_ok());
            version.alone += u64::from(one.opens.is_ok() && opening == 1);
        }
        if opening == 0 {
            let why = wrappings.iter().filter_map(|one| one.opens.err());
            let why: Vec<Unfit> = why.collect();
            self.is_unreachable |= why.iter().any(|why| why.is_unreachable());
            self.fail(row, &why);
        }
    }

    fn fail(&mut self, row: &Row, why: &[Unfit]) {
        self.failed += 1;
        if self.failures.len() < NAMED_MAX {
            let why: Vec<&str> = why.iter().map(|why| why.word()).collect();
            let (kid, key) = (row.kid.to_string(), &*row.scope.key);
            let _ = write!(self.lines, "\n  {kid}  {key}  {}", why.join(", "));
            self.failures
                .push(json!({"kid": kid, "key": key, "why": why}));
        }
    }

    fn exit(&self) -> Exit {
        match (self.failed, self.is_unreachable) {
            (0, _) => Exit::Success,
            (_, true) => Exit::Unavailable,
            (_, false) => Exit::No,
        }
    }

    fn document(&self) -> Value {
        let keks = self.versions.iter().map(|((kek, version), found)| {
            json!({"kek": kek, "version": version, "records": found.records, "open": found.open, "needed": found.alone})
        });
        json!({
            "ok": self.exit() == Exit::Success,
            "data_keys": self.count.rows, "deterministic": self.count.durable, "deleted": self.count.tombstones,
            "keks": Vec::from_iter(keks), "failed": self.failed, "failures": self.failures,
        })
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{}, {} of them deterministic; {} deleted",
            count(self.count.rows, "data key"),
            grouped(self.count.durable),
            grouped(self.count.tombstones)
        );
        for ((kek, version), found) in &self.versions {
            let version = version
                .as_ref()
                .map(|version| format!(" version {version}"));
            let needed = match found.alone {
                0 => "not needed".to_owned(),
                alone => format!("needed by {}", grouped(alone)),
            };
            let _ = write!(
                text,
                "\n{kek}{}: {}, {} open; {needed}",
                version.unwrap_or_default(),
                count(found.records, "record"),
                grouped(found.open)
            );
        }
        match self.failed {
            0 => text += "\neverything opens",
            failed => {
                let _ = write!(text, "\n{} not open:{}", do_not(failed), self.lines);
                if failed > NAMED_MAX as u64 {
                    text += "\n  …";
                }
            }
        }
        text
    }
}

fn do_not(failed: u64) -> String {
    match failed {
        1 => "1 data key does".to_owned(),
        failed => format!("{} do", count(failed, "data key")),
    }
}

pub(super) async fn verify(args: &StoreVerifyArgs, output: Output) -> Result<Exit, Ended> {
    let (mut source, total, upkeep) = match &args.backup {
        None => {
            let (settings, store) = open(&args.store).await?;
            let total = store.count().await?.rows;
            let upkeep = upkeep(settings, &*store).await?;
            (Source::Store(store, None), total, upkeep)
        }
        // The store may be what was lost.
        Some(file) => {
            let (settings, _) = super::settings(&args.store.config, &args.store)?;
            let (total, names) = backups::check(file)?;
            let upkeep = stores::upkeep(settings, names).await?;
            (Source::Backup(Entries::open(file)?), total, upkeep)
        }
    };
    let mut meter = Meter::new(total, args.quiet);
    let mut found = Found::default();
    loop {
        let page = source.page().await?;
        if page.is_empty() {
            break;
        }
        let all = page.len();
        let rows = rows(page);
        found.count.tombstones += (all - rows.len()) as u64;
        meter.add(rows.len());
        for (row, wrappings) in upkeep.look(rows).await {
            found.add(&row, &wrappings);
        }
    }
    drop(meter);
    print(output, &found.document(), &found.text())?;
    Ok(found.exit())
}

pub(super) async fn rewrap(args: &StoreRewrapArgs, output: Output) -> Result<Exit, Ended> {
    let (settings, store) = open(&args.store).await?;
    let upkeep = upkeep(settings, &*store).await?;
    let mut meter = Meter::new(store.count().await?.rows, args.quiet);
    let mut found = Found::default();
    let (mut changed, mut as_it_is, mut raced) = (0u64, 0u64, 0u64);
    let mut after = None;
    while !found.is_unreachable {
        let page = store.list(after, BATCH_MAX).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.kid());
        let rows = rows(page);
        let worked = rows.len();
        let mut changes = Vec::new();
        for (row, anew) in upkeep.rewrap(rows).await {
            match anew {
                Ok(Anew::AsItIs) => as_it_is += 1,
                Ok(Anew::Changed(change)) => changes.push(change),
                Err(why) => {
                    found.is_unreachable |= why.is_unreachable();
                    found.fail(&row, &[why]);
                }
            }
        }
        let wanted = changes.len() as u64;
        let done = match args.dry_run {
            true => wanted,
            false => store.rewrap(&changes).await?,
        };
        changed += done;
        // Deleted or rewrapped by someone else meanwhile.
        raced += wanted - done;
        meter.add(worked);
    }
    drop(meter);
    let document = json!({
        "ok": found.failed == 0, "dry_run": args.dry_run, "rewrapped": changed, "as_it_is": as_it_is,
        "changed_meanwhile": raced, "failed": found.failed, "failures": found.failures,
        "whole": !found.is_unreachable,
    });
    let verb = if args.dry_run {
        "to be wrapped anew"
    } else {
        "wrapped anew"
    };
    let mut text = format!(
        "{} {verb}; {} under the KEKs that seal already",
        count(changed, "record"),
        grouped(as_it_is)
    );
    if raced > 0 {
        let _ = write!(
            text,
            "\n{} changed by someone else meanwhile: run it again",
            grouped(raced)
        );
    }
    if found.failed > 0 {
        let _ = write!(
            text,
            "\n{} not open and stay as they are:{}",
            do_not(found.failed),
            found.lines
        );
    }
    if found.is_unreachable {
        text += "\nstopped, since a KMS gives no answer: what is done is done, the same command goes on";
    }
    print(output, &document, &text)?;
    Ok(found.exit())
}
