//! An upstream that costs as little as may be, since it shares its processor with the client: it looks for the end of each request
//! and answers the same. On `/echo` it answers with the body that it got.

use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"ok\":true}";

/// Runs until it is killed.
///
/// # Errors
/// The address cannot be bound.
pub fn run(listen: SocketAddr) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let socket = TcpListener::bind(listen).await?;
        loop {
            let (stream, _) = socket.accept().await?;
            tokio::spawn(serve(stream));
        }
    })
}

async fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    answer(stream).await
}

/// Answers requests until the connection's end.
///
/// # Errors
/// The connection fails.
pub async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(64 * 1024);
    loop {
        let (head, all) = loop {
            if let Some(ends) = ends(&bytes) {
                break ends;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        if bytes.starts_with(b"POST /echo ") {
            let body = &bytes[head..all];
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(&[head.as_bytes(), body].concat()).await?;
        } else {
            stream.write_all(ANSWER).await?;
        }
        // TLS holds back what is not flushed.
        stream.flush().await?;
        bytes.drain(..all);
    }
}

/// Where the head of the first request ends, and where its body does, if all of it is there.
fn ends(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = str::from_utf8(&bytes[..head]).ok()?;
    let field = |wanted: &str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim())
    };
    if let Some(length) = field("content-length") {
        let all = head + length.parse::<usize>().ok()?;
        return (all <= bytes.len()).then_some((head, all));
    }
    if field("transfer-encoding").is_some() {
        let last = b"\r\n0\r\n\r\n";
        let at = bytes[head..]
            .windows(last.len())
            .position(|end| end == last)?;
        return Some((head, head + at + last.len()));
    }
    Some((head, head))
}
