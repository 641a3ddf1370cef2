//! The one room that wires the others together: from settings to an agent that listens, and back to nothing.
//!
//! [`App::start`] reads what is to be read, binds what is to be bound, and returns a [`Running`] agent; [`Running::drain`]
//! ends it in order. Whoever starts it (`fieldveil run`, the demonstration, a test) brings the runtime and the log. It has
//! no part in what happens to a request.

mod certificates;
mod check;
mod checkup;
pub mod forward;
mod keyroom;
mod places;
pub mod policies;
mod prepare;
mod providers;
pub mod reload;
mod secrets;
pub mod stores;
mod trouble;
mod warming;

pub use check::{Checked, Outcome, check_kms};
pub use checkup::{Check, State, checkup};
pub use keyroom::KeyRoom;
pub use trouble::StartError;

use crate::admin::{self, Readiness, Reloaded};
use crate::body::Body;
use crate::body::pace::Rate;
use crate::keys::{self, Keys};
use crate::kms::Kms;
use crate::listener::{self, Gauges, Listener, Patience, Socket};
use crate::metrics::{Listening, Metrics, Reading};
use crate::policy::Policies;
use crate::proxy::{self, Proxy};
use crate::settings::{self, Bind, Destination, PolicySource, Settings};
use crate::tls::{Clients, Identity};
use crate::upstream::{OwnAddresses, Upstream, Upstreams};
use forward::Forwarding;
use prepare::{Prepared, prepare};
use reload::{Reloader, Reloading, Trigger};
use rustix::process::{Resource, getrlimit};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Files that are open for other things than connections of the application and to upstreams.
const OTHER_FILES: usize = 32;
/// The name of the check that fails from the moment an agent is told to end.
const DRAINING: &str = "draining";

/// What the caller has at hand, instead of what the settings name.
#[derive(Default)]
pub struct Given {
    /// Instead of those of the settings.
    pub policies: Option<Policies>,
    /// KMSs by the names that the settings' keys use.
    pub kms: Vec<(Arc<str>, Arc<dyn Kms>)>,
    /// Lines of the log that were dropped, for the metrics.
    pub lines_dropped: Option<Box<dyn Fn() -> u64 + Send + Sync>>,
}

/// The agent that is not running yet.
pub struct App;

impl App {
    /// Starts an agent. When this returns, it listens; its keys are asked for in the background, and `/readyz` tells.
    ///
    /// # Errors
    /// What is wrong with settings, policies or keys, or that an address is taken. Then nothing is left running.
    pub async fn start(settings: Settings, given: Given) -> Result<Running, StartError> {
        // Files and passphrases first, off the async threads.
        let own = OwnAddresses::default();
        let known_to_upstreams = own.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            let mut given = given;
            let from_files = given.policies.is_none();
            let prepared = prepare(&settings, &mut given, &known_to_upstreams)?;
            Ok::<_, StartError>((settings, given, prepared, from_files))
        });
        let (settings, given, prepared, from_files) = prepared
            .await
            .map_err(|error| StartError::System("the start was cut off", error.into()))??;

        // Then all sockets, so that a taken port ends it before a request is accepted. The data path knows them.
        let sockets = Sockets::bind(&settings, &own).await?;

        // Then what runs.
        let paths = match &settings.policy {
            PolicySource::Directory(directory) if from_files => Some(vec![directory.clone()]),
            _ => None,
        };
        Running::begin(&settings, given, prepared, sockets, paths)
    }
}

struct Sockets {
    /// In the order of the settings' listeners.
    listeners: Vec<Socket>,
    admin: Option<TcpListener>,
    probes: Option<TcpListener>,
}

impl Sockets {
    async fn bind(settings: &Settings, own: &OwnAddresses) -> Result<Sockets, StartError> {
        let mut listeners = Vec::with_capacity(settings.listeners.len());
        for listener in &settings.listeners {
            let who = format!("listener {}", listener.name);
            listeners.push(match &listener.bind {
                Bind::Tcp(address) => Socket::Tcp(bind(who, *address, own).await?),
                Bind::Unix { path, mode } => {
                    Socket::unix(path, *mode).map_err(|error| StartError::Path {
                        who,
                        path: path.clone(),
                        error,
                    })?
                }
            });
        }
        let admin = match &settings.admin {
            Some(admin) => Some(bind("admin".to_owned(), admin.bind, own).await?),
            None => None,
        };
        let probes = match settings.probes {
            Some(address) => Some(bind("probes".to_owned(), address, own).await?),
            None => None,
        };
        Ok(Sockets {
            listeners,
            admin,
            probes,
        })
    }
}

async fn bind(
    who: String,
    address: SocketAddr,
    own: &OwnAddresses,
) -> Result<TcpListener, StartError> {
    let bound = async {
        let socket = TcpListener::bind(address).await?;
        own.add(socket.local_addr()?);
        Ok(socket)
    };
    bound.await.map_err(|error| StartError::Address {
        who,
        address,
        error,
    })
}

/// An agent that runs. Dropped, it stops at once, in the middle of whatever it is doing.
pub struct Running {
    listeners: Vec<(Arc<str>, SocketAddr)>,
    admin: Option<SocketAddr>,
    probes: Option<SocketAddr>,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    keys: Keys,
    reloading: Reloading,
    draining: watch::Sender<bool>,
    stopping: watch::Sender<bool>,
    serving: JoinSet<()>,
    showing: JoinSet<()>,
    background: JoinSet<()>,
}

impl Running {
    fn begin(
        settings: &Settings,
        given: Given,
        prepared: Prepared,
        sockets: Sockets,
        paths: Option<Vec<PathBuf>>,
    ) -> Result<Running, StartError> {
        let Prepared {
            policies,
            keys,
            arena,
            random,
            store,
            upstreams,
            forward,
            identities,
            certificates,
            token,
        } = prepared;
        let metrics = Arc::new(Metrics::new());
        let opened: Vec<Arc<str>> = keys.iter().map(|key| Arc::clone(&key.name)).collect();
        let mut room = keys::Settings::new(keys, arena, random);
        room.keys_per_body_max = settings.limits.keys_per_body;
        room.newcomers_per_second = u32::try_from(settings.limits.new_tenants).unwrap_or(u32::MAX);
        room.observe = Arc::new(metrics.calls());
        room.store = store;
        if let Some(store) = &settings.store {
            room.store_deadline = store.deadline;
        }
        let keys = Keys::new(room).map_err(|error| {
            StartError::Settings(
                error.to_string(),
                "correct `keys` in the settings".to_owned(),
            )
        })?;

        let readiness = Arc::new(Readiness::default());
        readiness.pass("policy");
        readiness.pass(DRAINING);
        let roads = roads(settings, &policies, &keys, &metrics, &upstreams, &forward)?;
        let (reloading, reload) = Reloader {
            paths,
            stand: reload::Stand {
                settings: Arc::new(settings.clone()),
                opened: opened.into(),
                in_force: Arc::clone(&policies),
            },
            roads: roads.clone(),
            keys: keys.clone(),
            metrics: Arc::clone(&metrics),
            readiness: Arc::clone(&readiness),
        }
        .start();
        let (draining, drain) = watch::channel(false);
        let (stopping, stop) = watch::channel(false);
        let mut running = Running {
            listeners: Vec::new(),
            admin: None,
            probes: None,
            readiness: Arc::clone(&readiness),
            metrics: Arc::clone(&metrics),
            keys: keys.clone(),
            reloading: reloading.clone(),
            draining,
            stopping,
            serving: JoinSet::new(),
            showing: JoinSet::new(),
            background: JoinSet::new(),
        };
        running.background.spawn(reload);

        let connections = connections(settings);
        let mut gauges: Vec<(Arc<str>, Arc<Gauges>)> = Vec::new();
        let sockets_and_roads = sockets.listeners.into_iter().zip(roads);
        for (listener, (socket, (_, proxy))) in settings.listeners.iter().zip(sockets_and_roads) {
            let name = &listener.name;
            let serving = listening(settings, connections, listener, &identities, &forward);
            let serving = Listener::new(socket, proxy, serving).map_err(|error| {
                StartError::Settings(
                    error.to_string(),
                    format!("correct `tls` of the listener `{name}`"),
                )
            })?;
            let address = serving.address();
            let shown = address.map_or(listener.bind.to_string(), |address| address.to_string());
            tracing::info!(
                listener = &**name,
                address = %shown,
                upstream = %shown_upstreams(&listener.upstream),
                "listening"
            );
            gauges.push((Arc::clone(name), serving.gauges()));
            running
                .listeners
                .extend(address.map(|address| (Arc::clone(name), address)));
            running.serve(name, serving, drain.clone());
        }

        let refused = certificates::Refused::default();
        if !certificates.is_empty() {
            running
                .background
                .spawn(certificates::watch(certificates, Arc::clone(&refused)));
        }
        let (ready, dropped) = (Arc::clone(&readiness), given.lines_dropped);
        let policy = reloading.clone();
        metrics.watch(keys.clone(), move || Reading {
            listeners: gauges
                .iter()
                .map(|(name, gauges)| Listening {
                    name: Arc::clone(name),
                    connections: gauges.connections(),
                    requests: gauges.requests(),
                    accept_errors: gauges.accept_errors(),
                })
                .collect(),
            ready: ready.is_ready(),
            lines_dropped: dropped.as_ref().map_or(0, |dropped| dropped()),
            certificates_refused: refused.load(Relaxed),
            policy: policy.reading(),
        });

        let face = |admin| admin::Face {
            readiness: Arc::clone(&readiness),
            metrics: Arc::clone(&metrics),
            admin,
            reload: Some(Arc::new(reloading.clone())),
        };
        if let Some(socket) = sockets.probes {
            running.probes = Some(running.show("probes", socket, face(None), stop.clone())?);
        }
        if let (Some(socket), Some(token)) = (sockets.admin, token) {
            let face = face(Some((token, keys.clone())));
            running.admin = Some(running.show("admin", socket, face, stop)?);
        }
        for name in policies.keys() {
            running
                .background
                .spawn(warming::warm(keys.clone(), name, Arc::clone(&readiness)));
        }
        Ok(running)
    }

    fn serve(&mut self, name: &Arc<str>, listener: Listener, drain: watch::Receiver<bool>) {
        let check: Arc<str> = format!("listener:{name}").into();
        self.readiness.pass(Arc::clone(&check));
        let over = Over {
            check,
            readiness: Arc::clone(&self.readiness),
        };
        self.serving.spawn(async move {
            listener.serve(drain).await;
            drop(over);
        });
    }

    fn show(
        &mut self,
        who: &'static str,
        socket: TcpListener,
        face: admin::Face,
        stop: watch::Receiver<bool>,
    ) -> Result<SocketAddr, StartError> {
        let failed = |error| StartError::System("a socket", error);
        let server = admin::Server::new(socket, face).map_err(failed)?;
        let address = server.local_addr().map_err(failed)?;
        tracing::info!(listener = who, %address, "listening");
        self.showing.spawn(server.serve(stop));
        Ok(address)
    }

    /// Names and addresses of the listeners, as they were bound. One on a Unix socket has no address.
    pub fn listeners(&self) -> &[(Arc<str>, SocketAddr)] {
        &self.listeners
    }

    /// Where the admin API is.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Where the probes are.
    pub fn probes(&self) -> Option<SocketAddr> {
        self.probes
    }

    /// What stands in the way of readiness.
    pub fn readiness(&self) -> &Arc<Readiness> {
        &self.readiness
    }

    /// What was counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The key room.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Reads the policies again and puts them in force if they are good. None: the agent is about to end.
    pub async fn reload(&self, trigger: Trigger) -> Option<Reloaded> {
        self.reloading.reload(trigger).await
    }

    /// Has the policies read again, without waiting for what comes of it.
    pub fn ask_to_reload(&self, trigger: Trigger) {
        self.reloading.ask(trigger);
    }

    /// Ends in order: not ready any more, no new connections, the requests in flight finish (for `limits.drain` at
    /// most), the key room closes. Probes and the admin API go last. Nothing of it runs any more when this returns.
    pub async fn drain(mut self) {
        self.readiness
            .block(DRAINING, "told to end; what is in flight may finish");
        tracing::info!("draining");
        // Nobody listens any more only if nothing runs any more.
        let _ = self.draining.send(true);
        while self.serving.join_next().await.is_some() {}
        self.background.shutdown().await;
        self.keys.close().await;
        let _ = self.stopping.send(true);
        while self.showing.join_next().await.is_some() {}
        tracing::info!("ended");
    }
}

/// Says that a listener is gone, however it went.
struct Over {
    check: Arc<str>,
    readiness: Arc<Readiness>,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.readiness
            .block(Arc::clone(&self.check), "it does not listen any more");
    }
}

/// For the log: the upstreams' names, each once.
fn shown_upstreams(destination: &Destination) -> String {
    if destination.forward().is_some() {
        return "as requests name them".to_owned();
    }
    let mut names: Vec<&str> = destination.names().iter().map(|name| &***name).collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// By the listener's name.
type Roads = Vec<(Arc<str>, Arc<Proxy>)>;

/// What every listener's requests go through, by its name, in the order of the settings.
fn roads(
    settings: &Settings,
    policies: &Arc<Policies>,
    keys: &Keys,
    metrics: &Metrics,
    upstreams: &HashMap<Arc<str>, Upstream<Body>>,
    forward: &HashMap<Arc<str>, Forwarding>,
) -> Result<Roads, StartError> {
    let mut roads = Vec::new();
    for listener in &settings.listeners {
        let name = &listener.name;
        let named = |upstream: &Arc<str>| {
            upstreams.get(upstream).cloned().ok_or_else(|| {
                StartError::Settings(
                    format!("the listener `{name}` has no upstream `{upstream}`"),
                    "correct `listeners` in the settings".to_owned(),
                )
            })
        };
        let upstream = match &listener.upstream {
            Destination::One(one) => Upstreams::from(named(one)?),
            Destination::ByHost(hosts) => {
                let hosts = hosts
                    .iter()
                    .map(|(host, name)| Ok((host.clone(), named(name)?)));
                Upstreams::by_host(hosts.collect::<Result<_, StartError>>()?)
            }
            Destination::Any(_) => match forward.get(name) {
                Some(forward) => Upstreams::from(forward.targets.clone()),
                None => continue,
            },
        };
        let limits = proxy::Limits {
            held_body: settings.limits.held_body,
            held_total: settings.limits.held_total,
            record: settings.limits.record,
            window: settings.limits.window,
            in_flight: settings.limits.in_flight,
            body_rate: Rate {
                bytes_per_second: settings.limits.body_rate,
                ..proxy::Limits::default().body_rate
            },
            answer: settings.limits.answer_timeout,
            exchange: settings.limits.exchange_timeout,
            tunnel_idle: settings.limits.tunnel_idle,
            ..proxy::Limits::default()
        };
        let proxy = Proxy::new(
            Arc::clone(name),
            upstream,
            Arc::clone(policies),
            Arc::new(keys.clone()),
            limits,
            Arc::new(metrics.accesses(name, policies)),
        );
        let only = listener.upstream.forward();
        let proxy = match only.is_some_and(|forward| forward.covered_only) {
            true => proxy.covered_only(),
            false => proxy,
        };
        roads.push((Arc::clone(name), Arc::new(proxy)));
    }
    Ok(roads)
}

/// Connections of each listener: as many as the settings say, or as the system lets this process open files. Part of
/// those is kept for upstreams: a connection whose requests cannot be sent is worth nothing.
fn connections(settings: &Settings) -> usize {
    let wanted = settings.limits.connections;
    let Some(files) = getrlimit(Resource::Nofile).current else {
        return wanted;
    };
    let spare = usize::try_from(files).unwrap_or(usize::MAX);
    let spare = spare.saturating_sub(OTHER_FILES);
    let for_upstreams = settings.limits.in_flight.min(spare / 2);
    let fits = (spare - for_upstreams) / settings.listeners.len().max(1);
    if fits < wanted {
        tracing::warn!(
            connections = fits.max(1),
            files,
            "fewer connections than limits.connections: this process may not open more files"
        );
    }
    wanted.min(fits).max(1)
}

fn listening(
    settings: &Settings,
    connections: usize,
    listener: &settings::Listener,
    identities: &HashMap<Arc<str>, (Identity, Option<Clients>)>,
    forward: &HashMap<Arc<str>, Forwarding>,
) -> listener::Settings {
    let limits = &settings.limits;
    let tls = identities.get(&listener.name);
    let here = forward.get(&listener.name);
    listener::Settings {
        connections,
        patience: Patience {
            head: limits.head_timeout,
            idle: limits.idle_timeout,
            body: limits.body_timeout,
            write: limits.write_timeout,
            exchange: limits.exchange_timeout,
            ..Patience::default()
        },
        drain: limits.drain,
        tls: tls.map(|(identity, _)| identity.clone()),
        clients: tls.and_then(|(_, clients)| clients.clone()),
        http2: listener.http2,
        streams: limits.streams,
        forward: here.and_then(|one| one.forward()),
        transparent: here.and_then(|one| one.transparent()),
    }
}
