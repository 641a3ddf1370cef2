//! The context of a value: its class, the tenant, and what its rule binds it to.

use super::super::Refusal;
use super::super::captures::ANYWHERE;
use super::super::rules::{Compiled, Source};
use super::Planner;
use crate::context::{Outside, VALUE_BYTES_MAX, push_entry};
use crate::scan::{Hit, Tag, text};
use std::ops::Range;
use std::sync::Arc;

/// Which entry of a rule's context has no usable value, and why.
pub(super) type Unbound = (usize, &'static str);

impl Planner<'_, '_> {
    pub(super) fn unbound(&self, rule: usize, (entry, what): Unbound) -> Refusal {
        let name = self.plan.rules.rules[rule].entries[entry].name.clone();
        Refusal::Bind { name, what }
    }

    /// The encoded entries of a value's context, in the class name `class`.
    pub(super) fn context(
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
        for (index, one) in rule.entries.iter().enumerate() {
            let done = match one.source {
                Source::Class => entry(&one.name, class.as_bytes(), &mut self.plan.contexts),
                Source::Tenant => match self.circumstances.tenant.as_deref() {
                    Some(tenant) => entry(&one.name, tenant.as_bytes(), &mut self.plan.contexts),
                    None => Ok(()),
                },
                Source::Outside(source) => self.outside(&one.name, source),
                Source::Sibling(tag) => self.captured(&one.name, tag, hit.parent),
                Source::Root(tag) => self.captured(&one.name, tag, ANYWHERE),
            };
            if let Err(what) = done {
                self.plan.contexts.truncate(from);
                return Err((index, what));
            }
        }
        Ok(from..self.plan.contexts.len())
    }

    fn outside(&mut self, name: &str, source: usize) -> Result<(), &'static str> {
        let mut value = Vec::new();
        match self.circumstances.outside.get(source) {
            Some(Outside::Text(text)) => text::canonical_of_text(text, &mut value),
            Some(Outside::Repeated) => return Err("repeated"),
            Some(Outside::Missing) | None => return Err("missing"),
        }
        entry(name, &value, &mut self.plan.contexts)
    }

    fn captured(&mut self, name: &str, tag: Tag, parent: usize) -> Result<(), &'static str> {
        let value = self.captures.value(tag, parent, self.body)?;
        entry(name, &value, &mut self.plan.contexts)
    }
}

fn entry(name: &str, value: &[u8], contexts: &mut Vec<u8>) -> Result<(), &'static str> {
    if value.len() > VALUE_BYTES_MAX {
        return Err("length");
    }
    push_entry(name, value, contexts);
    Ok(())
}
