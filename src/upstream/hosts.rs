//! Which upstream a listener's requests go to: one for all of them, one by the host that a request is for, or whichever a
//! request names.

use super::{Again, Target, Targets, Upstream};
use crate::error::{Code, Error};
use crate::policy::HostPattern;
use bytes::Bytes;
use http::header::HOST;
use http::request::Parts;
use http::{HeaderValue, Version};
use hyper::body::Body;
use std::borrow::Cow;
use std::error::Error as StdError;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A listener's upstreams, for requests with bodies of type `B`.
pub struct Upstreams<B>(Choice<B>);

enum Choice<B> {
    One(Arc<Upstream<B>>),
    /// Names come before patterns.
    ByHost(Vec<(HostPattern, Arc<Upstream<B>>)>),
    /// Made as they are named.
    Any(Arc<Targets<B>>),
}

impl<B> From<Upstream<B>> for Upstreams<B> {
    fn from(upstream: Upstream<B>) -> Upstreams<B> {
        Upstreams(Choice::One(Arc::new(upstream)))
    }
}

impl<B> From<Arc<Targets<B>>> for Upstreams<B> {
    fn from(targets: Arc<Targets<B>>) -> Upstreams<B> {
        Upstreams(Choice::Any(targets))
    }
}

/// It names what is spoken with TLS. WebSocket's schemes stand for HTTP's (RFC 6455 section 3).
fn is_secure(head: &Parts) -> bool {
    let scheme = head.uri.scheme_str().unwrap_or_default();
    ["https", "wss"]
        .iter()
        .any(|secure| scheme.eq_ignore_ascii_case(secure))
}

impl<B> Upstreams<B>
where
    B: Body<Data = Bytes> + Again + Send + Unpin + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// A request goes where its host does: a name wins over a `*.` pattern, and what states a port over what does not.
    pub fn by_host(mut hosts: Vec<(HostPattern, Upstream<B>)>) -> Upstreams<B> {
        hosts.sort_by_key(|(pattern, _)| pattern.width());
        let shared = |(pattern, upstream)| (pattern, Arc::new(upstream));
        Upstreams(Choice::ByHost(hosts.into_iter().map(shared).collect()))
    }

    /// The upstream of a request: by its `:authority` or absolute target, else by its Host, as RFC 9110 section 7.2 has
    /// it. (Where there are both, they agree: the edge has seen to that.)
    ///
    /// # Errors
    /// Its host is none of this listener's, or there is none; where requests name what they are for, it does not.
    pub fn of(&self, head: &Parts) -> Result<Cow<'_, Arc<Upstream<B>>>, Error> {
        let target = head.uri.authority().map(|authority| authority.as_str());
        let hosts = match &self.0 {
            Choice::One(upstream) => return Ok(Cow::Borrowed(upstream)),
            Choice::ByHost(hosts) => hosts,
            Choice::Any(targets) => {
                let tls = is_secure(head);
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

    /// The upstream of a request on a connection that was redirected on its way to `address`: at that address, by the name that the
    /// request has for it, in HTTP/2 if the client knows that it speaks that.
    ///
    /// # Errors
    /// The request is for another port or address than its connection, or says that it came over TLS; nothing makes upstreams here.
    pub fn at(
        &self,
        head: &Parts,
        address: SocketAddr,
    ) -> Result<Cow<'_, Arc<Upstream<B>>>, Error> {
        let targets = self.targets().ok_or(Code::HostUnknown)?;
        if is_secure(head) {
            return Err(Code::Misdirected.because("https within plain HTTP"));
        }
        let stated = head.uri.authority().map(|authority| authority.as_str());
        let field = || head.headers.get(HOST).map(HeaderValue::to_str);
        let named = stated.or_else(|| field()?.ok());
        // HTTP/1.0 need not say: then it is the address itself.
        let bare = address.to_string();
        let target = Target::parse(false, named.unwrap_or(&bare)).ok_or(Code::Target)?;
        let literal = target.host().parse::<IpAddr>();
        if target.port() != address.port() {
            return Err(Code::Misdirected.because("another port than the connection's"));
        }
        if literal.is_ok_and(|ip| ip.to_canonical() != address.ip().to_canonical()) {
            return Err(Code::Misdirected.because("another address than the connection's"));
        }
        let target = target.at(address).in_http2(head.version == Version::HTTP_2);
        targets.pooled(&target).map(Cow::Owned)
    }

    /// What makes upstreams here, where requests name theirs.
    pub fn targets(&self) -> Option<&Arc<Targets<B>>> {
        match &self.0 {
            Choice::Any(targets) => Some(targets),
            Choice::One(_) | Choice::ByHost(_) => None,
        }
    }
}
