//! What one side sees of a body, against what is expected of it.

use super::{Failures, rules_of};
use crate::audit::Side;
use crate::diagnostic::{Span, printable, quoted};
use crate::path::Path;
use crate::policy::{DEPTH_MAX, Mode, Policies, Route};
use crate::rehearsal::script::{Same, Seen, Where};
use crate::rehearsal::{Documents, Head};
use crate::scan::{Kind, text};
use crate::token::{self, ClassHint, Token};
use crate::transform::{
    Action, At, Place, Refusal, Rules, Selected, Selects, Tally, places, select, values,
};
use std::fmt::Write as _;

/// Places that one finding names.
const NAMED_MAX: usize = 3;
/// Characters of a value that a finding repeats.
const VALUE_CHARS_MAX: usize = 60;

/// A value that was selected.
struct Value {
    /// Where.
    at: String,
    /// In which record of a stream, from 0.
    record: Option<usize>,
    /// JSON text.
    raw: Vec<u8>,
    kind: Kind,
}

impl Value {
    fn of(selected: Selected, record: Option<usize>) -> Value {
        let kind = match selected.json.first() {
            Some(b'"') if selected.json.contains(&b'\\') => Kind::Escaped,
            Some(b'"') => Kind::Plain,
            _ => Kind::Number,
        };
        Value {
            at: selected.place,
            record,
            raw: selected.json,
            kind,
        }
    }
}

/// One side's body, and what it was before the route's rules.
pub(super) struct Judge<'j> {
    pub who: &'static str,
    pub body: &'j [u8],
    /// Of the same message.
    pub head: &'j Head,
    pub before: &'j [u8],
    /// The application's body.
    pub sent: &'j [u8],
    /// The upstream's.
    pub answer: &'j [u8],
    pub tally: &'j Tally,
    /// Why something passed without being looked at.
    pub unread: Option<&'static str>,
    pub side: Side,
    pub route: Option<&'j Route>,
    pub policies: &'j Policies,
}

impl Judge<'_> {
    pub(super) fn check(&self, expected: &Seen, failures: &mut Failures<'_>) {
        if let Some(same) = &expected.same {
            self.same(same.value, same.span, failures);
        }
        for (word, count) in &expected.counted {
            self.counted(&word.value, count.value, count.span, failures);
        }
        let wheres: Vec<&Where> = expected
            .sealed
            .iter()
            .map(|sealed| &sealed.at)
            .chain(&expected.clear)
            .chain(&expected.absent)
            .chain(expected.equals.iter().map(|equal| &equal.at))
            .chain(expected.joined.iter().map(|joined| &joined.at))
            .collect();
        let documents = Documents::of(&self.head.headers, self.body);
        let mut selected: Vec<Vec<Value>> = Vec::with_capacity(wheres.len());
        for place in wheres {
            match self.selected(&place.at, &documents) {
                Ok(found) => selected.push(found),
                Err(refusal) => {
                    let what = match self.body.is_empty() {
                        true => "there is no body".to_owned(),
                        false => format!("the body cannot be searched: {}", refusal.word()),
                    };
                    let message = format!("{}: {what}", self.who);
                    return failures.at("unreadable-body", place.span, message, None);
                }
            }
        }
        let mut selected = selected.into_iter();
        for sealed in &expected.sealed {
            let places = selected.next().unwrap_or_default();
            let class = sealed.class.as_ref().map(|class| class.value.as_str());
            self.sealed(&sealed.at, class, &places, failures);
        }
        for at in &expected.clear {
            let places = selected.next().unwrap_or_default();
            self.some(at, &places, failures);
            let tokens = places.iter().filter(|place| self.class(place).is_some());
            let tokens: Vec<&Value> = tokens.collect();
            if let Some(first) = tokens.first() {
                let class = self.class(first).unwrap_or_default();
                let message = format!("{}: {} sealed, as {class}", self.who, named(&tokens));
                failures.at("not-clear", at.span, message, self.rules(first));
            }
        }
        for at in &expected.absent {
            let places = selected.next().unwrap_or_default();
            if !places.is_empty() {
                let message = format!("{}: {} there", self.who, named(&Vec::from_iter(&places)));
                failures.at("not-absent", at.span, message, None);
            }
        }
        for equal in &expected.equals {
            let places = selected.next().unwrap_or_default();
            self.some(&equal.at, &places, failures);
            let differs = |place: &&Value| !alike(&place.raw, equal.value.as_bytes());
            let different: Vec<&Value> = places.iter().filter(differs).collect();
            if let Some(first) = different.first() {
                let message = format!(
                    "{}: {} not {}",
                    self.who,
                    named(&different),
                    clipped(equal.value.as_bytes())
                );
                let seen = match self.class(first) {
                    Some(class) => format!("seen: a token of {class}"),
                    None => format!("seen: {}", clipped(&first.raw)),
                };
                failures.at("not-equal", equal.span, message, Some(seen));
            }
        }
        for joined in &expected.joined {
            let places = selected.next().unwrap_or_default();
            self.some(&joined.at, &places, failures);
            let texts = places.iter().map(|place| text_of(&place.raw));
            let seen: String = texts.collect();
            if seen != joined.value {
                let message = format!(
                    "{}: what is selected is not {}",
                    self.who,
                    clipped(joined.value.as_bytes())
                );
                let hint = format!("seen: {}{}", clipped(seen.as_bytes()), self.left());
                failures.at("not-joined", joined.span, message, Some(hint));
            }
        }
    }

    /// What a path selects: of a stream, in each record.
    fn selected(&self, at: &At, documents: &Documents) -> Result<Vec<Value>, Refusal> {
        let boundary = self.head.boundary();
        let of_head = !matches!(at.place(), Selects::Json(_) | Selects::Inside { .. });
        let mut selected = Vec::new();
        for (index, text) in documents.texts.iter().enumerate() {
            let message = self.head.message(text, boundary.as_deref());
            let found = values(at, &message, DEPTH_MAX)?;
            let record = (documents.are_records && !of_head).then_some(index);
            selected.extend(found.into_iter().map(|one| Value::of(one, record)));
            if of_head {
                return Ok(selected);
            }
        }
        if of_head {
            let found = values(at, &self.head.message(&[], None), DEPTH_MAX)?;
            selected.extend(found.into_iter().map(|one| Value::of(one, None)));
        }
        Ok(selected)
    }

    /// The class of the token that stands at a place; `None`: there is none.
    fn class(&self, place: &Value) -> Option<String> {
        let raw = &place.raw;
        let inner = raw.get(1..raw.len().saturating_sub(1))?;
        let decoded = match place.kind {
            Kind::Plain => inner.to_vec(),
            Kind::Escaped => {
                let mut decoded = Vec::new();
                text::unescape(inner, &mut decoded).ok()?;
                decoded
            }
            _ => return None,
        };
        if !token::is_reserved(&decoded) {
            return None;
        }
        let mut payload = Vec::new();
        let Ok(token) = Token::decode(&decoded, &mut payload) else {
            return Some("a broken token".to_owned());
        };
        let classes = self.policies.iter().flat_map(|policy| &policy.classes);
        let known = classes
            .flat_map(|class| class.names())
            .find(|name| ClassHint::of(name) == token.class);
        Some(known.map_or("an unknown class".to_owned(), |name| quoted(name)))
    }

    fn some(&self, at: &Where, places: &[Value], failures: &mut Failures<'_>) {
        if places.is_empty() {
            let message = format!("{}: the path selects nothing", self.who);
            failures.at("selects-nothing", at.span, message, None);
        }
    }

    fn sealed(
        &self,
        at: &Where,
        class: Option<&str>,
        places: &[Value],
        failures: &mut Failures<'_>,
    ) {
        self.some(at, places, failures);
        let (mut clear, mut other) = (Vec::new(), Vec::new());
        for place in places {
            match (self.class(place), class) {
                (None, _) => clear.push(place),
                (Some(seen), Some(class)) if seen != quoted(class) => other.push((place, seen)),
                _ => {}
            }
        }
        if let Some(first) = clear.first() {
            let message = format!("{}: {} not sealed", self.who, named(&clear));
            failures.at("not-sealed", at.span, message, self.rules(first));
        }
        if let Some((first, seen)) = other.first() {
            let places: Vec<&Value> = other.iter().map(|(place, _)| *place).collect();
            let message = format!(
                "{}: {} sealed, as {seen} and not as {}",
                self.who,
                named(&places),
                quoted(class.unwrap_or_default())
            );
            failures.at("wrong-class", at.span, message, self.rules(first));
        }
    }

    /// The rules that select a place, for the hint.
    fn rules(&self, place: &Value) -> Option<String> {
        let Some(route) = self.route else {
            return Some("no route takes the request".to_owned());
        };
        let (rules, side) = match self.side {
            Side::Request => (&route.request, "request"),
            Side::Response => (&route.response, "response"),
        };
        let written = rules_of(route, self.side);
        // Of JSON within a string, the rules for that string.
        let path = place.at.split(" > ").next().unwrap_or_default();
        let selecting = match path.starts_with('$') {
            true => {
                let before = Documents::of(&self.head.headers, self.before).texts;
                let before = before.get(place.record.unwrap_or_default())?;
                let all = places(rules, before).ok()?;
                let same = all.iter().find(|known| known.to_string() == path)?;
                same.rules.clone()
            }
            false => {
                let same = |index: &usize| written[*index].at.as_str() == path;
                (0..written.len()).filter(same).collect()
            }
        };
        let shown = |rule: &usize| {
            let written = written.get(*rule)?;
            let action = match &written.action {
                Action::Seal(class) => format!("seal {}", class.name),
                Action::Open(classes) if classes.len() == 1 => format!("open {}", classes[0].name),
                Action::Open(_) => "open *".to_owned(),
                Action::Pass => "pass".to_owned(),
            };
            Some(format!("{} ({} {action})", rule + 1, written.at.as_str()))
        };
        let shown: Vec<String> = selecting.iter().filter_map(shown).collect();
        let observing = match route.mode {
            Mode::Observe => "; the route only observes",
            Mode::Enforce => "",
        };
        let route = quoted(&route.name);
        let mut hint = match shown.len() {
            0 => format!("no {side} rule of route {route} selects it"),
            1 => format!("{side} rule of route {route} that selects it: {}", shown[0]),
            _ => format!(
                "{side} rules of route {route} that select it: {}",
                shown.join(", ")
            ),
        };
        hint.push_str(observing);
        hint.push_str(&self.left());
        Some(hint)
    }

    /// Why tokens stay sealed, for the hint; nothing if none does.
    fn left(&self) -> String {
        let left = self.tally.left.iter();
        let left: Vec<String> = left.map(|(why, count)| format!("{count} {why}")).collect();
        let mut hint = match left.is_empty() {
            true => String::new(),
            false => format!("; tokens that stay sealed: {}", left.join(", ")),
        };
        if let Some(why) = self.unread {
            let _ = write!(hint, "; not looked at: {}", quoted(why));
        }
        hint
    }

    fn same(&self, same: Same, span: Span, failures: &mut Failures<'_>) {
        let (expected, of) = match same {
            Same::Request => (self.sent, "the request's"),
            Same::Answer => (self.answer, "the answer's"),
        };
        if self.body == expected {
            return;
        }
        let pairs = expected.iter().zip(self.body);
        let at = pairs.take_while(|(a, b)| a == b).count();
        let everywhere = select(&[], DEPTH_MAX, expected).map(drop);
        let place = everywhere.ok().and_then(|()| innermost(expected, at));
        let hint = match place {
            Some(place) => format!("they differ from byte {at} on, in {}", quoted(&place)),
            None => format!("they differ from byte {at} on"),
        } + &self.left();
        let message = format!("{}: the body is not {of}", self.who);
        failures.at("not-same", span, message, Some(hint));
    }

    fn counted(&self, word: &str, expected: u32, span: Span, failures: &mut Failures<'_>) {
        let seen = match word {
            "stray" => self.tally.strays,
            "unclaimed" => self.tally.unclaimed,
            "plaintext" => self.tally.plaintext,
            "near-miss" => self.tally.near_misses,
            "nulled" => self.tally.nulled,
            "masked" => self.tally.masked.iter().map(|(_, count)| count).sum(),
            "kept" => self.tally.kept.iter().map(|(_, count)| count).sum(),
            word => {
                let mut left = self.tally.left.iter();
                left.find(|(why, _)| *why == word)
                    .map_or(0, |(_, count)| *count)
            }
        };
        if seen == expected {
            return;
        }
        let message = format!(
            "{}: {seen} counted as {}, not {expected}",
            self.who,
            quoted(word)
        );
        let hint = match word {
            "unclaimed" => self.unclaimed(),
            "near-miss" => self.near_misses(),
            _ => None,
        };
        failures.at("wrong-count", span, message, hint);
    }

    /// The rules that the body met.
    fn met(&self) -> Option<&Rules> {
        let route = self.route?;
        Some(match self.side {
            Side::Request => &route.request,
            Side::Response => &route.response,
        })
    }

    /// The places of the body's documents that `of` finds under the rules.
    fn places_of(&self, of: impl Fn(&Rules, &[u8]) -> Option<Vec<Place>>) -> Vec<String> {
        let Some(rules) = self.met() else {
            return Vec::new();
        };
        let documents = Documents::of(&self.head.headers, self.before);
        let found = documents.texts.iter().enumerate().map(|(index, text)| {
            let record = documents.are_records.then_some(index);
            let places = of(rules, text).unwrap_or_default();
            let shown = places.iter().map(|place| shown(&place.to_string(), record));
            shown.collect::<Vec<_>>()
        });
        found.flatten().collect()
    }

    /// Scalars that no rule names.
    fn unclaimed(&self) -> Option<String> {
        let texts = self.places_of(|rules, text| crate::transform::unclaimed(rules, text).ok());
        (!texts.is_empty()).then(|| format!("unclaimed: {}", listed(&texts)))
    }

    /// Members whose names are nearly those of sealed ones.
    fn near_misses(&self) -> Option<String> {
        let texts = self.places_of(|rules, text| {
            let mut places = places(rules, text).ok()?;
            places.retain(|place| place.near);
            Some(places)
        });
        (!texts.is_empty()).then(|| format!("near misses: {}", listed(&texts)))
    }
}

/// In quotes, and in which record.
fn shown(place: &str, record: Option<usize>) -> String {
    match record {
        Some(index) => format!("{} of record {}", quoted(place), index + 1),
        None => quoted(place),
    }
}

/// A text's characters; another value as it is spelt.
fn text_of(raw: &[u8]) -> String {
    serde_json::from_slice::<String>(raw)
        .unwrap_or_else(|_| String::from_utf8_lossy(raw).into_owned())
}

/// The path of the smallest value that holds a byte.
fn innermost(body: &[u8], at: usize) -> Option<String> {
    let everything = Path::parse("$..*").ok()?;
    let root = Path::parse("$").ok()?;
    let selected = select(&[&root, &everything], DEPTH_MAX, body).ok()?;
    let holding = selected
        .iter()
        .flatten()
        .filter(|place| (place.start..place.end).contains(&at));
    let smallest = holding.min_by_key(|place| place.end - place.start)?;
    Some(smallest.to_string())
}

/// `$.a` is; `$.a`, `$.b` and 3 more are.
fn named(places: &[&Value]) -> String {
    let verb = if places.len() == 1 { "is" } else { "are" };
    let texts: Vec<String> = places
        .iter()
        .map(|place| shown(&place.at, place.record))
        .collect();
    format!("{} {verb}", listed(&texts))
}

fn listed(places: &[String]) -> String {
    let shown: Vec<String> = places.iter().take(NAMED_MAX).cloned().collect();
    match places.len().saturating_sub(NAMED_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The same value: texts by what they say, numbers as they are spelt, the rest by structure.
fn alike(seen: &[u8], expected: &[u8]) -> bool {
    if seen == expected {
        return true;
    }
    let parse = |raw: &[u8]| serde_json::from_slice::<serde_json::Value>(raw).ok();
    match (parse(seen), parse(expected)) {
        (Some(serde_json::Value::Number(_)), _) => false,
        (Some(seen), Some(expected)) => seen == expected,
        _ => false,
    }
}

/// A test's own value, short enough for a line.
fn clipped(raw: &[u8]) -> String {
    let text = printable(&String::from_utf8_lossy(raw));
    let mut shown: String = text.chars().take(VALUE_CHARS_MAX).collect();
    if text.chars().count() > VALUE_CHARS_MAX {
        shown.push('…');
    }
    shown
}
