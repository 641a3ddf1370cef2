//! What the words of a policy mean together: names refer to something, patterns parse, nothing is said twice.

use super::draft::RouteDraft;
use super::matching::Template;
use super::sides::ActionWords;
use super::written::{Environment, PolicyFile, RouteWords, Tenant, bad_name};
use super::{CallerSource, Policy, TENANT_BYTES_MAX, TenantSource};
use crate::context::Class;
use crate::diagnostic::{Span, did_you_mean, quoted};
use crate::marked::{Findings, Marked};
use crate::token::ClassHint;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What all routes of a policy refer to.
pub(super) struct Ground<'w> {
    pub(super) policy: Arc<str>,
    pub(super) tenant: Option<TenantSource>,
    pub(super) caller: Option<CallerSource>,
    pub(super) classes: Vec<Arc<Class>>,
    pub(super) environment: Option<&'w Environment>,
}

/// None only together with findings.
pub(super) fn check(
    file: &PolicyFile,
    environment: Option<&str>,
    findings: &mut Findings<'_>,
) -> Option<Policy> {
    name(&file.name, findings);
    let environment = environments(file, environment, findings);
    let ground = Ground {
        policy: file.name.value.as_str().into(),
        tenant: file
            .tenant
            .as_ref()
            .and_then(|tenant| check_tenant(tenant, file, findings)),
        caller: file.caller.clone(),
        classes: classes(file, findings),
        environment,
    };
    let mut drafts: Vec<RouteDraft<'_>> = Vec::new();
    for words in &file.routes {
        name(&words.name, findings);
        let draft = RouteDraft::new(words, &ground, findings);
        if let Some(first) = drafts
            .iter()
            .find(|other| other.words.name.value == words.name.value)
        {
            let line = findings
                .source
                .diagnostic("", first.words.name.span, "")
                .line;
            let message = format!(
                "a route {} is already in line {line}",
                quoted(&words.name.value)
            );
            findings.at("duplicate-route", words.name.span, message);
        } else if let Some(first) = drafts
            .iter()
            .find(|other| other.sound && draft.sound && other.matching.covers(&draft.matching))
        {
            let message = format!(
                "never reached: route {} takes all of its requests",
                quoted(&first.words.name.value)
            );
            findings.at_with_hint(
                "shadowed-route",
                words.matching.span,
                message,
                "the first route that matches wins",
            );
        }
        drafts.push(draft);
    }
    if !findings.is_empty() {
        return None;
    }
    let routes = drafts
        .into_iter()
        .map(|draft| draft.compile(&ground, findings))
        .collect::<Option<Vec<_>>>()?;
    Some(Policy {
        name: Arc::clone(&ground.policy),
        tenant: ground.tenant,
        unmatched: environment
            .and_then(|e| e.unmatched)
            .or(file.unmatched)
            .unwrap_or_default(),
        classes: ground.classes,
        routes,
        source: findings.source.clone(),
        name_span: file.name.span,
    })
}

pub(super) fn name(name: &Marked<String>, findings: &mut Findings<'_>) {
    if let Some(wrong) = bad_name(&name.value) {
        findings.at("bad-name", name.span, wrong);
    }
}

/// All environments are checked; the chosen one is returned.
fn environments<'w>(
    file: &'w PolicyFile,
    chosen: Option<&str>,
    findings: &mut Findings<'_>,
) -> Option<&'w Environment> {
    for environment in &file.environments {
        name(&environment.name, findings);
        for route in &environment.routes {
            if !file
                .routes
                .iter()
                .any(|known| known.name.value == route.name.value)
            {
                let known = file.routes.iter().map(|known| known.name.value.as_str());
                let hint = did_you_mean(&route.name.value, known);
                let message = format!("there is no route {}", quoted(&route.name.value));
                findings.report(
                    findings
                        .source
                        .diagnostic("unknown-route", route.name.span, message)
                        .maybe_hint(hint),
                );
            }
        }
    }
    let chosen = chosen?;
    let found = file
        .environments
        .iter()
        .find(|environment| environment.name.value == chosen);
    // A policy that tells environments apart must know the one it runs in: a typing error may not weaken it.
    if let (None, Some(first)) = (found, file.environments.first()) {
        let message = format!(
            "the environment {} is not among this policy's",
            quoted(chosen)
        );
        let known = file
            .environments
            .iter()
            .map(|environment| environment.name.value.as_str());
        let hint = did_you_mean(chosen, known)
            .unwrap_or_else(|| format!("where nothing differs, add it: {chosen}: {{}}"));
        findings.at_with_hint("unknown-environment", first.name.span, message, hint);
    }
    found
}

/// RFC 9110 section 5.1: a token; compared in lower case.
pub(super) fn header_name(text: &str, span: Span, findings: &mut Findings<'_>) -> Option<Arc<str>> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || text.len() > 256 || !text.bytes().all(fits) {
        findings.at(
            "bad-header",
            span,
            format!("{} is no name of a header", quoted(text)),
        );
        return None;
    }
    Some(text.to_ascii_lowercase().into())
}

fn check_tenant(
    tenant: &Tenant,
    file: &PolicyFile,
    findings: &mut Findings<'_>,
) -> Option<TenantSource> {
    match tenant {
        Tenant::Header(header) => {
            header_name(&header.value, header.span, findings).map(TenantSource::Header)
        }
        Tenant::HostLabel(number) => Some(TenantSource::HostLabel(*number)),
        Tenant::Path(parameter) => {
            let names = |route: &RouteWords| {
                let template = route
                    .matching
                    .path
                    .as_ref()
                    .and_then(|path| Template::parse(&path.text).ok());
                template
                    .is_some_and(|template| template.names().any(|name| **name == *parameter.value))
            };
            for route in file.routes.iter().filter(|route| !names(route)) {
                let message = format!(
                    "the path of route {} has no parameter {}",
                    quoted(&route.name.value),
                    quoted(&parameter.value)
                );
                findings.at("unknown-parameter", parameter.span, message);
            }
            Some(TenantSource::Path(parameter.value.as_str().into()))
        }
        Tenant::Value(value) => {
            if value.value.is_empty() || value.value.len() > TENANT_BYTES_MAX {
                findings.at(
                    "bad-length",
                    value.span,
                    format!("a tenant has from 1 to {TENANT_BYTES_MAX} bytes"),
                );
            }
            Some(TenantSource::Value(value.value.as_str().into()))
        }
    }
}

fn classes(file: &PolicyFile, findings: &mut Findings<'_>) -> Vec<Arc<Class>> {
    let mut names: HashMap<&str, Span> = HashMap::new();
    let mut hints: HashMap<ClassHint, &str> = HashMap::new();
    for class in &file.classes {
        name(&class.key, findings);
        for written in std::iter::once(&class.name).chain(&class.formerly) {
            name(written, findings);
            if let Some(first) = names.insert(&written.value, written.span) {
                let line = findings.source.diagnostic("", first, "").line;
                let message = format!(
                    "the class name {} is already in line {line}",
                    quoted(&written.value)
                );
                findings.at("duplicate-class", written.span, message);
            } else if let Some(other) = hints.insert(ClassHint::of(&written.value), &written.value)
            {
                let message = format!(
                    "the class names {} and {} have the same hint in tokens",
                    quoted(&written.value),
                    quoted(other)
                );
                findings.at_with_hint(
                    "duplicate-class-hint",
                    written.span,
                    message,
                    "choose another name for the newer one",
                );
            }
        }
    }
    let unbound: HashSet<&str> = file.routes.iter().flat_map(sealing_without_bind).collect();
    let class = |words: &super::written::ClassWords| Class {
        name: words.name.value.as_str().into(),
        formerly: words
            .formerly
            .iter()
            .map(|name| name.value.as_str().into())
            .collect(),
        key: words.key.value.as_str().into(),
        suite: words.suite,
        // A token that is taken for sealed could have been copied from elsewhere, unless it is bound to its place.
        keep_sealed: words
            .keep_sealed
            .unwrap_or(!(words.high_scrutiny && unbound.contains(words.name.value.as_str()))),
        mask: words.mask.clone(),
    };
    file.classes
        .iter()
        .map(|words| Arc::new(class(words)))
        .collect()
}

fn sealing_without_bind(route: &RouteWords) -> impl Iterator<Item = &str> {
    route
        .request
        .rules
        .iter()
        .chain(&route.response.rules)
        .filter_map(|rule| match &rule.action {
            ActionWords::Seal(class) if rule.bind.is_empty() => Some(class.value.as_str()),
            _ => None,
        })
}
