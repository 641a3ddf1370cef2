//! From rules as a policy has them to what the engine looks up: paths with their tags, classes, and what each token is bound to.

use super::{CAPTURE, Compiled, CompiledAction, Entry, Openable, ROOT, Source};
use crate::context::Class;
use crate::path::{Path, Selector, Step};
use crate::scan::Tag;
use crate::token::ClassHint;
use crate::transform::{Action, BindSource, Rule, Selects, Spot};
use std::collections::HashSet;
use std::sync::Arc;

/// What was compiled so far.
#[derive(Default)]
pub(in crate::transform) struct Compiler {
    pub(super) classes: Vec<Arc<Class>>,
    pub(in crate::transform) paths: Vec<(Vec<Step>, Tag)>,
    /// Those of siblings, of which there may be one for each node that a filter selects.
    beside: HashSet<(Vec<Step>, Tag)>,
    /// What each capture is: a sibling's name, or a path from the root.
    pub(super) captures: Vec<(Option<String>, Option<Vec<Step>>)>,
    /// Captures from the body's root whose paths are in `paths`.
    rooted: HashSet<Tag>,
}

impl Compiler {
    pub(super) fn rule(&mut self, rule: Rule) -> Result<Compiled, &'static str> {
        let mut siblings = Vec::new();
        let mut roots = Vec::new();
        let (then, of_body) = match rule.at.place() {
            Selects::Json(_) => (None, true),
            Selects::Inside { then, .. } if then.steps().is_none() => {
                return Err(
                    "within a string, paths have no filters and no indexes from the end: the document there is read once",
                );
            }
            Selects::Inside { then, .. } => (Some(then.clone()), true),
            Selects::Named { spot, .. } => (None, matches!(spot, Spot::Form | Spot::Part)),
        };
        let in_json = rule.at.path().is_some();
        let mut entries = vec![
            Entry {
                name: "class".into(),
                source: Source::Class,
            },
            Entry {
                name: "tenant".into(),
                source: Source::Tenant,
            },
        ];
        for bind in rule.bind {
            let source = match bind.source {
                BindSource::Sibling(_) | BindSource::Root(_) if !in_json => {
                    return Err("outside of JSON there is no `sibling` and no `root` to bind");
                }
                BindSource::Outside(index) => Source::Outside(index),
                BindSource::Sibling(name) => {
                    let tag = self.capture(Some(name.clone()), None)?;
                    siblings.push((name, tag));
                    Source::Sibling(tag)
                }
                BindSource::Root(path) => {
                    let steps = path.steps().filter(|_| path.is_singular());
                    let steps = steps
                        .ok_or("a root bind takes a path to one place, by names and indexes")?;
                    let tag = self.capture(None, Some(steps.to_vec()))?;
                    if then.is_some() {
                        roots.push((steps.to_vec(), tag));
                    } else if self.rooted.insert(tag) {
                        self.paths.push((steps.to_vec(), tag));
                    }
                    Source::Root(tag)
                }
            };
            if entries.iter().any(|known| known.name == bind.name) {
                return Err(
                    "a bind's name is taken: `class` and `tenant` are always bound, others once",
                );
            }
            entries.push(Entry {
                name: bind.name,
                source,
            });
        }
        entries.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        let by_place = entries
            .iter()
            .any(|entry| matches!(entry.source, Source::Sibling(_) | Source::Root(_)));
        let path = then.as_ref().or(rule.at.path());
        let ends_with_name = path.and_then(Path::steps).is_none_or(|steps| {
            steps.last().is_some_and(|step| {
                step.selectors
                    .iter()
                    .any(|selector| matches!(selector, Selector::Name(_)))
            })
        });
        let (action, one_class) = match rule.action {
            Action::Pass => (CompiledAction::Pass, false),
            Action::Seal(class) => (CompiledAction::Seal(self.class(class)), false),
            Action::Open(classes) => {
                let one_class = classes.len() == 1;
                (CompiledAction::Open(self.openable(classes)), one_class)
            }
        };
        Ok(Compiled {
            action,
            entries,
            by_place,
            like: 0,
            siblings,
            roots,
            then,
            of_body,
            reveal: rule.reveal,
            expects_token: one_class && ends_with_name,
        })
    }

    fn openable(&mut self, classes: Vec<Arc<Class>>) -> Vec<Openable> {
        let mut openable = Vec::new();
        for class in classes {
            let names: Vec<_> = class.names().cloned().collect();
            let class = self.class(class);
            openable.extend(names.into_iter().map(|name| Openable {
                hint: ClassHint::of(&name),
                class,
                name,
            }));
        }
        openable
    }

    fn class(&mut self, class: Arc<Class>) -> usize {
        match self.classes.iter().position(|known| *known == class) {
            Some(known) => known,
            None => {
                self.classes.push(class);
                self.classes.len() - 1
            }
        }
    }

    fn capture(
        &mut self,
        sibling: Option<String>,
        root: Option<Vec<Step>>,
    ) -> Result<Tag, &'static str> {
        let what = (sibling, root);
        let index = match self.captures.iter().position(|known| *known == what) {
            Some(known) => known,
            None => {
                self.captures.push(what);
                self.captures.len() - 1
            }
        };
        let root = if self.captures[index].1.is_some() {
            ROOT
        } else {
            0
        };
        match Tag::try_from(index) {
            Ok(index) if index < ROOT => Ok(CAPTURE | root | index),
            _ => Err("too many binds on one side of a route"),
        }
    }

    /// Adds the paths of one rule in the body: its own, and those of its siblings.
    pub(super) fn place(
        &mut self,
        steps: &[Step],
        index: usize,
        rule: &Compiled,
    ) -> Result<(), &'static str> {
        let tag = index as Tag;
        self.paths.push((steps.to_vec(), tag));
        if rule.then.is_some() {
            return Ok(());
        }
        self.parts(steps, tag, rule)
    }

    /// Adds what goes with the path of a rule's values: what they hold, where they pass, and their siblings.
    fn parts(&mut self, steps: &[Step], tag: Tag, rule: &Compiled) -> Result<(), &'static str> {
        if matches!(rule.action, CompiledAction::Pass) {
            let mut inside = steps.to_vec();
            inside.push(Step {
                descend: true,
                selectors: vec![Selector::Wildcard],
            });
            self.paths.push((inside, tag));
        }
        for (name, tag) in &rule.siblings {
            let Some((last, parents)) = steps.split_last() else {
                return Err("the whole document has no sibling to bind");
            };
            let member =
                |selector: &Selector| matches!(selector, Selector::Name(_) | Selector::Wildcard);
            if !last.selectors.iter().any(member) {
                return Err(
                    "elements of an array have no siblings to bind; bind a value of the root or of the request",
                );
            }
            let mut beside = parents.to_vec();
            beside.push(Step {
                descend: last.descend,
                selectors: vec![Selector::Name(name.as_str().into())],
            });
            let path = (beside, *tag);
            if self.beside.insert(path.clone()) {
                self.paths.push(path);
            }
        }
        Ok(())
    }

    /// Adds the paths of one rule in the document that a string holds.
    pub(in crate::transform) fn within(
        &mut self,
        index: usize,
        rule: &Compiled,
    ) -> Result<(), &'static str> {
        let Some(steps) = rule.then.as_ref().and_then(Path::steps) else {
            return Ok(());
        };
        let tag = index as Tag;
        self.paths.push((steps.to_vec(), tag));
        for path in &rule.roots {
            if !self.paths.contains(path) {
                self.paths.push(path.clone());
            }
        }
        self.parts(steps, tag, rule)
    }
}
