//! An upstream that keeps the raw bytes of what it got and answers with the body that it got, as JSON.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// It ends when this is dropped.
pub struct Echo {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    got: Arc<Mutex<Vec<Got>>>,
    over: Arc<AtomicBool>,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Got {
    pub head: String,
    pub body: Vec<u8>,
}

impl Echo {
    pub fn start() -> Echo {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let echo = Echo {
            address: socket.local_addr().expect("bound"),
            connections: Arc::default(),
            got: Arc::default(),
            over: Arc::default(),
        };
        let (connections, got, over) = (
            echo.connections.clone(),
            echo.got.clone(),
            echo.over.clone(),
        );
        std::thread::spawn(move || {
            for stream in socket.incoming() {
                if over.load(SeqCst) {
                    return;
                }
                connections.fetch_add(1, SeqCst);
                let got = got.clone();
                std::thread::spawn(move || serve(stream.expect("a connection"), &got));
            }
        });
        echo
    }

    /// Connections that were ever made.
    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    /// What came since the last time.
    pub fn take(&self) -> Vec<Got> {
        std::mem::take(&mut self.got.lock().expect("got"))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

/// Requests with a Content-Length or chunked, one after the other. `None` at the end of the connection.
fn serve(stream: TcpStream, got: &Mutex<Vec<Got>>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let field = |name: &str| {
            head.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(known, _)| known.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim())
        };
        let mut body = Vec::new();
        if let Some(length) = field("content-length") {
            body = vec![0; length.parse().ok()?];
            reader.read_exact(&mut body).ok()?;
        } else if field("transfer-encoding").is_some() {
            loop {
                let mut size = String::new();
                reader.read_line(&mut size).ok()?;
                let size = usize::from_str_radix(size.trim(), 16).ok()?;
                let mut chunk = vec![0; size + 2];
                reader.read_exact(&mut chunk).ok()?;
                body.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    break;
                }
            }
        }
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = [answer.as_bytes(), &body].concat();
        got.lock().expect("got").push(Got { head, body });
        reader.get_mut().write_all(&answer).ok()?;
    }
}
