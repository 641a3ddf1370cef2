//! The stores that need nothing but a file: what they keep, among themselves and when a process is killed.

mod store_conformance;

use fieldveil::store::embedded::Embedded;
use fieldveil::store::fake::Fake;
use fieldveil::store::{Failure, OWN, Put, Store};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use store_conformance::{all, conforms, kid, row, scope};

/// Names the file that a process of this test writes to until it is killed.
const VICTIM: &str = "FIELDVEIL_TEST_STORE_VICTIM";

#[tokio::test]
async fn the_fake_conforms() {
    let store: Arc<dyn Store> = Arc::new(Fake::new());
    conforms(&store).await;
}

#[tokio::test]
async fn the_file_conforms_and_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store: Arc<dyn Store> = Arc::new(Embedded::create(&path).unwrap());
    conforms(&store).await;
    let listed = all(&store, 1_000).await;
    drop(store);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let store: Arc<dyn Store> = Arc::new(Embedded::open(&path).unwrap());
    assert_eq!(all(&store, 1_000).await, listed);
}

#[tokio::test]
async fn what_is_no_store_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let failure = |opened: Result<Embedded, _>| opened.map(|_| ()).map_err(failure_of);
    assert_eq!(failure(Embedded::open(&path)), Err(Failure::Refused));
    let nowhere = dir.path().join("none/store");
    assert_eq!(failure(Embedded::create(&nowhere)), Err(Failure::Refused));
    for junk in [&b"no store"[..], &[0; 100_000]] {
        std::fs::write(&path, junk).unwrap();
        assert_eq!(failure(Embedded::open(&path)), Err(Failure::Malformed));
        assert_eq!(failure(Embedded::create(&path)), Err(Failure::Refused));
        assert_eq!(std::fs::read(&path).unwrap(), junk, "nothing was touched");
    }
}

fn failure_of(error: fieldveil::store::StoreError) -> Failure {
    error.failure
}

/// Writes until it is killed.
async fn write_on(path: &std::path::Path) {
    let store = Embedded::open(path).unwrap();
    let first = store.count().await.unwrap().rows as u32;
    for number in first.. {
        let row = row(number, scope("cards", None), OWN);
        assert_eq!(store.put_if_absent(&row).await, Ok(Put::Made));
        // What was confirmed is to be there.
        println!("\nconfirmed {number}");
    }
}

#[tokio::test]
async fn what_was_confirmed_survives_a_kill() {
    if let Some(path) = std::env::var_os(VICTIM) {
        return write_on(path.as_ref()).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    // Open all the while, as a command has it open beside an agent.
    let beside = Embedded::create(&path).unwrap();
    for round in 0..5 {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "what_was_confirmed_survives_a_kill",
                "--nocapture",
            ])
            .env(VICTIM, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let confirmed = lines.map_while(Result::ok).filter_map(|line| {
            let number = line.strip_prefix("confirmed ")?;
            Some(number.parse::<u32>().unwrap())
        });
        // Killed in the middle of the next write.
        let last = confirmed.take(20).last().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        for number in 0..=last {
            let found = beside.get(kid(number)).await.unwrap();
            assert!(found.is_some(), "{number} of {last} in round {round}");
        }
        let again = Embedded::open(&path).unwrap();
        assert!(again.count().await.unwrap().rows > u64::from(last));
    }
}
