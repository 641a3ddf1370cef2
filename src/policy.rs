//! What is classified, and where it travels: the policy as it was written, checked, and asked for each request.
//!
//! A policy file becomes a [`Policy`] in one fallible step ([`Policy::load`]) that collects all findings; several of them
//! together are the [`Policies`] that a request is matched against. The policy is the same in every environment and knows
//! no addresses, credentials or keys, only the names of keys. It reads no files: the text is handed in.
//!
//! Reading order: `written` and `sides` (the file, word by word), `checked` and `draft` (what it means), `matching` (which route takes a request),
//! `spelling` (the ways to read a request's path), `outside` (what a route takes from the request for tenant and binds), `callers` (who sees how much).

mod callers;
mod checked;
mod comparison;
mod draft;
mod flags;
mod lint;
mod matching;
mod outside;
pub mod schema;
mod selected;
mod sides;
mod spelling;
#[cfg(test)]
mod tests;
mod written;

use crate::context::Class;
use crate::diagnostic::{Diagnostic, Source, Span};
use crate::marked::{self, Findings};
use crate::transform::{Rule, Rules};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::sync::Arc;

pub use comparison::{Change, Comparison, Direction, compare};
pub use flags::{FLAG_CLASS, FLAG_KEY, FLAG_POLICY};
pub use lint::lint;
pub use matching::{HostPattern, Match, Matched, Miss, Parameters, Template, is_host_name};
pub use outside::{Peer, TENANT_BYTES_MAX, TenantMissing};
pub use spelling::PathRefused;
pub(crate) use written::bad_name;

/// Hexadecimal digits of [`Policies::version`].
const VERSION_DIGITS: usize = 12;
/// Characters of a name of a policy, class, key, route, bind or environment.
pub const NAME_CHARS_MAX: usize = 64;
/// Classes of one policy.
pub const CLASSES_MAX: usize = 64;
/// Former names of one class.
pub const FORMERLY_MAX: usize = 16;
/// Routes of one policy.
pub const ROUTES_MAX: usize = 256;
/// Rules of one side of a route.
pub const RULES_MAX: usize = 256;
/// Binds of one rule.
pub const BINDS_MAX: usize = 16;
/// Callers of one rule.
pub const CALLERS_MAX: usize = 64;
/// Bytes of a caller's name.
pub const CALLER_BYTES_MAX: usize = 256;
/// Methods of one route.
pub const METHODS_MAX: usize = 32;
/// Environments of one policy.
pub const ENVIRONMENTS_MAX: usize = 64;
/// Bytes of a JSONPath, of a path template, and of a bind's sibling, header or query name.
pub const PATTERN_BYTES_MAX: usize = 1024;
/// Levels of nesting that a document on a route may have.
pub const DEPTH_MAX: usize = 128;

/// What happens to traffic to a named host that no route takes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Unmatched {
    /// Goes on, and is not counted.
    Pass,
    /// Goes on, and is counted.
    #[default]
    Report,
    /// Is refused with 403.
    Reject,
}

/// Whether a route changes traffic or only counts what it would change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Seals, opens and refuses.
    #[default]
    Enforce,
    /// Changes and refuses nothing; counts.
    Observe,
}

/// Where the tenant of a request is found. Declared and missing: the request is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TenantSource {
    /// A header's name, lower case.
    Header(Arc<str>),
    /// A label of the host, counted from the left, from 1.
    HostLabel(usize),
    /// A parameter of the path template.
    Path(Arc<str>),
    /// The same for every request.
    Value(Arc<str>),
}

/// How it is known who asks. Missing: whoever asks is nobody that a rule names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CallerSource {
    /// A header's name, lower case: what the client says of itself.
    Header(Arc<str>),
    /// The user's number at the other end of a Unix socket.
    PeerUid,
    /// The name in the client's certificate.
    MtlsSan,
}

/// A value that a route takes from outside the body for its binds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OutsideSource {
    /// A parameter of the path template.
    Path(Arc<str>),
    /// A header's name, lower case.
    Header(Arc<str>),
    /// A query parameter's name, decoded.
    Query(Arc<str>),
}

/// One policy file, checked.
#[derive(Debug)]
pub struct Policy {
    /// From `metadata`; unique among the policies of an agent.
    pub name: Arc<str>,
    /// Holds for all routes.
    pub tenant: Option<TenantSource>,
    /// With the chosen environment's word, where it has one.
    pub unmatched: Unmatched,
    /// In the order of the file; `open: "*"` means them.
    pub classes: Vec<Arc<Class>>,
    /// In the order of the file: the first that matches takes a request.
    pub routes: Vec<Route>,
    source: Source,
    name_span: Span,
}

/// One place where classified data travels.
#[derive(Debug)]
pub struct Route {
    /// Unique among all routes of an agent: metrics and records carry it.
    pub name: Arc<str>,
    /// The policy that it stands in.
    pub policy: Arc<str>,
    /// With the chosen environment's word, where it has one.
    pub mode: Mode,
    /// The requests that it takes, unless an earlier route does.
    pub matching: Match,
    /// For the bodies of requests.
    pub request: Arc<Rules>,
    /// Whether `request` is for signed bodies, too.
    pub signed: Signed,
    /// For the bodies of their answers.
    pub response: Arc<Rules>,
    /// The rules as they were written, for whoever explains or compares them.
    pub request_rules: Vec<Rule>,
    /// Likewise, for responses.
    pub response_rules: Vec<Rule>,
    /// What [`Route::circumstances`] collects, in the order that the rules' binds refer to.
    pub outside: Vec<OutsideSource>,
    /// As [`Policy::tenant`].
    pub tenant: Option<TenantSource>,
    /// The route's own, or the policy's.
    pub caller: Option<CallerSource>,
    span: Span,
}

/// What becomes of a request that is signed over its body, where rules would change that: nobody here can sign it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signed {
    /// It is refused.
    #[default]
    Reject,
    /// It is changed as any other, and its signature is false.
    Allow,
}

/// Several policies together: what an agent enforces.
#[derive(Debug)]
pub struct Policies {
    policies: Vec<Policy>,
    version: Arc<str>,
}

/// None: every request passes.
impl Default for Policies {
    fn default() -> Policies {
        Policies::of(Vec::new())
    }
}

/// What [`Policies::version`] is for policies with these texts, in their order.
pub fn version<'t>(texts: impl IntoIterator<Item = &'t str>) -> Arc<str> {
    let mut digest = Sha256::new();
    texts.into_iter().for_each(|text| digest.update(text));
    let mut version = String::new();
    for byte in &digest.finalize()[..VERSION_DIGITS / 2] {
        // A `String` takes what is written.
        let _ = write!(version, "{byte:02x}");
    }
    version.into()
}

impl Policy {
    /// Reads, checks and compiles a policy. `file` is its name in the findings; `environment` selects one of its
    /// `environments` to apply.
    ///
    /// Errors: everything that is wrong with it, in the order of the text; never empty.
    pub fn load(
        text: &str,
        file: &str,
        environment: Option<&str>,
    ) -> Result<Policy, Vec<Diagnostic>> {
        let source = Source::new(file, text);
        let root = marked::parse(&source)?;
        let mut findings = Findings::new(&source);
        let written = written::read(&root, &mut findings);
        let policy =
            written.and_then(|written| checked::check(&written, environment, &mut findings));
        match (policy, findings.finish()) {
            (Some(policy), Ok(())) => Ok(policy),
            (_, Err(found)) => Err(found),
            // A reader that gives up has said why; this is for a reader that forgot to.
            (None, Ok(())) => Err(vec![source.diagnostic(
                "bad-policy",
                Span::default(),
                "this is not a policy",
            )]),
        }
    }
}

impl Policy {
    /// The name under which it was loaded.
    pub fn file(&self) -> &str {
        self.source.name()
    }

    /// The line of its file in which a route's name stands, from 1.
    pub fn line_of(&self, route: &Route) -> usize {
        self.source.diagnostic("", route.span, "").line
    }
}

impl Policies {
    /// Errors: two policies, or two routes of different policies, of one name.
    pub fn new(policies: Vec<Policy>) -> Result<Policies, Vec<Diagnostic>> {
        let mut found = Vec::new();
        for (at, policy) in policies.iter().enumerate() {
            let before = &policies[..at];
            if let Some(first) = before.iter().find(|other| other.name == policy.name) {
                let message = format!(
                    "a policy `{}` is already in {}",
                    policy.name,
                    first.source.name()
                );
                found.push(
                    policy
                        .source
                        .diagnostic("duplicate-policy", policy.name_span, message),
                );
            }
            for route in &policy.routes {
                if let Some(first) = before
                    .iter()
                    .find(|other| other.routes.iter().any(|r| r.name == route.name))
                {
                    let message = format!(
                        "a route `{}` is already in {}",
                        route.name,
                        first.source.name()
                    );
                    let found_here =
                        policy
                            .source
                            .diagnostic("duplicate-route", route.span, message);
                    found.push(found_here.hint(
                        "names of routes are unique over all files: metrics and records carry them",
                    ));
                }
            }
        }
        if found.is_empty() {
            Ok(Policies::of(policies))
        } else {
            Err(found)
        }
    }

    fn of(policies: Vec<Policy>) -> Policies {
        let version = version(policies.iter().map(|policy| policy.source.text()));
        Policies { policies, version }
    }

    /// Which version of the policies this is: the first 12 hexadecimal digits of the SHA-256 of all their files, one
    /// after the other (`cat *.yaml | sha256sum`).
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// In the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.policies.iter()
    }

    /// The routes of all policies, in the order in which they are tried.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.policies.iter().flat_map(|policy| &policy.routes)
    }

    /// The names of the keys that the classes use, each once, sorted: the settings say what is behind them.
    pub fn keys(&self) -> Vec<Arc<str>> {
        let mut keys: Vec<Arc<str>> = self
            .policies
            .iter()
            .flat_map(|policy| &policy.classes)
            .map(|class| Arc::clone(&class.key))
            .collect();
        keys.sort();
        keys.dedup();
        keys
    }
}
