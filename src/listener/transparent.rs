//! Connections that were redirected here, by nftables or iptables: where each was going, what it speaks, and whether that is the
//! agent's business.
//!
//! TLS is told from HTTP by the first bytes. TLS to a host that a policy names ends here; HTTP is served, and its requests say which
//! host they are for; anything else is passed on unseen, or refused, as the listener's settings have it. TLS of which it cannot be told
//! for whom it is goes nowhere. Only the address that the client chose is ever connected to: no name is resolved anew.

use super::bell::Bell;
use super::connection::{Beginning, Service};
use super::first::{First, HEARD_BYTES, look, may_be_http};
use super::stream::Stream;
use super::tunnel::Tunnel;
use crate::error::Code;
use crate::intercept::{Alert, Authority, Ungreeted};
use crate::upstream::Target;
use bytes::BytesMut;
use rustix::net::sockopt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// A client that says nothing for so long may be waiting for the server to speak first.
const SILENT_FOR: Duration = Duration::from_secs(1);

/// A transparent listener's own settings.
#[derive(Clone, Debug)]
pub struct Transparent {
    /// Stands in for the hosts that a policy names.
    pub authority: Arc<Authority>,
    /// Whether a connection on which the server speaks first is passed on.
    pub silent: bool,
    /// How long nothing may move in a tunnel.
    pub quiet: Duration,
}

impl Service {
    /// Serves a redirected connection to its end.
    pub(super) async fn redirected(
        self: &Arc<Self>,
        transparent: &Transparent,
        stream: Stream,
        drain: Bell,
        cut: Bell,
    ) {
        match stream.tcp().and_then(destination) {
            None => self.passed(None, "not-redirected", Instant::now()),
            Some(address) => self.toward(address, transparent, stream, drain, cut).await,
        }
    }

    /// Serves a connection that was going to `address`.
    async fn toward(
        self: &Arc<Self>,
        address: SocketAddr,
        transparent: &Transparent,
        stream: Stream,
        mut drain: Bell,
        mut cut: Bell,
    ) {
        let born = Instant::now();
        let beginning = self.lead(transparent, stream, address, born);
        // Until it is known where it leads, nothing was asked.
        let Some(led) = drain.unless(Box::pin(beginning)).await else {
            return;
        };
        match led {
            Err(outcome) => self.passed(None, outcome, born),
            Ok(Led::Over) => {}
            Ok(Led::Blind(near, far)) => {
                let tunnel = Tunnel::open(self.proxy.clone(), None);
                cut.unless(tunnel.carry(near, far, transparent.quiet)).await;
            }
            Ok(Led::Served(beginning, http2)) => {
                let led = self.serve(*beginning, http2, drain, &mut cut).await;
                // It leads on by an upgrade alone.
                if let Some((stream, begun, passage)) = led {
                    Box::pin(self.go_through(stream, begun, passage, None, cut)).await;
                }
            }
        }
    }

    /// Where a connection leads, or why it ends here.
    async fn lead(
        &self,
        transparent: &Transparent,
        mut stream: Stream,
        address: SocketAddr,
        born: Instant,
    ) -> Result<Led, &'static str> {
        let deadline = born + self.patience.head;
        let bare = Target::parse(false, &address.to_string()).ok_or("not-redirected")?;
        let bare = bare.at(address);
        let mut begun = BytesMut::new();
        let opening = self.opening(transparent.silent, &mut stream, &mut begun, &bare);
        let opening = timeout_at(deadline, opening).await;
        let opening = opening.map_err(|_| match begun.is_empty() {
            true => "silent",
            false => "timeout",
        })??;
        match opening {
            Opening::Client(First::Unreadable) => {
                let _ = timeout_at(deadline, Alert::DecodeError.tell(&mut stream)).await;
                Err(Ungreeted::HANDSHAKE)
            }
            Opening::Server(_) | Opening::Client(First::Other)
                if self.proxy.covers(&bare.authority()) =>
            {
                Err(Code::NotTls.word())
            }
            Opening::Server(far) => {
                self.uncovered()?;
                Ok(Led::Blind(stream.again(begun), far))
            }
            Opening::Client(First::Other) => {
                self.uncovered()?;
                let far = self.dial(&bare).await?;
                Ok(Led::Blind(stream.again(begun), far))
            }
            Opening::Client(First::Http) => {
                let http2 = self.shows_http2(&mut stream, &mut begun, deadline).await;
                let client = stream.client();
                let beginning = Beginning {
                    stream,
                    begun,
                    born,
                    client,
                    upstream: None,
                    address: Some(address),
                };
                Ok(Led::Served(Box::new(beginning), http2))
            }
            Opening::Client(First::Tls(name)) => {
                let target = match &name {
                    Some(name) => Target::parse(true, &format!("{name}:{}", address.port())),
                    None => Target::parse(true, &address.to_string()),
                };
                let target = target.ok_or(Code::Target.word())?.at(address);
                if !self.proxy.covers(&target.authority()) {
                    self.uncovered()?;
                    let far = self.dial(&target).await?;
                    return Ok(Led::Blind(stream.again(begun), far));
                }
                let authority = &transparent.authority;
                if !authority.vouches_for(target.host()) {
                    return Err(Code::NotVouched.word());
                }
                let upstream = match self.proxy.upstream_for(&target).await {
                    Some(Ok(upstream)) => upstream,
                    Some(Err(error)) => return Err(error.code().word()),
                    None => return Err(Code::Internal.word()),
                };
                let host = target.host();
                let within = self.intercept(authority, stream, begun, host, upstream, None);
                Ok(match within.await {
                    Some((beginning, http2)) => Led::Served(Box::new(beginning), http2),
                    None => Led::Over,
                })
            }
        }
    }

    /// Who speaks first, and what it is. `silent`: that may be the server. What was read of the client stays in `begun`.
    async fn opening(
        &self,
        silent: bool,
        stream: &mut Stream,
        begun: &mut BytesMut,
        bare: &Target,
    ) -> Result<Opening, &'static str> {
        if silent && let Some(far) = self.outspoken(stream, begun, bare).await? {
            return Ok(Opening::Server(far));
        }
        look(stream, begun).await.map(Opening::Client)
    }

    /// A server that speaks before its client does, and no HTTP. `None`: the client has spoken, or it may be no more than slow, while its server
    /// closed a connection on which nothing came, or said what one of HTTP may.
    async fn outspoken(
        &self,
        stream: &mut Stream,
        begun: &mut BytesMut,
        bare: &Target,
    ) -> Result<Option<TcpStream>, &'static str> {
        let read = timeout(SILENT_FOR, stream.read_buf(begun)).await;
        if let Ok(read) = read {
            return read.map(|_| None).map_err(|_| "gone");
        }
        let far = self.dial(bare).await?;
        tokio::select! {
            biased;
            read = stream.read_buf(begun) => {
                return read.map(|_| None).map_err(|_| "gone");
            }
            spoken = far.readable() => spoken.map_err(|_| "gone")?,
        }
        let mut heard = [0; HEARD_BYTES];
        let count = far.peek(&mut heard).await.map_err(|_| "gone")?;
        Ok((!may_be_http(&heard[..count])).then_some(far))
    }

    /// Whether what no policy names may pass.
    fn uncovered(&self) -> Result<(), &'static str> {
        match self.proxy.is_covered_only() {
            true => Err(Code::Uncovered.word()),
            false => Ok(()),
        }
    }

    async fn dial(&self, target: &Target) -> Result<TcpStream, &'static str> {
        match self.proxy.dial(target).await {
            Some(dialled) => dialled.map_err(|error| error.code().word()),
            None => Err(Code::Internal.word()),
        }
    }
}

/// Who has spoken first.
enum Opening {
    Client(First),
    /// It was dialled to hear it.
    Server(TcpStream),
}

/// What becomes of a connection.
enum Led {
    Blind(Stream, TcpStream),
    Served(Box<Beginning>, bool),
    /// It is over, and on record.
    Over,
}

/// Where a redirected connection was going. `None`: it was going here.
fn destination(stream: &TcpStream) -> Option<SocketAddr> {
    let local = stream.local_addr().ok()?;
    let original = match local.ip().to_canonical() {
        IpAddr::V4(_) => SocketAddr::V4(sockopt::ip_original_dst(stream).ok()?),
        IpAddr::V6(_) => SocketAddr::V6(sockopt::ipv6_original_dst(stream).ok()?),
    };
    let here = (local.ip().to_canonical(), local.port());
    (here != (original.ip().to_canonical(), original.port())).then_some(original)
}

#[cfg(test)]
mod tests;
