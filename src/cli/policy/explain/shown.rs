//! What was found out about a request, for people and for programs.

use super::Asked;
use super::told::Told;
use crate::audit::Side;
use crate::cli::PolicyExplainArgs;
use crate::diagnostic::{printable, quoted};
use crate::policy::{Miss, Mode, Policies, Route};
use crate::rehearsal::Passage;
use crate::transform::Tally;
use serde_json::{Value, json};
use std::io::{self, Write};

/// Values of one body that are listed.
const VALUES_MAX: usize = 1_000;
/// Characters of a value that are shown.
const VALUE_CHARS_MAX: usize = 60;

/// Why a route does not take the request.
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

/// As text.
pub(super) fn show(
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
        let place = |told: &Told| match told.record {
            Some(record) => format!("record {record} {}", printable(&told.path)),
            None => printable(&told.path),
        };
        let width = told.iter().map(|told| place(told).chars().count()).max();
        let width = width.unwrap_or_default().clamp(4, 50);
        for one in told.iter().take(VALUES_MAX) {
            let rule = match &one.rule {
                Some((number, rule)) => format!("rule {number}, {}", printable(rule)),
                None => "no rule".to_owned(),
            };
            let path = place(one);
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

/// As one JSON document.
pub(super) fn document(
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
            "record": one.record,
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
