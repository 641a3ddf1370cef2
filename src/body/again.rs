//! A body that may have to be given out a second time: what was given out of it is kept while that is little, and what was not is
//! handed back by whoever lets go of it.

use super::{Arriving, Body, Broken, Rest};
use crate::upstream::{Again, Progress};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::{Body as _, Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use tokio::sync::Notify;

/// Bytes that are kept of a body that streams. One that is held is kept whole: it takes no memory but for longer.
const KEPT_BYTES_MAX: usize = 32 << 10;

/// What is kept of a request's body until its answer begins.
pub enum Kept {
    /// All of it.
    Whole(Box<Body>),
    /// What was given out; the rest is to come back.
    Given(Arc<Given>),
    /// Nothing: it is rewritten while it streams.
    Nothing,
}

#[derive(Default)]
pub struct Given {
    state: Mutex<State>,
    returned: Notify,
}

#[derive(Default)]
struct State {
    frames: Vec<Bytes>,
    bytes: usize,
    trailers: Option<Box<HeaderMap>>,
    /// Too much was given out, or the body broke.
    lost: bool,
    rest: Option<(Arriving, Progress)>,
}

impl Given {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, frame: &Result<Frame<Bytes>, Broken>) {
        match frame {
            Ok(frame) => {
                if let Some(data) = frame.data_ref() {
                    self.note_data(data.clone());
                }
                if let Some(trailers) = frame.trailers_ref() {
                    self.trailers = Some(Box::new(trailers.clone()));
                }
            }
            Err(_) => self.lose(),
        }
    }

    fn note_data(&mut self, data: Bytes) {
        self.bytes = self.bytes.saturating_add(data.len());
        match self.bytes <= KEPT_BYTES_MAX {
            true => self.frames.push(data),
            false => self.lose(),
        }
    }

    fn lose(&mut self) {
        self.lost = true;
        self.frames = Vec::new();
    }

    /// The body again, if nothing of it is lost.
    fn body(&mut self) -> Option<Body> {
        let (incoming, progress) = self.rest.take().filter(|_| !self.lost)?;
        let mut begun = BytesMut::with_capacity(self.bytes);
        for frame in self.frames.drain(..) {
            begun.extend_from_slice(&frame);
        }
        let rest = match self.trailers.take() {
            Some(trailers) => Rest::Trailers(trailers),
            None => Rest::Stream(incoming, progress),
        };
        Some(Body {
            begun: begun.freeze(),
            rest,
            permit: None,
            record: None,
        })
    }
}

/// A body that streams, and of which what was given out is kept as long as somebody may want it again.
pub struct Spared {
    /// Until it is handed back.
    stream: Option<(Arriving, Progress)>,
    given: Weak<Given>,
}

impl Spared {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some((incoming, progress)) = &mut self.stream else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
        match &frame {
            Some(Err(Broken::Late)) => progress.stall(),
            _ => progress.note(),
        }
        if let (Some(frame), Some(given)) = (&frame, self.given.upgrade()) {
            given.state().note(frame);
        }
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let stream = self.stream.as_ref();
        stream.is_none_or(|(incoming, _)| incoming.is_end_stream())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let stream = self.stream.as_ref();
        stream.map_or_else(SizeHint::default, |(incoming, _)| incoming.size_hint())
    }
}

impl Drop for Spared {
    fn drop(&mut self) {
        if let Some(given) = self.given.upgrade() {
            given.state().rest = self.stream.take();
            given.returned.notify_one();
        }
    }
}

impl Again for Body {
    type Kept = Kept;

    fn keep(&mut self) -> Kept {
        let rest = match std::mem::replace(&mut self.rest, Rest::Nothing) {
            Rest::Stream(incoming, progress) if self.begun.len() <= KEPT_BYTES_MAX => {
                let given = Arc::new(Given::default());
                given.state().note_data(self.begun.clone());
                self.rest = Rest::Spared(Box::new(Spared {
                    stream: Some((incoming, progress)),
                    given: Arc::downgrade(&given),
                }));
                return Kept::Given(given);
            }
            whole @ (Rest::Trailers(_) | Rest::Nothing) => whole,
            other => {
                self.rest = other;
                return Kept::Nothing;
            }
        };
        let copy = match &rest {
            Rest::Trailers(trailers) => Rest::Trailers(trailers.clone()),
            _ => Rest::Nothing,
        };
        self.rest = rest;
        Kept::Whole(Box::new(Body {
            begun: self.begun.clone(),
            rest: copy,
            permit: None,
            record: None,
        }))
    }

    async fn again(kept: Kept) -> Option<Body> {
        match kept {
            Kept::Whole(body) => Some(*body),
            Kept::Given(given) => {
                given.returned.notified().await;
                given.state().body()
            }
            Kept::Nothing => None,
        }
    }
}
