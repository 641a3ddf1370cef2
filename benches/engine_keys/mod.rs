//! Rules and keys for the engine's benches: one class, one data key that is at hand.

use super::bodies::PATHS;
use fieldveil::context::Class;
use fieldveil::dek::{Dek, MATERIAL_LEN, Material, Needs, Ring, SealingKey, schedule};
use fieldveil::entropy;
use fieldveil::path::Path;
use fieldveil::token::{Record, kek_id};
use fieldveil::transform::{Action, Attitude, Manner, Reveal, Rule, Rules};
use std::sync::Arc;

struct Plainly([u8; MATERIAL_LEN]);

impl Material for Plainly {
    fn expose(&self) -> &[u8; MATERIAL_LEN] {
        &self.0
    }
}

fn dek() -> Dek {
    let mut material = [0; MATERIAL_LEN];
    let kid = schedule(&[7; 32], &mut material);
    Dek::new(kid, Box::new(Plainly(material)))
}

pub fn key() -> SealingKey {
    // The length of the embedded keyring's record.
    let record = Record::build(&[(kek_id("keyring:bench/k"), &[5; 64])]).expect("a short record");
    SealingKey {
        dek: dek(),
        record,
        stored: false,
    }
}

fn class() -> Arc<Class> {
    Arc::new(Class {
        name: "pii".into(),
        formerly: vec![],
        key: "k".into(),
        suite: fieldveil::dek::Suite::Xaes256Gcm,
        keep_sealed: true,
        mask: None,
    })
}

/// Seals seven values of a customer.
pub fn rules() -> Rules {
    let class = class();
    compile(&PATHS, &Action::Seal(class))
}

/// Opens them again, wherever they stand.
pub fn opening_rules() -> Rules {
    compile(&["$..*"], &Action::Open(vec![class()]))
}

fn compile(paths: &[&str], action: &Action) -> Rules {
    let rules = paths
        .iter()
        .map(|path| Rule {
            at: Path::parse(path).expect("a good path").into(),
            action: action.clone(),
            bind: vec![],
            reveal: Reveal::default(),
            gather: false,
        })
        .collect();
    let manner = Manner {
        stray: Attitude::Report,
        unclaimed: Attitude::Allow,
        depth_max: 128,
        ..Manner::default()
    };
    Rules::compile(rules, manner).expect("good rules")
}

/// Random bytes as the agent gets them.
pub fn random(buffer: &mut [u8]) {
    entropy::fill(buffer);
}

pub fn ring(needs: &Needs, key: &Arc<SealingKey>) -> Ring {
    Ring {
        sealing: needs.sealing.iter().map(|_| key.clone()).collect(),
        opening: Vec::new(),
    }
}

/// What opens the tokens that [`key`] made.
pub fn opening_ring(needs: &Needs, dek: &Arc<Dek>) -> Ring {
    Ring {
        sealing: Vec::new(),
        opening: needs.opening.iter().map(|_| Ok(dek.clone())).collect(),
    }
}

/// The key that [`key`] seals with, once more.
pub fn opening_key() -> Arc<Dek> {
    Arc::new(dek())
}
