//! Stored DEKs kept by hand, with the fake KMS.

use super::super::{Need, TERMS};
use super::*;
use crate::kms::fake::{Fake, Verb};
use crate::kms::os_random;

fn scope(tenant: Option<&str>) -> Scope {
    Scope {
        key: "cards".into(),
        tenant: tenant.map(Into::into),
    }
}

fn upkeep(kms: &Arc<Fake>, seal_with: &[&str], open_also: &[&str]) -> Upkeep {
    let keks = |names: &[&str]| {
        let kek = |name: &&str| Binding {
            kms: Arc::clone(kms) as Arc<dyn Kms>,
            kek: (*name).to_owned(),
        };
        names.iter().map(kek).collect::<Vec<_>>()
    };
    let key = KeySettings {
        name: "cards".into(),
        seal_with: keks(seal_with),
        need: Need::Any,
        open_also: keks(open_also),
        terms: TERMS,
    };
    Upkeep::new(&[key], Arena::new().unwrap(), os_random())
}

async fn rows(upkeep: &Upkeep, count: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    for epoch in 0..count {
        rows.push(upkeep.fresh(&scope(Some("t")), epoch, 7).await.unwrap());
    }
    rows
}

/// The row after what was done to it.
fn after(done: (Row, Result<Anew, Unfit>)) -> Option<Row> {
    let (row, anew) = done;
    match anew.unwrap() {
        Anew::AsItIs => None,
        Anew::Changed(Rewrap { kid, from, to }) => {
            assert_eq!((kid, &from), (row.kid, &row.record));
            Some(Row { record: to, ..row })
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_under_another_kek_is_wrapped_anew_and_once() {
    let kms = Arc::new(Fake::new("fake"));
    let made = rows(&upkeep(&kms, &["old"], &[]), 100).await;
    let moving = upkeep(&kms, &["new"], &["old"]);
    let done = moving.rewrap(made.clone()).await;
    let order: Vec<Kid> = done.iter().map(|(row, _)| row.kid).collect();
    assert_eq!(order, Vec::from_iter(made.iter().map(|row| row.kid)));
    let moved: Vec<Row> = done.into_iter().filter_map(after).collect();
    assert_eq!(moved.len(), 100);
    // The old one is not needed any more; and a second run asks for next to nothing.
    kms.fail_kek("old", Failure::Destroyed);
    for (row, wrappings) in upkeep(&kms, &["new"], &[]).look(moved.clone()).await {
        assert_eq!(wrappings.len(), 1);
        assert_eq!(wrappings[0].opens, Ok(()), "{}", row.kid);
        assert_eq!(wrappings[0].kek, kms.uri("new"));
    }
    let calls = kms.calls().len();
    let again = moving.rewrap(moved).await;
    assert_eq!(again.into_iter().filter_map(after).count(), 0);
    assert!(kms.calls().len() <= calls + 1, "to learn the version");
}

#[tokio::test(start_paused = true)]
async fn older_versions_are_wrapped_anew() {
    let kms = Arc::new(Fake::new("fake"));
    let made = rows(&upkeep(&kms, &["k"], &[]), 20).await;
    kms.rotate("k");
    let keeping = upkeep(&kms, &["k"], &[]);
    let versions = |looked: Vec<(Row, Vec<Wrapped>)>| {
        let of_first = |(_, wrappings): (_, Vec<Wrapped>)| wrappings[0].version.clone();
        looked.into_iter().map(of_first).collect::<Vec<_>>()
    };
    let before = versions(keeping.look(made.clone()).await);
    let done = keeping.rewrap(made).await;
    let moved: Vec<Row> = done.into_iter().filter_map(after).collect();
    assert_eq!(moved.len(), 20);
    let now = versions(keeping.look(moved.clone()).await);
    assert!(before.iter().zip(&now).all(|(before, now)| before != now));
    let again = keeping.rewrap(moved).await;
    assert_eq!(again.into_iter().filter_map(after).count(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_what_it_says_gets_no_good_wrapping() {
    let kms = Arc::new(Fake::new("fake"));
    let old = upkeep(&kms, &["old"], &[]);
    let [first, second] = &rows(&old, 2).await[..] else {
        panic!("two");
    };
    let other_record = Row {
        record: second.record.clone(),
        ..first.clone()
    };
    let other_epoch = Row {
        epoch: 9,
        ..first.clone()
    };
    let other_key = Row {
        scope: Scope {
            key: "mail".into(),
            tenant: None,
        },
        ..first.clone()
    };
    let forged = vec![other_record, other_epoch, other_key];
    let whys = [Unfit::OtherDek, Unfit::Misplaced, Unfit::UnknownKey];
    let moving = upkeep(&kms, &["new"], &["old"]);
    for ((_, anew), why) in moving.rewrap(forged.clone()).await.into_iter().zip(whys) {
        assert_eq!(anew, Err(why));
    }
    for ((_, wrappings), why) in moving.look(forged).await.into_iter().zip(whys) {
        assert_eq!(wrappings[0].opens, Err(why));
    }
    let gone = upkeep(&kms, &["new"], &[])
        .rewrap(vec![first.clone()])
        .await;
    assert_eq!(gone[0].1, Err(Unfit::Foreign));
    kms.fail_kek("old", Failure::Denied);
    let denied = moving.rewrap(vec![first.clone()]).await;
    assert_eq!(denied[0].1, Err(Unfit::Kms(Failure::Denied)));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_reaches_nobody_is_made_again_and_not_for_ever() {
    let kms = Arc::new(Fake::new("fake"));
    let made = rows(&upkeep(&kms, &["old"], &[]), 1).await;
    let moving = upkeep(&kms, &["new"], &["old"]);
    kms.script([Some(Failure::Unreachable), Some(Failure::Unreachable), None]);
    let done = moving.rewrap(made.clone()).await;
    assert!(done.into_iter().filter_map(after).map(|_| 1).eq([1]));
    kms.fail(Failure::Unreachable);
    let done = moving.rewrap(made.clone()).await;
    assert!(done[0].1.clone().is_err_and(Unfit::is_unreachable));
    kms.recover();
    kms.hang();
    let unwraps = kms.count(Verb::Unwrap);
    let looked = moving.look(made).await;
    assert_eq!(looked[0].1[0].opens, Err(Unfit::Kms(Failure::Unreachable)));
    assert_eq!(kms.count(Verb::Unwrap) - unwraps, 4);
}

#[tokio::test(start_paused = true)]
async fn a_fresh_one_is_trusted_by_its_place_alone() {
    let kms = Arc::new(Fake::new("fake"));
    let keeping = upkeep(&kms, &["k"], &[]);
    let row = keeping.fresh(&scope(None), 4, 7).await.unwrap();
    assert_eq!((row.epoch, row.created), (4, 7));
    let looked = keeping.look(vec![row]).await;
    assert_eq!(looked[0].1[0].opens, Ok(()));
    let unknown = Scope {
        key: "mail".into(),
        tenant: None,
    };
    let none = keeping.fresh(&unknown, 1, 7).await;
    assert_eq!(none, Err(Unfit::UnknownKey));
}
