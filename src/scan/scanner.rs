//! The scan itself: value, separator and name in one loop.
//!
//! Shaped by measurement (benches/README.md). What costs time here is neither the bytes nor the comparisons but the branches that a
//! processor cannot foresee, so runs of bytes are measured eight or sixteen at a time, without a branch for their length; the loop is
//! left only at a chunk's end and for what is rare, which `cut` does byte by byte.

use super::automaton::StateId;
use super::cut::{Mode, Next};
use super::lex::{self, Number, Text};
use super::{Automaton, Counted, Fault, Found, Hit, Interest, Kind, Near};
use std::ops::Deref;

/// A container that is open.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub(super) start: usize,
    index: u32,
    pub(super) state: StateId,
    array: bool,
}

/// Around the document.
const OUTSIDE: Frame = Frame {
    start: usize::MAX,
    index: 0,
    state: 0,
    array: false,
};

/// One scan of one document, with a way to its automaton.
pub struct Scanner<A> {
    pub(super) automaton: A,
    depth_max: usize,
    mode: Mode,
    top: Frame,
    stack: Vec<Frame>,
    /// Hits on containers that are still open: (depth, index of the hit).
    open: Vec<(usize, usize)>,
    /// Hits that were taken while the scan goes on, and where the containers among them ended since.
    taken: usize,
    ended: Vec<(usize, usize)>,
    /// Bytes in the chunks before this one.
    pub(super) base: usize,
    /// The value under way: where it starts, its state; of a string its first byte and whether it holds an escape.
    pub(super) start: usize,
    state: StateId,
    pub(super) first: Option<u8>,
    pub(super) escaped: bool,
    /// The raw bytes of a name that a chunk's end cut, as far as they can matter.
    pub(super) name: Vec<u8>,
    /// The text of a name that holds an escape; kept for its room.
    pub(super) unescaped: Vec<u8>,
    found: Found,
}

/// The end of a chunk, with the mode to go on in; or a fault in the text.
pub(super) enum Stop {
    Chunk(Mode),
    Syntax(&'static str),
    TooDeep,
}

/// Goes to the next byte that is not white space; at the chunk's end, stops before `$next`.
macro_rules! next {
    ($scan:lifetime, $b:ident, $i:ident, $next:expr) => {
        loop {
            match $b.get($i) {
                Some(&c) if c > b' ' => break c,
                Some(b' ' | b'\n' | b'\r' | b'\t') => $i = lex::spaces($b, $i + 1),
                Some(_) => break $scan Stop::Syntax("a control character between values"),
                None => break $scan Stop::Chunk(Mode::Before($next)),
            }
        }
    };
}

/// The literal that begins with `c`.
fn literal(c: u8) -> &'static [u8] {
    match c {
        b't' => b"true",
        b'f' => b"false",
        _ => b"null",
    }
}

impl<A: Deref<Target = Automaton> + Clone> Scanner<A> {
    /// A scanner at the start of a document. `depth_max`: the most containers inside of each other.
    pub fn new(automaton: A, depth_max: usize) -> Scanner<A> {
        Scanner {
            depth_max,
            mode: Mode::Before(Next::Value),
            top: OUTSIDE,
            stack: Vec::with_capacity(16),
            open: Vec::new(),
            taken: 0,
            ended: Vec::new(),
            base: 0,
            start: 0,
            state: automaton.root(),
            automaton,
            first: None,
            escaped: false,
            name: Vec::new(),
            unescaped: Vec::new(),
            found: Found {
                hits: Vec::with_capacity(16),
                counted: Counted::default(),
                near: Near::default(),
            },
        }
    }

    /// A scanner at the start of a value that stands, in its document, at a state of the automaton.
    pub fn beginning_at(automaton: A, state: u16, depth_max: usize) -> Scanner<A> {
        Scanner {
            state,
            ..Scanner::new(automaton, depth_max)
        }
    }

    /// Takes the next bytes of the document.
    ///
    /// # Errors
    /// The first [`Fault`]; the scan is over then.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), Fault> {
        let (stop, at) = self.run(chunk);
        let offset = self.base + at;
        match stop {
            Stop::Chunk(mode) => {
                self.mode = mode;
                self.base += chunk.len();
                Ok(())
            }
            Stop::Syntax(what) => Err(Fault::Syntax { offset, what }),
            Stop::TooDeep => Err(Fault::TooDeep { offset }),
        }
    }

    /// How many hits there are so far.
    pub fn hits(&self) -> usize {
        self.found.hits.len()
    }

    /// Bytes that were fed.
    pub fn position(&self) -> usize {
        self.base
    }

    /// Takes the hits so far, in the order of their starts; their numbers count on. The second list: containers among hits that were
    /// taken before and have ended since, as (number of the hit, behind its last byte).
    pub fn take(&mut self) -> (Vec<Hit>, Vec<(usize, usize)>) {
        self.taken += self.found.hits.len();
        let room = Vec::with_capacity(self.found.hits.len());
        let hits = std::mem::replace(&mut self.found.hits, room);
        (hits, std::mem::take(&mut self.ended))
    }

    /// The scalar that the last chunk's end cut and that may become a hit, as (its first byte, its state).
    pub fn cut(&self) -> Option<(usize, u16)> {
        let interest = self.automaton.interest(self.state);
        let maybe_token = || matches!(self.first, None | Some(b'f' | b'\\'));
        let may_be_hit = match self.mode {
            Mode::Before(_) | Mode::InName(_) => false,
            Mode::InString(_) if interest.has(Interest::TOKENS) && maybe_token() => true,
            Mode::InString(_) | Mode::InNumber(_) | Mode::InLiteral(..) => {
                interest.has(Interest::EVERY)
            }
        };
        may_be_hit.then_some((self.start, self.state))
    }

    /// Whether the container that starts there is open; `usize::MAX` is the document, which is always.
    pub fn is_open(&self, start: usize) -> bool {
        self.top.start == start
            || start == usize::MAX
            || self.stack.get(1..).is_some_and(|open| {
                open.binary_search_by_key(&start, |frame| frame.start)
                    .is_ok()
            })
    }

    /// Scalars counted so far.
    pub fn counted(&self) -> Counted {
        self.found.counted
    }

    /// Near misses so far.
    pub fn near_misses(&self) -> Near {
        self.found.near
    }

    /// The document ends here.
    ///
    /// # Errors
    /// It ended too early, or was empty.
    pub fn finish(mut self) -> Result<Found, Fault> {
        let outside = self.top.start == usize::MAX;
        match self.mode {
            Mode::Before(Next::After) if outside => Ok(self.found),
            Mode::InNumber(number) if outside && number.may_end() => {
                self.scalar(self.start, self.base, self.state, &OUTSIDE, Kind::Number);
                Ok(self.found)
            }
            _ => Err(Fault::Syntax {
                offset: self.base,
                what: "the document ends too early",
            }),
        }
    }

    /// Scans to the chunk's end or to a fault, and says where that was.
    fn run(&mut self, b: &[u8]) -> (Stop, usize) {
        let automaton = self.automaton.clone();
        let base = self.base;
        let (mut top, mut state, mut i) = (self.top, self.state, 0);
        let mut next = match self.mode {
            Mode::Before(next) => next,
            cut => match self.resume(b, &mut i, cut, &mut state, &top) {
                Ok(next) => next,
                Err(stop) => return (stop, i),
            },
        };
        // Each way back to the loop's head sets `next` to a constant, and so skips the question there.
        let stop = 'scan: loop {
            'colon: {
                let quote = 'name: {
                    'after: {
                        match next {
                            Next::Value => {}
                            Next::ValueOrEnd => {
                                if next!('scan, b, i, Next::ValueOrEnd) == b']' {
                                    break 'after;
                                }
                            }
                            Next::After => break 'after,
                            Next::Name => break 'name next!('scan, b, i, Next::Name),
                            Next::NameOrEnd => match next!('scan, b, i, Next::NameOrEnd) {
                                b'}' => break 'after,
                                quote => break 'name quote,
                            },
                            Next::Colon => break 'colon,
                        }
                        let c = next!('scan, b, i, Next::Value);
                        let start = base + i;
                        // What is out of the ordinary, `resume` begins anew.
                        let rare = match c {
                            b'"' => match lex::whole_string(b, i + 1) {
                                Some((end, kind)) => {
                                    let first = b[i + 1];
                                    i = end;
                                    self.string(start, base + i, state, &top, kind, first);
                                    break 'after;
                                }
                                None => {
                                    i += 1;
                                    (self.escaped, self.first) = (false, None);
                                    Mode::InString(Text::Plain)
                                }
                            },
                            b'{' | b'[' => {
                                if self.stack.len() >= self.depth_max {
                                    break 'scan Stop::TooDeep;
                                }
                                let array = c == b'[';
                                let parent = top.start;
                                self.stack.push(top);
                                top = Frame {
                                    start,
                                    index: 0,
                                    state,
                                    array,
                                };
                                if automaton.interest(state).of_container() {
                                    self.container(parent, &top);
                                }
                                i += 1;
                                if array {
                                    state = automaton.element(state, 0);
                                    next = Next::ValueOrEnd;
                                } else {
                                    next = Next::NameOrEnd;
                                }
                                continue 'scan;
                            }
                            b'0'..=b'9' | b'-' => match lex::whole_number(b, i) {
                                Some(end) => {
                                    i = end;
                                    self.scalar(start, base + i, state, &top, Kind::Number);
                                    break 'after;
                                }
                                None => Mode::InNumber(Number::Start),
                            },
                            b't' | b'f' | b'n' => {
                                let (len, kind) = match b.get(i..).and_then(<[u8]>::first_chunk) {
                                    Some(b"true") => (4, Kind::Boolean),
                                    Some(b"null") => (4, Kind::Null),
                                    Some(b"fals") if b.get(i + 4) == Some(&b'e') => {
                                        (5, Kind::Boolean)
                                    }
                                    _ => (0, Kind::Null),
                                };
                                if len > 0 {
                                    i += len;
                                    self.scalar(start, base + i, state, &top, kind);
                                    break 'after;
                                }
                                Mode::InLiteral(literal(c), 0)
                            }
                            _ => {
                                break 'scan Stop::Syntax(match c {
                                    0xEF if start == 0 => "a byte-order mark",
                                    _ => "no JSON value",
                                });
                            }
                        };
                        self.start = start;
                        if let Err(stop) = self.resume(b, &mut i, rare, &mut state, &top) {
                            break 'scan stop;
                        }
                    }
                    loop {
                        match next!('scan, b, i, Next::After) {
                            b',' if top.array => {
                                i += 1;
                                top.index = top.index.saturating_add(1);
                                state = automaton.element(top.state, top.index);
                                next = Next::Value;
                                continue 'scan;
                            }
                            _ if top.start == usize::MAX => {
                                break 'scan Stop::Syntax("something behind the document");
                            }
                            b',' => {
                                i += 1;
                                break 'name next!('scan, b, i, Next::Name);
                            }
                            c @ (b']' | b'}') if top.array == (c == b']') => {
                                i += 1;
                                top = self.close(base + i);
                            }
                            _ => {
                                break 'scan Stop::Syntax(
                                    "neither a comma nor the container's end",
                                );
                            }
                        }
                    }
                };
                if quote != b'"' {
                    break 'scan Stop::Syntax("no member name in quotes");
                }
                i += 1;
                match lex::whole_name(b, i) {
                    Some(end) => {
                        state = automaton.member(top.state, &b[i..end - 1], &b[i..]);
                        i = end;
                    }
                    None => {
                        self.name.clear();
                        self.escaped = false;
                        let cut = Mode::InName(Text::Plain);
                        if let Err(stop) = self.resume(b, &mut i, cut, &mut state, &top) {
                            break 'scan stop;
                        }
                    }
                }
            }
            match next!('scan, b, i, Next::Colon) {
                b':' => i += 1,
                _ => break 'scan Stop::Syntax("no colon behind a member's name"),
            }
            next = Next::Value;
        };
        (self.top, self.state) = (top, state);
        (stop, i)
    }

    /// A string is whole; `first` is the byte behind its opening quote.
    #[inline(always)]
    pub(super) fn string(
        &mut self,
        start: usize,
        end: usize,
        state: StateId,
        top: &Frame,
        kind: Kind,
        first: u8,
    ) {
        let interest = self.automaton.interest(state);
        let maybe_token = matches!(first, b'f' | b'\\');
        if interest.of_string(maybe_token).is_none() {
            return;
        }
        if maybe_token && interest.has(Interest::TOKENS) && !interest.has(Interest::EVERY) {
            self.hit(start, end, state, top.start, kind);
        }
        self.scalar(start, end, state, top, kind);
    }

    /// Any scalar is whole.
    #[inline(always)]
    pub(super) fn scalar(
        &mut self,
        start: usize,
        end: usize,
        state: StateId,
        top: &Frame,
        kind: Kind,
    ) {
        let interest = self.automaton.interest(state);
        if interest.is_none() {
            return;
        }
        if interest.has(Interest::EVERY) {
            self.hit(start, end, state, top.start, kind);
        }
        if interest.has(Interest::COUNTED) {
            let counted = &mut self.found.counted;
            if counted.scalars == 0 {
                counted.first = start;
            }
            counted.scalars = counted.scalars.saturating_add(1);
        }
        if interest.has(Interest::NEAR) {
            self.near(start);
        }
    }

    /// A value of a member whose name is nearly a watched one.
    #[cold]
    fn near(&mut self, start: usize) {
        let near = &mut self.found.near;
        if near.names == 0 {
            near.first = start;
        }
        near.names = near.names.saturating_add(1);
    }

    fn hit(&mut self, start: usize, end: usize, state: StateId, parent: usize, kind: Kind) {
        self.found.hits.push(Hit {
            start,
            end,
            parent,
            state,
            kind,
        });
    }

    #[inline(never)]
    fn container(&mut self, parent: usize, top: &Frame) {
        let interest = self.automaton.interest(top.state);
        if interest.has(Interest::NEAR) {
            self.near(top.start);
        }
        if !interest.has(Interest::EVERY) {
            return;
        }
        let kind = if top.array { Kind::Array } else { Kind::Object };
        let index = self.taken + self.found.hits.len();
        self.open.push((self.stack.len(), index));
        self.hit(top.start, 0, top.state, parent, kind);
    }

    #[inline(always)]
    fn close(&mut self, end: usize) -> Frame {
        if let Some(&(depth, hit)) = self.open.last()
            && depth == self.stack.len()
        {
            match hit.checked_sub(self.taken) {
                Some(hit) => self.found.hits[hit].end = end,
                None => self.ended.push((hit, end)),
            }
            self.open.pop();
        }
        self.stack.pop().unwrap_or(OUTSIDE)
    }
}
