//! The first step: which spans of a body are to be replaced, in which contexts, with which keys.

use super::captures::{ANYWHERE, Captures};
use super::message::{Message, Shape};
use super::rules::{Compiled, CompiledAction, Openable, Rules, Source, rules_of};
use super::slate::Slate;
use super::{Attitude, Fallback, Level, Refusal, Tally, evaluate, merge};
use crate::context::{Circumstances, Class, Outside, VALUE_BYTES_MAX, push_entry};
use crate::dek::{Kid, Needs, OpenNeed, Ring, Scope, SealNeed, Unopened};
use crate::mask::Mask;
use crate::scan::{Automaton, Fault, Found, Hit, Kind, Scanner, Tag, text};
use crate::token::{self, ClassHint, Suite, Token, TokenError};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// The most values that rules and binds may select in one body.
pub(super) const VALUES_MAX: usize = 1 << 18;
/// Bytes that are scanned between two looks at their number.
const PIECE_BYTES: usize = 1 << 20;
/// The most different records that one body may ask to open; tokens beyond stay sealed.
const RECORDS_MAX: usize = 4_096;

/// Which spans of one body are to be replaced, and what it takes.
pub struct Plan<'r> {
    pub(super) rules: &'r Rules,
    /// In the order of the body; they do not overlap.
    pub(super) edits: Vec<Edit>,
    /// Encoded context entries; the edits refer to ranges of it.
    pub(super) contexts: Vec<u8>,
    /// Nonces and sealed bytes of the tokens found; the edits refer to ranges of it.
    pub(super) payloads: Vec<u8>,
    pub(super) needs: Needs,
    pub(super) tally: Tally,
    /// Values that do not stand in the body as JSON.
    pub(super) slate: Option<Box<Slate>>,
}

/// One span to be replaced, or to be checked.
pub(super) struct Edit {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Index into [`Rules::classes`].
    pub(super) class: usize,
    /// Index into the needs' sealing or opening list.
    pub(super) need: usize,
    pub(super) context: Range<usize>,
    pub(super) what: What,
}

pub(super) enum What {
    Seal,
    /// A token at a sealing place: it must open, and stays.
    Keep(Sealed),
    Open(Sealed),
    /// As `Open`, and what its class's mask leaves of it is shown.
    Mask(Sealed),
    /// A token at an opening place that cannot be opened, where `null` is to stand for it.
    Null,
}

/// A token's cryptographic part.
pub(super) struct Sealed {
    pub(super) suite: Suite,
    pub(super) kid: Kid,
    /// In [`Plan::payloads`]: the nonce (suite 1), then the sealed bytes.
    pub(super) payload: Range<usize>,
}

/// Pure: which spans, which keys. Linear in the body; what it allocates is per value found, not per node.
///
/// # Errors
/// A [`Refusal`]: on a sealing route the body must not go on. On a route that only opens, it may pass as it is.
pub fn plan<'r>(
    rules: &'r Rules,
    body: &[u8],
    circumstances: &Circumstances,
) -> Result<Plan<'r>, Refusal> {
    plan_message(rules, &Message::json(body), circumstances)
}

/// As [`plan`], for a whole message: its body of whatever shape, and its head.
///
/// # Errors
/// As [`plan`].
pub fn plan_message<'r>(
    rules: &'r Rules,
    message: &Message<'_>,
    circumstances: &Circumstances,
) -> Result<Plan<'r>, Refusal> {
    let mut planner = Planner::new(rules, message.body, circumstances);
    match message.shape {
        Shape::Json => planner.document()?,
        Shape::MergePatch => {
            planner.merging = Some(merge::arrays(message.body, rules.manner.depth_max)?);
            planner.document()?;
        }
        Shape::JsonPatch => planner.patch()?,
        Shape::Form => planner.form()?,
        Shape::Multipart { boundary } => planner.multipart(boundary)?,
        Shape::Unread => {}
    }
    if !rules.names.is_empty() {
        planner.head(message)?;
    }
    planner.finish()
}

impl Plan<'_> {
    /// What the key room must provide for [`Plan::apply`].
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// Nothing is to be replaced or checked: the body goes on as it is.
    pub fn is_unchanged(&self) -> bool {
        self.edits.is_empty()
            && self
                .slate
                .as_ref()
                .is_none_or(|slate| slate.edits.is_empty())
    }

    /// Bytes that applying takes beside the body, at most: what is kept for each value, and by how much the output is
    /// longer. A short value makes a long token, and a body may have a value every other byte.
    pub fn memory(&self, ring: &Ring) -> usize {
        let slate = self.slate.as_ref().map_or(0, |slate| slate.memory());
        self.edits.len() * size_of::<Edit>() + self.payloads.len() + self.growth(ring) + slate
    }

    /// What is known before any key is: strays, unclaimed leaves, tokens that stay sealed whatever the keys.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        match fault {
            Fault::Syntax { offset, what } => Refusal::NotJson { offset, what },
            Fault::TooDeep { offset } => Refusal::TooDeep { offset },
        }
    }
}

/// A plan in the making.
pub(super) struct Planner<'r, 'b> {
    pub(super) body: &'b [u8],
    pub(super) circumstances: &'b Circumstances,
    pub(super) captures: Captures,
    /// (class, kid, SHA-256 of the record) -> index of the opening need. One bad record must not stand in the way of a good one.
    records: HashMap<(usize, Kid, [u8; 32]), usize>,
    /// The last opening need: tokens sealed together share it.
    last: Option<(usize, usize)>,
    /// ([`Compiled::like`], name's address) -> the context, where the value's place does not matter.
    shared: Vec<(usize, *const u8, Range<usize>)>,
    text: Vec<u8>,
    payload: Vec<u8>,
    /// Values noted so far.
    pub(super) values: usize,
    /// The body is a JSON Merge Patch, and here are its arrays.
    merging: Option<merge::Arrays>,
    /// What is looked at stands on the slate: no further document within it.
    pub(super) on_slate: bool,
    /// Rules for the document that the value under way holds.
    entering: Vec<usize>,
    /// What the slate is to have.
    pub(super) slate: Slate,
    pub(super) plan: Plan<'r>,
}

impl<'r, 'b> Planner<'r, 'b> {
    fn new(rules: &'r Rules, body: &'b [u8], circumstances: &'b Circumstances) -> Planner<'r, 'b> {
        Planner {
            body,
            circumstances,
            captures: Captures::none(),
            records: HashMap::new(),
            last: None,
            shared: Vec::new(),
            text: Vec::new(),
            payload: Vec::new(),
            values: 0,
            merging: None,
            on_slate: false,
            entering: Vec::new(),
            slate: Slate::default(),
            plan: Plan {
                rules,
                edits: Vec::new(),
                contexts: Vec::with_capacity(128),
                payloads: Vec::new(),
                needs: Needs::default(),
                tally: Tally::default(),
                slate: None,
            },
        }
    }

    /// The same plan, looking at another text.
    pub(super) fn over<'c>(self, text: &'c [u8]) -> Planner<'r, 'c>
    where
        'b: 'c,
    {
        Planner {
            body: text,
            captures: Captures::none(),
            merging: None,
            on_slate: true,
            ..self
        }
    }

    /// The body as one document.
    fn document(&mut self) -> Result<(), Refusal> {
        let rules = self.plan.rules;
        let rebuilt = match rules.evaluated.is_empty() {
            true => None,
            false if self.merging.is_some() => return Err(UNJUDGED),
            false => Some(evaluate::automaton(rules, self.body)?),
        };
        let automaton = rebuilt.as_ref().unwrap_or(&rules.automaton);
        // In pieces, so that a body of nothing but selected values is given up before they are all noted.
        let mut scanner = Scanner::new(automaton, rules.manner.depth_max);
        for piece in self.body.chunks(PIECE_BYTES) {
            scanner.feed(piece)?;
            if scanner.hits() > VALUES_MAX {
                return Err(Refusal::TooMany);
            }
        }
        let found = scanner.finish()?;
        self.plan.edits.reserve(found.hits.len());
        self.found(automaton, &found, 0)
    }

    /// The values that a scan found; it began at `offset`.
    pub(super) fn found(
        &mut self,
        automaton: &Automaton,
        found: &Found,
        offset: usize,
    ) -> Result<(), Refusal> {
        self.values += found.hits.len();
        if self.values > VALUES_MAX {
            return Err(Refusal::TooMany);
        }
        self.captures = Captures::collect(self.plan.rules, automaton, &found.hits);
        for hit in &found.hits {
            self.value(hit, automaton.selected(hit.state))?;
        }
        self.unclaimed(found.counted.scalars, offset + found.counted.first)?;
        if found.near.names > 0 {
            if self.plan.rules.manner.near_miss == Attitude::Reject {
                return Err(Refusal::NearMiss {
                    offset: offset + found.near.first,
                });
            }
            let known = &mut self.plan.tally.near_misses;
            *known = known.saturating_add(found.near.names);
        }
        Ok(())
    }

    /// Scalars that no rule names, the first of them at `offset`.
    pub(super) fn unclaimed(&mut self, scalars: u32, offset: usize) -> Result<(), Refusal> {
        if scalars > 0 {
            if self.plan.rules.manner.unclaimed == Attitude::Reject {
                return Err(Refusal::Unclaimed { offset });
            }
            let known = &mut self.plan.tally.unclaimed;
            *known = known.saturating_add(scalars);
        }
        Ok(())
    }

    fn finish(self) -> Result<Plan<'r>, Refusal> {
        match self.slate.is_empty() {
            true => Ok(self.plan),
            false => self.look_at_slate(),
        }
    }

    /// One value, selected by `tags`.
    pub(super) fn value(&mut self, hit: &Hit, tags: &[Tag]) -> Result<(), Refusal> {
        let rules = self.plan.rules;
        let is_token = self.is_reserved(hit);
        let mut named = false;
        self.entering.clear();
        for index in rules_of(tags) {
            named = true;
            let rule = &rules.rules[index];
            if rule.then.is_some() && !self.on_slate {
                self.entering.push(index);
                continue;
            }
            match &rule.action {
                CompiledAction::Pass => break,
                CompiledAction::Seal(class) if is_token => return self.keep(hit, index, *class),
                CompiledAction::Seal(class) => return self.seal(hit, index, *class),
                CompiledAction::Open(openable) if is_token => {
                    if self.open(hit, index, openable)? {
                        return Ok(());
                    }
                }
                CompiledAction::Open(_) => {
                    if rule.expects_token && hit.kind.is_scalar() && hit.kind != Kind::Null {
                        match rules.manner.plaintext {
                            Attitude::Allow => {}
                            Attitude::Report => self.plan.tally.plaintext += 1,
                            Attitude::Reject => {
                                return Err(Refusal::Plaintext { offset: hit.start });
                            }
                        }
                    }
                }
            }
        }
        if !self.entering.is_empty() {
            self.enter(hit, is_token)?;
        }
        if !is_token {
            return Ok(());
        }
        let opening =
            rules_of(tags).any(|rule| matches!(rules.rules[rule].action, CompiledAction::Open(_)));
        if named && opening {
            return self.leave(hit, "class");
        }
        match rules.manner.stray {
            Attitude::Allow => {}
            Attitude::Report => self.plan.tally.strays += 1,
            Attitude::Reject => return Err(Refusal::Stray { offset: hit.start }),
        }
        Ok(())
    }

    /// A string that holds a document: it goes on the slate, for the rules in `entering`.
    fn enter(&mut self, hit: &Hit, is_token: bool) -> Result<(), Refusal> {
        let rules = self.plan.rules;
        let seals = |rule: &usize| matches!(rules.rules[*rule].action, CompiledAction::Seal(_));
        let refused = match self.entering.iter().any(seals) {
            true => Err(Refusal::NotInner { offset: hit.start }),
            false => Ok(()),
        };
        if hit.kind == Kind::Null {
            return Ok(());
        }
        if !hit.kind.is_string() || is_token {
            return refused;
        }
        let raw = hit.start + 1..hit.end - 1;
        match self.slate.document(self.body, raw, &self.entering) {
            Ok(()) => Ok(()),
            Err(text::Lone) => refused,
        }
    }

    /// True for a string of reserved form; its decoded text is in `self.text` then.
    fn is_reserved(&mut self, hit: &Hit) -> bool {
        self.text.clear();
        match hit.kind {
            Kind::Plain => {
                let raw = &self.body[hit.start + 1..hit.end - 1];
                if raw.first() != Some(&b'f') || !token::is_reserved(raw) {
                    return false;
                }
                self.text.extend_from_slice(raw);
                true
            }
            Kind::Escaped => {
                let raw = &self.body[hit.start + 1..hit.end - 1];
                // However it is spelt, it begins with `f`; few strings are unescaped for this.
                (raw.starts_with(b"f") || raw.starts_with(b"\\u0066"))
                    && text::unescape(raw, &mut self.text).is_ok()
                    && token::is_reserved(&self.text)
            }
            _ => false,
        }
    }

    fn seal(&mut self, hit: &Hit, rule: usize, class: usize) -> Result<(), Refusal> {
        if let Some(arrays) = &self.merging
            && !arrays.hold(hit.start)
        {
            match hit.kind {
                // It removes the member, and is no value.
                Kind::Null => return Ok(()),
                Kind::Object => {
                    return Err(Refusal::Patch {
                        offset: hit.start,
                        what: "it would be merged into a value that is sealed whole",
                    });
                }
                _ => {}
            }
        }
        let Class {
            name, suite, mask, ..
        } = &*self.plan.rules.classes[class];
        if let Some(mask) = mask
            && self.is_masked(hit, mask)
        {
            return Err(Refusal::Masked { offset: hit.start });
        }
        if *suite == Suite::Aes256Siv && !hit.kind.is_scalar() {
            return Err(Refusal::Composite { offset: hit.start });
        }
        let context = match self.context(hit, rule, name) {
            Ok(context) => context,
            Err(what) => return Err(self.unbound(rule, what)),
        };
        let need = self.sealing_need(class);
        self.plan.needs.sealing[need].values += 1;
        self.push(hit, class, need, context, What::Seal);
        Ok(())
    }

    /// A text that a mask made.
    fn is_masked(&mut self, hit: &Hit, mask: &Mask) -> bool {
        if !hit.kind.is_string() {
            return false;
        }
        let raw = &self.body[hit.start + 1..hit.end - 1];
        if hit.kind == Kind::Plain {
            return mask.is_masked(raw);
        }
        self.text.clear();
        text::unescape(raw, &mut self.text).is_ok() && mask.is_masked(&self.text)
    }

    fn sealing_need(&mut self, class: usize) -> usize {
        // One body has one tenant, and few keys.
        let Class { key, suite, .. } = &*self.plan.rules.classes[class];
        let same = |need: &SealNeed| {
            let known = &need.scope.key;
            need.suite == *suite && (Arc::ptr_eq(known, key) || known == key)
        };
        let known = self.plan.needs.sealing.iter().position(same);
        known.unwrap_or_else(|| {
            let scope = self.scope(class);
            let sealing = &mut self.plan.needs.sealing;
            sealing.push(SealNeed {
                scope,
                suite: *suite,
                values: 0,
            });
            sealing.len() - 1
        })
    }

    fn scope(&self, class: usize) -> Scope {
        Scope {
            key: self.plan.rules.classes[class].key.clone(),
            tenant: self.circumstances.tenant.clone(),
        }
    }

    /// A token where the class is sealed: it must be one of that class, and open in the context that it would be sealed in.
    fn keep(&mut self, hit: &Hit, rule: usize, class: usize) -> Result<(), Refusal> {
        let refusal = Refusal::Token { offset: hit.start };
        let owner = &self.plan.rules.classes[class];
        if !owner.keep_sealed {
            return Err(refusal);
        }
        let mut payload = std::mem::take(&mut self.payload);
        let kept = match Token::decode(&self.text, &mut payload) {
            Ok(token) => {
                let name = owner
                    .names()
                    .find(|name| ClassHint::of(name) == token.class);
                match name.map(|name| self.context(hit, rule, name)) {
                    None => Err(refusal),
                    Some(Err(what)) => Err(self.unbound(rule, what)),
                    Some(Ok(context)) => match self.opening_need(class, &token) {
                        None => Err(refusal),
                        Some(need) => {
                            let sealed = self.sealed(&token);
                            self.push(hit, class, need, context, What::Keep(sealed));
                            Ok(())
                        }
                    },
                }
            }
            Err(TokenError::Malformed | TokenError::Unsupported) => Err(refusal),
        };
        self.payload = payload;
        kept
    }

    /// False where the token is of no class that this rule opens.
    fn open(&mut self, hit: &Hit, rule: usize, openable: &'r [Openable]) -> Result<bool, Refusal> {
        let caller = self.circumstances.caller.as_deref();
        let level = self.plan.rules.rules[rule].reveal.to(caller);
        let mut payload = std::mem::take(&mut self.payload);
        let taken = match Token::decode(&self.text, &mut payload) {
            Ok(token) => match openable.iter().find(|one| one.hint == token.class) {
                None => return self.keep_room(payload, Ok(false)),
                Some(_) if level == Level::None => {
                    // As it is to be: no want of a key, and nothing that fails.
                    self.plan.tally.leave("withheld");
                    Ok(())
                }
                Some(one) => match self.context(hit, rule, &one.name) {
                    Err(_) => self.leave(hit, "bind"),
                    Ok(context) => match self.opening_need(one.class, &token) {
                        None => self.leave(hit, Unopened::OverBudget.word()),
                        Some(need) => {
                            let sealed = self.sealed(&token);
                            let what = match level {
                                Level::Full => What::Open(sealed),
                                Level::Masked | Level::None => What::Mask(sealed),
                            };
                            self.push(hit, one.class, need, context, what);
                            Ok(())
                        }
                    },
                },
            },
            Err(TokenError::Malformed) => self.leave(hit, "malformed"),
            Err(TokenError::Unsupported) => self.leave(hit, "unsupported"),
        };
        self.keep_room(payload, taken.map(|()| true))
    }

    /// Puts the room of a decoded token back.
    fn keep_room<T>(&mut self, payload: Vec<u8>, result: T) -> T {
        self.payload = payload;
        result
    }

    /// A token at an opening place that no key will open.
    fn leave(&mut self, hit: &Hit, reason: &'static str) -> Result<(), Refusal> {
        match self.plan.rules.manner.unopened {
            Fallback::Reject => return Err(Refusal::Unopened { offset: hit.start }),
            Fallback::Leave => {}
            Fallback::Null => {
                self.plan.tally.nulled += 1;
                // Of no class and no key: what it is replaced by is known.
                self.push(hit, 0, 0, 0..0, What::Null);
            }
        }
        self.plan.tally.leave(reason);
        Ok(())
    }

    fn opening_need(&mut self, class: usize, token: &Token<'_>) -> Option<usize> {
        if let Some((known, need)) = self.last {
            let last = &self.plan.needs.opening[need];
            if known == class && last.kid == token.kid && last.record.as_deref() == token.record {
                return Some(need);
            }
        }
        let digest: [u8; 32] = Sha256::digest(token.record.unwrap_or_default()).into();
        let opening = &self.plan.needs.opening;
        let need = match self.records.get(&(class, token.kid, digest)) {
            Some(&known) => known,
            None if opening.len() >= RECORDS_MAX => return None,
            None => {
                let need = OpenNeed {
                    scope: self.scope(class),
                    kid: token.kid,
                    record: token.record.map(Into::into),
                };
                let opening = &mut self.plan.needs.opening;
                opening.push(need);
                self.records
                    .insert((class, token.kid, digest), opening.len() - 1);
                opening.len() - 1
            }
        };
        self.last = Some((class, need));
        Some(need)
    }

    fn sealed(&mut self, token: &Token<'_>) -> Sealed {
        let from = self.plan.payloads.len();
        if let Some(nonce) = token.nonce {
            self.plan.payloads.extend_from_slice(nonce);
        }
        self.plan.payloads.extend_from_slice(token.sealed);
        Sealed {
            suite: token.suite,
            kid: token.kid,
            payload: from..self.plan.payloads.len(),
        }
    }

    fn push(&mut self, hit: &Hit, class: usize, need: usize, context: Range<usize>, what: What) {
        let (start, end) = (hit.start, hit.end);
        self.plan.edits.push(Edit {
            start,
            end,
            class,
            need,
            context,
            what,
        });
    }

    fn unbound(&self, rule: usize, (entry, what): Unbound) -> Refusal {
        let name = self.plan.rules.rules[rule].entries[entry].name.clone();
        Refusal::Bind { name, what }
    }

    /// The encoded entries of a value's context, in the class name `class`.
    fn context(
        &mut self,
        hit: &Hit,
        rule: usize,
        class: &Arc<str>,
    ) -> Result<Range<usize>, Unbound> {
        let compiled = &self.plan.rules.rules[rule];
        if compiled.by_place {
            return self.build_context(hit, compiled, class);
        }
        let like = compiled.like;
        let known = |(of, name, _): &&(usize, *const u8, _)| *of == like && *name == class.as_ptr();
        if let Some((_, _, context)) = self.shared.iter().find(known) {
            return Ok(context.clone());
        }
        let context = self.build_context(hit, compiled, class)?;
        self.shared.push((like, class.as_ptr(), context.clone()));
        Ok(context)
    }

    fn build_context(
        &mut self,
        hit: &Hit,
        rule: &Compiled,
        class: &str,
    ) -> Result<Range<usize>, Unbound> {
        let from = self.plan.contexts.len();
        for (index, entry) in rule.entries.iter().enumerate() {
            let done = match entry.source {
                Source::Class => self.entry(&entry.name, class.as_bytes()),
                Source::Tenant => match self.circumstances.tenant.as_deref() {
                    Some(tenant) => self.entry(&entry.name, tenant.as_bytes()),
                    None => Ok(()),
                },
                Source::Outside(source) => self.outside(&entry.name, source),
                Source::Sibling(tag) => self.captured(&entry.name, tag, hit.parent),
                Source::Root(tag) => self.captured(&entry.name, tag, ANYWHERE),
            };
            if let Err(what) = done {
                self.plan.contexts.truncate(from);
                return Err((index, what));
            }
        }
        Ok(from..self.plan.contexts.len())
    }

    fn entry(&mut self, name: &str, value: &[u8]) -> Result<(), &'static str> {
        if value.len() > VALUE_BYTES_MAX {
            return Err("length");
        }
        push_entry(name, value, &mut self.plan.contexts);
        Ok(())
    }

    fn outside(&mut self, name: &str, source: usize) -> Result<(), &'static str> {
        let mut value = Vec::new();
        match self.circumstances.outside.get(source) {
            Some(Outside::Text(text)) => text::canonical_of_text(text, &mut value),
            Some(Outside::Repeated) => return Err("repeated"),
            Some(Outside::Missing) | None => return Err("missing"),
        }
        self.entry(name, &value)
    }

    fn captured(&mut self, name: &str, tag: Tag, parent: usize) -> Result<(), &'static str> {
        let capture = self.captures.get(tag, parent)?;
        let raw = &self.body[capture.start..capture.end];
        match capture.kind {
            Kind::Plain | Kind::Escaped if capture.sealed => Err("sealed"),
            Kind::Plain | Kind::Escaped => {
                let inner = &raw[1..raw.len() - 1];
                let mut value = Vec::with_capacity(raw.len());
                if capture.kind == Kind::Escaped
                    && text::unescape(inner, &mut value).is_ok()
                    && token::is_reserved(&value)
                {
                    return Err("sealed");
                }
                if token::is_reserved(inner) {
                    return Err("sealed");
                }
                value.clear();
                text::canonical(inner, &mut value);
                self.entry(name, &value)
            }
            Kind::Number if capture.sealed => Err("sealed"),
            Kind::Number if raw.iter().all(|c| c.is_ascii_digit() || *c == b'-') => {
                self.entry(name, raw)
            }
            _ => Err("type"),
        }
    }
}

/// A patch is a part of a document, on which a filter finds other values than on the whole.
pub(super) const UNJUDGED: Refusal = Refusal::Unevaluable {
    what: "a filter or an index from the end, on a patch",
};

/// Which entry of a rule's context has no usable value, and why.
type Unbound = (usize, &'static str);
