//! Connections that were redirected here, by nftables or iptables: where each was going, what it speaks, and whether that is the
//! agent's business.
//!
//! TLS is told from HTTP by the first bytes. TLS to a host that a policy names ends here; HTTP is served, and its requests say which
//! host they are for; anything else is passed on unseen, or refused, as the listener's settings have it. Only the address that the
//! client chose is ever connected to: no name is resolved anew.

use super::bell::Bell;
use super::connection::{Beginning, Service};
use super::stream::Stream;
use super::tunnel::Tunnel;
use super::version;
use crate::audit::Passed;
use crate::error::Code;
use crate::intercept::Authority;
use crate::upstream::Target;
use bytes::BytesMut;
use rustix::net::sockopt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

/// Bytes of a first TLS message; what is longer has no name for us. Bytes that may come before it is known what they are.
const HELLO_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a method's name: what has no blank behind so many is no HTTP.
const METHOD_BYTES_MAX: usize = 32;
/// A client that says nothing for so long may be waiting for the server to speak first.
const SILENT_FOR: Duration = Duration::from_secs(1);
/// The first byte of a record that begins a handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 22;

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

/// What a connection's first bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum First {
    /// TLS, for the host of this name if it says one.
    Tls(Option<String>),
    Http,
    Other,
    /// The server has spoken first.
    Silent,
}

impl Service {
    /// Serves a redirected connection to its end.
    pub(super) async fn redirected(
        self: &Arc<Self>,
        transparent: &Transparent,
        stream: Stream,
        drain: Bell,
        mut cut: Bell,
    ) {
        let born = Instant::now();
        let passed = |outcome: &'static str| {
            self.proxy.passed(&Passed {
                id: None,
                listener: self.proxy.listener().clone(),
                outcome,
                sent_bytes: 0,
                received_bytes: 0,
                open: born.elapsed(),
            });
        };
        let Some(address) = stream.tcp().and_then(destination) else {
            passed("not-redirected");
            return;
        };
        let mut drain = drain;
        let beginning = self.lead(transparent, stream, address, born);
        // Until it is known where it leads, nothing was asked.
        let Some(led) = drain.unless(Box::pin(beginning)).await else {
            return;
        };
        match led {
            Err(outcome) => passed(outcome),
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
        let mut far = None;
        let first = async {
            if transparent.silent {
                tokio::select! {
                    read = stream.read_buf(&mut begun) => read.map(|_| ()).map_err(|_| "gone")?,
                    () = sleep(SILENT_FOR) => {
                        let dialled = self.dial(&bare).await?;
                        // Whoever speaks first shows what it is. A client that does is looked at as any other.
                        tokio::select! {
                            biased;
                            read = stream.read_buf(&mut begun) => read.map(|_| ()).map_err(|_| "gone")?,
                            spoken = dialled.readable() => {
                                spoken.map_err(|_| "gone")?;
                                far = Some(dialled);
                                return Ok(First::Silent);
                            }
                        }
                    }
                }
            }
            look(&mut stream, &mut begun).await
        };
        let first = timeout_at(deadline, first)
            .await
            .map_err(|_| match begun.is_empty() {
                true => "silent",
                false => "timeout",
            })??;
        match (first, far) {
            (First::Silent | First::Other, far) => {
                self.uncovered()?;
                let far = match far {
                    Some(far) => far,
                    None => self.dial(&bare).await?,
                };
                Ok(Led::Blind(stream.again(begun), far))
            }
            (First::Http, _) => {
                let http2 = self.http2
                    && matches!(
                        timeout_at(deadline, version::is_http2(&mut stream, &mut begun)).await,
                        Ok(Ok(true))
                    );
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
            (First::Tls(name), _) => {
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

/// Reads until it shows what the first bytes are; they stay in `begun`.
async fn look(stream: &mut Stream, begun: &mut BytesMut) -> Result<First, &'static str> {
    loop {
        if let Some(first) = what(begun) {
            return Ok(first);
        }
        match stream.read_buf(begun).await {
            Ok(1..) => {}
            Ok(0) if begun.is_empty() => return Err("gone"),
            Ok(0) => return Ok(First::Other),
            Err(_) => return Err("gone"),
        }
    }
}

/// What the first bytes are. `None`: that takes more of them.
fn what(begun: &[u8]) -> Option<First> {
    if *begun.first()? == TLS_HANDSHAKE {
        return hello(begun).map(First::Tls);
    }
    let method = begun.iter().take(METHOD_BYTES_MAX);
    let letters = method.take_while(|byte| byte.is_ascii_uppercase()).count();
    match begun.get(letters) {
        None => None,
        Some(b' ') if letters > 0 => Some(First::Http),
        Some(b'-' | b'_') if letters > 0 && begun.len() < METHOD_BYTES_MAX => {
            let blank = begun.iter().position(|&byte| byte == b' ');
            let line = begun.iter().position(|&byte| byte < b' ');
            match (blank, line) {
                (None, None) => None,
                (Some(blank), line) if line.is_none_or(|line| blank < line) => Some(First::Http),
                _ => Some(First::Other),
            }
        }
        Some(_) => Some(First::Other),
    }
}

/// The name in a TLS client's first message, if it has one; the outer `None` asks for more bytes. A message that cannot be read
/// has no name.
fn hello(begun: &[u8]) -> Option<Option<String>> {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut rest = begun;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return Some(None);
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let name = accepted.client_hello().server_name().map(str::to_owned);
                return Some(name);
            }
            Ok(None) => {}
            Err(_) => return Some(None),
        }
    }
    (begun.len() >= HELLO_BYTES_MAX).then_some(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::ServerName;

    fn hello_for(name: ServerName<'static>) -> Vec<u8> {
        let roots = rustls::RootCertStore::empty();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("written");
        bytes
    }

    #[test]
    fn tls_is_known_when_its_first_message_is_whole_and_not_before() {
        let named = hello_for(ServerName::try_from("api.example.com").expect("a name"));
        for end in 1..named.len() {
            assert_eq!(what(&named[..end]), None, "{end}");
        }
        let expected = First::Tls(Some("api.example.com".to_owned()));
        assert_eq!(what(&named), Some(expected.clone()));
        assert_eq!(what(&[&named[..], b"more"].concat()), Some(expected));
        let unnamed = hello_for(ServerName::IpAddress(
            std::net::IpAddr::from([192, 0, 2, 1]).into(),
        ));
        assert_eq!(what(&unnamed), Some(First::Tls(None)));
        // What only begins like TLS has no name, and is not waited for without end.
        assert_eq!(what(&[22; 64]), Some(First::Tls(None)));
        let endless = [
            &[22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff][..],
            &[0; HELLO_BYTES_MAX],
        ]
        .concat();
        assert_eq!(what(&endless), Some(First::Tls(None)));
    }

    #[test]
    fn http_is_told_from_what_is_none() {
        for (bytes, expected) in [
            (&b""[..], None),
            (b"G", None),
            (b"GET", None),
            (b"GET ", Some(First::Http)),
            (b"PRI * HTTP/2.0\r\n", Some(First::Http)),
            (b"VERSION-CONTROL /", Some(First::Http)),
            (b"SSH-2.0-OpenSSH_9", None),
            (b"SSH-2.0-OpenSSH_9.6\r\n", Some(First::Other)),
            (b" GET", Some(First::Other)),
            (b"get ", Some(First::Other)),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Some(First::Other)),
            (b"GET\r\n", Some(First::Other)),
            (&[b'A'; 40], Some(First::Other)),
        ] {
            let text = String::from_utf8_lossy(bytes);
            assert_eq!(what(bytes), expected, "{text:?}");
        }
    }
}
