//! What an HTTP/2 client's frames cost, as a pure machine over bytes: no socket, no clock.
//!
//! Frames that carry nothing (pings, settings, resets, priorities, empty pieces) are cheap to send and not to serve.
//! Each takes from a budget that time refills, and useful traffic refills faster; a client that has spent it is asked
//! to calm down. What the frames mean is hyper's business.

use crate::listener::version::PREFACE;

/// Bytes of a frame's head (RFC 9113 section 4.1).
const HEAD_BYTES: usize = 9;
/// What the budget holds at most, and at first.
const BUDGET_MAX: u64 = 10_000;
/// What a second adds to it.
const BUDGET_PER_SECOND: u64 = 1_000;
/// One for so many bytes that go to the client, or come in a body.
const BYTES_PER_UNIT: u64 = 16;

// What a frame takes. The answer to a ping is worth one.
const PING_COST: u64 = 4;
const SETTINGS_COST: u64 = 10;
/// A request begun and given up: 500 at once, 50 a second for ever.
const RESET_COST: u64 = 20;
const OTHER_COST: u64 = 1;

// Frame types and flags, RFC 9113 section 6.
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const PADDED: u8 = 0x8;
const END_HEADERS: u8 = 0x4;
/// A piece of a body that is shorter costs more to keep than it holds.
const SMALL_BYTES: usize = 256;
/// A padded piece that is no longer than this may be padding alone.
const PADDING_BYTES_MAX: usize = 256;

/// Follows the frames of one connection, from its preface on.
#[derive(Debug)]
pub struct Frames {
    /// Bytes of the preface, then of a frame's payload, that are still to come.
    left: usize,
    /// They are those of a body.
    body: bool,
    /// A head's fields go on in the next frame.
    open: bool,
    begun: bool,
    /// Some of the next frame's own head is there.
    partial: bool,
    budget: u64,
    /// When it was filled up last, in microseconds.
    filled: u64,
    /// Bytes that are not yet worth a unit.
    bytes: u64,
    /// Small pieces of bodies, since they were asked for last.
    small: usize,
}

impl Default for Frames {
    fn default() -> Frames {
        Frames {
            left: PREFACE.len(),
            body: false,
            open: false,
            begun: false,
            partial: false,
            budget: BUDGET_MAX,
            filled: 0,
            bytes: 0,
            small: 0,
        }
    }
}

/// What may go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Examined {
    /// So many bytes from the front of the input are cleared. Behind them stands the beginning of a frame's head, or
    /// the frame that was too much.
    pub cleared: usize,
    /// The budget is spent.
    pub flood: bool,
}

impl Frames {
    /// Looks at `input`, which begins at the first byte that is not cleared yet. `now`: microseconds since any moment.
    /// What is cleared does not depend on how the bytes are cut.
    pub fn examine(&mut self, input: &[u8], now: u64) -> Examined {
        let mut at = 0;
        let mut flood = false;
        while at < input.len() {
            if self.left > 0 {
                let take = self.left.min(input.len() - at);
                if self.body {
                    self.earn(take as u64);
                }
                self.left -= take;
                at += take;
                continue;
            }
            let Some(&[high, middle, low, kind, flags, ..]) = input.get(at..at + HEAD_BYTES) else {
                break;
            };
            let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            if !self.spend(cost(kind, flags, length), now) {
                flood = true;
                break;
            }
            at += HEAD_BYTES;
            self.begun = true;
            self.left = length;
            self.body = kind == DATA;
            self.small += usize::from(self.body && length < SMALL_BYTES);
            self.open = matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS == 0;
        }
        self.partial = at < input.len();
        Examined { cleared: at, flood }
    }

    /// Whether so many small pieces of bodies came since this was true last.
    pub fn are_many(&mut self, most: usize) -> bool {
        let many = self.small >= most;
        if many {
            self.small = 0;
        }
        many
    }

    /// So many bytes went to the client.
    pub fn earn(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.budget = BUDGET_MAX.min(self.budget + self.bytes / BYTES_PER_UNIT);
        self.bytes %= BYTES_PER_UNIT;
    }

    fn spend(&mut self, cost: u64, now: u64) -> bool {
        if cost > self.budget {
            let refill = now.saturating_sub(self.filled) / (1_000_000 / BUDGET_PER_SECOND);
            self.budget = BUDGET_MAX.min(self.budget.saturating_add(refill));
            self.filled = now;
        }
        let enough = cost <= self.budget;
        self.budget -= cost.min(self.budget);
        enough
    }

    /// The client has begun something that it must finish: the preface, a head over one or several frames, or any frame
    /// but a piece of a body (which is its stream's matter).
    pub fn is_within(&self) -> bool {
        self.partial || self.open || (self.left > 0 && !self.body) || !self.begun
    }
}

fn cost(kind: u8, flags: u8, length: usize) -> u64 {
    match kind {
        DATA if flags & END_STREAM != 0 => 0,
        DATA if length == 0 || (flags & PADDED != 0 && length <= PADDING_BYTES_MAX) => OTHER_COST,
        // Streams are bounded in number, heads in size; both by hyper.
        DATA | HEADERS => 0,
        CONTINUATION if length > 0 => 0,
        PING => PING_COST,
        SETTINGS => SETTINGS_COST,
        RST_STREAM => RESET_COST,
        _ => OTHER_COST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![
            (payload >> 16) as u8,
            (payload >> 8) as u8,
            payload as u8,
            kind,
            flags,
            0,
            0,
            0,
            1,
        ];
        bytes.resize(HEAD_BYTES + payload, 0);
        bytes
    }

    fn begun() -> Frames {
        let mut frames = Frames::default();
        let input = [PREFACE, &frame(SETTINGS, 0, 0)].concat();
        assert_eq!(
            frames.examine(&input, 0),
            Examined {
                cleared: input.len(),
                flood: false
            }
        );
        frames
    }

    /// How many such frames pass at once, of at most `most`.
    fn passing(frames: &mut Frames, frame: &[u8], now: u64, most: usize) -> usize {
        (0..most)
            .take_while(|_| !frames.examine(frame, now).flood)
            .count()
    }

    #[test]
    fn frames_that_carry_nothing_are_bounded() {
        for (name, frame, expected) in [
            ("ping", frame(PING, 0, 8), 2497),
            ("settings", frame(SETTINGS, 0, 6), 999),
            ("reset", frame(RST_STREAM, 0, 4), 499),
            ("priority", frame(2, 0, 5), 9990),
            ("window update", frame(8, 0, 4), 9990),
            ("empty data", frame(DATA, 0, 0), 9990),
            ("empty continuation", frame(CONTINUATION, 0, 0), 9990),
            ("unknown", frame(0xee, 0, 3), 9990),
        ] {
            let mut frames = begun();
            assert_eq!(passing(&mut frames, &frame, 0, 20_000), expected, "{name}");
            // Time helps, and so does what the client gets.
            assert!(passing(&mut frames, &frame, 1_000_000, 20_000) >= 49);
            frames.earn(16 * 1_000);
            assert!(passing(&mut frames, &frame, 1_000_000, 20_000) >= 49);
        }
        // A padded piece may be padding alone: it costs, and is worth what its bytes are.
        assert_eq!(cost(DATA, PADDED, 200), OTHER_COST);
    }

    #[test]
    fn useful_frames_are_free() {
        let mut frames = begun();
        for frame in [
            frame(HEADERS, END_HEADERS, 20),
            frame(DATA, 0, 1),
            frame(DATA, END_STREAM, 0),
        ] {
            assert_eq!(passing(&mut frames, &frame, 0, 50_000), 50_000);
        }
        // A ping a second, a window update for each small piece that goes out: for ever.
        for second in 0..100_000 {
            assert_eq!(
                passing(&mut frames, &frame(PING, 0, 8), second * 1_000_000, 1),
                1
            );
            frames.earn(29);
            assert_eq!(
                passing(&mut frames, &frame(8, 0, 4), second * 1_000_000, 1),
                1
            );
        }
    }

    #[test]
    fn what_must_be_finished_is_known() {
        let mut frames = Frames::default();
        let mut input = [PREFACE, &frame(SETTINGS, 0, 6)].concat();
        input.extend(frame(HEADERS, 0, 4));
        input.extend(frame(CONTINUATION, 0, 4));
        input.extend(frame(CONTINUATION, END_HEADERS, 4));
        input.extend(frame(DATA, 0, 10));
        let ends = [
            // Behind the settings, and from the last head's end on, nothing is owed but the body's rest.
            PREFACE.len() + 15..=PREFACE.len() + 15,
            PREFACE.len() + 15 + 39..=PREFACE.len() + 15 + 39,
            input.len() - 10..=input.len(),
        ];
        let mut kept = Vec::new();
        for (at, byte) in input.iter().enumerate() {
            kept.push(*byte);
            let examined = frames.examine(&kept, 0);
            kept.drain(..examined.cleared);
            let free = ends.iter().any(|end| end.contains(&(at + 1)));
            assert_eq!(frames.is_within(), !free, "after byte {}", at + 1);
        }
    }

    proptest! {
        #[test]
        fn the_cut_does_not_matter(
            kinds in proptest::collection::vec((0u8..11, any::<u8>(), 0usize..40), 0..40),
            cuts in proptest::collection::vec(1usize..30, 1..100),
        ) {
            let mut input = PREFACE.to_vec();
            for (kind, flags, payload) in kinds {
                input.extend(frame(kind, flags, payload));
            }
            let whole = Frames::default().examine(&input, 0);
            prop_assert_eq!(whole.cleared, input.len());
            let (mut frames, mut kept, mut cleared, mut at) = (Frames::default(), Vec::new(), 0, 0);
            for cut in cuts.iter().cycle() {
                let end = (at + cut).min(input.len());
                kept.extend_from_slice(&input[at..end]);
                at = end;
                let examined = frames.examine(&kept, 0);
                prop_assert!(kept.len() - examined.cleared < HEAD_BYTES);
                kept.drain(..examined.cleared);
                cleared += examined.cleared;
                if at == input.len() {
                    break;
                }
            }
            prop_assert_eq!(cleared, input.len());
        }
    }
}
