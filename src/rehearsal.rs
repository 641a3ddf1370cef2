//! A request's way under a policy, without a network: what the upstream would see, what the client would get, and why not.
//!
//! It takes the road's own decisions (`proxy::route`, `proxy::refusal`) and the engine itself, with [keys](Keys) that come from
//! no KMS, and leaves out what needs a connection: the door's checks of the head's bytes, framing, timeouts, streaming. So a
//! test of a policy says what the agent does. It reads no files: texts are handed in.
//!
//! Reading order: this page, `script` (the test file), `verdict` (expected and seen), `keys`.

mod keys;
mod records;
pub mod script;
mod verdict;

use crate::audit::{Entry, Observe, Record, Side};
use crate::body::held::{Declared, boundary, declared};
use crate::error::{Code, Error};
use crate::policy::{Peer, Policies};
use crate::proxy::letter::{self, Front, Letter};
use crate::proxy::refusal::{self, Failure};
use crate::proxy::route::{self, Way};
use crate::proxy::{Limits, headers};
use crate::transform::{Heads, Message, Rules, Shape, Tally, plan_message};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, response};
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
    /// The head of what the upstream saw.
    pub upstream_head: Head,
    /// The headers with which the upstream answered.
    pub answer_headers: HeaderMap,
    /// The head of what the client got.
    pub client_head: Head,
    /// What was done with the request's body.
    pub request: Tally,
    /// The like of the answer's body.
    pub response: Tally,
    /// Why a body passed without being looked at.
    pub unread: Option<&'static str>,
}

/// What rules may have changed of a message, apart from its body.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// All of them.
    pub headers: HeaderMap,
    /// Of a request; without `?`.
    pub query: Option<String>,
}

impl Head {
    /// With a body, for [`crate::transform::values`].
    pub fn message<'m>(&'m self, body: &'m [u8], boundary: Option<&'m str>) -> Message<'m> {
        let lines = self.headers.iter();
        Message {
            body,
            shape: boundary.map_or(Shape::Json, |boundary| Shape::Multipart { boundary }),
            lines: lines
                .map(|(name, value)| (name.as_str(), value.as_bytes()))
                .collect(),
            query: self.query.as_deref(),
        }
    }

    /// What stands between the parts of its body.
    pub fn boundary(&self) -> Option<String> {
        boundary(&self.headers)
    }
}

/// Sends a request through. `host`: that of the upstream, as the agent knows it. `caller`: who asks, wherever the policy takes that
/// from; without it, what the request's headers say.
pub fn pass(
    policies: &Policies,
    keys: &mut Keys,
    head: Parts,
    host: &str,
    body: &[u8],
    answer: &Answer,
    caller: Option<&str>,
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
        caller,
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
    caller: Option<&str>,
    record: &mut Record,
    passage: &mut Passage,
) -> Result<(), Error> {
    headers::arrive(&head.method, &mut head.headers, &headers::Pseudonym::new())?;
    let mut way = route::take(policies, &head, host, Peer::default(), record)?;
    if let (Some(way), Some(caller)) = (&mut way, caller)
        && way.route.caller.is_some()
    {
        way.circumstances.caller = Some(caller.into());
        way.note_caller(record);
    }
    let way = way;
    let sent = match &way {
        Some(way) if !way.rules(Side::Request).is_empty() => {
            outward(way, keys, &mut head, body.to_vec(), record)?
        }
        _ => body.to_vec(),
    };
    passage.upstream = Some(sent.clone());
    passage.upstream_head = Head {
        headers: head.headers.clone(),
        query: head.uri.query().map(str::to_owned),
    };
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
    let mut response = http::Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = answered;
    let (mut response, ()) = response.into_parts();
    passage.answer_headers.clone_from(&response.headers);
    let back = match &way {
        Some(way) if !way.rules(Side::Response).is_empty() => {
            inward(way, keys, &mut response, looked_into, body, record)?
        }
        _ => body,
    };
    passage.client_head.headers = response.headers;
    passage.client = Some(back);
    Ok(())
}

/// A body that is declared so cannot be rewritten while it flows. What can be is all at hand here, and read at once.
fn must_be_held(rules: &Rules, declared: Declared) -> bool {
    match declared {
        Declared::Records(_) => false,
        Declared::Json => rules.in_pieces().is_err(),
        _ => true,
    }
}

/// As `Proxy::outward`.
fn outward(
    way: &Way<'_>,
    keys: &mut Keys,
    head: &mut Parts,
    body: Vec<u8>,
    record: &mut Record,
) -> Result<Vec<u8>, Error> {
    let rules = way.rules(Side::Request);
    let mut passes = body.is_empty() || !rules.reads_bodies();
    let declared = declared(&head.headers);
    if let (false, Some(error)) = (passes, refusal::of_request(declared, rules)) {
        way.unreadable(Side::Request, error, declared.word(), record)?;
        passes = true;
    }
    let held = must_be_held(rules, declared);
    if !passes && held && body.len() > Limits::default().held_body {
        let error = Code::BodyTooLarge.into();
        way.unreadable(Side::Request, error, "too-large", record)?;
        passes = true;
    }
    let mut front = Front::from(head);
    match (passes, declared) {
        (false, Declared::Records(framing)) => {
            records::stream(way, keys, Side::Request, &mut front, framing, body, record)
        }
        (true, _) => head_alone(way, keys, Side::Request, &mut front, record).map(|()| body),
        (false, _) => finish(way, keys, Side::Request, &mut front, body, record),
    }
}

/// As `Proxy::inward`. `looked_into`: the answer has a body, if it is not empty.
fn inward(
    way: &Way<'_>,
    keys: &mut Keys,
    head: &mut response::Parts,
    looked_into: bool,
    body: Vec<u8>,
    record: &mut Record,
) -> Result<Vec<u8>, Error> {
    let rules = way.rules(Side::Response);
    let mut passes = !looked_into || body.is_empty() || !rules.reads_bodies();
    let declared = declared(&head.headers);
    let held = must_be_held(rules, declared);
    let why = match (head.status, declared) {
        (StatusCode::PARTIAL_CONTENT, _) => Some("partial"),
        (_, declared) if !refusal::reads(rules, declared) => Some(declared.word()),
        _ if held && body.len() > Limits::default().held_body => Some("too-large"),
        _ => None,
    };
    if let (false, Some(why)) = (passes, why) {
        let error = Code::UpstreamUnreadable.because(why);
        way.unreadable(Side::Response, error, why, record)?;
        passes = true;
    }
    let mut front = Front::from(head);
    match (passes, declared) {
        (false, Declared::Records(framing)) => {
            records::stream(way, keys, Side::Response, &mut front, framing, body, record)
        }
        (true, _) => head_alone(way, keys, Side::Response, &mut front, record).map(|()| body),
        (false, _) => finish(way, keys, Side::Response, &mut front, body, record),
    }
}

/// As `Proxy::finish`: rewrites a message; an observing route only notes what came of it.
fn finish(
    way: &Way<'_>,
    keys: &mut Keys,
    side: Side,
    front: &mut Front<'_>,
    body: Vec<u8>,
    record: &mut Record,
) -> Result<Vec<u8>, Error> {
    let rules = way.rules(side);
    let letter = Letter::of(rules, front);
    let boundary = boundary(front.headers);
    let shape = letter::shape(rules, declared(front.headers), boundary.as_deref());
    match rewrite(way, side, &letter.message(&body, shape), keys) {
        Ok((out, heads, tally)) => {
            record.tally(side, tally);
            if way.observing {
                return Ok(body);
            }
            put_back(way, side, &letter, heads, front, record)?;
            Ok(out)
        }
        Err(refusal) => {
            let (error, why) = Failure::from(refusal).on(side);
            match why {
                Some(why) => way.unreadable(side, error, why, record)?,
                None => way.refuse(error, record)?,
            }
            head_alone(way, keys, side, front, record)?;
            Ok(body)
        }
    }
}

/// As `Proxy::head_alone`.
fn head_alone(
    way: &Way<'_>,
    keys: &mut Keys,
    side: Side,
    front: &mut Front<'_>,
    record: &mut Record,
) -> Result<(), Error> {
    let rules = way.rules(side);
    if !rules.reads_heads() {
        return Ok(());
    }
    let letter = Letter::of(rules, front);
    match rewrite(way, side, &letter.message(&[], Shape::Unread), keys) {
        Ok((_, heads, tally)) => {
            record.tally(side, tally);
            if way.observing {
                return Ok(());
            }
            put_back(way, side, &letter, heads, front, record)
        }
        Err(refusal) => {
            let (error, why) = Failure::from(refusal).on(side);
            match why {
                Some(why) if !rules.seals_heads() => {
                    record.unread(why);
                    Ok(())
                }
                _ => way.refuse(error, record),
            }
        }
    }
}

fn put_back(
    way: &Way<'_>,
    side: Side,
    letter: &Letter,
    heads: Heads,
    front: &mut Front<'_>,
    record: &mut Record,
) -> Result<(), Error> {
    letter.put_back(heads, front).or_else(|error| {
        let error = match side {
            Side::Request => error,
            Side::Response => Code::UpstreamRefused.because("its head would be too long"),
        };
        way.refuse(error, record)
    })
}

/// Plan, fetch, apply.
fn rewrite(
    way: &Way<'_>,
    side: Side,
    message: &Message<'_>,
    keys: &mut Keys,
) -> Result<(Vec<u8>, Heads, Tally), crate::transform::Refusal> {
    let plan = plan_message(way.rules(side), message, &way.circumstances)?;
    let ring = keys.ring(plan.needs());
    let mut out = Vec::new();
    let (tally, heads) =
        plan.apply_message(message, &ring, &mut |buffer| keys.random(buffer), &mut out)?;
    Ok((out, heads, tally))
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
