//! The suite on what needs no server: the keyring and the fake.

use super::suite::{Done, Subject, run};
use fieldveil::arena::Arena;
use fieldveil::kms::fake::Fake;
use fieldveil::kms::keyring::Keyring;
use fieldveil::kms::{Failure, Kms, os_random};
use std::time::SystemTime;

struct Local(Keyring);

impl Subject for Local {
    fn kms(&self) -> &dyn Kms {
        &self.0
    }
    fn kek(&self) -> String {
        "cards".into()
    }
    fn other(&self) -> String {
        "identity".into()
    }
    fn missing(&self) -> String {
        "none".into()
    }
    fn row(&self) -> Option<&'static str> {
        Some("`keyring`")
    }
    fn rotate(&self) -> Option<Done<'_>> {
        Some(Box::pin(async {
            self.0.rotate("cards", SystemTime::now()).unwrap();
        }))
    }
    fn disable(&self) -> Option<(Done<'_>, Done<'_>)> {
        None
    }
    fn deny(&self) -> Option<(Done<'_>, Done<'_>)> {
        None
    }
    fn delete(&self) -> Option<(Done<'_>, Failure)> {
        None
    }
}

#[tokio::test]
async fn keyring() {
    let arena = Arena::new().unwrap();
    let made = Keyring::in_memory("local", &["cards", "identity"], arena, os_random());
    run(&Local(made.unwrap())).await;
}

struct Told(Fake);

impl Subject for Told {
    fn kms(&self) -> &dyn Kms {
        &self.0
    }
    fn kek(&self) -> String {
        "cards".into()
    }
    fn other(&self) -> String {
        "identity".into()
    }
    fn missing(&self) -> String {
        "none".into()
    }
    fn row(&self) -> Option<&'static str> {
        None
    }
    fn rotate(&self) -> Option<Done<'_>> {
        Some(Box::pin(async { self.0.rotate("cards") }))
    }
    fn disable(&self) -> Option<(Done<'_>, Done<'_>)> {
        Some((
            Box::pin(async { self.0.fail_kek("cards", Failure::Disabled) }),
            Box::pin(async {
                self.0.recover();
                self.0.fail_kek("none", Failure::NotFound);
            }),
        ))
    }
    fn deny(&self) -> Option<(Done<'_>, Done<'_>)> {
        Some((
            Box::pin(async { self.0.fail_kek("cards", Failure::Denied) }),
            Box::pin(async { self.0.recover() }),
        ))
    }
    fn delete(&self) -> Option<(Done<'_>, Failure)> {
        Some((
            Box::pin(async { self.0.fail_kek("identity", Failure::Destroyed) }),
            Failure::Destroyed,
        ))
    }
}

#[tokio::test]
async fn fake() {
    for fake in [Fake::new("fake"), Fake::without_context("fake")] {
        fake.fail_kek("none", Failure::NotFound);
        run(&Told(fake)).await;
    }
}
