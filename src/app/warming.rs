//! Asks for each key once, before anybody needs it: the first request does not wait, and `/readyz` tells that the KMS
//! has answered.

use crate::admin::Readiness;
use crate::dek::{Needs, Scope, SealNeed, Suite};
use crate::keys::{Failure, Keys};
use crate::kms;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Asks for the data key of this key name, without a tenant, until there is one. The check fails from now on, whenever
/// the asking begins.
pub fn warm(keys: Keys, key: Arc<str>, readiness: Arc<Readiness>) -> impl Future<Output = ()> {
    let check: Arc<str> = format!("keys:{key}").into();
    readiness.block(Arc::clone(&check), "the KMS has not answered yet");
    ask(keys, key, check, readiness)
}

async fn ask(keys: Keys, key: Arc<str>, check: Arc<str>, readiness: Arc<Readiness>) {
    let scope = Scope {
        key: Arc::clone(&key),
        tenant: None,
    };
    let needs = Needs {
        sealing: vec![SealNeed {
            scope,
            suite: Suite::Xaes256Gcm,
            values: 0,
        }],
        opening: Vec::new(),
    };
    let mut pause = PAUSE_MIN;
    loop {
        match keys.fetch(&needs).await {
            Ok(_) => return readiness.pass(check),
            Err(error) => {
                tracing::debug!(
                    key = &*key,
                    why = error.failure.word(),
                    "the key is not warm yet"
                );
                readiness.block(Arc::clone(&check), why(error.failure));
                sleep(error.retry_after.unwrap_or(pause).clamp(pause, PAUSE_MAX)).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

fn why(failure: Failure) -> &'static str {
    match failure {
        Failure::Kms(kms::Failure::Unreachable) => "the KMS does not answer",
        Failure::Kms(kms::Failure::Denied) => "the KMS denies the key to this agent",
        Failure::Kms(kms::Failure::Disabled) => "the KMS has disabled the key",
        Failure::Kms(kms::Failure::Destroyed) => "the KMS has destroyed the key",
        Failure::Kms(kms::Failure::NotFound) => "the KMS does not know the key",
        Failure::Store(_) => "the store does not answer",
        Failure::Kms(kms::Failure::Malformed) => "the KMS's answer makes no sense",
        _ => "there is no data key",
    }
}
