//! What one side sees of a body, against what is expected of it.

use super::{Failures, rules_of};
use crate::audit::Side;
use crate::diagnostic::{Span, printable, quoted};
use crate::path::Path;
use crate::policy::{DEPTH_MAX, Mode, Policies, Route};
use crate::rehearsal::Head;
use crate::rehearsal::script::{Same, Seen, Where};
use crate::scan::{Kind, text};
use crate::token::{self, ClassHint, Token};
use crate::transform::{Action, Place, Rules, Selected, Tally, places, select, values};

/// Places that one finding names.
const NAMED_MAX: usize = 3;
/// Characters of a value that a finding repeats.
const VALUE_CHARS_MAX: usize = 60;

/// A value that was selected.
struct Value {
    /// Where.
    at: String,
    /// JSON text.
    raw: Vec<u8>,
    kind: Kind,
}

impl From<Selected> for Value {
    fn from(selected: Selected) -> Value {
        let kind = match selected.json.first() {
            Some(b'"') if selected.json.contains(&b'\\') => Kind::Escaped,
            Some(b'"') => Kind::Plain,
            _ => Kind::Number,
        };
        Value {
            at: selected.place,
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
            .collect();
        let boundary = self.head.boundary();
        let message = self.head.message(self.body, boundary.as_deref());
        let mut selected: Vec<Vec<Value>> = Vec::with_capacity(wheres.len());
        for place in wheres {
            match values(&place.at, &message, DEPTH_MAX) {
                Ok(found) => selected.push(found.into_iter().map(Value::from).collect()),
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
                let all = places(rules, self.before).ok()?;
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
        match left.is_empty() {
            true => String::new(),
            false => format!("; tokens that stay sealed: {}", left.join(", ")),
        }
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

    /// Scalars that no rule names.
    fn unclaimed(&self) -> Option<String> {
        let places = crate::transform::unclaimed(self.met()?, self.before).ok()?;
        let texts: Vec<String> = places.iter().map(Place::to_string).collect();
        (!texts.is_empty()).then(|| format!("unclaimed: {}", listed(&texts)))
    }

    /// Members whose names are nearly those of sealed ones.
    fn near_misses(&self) -> Option<String> {
        let places = places(self.met()?, self.before).ok()?;
        let near = places.iter().filter(|place| place.near);
        let near: Vec<String> = near.map(Place::to_string).collect();
        (!near.is_empty()).then(|| format!("near misses: {}", listed(&near)))
    }
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
    let texts: Vec<String> = places.iter().map(|place| place.at.clone()).collect();
    format!("{} {verb}", listed(&texts))
}

fn listed(places: &[String]) -> String {
    let shown: Vec<String> = places
        .iter()
        .take(NAMED_MAX)
        .map(|place| quoted(place))
        .collect();
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
