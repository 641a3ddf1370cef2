//! So many calls at a time; of those that wait, renewals go first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Who goes first when calls have to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rank {
    /// Keeps what is in use alive.
    Renewal,
    /// Something new; an outsider can ask for much of it.
    First,
}

/// So many at a time; of those who wait, renewals go first.
pub struct Turnstile {
    queues: Mutex<Queues>,
}

struct Queues {
    free: usize,
    urgent: VecDeque<oneshot::Sender<()>>,
    ordinary: VecDeque<oneshot::Sender<()>>,
}

/// A turn; given on when dropped.
pub struct Permit {
    turnstile: Arc<Turnstile>,
}

impl Turnstile {
    /// With so many turns.
    pub fn new(free: usize) -> Arc<Turnstile> {
        Arc::new(Turnstile {
            queues: Mutex::new(Queues {
                free,
                urgent: VecDeque::new(),
                ordinary: VecDeque::new(),
            }),
        })
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub async fn enter(turnstile: &Arc<Turnstile>, rank: Rank) -> Permit {
        let called = {
            let mut queues = turnstile.queues();
            if queues.free > 0 {
                queues.free -= 1;
                None
            } else {
                let (call, called) = oneshot::channel();
                match rank {
                    Rank::Renewal => queues.urgent.push_back(call),
                    Rank::First => queues.ordinary.push_back(call),
                }
                Some(called)
            }
        };
        if let Some(called) = called {
            let mut waiter = Waiter {
                turnstile,
                called,
                done: false,
            };
            // The sender lives in the queue until it sends.
            let _ = (&mut waiter.called).await;
            waiter.done = true;
        }
        Permit {
            turnstile: Arc::clone(turnstile),
        }
    }

    fn leave(&self) {
        let mut queues = self.queues();
        loop {
            let next = queues
                .urgent
                .pop_front()
                .or_else(|| queues.ordinary.pop_front());
            match next {
                // Those who went away meanwhile are passed over.
                Some(call) => {
                    if call.send(()).is_ok() {
                        return;
                    }
                }
                None => {
                    queues.free += 1;
                    return;
                }
            }
        }
    }
}

struct Waiter<'a> {
    turnstile: &'a Turnstile,
    called: oneshot::Receiver<()>,
    done: bool,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.called.close();
        // Called just before it went away: the turn is given on.
        if self.called.try_recv().is_ok() {
            self.turnstile.leave();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.turnstile.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }

    #[test]
    fn renewals_go_first_and_then_by_arrival() {
        let turnstile = Turnstile::new(1);
        let held = poll(pin!(Turnstile::enter(&turnstile, Rank::First))).unwrap();
        let mut first = pin!(Turnstile::enter(&turnstile, Rank::First));
        let mut second = pin!(Turnstile::enter(&turnstile, Rank::First));
        let mut urgent = pin!(Turnstile::enter(&turnstile, Rank::Renewal));
        assert!(poll(first.as_mut()).is_none());
        assert!(poll(second.as_mut()).is_none());
        assert!(poll(urgent.as_mut()).is_none());
        drop(held);
        assert!(poll(first.as_mut()).is_none());
        let held = poll(urgent.as_mut()).unwrap();
        drop(held);
        assert!(poll(second.as_mut()).is_none());
        drop(poll(first.as_mut()).unwrap());
        drop(poll(second.as_mut()).unwrap());
        assert_eq!(turnstile.queues().free, 1);
    }

    #[test]
    fn a_waiter_that_goes_away_loses_no_turn() {
        let turnstile = Turnstile::new(1);
        let held = poll(pin!(Turnstile::enter(&turnstile, Rank::First))).unwrap();
        let mut stays = Box::pin(Turnstile::enter(&turnstile, Rank::First));
        {
            let mut leaves_early = Box::pin(Turnstile::enter(&turnstile, Rank::Renewal));
            assert!(poll(leaves_early.as_mut()).is_none());
        }
        let mut leaves_late = Box::pin(Turnstile::enter(&turnstile, Rank::Renewal));
        assert!(poll(leaves_late.as_mut()).is_none());
        assert!(poll(stays.as_mut()).is_none());
        drop(held);
        // Called, but it goes away before it looks.
        drop(leaves_late);
        drop(poll(stays.as_mut()).expect("the turn was given on"));
        assert_eq!(turnstile.queues().free, 1);
    }
}
