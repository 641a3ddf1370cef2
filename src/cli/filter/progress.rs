//! One line on a terminal that says how far it is, and goes when it is done.

use super::is_watched;
use crate::backfill::Summary;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(200);

/// What is shown of the progress.
pub struct Progress {
    /// `None`: nobody looks.
    shown: Option<Shown>,
}

struct Shown {
    begun: Instant,
    last: Option<Instant>,
    /// Bytes of the input, where it is a file.
    size: Option<u64>,
}

impl Progress {
    /// Shows something where standard error is a terminal and standard output is none, unless `quiet`.
    pub fn new(quiet: bool) -> Progress {
        let shown = (!quiet && is_watched()).then(|| Shown {
            begun: Instant::now(),
            last: None,
            size: size(),
        });
        Progress { shown }
    }

    /// So much is done.
    pub fn show(&mut self, summary: &Summary) {
        let Some(shown) = &mut self.shown else { return };
        let now = Instant::now();
        if shown.last.is_some_and(|last| now - last < EVERY) {
            return;
        }
        shown.last = Some(now);
        let line = line(summary, shown.size, now - shown.begun);
        // For people alone; where they do not see it, nothing is lost.
        let _ = write!(io::stderr().lock(), "\r{line}\x1b[K");
    }

    /// Takes the line away.
    pub fn end(&mut self) {
        if self.shown.take().is_some_and(|shown| shown.last.is_some()) {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// The length of standard input, where it has one.
fn size() -> Option<u64> {
    let stat = rustix::fs::fstat(io::stdin().as_fd()).ok()?;
    let is_file =
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
    u64::try_from(stat.st_size)
        .ok()
        .filter(|size| is_file && *size > 0)
}

fn line(summary: &Summary, size: Option<u64>, elapsed: Duration) -> String {
    let rate = summary.records as f64 / elapsed.as_secs_f64().max(0.001);
    let share = match size {
        Some(size) => format!(
            " {:>3} %",
            (summary.bytes.saturating_mul(100) / size).min(100)
        ),
        None => String::new(),
    };
    let skipped = match summary.skipped {
        0 => String::new(),
        skipped => format!(", {skipped} skipped"),
    };
    format!(
        "{share} {} records{skipped}, {:.1} MB, {rate:.0}/s",
        summary.records,
        summary.bytes as f64 / 1e6
    )
    .trim_start()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is() {
        let mut summary = Summary {
            records: 1_200,
            bytes: 2_500_000,
            ..Summary::default()
        };
        let second = Duration::from_secs(1);
        assert_eq!(line(&summary, None, second), "1200 records, 2.5 MB, 1200/s");
        summary.skipped = 3;
        assert_eq!(
            line(&summary, Some(10_000_000), second),
            "25 % 1200 records, 3 skipped, 2.5 MB, 1200/s"
        );
        assert_eq!(
            line(&summary, Some(1), second),
            "100 % 1200 records, 3 skipped, 2.5 MB, 1200/s"
        );
    }
}
