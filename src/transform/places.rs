//! For people who ask why: every value of a body with its place, and the rules that select it; the replacements of a plan.
//!
//! Not on the road, which needs offsets only. It judges by the very automaton that the road follows, so that what a tool
//! says of a policy is what the agent does.

use super::plan::{Plan, What};
use super::rules::{CompiledAction, rules_of};
use super::{Action, Attitude, Manner, Refusal, Reveal, Rule, Rules, evaluate};
use crate::context::Class;
use crate::path::Path;
use crate::scan::{self, Kind, text};
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// A step to a value: into an object by name, into an array by index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A member's name, unescaped; an unpaired surrogate is shown as U+FFFD.
    Name(String),
    /// An element's index.
    Index(usize),
}

/// A value of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The steps from the root.
    pub at: Vec<Part>,
    /// Its first byte.
    pub start: usize,
    /// Behind its last byte.
    pub end: usize,
    /// What it is.
    pub kind: Kind,
    /// The rules that select it, in their order. A passing rule selects all that lies within, too.
    pub rules: Vec<usize>,
    /// It belongs to a member whose name is that of a sealing rule's path but for its spelling.
    pub near: bool,
}

impl Place {
    /// The path with `[*]` for every index: places of one kind look alike.
    pub fn general(&self) -> String {
        let mut text = "$".to_owned();
        for part in &self.at {
            match part {
                Part::Index(_) => text.push_str("[*]"),
                part => {
                    let _ = write!(text, "{part}");
                }
            }
        }
        text
    }
}

/// The JSONPath of this one place: `$.cards[0].number`, with brackets and quotes where a name needs them (RFC 9535 section 2.7).
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('$')?;
        self.at.iter().try_for_each(|part| part.fmt(f))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Part::Index(index) => return write!(f, "[{index}]"),
            Part::Name(name) => name,
        };
        let first = |c: char| c.is_ascii_alphabetic() || c == '_';
        if name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit()) {
            return write!(f, ".{name}");
        }
        f.write_str("['")?;
        for c in name.chars() {
            match c {
                '\'' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_str("']")
    }
}

/// What a plan does at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The value is sealed.
    Seal,
    /// A token at a sealing place: it must open, and stays.
    Keep,
    /// The token is opened, if it can be.
    Open,
}

/// One span that a plan replaces or checks.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// The value's first byte.
    pub start: usize,
    /// Behind its last byte.
    pub end: usize,
    /// In which class.
    pub class: Arc<Class>,
    /// What is done.
    pub deed: Deed,
}

impl Plan<'_> {
    /// What it will replace or check, in the order of the body.
    pub fn replacements(&self) -> impl Iterator<Item = Replacement> {
        self.edits.iter().filter_map(|edit| {
            Some(Replacement {
                start: edit.start,
                end: edit.end,
                class: Arc::clone(&self.rules.classes[edit.class]),
                deed: match edit.what {
                    What::Seal => Deed::Seal,
                    What::Keep(_) => Deed::Keep,
                    What::Open(_) | What::Mask(_) => Deed::Open,
                    What::Null => return None,
                },
            })
        })
    }
}

/// Every value of a document in the order of the text, containers before what they hold, with the rules that select it.
///
/// # Errors
/// The document is refused by the scanner, or a filter cannot be evaluated on it.
pub fn places(rules: &Rules, body: &[u8]) -> Result<Vec<Place>, Refusal> {
    let nodes = match rules.evaluated.is_empty() {
        true => Vec::new(),
        false => evaluate::nodes(rules, body)?,
    };
    let automaton = rules.revealing(&nodes).ok_or(Refusal::Unevaluable {
        what: "the paths are too complex together",
    })?;
    let found = scan::scan(&automaton, rules.manner.depth_max, body)?;
    let selected: HashMap<usize, u16> = found
        .hits
        .iter()
        .map(|hit| (hit.start, hit.state))
        .collect();
    let mut walk = Walk {
        body,
        at: 0,
        path: Vec::new(),
        places: Vec::new(),
    };
    walk.value();
    let mut places = walk.places;
    for place in &mut places {
        if let Some(state) = selected.get(&place.start) {
            place.rules = rules_of(automaton.selected(*state)).collect();
            place.near = automaton.is_near(*state);
        }
    }
    Ok(places)
}

/// Scalars that no rule names and that no sealed value holds: what a plan counts as unclaimed.
///
/// # Errors
/// As [`places`].
pub fn unclaimed(rules: &Rules, body: &[u8]) -> Result<Vec<Place>, Refusal> {
    let mut places = places(rules, body)?;
    let mut sealed_to = 0;
    places.retain(|place| {
        if place.start < sealed_to {
            return false;
        }
        let mut first = place.rules.iter();
        let decided =
            first.find(|rule| !matches!(rules.rules[**rule].action, CompiledAction::Open(_)));
        if decided.is_some_and(|rule| matches!(rules.rules[*rule].action, CompiledAction::Seal(_)))
        {
            sealed_to = place.end;
        }
        place.kind.is_scalar() && place.rules.is_empty()
    });
    Ok(places)
}

/// The values that each of some paths selects, duplicates of a name included.
///
/// # Errors
/// As [`places`]; [`Refusal::Unevaluable`] for paths that are too complex together.
pub fn select(paths: &[&Path], depth_max: usize, body: &[u8]) -> Result<Vec<Vec<Place>>, Refusal> {
    let rule = |path: &&Path| Rule {
        at: (*path).clone().into(),
        action: Action::Open(Vec::new()),
        bind: Vec::new(),
        reveal: Reveal::default(),
        gather: false,
    };
    let manner = Manner {
        stray: Attitude::Allow,
        depth_max,
        ..Manner::default()
    };
    let rules = Rules::compile(paths.iter().map(rule).collect(), manner).map_err(|_| {
        Refusal::Unevaluable {
            what: "the paths are too complex together",
        }
    })?;
    let mut selected = vec![Vec::new(); paths.len()];
    for place in places(&rules, body)? {
        for rule in &place.rules {
            selected[*rule].push(place.clone());
        }
    }
    Ok(selected)
}

/// Walks a document that the scanner accepted. Recursive, but no deeper than the scanner's limit.
struct Walk<'b> {
    body: &'b [u8],
    at: usize,
    path: Vec<Part>,
    places: Vec<Place>,
}

impl Walk<'_> {
    fn peek(&mut self) -> u8 {
        while matches!(self.body.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
        self.body.get(self.at).copied().unwrap_or_default()
    }

    fn value(&mut self) {
        let first = self.peek();
        let (start, index) = (self.at, self.places.len());
        self.places.push(Place {
            at: self.path.clone(),
            start,
            end: start,
            kind: Kind::Null,
            rules: Vec::new(),
            near: false,
        });
        let kind = match first {
            b'{' => {
                self.members();
                Kind::Object
            }
            b'[' => {
                self.elements();
                Kind::Array
            }
            b'"' => match self.string() {
                true => Kind::Escaped,
                false => Kind::Plain,
            },
            first => {
                let ends = |c: &u8| matches!(c, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t');
                let rest = &self.body[start..];
                self.at += rest.iter().position(ends).unwrap_or(rest.len());
                match first {
                    b't' | b'f' => Kind::Boolean,
                    b'n' => Kind::Null,
                    _ => Kind::Number,
                }
            }
        };
        let place = &mut self.places[index];
        (place.end, place.kind) = (self.at, kind);
    }

    /// From an opening quote to behind the closing one; true where it holds an escape.
    fn string(&mut self) -> bool {
        let mut escaped = false;
        self.at += 1;
        while let Some(byte) = self.body.get(self.at) {
            self.at += 1;
            match byte {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += 1;
                }
                _ => {}
            }
        }
        escaped
    }

    fn members(&mut self) {
        self.at += 1;
        while self.peek() == b'"' {
            let start = self.at + 1;
            self.string();
            let raw = &self.body[start..self.at - 1];
            let mut name = Vec::with_capacity(raw.len());
            // An unpaired surrogate stays an escape, which is as good a name to show as any.
            if text::unescape(raw, &mut name).is_err() {
                name = raw.to_vec();
            }
            let name = String::from_utf8_lossy(&name).into_owned();
            self.peek();
            self.at += 1;
            self.path.push(Part::Name(name));
            self.value();
            self.path.pop();
            if self.peek() == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
    }

    fn elements(&mut self) {
        self.at += 1;
        let mut index = 0;
        while !matches!(self.peek(), b']' | 0) {
            self.path.push(Part::Index(index));
            self.value();
            self.path.pop();
            index += 1;
            if self.peek() == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Circumstances;
    use crate::transform::plan;

    fn class(name: &str) -> Arc<Class> {
        Arc::new(Class {
            name: name.into(),
            formerly: Vec::new(),
            key: "k".into(),
            suite: crate::dek::Suite::Xaes256Gcm,
            keep_sealed: true,
            mask: None,
        })
    }

    /// Seals, in a class of the path's name, what each path selects; those behind `-` pass.
    fn rules(paths: &[&str]) -> Rules {
        let rule = |text: &&str| {
            let (action, text) = match text.strip_prefix('-') {
                Some(text) => (Action::Pass, text),
                None => (Action::Seal(class(text)), *text),
            };
            Rule {
                at: Path::parse(text).expect("a path").into(),
                action,
                bind: Vec::new(),
                reveal: Reveal::default(),
                gather: false,
            }
        };
        let manner = Manner {
            stray: Attitude::Report,
            unclaimed: Attitude::Report,
            depth_max: 32,
            ..Manner::default()
        };
        Rules::compile(paths.iter().map(rule).collect(), manner).expect("rules")
    }

    #[track_caller]
    fn check(paths: &[&str], body: &str, expected: &[&str]) {
        let places = places(&rules(paths), body.as_bytes()).expect("a document");
        let shown: Vec<String> = places
            .iter()
            .map(|place| {
                let rules: Vec<String> = place.rules.iter().map(usize::to_string).collect();
                let value = &body[place.start..place.end];
                format!("{place} {value} {}", rules.join(","))
                    .trim_end()
                    .to_owned()
            })
            .collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn every_value_has_a_place() {
        check(
            &["$..a", "$.b"],
            r#" { "a" : 1 , "b" : [ {"a":"x"} , null ] } "#,
            &[
                r#"$ { "a" : 1 , "b" : [ {"a":"x"} , null ] }"#,
                "$.a 1 0",
                r#"$.b [ {"a":"x"} , null ] 1"#,
                r#"$.b[0] {"a":"x"}"#,
                r#"$.b[0].a "x" 0"#,
                "$.b[1] null",
            ],
        );
        check(&[], "-1.5e3", &["$ -1.5e3"]);
        check(&[], "[]", &["$ []"]);
        check(&[], "{}", &["$ {}"]);
        check(&["$"], r#""a\"b""#, &[r#"$ "a\"b" 0"#]);
    }

    #[test]
    fn names_are_shown_as_paths() {
        check(
            &["$.*"],
            r#"{"\u0061":1,"a":2,"it's":3,"":4,"a b":5,"9":6,"\n":7,"é":8,"\ud800":9,"b\\":10}"#,
            &[
                r#"$ {"\u0061":1,"a":2,"it's":3,"":4,"a b":5,"9":6,"\n":7,"é":8,"\ud800":9,"b\\":10}"#,
                "$.a 1 0",
                "$.a 2 0",
                r"$['it\'s'] 3 0",
                "$[''] 4 0",
                "$['a b'] 5 0",
                "$['9'] 6 0",
                r"$['\u000a'] 7 0",
                "$['é'] 8 0",
                r"$['\\ud800'] 9 0",
                r"$['b\\'] 10 0",
            ],
        );
        // What is shown can be used as a path.
        let places = places(
            &rules(&[]),
            r#"{"it's":1,"\n":2,"b\\":{"c d":3}}"#.as_bytes(),
        );
        for place in places.expect("a document") {
            Path::parse(&place.to_string()).expect("a path");
        }
    }

    #[test]
    fn filters_and_passing_rules_select_too() {
        check(
            &["$.a[?@.t == 1].n", "-$.a"],
            r#"{"a":[{"t":1,"n":2},{"t":2,"n":3}]}"#,
            &[
                r#"$ {"a":[{"t":1,"n":2},{"t":2,"n":3}]}"#,
                r#"$.a [{"t":1,"n":2},{"t":2,"n":3}] 1"#,
                r#"$.a[0] {"t":1,"n":2} 1"#,
                "$.a[0].t 1 1",
                "$.a[0].n 2 0,1",
                r#"$.a[1] {"t":2,"n":3} 1"#,
                "$.a[1].t 2 1",
                "$.a[1].n 3 1",
            ],
        );
    }

    #[test]
    fn what_the_scanner_refuses_is_refused() {
        for body in ["", "{", "[1,]", "{\"a\":}", "\u{feff}{}", "[1] 2"] {
            assert!(places(&rules(&["$.a"]), body.as_bytes()).is_err(), "{body}");
        }
        let deep = "[".repeat(40) + &"]".repeat(40);
        assert!(matches!(
            places(&rules(&[]), deep.as_bytes()),
            Err(Refusal::TooDeep { .. })
        ));
    }

    #[test]
    fn the_plan_and_the_places_agree() {
        let rules = rules(&["$..ssn", "-$.meta", "$..*"]);
        let body = br#"{"ssn":"1","meta":{"x":1},"o":{"ssn":[1,2],"y":true}}"#;
        let plan = plan(&rules, body, &Circumstances::default()).expect("a plan");
        let places = places(&rules, body).expect("a document");
        let replaced: Vec<_> = plan
            .replacements()
            .map(|r| {
                let place = places.iter().find(|place| place.start == r.start);
                let place = place.expect("every replacement is a place");
                assert_eq!(place.end, r.end);
                (place.to_string(), place.rules[0], r.class.name.to_string())
            })
            .collect();
        // The object is sealed whole; what it holds is not looked at.
        assert_eq!(
            replaced,
            [
                ("$.ssn".to_owned(), 0, "$..ssn".to_owned()),
                ("$.o".to_owned(), 2, "$..*".to_owned())
            ]
        );
    }

    #[track_caller]
    fn left(paths: &[&str], body: &str, expected: &[&str]) {
        let rules = rules(paths);
        let shown: Vec<String> = unclaimed(&rules, body.as_bytes())
            .expect("a document")
            .iter()
            .map(Place::to_string)
            .collect();
        assert_eq!(shown, expected);
        let plan = plan(&rules, body.as_bytes(), &Circumstances::default()).expect("a plan");
        assert_eq!(plan.tally().unclaimed as usize, expected.len(), "{body}");
    }

    #[test]
    fn unclaimed_is_what_the_plan_counts() {
        let body = r#"{"a":{"x":1,"y":[2]},"b":null,"c":[true,{"a":"z"}],"d":{}}"#;
        left(&["$.a"], body, &["$.b", "$.c[0]", "$.c[1].a"]);
        left(&["-$.a", "$.c"], body, &["$.b"]);
        left(&["-$..*"], body, &[]);
        left(
            &[],
            body,
            &["$.a.x", "$.a.y[0]", "$.b", "$.c[0]", "$.c[1].a"],
        );
        left(&["-$.c", "$.c[1]"], body, &["$.a.x", "$.a.y[0]", "$.b"]);
    }

    #[test]
    fn selected_by_several_paths_at_once() {
        let paths = [
            Path::parse("$..a"),
            Path::parse("$.b[-1]"),
            Path::parse("$.c"),
        ]
        .map(|path| path.expect("a path"));
        let paths: Vec<&Path> = paths.iter().collect();
        let selected = select(&paths, 32, br#"{"a":1,"b":[{"a":2},3]}"#).expect("a document");
        let shown: Vec<Vec<String>> = selected
            .iter()
            .map(|places| places.iter().map(Place::to_string).collect())
            .collect();
        assert_eq!(shown, [vec!["$.a", "$.b[0].a"], vec!["$.b[1]"], vec![]]);
        // Without a filter, both members of one name are there.
        let twice = select(&paths[..1], 32, br#"{"a":1,"a":2}"#).expect("a document");
        assert_eq!(twice[0].len(), 2);
    }

    #[test]
    fn elements_of_arrays_look_alike_in_general() {
        let places = places(&rules(&[]), br#"{"a":[{"b c":1}]}"#).expect("a document");
        assert_eq!(places[3].general(), "$.a[*]['b c']");
    }
}
