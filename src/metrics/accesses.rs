//! Counts one listener's accesses as their records are committed.

use super::latency::Latency;
use super::{Families, Many, none};
use crate::audit::{Entry, Observe, Outcome, Passed};
use crate::context::Class;
use crate::policy::Policies;
use crate::transform::Tally;
use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;

const ENFORCE: &str = "enforce";
const OBSERVE: &str = "observe";

/// One listener's counters. What is usual was looked up at the start, and is found by address; the rest is looked up
/// by name, so that it is right under other policies, too.
pub struct Accesses {
    listener: Arc<str>,
    families: Families,
    duration: Latency,
    added: Latency,
    unmatched: Counter,
    /// By the address of the name, which is held so that nothing else takes it.
    routes: Vec<(Arc<str>, Usual)>,
    unrouted: Usual,
    /// By address, as above.
    classes: Vec<(Arc<Class>, ByOperation)>,
}

/// How requests on a route usually end.
struct Usual {
    answered: Counter,
    aborted: Counter,
}

/// Of one class, on routes that enforce.
#[derive(Clone)]
struct ByOperation {
    sealed: Counter,
    kept: Counter,
    opened: Counter,
    masked: Counter,
}

impl Usual {
    fn new(families: &Families, listener: &Arc<str>, route: &Arc<str>) -> Usual {
        let ending = |outcome: Outcome| {
            families
                .requests
                .of([listener, route, &outcome.word().into()])
        };
        Usual {
            answered: ending(Outcome::Answered),
            aborted: ending(Outcome::Aborted),
        }
    }
}

impl ByOperation {
    fn new(families: &Families, class: &Arc<str>, mode: &str) -> ByOperation {
        let mode = mode.into();
        let counter = |operation: &str| families.fields.of([class, &operation.into(), &mode]);
        ByOperation {
            sealed: counter("sealed"),
            kept: counter("kept"),
            opened: counter("opened"),
            masked: counter("masked"),
        }
    }
}

fn address<T: ?Sized>(of: &Arc<T>) -> usize {
    Arc::as_ptr(of).cast::<u8>().addr()
}

fn find<'l, K: ?Sized, V>(list: &'l [(Arc<K>, V)], key: &Arc<K>) -> Option<&'l V> {
    let at = list.binary_search_by_key(&address(key), |(known, _)| address(known));
    Some(&list[at.ok()?].1)
}

fn sort<K: ?Sized, V>(list: &mut [(Arc<K>, V)]) {
    list.sort_unstable_by_key(|(key, _)| address(key));
}

impl Accesses {
    pub(super) fn new(families: &Families, listener: &Arc<str>, policies: &Policies) -> Accesses {
        let usual = |route: &Arc<str>| (Arc::clone(route), Usual::new(families, listener, route));
        let mut routes: Vec<_> = policies.routes().map(|route| usual(&route.name)).collect();
        let of_class = |class: &Arc<Class>| {
            (
                Arc::clone(class),
                ByOperation::new(families, &class.name, ENFORCE),
            )
        };
        let classes = policies.iter().flat_map(|policy| &policy.classes);
        let mut classes: Vec<_> = classes.map(of_class).collect();
        sort(&mut routes);
        sort(&mut classes);
        Accesses {
            listener: Arc::clone(listener),
            families: families.clone(),
            duration: families.duration.of([listener]),
            added: families.added.of([listener]),
            unmatched: families.unmatched.of([listener]),
            routes,
            unrouted: Usual::new(families, listener, &none()),
            classes,
        }
    }

    /// Whether both are among the usual.
    #[cfg(test)]
    pub(super) fn knows(&self, route: &Arc<str>, class: &Arc<Class>) -> bool {
        find(&self.routes, route).is_some() && find(&self.classes, class).is_some()
    }

    fn ended(&self, entry: &Entry) {
        let usual = match &entry.route {
            Some(route) => find(&self.routes, route),
            None => Some(&self.unrouted),
        };
        match (entry.outcome, usual) {
            (Outcome::Answered, Some(usual)) => usual.answered.inc(),
            (Outcome::Aborted, Some(usual)) => usual.aborted.inc(),
            (outcome, _) => {
                let route = entry.route.clone().unwrap_or_else(none);
                self.families
                    .requests
                    .of([&self.listener, &route, &outcome.word().into()])
                    .inc()
            }
        };
    }

    fn tally(&self, route: &Arc<str>, tally: &Tally, observing: bool) {
        type Which = fn(&ByOperation) -> &Counter;
        let operations: [(_, Which); 4] = [
            (&tally.sealed, |of| &of.sealed),
            (&tally.kept, |of| &of.kept),
            (&tally.opened, |of| &of.opened),
            (&tally.masked, |of| &of.masked),
        ];
        for (counts, which) in operations {
            for (class, count) in counts {
                let count = u64::from(*count);
                match find(&self.classes, class).filter(|_| !observing) {
                    Some(of) => which(of).inc_by(count),
                    None => {
                        let mode = if observing { OBSERVE } else { ENFORCE };
                        which(&ByOperation::new(&self.families, &class.name, mode)).inc_by(count)
                    }
                };
            }
        }
        for (reason, count) in &tally.left {
            self.families
                .left
                .of([route, &(*reason).into()])
                .inc_by(u64::from(*count));
        }
        for (count, family) in [
            (tally.strays, &self.families.strays),
            (tally.unclaimed, &self.families.unclaimed),
            (tally.plaintext, &self.families.plaintext),
            (tally.near_misses, &self.families.near_misses),
            (tally.nulled, &self.families.nulled),
        ] {
            if count > 0 {
                family.of([route]).inc_by(u64::from(count));
            }
        }
    }
}

impl Observe for Accesses {
    fn passed(&self, passed: &Passed) {
        let of = |family: &Many<Counter, 2>, what: &str| family.of([&self.listener, &what.into()]);
        of(&self.families.passed, passed.outcome).inc();
        for (direction, bytes) in [
            ("sent", passed.sent_bytes),
            ("received", passed.received_bytes),
        ] {
            if bytes > 0 {
                of(&self.families.passed_bytes, direction).inc_by(bytes);
            }
        }
    }
    fn observe(&self, entry: &Entry) {
        self.ended(entry);
        self.duration.observe(entry.total);
        self.added.observe(entry.added);
        if entry.unmatched {
            self.unmatched.inc();
        }
        let Some(route) = &entry.route else { return };
        if let Some(code) = entry.observed {
            self.families
                .observed
                .of([&self.listener, route, &code.into()])
                .inc();
        }
        if let Some(why) = entry.unread {
            self.families.unread.of([route, &why.into()]).inc();
        }
        for (why, count) in &entry.unread_records {
            let records = self.families.unread_records.of([route, &(*why).into()]);
            records.inc_by(u64::from(*count));
        }
        self.tally(route, &entry.request, entry.observing);
        self.tally(route, &entry.response, entry.observing);
    }

    fn cut_off(&self, listener: &Arc<str>, route: Option<&Arc<str>>, why: &'static str) {
        let route = route.cloned().unwrap_or_else(none);
        self.families
            .cut_off
            .of([listener, &route, &why.into()])
            .inc();
    }
}
