//! What in a policy is allowed, and probably not meant.
//!
//! Only what can be decided from the policies alone, and is true: a finding that cries wolf is worse than none. It judges all
//! policies together, since what one of them seals another may open.

use super::sides::{ActionWords, RuleWords};
use super::written::{self, PolicyFile};
use super::{Mode, Policies, Policy, Route};
use crate::context::{Class, Suite};
use crate::diagnostic::{Diagnostic, Severity, Source, Span, quoted};
use crate::marked::{self, Findings};
use crate::transform::{Action, Rule};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Findings about one kind of thing in one policy file.
struct Words<'p> {
    policy: &'p Policy,
    file: PolicyFile,
}

/// One rule, with what it stands in.
struct Use<'p> {
    policy: &'p Policy,
    route: &'p Route,
    rule: &'p Rule,
    /// Of the rule's path.
    span: Span,
    /// It opens `*`, whatever classes there are.
    any: bool,
    /// It says who sees how much.
    reveals: bool,
}

/// All findings, by file and place. Codes and what they mean are listed in docs/policy.md.
pub fn lint(policies: &Policies) -> Vec<Diagnostic> {
    let words: Vec<Words<'_>> = policies.iter().filter_map(words).collect();
    let mut found = Vec::new();
    for of in &words {
        for (route, written) in of.policy.routes.iter().zip(&of.file.routes) {
            let sides = [
                (&route.request_rules, &written.request.rules),
                (&route.response_rules, &written.response.rules),
            ];
            for (rules, written) in sides {
                order(&of.policy.source, rules, written, &mut found);
            }
            observed(of.policy, route, written.name.span, &mut found);
        }
    }
    let uses = uses(&words);
    for of in &words {
        classes(of, &uses, &mut found);
    }
    binds(&uses, &mut found);
    found.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    found
}

/// The words of a policy again; policies of flags have no text.
fn words(policy: &Policy) -> Option<Words<'_>> {
    let root = marked::parse(&policy.source).ok()?;
    let file = written::read(&root, &mut Findings::new(&policy.source))?;
    Some(Words { policy, file })
}

fn uses<'p>(words: &'p [Words<'p>]) -> Vec<Use<'p>> {
    let mut uses = Vec::new();
    for of in words {
        for (route, written) in of.policy.routes.iter().zip(&of.file.routes) {
            let rules = route.request_rules.iter().chain(&route.response_rules);
            let spans = written.request.rules.iter().chain(&written.response.rules);
            uses.extend(rules.zip(spans).map(|(rule, written)| Use {
                policy: of.policy,
                route,
                rule,
                span: written.at.node.span,
                any: matches!(&written.action, ActionWords::Open(class) if class.value == "*"),
                reveals: written.reveal.is_some(),
            }));
        }
    }
    uses
}

fn warn(source: &Source, code: &'static str, span: Span, message: String) -> Diagnostic {
    source
        .diagnostic(code, span, message)
        .severity(Severity::Warning)
}

fn inform(source: &Source, code: &'static str, span: Span, message: String) -> Diagnostic {
    source
        .diagnostic(code, span, message)
        .severity(Severity::Info)
}

/// Rules of one side against those before them.
fn order(source: &Source, rules: &[Rule], written: &[RuleWords], found: &mut Vec<Diagnostic>) {
    for (later, (rule, words)) in rules.iter().zip(written).enumerate() {
        let span = words.at.node.span;
        if rule.at.is_evaluated() && rule.at.as_str().contains("..") {
            let message = "a filter or an index from the end, behind `..`: each value of a body is tried, on a parsed copy";
            let hint =
                "slower by a factor on large bodies; name the members on the way where you can";
            found.push(inform(source, "slow-path", span, message.to_owned()).hint(hint));
        }
        let before = || rules.iter().enumerate().take(later);
        let hiding = before().find(|(_, first)| hides(first, rule));
        if let Some((index, first)) = hiding {
            let message = format!(
                "this rule never applies: rule {} ({}) takes all of its values",
                index + 1,
                quoted(first.at.as_str())
            );
            let hint = "the first rule wins; put the narrower one first";
            found.push(warn(source, "unreachable-rule", span, message).hint(hint));
            continue;
        }
        let Action::Seal(class) = &rule.action else {
            continue;
        };
        for (index, first) in before() {
            let Action::Seal(other) = &first.action else {
                continue;
            };
            // The narrower rule first, the wider behind it: that is how exceptions are written.
            let exception = rule.at.covers(&first.at, false) == Some(true);
            if other != class && !exception && first.at.meets(&rule.at, false) == Some(true) {
                let message = format!(
                    "rule {} ({}) selects some of the same values, and seals them as {}",
                    index + 1,
                    quoted(first.at.as_str()),
                    quoted(&other.name)
                );
                let hint =
                    "the first rule wins; say by narrower paths which class each value is of";
                found.push(warn(source, "overlapping-classes", span, message).hint(hint));
                break;
            }
        }
    }
}

/// Whether `first` leaves nothing for `rule` behind it.
fn hides(first: &Rule, rule: &Rule) -> bool {
    match (&first.action, &rule.action) {
        // A sealed or passed value is taken with all that it holds.
        (Action::Seal(_) | Action::Pass, _) => first.at.covers(&rule.at, true) == Some(true),
        (Action::Open(first_classes), Action::Open(classes)) => {
            classes.iter().all(|class| first_classes.contains(class))
                && first.at.covers(&rule.at, false) == Some(true)
        }
        // A value that is no token falls through an opening rule.
        (Action::Open(_), _) => false,
    }
}

/// A route that seals, but only in mind.
fn observed(policy: &Policy, route: &Route, span: Span, found: &mut Vec<Diagnostic>) {
    if route.mode == Mode::Observe && (route.request.seals() || route.response.seals()) {
        let message = format!(
            "route {} only observes: what its rules seal passes in clear",
            quoted(&route.name)
        );
        found.push(inform(&policy.source, "observed-seal", span, message));
    }
}

/// What is said of each class of one policy.
fn classes(of: &Words<'_>, uses: &[Use<'_>], found: &mut Vec<Diagnostic>) {
    let source = &of.policy.source;
    for (class, written) in of.policy.classes.iter().zip(&of.file.classes) {
        let span = written.name.span;
        let name = quoted(&class.name);
        let sealing: Vec<&Use<'_>> = uses.iter().filter(|u| seals(u, class)).collect();
        let opening: Vec<&Use<'_>> = uses.iter().filter(|u| opens(u, class)).collect();
        match (sealing.is_empty(), opening.is_empty()) {
            (true, true) => {
                let message = format!("no rule names the class {name}");
                let hint = "remove it, or write the rule that was forgotten";
                found.push(warn(source, "unused-class", span, message).hint(hint));
            }
            (false, true) => {
                let message = format!("nothing opens the class {name}: what is sealed stays so");
                let hint = "fine if it is meant, or if another agent opens it";
                found.push(inform(source, "never-opened", span, message).hint(hint));
            }
            (true, false) if opening.iter().any(|u| !u.any) => {
                let message = format!("nothing seals the class {name}: there is little to open");
                let hint = "fine if another agent seals it";
                found.push(inform(source, "never-sealed", span, message).hint(hint));
            }
            _ => {}
        }
        let unbound = |u: &&&Use<'_>| u.rule.bind.is_empty();
        if written.high_scrutiny {
            for u in sealing
                .iter()
                .filter(|u| std::ptr::eq(u.policy, of.policy))
                .filter(unbound)
            {
                let message = format!(
                    "{name} is of high scrutiny, and this rule binds its tokens to nothing but class and tenant"
                );
                let hint = "bind them to their record, or one can stand in for another";
                found.push(warn(source, "unbound-high-scrutiny", u.span, message).hint(hint));
            }
        }
        if written.high_scrutiny {
            let own = |u: &&&Use<'_>| std::ptr::eq(u.policy, of.policy) && !u.reveals;
            // `*` with other binds than those that seal the class does not open it.
            let may = |u: &&&Use<'_>| !u.any || sealing.iter().any(|s| bound(s) == bound(u));
            for u in opening.iter().filter(own).filter(may) {
                let message = format!(
                    "{name} is of high scrutiny, and this rule shows it in full to whoever asks"
                );
                let hint = "say who sees how much, for example reveal: {default: masked, callers: {billing: full}}";
                found.push(warn(&u.policy.source, "open-to-all", u.span, message).hint(hint));
            }
        }
        if of.policy.tenant.is_none() && sealing.iter().any(|u| unbound(&u)) {
            shared(source, span, &name, sealing.iter().chain(&opening), found);
        }
    }
}

/// Tokens of one host that open at another.
fn shared<'u, 'p: 'u>(
    source: &Source,
    span: Span,
    name: &str,
    uses: impl Iterator<Item = &'u &'u Use<'p>>,
    found: &mut Vec<Diagnostic>,
) {
    let mut hosts = BTreeSet::new();
    let mut wide = false;
    for u in uses {
        if let Some(host) = &u.route.matching.host {
            wide |= host.is_wide();
            hosts.insert(format!("{host:?}"));
        }
    }
    if wide || hosts.len() > 1 {
        let message = format!(
            "tokens of {name} from one host open at another: neither a tenant nor a bind tells them apart"
        );
        let hint = "declare a `tenant`, or bind the tokens to their record";
        found.push(warn(source, "hosts-share-tokens", span, message).hint(hint));
    }
}

fn seals(u: &Use<'_>, class: &Arc<Class>) -> bool {
    matches!(&u.rule.action, Action::Seal(sealed) if sealed.name == class.name)
}

fn opens(u: &Use<'_>, class: &Arc<Class>) -> bool {
    matches!(&u.rule.action, Action::Open(all) if all.iter().any(|one| one.names().any(|n| *n == class.name)))
}

/// What equal tokens mean is narrower than it looks, where they are bound.
fn equality(u: &Use<'_>, class: &Class, found: &mut Vec<Diagnostic>) {
    let names: Vec<&str> = u.rule.bind.iter().map(|bind| &*bind.name).collect();
    if class.suite == Suite::Aes256Siv && !names.is_empty() {
        let message = format!(
            "{} is deterministic, and bound: equal values have equal tokens only where {} is equal, too",
            quoted(&class.name),
            names.join(" and ")
        );
        let hint =
            "leave out `bind` where tokens are to be compared, or the mode where they are not";
        found.push(inform(&u.policy.source, "bound-deterministic", u.span, message).hint(hint));
    }
}

/// The names under which values are in the context of a rule's tokens, beside the class.
fn bound<'u>(u: &'u Use<'_>) -> BTreeSet<&'u str> {
    let tenant = u.policy.tenant.as_ref().map(|_| "tenant");
    let binds = u.rule.bind.iter().map(|bind| &*bind.name);
    binds.chain(tenant).collect()
}

/// Sealing and opening rules of a class that bind different names: such tokens stay sealed, in silence.
fn binds(uses: &[Use<'_>], found: &mut Vec<Diagnostic>) {
    let list = |names: &BTreeSet<&str>| match names.len() {
        0 => "nothing".to_owned(),
        _ => Vec::from_iter(names.iter().copied()).join(", "),
    };
    let lonely = |opening: &Use<'_>, class: &Arc<Class>| {
        let mut sealing = uses.iter().filter(|u| seals(u, class)).peekable();
        sealing.peek().is_some() && sealing.all(|u| bound(u) != bound(opening))
    };
    for u in uses {
        let Action::Open(classes) = &u.rule.action else {
            continue;
        };
        let sealed: Vec<&Arc<Class>> = classes
            .iter()
            .filter(|class| uses.iter().any(|u| seals(u, class)))
            .collect();
        // `*` opens what it can: it is wrong if that is nothing.
        let Some(first) = sealed.first() else {
            continue;
        };
        if sealed.iter().all(|class| lonely(u, class)) {
            let other = uses.iter().find(|u| seals(u, first)).map(bound);
            let message = format!(
                "this rule opens nothing that a rule seals: it binds {}, where {} is sealed with {}",
                list(&bound(u)),
                quoted(&first.name),
                list(&other.unwrap_or_default())
            );
            let hint = "both sides bind the same names to the same values";
            found.push(warn(&u.policy.source, "bind-mismatch", u.span, message).hint(hint));
        }
    }
    for u in uses {
        let Action::Seal(class) = &u.rule.action else {
            continue;
        };
        equality(u, class, found);
        let opening: Vec<&Use<'_>> = uses.iter().filter(|o| opens(o, class)).collect();
        // Where no opening rule fits any sealing rule, that was said above.
        let some_fit = opening.iter().any(|o| !lonely(o, class));
        if some_fit && opening.iter().all(|o| bound(o) != bound(u)) {
            let message = format!(
                "nothing opens what this rule seals: it binds {}, and no opening rule of {} does",
                list(&bound(u)),
                quoted(&class.name)
            );
            let hint = "both sides bind the same names to the same values";
            found.push(warn(&u.policy.source, "bind-mismatch", u.span, message).hint(hint));
        }
    }
}
