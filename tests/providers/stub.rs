//! A server of HTTP/1.1 that answers as it is told, and remembers what it was asked.

use rustls::ServerConfig;
use std::future::Future;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// One request that came in.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `POST /v1/transit/encrypt/cards`.
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// What is sent back.
#[derive(Clone, Debug)]
pub enum Say {
    /// Status, further header lines, body.
    Answer(u16, &'static str, String),
    /// These bytes, whatever they are, and then the end.
    Raw(Vec<u8>),
    /// Nothing, for ever.
    Silence,
    /// A body without end.
    Endless,
}

impl Say {
    pub fn json(status: u16, body: &str) -> Say {
        Say::Answer(status, "", body.to_owned())
    }
}

type Script = Arc<dyn Fn(&Asked) -> Say + Send + Sync>;

pub struct Stub {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    script: Arc<Mutex<Script>>,
    serving: JoinHandle<()>,
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Stub {
    pub async fn new(script: impl Fn(&Asked) -> Say + Send + Sync + 'static) -> Stub {
        Stub::start(None, script).await
    }

    /// Behind TLS: `https://127.0.0.1:port`.
    pub async fn over_tls(
        tls: Arc<ServerConfig>,
        script: impl Fn(&Asked) -> Say + Send + Sync + 'static,
    ) -> Stub {
        Stub::start(Some(TlsAcceptor::from(tls)), script).await
    }

    async fn start(
        tls: Option<TlsAcceptor>,
        script: impl Fn(&Asked) -> Say + Send + Sync + 'static,
    ) -> Stub {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", socket.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Arc::new(script)));
        let (log, told) = (Arc::clone(&asked), Arc::clone(&script));
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = socket.accept().await.unwrap();
                let (log, told) = (Arc::clone(&log), Arc::clone(&told));
                match tls.clone() {
                    None => tokio::spawn(serve(stream, log, told)),
                    Some(tls) => tokio::spawn(async move {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, log, told).await;
                        }
                    }),
                };
            }
        });
        Stub {
            url,
            asked,
            script,
            serving,
        }
    }

    pub fn tell(&self, script: impl Fn(&Asked) -> Say + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How many requests there were whose line holds this.
    pub fn count(&self, part: &str) -> usize {
        self.asked()
            .iter()
            .filter(|one| one.line.contains(part))
            .count()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    log: Arc<Mutex<Vec<Asked>>>,
    script: Arc<Mutex<Script>>,
) {
    let mut read = Vec::new();
    while let Some(asked) = request(&mut stream, &mut read).await {
        log.lock().unwrap().push(asked.clone());
        let script = Arc::clone(&*script.lock().unwrap());
        match script(&asked) {
            Say::Answer(status, headers, body) => {
                let head = format!(
                    "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n",
                    body.len()
                );
                if stream.write_all((head + &body).as_bytes()).await.is_err() {
                    return;
                }
            }
            Say::Raw(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Say::Silence => std::future::pending().await,
            Say::Endless => {
                let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                let mut sent = stream.write_all(head.as_bytes()).await;
                let piece = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
                while sent.is_ok() {
                    sent = stream.write_all(piece.as_bytes()).await;
                }
                return;
            }
        }
    }
}

async fn request(stream: &mut (impl AsyncRead + Unpin), read: &mut Vec<u8>) -> Option<Asked> {
    let end = loop {
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(read[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let line = lines
        .next()
        .unwrap()
        .trim_end_matches(" HTTP/1.1")
        .to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(0, |(_, value)| value.parse().unwrap());
    while read.len() < end + length {
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
    let body = String::from_utf8(read[end..end + length].to_vec()).unwrap();
    read.drain(..end + length);
    Some(Asked {
        line,
        headers,
        body,
    })
}

/// The answer, or nothing within so long that it would be there on any machine. Who waits in vain waits for silence.
pub async fn within<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(std::time::Duration::from_secs(60), future)
        .await
        .ok()
}
