//! A backup: a head, one entry a line in the order of kids, and a last line that counts them, so that one that was cut short is known.

use super::{Entry, lines};
use std::fmt;
use std::io::{self, BufRead, Read, Write};

/// Writes a backup.
pub struct Writer<W> {
    out: W,
    entries: u64,
}

impl<W: Write> Writer<W> {
    /// Begins with the head.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn new(mut out: W) -> io::Result<Writer<W>> {
        writeln!(out, "{}", lines::HEAD)?;
        Ok(Writer { out, entries: 0 })
    }

    /// One more.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.entries += 1;
        writeln!(self.out, "{}", lines::write(entry))
    }

    /// Ends it; without this it is none.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn end(mut self) -> io::Result<W> {
        writeln!(self.out, "{{\"entries\":{}}}", self.entries)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// What is wrong with a backup.
#[derive(Debug)]
pub enum BadBackup {
    /// The file cannot be read.
    Read(io::Error),
    /// It does not begin as a backup does.
    Head,
    /// This line is no entry, counted from 1; which part of it is wrong.
    Line(u64, &'static str),
    /// It ends before its last line, or goes on behind it, or that counts other entries than there are.
    End,
}

impl fmt::Display for BadBackup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadBackup::Read(error) => write!(f, "cannot be read: {error}"),
            BadBackup::Head => f.write_str("is no backup of a store"),
            BadBackup::Line(line, what) => write!(f, "line {line}: {what}"),
            BadBackup::End => f.write_str("is no whole backup: it was cut short or added to"),
        }
    }
}

impl std::error::Error for BadBackup {}

/// Reads a backup, entry by entry. What it gave is of a whole backup only once it ended without an error.
pub struct Reader<R> {
    input: R,
    line: u64,
    is_over: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the head.
    ///
    /// # Errors
    /// It is no backup.
    pub fn new(input: R) -> Result<Reader<R>, BadBackup> {
        let mut reader = Reader {
            input,
            line: 0,
            is_over: false,
        };
        match reader.line()? {
            Some(head) if head == lines::HEAD.as_bytes() => Ok(reader),
            _ => Err(BadBackup::Head),
        }
    }

    /// A line that has an end, without it.
    fn line(&mut self) -> Result<Option<Vec<u8>>, BadBackup> {
        let mut line = Vec::new();
        let bound = lines::LINE_MAX as u64 + 1;
        let read = (&mut self.input).take(bound).read_until(b'\n', &mut line);
        read.map_err(BadBackup::Read)?;
        self.line += 1;
        if line.is_empty() {
            return Ok(None);
        }
        match line.pop() {
            Some(b'\n') => Ok(Some(line)),
            _ if line.len() >= lines::LINE_MAX => {
                Err(BadBackup::Line(self.line, "it is over 1 MiB"))
            }
            _ => Err(BadBackup::End),
        }
    }

    fn entry(&mut self) -> Result<Option<Entry>, BadBackup> {
        let line = self.line()?.ok_or(BadBackup::End)?;
        // Head and last line are no entries.
        let last = format!("{{\"entries\":{}}}", self.line - 2);
        if line == last.as_bytes() {
            let behind = self.line()?;
            return behind.map_or(Ok(None), |_| Err(BadBackup::End));
        }
        if line.starts_with(b"{\"entries\":") {
            return Err(BadBackup::End);
        }
        let entry = lines::parse(&line).map_err(|bad| BadBackup::Line(self.line, bad.0))?;
        Ok(Some(entry))
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Entry, BadBackup>;

    fn next(&mut self) -> Option<Result<Entry, BadBackup>> {
        if self.is_over {
            return None;
        }
        let next = self.entry().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dek::Kid;
    use crate::store::Tombstone;

    fn backup(entries: u8) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new()).unwrap();
        for number in 0..entries {
            writer.entry(&entry(number)).unwrap();
        }
        writer.end().unwrap()
    }

    fn entry(number: u8) -> Entry {
        Entry::Tombstone(Tombstone {
            kid: Kid([number; 16]),
            deleted: 7,
            was: None,
        })
    }

    fn read(bytes: &[u8]) -> Result<Vec<Entry>, BadBackup> {
        Reader::new(bytes)?.collect()
    }

    #[test]
    fn what_was_written_is_read() {
        for count in [0, 1, 5] {
            let entries: Vec<Entry> = (0..count).map(entry).collect();
            assert_eq!(read(&backup(count)).unwrap(), entries);
        }
    }

    #[test]
    fn a_backup_that_is_not_whole_is_refused_wherever_it_was_cut() {
        let whole = backup(3);
        for cut in 0..whole.len() {
            assert!(read(&whole[..cut]).is_err(), "{cut}");
        }
        let text = String::from_utf8(whole.clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for out in 0..lines.len() {
            let mut less = lines.clone();
            less.remove(out);
            let less = less.join("\n") + "\n";
            assert!(read(less.as_bytes()).is_err(), "without line {out}");
        }
        for more in [&b"\n"[..], b"{}\n", &whole] {
            assert!(read(&[&whole, more].concat()).is_err());
        }
        let odd = text.replacen("\"deleted\":7", "\"deleted\":-7", 1);
        let odd = read(odd.as_bytes()).unwrap_err();
        assert!(matches!(odd, BadBackup::Line(2, _)), "{odd}");
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        struct Endless;
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                buffer.fill(b'x');
                Ok(buffer.len())
            }
        }
        let head = format!("{}\n", lines::HEAD);
        let input = io::BufReader::new(head.as_bytes().chain(Endless));
        let mut reader = Reader::new(input).unwrap();
        assert!(matches!(reader.next(), Some(Err(BadBackup::Line(2, _)))));
        assert!(reader.next().is_none());
    }
}
