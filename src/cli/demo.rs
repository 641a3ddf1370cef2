//! `fieldveil demo`: the agent at work in one process, with keys in memory, a small order API behind it, and a picture of
//! what went in and what came out.
//!
//! It is the one place that prints bodies, and it says so when it starts. The agent in it is the agent: the picture is
//! taken from outside, by a relay before it (`tap`) and by the API behind it (`api`).

mod api;
mod message;
mod show;
mod tap;

use super::run::{Signals, on_a_runtime};
use super::{DemoArgs, Exit, Output, colour, trouble};
use crate::app::{App, Given, Running, StartError};
use crate::arena::Arena;
use crate::kms::keyring::Keyring;
use crate::kms::{Kms, os_random};
use crate::policy::{Policies, Policy};
use crate::settings::{
    Bind, Ca, Destination, Limits, Listener, Log, PolicySource, Reload, Settings, Speak, Upstream,
    Url,
};
use crate::telemetry;
use api::Api;
use show::Show;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::Duration;
use tap::{Exchange, Tap};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tracing::level_filters::LevelFilter;

const POLICY: &str = include_str!("demo/policy.yaml");
/// The name of the in-memory keyring, and of the KMS that it is.
const MEMORY: &str = "memory";
/// Any free port of this machine.
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// How long the last picture may take when the rest has ended.
const LAST_PICTURE: Duration = Duration::from_secs(1);

/// Runs the demonstration to its end.
pub fn run(args: &DemoArgs) -> Exit {
    let log = telemetry::Settings {
        json: false,
        level: LevelFilter::WARN,
        colour: colour(&io::stderr()),
    };
    let lines = match telemetry::start(log) {
        Ok(lines) => lines,
        Err(error) => {
            return trouble::not_started(&StartError::System("no log", error), Output::Text);
        }
    };
    let exit = on_a_runtime(Output::Text, async {
        let mut signals = Signals::new()?;
        let socket = match TcpListener::bind(args.listen).await {
            Ok(socket) => socket,
            Err(error) => return Ok(not_bound(args.listen, &error)),
        };
        play(socket, args.full, &mut signals).await
    });
    drop(lines);
    exit
}

fn not_bound(address: SocketAddr, error: &io::Error) -> Exit {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "stop what listens there, or choose another port: fieldveil demo --listen {}:{}",
            address.ip(),
            address.port().checked_add(1).unwrap_or(8080)
        ),
        _ => "choose another address with --listen".to_owned(),
    };
    trouble::say(&format!("cannot listen on {address}: {error}"), Some(&hint));
    Exit::Unavailable
}

async fn play(socket: TcpListener, full: bool, signals: &mut Signals) -> Result<Exit, StartError> {
    let system = |error| StartError::System("a socket", error);
    let (stop, stopping) = watch::channel(false);
    let api = Arc::new(Api::default());
    let behind = TcpListener::bind(ANYWHERE).await.map_err(system)?;
    let upstream = behind.local_addr().map_err(system)?;
    let serving = tokio::spawn(Arc::clone(&api).serve(behind, stopping.clone()));

    let running = start(upstream).await?;
    let agent = running
        .listeners()
        .first()
        .map_or(upstream, |(_, address)| *address);
    let address = socket.local_addr().map_err(system)?;

    // Pictures are drawn by a thread of their own: a terminal may be stopped.
    let (exchanges, drawn) = std_mpsc::channel();
    let (mut gone, over) = paint(
        drawn,
        Arc::clone(&api),
        opening(address, upstream, &running),
        full,
    );
    let relaying = tokio::spawn(Tap::new(agent, exchanges).serve(socket, stopping));

    tokio::select! {
        () = signals.next() => {}
        // Whoever looked is gone, as after `| head`.
        _ = &mut gone => {}
    }
    let _ = stop.send(true);
    let ended = async {
        running.drain().await;
        let _ = relaying.await;
        let _ = serving.await;
    };
    tokio::select! {
        () = ended => {
            // The thread draws what it has and ends, for nobody has anything more for it.
            let _ = tokio::task::spawn_blocking(move || over.recv_timeout(LAST_PICTURE)).await;
            Ok(Exit::Success)
        }
        () = signals.next() => Ok(Exit::Interrupted),
    }
}

/// The agent, before `upstream`.
async fn start(upstream: SocketAddr) -> Result<Running, StartError> {
    let policies = Policies::new(vec![Policy::load(POLICY, "demo.yaml", None)?])?;
    let names = policies.keys();
    let keks: Vec<&str> = names.iter().map(|name| &**name).collect();
    let arena = Arena::new().map_err(|error| StartError::System("no memory for keys", error))?;
    let keyring: Arc<dyn Kms> = Arc::new(Keyring::in_memory(MEMORY, &keks, arena, os_random())?);
    let given = Given {
        policies: Some(policies),
        kms: vec![(MEMORY.into(), keyring)],
        ..Given::default()
    };
    App::start(settings(upstream), given).await
}

fn settings(upstream: SocketAddr) -> Settings {
    Settings {
        environment: None,
        policy: PolicySource::Flags {
            seal: Vec::new(),
            open: Vec::new(),
        },
        reload: Reload::default(),
        listeners: vec![Listener {
            name: "demo".into(),
            bind: Bind::Tcp(ANYWHERE),
            upstream: Destination::One("orders".into()),
            tls: None,
            client_ca: None,
            http2: true,
        }],
        upstreams: vec![Upstream {
            name: "orders".into(),
            url: Url {
                tls: false,
                host: upstream.ip().to_string(),
                port: upstream.port(),
            },
            ca: Ca::System,
            identity: None,
            speak: Speak::Either,
            connect: Duration::from_secs(5),
            response: Duration::from_secs(60),
            idle: None,
        }],
        kms: Vec::new(),
        keys: Vec::new(),
        store: None,
        ca: None,
        mark: None,
        other_keys: Some(MEMORY.into()),
        admin: None,
        probes: Some(ANYWHERE),
        limits: Limits {
            drain: Duration::from_secs(5),
            ..Limits::default()
        },
        log: Log::default(),
    }
}

/// What is said before anything happens.
fn opening(address: SocketAddr, upstream: SocketAddr, running: &Running) -> String {
    let host = match address.ip() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => format!("localhost:{}", address.port()),
        _ => address.to_string(),
    };
    let mut text = format!(
        "The agent listens on {address}; behind it, on {upstream}, is a small order API.\n\
         This demonstration prints the bodies that pass through it. The agent by itself never prints or logs one.\n\
         Its keys are in memory alone: what it seals cannot be opened any more when it has ended.\n\n\
         Try, in another terminal:\n\n  \
         curl -s {host}/orders -H 'content-type: application/json' \
         -d '{{\"name\":\"Ada\",\"ssn\":\"123-45-6789\",\"cards\":[{{\"number\":\"4111111111111111\"}}]}}'\n  \
         curl -s {host}/orders/1\n\n"
    );
    if let Some(probes) = running.probes() {
        let _ = writeln!(
            text,
            "See also: curl -s {probes}/readyz; curl -s {probes}/metrics"
        );
    }
    text.push_str("Ctrl-C ends it.\n\n");
    text
}

/// Draws on standard output, beginning with `opening`. The first of the returned tells that nobody looks any more, the
/// second that the last picture is drawn.
fn paint(
    exchanges: std_mpsc::Receiver<Exchange>,
    api: Arc<Api>,
    opening: String,
    full: bool,
) -> (oneshot::Receiver<()>, std_mpsc::Receiver<()>) {
    let (gone, is_gone) = oneshot::channel();
    let (over, is_over) = std_mpsc::channel();
    thread::spawn(move || {
        let out = io::stdout();
        let show = Show {
            colour: colour(&out),
            whole: full || !out.is_terminal(),
        };
        let print = |text: &str| {
            let mut out = out.lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        };
        let draw = || -> io::Result<()> {
            print(&opening)?;
            for (exchange, number) in exchanges.iter().zip(1..) {
                let seen = exchange.seen_as().and_then(|at| api.seen(at));
                print(&show.draw(number, &exchange, seen.as_ref()))?;
            }
            Ok(())
        };
        // Dropped after the last picture, the other end hears the same.
        if draw().is_err() {
            let _ = gone.send(());
        }
        let _ = over.send(());
    });
    (is_gone, is_over)
}

#[cfg(test)]
mod tests;
