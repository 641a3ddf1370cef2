//! A route's rules for one direction, compiled: one automaton for all their paths and those of their binds.

mod alike;
mod compiler;

pub(super) use compiler::Compiler;

use self::alike::{Alike, Seen};
use super::gather::Gathering;
use super::inner::{self, Inner};
use super::{Attitude, Fallback, Manner, Reveal, Rule, RuleError, Selects, Spot};
use crate::context::Class;
use crate::path::{Path, Step};
use crate::scan::{Automaton, Interest, Tag, fold};
use crate::token::ClassHint;
use std::sync::Arc;

/// The most rules of one direction; the tags above it are those of captures.
pub const RULES_MAX: usize = 1_024;
/// Set in the tag of a path whose value is bound, not sealed.
const CAPTURE: Tag = 0x8000;
/// Set beside it where the path is one from the root.
const ROOT: Tag = 0x4000;

/// A route's rules for one direction, compiled.
#[derive(Debug)]
pub struct Rules {
    pub(super) rules: Vec<Compiled>,
    /// Every class that a rule names, once.
    pub(super) classes: Vec<Arc<Class>>,
    /// Of `classes`, for the tokens that are sealed now.
    pub(super) hints: Vec<ClassHint>,
    pub(super) manner: Manner,
    pub(super) automaton: Automaton,
    /// Rules whose paths must be evaluated on a whole document; the automaton is then built again for each.
    pub(super) evaluated: Vec<(Path, usize)>,
    /// Some rule binds a value of the document.
    pub(super) captures: bool,
    /// Names that values outside of JSON go by, with the rules of each.
    pub(super) names: Vec<Named>,
    /// Strings that hold documents, by the path to them.
    pub(super) inner: Vec<Inner>,
    /// Texts that rules gather from document to document.
    pub(super) gathering: Option<Gathering>,
    /// Some rule selects values of a JSON body.
    json: bool,
    /// The paths in `automaton`, with their tags.
    fixed: Vec<(Vec<Step>, Tag)>,
}

#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) action: CompiledAction,
    /// Of the token's context, in the byte order of their names.
    pub(super) entries: Vec<Entry>,
    /// The context depends on where in the document the value stands.
    pub(super) by_place: bool,
    /// The first rule with the same entries: of one class, both have the same context.
    pub(super) like: usize,
    siblings: Vec<(String, Tag)>,
    /// Of binds from the root of the document in a string.
    roots: Vec<(Vec<Step>, Tag)>,
    /// Its values stand in documents within strings; the path there.
    pub(super) then: Option<Path>,
    /// It selects values of a body.
    pub(super) of_body: bool,
    pub(super) reveal: Reveal,
    /// A value here that is no token is worth a count: the rule names one class, and its path ends with a name.
    pub(super) expects_token: bool,
}

/// A name outside of JSON, and the rules that select its values.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) spot: Spot,
    pub(super) name: Arc<str>,
    pub(super) tags: Vec<Tag>,
    /// Other spellings of it are near misses. Empty where nothing watches for them.
    alike: Alike,
}

#[derive(Debug)]
pub(super) enum CompiledAction {
    /// Index into `classes`.
    Seal(usize),
    Open(Vec<Openable>),
    Pass,
}

/// A name under which a token may have been sealed.
#[derive(Debug)]
pub(super) struct Openable {
    pub(super) hint: ClassHint,
    pub(super) class: usize,
    pub(super) name: Arc<str>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Arc<str>,
    pub(super) source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Class,
    Tenant,
    /// Captured at the value's object.
    Sibling(Tag),
    /// Captured once in the document.
    Root(Tag),
    Outside(usize),
}

/// What a rule with `gather` has to be.
const GATHER: &str = "what is gathered is a text of a JSON document, by a path without filters and indexes from the end, and bound to nothing of the document";

impl Rules {
    /// Compiles the rules of one direction.
    ///
    /// # Errors
    /// Names the rule: more than `RULES_MAX` rules, a sibling bound where values have no siblings, a root bind that is not
    /// singular, paths that are too complex together.
    pub fn compile(rules: Vec<Rule>, manner: Manner) -> Result<Rules, RuleError> {
        let fault = |rule: usize, what: &str| RuleError {
            rule,
            what: what.to_owned(),
        };
        if rules.len() > RULES_MAX {
            return Err(fault(RULES_MAX, "too many rules on one side of a route"));
        }
        let count = rules.len();
        let mut compiler = Compiler::default();
        let mut evaluated = Vec::new();
        let mut compiled = Vec::with_capacity(count);
        let mut names: Vec<Named> = Vec::new();
        let mut json = false;
        let mut outers: Vec<(Path, Vec<usize>)> = Vec::new();
        let mut gathers = Vec::new();
        for (index, rule) in rules.into_iter().enumerate() {
            let at = rule.at.clone();
            let gather = rule.gather;
            let mut one = compiler.rule(rule).map_err(|what| fault(index, what))?;
            let like = |known: &Compiled| known.entries == one.entries;
            if gather {
                let path = match at.place() {
                    Selects::Json(path) if path.steps().is_some() && !one.by_place => path,
                    _ => return Err(fault(index, GATHER)),
                };
                one.expects_token = false;
                gathers.push((path.clone(), index));
            }
            one.like = compiled.iter().position(like).unwrap_or(index);
            json |= at.path().is_some();
            match at.place() {
                Selects::Named { spot, name } => {
                    let same = |known: &&mut Named| known.spot == *spot && known.name == *name;
                    match names.iter_mut().find(same) {
                        Some(known) => known.tags.push(index as Tag),
                        None => names.push(Named {
                            spot: *spot,
                            name: name.clone(),
                            tags: vec![index as Tag],
                            alike: Alike::default(),
                        }),
                    }
                }
                Selects::Json(path) | Selects::Inside { outer: path, .. } => match path.steps() {
                    Some(steps) => compiler
                        .place(steps, index, &one)
                        .map_err(|what| fault(index, what))?,
                    None => evaluated.push((path.clone(), index)),
                },
            }
            if let Selects::Inside { outer, .. } = at.place() {
                match outers
                    .iter_mut()
                    .find(|(known, _)| known.as_str() == outer.as_str())
                {
                    Some((_, rules)) => rules.push(index),
                    None => outers.push((outer.clone(), vec![index])),
                }
            }
            compiled.push(one);
        }
        let Compiler {
            classes,
            paths,
            captures,
            ..
        } = compiler;
        let automaton =
            automaton(&compiled, manner, &paths, &[], Level::Body).ok_or_else(|| {
                fault(
                    count.saturating_sub(1),
                    "the paths of this side are too complex together",
                )
            })?;
        let mut inner = Vec::with_capacity(outers.len());
        for (_, rules) in outers {
            let last = rules.last().copied().unwrap_or_default();
            let built = inner::automaton(&compiled, manner, &rules);
            let automaton = built.map_err(|what| fault(last, what))?;
            inner.push(Inner { rules, automaton });
        }
        for named in &mut names {
            if (named.tags.iter()).any(|tag| is_watched(&compiled, manner, *tag)) {
                named.alike = Alike::of(&named.name);
            }
        }
        Ok(Rules {
            names,
            inner,
            gathering: Gathering::of(&gathers),
            json,
            rules: compiled,
            hints: classes.iter().map(|class| class.hint()).collect(),
            classes,
            manner,
            automaton,
            evaluated,
            captures: !captures.is_empty(),
            fixed: paths,
        })
    }

    /// No rule at all: the body streams through untouched.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// At least one rule seals: what cannot be understood is refused.
    pub fn seals(&self) -> bool {
        self.rules
            .iter()
            .any(|rule| matches!(rule.action, CompiledAction::Seal(_)))
    }

    /// A body may be refused for what no rule foresees: one that cannot be understood is, then.
    pub fn rejects(&self) -> bool {
        let Manner {
            stray,
            unclaimed,
            plaintext,
            near_miss,
            unopened,
            depth_max: _,
        } = self.manner;
        [stray, unclaimed, plaintext, near_miss].contains(&Attitude::Reject)
            || unopened == Fallback::Reject
    }

    /// At least one rule seals values of bodies: one that cannot be understood is refused.
    pub fn seals_bodies(&self) -> bool {
        let seals = |rule: &Compiled| matches!(rule.action, CompiledAction::Seal(_));
        self.rules.iter().any(|rule| rule.of_body && seals(rule))
    }

    /// A body that cannot be understood is refused: it might hold what a rule seals, or what the side rejects.
    pub fn must_understand(&self) -> bool {
        self.seals_bodies() || self.rejects()
    }

    /// At least one rule seals values of header fields or of the query.
    pub fn seals_heads(&self) -> bool {
        self.seals_named(Spot::Header) || self.seals_named(Spot::Query)
    }

    /// At least one rule seals values at this spot.
    pub fn seals_named(&self, spot: Spot) -> bool {
        let mut there = self.names.iter().filter(|named| named.spot == spot);
        there.any(|named| self.sealing(&named.tags))
    }

    /// Some rule selects values of header fields or of the query.
    pub fn reads_heads(&self) -> bool {
        self.reads(Spot::Header) || self.reads(Spot::Query)
    }

    /// Bodies are looked into: some rule is for them, or what no rule foresees is refused.
    pub fn reads_bodies(&self) -> bool {
        self.rules.iter().any(|rule| rule.of_body) || (self.rejects() && !self.is_empty())
    }

    /// Bodies of JSON are looked into.
    pub fn reads_json(&self) -> bool {
        self.json || (self.reads_bodies() && !self.reads(Spot::Form) && !self.reads(Spot::Part))
    }

    /// Some rule selects values at this spot.
    pub fn reads(&self, spot: Spot) -> bool {
        self.names.iter().any(|named| named.spot == spot)
    }

    /// The header fields that rules select, in lower case.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        let headers = self.names.iter().filter(|n| n.spot == Spot::Header);
        headers.map(|named| &*named.name)
    }

    /// The rules that select values of a name at a spot.
    pub(super) fn of_name(&self, spot: Spot, name: &str) -> &[Tag] {
        let mut names = self.names.iter();
        names
            .find(|named| named.spot == spot && *named.name == *name)
            .map_or(&[], |named| &named.tags)
    }

    /// The name is that of a value which is sealed at this spot, but for its spelling; and no rule has it as it is.
    pub fn is_near(&self, spot: Spot, name: &str) -> bool {
        let mut watched = (self.names.iter())
            .filter(|named| named.spot == spot && !named.alike.is_empty())
            .peekable();
        if watched.peek().is_none() || !self.of_name(spot, name).is_empty() {
            return false;
        }
        let name = fold::fold(name);
        let seen = Seen::of(&name);
        watched.any(|named| match spot {
            Spot::Header => named.alike.has_whole(&seen),
            Spot::Query | Spot::Form | Spot::Part => named.alike.has(&seen),
        })
    }

    /// The rules of `tags` seal, one of them at least.
    pub(super) fn sealing(&self, tags: &[Tag]) -> bool {
        rules_of(tags).any(|rule| matches!(self.rules[rule].action, CompiledAction::Seal(_)))
    }

    /// At least one rule gathers texts.
    pub fn gathers(&self) -> bool {
        self.gathering.is_some()
    }

    /// At least one rule opens.
    pub fn opens(&self) -> bool {
        self.rules
            .iter()
            .any(|rule| matches!(rule.action, CompiledAction::Open(_)))
    }

    /// A document may be rewritten in pieces; otherwise why it must be held whole.
    ///
    /// # Errors
    /// A fixed phrase.
    pub fn in_pieces(&self) -> Result<(), &'static str> {
        match self.evaluated.is_empty() {
            true => Ok(()),
            false => Err(
                "a path with a filter, or an index from the end, is evaluated on the whole body",
            ),
        }
    }

    /// What holds for the whole direction.
    pub fn manner(&self) -> Manner {
        self.manner
    }

    /// The same paths, reporting every value that a rule selects, and nothing for what is not looked into.
    pub(super) fn revealing(&self, nodes: &[(Vec<Step>, usize)]) -> Option<Automaton> {
        let mut compiler = Compiler::default();
        for (steps, rule) in nodes {
            let _ = compiler.place(steps, *rule, &self.rules[*rule]);
        }
        let paths: Vec<(&[Step], Tag)> = self
            .fixed
            .iter()
            .chain(&compiler.paths)
            .map(|(steps, tag)| (steps.as_slice(), *tag))
            .collect();
        let watched = |tag| is_watched(&self.rules, self.manner, tag);
        Automaton::watching(&paths, |_| Interest::EVERY, watched).ok()
    }

    /// The automaton with the nodes that filters selected in one document, as (steps from the root, rule).
    pub(super) fn automaton_with(&self, nodes: &[(Vec<Step>, usize)]) -> Option<Automaton> {
        let mut compiler = Compiler::default();
        for (steps, rule) in nodes {
            // A node that has no sibling lacks the bound value, which its plan will say.
            let _ = compiler.place(steps, *rule, &self.rules[*rule]);
        }
        automaton(
            &self.rules,
            self.manner,
            &self.fixed,
            &compiler.paths,
            Level::Body,
        )
    }
}

pub(super) fn automaton(
    rules: &[Compiled],
    manner: Manner,
    fixed: &[(Vec<Step>, Tag)],
    more: &[(Vec<Step>, Tag)],
    level: Level,
) -> Option<Automaton> {
    let paths: Vec<(&[Step], Tag)> = fixed
        .iter()
        .chain(more)
        .map(|(steps, tag)| (steps.as_slice(), *tag))
        .collect();
    let interest = |tags: &[Tag]| interest(rules, manner, tags, level);
    Automaton::watching(&paths, interest, |tag| is_watched(rules, manner, tag)).ok()
}

/// The names of this path are watched for: other spellings of them are near misses.
fn is_watched(rules: &[Compiled], manner: Manner, tag: Tag) -> bool {
    let seals = |rule: &Compiled| matches!(rule.action, CompiledAction::Seal(_));
    manner.near_miss != Attitude::Allow
        && tag & CAPTURE == 0
        && rules.get(usize::from(tag)).is_some_and(seals)
}

/// Which document is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// The body.
    Body,
    /// One that a string of the body holds.
    Inner,
}

/// What the scanner is to report where `tags` are selected.
fn interest(rules: &[Compiled], manner: Manner, tags: &[Tag], level: Level) -> Interest {
    let mut interest = Interest::NONE;
    if manner.stray != Attitude::Allow {
        interest = interest.and(Interest::TOKENS);
    }
    let named = tags.iter().any(|tag| tag & CAPTURE == 0);
    if !named && manner.unclaimed != Attitude::Allow {
        interest = interest.and(Interest::COUNTED);
    }
    let mut decided = false;
    for &tag in tags {
        let capture = tag & CAPTURE != 0;
        // A string that holds a document is looked at whatever it is.
        let holds = || !decided && level == Level::Body && rules[usize::from(tag)].then.is_some();
        if capture || holds() {
            interest = interest.and(Interest::EVERY);
        } else if !decided {
            let rule = &rules[usize::from(tag)];
            decided = !matches!(rule.action, CompiledAction::Open(_));
            interest = interest.and(match rule.action {
                CompiledAction::Seal(_) => Interest::WHOLE,
                CompiledAction::Open(_) if rule.expects_token => Interest::EVERY,
                CompiledAction::Open(_) => Interest::TOKENS,
                CompiledAction::Pass => Interest::NONE,
            });
        }
    }
    interest
}

/// The rules among `tags`, in their order.
pub(super) fn rules_of(tags: &[Tag]) -> impl Iterator<Item = usize> + '_ {
    tags.iter()
        .take_while(|tag| **tag & CAPTURE == 0)
        .map(|tag| usize::from(*tag))
}

/// The captures among `tags`.
pub(super) fn captures_of(tags: &[Tag]) -> impl Iterator<Item = Tag> + '_ {
    tags.iter().copied().filter(|tag| tag & CAPTURE != 0)
}

/// The capture is of a value that stands once in a document.
pub(super) fn is_root(tag: Tag) -> bool {
    tag & ROOT != 0
}
