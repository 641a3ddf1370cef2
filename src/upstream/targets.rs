//! Upstreams made from what clients name: for one connection alone, or from a bounded pool that all share.
//!
//! What the settings say of an upstream at the same URL (whom to trust, what to show, how long to wait) holds for it here, too.

use super::dial::Dialer;
use super::target::Target;
use super::{Again, BadSettings, OwnAddresses, Settings, Speak, Upstream, tls};
use crate::error::{Code, Error};
use bytes::Bytes;
use http::Uri;
use hyper::body::Body;
use rustls::ClientConfig;
use std::borrow::Cow;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;

/// Upstreams in the pool. One more takes the place of the one that was asked for least lately.
const POOLED_MAX: usize = 256;
/// Unused connections to each of them.
const IDLE_CONNECTIONS: usize = 32;

/// Makes upstreams for targets.
pub struct Targets<B> {
    /// Those that the settings know.
    known: Vec<(Target, Kind)>,
    /// All others.
    otherwise: Kind,
    dialer: Dialer,
    pool: Mutex<Pool<B>>,
}

/// How an upstream is made.
struct Kind {
    settings: Settings,
    /// None: it is without.
    tls: Option<Arc<ClientConfig>>,
}

impl Kind {
    fn new(mut settings: Settings, with_tls: bool) -> Result<Kind, BadSettings> {
        settings.idle_connections = settings.idle_connections.min(IDLE_CONNECTIONS);
        let tls = match with_tls {
            true => Some(Arc::new(tls::config(&settings)?)),
            false => None,
        };
        Ok(Kind { settings, tls })
    }
}

struct Pool<B> {
    upstreams: HashMap<Target, (u64, Arc<Upstream<B>>)>,
    asked: u64,
}

impl<B> Targets<B>
where
    B: Body<Data = Bytes> + Again + Send + Unpin + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// `otherwise`: for targets that are none of `known`; its URL plays no part. `loopback`: whether addresses of this machine may be
    /// connected to. `own` never are.
    ///
    /// # Errors
    /// A URL is none of an upstream, or there are no roots to trust.
    pub fn new(
        otherwise: Settings,
        known: Vec<Settings>,
        loopback: bool,
        own: OwnAddresses,
    ) -> Result<Targets<B>, BadSettings> {
        let dialer = Dialer {
            connect: otherwise.connect,
            loopback,
            own,
            address: None,
            mark: otherwise.mark,
        };
        let known = known.into_iter().map(|settings| {
            let target = of_url(&settings.url);
            let target =
                target.ok_or_else(|| BadSettings(format!("{} is no upstream", settings.url)))?;
            let kind = Kind::new(settings, target.tls())?;
            Ok::<_, BadSettings>((target, kind))
        });
        Ok(Targets {
            known: known.collect::<Result<_, _>>()?,
            otherwise: Kind::new(otherwise, true)?,
            dialer,
            pool: Mutex::new(Pool {
                upstreams: HashMap::new(),
                asked: 0,
            }),
        })
    }

    /// A new upstream, with connections of its own: what belongs to one client's connection stays with it.
    ///
    /// # Errors
    /// [`Code::Target`]: no request could be made for it.
    pub fn make(&self, target: &Target) -> Result<Upstream<B>, Error> {
        let (scheme, authority) = target.parts().ok_or(Code::Target)?;
        let kind = self.kind(target);
        let tls = kind.tls.clone().filter(|_| target.tls());
        let dialer = self.dialer(target);
        let mut settings = Cow::Borrowed(&kind.settings);
        if settings.speak == Speak::Either && target.speaks_http2() {
            settings.to_mut().speak = Speak::Http2;
        }
        Upstream::build(&settings, scheme, authority, tls, dialer).map_err(|_| Code::Target.into())
    }

    /// The upstream of this target that all requests share.
    ///
    /// # Errors
    /// As [`Targets::make`].
    pub fn pooled(&self, target: &Target) -> Result<Arc<Upstream<B>>, Error> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.asked += 1;
        let now = pool.asked;
        if let Some((asked, upstream)) = pool.upstreams.get_mut(target) {
            *asked = now;
            return Ok(upstream.clone());
        }
        let upstream = Arc::new(self.make(target)?);
        if pool.upstreams.len() >= POOLED_MAX {
            let oldest = pool.upstreams.iter().min_by_key(|(_, (asked, _))| *asked);
            let oldest = oldest.map(|(target, _)| target.clone());
            oldest.and_then(|oldest| pool.upstreams.remove(&oldest));
        }
        pool.upstreams
            .insert(target.clone(), (now, upstream.clone()));
        Ok(upstream)
    }

    /// A bare connection to the target, for a tunnel: the address is checked, nothing else is.
    ///
    /// # Errors
    /// One of the `upstream-*` codes, or [`Code::Busy`].
    pub async fn dial(&self, target: &Target) -> Result<TcpStream, Error> {
        self.dialer(target).dial(target.host(), target.port()).await
    }

    /// Whether TLS is not to be looked for at this host and port: it is HTTP's own port, or the settings know it as plain HTTP alone.
    pub fn is_plain(&self, target: &Target) -> bool {
        let knows = |tls| {
            let target = target.clone().with_tls(tls);
            self.known.iter().any(|(known, _)| known.is(&target))
        };
        !knows(true) && (knows(false) || target.port() == 80)
    }

    fn dialer(&self, target: &Target) -> Dialer {
        Dialer {
            connect: self.kind(target).settings.connect,
            address: target.address(),
            ..self.dialer.clone()
        }
    }

    fn kind(&self, target: &Target) -> &Kind {
        let known = self.known.iter().find(|(known, _)| known.is(target));
        known.map_or(&self.otherwise, |(_, kind)| kind)
    }
}

/// The target of an upstream's URL.
fn of_url(url: &Uri) -> Option<Target> {
    let tls = match url.scheme_str()? {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    Target::parse(tls, url.authority()?.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Empty;

    fn targets() -> Targets<Empty<Bytes>> {
        let mut known = Settings::new("http://slow.example".parse().expect("URL"));
        known.response = std::time::Duration::from_secs(7);
        let otherwise = Settings {
            roots: super::super::Roots::Pem(
                rcgen::generate_simple_self_signed(["x".to_owned()])
                    .expect("made")
                    .cert
                    .pem()
                    .into_bytes(),
            ),
            ..Settings::new(Uri::from_static("http://unused"))
        };
        Targets::new(otherwise, vec![known], false, OwnAddresses::default()).expect("made")
    }

    fn target(authority: &str) -> Target {
        Target::parse(false, authority).expect("a target")
    }

    #[tokio::test]
    async fn the_pool_is_bounded_and_the_settings_know_some() {
        let targets = targets();
        let slow = targets.pooled(&target("slow.example")).expect("made");
        assert_eq!(slow.patience().as_secs(), 7);
        for number in 0..POOLED_MAX * 2 {
            let one = targets.pooled(&target(&format!("h{number}.example")));
            assert_eq!(one.expect("made").patience().as_secs(), 60);
            // Asked for all the time, it stays.
            targets.pooled(&target("slow.example")).expect("made");
        }
        let pool = targets.pool.lock().expect("sound");
        assert_eq!(pool.upstreams.len(), POOLED_MAX);
        assert!(pool.upstreams.contains_key(&target("slow.example")));
        assert!(!pool.upstreams.contains_key(&target("h0.example")));
    }

    #[tokio::test]
    async fn addresses_are_checked_however_they_are_named() {
        let targets = targets();
        for named in ["127.0.0.1:9", "localhost:9", "[::1]:9", "169.254.169.254"] {
            let error = targets.dial(&target(named)).await.expect_err("refused");
            assert_eq!(error.code(), Code::UpstreamForbidden, "{named}");
        }
        let redirected = target("api.example.com").at("127.0.0.1:9".parse().expect("address"));
        let error = targets.dial(&redirected).await.expect_err("refused");
        assert_eq!(error.code(), Code::UpstreamForbidden);
    }
}
