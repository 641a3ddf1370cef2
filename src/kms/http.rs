//! What the providers that speak HTTP share: one request, one bounded answer, and why there was none.
//!
//! TLS is the agent's own (`tls`). Here no redirection is followed, nothing is sent twice, no proxy of the environment is
//! used (a KMS's answers are keys: the way to it is said in the settings alone), and no time is kept: deadlines are the
//! key room's, who drops the future. A key in a request or an answer is wiped where this room has the only copy.

use super::{Failure, KmsError};
use crate::tls::{BadRoots, HTTP11, Identity, Roots};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of an answer's body that are read; KMSs answer with some hundred.
pub const REPLY_BYTES_MAX: usize = 256 << 10;
/// To the end of the TLS handshake. A connection may outlive the request that wanted it, so it has a bound of its own.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an unused connection is kept, and how many.
const IDLE: Duration = Duration::from_secs(60);
const IDLE_CONNECTIONS: usize = 8;

/// How a KMS's servers are known, and what is shown to them.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Who vouches for their certificates.
    pub roots: Roots,
    /// Shown to a server that asks for it.
    pub identity: Option<Identity>,
}

/// A client with its pool of connections; a cheap clone shares it.
#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
}

/// One request.
pub struct Ask {
    /// The verb.
    pub method: Method,
    /// `https://host[:port]/path[?query]`, or `http://`.
    pub url: String,
    /// Those with secrets marked as sensitive ([`secret`]).
    pub headers: HeaderMap,
    /// Wiped when it was sent.
    pub body: Zeroizing<Vec<u8>>,
}

/// An answer, whatever its status.
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The fields.
    pub headers: HeaderMap,
    /// At most [`REPLY_BYTES_MAX`]; empty where an error's was longer.
    pub body: Zeroizing<Vec<u8>>,
}

impl Reply {
    /// `Retry-After` in seconds (RFC 9110 section 10.2.3); a date is not read.
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?;
        text.trim().parse().ok().map(Duration::from_secs)
    }

    /// A failure of this answer: `failure`, the status, a few words, and when to come back.
    pub fn failure(&self, failure: Failure, what: &str) -> KmsError {
        let unreachable = failure == Failure::Unreachable;
        KmsError {
            retry_after: unreachable.then(|| self.retry_after()).flatten(),
            ..KmsError::new(failure, format!("{}: {what}", self.status.as_u16()))
        }
    }
}

// The body may hold a key.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({}, {} bytes)", self.status, self.body.len())
    }
}

/// A header's value that no log shows. None: it has characters that a header cannot have.
pub fn secret(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// `application/x-www-form-urlencoded`, each field a name of our own and any value (WHATWG URL, section 5.2).
pub fn form(fields: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    let length = fields
        .iter()
        .map(|(name, value)| name.len() + 3 * value.len() + 2);
    // Never grown, so that no copy is left behind.
    let mut body = Zeroizing::new(Vec::with_capacity(length.sum()));
    for (name, value) in fields {
        if !body.is_empty() {
            body.push(b'&');
        }
        body.extend_from_slice(name.as_bytes());
        body.push(b'=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._*".contains(&byte) {
                body.push(byte);
            } else {
                let digit = |half: u8| b"0123456789ABCDEF"[usize::from(half)];
                body.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
    body
}

/// The one header of a request with such a body.
pub const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// A body's owner, so that it is wiped when the last of it was sent.
struct Wiped(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Http {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// There is nothing to trust, or not PEM.
    pub fn new(trust: &Trust) -> Result<Http, BadRoots> {
        let tls = trust
            .roots
            .client(trust.identity.as_ref(), vec![HTTP11.to_vec()])?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .http1_only()
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .user_agent(concat!("fieldveil/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| BadRoots::new(cause(&error)))?;
        Ok(Http { client })
    }

    /// Sends one request and reads the answer to its end.
    ///
    /// # Errors
    /// No answer: unreachable. One with a good status that is too long: malformed.
    pub async fn send(&self, ask: Ask) -> Result<Reply, KmsError> {
        let sent = self
            .client
            .request(ask.method, ask.url)
            .headers(ask.headers)
            .body(Bytes::from_owner(Wiped(ask.body)))
            .send()
            .await;
        let mut answer = sent.map_err(|error| unanswered(&error))?;
        let mut reply = Reply {
            status: answer.status(),
            headers: std::mem::take(answer.headers_mut()),
            // Never grown, so that no copy is left behind.
            body: Zeroizing::new(Vec::with_capacity(
                answer
                    .content_length()
                    .and_then(|length| usize::try_from(length).ok())
                    .unwrap_or(REPLY_BYTES_MAX)
                    .min(REPLY_BYTES_MAX),
            )),
        };
        while let Some(piece) = answer.chunk().await.map_err(|error| unanswered(&error))? {
            if piece.len() > REPLY_BYTES_MAX - reply.body.len() {
                if reply.status.is_success() {
                    let what = format!("the answer is over {REPLY_BYTES_MAX} bytes long");
                    return Err(reply.failure(Failure::Malformed, &what));
                }
                // What an error's status means is known without its text.
                reply.body = Zeroizing::new(Vec::new());
                break;
            }
            reply.body.extend_from_slice(&piece);
            if let Ok(mut piece) = piece.try_into_mut() {
                piece.as_mut().zeroize();
            }
        }
        Ok(reply)
    }
}

fn unanswered(error: &reqwest::Error) -> KmsError {
    let step = if error.is_connect() {
        "no connection"
    } else if error.is_builder() {
        "no request"
    } else {
        "no answer"
    };
    KmsError::new(Failure::Unreachable, format!("{step}: {}", cause(error)))
}

/// The innermost cause: the operating system's, TLS's or HTTP's words, without the URL that the outer ones repeat.
fn cause(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<reqwest::Error>() {
        Some(_) => "it failed".to_owned(),
        None => innermost.to_string(),
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http")
    }
}

#[cfg(test)]
mod tests {
    use super::form;

    #[test]
    fn a_form_says_its_values_whatever_they_hold() {
        let body = form(&[
            ("grant_type", "urn:x-y"),
            ("assertion", "a.b+c/d=&\u{e9} *"),
        ]);
        let text = "grant_type=urn%3Ax-y&assertion=a.b%2Bc%2Fd%3D%26%C3%A9%20*";
        assert_eq!(&body[..], text.as_bytes());
        assert!(form(&[]).is_empty());
    }
}
