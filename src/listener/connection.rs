//! One accepted connection, from its first byte: TLS where the listener has it, then the version of HTTP that it
//! speaks, all within the time for the first head.

use super::bell::Bell;
use super::stream::{Client, Stream};
use super::{Gauges, Open, Patience, http1, http2, version};
use crate::proxy::Proxy;
use crate::tls::H2;
use bytes::BytesMut;
use std::sync::Arc;
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
        };
        if http2 {
            let mut streams = http2::Streams::new(&self);
            cut.unless(Box::pin(streams.serve(beginning, drain))).await;
            streams.end().await;
        } else {
            cut.unless(http1::serve(&self, beginning, drain)).await;
        }
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
}
