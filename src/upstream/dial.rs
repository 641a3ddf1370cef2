//! A TCP connection to a host: resolve, check the address, connect, all within one deadline.
//!
//! The address that was checked is the one that is connected to. No byte goes out here.

use super::addresses::{OwnAddresses, forbidden_address};
use crate::error::{Code, Error};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, timeout};

/// EMFILE and ENFILE: this process, or the machine, may open no more files.
const NO_FILES: [i32; 2] = [
    rustix::io::Errno::MFILE.raw_os_error(),
    rustix::io::Errno::NFILE.raw_os_error(),
];

/// A connection on which nothing came for so long is asked for a sign of life, so often and so many times, before it is given up. By TCP:
/// servers of gRPC hang up on PINGs of HTTP/2 that come more often than every five minutes.
const PROBE_AFTER: Duration = Duration::from_secs(20);
const PROBE_EVERY: Duration = Duration::from_secs(5);
const PROBES: u32 = 3;

/// Has silence on this connection noticed, as far as the system can: without, it takes longer.
fn probe(stream: &TcpStream) {
    let probing = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_EVERY)
        .with_retries(PROBES);
    let _ = SockRef::from(stream).set_tcp_keepalive(&probing);
}

/// The same while what was sent on it is not acknowledged: then the probes wait. For a connection of HTTP/2, which every request would
/// go over. (Its other side reads what comes, whatever it does with it.)
pub(super) fn give_up_on_silence(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(PROBE_AFTER + PROBE_EVERY * PROBES));
    #[cfg(not(target_os = "linux"))]
    let _ = stream;
}

/// Connects to hosts, but never to some addresses.
#[derive(Clone, Debug)]
pub(super) struct Dialer {
    /// For resolving and TCP together, and TLS where it follows.
    pub(super) connect: Duration,
    /// Whether loopback addresses are connected to.
    pub(super) loopback: bool,
    pub(super) own: OwnAddresses,
    /// The one address to connect to, whatever the name says: where a redirected connection was going.
    pub(super) address: Option<SocketAddr>,
    /// SO_MARK of the socket.
    pub(super) mark: Option<u32>,
}

/// Whether this process may give its sockets a mark: that takes CAP_NET_ADMIN.
///
/// # Errors
/// It may not, or the system has none.
pub fn can_mark(mark: u32) -> io::Result<()> {
    marked(&TcpSocket::new_v4()?, mark)
}

#[cfg(target_os = "linux")]
fn marked(socket: &TcpSocket, mark: u32) -> io::Result<()> {
    SockRef::from(socket).set_mark(mark)
}

#[cfg(not(target_os = "linux"))]
fn marked(_: &TcpSocket, _: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

async fn connect(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpStream> {
    let Some(mark) = mark else {
        return TcpStream::connect(address).await;
    };
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Unmarked it would come back to the agent: better none.
    marked(&socket, mark)?;
    socket.connect(address).await
}

impl Dialer {
    /// `host`: a name or an address, without brackets.
    pub(super) async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, Error> {
        let deadline = Instant::now() + self.connect;
        let found: Vec<SocketAddr> = match self.address {
            Some(address) => vec![address],
            None => {
                let found = timeout(self.connect, lookup_host((host, port))).await;
                let found = found.map_err(|_| Error::from(Code::UpstreamConnectTimeout))?;
                found
                    .map_err(|_| Error::from(Code::UpstreamUnresolved))?
                    .collect()
            }
        };
        let mut last = Code::UpstreamUnresolved.because("no address");
        for (tried, address) in found.iter().enumerate() {
            // An address that swallows packets leaves the others their share of the time.
            let share =
                deadline.saturating_duration_since(Instant::now()) / (found.len() - tried) as u32;
            match timeout(share, self.connect_to(*address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = Code::UpstreamConnectTimeout.into(),
            }
        }
        Err(last)
    }

    async fn connect_to(&self, address: SocketAddr) -> Result<TcpStream, Error> {
        let forbidden = |why| Err(Code::UpstreamForbidden.because(why));
        if let Some(why) = forbidden_address(address.ip(), self.loopback) {
            return forbidden(why);
        }
        if self.own.contains(address, false) {
            return forbidden("own listener");
        }
        let unreachable = |error: io::Error| match error.raw_os_error() {
            Some(error) if NO_FILES.contains(&error) => Code::Busy.because("no file is left"),
            _ => Code::UpstreamUnreachable.because(error.kind().to_string()),
        };
        let stream = connect(address, self.mark).await.map_err(unreachable)?;
        // An address of one of this machine's own interfaces shows itself by being both ends. No byte was sent yet.
        let here = stream
            .local_addr()
            .is_ok_and(|local| local.ip() == address.ip());
        if here && !self.loopback && !address.ip().is_loopback() {
            return forbidden("this machine's own address");
        }
        if here && self.own.contains(address, true) {
            return forbidden("own listener");
        }
        stream.set_nodelay(true).map_err(unreachable)?;
        probe(&stream);
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_connection_is_probed_when_it_is_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let dialer = Dialer {
            connect: Duration::from_secs(9),
            loopback: true,
            own: OwnAddresses::default(),
            address: None,
            mark: None,
        };
        let port = listener.local_addr().expect("bound").port();
        let stream = dialer.dial("127.0.0.1", port).await.expect("connected");
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("read"));
        assert_eq!(socket.tcp_keepalive_time().expect("read"), PROBE_AFTER);
        assert_eq!(socket.tcp_keepalive_interval().expect("read"), PROBE_EVERY);
        assert_eq!(socket.tcp_keepalive_retries().expect("read"), PROBES);
    }
}
