//! What is to be done with each record: one side of a route, for sealing or for opening alone.

use super::bound::{Bound, Target};
use crate::audit::Side;
use crate::context::{Circumstances, Outside};
use crate::diagnostic::{did_you_mean, quoted};
use crate::path::Path;
use crate::policy::{OutsideSource, Parameters, Route, TenantSource};
use crate::transform::{
    Action, Attitude, BindSource, Fallback, Manner, Refusal, Rule, Rules, plan,
};
use std::sync::Arc;

/// Sealing or opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Values become tokens.
    Seal,
    /// Tokens become values.
    Open,
}

impl Verb {
    /// `seal` or `open`.
    pub fn word(self) -> &'static str {
        match self {
            Verb::Seal => "seal",
            Verb::Open => "open",
        }
    }
}

/// What becomes of a record with which something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFault {
    /// Nothing is written from it on.
    Stop,
    /// It is left out, and told of.
    Skip,
    /// It is written as it is, but for what opens of it. For opening alone.
    Leave,
}

/// What would be the request, and is not there.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The tenant.
    pub tenant: Option<String>,
    /// Who asks, by the name that the rules' `reveal` has.
    pub caller: Option<String>,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Without `?`.
    pub query: Option<String>,
    /// As it would be sent, without query.
    pub path: Option<String>,
    /// A bind's name, or `tenant`, and where in each record its value stands.
    pub binds: Vec<(String, Path)>,
}

/// Why a route cannot be used in this way: what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

fn unfit(what: impl Into<String>, hint: impl Into<String>) -> Unfit {
    Unfit {
        what: what.into(),
        hint: hint.into(),
    }
}

/// What is to be done with each record.
pub struct Job {
    pub(super) verb: Verb,
    pub(super) rules: Rules,
    pub(super) circumstances: Circumstances,
    pub(super) bound: Bound,
    pub(super) on_fault: OnFault,
    /// Bytes of one record.
    pub(super) record_bytes_max: usize,
    /// Distinct data keys that one fetch may ask for.
    pub(super) keys_max: usize,
    /// To tell a document.
    nothing: Rules,
}

impl Job {
    /// The rules of `side` that do what `verb` says, under what is `given` of a request.
    ///
    /// # Errors
    /// The side has no such rules, or something that they want of a request is not given.
    pub fn new(
        verb: Verb,
        route: &Route,
        side: Side,
        given: &Given,
        on_fault: OnFault,
        limits: (usize, usize),
    ) -> Result<Job, Unfit> {
        let (compiled, written, word) = match side {
            Side::Request => (&route.request, &route.request_rules, "requests"),
            Side::Response => (&route.response, &route.response_rules, "responses"),
        };
        let fits = |action: &Action| match action {
            Action::Seal(_) => verb == Verb::Seal,
            Action::Open(_) => verb == Verb::Open,
            Action::Pass => true,
        };
        let does = |action: &Action| fits(action) && !matches!(action, Action::Pass);
        if !written.iter().any(|rule| does(&rule.action)) {
            let verb = verb.word();
            return Err(unfit(
                format!(
                    "the route `{}` has no rule that {verb}s in {word}",
                    route.name
                ),
                "choose another route, or the other side: --side request, --side response",
            ));
        }
        let rules: Vec<Rule> = written
            .iter()
            .filter(|rule| fits(&rule.action))
            .cloned()
            .collect();
        let (bound, bound_outside) = bound(&rules, route, given, compiled.manner())?;
        let mut circumstances = circumstances(route, given)?;
        circumstances.caller = caller(&rules, route, given)?;
        let mut wanted = rules.iter().flat_map(|rule| &rule.bind);
        let missing = wanted.find(|bind| match bind.source {
            BindSource::Outside(at) => {
                !matches!(circumstances.outside.get(at), Some(Outside::Text(_)))
                    && !bound_outside.contains(&at)
            }
            _ => false,
        });
        if let Some(bind) = missing {
            let BindSource::Outside(at) = bind.source else {
                return Err(unfit("a bind without a source", "report this defect"));
            };
            return Err(outside_missing(&bind.name, route.outside.get(at)));
        }
        let manner = match verb {
            Verb::Seal => compiled.manner(),
            // Nothing leaks by being opened where no rule looks.
            Verb::Open => Manner {
                stray: Attitude::Report,
                unclaimed: Attitude::Allow,
                // What becomes of a record in which one does not open, `on_fault` says.
                unopened: Fallback::Leave,
                ..compiled.manner()
            },
        };
        let compile = |rules| {
            Rules::compile(rules, manner)
                .map_err(|error| unfit(error.what, "simplify the route's rules"))
        };
        Ok(Job {
            verb,
            rules: compile(rules)?,
            circumstances,
            bound,
            on_fault,
            record_bytes_max: limits.0,
            keys_max: limits.1,
            nothing: nothing(manner),
        })
    }

    /// The text is a JSON document by itself.
    pub(super) fn is_document(&self, text: &[u8]) -> bool {
        let planned = plan(&self.nothing, text, &Circumstances::default());
        !matches!(planned, Err(Refusal::NotJson { .. }))
    }
}

/// No rule at all: whatever is a document passes.
fn nothing(manner: Manner) -> Rules {
    let manner = Manner {
        stray: Attitude::Allow,
        unclaimed: Attitude::Allow,
        ..manner
    };
    Rules::compile(Vec::new(), manner).expect("no rule is too complex")
}

/// What is taken from each record, and the sources that are taken so.
fn bound(
    rules: &[Rule],
    route: &Route,
    given: &Given,
    manner: Manner,
) -> Result<(Bound, Vec<usize>), Unfit> {
    let mut paths = Vec::new();
    let mut taken = Vec::new();
    for (name, path) in &given.binds {
        if name == "tenant" {
            if route.tenant.is_none() {
                return Err(no_tenant(route));
            }
            if given.tenant.is_some() {
                return Err(unfit(
                    "the tenant is given twice",
                    "keep --tenant or --bind tenant=PATH",
                ));
            }
            paths.push((path.clone(), Target::Tenant));
            continue;
        }
        let binds = || rules.iter().flat_map(|rule| &rule.bind);
        let mut indexes: Vec<usize> = binds()
            .filter(|bind| *bind.name == **name)
            .filter_map(|bind| match bind.source {
                BindSource::Outside(at) => Some(at),
                _ => None,
            })
            .collect();
        indexes.sort_unstable();
        indexes.dedup();
        if indexes.is_empty() {
            let outside = binds().filter(|bind| matches!(bind.source, BindSource::Outside(_)));
            let hint = did_you_mean(name, outside.map(|bind| &*bind.name));
            return Err(unfit(
                format!(
                    "no rule of the route `{}` binds `{name}` to a path, a header or a query",
                    route.name
                ),
                hint.unwrap_or_else(|| {
                    "--bind is for what a rule takes from outside the body, and for `tenant`"
                        .to_owned()
                }),
            ));
        }
        taken.extend_from_slice(&indexes);
        paths.push((path.clone(), Target::Outside(indexes)));
    }
    let bound = Bound::new(paths, manner).map_err(|what| unfit(what, "give fewer --bind"))?;
    Ok((bound, taken))
}

/// Who asks. On the road one whom no rule names gets what the rules' default says; a person who says a name means one of theirs.
fn caller(rules: &[Rule], route: &Route, given: &Given) -> Result<Option<Arc<str>>, Unfit> {
    let Some(caller) = &given.caller else {
        return Ok(None);
    };
    let named = || rules.iter().flat_map(|rule| rule.reveal.callers.keys());
    match named().find(|name| ***name == **caller) {
        Some(name) => Ok(Some(Arc::clone(name))),
        None => Err(unfit(
            format!(
                "no rule of the route `{}` names the caller {}",
                route.name,
                quoted(caller)
            ),
            did_you_mean(caller, named().map(|name| &**name))
                .unwrap_or_else(|| "leave --caller out: the rules' default holds".to_owned()),
        )),
    }
}

fn no_tenant(route: &Route) -> Unfit {
    unfit(
        format!("the policy `{}` declares no tenant", route.policy),
        "leave the tenant out; what is sealed with one would not open in traffic",
    )
}

/// What holds for all records.
fn circumstances(route: &Route, given: &Given) -> Result<Circumstances, Unfit> {
    if given.tenant.is_some() && route.tenant.is_none() {
        return Err(no_tenant(route));
    }
    if let (Some(tenant), Some(TenantSource::Value(value))) = (&given.tenant, &route.tenant)
        && **tenant != **value
    {
        return Err(unfit(
            format!(
                "the policy `{}` has another tenant for every request",
                route.policy
            ),
            "leave --tenant out",
        ));
    }
    let parameters = match (&given.path, &route.matching.path) {
        (None, _) => Parameters::default(),
        (Some(_), None) => {
            return Err(unfit(
                format!("the route `{}` takes every path", route.name),
                "leave --path out",
            ));
        }
        (Some(path), Some(template)) => template.parameters(path).ok_or_else(|| {
            unfit(
                format!("the route `{}` does not take this path", route.name),
                "give a path as a request would have it: percent-encoded, without query",
            )
        })?,
    };
    let header = |name: &str| {
        let mut found = given.headers.iter().filter(|(known, _)| known == name);
        match (found.next(), found.next()) {
            (None, _) => Outside::Missing,
            (Some((_, value)), None) => Outside::Text(value.clone()),
            (Some(_), Some(_)) => Outside::Repeated,
        }
    };
    // One that comes with each record stands in until then.
    let per_record = given.binds.iter().any(|(name, _)| name == "tenant");
    let tenant = given.tenant.as_deref().or(per_record.then_some("-"));
    let query = given.query.as_deref();
    let found = route.circumstances_of(tenant, &parameters, header, query, "");
    found.map_err(|missing| {
        unfit(
            format!(
                "the policy `{}` declares a tenant, and it is {}",
                route.policy, missing.what
            ),
            "give it: --tenant NAME, or --bind tenant=PATH to take it from each record",
        )
    })
}

fn outside_missing(bind: &str, source: Option<&OutsideSource>) -> Unfit {
    let flag = match source {
        Some(OutsideSource::Path(name)) => format!("--path with `{name}` in it"),
        Some(OutsideSource::Header(name)) => format!("--header {name}=VALUE, once"),
        Some(OutsideSource::Query(name)) => format!("--query {name}=VALUE, once"),
        None => "what the rule wants".to_owned(),
    };
    unfit(
        format!("a rule binds `{bind}` to what a request would tell, and it is not given"),
        format!("give {flag}; or --bind {bind}=PATH to take it from each record"),
    )
}
