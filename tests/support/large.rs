//! A JSON array of any length, sent through the agent and fetched back, neither of which is ever in memory here.

use fieldveil::body::coding::{Coding, Codings, Decoder, Encoder};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What stands in every element where it is sealed, and nowhere else.
pub const SECRET: &str = "078-05-1120";
/// Bytes that are written or read at once.
const BLOCK: usize = 64 << 10;

/// The elements of an array of about `bytes` bytes, block by block: no two alike, one value each that a rule for `$[*].ssn` seals.
pub struct Array {
    left: usize,
    number: u64,
}

impl Array {
    pub fn new(bytes: usize) -> Array {
        Array {
            left: bytes,
            number: 0,
        }
    }
}

impl Iterator for Array {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.left == 0 {
            return None;
        }
        let mut block = Vec::with_capacity(BLOCK + 4096);
        while block.len() < BLOCK && self.left > 0 {
            let number = self.number;
            block.extend_from_slice(if number == 0 { b"[\n" } else { b",\n" });
            let digest = Sha256::digest(number.to_le_bytes());
            let noise: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let element = format!(
                r#"{{"id":{number}, "name":"Émile \"{noise}\"","ssn":"{SECRET}-{number}","n":[1.50,-0,{number}e2],"notes":"{}","open":true}}"#,
                "some words that a service keeps of a customer; ".repeat(number as usize % 20)
            );
            block.extend_from_slice(element.as_bytes());
            self.number += 1;
            self.left = self.left.saturating_sub(element.len() + 2);
        }
        if self.left == 0 {
            block.extend_from_slice(b"\n]\n");
        }
        Some(block)
    }
}

/// Keeps the body of the last request in a file, as it came, and answers a GET with it.
pub struct Store {
    pub address: SocketAddr,
    kept: Arc<Mutex<Option<Kept>>>,
}

struct Kept {
    /// Without a name: it is gone with the process, however that ends.
    file: File,
    coding: Option<String>,
}

impl Store {
    pub fn start() -> Store {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let store = Store {
            address: socket.local_addr().expect("bound"),
            kept: Arc::default(),
        };
        let kept = Arc::clone(&store.kept);
        std::thread::spawn(move || {
            for stream in socket.incoming() {
                let (Ok(stream), kept) = (stream, Arc::clone(&kept)) else {
                    return;
                };
                // An error is a body that broke off: nothing is kept of it, and nothing answered.
                std::thread::spawn(move || serve(&stream, &kept));
            }
        });
        store
    }

    /// Whether a body came whole.
    pub fn has_one(&self) -> bool {
        self.kept.lock().expect("whole").is_some()
    }

    /// What was kept, out of its coding, block by block.
    pub fn look(&self, mut at: impl FnMut(&[u8])) {
        let kept = self.kept.lock().expect("whole");
        let kept = kept.as_ref().expect("a body came");
        let mut file = kept.file.try_clone().expect("readable");
        file.rewind().expect("readable");
        let mut decoder = kept.coding.is_some().then(gunzip);
        each(file, |block| match &mut decoder {
            None => at(block),
            Some(decoder) => decode(decoder, block, &mut at),
        })
        .expect("readable");
    }
}

fn serve(stream: &TcpStream, kept: &Mutex<Option<Kept>>) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(BLOCK, stream);
    while let Some(head) = read_head(&mut reader)? {
        if head.starts_with("GET ") {
            let kept = kept.lock().expect("whole");
            let kept = kept.as_ref().expect("a body came");
            let coding = kept.coding.as_deref();
            let coding = coding.map_or(String::new(), |of| format!("Content-Encoding: {of}\r\n"));
            let length = kept.file.metadata()?.len();
            write!(
                &mut (&*stream),
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{coding}Content-Length: {length}\r\n\r\n"
            )?;
            (&kept.file).rewind()?;
            io::copy(&mut &kept.file, &mut (&*stream))?;
        } else {
            let mut file = BufWriter::with_capacity(BLOCK, tempfile::tempfile()?);
            *kept.lock().expect("whole") = None;
            read_body(&mut reader, &head, |block| file.write_all(block))?;
            let file = file.into_inner()?;
            let coding = header(&head, "content-encoding").map(str::to_owned);
            *kept.lock().expect("whole") = Some(Kept { file, coding });
            (&*stream).write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
        }
    }
    Ok(())
}

/// An answer's status, and the SHA-256 of its body out of its coding.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub digest: [u8; 32],
}

/// Sends the array, in chunks, and gives the status and the SHA-256 of what was sent before its coding.
///
/// # Errors
/// The connection broke before an answer.
pub fn put(
    to: SocketAddr,
    array: impl IntoIterator<Item = Vec<u8>>,
    gzip: bool,
) -> io::Result<(u16, [u8; 32])> {
    let stream = TcpStream::connect(to)?;
    let mut writer = BufWriter::with_capacity(2 * BLOCK, &stream);
    let coding = if gzip {
        "Content-Encoding: gzip\r\n"
    } else {
        ""
    };
    write!(
        writer,
        "PUT /array HTTP/1.1\r\nHost: {to}\r\nContent-Type: application/json\r\n{coding}Transfer-Encoding: chunked\r\n\r\n"
    )?;
    let mut encoder = gzip.then(|| Encoder::new(&Codings::from([Coding::Gzip])));
    let mut hash = Sha256::new();
    let mut coded = Vec::new();
    // Where the agent refuses it on the way, the answer is there to read all the same.
    let mut sent = array.into_iter().try_for_each(|block| {
        hash.update(&block);
        match &mut encoder {
            None => chunk(&mut writer, &block),
            Some(encoder) => {
                coded.clear();
                encoder.feed(&block, &mut coded)?;
                chunk(&mut writer, &coded)
            }
        }
    });
    if let (Ok(()), Some(encoder)) = (&sent, encoder) {
        coded.clear();
        encoder.finish(&mut coded)?;
        sent = chunk(&mut writer, &coded);
    }
    if sent.is_ok() {
        writer.write_all(b"0\r\n\r\n")?;
        writer.flush()?;
    }
    let mut reader = BufReader::new(&stream);
    let head = read_head(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((status(&head), hash.finalize().into()))
}

fn chunk(writer: &mut impl Write, block: &[u8]) -> io::Result<()> {
    if block.is_empty() {
        return Ok(());
    }
    write!(writer, "{:x}\r\n", block.len())?;
    writer.write_all(block)?;
    writer.write_all(b"\r\n")
}

/// Fetches the array.
///
/// # Errors
/// It did not come whole.
pub fn get(from: SocketAddr) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(from)?;
    write!(
        stream,
        "GET /array HTTP/1.1\r\nHost: {from}\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n"
    )?;
    let mut reader = BufReader::with_capacity(BLOCK, stream);
    let head = read_head(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut decoder = header(&head, "content-encoding").map(|_| gunzip());
    let mut hash = Sha256::new();
    read_body(&mut reader, &head, |block| {
        match &mut decoder {
            None => hash.update(block),
            Some(decoder) => decode(decoder, block, |plain| hash.update(plain)),
        }
        Ok(())
    })?;
    Ok(Answer {
        status: status(&head),
        head,
        digest: hash.finalize().into(),
    })
}

fn gunzip() -> Decoder {
    Decoder::new(&Codings::from([Coding::Gzip]))
}

fn decode(decoder: &mut Decoder, block: &[u8], mut at: impl FnMut(&[u8])) {
    for piece in block.chunks(4 << 10) {
        let mut plain = Vec::new();
        decoder.feed(piece, &mut plain).expect("gzip");
        at(&plain);
    }
}

/// A head without its empty line. None: nothing came.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if reader.read_line(&mut head)? == 0 {
            return match head.is_empty() {
                true => Ok(None),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
        if head[before..].trim_end().is_empty() {
            head.truncate(before);
            return Ok(Some(head));
        }
    }
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let field = fields.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    Some(field.1.trim())
}

fn status(head: &str) -> u16 {
    let word = head.split(' ').nth(1).unwrap_or_default();
    word.parse().expect("a status")
}

/// A body, block by block.
fn read_body(
    reader: &mut impl BufRead,
    head: &str,
    mut at: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    if let Some(length) = header(head, "content-length") {
        let length = length.parse().expect("a length");
        return exactly(reader, length, &mut at);
    }
    if header(head, "transfer-encoding").is_none() {
        return Ok(());
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim_end(), 16);
        let length = length.map_err(|_| io::ErrorKind::UnexpectedEof)?;
        exactly(reader, length, &mut at)?;
        let mut end = [0; 2];
        reader.read_exact(&mut end)?;
        if length == 0 {
            return Ok(());
        }
    }
}

fn exactly(
    reader: &mut impl BufRead,
    mut left: u64,
    at: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    while left > 0 {
        let block = reader.fill_buf()?;
        if block.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let some = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        at(&block[..some])?;
        reader.consume(some);
        left -= some as u64;
    }
    Ok(())
}

fn each(mut file: File, mut at: impl FnMut(&[u8])) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(()),
            some => at(&block[..some]),
        }
    }
}
