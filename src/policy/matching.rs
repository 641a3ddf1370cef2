//! Which route takes a request: host, method and path, in the order of the files, the first that matches wins.
//!
//! The comparison leans towards taking a request: a request that takes a route by mistake is sealed or refused where
//! someone sees it; one that comes past a route by mistake leaks in silence.

use super::spelling::{PathRefused, Segments, readings};
use super::{Policies, Route, TenantSource, Unmatched};
use crate::policy::OutsideSource;
use core::net::Ipv6Addr; // addresses only: this floor has no sockets
use std::sync::Arc;

/// What a route takes. An absent part takes everything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Match {
    /// `None`: every host.
    pub host: Option<HostPattern>,
    /// Upper case; empty: every method.
    pub methods: Vec<Arc<str>>,
    /// `None`: every path.
    pub path: Option<Template>,
}

/// `api.example.com`, `*.example.com` (one label more), either with `:port`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPattern {
    /// Lower case, without a dot at the end; behind a wildcard, from the dot on.
    name: String,
    any_label: bool,
    port: Option<u16>,
}

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

/// Who takes a request.
#[derive(Clone, Debug)]
pub enum Matched<'p> {
    /// This route, the first that matches.
    Route {
        /// Of the policies that were asked.
        route: &'p Route,
        /// Empty where the route has no path.
        parameters: Parameters,
    },
    /// No route; `Pass` for a host that no policy names.
    Unmatched {
        /// The strictest of the policies that name the host.
        attitude: Unmatched,
    },
}

/// Why a route does not take a request: the first word of its `match` that says no.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Miss {
    /// Another host.
    Host,
    /// Another method.
    Method,
    /// Another path.
    Path,
}

impl Policies {
    /// The route for a request. `host`: as in the Host header or the upstream's URL, with or without port; `path`: raw,
    /// as sent, without query.
    ///
    /// Errors: the path decides, and can be read in more than one way.
    pub fn route(&self, method: &str, host: &str, path: &str) -> Result<Matched<'_>, PathRefused> {
        let host = Host::parse(host);
        let candidates: Vec<&Route> = self
            .routes()
            .filter(|route| route.matching.takes_host(&host) && route.matching.takes_method(method))
            .collect();
        let unmatched = || Matched::Unmatched {
            attitude: self.unmatched(&host),
        };
        // Where the first route takes every path, or no route is left, the spelling of the path cannot matter.
        let Some(first) = candidates.first() else {
            return Ok(unmatched());
        };
        if first.matching.path.is_none() {
            return Ok(Matched::Route {
                route: first,
                parameters: Parameters::default(),
            });
        }
        if path == "*" {
            // The asterisk-form of OPTIONS names no resource (RFC 9112 section 3.2.4).
            let any = candidates
                .iter()
                .find(|route| route.matching.path.is_none());
            return Ok(any.map_or_else(unmatched, |route| Matched::Route {
                route,
                parameters: Parameters::default(),
            }));
        }
        let mut taken: Option<(&Route, Parameters)> = None;
        for reading in readings(path)? {
            let Some((route, parameters)) = first_of(&candidates, &reading) else {
                continue;
            };
            match &taken {
                None => taken = Some((route, parameters)),
                Some((earlier, used))
                    if std::ptr::eq(*earlier, route) && route.same_use(used, &parameters) => {}
                Some(_) => return Err(PathRefused { what: "ambiguous" }),
            }
        }
        Ok(
            taken.map_or_else(unmatched, |(route, parameters)| Matched::Route {
                route,
                parameters,
            }),
        )
    }

    /// Some route can take requests to this host; `false` means that the policies say nothing about them.
    pub fn names(&self, host: &str) -> bool {
        let host = Host::parse(host);
        self.routes().any(|route| route.matching.takes_host(&host))
    }

    /// What each route says to a request, in the order in which they are asked: `None` where it would take it. Not for the
    /// road: there [`Policies::route`] decides, and it refuses paths that can be read in two ways.
    pub fn answers(&self, method: &str, host: &str, path: &str) -> Vec<(&Route, Option<Miss>)> {
        let host = Host::parse(host);
        let readings = readings(path).unwrap_or_default();
        let answer = |route: &Route| {
            let matching = &route.matching;
            let takes_path = || match &matching.path {
                None => true,
                Some(template) => readings.iter().any(|r| template.capture(r).is_some()),
            };
            if !matching.takes_host(&host) {
                Some(Miss::Host)
            } else if !matching.takes_method(method) {
                Some(Miss::Method)
            } else {
                (!takes_path()).then_some(Miss::Path)
            }
        };
        self.routes().map(|route| (route, answer(route))).collect()
    }

    /// The strictest attitude of the policies that name this host.
    fn unmatched(&self, host: &Host<'_>) -> Unmatched {
        let names_host = |route: &Route| route.matching.takes_host(host);
        let naming = self
            .policies
            .iter()
            .filter(|policy| policy.routes.iter().any(names_host));
        naming
            .map(|policy| policy.unmatched)
            .max()
            .unwrap_or(Unmatched::Pass)
    }
}

fn first_of<'p>(candidates: &[&'p Route], segments: &Segments) -> Option<(&'p Route, Parameters)> {
    candidates
        .iter()
        .find_map(|route| match &route.matching.path {
            None => Some((*route, Parameters::default())),
            Some(template) => template
                .capture(segments)
                .map(|parameters| (*route, parameters)),
        })
}

impl Route {
    /// Two readings of a path are one when tenant and binds would take the same from them.
    fn same_use(&self, a: &Parameters, b: &Parameters) -> bool {
        let tenant = match &self.tenant {
            Some(TenantSource::Path(name)) => Some(name),
            _ => None,
        };
        let bound = self.outside.iter().filter_map(|source| match source {
            OutsideSource::Path(name) => Some(name),
            _ => None,
        });
        tenant
            .into_iter()
            .chain(bound)
            .all(|name| a.get(name) == b.get(name))
    }
}

impl Match {
    fn takes_host(&self, host: &Host<'_>) -> bool {
        self.host.as_ref().is_none_or(|pattern| pattern.takes(host))
    }

    fn takes_method(&self, method: &str) -> bool {
        // A lenient server may take `post` for POST.
        self.methods.is_empty()
            || self
                .methods
                .iter()
                .any(|known| known.eq_ignore_ascii_case(method))
    }

    /// Whether some request may be taken by both.
    pub(super) fn meets(&self, other: &Match) -> bool {
        let host = match (&self.host, &other.host) {
            (Some(own), Some(other)) => own.meets(other),
            _ => true,
        };
        let methods = self.methods.is_empty()
            || other.methods.is_empty()
            || self.methods.iter().any(|m| other.methods.contains(m));
        let path = match (&self.path, &other.path) {
            (Some(own), Some(other)) => own.meets(other),
            _ => true,
        };
        host && methods && path
    }

    /// Whether every request that `other` takes is taken by `self`: a later route with `other` would never be reached.
    pub(super) fn covers(&self, other: &Match) -> bool {
        let host = self.host.is_none() || self.host == other.host;
        let methods = self.methods.is_empty()
            || (!other.methods.is_empty()
                && other
                    .methods
                    .iter()
                    .all(|method| self.methods.contains(method)));
        let path = match (&self.path, &other.path) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => own.covers(other),
        };
        host && methods && path
    }
}

/// A host as a request names it: lower case name without a dot at the end, and the port if it is a number.
struct Host<'h> {
    name: std::borrow::Cow<'h, str>,
    port: Option<u16>,
}

impl Host<'_> {
    fn parse(text: &str) -> Host<'_> {
        let (name, port) = match text.rfind(':') {
            // The colons within the brackets of an IPv6 address are not the port's.
            Some(at) if !text[at..].contains(']') => (&text[..at], text[at + 1..].parse().ok()),
            _ => (text, None),
        };
        let name = name.trim_end_matches('.');
        // One address has many spellings; a pattern has the one of RFC 5952, too.
        let six = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']')?.parse::<Ipv6Addr>().ok());
        if let Some(address) = six {
            let name = format!("[{address}]").into();
            return Host { name, port };
        }
        let lower = name.bytes().any(|byte| byte.is_ascii_uppercase());
        Host {
            name: if lower {
                name.to_ascii_lowercase().into()
            } else {
                name.into()
            },
            port,
        }
    }
}

/// The label of a host, counted from the left, from 1. An address has no labels.
pub(super) fn host_label(host: &str, number: usize) -> Option<String> {
    let host = Host::parse(host);
    let is_address = host.name.starts_with('[')
        || host
            .name
            .rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if is_address {
        return None;
    }
    let label = host.name.split('.').nth(number.checked_sub(1)?)?;
    (!label.is_empty()).then(|| label.to_owned())
}

impl HostPattern {
    /// Errors: what is wrong with it, for the policy's author.
    pub fn parse(text: &str) -> Result<HostPattern, &'static str> {
        if text.contains('/') {
            return Err("the host alone, without scheme and path");
        }
        let (whole, port) = match text.rfind(':') {
            Some(at) if !text[at..].contains(']') => {
                let digits = &text[at + 1..];
                let port = digits
                    .parse::<u16>()
                    .ok()
                    .filter(|port| *port > 0 && port.to_string() == digits);
                (
                    &text[..at],
                    Some(port.ok_or("the port is a number from 1 to 65535")?),
                )
            }
            _ => (text, None),
        };
        let name = whole
            .strip_suffix('.')
            .unwrap_or(whole)
            .to_ascii_lowercase();
        if !name.is_ascii() {
            return Err("write an international name in its ASCII form (xn--…)");
        }
        if let Some(address) = name.strip_prefix('[') {
            let inner = address
                .strip_suffix(']')
                .ok_or("an IPv6 address ends with `]`")?;
            let address: Ipv6Addr = inner.parse().map_err(|_| "this is no IPv6 address")?;
            return Ok(HostPattern {
                name: format!("[{address}]"),
                any_label: false,
                port,
            });
        }
        let (name, any_label) = match name.strip_prefix('*') {
            Some(rest) if rest.len() > 1 && rest.starts_with('.') => (rest.to_owned(), true),
            Some(_) => {
                return Err(
                    "a wildcard stands for the whole first label: `*.example.com`; leave `host` out to take all",
                );
            }
            None => (name, false),
        };
        let labels = name.strip_prefix('.').unwrap_or(&name);
        let label_fits = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.len() > 253 || !labels.split('.').all(label_fits) {
            return Err("labels of letters, digits and `-`, 1 to 63 characters each, 253 in all");
        }
        Ok(HostPattern {
            name,
            any_label,
            port,
        })
    }

    /// Whether it stands for more than one host.
    pub(super) fn is_wide(&self) -> bool {
        self.any_label
    }

    fn meets(&self, other: &HostPattern) -> bool {
        let port = self.port.is_none() || other.port.is_none() || self.port == other.port;
        let under = |wide: &HostPattern, one: &HostPattern| {
            wide.takes(&Host {
                name: one.name.as_str().into(),
                port: None,
            })
        };
        let name = match (self.any_label, other.any_label) {
            (true, false) => under(self, other),
            (false, true) => under(other, self),
            _ => self.name == other.name,
        };
        port && name
    }

    /// Whether a request for `host` (a name or an address, and perhaps a port) goes where this leads. More narrow than
    /// what a route takes: a request that states no port does not mean any.
    pub fn leads(&self, host: &str) -> bool {
        let host = Host::parse(host);
        self.takes(&host) && (self.port.is_none() || self.port == host.port)
    }

    /// Orders patterns that take one host: the smaller says more exactly what it means.
    pub fn width(&self) -> (bool, bool) {
        (self.any_label, self.port.is_none())
    }

    fn takes(&self, host: &Host<'_>) -> bool {
        // A request that states no port may mean any.
        let port = self.port.is_none() || host.port.is_none() || self.port == host.port;
        let name = if self.any_label {
            host.name
                .strip_suffix(self.name.as_str())
                .is_some_and(|label| !label.is_empty() && !label.contains('.'))
        } else {
            host.name == self.name
        };
        port && name
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
            if name.is_empty() || name.len() > super::NAME_CHARS_MAX || !fits {
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

    fn capture(&self, segments: &Segments) -> Option<Parameters> {
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

    fn meets(&self, other: &Template) -> bool {
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

    fn covers(&self, other: &Template) -> bool {
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
