//! `fieldveil probe live | ready`: asks a running agent's probes, and ends as they say. For supervisors that run a command instead of sending a
//! request: the image has no other program that could. It reads where the probes are, and nothing else of the settings.

use super::exchange::exchange;
use super::{Exit, Output, ProbeArgs, ProbeOf, run, trouble};
use crate::diagnostic::Diagnostic;
use crate::settings::Settings;
use bytes::Bytes;
use http::header::{ACCEPT, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::Empty;
use serde_json::json;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// From the connection to the last byte of the answer; less than what supervisors usually wait for a command.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why nobody was asked, or how it went.
enum Failed {
    /// Where the probes are is not known.
    Nowhere(Exit, &'static str, &'static str),
    /// The settings file is wrong.
    Settings(Vec<Diagnostic>),
}

/// `fieldveil probe …`: 0; 1 where the agent is not ready; 64 where no address is known; 69 where no agent answers; 78 where the settings have
/// none.
///
/// # Errors
/// Standard output cannot be written.
pub fn command(args: &ProbeArgs, output: Output) -> io::Result<Exit> {
    let address = match address(args) {
        Ok(address) => address,
        Err(Failed::Settings(found)) => {
            trouble::findings(&found, output)?;
            return Ok(Exit::Configuration);
        }
        Err(Failed::Nowhere(exit, what, hint)) => {
            trouble::tell(what, Some(hint), output)?;
            return Ok(exit);
        }
    };
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = http::Uri::from_static(match args.what {
        ProbeOf::Live => "/livez",
        ProbeOf::Ready => "/readyz",
    });
    if output == Output::Json {
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(ACCEPT, json);
    }
    let (exit, body) = match exchange(address, request, PATIENCE) {
        Ok((StatusCode::OK, body)) => (Exit::Success, body),
        Ok((StatusCode::SERVICE_UNAVAILABLE, body)) => (Exit::No, body),
        Ok((status, _)) => return unavailable(address, &format!("it answered {status}"), output),
        Err(why) => return unavailable(address, &why, output),
    };
    let mut out = io::stdout().lock();
    match (output, args.what) {
        (Output::Json, ProbeOf::Live) => {
            writeln!(out, "{}", json!({"live": exit == Exit::Success}))?;
        }
        // The agent's own text or document: names of checks, and why they block.
        _ => out.write_all(&body)?,
    }
    Ok(exit)
}

fn unavailable(address: SocketAddr, why: &str, output: Output) -> io::Result<Exit> {
    trouble::tell(
        &format!("no answer from the probes at {address}: {why}"),
        Some("is the agent running, with `probes` in its settings or --probes?"),
        output,
    )?;
    Ok(Exit::Unavailable)
}

/// Where to ask.
fn address(args: &ProbeArgs) -> Result<SocketAddr, Failed> {
    let address = match (args.probes, &args.config) {
        (Some(address), _) => address,
        (None, Some(config)) => Settings::load_probes(config, run::read)
            .map_err(Failed::Settings)?
            .ok_or(Failed::Nowhere(
                Exit::Configuration,
                "the settings have no `probes`",
                "add them: `probes: {bind: 127.0.0.1:9902}`; or give --probes",
            ))?,
        (None, None) => {
            return Err(Failed::Nowhere(
                Exit::Usage,
                "where are the agent's probes?",
                "--config FILE or --probes ADDRESS",
            ));
        }
    };
    if address.port() == 0 {
        return Err(Failed::Nowhere(
            Exit::Configuration,
            "which port the probes took is not known",
            "give them a port, or name it with --probes",
        ));
    }
    Ok(from_here(address))
}

/// Who listens on all addresses is asked on loopback.
fn from_here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_are_asked_on_loopback() {
        for (bound, asked) in [
            ("0.0.0.0:9902", "127.0.0.1:9902"),
            ("[::]:9902", "[::1]:9902"),
            ("127.0.0.2:1", "127.0.0.2:1"),
            ("[fd00::1]:1", "[fd00::1]:1"),
        ] {
            let bound = bound.parse().expect("an address");
            assert_eq!(from_here(bound).to_string(), asked);
        }
    }
}
