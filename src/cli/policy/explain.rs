//! `fieldveil policy explain`: which route takes a request and why the others do not, and which rule takes each value.
//!
//! A value is shown only where that was asked for.

use crate::app::policies::{about, load, read};
use crate::audit::Side;
use crate::cli::{Exit, Output, PolicyExplainArgs};
use crate::diagnostic::{Diagnostic, printable, quoted};
use crate::policy::{DEPTH_MAX, Miss, Mode, Policies, Route};
use crate::proxy::Limits;
use crate::rehearsal::{self, Answer, Head, Keys, Passage, pass};
use crate::scan::Kind;
use crate::transform::{Action, Place, Rule, Rules, Selects, Tally, places, values};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::path::Path;

/// Bytes of a body.
const BODY_BYTES_MAX: usize = 16 << 20;
/// Values of one body that are listed.
const VALUES_MAX: usize = 1_000;
/// Characters of a value that are shown.
const VALUE_CHARS_MAX: usize = 60;

/// A request as it was typed.
struct Asked {
    method: Method,
    host: String,
    target: Uri,
    headers: HeaderMap,
    body: Vec<u8>,
    answer: Option<Vec<u8>>,
}

/// One value of a body, and what becomes of it.
struct Told {
    path: String,
    /// `sealed`, `opened`, `masked`, `kept`, `passes`, `as it is`, `stays sealed`, `null`, `near miss`.
    fate: &'static str,
    /// The rule that decides: its number and its words.
    rule: Option<(usize, String)>,
    before: String,
    after: String,
}

/// Explains.
///
/// # Errors
/// `out` or `err` cannot be written.
pub fn explain(
    args: &PolicyExplainArgs,
    output: Output,
    colour: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Exit> {
    let asked = match asked(args) {
        Ok(asked) => asked,
        Err(found) => {
            super::refuse(&found, output, colour, out, err)?;
            return Ok(Exit::Usage);
        }
    };
    let policies = match load(&args.policy, args.environment.as_deref()) {
        Ok(policies) => policies,
        Err(found) => {
            super::refuse(&found, output, colour, out, err)?;
            return Ok(Exit::Configuration);
        }
    };
    let mut head = http::Request::new(());
    *head.method_mut() = asked.method.clone();
    *head.uri_mut() = asked.target.clone();
    *head.headers_mut() = asked.headers.clone();
    let (head, ()) = head.into_parts();
    let answer = match &asked.answer {
        None => Answer::Echo,
        Some(body) => {
            let mut headers = HeaderMap::new();
            let json = HeaderValue::from_static("application/json");
            headers.insert(http::header::CONTENT_TYPE, json);
            Answer::Given {
                status: StatusCode::OK,
                headers,
                body: body.clone(),
            }
        }
    };
    let sent = rehearsal::Asked {
        policies: &policies,
        head,
        host: &asked.host,
        body: &asked.body,
        answer: &answer,
        caller: args.caller.as_deref(),
        limits: Limits::default(),
    };
    let passage = pass(sent, &Keys::default());
    let route = passage.route.as_ref();
    let route = route.and_then(|name| policies.routes().find(|route| route.name == *name));
    let mut sides = Vec::new();
    if let Some(route) = route {
        // Of a refused request, what the rules would have done.
        let after = passage.upstream.as_ref().unwrap_or(&asked.body);
        let mut told = tell(&route.request, &route.request_rules, &asked.body, after);
        let sent = Head {
            headers: asked.headers.clone(),
            query: asked.target.query().map(str::to_owned),
        };
        let seen = match passage.upstream {
            Some(_) => &passage.upstream_head,
            None => &sent,
        };
        let rules = &route.request_rules;
        told.extend(elsewhere(rules, (&sent, &asked.body), (seen, after)));
        sides.push((Side::Request, told, &passage.request));
        if let (Some(before), Some(after), true) =
            (&passage.answer, &passage.client, asked.answer.is_some())
        {
            let mut told = tell(&route.response, &route.response_rules, before, after);
            let answered = Head {
                headers: passage.answer_headers.clone(),
                query: None,
            };
            let rules = &route.response_rules;
            let got = (&passage.client_head, &after[..]);
            told.extend(elsewhere(rules, (&answered, before), got));
            sides.push((Side::Response, told, &passage.response));
        }
    }
    match output {
        Output::Json => {
            let document = document(args, &asked, &policies, &passage, route, &sides);
            writeln!(out, "{document}")?;
        }
        _ => show(args, &asked, &policies, &passage, route, &sides, out)?,
    }
    Ok(Exit::Success)
}

fn asked(args: &PolicyExplainArgs) -> Result<Asked, Vec<Diagnostic>> {
    let typed = |what: &str| vec![about(Path::new("request"), "bad-request", what)];
    let text = args.request.as_str();
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, target) = rest.split_at(at);
    let target = match target {
        "" => "/".to_owned(),
        query if query.starts_with('?') => format!("/{query}"),
        target => target.to_owned(),
    };
    if host.is_empty() {
        return Err(typed(
            "a request begins with its host: api.example.com/v1/customers/7",
        ));
    }
    let target = Uri::try_from(target)
        .map_err(|_| typed("the path is one as it is sent, percent-encoded"))?;
    let answer = args.response.as_deref().map(body).transpose()?;
    let body = args
        .body
        .as_deref()
        .map(body)
        .transpose()?
        .unwrap_or_default();
    let method = match &args.method {
        Some(method) => {
            Method::from_bytes(method.as_bytes()).map_err(|_| typed("this is no method"))?
        }
        None if args.body.is_some() => Method::POST,
        None => Method::GET,
    };
    let mut headers = HeaderMap::new();
    for header in &args.header {
        let pair = header.split_once(':').and_then(|(name, value)| {
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let (name, value) = pair.ok_or_else(|| typed("a header is written `Name: value`"))?;
        headers.append(name, value);
    }
    if args.body.is_some() {
        let json = HeaderValue::from_static("application/json");
        headers.entry(http::header::CONTENT_TYPE).or_insert(json);
    }
    Ok(Asked {
        method,
        host: host.to_owned(),
        target,
        headers,
        body,
        answer,
    })
}

fn body(file: &Path) -> Result<Vec<u8>, Vec<Diagnostic>> {
    let bytes = if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        let mut input = io::stdin().lock().take(BODY_BYTES_MAX as u64 + 1);
        let read = input.read_to_end(&mut bytes);
        read.map(|_| bytes).map_err(|error| error.to_string())
    } else {
        read(file, BODY_BYTES_MAX)
    };
    let found = |code, what| vec![about(file, code, what)];
    let bytes = bytes.map_err(|what| found("unreadable", format!("cannot be read: {what}")))?;
    match bytes.len() > BODY_BYTES_MAX {
        true => Err(found(
            "too-large",
            format!("at most {BODY_BYTES_MAX} bytes are read"),
        )),
        false => Ok(bytes),
    }
}

/// Each value that a rule selects or that is one of its own, before and after. Empty for what is no JSON.
fn tell(rules: &Rules, written: &[Rule], before: &[u8], after: &[u8]) -> Vec<Told> {
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
            let words = format!("{}: {}", rule.at.as_str(), super::deed(rule));
            told.push(Told {
                path: was.place,
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
    let opened: Vec<&Action> = actions.clone().collect();
    let decided = actions.find(|action| !matches!(action, Action::Open(_)));
    match (was == is, token(was), token(is)) {
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
        "opened" | "masked" | "stays sealed" | "null" => matches!(action, Action::Open(_)),
        "passes" => matches!(action, Action::Pass),
        _ => false,
    };
    let index = place
        .rules
        .iter()
        .find(|rule| written.get(**rule).is_some_and(|r| fits(&r.action)))?;
    let rule = written.get(*index)?;
    Some((
        index + 1,
        format!("{}: {}", rule.at.as_str(), super::deed(rule)),
    ))
}

fn why(route: &Route, miss: Option<Miss>, taken: Option<&Route>) -> String {
    match miss {
        Some(Miss::Host) => "another host".to_owned(),
        Some(Miss::Method) => format!("takes {}", route.matching.methods.join(", ")),
        Some(Miss::Path) => "another path".to_owned(),
        None => match taken {
            Some(first) => format!("would take it, behind {}", first.name),
            None => "the path can be read in several ways".to_owned(),
        },
    }
}

fn show(
    args: &PolicyExplainArgs,
    asked: &Asked,
    policies: &Policies,
    passage: &Passage,
    route: Option<&Route>,
    sides: &[(Side, Vec<Told>, &Tally)],
    out: &mut dyn Write,
) -> io::Result<()> {
    let (method, path) = (asked.method.as_str(), asked.target.path());
    writeln!(
        out,
        "{method} {}{}",
        printable(&asked.host),
        printable(path)
    )?;
    match route {
        Some(route) => {
            let policy = policies.iter().find(|policy| policy.name == route.policy);
            let place = policy.map(|p| format!("{}:{}", p.file(), p.line_of(route)));
            let observing = match route.mode {
                Mode::Observe => ", which only observes: nothing is changed",
                Mode::Enforce => "",
            };
            writeln!(
                out,
                "  route {} ({}){observing}",
                route.name,
                place.unwrap_or_default()
            )?;
        }
        None => writeln!(out, "  no route")?,
    }
    let mut elsewhere = 0;
    for (other, miss) in policies.answers(method, &asked.host, path) {
        if miss == Some(Miss::Host) {
            elsewhere += 1;
        } else if !route.is_some_and(|route| std::ptr::eq(route, other)) {
            writeln!(out, "  not {}: {}", other.name, why(other, miss, route))?;
        }
    }
    match elsewhere {
        0 => {}
        1 => writeln!(out, "  not 1 route of another host")?,
        more => writeln!(out, "  not {more} routes of other hosts")?,
    }
    let ends = [(&passage.refused, "refused"), (&passage.cut, "cut off")];
    for (error, ended) in ends {
        let Some(error) = error else { continue };
        let row = error.code().row();
        let note = match error.note() {
            "" => String::new(),
            note => format!(" ({})", printable(note)),
        };
        writeln!(
            out,
            "\n{ended}: {} {}: {}{note}\n  {}",
            row.status, row.word, row.title, row.hint
        )?;
    }
    if let Some(code) = passage.would_refuse {
        writeln!(out, "\nwould be refused, if the route enforced: {code}")?;
    }
    if let Some(unread) = passage.unread {
        writeln!(out, "\na body passes without being looked at: {unread}")?;
    }
    for (side, told, tally) in sides {
        let (what, who) = match side {
            Side::Request if passage.upstream.is_none() => ("request", "without the refusal"),
            Side::Request => ("request", "the upstream sees"),
            Side::Response => ("response", "the client sees"),
        };
        writeln!(out, "\n{what}: {who}")?;
        if told.is_empty() {
            writeln!(out, "  no values")?;
        }
        let width = told.iter().map(|t| t.path.chars().count()).max();
        let width = width.unwrap_or_default().clamp(4, 50);
        for one in told.iter().take(VALUES_MAX) {
            let rule = match &one.rule {
                Some((number, rule)) => format!("rule {number}, {}", printable(rule)),
                None => "no rule".to_owned(),
            };
            let path = printable(&one.path);
            writeln!(out, "  {path:width$}  {:15}  {rule}", one.fate)?;
            if args.show_values {
                match one.before == one.after {
                    true => writeln!(out, "      {}", clipped(&one.before))?,
                    false => writeln!(
                        out,
                        "      {} -> {}",
                        clipped(&one.before),
                        clipped(&one.after)
                    )?,
                }
            }
        }
        if told.len() > VALUES_MAX {
            writeln!(out, "  and {} more", told.len() - VALUES_MAX)?;
        }
        for (word, count) in counts(tally) {
            writeln!(out, "  {count} counted as {}", quoted(word))?;
        }
    }
    Ok(())
}

/// What is counted of a body, beside what was sealed and opened.
fn counts(tally: &Tally) -> Vec<(&'static str, u32)> {
    let own = [
        ("stray", tally.strays),
        ("unclaimed", tally.unclaimed),
        ("plaintext", tally.plaintext),
        ("near-miss", tally.near_misses),
        ("nulled", tally.nulled),
    ];
    let all = own.into_iter().chain(tally.left.iter().copied());
    all.filter(|(_, count)| *count > 0).collect()
}

fn clipped(text: &str) -> String {
    let text = printable(text);
    let mut shown: String = text.chars().take(VALUE_CHARS_MAX).collect();
    if text.chars().count() > VALUE_CHARS_MAX {
        shown.push('…');
    }
    shown
}

fn document(
    args: &PolicyExplainArgs,
    asked: &Asked,
    policies: &Policies,
    passage: &Passage,
    route: Option<&Route>,
    sides: &[(Side, Vec<Told>, &Tally)],
) -> Value {
    let (method, path) = (asked.method.as_str(), asked.target.path());
    let others: Vec<Value> = policies
        .answers(method, &asked.host, path)
        .into_iter()
        .filter(|(other, _)| !route.is_some_and(|route| std::ptr::eq(route, *other)))
        .map(|(other, miss)| json!({"route": &*other.name, "why": why(other, miss, route)}))
        .collect();
    let told = |one: &Told| {
        let mut value = json!({
            "path": one.path,
            "fate": one.fate,
            "rule": one.rule.as_ref().map(|(number, _)| number),
        });
        if args.show_values {
            value["before"] = json!(one.before);
            value["after"] = json!(one.after);
        }
        value
    };
    let side = |which: Side| {
        sides
            .iter()
            .find(|(side, ..)| *side == which)
            .map(|(_, values, tally)| {
                let counted: serde_json::Map<String, Value> = counts(tally)
                    .into_iter()
                    .map(|(word, count)| (word.to_owned(), json!(count)))
                    .collect();
                json!({"values": values.iter().map(told).collect::<Vec<_>>(), "counted": counted})
            })
    };
    json!({
        "method": method,
        "host": asked.host,
        "route": route.map(|route| &*route.name),
        "observing": route.is_some_and(|route| route.mode == Mode::Observe),
        "others": others,
        "refused": passage.refused.as_ref().map(|error| error.code().word()),
        "cut": passage.cut.as_ref().map(|error| error.code().word()),
        "would_refuse": passage.would_refuse,
        "unread": passage.unread,
        "request": side(Side::Request),
        "response": side(Side::Response),
    })
}
