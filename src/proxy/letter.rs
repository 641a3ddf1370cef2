//! A message's head as the engine takes it, and what becomes of it: the lines of the fields that rules name, and the query.

use super::refusal;
use crate::body::alike;
use crate::body::held::Declared;
use crate::error::{Code, Error};
use crate::transform::{Heads, Message, Rules, Shape, Spot};
use http::header::Entry;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, request, response};

/// Bytes of a head with its values sealed; the listeners take no longer ones.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a target, likewise.
const TARGET_BYTES_MAX: usize = 16 * 1024;

/// The head of a request or of an answer.
pub struct Front<'h> {
    pub headers: &'h mut HeaderMap,
    /// Of a request.
    pub uri: Option<&'h mut Uri>,
}

impl<'h> From<&'h mut request::Parts> for Front<'h> {
    fn from(parts: &'h mut request::Parts) -> Front<'h> {
        Front {
            headers: &mut parts.headers,
            uri: Some(&mut parts.uri),
        }
    }
}

impl<'h> From<&'h mut response::Parts> for Front<'h> {
    fn from(parts: &'h mut response::Parts) -> Front<'h> {
        Front {
            headers: &mut parts.headers,
            uri: None,
        }
    }
}

/// What rules select of a head.
#[derive(Default)]
pub struct Letter {
    lines: Vec<Line>,
    query: Option<String>,
}

struct Line {
    /// As a rule has it, or nearly.
    named: String,
    name: HeaderName,
    /// Which of the field's lines.
    nth: usize,
    value: Vec<u8>,
}

impl Letter {
    /// Of a side that has no rule for heads, nothing.
    pub fn of(rules: &Rules, front: &Front<'_>) -> Letter {
        let mut letter = Letter::default();
        if !rules.reads_heads() {
            return letter;
        }
        let uri = front.uri.as_ref().filter(|_| rules.reads(Spot::Query));
        letter.query = uri.and_then(|uri| uri.query()).map(str::to_owned);
        for name in front.headers.keys() {
            let named = rules.headers().find(|named| alike(named, name.as_str()));
            let near = || rules.is_near(Spot::Header, name.as_str());
            let Some(named) = named.or_else(|| near().then_some(name.as_str())) else {
                continue;
            };
            for (nth, value) in front.headers.get_all(name).iter().enumerate() {
                letter.lines.push(Line {
                    named: named.to_owned(),
                    name: name.clone(),
                    nth,
                    value: value.as_bytes().to_vec(),
                });
            }
        }
        letter
    }

    /// With a body.
    pub fn message<'m>(&'m self, body: &'m [u8], shape: Shape<'m>) -> Message<'m> {
        let lines = self.lines.iter();
        Message {
            body: match shape {
                Shape::Unread => &[],
                _ => body,
            },
            shape,
            lines: lines.map(|line| (&*line.named, &*line.value)).collect(),
            query: self.query.as_deref(),
        }
    }

    /// Puts what is new into the head.
    ///
    /// # Errors
    /// It would be longer than a head may be.
    pub fn put_back(&self, heads: Heads, front: &mut Front<'_>) -> Result<(), Error> {
        if heads.is_empty() {
            return Ok(());
        }
        let broken = |_| Code::Internal.because("a value that no head can have");
        for (index, value) in heads.lines {
            let line = &self.lines[index];
            let value = HeaderValue::from_bytes(&value).map_err(|e| broken(e.to_string()))?;
            if let Entry::Occupied(mut entry) = front.headers.entry(&line.name)
                && let Some(old) = entry.iter_mut().nth(line.nth)
            {
                *old = value;
            }
        }
        if let (Some(query), Some(uri)) = (heads.query, &mut front.uri) {
            let target = format!("{}?{query}", uri.path());
            if target.len() > TARGET_BYTES_MAX {
                return Err(Code::SealedHead.because("the target"));
            }
            let mut parts = uri.clone().into_parts();
            let target = PathAndQuery::try_from(target).map_err(|e| broken(e.to_string()))?;
            parts.path_and_query = Some(target);
            **uri = Uri::from_parts(parts).map_err(|e| broken(e.to_string()))?;
        }
        let bytes =
            |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
        match front.headers.iter().map(bytes).sum::<usize>() > HEAD_BYTES_MAX {
            true => Err(Code::SealedHead.because("the header fields")),
            false => Ok(()),
        }
    }
}

/// The trailer fields that must not go on where these rules seal header fields.
pub fn withheld(rules: &Rules) -> Vec<HeaderName> {
    match rules.seals_named(Spot::Header) {
        true => rules
            .headers()
            .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
            .collect(),
        false => Vec::new(),
    }
}

/// How a body is read that is declared so.
pub fn shape<'b>(rules: &Rules, declared: Declared, boundary: Option<&'b str>) -> Shape<'b> {
    match (declared, boundary) {
        (declared, _) if !refusal::reads(rules, declared) => Shape::Unread,
        (Declared::MergePatch, _) => Shape::MergePatch,
        (Declared::JsonPatch, _) => Shape::JsonPatch,
        (Declared::Form, _) => Shape::Form,
        (Declared::Multipart, Some(boundary)) => Shape::Multipart { boundary },
        (Declared::Multipart | Declared::Records(_) | Declared::Other | Declared::Coded, _) => {
            Shape::Unread
        }
        (Declared::Json, _) => Shape::Json,
    }
}
