//! A bearer token for a KMS of a cloud (RFC 6750): fetched at the first need, renewed ahead of its end while the old one is still
//! used, and exchanged for a fresh one when it was refused; so many callers, one fetch at a time.
//!
//! Where tokens come from, a [`Source`] knows. Never here: what a token may, a second exchange of one that is new and was refused.

use super::http::{Reply, secret};
use super::{Answer, Failure, KmsError};
use http::HeaderValue;
use serde::Deserialize;
use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// A token that is younger than this and refused was refused for good.
pub const RELOGIN_AFTER: Duration = Duration::from_secs(10);
/// Between two tries to renew a token that still lives.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// One renewal in the background: it may not stand in the way of the next.
const RENEW_WITHIN: Duration = Duration::from_secs(10);
/// Seconds that a token lives at most, whatever is said.
const LIFE_SECONDS_MAX: u64 = 24 * 60 * 60;

/// Where tokens come from.
pub trait Source: Send + Sync {
    /// A token of now.
    fn fetch(&self) -> Answer<'_, Granted>;
}

/// A token and how long it lives.
pub struct Granted {
    /// Visible characters, without `Bearer`.
    pub token: Zeroizing<String>,
    /// From when it was asked for.
    pub lives: Duration,
}

/// A token as it is sent.
pub struct Token {
    header: HeaderValue,
    since: Instant,
    lives: Duration,
}

impl Token {
    fn new(granted: &Granted, asked: Instant) -> Result<Token, KmsError> {
        let header = Zeroizing::new(format!("Bearer {}", *granted.token));
        let bad = || KmsError::new(Failure::Malformed, "the token is no header's value");
        Ok(Token {
            header: secret(&header).ok_or_else(bad)?,
            since: asked,
            lives: granted.lives,
        })
    }

    /// The value of `Authorization`.
    pub fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    fn age_at(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    fn has_ended_at(&self, now: Instant) -> bool {
        self.age_at(now) >= self.lives
    }

    /// Two thirds of its life are over.
    fn is_old_at(&self, now: Instant) -> bool {
        self.age_at(now) >= self.lives * 2 / 3
    }
}

/// The token in force.
pub struct Bearer {
    source: Box<dyn Source>,
    relogin_after: Duration,
    /// Held while somebody fetches.
    entering: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Arc<Token>>,
    /// The last renewal in the background, and when it was begun.
    renewal: Option<(AbortHandle, Instant)>,
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some((renewal, _)) = &self.renewal {
            renewal.abort();
        }
    }
}

impl Bearer {
    /// Fetches nothing yet.
    pub fn new(source: Box<dyn Source>, relogin_after: Duration) -> Arc<Bearer> {
        Arc::new(Bearer {
            source,
            relogin_after,
            entering: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> Option<Arc<Token>> {
        let token = self.state().token.clone()?;
        (!token.has_ended_at(Instant::now())).then_some(token)
    }

    /// A token that has not ended.
    pub async fn current(self: &Arc<Self>) -> Result<Arc<Token>, KmsError> {
        if let Some(token) = self.alive() {
            if token.is_old_at(Instant::now()) {
                self.renew();
            }
            return Ok(token);
        }
        let _entering = self.entering.lock().await;
        match self.alive() {
            Some(token) => Ok(token),
            None => self.fetch().await,
        }
    }

    /// What to try once more with, when the KMS refused a token. None: the no is final.
    pub async fn after_refusal(&self, refused: &Token) -> Result<Option<Arc<Token>>, KmsError> {
        let _entering = self.entering.lock().await;
        match self.alive() {
            Some(token) if token.header != refused.header => Ok(Some(token)),
            _ if refused.age_at(Instant::now()) < self.relogin_after => Ok(None),
            _ => self.fetch().await.map(Some),
        }
    }

    /// Under `entering`.
    async fn fetch(&self) -> Result<Arc<Token>, KmsError> {
        let asked = Instant::now();
        let granted = self.source.fetch().await?;
        tracing::debug!(seconds = granted.lives.as_secs(), "a token for the KMS");
        let token = Arc::new(Token::new(&granted, asked)?);
        self.state().token = Some(Arc::clone(&token));
        Ok(token)
    }

    /// In a task of its own: whoever asked for a token goes on with the old one.
    fn renew(self: &Arc<Self>) {
        let mut state = self.state();
        let now = Instant::now();
        let is_under_way = |(last, since): &(AbortHandle, Instant)| {
            !last.is_finished() || now.saturating_duration_since(*since) < TRY_AGAIN
        };
        if state.renewal.as_ref().is_some_and(is_under_way) {
            return;
        }
        let weak = Arc::downgrade(self);
        let renewal = tokio::spawn(async move {
            let Some(bearer) = weak.upgrade() else { return };
            let _entering = bearer.entering.lock().await;
            match tokio::time::timeout(RENEW_WITHIN, bearer.fetch()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "a token for the KMS is not renewed yet"),
                Err(_) => tracing::warn!("a token for the KMS is not renewed yet: no answer"),
            }
        });
        state.renewal = Some((renewal.abort_handle(), now));
    }
}

/// An answer to a request for a token (RFC 6749 section 5). Some write the number as a text.
#[derive(Deserialize)]
struct Answered<'a> {
    #[serde(borrow)]
    access_token: Option<Cow<'a, str>>,
    expires_in: Option<serde_json::Value>,
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
}

/// The token of an answer, or what it means that there is none.
pub fn granted(reply: &Reply) -> Result<Granted, KmsError> {
    let answered: Option<Answered<'_>> = serde_json::from_slice(&reply.body).ok();
    if reply.status.as_u16() != 200 {
        let code = answered.and_then(|answered| answered.error);
        return Err(refusal(reply, code.as_deref()));
    }
    let bad = || reply.failure(Failure::Malformed, "the answer is no token");
    let answered = answered.ok_or_else(bad)?;
    let token = answered.access_token.filter(|token| !token.is_empty());
    let token = Zeroizing::new(token.ok_or_else(bad)?.into_owned());
    let seconds = match answered.expires_in {
        Some(serde_json::Value::Number(number)) => number.as_u64(),
        Some(serde_json::Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    let seconds = seconds.ok_or_else(bad)?.min(LIFE_SECONDS_MAX);
    Ok(Granted {
        token,
        lives: Duration::from_secs(seconds),
    })
}

/// What it means that a login brought no token; `code`: the word that RFC 6749 section 5.2 has for it.
pub fn refusal(reply: &Reply, code: Option<&str>) -> KmsError {
    let is_word = |code: &&str| {
        (1..=64).contains(&code.len())
            && code
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let code = code.filter(is_word).unwrap_or("no known code");
    let failure = match (reply.status.as_u16(), code) {
        (_, "temporarily_unavailable" | "server_error") => Failure::Unreachable,
        (400..=405, _) => Failure::Denied,
        (300..=399 | 408 | 410 | 425 | 429 | 500..=599, _) => Failure::Unreachable,
        _ => Failure::Malformed,
    };
    reply.failure(failure, &format!("the login is refused ({code})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, StatusCode};
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    /// Numbers its tokens; fails where it is told to, or does not answer.
    #[derive(Default)]
    struct Counting {
        fetched: AtomicUsize,
        fails: AtomicUsize,
    }

    impl Source for Arc<Counting> {
        fn fetch(&self) -> Answer<'_, Granted> {
            Box::pin(async {
                let number = self.fetched.fetch_add(1, SeqCst);
                tokio::time::sleep(Duration::from_millis(100)).await;
                match self.fails.load(SeqCst) {
                    0 => Ok(Granted {
                        token: Zeroizing::new(format!("t{number}")),
                        lives: Duration::from_secs(300),
                    }),
                    1 => Err(KmsError::new(Failure::Unreachable, "away")),
                    _ => std::future::pending().await,
                }
            })
        }
    }

    fn counting() -> (Arc<Counting>, Arc<Bearer>) {
        let source = Arc::<Counting>::default();
        let bearer = Bearer::new(Box::new(Arc::clone(&source)), RELOGIN_AFTER);
        (source, bearer)
    }

    async fn shown(bearer: &Arc<Bearer>) -> String {
        let token = bearer.current().await.unwrap();
        assert!(token.header.is_sensitive());
        token.header.to_str().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn one_fetch_for_many_and_renewed_ahead_of_its_end() {
        let (source, bearer) = counting();
        let (one, other) = tokio::join!(shown(&bearer), shown(&bearer));
        assert_eq!((&*one, &*other), ("Bearer t0", "Bearer t0"));
        tokio::time::advance(Duration::from_secs(199)).await;
        assert_eq!(shown(&bearer).await, "Bearer t0");
        assert_eq!(source.fetched.load(SeqCst), 1);
        tokio::time::advance(Duration::from_secs(2)).await;
        // The old one meanwhile, without a wait.
        assert_eq!(shown(&bearer).await, "Bearer t0");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(shown(&bearer).await, "Bearer t1");
        assert_eq!(source.fetched.load(SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_fails_or_hangs_hinders_nobody_before_the_end() {
        let (source, bearer) = counting();
        shown(&bearer).await;
        tokio::time::advance(Duration::from_secs(201)).await;
        for fails in [1, 2] {
            source.fails.store(fails, SeqCst);
            let before = source.fetched.load(SeqCst);
            for _ in 0..30 {
                assert_eq!(shown(&bearer).await, "Bearer t0");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let tries = source.fetched.load(SeqCst) - before;
            assert!((3..=6).contains(&tries), "{tries}");
        }
        // Behind its end there is no token but a fresh one.
        source.fails.store(1, SeqCst);
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(bearer.current().await.is_err());
        source.fails.store(0, SeqCst);
        assert_ne!(shown(&bearer).await, "Bearer t0");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_is_exchanged_unless_it_is_new() {
        let (source, bearer) = counting();
        let token = bearer.current().await.unwrap();
        assert!(bearer.after_refusal(&token).await.unwrap().is_none());
        tokio::time::advance(RELOGIN_AFTER).await;
        let (one, other) = tokio::join!(bearer.after_refusal(&token), bearer.after_refusal(&token));
        for fresh in [one, other] {
            assert_eq!(fresh.unwrap().unwrap().header, "Bearer t1");
        }
        assert_eq!(source.fetched.load(SeqCst), 2);
    }

    #[test]
    fn answers_and_refusals() {
        let reply = |status: u16, body: &str| Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Zeroizing::new(body.as_bytes().to_vec()),
        };
        for seconds in ["3599", "\"3599\""] {
            let body = format!(r#"{{"access_token":"ya29","expires_in":{seconds}}}"#);
            let granted = granted(&reply(200, &body)).ok().unwrap();
            assert_eq!(&**granted.token, "ya29");
            assert_eq!(granted.lives, Duration::from_secs(3599));
        }
        for (status, body, failure) in [
            (200, "", Failure::Malformed),
            (200, r#"{"access_token":"x"}"#, Failure::Malformed),
            (
                200,
                r#"{"access_token":"","expires_in":1}"#,
                Failure::Malformed,
            ),
            (
                200,
                r#"{"access_token":"x","expires_in":-1}"#,
                Failure::Malformed,
            ),
            (400, r#"{"error":"invalid_grant"}"#, Failure::Denied),
            (401, r#"{"error":"invalid_client"}"#, Failure::Denied),
            (
                400,
                r#"{"error":"temporarily_unavailable"}"#,
                Failure::Unreachable,
            ),
            (404, "no service account", Failure::Denied),
            (429, "", Failure::Unreachable),
            (503, "", Failure::Unreachable),
        ] {
            let error = granted(&reply(status, body)).err().unwrap();
            assert_eq!(error.failure, failure, "{status} {body}");
        }
        let error = granted(&reply(400, r#"{"error":"Hunter 2"}"#))
            .err()
            .unwrap();
        assert!(!error.detail.contains("Hunter"), "{error}");
    }
}
