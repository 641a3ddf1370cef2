//! The cases that every provider passes, whoever it is: against the real server where there is one.

use fieldveil::dek::{Kid, Scope};
use fieldveil::kms::{Failure, Kms, KmsError};
use fieldveil::token::{ClassHint, Record, Suite, Token, kek_id};
use std::future::Future;
use std::pin::Pin;

pub const DEK: [u8; 32] = [0xA7; 32];

pub fn scope(key: &str, tenant: Option<&str>) -> Scope {
    Scope {
        key: key.into(),
        tenant: tenant.map(Into::into),
    }
}

pub type Done<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A provider with a hand on its server. The KEK is `kek()`, and another one, that may be used too, is `other()`.
pub trait Subject {
    fn kms(&self) -> &dyn Kms;
    fn kek(&self) -> String;
    fn other(&self) -> String;
    /// One that is not there.
    fn missing(&self) -> String;
    /// Its row in the table of lengths in docs/kms.md.
    fn row(&self) -> Option<&'static str>;
    /// A new version of the KEK. None: nobody says that a blob is under an old one.
    fn rotate(&self) -> Option<Done<'_>>;
    /// Switches the KEK off (or the version that made the blobs so far), and on.
    fn disable(&self) -> Option<(Done<'_>, Done<'_>)>;
    /// Takes the right to use the KEK away, and gives it back.
    fn deny(&self) -> Option<(Done<'_>, Done<'_>)>;
    /// Deletes `other()`; what its blobs then meet.
    fn delete(&self) -> Option<(Done<'_>, Failure)>;
}

#[track_caller]
fn check<T>(outcome: Result<T, KmsError>, expected: Failure, case: &str) {
    match outcome {
        Ok(_) => panic!("{case}: it goes well"),
        Err(error) => assert_eq!(error.failure, expected, "{case}: {error}"),
    }
}

async fn opens(subject: &dyn Subject, blob: &[u8], scope: &Scope, case: &str) -> bool {
    let opened = subject.kms().unwrap(&subject.kek(), blob, scope).await;
    let opened = opened.unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(&opened.dek[..], &DEK, "{case}");
    opened.superseded
}

/// Characters of an inline token of an 11-byte string that carries this blob.
fn token_length(uri: &str, blob: &[u8]) -> usize {
    let record = Record::build(&[(kek_id(uri), blob)]).unwrap();
    let token = Token {
        suite: Suite::Xaes256Gcm,
        class: ClassHint([0; 4]),
        kid: Kid([0; 16]),
        record: Some(&record),
        nonce: Some(&[0; 24]),
        // The value with its quotes, and the tag.
        sealed: &[0; 13 + 16],
    };
    token.encode().len()
}

/// All cases, in order; each leaves the server as it found it, but for the last.
pub async fn run(subject: &dyn Subject) {
    let (kms, kek) = (subject.kms(), subject.kek());
    let (plain, tenant) = (scope("cards", None), scope("cards", Some("acme")));

    // Round trips.
    for scope in [&plain, &tenant] {
        let blob = kms.wrap(&kek, &DEK, scope).await.unwrap();
        assert!((1..=2048).contains(&blob.len()), "{}", blob.len());
        assert!(!opens(subject, &blob, scope, "round trip").await);
        let again = kms.wrap(&kek, &DEK, scope).await.unwrap();
        assert_ne!(blob, again, "wrapping is randomised");
        if let Some(row) = subject.row() {
            let characters = token_length(&kms.uri(&kek), &blob);
            let row = format!("| {row} | {} | {characters} |", blob.len());
            assert!(include_str!("../../docs/kms.md").contains(&row), "{row}");
        }
    }
    assert!(kms.uri(&kek).ends_with(&kek) || kms.uri(&kek).contains(':'));
    assert_ne!(kms.uri(&kek), kms.uri(&subject.other()));

    // Another context: another key, another tenant, a tenant where there was none, none where there was one.
    if kms.authenticates_context() {
        for (made, asked) in [
            (&plain, scope("identity", None)),
            (&plain, tenant.clone()),
            (&tenant, plain.clone()),
            (&tenant, scope("cards", Some("other"))),
        ] {
            let blob = kms.wrap(&kek, &DEK, made).await.unwrap();
            let outcome = kms.unwrap(&kek, &blob, &asked).await;
            check(outcome, Failure::Malformed, "another context");
        }
    }

    // Another KEK, and one that is not there.
    let blob = kms.wrap(&kek, &DEK, &plain).await.unwrap();
    let outcome = kms.unwrap(&subject.other(), &blob, &plain).await;
    check(outcome, Failure::Malformed, "another KEK");
    let missing = subject.missing();
    let outcome = kms.wrap(&missing, &DEK, &plain).await;
    check(
        outcome,
        Failure::NotFound,
        "wrap under a KEK that is not there",
    );
    let outcome = kms.unwrap(&missing, &blob, &plain).await;
    check(
        outcome,
        Failure::NotFound,
        "unwrap under a KEK that is not there",
    );

    // Garbage.
    let mut flipped = blob.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut longer = blob.clone();
    longer.push(0);
    for garbage in [
        &flipped[..],
        &longer,
        &blob[..blob.len() - 1],
        &blob[..blob.len() / 2],
        &[],
        &[0],
        &[0, 0, 0, 1],
        &[0xFF; 64],
        &[0x5A; 2048],
    ] {
        let outcome = kms.unwrap(&kek, garbage, &plain).await;
        check(outcome, Failure::Malformed, "garbage");
    }

    // Rotation: old blobs open, and say that they are old.
    if let Some(rotated) = subject.rotate() {
        let before = kms.version(&blob);
        rotated.await;
        assert!(opens(subject, &blob, &plain, "rotated").await, "superseded");
        let fresh = kms.wrap(&kek, &DEK, &plain).await.unwrap();
        // Where a blob tells, it tells them apart.
        assert_eq!(kms.version(&fresh).is_some(), before.is_some());
        assert!(before.is_none() || kms.version(&fresh) != before);
        assert!(!opens(subject, &fresh, &plain, "fresh").await);
    }

    // Switched off, and on again.
    if let Some((off, on)) = subject.disable() {
        off.await;
        let outcome = kms.unwrap(&kek, &blob, &plain).await;
        check(outcome, Failure::Disabled, "disabled");
        on.await;
        opens(subject, &blob, &plain, "enabled").await;
    }

    // The right to use it taken away, and given back.
    if let Some((taken, given)) = subject.deny() {
        taken.await;
        let outcome = kms.unwrap(&kek, &blob, &plain).await;
        check(outcome, Failure::Denied, "denied to unwrap");
        let outcome = kms.wrap(&kek, &DEK, &plain).await;
        check(outcome, Failure::Denied, "denied to wrap");
        given.await;
        opens(subject, &blob, &plain, "allowed again").await;
    }

    // Deleted.
    if let Some((deleted, expected)) = subject.delete() {
        let blob = kms.wrap(&subject.other(), &DEK, &plain).await.unwrap();
        deleted.await;
        let outcome = kms.unwrap(&subject.other(), &blob, &plain).await;
        check(outcome, expected, "deleted");
    }
}
