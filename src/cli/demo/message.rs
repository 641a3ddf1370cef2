//! HTTP/1.1 messages in a copy of a connection's bytes: just enough to show them. What cannot be followed is not shown;
//! the bytes themselves go their way without it.

/// Bytes of a head that are looked at.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes of a body that are kept to be shown.
const BODY_BYTES_MAX: usize = 256 << 10;

/// One request or answer.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Message {
    /// Start line and fields, without the empty line.
    pub head: String,
    /// Without chunks; its beginning, where it is long.
    pub body: Vec<u8>,
    /// It ended before its end, or only its beginning is here.
    pub cut: bool,
}

impl Message {
    /// The request's method, or the answer's version.
    pub fn first(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// The request's target, or the answer's status.
    pub fn second(&self) -> &str {
        self.head.split([' ', '\r']).nth(1).unwrap_or_default()
    }

    /// A field's first value.
    pub fn field(&self, name: &str) -> Option<&str> {
        let fields = self
            .head
            .split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(':'));
        let mut of_name = fields.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        of_name.next().map(|(_, value)| value.trim())
    }
}

enum State {
    Head,
    /// So many bytes are left.
    Counted(usize),
    ChunkSize,
    Chunk(usize),
    Trailers,
    /// To the end of the connection.
    Open,
    /// It could not be followed.
    Lost,
}

/// Splits one direction of a connection into messages.
pub struct Reader {
    buffer: Vec<u8>,
    message: Message,
    state: State,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader {
            buffer: Vec::new(),
            message: Message::default(),
            state: State::Head,
        }
    }
}

impl Reader {
    /// More bytes. `bodiless`: the answer that is being read is to HEAD. Returns the messages that are complete.
    pub fn push(&mut self, bytes: &[u8], bodiless: bool) -> Vec<Message> {
        let mut done = Vec::new();
        self.buffer.extend_from_slice(bytes);
        while self.step(bodiless, &mut done) {}
        if matches!(self.state, State::Lost) {
            self.buffer = Vec::new();
        }
        done
    }

    /// The connection has ended: the message that was under way, if there was one.
    pub fn end(&mut self) -> Option<Message> {
        let state = std::mem::replace(&mut self.state, State::Lost);
        if matches!(state, State::Head | State::Lost) {
            return None;
        }
        let mut message = std::mem::take(&mut self.message);
        message.cut |= !matches!(state, State::Open);
        Some(message)
    }

    /// The message that is under way as far as it came, and no more of it: it was answered before its end.
    pub fn take_begun(&mut self) -> Option<Message> {
        self.end()
    }

    /// Goes one state further, if the bytes suffice.
    fn step(&mut self, bodiless: bool, done: &mut Vec<Message>) -> bool {
        match self.state {
            State::Head => {
                let Some(end) = find(&self.buffer, b"\r\n\r\n") else {
                    if self.buffer.len() > HEAD_BYTES_MAX {
                        self.state = State::Lost;
                    }
                    return false;
                };
                let head: Vec<u8> = self.buffer.drain(..end + 4).take(end).collect();
                self.message = Message {
                    head: String::from_utf8_lossy(&head).into_owned(),
                    ..Message::default()
                };
                self.state = framing(&self.message, bodiless);
                self.complete(done);
                true
            }
            State::Counted(left) => {
                let took = self.keep(left);
                self.state = State::Counted(left - took);
                self.complete(done);
                took > 0
            }
            State::ChunkSize => {
                let Some(line) = self.line() else {
                    return false;
                };
                let size = line.split(';').next().unwrap_or_default().trim();
                self.state = match usize::from_str_radix(size, 16) {
                    Ok(0) => State::Trailers,
                    // With the line break behind it.
                    Ok(size) if size < usize::MAX - 2 => State::Chunk(size + 2),
                    _ => State::Lost,
                };
                true
            }
            State::Chunk(left) => {
                let took = if left > 2 {
                    self.keep(left - 2)
                } else {
                    self.buffer.drain(..left.min(self.buffer.len())).count()
                };
                self.state = if took == left {
                    State::ChunkSize
                } else {
                    State::Chunk(left - took)
                };
                took > 0
            }
            State::Trailers => {
                let Some(line) = self.line() else {
                    return false;
                };
                if line.is_empty() {
                    self.state = State::Counted(0);
                    self.complete(done);
                }
                true
            }
            State::Open => {
                self.keep(usize::MAX);
                false
            }
            State::Lost => false,
        }
    }

    /// Hands the message out, if it is complete.
    fn complete(&mut self, done: &mut Vec<Message>) {
        if matches!(self.state, State::Counted(0)) {
            self.state = State::Head;
            done.push(std::mem::take(&mut self.message));
        }
    }

    /// Takes up to so many bytes as body; returns how many.
    fn keep(&mut self, most: usize) -> usize {
        let took = most.min(self.buffer.len());
        let body = &mut self.message.body;
        let kept = took.min(BODY_BYTES_MAX - body.len());
        body.extend_from_slice(&self.buffer[..kept]);
        self.message.cut |= kept < took;
        self.buffer.drain(..took);
        took
    }

    fn line(&mut self) -> Option<String> {
        let Some(end) = find(&self.buffer, b"\r\n") else {
            if self.buffer.len() > HEAD_BYTES_MAX {
                self.state = State::Lost;
            }
            return None;
        };
        let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
        Some(String::from_utf8_lossy(&line).into_owned())
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// How the body of this message is delimited (RFC 9112 section 6.3).
fn framing(message: &Message, bodiless: bool) -> State {
    let is_answer = message.first().starts_with("HTTP/");
    let status = message.second();
    if is_answer && (bodiless || status.starts_with('1') || status == "204" || status == "304") {
        return State::Counted(0);
    }
    if message
        .field("transfer-encoding")
        .is_some_and(|coding| coding.to_ascii_lowercase().ends_with("chunked"))
    {
        return State::ChunkSize;
    }
    match message.field("content-length").map(str::parse) {
        Some(Ok(length)) => State::Counted(length),
        Some(Err(_)) => State::Lost,
        None if is_answer => State::Open,
        None => State::Counted(0),
    }
}
