//! One DEK under several KEKs: who is asked, who is enough, and whose no counts.

use super::*;

const FIRST: Duration = Duration::from_millis(40);
const OTHER: Duration = Duration::from_millis(5);

/// `cards` under the KEK `k` of two fakes, the first in the settings being the farther one.
fn two(need: Need) -> (Keys, Arc<Fake>, Arc<Fake>) {
    let (first, other) = (Arc::new(Fake::new("first")), Arc::new(Fake::new("other")));
    first.set_latency(FIRST);
    other.set_latency(OTHER);
    let mut cards = key("cards", &first, "k");
    cards.seal_with.push(binding(&other, "k"));
    cards.need = need;
    (Keys::new(settings(vec![cards])).unwrap(), first, other)
}

fn wrappings(key: &SealingKey) -> usize {
    Record::parse(&key.record).unwrap().wrappings().count()
}

/// Another room with the same KMSs, which has nothing in memory.
fn beside(first: &Arc<Fake>, other: &Arc<Fake>) -> Keys {
    let mut cards = key("cards", first, "k");
    cards.seal_with.push(binding(other, "k"));
    Keys::new(settings(vec![cards])).unwrap()
}

#[tokio::test(start_paused = true)]
async fn any_kek_of_a_record_opens_it() {
    let (keys, first, other) = two(Need::Any);
    let sealed = seal_one(&keys).await.unwrap();
    assert_eq!(wrappings(&sealed), 2);
    for dead in [&first, &other] {
        dead.fail(Kind::Unreachable);
        let opened = open_one(&beside(&first, &other), &opening(&sealed)).await;
        assert_same(&opened.unwrap(), &sealed.dek);
        dead.recover();
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_cold_openings_make_one_call_though_two_kmss_could_answer() {
    let (keys, first, other) = two(Need::Any);
    let sealed = seal_one(&keys).await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..1_000 {
        let (keys, needs) = (keys.clone(), opening(&sealed));
        tasks.spawn(async move { open_one(&keys, &needs).await.unwrap().kid() });
    }
    assert_eq!(tasks.join_all().await.len(), 1_000);
    assert_eq!(
        (first.count(Verb::Unwrap), other.count(Verb::Unwrap)),
        (0, 1),
        "the nearer one"
    );
}

#[tokio::test(start_paused = true)]
async fn where_all_are_needed_one_that_is_silent_stops_new_deks() {
    let (keys, first, other) = two(Need::All);
    other.fail(Kind::Unreachable);
    assert_eq!(
        seal_one(&keys).await.err(),
        Some(Failure::Kms(Kind::Unreachable))
    );
    other.recover();
    walk(2 * SECOND).await;
    let sealed = seal_one(&keys).await.unwrap();
    assert_eq!(wrappings(&sealed), 2);
    first.fail(Kind::Unreachable);
    for _ in 0..30 {
        walk(MINUTE).await;
        let now = now_or_never(keys.fetch(&sealing(1))).unwrap();
        assert_same(&now.sealing[0].dek, &sealed.dek);
    }
    assert_eq!(keys.snapshot().incomplete, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_added_within_a_lease_of_its_return() {
    let (keys, _, other) = two(Need::Any);
    other.fail(Kind::Unreachable);
    let sealed = seal_one(&keys).await.unwrap();
    assert_eq!(wrappings(&sealed), 1);
    let snapshot = keys.snapshot();
    assert_eq!((snapshot.incomplete, snapshot.incomplete_deks), (1, 1));
    assert_eq!(keys.states()[0].incomplete_deks, 1);
    // As long as it is gone the DEK stays: no fresh one is made that would be no better.
    for _ in 0..30 {
        walk(MINUTE).await;
        assert_same(&seal_one(&keys).await.unwrap().dek, &sealed.dek);
    }
    other.recover();
    for _ in 0..11 {
        walk(MINUTE).await;
        now_or_never(keys.fetch(&sealing(1))).unwrap();
    }
    assert_eq!(wrappings(&seal_one(&keys).await.unwrap()), 2);
    assert_eq!(keys.snapshot().incomplete_deks, 0);
}

#[tokio::test(start_paused = true)]
async fn a_straggler_is_waited_for_a_while_where_one_is_enough() {
    let (keys, _, other) = two(Need::Any);
    other.hang();
    let asked = Instant::now();
    assert_eq!(wrappings(&seal_one(&keys).await.unwrap()), 1);
    assert_eq!(asked.elapsed(), FIRST + super::super::several::STRAGGLERS);
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_is_hedged_once_and_then_comes_second() {
    let (keys, first, other) = two(Need::Any);
    let scopes: Vec<Scope> = ["a", "b", "c"]
        .iter()
        .map(|tenant| scope("cards", Some(tenant)))
        .collect();
    let mut sealed = Vec::new();
    for scope in &scopes {
        let ring = keys.fetch(&sealing_in(scope.clone(), 1)).await.unwrap();
        sealed.push(opening_in(scope.clone(), &ring.sealing[0]));
    }
    other.hang();
    let mut waits = Vec::new();
    for needs in &sealed {
        let asked = Instant::now();
        open_one(&keys, needs).await.unwrap();
        waits.push(asked.elapsed());
    }
    let hedged = super::super::several::HEDGE_AFTER + FIRST;
    assert_eq!(waits, [hedged, FIRST, FIRST]);
    assert_eq!(first.count(Verb::Unwrap), 3);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_there_is_passed_over_at_once() {
    let (keys, _, other) = two(Need::Any);
    let sealed = seal_one(&keys).await.unwrap();
    other.fail(Kind::Unreachable);
    let asked = Instant::now();
    open_one(&keys, &opening(&sealed)).await.unwrap();
    assert_eq!(asked.elapsed(), OTHER + FIRST);
}

#[tokio::test(start_paused = true)]
async fn a_no_of_the_second_is_as_final_as_one_of_the_first() {
    let (keys, first, other) = two(Need::Any);
    let sealed = seal_one(&keys).await.unwrap();
    // The nearer one hangs, the other is asked beside it and says no.
    other.hang();
    first.fail(Kind::Denied);
    let asked = Instant::now();
    assert_eq!(
        open_one(&keys, &opening(&sealed)).await.err(),
        Some(Unopened::Denied)
    );
    assert_eq!(asked.elapsed(), super::super::several::HEDGE_AFTER + FIRST);
}

#[tokio::test(start_paused = true)]
async fn either_may_be_killed_and_denied_at_both_nothing_opens() {
    let (keys, first, other) = two(Need::Any);
    let sealed = seal_one(&keys).await.unwrap();
    let needs = opening(&sealed);
    open_one(&keys, &needs).await.unwrap();
    for dead in [&first, &other] {
        dead.hang();
        for _ in 0..30 {
            assert!(now_or_never(keys.fetch(&needs)).unwrap().opening[0].is_ok());
            assert!(now_or_never(keys.fetch(&sealing(1))).is_ok());
            walk(MINUTE).await;
        }
        dead.recover();
    }
    let denied = Instant::now();
    first.fail(Kind::Denied);
    other.fail(Kind::Denied);
    walk(TERMS.lease).await;
    assert!(denied.elapsed() <= TERMS.lease + SECOND);
    assert_eq!(open_one(&keys, &needs).await.err(), Some(Unopened::Denied));
    assert!(seal_one(&keys).await.is_err());
}

async fn sealed_after_a_no_of_the_second(need: Need) -> Result<usize, Failure> {
    let (keys, _, other) = two(need);
    let sealed = seal_one(&keys).await.unwrap();
    other.fail(Kind::Disabled);
    // No request comes, and it is gone all the same.
    walk(TERMS.lease).await;
    assert!(keys.snapshot().purged >= 1);
    let now = seal_one(&keys).await?;
    assert_ne!(now.dek.kid(), sealed.dek.kid());
    Ok(wrappings(&now))
}

#[tokio::test(start_paused = true)]
async fn a_no_of_one_ends_sealing_with_it_within_a_lease() {
    assert_eq!(sealed_after_a_no_of_the_second(Need::Any).await, Ok(1));
    assert_eq!(
        sealed_after_a_no_of_the_second(Need::All).await,
        Err(Failure::Kms(Kind::Disabled))
    );
}

#[tokio::test(start_paused = true)]
async fn a_rotation_at_either_is_picked_up_within_a_lease() {
    let (keys, first, other) = two(Need::Any);
    for rotated in [&first, &other] {
        let sealed = seal_one(&keys).await.unwrap();
        rotated.rotate("k");
        walk(TERMS.lease).await;
        let new = now_or_never(keys.fetch(&sealing(1))).unwrap();
        assert_ne!(new.sealing[0].dek.kid(), sealed.dek.kid());
    }
}

#[tokio::test(start_paused = true)]
async fn another_dek_from_one_of_them_is_no_dek() {
    let (keys, _, other) = two(Need::Any);
    let sealed = seal_one(&keys).await.unwrap();
    other.answer(&[7; 32]);
    assert_eq!(
        open_one(&keys, &opening(&sealed)).await.err(),
        Some(Unopened::Mismatch)
    );
}

#[tokio::test(start_paused = true)]
async fn a_kek_that_a_record_names_again_is_asked_once() {
    let (keys, fake) = room();
    let sealed = seal_one(&keys).await.unwrap();
    let id = crate::token::kek_id(&fake.uri("k"));
    let blob = blob(&sealed);
    let record = Record::build(&[(id, &blob[..]); 4]).unwrap();
    let mut needs = opening(&sealed);
    needs.opening[0].record = Some(record);
    fake.fail(Kind::Denied);
    assert!(open_one(&keys, &needs).await.is_err());
    assert_eq!(fake.count(Verb::Unwrap), 1);
}

#[tokio::test(start_paused = true)]
async fn each_kms_has_its_own_twenty_calls() {
    let (keys, first, other) = two(Need::Any);
    let mail = key("mail", &other, "m");
    let mut both = key("cards", &first, "k");
    both.terms = TERMS;
    let keys_of_both = Keys::new(settings(vec![both, mail])).unwrap();
    drop(keys);
    for fake in [&first, &other] {
        fake.close_gate();
    }
    let mut tasks = JoinSet::new();
    for number in 0..100 {
        for name in ["cards", "mail"] {
            let keys = keys_of_both.clone();
            tasks.spawn(async move {
                let needs = sealing_in(scope(name, Some(&number.to_string())), 1);
                keys.fetch(&needs).await.map(|_| ())
            });
        }
    }
    settle().await;
    assert_eq!((first.in_flight(), other.in_flight()), ((20, 20), (20, 20)));
    for fake in [&first, &other] {
        fake.open_gate();
    }
    assert!(tasks.join_all().await.into_iter().all(|done| done.is_ok()));
    assert_eq!((first.in_flight().1, other.in_flight().1), (20, 20));
}

#[tokio::test(start_paused = true)]
async fn a_kms_that_comes_back_is_used_within_two_seconds_and_not_stormed() {
    for hangs in [false, true] {
        let (keys, fake) = room();
        match hangs {
            true => fake.hang(),
            false => fake.fail(Kind::Unreachable),
        }
        let ask = |number: u32| {
            let keys = keys.clone();
            async move {
                let needs = sealing_in(scope("cards", Some(&(number % 50).to_string())), 1);
                keys.fetch(&needs).await.map(|_| ())
            }
        };
        let mut tasks = JoinSet::new();
        for number in 0..600 {
            tasks.spawn(ask(number));
            advance(Duration::from_millis(100)).await;
        }
        let during = fake.calls().len();
        fake.recover();
        let back = Instant::now();
        while ask(0).await.is_err() {
            advance(Duration::from_millis(50)).await;
            settle().await;
        }
        assert!(back.elapsed() <= 2 * SECOND, "{hangs} {:?}", back.elapsed());
        tasks.join_all().await;
        let after = fake.calls().len() - during;
        assert!(after <= 60, "{after} calls for 50 tenants");
        assert!(fake.in_flight().1 <= 20);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_not_doubled_by_retries() {
    let (keys, fake) = room();
    fake.set_latency(Duration::ZERO);
    fake.fail(Kind::Unreachable);
    let start = Instant::now();
    let mut number = 0;
    while start.elapsed() < 60 * SECOND {
        number += 1;
        let needs = sealing_in(scope("cards", Some(&number.to_string())), 1);
        assert!(keys.fetch(&needs).await.is_err());
        walk(SECOND).await;
    }
    // Ten retries from the budget, two rounds before the breaker, then a probe every half to one and a half seconds at most.
    assert!(fake.calls().len() <= 10 + 3 + 120, "{}", fake.calls().len());
}

#[tokio::test(start_paused = true)]
async fn one_lost_answer_is_asked_for_again() {
    let (keys, fake) = room();
    fake.script([Some(Kind::Unreachable)]);
    let asked = Instant::now();
    assert!(seal_one(&keys).await.is_ok());
    assert!(asked.elapsed() <= LATENCY * 2 + Duration::from_millis(100));
    fake.script([Some(Kind::Denied)]);
    let refused = keys.fetch(&sealing_in(scope("cards", Some("t")), 1)).await;
    assert_eq!(
        refused.err().unwrap().failure,
        Failure::Kms(Kind::Denied),
        "a no is asked for once"
    );
}
