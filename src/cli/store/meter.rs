//! One line on a terminal that says how far a command is, and goes when it is done.

use super::grouped;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(200);

/// What is shown of the progress.
pub struct Meter {
    done: u64,
    total: u64,
    begun: Instant,
    last: Option<Instant>,
    is_shown: bool,
}

impl Meter {
    /// Shows something where standard error is a terminal, unless `quiet`.
    pub fn new(total: u64, quiet: bool) -> Meter {
        Meter {
            done: 0,
            total,
            begun: Instant::now(),
            last: None,
            is_shown: !quiet && io::stderr().is_terminal(),
        }
    }

    /// So many more are done.
    pub fn add(&mut self, more: usize) {
        self.done += more as u64;
        let now = Instant::now();
        if !self.is_shown || self.last.is_some_and(|last| now - last < EVERY) {
            return;
        }
        self.last = Some(now);
        let line = line(self.done, self.total, now - self.begun);
        // For people alone; where they do not see it, nothing is lost.
        let _ = write!(io::stderr().lock(), "\r{line}\x1b[K");
    }
}

/// Takes the line away.
impl Drop for Meter {
    fn drop(&mut self) {
        if self.last.is_some() {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

fn line(done: u64, total: u64, elapsed: Duration) -> String {
    // Others may add rows meanwhile.
    let total = total.max(done).max(1);
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    let percent = done.saturating_mul(100) / total;
    let filled = usize::try_from(percent / 5).unwrap_or(0);
    format!(
        "[{}{}] {percent:>3} %  {} of {}, {rate:.0}/s",
        "=".repeat(filled),
        " ".repeat(20 - filled),
        grouped(done),
        grouped(total)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let second = Duration::from_secs(1);
        assert_eq!(
            line(25_000, 100_000, second),
            "[=====               ]  25 %  25,000 of 100,000, 25000/s"
        );
        assert!(line(7, 5, second).contains("100 %"));
        assert!(line(0, 0, Duration::ZERO).contains("  0 %"));
    }
}
