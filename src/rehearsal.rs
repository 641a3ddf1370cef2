//! A request's way under a policy, without a network: what the upstream would see, what the client would get, and why not.
//!
//! Bodies at hand go through the road's own `proxy::route` and `proxy::directions`, with [keys](Keys) that come from no KMS: nothing
//! that the road decides is decided here again, so a test of a policy says what the agent does. Left out is what needs a
//! connection: the door's checks of the head's bytes, framing, switches to other protocols, timeouts. It reads no files: texts are handed in.
//!
//! Reading order: this page, `script` (the test file), `verdict` (expected and seen), `documents`, `keys`.

mod documents;
mod keys;
pub mod script;
mod verdict;

use crate::audit::{Entry, Observe, Record, Side};
use crate::body::held::boundary;
use crate::body::{Arriving, Body};
use crate::error::{Code, Error};
use crate::policy::{Peer, Policies};
use crate::proxy::directions::{Directions, Expected};
use crate::proxy::flow::Verdict;
use crate::proxy::redirection::{self, Reach};
use crate::proxy::upgrade;
use crate::proxy::{Limits, headers, route};
use crate::transform::{Message, Shape, Tally};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

pub use documents::Documents;
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
    /// Why the answer's body was ended before its end, while it flowed.
    pub cut: Option<Error>,
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

/// A request, and what is answered to it.
pub struct Asked<'a> {
    /// In force.
    pub policies: &'a Policies,
    /// The request's.
    pub head: Parts,
    /// That of the upstream, as the agent knows it.
    pub host: &'a str,
    /// The request's.
    pub body: &'a [u8],
    /// By the upstream.
    pub answer: &'a Answer,
    /// Who asks, wherever the policy takes that from; without it, what the request's headers say.
    pub caller: Option<&'a str>,
    /// A listener's; those of bodies hold.
    pub limits: Limits,
}

/// Sends a request through.
pub fn pass(asked: Asked<'_>, keys: &Keys) -> Passage {
    let notes = Arc::new(Notes::default());
    let method = asked.head.method.clone();
    let mut record = Record::open("rehearsal".into(), Some(method), notes.clone());
    let mut passage = Passage::default();
    match carry(asked, keys, &mut record, &mut passage) {
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

/// As `Proxy::carry`, with bodies at hand: the two directions are the road's own.
fn carry(
    asked: Asked<'_>,
    keys: &Keys,
    record: &mut Record,
    passage: &mut Passage,
) -> Result<(), Error> {
    let Asked {
        policies,
        mut head,
        host,
        body,
        answer,
        caller,
        limits,
    } = asked;
    let directions = Directions::new(Arc::new(keys.clone()), limits);
    let upgrade = upgrade::Asked::of(&head, body.is_empty());
    headers::arrive(&head.method, &mut head.headers, &headers::Pseudonym::new())?;
    let mut way = route::take(policies, &head, host, Peer::default(), record)?;
    if let (Some(way), Some(caller)) = (&mut way, caller)
        && way.route.caller.is_some()
    {
        way.circumstances.caller = Some(caller.into());
        way.note_caller(record);
    }
    let way = way;
    if let (Some(upgrade), Some(way)) = (&upgrade, &way) {
        upgrade.may_pass(way, record)?;
    }
    let mut sent = Came::from(body.to_vec());
    if let Some(way) = &way
        && !way.rules(Side::Request).is_empty()
    {
        let body = Arriving::at_hand(sent.bytes.into());
        let outward = directions.outward(way, &mut head, body, |error| error, record);
        let (body, verdict) = at_once(outward)??;
        sent = at_once(came(body, verdict))?;
    }
    passage.upstream = Some(sent.bytes.clone());
    passage.upstream_head = Head {
        headers: head.headers.clone(),
        query: head.uri.query().map(str::to_owned),
    };
    let sent_some = !sent.bytes.is_empty();
    sent.cut.map_or(Ok(()), Err)?;
    let (status, answered, body) = match answer {
        Answer::Echo => {
            let mut headers = HeaderMap::new();
            let json = HeaderValue::from_static("application/json");
            headers.insert(CONTENT_TYPE, json);
            for name in [CONTENT_TYPE, CONTENT_ENCODING] {
                if let Some(value) = head.headers.get(&name) {
                    headers.insert(name, value.clone());
                }
            }
            (StatusCode::OK, headers, sent.bytes)
        }
        Answer::Given {
            status,
            headers,
            body,
        } => (*status, headers.clone(), body.clone()),
    };
    passage.answer = Some(body.clone());
    let mut response = http::Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = answered;
    let (mut response, ()) = response.into_parts();
    passage.answer_headers.clone_from(&response.headers);
    // As a listener with one upstream has it.
    let reach = Reach::One(host);
    redirection::keep(
        &mut response,
        &head.method,
        &reach,
        way.as_ref(),
        sent_some,
        record,
    )?;
    let mut back = Came::from(body);
    if let Some(way) = &way
        && !way.rules(Side::Response).is_empty()
    {
        let expected = Expected {
            method: &head.method,
            patience: limits.held_for,
        };
        let body = Arriving::at_hand(back.bytes.into());
        let inward = directions.inward(way, expected, &mut response, body, record);
        let (body, verdict) = at_once(inward)??;
        back = at_once(came(body, verdict))?;
    }
    passage.client_head.headers = response.headers;
    passage.client = Some(back.bytes);
    passage.cut = back.cut;
    Ok(())
}

/// What came of a body.
struct Came {
    bytes: Vec<u8>,
    /// Why it was ended before its end.
    cut: Option<Error>,
}

impl From<Vec<u8>> for Came {
    fn from(bytes: Vec<u8>) -> Came {
        Came { bytes, cut: None }
    }
}

/// A body to its end. `verdict`: of one that is rewritten while it flows.
async fn came(mut body: Body, verdict: Option<Verdict>) -> Came {
    let mut came = Came::from(Vec::new());
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => came.bytes.extend(frame.into_data().unwrap_or_default()),
            Err(broken) => {
                let why = verdict.as_ref().and_then(Verdict::refused);
                came.cut = Some(why.unwrap_or_else(|| broken.of_answer().into()));
                break;
            }
        }
    }
    came
}

/// Steps of one body, at most; one of 16 MiB takes some thousands.
const STEPS_MAX: usize = 1 << 20;

/// Brings to its end what waits for nothing: all bodies are at hand, and so are the keys.
///
/// # Errors
/// It does wait.
fn at_once<F: Future>(what: F) -> Result<F::Output, Error> {
    let mut what = pin!(what);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..STEPS_MAX {
        if let Poll::Ready(output) = what.as_mut().poll(&mut context) {
            return Ok(output);
        }
    }
    Err(Code::Internal.because("a rehearsal that waits"))
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
