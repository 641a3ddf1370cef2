//! One fetch for many records: their needs put together, and the ring taken apart again.

use crate::dek::{Kid, Needs, OpenNeed, Ring, Scope};
use std::collections::HashMap;
use std::sync::Arc;

/// By what two records are the same: scope, kid and the wrapped key.
type Identity = (Scope, Kid, Option<Box<[u8]>>);

/// Needs of several plans.
pub struct Merged {
    needs: Needs,
    /// Distinct records to be opened, at most, unless one plan alone wants more.
    keys_max: usize,
    known: HashMap<Identity, usize>,
    places: Vec<Place>,
}

/// Where one plan's keys are in the ring of all.
#[derive(Default)]
pub struct Place {
    sealing: Vec<usize>,
    opening: Vec<usize>,
}

impl Merged {
    /// Of none.
    pub fn new(keys_max: usize) -> Merged {
        Merged {
            needs: Needs::default(),
            keys_max,
            known: HashMap::new(),
            places: Vec::new(),
        }
    }

    /// Adds a plan's needs. False: it would be too much for one fetch, and nothing is added.
    pub fn add(&mut self, needs: &Needs) -> bool {
        let key = |need: &OpenNeed| (need.scope.clone(), need.kid, need.record.clone());
        let new = |need: &&OpenNeed| !self.known.contains_key(&key(need));
        let more = needs.opening.iter().filter(new).count();
        if !self.places.is_empty() && more > 0 && self.known.len() + more > self.keys_max {
            return false;
        }
        let mut place = Place::default();
        for need in &needs.sealing {
            let sealing = &mut self.needs.sealing;
            let known = sealing.iter().position(|known| known.scope == need.scope);
            let at = known.unwrap_or(sealing.len());
            match known {
                Some(at) => sealing[at].values = sealing[at].values.saturating_add(need.values),
                None => sealing.push(need.clone()),
            }
            place.sealing.push(at);
        }
        for need in &needs.opening {
            let opening = &mut self.needs.opening;
            let at = *self.known.entry(key(need)).or_insert_with(|| {
                opening.push(need.clone());
                opening.len() - 1
            });
            place.opening.push(at);
        }
        self.places.push(place);
        true
    }

    /// Nothing is needed.
    pub fn is_empty(&self) -> bool {
        self.needs.sealing.is_empty() && self.needs.opening.is_empty()
    }

    /// All of them.
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// In the order in which the plans were added.
    pub fn places(self) -> impl Iterator<Item = Place> {
        self.places.into_iter()
    }
}

impl Place {
    /// One plan's ring, out of the one for all.
    pub fn of(&self, ring: Option<&Ring>) -> Ring {
        let Some(ring) = ring else {
            return Ring::default();
        };
        let sealing = self.sealing.iter().map(|at| Arc::clone(&ring.sealing[*at]));
        let opening = self.opening.iter().map(|at| ring.opening[*at].clone());
        Ring {
            sealing: sealing.collect(),
            opening: opening.collect(),
        }
    }
}
