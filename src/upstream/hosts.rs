//! Which upstream a listener's requests go to: one for all of them, one by the host that a request is for, or whichever a
//! request names.

use super::{Target, Targets, Upstream};
use crate::error::{Code, Error};
use crate::policy::HostPattern;
use bytes::Bytes;
use http::HeaderValue;
use http::header::HOST;
use http::request::Parts;
use http::uri::Scheme;
use hyper::body::Body;
use std::borrow::Cow;
use std::error::Error as StdError;
use std::sync::Arc;

/// A listener's upstreams, for requests with bodies of type `B`.
pub struct Upstreams<B>(Choice<B>);

enum Choice<B> {
    One(Box<Upstream<B>>),
    /// Names come before patterns.
    ByHost(Vec<(HostPattern, Upstream<B>)>),
    /// Made as they are named.
    Any(Arc<Targets<B>>),
}

impl<B> From<Upstream<B>> for Upstreams<B> {
    fn from(upstream: Upstream<B>) -> Upstreams<B> {
        Upstreams(Choice::One(Box::new(upstream)))
    }
}

impl<B> From<Arc<Targets<B>>> for Upstreams<B> {
    fn from(targets: Arc<Targets<B>>) -> Upstreams<B> {
        Upstreams(Choice::Any(targets))
    }
}

impl<B> Upstreams<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// A request goes where its host does: a name wins over a `*.` pattern, and what states a port over what does not.
    pub fn by_host(mut hosts: Vec<(HostPattern, Upstream<B>)>) -> Upstreams<B> {
        hosts.sort_by_key(|(pattern, _)| pattern.width());
        Upstreams(Choice::ByHost(hosts))
    }

    /// The upstream of a request: by its `:authority` or absolute target, else by its Host, as RFC 9110 section 7.2 has
    /// it. (Where there are both, they agree: the edge has seen to that.)
    ///
    /// # Errors
    /// Its host is none of this listener's, or there is none; where requests name what they are for, it does not.
    pub fn of(&self, head: &Parts) -> Result<Cow<'_, Upstream<B>>, Error> {
        let target = head.uri.authority().map(|authority| authority.as_str());
        let hosts = match &self.0 {
            Choice::One(upstream) => return Ok(Cow::Borrowed(upstream)),
            Choice::ByHost(hosts) => hosts,
            Choice::Any(targets) => {
                let tls = head.uri.scheme() == Some(&Scheme::HTTPS);
                let authority = target.ok_or(Code::ProxyForm)?;
                let target = Target::parse(tls, authority).ok_or(Code::Target)?;
                return targets.pooled(&target).map(Cow::Owned);
            }
        };
        let field = || head.headers.get(HOST).map(HeaderValue::to_str);
        let host = target.or_else(|| field()?.ok()).unwrap_or_default();
        let found = hosts.iter().find(|(pattern, _)| pattern.leads(host));
        found
            .map(|(_, upstream)| Cow::Borrowed(upstream))
            .ok_or_else(|| Code::HostUnknown.into())
    }

    /// What makes upstreams here, where requests name theirs.
    pub fn targets(&self) -> Option<&Arc<Targets<B>>> {
        match &self.0 {
            Choice::Any(targets) => Some(targets),
            Choice::One(_) | Choice::ByHost(_) => None,
        }
    }
}
