//! Policies and the keys behind them, without a listener: for commands that seal and open what is not traffic.

use super::providers::Building;
use super::{Given, StartError, prepare, stores};
use crate::arena::Arena;
use crate::keys::{self, Keys};
use crate::kms::os_random;
use crate::policy::Policies;
use crate::settings::Settings;

/// What a command needs to seal and to open.
pub struct KeyRoom {
    /// Those of the settings.
    pub policies: Policies,
    /// Of every key that they name.
    pub keys: Keys,
}

impl KeyRoom {
    /// Reads policies and keys; the KMS is not asked for anything yet.
    ///
    /// # Errors
    /// What is wrong with settings, policies or keys.
    pub async fn open(settings: Settings, given: Given) -> Result<KeyRoom, StartError> {
        // Files and passphrases, off the async threads.
        let read = tokio::task::spawn_blocking(move || {
            let mut given = given;
            let policies = match given.policies.take() {
                Some(policies) => policies,
                None => prepare::load(&settings)?,
            };
            let arena =
                Arena::new().map_err(|error| StartError::System("no memory for keys", error))?;
            let random = os_random();
            stores::check_store(&settings, &policies)?;
            let named = settings.keys_for(&policies.keys())?;
            // What runs for a moment reads no certificate twice.
            let mut building = Building {
                arena: &arena,
                random: &random,
                certificates: &mut Vec::new(),
            };
            let bound = prepare::bound(&settings, &named, &given, &mut building)?;
            let mut room = keys::Settings::new(bound, arena, random);
            room.keys_per_body_max = settings.limits.keys_per_body;
            if let Some(store) = &settings.store {
                room.store = Some(stores::open(store)?);
                room.store_deadline = store.deadline;
            }
            Ok::<_, StartError>((policies, room))
        });
        let (policies, room) = read
            .await
            .map_err(|error| StartError::System("the start was cut off", error.into()))??;
        let keys = Keys::new(room).map_err(|error| {
            let hint = "correct `keys` in the settings".to_owned();
            StartError::Settings(error.to_string(), hint)
        })?;
        Ok(KeyRoom { policies, keys })
    }
}
