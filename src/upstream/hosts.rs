//! Which upstream a listener's requests go to: one for all of them, or one by the host that a request is for.

use super::Upstream;
use crate::error::{Code, Error};
use crate::policy::HostPattern;
use http::HeaderValue;
use http::header::HOST;
use http::request::Parts;

/// A listener's upstreams, for requests with bodies of type `B`.
pub struct Upstreams<B>(Choice<B>);

enum Choice<B> {
    One(Box<Upstream<B>>),
    /// Names come before patterns.
    ByHost(Vec<(HostPattern, Upstream<B>)>),
}

impl<B> From<Upstream<B>> for Upstreams<B> {
    fn from(upstream: Upstream<B>) -> Upstreams<B> {
        Upstreams(Choice::One(Box::new(upstream)))
    }
}

impl<B> Upstreams<B> {
    /// A request goes where its host does: a name wins over a `*.` pattern, and what states a port over what does not.
    pub fn by_host(mut hosts: Vec<(HostPattern, Upstream<B>)>) -> Upstreams<B> {
        hosts.sort_by_key(|(pattern, _)| pattern.width());
        Upstreams(Choice::ByHost(hosts))
    }

    /// The upstream of a request: by its `:authority` or absolute target, else by its Host, as RFC 9110 section 7.2 has
    /// it. (Where there are both, they agree: the edge has seen to that.)
    ///
    /// # Errors
    /// Its host is none of this listener's, or there is none.
    pub fn of(&self, head: &Parts) -> Result<&Upstream<B>, Error> {
        let hosts = match &self.0 {
            Choice::One(upstream) => return Ok(upstream),
            Choice::ByHost(hosts) => hosts,
        };
        let target = head.uri.authority().map(|authority| authority.as_str());
        let field = || head.headers.get(HOST).map(HeaderValue::to_str);
        let host = target.or_else(|| field()?.ok()).unwrap_or_default();
        let found = hosts.iter().find(|(pattern, _)| pattern.leads(host));
        found
            .map(|(_, upstream)| upstream)
            .ok_or_else(|| Code::HostUnknown.into())
    }
}
