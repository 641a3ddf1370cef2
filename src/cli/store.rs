//! `fieldveil store …`: the store of wrapped data keys, looked at and kept by an operator.
//!
//! Results go to standard output, as text or as one JSON document; questions and progress to standard error. No result holds a
//! record or a key.

mod backups;
mod meter;
mod records;

use super::keyring::date;
use super::run::{on_a_runtime, read};
use super::{
    Exit, Output, StoreArgs, StoreCommand, StoreDeleteArgs, StoreListArgs, StoreRotateArgs, trouble,
};
use crate::app::{StartError, stores};
use crate::dek::{Kid, Scope};
use crate::diagnostic::quoted;
use crate::keys::upkeep::{Unfit, Upkeep};
use crate::settings::{Overrides, PASSPHRASE_VARIABLE, Settings, StoreKind};
use crate::store::{self, BATCH_MAX, Entry, Failure, OWN, Put, Store, StoreError, Tombstone};
use serde_json::{Value, json};
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// Does what was asked for. What it prints goes to standard output.
pub fn run(command: &StoreCommand, output: Output) -> Exit {
    on_a_runtime(output, async {
        let done = match command {
            StoreCommand::Init(args) => init(args, output).await,
            StoreCommand::Status(args) => status(args, output).await,
            StoreCommand::List(args) => list(args, output).await,
            StoreCommand::Verify(args) => records::verify(args, output).await,
            StoreCommand::Rewrap(args) => records::rewrap(args, output).await,
            StoreCommand::RotateDeterministic(args) => rotate(args, output).await,
            StoreCommand::Delete(args) => delete(args, output).await,
            StoreCommand::Export(args) => backups::export(args, output).await,
            StoreCommand::Import(args) => backups::import(args, output).await,
            StoreCommand::Convert(args) => backups::convert(args, output).await,
        };
        Ok(done.unwrap_or_else(|ended| ended.tell(output)))
    })
}

/// Why a command ended before its end.
enum Ended {
    Start(StartError),
    Said {
        exit: Exit,
        what: String,
        hint: String,
    },
    /// Standard output cannot be written.
    Write(io::Error),
}

impl Ended {
    fn said(exit: Exit, what: impl Into<String>, hint: impl Into<String>) -> Ended {
        Ended::Said {
            exit,
            what: what.into(),
            hint: hint.into(),
        }
    }

    fn tell(self, output: Output) -> Exit {
        match self {
            Ended::Start(error) => trouble::not_started(&error, output),
            Ended::Said { exit, what, hint } => {
                // The exit code says it, too.
                drop(trouble::tell(&what, Some(&hint), output));
                exit
            }
            // Whoever read has read enough.
            Ended::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
            Ended::Write(error) => {
                trouble::say(&format!("cannot write: {error}"), None);
                Exit::Unavailable
            }
        }
    }
}

impl From<StartError> for Ended {
    fn from(error: StartError) -> Ended {
        Ended::Start(error)
    }
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Ended {
        let (exit, hint) = match error.failure {
            Failure::Unreachable => (
                Exit::Unavailable,
                "see that it runs and can be reached; what is done is done, the same command goes on",
            ),
            Failure::Refused => (
                Exit::Configuration,
                "correct `store` in the settings, or what the store allows this user",
            ),
            Failure::Malformed => (Exit::Configuration, "restore it from the backup"),
        };
        Ended::said(exit, format!("the store: {error}"), hint)
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::Write(error)
    }
}

/// The settings at `config`, and what they say of the store.
fn settings(config: &Path, args: &StoreArgs) -> Result<(Settings, crate::settings::Store), Ended> {
    let overrides = Overrides {
        config: Some(config.to_owned()),
        data_dir: args.data_dir.clone(),
        passphrase_in_environment: std::env::var_os(PASSPHRASE_VARIABLE)
            .is_some_and(|value| !value.is_empty()),
        admin_token_in_environment: true,
        ..Overrides::default()
    };
    let settings = Settings::load_without_listeners(&overrides, read)
        .map_err(|found| Ended::Start(StartError::Findings(found)))?;
    match settings.store.clone() {
        Some(store) => Ok((settings, store)),
        None => Err(Ended::said(
            Exit::Configuration,
            format!("{}: has no store", config.display()),
            "add one: store: {type: embedded, file: FILE} for one machine, {type: postgres, url_file: FILE} for several",
        )),
    }
}

/// The settings and their store, opened.
async fn open(args: &StoreArgs) -> Result<(Settings, Arc<dyn Store>), Ended> {
    let (settings, store) = settings(&args.config, args)?;
    let store = stores::open(&store)?;
    Ok((settings, store))
}

/// What opens the rows of this store.
async fn upkeep(settings: Settings, store: &dyn Store) -> Result<Upkeep, Ended> {
    let found = match settings.other_keys {
        Some(_) => stores::key_names(store).await?,
        None => Vec::new(),
    };
    Ok(stores::upkeep(settings, found).await?)
}

/// One result: JSON as it is, or text.
fn print(output: Output, document: &Value, text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match output {
        Output::Json => writeln!(out, "{document}")?,
        Output::Text | Output::Junit | Output::Github | Output::Sarif => writeln!(out, "{text}")?,
    }
    out.flush()
}

/// `1 data key`, `12,345 data keys`.
fn count(number: u64, one: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        number => format!("{} {one}s", grouped(number)),
    }
}

/// With a comma before each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Asks for a word on a terminal, unless it was given beforehand.
fn confirm(question: &str, yes: bool) -> Result<(), Ended> {
    if yes {
        return Ok(());
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Ended::said(
            Exit::Usage,
            question,
            "add --yes if that is meant",
        ));
    }
    let mut err = io::stderr().lock();
    write!(err, "{question}\ntype `yes` to go on: ")?;
    err.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    if answer.trim() == "yes" {
        return Ok(());
    }
    Err(Ended::said(
        Exit::Usage,
        "nothing was changed",
        "only `yes` goes on",
    ))
}

/// Where a store is, without a secret.
fn place(store: &crate::settings::Store) -> (&'static str, String) {
    match &store.kind {
        StoreKind::Embedded { file } => ("embedded", file.display().to_string()),
        StoreKind::Postgres { url_file, .. } => (
            "postgres",
            format!("the database in {}", url_file.display()),
        ),
    }
}

async fn init(args: &StoreArgs, output: Output) -> Result<Exit, Ended> {
    let (_, store) = settings(&args.config, args)?;
    let made = stores::init(&store).await?;
    let (kind, place) = place(&store);
    let text = match made {
        true => format!(
            "made the store: {place}\nback it up from now on: what is in it is nowhere else"
        ),
        false => format!("the store is there and up to date: {place}"),
    };
    let document = json!({"ok": true, "made": made, "type": kind, "place": place});
    print(output, &document, &text)?;
    Ok(Exit::Success)
}

async fn status(args: &StoreArgs, output: Output) -> Result<Exit, Ended> {
    let (_, written) = settings(&args.config, args)?;
    let counted = stores::open(&written)?.count().await?;
    let (kind, place) = place(&written);
    let document = json!({
        "ok": true, "type": kind, "place": place,
        "data_keys": counted.rows, "deterministic": counted.durable, "deleted": counted.tombstones,
    });
    let text = format!(
        "{place}\n{}, {} of them deterministic; {} deleted",
        count(counted.rows, "data key"),
        grouped(counted.durable),
        grouped(counted.tombstones)
    );
    print(output, &document, &text)?;
    Ok(Exit::Success)
}

async fn list(args: &StoreListArgs, output: Output) -> Result<Exit, Ended> {
    let (_, store) = open(&args.store).await?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let is_json = output == Output::Json;
    let mut first = true;
    if is_json {
        write!(out, "{{\"ok\":true,\"entries\":[")?;
    }
    let mut after = None;
    loop {
        let page = store.list(after, BATCH_MAX).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.kid());
        for entry in page.iter().filter(|entry| is_wanted(entry, args)) {
            let told = Told::of(entry);
            if is_json {
                let comma = if first { "" } else { "," };
                write!(out, "{comma}{}", told.document())?;
            } else {
                writeln!(out, "{}", told.line())?;
            }
            first = false;
        }
    }
    if is_json {
        writeln!(out, "]}}")?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

fn is_wanted(entry: &Entry, args: &StoreListArgs) -> bool {
    let told = Told::of(entry);
    let has = |wanted: &Option<String>, value: Option<&str>| {
        wanted.as_deref().is_none_or(|wanted| Some(wanted) == value)
    };
    has(&args.key, told.scope.map(|scope| &*scope.key))
        && has(
            &args.tenant,
            told.scope.and_then(|scope| scope.tenant.as_deref()),
        )
        && (!args.deterministic || told.epoch.is_some_and(|epoch| epoch != OWN))
}

/// What a list says of an entry.
struct Told<'a> {
    kid: Kid,
    scope: Option<&'a Scope>,
    epoch: Option<u64>,
    created: Option<u64>,
    deleted: Option<u64>,
}

impl Told<'_> {
    fn of(entry: &Entry) -> Told<'_> {
        match entry {
            Entry::Row(row) => Told {
                kid: row.kid,
                scope: Some(&row.scope),
                epoch: Some(row.epoch),
                created: Some(row.created),
                deleted: None,
            },
            Entry::Tombstone(tombstone) => Told {
                kid: tombstone.kid,
                scope: tombstone.was.as_ref().map(|was| &was.0),
                epoch: tombstone.was.as_ref().map(|was| was.1),
                created: None,
                deleted: Some(tombstone.deleted),
            },
        }
    }

    fn document(&self) -> Value {
        json!({
            "kid": self.kid.to_string(),
            "key": self.scope.map(|scope| &*scope.key),
            "tenant": self.scope.and_then(|scope| scope.tenant.as_deref()),
            "epoch": self.epoch,
            "created": self.created,
            "deleted": self.deleted,
        })
    }

    fn line(&self) -> String {
        let mut line = self.kid.to_string();
        if let Some(scope) = self.scope {
            line += &format!("  {}", scope.key);
            if let Some(tenant) = &scope.tenant {
                line += &format!("  tenant {}", quoted(tenant));
            }
        }
        if let Some(epoch) = self.epoch.filter(|epoch| *epoch != OWN) {
            line += &format!("  deterministic {epoch}");
        }
        if let Some(created) = self.created {
            line += &format!("  of {}", date(created));
        }
        if let Some(deleted) = self.deleted {
            line += &format!("  deleted {}", date(deleted));
        }
        line
    }
}

async fn rotate(args: &StoreRotateArgs, output: Output) -> Result<Exit, Ended> {
    let (settings, store) = open(&args.store).await?;
    let scope = Scope {
        key: args.key.as_str().into(),
        tenant: args.tenant.as_deref().map(Into::into),
    };
    let whose = match &args.tenant {
        Some(tenant) => format!("the key {}, tenant {}", quoted(&args.key), quoted(tenant)),
        None => format!("the key {} without a tenant", quoted(&args.key)),
    };
    let Some(latest) = store.latest(&scope).await? else {
        return Err(Ended::said(
            Exit::Configuration,
            format!("{whose} has no deterministic data key"),
            "the first value that is sealed makes it; `fieldveil store list --deterministic` shows those that there are",
        ));
    };
    let epoch = latest.slot().map_or(0, |(_, epoch)| epoch);
    confirm(
        &format!("equal values of {whose} will get other tokens than before"),
        args.yes,
    )?;
    let upkeep = upkeep(settings, &*store).await?;
    let fresh = upkeep.fresh(&scope, epoch + 1, unix_now()).await;
    let row = fresh.map_err(|why| unfit(why, &args.key))?;
    if let Put::Present(_) = store.put_if_absent(&row).await? {
        return Err(Ended::said(
            Exit::Unavailable,
            "someone else replaced it at the same time",
            "see `fieldveil store list --deterministic`, and run it again if another is still wanted",
        ));
    }
    let document = json!({
        "ok": true, "key": args.key, "tenant": args.tenant, "epoch": row.epoch, "kid": row.kid.to_string(),
        "replaced": latest.kid().to_string(),
    });
    let text = format!(
        "{whose} has deterministic data key {}: {}\nagents follow within one lease; old tokens still open",
        row.epoch, row.kid
    );
    print(output, &document, &text)?;
    Ok(Exit::Success)
}

fn unfit(why: Unfit, key: &str) -> Ended {
    let what = format!(
        "no data key can be made under the key {}: {}",
        quoted(key),
        why.word()
    );
    match why {
        Unfit::UnknownKey => Ended::said(
            Exit::Configuration,
            what,
            "name a key of the settings' `keys`",
        ),
        Unfit::AnyoneMayWrap => Ended::said(
            Exit::Configuration,
            what,
            "deterministic classes want a KEK that not everyone can wrap under",
        ),
        Unfit::Kms(kms) if kms.is_no() => Ended::said(
            Exit::Configuration,
            what,
            "give whoever runs this the right to wrap under the KEK",
        ),
        _ => Ended::said(Exit::Unavailable, what, "see that the KMS runs, and again"),
    }
}

async fn delete(args: &StoreDeleteArgs, output: Output) -> Result<Exit, Ended> {
    let (_, store) = open(&args.store).await?;
    let mut question = String::new();
    for kid in &args.kids {
        question += &match store.get(*kid).await? {
            Some(entry) => format!("{}\n", Told::of(&entry).line()),
            None => format!("{kid}  is not in the store; tokens may carry it\n"),
        };
    }
    let values = match args.kids.len() {
        1 => "all that it sealed is lost for ever",
        _ => "all that they sealed is lost for ever",
    };
    confirm(&format!("{question}{values}"), args.yes)?;
    let (mut deleted, mut before) = (Vec::new(), Vec::new());
    for kid in &args.kids {
        let tombstone = Tombstone {
            kid: *kid,
            deleted: unix_now(),
            was: None,
        };
        match store.delete(&tombstone).await? {
            true => deleted.push(kid.to_string()),
            false => before.push(kid.to_string()),
        }
    }
    let text = match (deleted.len() as u64, before.len()) {
        (0, _) => "deleted before; nothing was changed".to_owned(),
        (now, _) => format!(
            "deleted {}; agents follow within one lease\nwhat backups have of it opens again where they are restored: delete it there, too",
            count(now, "data key")
        ),
    };
    let document = json!({"ok": true, "deleted": deleted, "deleted_before": before});
    print(output, &document, &text)?;
    Ok(Exit::Success)
}

/// The rows of a page.
fn rows(page: Vec<Entry>) -> Vec<store::Row> {
    let rows = page.into_iter().filter_map(|entry| match entry {
        Entry::Row(row) => Some(row),
        Entry::Tombstone(_) => None,
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        for (number, expect) in [
            (0, "0 data keys"),
            (1, "1 data key"),
            (999, "999 data keys"),
            (1_000, "1,000 data keys"),
            (1_234_567, "1,234,567 data keys"),
        ] {
            assert_eq!(count(number, "data key"), expect);
        }
    }
}
