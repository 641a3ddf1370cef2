//! What becomes of each value of a message, and by which rule.

use crate::cli::policy::deed;
use crate::policy::DEPTH_MAX;
use crate::rehearsal::{Documents, Head};
use crate::scan::Kind;
use crate::transform::{Action, Place, Rule, Rules, Selects, places, values};

/// One value of a body, and what becomes of it.
pub(super) struct Told {
    pub path: String,
    /// In which record of a stream, from 1.
    pub record: Option<usize>,
    /// `sealed`, `opened`, `masked`, `kept`, `passes`, `as it is`, `stays sealed`, `null`, `near miss`, `gathered`.
    pub fate: &'static str,
    /// The rule that decides: its number and its words.
    pub rule: Option<(usize, String)>,
    pub before: String,
    pub after: String,
}

/// Each value of a message, before and after: of a stream, those of each record. `written`: what `rules` were made of.
pub(super) fn tell(
    (rules, written): (&Rules, &[Rule]),
    before: (&Head, &[u8]),
    after: (&Head, &[u8]),
) -> Vec<Told> {
    let came = Documents::of(&before.0.headers, before.1);
    let left = Documents::of(&after.0.headers, after.1);
    let mut told = Vec::new();
    for (index, (was, is)) in pairs(rules, &came, &left).into_iter().enumerate() {
        let mut of_this = inside(rules, written, was, is);
        of_this.extend(elsewhere(written, (before.0, was), (after.0, is)));
        // A head has one message, whatever it has of records.
        of_this.retain(|told| index == 0 || told.path.starts_with('$'));
        for told in &mut of_this {
            let of_body = told.path.starts_with('$');
            told.record = (came.are_records && of_body).then_some(index + 1);
        }
        told.extend(of_this);
    }
    told
}

/// Each document that came, and what it became: itself, where the message ended before it. What is gathered may come with further
/// records, which are like one that came.
fn pairs<'d>(rules: &Rules, came: &'d Documents, left: &'d Documents) -> Vec<(&'d [u8], &'d [u8])> {
    let shape = |text: &[u8]| -> Vec<String> {
        let places = places(rules, text).unwrap_or_default();
        places.iter().map(Place::to_string).collect()
    };
    let further = left.texts.len() > came.texts.len();
    let mut left = left.texts.iter();
    let mut pairs = Vec::new();
    for was in &came.texts {
        let is = match further {
            true => left.clone().position(|is| shape(is) == shape(was)),
            false => Some(0),
        };
        let is = is.and_then(|at| left.nth(at)).unwrap_or(was);
        pairs.push((&**was, &**is));
    }
    if pairs.is_empty() {
        pairs.push((&[], &[]));
    }
    pairs
}

/// Each value that a rule selects or that is one of its own. Empty for what is no JSON.
fn inside(rules: &Rules, written: &[Rule], before: &[u8], after: &[u8]) -> Vec<Told> {
    let (Ok(places), Ok(afters)) = (places(rules, before), places(rules, after)) else {
        return Vec::new();
    };
    let text = |body: &[u8], place: &Place| {
        String::from_utf8_lossy(&body[place.start..place.end]).into_owned()
    };
    let mut told = Vec::new();
    let mut whole_to = 0;
    // Both bodies have the same places but for those within values that were replaced whole.
    let mut later = afters.iter().peekable();
    for place in &places {
        if place.start < whole_to {
            continue;
        }
        while later.peek().is_some_and(|next| next.at != place.at) {
            later.next();
        }
        let Some(now) = later.next() else { break };
        let (was, is) = (text(before, place), text(after, now));
        let fate = fate(place, written, &was, &is);
        if fate == "sealed" {
            whole_to = place.end;
        }
        if fate == "as it is" && !place.kind.is_scalar() {
            continue;
        }
        let rule = deciding(place, written, fate);
        told.push(Told {
            path: place.to_string(),
            record: None,
            fate,
            rule,
            before: was,
            after: is,
        });
    }
    told
}

/// Values that do not stand in the body as JSON: of heads, forms and documents in strings.
fn elsewhere(written: &[Rule], before: (&Head, &[u8]), after: (&Head, &[u8])) -> Vec<Told> {
    let (boundary, later) = (before.0.boundary(), after.0.boundary());
    let before = before.0.message(before.1, boundary.as_deref());
    let after = after.0.message(after.1, later.as_deref());
    let token = |json: &[u8]| {
        let inner = json.get(1..json.len().saturating_sub(1));
        inner.is_some_and(crate::token::is_reserved)
    };
    let mut told: Vec<Told> = Vec::new();
    for (index, rule) in written.iter().enumerate() {
        let known = |told: &Told| {
            told.rule
                .as_ref()
                .is_some_and(|(_, words)| words.starts_with(rule.at.as_str()))
        };
        if matches!(rule.at.place(), Selects::Json(_)) || told.iter().any(known) {
            continue;
        }
        let selected = |message| values(&rule.at, message, DEPTH_MAX).unwrap_or_default();
        for (was, is) in selected(&before).into_iter().zip(selected(&after)) {
            let fate = match (was.json == is.json, token(&was.json), token(&is.json)) {
                (false, false, true) => "sealed",
                (false, true, false)
                    if is_masked(&[&rule.action], &String::from_utf8_lossy(&is.json)) =>
                {
                    "masked"
                }
                (false, true, false) => "opened",
                (true, true, _) => "a token, as it is",
                (true, false, _) if matches!(rule.action, Action::Seal(_)) => "would be sealed",
                _ => "as it is",
            };
            let text = |json: &[u8]| String::from_utf8_lossy(json).into_owned();
            let words = format!("{}: {}", rule.at.as_str(), deed(rule));
            told.push(Told {
                path: was.place,
                record: None,
                fate,
                rule: Some((index + 1, words)),
                before: text(&was.json),
                after: text(&is.json),
            });
        }
    }
    told
}

fn fate(place: &Place, written: &[Rule], was: &str, is: &str) -> &'static str {
    let token = |text: &str| {
        let text = text.as_bytes();
        text.len() > 2 && crate::token::is_reserved(&text[1..text.len() - 1])
    };
    let mut actions = place
        .rules
        .iter()
        .filter_map(|rule| Some(&written.get(*rule)?.action));
    let opens = actions
        .clone()
        .any(|action| matches!(action, Action::Open(_)));
    let gathers = place
        .rules
        .iter()
        .any(|rule| written.get(*rule).is_some_and(|rule| rule.gather));
    let opened: Vec<&Action> = actions.clone().collect();
    let decided = actions.find(|action| !matches!(action, Action::Open(_)));
    match (was == is, token(was), token(is)) {
        (false, _, false) if gathers && place.kind.is_string() => "gathered",
        (false, false, true) => "sealed",
        (false, true, false) if is_masked(&opened, is) => "masked",
        // What was sealed may have been null, too: the count says how many it only stands for.
        (false, true, false) if is == "null" => "null",
        (false, true, false) => "opened",
        (true, true, _) if matches!(decided, Some(Action::Seal(_))) => "kept",
        (true, true, _) if opens => "stays sealed",
        (true, true, _) => "a token, as it is",
        (true, false, _) if place.near => "near miss",
        (true, false, _) if matches!(decided, Some(Action::Pass)) => "passes",
        (true, false, _)
            if matches!(decided, Some(Action::Seal(_))) && place.kind != Kind::Object =>
        {
            "would be sealed"
        }
        _ => "as it is",
    }
}

/// A text has the form of what a class's mask makes.
fn is_masked(actions: &[&Action], text: &str) -> bool {
    let decoded: Option<String> = serde_json::from_str(text).ok();
    decoded.is_some_and(|decoded| {
        actions.iter().any(|action| match action {
            Action::Open(classes) => classes
                .iter()
                .filter_map(|class| class.mask.as_ref())
                .any(|mask| mask.is_masked(decoded.as_bytes())),
            _ => false,
        })
    })
}

/// The rule behind a fate, its number from 1.
fn deciding(place: &Place, written: &[Rule], fate: &str) -> Option<(usize, String)> {
    let fits = |action: &Action| match fate {
        "sealed" | "kept" | "would be sealed" => matches!(action, Action::Seal(_)),
        "opened" | "masked" | "stays sealed" | "null" | "gathered" => {
            matches!(action, Action::Open(_))
        }
        "passes" => matches!(action, Action::Pass),
        _ => false,
    };
    let index = place
        .rules
        .iter()
        .find(|rule| written.get(**rule).is_some_and(|r| fits(&r.action)))?;
    let rule = written.get(*index)?;
    Some((index + 1, format!("{}: {}", rule.at.as_str(), deed(rule))))
}
