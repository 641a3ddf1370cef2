//! A JSON Patch (RFC 6902): each operation's value belongs where its pointer points, and is judged by the rules for that place.
//!
//! What cannot be judged, or not be done on sealed values, is refused: a comparison with one, a move between places that are not
//! sealed alike, a pointer into one, a member that no operation has.

use super::Refusal;
use super::plan::{PIECE_BYTES, Planner, UNJUDGED, VALUES_MAX};
use super::rules::{CompiledAction, Rules, Source, rules_of};
use crate::path::Path;
use crate::scan::{Automaton, Found, Hit, Interest, Kind, Scanner, Tag, text};
use std::sync::LazyLock;

/// The most operations of one patch.
const OPERATIONS_MAX: usize = 4_096;
/// The most meanings of one pointer that are compared.
const MEANINGS_MAX: usize = 8;
/// The members of an operation, in the order of their tags in [`OPERATIONS`].
const MEMBERS: [&str; 7] = [
    "$",
    "$[*]",
    "$[*].op",
    "$[*].path",
    "$[*].from",
    "$[*].value",
    "$[*].*",
];
const OBJECT: Tag = 1;
const FROM: Tag = 4;
const VALUE: Tag = 5;
/// Of a member that bears it alone, nobody knows what it is.
const ANY: Tag = 6;

/// Finds the operations of a patch, and their members.
static OPERATIONS: LazyLock<Automaton> = LazyLock::new(|| {
    let paths: Vec<Path> = MEMBERS
        .iter()
        .filter_map(|text| Path::parse(text).ok())
        .collect();
    let steps: Vec<_> = (0..)
        .zip(&paths)
        .filter_map(|(tag, path)| Some((path.steps()?, tag)))
        .collect();
    let interest = |tags: &[Tag]| match tags {
        [] => Interest::NONE,
        tags if tags.contains(&VALUE) => Interest::WHOLE,
        _ => Interest::EVERY,
    };
    Automaton::build(&steps, interest).unwrap_or_else(|_| unreachable!("seven short paths"))
});

/// One operation, as far as it was read.
#[derive(Default)]
struct Operation<'b> {
    start: usize,
    op: Option<String>,
    path: Option<String>,
    from: Option<String>,
    value: Option<(usize, &'b [u8])>,
}

impl Planner<'_, '_> {
    /// The body as a patch.
    pub(super) fn patch(&mut self) -> Result<(), Refusal> {
        let rules = self.plan.rules;
        if !rules.evaluated.is_empty() {
            return Err(UNJUDGED);
        }
        let mut scanner = Scanner::new(&*OPERATIONS, rules.manner.depth_max);
        for piece in self.body.chunks(PIECE_BYTES) {
            scanner.feed(piece)?;
            if scanner.hits() > VALUES_MAX {
                return Err(Refusal::TooMany);
            }
        }
        let found = scanner.finish()?;
        let strict = self.plan.rules.must_understand();
        let object = |hit: &&Hit| OPERATIONS.selected(hit.state) == [OBJECT];
        if found.hits.iter().filter(object).count() > OPERATIONS_MAX {
            return Err(Refusal::TooMany);
        }
        let mut operation: Option<Operation<'_>> = None;
        for hit in &found.hits {
            let wrong = |what| Refusal::Patch {
                offset: hit.start,
                what,
            };
            match OPERATIONS.selected(hit.state) {
                [0] if hit.kind == Kind::Array => {}
                [0] => return Err(wrong("it is no list of operations")),
                [OBJECT] if hit.kind == Kind::Object => {
                    let start = hit.start;
                    let next = Operation {
                        start,
                        ..Operation::default()
                    };
                    if let Some(whole) = operation.replace(next) {
                        self.operation(&whole)?;
                    }
                }
                // An upstream ignores it (RFC 6902, section 4), or takes it for a spelling of one that it knows, or keeps it.
                [ANY] if strict => {
                    return Err(wrong("a member that RFC 6902 does not have"));
                }
                [ANY] => {}
                [member, ANY] => {
                    let body = self.body;
                    let known = operation.as_mut().filter(|of| of.start == hit.parent);
                    let known = known.ok_or(wrong("an operation is no object"))?;
                    known.take(*member, hit, body).map_err(wrong)?;
                }
                _ => return Err(wrong("an operation is no object")),
            }
        }
        match operation {
            Some(last) => self.operation(&last),
            None => Ok(()),
        }
    }

    fn operation(&mut self, operation: &Operation<'_>) -> Result<(), Refusal> {
        let rules = self.plan.rules;
        let wrong = |what| Refusal::Patch {
            offset: operation.start,
            what,
        };
        let op = operation.op.as_deref().ok_or(wrong("no `op`"))?;
        let path = operation.path.as_deref().ok_or(wrong("no `path`"))?;
        let states = states(rules, path).map_err(wrong)?;
        // Not asked for, it goes on all the same.
        if self.plan.rules.must_understand()
            && let Some(from) = &operation.from
        {
            self::states(rules, from).map_err(wrong)?;
        }
        match op {
            "add" | "replace" | "test" => {
                if operation.value.is_none() {
                    return Err(wrong("no `value`"));
                }
            }
            "remove" => {}
            "move" | "copy" => {
                let from = operation.from.as_deref().ok_or(wrong("no `from`"))?;
                let from = self::states(rules, from).map_err(wrong)?;
                if !alike(rules, &from, &states) {
                    return Err(wrong(
                        "a move or copy between places that are not sealed alike",
                    ));
                }
            }
            _ => return Err(wrong("an operation that RFC 6902 does not have")),
        }
        // Where it is not asked for, a value is ignored by the upstream, and sent all the same.
        let Some((start, value)) = operation.value else {
            return Ok(());
        };
        let mut found = judged(rules, &states, value)?
            .ok_or(wrong("a place that depends on what the document is"))?;
        let seals = |hit: &Hit| seals(rules, rules.automaton.selected(hit.state));
        if op == "test" && found.hits.iter().any(seals) {
            return Err(wrong(
                "a test of a sealed value: its token differs each time",
            ));
        }
        for hit in &mut found.hits {
            hit.shift(start);
        }
        self.found(&rules.automaton, &found, start)
    }
}

impl<'b> Operation<'b> {
    fn take(&mut self, member: Tag, hit: &Hit, body: &'b [u8]) -> Result<(), &'static str> {
        let raw = &body[hit.start..hit.end];
        if member == VALUE {
            let known = self.value.replace((hit.start, raw));
            return known.map_or(Ok(()), |_| Err("two members of one name"));
        }
        if !hit.kind.is_string() {
            return Err("an `op`, `path` or `from` that is no string");
        }
        let mut text = Vec::new();
        let told = text::unescape(&raw[1..raw.len() - 1], &mut text).ok();
        let told = told.and_then(|()| String::from_utf8(text).ok());
        let told = told.ok_or("an `op`, `path` or `from` that is no Unicode text")?;
        let place = match member {
            2 => &mut self.op,
            FROM => &mut self.from,
            _ => &mut self.path,
        };
        match place.replace(told) {
            None => Ok(()),
            Some(_) => Err("two members of one name"),
        }
    }
}

/// The states that a pointer may lead to: whether a step is a name or an index depends on the document.
fn states(rules: &Rules, pointer: &str) -> Result<Vec<u16>, &'static str> {
    let automaton = &rules.automaton;
    let mut states = vec![automaton.start()];
    if pointer.is_empty() {
        return Ok(states);
    }
    let steps = pointer
        .strip_prefix('/')
        .ok_or("a pointer that does not begin with a slash")?;
    for step in steps.split('/') {
        let sealed = |state: &u16| seals(rules, automaton.selected(*state));
        if states.iter().any(sealed) {
            return Err("a pointer into a value that is sealed whole");
        }
        let step = unescaped(step)?;
        states = states
            .iter()
            .flat_map(|state| automaton.steps(*state, &step))
            .collect();
        states.sort_unstable();
        states.dedup();
        if states.len() > MEANINGS_MAX {
            return Err("a pointer of too many meanings");
        }
    }
    Ok(states)
}

/// RFC 6901 section 4.
fn unescaped(step: &str) -> Result<String, &'static str> {
    let mut text = String::with_capacity(step.len());
    let mut rest = step.chars();
    while let Some(c) = rest.next() {
        text.push(match c {
            '~' => match rest.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return Err("a pointer with a broken escape"),
            },
            c => c,
        });
    }
    Ok(text)
}

/// What the rules find in a value, at whichever of the states it stands; `None`: not the same everywhere.
fn judged(rules: &Rules, states: &[u16], value: &[u8]) -> Result<Option<Found>, Refusal> {
    let automaton = &rules.automaton;
    let mut first: Option<Found> = None;
    for state in states {
        let mut scanner = Scanner::beginning_at(automaton, *state, rules.manner.depth_max);
        scanner.feed(value)?;
        let found = scanner.finish()?;
        let Some(known) = &first else {
            first = Some(found);
            continue;
        };
        let same = |(one, two): (&Hit, &Hit)| {
            one.start == two.start && automaton.selected(one.state) == automaton.selected(two.state)
        };
        if known.hits.len() != found.hits.len() || !known.hits.iter().zip(&found.hits).all(same) {
            return Ok(None);
        }
    }
    Ok(first)
}

/// Whether what stands at one place may stand at the other: both are judged by the same state, or nothing is sealed there.
fn alike(rules: &Rules, from: &[u16], to: &[u16]) -> bool {
    let automaton = &rules.automaton;
    let reach = |state: &u16| automaton.reaches(*state, |tags| rules.sealing(tags));
    if !from.iter().chain(to).any(reach) {
        return true;
    }
    let [state] = from else { return false };
    // A value bound to its neighbours does not open beside others.
    let bound = rules_of(automaton.selected(*state)).any(|rule| {
        let rule = &rules.rules[rule];
        let sibling = |entry: &super::rules::Entry| matches!(entry.source, Source::Sibling(_));
        matches!(rule.action, CompiledAction::Seal(_)) && rule.entries.iter().any(sibling)
    });
    from == to && !bound
}

/// The first rule that decides seals: whole, or within a string.
fn seals(rules: &Rules, tags: &[Tag]) -> bool {
    let actions = rules_of(tags).map(|rule| &rules.rules[rule].action);
    let decides = |action: &&CompiledAction| !matches!(action, CompiledAction::Open(_));
    let mut deciding = actions.filter(decides);
    matches!(deciding.next(), Some(CompiledAction::Seal(_)))
}
