//! Where this agent stands: listeners, upstreams, KMSs, keys, limits. Flags go over environment over file over defaults.
//!
//! What was written becomes [`Settings`] in one fallible step that collects all findings ([`Settings::load`]). The result is
//! plain checked data: every name refers to something, every number is within its bounds. It reads no file except through
//! the function that it is given, and never a secret: it says where each secret is, and the roof fetches it.

mod checked;
mod edges;
mod effective;
mod keys;
mod kms;
mod limits;
mod overlay;
pub mod schema;
mod store;
#[cfg(test)]
mod tests;
mod upstream;
mod ways;
mod written;

use crate::diagnostic::{Diagnostic, Source, Span, did_you_mean, quoted};
use crate::intercept::Names;
use crate::keys::Need;
use crate::marked::{self, Findings, Node};
use crate::policy::HostPattern;
use checked::Purpose;
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use crate::upstream::Speak;
pub use edges::Bind;
pub use effective::{Origin, Shown, Step, Word, common, name};
pub use kms::{
    Aws, Azure, AzureAuth, Gcp, GcpLogin, Keyring, Kms, Pkcs11, Provider, Transit, TransitAuth,
};
pub use upstream::Url;
pub(crate) use written::socket_address;

/// The environment variable with the admin API's bearer token itself.
pub const ADMIN_TOKEN_VARIABLE: &str = "FIELDVEIL_ADMIN_TOKEN";
/// The environment variable with the keyring's passphrase itself.
pub const PASSPHRASE_VARIABLE: &str = "FIELDVEIL_KEYRING_PASSPHRASE";
/// The KMS that `--data-dir` makes.
pub const LOCAL_KMS: &str = "local";

/// What flags and environment variables say. They are texts still, and win over the file.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Overrides {
    /// The settings file; `None`: flags and defaults alone.
    pub config: Option<PathBuf>,
    /// The environment of the policies.
    pub environment: Option<String>,
    /// The only listener's address and port.
    pub listen: Option<String>,
    /// The only upstream's URL.
    pub upstream: Option<String>,
    /// A file of PEM certificates, for the only upstream.
    pub upstream_ca: Option<PathBuf>,
    /// A directory of policies; excludes `seal` and `open`.
    pub policies: Option<PathBuf>,
    /// `PATH[=CLASS]` each, as [`crate::policy::Policy::from_flags`] takes them.
    pub seal: Vec<String>,
    /// A JSONPath each, likewise.
    pub open: Vec<String>,
    /// Where an embedded keyring, and the admin token, are kept and made; excludes `kms` in the file.
    pub data_dir: Option<PathBuf>,
    /// The admin API's address and port.
    pub admin: Option<String>,
    /// The probes' address and port.
    pub probes: Option<String>,
    /// Wins over `log.format`.
    pub log_format: Option<LogFormat>,
    /// Wins over `log.level`.
    pub log_level: Option<LogLevel>,
    /// [`ADMIN_TOKEN_VARIABLE`] is set.
    pub admin_token_in_environment: bool,
    /// [`PASSPHRASE_VARIABLE`] is set.
    pub passphrase_in_environment: bool,
}

/// Everything that one agent is told, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Selects an environment in the policies.
    pub environment: Option<Arc<str>>,
    /// What is enforced.
    pub policy: PolicySource,
    /// How changes of it are met.
    pub reload: Reload,
    /// At least one, unless they were not asked for ([`Settings::load_without_listeners`]).
    pub listeners: Vec<Listener>,
    /// Each is used by a listener or not; names are unique.
    pub upstreams: Vec<Upstream>,
    /// At least one; names are unique.
    pub kms: Vec<Kms>,
    /// Names are unique.
    pub keys: Vec<Key>,
    /// The KMS of keys that `keys` does not name, under their own names; only where `--data-dir` stands for all of it.
    pub other_keys: Option<Arc<str>>,
    /// Where wrapped data keys are kept; `None`: in the tokens.
    pub store: Option<Store>,
    /// The agent's own CA; there is one where a listener is a forward proxy.
    pub ca: Option<OwnCa>,
    /// The mark of sockets to upstreams, by which `fieldveil redirect --mark` knows them (SO_MARK).
    pub mark: Option<u32>,
    /// `None`: no admin API.
    pub admin: Option<Admin>,
    /// Where `/livez`, `/readyz` and `/metrics` are served without a token; `None`: nowhere.
    pub probes: Option<SocketAddr>,
    /// What bodies, requests and connections may take.
    pub limits: Limits,
    /// What is logged, and how.
    pub log: Log,
}

/// Where the policies come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicySource {
    /// All `*.yaml` files below it.
    Directory(PathBuf),
    /// `--seal` and `--open`.
    Flags {
        /// `PATH[=CLASS]` each.
        seal: Vec<String>,
        /// A JSONPath each.
        open: Vec<String>,
    },
}

/// How the running agent meets changed policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    /// Whether a policy that protects less than the one in force, or orphans its tokens, may take its place.
    pub allow_weaker: bool,
    /// Between two looks at the files.
    pub look_every: Duration,
}

impl Default for Reload {
    fn default() -> Reload {
        Reload {
            allow_weaker: false,
            look_every: Duration::from_secs(5),
        }
    }
}

/// A listener: everything that arrives goes to its upstream, to the one that is for the request's host, or to whatever it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// In records and metrics; unique.
    pub name: Arc<str>,
    /// Where it listens.
    pub bind: Bind,
    /// Where requests go.
    pub upstream: Destination,
    /// TLS on every connection, with this certificate.
    pub tls: Option<TlsFiles>,
    /// Certificates of clients are asked for.
    pub client_ca: Option<ClientCa>,
    /// Whether HTTP/2 is spoken, too.
    pub http2: bool,
}

/// Where a listener's requests go, by names of upstreams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// All to one.
    One(Arc<str>),
    /// By the host that a request is for; one for none of these is refused. Not empty.
    ByHost(Vec<(HostPattern, Arc<str>)>),
    /// Wherever a request says, or its connection was going: it is a forward proxy, or transparent.
    Any(Forward),
}

/// What a forward proxy, or a transparent listener, has besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Hosts that no policy names are refused.
    pub covered_only: bool,
    /// A file with `user:password` lines: who may use it.
    pub credentials: Option<PathBuf>,
    /// Whether this machine's own addresses may be reached.
    pub loopback: bool,
    /// It is transparent instead: connections come redirected. What becomes of those on which the server speaks first.
    pub transparent: Option<Silent>,
}

/// What becomes of a redirected connection whose client says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Silent {
    /// It is closed in time.
    #[default]
    Refuse,
    /// It is passed on as soon as the server speaks.
    Tunnel,
}

/// The agent's own CA: where its certificate and key are, and whom it may vouch for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCa {
    /// In PEM.
    pub files: TlsFiles,
    /// As in the certificate's name constraints.
    pub names: Names,
}

impl OwnCa {
    /// The files in a directory that the CA has for itself.
    pub fn files_in(dir: &Path) -> TlsFiles {
        TlsFiles {
            cert: dir.join("ca.pem"),
            key: dir.join("ca.key"),
        }
    }
}

impl Destination {
    /// The names of the upstreams, in the order of the file; one may come twice.
    pub fn names(&self) -> Vec<&Arc<str>> {
        match self {
            Destination::One(name) => vec![name],
            Destination::ByHost(hosts) => hosts.iter().map(|(_, name)| name).collect(),
            Destination::Any(_) => Vec::new(),
        }
    }

    /// What a forward proxy has besides, where it is one.
    pub fn forward(&self) -> Option<&Forward> {
        match self {
            Destination::Any(forward) => Some(forward),
            Destination::One(_) | Destination::ByHost(_) => None,
        }
    }
}

/// Whose certificates a listener takes from its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCa {
    /// A file of PEM with the authorities' certificates.
    pub file: PathBuf,
    /// A client without a certificate is turned away.
    pub required: bool,
}

/// A certificate chain and its private key, each in a file of PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the end's certificate first.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// A service behind the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Unique; listeners refer to it.
    pub name: Arc<str>,
    /// Where requests go.
    pub url: Url,
    /// Used for https alone.
    pub ca: Ca,
    /// Shown to an upstream that asks for it; used for https alone.
    pub identity: Option<TlsFiles>,
    /// In which version of HTTP.
    pub speak: Speak,
    /// To the end of the TLS handshake.
    pub connect: Duration,
    /// From the request's end to the response's head.
    pub response: Duration,
    /// How long an unused connection is kept; by default that hangs on the version of HTTP.
    pub idle: Option<Duration>,
}

/// Who vouches for an upstream's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Ca {
    /// The operating system's store.
    #[default]
    System,
    /// A file of PEM certificates, instead of the system's.
    File(PathBuf),
}

/// What the keyring's master keys are encrypted under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unlock {
    /// A file of 32 bytes, or of 64 hexadecimal digits.
    KeyFile(PathBuf),
    /// Stretched by Argon2id.
    Passphrase(Secret),
}

/// Where a secret is; never the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// A file.
    File(PathBuf),
    /// The name of an environment variable.
    Environment(Cow<'static, str>),
}

/// What is behind a key name of the policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// As the policies' classes name it.
    pub name: Arc<str>,
    /// What wraps new DEKs: 1 to 4.
    pub seal_with: Vec<Kek>,
    /// How many of them it takes.
    pub need: Need,
    /// KEKs whose tokens open, too.
    pub open_also: Vec<Kek>,
    /// How long a plaintext DEK may stay in memory without the KMS agreeing again.
    pub lease: Duration,
    /// How much longer while the KMS cannot be reached.
    pub grace: Duration,
    /// How long a DEK may seal.
    pub rotate: Duration,
}

/// A key-encryption key: `kms/kek` in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kek {
    /// The name of one of the KMSs.
    pub kms: Arc<str>,
    /// Its name there, of the kind that its provider has.
    pub kek: Arc<str>,
}

/// Where wrapped data keys are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Which, and where it is.
    pub kind: StoreKind,
    /// For one call to it.
    pub deadline: Duration,
}

/// Which store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// A file, for the agents of one machine.
    Embedded {
        /// Private to the agent's user.
        file: PathBuf,
    },
    /// PostgreSQL, for a fleet.
    Postgres {
        /// A file with the database's URL.
        url_file: PathBuf,
        /// Who vouches for its certificate.
        ca: Ca,
        /// Whether TLS is spoken; `None`: wherever the database is not on this machine.
        tls: Option<bool>,
    },
}

/// The admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens.
    pub bind: SocketAddr,
    /// The bearer token, wanted on a loopback address, too.
    pub token: Secret,
    /// Make the token's file where there is none (`--data-dir`).
    pub initialise: bool,
}

/// An agent's bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a matched body that are held at most.
    pub held_body: usize,
    /// Bytes of all bodies that are held at a time.
    pub held_total: usize,
    /// Bytes of one record of a stream: a line, an event.
    pub record: usize,
    /// Bytes that a JSON document which is too large to be held keeps undecided while it is rewritten in pieces; 0: none is.
    pub window: usize,
    /// Uncached records that one body may ask the KMS for.
    pub keys_per_body: usize,
    /// Tenants without a data key that may get one, per second and key; twenty times as many at once.
    pub new_tenants: usize,
    /// Requests at once.
    pub in_flight: usize,
    /// Connections at once.
    pub connections: usize,
    /// Requests at once on one connection of HTTP/2.
    pub streams: u32,
    /// How long requests in flight may go on after SIGTERM.
    pub drain: Duration,
    /// From accept, or from a later head's first byte, to the complete head.
    pub head_timeout: Duration,
    /// A connection without a request.
    pub idle_timeout: Duration,
    /// For the next byte of a request's body.
    pub body_timeout: Duration,
    /// Bytes in each second that a request's body is waited for.
    pub body_rate: u64,
    /// For the client to take the next byte of an answer.
    pub write_timeout: Duration,
    /// For the next piece of an answer that streams.
    pub answer_timeout: Duration,
    /// From a request's head to its answer's last byte.
    pub exchange_timeout: Duration,
    /// A tunnel, behind an upgrade, in which nothing moves for so long is closed.
    pub tunnel_idle: Duration,
    /// Whether an upstream may be at a loopback address.
    pub loopback_upstreams: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            held_body: 8 << 20,
            held_total: 256 << 20,
            record: 1 << 20,
            window: 2 << 20,
            keys_per_body: 256,
            new_tenants: 50,
            in_flight: 1024,
            connections: 10_000,
            streams: 128,
            drain: Duration::from_secs(30),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(360),
            body_timeout: Duration::from_secs(30),
            body_rate: 240,
            write_timeout: Duration::from_secs(60),
            answer_timeout: Duration::from_secs(300),
            exchange_timeout: Duration::from_secs(3600),
            tunnel_idle: Duration::from_secs(600),
            loopback_upstreams: true,
        }
    }
}

/// The agent's own log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The shape of a line.
    pub format: LogFormat,
    /// The least weight that is logged.
    pub level: LogLevel,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How much is logged: this and all before it. No level shows a value, key, body or query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    /// Something failed, and somebody has to act.
    Error,
    /// Something is wrong, and the agent goes on.
    Warn,
    /// One line an access, and what the agent does as a whole.
    #[default]
    Info,
    /// Single steps.
    Debug,
    /// Everything, that of libraries included.
    Trace,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        })
    }
}

/// A file as it was read.
type Written = (Source, Node);

impl Settings {
    /// Reads the file that the overrides name, if any, lays the overrides over it, and checks all of it.
    ///
    /// Relative paths in the file are relative to its directory; those of flags to the working directory.
    ///
    /// Errors: everything that is wrong, never empty; an unreadable file is one finding.
    pub fn load(
        overrides: &Overrides,
        read: impl Fn(&Path) -> io::Result<String>,
    ) -> Result<Settings, Vec<Diagnostic>> {
        Settings::load_for(Purpose::Agent, overrides, read)
    }

    /// As [`Settings::load`], for what needs policies and keys and carries no traffic: listeners may be missing.
    ///
    /// Errors: as there.
    pub fn load_without_listeners(
        overrides: &Overrides,
        read: impl Fn(&Path) -> io::Result<String>,
    ) -> Result<Settings, Vec<Diagnostic>> {
        Settings::load_for(Purpose::Keys, overrides, read)
    }

    fn load_for(
        purpose: Purpose,
        overrides: &Overrides,
        read: impl Fn(&Path) -> io::Result<String>,
    ) -> Result<Settings, Vec<Diagnostic>> {
        Settings::read(purpose, overrides, read).map(|(settings, _)| settings)
    }

    /// The settings, and the file that was read.
    fn read(
        purpose: Purpose,
        overrides: &Overrides,
        read: impl Fn(&Path) -> io::Result<String>,
    ) -> Result<(Settings, Option<Written>), Vec<Diagnostic>> {
        let Some(config) = &overrides.config else {
            let source = Source::new("command line", "");
            let mut findings = Findings::new(&source);
            let settings = checked::check(
                written::SettingsFile::default(),
                overrides,
                purpose,
                false,
                &mut findings,
            );
            return Ok((finish(settings, findings, &source)?, None));
        };
        let source = source(config, read)?;
        let root = marked::parse(&source)?;
        let mut findings = Findings::new(&source);
        let base = config.parent().unwrap_or(Path::new(""));
        let settings = written::read(&root, base, &mut findings)
            .and_then(|file| checked::check(file, overrides, purpose, true, &mut findings));
        let settings = finish(settings, findings, &source)?;
        Ok((settings, Some((source, root))))
    }

    /// The agent's own CA as a file says: for what makes or shows it, before anything else need be there.
    ///
    /// Errors: what is wrong with the file's words; what they mean together is not looked at.
    pub fn load_own_ca(
        config: &Path,
        read: impl Fn(&Path) -> io::Result<String>,
    ) -> Result<Option<OwnCa>, Vec<Diagnostic>> {
        let file = Settings::words(config, read)?;
        Ok(file.and_then(|file| file.ca))
    }

    /// Where the probes are as a file says, for who asks them; `None`: nowhere.
    ///
    /// Errors: as [`Settings::load_own_ca`].
    pub fn load_probes(
        config: &Path,
        read: impl Fn(&Path) -> io::Result<String>,
    ) -> Result<Option<SocketAddr>, Vec<Diagnostic>> {
        let file = Settings::words(config, read)?;
        Ok(file.and_then(|file| file.probes).map(|probes| probes.value))
    }

    /// What a file says, word by word.
    fn words(
        config: &Path,
        read: impl Fn(&Path) -> io::Result<String>,
    ) -> Result<Option<written::SettingsFile>, Vec<Diagnostic>> {
        let source = source(config, read)?;
        let root = marked::parse(&source)?;
        let mut findings = Findings::new(&source);
        let base = config.parent().unwrap_or(Path::new(""));
        let file = written::read(&root, base, &mut findings);
        findings.finish()?;
        Ok(file)
    }

    /// Nothing is made where it is not there: for what looks, or opens.
    #[must_use]
    pub fn making_nothing(mut self) -> Settings {
        for kms in &mut self.kms {
            if let Provider::Keyring(keyring) = &mut kms.provider {
                keyring.initialise = false;
            }
        }
        if let Some(admin) = &mut self.admin {
            admin.initialise = false;
        }
        self
    }

    /// The upstream of this name.
    pub fn upstream(&self, name: &str) -> Option<&Upstream> {
        self.upstreams
            .iter()
            .find(|upstream| *upstream.name == *name)
    }

    /// What is behind the key names that the policies use ([`crate::policy::Policies::keys`]), in their order.
    ///
    /// Errors: a key that the settings do not have.
    pub fn keys_for(&self, names: &[Arc<str>]) -> Result<Vec<Key>, Vec<Diagnostic>> {
        let mut keys = Vec::new();
        let mut missing = Vec::new();
        for name in names {
            let known = self.keys.iter().find(|key| key.name == *name).cloned();
            let implied = || self.other_keys.as_ref().map(|kms| Key::at(name, kms));
            match known.or_else(implied) {
                Some(key) => keys.push(key),
                None => {
                    let message = format!(
                        "a policy uses the key {}, and the settings have none of this name",
                        quoted(name)
                    );
                    let hint = did_you_mean(name, self.keys.iter().map(|key| &*key.name))
                        .unwrap_or_else(|| {
                            format!("add it: keys: {{{name}: {{seal_with: [KMS/KEK]}}}}")
                        });
                    missing.push(
                        Source::new("settings", "")
                            .diagnostic("missing-key", Span::default(), message)
                            .hint(hint)
                            .without_line(),
                    );
                }
            }
        }
        if missing.is_empty() {
            Ok(keys)
        } else {
            Err(missing)
        }
    }
}

impl Key {
    /// A key of default clocks, sealed with the KEK of its own name.
    fn at(name: &Arc<str>, kms: &Arc<str>) -> Key {
        Key {
            name: Arc::clone(name),
            seal_with: vec![Kek {
                kms: Arc::clone(kms),
                kek: Arc::clone(name),
            }],
            need: Need::default(),
            open_also: Vec::new(),
            lease: LEASE_DEFAULT,
            grace: GRACE_DEFAULT,
            rotate: ROTATE_DEFAULT,
        }
    }
}

/// How long a plaintext DEK stays without the KMS agreeing again, unless a key says otherwise.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(10 * 60);
/// How long a DEK lives on while its KMS cannot be reached, unless a key says otherwise.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(15 * 60);
/// How long a DEK seals, unless a key says otherwise.
pub const ROTATE_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);

/// The file, read.
fn source(
    config: &Path,
    read: impl Fn(&Path) -> io::Result<String>,
) -> Result<Source, Vec<Diagnostic>> {
    let name = config.display().to_string();
    match read(config) {
        Ok(text) => Ok(Source::new(&name, &text)),
        Err(error) => {
            let message = format!("cannot be read: {error}");
            let found = Source::new(&name, "").diagnostic("unreadable", Span::default(), message);
            Err(vec![found.without_line()])
        }
    }
}

fn finish(
    settings: Option<Settings>,
    findings: Findings<'_>,
    source: &Source,
) -> Result<Settings, Vec<Diagnostic>> {
    match (settings, findings.finish()) {
        (Some(settings), Ok(())) => Ok(settings),
        (_, Err(found)) => Err(found),
        // A reader that gives up has said why; this is for a reader that forgot to.
        (None, Ok(())) => Err(vec![source.diagnostic(
            "bad-settings",
            Span::default(),
            "these are no settings",
        )]),
    }
}
