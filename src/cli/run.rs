//! `fieldveil run`: an agent from settings, until it is told to end.
//!
//! SIGTERM and SIGINT end it in order; a second one at once. SIGHUP has it read its policies again.

use super::{Exit, Output, RunArgs, colour, trouble};
use crate::app::reload::Trigger;
use crate::app::{App, Given, Running, StartError};
use crate::diagnostic::Diagnostic;
use crate::settings::{LogFormat, LogLevel, Settings};
use crate::telemetry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::level_filters::LevelFilter;

/// Bytes of a settings file that are read at most.
const SETTINGS_BYTES_MAX: u64 = 1 << 20;
/// How long what still blocks a thread may take when everything else has ended.
const LAST_THREADS: Duration = Duration::from_millis(500);

/// The settings that flags, environment and file come to, for what carries no traffic.
pub(super) fn settings_without_listeners(args: RunArgs) -> Result<Settings, Vec<Diagnostic>> {
    Settings::load_without_listeners(&args.overrides(is_set), read).map(Settings::making_nothing)
}

pub(super) fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

/// Runs an agent to its end.
pub fn run(args: RunArgs, output: Output) -> Exit {
    let settings = match Settings::load(&args.overrides(is_set), read) {
        Ok(settings) => settings,
        Err(found) => return trouble::not_started(&StartError::Findings(found), output),
    };
    let lines = match telemetry::start(log(&settings)) {
        Ok(lines) => lines,
        Err(error) => return trouble::not_started(&StartError::System("no log", error), output),
    };
    raise_file_limit();
    let given = Given {
        lines_dropped: Some(Box::new(lines.dropped())),
        ..Given::default()
    };
    on_a_runtime(output, async {
        let mut signals = Signals::new()?;
        // From now on it does not end the program: one that comes too early waits.
        let mut hangup = listen(SignalKind::hangup())?;
        let started = tokio::select! {
            biased;
            () = signals.next() => return Ok(Exit::Success),
            started = App::start(settings, given) => started?,
        };
        let asking = async {
            while hangup.recv().await.is_some() {
                started.ask_to_reload(Trigger::Signal);
            }
        };
        tokio::select! {
            () = signals.next() => {}
            () = asking => {}
        }
        Ok(signals.end(started).await)
    })
}

/// Runs this to its end on a runtime of its own; why it did not start is told.
pub(super) fn on_a_runtime(
    output: Output,
    story: impl Future<Output = Result<Exit, StartError>>,
) -> Exit {
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            return trouble::not_started(&StartError::System("no threads", error), output);
        }
    };
    let ended = runtime.block_on(story);
    runtime.shutdown_timeout(LAST_THREADS);
    ended.unwrap_or_else(|error| trouble::not_started(&error, output))
}

/// The signals that end the program.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on they do not end it by themselves. Errors: the system refuses.
    pub fn new() -> Result<Signals, StartError> {
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// One of them came.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Ends an agent in order, or at the next one at once.
    async fn end(&mut self, running: Running) -> Exit {
        tokio::select! {
            () = running.drain() => Exit::Success,
            () = self.next() => {
                tracing::warn!("told twice to end: what was in flight is cut off");
                Exit::Interrupted
            }
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal, StartError> {
    signal(kind).map_err(|error| StartError::System("signals", error))
}

/// A settings file, bounded.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(SETTINGS_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > SETTINGS_BYTES_MAX {
        return Err(io::Error::other(format!(
            "it is over {SETTINGS_BYTES_MAX} bytes long"
        )));
    }
    Ok(text)
}

fn log(settings: &Settings) -> telemetry::Settings {
    telemetry::Settings {
        json: settings.log.format == LogFormat::Json,
        level: match settings.log.level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        },
        colour: colour(&io::stderr()),
    }
}

/// Each connection is one file for the application and perhaps one for the upstream; many systems allow a process 1024
/// unless it asks for what it may have.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}
