//! 100,000 records of a store wrapped anew under another KEK, as `fieldveil store rewrap` does it.

use super::{key, keyring, openbao, rows, stored};
use fieldveil::arena::Arena;
use fieldveil::keys::upkeep::{Anew, Upkeep};
use fieldveil::kms::{Kms, os_random};
use fieldveil::store::{BATCH_MAX, Entry};
use std::sync::Arc;
use std::time::Instant;

const RECORDS: u32 = 100_000;

async fn measured(name: &str, kms: &Arc<dyn Kms>) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = stored(&dir, &rows(kms, "cards", RECORDS).await).await;
    let key = key(
        &(Arc::clone(kms), "identity"),
        &[(Arc::clone(kms), "cards")],
    );
    let upkeep = Upkeep::new(&[key], Arena::new().expect("memory"), os_random());
    for (pass, expected) in [("moved", u64::from(RECORDS)), ("looked at again", 0)] {
        let (begun, mut after, mut moved) = (Instant::now(), None, 0);
        loop {
            let page = store.list(after, BATCH_MAX).await.expect("a page");
            let Some(last) = page.last() else { break };
            after = Some(last.kid());
            let rows = page.into_iter().filter_map(|entry| match entry {
                Entry::Row(row) => Some(row),
                Entry::Tombstone(_) => None,
            });
            let anew = upkeep.rewrap(rows.collect()).await;
            let changes = anew.into_iter().filter_map(|(_, anew)| match anew {
                Ok(Anew::Changed(change)) => Some(change),
                Ok(Anew::AsItIs) => None,
                Err(why) => panic!("{why:?}"),
            });
            let changes: Vec<_> = changes.collect();
            moved += store.rewrap(&changes).await.expect("changed");
        }
        assert_eq!(moved, expected);
        let took = begun.elapsed();
        let each = took / RECORDS;
        println!("  {name}: {RECORDS} records {pass} in {took:.1?} ({each:?} each)");
    }
}

pub async fn run() {
    println!("rewrap: from one KEK of a KMS to another, records in a file");
    measured("keyring", &keyring()).await;
    if let Some((_bao, kms)) = openbao().await {
        measured("OpenBao beside it", &kms).await;
    }
}
