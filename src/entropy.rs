//! Random bytes from the operating system, fetched in small stocks: one system call serves many values.
//!
//! A stock belongs to one thread; bytes are wiped as they are handed out, so none is used twice or found later. The agent never
//! forks without executing another program, so no stock is ever shared between processes.

use std::cell::RefCell;
use std::io;
use zeroize::Zeroize;

const GENERATOR: &str = "the operating system has a random number generator";

/// Bytes fetched at once.
const STOCK: usize = 1_024;

struct Stock {
    bytes: [u8; STOCK],
    /// The next byte not handed out.
    at: usize,
}

thread_local! {
    static THIS_THREADS: RefCell<Stock> = const {
        RefCell::new(Stock { bytes: [0; STOCK], at: STOCK })
    };
}

/// Fills `buffer` with bytes from the operating system's generator.
///
/// # Panics
/// If the system gives none, which Linux never does once it has started: what is under way must not go out then.
pub fn fill(buffer: &mut [u8]) {
    if buffer.len() > STOCK / 4 {
        return system(buffer).expect(GENERATOR);
    }
    THIS_THREADS.with_borrow_mut(|stock| {
        if STOCK - stock.at < buffer.len() {
            stock.at = STOCK;
            system(&mut stock.bytes).expect(GENERATOR);
            stock.at = 0;
        }
        let taken = &mut stock.bytes[stock.at..stock.at + buffer.len()];
        buffer.copy_from_slice(taken);
        taken.zeroize();
        stock.at += buffer.len();
    });
}

/// Fills `buffer` by a system call of its own: for keys.
///
/// # Errors
/// The system gives no random bytes.
pub fn system(buffer: &mut [u8]) -> io::Result<()> {
    getrandom::fill(buffer).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_bytes_come_twice_whatever_the_sizes_and_threads() {
        let draw = || {
            (0..2_000)
                .map(|n| {
                    let mut bytes = vec![0; [12, 13, 32, 300, 1][n % 5]];
                    fill(&mut bytes);
                    bytes
                })
                .filter(|bytes| bytes.len() >= 12)
                .collect::<Vec<_>>()
        };
        let other = std::thread::spawn(draw).join().unwrap();
        let drawn: Vec<_> = draw().into_iter().chain(other).collect();
        let different: HashSet<_> = drawn.iter().map(|bytes| bytes[..12].to_vec()).collect();
        assert_eq!(different.len(), drawn.len());
    }

    #[test]
    fn what_was_handed_out_is_wiped() {
        fill(&mut [0; 12]);
        THIS_THREADS.with_borrow(|stock| assert!(stock.bytes[..stock.at].iter().all(|b| *b == 0)));
    }
}
