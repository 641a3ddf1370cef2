//! The pace at which tenants that were not here yet get keys.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How many tenants that have no DEK may get one: so many a second, and some at once, for an agent that has just started.
pub struct Newcomers {
    per_second: u32,
    state: Mutex<(f64, Option<Instant>)>,
}

/// What may come at once, in seconds' worth.
const AT_ONCE_SECONDS: u32 = 20;

impl Newcomers {
    pub fn new(per_second: u32) -> Newcomers {
        Newcomers {
            per_second: per_second.max(1),
            state: Mutex::new((f64::from(per_second.max(1) * AT_ONCE_SECONDS), None)),
        }
    }

    /// Errors: not before this time has passed.
    pub fn admit_at(&self, now: Instant) -> Result<(), Duration> {
        let rate = f64::from(self.per_second);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = &mut *state;
        let passed = since.map_or(0.0, |since| (now - since).as_secs_f64());
        *left = (*left + passed * rate).min(rate * f64::from(AT_ONCE_SECONDS));
        *since = Some(now);
        if *left >= 1.0 {
            *left -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f64((1.0 - *left) / rate))
        }
    }
}
