//! The store of the settings, opened. The URL of a database is a secret: it comes from its file, and is in no error.

use super::providers::Building;
use super::{Given, StartError, prepare};
use crate::arena::Arena;
use crate::context::Suite;
use crate::keys::upkeep::Upkeep;
use crate::kms::keyring::read_secret;
use crate::kms::os_random;
use crate::policy::Policies;
use crate::settings::{self, Ca, StoreKind};
use crate::store::embedded::Embedded;
use crate::store::postgres::{Place, Postgres};
use crate::store::{BATCH_MAX, Entry, Failure, Store, StoreError};
use crate::tls::Roots;
use rustls::ClientConfig;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// Bytes of a URL's file.
const URL_FILE_LEN_MAX: u64 = 4096;

/// The store. A database is connected to at the first call, and may be away until then; a file must be there.
///
/// # Errors
/// It is not there or not usable as the settings have it.
pub fn open(store: &settings::Store) -> Result<Arc<dyn Store>, StartError> {
    Ok(match &store.kind {
        StoreKind::Embedded { file } => {
            let opened = Embedded::open(file).map_err(|error| failed(file, &error))?;
            Arc::new(opened)
        }
        StoreKind::Postgres { .. } => Arc::new(Postgres::new(place(store)?)),
    })
}

fn failed(file: &Path, error: &StoreError) -> StartError {
    let hint = match error.failure {
        Failure::Refused => {
            "make it: fieldveil store init; or, if there was one, restore it from the backup"
        }
        Failure::Unreachable => "end the program that has it open",
        Failure::Malformed => "restore it from the backup",
    };
    StartError::Settings(
        format!("the store {}: {error}", file.display()),
        hint.to_owned(),
    )
}

/// Makes the store where there is none, or brings it up to date; true: something was changed.
///
/// # Errors
/// It cannot be made, or cannot be reached.
pub async fn init(store: &settings::Store) -> Result<bool, StartError> {
    match &store.kind {
        StoreKind::Embedded { file } if file.exists() => {
            Embedded::open(file).map_err(|error| failed(file, &error))?;
            Ok(false)
        }
        StoreKind::Embedded { file } => {
            Embedded::create(file).map_err(|error| {
                let hint = "make its directory, for the agent's user";
                let what = format!("the store {}: {error}", file.display());
                StartError::Settings(what, hint.to_owned())
            })?;
            Ok(true)
        }
        StoreKind::Postgres { .. } => {
            let place = place(store)?;
            Postgres::init(&place).await.map_err(|error| {
                let hint = "`init` wants a user who may create tables; an agent does not";
                StartError::Settings(format!("the store: {error}"), hint.to_owned())
            })
        }
    }
}

/// The names of all keys that a store has rows of.
///
/// # Errors
/// The store's.
pub async fn key_names(store: &dyn Store) -> Result<Vec<Arc<str>>, StoreError> {
    let (mut names, mut after) = (BTreeSet::new(), None);
    loop {
        let page = store.list(after, BATCH_MAX).await?;
        let Some(last) = page.last() else {
            return Ok(names.into_iter().collect());
        };
        after = Some(last.kid());
        for entry in page {
            if let Entry::Row(row) = entry {
                names.insert(row.scope.key);
            }
        }
    }
}

/// What works on the rows of a store, with the keys of the settings; where those leave names open, with `found`'s as well.
///
/// # Errors
/// What is wrong with keys or KMSs.
pub async fn upkeep(
    settings: settings::Settings,
    found: Vec<Arc<str>>,
) -> Result<Upkeep, StartError> {
    // Files and passphrases, off the async threads.
    let read = tokio::task::spawn_blocking(move || {
        let settings = settings.making_nothing();
        let mut names: Vec<_> = settings.keys.iter().map(|key| key.name.clone()).collect();
        if settings.other_keys.is_some() {
            let more = found.into_iter().filter(|name| !names.contains(name));
            names.extend(Vec::from_iter(more));
        }
        let arena =
            Arena::new().map_err(|error| StartError::System("no memory for keys", error))?;
        let random = os_random();
        let named = settings.keys_for(&names)?;
        let mut building = Building {
            arena: &arena,
            random: &random,
            certificates: &mut Vec::new(),
        };
        let bound = prepare::bound(&settings, &named, &Given::default(), &mut building)?;
        Ok(Upkeep::new(&bound, arena, random))
    });
    read.await
        .map_err(|error| StartError::System("the start was cut off", error.into()))?
}

/// Where the database of the settings is.
fn place(store: &settings::Store) -> Result<Place, StartError> {
    let StoreKind::Postgres { url_file, ca, tls } = &store.kind else {
        unreachable!("asked of a database alone");
    };
    let secret = read_secret(url_file, URL_FILE_LEN_MAX)?;
    let wrong = |what: &str| {
        StartError::Settings(
            format!("{}: {what}", url_file.display()),
            "it holds postgresql://USER:PASSWORD@HOST:PORT/DATABASE, and nothing else".to_owned(),
        )
    };
    let url = std::str::from_utf8(&secret).map_err(|_| wrong("it is no text"))?;
    let plain = Place::new(url, None).map_err(|error| wrong(error.0))?;
    // Without TLS the log-in, and which keys there are, could be read and changed on the way.
    if !tls.unwrap_or(!plain.is_local()) {
        return Ok(plain);
    }
    Place::new(url, Some(client(ca)?)).map_err(|error| wrong(error.0))
}

/// TLS towards the database: trust in the CA alone, as everywhere else.
fn client(ca: &Ca) -> Result<Arc<ClientConfig>, StartError> {
    let wrong = |what: String| {
        let hint = "correct `store.tls.ca` in the settings".to_owned();
        StartError::Settings(what, hint)
    };
    let roots = match ca {
        Ca::System => Roots::System,
        Ca::File(file) => {
            let read = std::fs::read(file);
            Roots::Pem(read.map_err(|error| {
                wrong(format!(
                    "the store: {}: cannot be read: {error}",
                    file.display()
                ))
            })?)
        }
    };
    // No ALPN: the database's own protocol asks for TLS first, and needs none.
    let config = roots.client(None, Vec::new());
    let config = config.map_err(|bad| wrong(format!("the store: {bad}")))?;
    Ok(Arc::new(config))
}

/// A deterministic class has its data key in a store, and nowhere else.
///
/// # Errors
/// There is such a class, and no store.
pub fn check_store(settings: &settings::Settings, policies: &Policies) -> Result<(), StartError> {
    if settings.store.is_some() {
        return Ok(());
    }
    let mut classes = policies.iter().flat_map(|policy| &policy.classes);
    match classes.find(|class| class.suite == Suite::Aes256Siv) {
        None => Ok(()),
        Some(class) => Err(StartError::Settings(
            format!(
                "the class `{}` is deterministic, and the settings have no store: there would be no one data key for all agents and restarts",
                class.name
            ),
            "add one: store: {type: embedded, file: FILE} for one machine, {type: postgres, url_file: FILE} for several"
                .to_owned(),
        )),
    }
}
