//! A bare reverse proxy of hyper 1.x: it forwards, and does nothing else. It checks nothing and drops no header, so it is less than
//! any proxy may do.

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Runs until it is killed, on as many threads as it may use processors.
///
/// # Errors
/// The address cannot be bound.
pub fn run(listen: SocketAddr, upstream: SocketAddr) -> io::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let socket = TcpListener::bind(listen).await?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client: Client<_, Incoming> = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(connector);
        loop {
            let (stream, _) = socket.accept().await?;
            stream.set_nodelay(true)?;
            let client = client.clone();
            let service = service_fn(move |mut request: Request<Incoming>| {
                let path = request.uri().path_and_query().cloned();
                *request.uri_mut() = Uri::builder()
                    .scheme("http")
                    .authority(upstream.to_string())
                    .path_and_query(path.map_or("/".to_owned(), |path| path.to_string()))
                    .build()
                    .expect("an address and a path");
                client.request(request)
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    })
}
