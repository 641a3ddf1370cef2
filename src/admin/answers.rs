//! What operators and probes are told, as text, JSON or a problem document (RFC 9457).

use super::Checks;
use super::reloading::{Outcome, Reloaded};
use crate::keys::KeyState;
use crate::metrics;
use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::json;
use std::fmt::Write as _;

type Answer = Response<Full<Bytes>>;

/// Why something is not answered. The words are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// More than one Host, or one that is no text.
    Host,
    /// A Host that might be another site's name for this address.
    Misdirected,
    /// No token, or not this one.
    Unauthorized,
    /// Nothing is here.
    NotFound,
    /// Not with this method, but with these.
    Method(&'static str),
    /// No key of this name.
    UnknownKey,
    /// The agent is about to end.
    Ending,
}

impl Problem {
    /// Word, status, title, and what to do.
    fn row(self) -> (&'static str, StatusCode, &'static str, &'static str) {
        match self {
            Problem::Host => (
                "admin-host",
                StatusCode::BAD_REQUEST,
                "There is not exactly one Host header",
                "Send one Host header.",
            ),
            Problem::Misdirected => (
                "admin-misdirected",
                StatusCode::MISDIRECTED_REQUEST,
                "The Host is a name that others could have made",
                "Ask by an IP address or by localhost: names are refused against DNS rebinding.",
            ),
            Problem::Unauthorized => (
                "admin-unauthorized",
                StatusCode::UNAUTHORIZED,
                "The admin API wants its token, also on a loopback address",
                "Send Authorization: Bearer with the text of the token's file.",
            ),
            Problem::NotFound => (
                "admin-not-found",
                StatusCode::NOT_FOUND,
                "There is nothing here",
                "See docs/running.md for what there is.",
            ),
            Problem::Method(_) => (
                "admin-method",
                StatusCode::METHOD_NOT_ALLOWED,
                "Not with this method",
                "See the Allow header.",
            ),
            Problem::Ending => (
                "admin-ending",
                StatusCode::SERVICE_UNAVAILABLE,
                "The agent is about to end",
                "Ask the one that takes its place.",
            ),
            Problem::UnknownKey => (
                "admin-unknown-key",
                StatusCode::NOT_FOUND,
                "There is no key of this name",
                "GET /api/v1/keys lists the names.",
            ),
        }
    }
}

fn answer(status: StatusCode, content_type: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    answer
}

fn text(status: StatusCode, text: String) -> Answer {
    answer(status, "text/plain; charset=utf-8", text)
}

fn json(status: StatusCode, document: &serde_json::Value) -> Answer {
    answer(status, "application/json", format!("{document}\n"))
}

/// The problem as a document.
pub fn problem(problem: Problem) -> Answer {
    let (word, status, title, detail) = problem.row();
    let document = json!({
        "type": format!("urn:fieldveil:error:{word}"),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
        "code": word,
    });
    let mut answer = answer(status, "application/problem+json", format!("{document}\n"));
    match problem {
        Problem::Unauthorized => {
            let challenge = HeaderValue::from_static("Bearer realm=\"fieldveil\"");
            answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        Problem::Method(methods) => {
            answer
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static(methods));
        }
        _ => {}
    }
    answer
}

/// That somebody answers is all there is to say.
pub fn live() -> Answer {
    text(StatusCode::OK, "live\n".to_owned())
}

/// 200 or 503 with what stands in the way; with `?verbose` also what does not.
pub fn ready(checks: &Checks, head: &Parts) -> Answer {
    let ready = checks.blockers.is_empty();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut asked = head.uri.query().unwrap_or_default().split('&');
    let verbose = asked.any(|word| word == "verbose" || word.starts_with("verbose="));
    let passed = if verbose { &checks.passed[..] } else { &[] };
    if wants_json(head) {
        let blockers: Vec<_> = checks
            .blockers
            .iter()
            .map(|(name, why)| json!({"name": **name, "why": why}))
            .collect();
        let mut document = json!({"ready": ready, "blockers": blockers});
        if verbose {
            document["passed"] = passed.iter().map(|name| json!(**name)).collect();
            let notes = checks.notes.iter();
            document["notes"] = notes
                .map(|(name, what)| (name.to_string(), json!(what)))
                .collect::<serde_json::Map<_, _>>()
                .into();
        }
        return json(status, &document);
    }
    let mut lines = String::from(if ready { "ready\n" } else { "not ready\n" });
    for (name, why) in &checks.blockers {
        let _ = writeln!(lines, "[-] {name}: {why}");
    }
    for name in passed {
        let _ = match checks.notes.get(name) {
            Some(what) => writeln!(lines, "[+] {name}: {what}"),
            None => writeln!(lines, "[+] {name}"),
        };
    }
    text(status, lines)
}

/// JSON is asked for by name; whoever takes anything gets text.
fn wants_json(head: &Parts) -> bool {
    let accepted = head
        .headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut ranges = accepted
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next());
    ranges.any(|range| range.trim().eq_ignore_ascii_case("application/json"))
}

/// The metrics as they were encoded.
pub fn metrics(encoded: String) -> Answer {
    answer(StatusCode::OK, metrics::CONTENT_TYPE, encoded)
}

/// Names, counts and times.
pub fn keys(states: &[KeyState]) -> Answer {
    let millis = |left: Option<std::time::Duration>| {
        left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
    };
    let keys: Vec<_> = states
        .iter()
        .map(|state| {
            json!({
                "name": &*state.name,
                "seal": {"data_keys": state.sealing_deks, "incomplete": state.incomplete_deks, "survives_ms": millis(state.sealing_survives)},
                "open": {"data_keys": state.opening_deks, "survives_ms": millis(state.opening_survives)},
            })
        })
        .collect();
    json(StatusCode::OK, &json!({"keys": keys}))
}

/// How a reload went: 200 where the policies that were found are in force, 409 where allowing it is all that is
/// missing, 503 where it may go well later, 422 where the policies have to be mended.
pub fn reloaded(reloaded: &Reloaded) -> Answer {
    let status = match reloaded.outcome {
        Outcome::Loaded | Outcome::Unchanged => StatusCode::OK,
        Outcome::Bad => StatusCode::UNPROCESSABLE_ENTITY,
        Outcome::Weaker => StatusCode::CONFLICT,
        Outcome::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    let findings = reloaded.findings.iter();
    let findings: Vec<_> = findings
        .map(|finding| {
            json!({
                "code": finding.code,
                "at": finding.at,
                "message": finding.message,
                "hint": finding.hint,
            })
        })
        .collect();
    let document = json!({
        "outcome": reloaded.outcome.word(),
        "version": &*reloaded.version,
        "candidate": reloaded.candidate.as_deref(),
        "findings": findings,
    });
    json(status, &document)
}

/// How many data keys were let go of.
pub fn purged(key: &str, count: usize) -> Answer {
    json(StatusCode::OK, &json!({"key": key, "purged": count}))
}
