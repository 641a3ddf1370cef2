//! When a KMS that does not answer is left alone, and when it is tried again. Pure: time is an argument.

use std::time::Duration;
use tokio::time::Instant;

/// After some calls that reached nobody, the next are answered here, at once, for a while.
#[derive(Default)]
pub struct Breaker {
    rounds: u32,
    /// Calls sent before the last change say nothing new.
    changed: Option<Instant>,
    open_until: Option<Instant>,
}

/// Isolated failures are no outage.
const ROUNDS_FREE: u32 = 3;
const OPEN_LEAST: Duration = Duration::from_millis(500);
/// Also how long after a KMS is back it may go unnoticed.
const OPEN_MOST: Duration = Duration::from_secs(5);
const RETRY_AFTER_MOST: Duration = Duration::from_secs(60);

impl Breaker {
    pub fn wait_at(&self, now: Instant) -> Option<Duration> {
        let left = self.open_until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Whether to call. After a pause one call goes ahead and the others wait for what it brings.
    pub fn admit_at(&mut self, now: Instant, deadline: Duration) -> Result<(), Duration> {
        if let Some(left) = self.wait_at(now) {
            return Err(left);
        }
        if self.rounds >= ROUNDS_FREE {
            self.open_until = Some(now + deadline);
        }
        Ok(())
    }

    pub fn unreached(&mut self, sent: Instant, now: Instant, retry_after: Option<Duration>) {
        if self.changed.is_some_and(|changed| sent < changed) {
            return;
        }
        self.rounds = self.rounds.saturating_add(1);
        let doublings = self.rounds.saturating_sub(ROUNDS_FREE).min(8);
        let pause = match retry_after {
            Some(asked) => Some(asked.min(RETRY_AFTER_MOST)),
            None if self.rounds < ROUNDS_FREE => None,
            None => Some((OPEN_LEAST * (1 << doublings)).min(OPEN_MOST)),
        };
        self.open_until = pause.map(|pause| now + pause);
        self.changed = Some(now);
    }

    pub fn reached(&mut self) {
        *self = Breaker::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_breaker_opens_after_three_rounds_and_probes_with_one() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        for round in 0..3 {
            // A whole volley counts once.
            for _ in 0..20 {
                assert_eq!(breaker.admit_at(now, SECOND), Ok(()), "round {round}");
            }
            let sent = now;
            now += SECOND;
            for _ in 0..20 {
                breaker.unreached(sent, now, None);
            }
        }
        assert_eq!(breaker.admit_at(now, SECOND), Err(OPEN_LEAST));
        now += OPEN_LEAST;
        assert_eq!(breaker.admit_at(now, SECOND), Ok(()), "the probe");
        assert_eq!(breaker.admit_at(now, SECOND), Err(SECOND), "no other");
        for _ in 0..20 {
            let sent = now;
            now += SECOND;
            breaker.unreached(sent, now, None);
        }
        assert_eq!(breaker.wait_at(now), Some(OPEN_MOST));
        breaker.reached();
        assert_eq!(breaker.admit_at(now, SECOND), Ok(()));
        assert_eq!(breaker.admit_at(now, SECOND), Ok(()));
    }

    #[test]
    fn a_kms_that_asks_for_days_is_asked_in_a_minute() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        breaker.unreached(now, now, Some(SECOND * 86_400));
        assert_eq!(breaker.wait_at(now), Some(RETRY_AFTER_MOST));
    }
}
