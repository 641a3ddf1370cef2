//! Records that are no traffic, sealed or opened: documents, and lines with a document each, from a reader to a writer.
//!
//! It is the road's engine (`transform`) on one side of a route, with the same keys. Records go in batches that share one fetch
//! of keys, in bounded memory; outside of the replaced values not a byte changes. What cannot be sealed is never written.
//! It opens no file and no socket, and no value is in anything that it says.

mod bound;
mod job;
mod records;
mod rings;
#[cfg(test)]
mod tests;

pub use job::{Given, Job, OnFault, Unfit, Verb};

use crate::audit::Side;
use crate::dek::Unopened;
use crate::entropy;
use crate::error::{Code, Error};
use crate::keys::Keys;
use crate::proxy::refusal::Failure;
use crate::transform::{Plan, Refusal, Tally, plan};
use records::{Line, Records};
use rings::Merged;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::ops::Range;

/// A batch is worked off when it has so many bytes,
const BATCH_BYTES: usize = 1 << 20;
/// or so many records,
const BATCH_RECORDS: usize = 1_024;
/// or so many values to seal and records of keys to open.
const BATCH_VALUES: u64 = 1 << 16;

/// What is wrong with one record: a code of docs/errors.md, or why a token stayed sealed, and nothing of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Stable.
    pub code: &'static str,
    /// What it means.
    pub title: &'static str,
    /// Where in the record, by offset, and why.
    pub note: String,
}

/// Codes of tokens that stay sealed, by the engine's word.
const UNOPENED: &[(&str, &str)] = &[
    ("class", "unopened-class"),
    ("bind", "unopened-bind"),
    ("malformed", "unopened-malformed"),
    ("unsupported", "unopened-unsupported"),
    ("refused", "unopened-refused"),
    ("foreign", "unopened-foreign"),
    ("denied", "unopened-denied"),
    ("not-found", "unopened-not-found"),
    ("deleted", "unopened-deleted"),
    ("over-budget", "unopened-over-budget"),
    ("mismatch", "unopened-mismatch"),
    ("withheld", "unopened-withheld"),
];

impl Fault {
    fn of(error: &Error) -> Fault {
        let row = error.code().row();
        Fault {
            code: row.word,
            title: row.title,
            note: error.note().to_owned(),
        }
    }

    fn unopened(word: &'static str) -> Fault {
        let code = UNOPENED.iter().find(|(known, _)| *known == word);
        Fault {
            code: code.map_or("unopened", |(_, code)| code),
            title: "A token at an opening place stays sealed",
            note: word.to_owned(),
        }
    }
}

/// What was done, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records that were read; blank lines are none.
    pub records: u64,
    /// Of those, written.
    pub written: u64,
    /// Of those, left out because of a fault.
    pub skipped: u64,
    /// Of those, written with what could not be opened as it was.
    pub left: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// The last line up to which everything is written or skipped.
    pub line: u64,
    /// Values by class.
    pub sealed: BTreeMap<String, u64>,
    /// Tokens at sealing places that opened there and stayed, by class.
    pub kept: BTreeMap<String, u64>,
    /// Tokens opened, by class.
    pub opened: BTreeMap<String, u64>,
    /// Tokens that stayed sealed, by the engine's word.
    pub unopened: BTreeMap<&'static str, u64>,
    /// Tokens where no rule looks for one.
    pub strays: u64,
    /// Scalars that no rule names.
    pub unclaimed: u64,
    /// Values at opening places that are no tokens.
    pub plaintext: u64,
}

impl Summary {
    fn add(&mut self, tally: &Tally) {
        let classes = [
            (&mut self.sealed, &tally.sealed),
            (&mut self.kept, &tally.kept),
            (&mut self.opened, &tally.opened),
        ];
        for (all, some) in classes {
            for (class, count) in some {
                *all.entry(class.name.to_string()).or_default() += u64::from(*count);
            }
        }
        for (word, count) in &tally.left {
            *self.unopened.entry(word).or_default() += u64::from(*count);
        }
        self.strays += u64::from(tally.strays);
        self.unclaimed += u64::from(tally.unclaimed);
        self.plaintext += u64::from(tally.plaintext);
    }
}

/// Why it ended before its input did. What stands before the line is written.
#[derive(Debug)]
pub enum Stop {
    /// A record, and faults end it.
    Record {
        /// From 1, of the input.
        line: u64,
        /// What is wrong with it.
        fault: Fault,
        /// The input was taken for one document.
        document: bool,
    },
    /// The keys for the records from this line on cannot be had.
    Keys {
        /// From 1, of the input.
        line: u64,
        /// Why.
        error: Error,
    },
    /// The input cannot be read.
    Read(io::Error),
    /// The output cannot be written.
    Write(io::Error),
    /// What is told of a fault or of progress cannot be written.
    Tell(io::Error),
}

/// Told of what happens on the way.
pub trait Watch {
    /// A record is left out.
    ///
    /// # Errors
    /// It cannot be noted; that ends it, for nothing is to be lost unnoted.
    fn skipped(&mut self, line: u64, code: &'static str) -> io::Result<()>;
    /// A batch is done.
    fn progress(&mut self, summary: &Summary);
}

#[derive(Default)]
struct Batch<'r> {
    text: Vec<u8>,
    items: Vec<Item<'r>>,
    values: u64,
}

struct Item<'r> {
    line: u64,
    /// In [`Batch::text`].
    span: Range<usize>,
    what: What<'r>,
}

enum What<'r> {
    Blank,
    Planned(Box<Plan<'r>>),
    Faulty(Fault),
}

impl Batch<'_> {
    fn is_full(&self) -> bool {
        self.text.len() >= BATCH_BYTES
            || self.items.len() >= BATCH_RECORDS
            || self.values >= BATCH_VALUES
    }
}

/// Seals or opens all records of `input`. Reading and writing block the thread that polls this.
///
/// Unless `lines`, the first line with something on it decides: if it is a JSON document by itself, every line is one;
/// otherwise the whole input is.
///
/// # Errors
/// What was done, and why it ended early.
pub async fn run(
    job: &Job,
    keys: &Keys,
    lines: bool,
    input: impl BufRead,
    output: impl Write,
    watch: &mut dyn Watch,
) -> Result<Summary, (Summary, Stop)> {
    let mut run = Run {
        job,
        keys,
        output,
        watch,
        summary: Summary::default(),
        out: Vec::new(),
        document: false,
    };
    match run.all(lines, input).await {
        Ok(()) => Ok(run.summary),
        Err(stop) => {
            // What was done stays done.
            let _ = run.output.flush();
            Err((run.summary, stop))
        }
    }
}

struct Run<'j, W> {
    job: &'j Job,
    keys: &'j Keys,
    output: W,
    watch: &'j mut dyn Watch,
    summary: Summary,
    out: Vec<u8>,
    document: bool,
}

impl<'j, W: Write> Run<'j, W> {
    async fn all(&mut self, lines: bool, input: impl BufRead) -> Result<(), Stop> {
        let mut records = Records::new(input, self.job.record_bytes_max);
        let mut batch = Batch::default();
        let mut undecided = !lines;
        loop {
            let from = batch.text.len();
            let mut read = records.next(&mut batch.text).map_err(Stop::Read)?;
            let line = records.line();
            if undecided && !batch.text[from..].trim_ascii().is_empty() {
                undecided = false;
                if read == Line::Whole && !self.job.is_document(&batch.text[from..]) {
                    self.document = true;
                    read = records.rest(&mut batch.text).map_err(Stop::Read)?;
                }
            }
            match read {
                Line::End => break,
                Line::Whole => self.add(&mut batch, line, from),
                Line::TooLong => {
                    let start = batch.text.split_off(from);
                    self.finish(&mut batch).await?;
                    self.too_long(&mut records, line, &start)?;
                }
            }
            if batch.is_full() {
                self.finish(&mut batch).await?;
                self.summary.bytes = records.bytes();
                self.watch.progress(&self.summary);
            }
        }
        self.finish(&mut batch).await?;
        self.output.flush().map_err(Stop::Write)?;
        self.summary.bytes = records.bytes();
        self.watch.progress(&self.summary);
        Ok(())
    }

    /// Plans what was read last.
    fn add(&self, batch: &mut Batch<'j>, line: u64, from: usize) {
        let body = &batch.text[from..];
        let what = if body.trim_ascii().is_empty() {
            What::Blank
        } else {
            match self.plan(body) {
                Ok(plan) => {
                    let needs = plan.needs();
                    let sealing: u64 = needs.sealing.iter().map(|need| need.values).sum();
                    batch.values += sealing + needs.opening.len() as u64;
                    What::Planned(Box::new(plan))
                }
                Err(error) => What::Faulty(Fault::of(&error)),
            }
        };
        let span = from..batch.text.len();
        batch.items.push(Item { line, span, what });
    }

    fn plan(&self, body: &[u8]) -> Result<Plan<'j>, Error> {
        let job = self.job;
        let circumstances = job.bound.circumstances(&job.circumstances, body)?;
        plan(&job.rules, body, &circumstances).map_err(told)
    }

    /// Works a batch off, and empties it.
    async fn finish(&mut self, batch: &mut Batch<'j>) -> Result<(), Stop> {
        let items = std::mem::take(&mut batch.items);
        let mut rest = items.as_slice();
        while let Some(first) = rest.first() {
            let mut merged = Merged::new(self.job.keys_max);
            let fits = |item: &&Item<'_>| match &item.what {
                What::Planned(plan) => merged.add(plan.needs()),
                What::Blank | What::Faulty(_) => true,
            };
            let count = rest.iter().take_while(fits).count();
            let (now, later) = rest.split_at(count);
            let ring = if merged.is_empty() {
                None
            } else {
                let fetched = self.keys.fetch(merged.needs()).await;
                Some(fetched.map_err(|error| Stop::Keys {
                    line: first.line,
                    error: error.into(),
                })?)
            };
            let mut places = merged.places();
            for item in now {
                let body = &batch.text[item.span.clone()];
                match &item.what {
                    What::Blank => self.write(body)?,
                    What::Faulty(fault) => self.fault(item.line, fault.clone(), body)?,
                    What::Planned(plan) => {
                        let place = places.next().unwrap_or_default();
                        self.apply(item.line, plan, body, &place.of(ring.as_ref()))?;
                    }
                }
                self.summary.line = item.line;
            }
            rest = later;
        }
        batch.text.clear();
        batch.values = 0;
        Ok(())
    }

    fn apply(
        &mut self,
        line: u64,
        plan: &Plan<'_>,
        body: &[u8],
        ring: &crate::dek::Ring,
    ) -> Result<(), Stop> {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        let applied = if plan.is_unchanged() {
            out.extend_from_slice(body);
            Ok(plan.tally().clone())
        } else {
            plan.apply(body, ring, &mut entropy::fill, &mut out)
        };
        let done = match applied {
            Ok(tally) => self.applied(line, &tally, body, &out),
            Err(refusal) => {
                let error = told(refusal);
                match error.code() {
                    Code::KeysUnreachable => Err(Stop::Keys { line, error }),
                    _ => self.fault(line, Fault::of(&error), body),
                }
            }
        };
        self.out = out;
        done
    }

    fn applied(&mut self, line: u64, tally: &Tally, body: &[u8], out: &[u8]) -> Result<(), Stop> {
        if self.job.verb == Verb::Open
            && let Some((word, _)) = tally.left.first()
        {
            let unreachable = Unopened::Unreachable.word();
            if tally.left.iter().any(|(word, _)| *word == unreachable) {
                let error = Code::KeysUnreachable.into();
                return Err(Stop::Keys { line, error });
            }
            if self.job.on_fault != OnFault::Leave {
                return self.fault(line, Fault::unopened(word), body);
            }
            self.summary.left += 1;
        }
        self.summary.add(tally);
        self.summary.records += 1;
        self.summary.written += 1;
        self.write(out)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.output.write_all(bytes).map_err(Stop::Write)
    }

    /// A record that is not what it should be: it ends everything, is left out, or goes on as it is.
    fn fault(&mut self, line: u64, fault: Fault, body: &[u8]) -> Result<(), Stop> {
        self.summary.records += 1;
        match self.job.on_fault {
            OnFault::Stop => Err(Stop::Record {
                line,
                fault,
                document: self.document,
            }),
            OnFault::Skip => {
                self.summary.skipped += 1;
                let told = self.watch.skipped(line, fault.code);
                told.map_err(Stop::Tell)
            }
            OnFault::Leave => {
                self.summary.left += 1;
                self.summary.written += 1;
                self.write(body)
            }
        }
    }

    /// A record over the limit; `start` was read of it, the rest stands in `records`.
    fn too_long(
        &mut self,
        records: &mut Records<impl BufRead>,
        line: u64,
        start: &[u8],
    ) -> Result<(), Stop> {
        let note = format!("over {} bytes", self.job.record_bytes_max);
        let error = Code::BodyTooLarge.because(note);
        self.fault(line, Fault::of(&error), start)?;
        let leave = self.job.on_fault == OnFault::Leave;
        let whole = self.document;
        loop {
            let piece = records.piece(whole).map_err(Stop::Read)?;
            if piece.is_empty() {
                break;
            }
            if leave {
                self.output.write_all(&piece).map_err(Stop::Write)?;
            }
        }
        self.summary.line = line;
        Ok(())
    }
}

/// As the road would tell it.
fn told(refusal: Refusal) -> Error {
    Failure::from(refusal).on(Side::Request).0
}
