//! A key room that has every key: a DEK is the hash of its scope, and its record names the scope in clear.

use fieldveil::dek::{Dek, MATERIAL_LEN, Material, Needs, Ring, SealingKey, Unopened, schedule};
use fieldveil::token::Record;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

struct Plainly([u8; MATERIAL_LEN]);

impl Material for Plainly {
    fn expose(&self) -> &[u8; MATERIAL_LEN] {
        &self.0
    }
}

/// One derivation a scope: a test makes the same ring many thousand times.
fn dek_of(scope: &[u8]) -> Arc<SealingKey> {
    static KNOWN: LazyLock<Mutex<HashMap<Vec<u8>, Arc<SealingKey>>>> =
        LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().expect("keys");
    known
        .entry(scope.to_vec())
        .or_insert_with(|| {
            let dek: [u8; 32] = Sha256::digest(scope).into();
            let mut material = [0; MATERIAL_LEN];
            let kid = schedule(&dek, &mut material);
            Arc::new(SealingKey {
                dek: Dek::new(kid, Box::new(Plainly(material))),
                record: Record::build(&[([0; 8], scope)]).expect("a record"),
                stored: false,
            })
        })
        .clone()
}

/// What a plan needs.
pub fn ring(needs: &Needs) -> Ring {
    let scope = |scope| format!("{scope:?}").into_bytes();
    Ring {
        sealing: needs
            .sealing
            .iter()
            .map(|need| dek_of(&scope(&need.scope)))
            .collect(),
        opening: needs
            .opening
            .iter()
            .map(|need| {
                let key = dek_of(&scope(&need.scope));
                if need.record.as_deref() != Some(&*key.record) || need.kid != key.dek.kid() {
                    return Err(Unopened::Denied);
                }
                let dek: [u8; 32] = Sha256::digest(scope(&need.scope)).into();
                let mut material = [0; MATERIAL_LEN];
                let kid = schedule(&dek, &mut material);
                Ok(Arc::new(Dek::new(kid, Box::new(Plainly(material)))))
            })
            .collect(),
    }
}
