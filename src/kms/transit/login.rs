//! Being let in: a session is a token and how long it lives. It is renewed ahead of its end, and taken anew when it ended or
//! was refused; so many callers, one login at a time.
//!
//! A token that is refused although it is new is not exchanged again: the no is meant for this agent, and every login would
//! leave a token behind at the server.

use super::super::http::secret;
use super::super::secret::Secret;
use super::super::{Failure, KmsError};
use super::{Server, wire};
use http::{HeaderValue, Method, StatusCode};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};
use zeroize::Zeroizing;

/// Between two tries to renew a session that is about to end.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// What a renewal adds at least to a session's life.
const WORTH_IT: Duration = Duration::from_secs(1);

/// How the agent is let in.
#[derive(Clone, Debug)]
pub enum Login {
    /// With a token that somebody else had made.
    Token(Secret),
    /// As an AppRole.
    AppRole {
        /// Where the method is mounted.
        mount: String,
        /// Which role.
        role_id: String,
        /// Its secret.
        secret_id: Secret,
    },
    /// As the service account of a Kubernetes pod.
    Kubernetes {
        /// Where the method is mounted.
        mount: String,
        /// The role that it is bound to.
        role: String,
        /// The service account's token.
        jwt: Secret,
    },
}

/// A token, as it was granted.
pub(super) struct Session {
    token: HeaderValue,
    since: Instant,
    /// None: never, or not known.
    ends: Option<Instant>,
    renewable: bool,
}

impl Session {
    fn new(token: &str, ttl: u64, renewable: bool, asked: Instant) -> Result<Session, KmsError> {
        let token = secret(token)
            .ok_or_else(|| KmsError::new(Failure::Malformed, "the token is no header's value"))?;
        let ttl = (ttl > 0).then(|| Duration::from_secs(ttl));
        Ok(Session {
            token,
            since: asked,
            ends: ttl.and_then(|ttl| asked.checked_add(ttl)),
            renewable,
        })
    }

    pub fn token(&self) -> &HeaderValue {
        &self.token
    }

    fn has_ended_at(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| now >= ends)
    }

    /// When two thirds of its life are over.
    fn renew_at(&self) -> Option<Instant> {
        let life = self.ends?.saturating_duration_since(self.since);
        Some(self.since + life * 2 / 3)
    }
}

/// The way in, and whoever went through it last.
pub(super) struct Sessions {
    server: Server,
    login: Login,
    relogin_after: Duration,
    /// Held while somebody logs in.
    entering: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    keeper: Option<AbortHandle>,
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
    }
}

impl Sessions {
    pub fn new(server: Server, login: Login, relogin_after: Duration) -> Arc<Sessions> {
        Arc::new(Sessions {
            server,
            login,
            relogin_after,
            entering: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> Option<Arc<Session>> {
        let session = self.state().session.clone()?;
        (!session.has_ended_at(Instant::now())).then_some(session)
    }

    /// A session that has not ended; a fresh one where there is none.
    pub async fn current(self: &Arc<Self>) -> Result<Arc<Session>, KmsError> {
        if let Some(session) = self.alive() {
            return Ok(session);
        }
        let _entering = self.entering.lock().await;
        match self.alive() {
            Some(session) => Ok(session),
            None => self.log_in().await,
        }
    }

    /// What to try once more with, when the server refused a session. None: the no is final.
    pub async fn after_refusal(
        self: &Arc<Self>,
        refused: &Arc<Session>,
    ) -> Result<Option<Arc<Session>>, KmsError> {
        let _entering = self.entering.lock().await;
        // Others may have been refused before, and be back already.
        if let Some(session) = self.alive()
            && !Arc::ptr_eq(&session, refused)
            && session.token != refused.token
        {
            return Ok(Some(session));
        }
        if let Login::Token(place) = &self.login {
            let is_same = place.read().await?.as_bytes() == refused.token.as_bytes();
            if is_same {
                return Ok(None);
            }
        } else if refused.since.elapsed() < self.relogin_after {
            return Ok(None);
        }
        self.log_in().await.map(Some)
    }

    /// Under `entering`.
    async fn log_in(self: &Arc<Self>) -> Result<Arc<Session>, KmsError> {
        let asked = Instant::now();
        let session = match &self.login {
            Login::Token(place) => {
                let token = place.read().await?;
                let (ttl, renewable) = self.look_up(&token).await?;
                Session::new(&token, ttl, renewable, asked)?
            }
            Login::AppRole {
                mount,
                role_id,
                secret_id,
            } => {
                let secret_id = secret_id.read().await?;
                let words = [("role_id", role_id.as_str()), ("secret_id", &secret_id)];
                self.exchange(mount, words).await?
            }
            Login::Kubernetes { mount, role, jwt } => {
                let jwt = jwt.read().await?;
                self.exchange(mount, [("role", role), ("jwt", &jwt)])
                    .await?
            }
        };
        Ok(self.keep(session))
    }

    /// How long a token lives that somebody else had made. One that may not even ask that is taken as it is.
    async fn look_up(&self, token: &str) -> Result<(u64, bool), KmsError> {
        let token = secret(token);
        let path = "auth/token/lookup-self";
        let nothing = Zeroizing::default();
        let reply = self
            .server
            .send(Method::GET, path, token.as_ref(), nothing)
            .await?;
        match reply.status {
            StatusCode::OK => Ok(wire::looked_up(&reply.body).unwrap_or((0, false))),
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Ok((0, false)),
            _ => Err(wire::refusal(&reply)),
        }
    }

    async fn exchange(&self, mount: &str, words: [(&str, &str); 2]) -> Result<Session, KmsError> {
        let asked = Instant::now();
        let [(one, first), (other, second)] = words.map(|(word, value)| {
            // Visible ASCII; what JSON would escape is escaped.
            (
                word,
                Zeroizing::new(serde_json::Value::from(value).to_string()),
            )
        });
        let body = format!("{{\"{one}\":{},\"{other}\":{}}}", *first, *second);
        let path = format!("auth/{mount}/login");
        let body = Zeroizing::new(body.into_bytes());
        let reply = self.server.send(Method::POST, &path, None, body).await?;
        if reply.status != StatusCode::OK {
            return Err(wire::login_refusal(&reply));
        }
        let auth = wire::auth(&reply)?;
        tracing::debug!(seconds = auth.lease_duration, "logged in");
        Session::new(
            &auth.client_token,
            auth.lease_duration,
            auth.renewable,
            asked,
        )
    }

    /// Puts a session in force, and sees to its renewal.
    fn keep(self: &Arc<Self>, session: Session) -> Arc<Session> {
        let session = Arc::new(session);
        let keeper = session.renew_at().map(|at| {
            let (sessions, of) = (Arc::downgrade(self), Arc::downgrade(&session));
            tokio::spawn(keeper(sessions, of, at)).abort_handle()
        });
        let mut state = self.state();
        state.session = Some(Arc::clone(&session));
        // The last one's work is done. Where it is the task that runs this, it does not wait any more before it ends.
        if let Some(last) = std::mem::replace(&mut state.keeper, keeper) {
            last.abort();
        }
        session
    }

    /// A session with a longer life, if `session` is still in force. Ok(None): there is nothing more to do for it.
    async fn renew(self: &Arc<Self>, session: &Arc<Session>) -> Result<Option<()>, KmsError> {
        let _entering = self.entering.lock().await;
        let in_force = self.alive();
        if !in_force.is_some_and(|current| Arc::ptr_eq(&current, session)) {
            return Ok(None);
        }
        if session.renewable
            && let Some(renewed) = self.prolong(session).await?
        {
            self.keep(renewed);
            return Ok(Some(()));
        }
        if let Login::Token(place) = &self.login
            && place.read().await?.as_bytes() == session.token.as_bytes()
        {
            tracing::warn!("the KMS's token ends, and cannot be renewed");
            return Ok(None);
        }
        self.log_in().await?;
        Ok(Some(()))
    }

    /// None: the server will not have it live any longer.
    async fn prolong(&self, session: &Session) -> Result<Option<Session>, KmsError> {
        let asked = Instant::now();
        let path = "auth/token/renew-self";
        let token = Some(session.token());
        let body = Zeroizing::new(b"{}".to_vec());
        let reply = self.server.send(Method::POST, path, token, body).await?;
        match reply.status.as_u16() {
            200 => {
                let auth = wire::auth(&reply)?;
                let renewed = Session::new(
                    &auth.client_token,
                    auth.lease_duration,
                    auth.renewable,
                    asked,
                )?;
                // At the end of what its role allows, a renewal adds nothing any more.
                let longer = renewed.ends.is_none_or(|ends| {
                    let before = session.ends.map(|before| before + WORTH_IT);
                    before.is_some_and(|before| ends > before)
                });
                Ok(longer.then_some(renewed))
            }
            400..=405 => Ok(None),
            _ => Err(wire::refusal(&reply)),
        }
    }
}

/// Waits for a session's time to be renewed, and renews it; whoever follows it has a keeper of its own.
async fn keeper(sessions: Weak<Sessions>, of: Weak<Session>, at: Instant) {
    sleep_until(at).await;
    loop {
        let (Some(sessions), Some(session)) = (sessions.upgrade(), of.upgrade()) else {
            return;
        };
        match sessions.renew(&session).await {
            Ok(_) => return,
            Err(error) => tracing::warn!(%error, "a session at the KMS is not renewed yet"),
        }
        if session.has_ended_at(Instant::now()) {
            return;
        }
        drop((sessions, session));
        tokio::time::sleep(TRY_AGAIN).await;
    }
}
