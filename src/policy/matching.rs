//! Which route takes a request: host, method and path, in the order of the files, the first that matches wins.
//!
//! The comparison leans towards taking a request: a request that takes a route by mistake is sealed or refused where
//! someone sees it; one that comes past a route by mistake leaks in silence.

mod host;
mod template;

pub(super) use host::host_label;
pub use host::{HostPattern, is_host_name};
pub use template::{Parameters, Template};

use super::spelling::{PathRefused, Segments, readings};
use super::{Policies, Route, TenantSource, Unmatched};
use crate::policy::OutsideSource;
use host::Host;
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
