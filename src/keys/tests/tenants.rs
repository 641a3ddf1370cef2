//! Names of tenants that somebody makes up: what they cost, and whom they drive out.

use super::*;

fn of(key: &str, tenant: &str) -> Needs {
    sealing_in(scope(key, Some(tenant)), 1)
}

#[tokio::test(start_paused = true)]
async fn so_many_tenants_may_be_new_and_those_that_are_there_do_not_notice() {
    let (keys, fake) = room_with(|settings| settings.newcomers_per_second = 5);
    fake.set_latency(Duration::ZERO);
    keys.fetch(&of("cards", "real")).await.unwrap();
    keys.fetch(&sealing(1)).await.unwrap();
    let calls = fake.calls().len();
    let mut refused = None;
    for number in 0..1_000 {
        let fetched = keys
            .fetch(&of("cards", &format!("invented-{number}")))
            .await;
        refused = fetched.err().or(refused);
    }
    assert_eq!(
        fake.calls().len() - calls,
        5 * 20 - 1,
        "what may come at once"
    );
    let error = refused.unwrap();
    assert_eq!(error.failure, Failure::Newcomers);
    assert!(error.retry_after.unwrap() <= SECOND / 5);
    assert_eq!(keys.snapshot().newcomers_refused, 1_000 - 99);
    now_or_never(keys.fetch(&of("cards", "real"))).unwrap();
    now_or_never(keys.fetch(&sealing(1))).unwrap();
    assert_eq!(
        keys.fetch(&of("cards", "late"))
            .await
            .err()
            .unwrap()
            .failure,
        Failure::Newcomers
    );
    advance(SECOND).await;
    let mut admitted = 0;
    for number in 0..10 {
        let fetched = keys.fetch(&of("cards", &format!("later-{number}"))).await;
        admitted += usize::from(fetched.is_ok());
    }
    assert_eq!(admitted, 5);
}

#[tokio::test(start_paused = true)]
async fn newcomers_of_one_key_take_nothing_from_another() {
    let fake = Arc::new(Fake::new("fake"));
    let mut settings = settings(vec![key("cards", &fake, "k"), key("mail", &fake, "m")]);
    settings.newcomers_per_second = 1;
    let keys = Keys::new(settings).unwrap();
    while keys
        .fetch(&of("cards", &format!("{}", fake.calls().len())))
        .await
        .is_ok()
    {}
    assert!(keys.fetch(&of("mail", "a")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn newcomers_make_place_before_those_that_are_established() {
    let (keys, fake) = room_with(|settings| {
        settings.scopes_max = 64;
        settings.newcomers_per_second = 1_000;
    });
    fake.set_latency(Duration::ZERO);
    let real: Vec<String> = (0..32).map(|number| format!("real-{number}")).collect();
    for minute in 0..10 {
        for tenant in &real {
            let fetched = now_or_never_or_cold(&keys, tenant, minute == 0).await;
            assert!(fetched, "{tenant} in minute {minute}");
        }
        walk(MINUTE).await;
    }
    let calls = fake.count(Verb::Wrap);
    for number in 0..2_000 {
        keys.fetch(&of("cards", &format!("invented-{number}")))
            .await
            .unwrap();
        advance(Duration::from_millis(1)).await;
    }
    assert_eq!(fake.count(Verb::Wrap) - calls, 2_000);
    assert!(keys.room.rotors.all().len() <= 64);
    for tenant in &real {
        assert!(
            now_or_never(keys.fetch(&of("cards", tenant))).is_ok(),
            "{tenant} is still there, though others came later"
        );
    }
}

async fn now_or_never_or_cold(keys: &Keys, tenant: &str, cold: bool) -> bool {
    match cold {
        true => keys.fetch(&of("cards", tenant)).await.is_ok(),
        false => now_or_never(keys.fetch(&of("cards", tenant))).is_ok(),
    }
}

#[tokio::test(start_paused = true)]
async fn the_most_crowded_key_makes_place_first() {
    let fake = Arc::new(Fake::new("fake"));
    let mut settings = settings(vec![key("cards", &fake, "k"), key("mail", &fake, "m")]);
    settings.scopes_max = 64;
    settings.newcomers_per_second = 1_000;
    let keys = Keys::new(settings).unwrap();
    for number in 0..10 {
        let tenant = number.to_string();
        keys.fetch(&of("mail", &tenant)).await.unwrap();
    }
    for number in 0..500 {
        advance(Duration::from_millis(1)).await;
        let tenant = number.to_string();
        keys.fetch(&of("cards", &tenant)).await.unwrap();
    }
    for number in 0..10 {
        let tenant = number.to_string();
        assert!(now_or_never(keys.fetch(&of("mail", &tenant))).is_ok());
    }
}
