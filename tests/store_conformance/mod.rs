//! What every store has to keep; one function for all of them.

use fieldveil::dek::{Kid, Scope};
use fieldveil::store::{Count, Entry, OWN, Put, Rewrap, Row, Store, Tombstone};
use fieldveil::token::Record;
use std::collections::HashSet;
use std::sync::Arc;

pub fn scope(key: &str, tenant: Option<&str>) -> Scope {
    Scope {
        key: key.into(),
        tenant: tenant.map(Into::into),
    }
}

pub fn kid(number: u32) -> Kid {
    let mut kid = [0; 16];
    kid[..4].copy_from_slice(&number.to_be_bytes());
    Kid(kid)
}

pub fn record(text: &str) -> Box<[u8]> {
    Record::build(&[(*b"kek-id-8", text.as_bytes())]).unwrap()
}

pub fn row(number: u32, scope: Scope, epoch: u64) -> Row {
    Row {
        kid: kid(number),
        scope,
        epoch,
        created: 1_700_000_000 + u64::from(number),
        record: record(&format!("blob {number}")),
        mac: [number as u8; 16],
    }
}

fn tombstone(number: u32) -> Tombstone {
    Tombstone {
        kid: kid(number),
        deleted: 1_800_000_000,
        was: None,
    }
}

/// On an empty store.
pub async fn conforms(store: &Arc<dyn Store>) {
    rows_are_put_once(store).await;
    epochs_are_given_once(store).await;
    the_deleted_stays_deleted(store).await;
    records_change_by_comparison(store).await;
    what_was_listed_restores(store).await;
    one_of_many_wins(store).await;
}

async fn rows_are_put_once(store: &Arc<dyn Store>) {
    let cards = || scope("cards", None);
    let first = row(1, cards(), OWN);
    assert_eq!(store.get(first.kid).await, Ok(None));
    assert_eq!(store.put_if_absent(&first).await, Ok(Put::Made));
    let found = Entry::Row(first.clone());
    assert_eq!(store.get(first.kid).await, Ok(Some(found.clone())));
    let other = Row {
        record: record("another"),
        scope: scope("other", Some("t")),
        ..first.clone()
    };
    let put = store.put_if_absent(&other).await;
    assert_eq!(put, Ok(Put::Present(found)), "the kid is taken");
    // A scope has any number of rows of its agents' own.
    for number in 2..10 {
        let put = store.put_if_absent(&row(number, cards(), OWN)).await;
        assert_eq!(put, Ok(Put::Made));
    }
    assert_eq!(store.latest(&cards()).await, Ok(None));
    // Names are bytes: what is awkward in a database, too, and as long as they may be.
    let long = "ü".repeat(30_000);
    for (number, tenant) in (10..).zip(["", "a'b\"\\", "a\u{0}b", "日本", &long]) {
        let row = row(number, scope("cards", Some(tenant)), OWN);
        assert_eq!(store.put_if_absent(&row).await, Ok(Put::Made));
        assert_eq!(store.get(row.kid).await, Ok(Some(Entry::Row(row))));
    }
}

async fn epochs_are_given_once(store: &Arc<dyn Store>) {
    let scopes = [
        scope("contact", None),
        scope("contact", Some("")),
        scope("contact", Some("t")),
        scope("contactt", None),
    ];
    for (number, scope) in (100..).step_by(10).zip(&scopes) {
        assert_eq!(store.latest(scope).await, Ok(None));
        let first = row(number, scope.clone(), 1);
        assert_eq!(store.put_if_absent(&first).await, Ok(Put::Made));
        let late = row(number + 1, scope.clone(), 1);
        let first = Entry::Row(first);
        let put = store.put_if_absent(&late).await;
        assert_eq!(put, Ok(Put::Present(first.clone())));
        assert_eq!(store.get(late.kid).await, Ok(None));
        assert_eq!(store.latest(scope).await, Ok(Some(first)));
        // In the order of numbers, not of their digits or of their kids.
        for (kid, epoch) in [(9, 2), (8, 10), (7, 9)] {
            let row = row(number + kid, scope.clone(), epoch);
            assert_eq!(store.put_if_absent(&row).await, Ok(Put::Made));
        }
        let latest = store.latest(scope).await.unwrap();
        assert_eq!(latest.map(|entry| entry.kid()), Some(kid(number + 8)));
    }
}

async fn the_deleted_stays_deleted(store: &Arc<dyn Store>) {
    let scope = scope("shred", Some("t"));
    for (number, epoch) in [(200, OWN), (201, 1)] {
        let row = row(number, scope.clone(), epoch);
        store.put_if_absent(&row).await.unwrap();
        assert_eq!(store.delete(&tombstone(number)).await, Ok(true));
        let buried = Tombstone {
            was: Some((scope.clone(), epoch)),
            ..tombstone(number)
        };
        let buried = Entry::Tombstone(buried);
        assert_eq!(store.get(row.kid).await, Ok(Some(buried.clone())));
        let put = store.put_if_absent(&row).await;
        assert_eq!(put, Ok(Put::Present(buried)));
        assert_eq!(store.delete(&tombstone(number)).await, Ok(false));
        let change = Rewrap {
            kid: row.kid,
            from: row.record,
            to: record("back again"),
        };
        assert_eq!(store.rewrap(&[change]).await, Ok(0));
    }
    // Its number is not given again, and it is what the scope has.
    let put = store.put_if_absent(&row(202, scope.clone(), 1)).await;
    assert!(matches!(put, Ok(Put::Present(Entry::Tombstone(_)))));
    let latest = store.latest(&scope).await;
    assert!(matches!(latest, Ok(Some(Entry::Tombstone(_)))));
    // Of a kid that was never here, too: it may be in tokens.
    assert_eq!(store.delete(&tombstone(203)).await, Ok(true));
    let put = store.put_if_absent(&row(203, scope, OWN)).await;
    assert!(matches!(put, Ok(Put::Present(Entry::Tombstone(_)))));
}

async fn records_change_by_comparison(store: &Arc<dyn Store>) {
    let rows: Vec<Row> = (300..303)
        .map(|number| row(number, scope("moved", None), OWN))
        .collect();
    for row in &rows {
        store.put_if_absent(row).await.unwrap();
    }
    let change = |row: &Row, from: &str| Rewrap {
        kid: row.kid,
        from: record(from),
        to: record("moved"),
    };
    let changes = [
        change(&rows[0], "blob 300"),
        change(&rows[1], "not this"),
        change(&row(399, scope("moved", None), OWN), "blob 399"),
        change(&rows[2], "blob 302"),
    ];
    assert_eq!(store.rewrap(&changes).await, Ok(2));
    assert_eq!(store.rewrap(&changes).await, Ok(0));
    for (row, expected) in rows.iter().zip(["moved", "blob 301", "moved"]) {
        let expected = Row {
            record: record(expected),
            ..row.clone()
        };
        assert_eq!(store.get(row.kid).await, Ok(Some(Entry::Row(expected))));
    }
    assert_eq!(store.rewrap(&[]).await, Ok(0));
}

pub async fn all(store: &Arc<dyn Store>, page: usize) -> Vec<Entry> {
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = store.list(after, page).await.unwrap();
        match page.last() {
            Some(last) => after = Some(last.kid()),
            None => return listed,
        }
        listed.extend(page);
    }
}

async fn what_was_listed_restores(store: &Arc<dyn Store>) {
    let listed = all(store, 7).await;
    let kids: Vec<[u8; 16]> = listed.iter().map(|entry| entry.kid().0).collect();
    assert!(kids.is_sorted() && kids.iter().collect::<HashSet<_>>().len() == kids.len());
    let count = store.count().await.unwrap();
    let rows = |want: fn(&Row) -> bool| {
        let wanted = |entry: &&Entry| matches!(entry, Entry::Row(row) if want(row));
        listed.iter().filter(wanted).count() as u64
    };
    let expected = Count {
        rows: rows(|_| true),
        durable: rows(|row| row.epoch != OWN),
        tombstones: listed.len() as u64 - rows(|_| true),
    };
    assert_eq!(count, expected);
    assert_eq!(store.restore(&listed).await, Ok(0), "all of it is there");
    // A deleted one deletes, a kept one does not bring back.
    let lost = row(400, scope("restored", None), OWN);
    let entries = [
        Entry::Row(lost.clone()),
        Entry::Tombstone(tombstone(300)),
        Entry::Row(row(200, scope("shred", Some("t")), OWN)),
    ];
    assert_eq!(store.restore(&entries).await, Ok(2));
    assert_eq!(store.get(lost.kid).await, Ok(Some(Entry::Row(lost))));
    for number in [200, 300] {
        let found = store.get(kid(number)).await;
        assert!(matches!(found, Ok(Some(Entry::Tombstone(_)))), "{number}");
    }
    // A tombstone from elsewhere whose number is taken here by another.
    let elsewhere = Tombstone {
        was: Some((scope("contact", None), 1)),
        ..tombstone(401)
    };
    assert_eq!(store.restore(&[Entry::Tombstone(elsewhere)]).await, Ok(1));
    let latest = store.latest(&scope("contact", None)).await.unwrap();
    assert_eq!(latest.map(|entry| entry.kid()), Some(kid(108)));
}

async fn one_of_many_wins(store: &Arc<dyn Store>) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 500..520 {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            let row = row(number, scope("raced", None), 1);
            match store.put_if_absent(&row).await.unwrap() {
                Put::Made => (true, row.kid),
                Put::Present(entry) => (false, entry.kid()),
            }
        });
    }
    let ended = tasks.join_all().await;
    let made: Vec<Kid> = ended
        .iter()
        .filter(|(made, _)| *made)
        .map(|(_, kid)| *kid)
        .collect();
    assert_eq!(made.len(), 1);
    assert!(ended.iter().all(|(_, kid)| *kid == made[0]));
}
