//! A body that is rewritten while it flows: frames in, out of the content codings, through whoever rewrites, into the codings
//! again, frames out.
//!
//! There is no task behind it. Whoever sends the body on polls it, and so drives the step that makes the next frame: what is not
//! asked for is not read, and what is dropped ends where it stands. What came is passed on when `OUT_BYTES` are there, or
//! nothing more has come yet.

use super::coding::{Codings, Decoder, Encoder, Undecodable};
use super::{Arriving, Broken};
use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame};
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Bytes that are passed on as one frame, about.
const OUT_BYTES: usize = 16 << 10;
/// Coded bytes that are decoded at once.
const CODED_BYTES: usize = 1 << 10;
/// What so many may become: a thousand times as much, however little came before.
const DECODED_BYTES_MAX: usize = 1 << 20;
/// Plain bytes that are handed on at once.
const PLAIN_BYTES: usize = 64 << 10;
/// Coded bytes that are kept until something is decoded, for whoever may pass them on as they came.
const KEPT_BYTES_MAX: usize = 4 << 10;

/// What takes a body's plain bytes as they come, and gives them back rewritten.
pub trait Rewrite: Send + 'static {
    /// More bytes came; called when [`Rewrite::work`] said that it wants them.
    fn push(&mut self, bytes: &[u8]);

    /// There are no more.
    fn end(&mut self);

    /// Appends to `out` what the bytes at hand become, all of them or the next piece.
    ///
    /// # Errors
    /// The message ends here, visibly: [`Broken::Refused`], after noting why.
    fn work<'w>(
        &'w mut self,
        out: &'w mut Vec<u8>,
    ) -> impl Future<Output = Result<Work, Broken>> + Send + 'w;

    /// Its codings cannot be taken off any more. `begun`: something of it went on already.
    ///
    /// # Errors
    /// The message ends here; otherwise, where it had not begun, it goes on as it came.
    fn undecodable(&mut self, why: Undecodable, begun: bool) -> Result<(), Broken>;

    /// Trailers came behind the body.
    fn trailers(&mut self, trailers: &mut HeaderMap);
}

/// What a call to [`Rewrite::work`] left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// More can be done at once.
    More,
    /// Nothing, until more bytes come.
    Wanting,
}

/// A flowing body, rewritten by `R`.
pub struct Flow<R, B = Arriving> {
    state: State<R, B>,
}

enum State<R, B> {
    Idle(Box<Step<R, B>>),
    Busy(Running<R, B>),
    /// It breaks off when whoever sends it on has passed on what came before.
    Breaking(Broken),
    Over,
}

type Running<R, B> = Pin<Box<dyn Future<Output = (Box<Step<R, B>>, Next)> + Send>>;

type Next = Result<Option<Frame<Bytes>>, Broken>;

/// All that the next frame is made of.
struct Step<R, B> {
    incoming: B,
    rewriter: R,
    /// It only looks: the bytes go on as they came.
    looking: bool,
    codec: Option<Codec>,
    /// What came and was not looked at yet.
    piece: Bytes,
    /// Rewritten, and not in its codings yet.
    plain: Vec<u8>,
    out: Vec<u8>,
    /// There was a byte.
    came: bool,
    /// Something was decoded, or handed on.
    begun: bool,
    /// Coded, as it came, while nothing was decoded.
    kept: Vec<u8>,
    work: Work,
    /// Nobody looks into it any more.
    passing: bool,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// It breaks off behind what was made before.
    broken: Option<Broken>,
}

struct Codec {
    decoder: Decoder,
    encoder: Encoder,
    /// The encoder has bytes that a reader would wait for.
    holds_back: bool,
}

/// What comes in.
pub trait Incoming: HttpBody<Data = Bytes, Error = Broken> + Send + Unpin + 'static {}

impl<B: HttpBody<Data = Bytes, Error = Broken> + Send + Unpin + 'static> Incoming for B {}

impl<R: Rewrite, B: Incoming> Flow<R, B> {
    /// `incoming` in these `codings`, through `rewriter`. `looking`: what it makes of them is dropped, and the bytes go on as they
    /// come.
    pub fn new(incoming: B, codings: &Codings, rewriter: R, looking: bool) -> Flow<R, B> {
        let codec = (!codings.is_identity()).then(|| Codec {
            decoder: Decoder::new(codings).limited(DECODED_BYTES_MAX),
            encoder: Encoder::new(codings),
            holds_back: false,
        });
        Flow {
            state: State::Idle(Box::new(Step {
                incoming,
                rewriter,
                looking,
                codec,
                piece: Bytes::new(),
                plain: Vec::new(),
                out: Vec::new(),
                came: false,
                begun: false,
                kept: Vec::new(),
                work: Work::Wanting,
                passing: false,
                trailers: None,
                ended: false,
                broken: None,
            })),
        }
    }
}

/// What the other side had to give.
enum Arrival {
    Frame(Frame<Bytes>),
    End,
    /// Nothing yet, and something is to be passed on meanwhile.
    Pause,
}

impl<R: Rewrite, B: Incoming> Step<R, B> {
    async fn run(mut self: Box<Self>) -> (Box<Self>, Next) {
        let next = self.next().await;
        (self, next)
    }

    /// The next frame.
    async fn next(&mut self) -> Next {
        if let Some(broken) = self.broken.take() {
            return Err(broken);
        }
        loop {
            while self.work == Work::More {
                self.work = match self.rewriter.work(&mut self.plain).await {
                    Ok(work) => work,
                    Err(broken) => return self.break_off(broken),
                };
                self.encode()?;
                if self.out.len() >= OUT_BYTES && !self.looking {
                    return Ok(self.frame());
                }
            }
            if !self.piece.is_empty() {
                self.read()?;
                continue;
            }
            // Of a body that goes on with its length nobody asks for what comes behind its last byte.
            if self.looking && !self.ended && self.incoming.is_end_stream() {
                self.end()?;
                continue;
            }
            if self.looking && self.out.len() >= OUT_BYTES {
                return Ok(self.frame());
            }
            if self.ended {
                if let Some(codec) = self.codec.take_if(|_| !self.passing && !self.looking) {
                    codec.encoder.finish(&mut self.out).map_err(codec_failed)?;
                }
                return Ok(match self.out.is_empty() {
                    true => self.trailers.take().map(Frame::trailers),
                    false => self.frame(),
                });
            }
            match self.arrive().await? {
                Arrival::Frame(frame) => match frame.into_data() {
                    Ok(piece) => self.piece = piece,
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Arrival::End => self.end()?,
                Arrival::Pause => {
                    if let Some(codec) = &mut self.codec
                        && codec.holds_back
                    {
                        codec.encoder.flush(&mut self.out).map_err(codec_failed)?;
                        codec.holds_back = false;
                    }
                    return Ok(self.frame());
                }
            }
        }
    }

    /// What was rewritten goes on before the message ends, however much of it came at once.
    fn break_off(&mut self, broken: Broken) -> Next {
        self.plain.clear();
        if let Some(codec) = &mut self.codec
            && codec.holds_back
        {
            codec.encoder.flush(&mut self.out).map_err(codec_failed)?;
        }
        if self.out.is_empty() {
            return Err(broken);
        }
        self.broken = Some(broken);
        Ok(self.frame())
    }

    fn frame(&mut self) -> Option<Frame<Bytes>> {
        Some(Frame::data(mem::take(&mut self.out).into()))
    }

    /// Waits for the other side, unless something is to be passed on.
    async fn arrive(&mut self) -> Result<Arrival, Broken> {
        let held_back = self.codec.as_ref().is_some_and(|codec| codec.holds_back);
        let pause = !self.out.is_empty() || held_back;
        poll_fn(|cx| match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(frame)) => Poll::Ready(frame.map(Arrival::Frame)),
            Poll::Ready(None) => Poll::Ready(Ok(Arrival::End)),
            Poll::Pending if pause => Poll::Ready(Ok(Arrival::Pause)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Hands the next bytes of the piece to the rewriter.
    fn read(&mut self) -> Result<(), Broken> {
        self.came = true;
        if self.passing {
            self.out.extend_from_slice(&mem::take(&mut self.piece));
            return Ok(());
        }
        let Some(codec) = &mut self.codec else {
            let plain = self.piece.split_to(self.piece.len().min(PLAIN_BYTES));
            self.begun = true;
            self.rewriter.push(&plain);
            self.work = Work::More;
            if self.looking {
                self.out.extend_from_slice(&plain);
            }
            return Ok(());
        };
        let coded = self.piece.split_to(self.piece.len().min(CODED_BYTES));
        if self.looking {
            self.out.extend_from_slice(&coded);
        } else if !self.begun && self.kept.len() < KEPT_BYTES_MAX {
            self.kept.extend_from_slice(&coded);
        }
        let mut plain = Vec::new();
        if let Err(why) = codec.decoder.feed(&coded, &mut plain) {
            // Coded bytes that became so much at once are no less a bomb for those that came before them.
            let why = match why {
                Undecodable::TooLarge => Undecodable::Inflation,
                other => other,
            };
            return self.undecodable(why);
        }
        if !plain.is_empty() {
            self.begun = true;
            self.kept = Vec::new();
            self.rewriter.push(&plain);
            self.work = Work::More;
        }
        Ok(())
    }

    /// Puts the codings on what was rewritten.
    fn encode(&mut self) -> Result<(), Broken> {
        if self.looking {
            self.plain.clear();
            return Ok(());
        }
        match &mut self.codec {
            None if self.out.is_empty() => mem::swap(&mut self.out, &mut self.plain),
            None => self.out.append(&mut self.plain),
            Some(codec) if !self.plain.is_empty() => {
                codec.holds_back = true;
                let fed = codec.encoder.feed(&self.plain, &mut self.out);
                fed.map_err(codec_failed)?;
                self.plain.clear();
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// The body has come to its end.
    fn end(&mut self) -> Result<(), Broken> {
        self.ended = true;
        if self.passing {
            return Ok(());
        }
        // A body of no bytes has no coding, whatever its head says, and is none of an empty one.
        if !self.came {
            self.codec = None;
        }
        if let Some(codec) = &mut self.codec
            && let Err(why) = codec.decoder.is_whole()
        {
            return self.undecodable(why);
        }
        if let Some(trailers) = &mut self.trailers
            && !self.looking
        {
            self.rewriter.trailers(trailers);
        }
        self.rewriter.end();
        self.work = Work::More;
        Ok(())
    }

    fn undecodable(&mut self, why: Undecodable) -> Result<(), Broken> {
        // What was kept is all that came, or it is not enough.
        let begun = self.begun || self.kept.len() >= KEPT_BYTES_MAX;
        self.rewriter.undecodable(why, begun && !self.looking)?;
        if begun && !self.looking {
            return Err(Broken::Refused);
        }
        self.passing = true;
        self.out.append(&mut self.kept);
        Ok(())
    }
}

/// No such error is known of these codecs.
fn codec_failed(_: std::io::Error) -> Broken {
    Broken::Refused
}

impl<R: Rewrite, B: Incoming> HttpBody for Flow<R, B> {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut running = match mem::replace(&mut self.state, State::Over) {
            State::Idle(step) => Box::pin(step.run()) as _,
            State::Busy(running) => running,
            State::Breaking(broken) => return Poll::Ready(Some(Err(broken))),
            State::Over => return Poll::Ready(None),
        };
        let Poll::Ready((step, next)) = running.as_mut().poll(cx) else {
            self.state = State::Busy(running);
            return Poll::Pending;
        };
        match next {
            Ok(Some(frame)) => {
                // Nothing comes behind trailers.
                if frame.is_data() {
                    self.state = State::Idle(step);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Ok(None) => Poll::Ready(None),
            // At once, it would overtake what hyper has not written yet: the head, and what could still be rewritten.
            Err(broken) => {
                self.state = State::Breaking(broken);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Over)
    }
}

impl<R, B> fmt::Debug for Flow<R, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flow")
    }
}
