//! What a token is bound to: its class, the tenant, and the values that a rule binds (FORMAT.md, "Context").
//!
//! This room knows how a context is spelt, not where its values stand in a document (that is `transform`'s).

use crate::dek::Kid;
use crate::mask::Mask;
use crate::token::ClassHint;
pub use crate::token::Suite;
use std::sync::Arc;

/// The name of the format, first in every associated data and salt of every derivation.
pub const FORMAT: &[u8] = b"fieldveil/v1";

/// The longest tenant name and the longest bound value, in bytes.
pub const VALUE_BYTES_MAX: usize = 65_535;

/// A class of data as the policy names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Its name, bound to every token of it.
    pub name: Arc<str>,
    /// Names it had before; tokens of those still open.
    pub formerly: Vec<Arc<str>>,
    /// The key (of the settings) that seals it.
    pub key: Arc<str>,
    /// How its values are sealed: randomised, or so that equal ones have equal tokens.
    pub suite: Suite,
    /// A token found at a sealing place stays if it opens there; otherwise the body is refused.
    pub keep_sealed: bool,
    /// What is shown of a value where it is revealed masked; what has the form of that is refused where the class is sealed.
    pub mask: Option<Mask>,
}

impl Class {
    /// The hint in the tokens that are sealed now.
    pub fn hint(&self) -> ClassHint {
        ClassHint::of(&self.name)
    }

    /// All names that a token of this class may have been sealed under, the present one first.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        std::iter::once(&self.name).chain(&self.formerly)
    }
}

/// One value that a route takes from outside the body (path parameter, header, query parameter) for its binds.
#[derive(Clone, PartialEq, Eq)]
pub enum Outside {
    /// Its decoded text.
    Text(String),
    /// It is not there.
    Missing,
    /// It is there more than once.
    Repeated,
}

/// What the request supplies from outside of its body. It governs the response, too.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// Present where the policy declares a tenant (the road refuses the request otherwise).
    pub tenant: Option<Arc<str>>,
    /// By index: the route's sources outside the body.
    pub outside: Vec<Outside>,
    /// Who asks, where the policy says how that is known.
    pub caller: Option<Arc<str>>,
}

// No derived Debug: the texts are the application's data.
impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Outside::Text(_) => "Text(..)",
            Outside::Missing => "Missing",
            Outside::Repeated => "Repeated",
        })
    }
}

impl std::fmt::Debug for Circumstances {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tenant = self.tenant.as_ref().map(|_| "..");
        f.debug_struct("Circumstances")
            .field("tenant", &tenant)
            .field("caller", &self.caller.as_ref().map(|_| ".."))
            .field("outside", &self.outside)
            .finish()
    }
}

/// Appends `u16be(len(name)) || name || u16be(len(value)) || value`. Entries are appended in the byte order of their names.
///
/// Both are at most [`VALUE_BYTES_MAX`] long; the caller has checked it.
pub fn push_entry(name: &str, value: &[u8], out: &mut Vec<u8>) {
    for part in [name.as_bytes(), value] {
        debug_assert!(part.len() <= VALUE_BYTES_MAX);
        out.extend_from_slice(&(part.len() as u16).to_be_bytes());
        out.extend_from_slice(part);
    }
}

/// aad = "fieldveil/v1" || suite || kid || entries. Replaces what `out` held.
pub fn associated_data(suite: Suite, kid: Kid, entries: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(FORMAT);
    out.push(suite.byte());
    out.extend_from_slice(&kid.0);
    out.extend_from_slice(entries);
}
