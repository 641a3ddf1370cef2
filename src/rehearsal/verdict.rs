//! A test file's cases sent through, and what differs from what was expected: each difference a finding at the place of the
//! expectation, with what was seen instead.

mod made;
mod seen;

use super::script::{Body, Case, Expected, Script};
use super::{Answer, Asked, Keys, Passage, pass};
use crate::audit::Side;
use crate::diagnostic::{Diagnostic, Severity, Source, Span, did_you_mean, quoted};
use crate::error::{Code, Error};
use crate::marked::{Findings, Marked};
use crate::policy::{Miss, Policies, Route};
use http::HeaderMap;
use made::Maker;
use seen::Judge;

/// Findings of one case; there is no use in more.
const FAILURES_MAX: usize = 10;

/// What came of one case.
#[derive(Debug)]
pub struct CaseResult {
    /// The case's name.
    pub name: String,
    /// Where its name stands, from 1.
    pub line: usize,
    /// None: it passed.
    pub failures: Vec<Diagnostic>,
}

/// Runs all cases. `read` gives the bytes of a file by the name that a case knows it by.
///
/// # Errors
/// What makes the file one that cannot be run under these policies: names that they do not have, files that cannot be read.
pub fn run(
    script: &Script,
    policies: &Policies,
    read: &dyn Fn(&str) -> Result<Vec<u8>, String>,
) -> Result<Vec<CaseResult>, Vec<Diagnostic>> {
    let mut findings = Findings::new(&script.source);
    let mut results = Vec::new();
    for case in &script.cases {
        names(case, policies, &mut findings);
        // Each case has keys of its own, so that adding one does not change the tokens of the others.
        let keys = Keys::default();
        let maker = Maker {
            policies,
            keys: &keys,
            read,
        };
        let mut bytes = |body: &Option<Body>, headers: &HeaderMap| match body {
            None => Some(Vec::new()),
            Some(body) => maker.bytes(body, headers, &mut findings),
        };
        let sent = bytes(&case.request.body, &case.request.headers);
        let answer = match &case.response {
            None => Some(Answer::Echo),
            Some(response) => {
                let body = bytes(&response.body, &response.headers);
                body.map(|body| Answer::Given {
                    status: response.status,
                    headers: response.headers.clone(),
                    body,
                })
            }
        };
        let (Some(sent), Some(answer)) = (sent, answer) else {
            continue;
        };
        let failures = judge(case, &sent, &answer, &keys, policies, script);
        results.push(CaseResult {
            name: case.name.value.clone(),
            line: script.source.diagnostic("", case.name.span, "").line,
            failures,
        });
    }
    findings.finish().map(|()| results)
}

/// Names that no policy has.
fn names(case: &Case, policies: &Policies, findings: &mut Findings<'_>) {
    if let Some(caller) = &case.request.caller
        && !policies.routes().any(|route| route.caller.is_some())
    {
        let message =
            "the policy does not say how a caller is known, so it does not matter who asks";
        findings.at("unknown-caller", caller.span, message);
    }
    let mut unknown = |name: &Marked<String>, code, what: &str, known: Vec<&str>| {
        if !known.contains(&name.value.as_str()) {
            let hint = did_you_mean(&name.value, known.iter().copied());
            let message = format!("the policy has no {what} {}", quoted(&name.value));
            let found = findings.source.diagnostic(code, name.span, message);
            findings.report(found.maybe_hint(hint));
        }
    };
    if let Some(route) = &case.expect.route {
        let known = policies.routes().map(|route| &*route.name).collect();
        unknown(route, "unknown-route", "route", known);
    }
    let classes = policies.iter().flat_map(|policy| &policy.classes);
    let known: Vec<&str> = classes.flat_map(|c| c.names()).map(|n| &**n).collect();
    let seen = [&case.expect.upstream, &case.expect.client];
    for sealed in seen.into_iter().flatten().flat_map(|seen| &seen.sealed) {
        if let Some(class) = &sealed.class {
            unknown(class, "unknown-class", "class", known.clone());
        }
    }
    let bodies = [
        case.request.body.as_ref(),
        case.response.as_ref().and_then(|r| r.body.as_ref()),
    ];
    for token in bodies.into_iter().flatten().flat_map(Body::tokens) {
        unknown(&token.class, "unknown-class", "class", known.clone());
    }
}

/// The differences of one case.
fn judge(
    case: &Case,
    sent: &[u8],
    answer: &Answer,
    keys: &Keys,
    policies: &Policies,
    script: &Script,
) -> Vec<Diagnostic> {
    let mut failures = Failures {
        source: &script.source,
        found: Vec::new(),
    };
    let request = &case.request;
    let mut head = http::Request::new(());
    *head.method_mut() = request.method.clone();
    *head.uri_mut() = request.target.clone();
    *head.headers_mut() = request.headers.clone();
    let (head, ()) = head.into_parts();
    let caller = request.caller.as_ref().map(|caller| caller.value.as_str());
    let asked = Asked {
        policies,
        head,
        host: &request.host,
        body: sent,
        answer,
        caller,
        limits: script.limits,
    };
    let passage = pass(asked, keys);
    let expect = &case.expect;
    if !refusal(case, expect, &passage, &mut failures) {
        return failures.found;
    }
    route(case, expect, &passage, policies, &mut failures);
    let taken = passage.route.as_ref();
    let taken = taken.and_then(|name| policies.routes().find(|route| route.name == *name));
    if let Some(expected) = &expect.upstream {
        match &passage.upstream {
            Some(body) => Judge {
                who: "upstream",
                body,
                head: &passage.upstream_head,
                before: sent,
                sent,
                answer: passage.answer.as_deref().unwrap_or_default(),
                tally: &passage.request,
                unread: passage.unread,
                side: Side::Request,
                route: taken,
                policies,
            }
            .check(expected, &mut failures),
            None => failures.at(
                "refused",
                case.name.span,
                "the upstream saw nothing: the request was refused",
                None,
            ),
        }
    }
    if let (Some(expected), Some(body)) = (&expect.client, &passage.client) {
        let answer = passage.answer.as_deref().unwrap_or_default();
        Judge {
            who: "client",
            body,
            head: &passage.client_head,
            before: answer,
            sent,
            answer,
            tally: &passage.response,
            unread: passage.unread,
            side: Side::Response,
            route: taken,
            policies,
        }
        .check(expected, &mut failures);
    }
    failures
        .found
        .sort_by_key(|found| (found.line, found.column));
    failures.found.truncate(FAILURES_MAX);
    failures.found
}

/// What differs, so far.
struct Failures<'s> {
    source: &'s Source,
    found: Vec<Diagnostic>,
}

impl Failures<'_> {
    fn at(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        let found = self.source.diagnostic(code, span, message);
        self.found
            .push(found.severity(Severity::Error).maybe_hint(hint));
    }
}

/// False where the request was refused against all expectation: nothing else is worth saying then.
fn refusal(case: &Case, expect: &Expected, passage: &Passage, failures: &mut Failures<'_>) -> bool {
    let because = |error: &Error| match error.note() {
        "" => error.code().row().title.to_owned(),
        note => format!("{}: {note}", error.code().row().title),
    };
    let ends = [
        (
            &expect.refused,
            &passage.refused,
            "the request is",
            "refused",
        ),
        (&expect.cut, &passage.cut, "the answer is", "cut off"),
    ];
    for (expected, came, what, ended) in ends {
        match (expected, came) {
            (None, Some(error)) => {
                let span = expect.route.as_ref().map_or(case.name.span, |r| r.span);
                let message = format!("{what} {ended}: {}", quoted(error.code().word()));
                failures.at("refused", span, message, Some(because(error)));
                return false;
            }
            (Some(expected), None) => {
                let seen = match &passage.route {
                    Some(route) => format!("route {} lets it pass", quoted(route)),
                    None => "no route takes it, and it passes".to_owned(),
                };
                let message = format!("it is not {ended} as {}", quoted(expected.value.word()));
                failures.at("not-refused", expected.span, message, Some(seen));
            }
            (Some(expected), Some(error)) if expected.value != error.code() => {
                let message = format!(
                    "it is {ended} as {}, not as {}",
                    quoted(error.code().word()),
                    quoted(expected.value.word())
                );
                let hint = Some(because(error));
                failures.at("wrong-refusal", expected.span, message, hint);
            }
            _ => {}
        }
    }
    if let Some(expected) = &expect.would_refuse {
        let wanted = expected.value.word();
        match passage.would_refuse {
            Some(code) if code == wanted => {}
            Some(code) => {
                let message = format!("it would be refused as {}", quoted(code));
                failures.at("wrong-refusal", expected.span, message, None);
            }
            None => {
                let message = format!("nothing would be refused as {}", quoted(wanted));
                let hint = "`would_refuse` is for routes in the mode `observe`".to_owned();
                failures.at("not-refused", expected.span, message, Some(hint));
            }
        }
    }
    true
}

fn route(
    case: &Case,
    expect: &Expected,
    passage: &Passage,
    policies: &Policies,
    failures: &mut Failures<'_>,
) {
    // A request that is refused for its path or for having no route has none.
    let nowhere = [Code::Unmatched, Code::PathAmbiguous, Code::MethodOverride];
    let refused = passage.refused.as_ref().map(Error::code);
    if refused.is_some_and(|code| nowhere.contains(&code)) && expect.route.is_none() {
        return;
    }
    if let (Some(span), Some(taken)) = (expect.unmatched, &passage.route) {
        let message = format!("route {} takes it", quoted(taken));
        failures.at("wrong-route", span, message, None);
    }
    let Some(expected) = &expect.route else {
        return;
    };
    let taken = passage.route.as_deref();
    if taken == Some(expected.value.as_str()) {
        return;
    }
    let message = match taken {
        Some(taken) => format!("route {} takes it", quoted(taken)),
        None => "no route takes it".to_owned(),
    };
    let request = &case.request;
    let answers = policies.answers(
        request.method.as_str(),
        &request.host,
        request.target.path(),
    );
    let own = answers
        .iter()
        .find(|(route, _)| *route.name == *expected.value);
    let why = own.map(|(_, miss)| match miss {
        Some(Miss::Host) => "the request's host is not the one of its `match`",
        Some(Miss::Method) => "the request's method is not among those of its `match`",
        Some(Miss::Path) => "the request's path is not like the one of its `match`",
        None => "a route before it takes the request: the first that matches wins",
    });
    let hint = why.map(|why| format!("route {}: {why}", quoted(&expected.value)));
    failures.at("wrong-route", expected.span, message, hint);
}

/// The rules of one side of a route.
fn rules_of(route: &Route, side: Side) -> &[crate::transform::Rule] {
    match side {
        Side::Request => &route.request_rules,
        Side::Response => &route.response_rules,
    }
}
