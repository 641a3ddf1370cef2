//! A signal to a connection's task. To wait for it beside all else that the task does costs next to nothing: tokio's own
//! receiver takes a lock that all connections share at every poll, and a connection's task is polled several times
//! for each request.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tokio::sync::watch;

/// Rings when the signal turns true, or when nobody is left to send it.
pub(super) struct Bell {
    signal: watch::Receiver<bool>,
    ringing: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The task is on the signal's list, and stays on it until the signal changes.
    listed: bool,
}

impl Bell {
    pub(super) fn new(signal: watch::Receiver<bool>) -> Bell {
        let mut listed = signal.clone();
        Bell {
            signal,
            ringing: Box::pin(async move {
                let _ = listed.wait_for(|on| *on).await;
            }),
            listed: false,
        }
    }

    /// Another one of the same signal, whether or not this one has rung.
    pub(super) fn another(&self) -> Bell {
        Bell::new(self.signal.clone())
    }

    /// To be polled by one and the same task, and no more when it has rung.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.listed && matches!(self.signal.has_changed(), Ok(false)) {
            return Poll::Pending;
        }
        self.listed = true;
        self.ringing.as_mut().poll(cx)
    }

    /// What comes of `work`, unless it rings first.
    pub(super) async fn unless<W: Future>(&mut self, work: W) -> Option<W::Output> {
        let mut work = pin!(work);
        poll_fn(|cx| match self.poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => work.as_mut().poll(cx).map(Some),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn it_wakes_whoever_polled_it_once_or_often() {
        for polls in [1, 2, 100] {
            let (ring, signal) = watch::channel(false);
            let woken = Arc::new(Woken::default());
            let waker = Waker::from(woken.clone());
            let mut cx = Context::from_waker(&waker);
            let mut bell = Bell::new(signal);
            for _ in 0..polls {
                assert!(bell.poll(&mut cx).is_pending());
            }
            assert_eq!(woken.0.load(SeqCst), 0);
            ring.send_replace(false);
            assert!(bell.poll(&mut cx).is_pending(), "told, but not to end");
            ring.send_replace(true);
            assert!(woken.0.load(SeqCst) > 0, "{polls} polls");
            assert!(bell.poll(&mut cx).is_ready());
        }
    }

    #[tokio::test]
    async fn it_has_rung_before_it_is_asked_or_when_nobody_is_left_to_ring() {
        let (ring, signal) = watch::channel(false);
        assert_eq!(Bell::new(signal.clone()).unless(async { 7 }).await, Some(7));
        let mut late = Bell::new(signal.clone());
        ring.send_replace(true);
        assert_eq!(late.unless(async { 7 }).await, None);
        assert_eq!(Bell::new(signal).unless(async { 7 }).await, None);
        let (ring, signal) = watch::channel(false);
        let mut deserted = Bell::new(signal);
        drop(ring);
        assert_eq!(deserted.unless(std::future::pending::<()>()).await, None);
    }
}
