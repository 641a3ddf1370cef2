//! A page of 1,000 records that ten agents sealed over a year, each with a data key a day: how many calls it takes to open it, and
//! how long, with nothing in memory.

use super::{key, openbao, rows, scope, stored};
use fieldveil::arena::Arena;
use fieldveil::dek::{Needs, OpenNeed, Unopened};
use fieldveil::keys::{Keys, Observe, Settings};
use fieldveil::kms::fake::Fake;
use fieldveil::kms::{Kms, os_random};
use fieldveil::store::{Row, Store};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

const DATA_KEYS: u32 = 10 * 365;
const RECORDS: usize = 1_000;

#[derive(Default)]
struct Counted {
    kms: AtomicUsize,
    store: AtomicUsize,
}

impl Observe for Counted {
    fn kms_call(&self, _: &str, _: &'static str, _: &'static str, _: u64) {
        self.kms.fetch_add(1, Relaxed);
    }
    fn store_call(&self, _: &str, _: &'static str, _: &'static str, _: u64) {
        self.store.fetch_add(1, Relaxed);
    }
}

/// The data keys of records drawn by a generator that always draws the same.
fn page(rows: &[Row], by_reference: bool) -> Needs {
    let (mut state, mut seen) = (1u64, HashSet::new());
    for _ in 0..RECORDS {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        seen.insert((state >> 33) as usize % rows.len());
    }
    let need = |at: usize| OpenNeed {
        scope: scope(),
        kid: rows[at].kid,
        record: (!by_reference).then(|| rows[at].record.clone()),
    };
    Needs {
        sealing: Vec::new(),
        opening: seen.into_iter().map(need).collect(),
    }
}

/// Opens the page, again and again until all of it is open.
async fn open(
    name: &str,
    kms: &Arc<dyn Kms>,
    rows: &[Row],
    store: Option<Arc<dyn Store>>,
    keys_per_body_max: usize,
) {
    let counted = Arc::new(Counted::default());
    let keys = vec![key(&(Arc::clone(kms), "cards"), &[])];
    let mut settings = Settings::new(keys, Arena::new().expect("memory"), os_random());
    let needs = page(rows, store.is_some());
    settings.keys_per_body_max = keys_per_body_max;
    settings.store = store;
    settings.observe = Arc::clone(&counted) as Arc<dyn Observe>;
    let keys = Keys::new(settings).expect("a key room");
    let (begun, mut requests) = (Instant::now(), 0);
    loop {
        requests += 1;
        let ring = keys.fetch(&needs).await.expect("nothing is sealed");
        let mut left = ring.opening.iter().filter_map(|one| one.as_ref().err());
        match left.next() {
            None => break,
            Some(why) => assert_eq!(*why, Unopened::OverBudget),
        }
    }
    let (took, wanted) = (begun.elapsed(), needs.opening.len());
    let (kms, store) = (counted.kms.load(Relaxed), counted.store.load(Relaxed));
    println!(
        "  {name}, keys_per_body {keys_per_body_max}: {wanted} data keys in {requests} requests, {kms} calls to the KMS, {store} to the store, {took:.0?}"
    );
    keys.close().await;
}

pub async fn run() {
    println!("page: {RECORDS} records of {DATA_KEYS} data keys, nothing in memory");
    let fake = Arc::new(Fake::new("fake"));
    let kms = Arc::clone(&fake) as Arc<dyn Kms>;
    let made = rows(&kms, "cards", DATA_KEYS).await;
    let dir = tempfile::tempdir().expect("a directory");
    let store = stored(&dir, &made).await;
    for latency in [5, 20] {
        fake.set_latency(Duration::from_millis(latency));
        let name = format!("a KMS that takes {latency} ms");
        for most in [256, 1_024] {
            open(&format!("{name}, inline"), &kms, &made, None, most).await;
        }
        let store = Some(Arc::clone(&store));
        open(
            &format!("{name}, with a store (a file)"),
            &kms,
            &made,
            store,
            1_024,
        )
        .await;
    }
    if let Some((_bao, kms)) = openbao().await {
        let made = rows(&kms, "cards", DATA_KEYS).await;
        let dir = tempfile::tempdir().expect("a directory");
        let store = stored(&dir, &made).await;
        open("OpenBao beside it, inline", &kms, &made, None, 1_024).await;
        open(
            "OpenBao beside it, with a store (a file)",
            &kms,
            &made,
            Some(store),
            1_024,
        )
        .await;
    }
}
