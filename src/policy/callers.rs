//! Who asks, and how much of a value that one sees: the words `caller`, `mask` and `reveal`, and what they mean.

use super::checked::header_name;
use super::written::{bounded, one_of};
use super::{CALLER_BYTES_MAX, CALLERS_MAX, CallerSource};
use crate::context::Class;
use crate::diagnostic::{Span, quoted};
use crate::marked::{Findings, Marked, Node};
use crate::mask::{FIXED_CHARS_MAX, KEEP_MAX, Mask};
use crate::token;
use crate::transform::{Level, Reveal};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const LEVELS: [(&str, Level); 3] = [
    ("full", Level::Full),
    ("masked", Level::Masked),
    ("none", Level::None),
];

/// A rule's `reveal`.
pub(super) struct RevealWords {
    pub span: Span,
    pub default: Level,
    pub callers: Vec<(Marked<String>, Level)>,
}

/// A policy's or a route's `caller`.
pub(super) fn caller(node: &Node, findings: &mut Findings<'_>) -> Option<CallerSource> {
    let mut fields = findings.fields(node, "`caller`")?;
    let words = ["header", "peer", "mtls"];
    let chosen = one_of(&mut fields, &words, "`caller`", findings);
    fields.finish(findings);
    let (word, source) = chosen?;
    match word {
        "header" => {
            let name = findings.text(source, "the caller's header")?;
            header_name(&name.value, name.span, findings).map(CallerSource::Header)
        }
        "peer" => findings
            .choice(source, "`peer`", &[("uid", ())])
            .map(|()| CallerSource::PeerUid),
        _ => findings
            .choice(source, "`mtls`", &[("san", ())])
            .map(|()| CallerSource::MtlsSan),
    }
}

/// A class's `mask`.
pub(super) fn mask(node: &Node, findings: &mut Findings<'_>) -> Option<Mask> {
    let mut fields = findings.fields(node, "`mask`")?;
    let words = ["keep_first", "keep_last", "fixed"];
    let chosen = one_of(&mut fields, &words, "`mask`", findings);
    fields.finish(findings);
    let (word, node) = chosen?;
    if word == "fixed" {
        let text = findings.text(node, "`fixed`")?;
        let chars = text.value.chars().count();
        if !(1..=FIXED_CHARS_MAX).contains(&chars)
            || text.value.chars().any(char::is_control)
            || token::is_reserved(text.value.as_bytes())
        {
            let message = format!(
                "a fixed mask has 1 to {FIXED_CHARS_MAX} characters, no control character among them, and is no token"
            );
            findings.at("bad-mask", text.span, message);
            return None;
        }
        return Some(Mask::Fixed(text.value.into()));
    }
    let what = "how many characters a mask keeps";
    let count = findings.integer(node, what, 1..=u64::from(KEEP_MAX))?;
    let count = u8::try_from(count).ok()?;
    Some(match word {
        "keep_first" => Mask::KeepFirst(count),
        _ => Mask::KeepLast(count),
    })
}

/// A rule's `reveal`.
pub(super) fn reveal(node: &Node, findings: &mut Findings<'_>) -> Option<RevealWords> {
    let mut fields = findings.fields(node, "`reveal`")?;
    let default = fields
        .require("default", findings)
        .and_then(|node| findings.choice(node, "`default`", &LEVELS));
    let mut callers = Vec::new();
    if let Some(node) = fields.take("callers") {
        let entries = findings.entries(node, "`callers`");
        bounded(entries.len(), CALLERS_MAX, node.span, "callers", findings);
        for entry in entries.iter().take(CALLERS_MAX) {
            let level = findings.choice(&entry.node, "what a caller sees", &LEVELS);
            let name = Marked {
                value: entry.key.clone(),
                span: entry.key_span,
            };
            callers.extend(level.map(|level| (name, level)));
        }
    }
    fields.finish(findings);
    Some(RevealWords {
        span: node.span,
        default: default?,
        callers,
    })
}

/// What a rule's `reveal` means, where these classes are opened and the caller is found like this.
pub(super) fn meant(
    words: &RevealWords,
    classes: &[Arc<Class>],
    source: Option<&CallerSource>,
    findings: &mut Findings<'_>,
) -> Reveal {
    if let (Some((first, _)), None) = (words.callers.first(), source) {
        findings.at_with_hint(
            "no-caller",
            first.span,
            "callers are named here, and nothing says how a caller is known",
            "add `caller` to the policy or to the route, for example caller: {peer: uid}",
        );
    }
    let mut callers = BTreeMap::new();
    for (name, level) in &words.callers {
        let text = &name.value;
        let fits = (1..=CALLER_BYTES_MAX).contains(&text.len());
        let wrong = match source {
            _ if !fits || text.chars().any(char::is_control) => Some(format!(
                "a caller's name has 1 to {CALLER_BYTES_MAX} bytes, no control character among them"
            )),
            // As the number is shown, so that there is one spelling of it.
            Some(CallerSource::PeerUid)
                if text.parse::<u32>().map(|uid| uid.to_string()).as_ref() != Ok(text) =>
            {
                Some(format!("{} is no user id: a number", quoted(text)))
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            findings.at("bad-caller", name.span, wrong);
        }
        callers.insert(text.as_str().into(), *level);
    }
    let reveal = Reveal {
        default: words.default,
        callers,
    };
    if reveal.masks()
        && let Some(class) = classes.iter().find(|class| class.mask.is_none())
    {
        findings.at_with_hint(
            "no-mask",
            words.span,
            format!("the class {} has no mask", quoted(&class.name)),
            "say what of it is shown: mask: {keep_last: 4}, or mask: {fixed: \"(hidden)\"}",
        );
    }
    reveal
}
