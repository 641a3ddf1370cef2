//! What can be said about two paths without any document: whether one selects all that the other selects, and whether both can
//! select one value.
//!
//! A path without filters is a small automaton over member names and indexes (a descendant step is a loop), so both questions are
//! decided by walking two of them side by side. Names that neither path mentions behave alike, and so do the indexes between two
//! bounds, so that a few letters stand for all. Of a filter only its place is known: the answer is then often "unknown".

use super::query::Segment;
use super::{Path, Selector, Step, selector};
use std::collections::{BTreeSet, HashSet};

/// Pairs of states that are looked at before the question is given up.
const PAIRS_MAX: usize = 4_096;
/// Elements of a slice with a stride that are told apart.
const STRIDES_MAX: u32 = 256;

/// One step from a value to a member or an element.
#[derive(Clone, Copy)]
enum Letter<'p> {
    Name(&'p str),
    /// Any name that neither path mentions.
    OtherName,
    /// An index, and all that lie between it and the next letter.
    Index(u32),
}

/// How many steps of a path are done; several at once behind `..`.
type Done = BTreeSet<usize>;

impl Path {
    /// Every value that `other` selects, in whatever document, this path selects too, or (with `below`) it lies within one
    /// that this path selects. `None`: a filter decides, or it takes too long.
    pub fn covers(&self, other: &Path, below: bool) -> Option<bool> {
        let (own, exact) = self.widened();
        let (others, others_exact) = other.widened();
        if !exact {
            // Who wrote the same filter twice meant the same.
            return (self.text == other.text).then_some(true);
        }
        let uncovered = walk(&own, &others, |own_accepts, other_accepts| {
            match (own_accepts, other_accepts) {
                (true, _) if below => Turn::Leave,
                (false, true) => Turn::Found,
                _ => Turn::Go,
            }
        });
        match uncovered {
            Some(false) => Some(true),
            // The counterexample may be one that the filter does not select.
            Some(true) if others_exact => Some(false),
            _ => None,
        }
    }

    /// Some document has a value that both paths select, or (with `below`) one that `other` selects and that lies within one
    /// that this path selects. `None`: a filter decides, or it takes too long.
    pub fn meets(&self, other: &Path, below: bool) -> Option<bool> {
        let (mut own, exact) = self.widened();
        let (others, others_exact) = other.widened();
        let judge = |own: &[Step]| {
            walk(own, &others, |own_accepts, other_accepts| {
                match own_accepts && other_accepts {
                    true => Turn::Found,
                    false => Turn::Go,
                }
            })
        };
        let mut met = judge(&own);
        if below && met == Some(false) {
            own.push(Step {
                descend: true,
                selectors: vec![Selector::Wildcard],
            });
            met = judge(&own);
        }
        match met {
            Some(false) => Some(false),
            Some(true) if exact && others_exact => Some(true),
            _ => None,
        }
    }

    /// The path's steps, with a wildcard in place of each filter and index from the end, and whether they are all of it.
    fn widened(&self) -> (Vec<Step>, bool) {
        if let Some(steps) = self.steps() {
            return (steps.to_vec(), true);
        }
        let wide = |segment: &Segment| Step {
            descend: segment.descend,
            selectors: segment
                .picks
                .iter()
                .map(|pick| selector(pick).unwrap_or(Selector::Wildcard))
                .collect(),
        };
        (self.query.iter().map(wide).collect(), false)
    }
}

/// What to do with a pair of states.
enum Turn {
    /// This pair answers the question.
    Found,
    /// What comes behind it cannot.
    Leave,
    Go,
}

/// Walks both paths side by side over all documents. True: `judge` found what it looks for. `None`: too much to walk.
fn walk(own: &[Step], other: &[Step], judge: impl Fn(bool, bool) -> Turn) -> Option<bool> {
    let letters = letters(own, other)?;
    let start: Done = [0].into();
    let mut seen: HashSet<(Done, Done)> = HashSet::from([(start.clone(), start.clone())]);
    let mut queue = vec![(start.clone(), start)];
    while let Some((at, others)) = queue.pop() {
        match judge(at.contains(&own.len()), others.contains(&other.len())) {
            Turn::Found => return Some(true),
            Turn::Leave => continue,
            Turn::Go => {}
        }
        for letter in &letters {
            let next = (advance(own, &at, *letter), advance(other, &others, *letter));
            if !next.1.is_empty() && !seen.contains(&next) {
                if seen.len() >= PAIRS_MAX {
                    return None;
                }
                seen.insert(next.clone());
                queue.push(next);
            }
        }
    }
    Some(false)
}

fn advance(steps: &[Step], done: &Done, letter: Letter<'_>) -> Done {
    let mut next = Done::new();
    for &at in done {
        let Some(step) = steps.get(at) else { continue };
        if step.descend {
            next.insert(at);
        }
        if step
            .selectors
            .iter()
            .any(|selector| takes(selector, letter))
        {
            next.insert(at + 1);
        }
    }
    next
}

fn takes(selector: &Selector, letter: Letter<'_>) -> bool {
    match (selector, letter) {
        (Selector::Wildcard, _) => true,
        (Selector::Name(name), Letter::Name(letter)) => **name == *letter,
        (Selector::Index(index), Letter::Index(letter)) => *index == letter,
        (Selector::Slice { start, end, step }, Letter::Index(letter)) => {
            (*start..*end).contains(&letter) && (letter - start).is_multiple_of(*step)
        }
        _ => false,
    }
}

/// Names and indexes that the two paths tell apart.
fn letters<'p>(own: &'p [Step], other: &'p [Step]) -> Option<Vec<Letter<'p>>> {
    let mut names: BTreeSet<&str> = BTreeSet::new();
    let mut indexes: BTreeSet<u32> = [0].into();
    for selector in own.iter().chain(other).flat_map(|step| &step.selectors) {
        match selector {
            Selector::Name(name) => {
                names.insert(name);
            }
            Selector::Index(index) => indexes.extend([*index, index.saturating_add(1)]),
            Selector::Slice { start, end, step } if *step == 1 => {
                indexes.extend([*start, *end]);
            }
            Selector::Slice { start, end, step } => {
                if end.saturating_sub(*start) / step > STRIDES_MAX {
                    return None;
                }
                for element in (*start..*end).step_by(*step as usize) {
                    indexes.extend([element, element.saturating_add(1)]);
                }
                indexes.insert(*end);
            }
            Selector::Wildcard => {}
        }
    }
    let names = names.into_iter().map(Letter::Name);
    let indexes = indexes.into_iter().map(Letter::Index);
    Some(names.chain([Letter::OtherName]).chain(indexes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        Path::parse(text).expect("a path")
    }

    #[track_caller]
    fn covers(own: &str, other: &str, expected: Option<bool>) {
        let found = path(own).covers(&path(other), false);
        assert_eq!(found, expected, "{own} {other}");
    }

    #[track_caller]
    fn within(own: &str, other: &str, expected: Option<bool>) {
        let found = path(own).covers(&path(other), true);
        assert_eq!(found, expected, "{own} {other}");
    }

    #[track_caller]
    fn meets(own: &str, other: &str, expected: Option<bool>) {
        let both = |a: &str, b: &str| path(a).meets(&path(b), false);
        assert_eq!(both(own, other), expected, "{own} {other}");
        assert_eq!(both(other, own), expected, "{other} {own}");
    }

    #[test]
    fn one_path_covers_another() {
        covers("$..ssn", "$.a.ssn", Some(true));
        covers("$..ssn", "$..a..ssn", Some(true));
        covers("$..*", "$.a[3].b", Some(true));
        covers("$..*", "$", Some(false));
        covers("$.a.ssn", "$..ssn", Some(false));
        covers("$.a['b','c']", "$.a.b", Some(true));
        covers("$.a.b", "$.a['b','c']", Some(false));
        covers("$.*", "$.a", Some(true));
        covers("$.*", "$[7]", Some(true));
        covers("$.a", "$.b", Some(false));
        covers("$.a[*].n", "$.a[0,1].n", Some(true));
        covers("$.a[*].n", "$.a.x.n", Some(true));
        covers("$.a[0:5]", "$.a[1:3]", Some(true));
        covers("$.a[1:3]", "$.a[0:5]", Some(false));
        covers("$.a[0:6:2]", "$.a[2,4]", Some(true));
        covers("$.a[0:6:2]", "$.a[3]", Some(false));
        covers("$.a[0:10]", "$.a[0:10:3]", Some(true));
        covers("$.a[::2]", "$.a[2]", None);
        covers("$['\\u0061']", "$.a", Some(true));
        covers("$", "$", Some(true));
    }

    #[test]
    fn parts_lie_within_what_is_selected() {
        within("$.a", "$.a.b.c", Some(true));
        within("$.a", "$.a", Some(true));
        within("$.a.b", "$.a", Some(false));
        within("$..notes", "$.notes[*].text", Some(true));
        within("$", "$..x", Some(true));
        covers("$.a", "$.a.b", Some(false));
    }

    #[test]
    fn two_paths_meet() {
        meets("$..number", "$.cards[*].*", Some(true));
        meets("$..number", "$.cards[*].cvc", Some(false));
        meets("$.*", "$..a", Some(true));
        meets("$.a[0]", "$.a[1]", Some(false));
        meets("$.a[0:2]", "$.a[1:3]", Some(true));
        meets("$.a[0:4:2]", "$.a[1:4:2]", Some(false));
        meets("$.a", "$.a.b", Some(false));
    }

    #[test]
    fn a_path_reaches_into_what_another_selects() {
        let reaches = |own: &str, other: &str| path(own).meets(&path(other), true);
        assert_eq!(reaches("$.person", "$..ssn"), Some(true));
        assert_eq!(reaches("$.person", "$.person.ssn"), Some(true));
        assert_eq!(reaches("$.person", "$.person"), Some(true));
        assert_eq!(reaches("$.person.ssn", "$.person"), Some(false));
        assert_eq!(reaches("$.person", "$.other.ssn"), Some(false));
        assert_eq!(reaches("$.a[?@.b]", "$.a[*].c"), None);
    }

    #[test]
    fn of_filters_little_is_known() {
        covers("$.a[?@.b].c", "$.a[?@.b].c", Some(true));
        covers("$.a[?@.b].c", "$.a[0].c", None);
        covers("$.a[*].c", "$.a[?@.b].c", Some(true));
        covers("$.a[0].c", "$.a[?@.b].c", None);
        covers("$.a[*].c", "$.a[-1].c", Some(true));
        meets("$.a[?@.b].c", "$.a[0].c", None);
        meets("$.a[?@.b].c", "$.a[0].d", Some(false));
    }

    #[test]
    fn it_ends_however_long_the_paths_are() {
        let long = format!("${}", "..a".repeat(300));
        let other = format!("${}", "..*".repeat(300));
        assert!(path(&long).covers(&path(&other), false) != Some(true));
        assert_eq!(path("$..*").covers(&path("$..a..b..c"), false), Some(true));
    }
}
