//! Holding a body whole, up to a limit and for a bounded time, and telling from the headers whether it is JSON that
//! may be looked into.

use super::coding::Codings;
use super::records::Framing;
use super::{Arriving, Body, Broken};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use hyper::body::Body as _;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

/// Bytes that are reserved on the strength of a Content-Length alone.
const RESERVE_BYTES_MAX: usize = 1 << 20;

/// The memory that all held bodies together may take, in units of `UNIT`.
#[derive(Clone, Debug)]
pub struct Room {
    units: Arc<Semaphore>,
    /// Of an empty room.
    bytes: usize,
}

/// Bytes of one permit of a [`Room`].
const UNIT: usize = 4 << 10;

impl Room {
    /// Room for `bytes` bytes.
    pub fn new(bytes: usize) -> Room {
        let units = (bytes / UNIT).min(Semaphore::MAX_PERMITS);
        Room {
            units: Arc::new(Semaphore::new(units)),
            bytes: units * UNIT,
        }
    }

    /// Units that are free.
    pub fn free(&self) -> usize {
        self.units.available_permits()
    }

    /// Whether `bytes` bytes would fit if nothing else were here.
    pub fn could_take(&self, bytes: usize) -> bool {
        bytes <= self.bytes
    }

    /// Makes `taken` enough for `bytes` bytes. False: there is no room for more.
    pub fn enlarge(&self, taken: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> bool {
        let held = taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Ok(more) = u32::try_from(bytes.div_ceil(UNIT).saturating_sub(held)) else {
            return false;
        };
        match Arc::clone(&self.units).try_acquire_many_owned(more) {
            Ok(more) => {
                match taken {
                    Some(taken) => taken.merge(more),
                    None => *taken = Some(more),
                }
                true
            }
            Err(_) => false,
        }
    }
}

/// Gives back what of `taken` is not needed for `bytes` bytes.
pub fn shrink(taken: &mut Option<OwnedSemaphorePermit>, bytes: usize) {
    if let Some(taken) = taken {
        let surplus = taken.num_permits().saturating_sub(bytes.div_ceil(UNIT));
        drop(taken.split(surplus));
    }
}

/// `bytes`, whose share of the [`Room`] is given back when the last of them has been sent or given up, be that by the
/// connection that has them in its buffer.
pub fn kept(bytes: Bytes, room: Option<OwnedSemaphorePermit>) -> Bytes {
    struct Kept {
        bytes: Bytes,
        _room: OwnedSemaphorePermit,
    }
    impl AsRef<[u8]> for Kept {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    match room {
        Some(room) => Bytes::from_owner(Kept { bytes, _room: room }),
        None => bytes,
    }
}

/// A body that is held.
#[derive(Debug)]
pub struct Held {
    /// All its data.
    pub bytes: Bytes,
    /// The trailers behind it.
    pub trailers: Option<HeaderMap>,
    /// Its share of the [`Room`], given back when it goes.
    pub room: Option<OwnedSemaphorePermit>,
}

/// Why it is not held.
#[derive(Debug)]
pub enum Unheld {
    /// It is larger than the limit: what came of it, and the rest, untouched.
    TooLarge(Body),
    /// It did not come in time: likewise.
    Late(Body),
    /// Other bodies take all the room: likewise.
    NoRoom(Body),
    /// It broke off.
    Broken(Broken),
}

/// Holds `incoming`, if it has at most `limit` bytes and there is `room`. A declared length over the limit is refused before a byte is
/// asked for, so that a client that waits for `100 Continue` never gets it.
///
/// # Errors
/// See [`Unheld`]; in all but the last case nothing of the body is lost.
pub async fn hold(
    incoming: Arriving,
    limit: usize,
    patience: Duration,
    room: &Room,
) -> Result<Held, Unheld> {
    let declared = incoming.size_hint().lower();
    if declared > limit as u64 {
        return Err(Unheld::TooLarge(Body::stream(incoming)));
    }
    if incoming.is_end_stream() {
        return Ok(Held {
            bytes: Bytes::new(),
            trailers: None,
            room: None,
        });
    }
    let mut taken = None;
    if !room.enlarge(&mut taken, declared as usize) {
        return Err(Unheld::NoRoom(Body::stream(incoming)));
    }
    collect(incoming, limit, Instant::now() + patience, room, taken).await
}

async fn collect(
    mut incoming: Arriving,
    limit: usize,
    deadline: Instant,
    room: &Room,
    mut taken: Option<OwnedSemaphorePermit>,
) -> Result<Held, Unheld> {
    // A body of one piece is taken as it is; further pieces are copied together at once, since a piece costs far more
    // than the one byte that a hostile client may put into it.
    let mut whole = Bytes::new();
    let mut joined = BytesMut::new();
    let mut trailers = None;
    // There is none until something is waited for.
    let mut late = pin!(None);
    loop {
        let frame = poll_fn(|cx| {
            if let Poll::Ready(frame) = Pin::new(&mut incoming).poll_frame(cx) {
                return Poll::Ready(Ok(frame));
            }
            if late.is_none() {
                late.set(Some(sleep_until(deadline)));
            }
            match late.as_mut().as_pin_mut() {
                Some(late) => late.poll(cx).map(Err),
                None => Poll::Pending,
            }
        });
        let frame = match frame.await {
            Ok(Some(frame)) => frame.map_err(Unheld::Broken)?,
            Ok(None) => break,
            Err(()) => return Err(Unheld::Late(begun(whole, joined, incoming))),
        };
        match frame.into_data() {
            Ok(piece) if whole.is_empty() && joined.is_empty() => whole = piece,
            Ok(piece) => {
                if joined.is_empty() {
                    let declared = usize::try_from(incoming.size_hint().lower())
                        .unwrap_or(0)
                        .min(RESERVE_BYTES_MAX);
                    joined.reserve(whole.len() + piece.len() + declared);
                    joined.extend_from_slice(&std::mem::take(&mut whole));
                }
                joined.extend_from_slice(&piece);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        let so_far = whole.len() + joined.len();
        if so_far > limit {
            return Err(Unheld::TooLarge(begun(whole, joined, incoming)));
        }
        if !room.enlarge(&mut taken, so_far) {
            return Err(Unheld::NoRoom(begun(whole, joined, incoming)));
        }
    }
    let bytes = if joined.is_empty() {
        whole
    } else {
        joined.freeze()
    };
    Ok(Held {
        bytes,
        trailers,
        room: taken,
    })
}

fn begun(whole: Bytes, joined: BytesMut, rest: Arriving) -> Body {
    Body::resumed(
        if joined.is_empty() {
            whole
        } else {
            joined.freeze()
        },
        rest,
    )
}

/// What the headers say about a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Declared {
    /// JSON in UTF-8, in content codings that can be taken off, or in none.
    Json,
    /// A JSON Merge Patch (RFC 7396), likewise.
    MergePatch,
    /// A JSON Patch (RFC 6902), likewise.
    JsonPatch,
    /// `application/x-www-form-urlencoded`, likewise.
    Form,
    /// `multipart/form-data` with a [`boundary`].
    Multipart,
    /// A stream of JSON documents, likewise.
    Records(Framing),
    /// Something else, or nothing.
    Other,
    /// In a content coding that cannot be taken off.
    Coded,
}

impl Declared {
    /// For records: what was in the way.
    pub fn word(self) -> &'static str {
        match self {
            Declared::Coded => "coding",
            _ => "content-type",
        }
    }
}

/// Names under which lines of JSON go: none of them is registered.
const LINES: [&str; 7] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
    "application/json-lines",
];

/// `application/json` or a type ending in `+json` (RFC 6839 section 3.1), charset absent or `utf-8`, codings as [`Codings::of`]
/// knows them. Repeated or unparsable fields are not JSON.
pub fn declared(headers: &HeaderMap) -> Declared {
    if Codings::of(headers).is_err() {
        return Declared::Coded;
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    match (types.next(), types.next()) {
        (Some(value), None) => match value.to_str() {
            Ok(text) => kind(text).map_or(Declared::Other, |(kind, _)| kind),
            Err(_) => Declared::Other,
        },
        _ => Declared::Other,
    }
}

/// What stands between the parts of a `multipart/form-data` body.
pub fn boundary(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    kind(text)?.1.map(str::to_owned)
}

/// `type "/" subtype *( OWS ";" OWS parameter )`, RFC 9110 section 8.3.1: what it is, and a boundary; `None` for what nobody reads.
fn kind(text: &str) -> Option<(Declared, Option<&str>)> {
    let (essence, mut rest) = text
        .split_once(';')
        .map_or((text, ""), |(essence, rest)| (essence, rest));
    let essence = essence.trim_ascii().to_ascii_lowercase();
    let (kind, subtype) = essence.split_once('/')?;
    let declared = match subtype {
        _ if !is_token(kind) || !is_token(subtype) => return None,
        "json-patch+json" => Declared::JsonPatch,
        "merge-patch+json" => Declared::MergePatch,
        _ if essence == "application/json" || subtype.ends_with("+json") => Declared::Json,
        _ if essence == "text/event-stream" => Declared::Records(Framing::Events),
        "json-seq" => Declared::Records(Framing::Sequence),
        _ if subtype.ends_with("+json-seq") => Declared::Records(Framing::Sequence),
        _ if LINES.contains(&&*essence) => Declared::Records(Framing::Lines),
        _ if essence == "application/x-www-form-urlencoded" => Declared::Form,
        _ if essence == "multipart/form-data" => Declared::Multipart,
        _ => return None,
    };
    let mut boundary = None;
    // The charset decides; the other parameters only have to be well-formed.
    let mut charset_seen = false;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            let whole = boundary.is_some() || declared != Declared::Multipart;
            return whole.then_some((declared, boundary));
        }
        if let Some(after) = rest.strip_prefix(';') {
            rest = after;
            continue;
        }
        let (name, after) = rest.split_once('=')?;
        let (value, after) = parameter_value(after)?;
        if !is_token(name) {
            return None;
        }
        if name.eq_ignore_ascii_case("boundary")
            && declared == Declared::Multipart
            && boundary.replace(value).is_some()
        {
            return None;
        }
        if name.eq_ignore_ascii_case("charset") {
            if charset_seen
                || !(value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8"))
            {
                return None;
            }
            charset_seen = true;
        }
        rest = after.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(';') {
            return None;
        }
    }
}

/// A token or a quoted string without escapes, and what follows it.
fn parameter_value(text: &str) -> Option<(&str, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (value, after) = quoted.split_once('"')?;
        return (!value.contains('\\')).then_some((value, after));
    }
    let end = text.find([';', ' ', '\t']).unwrap_or(text.len());
    is_token(&text[..end]).then(|| text.split_at(end))
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[track_caller]
    fn check(lines: &[(&'static str, &str)], expected: Declared) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).expect("value"));
        }
        assert_eq!(declared(&headers), expected, "{lines:?}");
    }

    #[test]
    fn json_is_declared_so() {
        for good in [
            "application/json",
            "Application/JSON",
            "application/json;charset=utf-8",
            "application/json; charset=\"UTF-8\"",
            "application/json ; q=1 ; charset=utf8;",
            "application/problem+json",
            "application/vnd.api+json; ext=\"https://example.com\"",
            "text/x+json",
        ] {
            check(&[("content-type", good)], Declared::Json);
        }
    }

    #[test]
    fn anything_else_is_not() {
        let other = Declared::Other;
        check(&[], other);
        for bad in [
            "",
            "json",
            "text/plain",
            "text/json",
            "application/jsonp",
            "application/json, application/json",
            "application/json;charset=utf-16",
            "application/json;charset=utf-8;charset=utf-16",
            "application/json;charset=\"utf\\-8\"",
            "application/json;charset",
            "application/json;=x",
            "application/json;charset=utf-8 x",
            "application/json x",
            "application//json",
            "/json",
            "multipart/mixed; boundary=+json",
        ] {
            check(&[("content-type", bad)], other);
        }
        check(
            &[
                ("content-type", "application/json"),
                ("content-type", "application/json"),
            ],
            other,
        );
    }

    #[test]
    fn streams_are_told_by_their_framing() {
        for (text, framing) in [
            ("application/x-ndjson", Framing::Lines),
            ("application/jsonl; charset=utf-8", Framing::Lines),
            ("Application/JSON-Lines", Framing::Lines),
            ("application/json-seq", Framing::Sequence),
            ("application/geo+json-seq", Framing::Sequence),
            ("text/event-stream; charset=utf-8", Framing::Events),
        ] {
            check(&[("content-type", text)], Declared::Records(framing));
        }
        for text in [
            "text/event-stream; charset=latin1",
            "application/event-stream",
        ] {
            check(&[("content-type", text)], Declared::Other);
        }
    }

    #[test]
    fn patches_and_forms_are_told_apart() {
        for (text, expected) in [
            ("application/json-patch+json", Declared::JsonPatch),
            (
                "Application/Merge-Patch+JSON; charset=utf-8",
                Declared::MergePatch,
            ),
            ("application/x-www-form-urlencoded", Declared::Form),
            (
                "application/x-www-form-urlencoded; charset=latin1",
                Declared::Other,
            ),
            ("multipart/form-data; boundary=B", Declared::Multipart),
            ("multipart/form-data", Declared::Other),
            (
                "multipart/form-data; boundary=B; boundary=C",
                Declared::Other,
            ),
            ("multipart/form-data; boundary=\"a b\"", Declared::Multipart),
            ("multipart/mixed; boundary=B", Declared::Other),
        ] {
            check(&[("content-type", text)], expected);
        }
        let mut headers = HeaderMap::new();
        let text = HeaderValue::from_static("multipart/form-data; boundary=\"a b\"");
        headers.insert(CONTENT_TYPE, text);
        assert_eq!(boundary(&headers).as_deref(), Some("a b"));
    }

    #[test]
    fn a_coding_is_seen_wherever_it_stands() {
        for coding in [
            "compress",
            "GZIP, x",
            "identity, aes128gcm",
            "x",
            "identity;q=1",
            "gzip, gzip, gzip",
        ] {
            check(
                &[
                    ("content-type", "application/json"),
                    ("content-encoding", coding),
                ],
                Declared::Coded,
            );
        }
        check(
            &[
                ("content-type", "application/json"),
                ("content-encoding", "gzip"),
                ("content-encoding", "pack200-gzip"),
            ],
            Declared::Coded,
        );
        for known in [
            "identity",
            "Identity",
            "",
            "identity, identity",
            "gzip",
            "BR, gzip",
        ] {
            check(
                &[
                    ("content-type", "application/json"),
                    ("content-encoding", known),
                ],
                Declared::Json,
            );
        }
    }
}
