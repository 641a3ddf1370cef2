//! Where connections come from, TCP or a Unix socket, and what they are: plain, or with TLS on top.
//!
//! A Unix socket is there for nobody but its owner before it takes its first connection: its mode is set between bind
//! and listen.

use bytes::BytesMut;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio_rustls::server::TlsStream;

/// Connections that may wait in the kernel's backlog of a Unix socket.
const BACKLOG: u32 = 1024;

/// A socket that listens.
#[derive(Debug)]
pub enum Socket {
    /// On an address and port.
    Tcp(TcpListener),
    /// On a path. The file goes with it.
    Unix(UnixListener, SocketFile),
}

impl From<TcpListener> for Socket {
    fn from(socket: TcpListener) -> Socket {
        Socket::Tcp(socket)
    }
}

impl Socket {
    /// Listens on a path, with these permissions (`0o600`: this user alone). A socket that is there already is taken
    /// over if nobody listens on it any more.
    ///
    /// # Errors
    /// Somebody listens there (`AddrInUse`), the path is taken by something else than a socket (`AlreadyExists`), or
    /// the system says no.
    pub fn unix(path: &Path, mode: u32) -> io::Result<Socket> {
        remove_stale(path)?;
        let socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
        let file = SocketFile::at(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        Ok(Socket::Unix(socket.listen(BACKLOG)?, file))
    }

    /// The address, where it has one.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Socket::Tcp(socket) => socket.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Socket::Tcp(socket) => {
                let (stream, _) = socket.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Socket::Unix(socket, _) => Ok(Stream::Unix(socket.accept().await?.0)),
        }
    }
}

/// A file that a listening socket made; removed with it, unless another one stands there by then.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile {
            path: path.to_owned(),
            inode: inode(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|found| found == self.inode) {
            // Left behind, it is taken over next time.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What stands at a path, as device and number.
fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        // Whoever it is that listens, or will not say so.
        Ok(_) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// An accepted connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<Stream>>),
    /// With bytes in front that were read already.
    Again(Box<Again>),
}

/// Bytes that were read, and what they were read from.
#[derive(Debug)]
pub(super) struct Again {
    begun: BytesMut,
    stream: Stream,
}

impl Stream {
    /// To be read again from these bytes on.
    pub(super) fn again(self, begun: BytesMut) -> Stream {
        match begun.is_empty() {
            true => self,
            false => Stream::Again(Box::new(Again {
                begun,
                stream: self,
            })),
        }
    }

    /// As it was accepted, over TCP and with nothing on top.
    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Stream::Tcp(stream) => Some(stream),
            _ => None,
        }
    }

    /// Who is at the other end.
    pub(super) fn client(&self) -> Client {
        Client {
            uid: self.peer_uid(),
            name: match self {
                Stream::Tls(stream) => {
                    let shown = stream.get_ref().1.peer_certificates();
                    shown.and_then(<[_]>::first).and_then(crate::tls::name_of)
                }
                Stream::Tcp(_) | Stream::Unix(_) => None,
                Stream::Again(again) => again.stream.client().name,
            },
        }
    }

    /// The user at the other end, where the system knows.
    fn peer_uid(&self) -> Option<u32> {
        match self {
            Stream::Tcp(_) => None,
            Stream::Unix(stream) => stream.peer_cred().ok().map(|peer| peer.uid()),
            Stream::Tls(stream) => stream.get_ref().0.peer_uid(),
            Stream::Again(again) => again.stream.peer_uid(),
        }
    }
}

/// Who is at the other end, for as long as the connection lasts.
#[derive(Clone, Default)]
pub(super) struct Client {
    /// The user's number, where the system knows it.
    pub(super) uid: Option<u32>,
    /// The name in its certificate.
    pub(super) name: Option<Arc<str>>,
}

macro_rules! each {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($inner) => $call,
            Stream::Unix($inner) => $call,
            Stream::Tls($inner) => $call,
            Stream::Again(again) => {
                let $inner = &mut again.stream;
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if let Stream::Again(again) = stream
            && !again.begun.is_empty()
        {
            let take = again.begun.len().min(buf.remaining());
            buf.put_slice(&again.begun.split_to(take));
            return Poll::Ready(Ok(()));
        }
        each!(stream, inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_write(cx, buf))
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_write_vectored(cx, bufs))
    }
    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Tcp(inner) => inner.is_write_vectored(),
            Stream::Unix(inner) => inner.is_write_vectored(),
            Stream::Tls(inner) => inner.is_write_vectored(),
            Stream::Again(again) => again.stream.is_write_vectored(),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_is_the_owners_and_goes_with_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let socket = Socket::unix(&path, 0o600).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(socket.address(), None);
        let (client, server) = tokio::join!(UnixStream::connect(&path), socket.accept());
        client.unwrap();
        let own = rustix::process::getuid().as_raw();
        assert_eq!(server.unwrap().peer_uid(), Some(own));
        drop(socket);
        assert!(!path.exists());
        let _group = Socket::unix(&path, 0o660).unwrap();
        assert_eq!(mode(&path), 0o660);
    }

    #[tokio::test]
    async fn only_a_socket_that_nobody_listens_on_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let refused = || Socket::unix(&path, 0o600).unwrap_err().kind();

        std::fs::write(&path, "precious").unwrap();
        assert_eq!(refused(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_file(&path).unwrap();

        let listening = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(refused(), io::ErrorKind::AddrInUse);
        drop(listening);
        assert!(path.exists(), "a stale socket");
        let taken = Socket::unix(&path, 0o600).unwrap();

        // Another one stands there by now: it stays.
        std::fs::remove_file(&path).unwrap();
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(taken);
        assert!(path.exists());
        drop(other);
    }
}
