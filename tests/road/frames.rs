//! HTTP/2 in frames made by hand: what a client library would never send.

use crate::harness::SOON;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0x0;
pub const HEADERS: u8 = 0x1;
pub const RST_STREAM: u8 = 0x3;
pub const SETTINGS: u8 = 0x4;
pub const PING: u8 = 0x6;
pub const GOAWAY: u8 = 0x7;
pub const WINDOW_UPDATE: u8 = 0x8;
pub const CONTINUATION: u8 = 0x9;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;

pub const PROTOCOL_ERROR: u32 = 0x1;
pub const ENHANCE_YOUR_CALM: u32 = 0xb;

#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Of RST_STREAM and GOAWAY.
    pub fn reason(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// An HPACK integer of 7 bits' prefix (RFC 7541 section 5.1), and the text in plain.
fn text(bytes: &[u8], out: &mut Vec<u8>) {
    let mut length = bytes.len();
    if length < 127 {
        out.push(length as u8);
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push((length % 128 + 128) as u8);
            length /= 128;
        }
        out.push(length as u8);
    }
    out.extend(bytes);
}

/// Literal fields that are never indexed (RFC 7541 section 6.2.3): whatever bytes they are.
pub fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0x10);
        text(name, &mut out);
        text(value, &mut out);
    }
    out
}

/// `:method`, `:scheme`, `:authority`, `:path`, and more.
pub fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields: Vec<(&[u8], &[u8])> = vec![
        (b":method", method.as_bytes()),
        (b":scheme", b"http"),
        (b":authority", b"app"),
        (b":path", path.as_bytes()),
    ];
    fields.extend(
        more.iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
    );
    block(&fields)
}

/// One end of a connection.
pub struct Frames {
    pub stream: TcpStream,
    kept: Vec<u8>,
}

impl Frames {
    pub fn over(stream: TcpStream) -> Frames {
        let _ = stream.set_nodelay(true);
        Frames {
            stream,
            kept: Vec::new(),
        }
    }
    /// A client that has sent its preface and empty settings.
    pub async fn to(address: SocketAddr) -> Frames {
        let mut frames = Frames::over(TcpStream::connect(address).await.expect("connects"));
        frames.say(PREFACE).await;
        frames.say(&frame(SETTINGS, 0, 0, b"")).await;
        frames
    }
    pub async fn say(&mut self, bytes: &[u8]) {
        // The other side may have gone; what it did not read shows elsewhere.
        let _ = self.stream.write_all(bytes).await;
    }
    pub async fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.kept.len() < count {
            let mut bytes = [0; 16384];
            match timeout(SOON, self.stream.read(&mut bytes))
                .await
                .expect("bytes or an end, soon")
            {
                Ok(count @ 1..) => self.kept.extend_from_slice(&bytes[..count]),
                _ => return None,
            }
        }
        Some(self.kept.drain(..count).collect())
    }
    pub async fn next(&mut self) -> Option<Frame> {
        let head = self.bytes(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload: self.bytes(length).await?,
        })
    }
    /// The next frame of this kind; others are passed over. `None`: the connection ended before it.
    pub async fn wait_for(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }
    /// How this stream ended: the reason that it was reset for, or the data of its answer.
    pub async fn outcome(&mut self, stream: u32) -> Result<Vec<u8>, u32> {
        let mut data = Vec::new();
        loop {
            let frame = self.next().await.expect("the connection goes on");
            if frame.kind == GOAWAY {
                panic!("GOAWAY {}", frame.reason());
            }
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                RST_STREAM => return Err(frame.reason()),
                DATA => data.extend(&frame.payload),
                _ => {}
            }
            if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
                return Ok(data);
            }
        }
    }
    /// The code of the problem document that answers this stream.
    pub async fn code(&mut self, stream: u32) -> String {
        let data = self.outcome(stream).await.expect("an answer");
        let document: serde_json::Value = serde_json::from_slice(&data).expect("JSON");
        document["code"].as_str().expect("a code").to_owned()
    }
    /// The reason of the GOAWAY with which the connection ends.
    pub async fn goodbye(&mut self) -> u32 {
        let reason = self.wait_for(GOAWAY).await.expect("GOAWAY").reason();
        while self.next().await.is_some() {}
        reason
    }
}
