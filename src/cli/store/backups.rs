//! `fieldveil store export`, `import` and `convert`: everything, elsewhere.

use super::meter::Meter;
use super::{Ended, count, grouped, open, print};
use crate::app::stores;
use crate::cli::{Exit, Output, StoreConvertArgs, StoreFileArgs};
use crate::store::backup::{BadBackup, Reader, Writer};
use crate::store::{BATCH_MAX, Entry, Store};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The entries of a backup's file, page by page.
pub struct Entries {
    file: PathBuf,
    reader: Reader<BufReader<File>>,
}

impl Entries {
    pub fn open(file: &Path) -> Result<Entries, Ended> {
        let opened = File::open(file).map_err(BadBackup::Read);
        let reader = opened.and_then(|opened| Reader::new(BufReader::new(opened)));
        Ok(Entries {
            file: file.to_owned(),
            reader: reader.map_err(|bad| bad_backup(file, &bad))?,
        })
    }

    pub fn page(&mut self) -> Result<Vec<Entry>, Ended> {
        let page: Result<Vec<Entry>, BadBackup> = self.reader.by_ref().take(BATCH_MAX).collect();
        page.map_err(|bad| bad_backup(&self.file, &bad))
    }
}

fn bad_backup(file: &Path, bad: &BadBackup) -> Ended {
    let (exit, hint) = match bad {
        BadBackup::Read(_) => (
            Exit::Unavailable,
            "name a file that `fieldveil store export` made",
        ),
        _ => (Exit::Data, "take another copy; nothing was changed"),
    };
    Ended::said(exit, format!("{}: {bad}", file.display()), hint)
}

/// Reads a backup to its end: how many data keys, and the names of their keys.
pub fn check(file: &Path) -> Result<(u64, Vec<Arc<str>>), Ended> {
    let (mut rows, mut names) = (0, BTreeSet::new());
    let mut entries = Entries::open(file)?;
    loop {
        let page = entries.page()?;
        if page.is_empty() {
            return Ok((rows, names.into_iter().collect()));
        }
        for entry in page {
            if let Entry::Row(row) = entry {
                rows += 1;
                names.insert(row.scope.key);
            }
        }
    }
}

pub(super) async fn export(args: &StoreFileArgs, output: Output) -> Result<Exit, Ended> {
    let (_, store) = open(&args.store).await?;
    let file = &args.file;
    let cannot = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::AlreadyExists => "name a file that is not there yet",
            _ => "name a file in a directory that this user may write to, with room for it",
        };
        let what = format!("{}: cannot be written: {error}", file.display());
        Ended::said(Exit::Unavailable, what, hint)
    };
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(file);
    let made = made.map_err(cannot)?;
    let counted = store.count().await?;
    let mut meter = Meter::new(counted.rows + counted.tombstones, args.quiet);
    let mut written = 0u64;
    // Cut off here, the file has no last line, and is refused.
    let mut writer = Writer::new(BufWriter::new(made)).map_err(cannot)?;
    let mut after = None;
    loop {
        let page = store.list(after, BATCH_MAX).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.kid());
        for entry in &page {
            writer.entry(entry).map_err(cannot)?;
        }
        written += page.len() as u64;
        meter.add(page.len());
    }
    let flushed = writer.end().map_err(cannot)?.into_inner();
    let file_written = flushed.map_err(|error| cannot(error.into_error()))?;
    file_written.sync_all().map_err(cannot)?;
    drop(meter);
    let document = json!({"ok": true, "file": file.display().to_string(), "entries": written});
    let text = format!(
        "wrote {}: {}\ntry it: fieldveil store verify --backup {}",
        file.display(),
        count(written, "data key"),
        file.display()
    );
    print(output, &document, &text)?;
    Ok(Exit::Success)
}

pub(super) async fn import(args: &StoreFileArgs, output: Output) -> Result<Exit, Ended> {
    let (_, store) = open(&args.store).await?;
    // To its end, before anything is changed.
    let (rows, _) = check(&args.file)?;
    let mut entries = Entries::open(&args.file)?;
    let mut meter = Meter::new(rows, args.quiet);
    let (mut made, mut known) = (0u64, 0u64);
    loop {
        let page = entries.page()?;
        if page.is_empty() {
            break;
        }
        let new = store.restore(&page).await?;
        made += new;
        known += page.len() as u64 - new;
        meter.add(page.len());
    }
    drop(meter);
    let document = json!({"ok": true, "restored": made, "known": known});
    let text = format!(
        "restored {}; {} were there before\ntry it: fieldveil store verify",
        count(made, "data key"),
        grouped(known)
    );
    print(output, &document, &text)?;
    Ok(Exit::Success)
}

pub(super) async fn convert(args: &StoreConvertArgs, output: Output) -> Result<Exit, Ended> {
    let (_, from) = open(&args.store).await?;
    let (_, written) = super::settings(&args.to, &args.store)?;
    let to: Arc<dyn Store> = stores::open(&written)?;
    let counted = from.count().await?;
    let mut meter = Meter::new(counted.rows + counted.tombstones, args.quiet);
    let (mut made, mut known, mut after) = (0u64, 0u64, None);
    loop {
        let page = from.list(after, BATCH_MAX).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.kid());
        let new = to.restore(&page).await?;
        made += new;
        known += page.len() as u64 - new;
        meter.add(page.len());
    }
    drop(meter);
    let document = json!({"ok": true, "copied": made, "known": known});
    let text = format!(
        "copied {}; {} were there before\ngive the agents the new settings, then run this once more for what they made meanwhile",
        count(made, "data key"),
        grouped(known)
    );
    print(output, &document, &text)?;
    Ok(Exit::Success)
}
