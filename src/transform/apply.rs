//! The last step: the body with its spans replaced. Pure, and without a wait; every key is in the ring.

use super::message::{Heads, Message};
use super::plan::{Edit, Plan, Sealed, What};
use super::slate::{Slate, Source, Style, Target};
use super::{Fallback, Refusal, Tally};
use crate::context;
use crate::dek::{Dek, Ring, SealNeed, SealingKey, Unopened};
use crate::mask::Mask;
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
/// For a class without a mask, which a policy does not reveal masked.
const NOTHING_SHOWN: Mask = Mask::KeepLast(0);
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
        self.apply_message(&Message::json(body), ring, random, out)
            .map(|(tally, _)| tally)
    }

    /// As [`Plan::apply`], for a whole message: also says what is new in its head.
    ///
    /// # Errors
    /// As [`Plan::apply`].
    ///
    /// # Panics
    /// As [`Plan::apply`].
    pub fn apply_message(
        &self,
        message: &Message<'_>,
        ring: &Ring,
        random: &mut dyn FnMut(&mut [u8]),
        out: &mut Vec<u8>,
    ) -> Result<(Tally, Heads), Refusal> {
        let body = message.body;
        let mut work = Work {
            plan: self,
            ring,
            tally: self.tally.clone(),
            counts: vec![Counts::default(); self.rules.classes.len()],
            nonces: Nonces::of(self, random),
            sealers: ring.sealing.iter().map(|_| None).collect(),
            opener: Opener::new(),
            // Room for what is usual: vectors that grow from nothing do so several times.
            aad: Vec::with_capacity(256),
            aad_of: None,
            scratch: Vec::with_capacity(256),
        };
        out.reserve(body.len() + self.growth(ring));
        let put_back = match &self.slate {
            None => PutBack::default(),
            Some(slate) => work.put_back(slate)?,
        };
        let mut copied = 0;
        let mut others = put_back.of(Source::Body).peekable();
        for edit in &self.edits {
            while let Some((span, bytes)) = others.next_if(|(span, _)| span.start < edit.start) {
                out.extend_from_slice(&body[copied..span.start]);
                out.extend_from_slice(bytes);
                copied = span.end;
            }
            if work.edit(edit, body, &body[copied..edit.start], out)? {
                copied = edit.end;
            }
        }
        for (span, bytes) in others {
            out.extend_from_slice(&body[copied..span.start]);
            out.extend_from_slice(bytes);
            copied = span.end;
        }
        out.extend_from_slice(&body[copied..]);
        Ok((work.told(), put_back.heads(message)))
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

/// What goes back from the slate to the places of its values.
#[derive(Default)]
struct PutBack {
    spans: Vec<(Target, Range<usize>)>,
    bytes: Vec<u8>,
}

impl PutBack {
    /// Of one source: the spans in their order, and what replaces them.
    fn of(&self, source: Source) -> impl Iterator<Item = (Range<usize>, &[u8])> {
        let mine = move |(span, _): &&(Target, Range<usize>)| span.source == source;
        let spans = self.spans.iter().filter(mine);
        spans.map(|(span, at)| (span.start..span.end, &self.bytes[at.clone()]))
    }

    fn heads(&self, message: &Message<'_>) -> Heads {
        let mut heads = Heads::default();
        for (span, bytes) in &self.spans {
            if let Source::Line(index) = span.source {
                heads
                    .lines
                    .push((index, self.bytes[bytes.clone()].to_vec()));
            }
        }
        let query = message.query.unwrap_or_default();
        let mut written = String::new();
        let mut copied = 0;
        for (span, bytes) in self.of(Source::Query) {
            written.push_str(&query[copied..span.start]);
            // Percent-encoded, and so a text.
            written.push_str(&String::from_utf8_lossy(bytes));
            copied = span.end;
        }
        if copied > 0 {
            written.push_str(&query[copied..]);
            heads.query = Some(written);
        }
        heads
    }
}

/// What was done in one class.
#[derive(Clone, Copy, Default)]
struct Counts {
    sealed: u32,
    kept: u32,
    opened: u32,
    masked: u32,
}

struct Work<'p> {
    plan: &'p Plan<'p>,
    ring: &'p Ring,
    tally: Tally,
    /// By class.
    counts: Vec<Counts>,
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
    /// Does one edit of `text`. True: `before` was appended, and what replaces the value.
    fn edit(
        &mut self,
        edit: &Edit,
        text: &[u8],
        before: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, Refusal> {
        let ring = self.ring;
        match &edit.what {
            What::Null => {
                out.extend_from_slice(before);
                out.extend_from_slice(NULL);
                Ok(true)
            }
            What::Seal => {
                out.extend_from_slice(before);
                self.seal(
                    edit,
                    &text[edit.start..edit.end],
                    &ring.sealing[edit.need],
                    out,
                )?;
                self.counts[edit.class].sealed += 1;
                Ok(true)
            }
            What::Keep(sealed) => {
                let dek = ring.opening[edit.need].as_deref();
                let dek = dek.map_err(|why| unkept(*why, edit.start))?;
                if !self.open(edit, sealed, dek) {
                    return Err(Refusal::Token { offset: edit.start });
                }
                self.counts[edit.class].kept += 1;
                Ok(false)
            }
            What::Open(sealed) | What::Mask(sealed) => match ring.opening[edit.need].as_deref() {
                Ok(dek) if self.open(edit, sealed, dek) => {
                    out.extend_from_slice(before);
                    let counts = &mut self.counts[edit.class];
                    if matches!(edit.what, What::Mask(_)) {
                        let mask = self.plan.rules.classes[edit.class].mask.as_ref();
                        let mask = mask.unwrap_or(&NOTHING_SHOWN);
                        mask.write(&self.scratch, out);
                        counts.masked += 1;
                    } else {
                        out.extend_from_slice(&self.scratch);
                        counts.opened += 1;
                    }
                    Ok(true)
                }
                unopened => {
                    let reason = unopened.err().copied();
                    self.tally.leave(reason.map_or(REFUSED, Unopened::word));
                    self.fall_back(unopenable(reason, edit.start), before, out)
                }
            },
        }
    }

    /// What becomes of a token that does not open.
    fn fall_back(
        &mut self,
        refusal: Refusal,
        before: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, Refusal> {
        match self.plan.rules.manner.unopened {
            Fallback::Leave => Ok(false),
            Fallback::Reject => Err(refusal),
            Fallback::Null => {
                out.extend_from_slice(before);
                out.extend_from_slice(NULL);
                self.tally.nulled += 1;
                Ok(true)
            }
        }
    }

    /// Does the edits of the slate, and spells what came of them as their places want it.
    fn put_back(&mut self, slate: &Slate) -> Result<PutBack, Refusal> {
        let mut back = PutBack::default();
        let mut json = Vec::new();
        for (edit, target) in slate.edits.iter().zip(&slate.targets) {
            json.clear();
            let nulled = self.tally.nulled;
            let done = self.edit(edit, &slate.text, b"", &mut json);
            if !done.map_err(|refusal| refusal.at(target.start))? {
                continue;
            }
            let from = back.bytes.len();
            // Outside of JSON there is no null: an empty text stands for it.
            let null = matches!(edit.what, What::Null) || self.tally.nulled > nulled;
            if null && target.style != Style::Inner {
                back.spans.push((*target, from..from));
            } else if target.write(&json, &slate.delimiter, &mut back.bytes) {
                back.spans.push((*target, from..back.bytes.len()));
            } else {
                // A token fits anywhere, so this was opened.
                let counts = &mut self.counts[edit.class];
                match edit.what {
                    What::Mask(_) => counts.masked -= 1,
                    _ => counts.opened -= 1,
                }
                self.tally.leave(REFUSED);
                json.clear();
                let refused = unopenable(None, target.start);
                if self.fall_back(refused, b"", &mut json)? {
                    back.spans.push((*target, from..from));
                }
            }
        }
        Ok(back)
    }

    /// All that was done.
    fn told(mut self) -> Tally {
        for (class, counts) in self.plan.rules.classes.iter().zip(self.counts) {
            for (list, count) in [
                (&mut self.tally.sealed, counts.sealed),
                (&mut self.tally.kept, counts.kept),
                (&mut self.tally.opened, counts.opened),
                (&mut self.tally.masked, counts.masked),
            ] {
                if count > 0 {
                    list.push((class.clone(), count));
                }
            }
        }
        self.tally
    }

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
