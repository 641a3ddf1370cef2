//! What the key room is made with: keys by name, their KEKs and clocks, and the room's bounds. Checked once, when the room is
//! opened.

use super::calls::{Kek, Line};
use super::lease::Terms;
use super::sealing::Newcomers;
use super::{Observe, Unobserved};
use crate::arena::Arena;
use crate::kms::{Kms, Random};
use crate::store::Store;
use crate::token::{Record, WRAPPINGS_MAX};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// A KEK: which KMS, and what it is called there.
#[derive(Clone)]
pub struct Binding {
    /// Where it is.
    pub kms: Arc<dyn Kms>,
    /// Its name there, without a version.
    pub kek: String,
}

/// How many of the KEKs that a key seals with have to wrap a fresh DEK.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Need {
    /// One; the others are added with the next DEK.
    #[default]
    Any,
    /// All of them: without one there is no new DEK.
    All,
}

/// One key name of the policy, and what is behind it.
#[derive(Clone)]
pub struct KeySettings {
    /// As classes name it.
    pub name: Arc<str>,
    /// What new DEKs are wrapped under: 1 to 4.
    pub seal_with: Vec<Binding>,
    /// How many of them it takes.
    pub need: Need,
    /// What else may have wrapped the DEKs of this key's tokens.
    pub open_also: Vec<Binding>,
    /// The clocks and the budget of each of its DEKs.
    pub terms: Terms,
}

/// The clocks and the budget where nothing else is set.
pub const TERMS: Terms = Terms {
    lease: Duration::from_secs(10 * 60),
    rotate: Duration::from_secs(24 * 60 * 60),
    grace: Duration::from_secs(15 * 60),
    uses_max: 1 << 48,
};

/// What the room is made with. [`Settings::new`] fills in the bounds.
pub struct Settings {
    /// Each name once.
    pub keys: Vec<KeySettings>,
    /// Where plaintext DEKs are held.
    pub arena: Arena,
    /// What DEKs are made of, and luck.
    pub random: Random,
    /// Told of calls and purges.
    pub observe: Arc<dyn Observe>,
    /// DEKs kept for opening.
    pub opening_max: u64,
    /// Key names and tenants that seal at a time.
    pub scopes_max: usize,
    /// Tenants without a DEK that may get one, per second and key; twenty times as many at once.
    pub newcomers_per_second: u32,
    /// Uncached records that one body may ask for.
    pub keys_per_body_max: usize,
    /// Calls under way at a time, to each KMS.
    pub calls_max: usize,
    /// Records being waited for at a time.
    pub waiting_max: usize,
    /// For one call.
    pub deadline: Duration,
    /// How long a refused record is refused without asking again.
    pub refused_for: Duration,
    /// Where wrapped DEKs are kept. None: in the tokens.
    pub store: Option<Arc<dyn Store>>,
    /// For one call to the store.
    pub store_deadline: Duration,
    /// Seconds since 1970, for the rows of the store.
    pub clock: fn() -> u64,
}

impl Settings {
    /// With the bounds that serve up to some thousand requests a second, and nobody looking.
    pub fn new(keys: Vec<KeySettings>, arena: Arena, random: Random) -> Settings {
        Settings {
            keys,
            arena,
            random,
            observe: Arc::new(Unobserved),
            opening_max: 8_192,
            scopes_max: 4_096,
            newcomers_per_second: 50,
            keys_per_body_max: 256,
            calls_max: 20,
            waiting_max: 4_096,
            deadline: Duration::from_secs(5),
            refused_for: Duration::from_secs(10),
            store: None,
            store_deadline: Duration::from_secs(1),
            clock: unix_now,
        }
    }
}

fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// What is wrong with the settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettingsError(pub String);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingsError {}

/// A key name's settings as the room uses them.
pub struct Key {
    pub name: Arc<str>,
    pub terms: Terms,
    pub seal_with: Vec<Arc<Kek>>,
    pub need: Need,
    /// Those of `seal_with`, then those of `open_also`.
    pub keks: Vec<Arc<Kek>>,
    /// How many of its tenants may be new.
    pub(super) newcomers: Newcomers,
    /// Counts purges by hand: what was asked before one is not kept after it.
    pub(super) purges: AtomicU64,
}

impl Key {
    /// Whether anyone may wrap under a KEK of this key: then a row of the store proves nothing about who made it.
    pub(super) fn seal_with_anyones(&self) -> bool {
        self.keks.iter().any(|kek| kek.anyone_may_wrap)
    }

    /// How many of the KEKs that it seals with did not wrap this record.
    pub(super) fn missing(&self, record: &[u8]) -> usize {
        let Ok(record) = Record::parse(record) else {
            return 0;
        };
        let has = |kek: &Kek| record.wrappings().any(|(id, _)| id == kek.id);
        self.seal_with.iter().filter(|kek| !has(kek)).count()
    }

    /// Whether any wrapping of this record is under a KEK of this key.
    pub(super) fn knows(&self, record: &[u8]) -> bool {
        Record::parse(record).is_ok_and(|record| self.ways(record).next().is_some())
    }

    /// The wrappings of a record that are under KEKs of this key. Each KEK once: a record that names one again is no record of
    /// ours, and would multiply calls.
    pub(super) fn ways<'a>(
        &'a self,
        record: Record<'a>,
    ) -> impl Iterator<Item = (&'a Arc<Kek>, &'a [u8])> {
        self.keks.iter().filter_map(move |kek| {
            let mut of_kek = record.wrappings().filter(|(id, _)| *id == kek.id);
            Some((kek, of_kek.next()?.1))
        })
    }

    /// Whether no KEK of this record can be reached now; or none of the key, where the record is in the store.
    pub(super) fn is_unreachable_at(&self, record: Option<&[u8]>, now: Instant) -> bool {
        match record {
            Some(record) => Record::parse(record)
                .is_ok_and(|record| self.ways(record).all(|(kek, _)| kek.is_unreachable_at(now))),
            None => self.keks.iter().all(|kek| kek.is_unreachable_at(now)),
        }
    }
}

/// Parse, don't validate: the keys by name, or what is wrong with them.
pub(super) fn check_keys(
    settings: &Settings,
) -> Result<HashMap<Arc<str>, Arc<Key>>, SettingsError> {
    let mut keys = HashMap::new();
    // One KMS has one line, whichever KEKs and keys it serves.
    let mut lines: Vec<Arc<Line>> = Vec::new();
    let mut keks: HashMap<[u8; 8], (Arc<Kek>, Arc<str>)> = HashMap::new();
    for key in &settings.keys {
        let name = &key.name;
        let wrong = |what: &str| Err(SettingsError(format!("key `{name}`: {what}")));
        match key.seal_with.len() {
            0 => return wrong("needs a KEK to seal with"),
            1..=WRAPPINGS_MAX => {}
            _ => return wrong("seals with 4 KEKs at most"),
        }
        let Terms {
            lease,
            rotate,
            grace,
            uses_max,
        } = key.terms;
        let day = Duration::from_secs(24 * 60 * 60);
        if lease < Duration::from_secs(1) || lease > day {
            return wrong("`lease` must be between 1 second and 24 hours");
        }
        if grace > day {
            return wrong("`grace` must be at most 24 hours");
        }
        if rotate < lease || rotate > day * 366 {
            return wrong("`rotate` must be at least the lease and at most 366 days");
        }
        if uses_max == 0 || uses_max > TERMS.uses_max {
            return wrong("a DEK may seal 1 to 2^48 values");
        }
        let mut of_key: Vec<Arc<Kek>> = Vec::new();
        let mut seen = HashSet::new();
        for binding in key.seal_with.iter().chain(&key.open_also) {
            let known = lines.iter().find(|line| line.is_to(&binding.kms));
            let line = known.cloned().unwrap_or_else(|| {
                let calls_max = settings.calls_max.max(1);
                let line = Arc::new(Line::new(Arc::clone(&binding.kms), calls_max));
                lines.push(Arc::clone(&line));
                line
            });
            let fresh = Kek::new(binding, line);
            if !seen.insert(fresh.id) {
                return wrong("names the same KEK twice");
            }
            let kek = match keks.get(&fresh.id) {
                None => {
                    let kek = Arc::new(fresh);
                    keks.insert(kek.id, (Arc::clone(&kek), Arc::clone(name)));
                    kek
                }
                Some((known, _)) if known.uri != fresh.uri => {
                    return wrong(&format!("{} and {} have the same id", known.uri, fresh.uri));
                }
                Some((known, other)) if !binding.kms.authenticates_context() => {
                    return wrong(&format!(
                        "shares {} with key `{other}`, and that KMS cannot tell their data keys apart",
                        known.uri
                    ));
                }
                Some((known, _)) => Arc::clone(known),
            };
            of_key.push(kek);
        }
        let built = Key {
            name: Arc::clone(name),
            terms: key.terms,
            seal_with: of_key[..key.seal_with.len()].to_vec(),
            need: key.need,
            keks: of_key,
            newcomers: Newcomers::new(settings.newcomers_per_second),
            purges: AtomicU64::new(0),
        };
        if keys.insert(Arc::clone(name), Arc::new(built)).is_some() {
            return wrong("is named twice");
        }
    }
    Ok(keys)
}
