//! One request to an agent that runs, and its whole answer: bounded in length and time. It knows no command.

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Of an answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Sends it on a connection of its own, on a runtime of its own, with a Host header of the address. `patience`: from the connection to the
/// last byte of the answer.
///
/// # Errors
/// Why there is no answer, in words.
pub fn exchange(
    address: SocketAddr,
    mut request: Request<Empty<Bytes>>,
    patience: Duration,
) -> Result<(StatusCode, Bytes), String> {
    let host = HeaderValue::from_str(&address.to_string()).map_err(|error| error.to_string())?;
    request.headers_mut().insert(HOST, host);
    let close = HeaderValue::from_static("close");
    request.headers_mut().insert(CONNECTION, close);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        timeout(patience, answered(address, request))
            .await
            .unwrap_or_else(|_| Err("it took too long".to_owned()))
    })
}

async fn answered(
    address: SocketAddr,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Bytes), String> {
    let told = |error: &dyn std::error::Error| error.to_string();
    let stream = TcpStream::connect(address).await.map_err(|e| told(&e))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| told(&e))?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|e| told(&e))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
    let body = body.collect().await.map_err(|e| told(&*e))?;
    connection.abort();
    Ok((status, body.to_bytes()))
}
