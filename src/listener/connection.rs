//! One accepted connection, from its first byte: TLS where the listener has it, then the version of HTTP that it
//! speaks, all within the time for the first head.

use super::bell::Bell;
use super::first::TLS_HANDSHAKE;
use super::forward::Forward;
use super::stream::{Client, Stream};
use super::transparent::Transparent;
use super::tunnel::Tunnel;
use super::{Gauges, Open, Patience, http1, http2, version};
use crate::audit::{Passed, RequestId};
use crate::body::Body;
use crate::error::{Code, Error};
use crate::intercept::{Authority, Ungreeted};
use crate::proxy::{Passage, Proxy, Through};
use crate::tls::H2;
use crate::upstream::Upstream;
use bytes::BytesMut;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

/// What every connection of a listener is served with.
pub(super) struct Service {
    pub(super) proxy: Arc<Proxy>,
    pub(super) patience: Patience,
    pub(super) gauges: Arc<Gauges>,
    /// TLS comes first.
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) http2: bool,
    /// Requests at once on one connection of HTTP/2.
    pub(super) streams: u32,
    /// It is a forward proxy.
    pub(super) forward: Option<Forward>,
    /// Connections come redirected.
    pub(super) transparent: Option<Transparent>,
}

impl Service {
    /// Serves until the connection's end. `drain`: no new requests from now on. `cut`: not even those that have begun.
    pub(super) async fn run(
        self: Arc<Self>,
        stream: Stream,
        _permit: OwnedSemaphorePermit,
        drain: watch::Receiver<bool>,
        cut: watch::Receiver<bool>,
    ) {
        let _open = Open::one(&self.gauges, |gauges| &gauges.connections);
        let born = Instant::now();
        // Boxed, as everything is that an idle connection of HTTP/1.1 should not have to keep room for.
        let (mut drain, mut cut) = (Bell::new(drain), Bell::new(cut));
        if let Some(transparent) = &self.transparent {
            return Box::pin(self.redirected(transparent, stream, drain, cut)).await;
        }
        // When the drain begins, nothing was asked yet.
        let begun = drain.unless(Box::pin(self.begin(stream, born))).await;
        let Some((stream, begun, http2)) = begun.flatten() else {
            return;
        };
        let client = stream.client();
        let beginning = Beginning {
            stream,
            begun,
            born,
            client,
            upstream: None,
            address: None,
        };
        let behind = self.forward.as_ref().map(|_| drain.another());
        let led = self.serve(beginning, http2, drain, &mut cut).await;
        let Some((stream, begun, passage)) = led else {
            return;
        };
        // Seldom, and for long: no room for it in every connection's task.
        Box::pin(self.go_through(stream, begun, passage, behind, cut)).await;
    }

    /// Serves requests until the connection's end, or until one of them leads elsewhere.
    pub(super) async fn serve(
        self: &Arc<Self>,
        connection: Beginning,
        http2: bool,
        drain: Bell,
        cut: &mut Bell,
    ) -> Option<(Stream, BytesMut, Passage)> {
        if http2 {
            let mut streams = http2::Streams::new(self);
            cut.unless(Box::pin(streams.serve(connection, drain))).await;
            streams.end().await;
            return None;
        }
        cut.unless(http1::serve(self, connection, drain)).await?
    }

    /// What stands behind a CONNECT or an upgrade: bytes that go unseen, or TLS that ends here and requests within.
    /// `drain`: of a forward proxy.
    pub(super) async fn go_through(
        self: &Arc<Self>,
        stream: Stream,
        begun: BytesMut,
        passage: Passage,
        drain: Option<Bell>,
        mut cut: Bell,
    ) {
        let id = Some(passage.id);
        let to = match passage.to {
            Through::Switched(switched) => {
                // It counts as a request in flight as long as it is open.
                let _open = Open::one(&self.gauges, |gauges| &gauges.requests);
                let tunnel = Tunnel::open(self.proxy.clone(), id);
                let Ok(far) = switched.upstream.await else {
                    return;
                };
                let (near, far) = (stream.again(begun), TokioIo::new(far));
                cut.unless(tunnel.carry(near, far, switched.idle)).await;
                return;
            }
            to => to,
        };
        let (Some(forward), Some(drain)) = (&self.forward, drain) else {
            return;
        };
        match to {
            Through::Switched(_) => {}
            Through::Shown(shown) => {
                let met = self.meet(&forward.authority, stream, begun, *shown, id);
                let mut drain = drain;
                let within = drain.unless(met).await.flatten();
                self.within(within, drain, cut).await;
            }
            Through::Blind(far) => {
                let near = stream.again(begun);
                let tunnel = Tunnel::open(self.proxy.clone(), id);
                cut.unless(tunnel.carry(near, far, forward.quiet)).await;
            }
            Through::Within(host, upstream) => {
                let authority = &forward.authority;
                let intercepted = self.intercept(authority, stream, begun, &host, *upstream, id);
                // Nothing was asked yet.
                let mut drain = drain;
                let within = drain.unless(intercepted).await.flatten();
                self.within(within, drain, cut).await;
            }
        }
    }

    /// Serves what came behind a CONNECT.
    async fn within(
        self: &Arc<Self>,
        within: Option<(Beginning, bool)>,
        drain: Bell,
        mut cut: Bell,
    ) {
        let Some((beginning, http2)) = within else {
            return;
        };
        let led = self.serve(beginning, http2, drain, &mut cut).await;
        // It leads on by an upgrade alone.
        if let Some((stream, begun, passage)) = led {
            Box::pin(self.go_through(stream, begun, passage, None, cut)).await;
        }
    }

    /// Speaks TLS as `host` would with a client that opened a connection there, and says what it goes on in. `upstream` is where its requests go,
    /// whatever they say; its certificate has been verified. `begun`: what was read of the client's bytes. A connection that is not worth more is
    /// none; what became of it is on record, under the `id` of the access that opened it.
    pub(super) async fn intercept(
        &self,
        authority: &Authority,
        mut stream: Stream,
        mut begun: BytesMut,
        host: &str,
        upstream: Upstream<Body>,
        id: Option<RequestId>,
    ) -> Option<(Beginning, bool)> {
        let (born, client) = (Instant::now(), stream.client());
        let deadline = born + self.patience.head;
        let passed = |outcome| self.passed(id, outcome, born);
        let first = timeout_at(deadline, first_byte(&mut stream, &mut begun)).await;
        match first {
            Ok(Some(TLS_HANDSHAKE)) => {}
            Ok(Some(byte)) => {
                passed(Code::NotTls.word());
                // To whatever could read it: HTTP begins with a letter.
                if byte.is_ascii_alphabetic() {
                    let _ = timeout_at(deadline, say_not_tls(stream, id)).await;
                }
                return None;
            }
            Ok(None) => {
                passed(Ungreeted::Gone.word());
                return None;
            }
            Err(_) => {
                passed("timeout");
                return None;
            }
        }
        // A client of HTTP/2 is served one only where its upstream is.
        let http2 = self.http2 && upstream.is_multiplexed();
        let greeted = authority.greet(stream.again(begun), host, http2);
        let stream = match timeout_at(deadline, greeted).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(why)) => {
                match &why {
                    Ungreeted::Untrusting => tracing::warn!(
                        listener = &**self.proxy.listener(),
                        "a client does not trust the agent's CA: see `fieldveil ca trust`"
                    ),
                    Ungreeted::Handshake(what) => tracing::debug!(what, "TLS handshake"),
                    _ => {}
                }
                passed(why.word());
                return None;
            }
            Err(_) => {
                passed("timeout");
                return None;
            }
        };
        passed("intercepted");
        let http2 = stream.get_ref().1.alpn_protocol() == Some(H2);
        let beginning = Beginning {
            stream: Stream::Tls(Box::new(stream)),
            begun: BytesMut::new(),
            born: Instant::now(),
            client,
            upstream: Some(Arc::new(upstream)),
            address: None,
        };
        Some((beginning, http2))
    }

    /// What became of a connection that was not tunnelled, on record.
    pub(super) fn passed(&self, id: Option<RequestId>, outcome: &'static str, born: Instant) {
        self.proxy.passed(&Passed {
            id,
            listener: self.proxy.listener().clone(),
            outcome,
            sent_bytes: 0,
            received_bytes: 0,
            open: born.elapsed(),
        });
    }

    /// Whether what a client begins with, without TLS, is HTTP/2 where that is served; a client that does not say in time gets HTTP/1.1's answer.
    pub(super) async fn shows_http2(
        &self,
        stream: &mut Stream,
        begun: &mut BytesMut,
        deadline: Instant,
    ) -> bool {
        self.http2
            && matches!(
                timeout_at(deadline, version::is_http2(stream, begun)).await,
                Ok(Ok(true))
            )
    }

    /// TLS, and which version: the stream, what was read of it, and whether that is HTTP/2. A connection that is not
    /// worth an answer is none.
    async fn begin(&self, stream: Stream, born: Instant) -> Option<(Stream, BytesMut, bool)> {
        let deadline = born + self.patience.head;
        let mut begun = BytesMut::new();
        if let Some(tls) = &self.tls {
            let stream = match timeout_at(deadline, tls.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    // rustls' texts name what the handshake lacks and no data.
                    tracing::debug!(%error, "TLS handshake");
                    return None;
                }
                Err(_) => return None,
            };
            let http2 = stream.get_ref().1.alpn_protocol() == Some(H2);
            return Some((Stream::Tls(Box::new(stream)), begun, http2));
        }
        let mut stream = stream;
        if !self.http2 {
            return Some((stream, begun, false));
        }
        match timeout_at(deadline, version::is_http2(&mut stream, &mut begun)).await {
            Ok(Ok(http2)) => Some((stream, begun, http2)),
            Ok(Err(_)) => None,
            // Half a preface is half a head: the door says what there is to say.
            Err(_) if !begun.is_empty() => Some((stream, begun, false)),
            Err(_) => None,
        }
    }
}

/// A connection whose version is known.
pub(super) struct Beginning {
    pub(super) stream: Stream,
    /// Read already.
    pub(super) begun: BytesMut,
    /// When it was accepted.
    pub(super) born: Instant,
    pub(super) client: Client,
    /// Where all its requests go, whatever they say.
    pub(super) upstream: Option<Arc<Upstream<Body>>>,
    /// Where its requests go, whichever host they name: where it was going before it was redirected.
    pub(super) address: Option<SocketAddr>,
}

/// The first byte, which stays in `begun` with whatever came with it. None: the end.
async fn first_byte(stream: &mut Stream, begun: &mut BytesMut) -> Option<u8> {
    if begun.is_empty() {
        stream.read_buf(begun).await.ok()?;
    }
    begun.first().copied()
}

/// The one answer that is not written by hyper: to HTTP where TLS is due.
async fn say_not_tls(mut stream: Stream, id: Option<RequestId>) -> io::Result<()> {
    let answer = Error::from(Code::NotTls)
        .closing()
        .answer(id.unwrap_or(RequestId::from(0)));
    let (head, body) = answer.into_parts();
    let mut text = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    text.extend_from_slice(&body);
    stream.write_all(&text).await?;
    stream.shutdown().await?;
    // What it goes on to send is dropped, or the kernel might take the answer back.
    let mut scrap = [0; 4096];
    for _ in 0..16 {
        if stream.read(&mut scrap).await? == 0 {
            break;
        }
    }
    Ok(())
}
