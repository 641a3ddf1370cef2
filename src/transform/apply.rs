//! The last step: the body with its spans replaced. Pure, and without a wait; every key is in the ring.

use super::plan::{Edit, Plan, Sealed, What};
use super::{Fallback, Refusal, Tally};
use crate::context;
use crate::dek::{Dek, Ring, SealNeed, SealingKey, Unopened};
use crate::scan;
use crate::seal::{Opener, Sealer, siv_seal};
use crate::token::{NONCE_LEN, Prefix, Suite, TAG_LEN, TEXT_MAX};
use std::ops::Range;

/// Plaintexts are padded with spaces to this length: `true` and `false` do not tell themselves apart by it.
const PADDED_MIN: usize = 8;
/// The most values that share a sealer's 12 nonce bytes (FORMAT.md, suite 1).
const VALUES_PER_SEALER: usize = 4_096;
/// What stands for a token that does not open, where the policy wants no token there.
const NULL: &[u8] = b"null";
/// Why a token stays sealed: it, or what it holds, is not what was sealed in this context. One word, whatever the reason.
const REFUSED: &str = "refused";

impl Plan<'_> {
    /// Appends to `out` the `body` with the spans replaced. `random` fills a buffer from the operating system's generator, or one
    /// seeded from it; it is called for the nonces of up to 16 values at once. On an error what was appended is not to be used.
    ///
    /// # Errors
    /// [`Refusal::Token`]: a token at a sealing place does not open there. [`Refusal::Unchecked`], [`Refusal::TooLong`].
    ///
    /// # Panics
    /// If `body` or `ring` is not the one that this plan was made of or asked for.
    pub fn apply(
        &self,
        body: &[u8],
        ring: &Ring,
        random: &mut dyn FnMut(&mut [u8]),
        out: &mut Vec<u8>,
    ) -> Result<Tally, Refusal> {
        let mut tally = self.tally.clone();
        let mut counts = vec![Counts::default(); self.rules.classes.len()];
        let mut work = Work {
            plan: self,
            nonces: Nonces::of(self, random),
            sealers: ring.sealing.iter().map(|_| None).collect(),
            opener: Opener::new(),
            // Room for what is usual: vectors that grow from nothing do so several times.
            aad: Vec::with_capacity(256),
            aad_of: None,
            scratch: Vec::with_capacity(256),
        };
        out.reserve(body.len() + self.growth(ring));
        let mut copied = 0;
        for edit in &self.edits {
            if matches!(edit.what, What::Null) {
                out.extend_from_slice(&body[copied..edit.start]);
                out.extend_from_slice(NULL);
                copied = edit.end;
                continue;
            }
            let counts = &mut counts[edit.class];
            match &edit.what {
                What::Null => {}
                What::Seal => {
                    out.extend_from_slice(&body[copied..edit.start]);
                    work.seal(
                        edit,
                        &body[edit.start..edit.end],
                        &ring.sealing[edit.need],
                        out,
                    )?;
                    counts.sealed += 1;
                }
                What::Keep(sealed) => {
                    let dek = ring.opening[edit.need].as_deref();
                    let dek = dek.map_err(|why| unkept(*why, edit.start))?;
                    if !work.open(edit, sealed, dek) {
                        return Err(Refusal::Token { offset: edit.start });
                    }
                    counts.kept += 1;
                    continue;
                }
                What::Open(sealed) => match ring.opening[edit.need].as_deref() {
                    Ok(dek) if work.open(edit, sealed, dek) => {
                        out.extend_from_slice(&body[copied..edit.start]);
                        out.extend_from_slice(&work.scratch);
                        counts.opened += 1;
                    }
                    unopened => {
                        let reason = unopened.err().copied();
                        tally.leave(reason.map_or(REFUSED, Unopened::word));
                        match self.rules.manner.unopened {
                            Fallback::Leave => continue,
                            Fallback::Reject => return Err(unopenable(reason, edit.start)),
                            Fallback::Null => {
                                out.extend_from_slice(&body[copied..edit.start]);
                                out.extend_from_slice(NULL);
                                tally.nulled += 1;
                            }
                        }
                    }
                },
            }
            copied = edit.end;
        }
        out.extend_from_slice(&body[copied..]);
        for (class, counts) in self.rules.classes.iter().zip(counts) {
            for (list, count) in [
                (&mut tally.sealed, counts.sealed),
                (&mut tally.kept, counts.kept),
                (&mut tally.opened, counts.opened),
            ] {
                if count > 0 {
                    list.push((class.clone(), count));
                }
            }
        }
        Ok(tally)
    }

    /// How much longer the output may be than the input, about.
    pub(super) fn growth(&self, ring: &Ring) -> usize {
        self.needs
            .sealing
            .iter()
            .zip(&ring.sealing)
            .map(|(need, key)| {
                let record = key.inline().map_or(0, <[u8]>::len);
                need.values as usize * ((record + 80) * 4 / 3 + 8)
            })
            .sum()
    }
}

/// What was done in one class.
#[derive(Clone, Copy, Default)]
struct Counts {
    sealed: u32,
    kept: u32,
    opened: u32,
}

struct Work<'p> {
    plan: &'p Plan<'p>,
    nonces: Nonces<'p>,
    /// By sealing need.
    sealers: Vec<Option<Bench>>,
    opener: Opener,
    aad: Vec<u8>,
    /// What `aad` was built of: values of one rule and key mostly share it.
    aad_of: Option<(Range<usize>, Suite, crate::dek::Kid)>,
    /// An opened value, or a value on its way to a token.
    scratch: Vec<u8>,
}

/// A sealer, and what the tokens that it makes have in common.
struct Bench {
    sealer: Sealer,
    nonce: [u8; 12],
    values: usize,
    /// By class.
    prefixes: Vec<(usize, Prefix)>,
}

impl Work<'_> {
    /// Appends the token of `value`.
    fn seal(
        &mut self,
        edit: &Edit,
        value: &[u8],
        key: &SealingKey,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        if self.plan.rules.classes[edit.class].suite == Suite::Aes256Siv {
            return self.seal_alike(edit, value, key, out);
        }
        self.associate(Suite::Xaes256Gcm, key.dek.kid(), &edit.context);
        let bench = &mut self.sealers[edit.need];
        if bench
            .as_ref()
            .is_none_or(|bench| bench.values == VALUES_PER_SEALER)
        {
            let nonce = self.nonces.half();
            *bench = Some(Bench {
                sealer: Sealer::new(&key.dek, nonce),
                nonce,
                values: 0,
                prefixes: Vec::new(),
            });
        }
        let Some(bench) = bench else {
            unreachable!("made above");
        };
        bench.values += 1;
        let known = bench
            .prefixes
            .iter()
            .position(|(class, _)| *class == edit.class);
        let known = known.unwrap_or_else(|| {
            let hint = self.plan.rules.hints[edit.class];
            let prefix = Prefix::new(
                Suite::Xaes256Gcm,
                hint,
                key.dek.kid(),
                key.inline(),
                Some(&bench.nonce),
            );
            bench.prefixes.push((edit.class, prefix));
            bench.prefixes.len() - 1
        });
        let prefix = &bench.prefixes[known].1;
        if prefix.text_len(value.len().max(PADDED_MIN) + 16) > TEXT_MAX {
            return Err(Refusal::TooLong { offset: edit.start });
        }
        let tail = self.nonces.half();
        self.scratch.clear();
        self.scratch.extend_from_slice(&tail);
        self.scratch.extend_from_slice(value);
        if value.len() < PADDED_MIN {
            self.scratch.resize(tail.len() + PADDED_MIN, b' ');
        }
        bench
            .sealer
            .seal(tail, &self.aad, &mut self.scratch, tail.len());
        out.push(b'"');
        prefix.write(&self.scratch, out);
        out.push(b'"');
        Ok(())
    }

    /// Appends the token of a scalar, the same for every spelling of it (FORMAT.md, suite 2).
    fn seal_alike(
        &mut self,
        edit: &Edit,
        value: &[u8],
        key: &SealingKey,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        self.associate(Suite::Aes256Siv, key.dek.kid(), &edit.context);
        self.scratch.clear();
        match value {
            [b'"', inner @ .., b'"'] => scan::text::canonical(inner, &mut self.scratch),
            other => self.scratch.extend_from_slice(other),
        }
        let hint = self.plan.rules.hints[edit.class];
        let prefix = Prefix::new(Suite::Aes256Siv, hint, key.dek.kid(), None, None);
        if prefix.text_len(self.scratch.len() + TAG_LEN) > TEXT_MAX {
            return Err(Refusal::TooLong { offset: edit.start });
        }
        siv_seal(&key.dek, &self.aad, &mut self.scratch, 0);
        out.push(b'"');
        prefix.write(&self.scratch, out);
        out.push(b'"');
        Ok(())
    }

    /// True: the value is in `scratch`. False: the token, or what it holds, is not what was sealed here.
    fn open(&mut self, edit: &Edit, sealed: &Sealed, dek: &Dek) -> bool {
        self.associate(sealed.suite, sealed.kid, &edit.context);
        let payload = &self.plan.payloads[sealed.payload.clone()];
        let (nonce, text) = match sealed.suite {
            Suite::Xaes256Gcm => match payload.split_first_chunk::<NONCE_LEN>() {
                Some((nonce, text)) => (Some(nonce), text),
                None => return false,
            },
            Suite::Aes256Siv => (None, payload),
        };
        self.scratch.clear();
        let opened = self
            .opener
            .open(dek, sealed.suite, nonce, &self.aad, text, &mut self.scratch);
        if opened.is_err() {
            return false;
        }
        if sealed.suite == Suite::Xaes256Gcm {
            let spaces = self
                .scratch
                .iter()
                .rev()
                .take_while(|c| **c == b' ')
                .count();
            self.scratch.truncate(self.scratch.len() - spaces);
        }
        is_one_value(&self.scratch, self.plan.rules.manner.depth_max)
    }

    fn associate(&mut self, suite: Suite, kid: crate::dek::Kid, entries: &Range<usize>) {
        let of = Some((entries.clone(), suite, kid));
        if self.aad_of != of {
            let entries = &self.plan.contexts[entries.clone()];
            context::associated_data(suite, kid, entries, &mut self.aad);
            self.aad_of = of;
        }
    }
}

/// A token whose key could not be had just now is no forged one: the client may come again.
fn unkept(why: Unopened, offset: usize) -> Refusal {
    match why {
        Unopened::Unreachable | Unopened::OverBudget => Refusal::Unchecked { offset, why },
        Unopened::Foreign
        | Unopened::Denied
        | Unopened::NotFound
        | Unopened::Deleted
        | Unopened::Mismatch => Refusal::Token { offset },
    }
}

/// Likewise, of a token that was to be opened.
fn unopenable(why: Option<Unopened>, offset: usize) -> Refusal {
    match why {
        Some(why @ (Unopened::Unreachable | Unopened::OverBudget)) => {
            Refusal::Unchecked { offset, why }
        }
        _ => Refusal::Unopened { offset },
    }
}

/// Exactly one JSON value, without white space around it.
fn is_one_value(text: &[u8], depth_max: usize) -> bool {
    let bare = |c: Option<&u8>| c.is_some_and(|c| *c > b' ');
    bare(text.first()) && bare(text.last()) && scan::validate(depth_max, text).is_ok()
}

/// Bytes of half a nonce: what a body's values share, or what each has of its own.
const HALF: usize = NONCE_LEN / 2;
/// The most halves that are drawn at once.
const HALVES_MAX: usize = 16;

/// Fresh nonce bytes, drawn for several values at once and never more than the body takes.
struct Nonces<'p> {
    random: &'p mut dyn FnMut(&mut [u8]),
    stock: [[u8; HALF]; HALVES_MAX],
    /// How many of the stock are still to be handed out; the last ones first.
    left: usize,
    /// How many the rest of the body takes, those in the stock aside.
    needed: usize,
}

impl<'p> Nonces<'p> {
    fn of(plan: &Plan<'_>, random: &'p mut dyn FnMut(&mut [u8])) -> Nonces<'p> {
        let randomised = |need: &&SealNeed| need.suite == Suite::Xaes256Gcm;
        let needs = plan.needs.sealing.iter().filter(randomised);
        Nonces {
            random,
            stock: [[0; HALF]; HALVES_MAX],
            left: 0,
            needed: needs.map(|need| need.values as usize + 1).sum(),
        }
    }

    fn half(&mut self) -> [u8; HALF] {
        if self.left == 0 {
            // One more sealer every 4,096 values was not foreseen.
            self.left = self.needed.clamp(1, HALVES_MAX);
            self.needed = self.needed.saturating_sub(self.left);
            (self.random)(self.stock[..self.left].as_flattened_mut());
        }
        self.left -= 1;
        self.stock[self.left]
    }
}
