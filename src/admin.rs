//! The edges towards operators: probes and metrics for everybody who reaches their port, and the admin API behind a
//! bearer token.
//!
//! Both are small servers of their own; nothing of the application's traffic comes here, and the data path never
//! connects here. What is served tells names, counts and times, never key material or a value. `/livez` asks nobody:
//! an agent that cannot reach its KMS must not be restarted, for it would lose the keys that it has.

mod answers;
mod readiness;
mod reloading;

pub use readiness::{Checks, Readiness};
pub use reloading::{Finding, Outcome, Reload, Reloaded};

use crate::keys::Keys;
use crate::metrics::Metrics;
use answers::{Problem, problem};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections at once; further ones wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 64;
/// For one connection, from accept to the answer's last byte: each carries one request.
const PATIENCE: Duration = Duration::from_secs(10);
/// For the head of its request.
const PATIENCE_HEAD: Duration = Duration::from_secs(5);
/// A request's head and what is kept of it.
const BUFFER_BYTES_MAX: usize = 16 << 10;
/// A request's body is read to its end, and not looked at.
const BODY_BYTES_MAX: usize = 16 << 10;
/// How long open connections may go on when the server is told to stop.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// After a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// The shortest token that is accepted from an operator, in bytes.
pub const TOKEN_LEN_MIN: usize = 16;

/// The admin API's bearer token, as its digest: the token itself is not kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// A token's text, without white space around it. None: it is shorter than [`TOKEN_LEN_MIN`], or not what a header
    /// can carry (RFC 6750, `b64token`).
    pub fn new(text: &[u8]) -> Option<Token> {
        let text = text.trim_ascii();
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
        (text.len() >= TOKEN_LEN_MIN && text.iter().all(fits)).then(|| Token::digest(text))
    }

    fn digest(text: &[u8]) -> Token {
        Token(Sha256::digest(text).into())
    }

    /// Whether `text` is this token, in a time that depends on neither: digests are compared, and all of them.
    fn is(&self, text: &[u8]) -> bool {
        let other = Token::digest(text);
        let pairs = self.0.iter().zip(&other.0);
        std::hint::black_box(pairs.fold(0, |differs, (a, b)| differs | (a ^ b))) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What a server shows.
#[derive(Clone)]
pub struct Face {
    /// For `/readyz`.
    pub readiness: Arc<Readiness>,
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// The admin API: whoever asks for anything must have the token. None: probes alone, for everybody.
    pub admin: Option<(Token, Keys)>,
    /// Asked by the admin API to read the policies again.
    pub reload: Option<Arc<dyn Reload>>,
}

/// A listening socket and what is shown there.
pub struct Server {
    socket: TcpListener,
    face: Arc<Shown>,
}

struct Shown {
    face: Face,
    /// A page from elsewhere, whose name was made to resolve to this address, is told by its Host.
    only_local_names: bool,
}

impl Server {
    /// Errors: the socket has no address.
    pub fn new(socket: TcpListener, face: Face) -> io::Result<Server> {
        let only_local_names = face.admin.is_some() || socket.local_addr()?.ip().is_loopback();
        Ok(Server {
            socket,
            face: Arc::new(Shown {
                face,
                only_local_names,
            }),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `stop` turns true, or its sender is gone. Nothing of it runs any more when this returns.
    pub async fn serve(self, mut stop: watch::Receiver<bool>) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut tasks = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                Some(_) = tasks.join_next() => continue,
                accepted = accept(&self.socket, &permits) => accepted,
            };
            match accepted {
                Ok((stream, permit)) => {
                    tasks.spawn(connection(stream, Arc::clone(&self.face), permit));
                }
                // The next one may be well; out of file descriptors, it is not at once.
                Err(_) => sleep(PAUSE).await,
            }
        }
        let finished = async { while tasks.join_next().await.is_some() {} };
        if timeout(LAST_ANSWERS, finished).await.is_err() {
            tasks.shutdown().await;
        }
    }
}

async fn accept(
    socket: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = socket.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, permit))
}

async fn connection(stream: TcpStream, shown: Arc<Shown>, permit: OwnedSemaphorePermit) {
    let service = service_fn(|request: Request<Incoming>| {
        let shown = Arc::clone(&shown);
        async move {
            let (head, body) = request.into_parts();
            read_over(body).await;
            Ok::<_, Infallible>(shown.answer(&head).await)
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE_HEAD)
        .max_buf_size(BUFFER_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // How it ends is nobody's concern here.
    let _ = timeout(PATIENCE, serving).await;
    drop(permit);
}

/// What is left unread when a connection closes makes the kernel throw away the answer.
async fn read_over(mut body: Incoming) {
    let mut left = BODY_BYTES_MAX;
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// A host that no other site can make its own: an address, or `localhost`.
fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

impl Shown {
    async fn answer(&self, head: &Parts) -> Response<Full<Bytes>> {
        match self.try_answer(head).await {
            Ok(answer) => answer,
            Err(refused) => problem(refused),
        }
    }

    async fn try_answer(&self, head: &Parts) -> Result<Response<Full<Bytes>>, Problem> {
        self.check_host(head)?;
        if let Some((token, _)) = &self.face.admin {
            let given = bearer(head).ok_or(Problem::Unauthorized)?;
            if !token.is(given) {
                return Err(Problem::Unauthorized);
            }
        }
        let path: Vec<&str> = head.uri.path().split('/').skip(1).collect();
        let face = &self.face;
        match (&path[..], &face.admin) {
            (["livez"], _) => read_only(head).map(|()| answers::live()),
            (["readyz"], _) => {
                read_only(head).map(|()| answers::ready(&face.readiness.look(), head))
            }
            (["metrics"], _) => read_only(head).map(|()| answers::metrics(face.metrics.encode())),
            (["api", "v1", "keys"], Some((_, keys))) => {
                read_only(head).map(|()| answers::keys(&keys.states()))
            }
            (["api", "v1", "keys", key, "purge"], Some((_, keys))) => {
                if head.method != Method::POST {
                    return Err(Problem::Method("POST"));
                }
                let purged = keys.purge(key).ok_or(Problem::UnknownKey)?;
                tracing::warn!(
                    key,
                    purged,
                    "data keys let go of: the admin API was asked to"
                );
                Ok(answers::purged(key, purged))
            }
            (["-", "reload"], Some(_)) => {
                if head.method != Method::POST {
                    return Err(Problem::Method("POST"));
                }
                let reload = face.reload.as_ref().ok_or(Problem::NotFound)?;
                let reloaded = reload.reload().await.ok_or(Problem::Ending)?;
                Ok(answers::reloaded(&reloaded))
            }
            _ => Err(Problem::NotFound),
        }
    }

    fn check_host(&self, head: &Parts) -> Result<(), Problem> {
        let mut hosts = head.headers.get_all(HOST).iter();
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(Problem::Host);
        }
        let host = host
            .map(|host| host.to_str().map_err(|_| Problem::Host))
            .transpose()?;
        let target = head.uri.authority().map(http::uri::Authority::as_str);
        let named = host.into_iter().chain(target);
        // Without any (HTTP/1.0), there is no name to be deceived by.
        if self.only_local_names && named.into_iter().any(|host| !is_local_name(host)) {
            return Err(Problem::Misdirected);
        }
        Ok(())
    }
}

fn read_only(head: &Parts) -> Result<(), Problem> {
    if matches!(head.method, Method::GET | Method::HEAD) {
        Ok(())
    } else {
        Err(Problem::Method("GET, HEAD"))
    }
}

/// The token of the one `Authorization: Bearer` (RFC 6750).
fn bearer(head: &Parts) -> Option<&[u8]> {
    let mut values = head.headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?.as_bytes(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests;
