//! A message's body on its way through: empty, held whole, streaming, or begun to be held and let go.
//!
//! It never looks into the bytes; what they mean is `transform`'s business. Trailers travel with the body.

pub mod arriving;
pub mod coded;
pub mod coding;
pub mod held;
pub mod pace;

pub use arriving::{Arriving, Broken};

use crate::upstream::Progress;
use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::OwnedSemaphorePermit;

/// A body that goes upstream or back to the client.
#[derive(Debug)]
pub struct Body {
    /// What is at hand, given out first.
    begun: Bytes,
    /// What follows it.
    rest: Rest,
    /// Kept until the body is gone.
    permit: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum Rest {
    Trailers(Box<HeaderMap>),
    Stream(Arriving, Progress),
    Nothing,
}

impl Body {
    /// No bytes and no trailers.
    pub fn empty() -> Body {
        Body {
            begun: Bytes::new(),
            rest: Rest::Nothing,
            permit: None,
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
        }
    }
    /// Streams through.
    pub fn stream(incoming: Arriving) -> Body {
        Body {
            begun: Bytes::new(),
            rest: Rest::Stream(incoming, Progress::default()),
            permit: None,
        }
    }
    /// What was held of it, then the rest as it comes.
    pub fn resumed(begun: Bytes, rest: Arriving) -> Body {
        Body {
            begun,
            rest: Rest::Stream(rest, Progress::default()),
            permit: None,
        }
    }
    /// Gives the permit back when the body has been sent, or given up.
    pub fn with(mut self, permit: OwnedSemaphorePermit) -> Body {
        self.permit = Some(permit);
        self
    }
    /// The bytes of a body that is held whole.
    pub fn held(&self) -> Option<&[u8]> {
        match &self.rest {
            Rest::Stream(..) => None,
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
            _ => Progress::default(),
        }
    }
    /// How many data bytes it has, if that is known.
    pub fn known_len(&self) -> Option<u64> {
        match &self.rest {
            Rest::Stream(..) => self.size_hint().exact(),
            Rest::Trailers(_) | Rest::Nothing => Some(self.begun.len() as u64),
        }
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
        match &mut self.rest {
            Rest::Stream(incoming, progress) => {
                let frame = Pin::new(incoming).poll_frame(cx);
                match &frame {
                    Poll::Ready(Some(Err(Broken::Late))) => progress.stall(),
                    Poll::Ready(_) => progress.note(),
                    Poll::Pending => {}
                }
                frame
            }
            Rest::Nothing => Poll::Ready(None),
            Rest::Trailers(_) => match std::mem::replace(&mut self.rest, Rest::Nothing) {
                Rest::Trailers(trailers) => Poll::Ready(Some(Ok(Frame::trailers(*trailers)))),
                _ => Poll::Ready(None),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.begun.is_empty()
            && match &self.rest {
                Rest::Nothing => true,
                Rest::Trailers(_) => false,
                Rest::Stream(incoming, _) => incoming.is_end_stream(),
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
            Rest::Stream(incoming, _) => {
                let rest = incoming.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(begun.saturating_add(rest.lower()));
                if let Some(upper) = rest.upper() {
                    hint.set_upper(begun.saturating_add(upper));
                }
                hint
            }
        }
    }
}
