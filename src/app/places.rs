//! Whether an agent could listen at a place, or one does already: asked without staying there.

use super::StartError;
use super::checkup::{Check, State};
use crate::settings::Bind;
use rustix::fs::{Access, access};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::timeout;

/// For whoever listens there to say who it is.
const WHO_WITHIN: Duration = Duration::from_secs(3);
/// Bytes of its answer that are looked at.
const ANSWER_BYTES_MAX: u64 = 4096;
/// Refused by every listener, probes and admin API of an agent, and forwarded by none.
const QUESTION: &[u8] = b"GET / HTTP/1.1\r\nHost: doctor@invalid\r\nConnection: close\r\n\r\n";
/// In every refusal of an agent.
const SIGN: &[u8] = b"urn:fieldveil:error:";

/// How it stands with one place. `encrypted`: whoever listens there speaks TLS, and cannot be asked who it is.
pub async fn check(name: &str, bind: &Bind, encrypted: bool) -> Check {
    let about = |state, what: &str| Check::new("listener", name, state, format!("{bind}: {what}"));
    let bound = match bind {
        Bind::Tcp(address) => TcpListener::bind(address).await.map(drop),
        Bind::Unix { path, .. } => unix(path).await,
    };
    let error = match bound {
        Ok(()) => return about(State::Ok, "free"),
        Err(error) => error,
    };
    if error.kind() == io::ErrorKind::AddrInUse {
        if encrypted {
            return about(State::Warn, "taken; through TLS it cannot be told by whom")
                .hint("well, if an agent runs here; otherwise stop what listens there");
        }
        let is_agent = match bind {
            Bind::Tcp(address) => who(TcpStream::connect(address).await).await,
            Bind::Unix { path, .. } => who(UnixStream::connect(path).await).await,
        };
        if is_agent {
            return about(State::Ok, "an agent of fieldveil listens there already");
        }
    }
    let who = match name {
        "admin" | "probes" => name.to_owned(),
        name => format!("listener {name}"),
    };
    let error = match bind {
        Bind::Tcp(address) => StartError::Address {
            who,
            address: *address,
            error,
        },
        Bind::Unix { path, .. } => StartError::Path {
            who,
            path: path.clone(),
            error,
        },
    };
    let check = Check::new("listener", name, State::Fail, error.to_string());
    Check {
        hint: error.hint(),
        ..check
    }
}

/// Whether a socket could be made there.
async fn unix(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(io::ErrorKind::AlreadyExists.into()),
        // One that nobody listens on is taken over.
        Ok(_) => match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Ok(_) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            Ok(access(parent, Access::WRITE_OK | Access::EXEC_OK)?)
        }
        Err(error) => Err(error),
    }
}

/// Whether an agent answers.
async fn who(connected: io::Result<impl AsyncRead + AsyncWrite + Unpin>) -> bool {
    let Ok(mut stream) = connected else {
        return false;
    };
    let mut answer = Vec::new();
    let asked = async {
        stream.write_all(QUESTION).await?;
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await
    };
    // One that says enough and does not hang up is an answer, too.
    let _ = timeout(WHO_WITHIN, asked).await;
    answer.windows(SIGN.len()).any(|part| part == SIGN)
}
