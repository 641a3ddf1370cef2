//! Paths, all of one direction together, as one deterministic automaton over the structure of a document.
//!
//! A state stands for the set of (path, steps taken) that are alive at a node; the step to a child is one look-up by member name or
//! index, whatever the number of paths. Built once when a policy is loaded (subset construction, bounded), never while scanning.

mod builder;
pub(crate) mod fold;

use crate::path::Step;
use builder::Builder;
use std::collections::HashMap;

/// The most states that one automaton may have.
pub const STATES_MAX: usize = 8_192;
/// Index of a state.
pub(super) type StateId = u16;
/// Nothing is selected here or below.
pub(super) const DEAD: StateId = 0;
/// Inside of a value that is taken whole: nothing here is looked at.
pub(super) const TAKEN: StateId = 1;

/// What the scanner is to report at a node. A set of flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Interest(u8);

impl Interest {
    /// Nothing.
    pub const NONE: Interest = Interest(0);
    /// Every value, containers too.
    pub const EVERY: Interest = Interest(1);
    /// The value is taken whole: nothing inside of it is reported. Implies `EVERY`.
    pub const WHOLE: Interest = Interest(2 | 1);
    /// Strings that may be a token by their first byte (`f`, or an escape).
    pub const TOKENS: Interest = Interest(4);
    /// Scalars are counted, not reported.
    pub const COUNTED: Interest = Interest(8);
    /// The value of a member whose name is nearly a watched one; only the builder of an automaton sets it.
    pub(super) const NEAR: Interest = Interest(16);

    /// Both.
    pub const fn and(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }
    /// True where all flags of `other` are set.
    pub const fn has(self, other: Interest) -> bool {
        self.0 & other.0 == other.0
    }
    /// True where something is to be done about a container.
    #[inline(always)]
    pub(super) fn of_container(self) -> bool {
        self.0 & (Interest::EVERY.0 | Interest::NEAR.0) != 0
    }
    /// What is left of it at a string, by whether that may be a token.
    #[inline(always)]
    pub(super) fn of_string(self, maybe_token: bool) -> Interest {
        Interest(self.0 & !(u8::from(!maybe_token) * Interest::TOKENS.0))
    }
    /// True where nothing is to be done.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// A number that the caller gives to a path; what a state selects is a sorted list of them.
pub type Tag = u16;

/// The automaton. Immutable; shared by all scans of a route's direction.
#[derive(Debug)]
pub struct Automaton {
    states: Vec<State>,
    /// What accepting states select; index 0 is the empty list.
    selected: Vec<Box<[Tag]>>,
    slots: Vec<Slot>,
    names: Vec<u8>,
    elements: Vec<Elements>,
    pub(super) name_bytes_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct State {
    interest: Interest,
    selected: u16,
    /// Members: a table of `1 << bits` slots at `base`, or none; and the state of all other names.
    bits: u8,
    base: u32,
    /// Which hash function tells the names in that table apart.
    seed: u64,
    other: StateId,
    /// Elements: an index into `elements`, or the one state of all of them.
    elements: ElementStep,
}

#[derive(Clone, Copy, Debug)]
enum ElementStep {
    All(StateId),
    Table(u32),
}

/// One member name of one state.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// The first eight bytes, little-endian, padded with zeros.
    word: u64,
    /// The name's length plus one; 0 marks an empty slot.
    len: u32,
    /// Where the whole name stands in `names`.
    at: u32,
    to: StateId,
    /// Where a name leads that is this one but for its spelling; where any other leads, if nobody watches for that.
    near: StateId,
    /// A name that belongs here stands in a later slot.
    shared: bool,
}

/// Which state an element leads to, by its index.
#[derive(Debug)]
struct Elements {
    exact: HashMap<u32, StateId>,
    slices: Vec<(u32, u32, u32)>,
    /// By the set of slices that hold the index.
    by_slices: Vec<StateId>,
}

/// The paths together need more states than [`STATES_MAX`], or more slices at one array than the engine follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooComplex;

impl Automaton {
    /// Builds the automaton of `paths`. `interest` says what the scanner is to report where the tags of `selected` are selected (the
    /// empty list: everywhere else).
    ///
    /// # Errors
    /// [`TooComplex`]: refuse the policy, or the document whose nodes the paths are.
    pub fn build(
        paths: &[(&[Step], Tag)],
        interest: impl Fn(&[Tag]) -> Interest,
    ) -> Result<Automaton, TooComplex> {
        Automaton::watching(paths, interest, |_| false)
    }

    /// As [`Automaton::build`]. Of the paths whose tag is `watched`, each name is watched for: where a member's name is the same but for
    /// its spelling (letter case, separators, look-alikes and invisible characters), [`super::Found::near`] counts it. Not where the member is taken
    /// whole under its own name.
    ///
    /// # Errors
    /// [`TooComplex`], likewise.
    pub fn watching(
        paths: &[(&[Step], Tag)],
        interest: impl Fn(&[Tag]) -> Interest,
        watched: impl Fn(Tag) -> bool,
    ) -> Result<Automaton, TooComplex> {
        Builder::new(paths, &interest, &watched).build()
    }

    /// The value at a state belongs to a member whose name is nearly a watched one.
    pub fn is_near(&self, state: u16) -> bool {
        self.interest(state).has(Interest::NEAR)
    }

    /// The automaton of no path: it reports nothing.
    pub(super) fn nothing() -> Automaton {
        let one = State {
            interest: Interest::NONE,
            selected: 0,
            bits: 0,
            base: 0,
            seed: 0,
            other: DEAD,
            elements: ElementStep::All(DEAD),
        };
        Automaton {
            states: vec![one; 3],
            selected: vec![Box::new([])],
            slots: Vec::new(),
            names: Vec::new(),
            elements: Vec::new(),
            name_bytes_max: 0,
        }
    }

    pub(super) fn root(&self) -> StateId {
        // The third state: after DEAD and TAKEN.
        2
    }

    /// The state of a document's root, for [`Automaton::steps`] and [`super::Scanner::beginning_at`].
    pub fn start(&self) -> u16 {
        self.root()
    }

    /// The states to which a step leads that is known by its text only, as in a JSON Pointer (RFC 6901): that of the member of this
    /// name, that of the element of this index, and with `-` those of any element.
    pub fn steps(&self, state: u16, text: &str) -> Vec<u16> {
        let mut states = vec![self.member(state, text.as_bytes(), text.as_bytes())];
        let index = text.parse::<u32>().ok();
        match index.filter(|index| index.to_string() == text) {
            Some(index) => states.push(self.element(state, index)),
            None if text == "-" => states.extend(self.any_element(state)),
            None => {}
        }
        states.sort_unstable();
        states.dedup();
        states
    }

    fn any_element(&self, state: StateId) -> Vec<StateId> {
        match self.states[state as usize].elements {
            ElementStep::All(to) => vec![to],
            ElementStep::Table(table) => {
                let table = &self.elements[table as usize];
                let exact = table.exact.values().copied();
                exact.chain(table.by_slices.iter().copied()).collect()
            }
        }
    }

    /// Whether `wanted` holds of what is selected at a state, or anywhere below it.
    pub fn reaches(&self, state: u16, wanted: impl Fn(&[Tag]) -> bool) -> bool {
        let mut seen = vec![false; self.states.len()];
        let mut next = vec![state];
        while let Some(state) = next.pop() {
            if std::mem::replace(&mut seen[state as usize], true) {
                continue;
            }
            if wanted(self.selected(state)) {
                return true;
            }
            let from = &self.states[state as usize];
            if from.bits > 0 {
                let slots = &self.slots[from.base as usize..][..1 << from.bits];
                let named = slots.iter().filter(|slot| slot.len > 0);
                next.extend(named.map(|slot| slot.to));
            }
            next.push(from.other);
            next.extend(self.any_element(state));
        }
        false
    }

    #[inline(always)]
    pub(super) fn interest(&self, state: StateId) -> Interest {
        self.states[state as usize].interest
    }

    /// The tags selected at a state.
    #[inline]
    pub fn selected(&self, state: u16) -> &[Tag] {
        &self.selected[self.states[state as usize].selected as usize]
    }

    /// The state of a member of an object at `state` that no path names.
    pub(super) fn any_other(&self, state: StateId) -> StateId {
        self.states[state as usize].other
    }

    /// The state of the member `name` (unescaped) of an object at `state`. `ahead` starts with the name and may go on behind it, so
    /// that its first eight bytes can be loaded at once.
    #[inline(always)]
    pub(super) fn member(&self, state: StateId, name: &[u8], ahead: &[u8]) -> StateId {
        let from = &self.states[state as usize];
        if from.bits == 0 {
            return from.other;
        }
        let word = match ahead.first_chunk() {
            Some(eight) => u64::from_le_bytes(*eight) & FIRST_BYTES[name.len().min(8)],
            None => word_of(name),
        };
        // One comparison says no to nearly every name that the policy does not name, whatever slot it falls on.
        let slot = &self.slots[from.base as usize + hash(from.seed, word, name.len(), from.bits)];
        if slot.is_like(word, name.len()) {
            if slot.word == word && self.is_named(slot, name) {
                return slot.to;
            }
            return self.member_alike(from, name, word);
        }
        if slot.shared {
            return self.member_alike(from, name, word);
        }
        from.other
    }

    /// True where the name in `slot`, equal in its length and its first eight bytes, is `name` to its end.
    #[inline(always)]
    fn is_named(&self, slot: &Slot, name: &[u8]) -> bool {
        name.len() <= 8 || self.names[slot.at as usize..][..name.len()] == *name
    }

    /// As [`Automaton::member`], for a name whose slot is shared, or holds one like it: looks on from there to the next empty slot.
    #[cold]
    fn member_alike(&self, from: &State, name: &[u8], word: u64) -> StateId {
        let mut near = from.other;
        for slot in self.slots_from(from, name, word) {
            if slot.is(word, name.len()) && self.is_named(slot, name) {
                return slot.to;
            }
            if slot.near != from.other && self.is_alike(slot, name) {
                near = slot.near;
            }
        }
        near
    }

    /// Where a name leads that [`Automaton::member`] says is no named one, and that is not plain ASCII: `unfolded` may be a watched
    /// one to a reader that is less exact.
    #[cold]
    pub(super) fn member_folded(&self, state: StateId, unfolded: &[u8]) -> StateId {
        let from = &self.states[state as usize];
        let Ok(text) = std::str::from_utf8(unfolded) else {
            return from.other;
        };
        if from.bits == 0 {
            return from.other;
        }
        let name = fold::fold(text).into_bytes();
        self.slots_from(from, &name, word_of(&name))
            .find(|slot| slot.near != from.other && self.is_alike(slot, &name))
            .map_or(from.other, |slot| slot.near)
    }

    /// The slots in which `name`, or one like it, may stand.
    fn slots_from(&self, from: &State, name: &[u8], word: u64) -> impl Iterator<Item = &Slot> {
        let mask = (1usize << from.bits) - 1;
        let base = from.base as usize;
        let first = hash(from.seed, word, name.len(), from.bits);
        (0..=mask)
            .map(move |step| &self.slots[base + ((first + step) & mask)])
            .take_while(|slot| slot.len != 0)
    }

    /// True where the name in `slot` is `name` but for the case of ASCII letters.
    fn is_alike(&self, slot: &Slot, name: &[u8]) -> bool {
        slot.len as usize == name.len() + 1
            && self.names[slot.at as usize..][..name.len()].eq_ignore_ascii_case(name)
    }

    /// The state of the element `index` of an array at `state`.
    #[inline(always)]
    pub(super) fn element(&self, state: StateId, index: u32) -> StateId {
        match self.states[state as usize].elements {
            ElementStep::All(to) => to,
            ElementStep::Table(table) => self.elements[table as usize].to(index),
        }
    }
}

impl Elements {
    #[inline(never)]
    fn to(&self, index: u32) -> StateId {
        if let Some(&to) = self.exact.get(&index) {
            return to;
        }
        let mut set = 0;
        for (bit, slice) in self.slices.iter().enumerate() {
            set |= usize::from(in_slice(*slice, index)) << bit;
        }
        self.by_slices[set]
    }
}

fn in_slice((start, end, step): (u32, u32, u32), index: u32) -> bool {
    index >= start && index < end && (index - start).is_multiple_of(step)
}

/// By n: a mask of the first n bytes of a little-endian word. A table, since names are too varied for a branch.
const FIRST_BYTES: [u64; 9] = {
    let mut masks = [0; 9];
    let mut n = 1;
    while n < 9 {
        masks[n] = masks[n - 1] << 8 | 0xFF;
        n += 1;
    }
    masks
};

/// The first eight bytes of a name, little-endian, padded with zeros.
#[inline(always)]
pub(super) fn word_of(name: &[u8]) -> u64 {
    if let Some(eight) = name.first_chunk::<8>() {
        return u64::from_le_bytes(*eight);
    }
    let mut word = [0; 8];
    word[..name.len()].copy_from_slice(name);
    u64::from_le_bytes(word)
}

impl Slot {
    /// True where the name has these first bytes and this length.
    #[inline(always)]
    fn is(&self, word: u64, len: usize) -> bool {
        (self.word ^ word) | (u64::from(self.len) ^ (len as u64 + 1)) == 0
    }

    /// True where the name has this length, and these first bytes but for the case of letters (and a few other characters).
    #[inline(always)]
    fn is_like(&self, word: u64, len: usize) -> bool {
        ((self.word ^ word) & !CASE) | (u64::from(self.len) ^ (len as u64 + 1)) == 0
    }
}

/// The bit by which upper and lower case of ASCII letters differ, of eight of them. The hash does not see it, so that names that differ in
/// nothing else meet at one slot.
const CASE: u64 = 0x2020_2020_2020_2020;

#[inline(always)]
fn hash(seed: u64, word: u64, len: usize, bits: u8) -> usize {
    let mixed = ((word | CASE) ^ (len as u64) << 56).wrapping_mul(seed);
    (mixed >> (64 - u32::from(bits))) as usize
}
