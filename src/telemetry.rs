//! The log: one line per access and per event, as text or JSON, on standard error.
//!
//! What this crate says is logged at the level that the settings ask for. What other crates say is logged from `warn`
//! up, whatever that level is: their debug and trace events may hold addresses, headers and bytes of requests. There is
//! no switch for it, and `RUST_LOG` is not read.
//!
//! No value, key, body, path or query is in any event of this crate, and a panic is reported without its message, which
//! may hold what was being worked on. Lines are written by a thread of their own ([`lines`]): a blocked standard error
//! costs lines, which are counted, and never a request.

pub mod lines;

use lines::Lines;
use std::io;
use std::panic;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Subscriber;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, fmt};

/// How events become lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// One JSON object a line, instead of text.
    pub json: bool,
    /// The least important events of this crate that are logged.
    pub level: LevelFilter,
    /// Text with colours.
    pub colour: bool,
}

/// What is logged: this crate at `level`, all others from `warn` up.
fn filter(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("fieldveil", level)
}

/// Events as lines in `writer`.
pub fn subscriber<W>(settings: Settings, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = filter(settings.level);
    if settings.json {
        let layer = fmt::layer().json().flatten_event(true).with_writer(writer);
        Box::new(Registry::default().with(layer.with_filter(filter)))
    } else {
        let layer = fmt::layer().with_ansi(settings.colour).with_writer(writer);
        Box::new(Registry::default().with(layer.with_filter(filter)))
    }
}

/// Logs to standard error from now on, for the whole process. Lines are written until the returned value is dropped,
/// which waits for them a moment.
///
/// # Errors
/// There is a log already, or no thread to write it.
pub fn start(settings: Settings) -> io::Result<Lines> {
    let lines = Lines::new(io::stderr())?;
    tracing::subscriber::set_global_default(subscriber(settings, lines.writer()))
        .map_err(io::Error::other)?;
    panic::set_hook(Box::new(|panicked| {
        let place = panicked.location();
        tracing::error!(
            file = place.map(panic::Location::file),
            line = place.map(panic::Location::line),
            "a defect of this program: it panicked"
        );
    }));
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[track_caller]
    fn logged(settings: Settings) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        // With only one subscriber alive, an event that another test's thread meets first would be off for ever.
        let _second = tracing::Dispatch::new(tracing_subscriber::registry());
        tracing::subscriber::with_default(subscriber(settings, move || writer.clone()), || {
            tracing::trace!(target: "fieldveil::access", status = 200, "ours-trace");
            tracing::error!(target: "fieldveil", "ours-error");
            tracing::debug!(target: "hyper_util::client", "theirs-debug");
            tracing::trace!(target: "h2", "theirs-trace");
            tracing::warn!(target: "rustls", "theirs-warn");
            tracing::error!(target: "fieldveilish", "theirs-error");
        });
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    const TEXT: Settings = Settings {
        json: false,
        level: LevelFilter::TRACE,
        colour: false,
    };

    #[track_caller]
    fn check(level: LevelFilter, expected: &[&str]) {
        let log = logged(Settings { level, ..TEXT });
        for word in [
            "ours-trace",
            "ours-error",
            "theirs-debug",
            "theirs-trace",
            "theirs-warn",
            "theirs-error",
        ] {
            assert_eq!(
                log.contains(word),
                expected.contains(&word),
                "{level} {word}:\n{log}"
            );
        }
    }

    #[test]
    fn other_crates_are_heard_from_warn_up() {
        check(
            LevelFilter::TRACE,
            &["ours-trace", "ours-error", "theirs-warn", "theirs-error"],
        );
        check(
            LevelFilter::INFO,
            &["ours-error", "theirs-warn", "theirs-error"],
        );
        check(LevelFilter::ERROR, &["ours-error", "theirs-error"]);
    }

    #[test]
    fn json_is_one_object_a_line() {
        let log = logged(Settings { json: true, ..TEXT });
        let first: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
        assert_eq!(first["message"], "ours-trace");
        assert_eq!(first["status"], 200);
        assert_eq!(first["target"], "fieldveil::access");
        assert_eq!(log.lines().count(), 4);
    }

    #[test]
    fn colour_is_asked_for() {
        assert!(!logged(TEXT).contains('\x1b'));
        assert!(
            logged(Settings {
                colour: true,
                ..TEXT
            })
            .contains('\x1b')
        );
    }
}
