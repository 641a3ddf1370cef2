//! Why an agent does not start: what is wrong, and what to do about it. No secret is in any of it.

use crate::diagnostic::Diagnostic;
use crate::kms::keyring::KeyringError;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why an agent does not start.
#[derive(Debug)]
pub enum StartError {
    /// What is wrong with the policies or the settings, line by line; never empty.
    Findings(Vec<Diagnostic>),
    /// A keyring or a secret's file cannot be used.
    Keyring(KeyringError),
    /// The settings cannot be carried out: what is wrong, and what to do.
    Settings(String, String),
    /// A socket cannot be bound.
    Address {
        /// What should listen there: `listener out`, `admin`, `probes`.
        who: String,
        /// Where.
        address: SocketAddr,
        /// What the operating system says.
        error: io::Error,
    },
    /// A Unix socket cannot be bound.
    Path {
        /// What should listen there: `listener out`.
        who: String,
        /// Where.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// The operating system refuses something else: what, and what it says.
    System(&'static str, io::Error),
}

impl StartError {
    /// Whether it may pass without a change to settings, policies or keys.
    pub fn is_unavailability(&self) -> bool {
        matches!(
            self,
            StartError::Address { .. } | StartError::Path { .. } | StartError::System(..)
        )
    }

    /// What to do, in one sentence. Findings have their own hints.
    pub fn hint(&self) -> Option<String> {
        match self {
            StartError::Findings(_) => None,
            StartError::Keyring(error) => Some(error.hint()),
            StartError::Settings(_, hint) => Some(hint.clone()),
            StartError::Address { address, error, .. } => Some(match error.kind() {
                io::ErrorKind::AddrInUse => format!(
                    "another process listens on port {}; stop it, or choose another port",
                    address.port()
                ),
                io::ErrorKind::AddrNotAvailable => {
                    format!("{} is no address of this machine", address.ip())
                }
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 want a right of their own (CAP_NET_BIND_SERVICE); choose a higher one".to_owned()
                }
                _ => "see what the operating system says".to_owned(),
            }),
            StartError::Path { error, .. } => Some(
                match error.kind() {
                    io::ErrorKind::AddrInUse => {
                        "another process listens there; stop it, or choose another path"
                    }
                    io::ErrorKind::AlreadyExists => {
                        "something else than a socket stands there; move it away, or choose another path"
                    }
                    io::ErrorKind::NotFound => "make the directory first",
                    io::ErrorKind::PermissionDenied => {
                        "choose a directory that this user may write to"
                    }
                    _ => "see what the operating system says",
                }
                .to_owned(),
            ),
            StartError::System(..) => Some("see what the operating system says".to_owned()),
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Findings(found) => {
                for (at, diagnostic) in found.iter().enumerate() {
                    write!(f, "{}{diagnostic}", if at == 0 { "" } else { "\n\n" })?;
                }
                Ok(())
            }
            StartError::Keyring(error) => error.fmt(f),
            StartError::Settings(what, _) => f.write_str(what),
            StartError::Address {
                who,
                address,
                error,
            } => {
                write!(f, "{who}: cannot listen on {address}: {error}")
            }
            StartError::Path { who, path, error } => {
                write!(
                    f,
                    "{who}: cannot listen on unix:{}: {error}",
                    path.display()
                )
            }
            StartError::System(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<KeyringError> for StartError {
    fn from(error: KeyringError) -> StartError {
        StartError::Keyring(error)
    }
}

impl From<Vec<Diagnostic>> for StartError {
    fn from(found: Vec<Diagnostic>) -> StartError {
        StartError::Findings(found)
    }
}
