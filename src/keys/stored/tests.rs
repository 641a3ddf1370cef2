//! The key room with a store, on a paused clock, with the fakes of both.

use super::super::{Binding, KeySettings, Keys, KeysError, Settings, TERMS, Terms};
use super::*;
use crate::arena::Arena;
use crate::dek::{Dek, Needs, OpenNeed, SealNeed, Suite};
use crate::keys::Need;
use crate::kms::fake::{Fake as FakeKms, Verb};
use crate::kms::{Failure as Kind, Kms, os_random};
use crate::store::Tombstone;
use crate::store::fake::{Fake, Mood};
use crate::token::Record;
use tokio::time::advance;

const MINUTE: Duration = Duration::from_secs(60);

fn settings(kms: &Arc<FakeKms>, store: &Arc<Fake>) -> Settings {
    let kek = |name: &str| Binding {
        kms: Arc::clone(kms) as Arc<dyn Kms>,
        kek: name.into(),
    };
    let key = KeySettings {
        name: "cards".into(),
        seal_with: vec![kek("k")],
        need: Need::Any,
        open_also: vec![kek("old")],
        terms: TERMS,
    };
    let mut settings = Settings::new(vec![key], Arena::new().unwrap(), os_random());
    settings.store = Some(Arc::clone(store) as Arc<dyn Store>);
    settings
}

fn fakes() -> (Arc<FakeKms>, Arc<Fake>) {
    (Arc::new(FakeKms::new("fake")), Arc::new(Fake::new()))
}

fn room() -> (Keys, Arc<FakeKms>, Arc<Fake>) {
    let (kms, store) = fakes();
    (Keys::new(settings(&kms, &store)).unwrap(), kms, store)
}

fn scope(tenant: Option<&str>) -> Scope {
    Scope {
        key: "cards".into(),
        tenant: tenant.map(Into::into),
    }
}

async fn seal(
    keys: &Keys,
    suite: Suite,
    tenant: Option<&str>,
) -> Result<Arc<SealingKey>, KeysError> {
    let needs = Needs {
        sealing: vec![SealNeed {
            scope: scope(tenant),
            suite,
            values: 1,
        }],
        opening: vec![],
    };
    let mut ring = keys.fetch(&needs).await?;
    Ok(ring.sealing.remove(0))
}

async fn randomised(keys: &Keys) -> Arc<SealingKey> {
    seal(keys, Suite::Xaes256Gcm, None).await.unwrap()
}

async fn alike(keys: &Keys) -> Result<Arc<SealingKey>, Failure> {
    let sealed = seal(keys, Suite::Aes256Siv, None).await;
    sealed.map_err(|error| error.failure)
}

async fn open_in(keys: &Keys, scope: Scope, key: &SealingKey) -> Result<Arc<Dek>, Unopened> {
    let needs = Needs {
        sealing: vec![],
        opening: vec![OpenNeed {
            scope,
            kid: key.dek.kid(),
            record: key.inline().map(Into::into),
        }],
    };
    keys.fetch(&needs).await.unwrap().opening.remove(0)
}

async fn open(keys: &Keys, key: &SealingKey) -> Result<Kid, Unopened> {
    let opened = open_in(keys, scope(None), key).await;
    opened.map(|dek| dek.kid())
}

async fn walk(time: Duration) {
    let mut left = time;
    while !left.is_zero() {
        let step = left.min(Duration::from_secs(5));
        advance(step).await;
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        left -= step;
    }
}

fn delete(kid: Kid) -> Tombstone {
    Tombstone {
        kid,
        deleted: 1,
        was: None,
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_agent_stores_another_opens() {
    let (keys, kms, store) = room();
    let sealed = randomised(&keys).await;
    assert!(sealed.stored && sealed.inline().is_none());
    let [Entry::Row(row)] = &store.entries()[..] else {
        panic!("one row");
    };
    assert_eq!((row.kid, row.epoch), (sealed.dek.kid(), OWN));
    let other = Keys::new(settings(&kms, &store)).unwrap();
    assert_eq!(open(&other, &sealed).await, Ok(sealed.dek.kid()));
    let foreign = open_in(&other, scope(Some("t")), &sealed).await;
    assert_eq!(foreign.map(|_| ()), Err(Unopened::Foreign));
    let calls = store.calls().len();
    for _ in 0..100 {
        open(&other, &sealed).await.unwrap();
    }
    assert_eq!(store.calls().len(), calls, "once per DEK and lease");
}

#[tokio::test(start_paused = true)]
async fn without_a_store_sealing_goes_on_inline_under_another_dek() {
    for mood in [
        Mood::Failing(store::Failure::Unreachable),
        Mood::Failing(store::Failure::Refused),
        Mood::Hanging,
        Mood::Forgetful,
    ] {
        let (keys, kms, store) = room();
        store.set(mood);
        let sealed = randomised(&keys).await;
        assert!(!sealed.stored, "{mood:?}");
        // What was written without our knowing is never sent inline.
        let written: Vec<Kid> = store.entries().iter().map(Entry::kid).collect();
        assert!(!written.contains(&sealed.dek.kid()), "{mood:?}");
        assert_eq!(kms.count(Verb::Wrap), 2, "{mood:?}");
        assert_eq!(open(&keys, &sealed).await, Ok(sealed.dek.kid()), "{mood:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_store_is_back_tokens_get_short_again() {
    let (keys, kms, store) = room();
    store.set(Mood::Failing(store::Failure::Unreachable));
    let inline = randomised(&keys).await;
    for _ in 0..100 {
        walk(Duration::from_secs(5)).await;
        assert_eq!(randomised(&keys).await.dek.kid(), inline.dek.kid());
    }
    assert_eq!(kms.count(Verb::Wrap), 2, "an outage costs no wrapping");
    store.set(Mood::Well);
    for _ in 0..20 {
        walk(Duration::from_secs(5)).await;
        let _ = randomised(&keys).await;
    }
    assert!(randomised(&keys).await.stored);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_store_spares_warm_traffic_to_lease_and_grace() {
    let (keys, _, store) = room();
    let sealed = randomised(&keys).await;
    open(&keys, &sealed).await.unwrap();
    store.set(Mood::Hanging);
    for _ in 0..(TERMS.lease + TERMS.grace).as_secs() / 60 - 1 {
        walk(MINUTE).await;
        assert_eq!(randomised(&keys).await.dek.kid(), sealed.dek.kid());
        assert_eq!(open(&keys, &sealed).await, Ok(sealed.dek.kid()));
    }
    walk(MINUTE * 2).await;
    assert_eq!(open(&keys, &sealed).await, Err(Unopened::Unreachable));
    assert!(!randomised(&keys).await.stored, "sealing goes on inline");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_dek_is_refused_in_every_form() {
    let (keys, _, store) = room();
    store.set(Mood::Failing(store::Failure::Unreachable));
    let inline = randomised(&keys).await;
    store.set(Mood::Well);
    let (other, _, _) = {
        let (kms, _) = fakes();
        (
            Keys::new(settings(&kms, &store)).unwrap(),
            kms,
            Arc::clone(&store),
        )
    };
    let reference = randomised(&other).await;
    assert!(!inline.stored && reference.stored);
    open(&keys, &inline).await.unwrap();
    open(&other, &reference).await.unwrap();
    for key in [&inline, &reference] {
        assert!(store.delete(&delete(key.dek.kid())).await.unwrap());
    }
    for _ in 0..TERMS.lease.as_secs() / 60 + 1 {
        walk(MINUTE).await;
        let _ = (open(&keys, &inline).await, open(&other, &reference).await);
    }
    assert_eq!(open(&keys, &inline).await, Err(Unopened::Deleted));
    assert_eq!(open(&other, &reference).await, Err(Unopened::Deleted));
    // Nor does an agent go on sealing with it; and it remembers when the store is away.
    assert_ne!(randomised(&other).await.dek.kid(), reference.dek.kid());
    store.set(Mood::Hanging);
    assert_eq!(open(&keys, &inline).await, Err(Unopened::Deleted));
}

#[tokio::test(start_paused = true)]
async fn a_rewrapped_record_is_used_from_the_next_renewal_on() {
    let (keys, kms, store) = room();
    let sealed = randomised(&keys).await;
    open(&keys, &sealed).await.unwrap();
    let needs = scope(None);
    let [Entry::Row(row)] = &store.entries()[..] else {
        panic!("one row");
    };
    let parsed = Record::parse(&row.record).unwrap();
    let (_, blob) = parsed.wrappings().next().unwrap();
    let dek = kms.unwrap("k", blob, &needs).await.unwrap().dek;
    let dek: &[u8; 32] = dek[..].try_into().unwrap();
    let blob = kms.wrap("old", dek, &needs).await.unwrap();
    let old = crate::token::kek_id(&kms.uri("old"));
    let change = Rewrap {
        kid: row.kid,
        from: row.record.clone(),
        to: Record::build(&[(old, &blob)]).unwrap(),
    };
    assert_eq!(store.rewrap(&[change]).await, Ok(1));
    kms.fail_kek("k", Kind::Denied);
    for _ in 0..60 {
        walk(MINUTE).await;
        assert_eq!(open(&keys, &sealed).await, Ok(sealed.dek.kid()));
        assert_eq!(randomised(&keys).await.dek.kid(), sealed.dek.kid());
    }
}

#[tokio::test(start_paused = true)]
async fn a_deterministic_scope_has_one_dek_for_all() {
    let (kms, store) = fakes();
    let rotate = MINUTE * 10;
    let agents: Vec<Keys> = (0..10)
        .map(|_| {
            let mut settings = settings(&kms, &store);
            settings.keys[0].terms.rotate = rotate;
            Keys::new(settings).unwrap()
        })
        .collect();
    let mut kids = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    for agent in &agents {
        let agent = agent.clone();
        tasks.spawn(async move { alike(&agent).await.unwrap().dek.kid() });
    }
    while let Some(kid) = tasks.join_next().await {
        kids.push(kid.unwrap());
    }
    assert!(kids.iter().all(|kid| *kid == kids[0]));
    assert_eq!(store.entries().len(), 1);
    let snapshot = agents[0].snapshot();
    assert_eq!(snapshot.sealing_deks, 1);
    assert!(snapshot.sealing_survives.is_some());
    // Nor does it rotate, with age or with its agents.
    walk(rotate + MINUTE).await;
    assert_eq!(alike(&agents[0]).await.unwrap().dek.kid(), kids[0]);
    let tenant = seal(&agents[0], Suite::Aes256Siv, Some("t")).await.unwrap();
    assert_ne!(tenant.dek.kid(), kids[0]);
    assert_ne!(randomised(&agents[0]).await.dek.kid(), kids[0]);
}

/// How many wrappings the one row of a store has.
fn wrappings(store: &Fake) -> usize {
    let entries = store.entries();
    let [Entry::Row(row)] = &entries[..] else {
        panic!("{} entries", entries.len());
    };
    Record::parse(&row.record).unwrap().wrappings().count()
}

#[tokio::test(start_paused = true)]
async fn what_a_deterministic_dek_lacks_is_added_when_it_is_there() {
    let (kms, store) = fakes();
    let other = Arc::new(FakeKms::new("other"));
    let room = || {
        let mut settings = settings(&kms, &store);
        settings.keys[0].seal_with.push(Binding {
            kms: Arc::clone(&other) as Arc<dyn Kms>,
            kek: "k".into(),
        });
        Keys::new(settings).unwrap()
    };
    let (keys, beside) = (room(), room());
    other.fail(Kind::Unreachable);
    let sealed = alike(&keys).await.unwrap();
    alike(&beside).await.unwrap();
    assert_eq!(wrappings(&store), 1);
    assert_eq!(keys.snapshot().incomplete_deks, 1);
    // Once a lease it is asked again, whether it answers or not, and nobody waits for it.
    let step = async || {
        walk(TERMS.lease).await;
        for keys in [&keys, &beside] {
            let again = alike(keys).await.unwrap();
            assert_eq!(again.dek.kid(), sealed.dek.kid());
        }
    };
    step().await;
    step().await;
    assert_eq!(wrappings(&store), 1);
    other.recover();
    step().await;
    step().await;
    assert_eq!(wrappings(&store), 2);
    step().await;
    assert_eq!(keys.snapshot().incomplete_deks, 0);
    let wraps = other.count(Verb::Wrap);
    step().await;
    assert_eq!(other.count(Verb::Wrap), wraps, "it lacks nothing any more");
    // Either opens it.
    kms.fail(Kind::Unreachable);
    assert_eq!(alike(&room()).await.unwrap().dek.kid(), sealed.dek.kid());
    // In the order of the settings, as `store rewrap` would have it.
    let Some(Entry::Row(row)) = store.entries().pop() else {
        panic!("no row");
    };
    let record = Record::parse(&row.record).unwrap();
    let ids: Vec<_> = record.wrappings().map(|(id, _)| id).collect();
    let key = &keys.room.keys[&*row.scope.key];
    assert_eq!(ids, [key.seal_with[0].id, key.seal_with[1].id]);
}

#[tokio::test(start_paused = true)]
async fn without_its_store_a_deterministic_scope_is_refused() {
    let (keys, kms, store) = room();
    for mood in [
        Mood::Hanging,
        Mood::Failing(store::Failure::Refused),
        Mood::Forgetful,
    ] {
        store.set(mood);
        walk(MINUTE).await;
        assert!(
            matches!(alike(&keys).await, Err(Failure::Store(_))),
            "{mood:?}"
        );
    }
    // What was written without our knowing is found again.
    store.set(Mood::Well);
    walk(MINUTE).await;
    let sealed = alike(&keys).await.unwrap();
    assert_eq!(store.entries()[0].kid(), sealed.dek.kid());
    store.set(Mood::Hanging);
    walk(TERMS.lease).await;
    assert_eq!(alike(&keys).await.unwrap().dek.kid(), sealed.dek.kid());
    walk(TERMS.grace + MINUTE).await;
    assert!(matches!(alike(&keys).await, Err(Failure::Store(_))));
    let mut storeless = settings(&kms, &store);
    storeless.store = None;
    let keys = Keys::new(storeless).unwrap();
    assert_eq!(
        alike(&keys).await.map(|_| ()),
        Err(Failure::Store(store::Failure::Refused))
    );
}

#[tokio::test(start_paused = true)]
async fn a_command_puts_another_dek_in_its_place() {
    let (keys, kms, store) = room();
    let first = alike(&keys).await.unwrap();
    let (mut raw, needs) = ([0; 32], scope(None));
    os_random()(&mut raw).unwrap();
    let kid = dek::schedule(&raw, &mut [0; 96]);
    let blob = kms.wrap("k", &raw, &needs).await.unwrap();
    let kek = crate::token::kek_id(&kms.uri("k"));
    let row = |epoch, mac| Row {
        kid,
        scope: needs.clone(),
        epoch,
        created: 0,
        record: Record::build(&[(kek, &blob)]).unwrap(),
        mac,
    };
    // One whose MAC is not of this place seals nothing: made for another epoch, another tenant, or by nobody.
    for mac in [
        dek::row_mac(&raw, &needs, 1).unwrap(),
        dek::row_mac(&raw, &scope(Some("t")), 2).unwrap(),
        [0; 16],
    ] {
        store.force(Entry::Row(row(2, mac)));
        let other = Keys::new(settings(&kms, &store)).unwrap();
        assert_eq!(
            alike(&other).await.map(|_| ()),
            Err(Failure::Durable("untrusted"))
        );
    }
    store.force(Entry::Row(row(2, dek::row_mac(&raw, &needs, 2).unwrap())));
    for _ in 0..TERMS.lease.as_secs() / 60 {
        walk(MINUTE).await;
        let _ = alike(&keys).await;
    }
    assert_eq!(alike(&keys).await.unwrap().dek.kid(), kid);
    assert_eq!(open(&keys, &first).await, Ok(first.dek.kid()));
    // Deleted, it is not replaced by the one before it.
    assert!(store.delete(&delete(kid)).await.unwrap());
    for _ in 0..TERMS.lease.as_secs() / 60 {
        walk(MINUTE).await;
        let _ = alike(&keys).await;
    }
    assert_eq!(
        alike(&keys).await.map(|_| ()),
        Err(Failure::Durable("deleted"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_no_of_the_kms_ends_a_deterministic_scope() {
    let (keys, kms, _) = room();
    alike(&keys).await.unwrap();
    kms.fail(Kind::Denied);
    walk(TERMS.lease).await;
    assert_eq!(
        alike(&keys).await.map(|_| ()),
        Err(Failure::Kms(Kind::Denied))
    );
    kms.recover();
    walk(MINUTE).await;
    alike(&keys).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_row_ends_what_it_served() {
    let (keys, _, store) = room();
    let sealed = randomised(&keys).await;
    open(&keys, &sealed).await.unwrap();
    store.lose(sealed.dek.kid());
    for _ in 0..TERMS.lease.as_secs() / 60 {
        walk(MINUTE).await;
        let _ = (randomised(&keys).await, open(&keys, &sealed).await);
    }
    assert_eq!(open(&keys, &sealed).await, Err(Unopened::NotFound));
    assert_ne!(randomised(&keys).await.dek.kid(), sealed.dek.kid());
}

#[tokio::test(start_paused = true)]
async fn a_dead_store_stalls_no_more_than_the_first() {
    let (keys, _, store) = room();
    store.set(Mood::Hanging);
    let before = Instant::now();
    randomised(&keys).await;
    assert!(before.elapsed() <= Duration::from_secs(1));
    let before = Instant::now();
    for tenant in 0..100 {
        let tenant = format!("t{tenant}");
        seal(&keys, Suite::Xaes256Gcm, Some(&tenant)).await.unwrap();
    }
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn short_terms_are_no_storm() {
    let (kms, store) = fakes();
    let mut settings = settings(&kms, &store);
    settings.keys[0].terms = Terms {
        lease: Duration::from_secs(10),
        grace: Duration::ZERO,
        rotate: MINUTE,
        ..TERMS
    };
    let keys = Keys::new(settings).unwrap();
    store.set(Mood::Hanging);
    for _ in 0..120 {
        walk(Duration::from_secs(5)).await;
        randomised(&keys).await;
    }
    let calls = store.calls().len();
    assert!(calls < 400, "{calls} calls in ten minutes");
}
