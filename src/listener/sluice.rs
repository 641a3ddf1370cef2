//! What stands between an HTTP/2 connection and hyper: it bounds what frames may cost ([`frames::Frames`]), and keeps
//! the connection's `Pulse`.
//!
//! It never changes a byte that it lets through. A client that floods gets the end of the connection as hyper says it:
//! behind the last good frame stands something that makes it say GOAWAY with ENHANCE_YOUR_CALM.

pub mod frames;

use super::pulse::Pulse;
use bytes::{Buf, BytesMut};
use frames::Frames;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A head that never ends, in more frames than hyper takes: an empty HEADERS and empty CONTINUATIONs on stream 1.
const TOO_MUCH: [[u8; 9]; 9] = {
    let mut frames = [[0, 0, 0, 0x9, 0, 0, 0, 0, 1]; 9];
    frames[0][3] = 0x1;
    frames
};
/// Bytes read at once behind the beginning of a frame's head.
const READ_BYTES: usize = 4096;
/// Small pieces of bodies that are let through in one go. Some 2,000 that nobody took yet, and hyper ends the connection: who takes them must
/// come to it in between.
const SMALL_AT_ONCE: usize = 256;
/// Bytes that a client may still send after the connection's end.
const LINGER_BYTES: usize = 1 << 20;

/// A connection behind its sluice.
pub(super) struct Sluice<T> {
    io: T,
    frames: Frames,
    /// Bytes kept back: `cleared` of them may go on, behind them stands the beginning of a frame's head.
    held: BytesMut,
    cleared: usize,
    pulse: Arc<Pulse>,
    /// Nothing more is read.
    shut: bool,
    /// Our side is closed; so many bytes of the client's are dropped before the connection is.
    lingering: Option<usize>,
}

impl<T> Sluice<T> {
    /// `begun`: bytes of the connection that were read already.
    pub(super) fn new(io: T, begun: BytesMut, pulse: Arc<Pulse>) -> Sluice<T> {
        let mut sluice = Sluice {
            io,
            frames: Frames::default(),
            held: begun,
            cleared: 0,
            pulse,
            shut: false,
            lingering: None,
        };
        sluice.judge();
        sluice
    }

    /// Looks at what is held.
    fn judge(&mut self) {
        let found = self.frames.examine(&self.held, self.pulse.now());
        self.cleared = found.cleared;
        self.settle(found.flood);
    }

    fn settle(&mut self, flood: bool) {
        self.pulse.in_head(self.frames.is_within());
        if flood {
            self.shut = true;
            self.held.truncate(self.cleared);
            self.held.extend_from_slice(TOO_MUCH.as_flattened());
            self.cleared = self.held.len();
            self.pulse.in_head(false);
        }
    }

    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        self.pulse.write_blocked(written.is_pending());
        if let Poll::Ready(Ok(count)) = written {
            self.frames.earn(*count as u64);
            self.pulse.took();
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Sluice<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let sluice = self.get_mut();
        loop {
            let take = sluice.cleared.min(buf.remaining());
            if take > 0 {
                buf.put_slice(&sluice.held[..take]);
                sluice.held.advance(take);
                sluice.cleared -= take;
                return Poll::Ready(Ok(()));
            }
            if sluice.shut {
                return Poll::Ready(Ok(()));
            }
            if sluice.frames.are_many(SMALL_AT_ONCE) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if sluice.held.is_empty() {
                let before = buf.filled().len();
                ready!(Pin::new(&mut sluice.io).poll_read(cx, buf))?;
                let input = &buf.filled()[before..];
                if input.is_empty() {
                    sluice.shut = true;
                    return Poll::Ready(Ok(()));
                }
                let found = sluice.frames.examine(input, sluice.pulse.now());
                sluice.held.extend_from_slice(&input[found.cleared..]);
                buf.set_filled(before + found.cleared);
                sluice.settle(found.flood);
                if found.cleared > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let mut bytes = [0; READ_BYTES];
                let mut more = ReadBuf::new(&mut bytes);
                ready!(Pin::new(&mut sluice.io).poll_read(cx, &mut more))?;
                if more.filled().is_empty() {
                    sluice.shut = true;
                    return Poll::Ready(Ok(()));
                }
                sluice.held.extend_from_slice(more.filled());
                sluice.judge();
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Sluice<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sluice = self.get_mut();
        let written = Pin::new(&mut sluice.io).poll_write(cx, buf);
        sluice.wrote(&written);
        written
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sluice = self.get_mut();
        let written = Pin::new(&mut sluice.io).poll_write_vectored(cx, bufs);
        sluice.wrote(&written);
        written
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sluice = self.get_mut();
        let flushed = Pin::new(&mut sluice.io).poll_flush(cx);
        // TLS takes bytes before the client does.
        sluice.pulse.write_blocked(flushed.is_pending());
        flushed
    }
    /// Ends our side, then drops what the client goes on to send: closing over unread bytes makes the kernel reset the
    /// connection, which may take the last frames with it.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sluice = self.get_mut();
        if sluice.lingering.is_none() {
            ready!(Pin::new(&mut sluice.io).poll_shutdown(cx))?;
            sluice.pulse.closing();
            sluice.lingering = Some(LINGER_BYTES);
        }
        let mut bytes = [0; READ_BYTES];
        loop {
            let mut scrap = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut sluice.io).poll_read(cx, &mut scrap))?;
            match sluice
                .lingering
                .and_then(|left| left.checked_sub(scrap.filled().len()))
            {
                Some(left @ 1..) if !scrap.filled().is_empty() => sluice.lingering = Some(left),
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}
