//! How a KMS has been doing of late: when it is left alone, when it is tried again, whether a failed call may be repeated,
//! and how near it is. Pure: time and luck are arguments.

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
/// With a call's own time, also how long after a KMS is back it may go unnoticed.
const OPEN_MOST: Duration = Duration::from_millis(1_500);
/// Between two calls that find out whether it is back, though the earlier one has not come home: what was sent a moment before it
/// came back may never be answered.
const PROBE_EVERY: Duration = Duration::from_secs(1);
const RETRY_AFTER_MOST: Duration = Duration::from_secs(60);

impl Breaker {
    /// How long no call will be made. None: one may be.
    pub fn wait_at(&self, now: Instant) -> Option<Duration> {
        let left = self.open_until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Whether no call is made but those that find out whether it is back.
    pub fn is_open_at(&self, now: Instant) -> bool {
        self.rounds >= ROUNDS_FREE || self.wait_at(now).is_some()
    }

    /// Whether to call. After a pause one call goes ahead and the others wait for what it brings.
    pub fn admit_at(&mut self, now: Instant) -> Result<(), Duration> {
        if let Some(left) = self.wait_at(now) {
            return Err(left);
        }
        if self.rounds >= ROUNDS_FREE {
            self.open_until = Some(now + PROBE_EVERY);
        }
        Ok(())
    }

    /// A call reached nobody. The pause that follows is at least half as long as it might be, by `luck`: agents that lost a KMS
    /// together do not come back together.
    pub fn unreached(
        &mut self,
        sent: Instant,
        now: Instant,
        retry_after: Option<Duration>,
        luck: u16,
    ) {
        if self.changed.is_some_and(|changed| sent < changed) {
            return;
        }
        self.rounds = self.rounds.saturating_add(1);
        let doublings = self.rounds.saturating_sub(ROUNDS_FREE).min(8);
        let pause = match retry_after {
            Some(asked) => Some(asked.min(RETRY_AFTER_MOST)),
            None if self.rounds < ROUNDS_FREE => None,
            None => {
                let pause = (OPEN_LEAST * (1 << doublings)).min(OPEN_MOST);
                Some(pause / 2 + share(pause / 2, luck))
            }
        };
        self.open_until = pause.map(|pause| now + pause);
        self.changed = Some(now);
    }

    pub fn reached(&mut self) {
        *self = Breaker::default();
    }
}

/// How many failed calls may be repeated: one in ten in the long run, some at once. An outage is not doubled by its retries.
pub struct Budget {
    tenths: u32,
}

const RETRIES_AT_ONCE: u32 = 10;

/// Attempts at one call, the first among them.
pub const ATTEMPTS_MAX: u32 = 3;

const RETRY_PAUSE: Duration = Duration::from_millis(100);

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            tenths: RETRIES_AT_ONCE * 10,
        }
    }
}

impl Budget {
    /// A call was answered.
    pub fn earn(&mut self) {
        self.tenths = (self.tenths + 1).min(RETRIES_AT_ONCE * 10);
    }

    /// Takes one retry, if there is any.
    pub fn spend(&mut self) -> bool {
        match self.tenths.checked_sub(10) {
            Some(left) => {
                self.tenths = left;
                true
            }
            None => false,
        }
    }
}

/// The pause before an attempt, the second being 1: anything up to 100 ms, then up to 200 ms (full jitter).
pub fn retry_pause(attempt: u32, luck: u16) -> Duration {
    share(RETRY_PAUSE * attempt, luck)
}

/// How long its answers take: a mean that forgets, in which a call that was given up counts as long as it lasted.
#[derive(Default)]
pub struct Nearness {
    mean: Option<Duration>,
}

impl Nearness {
    pub fn took(&mut self, time: Duration) {
        self.mean = Some(match self.mean {
            None => time,
            Some(mean) => mean.mul_f64(0.7) + time.mul_f64(0.3),
        });
    }

    /// Given up after this time, since another was quicker.
    pub fn outrun(&mut self, time: Duration) {
        self.mean = Some(self.mean.unwrap_or(time).max(time));
    }

    /// Compared in doublings of a millisecond, so that the order of the settings decides between equals. What was never asked
    /// counts as near, and is known then.
    pub fn rank(&self) -> u32 {
        let millis = self.mean.unwrap_or_default().as_millis();
        u128::BITS - millis.leading_zeros()
    }
}

/// A share of a time, by luck: none of it to all of it.
pub fn share(time: Duration, luck: u16) -> Duration {
    time.mul_f64(f64::from(luck) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_breaker_opens_after_three_rounds_and_probes() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        for round in 0..3 {
            // A whole volley counts once.
            for _ in 0..20 {
                assert_eq!(breaker.admit_at(now), Ok(()), "round {round}");
            }
            let sent = now;
            now += SECOND;
            for _ in 0..20 {
                breaker.unreached(sent, now, None, u16::MAX);
            }
        }
        assert_eq!(breaker.admit_at(now), Err(OPEN_LEAST));
        now += OPEN_LEAST;
        assert!(breaker.is_open_at(now), "also for the probe");
        assert_eq!(breaker.admit_at(now), Ok(()), "the probe");
        assert_eq!(breaker.admit_at(now), Err(PROBE_EVERY), "no other");
        now += PROBE_EVERY;
        assert_eq!(breaker.admit_at(now), Ok(()), "though it is still out");
        for _ in 0..20 {
            let sent = now;
            now += SECOND;
            breaker.unreached(sent, now, None, u16::MAX);
        }
        assert_eq!(breaker.wait_at(now), Some(OPEN_MOST));
        breaker.reached();
        assert!(!breaker.is_open_at(now));
        assert_eq!(breaker.admit_at(now), Ok(()));
        assert_eq!(breaker.admit_at(now), Ok(()));
    }

    #[test]
    fn agents_do_not_come_back_together() {
        let now = Instant::now();
        let pause = |luck| {
            let mut breaker = Breaker::default();
            (0..3).for_each(|_| breaker.unreached(now, now, None, luck));
            breaker.wait_at(now).unwrap()
        };
        assert_eq!(pause(0), OPEN_LEAST / 2);
        assert!(pause(0) < pause(30_000) && pause(30_000) < pause(u16::MAX));
    }

    #[test]
    fn a_kms_that_asks_for_days_is_asked_in_a_minute() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        breaker.unreached(now, now, Some(SECOND * 86_400), 0);
        assert_eq!(breaker.wait_at(now), Some(RETRY_AFTER_MOST));
    }

    #[test]
    fn one_call_in_ten_may_be_repeated() {
        let mut budget = Budget::default();
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10);
        (0..99).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 9);
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10);
    }

    #[test]
    fn near_is_by_doublings_and_forgets() {
        let of = |millis: &[u64]| {
            let mut nearness = Nearness::default();
            for millis in millis {
                nearness.took(Duration::from_millis(*millis));
            }
            nearness
        };
        assert_eq!(of(&[]).rank(), of(&[0]).rank());
        assert_eq!(of(&[5]).rank(), of(&[7]).rank());
        assert!(of(&[5]).rank() < of(&[20]).rank());
        let mut outrun = of(&[5]);
        outrun.outrun(Duration::from_millis(300));
        assert!(outrun.rank() > of(&[20]).rank());
        (0..20).for_each(|_| outrun.took(Duration::from_millis(5)));
        assert_eq!(outrun.rank(), of(&[5]).rank());
    }
}
