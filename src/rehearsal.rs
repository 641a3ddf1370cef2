//! A request's way under a policy, without a network: what the upstream would see, what the client would get, and why not.
//!
//! It takes the road's own decisions (`proxy::route`, `proxy::refusal`) and the engine itself, with [keys](Keys) that come from
//! no KMS, and leaves out what needs a connection: the door's checks of the head's bytes, framing, timeouts, streaming. So a
//! test of a policy says what the agent does. It reads no files: texts are handed in.
//!
//! Reading order: this page, `script` (the test file), `verdict` (expected and seen), `keys`.

mod keys;
pub mod script;
mod verdict;

use crate::audit::{Entry, Observe, Record, Side};
use crate::body::held::{Declared, declared};
use crate::context::Circumstances;
use crate::error::{Code, Error};
use crate::policy::Policies;
use crate::proxy::refusal::{self, Failure};
use crate::proxy::route::{self, Way};
use crate::proxy::{Limits, headers};
use crate::transform::{Rules, Tally, plan};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use std::sync::{Arc, Mutex, PoisonError};

pub use keys::{Kept, Keys};
pub use verdict::{CaseResult, run};

/// What the upstream answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// 200, with the body and the content type that it got.
    Echo,
    /// This.
    Given {
        /// Its status.
        status: StatusCode,
        /// Its headers.
        headers: HeaderMap,
        /// Its body.
        body: Vec<u8>,
    },
}

/// What came of a request.
#[derive(Debug, Default)]
pub struct Passage {
    /// The route that took it.
    pub route: Option<Arc<str>>,
    /// The agent's own answer; the request went nowhere unless `upstream` is there.
    pub refused: Option<Error>,
    /// What an observing route would have refused, by code.
    pub would_refuse: Option<&'static str>,
    /// The body that the upstream saw.
    pub upstream: Option<Vec<u8>>,
    /// The body with which the upstream answered.
    pub answer: Option<Vec<u8>>,
    /// The body that the client got, unless it was refused.
    pub client: Option<Vec<u8>>,
    /// What was done with the request's body.
    pub request: Tally,
    /// The like of the answer's body.
    pub response: Tally,
    /// Why a body passed without being looked at.
    pub unread: Option<&'static str>,
}

/// Sends a request through. `host`: that of the upstream, as the agent knows it.
pub fn pass(
    policies: &Policies,
    keys: &mut Keys,
    head: Parts,
    host: &str,
    body: &[u8],
    answer: &Answer,
) -> Passage {
    let notes = Arc::new(Notes::default());
    let mut record = Record::open("rehearsal".into(), head.method.clone(), notes.clone());
    let mut passage = Passage::default();
    let carried = carry(
        policies,
        keys,
        head,
        host,
        body,
        answer,
        &mut record,
        &mut passage,
    );
    match carried {
        Ok(()) => record.answered(200, None),
        Err(error) => {
            record.refused(error.reason(), error.code().row().status, None);
            passage.refused = Some(error);
        }
    }
    let noted = notes.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(noted) = &*noted {
        passage.route.clone_from(&noted.route);
        passage.would_refuse = noted.observed;
        passage.unread = noted.unread;
        passage.request.clone_from(&noted.request);
        passage.response.clone_from(&noted.response);
    }
    passage
}

/// As `Proxy::carry`, with bodies at hand.
#[expect(clippy::too_many_arguments, reason = "one call, from `pass` alone")]
fn carry(
    policies: &Policies,
    keys: &mut Keys,
    mut head: Parts,
    host: &str,
    body: &[u8],
    answer: &Answer,
    record: &mut Record,
    passage: &mut Passage,
) -> Result<(), Error> {
    headers::arrive(&head.method, &mut head.headers, &headers::Pseudonym::new())?;
    let way = route::take(policies, &head, host, record)?;
    let sent = match &way {
        Some(way) if !body.is_empty() && !way.rules(Side::Request).is_empty() => {
            outward(way, keys, &head.headers, body, record)?
        }
        _ => body.to_vec(),
    };
    passage.upstream = Some(sent.clone());
    let (status, answered, body) = match answer {
        Answer::Echo => {
            let mut headers = HeaderMap::new();
            let kind = head.headers.get(CONTENT_TYPE);
            let json = HeaderValue::from_static("application/json");
            headers.insert(CONTENT_TYPE, kind.cloned().unwrap_or(json));
            (StatusCode::OK, headers, sent)
        }
        Answer::Given {
            status,
            headers,
            body,
        } => (*status, headers.clone(), body.clone()),
    };
    passage.answer = Some(body.clone());
    let looked_into = head.method != Method::HEAD && status != StatusCode::NOT_MODIFIED;
    let back = match &way {
        Some(way) if looked_into && !body.is_empty() && !way.rules(Side::Response).is_empty() => {
            inward(way, keys, status, &answered, body, record)?
        }
        _ => body,
    };
    passage.client = Some(back);
    Ok(())
}

/// As `Proxy::outward`.
fn outward(
    way: &Way<'_>,
    keys: &mut Keys,
    headers: &HeaderMap,
    body: &[u8],
    record: &mut Record,
) -> Result<Vec<u8>, Error> {
    let declared = declared(headers);
    if let Some(error) = refusal::of_request(declared) {
        way.unreadable(Side::Request, error, declared.word(), record)?;
        return Ok(body.to_vec());
    }
    if body.len() > Limits::default().held_body {
        way.unreadable(
            Side::Request,
            Code::BodyTooLarge.into(),
            "too-large",
            record,
        )?;
        return Ok(body.to_vec());
    }
    finish(way, keys, Side::Request, body.to_vec(), record)
}

/// As `Proxy::inward`.
fn inward(
    way: &Way<'_>,
    keys: &mut Keys,
    status: StatusCode,
    headers: &HeaderMap,
    body: Vec<u8>,
    record: &mut Record,
) -> Result<Vec<u8>, Error> {
    let why = match (status, declared(headers)) {
        (StatusCode::PARTIAL_CONTENT, _) => Some("partial"),
        (_, Declared::Json) if body.len() > Limits::default().held_body => Some("too-large"),
        (_, Declared::Json) => None,
        (_, declared) => Some(declared.word()),
    };
    if let Some(why) = why {
        let error = Code::UpstreamUnreadable.because(why);
        way.unreadable(Side::Response, error, why, record)?;
        return Ok(body);
    }
    finish(way, keys, Side::Response, body, record)
}

/// As `Proxy::finish`: rewrites a body; an observing route only notes what came of it.
fn finish(
    way: &Way<'_>,
    keys: &mut Keys,
    side: Side,
    body: Vec<u8>,
    record: &mut Record,
) -> Result<Vec<u8>, Error> {
    match rewrite(way.rules(side), &body, &way.circumstances, keys) {
        Ok((out, tally)) => {
            record.tally(side, tally);
            Ok(if way.observing { body } else { out })
        }
        Err(refusal) => {
            let (error, why) = Failure::from(refusal).on(side);
            match why {
                Some(why) => way.unreadable(side, error, why, record)?,
                None => way.refuse(error, record)?,
            }
            Ok(body)
        }
    }
}

/// Plan, fetch, apply.
fn rewrite(
    rules: &Rules,
    body: &[u8],
    circumstances: &Circumstances,
    keys: &mut Keys,
) -> Result<(Vec<u8>, Tally), crate::transform::Refusal> {
    let plan = plan(rules, body, circumstances)?;
    let ring = keys.ring(plan.needs());
    let mut out = Vec::new();
    let tally = plan.apply(body, &ring, &mut |buffer| keys.random(buffer), &mut out)?;
    Ok((out, tally))
}

/// What the record said when it was committed.
#[derive(Default)]
struct Notes(Mutex<Option<Noted>>);

struct Noted {
    route: Option<Arc<str>>,
    observed: Option<&'static str>,
    unread: Option<&'static str>,
    request: Tally,
    response: Tally,
}

impl Observe for Notes {
    fn observe(&self, entry: &Entry) {
        let noted = Noted {
            route: entry.route.clone(),
            observed: entry.observed,
            unread: entry.unread,
            request: entry.request.clone(),
            response: entry.response.clone(),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(noted);
    }
}
