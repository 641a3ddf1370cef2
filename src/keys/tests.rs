//! The key room on a paused clock, with the fake KMS.

use super::lease::{Lease, Terms};
use super::opening::Id;
use super::sealing::Take;
use super::*;
use crate::dek::{self, Dek, OpenNeed, Scope, SealNeed, SealingKey};
use crate::kms::fake::{Fake, Verb};
use crate::kms::keyring::Keyring;
use crate::kms::{Failure as Kind, Kms, os_random};
use crate::token::Record;
use std::collections::HashSet;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use tokio::time::advance;

mod several;
mod tenants;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const LATENCY: Duration = Duration::from_millis(40);

fn binding(fake: &Arc<Fake>, kek: &str) -> Binding {
    Binding {
        kms: Arc::clone(fake) as Arc<dyn Kms>,
        kek: kek.into(),
    }
}

fn key(name: &str, fake: &Arc<Fake>, kek: &str) -> KeySettings {
    KeySettings {
        name: name.into(),
        seal_with: vec![binding(fake, kek)],
        need: Need::Any,
        open_also: vec![],
        terms: TERMS,
    }
}

fn settings(keys: Vec<KeySettings>) -> Settings {
    Settings::new(keys, Arena::new().unwrap(), os_random())
}

/// One key, `cards`, under the KEK `k` of a fake that takes its time.
fn room() -> (Keys, Arc<Fake>) {
    room_with(|_| {})
}

fn room_with(change: impl FnOnce(&mut Settings)) -> (Keys, Arc<Fake>) {
    let fake = Arc::new(Fake::new("fake"));
    fake.set_latency(LATENCY);
    let mut settings = settings(vec![key("cards", &fake, "k")]);
    change(&mut settings);
    (Keys::new(settings).unwrap(), fake)
}

fn scope(key: &str, tenant: Option<&str>) -> Scope {
    Scope {
        key: key.into(),
        tenant: tenant.map(Into::into),
    }
}

fn sealing_in(scope: Scope, values: u64) -> Needs {
    Needs {
        sealing: vec![SealNeed {
            scope,
            suite: crate::dek::Suite::Xaes256Gcm,
            values,
        }],
        opening: vec![],
    }
}

fn sealing(values: u64) -> Needs {
    sealing_in(scope("cards", None), values)
}

/// The need to open what `key` sealed.
fn opening_in(scope: Scope, key: &SealingKey) -> Needs {
    Needs {
        sealing: vec![],
        opening: vec![OpenNeed {
            scope,
            kid: key.dek.kid(),
            record: Some(key.record.clone()),
        }],
    }
}

fn opening(key: &SealingKey) -> Needs {
    opening_in(scope("cards", None), key)
}

/// A record under the KEK `k` that is no record: made from a good one by changing its last byte, or by a number.
fn forged(good: &SealingKey, number: u32) -> OpenNeed {
    let mut record = good.record.clone();
    let at = record.len() - 4;
    for (byte, change) in record[at..]
        .iter_mut()
        .zip(number.wrapping_add(1).to_be_bytes())
    {
        *byte ^= change;
    }
    OpenNeed {
        scope: scope("cards", None),
        kid: good.dek.kid(),
        record: Some(record),
    }
}

#[track_caller]
fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it waits"),
    }
}

async fn seal_one(keys: &Keys) -> Result<Arc<SealingKey>, Failure> {
    let fetched = keys.fetch(&sealing(1)).await;
    fetched
        .map(|ring| Arc::clone(&ring.sealing[0]))
        .map_err(|error| error.failure)
}

async fn open_one(keys: &Keys, needs: &Needs) -> Result<Arc<Dek>, Unopened> {
    keys.fetch(needs).await.unwrap().opening[0].clone()
}

/// Lets spawned tasks run without moving the clock by more than a microsecond.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Walks the clock in steps of a second, so that everything that is due on the way happens on the way.
async fn walk(time: Duration) {
    for _ in 0..time.as_secs() {
        advance(SECOND).await;
        settle().await;
    }
}

fn assert_same(one: &Dek, other: &Dek) {
    assert_eq!(one.kid(), other.kid());
    assert_eq!(one.expose(), other.expose());
}

// --- one flight ------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_thousand_cold_fetches_make_one_call() {
    let (keys, fake) = room();
    let mut tasks = JoinSet::new();
    for _ in 0..1_000 {
        let keys = keys.clone();
        tasks.spawn(async move { seal_one(&keys).await.unwrap().dek.kid() });
    }
    let kids: HashSet<_> = tasks.join_all().await.into_iter().collect();
    assert_eq!(kids.len(), 1);
    assert_eq!(fake.calls().len(), 1);

    let sealed = seal_one(&keys).await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..1_000 {
        let (keys, needs) = (keys.clone(), opening(&sealed));
        tasks.spawn(async move { open_one(&keys, &needs).await.unwrap().kid() });
    }
    assert_eq!(tasks.join_all().await.len(), 1_000);
    assert_eq!((fake.count(Verb::Wrap), fake.count(Verb::Unwrap)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_opens_is_what_sealed() {
    let (keys, _) = room();
    let sealed = seal_one(&keys).await.unwrap();
    let opened = open_one(&keys, &opening(&sealed)).await.unwrap();
    assert_same(&sealed.dek, &opened);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_strands_nobody() {
    let (keys, fake) = room();
    fake.close_gate();
    {
        let needs = sealing(1);
        let mut first = pin!(keys.fetch(&needs));
        assert!(
            first
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        settle().await;
        assert_eq!(fake.in_flight().0, 1);
    }
    let second = tokio::spawn({
        let keys = keys.clone();
        async move { seal_one(&keys).await }
    });
    settle().await;
    fake.open_gate();
    assert!(second.await.unwrap().is_ok());
    assert_eq!(
        fake.calls().len(),
        1,
        "the first one's call served the second"
    );
}

#[tokio::test(start_paused = true)]
async fn deserted_unwraps_are_not_called_for() {
    let (keys, fake) = room_with(|settings| settings.calls_max = 1);
    let sealed = seal_one(&keys).await.unwrap();
    fake.close_gate();
    for number in 0..200 {
        let needs = Needs {
            sealing: vec![],
            opening: vec![forged(&sealed, number)],
        };
        let mut fetch = pin!(keys.fetch(&needs));
        assert!(
            fetch
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
    }
    settle().await;
    fake.open_gate();
    walk(MINUTE).await;
    assert_eq!(fake.count(Verb::Unwrap), 0);
    assert_eq!(keys.tasks(), 1, "the janitor alone is left");
    assert!(open_one(&keys, &opening(&sealed)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_clients_that_hang_up_leave_nothing() {
    let (keys, fake) = room();
    for _ in 0..10_000 {
        let needs = sealing(1);
        let mut fetch = pin!(keys.fetch(&needs));
        let _ = fetch.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    walk(10 * SECOND).await;
    assert_eq!(keys.tasks(), 1);
    assert_eq!(fake.calls().len(), 1);
    assert_eq!(fake.in_flight().0, 0);
}

// --- steady state -----------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn no_request_waits_in_steady_state() {
    let (keys, fake) = room();
    let sealed = seal_one(&keys).await.unwrap();
    let mut needs = opening(&sealed);
    open_one(&keys, &needs).await.unwrap();
    needs.sealing = sealing(7).sealing;
    for minute in 0..180 {
        let ring = now_or_never(keys.fetch(&needs)).unwrap();
        assert_same(&ring.sealing[0].dek, &sealed.dek);
        assert!(ring.opening[0].is_ok(), "minute {minute}");
        walk(MINUTE).await;
    }
    // Between two of the janitor's looks, so that no renewal has been sent and not yet landed.
    walk(5 * SECOND).await;
    // One renewal each in 70 to 92.5 % of ten minutes: 19.5 to 25.7 in three hours.
    let unwraps = fake.count(Verb::Unwrap) - 1;
    assert!((38..=52).contains(&unwraps), "{unwraps}");
    assert_eq!(fake.count(Verb::Wrap), 1);
    let snapshot = keys.snapshot();
    assert_eq!(snapshot.renewed, unwraps as u64);
    assert_eq!((snapshot.sealing_deks, snapshot.opening_deks), (1, 1));
    assert!(snapshot.sealing_survives.unwrap() >= 15 * MINUTE + 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn rotation_makes_nobody_wait_either() {
    let (keys, fake) = room_with(|settings| settings.keys[0].terms.rotate = 60 * MINUTE);
    let mut kids = vec![seal_one(&keys).await.unwrap().dek.kid()];
    let mut since = Instant::now();
    for _ in 0..6 * 60 {
        walk(MINUTE).await;
        let kid = now_or_never(keys.fetch(&sealing(1))).unwrap().sealing[0]
            .dek
            .kid();
        if kids.last() != Some(&kid) {
            assert!(since.elapsed() <= 60 * MINUTE, "{:?}", since.elapsed());
            since = Instant::now();
            kids.push(kid);
        }
    }
    assert!((7..=13).contains(&kids.len()), "{}", kids.len());
    assert_eq!(fake.count(Verb::Wrap), kids.len());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_uses_is_let_go_of_at_the_end_of_its_lease() {
    let (keys, fake) = room();
    let arena = keys.room.arena.clone();
    let sealed = seal_one(&keys).await.unwrap();
    open_one(&keys, &opening(&sealed)).await.unwrap();
    drop(sealed);
    assert_eq!(arena.held(), 2);
    // Used before the first renewal, so renewed once; then no more.
    walk(9 * MINUTE + 30 * SECOND).await;
    assert_eq!(fake.count(Verb::Unwrap), 3);
    walk(11 * MINUTE).await;
    assert_eq!(fake.count(Verb::Unwrap), 3);
    assert_eq!(arena.held(), 0, "wiped");
    let snapshot = keys.snapshot();
    assert_eq!((snapshot.sealing_deks, snapshot.opening_deks), (0, 0));
    assert_eq!(keys.room.rotors.all().len(), 0);
}

// --- outage, grace, recovery -------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn an_outage_is_survived_to_the_end_of_the_grace_and_no_longer() {
    let (keys, fake) = room();
    let sealed = seal_one(&keys).await.unwrap();
    let needs = opening(&sealed);
    let start = Instant::now() - LATENCY;
    open_one(&keys, &needs).await.unwrap();
    fake.fail(Kind::Unreachable);
    let (mut sealed_until, mut opened_until) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..40 * 4 {
        if seal_one(&keys).await.is_ok() {
            sealed_until = start.elapsed();
        }
        if open_one(&keys, &needs).await.is_ok() {
            opened_until = start.elapsed();
        }
        walk(15 * SECOND).await;
    }
    let end = TERMS.lease + TERMS.grace;
    for until in [sealed_until, opened_until] {
        assert!(
            until < end + SECOND && until > end - 20 * SECOND,
            "{until:?}"
        );
    }
    assert_eq!(
        seal_one(&keys).await.err(),
        Some(Failure::Kms(Kind::Unreachable))
    );
    assert_eq!(
        open_one(&keys, &needs).await.err(),
        Some(Unopened::Unreachable)
    );
    assert_eq!(keys.room.arena.held(), 1, "only what this test holds");

    fake.recover();
    walk(6 * SECOND).await;
    assert_ne!(seal_one(&keys).await.unwrap().dek.kid(), sealed.dek.kid());
    assert!(open_one(&keys, &needs).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_the_same_dek_goes_on() {
    let (keys, fake) = room();
    let sealed = seal_one(&keys).await.unwrap();
    fake.fail(Kind::Unreachable);
    for _ in 0..20 {
        walk(MINUTE).await;
        assert_same(
            &now_or_never(keys.fetch(&sealing(1))).unwrap().sealing[0].dek,
            &sealed.dek,
        );
    }
    fake.recover();
    for _ in 0..60 {
        walk(MINUTE).await;
        assert_same(
            &now_or_never(keys.fetch(&sealing(1))).unwrap().sealing[0].dek,
            &sealed.dek,
        );
    }
    assert_eq!(fake.count(Verb::Wrap), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outage_fails_fast_and_makes_few_calls() {
    let (keys, fake) = room();
    fake.hang();
    for _ in 0..3 {
        let asked = Instant::now();
        assert!(seal_one(&keys).await.is_err());
        assert_eq!(asked.elapsed(), 5 * SECOND, "the deadline");
    }
    let calls = fake.calls().len();
    let asked = Instant::now();
    let error = keys.fetch(&sealing(1)).await.err().unwrap();
    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert_eq!(error.failure, Failure::Kms(Kind::Unreachable));
    assert!(error.retry_after.unwrap() <= 5 * SECOND);
    assert_eq!(fake.calls().len(), calls);
    let state = |left_alone, withheld| KmsState {
        name: "fake".into(),
        left_alone,
        withheld,
    };
    assert_eq!(keys.snapshot().kms, [state(true, 1)]);
    assert_eq!(
        fake.in_flight().0,
        0,
        "calls past their deadline are dropped"
    );
    fake.recover();
    advance(5 * SECOND).await;
    assert!(seal_one(&keys).await.is_ok());
    assert_eq!(keys.snapshot().kms, [state(false, 1)]);
}

#[tokio::test(start_paused = true)]
async fn one_failure_is_not_remembered() {
    let (keys, fake) = room();
    fake.script([Some(Kind::Unreachable); 3]);
    assert!(seal_one(&keys).await.is_err());
    let sealed = seal_one(&keys).await.unwrap();
    fake.script([Some(Kind::Unreachable); 3]);
    let needs = opening(&sealed);
    assert_eq!(
        open_one(&keys, &needs).await.err(),
        Some(Unopened::Unreachable)
    );
    assert!(open_one(&keys, &needs).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_throttling_kms_is_left_alone_as_long_as_it_asked() {
    let (keys, fake) = room();
    fake.throttle(20 * SECOND);
    let error = keys.fetch(&sealing(1)).await.err().unwrap();
    assert_eq!(error.retry_after, Some(20 * SECOND));
    fake.recover();
    advance(10 * SECOND).await;
    let error = keys.fetch(&sealing(1)).await.err().unwrap();
    assert_eq!(error.retry_after, Some(10 * SECOND));
    assert_eq!(fake.calls().len(), 1);
    advance(10 * SECOND).await;
    assert!(seal_one(&keys).await.is_ok());
}

/// A call's deadline is longer than what is left of a short lease when it is asked to be extended.
#[tokio::test(start_paused = true)]
async fn a_silent_kms_makes_nobody_wait_though_the_lease_is_short() {
    let (keys, fake) = room_with(|settings| {
        let terms = &mut settings.keys[0].terms;
        (terms.lease, terms.grace) = (2 * SECOND, MINUTE);
    });
    let sealed = seal_one(&keys).await.unwrap();
    let mut needs = opening(&sealed);
    open_one(&keys, &needs).await.unwrap();
    needs.sealing = sealing(1).sealing;
    let tick = SECOND / 20;
    let step = async || {
        advance(tick).await;
        settle().await;
        let ring = now_or_never(keys.fetch(&needs)).unwrap();
        assert!(ring.opening[0].is_ok());
    };
    fake.hang();
    for _ in 0..30 * 20 {
        step().await;
    }
    assert!(fake.count(Verb::Unwrap) > 2, "it was asked");
    // The answer that it gives in the end counts, though it is late.
    fake.recover();
    for _ in 0..10 * 20 {
        step().await;
    }
    let before = keys.snapshot().renewed;
    assert!(before >= 2, "{before}");
    fake.fail(Kind::Denied);
    walk(3 * SECOND).await;
    assert_eq!(
        seal_one(&keys).await.err(),
        Some(Failure::Kms(Kind::Denied))
    );
    assert!(keys.fetch(&needs).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_lapsed_lease_waits_for_the_kms_before_its_grace() {
    // Nobody used it at renewal time, and the janitor has not come yet.
    let (keys, fake) = room();
    let sealed = seal_one(&keys).await.unwrap();
    let rotor = keys.room.rotors.get(&scope("cards", None)).unwrap();
    advance(TERMS.lease).await; // in one step: the janitor's tick and this fetch race, the fetch first
    assert!(!rotor.is_usable_at(Instant::now()));
    fake.fail(Kind::Unreachable);
    let again = seal_one(&keys).await.unwrap();
    assert_same(&again.dek, &sealed.dek);
    let asked = super::breaker::ATTEMPTS_MAX as usize;
    assert_eq!(fake.count(Verb::Unwrap), asked, "and not reached: grace");
}

// --- the KMS says no -----------------------------------------------------------------------------------

#[track_caller]
fn purges(failure: Kind) -> (Failure, Unopened) {
    let unopened = match failure {
        Kind::NotFound => Unopened::NotFound,
        _ => Unopened::Denied,
    };
    (Failure::Kms(failure), unopened)
}

async fn check_a_no_is_obeyed_at_the_next_renewal(failure: Kind) {
    let (keys, fake) = room();
    let sealed = seal_one(&keys).await.unwrap();
    let needs = opening(&sealed);
    open_one(&keys, &needs).await.unwrap();
    drop(sealed);
    let asked = Instant::now();
    fake.fail(failure);
    let (mut seals, mut opens) = (true, true);
    while asked.elapsed() < TERMS.lease && (seals || opens) {
        seals = seals && seal_one(&keys).await.is_ok();
        opens = opens && open_one(&keys, &needs).await.is_ok();
        walk(SECOND).await;
    }
    assert!(!seals && !opens, "{failure:?}: still serving after a lease");
    assert_eq!(keys.room.arena.held(), 0, "{failure:?}: wiped at once");
    assert!(keys.snapshot().purged > 0);
    let (sealing, opening) = purges(failure);
    walk(2 * SECOND).await;
    assert_eq!(seal_one(&keys).await.err(), Some(sealing));
    assert_eq!(open_one(&keys, &needs).await.err(), Some(opening));
    fake.recover();
    walk(11 * SECOND).await;
    assert!(
        seal_one(&keys).await.is_ok(),
        "{failure:?}: no lasting memory"
    );
    assert!(open_one(&keys, &needs).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_no_is_obeyed_at_once() {
    for failure in [
        Kind::Denied,
        Kind::Disabled,
        Kind::Destroyed,
        Kind::NotFound,
    ] {
        check_a_no_is_obeyed_at_the_next_renewal(failure).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_denial_for_opening_also_ends_sealing_with_that_dek() {
    let (keys, fake) = room();
    let sealed = seal_one(&keys).await.unwrap();
    fake.script([Some(Kind::Denied)]);
    let denied = open_one(&keys, &opening(&sealed)).await;
    assert_eq!(denied.err(), Some(Unopened::Denied));
    let fresh = seal_one(&keys).await.unwrap();
    assert_ne!(fresh.dek.kid(), sealed.dek.kid());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_may_only_wrap_seals_on() {
    let (keys, fake) = room();
    fake.fail_verb(Verb::Unwrap, Kind::Denied);
    let first = seal_one(&keys).await.unwrap().dek.kid();
    for _ in 0..120 {
        walk(15 * SECOND).await;
        assert!(seal_one(&keys).await.is_ok());
    }
    assert_ne!(seal_one(&keys).await.unwrap().dek.kid(), first);
}

#[tokio::test(start_paused = true)]
async fn who_may_no_longer_wrap_does_not_go_on_sealing() {
    let (keys, fake) = room_with(|settings| settings.keys[0].terms.uses_max = 10);
    keys.fetch(&sealing(7)).await.unwrap();
    fake.fail_verb(Verb::Wrap, Kind::Denied);
    // The eighth value makes a successor due; the denial takes what is left of the budget along.
    keys.fetch(&sealing(1)).await.unwrap();
    walk(2 * SECOND).await;
    assert_eq!(
        seal_one(&keys).await.err(),
        Some(Failure::Kms(Kind::Denied))
    );
    assert_eq!(keys.snapshot().purged, 1);
}

#[tokio::test(start_paused = true)]
async fn a_denial_never_leads_to_another_kek() {
    let (one, other) = (Arc::new(Fake::new("one")), Arc::new(Fake::new("other")));
    let mut cards = key("cards", &one, "k");
    cards.open_also = vec![binding(&other, "k")];
    let keys = Keys::new(settings(vec![cards])).unwrap();
    // A record that both made.
    let dek = [7; 32];
    let scope = scope("cards", None);
    let blobs = [
        one.wrap("k", &dek, &scope).await.unwrap(),
        other.wrap("k", &dek, &scope).await.unwrap(),
    ];
    let ids = [&one, &other].map(|fake| crate::token::kek_id(&fake.uri("k")));
    let record = Record::build(&[(ids[0], &blobs[0]), (ids[1], &blobs[1])]).unwrap();
    let needs = Needs {
        sealing: vec![],
        opening: vec![OpenNeed {
            scope,
            kid: dek::schedule(&dek, &mut [0; 96]),
            record: Some(record),
        }],
    };
    one.fail(Kind::Denied);
    assert_eq!(open_one(&keys, &needs).await.err(), Some(Unopened::Denied));
    assert_eq!(other.count(Verb::Unwrap), 0);
    walk(11 * SECOND).await;
    one.fail(Kind::Unreachable);
    assert!(
        open_one(&keys, &needs).await.is_ok(),
        "any one that can be reached"
    );
    assert_eq!(other.count(Verb::Unwrap), 1);
}

// --- leases are extended by that very record only ------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_lease_is_extended_by_unwrapping_that_very_record() {
    let (keys, fake) = room();
    let sealed = seal_one(&keys).await.unwrap();
    walk(9 * MINUTE + 30 * SECOND).await;
    let renewals: Vec<_> = fake
        .calls()
        .into_iter()
        .filter(|c| c.verb == Verb::Unwrap)
        .collect();
    assert_eq!(renewals.len(), 1);
    assert_eq!(renewals[0].blob, blob(&sealed));
    assert_eq!(renewals[0].scope, scope("cards", None));
}

fn blob(key: &SealingKey) -> Vec<u8> {
    let record = Record::parse(&key.record).unwrap();
    record.wrappings().next().unwrap().1.to_vec()
}

#[tokio::test(start_paused = true)]
async fn success_with_other_records_extends_nothing() {
    let (keys, fake) = room();
    let sealed = seal_one(&keys).await.unwrap();
    let needs = opening(&sealed);
    open_one(&keys, &needs).await.unwrap();
    let start = Instant::now();
    // This record alone cannot be asked about any more; the same key's others can, and are.
    fake.fail_blob(&blob(&sealed), Kind::Unreachable);
    let others = ["a", "b", "c"].map(|tenant| sealing_in(scope("cards", Some(tenant)), 1));
    let mut opened_until = Duration::ZERO;
    while start.elapsed() < 40 * MINUTE {
        if open_one(&keys, &needs).await.is_ok() {
            opened_until = start.elapsed();
        }
        for other in &others {
            assert!(keys.fetch(other).await.is_ok());
        }
        walk(10 * SECOND).await;
    }
    let end = TERMS.lease + TERMS.grace;
    assert!(
        opened_until < end && opened_until > end - MINUTE,
        "{opened_until:?}"
    );
    assert!(keys.snapshot().renewed > 6);
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_another_dek_is_a_mismatch() {
    let (keys, fake) = room();
    let sealed = seal_one(&keys).await.unwrap();
    let needs = opening(&sealed);
    for answer in [&[1; 32][..], &[1; 31], &[1; 33], &[], &[0; 4096]] {
        fake.answer(answer);
        let opened = open_one(&keys, &needs).await;
        assert_eq!(
            opened.err(),
            Some(Unopened::Mismatch),
            "{} bytes",
            answer.len()
        );
        fake.recover();
        walk(11 * SECOND).await;
    }
    assert!(open_one(&keys, &needs).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_renewal_with_another_dek_ends_the_old_one() {
    let (keys, fake) = room();
    let sealed = seal_one(&keys).await.unwrap();
    fake.answer(&[1; 32]);
    walk(9 * MINUTE + 30 * SECOND).await;
    assert_ne!(seal_one(&keys).await.unwrap().dek.kid(), sealed.dek.kid());
}

#[tokio::test(start_paused = true)]
async fn a_malformed_answer_gives_no_grace() {
    let (keys, fake) = room();
    let sealed = seal_one(&keys).await.unwrap();
    let needs = opening(&sealed);
    open_one(&keys, &needs).await.unwrap();
    let start = Instant::now();
    fake.fail(Kind::Malformed);
    while start.elapsed() < TERMS.lease - 2 * SECOND {
        assert!(now_or_never(keys.fetch(&needs)).unwrap().opening[0].is_ok());
        assert!(now_or_never(keys.fetch(&sealing(1))).is_ok());
        walk(SECOND).await;
    }
    walk(3 * SECOND).await;
    assert_eq!(
        open_one(&keys, &needs).await.err(),
        Some(Unopened::Mismatch)
    );
    assert_eq!(
        seal_one(&keys).await.err(),
        Some(Failure::Kms(Kind::Malformed))
    );
}

// --- age and budget ------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_dek_seals_exactly_its_budget() {
    let (keys, _) = room_with(|settings| settings.keys[0].terms.uses_max = 10);
    let mut by_kid: HashMap<_, u64> = HashMap::new();
    for values in [4, 3, 3, 1, 9, 10, 10, 7, 4] {
        let ring = keys.fetch(&sealing(values)).await.unwrap();
        *by_kid.entry(ring.sealing[0].dek.kid()).or_default() += values;
    }
    assert!(by_kid.values().all(|values| *values <= 10), "{by_kid:?}");
    let error = keys.fetch(&sealing(11)).await.err().unwrap();
    assert_eq!(error.failure, Failure::TooMany);
}

#[tokio::test(start_paused = true)]
async fn the_whole_budget_is_given_out() {
    let (keys, fake) = room_with(|settings| settings.keys[0].terms.uses_max = 10);
    let first = seal_one(&keys).await.unwrap().dek.kid();
    // No successor ahead of need, so that the first DEK serves to its last use.
    fake.fail_verb(Verb::Wrap, Kind::Unreachable);
    for _ in 0..9 {
        assert_eq!(seal_one(&keys).await.unwrap().dek.kid(), first);
    }
    assert!(seal_one(&keys).await.is_err(), "the eleventh");
    assert!(keys.fetch(&sealing(u64::MAX)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_thousand_in_competition_for_small_budgets_all_get_a_key() {
    let (keys, fake) = room_with(|settings| settings.keys[0].terms.uses_max = 10);
    let mut tasks = JoinSet::new();
    for _ in 0..1_000 {
        let keys = keys.clone();
        tasks.spawn(async move { seal_one(&keys).await.unwrap().dek.kid() });
    }
    let mut by_kid: HashMap<_, u64> = HashMap::new();
    for kid in tasks.join_all().await {
        *by_kid.entry(kid).or_default() += 1;
    }
    assert!(by_kid.values().all(|uses| *uses <= 10));
    assert!(
        (100..=130).contains(&fake.count(Verb::Wrap)),
        "{}",
        fake.count(Verb::Wrap)
    );
}

#[tokio::test(start_paused = true)]
async fn a_successor_is_made_before_the_budget_is_gone() {
    let (keys, fake) = room_with(|settings| settings.keys[0].terms.uses_max = 100);
    let first = seal_one(&keys).await.unwrap().dek.kid();
    for _ in 0..200 {
        now_or_never(keys.fetch(&sealing(1))).unwrap();
        walk(SECOND).await;
    }
    assert_eq!(fake.count(Verb::Wrap), 3);
    assert_ne!(seal_one(&keys).await.unwrap().dek.kid(), first);
}

#[tokio::test(start_paused = true)]
async fn a_dek_never_seals_beyond_its_age_though_the_kms_is_gone() {
    let (keys, fake) = room_with(|settings| {
        settings.keys[0].terms.rotate = 10 * MINUTE;
        settings.keys[0].terms.grace = 60 * MINUTE;
    });
    let first = seal_one(&keys).await.unwrap().dek.kid();
    let start = Instant::now() - LATENCY;
    fake.fail(Kind::Unreachable);
    while start.elapsed() < 10 * MINUTE - 2 * SECOND {
        assert_eq!(seal_one(&keys).await.unwrap().dek.kid(), first);
        walk(SECOND).await;
    }
    walk(3 * SECOND).await;
    assert!(seal_one(&keys).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_dek_retires_to_the_nanosecond() {
    let (keys, _) = room();
    seal_one(&keys).await.unwrap();
    let rotor = keys.room.rotors.get(&scope("cards", None)).unwrap();
    let retires = Instant::now() - LATENCY + TERMS.rotate;
    let sealed_at = Instant::now();
    rotor.renew(
        Lease::granted(retires - MINUTE, &TERMS, 0),
        false,
        sealed_at,
    );
    let takes = |at| matches!(rotor.take_at(at, 0, 1).0, Take::Ready(_));
    assert!(takes(retires - Duration::from_nanos(1)));
    assert!(!takes(retires));
}

#[tokio::test(start_paused = true)]
async fn a_lease_counts_from_when_the_kms_was_asked() {
    let (keys, fake) = room();
    fake.set_latency(4 * SECOND);
    let sealed = seal_one(&keys).await.unwrap();
    let whole = TERMS.lease + TERMS.grace;
    assert_eq!(keys.snapshot().sealing_survives, Some(whole - 4 * SECOND));
    open_one(&keys, &opening(&sealed)).await.unwrap();
    assert_eq!(keys.snapshot().opening_survives, Some(whole - 4 * SECOND));
    let mut renewed = 0;
    for _ in 0..10 * 60 {
        walk(SECOND).await;
        let snapshot = keys.snapshot();
        for survives in [snapshot.sealing_survives, snapshot.opening_survives] {
            assert!(survives.unwrap() <= whole - 4 * SECOND);
        }
        renewed = snapshot.renewed;
    }
    assert_eq!(renewed, 2);
}

// --- tenants -------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn tenants_have_their_own_deks() {
    let (keys, fake) = room();
    let mut kids = HashSet::new();
    for tenant in [None, Some(""), Some("a"), Some("b")] {
        let scope = scope("cards", tenant);
        let ring = keys.fetch(&sealing_in(scope.clone(), 1)).await.unwrap();
        kids.insert(ring.sealing[0].dek.kid());
        assert!(
            open_one(&keys, &opening_in(scope, &ring.sealing[0]))
                .await
                .is_ok()
        );
    }
    assert_eq!(kids.len(), 4);
    assert_eq!((fake.count(Verb::Wrap), fake.count(Verb::Unwrap)), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn a_cached_dek_serves_nobody_elses_tenant() {
    let (keys, fake) = room();
    let of_a = scope("cards", Some("a"));
    let sealed = keys.fetch(&sealing_in(of_a.clone(), 1)).await.unwrap();
    let sealed = &sealed.sealing[0];
    assert!(open_one(&keys, &opening_in(of_a, sealed)).await.is_ok());
    for other in [None, Some("b"), Some("")] {
        let opened = open_one(&keys, &opening_in(scope("cards", other), sealed)).await;
        assert_eq!(opened.err(), Some(Unopened::Mismatch), "{other:?}");
    }
    assert_eq!(
        fake.count(Verb::Unwrap),
        4,
        "each was a question of its own"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hit_is_for_its_kid_only() {
    let (keys, _) = room();
    let sealed = seal_one(&keys).await.unwrap();
    let mut needs = opening(&sealed);
    open_one(&keys, &needs).await.unwrap();
    needs.opening[0].kid.0[0] ^= 1;
    assert_eq!(
        open_one(&keys, &needs).await.err(),
        Some(Unopened::Mismatch)
    );
}

#[tokio::test(start_paused = true)]
async fn invented_tenants_stay_within_bounds() {
    let (keys, fake) = room_with(|settings| {
        settings.scopes_max = 64;
        settings.newcomers_per_second = 1_000;
    });
    fake.set_latency(Duration::ZERO);
    let tenant = |name: &str| sealing_in(scope("cards", Some(name)), 1);
    keys.fetch(&tenant("real")).await.unwrap();
    for number in 0..2_000 {
        keys.fetch(&tenant(&format!("invented-{number}")))
            .await
            .unwrap();
        now_or_never(keys.fetch(&tenant("real"))).unwrap();
        advance(Duration::from_millis(10)).await;
    }
    assert!(keys.room.rotors.all().len() <= 64);
    assert!(keys.room.arena.held() <= 64);
}

#[tokio::test(start_paused = true)]
async fn when_every_place_waits_for_the_kms_newcomers_are_refused() {
    let (keys, fake) = room_with(|settings| settings.scopes_max = 8);
    fake.close_gate();
    let mut tasks = JoinSet::new();
    for number in 0..8 {
        let keys = keys.clone();
        tasks.spawn(async move {
            let needs = sealing_in(scope("cards", Some(&number.to_string())), 1);
            keys.fetch(&needs).await.map(|_| ())
        });
    }
    settle().await;
    let error = keys.fetch(&sealing(1)).await.err().unwrap();
    assert_eq!(error.failure, Failure::Crowded);
    fake.open_gate();
    assert!(tasks.join_all().await.into_iter().all(|done| done.is_ok()));
}

// --- what an outsider can send --------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn foreign_records_cause_no_call() {
    let (keys, fake) = room();
    let sealed = seal_one(&keys).await.unwrap();
    let calls = fake.calls().len();
    let other_kek = Record::build(&[([9; 8], b"blob")]).unwrap();
    let records: [&[u8]; 5] = [&other_kek, b"", b"\0", b"nonsense", &[0xFF; 5_000]];
    for record in records {
        let needs = Needs {
            sealing: vec![],
            opening: vec![OpenNeed {
                scope: scope("cards", None),
                kid: sealed.dek.kid(),
                record: Some(record.into()),
            }],
        };
        let ring = now_or_never(keys.fetch(&needs)).unwrap();
        assert_eq!(ring.opening[0].as_ref().err(), Some(&Unopened::Foreign));
    }
    // A key that the settings do not have, and a token whose record is elsewhere.
    let needs = opening_in(scope("other", None), &sealed);
    assert_eq!(open_one(&keys, &needs).await.err(), Some(Unopened::Foreign));
    let mut needs = opening(&sealed);
    needs.opening[0].record = None;
    assert_eq!(
        open_one(&keys, &needs).await.err(),
        Some(Unopened::NotFound)
    );
    assert_eq!(fake.calls().len(), calls);
    assert_eq!(keys.snapshot().foreign, 6);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_remembered_for_a_while() {
    let (keys, fake) = room();
    let sealed = seal_one(&keys).await.unwrap();
    let needs = Needs {
        sealing: vec![],
        opening: vec![forged(&sealed, 0)],
    };
    for _ in 0..100 {
        assert_eq!(
            open_one(&keys, &needs).await.err(),
            Some(Unopened::Mismatch)
        );
    }
    assert_eq!(fake.count(Verb::Unwrap), 1);
    assert_eq!(keys.snapshot().remembered_refusals, 99);
    walk(11 * SECOND).await;
    assert_eq!(
        open_one(&keys, &needs).await.err(),
        Some(Unopened::Mismatch)
    );
    assert_eq!(fake.count(Verb::Unwrap), 2, "not for ever");
}

#[tokio::test(start_paused = true)]
async fn one_body_asks_for_so_much_and_no_more() {
    let (keys, fake) = room();
    let sealed = seal_one(&keys).await.unwrap();
    open_one(&keys, &opening(&sealed)).await.unwrap();
    let mut needs = opening(&sealed);
    needs
        .opening
        .extend((0..1_000).map(|number| forged(&sealed, number)));
    needs.opening.push(needs.opening[0].clone());
    let ring = keys.fetch(&needs).await.unwrap();
    let count = |why| {
        ring.opening
            .iter()
            .filter(|found| found.as_ref().err() == Some(&why))
            .count()
    };
    assert_eq!(count(Unopened::Mismatch), 256);
    assert_eq!(count(Unopened::OverBudget), 744);
    assert!(
        ring.opening[0].is_ok() && ring.opening[1_001].is_ok(),
        "what is cached is free"
    );
    assert_eq!(fake.count(Verb::Unwrap), 257);
    assert!(fake.in_flight().1 <= 20);
    assert_eq!(keys.snapshot().over_budget, 744);
}

#[tokio::test(start_paused = true)]
async fn a_body_in_parts_has_one_budget() {
    let (keys, fake) = room();
    let sealed = seal_one(&keys).await.unwrap();
    let mut uncached = 0;
    let mut over = 0;
    for part in 0..10 {
        let needs = Needs {
            opening: (0..100)
                .map(|number| forged(&sealed, part * 100 + number))
                .collect(),
            ..Needs::default()
        };
        let ring = keys.fetch_further(&needs, &mut uncached).await.unwrap();
        let is_over = |found: &&Result<_, _>| found.as_ref().err() == Some(&Unopened::OverBudget);
        over += ring.opening.iter().filter(is_over).count();
    }
    assert_eq!((over, fake.count(Verb::Unwrap)), (744, 256));
}

#[tokio::test(start_paused = true)]
async fn misses_are_fetched_side_by_side() {
    let (keys, fake) = room();
    let sealed = seal_one(&keys).await.unwrap();
    let mut needs = sealing_in(scope("cards", Some("x")), 1);
    needs
        .sealing
        .extend(sealing_in(scope("cards", Some("y")), 1).sealing);
    needs
        .opening
        .extend((0..10).map(|number| forged(&sealed, number)));
    let asked = Instant::now();
    keys.fetch(&needs).await.unwrap();
    assert_eq!(asked.elapsed(), LATENCY);
    assert_eq!(fake.in_flight().1, 12);
}

#[tokio::test(start_paused = true)]
async fn a_forged_record_purges_nothing() {
    let (keys, fake) = room();
    let sealed = seal_one(&keys).await.unwrap();
    let good = opening(&sealed);
    open_one(&keys, &good).await.unwrap();
    for (number, failure) in [
        Kind::Denied,
        Kind::Destroyed,
        Kind::NotFound,
        Kind::Malformed,
    ]
    .into_iter()
    .enumerate()
    {
        fake.fail(failure);
        let needs = Needs {
            sealing: vec![],
            opening: vec![forged(&sealed, number as u32)],
        };
        assert!(open_one(&keys, &needs).await.is_err());
        fake.recover();
        assert!(
            now_or_never(keys.fetch(&good)).unwrap().opening[0].is_ok(),
            "{failure:?}"
        );
        assert_same(
            &now_or_never(keys.fetch(&sealing(1))).unwrap().sealing[0].dek,
            &sealed.dek,
        );
    }
    assert_eq!(keys.snapshot().purged, 0);
}

#[tokio::test(start_paused = true)]
async fn renewals_go_before_a_flood_of_forgeries() {
    let (keys, fake) = room_with(|settings| settings.calls_max = 2);
    let sealed = seal_one(&keys).await.unwrap();
    let good = opening(&sealed);
    open_one(&keys, &good).await.unwrap();
    fake.set_latency(SECOND);
    let mut number = 0;
    let start = Instant::now();
    let mut flood = JoinSet::new();
    while start.elapsed() < 30 * MINUTE {
        // Ten times what two calls of a second can take.
        for _ in 0..20 {
            number += 1;
            let (keys, forged) = (keys.clone(), forged(&sealed, number));
            flood.spawn(async move {
                let needs = Needs {
                    sealing: vec![],
                    opening: vec![forged],
                };
                let _ = keys.fetch(&needs).await;
            });
        }
        while flood.try_join_next().is_some() {}
        assert!(now_or_never(keys.fetch(&good)).unwrap().opening[0].is_ok());
        assert!(now_or_never(keys.fetch(&sealing(1))).is_ok());
        walk(SECOND).await;
    }
    assert!(fake.in_flight().1 <= 2);
    assert!(keys.tasks() <= 4_096 + 8, "{}", keys.tasks());
    assert!(keys.snapshot().over_budget > 0, "the queue is bounded, too");
}

#[tokio::test(start_paused = true)]
async fn the_opening_cache_is_bounded_and_wiped() {
    let (keys, fake) = room_with(|settings| settings.opening_max = 32);
    fake.set_latency(Duration::ZERO);
    for number in 0..500 {
        let scope = scope("cards", Some(&number.to_string()));
        let sealed = keys.fetch(&sealing_in(scope.clone(), 1)).await.unwrap();
        assert!(
            open_one(&keys, &opening_in(scope, &sealed.sealing[0]))
                .await
                .is_ok()
        );
    }
    keys.room.openings.tend_at(Instant::now());
    assert!(keys.snapshot().opening_deks <= 32);
    assert_eq!(
        keys.room.arena.held() as u64,
        500 + keys.snapshot().opening_deks
    );
}

#[tokio::test(start_paused = true)]
async fn an_evicted_entry_lets_go_whoever_still_points_to_it() {
    let (keys, _) = room();
    let sealed = seal_one(&keys).await.unwrap();
    open_one(&keys, &opening(&sealed)).await.unwrap();
    let id = Id::of(&opening(&sealed).opening[0]);
    let entry = keys.room.openings.entry(&id).unwrap();
    assert_eq!(keys.room.arena.held(), 2);
    keys.room.openings.purge(&id);
    assert_eq!(keys.room.arena.held(), 1);
    drop(entry);

    let (keys, _) = room_with(|settings| settings.opening_max = 1);
    let mut entries = Vec::new();
    for tenant in ["a", "b", "c", "d"] {
        let scope = scope("cards", Some(tenant));
        let sealed = keys.fetch(&sealing_in(scope.clone(), 1)).await.unwrap();
        let needs = opening_in(scope, &sealed.sealing[0]);
        open_one(&keys, &needs).await.unwrap();
        let id = Id::of(&needs.opening[0]);
        entries.extend(keys.room.openings.entry(&id));
    }
    keys.room.openings.tend_at(Instant::now());
    assert!(entries.len() > 1);
    assert_eq!(
        keys.room.arena.held(),
        4 + 1,
        "four that seal, one that opens"
    );
}

// --- rotation of the KEK, purges, endings -----------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_rotated_kek_is_used_within_a_lease() {
    let (keys, fake) = room();
    let old = seal_one(&keys).await.unwrap();
    let version = |key: &SealingKey| u32::from_be_bytes(*blob(key).first_chunk().unwrap());
    assert_eq!(version(&old), 1);
    fake.rotate("k");
    walk(10 * MINUTE).await;
    let new = now_or_never(keys.fetch(&sealing(1))).unwrap();
    assert_eq!(version(&new.sealing[0]), 2);
    assert!(open_one(&keys, &opening(&old)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_key_in_use_is_not_wiped_under_the_user() {
    let (keys, _) = room();
    let sealed = seal_one(&keys).await.unwrap();
    let before = *sealed.dek.expose();
    keys.purge("cards");
    assert_eq!(*sealed.dek.expose(), before);
    assert_eq!(keys.room.arena.held(), 1);
    drop(sealed);
    assert_eq!(keys.room.arena.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_purge_by_hand_spares_other_keys_and_stops_what_is_under_way() {
    let fake = Arc::new(Fake::new("fake"));
    let keys = vec![key("cards", &fake, "k"), key("mail", &fake, "m")];
    let keys = Keys::new(settings(keys)).unwrap();
    let cards = seal_one(&keys).await.unwrap();
    let mail = keys
        .fetch(&sealing_in(scope("mail", None), 1))
        .await
        .unwrap();
    open_one(&keys, &opening(&cards)).await.unwrap();
    keys.purge("cards");
    keys.purge("unknown");
    assert_eq!(keys.snapshot().purged, 2);
    let still = now_or_never(keys.fetch(&sealing_in(scope("mail", None), 1))).unwrap();
    assert_same(&still.sealing[0].dek, &mail.sealing[0].dek);

    fake.close_gate();
    let under_way = tokio::spawn({
        let (keys, needs) = (keys.clone(), opening(&cards));
        async move { open_one(&keys, &needs).await.err() }
    });
    settle().await;
    keys.purge("cards");
    fake.open_gate();
    assert_eq!(under_way.await.unwrap(), Some(Unopened::Unreachable));
    assert_eq!(keys.snapshot().opening_deks, 0);
}

#[tokio::test(start_paused = true)]
async fn close_ends_every_task_and_every_wait() {
    let (keys, fake) = room();
    let sealed = seal_one(&keys).await.unwrap();
    fake.hang();
    let waiting = tokio::spawn({
        let keys = keys.clone();
        async move {
            keys.fetch(&sealing_in(scope("cards", Some("t")), 1))
                .await
                .map(|_| ())
        }
    });
    let opening_wait = tokio::spawn({
        let (keys, needs) = (keys.clone(), opening(&sealed));
        async move { open_one(&keys, &needs).await.err() }
    });
    settle().await;
    assert_eq!(fake.in_flight().0, 2);
    keys.close().await;
    assert_eq!(
        waiting.await.unwrap().err().unwrap().failure,
        Failure::Closed
    );
    assert_eq!(opening_wait.await.unwrap(), Some(Unopened::Unreachable));
    assert_eq!(fake.in_flight().0, 0);
    assert_eq!(keys.tasks(), 0);
    assert!(
        now_or_never(keys.fetch(&sealing(1))).is_ok(),
        "what is there still serves"
    );
    let later = keys.fetch(&sealing_in(scope("cards", Some("u")), 1)).await;
    assert_eq!(later.err().unwrap().failure, Failure::Closed);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_room_ends_the_janitor_and_wipes() {
    let (keys, _) = room();
    let arena = keys.room.arena.clone();
    drop(seal_one(&keys).await.unwrap());
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!((arena.held(), metrics.num_alive_tasks()), (1, 1));
    drop(keys);
    settle().await;
    assert_eq!((arena.held(), metrics.num_alive_tasks()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn without_randomness_nothing_is_sealed() {
    let (keys, fake) = room_with(|settings| {
        settings.random = Arc::new(|_| Err(std::io::ErrorKind::Other.into()));
    });
    assert_eq!(
        seal_one(&keys).await.err(),
        Some(Failure::Kms(Kind::Unreachable))
    );
    assert_eq!(fake.calls().len(), 0);
    assert_eq!(keys.room.arena.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_embedded_keyring_serves_the_room() {
    let arena = Arena::new().unwrap();
    let keyring = Keyring::in_memory("demo", &["field"], arena, os_random()).unwrap();
    let bound = Binding {
        kms: Arc::new(keyring.clone()),
        kek: "field".into(),
    };
    let cards = KeySettings {
        name: "cards".into(),
        seal_with: vec![bound],
        need: Need::Any,
        open_also: vec![],
        terms: TERMS,
    };
    let keys = Keys::new(settings(vec![cards])).unwrap();
    let sealed = seal_one(&keys).await.unwrap();
    keyring
        .rotate("field", std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    assert!(open_one(&keys, &opening(&sealed)).await.is_ok());
    walk(10 * MINUTE).await;
    assert_ne!(seal_one(&keys).await.unwrap().dek.kid(), sealed.dek.kid());
}

#[derive(Default)]
struct Log(Mutex<Vec<(String, &'static str, &'static str, u64)>>);

impl Observe for Log {
    fn kms_call(&self, kms: &str, verb: &'static str, outcome: &'static str, micros: u64) {
        self.0
            .lock()
            .unwrap()
            .push((kms.into(), verb, outcome, micros));
    }
}

#[tokio::test(start_paused = true)]
async fn calls_are_observed() {
    let log = Arc::new(Log::default());
    let (keys, fake) = room_with(|settings| settings.observe = log.clone());
    let sealed = seal_one(&keys).await.unwrap();
    fake.script([Some(Kind::Denied)]);
    let _ = open_one(&keys, &opening(&sealed)).await;
    fake.hang();
    let _ = seal_one(&keys).await;
    let seen = log.0.lock().unwrap().clone();
    assert_eq!(
        seen,
        [
            ("fake".into(), "wrap", "ok", 40_000),
            ("fake".into(), "unwrap", "denied", 40_000),
            ("fake".into(), "wrap", "unreachable", 5_000_000),
        ]
    );
}

/// On real threads and a real clock: whatever is renewed, evicted, purged and refused at the same time, nobody gets stuck
/// and every key opens what it sealed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_do_not_get_in_each_others_way() {
    let (keys, fake) = room_with(|settings| {
        settings.keys[0].terms.lease = SECOND;
        settings.keys[0].terms.rotate = SECOND;
        settings.keys[0].terms.uses_max = 50;
        settings.scopes_max = 4;
        settings.opening_max = 8;
    });
    fake.set_latency(Duration::from_millis(1));
    let until = Instant::now() + Duration::from_millis(1_500);
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let keys = keys.clone();
        tasks.spawn(async move {
            let mut rounds = 0u32;
            while Instant::now() < until {
                let scope = scope("cards", Some(&((task + rounds) % 6).to_string()));
                if let Ok(ring) = keys.fetch(&sealing_in(scope.clone(), 1)).await {
                    let needs = opening_in(scope, &ring.sealing[0]);
                    if let Ok(opened) = open_one(&keys, &needs).await {
                        assert_same(&ring.sealing[0].dek, &opened);
                    }
                }
                if task == 0 && rounds.is_multiple_of(64) {
                    keys.purge("cards");
                }
                rounds += 1;
            }
            rounds
        });
    }
    let rounds: u32 = tasks.join_all().await.iter().sum();
    assert!(rounds > 100, "{rounds}");
    keys.close().await;
    assert_eq!((keys.tasks(), fake.in_flight().0), (0, 0));
}

// --- settings ---------------------------------------------------------------------------------------------

#[track_caller]
fn check_refused(keys: Vec<KeySettings>, part: &str) {
    let error = Keys::new(settings(keys))
        .err()
        .expect("refused")
        .to_string();
    assert!(error.contains(part), "{error}");
}

#[tokio::test]
async fn contradictory_settings_are_refused() {
    let fake = Arc::new(Fake::new("fake"));
    let blind = Arc::new(Fake::without_context("blind"));
    let cards = || key("cards", &fake, "k");
    let with = |change: fn(&mut Terms)| {
        let mut key = cards();
        change(&mut key.terms);
        vec![key]
    };
    let mut none = cards();
    none.seal_with.clear();
    check_refused(vec![none], "needs a KEK");
    let mut five = cards();
    five.seal_with
        .extend(["l", "m", "n", "o"].map(|kek| binding(&fake, kek)));
    check_refused(vec![five], "4 KEKs at most");
    let mut twice = cards();
    twice.open_also.push(binding(&fake, "k"));
    check_refused(vec![twice], "the same KEK twice");
    check_refused(vec![cards(), cards()], "named twice");
    check_refused(with(|terms| terms.lease = Duration::ZERO), "`lease`");
    check_refused(with(|terms| terms.lease = 25 * 60 * MINUTE), "`lease`");
    check_refused(with(|terms| terms.grace = 25 * 60 * MINUTE), "`grace`");
    check_refused(with(|terms| terms.rotate = MINUTE), "`rotate`");
    check_refused(with(|terms| terms.uses_max = 0), "2^48");
    check_refused(with(|terms| terms.uses_max = (1 << 48) + 1), "2^48");
    check_refused(
        vec![key("cards", &blind, "k"), key("mail", &blind, "k")],
        "cannot tell",
    );
    let shared = settings(vec![cards(), key("mail", &fake, "k")]);
    assert!(Keys::new(shared).is_ok(), "this KMS tells them apart");
}

#[test]
fn without_a_runtime_there_is_no_room() {
    assert!(Keys::new(settings(vec![])).is_err());
}

/// A purge by hand between the KMS's answer and the keeping of what it brought: luck is drawn there.
#[tokio::test(start_paused = true)]
async fn a_purge_at_the_last_moment_is_heeded() {
    type Hook = Box<dyn Fn() + Send>;
    let hook: Arc<Mutex<Option<Hook>>> = Arc::default();
    let (keys, _fake) = room_with(|settings| {
        let hook = Arc::clone(&hook);
        settings.random = Arc::new(move |bytes| {
            let act = (bytes.len() == 2)
                .then(|| hook.lock().unwrap().take())
                .flatten();
            act.into_iter().for_each(|act| act());
            os_random()(bytes)
        });
    });
    let purge_at_luck = || {
        let keys = keys.clone();
        *hook.lock().unwrap() = Some(Box::new(move || {
            keys.purge("cards");
        }));
    };
    let sealed = seal_one(&keys).await.unwrap();
    keys.purge("cards");
    purge_at_luck();
    assert!(open_one(&keys, &opening(&sealed)).await.is_err());
    assert_eq!(keys.snapshot().opening_deks, 0);
    purge_at_luck();
    assert!(seal_one(&keys).await.is_err());
    assert_eq!(keys.snapshot().sealing_deks, 0);
    assert!(seal_one(&keys).await.is_ok());
    assert!(open_one(&keys, &opening(&sealed)).await.is_ok());
}
