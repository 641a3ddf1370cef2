//! What the road asks of the key room.

use crate::dek::{Needs, Ring};
use crate::entropy;
use crate::error::{Code, Error};
use crate::keys::{Failure as NoKey, Keys, KeysError};
use crate::kms;
use crate::store;
use std::pin::Pin;

/// Where keys come from. One call for each body; the answer is parallel to the needs.
pub trait KeySource: Send + Sync {
    /// Errors: a key that must seal cannot be had. Keys that open and cannot be had are in the ring, each with its reason.
    fn fetch<'k>(
        &'k self,
        needs: &'k Needs,
    ) -> Pin<Box<dyn Future<Output = Result<Ring, Error>> + Send + 'k>>;

    /// As [`KeySource::fetch`], for a further part of a body; `uncached` counts from part to part what was not in memory, where the
    /// source has a budget for that.
    fn fetch_further<'k>(
        &'k self,
        needs: &'k Needs,
        uncached: &'k mut usize,
    ) -> Pin<Box<dyn Future<Output = Result<Ring, Error>> + Send + 'k>> {
        let _ = uncached;
        self.fetch(needs)
    }

    /// Random bytes, for what is sealed under these keys.
    fn random(&self, buffer: &mut [u8]) {
        entropy::fill(buffer);
    }
}

impl KeySource for Keys {
    fn fetch<'k>(
        &'k self,
        needs: &'k Needs,
    ) -> Pin<Box<dyn Future<Output = Result<Ring, Error>> + Send + 'k>> {
        Box::pin(async { Keys::fetch(self, needs).await.map_err(Error::from) })
    }

    fn fetch_further<'k>(
        &'k self,
        needs: &'k Needs,
        uncached: &'k mut usize,
    ) -> Pin<Box<dyn Future<Output = Result<Ring, Error>> + Send + 'k>> {
        Box::pin(async {
            let fetched = Keys::fetch_further(self, needs, uncached).await;
            fetched.map_err(Error::from)
        })
    }
}

/// The note names the key and the reason, both of which are the operator's words.
impl From<KeysError> for Error {
    fn from(error: KeysError) -> Error {
        let code = match error.failure {
            NoKey::Kms(kms::Failure::Unreachable) | NoKey::Crowded | NoKey::Closed => {
                Code::KeysUnreachable
            }
            NoKey::Kms(_) => Code::KeysDenied,
            NoKey::Store(store::Failure::Unreachable) => Code::StoreUnreachable,
            NoKey::Store(_) | NoKey::Durable(_) => Code::StoreRefused,
            NoKey::UnknownKey => Code::KeysMissing,
            NoKey::Newcomers => Code::NewTenants,
            NoKey::TooMany => Code::TooMany,
        };
        code.because(error.to_string())
            .retry_after(error.retry_after)
    }
}
