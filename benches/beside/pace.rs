//! A client that asks at a steady rate, whether or not answers keep up (an open loop): a thread for each connection, each with its
//! own times to ask at.
//!
//! A request's time runs from when it was due if the answer before it came too late to ask in time, and else from when it was
//! asked: what the scheduler of this machine sleeps too long is not the server's.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// Prints one line of JSON: requests, how many of them could not be asked in time, and microseconds.
///
/// # Errors
/// The bodies cannot be read, a connection breaks, or an answer is not 200.
pub fn run(
    to: SocketAddr,
    rate: u32,
    seconds: u32,
    connections: u32,
    bodies: &Path,
) -> io::Result<()> {
    let bodies = std::fs::read(bodies)?;
    let requests: Vec<Vec<u8>> = bodies
        .split(|byte| *byte == 0)
        .filter(|body| !body.is_empty())
        .map(|body| {
            let head = format!(
                "POST /orders HTTP/1.1\r\nHost: {to}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            [head.as_bytes(), body].concat()
        })
        .collect();
    // Of each connection.
    let count = (seconds.saturating_mul(rate)).checked_div(connections);
    let count = count.filter(|count| *count > 0 && !requests.is_empty());
    let count = count.ok_or_else(|| io::Error::other("nothing to ask"))?;
    let begin = Instant::now() + Duration::from_millis(100);
    let every = Duration::from_secs(1) * connections / rate;
    let asked: io::Result<Vec<(Vec<Duration>, u32)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|number| {
                let requests = &requests;
                let begin = begin + every * number / connections;
                scope.spawn(move || ask(to, requests, number, begin, every, count))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .map_err(|_| io::Error::other("a thread ended"))?
            })
            .collect()
    });
    let asked = asked?;
    let late: u32 = asked.iter().map(|(_, late)| late).sum();
    let mut times: Vec<Duration> = asked.into_iter().flat_map(|(times, _)| times).collect();
    times.sort_unstable();
    let at = |share: f64| {
        let rank = (times.len() as f64 * share) as usize;
        times
            .get(rank.min(times.len() - 1))
            .map_or(0, Duration::as_micros)
    };
    println!(
        "{{\"requests\":{},\"late\":{late},\"p50\":{},\"p90\":{},\"p99\":{},\"p999\":{}}}",
        times.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999)
    );
    Ok(())
}

/// One connection's share.
fn ask(
    to: SocketAddr,
    requests: &[Vec<u8>],
    number: u32,
    begin: Instant,
    every: Duration,
    count: u32,
) -> io::Result<(Vec<Duration>, u32)> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    let mut answer = vec![0; 64 * 1024];
    let (mut times, mut late) = (Vec::with_capacity(count as usize), 0);
    for turn in 0..count {
        let due = begin + every * turn;
        let mut from = Instant::now();
        if let Some(early) = due.checked_duration_since(from) {
            std::thread::sleep(early);
            from = Instant::now();
        } else {
            late += 1;
            from = due;
        }
        stream.write_all(&requests[(number as usize * 31 + turn as usize) % requests.len()])?;
        let mut got = 0;
        while !complete(&answer[..got])? {
            let more = stream.read(&mut answer[got..])?;
            if more == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            got += more;
        }
        times.push(from.elapsed());
    }
    Ok((times, late))
}

/// Whether this is the whole answer. The upstream's body has a known end.
fn complete(answer: &[u8]) -> io::Result<bool> {
    if answer.len() > 12 && &answer[9..12] != b"200" {
        return Err(io::Error::other("an answer that is not 200"));
    }
    Ok(answer.ends_with(b"{\"ok\":true}") || answer.ends_with(b"{\"ok\":true}\r\n0\r\n\r\n"))
}
