//! A body as it comes off a connection, of either version: cut off visibly where hyper would take a cut for an end, and
//! given up on where the client does not go on.
//!
//! Over HTTP/1.1 the listener's door sees both for itself. Over HTTP/2 the bytes of all streams share a connection, so
//! it is here that a stream's own end and pace show.

use super::pace::Pace;
use crate::error::Code;
use crate::upstream::Place;
use bytes::Bytes;
use http::HeaderName;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{fmt, mem};

/// Why a body ends before its end.
#[derive(Debug)]
pub enum Broken {
    /// The connection, its framing, or the other side's word for it.
    Transport(hyper::Error),
    /// It did not come in time.
    Late,
    /// The stream was reset with NO_ERROR before its END_STREAM. hyper takes that for an end; a part is not the whole.
    Cut,
    /// This agent ended it, since it could not be rewritten further; why is in the access's record.
    Refused,
}

impl Broken {
    /// Of an answer's body, for records.
    pub fn of_answer(&self) -> Code {
        match self {
            Broken::Transport(_) | Broken::Cut => Code::UpstreamBroken,
            Broken::Late => Code::UpstreamTimeout,
            Broken::Refused => Code::UpstreamRefused,
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Broken::Transport(_) => "the body broke off",
            Broken::Late => "the body did not go on in time",
            Broken::Cut => "the stream was reset before its end",
            Broken::Refused => "the body could not be rewritten further",
        })
    }
}

impl std::error::Error for Broken {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Broken::Transport(error) => Some(error),
            Broken::Late | Broken::Cut | Broken::Refused => None,
        }
    }
}

/// A request's or an answer's body as hyper hands it over, or one that is at hand already.
pub struct Arriving {
    incoming: Source,
    /// It has a stream of its own: HTTP/2.
    streams: bool,
    pace: Option<Pace>,
    /// Trailer fields that end here.
    withheld: Vec<HeaderName>,
    /// Of an answer: given back when it is over.
    _place: Option<Place>,
}

enum Source {
    Wire(Incoming),
    /// All of it, without trailers.
    AtHand(Bytes),
}

impl Arriving {
    /// `version`: of the message that it belongs to.
    pub fn new(incoming: Incoming, version: http::Version) -> Arriving {
        Arriving {
            incoming: Source::Wire(incoming),
            streams: version == http::Version::HTTP_2,
            pace: None,
            withheld: Vec::new(),
            _place: None,
        }
    }

    /// A body that came from no connection.
    pub fn at_hand(bytes: Bytes) -> Arriving {
        Arriving {
            incoming: Source::AtHand(bytes),
            streams: false,
            pace: None,
            withheld: Vec::new(),
            _place: None,
        }
    }

    /// Leaves these fields, and what is [alike], out of the trailers: what is sealed in a head must not follow in clear behind the body.
    pub fn without_trailers(mut self, names: Vec<HeaderName>) -> Arriving {
        self.withheld = names;
        self
    }

    /// It has this place on its connection.
    pub fn on(mut self, place: Option<Place>) -> Arriving {
        self._place = place;
        self
    }

    /// Gives up ([`Broken::Late`]) when it takes longer than that.
    pub fn paced(mut self, pace: Pace) -> Arriving {
        self.pace = Some(pace);
        self
    }
}

impl Source {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self {
            Source::Wire(incoming) => Pin::new(incoming).poll_frame(cx),
            Source::AtHand(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::AtHand(bytes) => Poll::Ready(Some(Ok(Frame::data(mem::take(bytes))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Source::Wire(incoming) => incoming.is_end_stream(),
            Source::AtHand(bytes) => bytes.is_empty(),
        }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let body = &mut *self;
        let Poll::Ready(frame) = body.incoming.poll_frame(cx) else {
            if let Some(pace) = &mut body.pace {
                ready!(pace.poll_late(cx));
                body.pace = None;
                return Poll::Ready(Some(Err(Broken::Late)));
            }
            return Poll::Pending;
        };
        if let (Some(pace), Some(Ok(frame))) = (&mut body.pace, &frame)
            && pace.came(frame.data_ref().map_or(0, Bytes::len))
        {
            body.pace = None;
            return Poll::Ready(Some(Err(Broken::Late)));
        }
        Poll::Ready(match frame {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    let is_withheld = |name: &&HeaderName| {
                        body.withheld
                            .iter()
                            .any(|one| alike(one.as_str(), name.as_str()))
                    };
                    let withheld: Vec<_> = trailers.keys().filter(is_withheld).cloned().collect();
                    for name in withheld {
                        trailers.remove(name);
                    }
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(Broken::Transport(error))),
            None if body.streams && !body.incoming.is_end_stream() => {
                body.streams = false;
                Some(Err(Broken::Cut))
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        match &self.incoming {
            Source::Wire(incoming) => incoming.size_hint(),
            Source::AtHand(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

impl fmt::Debug for Arriving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Arriving")
    }
}

/// Whether two names of fields are one to some servers, which take `_` for `-` (CGI, WSGI). Both in lower case.
pub fn alike(one: &str, other: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    one.len() == other.len() && one.bytes().map(plain).eq(other.bytes().map(plain))
}
