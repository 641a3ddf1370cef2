//! Two versions of policies compared: what gets weaker, what gets stronger, and what would keep stored tokens from opening.
//!
//! The comparison leans towards caution: what it cannot decide counts as weaker. It is pure, so that a command can print it and a
//! reload can refuse by it.

mod rules;

use super::{CallerSource, Mode, Policies, Policy, Route, Signed, TenantSource, Unmatched};
use crate::context::{Class, Suite};
use crate::mask::Mask;
use crate::transform::{Action, Attitude, Fallback, Rule};
use rules::{Side, binds, same_action};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// In which direction something changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Less is protected, or more is shown.
    Weaker,
    /// Tokens that were sealed under the old policy may not open under the new one.
    Orphans,
    /// Neither: worth knowing.
    Neutral,
    /// More is protected, or less is shown.
    Stronger,
}

impl Direction {
    /// The word that is shown.
    pub fn word(self) -> &'static str {
        match self {
            Direction::Weaker => "weaker",
            Direction::Orphans => "orphans",
            Direction::Neutral => "neutral",
            Direction::Stronger => "stronger",
        }
    }
}

/// One difference. `code` is stable; `what` is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whether it makes the policy weaker.
    pub direction: Direction,
    /// Stable; listed in docs/policy-testing.md.
    pub code: &'static str,
    /// The policy, class or route that it concerns: `route customers, request`.
    pub about: String,
    /// What differs, in words.
    pub what: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.direction.word();
        write!(f, "{word}[{}]: {}: {}", self.code, self.about, self.what)
    }
}

/// All differences between two versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The gravest first, otherwise in the order of the policies.
    pub changes: Vec<Change>,
}

impl Comparison {
    /// The new version protects what the old one did, and opens what the old one sealed.
    pub fn is_safe(&self) -> bool {
        let grave = [Direction::Weaker, Direction::Orphans];
        !self
            .changes
            .iter()
            .any(|change| grave.contains(&change.direction))
    }
}

/// Compares. Policies, classes and routes are the same where their names are; one policy on either side is the same whatever its
/// name.
pub fn compare(old: &Policies, new: &Policies) -> Comparison {
    let mut notes = Notes::default();
    let single = old.policies.len() == 1 && new.policies.len() == 1;
    let twin = |policy: &Policy, others: &Policies| {
        others
            .policies
            .iter()
            .position(|o| single || o.name == policy.name)
    };
    for policy in &old.policies {
        match twin(policy, new).map(|at| &new.policies[at]) {
            Some(later) => policies(policy, later, &mut notes),
            None => notes.add(
                Direction::Weaker,
                "policy-removed",
                format!("policy {}", policy.name),
                "is not there any more",
            ),
        }
    }
    for policy in &new.policies {
        if twin(policy, old).is_none() {
            let about = format!("policy {}", policy.name);
            notes.add(Direction::Stronger, "policy-added", about, "is new");
        }
    }
    routes(old, new, &mut notes);
    opened(old, new, &mut notes);
    notes.changes.sort_by_key(|change| change.direction);
    Comparison {
        changes: notes.changes,
    }
}

#[derive(Default)]
struct Notes {
    changes: Vec<Change>,
}

impl Notes {
    fn add(
        &mut self,
        direction: Direction,
        code: &'static str,
        about: impl Into<String>,
        what: impl Into<String>,
    ) {
        self.changes.push(Change {
            direction,
            code,
            about: about.into(),
            what: what.into(),
        });
    }

    /// Something that has an order: a higher rank is stronger.
    fn ranked(
        &mut self,
        code: &'static str,
        about: &str,
        what: &str,
        ranks: (u8, u8),
        words: (&str, &str),
    ) {
        if ranks.0 != ranks.1 {
            let direction = match ranks.1 > ranks.0 {
                true => Direction::Stronger,
                false => Direction::Weaker,
            };
            let what = format!("{what} was {}, and is {}", words.0, words.1);
            self.add(direction, code, about, what);
        }
    }
}

fn policies(old: &Policy, new: &Policy, notes: &mut Notes) {
    let about = format!("policy {}", new.name);
    if old.tenant != new.tenant {
        let what = match (&old.tenant, &new.tenant) {
            (None, _) => "its tokens get a tenant: those without one do not open any more",
            (_, None) => "its tokens lose their tenant: those with one do not open any more",
            _ if same_tenant_by_other_means(old, new) => {
                "the tenant comes from elsewhere: tokens open if it is the same"
            }
            _ => "the tenant is another one: tokens of the old one do not open any more",
        };
        notes.add(Direction::Orphans, "tenant-changed", &about, what);
        if new.tenant.is_none() {
            let what = "tokens of all tenants open for each other";
            notes.add(Direction::Weaker, "tenant-removed", &about, what);
        }
    }
    let word = |unmatched| match unmatched {
        Unmatched::Pass => (0, "pass"),
        Unmatched::Report => (1, "report"),
        Unmatched::Reject => (2, "reject"),
    };
    let (was, is) = (word(old.unmatched), word(new.unmatched));
    notes.ranked(
        "unmatched",
        &about,
        "`unmatched`",
        (was.0, is.0),
        (was.1, is.1),
    );
    for class in &old.classes {
        let renamed = |c: &&Arc<Class>| c.formerly.contains(&class.name);
        match new.classes.iter().find(|c| c.name == class.name) {
            Some(later) => classes(class, later, notes),
            None => match new.classes.iter().find(renamed) {
                Some(later) => {
                    let what = format!("is {} now, and its old tokens still open", later.name);
                    let about = format!("class {}", class.name);
                    notes.add(Direction::Neutral, "class-renamed", about, what);
                    classes(class, later, notes);
                }
                None => notes.add(
                    Direction::Orphans,
                    "class-removed",
                    format!("class {}", class.name),
                    "nothing can open its tokens any more",
                ),
            },
        }
    }
    for class in &new.classes {
        let known = |c: &&Arc<Class>| {
            c.names()
                .any(|n| *n == class.name || class.formerly.contains(n))
        };
        if !old.classes.iter().any(|c| known(&c)) {
            let about = format!("class {}", class.name);
            notes.add(Direction::Neutral, "class-added", about, "is new");
        }
    }
}

/// A fixed tenant is another one than any; other sources may name the same.
fn same_tenant_by_other_means(old: &Policy, new: &Policy) -> bool {
    let fixed = |tenant: &Option<TenantSource>| matches!(tenant, Some(TenantSource::Value(_)));
    !(fixed(&old.tenant) && fixed(&new.tenant))
}

fn classes(old: &Class, new: &Class, notes: &mut Notes) {
    let about = format!("class {}", new.name);
    if old.key != new.key {
        let what = format!(
            "its key was {}, and is {}: its tokens open only if the settings let the new key open them",
            old.key, new.key
        );
        notes.add(Direction::Orphans, "key-changed", &about, what);
    }
    for name in &old.formerly {
        if !new.names().any(|known| known == name) {
            let what = format!("tokens of its former name {name} do not open any more");
            notes.add(Direction::Orphans, "former-name-removed", &about, what);
        }
    }
    let word = |suite| match suite {
        Suite::Aes256Siv => (0, "deterministic"),
        Suite::Xaes256Gcm => (1, "randomised"),
    };
    let (was, is) = (word(old.suite), word(new.suite));
    let what = "how its values are sealed (old tokens still open)";
    notes.ranked("class-mode", &about, what, (was.0, is.0), (was.1, is.1));
    let word = |keep| if keep { (0, "keep") } else { (1, "refuse") };
    let (was, is) = (word(old.keep_sealed), word(new.keep_sealed));
    let what = "what happens to tokens that come back";
    notes.ranked("sealed", &about, what, (was.0, is.0), (was.1, is.1));
    if let (Some(was), is) = (&old.mask, &new.mask)
        && Some(was) != is.as_ref()
    {
        let (direction, what) = match is {
            // Of no value it shows a character.
            Some(Mask::Fixed(_)) => (Direction::Stronger, "its mask shows nothing of a value"),
            // Where fewer are kept, shorter texts show some.
            Some(_) => (Direction::Weaker, "its mask shows another part of a value"),
            None => (
                Direction::Weaker,
                "it has no mask any more: a masked value that comes back is taken for a value",
            ),
        };
        notes.add(direction, "mask", &about, what);
    }
}

/// Routes of all policies, in the order in which they are tried.
fn routes(old: &Policies, new: &Policies, notes: &mut Notes) {
    let olds: Vec<&Route> = old.routes().collect();
    let news: Vec<&Route> = new.routes().collect();
    let named = |route: &Route, others: &[&Route]| others.iter().position(|o| o.name == route.name);
    // Another name for the same requests is the same route.
    let renamed = |route: &Route| {
        let fits = |o: &&Route| o.matching == route.matching && named(o, &olds).is_none();
        news.iter().position(fits)
    };
    let twins: Vec<Option<usize>> = olds
        .iter()
        .map(|route| named(route, &news).or_else(|| renamed(route)))
        .collect();
    for (route, twin) in olds.iter().zip(&twins) {
        let about = format!("route {}", route.name);
        match twin.map(|at| news[at]) {
            Some(later) => {
                if later.name != route.name {
                    let what = format!("is {} now", later.name);
                    notes.add(Direction::Neutral, "route-renamed", about, what);
                }
                one_route(route, later, notes);
            }
            None if seals(route) => {
                let what = "is gone: what it sealed goes out in clear, unless another route takes its requests";
                notes.add(Direction::Weaker, "route-removed", about, what);
            }
            None => {
                let what = "is gone: what it opened stays sealed";
                notes.add(Direction::Stronger, "route-removed", about, what);
            }
        }
    }
    for (at, route) in news.iter().enumerate() {
        let about = format!("route {}", route.name);
        let is_new = !twins.contains(&Some(at));
        if is_new {
            let direction = if seals(route) {
                Direction::Stronger
            } else {
                Direction::Neutral
            };
            notes.add(direction, "route-added", &about, "is new");
        }
        // Routes that seal and were tried before this one, and are now tried behind it.
        for (old_at, twin) in twins.iter().enumerate() {
            let Some(behind) = twin.filter(|behind| *behind > at) else {
                continue;
            };
            let was_behind = twins
                .iter()
                .position(|t| *t == Some(at))
                .is_none_or(|own| own > old_at);
            if was_behind && seals(olds[old_at]) && route.matching.meets(&olds[old_at].matching) {
                let what = format!(
                    "takes requests before route {} does, which took them",
                    news[behind].name
                );
                let direction = match protects_as(route, olds[old_at]) {
                    true => Direction::Neutral,
                    false => Direction::Weaker,
                };
                notes.add(direction, "route-before", &about, what);
            }
        }
    }
}

/// Every rule of `old` that seals has one of the same path, class and binds in `route`.
fn protects_as(route: &Route, old: &Route) -> bool {
    let holds = |rules: &[Rule], olds: &[Rule], route: &Route| {
        olds.iter()
            .filter(|rule| matches!(rule.action, Action::Seal(_)))
            .all(|rule| {
                rules.iter().any(|r| {
                    r.at.as_str() == rule.at.as_str()
                        && same_action(&r.action, &rule.action)
                        && binds(r, route) == binds(rule, old)
                })
            })
    };
    route.mode == Mode::Enforce
        && holds(&route.request_rules, &old.request_rules, route)
        && holds(&route.response_rules, &old.response_rules, route)
}

fn seals(route: &Route) -> bool {
    route.request.seals() || route.response.seals()
}

fn caller(route: &Route) -> String {
    match &route.caller {
        None => "not asked for".to_owned(),
        Some(CallerSource::Header(name)) => format!("the header {name}"),
        Some(CallerSource::PeerUid) => "the user id of the socket's other end".to_owned(),
        Some(CallerSource::MtlsSan) => "the name in a client certificate".to_owned(),
    }
}

fn one_route(old: &Route, new: &Route, notes: &mut Notes) {
    let about = format!("route {}", new.name);
    let word = |mode| match mode {
        Mode::Observe => (0, "observe"),
        Mode::Enforce => (1, "enforce"),
    };
    let (was, is) = (word(old.mode), word(new.mode));
    notes.ranked("mode", &about, "its mode", (was.0, is.0), (was.1, is.1));
    if old.caller != new.caller {
        let what = format!(
            "{} was {}, and is {}",
            "how a caller is known",
            caller(old),
            caller(new)
        );
        let said = |route: &Route| matches!(route.caller, Some(CallerSource::Header(_)));
        // What a connection proves, a header only says.
        let direction = match (&old.caller, &new.caller) {
            (None, Some(_)) => Direction::Neutral,
            (Some(_), Some(_)) if said(old) && !said(new) => Direction::Stronger,
            _ => Direction::Weaker,
        };
        notes.add(direction, "caller", &about, what);
    }
    let (wider, narrower) = (
        new.matching.covers(&old.matching),
        old.matching.covers(&new.matching),
    );
    if !(wider && narrower) {
        let (direction, code, what) = if wider {
            (
                Direction::Stronger,
                "match-wider",
                "takes more requests than before",
            )
        } else if !seals(old) {
            (
                Direction::Neutral,
                "match-changed",
                "takes other requests than before",
            )
        } else {
            (
                Direction::Weaker,
                "match-changed",
                "does not take all the requests that it took",
            )
        };
        notes.add(direction, code, &about, what);
    }
    if old.signed != new.signed {
        let what = match new.signed {
            Signed::Allow => "its rules change signed bodies, too: their signatures are false",
            Signed::Reject => "its rules do not change signed bodies any more: they are refused",
        };
        notes.add(Direction::Neutral, "signed", &about, what);
    }
    let sides = [
        (
            "request",
            (&old.request_rules, old.request.manner()),
            (&new.request_rules, new.request.manner()),
        ),
        (
            "response",
            (&old.response_rules, old.response.manner()),
            (&new.response_rules, new.response.manner()),
        ),
    ];
    for (side, (old_rules, old_manner), (new_rules, new_manner)) in sides {
        let about = format!("{about}, {side}");
        let word = |attitude| match attitude {
            Attitude::Allow => (0, "allow"),
            Attitude::Report => (1, "report"),
            Attitude::Reject => (2, "reject"),
        };
        for (code, was, is) in [
            ("unclaimed", old_manner.unclaimed, new_manner.unclaimed),
            ("stray", old_manner.stray, new_manner.stray),
            ("plaintext", old_manner.plaintext, new_manner.plaintext),
            ("near_miss", old_manner.near_miss, new_manner.near_miss),
        ] {
            let (was, is) = (word(was), word(is));
            notes.ranked(
                code,
                &about,
                &format!("`{code}`"),
                (was.0, is.0),
                (was.1, is.1),
            );
        }
        // What does not open shows nothing; to answer with a token after all is less strict than not to answer.
        let word = |fallback| match fallback {
            Fallback::Leave => (0, "leave"),
            Fallback::Null => (1, "null"),
            Fallback::Reject => (2, "reject"),
        };
        let (was, is) = (word(old_manner.unopened), word(new_manner.unopened));
        let ranks = (was.0, is.0);
        notes.ranked("unopened", &about, "`unopened`", ranks, (was.1, is.1));
        let side = Side {
            about: &about,
            is_request: side == "request",
            refuses_unclaimed: new_manner.unclaimed == Attitude::Reject,
            old,
            old_rules,
            new,
            new_rules,
        };
        side.compare(notes);
    }
}

/// Classes that an enforced route opens now, and none did before: values that the application never saw.
fn opened(old: &Policies, new: &Policies, notes: &mut Notes) {
    let all = |policies: &Policies| {
        let routes = policies
            .routes()
            .filter(|route| route.mode == Mode::Enforce);
        let rules =
            routes.flat_map(|route| route.request_rules.iter().chain(&route.response_rules));
        let mut opened: BTreeSet<Arc<str>> = BTreeSet::new();
        for rule in rules {
            if let Action::Open(classes) = &rule.action {
                opened.extend(classes.iter().flat_map(|class| class.names()).cloned());
            }
        }
        opened
    };
    let sealed_before: BTreeSet<Arc<str>> = old
        .iter()
        .flat_map(|policy| &policy.classes)
        .map(|class| Arc::clone(&class.name))
        .collect();
    let before = all(old);
    for class in all(new).difference(&before) {
        if sealed_before.contains(class) {
            let about = format!("class {class}");
            let what = "is opened, which no rule did before";
            notes.add(Direction::Weaker, "class-opened", about, what);
        }
    }
}

#[cfg(test)]
mod tests;
