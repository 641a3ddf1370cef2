//! One route, from its words to compiled rules.

use super::callers;
use super::checked::{Ground, header_name, name};
use super::matching::{HostPattern, Match, Template};
use super::selected;
use super::sides::{
    ActionWords, AtWords, BindWords, MannerWords, RuleWords, SelectorWords, SideWords,
};
use super::written::{MatchWords, RouteOverride, RouteWords, Text};
use super::{CallerSource, DEPTH_MAX, Mode, OutsideSource, Route, TenantSource};
use crate::diagnostic::{Span, did_you_mean, quoted};
use crate::marked::{Findings, Marked};
use crate::path::{Path, PathError};
use crate::transform::{Action, At, Attitude, Bind, BindSource, Manner, Rule, Rules, Spot};
use std::sync::Arc;

/// A route whose words are checked, but whose rules are not compiled yet: that is worth doing only if all is well.
pub(super) struct RouteDraft<'w> {
    pub(super) words: &'w RouteWords,
    pub(super) matching: Match,
    /// Nothing is wrong with `match`.
    pub(super) sound: bool,
    request: Vec<Rule>,
    response: Vec<Rule>,
    outside: Vec<OutsideSource>,
    caller: Option<CallerSource>,
}

impl<'w> RouteDraft<'w> {
    pub(super) fn new(
        words: &'w RouteWords,
        ground: &Ground<'_>,
        findings: &mut Findings<'_>,
    ) -> RouteDraft<'w> {
        let before = findings.count();
        let matching = matching(&words.matching, findings);
        let sound = findings.count() == before;
        let mut draft = RouteDraft {
            words,
            matching,
            sound,
            request: Vec::new(),
            response: Vec::new(),
            outside: Vec::new(),
            caller: words.caller.clone().or_else(|| ground.caller.clone()),
        };
        draft.request = words
            .request
            .rules
            .iter()
            .filter_map(|r| draft.rule(r, ground, findings))
            .collect();
        draft.response = words
            .response
            .rules
            .iter()
            .filter_map(|r| draft.rule(r, ground, findings))
            .collect();
        draft
    }

    fn rule(
        &mut self,
        words: &RuleWords,
        ground: &Ground<'_>,
        findings: &mut Findings<'_>,
    ) -> Option<Rule> {
        let at = self.at(&words.at, ground, &words.action, findings);
        let named = matches!(words.at.selects, SelectorWords::Named(..));
        let class_named = |name: &Marked<String>, findings: &mut Findings<'_>| {
            let class = ground
                .classes
                .iter()
                .find(|class| *class.name == *name.value);
            if class.is_none() {
                unknown_class(name, ground, findings);
            }
            class.map(Arc::clone)
        };
        let action = match &words.action {
            ActionWords::Pass => Some(Action::Pass),
            ActionWords::Seal(class) => class_named(class, findings).map(Action::Seal),
            ActionWords::Open(class) if class.value == "*" => {
                if ground.classes.is_empty() {
                    findings.at(
                        "unknown-class",
                        class.span,
                        "`*` stands for this policy's classes, and it has none",
                    );
                }
                Some(Action::Open(ground.classes.clone()))
            }
            ActionWords::Open(class) => {
                class_named(class, findings).map(|class| Action::Open(vec![class]))
            }
        };
        let bind: Vec<Bind> = words
            .bind
            .iter()
            .filter_map(|bind| self.bind(bind, named, findings))
            .collect();
        let opened = match &action {
            Some(Action::Open(classes)) => classes.as_slice(),
            _ => &[],
        };
        let reveal = words.reveal.as_ref();
        let reveal = reveal.map(|r| callers::meant(r, opened, self.caller.as_ref(), findings));
        Some(Rule {
            at: at?,
            action: action?,
            bind,
            reveal: reveal.unwrap_or_default(),
            gather: words.gather,
        })
    }

    /// What a rule selects.
    fn at(
        &self,
        words: &AtWords,
        ground: &Ground<'_>,
        action: &ActionWords,
        findings: &mut Findings<'_>,
    ) -> Option<At> {
        match &words.selects {
            SelectorWords::Json(path) => json_path(path, findings).map(At::from),
            SelectorWords::Inside { outer, then } => {
                let outer = json_path(outer, findings);
                let then = json_path(then, findings);
                Some(At::inside(outer?, then?))
            }
            SelectorWords::Named(Spot::Header, name) => {
                let span = name.node.span;
                let header = header_name(&name.text, span, findings)?;
                if let Some(why) = selected::kept_from_rules(&header) {
                    let message = format!("no rule selects {}: {why}", quoted(&header));
                    findings.at("bad-header", span, message);
                    return None;
                }
                let tenant = ground.tenant.as_ref();
                if matches!(tenant, Some(TenantSource::Header(known)) if *known == header)
                    && matches!(action, ActionWords::Seal(_))
                {
                    let message = "the tenant is read from this header, and its token names none";
                    findings.at("bad-header", span, message);
                    return None;
                }
                Some(At::named(Spot::Header, &header))
            }
            SelectorWords::Named(spot, name) => Some(At::named(*spot, &name.text)),
        }
    }

    fn bind(
        &mut self,
        words: &BindWords,
        named: bool,
        findings: &mut Findings<'_>,
    ) -> Option<Bind> {
        name(&words.name, findings);
        if matches!(words.name.value.as_str(), "class" | "tenant") {
            let message = format!(
                "{} is bound always and cannot be a bind's name",
                quoted(&words.name.value)
            );
            findings.at("reserved-bind", words.name.span, message);
        }
        let from = &words.from;
        let span = from.node.span;
        if named && matches!(words.source, "sibling" | "root") {
            findings.at_with_hint(
                "misplaced-bind",
                words.name.span,
                format!(
                    "`{}` is of JSON, and this rule's values are not",
                    words.source
                ),
                "bind what the request has: {path: …}, {header: …} or {query: …}",
            );
            return None;
        }
        let source = match words.source {
            "sibling" => BindSource::Sibling(from.text.clone()),
            "root" => {
                let path = json_path(from, findings)?;
                if !path.is_singular() {
                    let message =
                        "a bind takes one value: a path of names and indexes from the start";
                    findings.at_with_hint(
                        "not-singular",
                        span,
                        message,
                        "for example $.account.id",
                    );
                    return None;
                }
                BindSource::Root(path)
            }
            "path" => {
                let known: Vec<&str> = self
                    .matching
                    .path
                    .iter()
                    .flat_map(|template| template.names())
                    .map(|name| &**name)
                    .collect();
                if !known.contains(&from.text.as_str()) {
                    let message =
                        format!("the route's path has no parameter {}", quoted(&from.text));
                    let hint = did_you_mean(&from.text, known.iter().copied());
                    findings.report(
                        findings
                            .source
                            .diagnostic("unknown-parameter", span, message)
                            .maybe_hint(hint),
                    );
                    return None;
                }
                self.outside(OutsideSource::Path(from.text.as_str().into()))
            }
            "header" => self.outside(OutsideSource::Header(header_name(
                &from.text, span, findings,
            )?)),
            _ => self.outside(OutsideSource::Query(from.text.as_str().into())),
        };
        Some(Bind {
            name: words.name.value.as_str().into(),
            source,
        })
    }

    /// The index of a source among the route's, which both directions share.
    fn outside(&mut self, source: OutsideSource) -> BindSource {
        let at = self
            .outside
            .iter()
            .position(|known| *known == source)
            .unwrap_or_else(|| {
                self.outside.push(source);
                self.outside.len() - 1
            });
        BindSource::Outside(at)
    }

    pub(super) fn compile(self, ground: &Ground<'_>, findings: &mut Findings<'_>) -> Option<Route> {
        let words = self.words;
        let name = &words.name.value;
        let changed: Option<&RouteOverride> = ground.environment.and_then(|environment| {
            environment
                .routes
                .iter()
                .find(|route| route.name.value == *name)
        });
        let request_manner = manner(
            words.request.manner,
            changed.map(|c| c.request),
            Attitude::Report,
        );
        // Strays are looked for in requests only.
        let response_manner = manner(
            words.response.manner,
            changed.map(|c| c.response),
            Attitude::Allow,
        );
        let written = [words.request.manner, words.response.manner];
        let overlaid = changed.map(|c| [c.request, c.response]).unwrap_or_default();
        for (index, (side, manner, rules)) in [
            ("request", request_manner, &self.request),
            ("response", response_manner, &self.response),
        ]
        .into_iter()
        .enumerate()
        {
            let rejects = [manner.stray, manner.unclaimed].contains(&Attitude::Reject);
            if let Some((word, deed)) = idle(rules, [written[index], overlaid[index]]) {
                findings.at_with_hint(
                    "no-rules",
                    words.name.span,
                    format!(
                        "the `{side}` of this route says `{word}`, and has no rule that {deed}"
                    ),
                    "leave the word out, or add such a rule",
                );
                return None;
            }
            if rejects && rules.is_empty() {
                findings.at_with_hint(
                    "no-rules",
                    words.name.span,
                    format!("the `{side}` of this route rejects, and has no rule: bodies without rules are not read"),
                    "add a rule; `{at: $.x, pass: true}` for what may go",
                );
                return None;
            }
        }
        let (request_rules, response_rules) = (self.request.clone(), self.response.clone());
        let request = compile(self.request, request_manner, &words.request, findings);
        let response = compile(self.response, response_manner, &words.response, findings);
        let signed = changed.and_then(|changed| changed.request.signed);
        let signed = signed.or(words.request.manner.signed);
        let mode: Option<Mode> = changed.and_then(|changed| changed.mode).or(words.mode);
        Some(Route {
            name: name.as_str().into(),
            policy: Arc::clone(&ground.policy),
            mode: mode.unwrap_or_default(),
            matching: self.matching,
            request: request?.into(),
            signed: signed.unwrap_or_default(),
            response: response?.into(),
            request_rules,
            response_rules,
            outside: self.outside,
            tenant: ground.tenant.clone(),
            caller: self.caller,
            span: words.name.span,
        })
    }
}

/// A word that is there for rules of a kind of which there is none, and that kind.
fn idle(rules: &[Rule], said: [MannerWords; 2]) -> Option<(&'static str, &'static str)> {
    let opens = rules.iter().any(|r| matches!(r.action, Action::Open(_)));
    let seals = rules.iter().any(|r| matches!(r.action, Action::Seal(_)));
    let is_said = |is: fn(&MannerWords) -> bool| said.iter().any(is);
    if !opens && is_said(|words| words.plaintext.is_some()) {
        return Some(("plaintext", "opens"));
    }
    if !opens && is_said(|words| words.unopened.is_some()) {
        return Some(("unopened", "opens"));
    }
    if !seals && is_said(|words| words.near_miss.is_some()) {
        return Some(("near_miss", "seals"));
    }
    if !seals && !opens && is_said(|words| words.signed.is_some()) {
        return Some(("signed", "seals or opens"));
    }
    None
}

fn manner(base: MannerWords, changed: Option<MannerWords>, stray: Attitude) -> Manner {
    let changed = changed.unwrap_or_default();
    Manner {
        stray: changed.stray.or(base.stray).unwrap_or(stray),
        unclaimed: changed
            .unclaimed
            .or(base.unclaimed)
            .unwrap_or(Attitude::Allow),
        plaintext: changed.plaintext.or(base.plaintext).unwrap_or_default(),
        near_miss: changed.near_miss.or(base.near_miss).unwrap_or_default(),
        unopened: changed.unopened.or(base.unopened).unwrap_or_default(),
        depth_max: DEPTH_MAX,
    }
}

fn compile(
    rules: Vec<Rule>,
    manner: Manner,
    words: &SideWords,
    findings: &mut Findings<'_>,
) -> Option<Rules> {
    Rules::compile(rules, manner)
        .map_err(|error| {
            let span = words
                .rules
                .get(error.rule)
                .map_or(Span::default(), |rule| rule.at.node.span);
            findings.at("bad-rule", span, error.what);
        })
        .ok()
}

fn json_path(written: &Text, findings: &mut Findings<'_>) -> Option<Path> {
    Path::parse(&written.text)
        .map_err(|PathError { at, what }| findings.at("bad-path", written.node.span_at(at), what))
        .ok()
}

fn unknown_class(name: &Marked<String>, ground: &Ground<'_>, findings: &mut Findings<'_>) {
    let known = ground.classes.iter().map(|class| &*class.name);
    let former = ground
        .classes
        .iter()
        .find(|class| class.formerly.iter().any(|old| **old == *name.value));
    let hint = match former {
        Some(class) => Some(format!("this is a former name of {}", quoted(&class.name))),
        None => did_you_mean(&name.value, known),
    };
    let message = format!("there is no class {}", quoted(&name.value));
    findings.report(
        findings
            .source
            .diagnostic("unknown-class", name.span, message)
            .maybe_hint(hint),
    );
}

fn matching(words: &MatchWords, findings: &mut Findings<'_>) -> Match {
    let mut matching = Match::default();
    if let Some(host) = &words.host {
        match HostPattern::parse(&host.value) {
            Ok(pattern) => matching.host = Some(pattern),
            Err(what) => findings.at(
                "bad-host",
                host.span,
                format!("{} is no host: {what}", quoted(&host.value)),
            ),
        }
    }
    for method in &words.methods {
        let fits = (1..=32).contains(&method.value.len())
            && method
                .value
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b == b'-');
        if !fits {
            let message = format!(
                "{} is no method: upper-case letters and `-`, as in POST",
                quoted(&method.value)
            );
            let upper = method.value.to_ascii_uppercase();
            let hint = (upper != method.value)
                .then(|| format!("methods are upper case: {}", quoted(&upper)));
            findings.report(
                findings
                    .source
                    .diagnostic("bad-method", method.span, message)
                    .maybe_hint(hint),
            );
        } else if matching
            .methods
            .iter()
            .any(|known| **known == *method.value)
        {
            findings.at(
                "duplicate-method",
                method.span,
                format!("{} is listed twice", quoted(&method.value)),
            );
        }
        matching.methods.push(method.value.as_str().into());
    }
    if let Some(path) = &words.path {
        match Template::parse(&path.text) {
            Ok(template) => matching.path = Some(template),
            Err((at, what)) => findings.at(
                "bad-template",
                path.node.span_at(at),
                format!("not a path: {what}"),
            ),
        }
    }
    matching
}
