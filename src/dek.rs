//! What the engine may do with data keys, what it asks of the key room (`Needs`) and what it gets back (`Ring`).
//!
//! A key is an ability here, not bytes: it never fetches, caches or counts itself, and its bytes leave by `expose` alone.
use hkdf::Hkdf;
use sha2::Sha256;
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroize;

/// The data key's id: HKDF-SHA-256(ikm = DEK, salt = "fieldveil/v1", info = "kid", 16 bytes).
///
/// It commits to the DEK and is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Kid(pub [u8; 16]);

/// 32 hexadecimal digits, lower case.
impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Domain separation of everything that is derived from a DEK, and the associated data's first bytes.
pub const DOMAIN: &[u8; 12] = b"fieldveil/v1";

/// How a value is sealed. The set is closed: a token that names another suite is refused, never guessed at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Suite {
    /// Randomised: equal values give different tokens.
    Xaes256Gcm,
    /// Deterministic: equal values give equal tokens under one DEK and context.
    Aes256Siv,
}

impl Suite {
    /// The suite's number in the token, in the key schedule and in the associated data.
    pub const fn byte(self) -> u8 {
        match self {
            Suite::Xaes256Gcm => 1,
            Suite::Aes256Siv => 2,
        }
    }

    /// The algorithm's name.
    pub const fn name(self) -> &'static str {
        match self {
            Suite::Xaes256Gcm => "XAES-256-GCM",
            Suite::Aes256Siv => "AES-256-SIV",
        }
    }

    /// The suite of this number, if this version has it.
    pub const fn from_byte(byte: u8) -> Option<Suite> {
        match byte {
            1 => Some(Suite::Xaes256Gcm),
            2 => Some(Suite::Aes256Siv),
            _ => None,
        }
    }
}

/// Bytes of derived key material: suite 1 key (32) || suite 2 key (64).
pub const MATERIAL_LEN: usize = 96;

/// Where derived keys live. The key room's arena implements it; tests use a plain box.
pub trait Material: Send + Sync {
    /// The 96 bytes. Named so that a reviewer can grep for it.
    fn expose(&self) -> &[u8; MATERIAL_LEN];
}

/// The key schedule (FORMAT.md, Keys), HKDF of RFC 5869 with SHA-256 and salt "fieldveil/v1": fills `material` with the keys of
/// both suites, returns the kid. `dek` may be wiped afterwards.
///
/// ```text
/// kid = HKDF(DEK, info = "kid", 16 bytes)
/// key = HKDF(DEK, info = "seal" || suite byte, 32 bytes for suite 1, 64 for suite 2)
/// ```
pub fn schedule(dek: &[u8; 32], material: &mut [u8; MATERIAL_LEN]) -> Kid {
    const FITS: &str = "HKDF-SHA-256 gives up to 8160 bytes";
    let (mut prk, hkdf) = Hkdf::<Sha256>::extract(Some(DOMAIN), dek);
    prk.as_mut_slice().zeroize();
    let (xaes, siv) = material.split_at_mut(32);
    for (suite, key) in [(Suite::Xaes256Gcm, xaes), (Suite::Aes256Siv, siv)] {
        hkdf.expand_multi_info(&[b"seal", &[suite.byte()]], key)
            .expect(FITS);
    }
    let mut kid = [0; 16];
    hkdf.expand(b"kid", &mut kid).expect(FITS);
    Kid(kid)
}

/// What a store's row carries to show that whoever wrote it had the DEK: it cannot be put in the place of another key name's,
/// tenant's or epoch's row.
///
/// ```text
/// mac = HKDF(DEK, salt = "fieldveil/v1", info = "row" || entry*, 16 bytes)
/// ```
///
/// with entries (as in the associated data) `epoch` in decimal digits, `key`, and `tenant` where there is one. None: a name is over
/// 65,535 bytes.
pub fn row_mac(dek: &[u8; 32], scope: &Scope, epoch: u64) -> Option<[u8; 16]> {
    let epoch = epoch.to_string();
    let tenant = scope.tenant.as_deref().map(|tenant| ("tenant", tenant));
    let entries = [("epoch", &*epoch), ("key", &*scope.key)];
    let mut info = b"row".to_vec();
    for (name, value) in entries.into_iter().chain(tenant) {
        for part in [name, value] {
            info.extend_from_slice(&u16::try_from(part.len()).ok()?.to_be_bytes());
            info.extend_from_slice(part.as_bytes());
        }
    }
    let (mut prk, hkdf) = Hkdf::<Sha256>::extract(Some(DOMAIN), dek);
    prk.as_mut_slice().zeroize();
    let mut mac = [0; 16];
    hkdf.expand(&info, &mut mac).ok()?;
    Some(mac)
}

/// A data key: an ability (see `seal`), not bytes.
pub struct Dek {
    kid: Kid,
    material: Box<dyn Material>,
}

impl Dek {
    /// `material`: the keys that [`schedule`] derived together with this `kid`.
    pub fn new(kid: Kid, material: Box<dyn Material>) -> Dek {
        Dek { kid, material }
    }
    /// The id in every token that this key seals.
    pub fn kid(&self) -> Kid {
        self.kid
    }
    pub(crate) fn expose(&self) -> &[u8; MATERIAL_LEN] {
        self.material.expose()
    }
    /// The 32-byte key of XAES-256-GCM.
    pub(crate) fn expose_xaes(&self) -> &[u8; 32] {
        self.expose().first_chunk().expect("32 of 96 bytes")
    }
    /// The 64-byte key of AES-256-SIV.
    pub(crate) fn expose_siv(&self) -> &[u8; 64] {
        self.expose().last_chunk().expect("64 of 96 bytes")
    }
}

/// Key name and tenant: what a cached DEK was made or unwrapped for, and serves alone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The key's name, as classes and settings have it.
    pub key: Arc<str>,
    /// `None`: the route declares no tenant, which is not the same as an empty one.
    pub tenant: Option<Arc<str>>,
}

// No derived Debug: a tenant is the application's data.
impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenant = self.tenant.as_ref().map(|_| "..");
        f.debug_struct("Scope")
            .field("key", &self.key)
            .field("tenant", &tenant)
            .finish()
    }
}

/// A DEK that may seal now, wrapped.
pub struct SealingKey {
    /// The key itself.
    pub dek: Dek,
    /// A [`crate::token::Record`]: the same DEK, wrapped.
    pub record: Box<[u8]>,
    /// The record is in the store, and never in a token: its tokens are references. Otherwise each token carries the record.
    pub stored: bool,
}

impl SealingKey {
    /// What its tokens carry.
    pub fn inline(&self) -> Option<&[u8]> {
        (!self.stored).then_some(&*self.record)
    }
}

/// `values` more values will be sealed in `scope`; the use budget is taken in one step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealNeed {
    /// Which key.
    pub scope: Scope,
    /// Randomised values are sealed with a DEK of this agent, which rotates; deterministic ones with the scope's one, in the store.
    pub suite: Suite,
    /// How many values; may be 0.
    pub values: u64,
}

/// A record found in one or more tokens. Distinct by (scope, kid, record).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenNeed {
    /// The key of the class that is expected, and the request's tenant.
    pub scope: Scope,
    /// As in the token; what opens must yield it.
    pub kid: Kid,
    /// None: reference form; the record is in the store, if there is one.
    pub record: Option<Box<[u8]>>,
}

/// What a plan needs of the key room; the ring answers index by index.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Needs {
    /// One for each scope that seals.
    pub sealing: Vec<SealNeed>,
    /// One for each distinct record.
    pub opening: Vec<OpenNeed>,
}

/// Why a token stays sealed; a word for metrics and records.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unopened {
    /// Wrapped under no KEK of the expected key: refused without a KMS call.
    Foreign,
    /// The KMS says no: the agent may not, or the KEK is disabled or destroyed.
    Denied,
    /// The KMS knows no such KEK; or the token is a reference, and no store knows its kid.
    NotFound,
    /// The data key was deleted from the store, and with it all that it sealed.
    Deleted,
    /// The KMS gave no answer, and nothing cached may be used any more.
    Unreachable,
    /// More than the budget of uncached records in one body.
    OverBudget,
    /// The KMS answered, but not with the DEK that the kid names.
    Mismatch,
}

impl Unopened {
    /// Stable; for metrics, records and `Fieldveil-Result`.
    pub fn word(self) -> &'static str {
        match self {
            Unopened::Foreign => "foreign",
            Unopened::Denied => "denied",
            Unopened::NotFound => "not-found",
            Unopened::Deleted => "deleted",
            Unopened::Unreachable => "unreachable",
            Unopened::OverBudget => "over-budget",
            Unopened::Mismatch => "mismatch",
        }
    }
}

/// The keys for one body, parallel to `Needs`.
#[derive(Default)]
pub struct Ring {
    /// By the index of [`Needs::sealing`].
    pub sealing: Vec<Arc<SealingKey>>,
    /// By the index of [`Needs::opening`].
    pub opening: Vec<Result<Arc<Dek>, Unopened>>,
}
