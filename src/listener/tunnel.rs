//! A tunnel: bytes either way, unseen. It ends when both sides have ended, when one breaks, or when nothing has moved for too long; and what
//! it carried is on record then, however it ended.

use crate::audit::{Passed, RequestId};
use crate::proxy::Proxy;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::time::{Instant, sleep};

/// Bytes that are held of either direction.
const HELD_BYTES: usize = 16 * 1024;

/// An open tunnel's record, which writes itself.
pub(super) struct Tunnel {
    proxy: Arc<Proxy>,
    id: Option<RequestId>,
    opened: Instant,
    meter: Arc<Meter>,
}

#[derive(Default)]
struct Meter {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Tunnel {
    /// Its clock starts now. `id`: of the access that opened it.
    pub(super) fn open(proxy: Arc<Proxy>, id: Option<RequestId>) -> Tunnel {
        Tunnel {
            proxy,
            id,
            opened: Instant::now(),
            meter: Arc::default(),
        }
    }

    /// Carries bytes until the end, or until none has moved for between once and twice `quiet`.
    pub(super) async fn carry(
        self,
        near: impl AsyncRead + AsyncWrite + Unpin,
        far: impl AsyncRead + AsyncWrite + Unpin,
        quiet: Duration,
    ) {
        let mut near = Counted {
            io: near,
            meter: self.meter.clone(),
            which: |meter| &meter.sent,
        };
        let mut far = Counted {
            io: far,
            meter: self.meter.clone(),
            which: |meter| &meter.received,
        };
        let copying = copy_bidirectional_with_sizes(&mut near, &mut far, HELD_BYTES, HELD_BYTES);
        let mut copying = std::pin::pin!(copying);
        let mut seen = 0;
        loop {
            tokio::select! {
                _ = &mut copying => return,
                () = sleep(quiet) => {}
            }
            let moved = self.meter.sent.load(Relaxed) + self.meter.received.load(Relaxed);
            if moved == seen {
                return;
            }
            seen = moved;
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.proxy.passed(&Passed {
            id: self.id,
            listener: self.proxy.listener().clone(),
            outcome: "tunnelled",
            sent_bytes: self.meter.sent.load(Relaxed),
            received_bytes: self.meter.received.load(Relaxed),
            open: self.opened.elapsed(),
        });
    }
}

/// Counts what is read.
struct Counted<T> {
    io: T,
    meter: Arc<Meter>,
    which: fn(&Meter) -> &AtomicU64,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        let count = buf.filled().len() - before;
        (self.which)(&self.meter).fetch_add(count as u64, Relaxed);
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
