//! The door's judgement as a pure machine over bytes: no socket, no clock. It is what tests and fuzzers drive.

use super::chunks::ChunkScan;
use super::head::{Framing, HeadScan};
use crate::error::Code;

/// Follows one connection's requests: heads, bodies, and where the next head begins.
#[derive(Debug, Default)]
pub struct Gate {
    phase: Phase,
    heads: u64,
    /// A CONNECT ends what is followed here.
    forward: bool,
}

#[derive(Debug)]
enum Phase {
    Head(HeadScan),
    Length(u64),
    Chunked(ChunkScan),
    /// Behind a CONNECT: what comes is no HTTP, or waits for the answer.
    Connect,
    /// Behind a request to upgrade: what comes is read when that is answered.
    Upgrade,
    Refused,
}

impl Default for Phase {
    fn default() -> Phase {
        Phase::Head(HeadScan::default())
    }
}

/// Where the connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Between two requests, or before the first.
    Between,
    /// Within a head.
    Head,
    /// Within a body.
    Body,
    /// Behind a CONNECT: nothing may come before its answer, and what comes behind that is none of the gate's.
    Connect,
    /// Behind a request for another protocol: what comes means something only when that is answered.
    Upgrade,
    /// A refusal was given; nothing more is read.
    Refused,
}

/// What is wrong, and whether it is in a head (the request has not begun) or in the body of a begun request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// In a head: no request came of it.
    Head(Code),
    /// In a body: its request has begun.
    Body(Code),
}

/// What may go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Examined {
    /// So many bytes from the front of the input are cleared.
    pub cleared: usize,
    /// Found behind them.
    pub violation: Option<Violation>,
}

impl Gate {
    /// Of a forward proxy: behind a CONNECT, no further request is looked for until [`Gate::resume`].
    pub fn forward() -> Gate {
        Gate {
            forward: true,
            ..Gate::default()
        }
    }

    /// The CONNECT was refused, or the upgrade: the connection goes on with other requests.
    pub fn resume(&mut self) {
        if matches!(self.phase, Phase::Connect | Phase::Upgrade) {
            self.phase = Phase::default();
        }
    }

    /// Judges `input`, which begins at the first byte that is not cleared yet: what an earlier call left uncleared
    /// is presented again, with more behind it. Linear in the bytes of the stream, and the verdict does not depend
    /// on how the stream is cut.
    pub fn examine(&mut self, input: &[u8]) -> Examined {
        let mut at = 0;
        while at < input.len() {
            match &mut self.phase {
                Phase::Head(scan) => match scan.advance(&input[at..]) {
                    Ok(None) => break,
                    Ok(Some((len, framing))) if self.forward && scan.is_connect() => {
                        if framing != Framing::Length(0) || input.len() > at + len {
                            return self.refuse(at, Violation::Head(Code::EarlyData));
                        }
                        at += len;
                        self.heads += 1;
                        self.phase = Phase::Connect;
                    }
                    Ok(Some((len, framing))) => {
                        at += len;
                        self.heads += 1;
                        self.phase = match framing {
                            Framing::Length(0) if scan.asks_to_upgrade() => Phase::Upgrade,
                            Framing::Length(0) => Phase::default(),
                            Framing::Length(length) => Phase::Length(length),
                            Framing::Chunked => Phase::Chunked(ChunkScan::default()),
                        };
                    }
                    Err(code) => return self.refuse(at, Violation::Head(code)),
                },
                Phase::Length(left) => {
                    let take = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(input.len() - at);
                    at += take;
                    *left -= take as u64;
                    if *left == 0 {
                        self.phase = Phase::default();
                    }
                }
                Phase::Chunked(scan) => match scan.advance(&input[at..]) {
                    Ok((used, done)) => {
                        at += used;
                        if done {
                            self.phase = Phase::default();
                        }
                    }
                    Err((used, code)) => return self.refuse(at + used, Violation::Body(code)),
                },
                Phase::Connect | Phase::Upgrade | Phase::Refused => break,
            }
        }
        Examined {
            cleared: at,
            violation: None,
        }
    }

    fn refuse(&mut self, cleared: usize, violation: Violation) -> Examined {
        self.phase = Phase::Refused;
        Examined {
            cleared,
            violation: Some(violation),
        }
    }

    /// Gives up on the connection: nothing more is cleared.
    pub fn shut(&mut self) {
        self.phase = Phase::Refused;
    }

    /// Heads cleared so far.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Where the stream stands behind what was examined so far.
    pub fn place(&self) -> Place {
        match &self.phase {
            Phase::Head(scan) if scan.is_untouched() => Place::Between,
            Phase::Head(_) => Place::Head,
            Phase::Length(_) | Phase::Chunked(_) => Place::Body,
            Phase::Connect => Place::Connect,
            Phase::Upgrade => Place::Upgrade,
            Phase::Refused => Place::Refused,
        }
    }
}
