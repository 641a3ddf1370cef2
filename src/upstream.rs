//! The service behind the agent: a pool of connections to it, HTTP/1.1 or HTTP/2, over TCP or TLS, and the addresses that are
//! never connected to.
//!
//! Nothing that may have been taken is sent twice: only a request that a pooled connection closed on before its first byte was
//! written is given to another connection, and one of which the upstream itself says that it did nothing with it. Safe methods,
//! which have no effects, are sent again where nobody says.

mod addresses;
mod again;
mod connect;
mod dial;
mod hosts;
mod lanes;
mod progress;
mod settings;
mod target;
mod targets;
mod tls;

pub use crate::tls::Roots;
pub use addresses::OwnAddresses;
pub use again::Again;
pub use dial::can_mark;
pub use hosts::Upstreams;
pub use lanes::Place;
pub use progress::Progress;
pub use settings::{BadSettings, Settings, Speak};
pub use target::{Target, host_name};
pub use targets::Targets;

use crate::error::{Code, Error};
use crate::tls::protocols;
use again::{Failure, REPEATS_MAX, Spare};
use bytes::Bytes;
use connect::{ConnectError, Connector, Ready, Spoken};
use dial::Dialer;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use lanes::Lanes;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tower::Service as _;

/// Bytes of an answer that an HTTP/2 upstream may send ahead of their being taken: on one stream, and on all.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes of an answer's head, as HTTP/2 counts them (RFC 9113 section 6.5.2).
const HEAD_BYTES_MAX: u32 = 64 << 10;

/// One upstream, for requests with bodies of type `B`.
pub struct Upstream<B> {
    lanes: Arc<Lanes<B>>,
    /// What they connect with.
    connector: Connector,
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
    response: Duration,
    spoken: Arc<Spoken>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

// Derived, it would want bodies to be `Clone`.
impl<B> Clone for Upstream<B> {
    fn clone(&self) -> Upstream<B> {
        Upstream {
            lanes: self.lanes.clone(),
            connector: self.connector.clone(),
            scheme: self.scheme.clone(),
            authority: self.authority.clone(),
            host: self.host.clone(),
            response: self.response,
            spoken: self.spoken.clone(),
            tls: self.tls.clone(),
        }
    }
}

impl<B> Upstream<B>
where
    B: Body<Data = Bytes> + Again + Send + Unpin + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The URL is not plain http or https, or there are no roots to trust.
    pub fn new(settings: Settings, own: OwnAddresses) -> Result<Upstream<B>, BadSettings> {
        let bad = |what: &str| BadSettings(format!("upstream {}: {what}", settings.url));
        let scheme = settings
            .url
            .scheme()
            .filter(|s| **s == Scheme::HTTP || **s == Scheme::HTTPS);
        let scheme = scheme
            .cloned()
            .ok_or_else(|| bad("the URL begins with http:// or https://"))?;
        let authority = settings
            .url
            .authority()
            .cloned()
            .ok_or_else(|| bad("the URL has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("the URL has a user"));
        }
        if !matches!(
            settings.url.path_and_query().map(PathAndQuery::as_str),
            None | Some("/")
        ) {
            return Err(bad("the URL has a path"));
        }
        let tls = match scheme == Scheme::HTTPS {
            true => Some(Arc::new(tls::config(&settings)?)),
            false => None,
        };
        let dialer = Dialer {
            connect: settings.connect,
            loopback: settings.loopback,
            own,
            address: None,
            mark: settings.mark,
        };
        Upstream::build(&settings, scheme, authority, tls, dialer)
    }

    /// Of settings that were checked.
    fn build(
        settings: &Settings,
        scheme: Scheme,
        authority: Authority,
        tls: Option<Arc<rustls::ClientConfig>>,
        dialer: Dialer,
    ) -> Result<Upstream<B>, BadSettings> {
        let bad = |what: &str| BadSettings(format!("upstream {authority}: {what}"));
        let host =
            HeaderValue::from_str(authority.as_str()).map_err(|_| bad("the host is malformed"))?;
        let spoken = Arc::new(Spoken::default());
        if settings.speak == Speak::Http2 {
            spoken.note(true);
        }
        let connector = Connector {
            speak: settings.speak,
            spoken: spoken.clone(),
            tls: tls.clone().map(TlsConnector::from),
            dialer,
            // Later than whoever waits for the answer is told.
            write: settings.response.saturating_mul(2),
            ready: Ready::default(),
        };
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(settings.idle_connections)
            .timer(TokioTimer::new())
            .http2_only(settings.speak == Speak::Http2)
            .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_max_header_list_size(HEAD_BYTES_MAX)
            // Where the version is not known before: see `may_multiplex`.
            .set_host(true)
            .retry_canceled_requests(true);
        Ok(Upstream {
            lanes: Arc::new(Lanes::new(&builder, settings.idle, connector.clone())),
            connector,
            scheme,
            authority,
            host,
            response: settings.response,
            spoken,
            tls,
        })
    }

    /// Host and port, as in the URL.
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }
    /// Whether a request is for this upstream: what it names as its host, if anything, and as its scheme. A default port may be stated.
    pub fn is_for(&self, head: &http::request::Parts) -> bool {
        if head
            .uri
            .scheme()
            .is_some_and(|scheme| *scheme != self.scheme)
        {
            return false;
        }
        let field = || {
            head.headers
                .get(http::header::HOST)
                .map(HeaderValue::to_str)
        };
        let host = match head.uri.authority() {
            Some(authority) => authority.as_str(),
            None => match field() {
                Some(Ok(host)) => host,
                Some(Err(_)) => return false,
                None => return true,
            },
        };
        let tls = self.scheme == Scheme::HTTPS;
        host.eq_ignore_ascii_case(self.authority.as_str())
            || Target::parse(tls, host)
                .is_some_and(|target| target.authority() == self.authority.as_str())
    }
    /// The Host header that goes with it.
    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Whether the next request will likely go over HTTP/2: the last connection was one. (Which connection carries a
    /// request, the pool alone knows.)
    pub fn is_multiplexed(&self) -> bool {
        self.spoken.is_http_2()
    }

    /// Whether the next request may go over HTTP/2, which has the host in `:authority`: some servers refuse a Host field beside that.
    pub fn may_multiplex(&self) -> bool {
        match self.connector.speak {
            Speak::Either => self.tls.is_some(),
            Speak::Http1 => false,
            Speak::Http2 => true,
        }
    }

    /// Connects now, to the end of the TLS handshake; the connection is for the first request, if that comes soon. So a client
    /// can be told at once what stands in the way, and [`Upstream::is_multiplexed`] is known.
    ///
    /// # Errors
    /// One of the `upstream-*` codes, or [`Code::Busy`].
    pub async fn prepare(&self) -> Result<(), Error> {
        self.connector.prepare(&self.uri(None)?).await
    }

    /// How long an answer's head may take, and then its body where it is held.
    pub fn patience(&self) -> Duration {
        self.response
    }

    /// The absolute URI of a request for `target`.
    fn uri(&self, target: Option<&PathAndQuery>) -> Result<Uri, Error> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(
            target
                .cloned()
                .unwrap_or_else(|| PathAndQuery::from_static("/")),
        );
        Uri::from_parts(parts).map_err(|_| Code::Target.into())
    }

    /// Sends a request and waits for the answer's head, until `deadline` at most; `progress` is that of its body. It may
    /// be without a Host field, and is to be where it [may go over HTTP/2](Upstream::may_multiplex).
    /// Dropping the future gives the request up, and its connection. The answer may have a [`Place`] among its extensions, which is to
    /// be kept as long as its body.
    ///
    /// # Errors
    /// One of the `upstream-*` codes: no connection was to be had, the upstream is silent, or it speaks something else;
    /// [`Code::ExchangeTimeout`].
    pub fn send(
        &self,
        mut request: Request<B>,
        progress: &Progress,
        deadline: Instant,
    ) -> impl Future<Output = Result<Response<Incoming>, Error>> + Send {
        // Not within the future, which would keep the request's place while it waits.
        let sent = self.uri(request.uri().path_and_query()).map(|uri| {
            *request.uri_mut() = uri;
            let may_repeat = self.is_multiplexed() || request.method().is_safe();
            let spare = may_repeat.then(|| Spare::of(&mut request));
            (self.begin(request), spare)
        });
        async move {
            let (sent, spare) = sent?;
            match (self.answer(sent, progress, deadline).await, spare) {
                (Ok(answer), _) => Ok(answer),
                (Err(failure), None) => Err(failure.error),
                // Boxed: it is rare.
                (Err(failure), Some(spare)) => {
                    Box::pin(self.send_again(spare, failure, progress, deadline)).await
                }
            }
        }
    }

    fn begin(&self, mut request: Request<B>) -> (ResponseFuture, Option<Place>) {
        // The pool's connections decide.
        *request.version_mut() = http::Version::HTTP_11;
        let http_2 = self.may_multiplex() && !self.spoken.is_http_1();
        self.lanes.begin(request, http_2)
    }

    /// Waits for an answer's head.
    async fn answer(
        &self,
        (mut answer, place): (ResponseFuture, Option<Place>),
        progress: &Progress,
        deadline: Instant,
    ) -> Result<Response<Incoming>, Failure> {
        // The clock runs while nothing moves: a long upload is not a late answer.
        let mut moved = progress.moved();
        loop {
            let until = deadline.min(Instant::now() + self.response);
            match timeout_at(until, &mut answer).await {
                Ok(answer) => {
                    let mut answer = answer.map_err(|error| failed(&error))?;
                    place.and_then(|place| answer.extensions_mut().insert(place));
                    return Ok(answer);
                }
                Err(_) if until == deadline => return Err(Code::ExchangeTimeout.into()),
                Err(_) if progress.moved() != moved => moved = progress.moved(),
                Err(_) => return Err(Code::UpstreamTimeout.into()),
            }
        }
    }

    /// Sends a request that failed once more, and if need be once again, where it may be.
    async fn send_again(
        &self,
        mut spare: Box<Spare<B>>,
        mut failure: Failure,
        progress: &Progress,
        deadline: Instant,
    ) -> Result<Response<Incoming>, Error> {
        for _ in 0..REPEATS_MAX {
            if !spare.may_follow(&failure) {
                break;
            }
            let until = deadline.min(Instant::now() + self.response);
            let Ok(Some(mut request)) = timeout_at(until, spare.request()).await else {
                break;
            };
            spare = Spare::of(&mut request);
            let why = failure.error.code().row().word;
            tracing::debug!(upstream = self.authority(), why, "sent again");
            match self.answer(self.begin(request), progress, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failure = error,
            }
        }
        Err(failure.error)
    }

    /// Sends a request without a body on a connection of its own, of HTTP/1.1, which may leave HTTP behind the answer
    /// (RFC 9110 section 7.8). It ends with the answer, or with what follows it.
    ///
    /// # Errors
    /// As [`Upstream::send`]; [`Code::UpgradeUnspoken`].
    pub async fn send_alone(
        &self,
        mut request: Request<B>,
        deadline: Instant,
    ) -> Result<Response<Incoming>, Error> {
        if self.connector.speak == Speak::Http2 {
            return Err(Code::UpgradeUnspoken.into());
        }
        let tls = self.tls.as_deref().cloned().map(|mut config| {
            config.alpn_protocols = protocols(false);
            TlsConnector::from(Arc::new(config))
        });
        let mut alone = Connector {
            tls,
            speak: Speak::Http1,
            spoken: Arc::default(),
            // What was made ahead may be HTTP/2 where TLS is spoken.
            ready: match self.tls {
                Some(_) => Ready::default(),
                None => self.connector.ready.clone(),
            },
            ..self.connector.clone()
        };
        let uri = self.uri(request.uri().path_and_query())?;
        *request.uri_mut() = uri
            .path_and_query()
            .map_or(Uri::from_static("/"), |target| target.clone().into());
        *request.version_mut() = http::Version::HTTP_11;
        let stream = alone.call(uri).await.map_err(|error| error.0)?;
        let answer = async {
            let (mut sender, connection) = http1::handshake(stream).await?;
            // It ends with its last user: the sender, the answer's body, or what follows a switch.
            tokio::spawn(connection.with_upgrades());
            sender.send_request(request).await
        };
        let until = deadline.min(Instant::now() + self.response);
        match timeout_at(until, answer).await {
            Ok(answer) => answer.map_err(|error| Failure::of(&error).error),
            Err(_) if until == deadline => Err(Code::ExchangeTimeout.into()),
            Err(_) => Err(Code::UpstreamTimeout.into()),
        }
    }
}

/// What kept an answer from coming, and whether the request may have been taken.
fn failed(error: &hyper_util::client::legacy::Error) -> Failure {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(refused) = cause.downcast_ref::<ConnectError>() {
            return refused.0.clone().into();
        }
        if let Some(cause) = cause.downcast_ref::<hyper::Error>() {
            return Failure::of(cause);
        }
        source = cause.source();
    }
    Code::UpstreamBroken.because("the connection failed").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_make_no_upstream() {
        for url in [
            "ftp://example.com",
            "http://user@example.com",
            "http://example.com/base",
            "/path",
            "example.com",
        ] {
            let settings = Settings::new(url.parse().expect("parses"));
            assert!(
                Upstream::<http_body_util::Empty<Bytes>>::new(settings, OwnAddresses::default())
                    .is_err(),
                "{url}"
            );
        }
        for pem in [
            &b""[..],
            b"nonsense",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let mut settings = Settings::new("https://example.com".parse().expect("parses"));
            settings.roots = Roots::Pem(pem.to_vec());
            assert!(
                Upstream::<http_body_util::Empty<Bytes>>::new(settings, OwnAddresses::default())
                    .is_err()
            );
        }
    }
}
