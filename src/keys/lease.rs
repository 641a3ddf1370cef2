//! How long a plaintext DEK may stay in memory without the KMS agreeing again. Pure: time and luck are arguments.

use std::time::Duration;
use tokio::time::Instant;

/// The three clocks of a key and its budget (DESIGN: lease, rotate, grace; retention is the KEK's).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// How long a DEK stays without the KMS agreeing again.
    pub lease: Duration,
    /// How long a DEK may seal.
    pub rotate: Duration,
    /// How much longer than the lease when the KMS cannot be reached.
    pub grace: Duration,
    /// How many values a DEK may seal.
    pub uses_max: u64,
}

impl Terms {
    /// Between two attempts of which the first failed, unless the KMS asked for something else.
    fn pause(&self, retry_after: Option<Duration>) -> Duration {
        let (least, most) = (Duration::from_millis(50), Duration::from_secs(30));
        retry_after
            .unwrap_or(self.lease / 20)
            .clamp(least.min(self.lease), most)
    }

    /// From what age on a successor is made ready: early enough for a whole lease and grace of attempts, but not
    /// before half the time.
    pub fn succession(&self) -> Duration {
        let ahead = (self.rotate / 10).max(self.lease + self.grace);
        self.rotate - ahead.min(self.rotate / 2)
    }
}

/// The standing of one DEK with the KMS.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    ends: Instant,
    grace_ends: Instant,
    next_attempt: Instant,
    /// The last attempt to renew found nobody.
    unreachable: bool,
    /// An attempt that began within the lease has no answer yet.
    asking: bool,
}

impl Lease {
    /// The KMS agreed to a call sent at `sent`: counted from there, since it may have changed its mind right after.
    /// The next attempt is at 70 to 90 % of the lease, by `luck`.
    pub fn granted(sent: Instant, terms: &Terms, luck: u16) -> Lease {
        let ends = sent + terms.lease;
        let share = 0.7 + 0.2 * f64::from(luck) / f64::from(u16::MAX);
        Lease {
            ends,
            grace_ends: ends + terms.grace,
            next_attempt: sent + terms.lease.mul_f64(share),
            unreachable: false,
            asking: false,
        }
    }

    /// Whether the DEK may be used: in its lease, or in its grace if the KMS was asked and could not be reached. One that was asked in
    /// time and is silent at the lease's end has not been reached so far: a call's deadline is no time that requests should wait.
    pub fn is_usable_at(&self, now: Instant) -> bool {
        now < self.ends || ((self.unreachable || self.asking) && now < self.grace_ends)
    }

    /// The KMS is being asked from now on, until [`Lease::asked`].
    pub fn asks(&mut self, now: Instant) {
        self.asking = now < self.ends;
    }

    /// The asking is over, whatever came of it.
    pub fn asked(&mut self) {
        self.asking = false;
    }

    /// Whether even an unreachable KMS would not help any more.
    pub fn is_over_at(&self, now: Instant) -> bool {
        now >= self.grace_ends
    }

    /// Whether it is time to ask the KMS again.
    pub fn is_due_at(&self, now: Instant) -> bool {
        now >= self.next_attempt
    }

    /// Whether the last attempt found nobody: then it is tried again whether the DEK is in use or not.
    pub fn is_unreached(&self) -> bool {
        self.unreachable
    }

    /// Asked, and nobody there.
    pub fn unreached(&mut self, now: Instant, terms: &Terms, retry_after: Option<Duration>) {
        self.unreachable = true;
        self.next_attempt = now + terms.pause(retry_after);
    }

    /// Asked, and the answer made no sense: it lives to the end of its lease, without grace.
    pub fn doubted(&mut self, now: Instant, terms: &Terms) {
        self.unreachable = false;
        self.next_attempt = now + terms.pause(None);
    }

    /// How long it lasts from now if the KMS is gone.
    pub fn survives_at(&self, now: Instant) -> Duration {
        self.grace_ends.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms {
        lease: Duration::from_secs(600),
        rotate: Duration::from_secs(86_400),
        grace: Duration::from_secs(900),
        uses_max: 1 << 48,
    };

    #[test]
    fn a_lease_ends_to_the_nanosecond() {
        let start = Instant::now();
        let mut lease = Lease::granted(start, &TERMS, 0);
        let end = start + TERMS.lease;
        let tick = Duration::from_nanos(1);
        assert!(lease.is_usable_at(end - tick));
        assert!(!lease.is_usable_at(end), "no grace without an attempt");
        lease.unreached(end - tick, &TERMS, None);
        assert!(lease.is_usable_at(end));
        assert!(lease.is_usable_at(end + TERMS.grace - tick));
        assert!(!lease.is_usable_at(end + TERMS.grace));
        assert!(lease.is_over_at(end + TERMS.grace));
        lease.doubted(end, &TERMS);
        assert!(!lease.is_usable_at(end));
    }

    #[test]
    fn who_was_asked_in_time_and_is_silent_was_not_reached() {
        let start = Instant::now();
        let mut lease = Lease::granted(start, &TERMS, 0);
        let end = start + TERMS.lease;
        lease.asks(end - Duration::from_nanos(1));
        assert!(lease.is_usable_at(end));
        assert!(!lease.is_usable_at(end + TERMS.grace), "and no longer");
        lease.asked();
        assert!(!lease.is_usable_at(end));
        lease.asks(end);
        assert!(!lease.is_usable_at(end), "not in time");
    }

    #[test]
    fn attempts_fall_between_seven_and_nine_tenths() {
        let start = Instant::now();
        for luck in [0, 1, 30_000, u16::MAX] {
            let lease = Lease::granted(start, &TERMS, luck);
            assert!(!lease.is_due_at(start + TERMS.lease * 69 / 100), "{luck}");
            assert!(lease.is_due_at(start + TERMS.lease * 91 / 100), "{luck}");
        }
    }

    #[test]
    fn many_failures_never_move_the_end() {
        let start = Instant::now();
        let mut lease = Lease::granted(start, &TERMS, 0);
        for second in 0..1_500 {
            let now = start + Duration::from_secs(second);
            lease.unreached(now, &TERMS, Some(Duration::from_secs(3_600)));
            assert!(lease.is_due_at(now + Duration::from_secs(30)));
        }
        assert!(!lease.is_usable_at(start + TERMS.lease + TERMS.grace));
    }

    #[track_caller]
    fn check_succession(rotate_s: u64, expect_s: u64) {
        let terms = Terms {
            rotate: Duration::from_secs(rotate_s),
            ..TERMS
        };
        assert_eq!(terms.succession(), Duration::from_secs(expect_s));
    }

    #[test]
    fn succession_leaves_time_for_an_outage() {
        check_succession(86_400, 86_400 - 8_640);
        check_succession(10_000, 10_000 - 1_500);
        check_succession(1_000, 500);
    }
}
