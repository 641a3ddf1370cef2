//! What KMSs and stores cost, and what a slow one does not.
//!
//! `cargo bench --bench kms -- slow`, `page` or `rewrap`; without a name all of them. With `FIELDVEIL_BAO`, the program `bao`, page and rewrap
//! are measured before a real OpenBao, too. See benches/README.md.

#[path = "../../tests/support/bao.rs"]
#[expect(dead_code, reason = "tests use the rest")]
mod bao;
mod page;
mod rewrap;
mod slow;

use bao::Bao;
use fieldveil::arena::Arena;
use fieldveil::dek::{Kid, Scope, row_mac, schedule};
use fieldveil::keys::{Binding, KeySettings, Need, TERMS};
use fieldveil::kms::http::Trust;
use fieldveil::kms::keyring::Keyring;
use fieldveil::kms::secret::Secret;
use fieldveil::kms::transit::{LOOK_AGAIN, Login, RELOGIN_AFTER, Settings, Transit};
use fieldveil::kms::{Kms, os_random};
use fieldveil::store::embedded::Embedded;
use fieldveil::store::{BATCH_MAX, Entry, OWN, Row, Store};
use fieldveil::token::{Record, kek_id};
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

fn main() {
    let names: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|one| one == name);
    let runtime = Runtime::new().expect("threads");
    runtime.block_on(async {
        if wanted("slow") {
            slow::run().await;
        }
        if wanted("page") {
            page::run().await;
        }
        if wanted("rewrap") {
            rewrap::run().await;
        }
    });
}

/// The key `cards` under a KEK, and what else opens it.
fn key(seal_with: &(Arc<dyn Kms>, &str), open_also: &[(Arc<dyn Kms>, &str)]) -> KeySettings {
    let binding = |(kms, kek): &(Arc<dyn Kms>, &str)| Binding {
        kms: Arc::clone(kms),
        kek: (*kek).to_owned(),
    };
    KeySettings {
        name: "cards".into(),
        seal_with: vec![binding(seal_with)],
        need: Need::Any,
        open_also: open_also.iter().map(binding).collect(),
        terms: TERMS,
    }
}

fn scope() -> Scope {
    Scope {
        key: "cards".into(),
        tenant: None,
    }
}

/// Two KEKs, `cards` and `identity`, of the embedded keyring.
fn keyring() -> Arc<dyn Kms> {
    let arena = Arena::new().expect("memory");
    let made = Keyring::in_memory("local", &["cards", "identity"], arena, os_random());
    Arc::new(made.expect("a keyring"))
}

/// Two KEKs, `cards` and `identity`, of an OpenBao, where there is one to be had.
async fn openbao() -> Option<(Bao, Arc<dyn Kms>)> {
    std::env::var_os("FIELDVEIL_BAO")?;
    let bao = Bao::start().await;
    let (role_id, secret_id) = bao.role().await;
    let transit = Transit::new(Settings {
        name: "vault".into(),
        address: bao.url.clone(),
        identity: "v/transit".into(),
        mount: "transit".into(),
        namespace: None,
        trust: Trust::default(),
        login: Login::AppRole {
            mount: "approle".into(),
            role_id,
            secret_id: Secret::Given(Arc::new(secret_id.into())),
        },
        relogin_after: RELOGIN_AFTER,
        look_again: LOOK_AGAIN,
    });
    Some((bao, Arc::new(transit.expect("a provider"))))
}

/// So many data keys, wrapped; sixteen at a time.
async fn rows(kms: &Arc<dyn Kms>, kek: &'static str, count: u32) -> Vec<Row> {
    let mut tasks = JoinSet::new();
    for part in 0..16 {
        let kms = Arc::clone(kms);
        tasks.spawn(async move {
            let mut rows = Vec::new();
            for number in (part..count).step_by(16) {
                let mut dek = [0x5A; 32];
                dek[..4].copy_from_slice(&number.to_be_bytes());
                let kid: Kid = schedule(&dek, &mut [0; 96]);
                let blob = kms.wrap(kek, &dek, &scope()).await.expect("wrapped");
                rows.push(Row {
                    kid,
                    scope: scope(),
                    epoch: OWN,
                    created: 1_700_000_000,
                    record: Record::build(&[(kek_id(&kms.uri(kek)), &blob)]).expect("a record"),
                    mac: row_mac(&dek, &scope(), OWN).expect("a MAC"),
                });
            }
            rows
        });
    }
    tasks.join_all().await.concat()
}

/// The rows in a file.
async fn stored(dir: &tempfile::TempDir, rows: &[Row]) -> Arc<dyn Store> {
    let store = Embedded::create(&dir.path().join("store")).expect("a store");
    for batch in rows.chunks(BATCH_MAX) {
        let entries: Vec<Entry> = batch.iter().cloned().map(Entry::Row).collect();
        store.restore(&entries).await.expect("put");
    }
    Arc::new(store)
}
