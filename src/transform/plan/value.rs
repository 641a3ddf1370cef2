//! What is done about one value: the first rule that applies to it decides.

use super::super::rules::{CompiledAction, Openable, rules_of};
use super::super::{Attitude, Fallback, Level, Refusal};
use super::{Edit, Planner, What};
use crate::context::Class;
use crate::dek::Unopened;
use crate::mask::Mask;
use crate::scan::{Hit, Kind, Tag, text};
use crate::token::{self, ClassHint, Suite, Token, TokenError};
use std::ops::Range;

impl<'r> Planner<'r, '_> {
    /// One value, selected by `tags`.
    pub(in crate::transform) fn value(&mut self, hit: &Hit, tags: &[Tag]) -> Result<(), Refusal> {
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
                        self.plaintext(hit.start)?;
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
        self.stray(hit.start)
    }

    /// A scalar of which is known only whether it begins as a token does: longer than any token, and than what is held at a time. It stands
    /// where no rule seals and none looks inside.
    pub(in crate::transform) fn value_gone(
        &mut self,
        hit: &Hit,
        tags: &[Tag],
        is_token: bool,
    ) -> Result<(), Refusal> {
        let rules = self.plan.rules;
        for index in rules_of(tags) {
            let rule = &rules.rules[index];
            match &rule.action {
                CompiledAction::Open(_) if is_token => {
                    self.plan.tally.leave("malformed");
                    return match rules.manner.unopened {
                        Fallback::Leave => Ok(()),
                        // Its first bytes went on: nothing can stand for it any more.
                        Fallback::Null | Fallback::Reject => {
                            Err(Refusal::Unopened { offset: hit.start })
                        }
                    };
                }
                CompiledAction::Open(_) if rule.expects_token && hit.kind != Kind::Null => {
                    self.plaintext(hit.start)?;
                }
                CompiledAction::Open(_) => {}
                CompiledAction::Pass | CompiledAction::Seal(_) => break,
            }
        }
        match is_token {
            true => self.stray(hit.start),
            false => Ok(()),
        }
    }

    /// No token at the opening place of a named class.
    fn plaintext(&mut self, offset: usize) -> Result<(), Refusal> {
        match self.plan.rules.manner.plaintext {
            Attitude::Allow => {}
            Attitude::Report => self.plan.tally.plaintext += 1,
            Attitude::Reject => return Err(Refusal::Plaintext { offset }),
        }
        Ok(())
    }

    /// A token where no rule seals or opens.
    fn stray(&mut self, offset: usize) -> Result<(), Refusal> {
        match self.plan.rules.manner.stray {
            Attitude::Allow => {}
            Attitude::Report => self.plan.tally.strays += 1,
            Attitude::Reject => return Err(Refusal::Stray { offset }),
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
}
