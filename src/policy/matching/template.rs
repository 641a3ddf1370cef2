//! Paths with parameters, and what these stood for in a request.

use crate::policy::NAME_CHARS_MAX;
use crate::policy::spelling::{Segments, readings};
use std::sync::Arc;

/// `/v1/customers/{id}` or `/v1/files/{rest*}`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template {
    parts: Vec<Part>,
    rest: Option<Arc<str>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Literal(String),
    Parameter(Arc<str>),
}

/// What a template's parameters stood for in a request's path, decoded.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Parameters(Vec<(Arc<str>, String)>);

/// Names only: the values are a request's.
impl std::fmt::Debug for Parameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

impl Parameters {
    /// What the parameter of this name stood for: one decoded segment, or the rest of the path, joined by `/`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| **known == *name)
            .map(|(_, value)| value.as_str())
    }
}

impl Template {
    /// Errors: the byte offset in `text`, and what is wrong there.
    pub fn parse(text: &str) -> Result<Template, (usize, &'static str)> {
        let body = text
            .strip_prefix('/')
            .ok_or((0, "a path begins with `/`"))?;
        let mut template = Template {
            parts: Vec::new(),
            rest: None,
        };
        let mut at = 1;
        let segments: Vec<&str> = body.split('/').collect();
        let count = segments.len();
        for (index, segment) in segments.into_iter().enumerate() {
            let last = index + 1 == count;
            match segment {
                // The slash at the end, or the root: requests are compared without it.
                "" if last => {}
                "" => {
                    return Err((
                        at,
                        "an empty segment: requests are compared with double slashes merged",
                    ));
                }
                "." | ".." => {
                    return Err((at, "a dot segment: requests are compared with them removed"));
                }
                _ => template
                    .push(segment, last)
                    .map_err(|(offset, what)| (at + offset, what))?,
            }
            at += segment.len() + 1;
        }
        Ok(template)
    }

    fn push(&mut self, segment: &str, last: bool) -> Result<(), (usize, &'static str)> {
        if let Some(inner) = segment
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
        {
            let name = inner.strip_suffix('*').unwrap_or(inner);
            let fits = name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
            if name.is_empty() || name.len() > NAME_CHARS_MAX || !fits {
                return Err((
                    1,
                    "a parameter's name has 1 to 64 letters, digits, `_` or `-`",
                ));
            }
            if self.names().any(|known| **known == *name) {
                return Err((1, "this name is used twice in the path"));
            }
            if name.len() < inner.len() {
                if !last {
                    return Err((
                        0,
                        "`{name*}` takes the rest of the path: it stands at the end",
                    ));
                }
                self.rest = Some(name.into());
            } else {
                self.parts.push(Part::Parameter(name.into()));
            }
            return Ok(());
        }
        if let Some(at) = segment.find(['{', '}']) {
            return Err((at, "a parameter is a whole segment: `/{name}/`"));
        }
        if let Some(at) = segment.find(['%', '?', '#', ';', '\\']) {
            return Err((at, "write the decoded path, without query, `;` or `\\`"));
        }
        if let Some(at) = segment.find(char::is_control) {
            return Err((at, "a control character"));
        }
        self.parts.push(Part::Literal(segment.to_owned()));
        Ok(())
    }

    /// The parameters' names.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let single = self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Parameter(name) => Some(name),
        });
        single.chain(&self.rest)
    }

    /// The parameters of a path, raw as it would be sent, without query. `None`: the template does not take it, or it can be
    /// read in more than one way.
    pub fn parameters(&self, path: &str) -> Option<Parameters> {
        let readings = readings(path).ok()?;
        let mut taken = readings.iter().map(|reading| self.capture(reading));
        let first = taken.next()??;
        let same = |other: Option<Parameters>| other.is_some_and(|other| other == first);
        taken.all(same).then_some(first)
    }

    pub(super) fn capture(&self, segments: &Segments) -> Option<Parameters> {
        let (head, tail) = segments.split_at_checked(self.parts.len())?;
        let mut parameters = Parameters::default();
        for (part, segment) in self.parts.iter().zip(head) {
            match part {
                Part::Literal(literal) if literal == segment => {}
                Part::Parameter(name) if !segment.is_empty() => {
                    parameters.0.push((Arc::clone(name), segment.clone()));
                }
                _ => return None,
            }
        }
        match &self.rest {
            Some(name) => parameters.0.push((Arc::clone(name), tail.join("/"))),
            None if tail.is_empty() => {}
            None => return None,
        }
        Some(parameters)
    }

    pub(super) fn meets(&self, other: &Template) -> bool {
        let parts = self.parts.iter().zip(&other.parts).all(|pair| match pair {
            (Part::Literal(own), Part::Literal(other)) => own == other,
            _ => true,
        });
        let (own, others) = (self.parts.len(), other.parts.len());
        let length = own == others
            || (own < others && self.rest.is_some())
            || (own > others && other.rest.is_some());
        parts && length
    }

    pub(super) fn covers(&self, other: &Template) -> bool {
        let enough = other.parts.len() >= self.parts.len();
        let parts = self
            .parts
            .iter()
            .zip(&other.parts)
            .all(|(own, other)| match (own, other) {
                (Part::Parameter(_), _) => true,
                (Part::Literal(own), Part::Literal(other)) => own == other,
                (Part::Literal(_), Part::Parameter(_)) => false,
            });
        let tail =
            self.rest.is_some() || (other.rest.is_none() && other.parts.len() == self.parts.len());
        enough && parts && tail
    }
}
