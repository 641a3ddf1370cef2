//! The subset construction: from paths to states, once for each policy.

use super::fold::spellings;
use super::{
    Automaton, DEAD, ElementStep, Elements, Interest, STATES_MAX, Slot, State, StateId, TAKEN, Tag,
    TooComplex, hash, in_slice, word_of,
};
use crate::path::{Selector, Step};
use std::collections::{BTreeSet, HashMap};

/// The most different slices that may be alive at one array.
const SLICES_MAX: usize = 6;

/// How many hash functions are tried for the names of one state.
const SEEDS_TRIED: u64 = 64;

/// One path alive at a node: which, and how many of its steps are done.
type Position = (u32, u16);

/// An odd multiplier for each try to find one that tells a state's names apart.
fn seed(attempt: u64) -> u64 {
    0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(2 * attempt + 1) | 1
}

/// An automaton in the making.
pub(super) struct Builder<'p, F, W> {
    paths: &'p [(&'p [Step], Tag)],
    interest: &'p F,
    watched: &'p W,
    known: HashMap<Vec<Position>, StateId>,
    /// The twins of states for members with nearly a watched name.
    near: HashMap<Vec<Position>, StateId>,
    sets: Vec<Vec<Position>>,
    lists: HashMap<Vec<Tag>, u16>,
    out: Automaton,
}

impl<'p, F: Fn(&[Tag]) -> Interest, W: Fn(Tag) -> bool> Builder<'p, F, W> {
    pub(super) fn new(
        paths: &'p [(&'p [Step], Tag)],
        interest: &'p F,
        watched: &'p W,
    ) -> Builder<'p, F, W> {
        Builder {
            paths,
            interest,
            watched,
            known: HashMap::new(),
            near: HashMap::new(),
            sets: Vec::new(),
            lists: HashMap::from([(Vec::new(), 0)]),
            out: Automaton {
                states: Vec::new(),
                selected: vec![Box::new([])],
                slots: Vec::new(),
                names: Vec::new(),
                elements: Vec::new(),
                name_bytes_max: 0,
            },
        }
    }

    pub(super) fn build(mut self) -> Result<Automaton, TooComplex> {
        self.push(Vec::new())?; // DEAD
        self.push(Vec::new())?; // TAKEN
        self.out.states[TAKEN as usize].interest = Interest::NONE;
        self.out.states[TAKEN as usize].other = TAKEN;
        self.out.states[TAKEN as usize].elements = ElementStep::All(TAKEN);
        let start: Vec<Position> = (0..self.paths.len()).map(|path| (path as u32, 0)).collect();
        self.push(start)?;
        let mut next = 2;
        while next < self.sets.len() {
            let set = std::mem::take(&mut self.sets[next]);
            self.expand(next, &set)?;
            next += 1;
        }
        Ok(self.out)
    }

    /// A new state for `set`; its steps are filled in by `expand`.
    fn push(&mut self, set: Vec<Position>) -> Result<StateId, TooComplex> {
        let id = self.sets.len();
        if id >= STATES_MAX {
            return Err(TooComplex);
        }
        let mut tags: Vec<Tag> = set
            .iter()
            .filter(|(path, done)| self.paths[*path as usize].0.len() == usize::from(*done))
            .map(|(path, _)| self.paths[*path as usize].1)
            .collect();
        tags.sort_unstable();
        tags.dedup();
        let interest = (self.interest)(&tags);
        let selected = match self.lists.get(&tags) {
            Some(known) => *known,
            None => {
                let new = u16::try_from(self.out.selected.len()).map_err(|_| TooComplex)?;
                self.out.selected.push(tags.clone().into());
                self.lists.insert(tags, new);
                new
            }
        };
        self.out.states.push(State {
            interest,
            selected,
            bits: 0,
            base: 0,
            seed: 0,
            other: DEAD,
            elements: ElementStep::All(DEAD),
        });
        self.sets.push(set);
        Ok(id as StateId)
    }

    fn state_of(&mut self, mut set: Vec<Position>) -> Result<StateId, TooComplex> {
        if set.is_empty() {
            return Ok(DEAD);
        }
        set.sort_unstable();
        set.dedup();
        if let Some(known) = self.known.get(&set) {
            return Ok(*known);
        }
        let id = self.push(set.clone())?;
        self.known.insert(set, id);
        Ok(id)
    }

    /// The twin of the state of `set` for a member whose name is nearly a watched one; that state itself where it is taken whole.
    fn near_state_of(&mut self, set: &[Position], plain: StateId) -> Result<StateId, TooComplex> {
        if self.out.states[plain as usize]
            .interest
            .has(Interest::WHOLE)
        {
            return Ok(plain);
        }
        let mut set = set.to_vec();
        set.sort_unstable();
        set.dedup();
        if let Some(known) = self.near.get(&set) {
            return Ok(*known);
        }
        let id = self.push(set.clone())?;
        let interest = &mut self.out.states[id as usize].interest;
        *interest = interest.and(Interest::NEAR);
        self.near.insert(set, id);
        Ok(id)
    }

    fn expand(&mut self, id: usize, set: &[Position]) -> Result<(), TooComplex> {
        if self.out.states[id].interest.has(Interest::WHOLE) {
            self.out.states[id].other = TAKEN;
            self.out.states[id].elements = ElementStep::All(TAKEN);
            return Ok(());
        }
        let paths = self.paths;
        // What any child carries on: positions under `..`, and what a wildcard leads to.
        let mut any: Vec<Position> = Vec::new();
        let mut by_name: HashMap<&str, Vec<Position>> = HashMap::new();
        let mut by_index: HashMap<u32, Vec<Position>> = HashMap::new();
        let mut by_slice: Vec<((u32, u32, u32), Vec<Position>)> = Vec::new();
        for &(path, done) in set {
            let Some(step) = paths[path as usize].0.get(usize::from(done)) else {
                continue;
            };
            if step.descend {
                any.push((path, done));
            }
            let next = (path, done + 1);
            for selector in &step.selectors {
                match selector {
                    Selector::Wildcard => any.push(next),
                    Selector::Name(name) => by_name.entry(name).or_default().push(next),
                    Selector::Index(index) => by_index.entry(*index).or_default().push(next),
                    Selector::Slice { start, end, step } => {
                        let slice = (*start, *end, *step);
                        match by_slice.iter_mut().find(|(known, _)| *known == slice) {
                            Some((_, to)) => to.push(next),
                            None => by_slice.push((slice, vec![next])),
                        }
                    }
                }
            }
        }
        let other = self.state_of(any.clone())?;
        self.out.states[id].other = other;
        self.members(id, &any, other, by_name)?;
        self.array(id, &any, other, by_index, by_slice)
    }

    fn members(
        &mut self,
        id: usize,
        any: &[Position],
        other: StateId,
        by_name: HashMap<&str, Vec<Position>>,
    ) -> Result<(), TooComplex> {
        if by_name.is_empty() {
            return Ok(());
        }
        let watches = |to: &[Position]| {
            let mut paths = to.iter().map(|(path, _)| self.paths[*path as usize].1);
            paths.any(|tag| (self.watched)(tag))
        };
        // Where nothing is watched, a name that is nearly one leads where all others do.
        let mut beside = BTreeSet::new();
        let mut names: Vec<(&str, Option<Vec<Position>>, bool)> = Vec::new();
        let mut watching = false;
        for (name, to) in &by_name {
            if watches(to) {
                watching = true;
                let others = spellings(name).into_iter();
                beside.extend(others.filter(|other| !by_name.contains_key(other.as_str())));
            }
        }
        for (name, to) in &by_name {
            names.push((name, Some(to.clone()), watches(to)));
        }
        names.extend(beside.iter().map(|name| (name.as_str(), None, true)));
        let near = match watching {
            true => self.near_state_of(any, other)?,
            false => other,
        };
        names.sort_unstable_by_key(|(name, ..)| *name);
        // At most a quarter full, so that some multiplier soon gives each name a slot of its own; only names of one length that begin
        // alike never get one.
        let bits = (names.len() * 4).next_power_of_two().trailing_zeros() as u8;
        let slot_of = |seed, name: &[u8]| hash(seed, word_of(name), name.len(), bits);
        let seed = (0..SEEDS_TRIED)
            .map(seed)
            .find(|&seed| {
                let mut taken = vec![false; 1 << bits];
                names.iter().all(|(name, ..)| {
                    !std::mem::replace(&mut taken[slot_of(seed, name.as_bytes())], true)
                })
            })
            .unwrap_or(seed(0));
        let base = self.out.slots.len();
        let mask = (1usize << bits) - 1;
        self.out.slots.resize(base + mask + 1, Slot::default());
        for (name, to, watched) in names {
            let to = match to {
                Some(mut to) => {
                    to.extend_from_slice(any);
                    self.state_of(to)?
                }
                None => near,
            };
            let name = name.as_bytes();
            let at = self.out.names.len() as u32;
            self.out.names.extend_from_slice(name);
            self.out.name_bytes_max = self.out.name_bytes_max.max(name.len());
            let first = slot_of(seed, name);
            let mut index = first;
            while self.out.slots[base + index].len != 0 {
                self.out.slots[base + first].shared = true;
                index = (index + 1) & mask;
            }
            let slot = &mut self.out.slots[base + index];
            (slot.word, slot.len) = (word_of(name), name.len() as u32 + 1);
            (slot.at, slot.to) = (at, to);
            slot.near = if watched { near } else { other };
        }
        let state = &mut self.out.states[id];
        (state.bits, state.base, state.seed) = (bits, base as u32, seed);
        Ok(())
    }

    fn array(
        &mut self,
        id: usize,
        any: &[Position],
        other: StateId,
        by_index: HashMap<u32, Vec<Position>>,
        by_slice: Vec<((u32, u32, u32), Vec<Position>)>,
    ) -> Result<(), TooComplex> {
        if by_index.is_empty() && by_slice.is_empty() {
            self.out.states[id].elements = ElementStep::All(other);
            return Ok(());
        }
        if by_slice.len() > SLICES_MAX {
            return Err(TooComplex);
        }
        let slices: Vec<_> = by_slice.iter().map(|(slice, _)| *slice).collect();
        let mut by_slices = Vec::new();
        for held in 0..1usize << slices.len() {
            let mut to = any.to_vec();
            for (bit, (_, next)) in by_slice.iter().enumerate() {
                if held >> bit & 1 == 1 {
                    to.extend_from_slice(next);
                }
            }
            by_slices.push(self.state_of(to)?);
        }
        let mut exact = HashMap::new();
        for (index, mut to) in by_index {
            to.extend_from_slice(any);
            for (slice, next) in &by_slice {
                if in_slice(*slice, index) {
                    to.extend_from_slice(next);
                }
            }
            exact.insert(index, self.state_of(to)?);
        }
        self.out.states[id].elements = ElementStep::Table(self.out.elements.len() as u32);
        self.out.elements.push(Elements {
            exact,
            slices,
            by_slices,
        });
        Ok(())
    }
}
