//! CONNECT on a forward listener (RFC 9110 section 9.3.6): what it leads to, and whether it may.
//!
//! A host that a policy names is never tunnelled: its connection is made, TLS and certificate and all, before the client is told
//! anything, and the client's own TLS ends here. Where it speaks no TLS the connection is made without, and the client's plain HTTP is served.
//! Any other is dialled, and its bytes go unseen. Which bytes those are is the edge's matter.

use super::upgrade::Switched;
use super::{Exchange, Proxy, refused};
use crate::audit::{Passed, Record, RequestId};
use crate::body::Body;
use crate::error::{Code, Error};
use crate::policy::Policies;
use crate::upstream::{Target, Targets, Upstream};
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use std::pin::pin;
use std::sync::Arc;
use tokio::net::TcpStream;

/// What a CONNECT or an upgrade leads to.
pub struct Passage {
    /// Of the access that opened it.
    pub id: RequestId,
    /// Where its bytes go.
    pub to: Through,
}

/// Where the bytes behind a CONNECT or an upgrade go.
pub enum Through {
    /// To the host, unseen.
    Blind(TcpStream),
    /// Into TLS as this host would speak it; the requests within are for this upstream.
    Within(String, Box<Upstream<Body>>),
    /// To the host in what the client shows, which is named by a policy and not known to speak TLS.
    Shown(Box<Shown>),
    /// Behind a 101, to the upstream, unseen.
    Switched(Switched),
}

/// A host that is connected to without TLS, unless its client speaks that.
pub struct Shown {
    /// The host and its port, as TLS.
    pub target: Target,
    /// Where plain HTTP goes; a connection to it is there.
    pub plain: Upstream<Body>,
}

impl Proxy {
    /// Answers a CONNECT, and says where it leads if that is anywhere. `vouched`: whether TLS can be spoken as this host would.
    pub async fn connect(
        &self,
        request: &Request<Incoming>,
        exchange: &impl Exchange,
        vouched: impl Fn(&str) -> bool,
    ) -> (Response<Body>, Option<Passage>) {
        let in_force = self.in_force.load_full();
        let mut record = Record::open(
            self.listener.clone(),
            Some(request.method().clone()),
            in_force.sink.clone(),
        );
        record.policy(in_force.policies.version());
        let id = record.id();
        let opened = match exchange.refusal() {
            Some(code) => Err(refused(code, true)),
            None => {
                let target = request.uri().authority().map(|to| to.as_str());
                self.open(target, &in_force.policies, vouched, &mut record)
                    .await
            }
        };
        // Last of all, since it takes its time to open: what came meanwhile came early.
        let opened = match exchange.broken() {
            Some(code) => Err(Error::from(code).closing()),
            None => opened,
        };
        match opened {
            Ok(to) => {
                record.answered(200, None);
                let answer = Response::new(Body::full(Bytes::new()));
                (answer, Some(Passage { id, to }))
            }
            Err(error) => {
                let answer = error.answer(id).map(Body::full);
                let length = answer.body().known_len();
                record.refused(error.reason(), answer.status().as_u16(), length);
                (answer, None)
            }
        }
    }

    async fn open(
        &self,
        authority: Option<&str>,
        policies: &Policies,
        vouched: impl Fn(&str) -> bool,
        record: &mut Record,
    ) -> Result<Through, Error> {
        let targets = self.upstreams.targets().ok_or(Code::Method)?;
        // A port has no default here (RFC 9112 section 3.2.3).
        let target = authority
            .filter(|authority| port_is_stated(authority))
            .and_then(|authority| Target::parse(true, authority))
            .ok_or_else(|| Code::Target.because("CONNECT wants a host and a port"))?;
        let plain = target.clone().with_tls(false);
        if policies.names(&target.authority()) || policies.names(&plain.authority()) {
            return covered(targets, target, vouched, record).await;
        }
        if self.covered_only {
            return Err(Code::Uncovered.into());
        }
        let dialled = record.waiting(pin!(targets.dial(&target))).await;
        dialled.map(Through::Blind)
    }

    /// Makes an upstream for a connection that leads to `target` whatever its requests say, and connects to it: what stands in the way is
    /// known before the client is served. None: no listener's requests name their targets.
    ///
    /// # Errors
    /// One of the `upstream-*` codes.
    pub async fn upstream_for(&self, target: &Target) -> Option<Result<Upstream<Body>, Error>> {
        let targets = self.upstreams.targets()?;
        Some(prepared(targets, target).await)
    }

    /// A bare connection to `target`, for a tunnel. None: no listener's requests name their targets.
    ///
    /// # Errors
    /// One of the `upstream-*` codes, or [`Code::Busy`].
    pub async fn dial(&self, target: &Target) -> Option<Result<TcpStream, Error>> {
        Some(self.upstreams.targets()?.dial(target).await)
    }

    /// The bound on hosts: whether a policy names this one (`host[:port]`), and whether others are refused.
    pub fn covers(&self, authority: &str) -> bool {
        self.in_force.load().policies.names(authority)
    }
    /// Whether hosts that no policy names are refused.
    pub fn is_covered_only(&self) -> bool {
        self.covered_only
    }

    /// The listener's name.
    pub fn listener(&self) -> &Arc<str> {
        &self.listener
    }

    /// Logs and counts what became of a connection.
    pub fn passed(&self, passed: &Passed) {
        passed.log();
        self.in_force.load().sink.passed(passed);
    }
}

/// Where a CONNECT to a host leads that a policy names.
async fn covered(
    targets: &Targets<Body>,
    target: Target,
    vouched: impl Fn(&str) -> bool,
    record: &mut Record,
) -> Result<Through, Error> {
    if !targets.is_plain(&target) {
        if !vouched(target.host()) {
            return Err(Code::NotVouched.into());
        }
        match record.waiting(pin!(prepared(targets, &target))).await {
            // A client that speaks TLS all the same is not served without.
            Err(error) if error.code() == Code::UpstreamNotTls => {}
            made => {
                let host = target.host().to_owned();
                return made.map(|upstream| Through::Within(host, Box::new(upstream)));
            }
        }
    }
    let plain = target.clone().with_tls(false);
    let plain = record.waiting(pin!(prepared(targets, &plain))).await?;
    Ok(Through::Shown(Box::new(Shown { target, plain })))
}

async fn prepared(targets: &Targets<Body>, target: &Target) -> Result<Upstream<Body>, Error> {
    let upstream = targets.make(target)?;
    upstream.prepare().await?;
    Ok(upstream)
}

fn port_is_stated(authority: &str) -> bool {
    authority
        .rfind(':')
        .is_some_and(|colon| !authority[colon..].contains(']'))
}
