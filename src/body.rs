//! A message's body on its way through: empty, held whole, streaming, rewritten while it streams, or begun to be held and let go.
//!
//! It never looks into the bytes; what they mean is `transform`'s business. Trailers travel with the body.

mod again;
pub mod arriving;
pub mod coded;
pub mod coding;
pub mod flow;
pub mod held;
pub mod pace;
pub mod records;

pub use arriving::{Arriving, Broken, alike};

use crate::audit::Record;
use crate::upstream::Progress;
use again::Spared;
use bytes::Bytes;
use flow::{Flow, Rewrite};
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::OwnedSemaphorePermit;

/// A body that goes upstream or back to the client.
pub struct Body {
    /// What is at hand, given out first.
    begun: Bytes,
    /// What follows it.
    rest: Rest,
    /// Kept until the body is gone.
    permit: Option<OwnedSemaphorePermit>,
    /// Of an answer that streams: told how that ends.
    record: Option<Record>,
}

enum Rest {
    Trailers(Box<HeaderMap>),
    Stream(Arriving, Progress),
    Flow(Flowing, Progress),
    /// A stream of which what was given out is kept.
    Spared(Box<Spared>),
    Nothing,
}

/// A body that is rewritten while it streams.
type Flowing = Pin<Box<dyn HttpBody<Data = Bytes, Error = Broken> + Send>>;

impl Body {
    /// No bytes and no trailers.
    pub fn empty() -> Body {
        Body {
            begun: Bytes::new(),
            rest: Rest::Nothing,
            permit: None,
            record: None,
        }
    }
    /// Held whole.
    pub fn full(bytes: impl Into<Bytes>) -> Body {
        Body::whole(bytes.into(), None)
    }
    /// Held whole, with its trailers.
    pub fn whole(bytes: Bytes, trailers: Option<HeaderMap>) -> Body {
        let rest = trailers.map_or(Rest::Nothing, |trailers| Rest::Trailers(Box::new(trailers)));
        Body {
            begun: bytes,
            rest,
            permit: None,
            record: None,
        }
    }
    /// Streams through.
    pub fn stream(incoming: Arriving) -> Body {
        Body {
            begun: Bytes::new(),
            rest: Rest::Stream(incoming, Progress::default()),
            permit: None,
            record: None,
        }
    }
    /// What was held of it, then the rest as it comes.
    pub fn resumed(begun: Bytes, rest: Arriving) -> Body {
        Body {
            begun,
            rest: Rest::Stream(rest, Progress::default()),
            permit: None,
            record: None,
        }
    }
    /// Rewritten while it streams.
    pub fn flow<R: Rewrite, B: flow::Incoming>(flow: Flow<R, B>) -> Body {
        Body {
            begun: Bytes::new(),
            rest: Rest::Flow(Box::pin(flow), Progress::default()),
            permit: None,
            record: None,
        }
    }
    /// It is an answer's, and is released with this status: the record is committed, or told how the streaming ends.
    pub fn released(mut self, mut record: Record, status: u16) -> Body {
        let length = self.known_len();
        match self.rest {
            Rest::Stream(..) | Rest::Flow(..) | Rest::Spared(_) if !self.is_end_stream() => {
                record.released(status, length);
                self.record = Some(record);
            }
            _ => record.answered(status, length),
        }
        self
    }
    /// Gives the permit back when the body has been sent, or given up.
    pub fn with(mut self, permit: OwnedSemaphorePermit) -> Body {
        self.permit = Some(permit);
        self
    }
    /// The bytes of a body that is held whole.
    pub fn held(&self) -> Option<&[u8]> {
        match &self.rest {
            Rest::Stream(..) | Rest::Flow(..) | Rest::Spared(_) => None,
            Rest::Trailers(_) | Rest::Nothing => Some(&self.begun),
        }
    }
    /// How far it will have been sent, to be asked for when the body itself is gone.
    pub fn progress(&mut self) -> Progress {
        match &mut self.rest {
            Rest::Stream(incoming, progress) if !incoming.is_end_stream() => {
                *progress = Progress::counting();
                progress.clone()
            }
            Rest::Flow(_, progress) => {
                *progress = Progress::counting();
                progress.clone()
            }
            _ => Progress::default(),
        }
    }
    /// How many data bytes it has, if that is known.
    pub fn known_len(&self) -> Option<u64> {
        match &self.rest {
            Rest::Stream(..) | Rest::Flow(..) | Rest::Spared(_) => self.size_hint().exact(),
            Rest::Trailers(_) | Rest::Nothing => Some(self.begun.len() as u64),
        }
    }
}

impl Body {
    /// Tells the record of an answer, if this frame is its last.
    fn note(&mut self, frame: Option<&Result<Frame<Bytes>, Broken>>) {
        let over = match frame {
            Some(Ok(frame)) => frame.is_trailers() || self.is_end_stream(),
            Some(Err(_)) | None => true,
        };
        if over && let Some(record) = self.record.take() {
            match frame {
                Some(Err(broken)) => record.cut(broken.of_answer().row().into()),
                _ => record.whole(),
            }
        }
    }
}

// No derived Debug: a body is the application's data.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.rest {
            Rest::Stream(..) | Rest::Spared(_) => "Body(streams)",
            Rest::Flow(..) => "Body(flows)",
            Rest::Trailers(_) | Rest::Nothing => "Body(held)",
        })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if !self.begun.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.begun)))));
        }
        let body = &mut *self;
        let (frame, progress) = match &mut body.rest {
            Rest::Stream(incoming, progress) => (Pin::new(incoming).poll_frame(cx), progress),
            Rest::Flow(flow, progress) => (flow.as_mut().poll_frame(cx), progress),
            Rest::Spared(spared) => return spared.poll_frame(cx),
            Rest::Nothing => return Poll::Ready(None),
            Rest::Trailers(_) => {
                return match std::mem::replace(&mut body.rest, Rest::Nothing) {
                    Rest::Trailers(trailers) => Poll::Ready(Some(Ok(Frame::trailers(*trailers)))),
                    _ => Poll::Ready(None),
                };
            }
        };
        match &frame {
            Poll::Ready(Some(Err(Broken::Late))) => progress.stall(),
            Poll::Ready(_) => progress.note(),
            Poll::Pending => {}
        }
        if let (Some(_), Poll::Ready(frame)) = (&body.record, &frame) {
            body.note(frame.as_ref());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.begun.is_empty()
            && match &self.rest {
                Rest::Nothing => true,
                Rest::Trailers(_) => false,
                Rest::Stream(incoming, _) => incoming.is_end_stream(),
                Rest::Flow(flow, _) => flow.is_end_stream(),
                Rest::Spared(spared) => spared.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        let begun = self.begun.len() as u64;
        match &self.rest {
            Rest::Nothing => SizeHint::with_exact(begun),
            // Trailers need chunks, and an exact size would make hyper write a Content-Length.
            Rest::Trailers(_) => {
                let mut hint = SizeHint::new();
                hint.set_lower(begun);
                hint
            }
            // Longer or shorter than what comes in, nobody knows.
            Rest::Flow(..) => {
                let mut hint = SizeHint::new();
                hint.set_lower(begun);
                hint
            }
            Rest::Stream(incoming, _) => behind(begun, &incoming.size_hint()),
            Rest::Spared(spared) => behind(begun, &spared.size_hint()),
        }
    }
}

/// Of so many bytes and what follows them.
fn behind(begun: u64, rest: &SizeHint) -> SizeHint {
    let mut hint = SizeHint::new();
    hint.set_lower(begun.saturating_add(rest.lower()));
    if let Some(upper) = rest.upper() {
        hint.set_upper(begun.saturating_add(upper));
    }
    hint
}
