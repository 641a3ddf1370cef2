//! What stands beside the agent in `benches/side-by-side` and `benches/interception`: a bare proxy of hyper to compare it with, an upstream
//! that costs little, a client that asks at a steady rate, one that makes connections, and the bodies. It is an example for Cargo, so that it is built as the agent is.

#[path = "../bodies/mod.rs"]
mod bodies;
mod pace;
mod proxy;
mod secure;
mod shake;
mod upstream;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: beside proxy LISTEN UPSTREAM
       beside upstream LISTEN
       beside authority            a CA of one run: certificate and key, in PEM
       beside secure LISTEN CA     the upstream with TLS, for whatever address of 127.0.0.0/8 it is asked at; CA as above
       beside shake PROXY|- ROOT PORT once|again|afresh|kept SECONDS CONNECTIONS BODIES
                           through CONNECT: handshakes (with one host, resumed, each with another host), or requests
       beside prove PROXY ROOT PORT BODIES     one exchange, verified; what the upstream got
       beside pace ADDRESS REQUESTS_PER_SECOND SECONDS CONNECTIONS BODIES
       beside bodies       997 of 2 KB, each with a NUL behind it
       beside paths        what is classified in them, one JSONPath a line";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let address = |text: &str| text.parse::<SocketAddr>().ok();
    let done = match words[..] {
        ["proxy", listen, upstream] => match (address(listen), address(upstream)) {
            (Some(listen), Some(upstream)) => proxy::run(listen, upstream),
            _ => return usage(),
        },
        ["upstream", listen] => match address(listen) {
            Some(listen) => upstream::run(listen),
            None => return usage(),
        },
        ["pace", to, rate, seconds, connections, bodies] => {
            let numbers = (rate.parse(), seconds.parse(), connections.parse());
            let (Some(to), (Ok(rate), Ok(seconds), Ok(connections))) = (address(to), numbers)
            else {
                return usage();
            };
            pace::run(to, rate, seconds, connections, Path::new(bodies))
        }
        ["authority"] => secure::authority().and_then(|pem| io::stdout().write_all(pem.as_bytes())),
        ["secure", listen, ca] => match address(listen) {
            Some(listen) => secure::run(listen, Path::new(ca)),
            None => return usage(),
        },
        ["prove", proxy, root, port, bodies] => match (address(proxy), port.parse()) {
            (Some(proxy), Ok(port)) => {
                shake::prove(proxy, Path::new(root), port, Path::new(bodies))
            }
            _ => return usage(),
        },
        [
            "shake",
            proxy,
            root,
            port,
            how,
            seconds,
            connections,
            bodies,
        ] => {
            let how = shake::How::named(how);
            let numbers = (port.parse(), seconds.parse(), connections.parse());
            let (Some(how), (Ok(port), Ok(seconds), Ok(connections))) = (how, numbers) else {
                return usage();
            };
            let proxy = address(proxy);
            shake::run(
                proxy,
                Path::new(root),
                port,
                how,
                seconds,
                connections,
                Path::new(bodies),
            )
        }
        ["bodies"] => {
            let mut out = io::stdout().lock();
            bodies::bodies().0.iter().try_for_each(|body| {
                out.write_all(body.as_bytes())?;
                out.write_all(b"\0")
            })
        }
        ["paths"] => writeln!(io::stdout(), "{}", bodies::PATHS.join("\n")),
        _ => return usage(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("beside: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(64)
}
