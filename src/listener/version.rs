//! Which version of HTTP a connection without TLS speaks: HTTP/2 begins with a preface that no HTTP/1.1 request is
//! (RFC 9113 section 3.4).

use bytes::BytesMut;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::ready;
use tokio::io::{AsyncRead, ReadBuf};

/// What an HTTP/2 connection begins with.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes read at once.
const READ_BYTES: usize = 4096;

/// Reads into `begun` until it shows whether the preface is there. What was read stays in `begun` if the future is
/// dropped; half a preface at the connection's end is none.
pub(super) async fn is_http2<T: AsyncRead + Unpin>(
    io: &mut T,
    begun: &mut BytesMut,
) -> io::Result<bool> {
    loop {
        let seen = begun.len().min(PREFACE.len());
        if begun[..seen] != PREFACE[..seen] {
            return Ok(false);
        }
        if seen == PREFACE.len() {
            return Ok(true);
        }
        let more = poll_fn(|cx| {
            let mut bytes = [0; READ_BYTES];
            let mut more = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut more))?;
            begun.extend_from_slice(more.filled());
            std::task::Poll::Ready(Ok::<_, io::Error>(!more.filled().is_empty()))
        })
        .await?;
        if !more {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pieces: &[&[u8]], expected: bool) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            let mut io = in_pieces(pieces);
            let mut begun = BytesMut::new();
            let found = is_http2(&mut io, &mut begun).await.expect("reads");
            assert_eq!(found, expected, "{place}");
            let whole = pieces.concat();
            assert!(whole.starts_with(&begun), "{place}");
        }
    }

    /// Gives out one piece a read, then the end.
    fn in_pieces(pieces: &[&[u8]]) -> impl AsyncRead + Unpin {
        struct Pieces(std::collections::VecDeque<Vec<u8>>);
        impl AsyncRead for Pieces {
            fn poll_read(
                mut self: Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                if let Some(piece) = self.0.pop_front() {
                    buf.put_slice(&piece);
                }
                std::task::Poll::Ready(Ok(()))
            }
        }
        Pieces(pieces.iter().map(|piece| piece.to_vec()).collect())
    }

    #[tokio::test]
    async fn the_preface_decides() {
        check(&[PREFACE], true).await;
        check(&[PREFACE, b"more"], true).await;
        let single: Vec<&[u8]> = PREFACE.chunks(1).collect();
        check(&single, true).await;
        check(&[b""], false).await;
        check(&[b"GET / HTTP/1.1\r\n"], false).await;
        check(&[b"P", b"O"], false).await;
        check(&[b"PRI * HTTP/2.0\r\n\r\n"], false).await;
        check(&[b"PRI * HTTP/2.0\r\n\r\n", b"XX\r\n\r\n"], false).await;
        check(&[b"pri * HTTP/2.0\r\n\r\nSM\r\n\r\n"], false).await;
    }
}
