//! A request that is sent once more, since the one before did nothing.
//!
//! An upstream of HTTP/2 may say so (RFC 9113 section 8.7): it took the stream back, or ended the connection and named an earlier stream as
//! the last that it took. nginx does the latter after every thousand requests, whatever else is on its way; without this, those would fail.
//! Over HTTP/1.1 a connection that ends without an answer says nothing, and what is sent again is what has no effects: safe methods
//! (RFC 9110 sections 9.2.1 and 9.2.2).

use crate::error::{Code, Error};
use h2::Reason;
use http::{HeaderMap, Method, Request, Uri};
use std::error::Error as StdError;

/// How often a request is sent again.
pub(super) const REPEATS_MAX: usize = 2;

/// Why there is no answer.
pub(super) struct Failure {
    pub(super) error: Error,
    /// What the upstream did with the request.
    taken: Taken,
}

enum Taken {
    /// Nothing, as it says.
    No,
    /// The connection ended without a word.
    Untold,
    /// Something, or there is no use in asking again.
    Perhaps,
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure {
            error: error.into(),
            taken: Taken::Perhaps,
        }
    }
}

impl Failure {
    /// Of an exchange on a connection. The note says which step failed, and no more.
    pub(super) fn of(cause: &hyper::Error) -> Failure {
        // Of the two sides it was the client's that failed.
        if cause.is_user() {
            return Error::from(Code::BodyBroken).closing().into();
        }
        if is_untaken(cause) {
            return Failure {
                error: Code::UpstreamUntaken.into(),
                taken: Taken::No,
            };
        }
        let closed = cause.is_incomplete_message() || cause.is_closed() || cause.is_canceled();
        let (note, taken) = if cause.is_parse() {
            ("the answer is not HTTP", Taken::Perhaps)
        } else if closed {
            ("closed before the answer's head", Taken::Untold)
        } else if is_io(cause) {
            ("the connection failed", Taken::Untold)
        } else {
            ("the stream failed", Taken::Perhaps)
        };
        Failure {
            error: Code::UpstreamBroken.because(note),
            taken,
        }
    }
}

/// Whether the upstream says that it did nothing with the request.
fn is_untaken(error: &hyper::Error) -> bool {
    let error = error.source();
    let error = error.and_then(|error| error.downcast_ref::<h2::Error>());
    error.is_some_and(|error| {
        // A GOAWAY is the error of those streams alone that are later than the last one that it names.
        let left = error.is_go_away() && error.reason() == Some(Reason::NO_ERROR);
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        error.is_remote() && (left || refused)
    })
}

/// Whether it is the connection's failure: a reset, a broken pipe.
fn is_io(error: &hyper::Error) -> bool {
    error.source().is_some_and(|error| {
        let multiplexed = error.downcast_ref::<h2::Error>();
        error.is::<std::io::Error>() || multiplexed.is_some_and(h2::Error::is_io)
    })
}

/// A body that can be given out again from its beginning.
pub trait Again: Sized {
    /// What is kept of it meanwhile.
    type Kept: Send;
    /// To be called before any of it was given out.
    fn keep(&mut self) -> Self::Kept;
    /// The same body, once whoever was sending it has let go of it. None: too much of it was given out.
    fn again(kept: Self::Kept) -> impl Future<Output = Option<Self>> + Send;
}

impl<D> Again for http_body_util::Empty<D> {
    type Kept = ();
    fn keep(&mut self) {}
    async fn again((): ()) -> Option<Self> {
        Some(http_body_util::Empty::new())
    }
}

/// What it takes to make a request again that was sent.
pub(super) struct Spare<B: Again> {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: B::Kept,
}

impl<B: Again> Spare<B> {
    /// Of a request that is about to be sent. Boxed: most are not needed.
    pub(super) fn of(request: &mut Request<B>) -> Box<Spare<B>> {
        Box::new(Spare {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            body: request.body_mut().keep(),
        })
    }

    /// Whether it may be sent behind one that failed so.
    pub(super) fn may_follow(&self, failure: &Failure) -> bool {
        match failure.taken {
            Taken::No => true,
            Taken::Untold => self.method.is_safe(),
            Taken::Perhaps => false,
        }
    }

    /// None: its body cannot be given out again.
    pub(super) async fn request(self) -> Option<Request<B>> {
        let mut request = Request::new(B::again(self.body).await?);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        Some(request)
    }
}
