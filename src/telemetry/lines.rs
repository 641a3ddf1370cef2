//! Lines on their way to a file descriptor that may be slow, or blocked: put into a bounded buffer by whoever logs,
//! written in large pieces by one thread.

use std::io::{self, Write};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that wait at most; what comes on top is dropped, and counted.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// How long the end of the program waits for its last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The lines of one process. Dropped, it waits a moment for what is not yet written.
pub struct Lines {
    buffer: Arc<Buffer>,
}

struct Buffer {
    waiting: Mutex<Waiting>,
    /// Something is there for the thread, or it is over.
    filled: Condvar,
    /// Nothing waits, and nothing is being written.
    written: Condvar,
    dropped: AtomicU64,
    bytes_max: usize,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    writing: bool,
    closed: bool,
}

impl Lines {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn new(out: impl Write + Send + 'static) -> io::Result<Lines> {
        Lines::bounded(out, WAITING_BYTES_MAX)
    }

    fn bounded(mut out: impl Write + Send + 'static, bytes_max: usize) -> io::Result<Lines> {
        let buffer = Arc::new(Buffer {
            waiting: Mutex::default(),
            filled: Condvar::new(),
            written: Condvar::new(),
            dropped: AtomicU64::new(0),
            bytes_max,
        });
        let of_thread = Arc::clone(&buffer);
        thread::Builder::new()
            .name("log".into())
            .spawn(move || of_thread.write_to(&mut out))?;
        Ok(Lines { buffer })
    }

    /// What a subscriber writes to.
    pub fn writer(&self) -> Writer {
        Writer {
            buffer: Arc::clone(&self.buffer),
        }
    }

    /// How many lines were dropped so far, to be asked while these lines are written and after.
    pub fn dropped(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let buffer = Arc::clone(&self.buffer);
        move || buffer.dropped.load(Relaxed)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let mut waiting = self.buffer.waiting();
        waiting.closed = true;
        self.buffer.filled.notify_one();
        let unwritten = |waiting: &mut Waiting| waiting.writing || !waiting.lines.is_empty();
        // Who reads them may be gone or stuck; that must not keep the process.
        drop(
            self.buffer
                .written
                .wait_timeout_while(waiting, LAST_LINES, unwritten),
        );
    }
}

impl Buffer {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, line: &[u8]) {
        let mut waiting = self.waiting();
        if waiting.lines.len() + line.len() > self.bytes_max {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        let idle = waiting.lines.is_empty() && !waiting.writing;
        waiting.lines.extend_from_slice(line);
        drop(waiting);
        if idle {
            self.filled.notify_one();
        }
    }

    fn write_to(&self, out: &mut dyn Write) {
        let mut batch = Vec::new();
        let mut told = 0;
        loop {
            let mut waiting = self.waiting();
            waiting.writing = false;
            while waiting.lines.is_empty() {
                self.written.notify_all();
                if waiting.closed {
                    return;
                }
                waiting = self
                    .filled
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            mem::swap(&mut waiting.lines, &mut batch);
            waiting.writing = true;
            drop(waiting);
            // A standard error that is gone has no reader to miss anything.
            let _ = out.write_all(&batch);
            let dropped = self.dropped.load(Relaxed);
            if dropped > told {
                let _ = writeln!(
                    out,
                    "{} lines of the log were dropped: standard error was blocked",
                    dropped - told
                );
                told = dropped;
            }
            let _ = out.flush();
            batch.clear();
            // A flood's buffer is not kept.
            batch.shrink_to(64 << 10);
        }
    }
}

/// One event's way into the buffer. The subscriber hands over each line whole.
#[derive(Clone)]
pub struct Writer {
    buffer: Arc<Buffer>,
}

impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.buffer.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Writer {
    type Writer = Writer;

    fn make_writer(&'w self) -> Writer {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Takes each piece when it is told to.
    struct Slow {
        may: mpsc::Receiver<()>,
        took: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.may.recv();
            let _ = self.took.send(bytes.to_vec());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_lines_are_written_in_order_before_the_end() {
        let (let_go, may) = mpsc::channel();
        let (took, taken) = mpsc::channel();
        drop(let_go);
        let lines = Lines::new(Slow { may, took }).unwrap();
        let mut writer = lines.writer();
        let mut expected = Vec::new();
        for number in 0..1_000 {
            let line = format!("line {number}\n");
            writer.write_all(line.as_bytes()).unwrap();
            expected.extend_from_slice(line.as_bytes());
        }
        let dropped = lines.dropped();
        drop(lines);
        assert_eq!(taken.try_iter().collect::<Vec<_>>().concat(), expected);
        assert_eq!(dropped(), 0);
    }

    #[test]
    fn a_blocked_reader_costs_lines_and_no_time() {
        let (let_go, may) = mpsc::channel();
        let (took, taken) = mpsc::channel();
        let lines = Lines::bounded(Slow { may, took }, 100).unwrap();
        let mut writer = lines.writer();
        // The first piece is in the thread's hands, or counts among what waits; both ways 20 lines of 10 do not fit.
        for _ in 0..21 {
            writer.write_all(b"123456789\n").unwrap();
        }
        let dropped = lines.dropped();
        assert!((1..=11).contains(&dropped()), "{}", dropped());
        let lost = dropped();
        drop(let_go);
        drop(lines);
        let all = String::from_utf8(taken.try_iter().collect::<Vec<_>>().concat()).unwrap();
        assert_eq!(all.matches("123456789\n").count() as u64, 21 - lost);
        assert!(
            all.contains(&format!("{lost} lines of the log were dropped")),
            "{all}"
        );
    }
}
