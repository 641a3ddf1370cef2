//! Which route takes a request, and with which circumstances: the policy's answer in terms of the road.

use crate::audit::{Record, Side};
use crate::body::alike;
use crate::context::{Circumstances, Outside};
use crate::error::{Code, Error};
use crate::policy::{Matched, Mode, Peer, Policies, Route, Unmatched};
use crate::transform::Rules;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use std::sync::Arc;

/// The route that a request takes.
pub struct Way<'p> {
    pub(crate) route: &'p Route,
    /// Of the request; they hold for its answer, too.
    pub circumstances: Circumstances,
    /// Count what would happen, change nothing.
    pub observing: bool,
}

impl Way<'_> {
    /// Says in the record who asks, in the policy's words: what a client says of itself is its own.
    pub fn note_caller(&self, record: &mut Record) {
        if let Some(caller) = &self.circumstances.caller {
            record.caller(self.route.listed(caller).cloned());
        }
    }

    pub fn rules(&self, side: Side) -> &Rules {
        self.shared_rules(side)
    }

    /// As [`Way::rules`], for what lasts longer.
    pub fn shared_rules(&self, side: Side) -> &Arc<Rules> {
        match side {
            Side::Request => &self.route.request,
            Side::Response => &self.route.response,
        }
    }

    /// Bodies of this side may leave changed.
    pub fn rewrites(&self, side: Side) -> bool {
        !self.observing && !self.rules(side).is_empty()
    }

    /// A body that cannot be read: refused where this side seals or rejects. Elsewhere it goes on as it came, tokens
    /// sealed, and counted by `why`.
    pub fn unreadable(
        &self,
        side: Side,
        error: Error,
        why: &'static str,
        record: &mut Record,
    ) -> Result<(), Error> {
        let rules = self.rules(side);
        if !rules.must_understand() {
            record.unread(why);
            return Ok(());
        }
        self.refuse(error, record)
    }

    /// A message whose keys, or whose room, cannot be had: as [`Way::unreadable`], for its head, too.
    pub fn unkept(
        &self,
        side: Side,
        error: Error,
        why: &'static str,
        record: &mut Record,
    ) -> Result<(), Error> {
        match self.rules(side).seals() {
            true => self.refuse(error, record),
            false => self.unreadable(side, error, why, record),
        }
    }

    /// Refuses, or notes that it would have.
    pub fn refuse(&self, error: Error, record: &mut Record) -> Result<(), Error> {
        if self.observing {
            record.would_refuse(error.reason());
            return Ok(());
        }
        Err(error)
    }
}

/// The route that takes this request from this client, noted in its record; `None` where it may pass without one.
pub fn take<'p>(
    policies: &'p Policies,
    head: &Parts,
    host: &str,
    peer: Peer<'_>,
    record: &mut Record,
) -> Result<Option<Way<'p>>, Error> {
    let route = |method: &str| {
        let matched = policies.route(method, host, head.uri.path());
        matched.map_err(|refused| Code::PathAmbiguous.because(refused.what))
    };
    let matched = route(head.method.as_str())?;
    // An upstream that heeds an override would take the request for another one than the policy does.
    let overridden = METHOD_OVERRIDES.into_iter().find(|name| {
        all_like(&head.headers, name).any(|value| {
            let meant = value
                .to_str()
                .map(|method| route(&method.trim().to_ascii_uppercase()));
            !matches!(meant, Ok(Ok(meant)) if same(&meant, &matched))
        })
    });
    let overridden = overridden.map(|name| Code::MethodOverride.because(name));
    let (route, parameters) = match matched {
        Matched::Route { route, parameters } => (route, parameters),
        Matched::Unmatched { .. } if let Some(error) = overridden => return Err(error),
        Matched::Unmatched {
            attitude: Unmatched::Reject,
        } => return Err(Code::Unmatched.into()),
        Matched::Unmatched {
            attitude: Unmatched::Report,
        } => {
            record.unmatched();
            return Ok(None);
        }
        Matched::Unmatched {
            attitude: Unmatched::Pass,
        } => return Ok(None),
    };
    let observing = route.mode == Mode::Observe;
    record.route(&route.name, observing);
    match overridden {
        Some(error) if observing => record.would_refuse(error.reason()),
        Some(error) => return Err(error),
        None => {}
    }
    let header = |name: &str| value(&head.headers, name);
    let mut circumstances = match route.circumstances(&parameters, header, head.uri.query(), host) {
        Ok(circumstances) => circumstances,
        // Without its tenant a route cannot even say what it would do.
        Err(missing) if observing => {
            record.would_refuse(Code::TenantMissing.because(missing.what).reason());
            return Ok(None);
        }
        Err(missing) => return Err(Code::TenantMissing.because(missing.what)),
    };
    circumstances.caller = route.caller(header, peer);
    let way = Way {
        route,
        circumstances,
        observing,
    };
    way.note_caller(record);
    Ok(Some(way))
}

/// Headers by which frameworks let a client say that it means another method.
const METHOD_OVERRIDES: [&str; 3] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];

/// The values of a header, and of its twins with `_` in the place of `-`, which some servers (CGI, WSGI) take for it.
fn all_like<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h HeaderValue> {
    let alike = headers
        .iter()
        .filter(move |(known, _)| alike(known.as_str(), name));
    alike.map(|(_, value)| value)
}

/// The same route, or none both times.
fn same(one: &Matched<'_>, other: &Matched<'_>) -> bool {
    match (one, other) {
        (Matched::Route { route: one, .. }, Matched::Route { route: other, .. }) => {
            std::ptr::eq(*one, *other)
        }
        (Matched::Unmatched { .. }, Matched::Unmatched { .. }) => true,
        _ => false,
    }
}

/// A header's one value; what is not text counts as missing.
fn value(headers: &HeaderMap, name: &str) -> Outside {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => match std::str::from_utf8(value.as_bytes()) {
            Ok(text) => Outside::Text(text.to_owned()),
            Err(_) => Outside::Missing,
        },
        (None, _) => Outside::Missing,
        (Some(_), Some(_)) => Outside::Repeated,
    }
}
