//! What an upstream is made with.

use crate::tls::{Identity, Roots};
use http::Uri;
use std::error::Error as StdError;
use std::time::Duration;

/// Which version of HTTP an upstream is spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speak {
    /// HTTP/2 where TLS negotiates it (ALPN), HTTP/1.1 otherwise.
    #[default]
    Either,
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 alone; over plain TCP by prior knowledge (RFC 9113 section 3.3).
    Http2,
}

/// What one upstream is made with. [`Settings::new`] fills in all but the URL.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `http://host[:port]` or `https://host[:port]`, without a path.
    pub url: Uri,
    /// Used for https alone.
    pub roots: Roots,
    /// Shown to an upstream that asks for it (mutual TLS); used for https alone.
    pub identity: Option<Identity>,
    /// In which version of HTTP.
    pub speak: Speak,
    /// For name resolution, TCP and TLS together.
    pub connect: Duration,
    /// For the answer's head, counted anew while the request's body moves: a silent upstream is given up between once
    /// and twice this time after the last frame.
    pub response: Duration,
    /// How long an unused connection is kept; none: 4 s, one of HTTP/2 50 s.
    pub idle: Option<Duration>,
    /// Unused connections that are kept.
    pub idle_connections: usize,
    /// Whether 127.0.0.0/8 and ::1 may be connected to. (The agent's own listeners never are.)
    pub loopback: bool,
    /// The mark of its sockets (SO_MARK), by which rules of the kernel know them; see [`can_mark`](super::can_mark).
    pub mark: Option<u32>,
}

impl Settings {
    /// System roots, no client certificate, either version, 5 s to connect, 60 s to answer, 512 idle connections, loopback allowed.
    pub fn new(url: Uri) -> Settings {
        Settings {
            url,
            roots: Roots::System,
            identity: None,
            speak: Speak::Either,
            connect: Duration::from_secs(5),
            response: Duration::from_secs(60),
            idle: None,
            idle_connections: 512,
            loopback: true,
            mark: None,
        }
    }
}

/// How long an unused connection is kept by default: less long than servers keep theirs. A request that crosses a server's end of its
/// connection fails, and who sent it cannot know whether it took effect. Many servers keep five seconds.
pub(super) const IDLE_DEFAULT: Duration = Duration::from_secs(4);
/// The same of HTTP/2, whose end says which requests were taken (RFC 9113 section 6.8).
pub(super) const IDLE_HTTP_2_DEFAULT: Duration = Duration::from_secs(50);

/// Why settings make no upstream. For the operator; it holds what the settings say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSettings(pub String);

impl std::fmt::Display for BadSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for BadSettings {}
