//! How long a body may take: for its next piece, at its slowest, and as a whole. Time counts while somebody waits for
//! the sender, and not while the other side does not take what came. A request whose answer has begun may rest as long as it
//! likes: the two sides talk with each other.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// The slowest that a body may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bytes for each second of waiting.
    pub bytes_per_second: u64,
    /// How far behind it may fall.
    pub grace: Duration,
}

/// The clock of one body.
#[derive(Debug, Default)]
pub struct Pace {
    piece: Option<Duration>,
    rate: Option<Rate>,
    deadline: Option<Instant>,
    /// Of `rate`: how much longer it may be waited for, as things stand.
    credit: Duration,
    /// Since when, and until when, the next piece is waited for.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    /// Pieces that were there before anybody waited, since the clock was looked at.
    unwaited: u8,
    /// Whether only `deadline` counts still.
    eased: Option<Ease>,
}

/// Tells the clock of a body that the sender may rest.
#[derive(Clone, Debug, Default)]
pub struct Ease(Arc<AtomicBool>);

impl Ease {
    /// From now on, it may.
    pub fn ease(&self) {
        self.0.store(true, Relaxed);
    }
}

/// So many pieces that come without a wait are taken before the clock is looked at again.
const UNWAITED_MAX: u8 = 32;

impl Pace {
    /// `piece`: how long the next piece may take. `deadline`: when the body has to be over.
    pub fn new(piece: Option<Duration>, rate: Option<Rate>, deadline: Instant) -> Pace {
        Pace {
            piece,
            rate,
            deadline: Some(deadline),
            credit: rate.map_or(Duration::ZERO, |rate| rate.grace),
            waiting: None,
            unwaited: 0,
            eased: None,
        }
    }

    /// To be told by.
    pub fn easing(&mut self) -> Ease {
        self.eased.get_or_insert_default().clone()
    }

    /// Nothing is there. Ready when that has taken too long.
    pub fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_alarm(cx));
        // It may have been told since the alarm was set; a second one is set for the deadline.
        let eased = self.eased.as_ref();
        let eased = eased.is_some_and(|eased| eased.0.load(Relaxed));
        if eased && (self.piece.take().is_some() | self.rate.take().is_some()) {
            self.waiting = None;
            return self.poll_alarm(cx);
        }
        Poll::Ready(())
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting.is_none() {
            let now = Instant::now();
            let within = [self.piece, self.rate.map(|_| self.credit)];
            let within = within.into_iter().flatten().min().map(|most| now + most);
            let Some(until) = within.into_iter().chain(self.deadline).min() else {
                return Poll::Pending;
            };
            self.waiting = Some((now, Box::pin(sleep_until(until))));
        }
        match &mut self.waiting {
            Some((_, alarm)) => alarm.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// A piece of so many bytes came. True: the body should be over by now.
    pub fn came(&mut self, bytes: usize) -> bool {
        let now = match self.waiting.take() {
            Some((since, _)) => {
                let now = Instant::now();
                self.credit = self.credit.saturating_sub(now - since);
                Some(now)
            }
            None if self.unwaited >= UNWAITED_MAX => Some(Instant::now()),
            None => None,
        };
        self.unwaited = now.map_or(self.unwaited + 1, |_| 0);
        if let Some(rate) = self.rate {
            let earned = Duration::from_micros(
                (bytes as u64).saturating_mul(1_000_000) / rate.bytes_per_second.max(1),
            );
            self.credit = self.credit.saturating_add(earned).min(rate.grace);
        }
        now.zip(self.deadline)
            .is_some_and(|(now, deadline)| now >= deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::time::{advance, timeout};

    const SECOND: Duration = Duration::from_secs(1);
    const RATE: Rate = Rate {
        bytes_per_second: 100,
        grace: Duration::from_secs(10),
    };

    /// After so long without a piece, it is late.
    #[track_caller]
    fn late_after(pace: &mut Pace, most: Duration) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            let begun = Instant::now();
            let late = timeout(100 * most, poll_fn(|cx| pace.poll_late(cx))).await;
            assert!(late.is_ok(), "{place}: never");
            assert_eq!(begun.elapsed().as_secs(), most.as_secs(), "{place}");
        }
    }

    /// It is waited for, and then so many bytes come.
    async fn comes(pace: &mut Pace, after: Duration, bytes: usize) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(pace.poll_late(&mut cx).is_pending());
        advance(after).await;
        assert!(pace.poll_late(&mut cx).is_pending());
        assert!(!pace.came(bytes));
    }

    fn hour() -> Instant {
        Instant::now() + 3600 * SECOND
    }

    #[tokio::test(start_paused = true)]
    async fn each_piece_has_its_time() {
        let mut pace = Pace::new(Some(5 * SECOND), None, hour());
        for _ in 0..10 {
            comes(&mut pace, 4 * SECOND, 1).await;
        }
        late_after(&mut pace, 5 * SECOND).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_only_drips_is_late_at_last() {
        let mut pace = Pace::new(Some(5 * SECOND), Some(RATE), hour());
        // A quarter of the rate: of each four seconds three are on credit.
        for _ in 0..2 {
            comes(&mut pace, 4 * SECOND, 100).await;
        }
        late_after(&mut pace, 4 * SECOND).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_the_rate_may_go_on_and_saves_no_more_than_the_grace() {
        let mut pace = Pace::new(None, Some(RATE), hour());
        for _ in 0..100 {
            comes(&mut pace, 9 * SECOND, 900).await;
        }
        assert!(!pace.came(1_000_000));
        late_after(&mut pace, 10 * SECOND).await;
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_waits_does_not_count() {
        let mut pace = Pace::new(Some(SECOND), Some(RATE), hour());
        advance(1_000 * SECOND).await;
        assert!(!pace.came(1));
        late_after(&mut pace, SECOND).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_rest_has_the_time_of_the_whole() {
        for before in [true, false] {
            let mut pace = Pace::new(Some(SECOND), Some(RATE), hour());
            let easing = pace.easing();
            comes(&mut pace, SECOND / 2, 1).await;
            if before {
                easing.ease();
            }
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert!(pace.poll_late(&mut cx).is_pending());
            easing.ease();
            for _ in 0..3 {
                comes(&mut pace, 60 * SECOND, 1).await;
            }
            late_after(&mut pace, Duration::from_millis(3_419_500)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_whole_has_its_time_also_if_it_never_stops() {
        let mut pace = Pace::new(None, None, Instant::now() + 9 * SECOND);
        comes(&mut pace, 8 * SECOND, 1).await;
        advance(SECOND).await;
        let pieces = (1..).find(|_| pace.came(1));
        assert_eq!(pieces, Some(usize::from(UNWAITED_MAX) + 1));
        late_after(&mut Pace::new(None, None, Instant::now() + SECOND), SECOND).await;
    }
}
