//! Whether upstreams answer, and how far this machine's clock is off theirs.

use super::super::certificates::Certificate;
use super::super::prepare;
use super::{Check, State};
use crate::body::Body;
use crate::error::Code;
use crate::settings::{self, Bind, Destination, Settings};
use crate::upstream::{OwnAddresses, Progress};
use http::{Method, Request, header};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// For an upstream's answer, behind its own time to connect.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A clock that is further off than this is worth a word: a Date has whole seconds, and took some time to come.
const CLOCK_OFF_MAX: Duration = Duration::from_secs(10);

/// Asks every upstream for `HEAD /`, all at a time, and compares clocks.
pub async fn check(settings: &Settings, all: &mut Vec<Check>) {
    let own = OwnAddresses::default();
    let binds = settings
        .listeners
        .iter()
        .filter_map(|listener| match listener.bind {
            Bind::Tcp(address) => Some(address),
            Bind::Unix { .. } => None,
        });
    let faces = settings
        .admin
        .iter()
        .map(|admin| admin.bind)
        .chain(settings.probes);
    binds
        .chain(faces)
        .filter(|address| address.port() != 0)
        .for_each(|address| own.add(address));
    let mut asked = JoinSet::new();
    for (at, one) in settings.upstreams.iter().enumerate() {
        let (settings, one, own) = (settings.clone(), one.clone(), own.clone());
        asked.spawn(async move { (at, upstream(&settings, &one, &own).await) });
    }
    let mut answers = Vec::new();
    while let Some(answer) = asked.join_next().await {
        answers.extend(answer.ok());
    }
    answers.sort_by_key(|(at, _)| *at);
    let mut furthest: Option<(Duration, Arc<str>)> = None;
    for (at, (checks, off)) in answers {
        all.extend(checks);
        if let Some(off) = off.filter(|off| furthest.as_ref().is_none_or(|(most, _)| off > most)) {
            furthest = Some((off, Arc::clone(&settings.upstreams[at].name)));
        }
    }
    all.push(match furthest {
        None => Check::new("clock", "", State::Warn, "not compared: no upstream said what time it is"),
        Some((off, _)) if off <= CLOCK_OFF_MAX => {
            Check::new("clock", "", State::Ok, "as the upstreams' clocks, by their Date")
        }
        Some((off, name)) => {
            let what = format!("{} s off from the clock of the upstream `{name}`", off.as_secs());
            Check::new("clock", "", State::Warn, what)
                .hint("have the clock set (chrony, systemd-timesyncd): certificates and logins expire by it")
        }
    });
}

/// How it stands with one, and how far its clock is off.
async fn upstream(
    settings: &Settings,
    one: &settings::Upstream,
    own: &OwnAddresses,
) -> (Vec<Check>, Option<Duration>) {
    let check = |state, what: String| {
        let state = match (state, used(settings, &one.name)) {
            // Nothing goes there.
            (State::Fail, false) => State::Warn,
            (state, _) => state,
        };
        Check::new(
            "upstream",
            &*one.name,
            state,
            format!("{}: {what}", one.url),
        )
    };
    let identity = match &one.identity {
        None => None,
        Some(files) => match Certificate::read(format!("upstream {}", one.name), files.clone()) {
            Ok(certificate) => Some(certificate.identity()),
            // Told with the certificates.
            Err(_) => {
                return (
                    vec![check(State::Fail, "its certificate is no good".to_owned())],
                    None,
                );
            }
        },
    };
    let built = match prepare::upstream(one, identity, settings, own) {
        Ok(built) => built,
        Err(error) => return (Check::failed("upstream", &one.name, &error), None),
    };
    let request = Request::builder()
        .method(Method::HEAD)
        .uri("/")
        .body(Body::empty());
    let request = match request {
        Ok(request) => request,
        Err(error) => return (vec![check(State::Fail, error.to_string())], None),
    };
    let deadline = Instant::now() + one.connect + ANSWER_WITHIN;
    let answer = match built.send(request, &Progress::default(), deadline).await {
        Ok(answer) => answer,
        Err(error) => {
            let note = match error.note() {
                "" => String::new(),
                note => format!(" ({note})"),
            };
            let row = error.code().row();
            // The time to connect has a code of its own.
            let late = matches!(error.code(), Code::ExchangeTimeout | Code::UpstreamTimeout);
            let check = match late {
                true => check(
                    State::Warn,
                    "connected, and no answer to HEAD / in time".to_owned(),
                ),
                false => check(State::Fail, format!("{}: {}{note}", row.word, row.title)),
            };
            return (vec![check.hint(hint(error.code()))], None);
        }
    };
    let how = if one.url.tls {
        "its certificate is good, and it"
    } else {
        "it"
    };
    let what = format!("{how} answers HEAD / with {}", answer.status().as_u16());
    let date = answer.headers().get(header::DATE);
    let date = date.and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    (vec![check(State::Ok, what)], date.map(off))
}

fn used(settings: &Settings, name: &Arc<str>) -> bool {
    settings
        .listeners
        .iter()
        .any(|listener| match &listener.upstream {
            Destination::One(one) => one == name,
            Destination::ByHost(hosts) => hosts.iter().any(|(_, one)| one == name),
            // Where requests go, they say.
            Destination::Any(_) => true,
        })
}

fn off(date: SystemTime) -> Duration {
    let now = SystemTime::now();
    now.duration_since(date)
        .unwrap_or_else(|behind| behind.duration())
}

fn hint(code: Code) -> &'static str {
    match code {
        Code::UpstreamTls => {
            "does `tls.ca` vouch for it, is the certificate for this host and not expired, and does it want one of the agent?"
        }
        Code::UpstreamUnresolved => {
            "is the host written rightly, and does a name server know it here?"
        }
        Code::UpstreamForbidden => {
            "an agent never connects there: see `limits.loopback_upstreams`, and whether it is its own listener"
        }
        Code::UpstreamUnreachable | Code::UpstreamConnectTimeout => {
            "is it up, is the port right, and does a firewall let this machine through?"
        }
        Code::UpstreamTimeout | Code::ExchangeTimeout => {
            "is it busy, or something between that takes connections for it?"
        }
        _ => "does it speak HTTP at this port, with TLS if the URL says https?",
    }
}
