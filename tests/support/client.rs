//! A client that sends bytes and reads answers, blocking.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Long enough on a busy machine, short enough to fail.
pub const SOON: Duration = Duration::from_secs(30);

/// One connection.
pub struct Client(BufReader<TcpStream>);

/// An answer, with its body decoded.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
    /// The code of a problem document (RFC 9457), which must agree with the status and the result header.
    #[track_caller]
    pub fn code(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let document: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        assert_eq!(document["status"], self.status);
        let code = document["code"].as_str().expect("a code").to_owned();
        assert_eq!(
            self.header("fieldveil-result"),
            Some(&*format!("refused={code}"))
        );
        code
    }
}

impl Client {
    pub fn to(address: SocketAddr) -> Client {
        let stream = TcpStream::connect_timeout(&address, SOON).expect("connects");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(SOON)).expect("a time limit");
        stream.set_write_timeout(Some(SOON)).expect("a time limit");
        Client(BufReader::new(stream))
    }

    /// Sends bytes. The other side may have answered and gone: that shows in the answer.
    pub fn say(&mut self, bytes: &[u8]) {
        let _ = self.0.get_mut().write_all(bytes);
    }

    /// Posts a body declared as JSON.
    pub fn post(&mut self, path: &str, body: &[u8]) -> Answer {
        self.post_as("Content-Type: application/json\r\n", path, body)
    }

    /// Posts a body with these further header lines.
    pub fn post_as(&mut self, lines: &str, path: &str, body: &[u8]) -> Answer {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: api.example.com\r\n{lines}Content-Length: {}\r\n\r\n",
            body.len()
        );
        self.say(&[head.as_bytes(), body].concat());
        self.answer().expect("an answer")
    }

    /// The next answer; `None` if the connection ends instead.
    pub fn answer(&mut self) -> Option<Answer> {
        let line = self.line()?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut answer = Answer {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':')?;
            answer
                .headers
                .push((name.to_owned(), value.trim().to_owned()));
        }
        if answer.header("transfer-encoding").is_some() {
            loop {
                let size = usize::from_str_radix(&self.line()?, 16).ok()?;
                let mut chunk = vec![0; size];
                self.0.read_exact(&mut chunk).ok()?;
                answer.body.append(&mut chunk);
                self.line()?;
                if size == 0 {
                    return Some(answer);
                }
            }
        }
        match answer.header("content-length") {
            Some(length) => {
                answer.body = vec![0; length.parse().ok()?];
                self.0.read_exact(&mut answer.body).ok()?;
            }
            None if status == 204 || status == 304 => {}
            None => {
                self.0.read_to_end(&mut answer.body).ok()?;
            }
        }
        Some(answer)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).ok()?;
        let line = line.strip_suffix(b"\r\n")?;
        Some(String::from_utf8_lossy(line).into_owned())
    }
}
