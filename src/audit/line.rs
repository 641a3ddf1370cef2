//! An access as the program's log has it.

use super::{Entry, Outcome};
use crate::transform::Tally;
use http::Method;
use std::fmt;

/// One line per access. The text of the counts is made only if somebody reads it.
pub(super) fn log(entry: &Entry, note: &str) {
    tracing::info!(
        target: "fieldveil::access",
        request_id = %entry.id,
        listener = &*entry.listener,
        policy = entry.policy.as_deref(),
        route = entry.route.as_deref(),
        unmatched = entry.unmatched.then_some(true),
        method = entry.method.as_ref().map(Method::as_str),
        caller = entry.caller.word(),
        status = entry.status,
        outcome = entry.outcome.word(),
        fault = match entry.outcome {
            Outcome::Refused { fault, .. } => Some(fault),
            _ => None,
        },
        note = (!note.is_empty()).then_some(note),
        observed = entry.observed,
        request = %Counts(&entry.request),
        response = %Counts(&entry.response),
        unread = entry.unread,
        unread_records = entry.unread_records.iter().map(|(_, count)| u64::from(*count)).reduce(u64::saturating_add),
        request_bytes = entry.request_bytes,
        response_bytes = entry.response_bytes,
        total_us = u64::try_from(entry.total.as_micros()).unwrap_or(u64::MAX),
        added_us = u64::try_from(entry.added.as_micros()).unwrap_or(u64::MAX),
        "access"
    );
}

/// `sealed.ssn=2 kept.pan=1 left.foreign=1 strays=1`.
struct Counts<'t>(&'t Tally);

impl fmt::Display for Counts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = self.0;
        let mut space = "";
        for (what, counts) in [
            ("sealed", &tally.sealed),
            ("kept", &tally.kept),
            ("opened", &tally.opened),
            ("masked", &tally.masked),
        ] {
            for (class, count) in counts {
                write!(f, "{space}{what}.{}={count}", class.name)?;
                space = " ";
            }
        }
        for (why, count) in &tally.left {
            write!(f, "{space}left.{why}={count}")?;
            space = " ";
        }
        let others = [
            ("strays", tally.strays),
            ("unclaimed", tally.unclaimed),
            ("plaintext", tally.plaintext),
            ("near-misses", tally.near_misses),
            ("nulled", tally.nulled),
        ];
        for (what, count) in others.into_iter().filter(|(_, count)| *count > 0) {
            write!(f, "{space}{what}={count}")?;
            space = " ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::class;
    use super::*;

    #[test]
    fn counts_name_classes_and_no_values() {
        let tally = Tally {
            sealed: vec![(class("ssn"), 2)],
            left: vec![("foreign", 1)],
            unclaimed: 7,
            ..Tally::default()
        };
        assert_eq!(
            Counts(&tally).to_string(),
            "sealed.ssn=2 left.foreign=1 unclaimed=7"
        );
    }
}
