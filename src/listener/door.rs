//! The strict check of every request's bytes before hyper sees them.
//!
//! hyper puts some things right that must not be (bare LF, several Content-Length headers that agree, obs-text in odd
//! places): a server behind us might read those differently. The door stands between the socket and hyper, follows
//! heads and bodies ([`gate::Gate`]), and lets bytes through only when the head that they belong to is complete and
//! clean. What it refuses never reaches hyper: a small clean stand-in request does, marked in the `Wire`, so that
//! the one error door answers it with a problem document, in the order of pipelined requests, and closes.
//!
//! Behind a request for another protocol bytes are kept back until it is answered: only then is it known whether they are
//! that protocol's or the next request's.
//!
//! It never changes a byte that it lets through, and never looks into bodies beyond their framing.

mod chunks;
pub mod gate;
pub(super) mod head;

use crate::error::Code;
use crate::listener::wire::{Expiry, Wire};
use bytes::{Buf, BytesMut};
use gate::{Gate, Place, Violation};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What hyper gets in the place of a refused head.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// Bytes read at once behind an incomplete head.
const READ_BYTES: usize = 4096;
/// Bytes that a client may still send after an answer that it did not wait for.
const LINGER_BYTES: usize = 1 << 20;

/// A connection with the door before it.
#[derive(Debug)]
pub(super) struct Door<T> {
    io: T,
    gate: Gate,
    /// Bytes kept back: `cleared` of them may go on, behind them stands the beginning of a head.
    held: BytesMut,
    cleared: usize,
    wire: Arc<Wire>,
    /// The client sends no more, or is not listened to any more.
    ended: bool,
    /// Our side is closed; so many bytes of the client's are dropped before the connection is.
    lingering: Option<usize>,
}

impl<T> Door<T> {
    /// `begun`: bytes of the connection that were read already. `forward`: a CONNECT may lead out.
    pub(super) fn new(io: T, begun: BytesMut, wire: Arc<Wire>, forward: bool) -> Door<T> {
        let mut door = Door {
            io,
            gate: match forward {
                true => Gate::forward(),
                false => Gate::default(),
            },
            held: begun,
            cleared: 0,
            wire,
            ended: false,
            lingering: None,
        };
        if !door.held.is_empty() {
            door.judge();
        }
        door
    }

    /// The connection itself, and what was read behind a CONNECT or an upgrade.
    pub(super) fn into_parts(self) -> (T, BytesMut) {
        (self.io, self.held)
    }

    /// Looks at what is held.
    fn judge(&mut self) {
        let found = self.gate.examine(&self.held);
        self.cleared = found.cleared;
        self.settle(found.violation);
    }

    /// Gives out what is cleared; true when there was something.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let take = self.cleared.min(buf.remaining());
        buf.put_slice(&self.held[..take]);
        self.held.advance(take);
        self.cleared -= take;
        take > 0
    }

    /// Bytes that were given out and not used: they are given out again, before all others.
    pub(super) fn take_back(&mut self, unused: &[u8]) {
        if !unused.is_empty() {
            let behind = self.held.split();
            self.held.extend_from_slice(unused);
            self.held.unsplit(behind);
            self.cleared += unused.len();
        }
    }

    /// Keeps the wire in step with what the gate found.
    fn settle(&mut self, violation: Option<Violation>) {
        self.wire.heads_are(self.gate.heads());
        self.wire.in_head(self.gate.place() == Place::Head);
        self.wire.between(self.gate.place() == Place::Between);
        match violation {
            None => {}
            Some(Violation::Head(code)) => self.stand_in(code),
            Some(Violation::Body(code)) => self.wire.break_body(code),
        }
    }

    /// The rest of what the client sent is dropped; hyper gets a request that stands for it.
    fn stand_in(&mut self, code: Code) {
        self.gate.shut();
        self.held.truncate(self.cleared);
        self.held.extend_from_slice(STAND_IN);
        self.cleared = self.held.len();
        self.wire.refuse_head(code);
        self.wire.in_head(false);
    }

    /// Acts on what the connection's task found out about the client's pace.
    fn expire(&mut self) {
        match (self.wire.expired(), self.gate.place()) {
            (Some(Expiry::Head), Place::Head) => self.stand_in(Code::HeadTimeout),
            (Some(Expiry::Body), Place::Body) => {
                self.gate.shut();
                self.wire.break_body(Code::BodyTimeout);
            }
            (Some(Expiry::Idle), Place::Between) => {
                self.gate.shut();
                self.ended = true;
            }
            _ => {}
        }
    }
}

impl<T: AsyncRead + Unpin> Door<T> {
    /// Behind a request to upgrade. Ready when that was answered with anything but a switch, and what came meanwhile has
    /// been judged as requests; false: the client is gone.
    fn poll_answered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if self.wire.is_answered(cx) {
                self.gate.resume();
                self.judge();
                return Poll::Ready(Ok(true));
            }
            if self.ended {
                return Poll::Ready(Ok(false));
            }
            // Listened to, for a client that hangs up; further bytes wait in the kernel.
            if self.held.len() >= READ_BYTES {
                return Poll::Pending;
            }
            let mut bytes = [0; READ_BYTES];
            let mut early = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut early))?;
            self.ended = early.filled().is_empty();
            self.held.extend_from_slice(early.filled());
        }
    }

    /// Ready when there is something for a reader: bytes, an end, or an error, which the next read meets again.
    pub(super) fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.held.is_empty() || self.ended {
            return Poll::Ready(());
        }
        let mut bytes = [0; READ_BYTES];
        let mut more = ReadBuf::new(&mut bytes);
        match ready!(Pin::new(&mut self.io).poll_read(cx, &mut more)) {
            Ok(()) if !more.filled().is_empty() => {
                self.held.extend_from_slice(more.filled());
                self.judge();
            }
            _ => self.ended = true,
        }
        Poll::Ready(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Door<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let door = self.get_mut();
        loop {
            if door.give(buf) {
                return Poll::Ready(Ok(()));
            }
            door.expire();
            if door.gate.place() == Place::Refused {
                // A stand-in waits to be given out; a broken body is an error; an idle end is an end.
                if door.cleared > 0 {
                    continue;
                }
                if door.ended {
                    return Poll::Ready(Ok(()));
                }
                if door.wire.is_body_broken() {
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                return Poll::Pending;
            }
            if door.gate.place() == Place::Upgrade && !ready!(door.poll_answered(cx))? {
                return Poll::Ready(Ok(()));
            }
            if door.gate.place() == Place::Connect {
                if door.wire.is_connect_over() {
                    door.gate.resume();
                    door.judge();
                    continue;
                }
                if door.ended {
                    return Poll::Ready(Ok(()));
                }
                // Listened to, for a client that hangs up; and what comes is kept for whoever takes over.
                if door.held.len() >= READ_BYTES {
                    return Poll::Pending;
                }
                let mut bytes = [0; READ_BYTES];
                let mut more = ReadBuf::new(&mut bytes);
                ready!(Pin::new(&mut door.io).poll_read(cx, &mut more))?;
                door.ended = more.filled().is_empty();
                door.wire.came_early(!door.ended);
                door.held.extend_from_slice(more.filled());
                continue;
            }
            if door.held.is_empty() {
                // The usual way: straight into hyper's buffer, and what is not cleared is taken back out.
                let before = buf.filled().len();
                if Pin::new(&mut door.io).poll_read(cx, buf)?.is_pending() {
                    door.wire.in_body(door.gate.place() == Place::Body);
                    return Poll::Pending;
                }
                door.wire.in_body(false);
                let input = &buf.filled()[before..];
                if input.is_empty() {
                    door.ended = true;
                    return Poll::Ready(Ok(()));
                }
                let found = door.gate.examine(input);
                door.held.extend_from_slice(&input[found.cleared..]);
                buf.set_filled(before + found.cleared);
                door.settle(found.violation);
                if found.cleared > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                // More of a head that came in pieces.
                let mut bytes = [0; READ_BYTES];
                let mut more = ReadBuf::new(&mut bytes);
                ready!(Pin::new(&mut door.io).poll_read(cx, &mut more))?;
                if more.filled().is_empty() {
                    door.ended = true;
                    return Poll::Ready(Ok(()));
                }
                door.held.extend_from_slice(more.filled());
                door.judge();
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Door<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let door = self.get_mut();
        let written = Pin::new(&mut door.io).poll_write(cx, buf);
        door.wire.write_blocked(written.is_pending());
        written
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let door = self.get_mut();
        let written = Pin::new(&mut door.io).poll_write_vectored(cx, bufs);
        door.wire.write_blocked(written.is_pending());
        written
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let door = self.get_mut();
        let flushed = Pin::new(&mut door.io).poll_flush(cx);
        // TLS takes bytes before the client does.
        door.wire.write_blocked(flushed.is_pending());
        flushed
    }
    /// Ends our side and then, if the client was cut off in the middle of something, drops what it goes on to send:
    /// closing over unread bytes makes the kernel reset the connection, which may take the answer with it.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let door = self.get_mut();
        if door.lingering.is_none() {
            let shut = Pin::new(&mut door.io).poll_shutdown(cx);
            door.wire.write_blocked(shut.is_pending());
            ready!(shut)?;
            if door.ended || door.gate.place() == Place::Between {
                return Poll::Ready(Ok(()));
            }
            door.wire.closing();
            door.lingering = Some(LINGER_BYTES);
        }
        let mut bytes = [0; READ_BYTES];
        loop {
            let mut scrap = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut door.io).poll_read(cx, &mut scrap))?;
            match door
                .lingering
                .and_then(|left| left.checked_sub(scrap.filled().len()))
            {
                Some(left @ 1..) if !scrap.filled().is_empty() => door.lingering = Some(left),
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests;
