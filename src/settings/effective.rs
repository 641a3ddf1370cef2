//! The effective settings word by word, each value with where it came from: what `fieldveil config show` tells.
//!
//! The values are those of the checked settings, which the agent goes by, and not what was written; a word of the file that has no line
//! of its own here is shown as it was written. Of a secret there is only the place, as everywhere in this room.

mod words;

use super::{Overrides, Settings};
use crate::diagnostic::Source;
use crate::marked::{Node, Value as Written};
use std::fmt;
use std::sync::Arc;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything else.
    Default,
    /// The settings file.
    File {
        /// As it was named.
        file: Arc<str>,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
    },
    /// An environment variable, by its name.
    Environment(String),
    /// A flag: `--listen`.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Origin::Environment(variable) => write!(f, "environment {variable}"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// A step from the top of the settings to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into a mapping, by a word or a name.
    Word(String),
    /// Into a list, from 0.
    Item(usize),
}

/// A value as it would be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A name, an address, a duration.
    Text(String),
    /// A count.
    Number(u64),
    /// `true` or `false`.
    Switch(bool),
    /// It is not told.
    Secret,
}

/// One value of the effective settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Where it stands in a file of settings.
    pub path: Vec<Step>,
    /// What it is.
    pub value: Shown,
    /// Who said so.
    pub origin: Origin,
    /// The file says something, too, and is not followed.
    pub over: Option<Origin>,
    /// Whether a file of settings can say it. Policies of `--seal` cannot be written in one, nor can secrets.
    pub writable: bool,
}

impl Word {
    /// `listeners[0].bind`; names of other characters in quotes.
    pub fn name(&self) -> String {
        name(&self.path)
    }
}

/// The steps, as [`Word::name`] has them.
pub fn name(path: &[Step]) -> String {
    let plain = |name: &str| {
        !name.is_empty()
            && (name.bytes()).all(|byte| byte.is_ascii_alphanumeric() || b"_-*".contains(&byte))
    };
    let mut text = String::new();
    for step in path {
        match step {
            Step::Item(at) => text += &format!("[{at}]"),
            Step::Word(word) => {
                if !text.is_empty() {
                    text.push('.');
                }
                match plain(word) {
                    true => text += word,
                    false => text += &format!("{word:?}"),
                }
            }
        }
    }
    text
}

impl Settings {
    /// As [`Settings::load`], and each value with where it came from. `given` tells which flag or variable an override came by,
    /// by the name of its field in [`Overrides`].
    ///
    /// Errors: as there.
    pub fn load_with_origins(
        overrides: &Overrides,
        given: &dyn Fn(&str) -> Origin,
        read: impl Fn(&std::path::Path) -> std::io::Result<String>,
    ) -> Result<(Settings, Vec<Word>), Vec<crate::diagnostic::Diagnostic>> {
        let (settings, written) = Settings::read(super::Purpose::Agent, overrides, read)?;
        let mut all = Collector {
            words: Vec::new(),
            laid_over: words::laid_over(&settings, overrides, given),
            superseded: Vec::new(),
            written: written.as_ref().map(|(source, root)| (source, root)),
        };
        words::collect(&settings, given, &mut all);
        if let Some((_, root)) = &written {
            all.rest(root, &Place::default());
        }
        Ok((settings, all.words))
    }
}

/// A place in the settings.
#[derive(Clone, Default)]
struct Place(Vec<Step>);

impl Place {
    fn word(&self, word: &str) -> Place {
        let mut place = self.clone();
        place.0.push(Step::Word(word.to_owned()));
        place
    }

    fn item(&self, at: usize) -> Place {
        let mut place = self.clone();
        place.0.push(Step::Item(at));
        place
    }
}

struct Collector<'w> {
    words: Vec<Word>,
    /// Everything at and below such a place was said by a flag or a variable.
    laid_over: Vec<(Place, Origin)>,
    /// Places of the file that something else took the place of.
    superseded: Vec<Place>,
    written: Option<(&'w Source, &'w Node)>,
}

impl Collector<'_> {
    fn put(&mut self, place: Place, value: Shown) {
        let laid = |(over, _): &&(Place, Origin)| place.0.starts_with(&over.0);
        let in_file = self.in_file(&place);
        let (origin, over) = match self.laid_over.iter().find(laid) {
            Some((_, origin)) => (origin.clone(), in_file),
            None => (in_file.unwrap_or(Origin::Default), None),
        };
        self.words.push(Word {
            path: place.0,
            value,
            origin,
            over,
            writable: true,
        });
    }

    fn text(&mut self, place: Place, value: impl fmt::Display) {
        self.put(place, Shown::Text(value.to_string()));
    }

    fn maybe(&mut self, place: Place, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.text(place, value);
        }
    }

    fn number(&mut self, place: Place, value: usize) {
        self.put(place, Shown::Number(value as u64));
    }

    /// A secret that an environment variable holds, shown at `place`; it goes over `instead` in the file.
    fn secret(&mut self, place: Place, instead: Place, variable: &str) {
        let over = self.in_file(&instead);
        self.superseded.push(instead);
        self.words.push(Word {
            path: place.0,
            value: Shown::Secret,
            origin: Origin::Environment(variable.to_owned()),
            over,
            writable: false,
        });
    }

    /// What no file of settings can say.
    fn unwritable(&mut self, place: Place, value: &str, origin: Origin) {
        self.words.push(Word {
            path: place.0,
            value: Shown::Text(value.to_owned()),
            origin,
            over: None,
            writable: false,
        });
    }

    fn node(&self, place: &Place) -> Option<&Node> {
        let (_, root) = self.written?;
        place.0.iter().try_fold(root, below)
    }

    fn in_file(&self, place: &Place) -> Option<Origin> {
        let node = self.node(place)?;
        let (source, _) = self.written?;
        let found = source.diagnostic("", node.span, "");
        Some(Origin::File {
            file: source.name().into(),
            line: found.line,
            column: found.column,
        })
    }

    /// Values of the file that have no line yet, each with its neighbours.
    fn rest(&mut self, node: &Node, at: &Place) {
        match &node.value {
            Written::Map(entries) => {
                for entry in entries {
                    self.rest(&entry.node, &at.word(&entry.key));
                }
            }
            Written::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.rest(item, &at.item(index));
                }
            }
            Written::Scalar { text, .. } => {
                let said = self.words.iter().any(|word| word.path == at.0);
                if said || self.superseded.iter().any(|gone| at.0.starts_with(&gone.0)) {
                    return;
                }
                self.text(at.clone(), text);
                if let Some(word) = self.words.pop() {
                    let behind = self.neighbour(&word.path);
                    self.words.insert(behind, word);
                }
            }
        }
    }

    /// Behind the last word that has the most steps in common with `path`.
    fn neighbour(&self, path: &[Step]) -> usize {
        let common = |word: &Word| common(&word.path, path);
        let most = self.words.iter().map(common).max().unwrap_or(0);
        let last = self.words.iter().rposition(|word| common(word) == most);
        last.map_or(self.words.len(), |last| last + 1)
    }
}

/// How many steps two paths begin with together.
pub fn common(one: &[Step], other: &[Step]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

fn below<'n>(node: &'n Node, step: &Step) -> Option<&'n Node> {
    match (&node.value, step) {
        (Written::Map(entries), Step::Word(word)) => entries
            .iter()
            .find(|entry| entry.key == *word)
            .map(|entry| &entry.node),
        (Written::List(items), Step::Item(at)) => items.get(*at),
        _ => None,
    }
}
