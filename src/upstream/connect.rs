//! One connection to the upstream: [dialled](super::dial), with TLS on top where the URL says so, all within one deadline.
//!
//! No byte of a request goes out here.

use super::Speak;
use super::dial::{Dialer, give_up_on_silence};
use crate::error::{Code, Error};
use crate::tls::H2;
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service;

/// Why there is no connection; carries the error through the pool.
#[derive(Debug)]
pub(super) struct ConnectError(pub(super) Error);

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for ConnectError {}

/// Which version of HTTP the latest connection speaks, if there was one to tell by.
#[derive(Debug, Default)]
pub(super) struct Spoken(AtomicU8);

const HTTP_1: u8 = 1;
const HTTP_2: u8 = 2;

impl Spoken {
    pub(super) fn note(&self, http_2: bool) {
        self.0.store(if http_2 { HTTP_2 } else { HTTP_1 }, Relaxed);
    }
    pub(super) fn is_http_1(&self) -> bool {
        self.0.load(Relaxed) == HTTP_1
    }
    pub(super) fn is_http_2(&self) -> bool {
        self.0.load(Relaxed) == HTTP_2
    }
}

/// Resolves, checks, connects, and speaks TLS where the URL says so.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) tls: Option<TlsConnector>,
    pub(super) speak: Speak,
    /// Told what the latest connection speaks.
    pub(super) spoken: Arc<Spoken>,
    pub(super) dialer: Dialer,
    /// For the upstream to take the next byte, whether or not somebody still waits for its answer.
    pub(super) write: Duration,
    /// A connection that was made ahead of the first request, and when.
    pub(super) ready: Ready,
}

/// A connection that was made before there was a request for it.
pub(super) type Ready = Arc<Mutex<Option<(Instant, Stream)>>>;

/// So long a connection is worth a request that it was made ahead of: some servers close what is silent soon.
const READY_FOR: Duration = Duration::from_secs(3);

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Stream>, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let made = connector.ready().take();
            if let Some((_, stream)) = made.filter(|(made, _)| made.elapsed() < READY_FOR) {
                return Ok(TokioIo::new(stream));
            }
            connector
                .connect(&uri)
                .await
                .map(TokioIo::new)
                .map_err(ConnectError)
        })
    }
}

impl Connector {
    fn ready(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Stream)>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects now; the connection is for the first request, if that comes soon.
    pub(super) async fn prepare(&self, uri: &Uri) -> Result<(), Error> {
        let stream = self.connect(uri).await?;
        *self.ready() = Some((Instant::now(), stream));
        Ok(())
    }

    async fn connect(&self, uri: &Uri) -> Result<Stream, Error> {
        let host = uri.host().unwrap_or_default();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let port = uri
            .port_u16()
            .unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let connecting = async {
            let stream = self.dialer.dial(host, port).await?;
            self.secure(stream, host).await
        };
        match timeout(self.dialer.connect, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(Code::UpstreamConnectTimeout.into()),
        }
    }

    async fn secure(&self, stream: TcpStream, host: &str) -> Result<Stream, Error> {
        let Some(tls) = &self.tls else {
            if self.speak == Speak::Http2 {
                give_up_on_silence(&stream);
            }
            return Ok(Stream::new(Inner::Plain(stream), self.write));
        };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Code::UpstreamTls.because("not a server name"))?;
        let stream = tls.connect(name, stream).await.map_err(|error| {
            // rustls' texts name certificates' problems and no data.
            no_tls(&error).because(error.to_string())
        })?;
        let multiplexed = stream.get_ref().1.alpn_protocol() == Some(H2);
        if self.speak == Speak::Http2 && !multiplexed {
            return Err(Code::UpstreamTls.because("the upstream does not negotiate HTTP/2"));
        }
        if multiplexed {
            give_up_on_silence(stream.get_ref().0);
        }
        self.spoken.note(multiplexed);
        Ok(Stream::new(Inner::Tls(Box::new(stream)), self.write))
    }
}

/// Which code a handshake's failure has: what answers with no record of TLS, or hangs up on one, does not speak it.
fn no_tls(error: &io::Error) -> Code {
    let inner = error.get_ref();
    match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        None | Some(rustls::Error::InvalidMessage(_)) => Code::UpstreamNotTls,
        Some(_) => Code::UpstreamTls,
    }
}

/// A connection to the upstream. One that does not take what is written fails in time: when nobody waits for an answer
/// any more, nothing else would end it, and what is to be written would stay in memory.
pub(super) struct Stream {
    inner: Inner,
    write: Duration,
    /// Runs while a write is pending.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    fn new(inner: Inner, write: Duration) -> Stream {
        Stream {
            inner,
            write,
            stalled: None,
        }
    }

    /// What a write came to, or that it has been pending for too long.
    fn in_time<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let write = self.write;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(write)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

enum Inner {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match &self.inner {
            Inner::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(H2) => {
                Connected::new().negotiated_h2()
            }
            _ => Connected::new(),
        }
    }
}

macro_rules! either {
    ($stream:expr, $inner:ident => $call:expr) => {
        match &mut $stream.inner {
            Inner::Plain($inner) => $call,
            Inner::Tls($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = either!(self, inner => Pin::new(inner).poll_write(cx, buf));
        self.in_time(cx, written)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = either!(self, inner => Pin::new(inner).poll_write_vectored(cx, bufs));
        self.in_time(cx, written)
    }
    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Inner::Plain(inner) => inner.is_write_vectored(),
            Inner::Tls(inner) => inner.is_write_vectored(),
        }
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = either!(self, inner => Pin::new(inner).poll_flush(cx));
        self.in_time(cx, written)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpSocket;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_connection_of_http_2_is_not_waited_for_when_its_other_side_is_gone() {
        use super::super::OwnAddresses;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let uri = format!("http://{}", listener.local_addr().expect("bound"));
        for (speak, seconds) in [(Speak::Http2, Some(35)), (Speak::Either, None)] {
            let connector = Connector {
                tls: None,
                speak,
                spoken: Arc::default(),
                dialer: Dialer {
                    connect: Duration::from_secs(9),
                    loopback: true,
                    own: OwnAddresses::default(),
                    address: None,
                    mark: None,
                },
                write: Duration::from_secs(9),
                ready: Ready::default(),
            };
            let stream = connector.connect(&uri.parse().expect("a URI")).await;
            let Inner::Plain(stream) = stream.expect("connected").inner else {
                panic!("without TLS");
            };
            let timeout = socket2::SockRef::from(&stream).tcp_user_timeout();
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(timeout.expect("read"), expected, "{speak:?}");
        }
    }

    #[tokio::test]
    async fn an_upstream_that_takes_nothing_is_given_up() {
        // The kernel would take a lot, and ever more, if it were let.
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(64 << 10).expect("set");
        let any = "127.0.0.1:0".parse().expect("an address");
        socket.bind(any).expect("a port");
        let socket = socket.listen(1).expect("listening");
        let address = socket.local_addr().expect("bound");
        let stream = TcpStream::connect(address).await.expect("connected");
        let (mut other, _) = socket.accept().await.expect("accepted");
        let write = Duration::from_secs(1);
        let mut stream = Stream::new(Inner::Plain(stream), write);
        // A pause that ends in time is none.
        let body = vec![b'x'; 16 << 20];
        let reading = tokio::spawn(async move {
            let mut taken = vec![0; 16 << 20];
            for piece in taken.chunks_mut(6 << 20) {
                tokio::time::sleep(Duration::from_millis(100)).await;
                other.read_exact(piece).await.expect("read");
            }
            other
        });
        stream.write_all(&body).await.expect("taken");
        let _other = reading.await.expect("read");
        let begun = Instant::now();
        let error = stream.write_all(&body).await.expect_err("not taken");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= write);
    }
}
