//! What this process counts, for Prometheus: names, words and numbers.
//!
//! The hot path adds to atomics that were looked up when the listener started ([`Accesses`]); rare things (refusals,
//! strays) look their label up in a family. What others count already (the key room, open connections) is read when
//! somebody asks. [`TABLE`] is the truth about names and labels; `docs/metrics.md` is made from it.
//!
//! No label ever holds a value, a path, a tenant or a user's id.

mod accesses;
mod latency;
mod living;
mod table;

pub use accesses::Accesses;
pub use living::{Listening, PolicyReading, Reading};
pub use table::{Kind, Row, TABLE, page};

use crate::keys::{self, Keys};
use crate::policy::Policies;
use latency::{ADDED_US, CALL_US, Latency, TOTAL_US};
use living::Living;
use prometheus_client::encoding::EncodeMetric;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use table::{
    ADDED, BUILD, CUT_OFF, DURATION, FIELDS, KMS_CALLS, KMS_DURATION, LEFT, NEAR_MISSES, NULLED,
    OBSERVED, PASSED, PASSED_BYTES, PLAINTEXT, REQUESTS, REVOKED, STORE_CALLS, STORE_DURATION,
    STRAYS, UNCLAIMED, UNMATCHED, UNREAD, UNREAD_RECORDS,
};

/// The Content-Type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels<const N: usize> = [(&'static str, Arc<str>); N];

/// A family and its row of the table. A cheap clone shares the counts.
struct Many<M, const N: usize> {
    row: &'static Row,
    family: Family<Labels<N>, M, fn() -> M>,
}

// Derived, it would want more of `M` than is needed.
impl<M, const N: usize> Clone for Many<M, N> {
    fn clone(&self) -> Self {
        Many {
            row: self.row,
            family: self.family.clone(),
        }
    }
}

impl<M: Clone, const N: usize> Many<M, N>
where
    fn() -> M: MetricConstructor<M>,
{
    fn new(row: &'static Row, make: fn() -> M) -> Many<M, N> {
        Many {
            row,
            family: Family::new_with_constructor(make),
        }
    }

    /// The one with these label values, in the order of the row's labels.
    fn of(&self, values: [&Arc<str>; N]) -> M {
        let labels = std::array::from_fn(|at| (self.row.labels[at], Arc::clone(values[at])));
        self.family.get_or_create_owned(&labels)
    }
}

/// Everything that is counted by adding.
#[derive(Clone)]
struct Families {
    requests: Many<Counter, 3>,
    duration: Many<Latency, 1>,
    added: Many<Latency, 1>,
    unmatched: Many<Counter, 1>,
    passed: Many<Counter, 2>,
    passed_bytes: Many<Counter, 2>,
    observed: Many<Counter, 3>,
    fields: Many<Counter, 3>,
    left: Many<Counter, 2>,
    strays: Many<Counter, 1>,
    unclaimed: Many<Counter, 1>,
    plaintext: Many<Counter, 1>,
    near_misses: Many<Counter, 1>,
    nulled: Many<Counter, 1>,
    unread: Many<Counter, 2>,
    unread_records: Many<Counter, 2>,
    cut_off: Many<Counter, 3>,
    revoked: Many<Counter, 2>,
    kms_calls: Many<Counter, 3>,
    kms_duration: Many<Latency, 2>,
    store_calls: Many<Counter, 3>,
    store_duration: Many<Latency, 2>,
}

impl Families {
    fn new() -> Families {
        Families {
            requests: Many::new(&REQUESTS, Counter::default),
            duration: Many::new(&DURATION, || Latency::new(TOTAL_US)),
            added: Many::new(&ADDED, || Latency::new(ADDED_US)),
            unmatched: Many::new(&UNMATCHED, Counter::default),
            passed: Many::new(&PASSED, Counter::default),
            passed_bytes: Many::new(&PASSED_BYTES, Counter::default),
            observed: Many::new(&OBSERVED, Counter::default),
            fields: Many::new(&FIELDS, Counter::default),
            left: Many::new(&LEFT, Counter::default),
            strays: Many::new(&STRAYS, Counter::default),
            unclaimed: Many::new(&UNCLAIMED, Counter::default),
            plaintext: Many::new(&PLAINTEXT, Counter::default),
            near_misses: Many::new(&NEAR_MISSES, Counter::default),
            nulled: Many::new(&NULLED, Counter::default),
            unread: Many::new(&UNREAD, Counter::default),
            unread_records: Many::new(&UNREAD_RECORDS, Counter::default),
            cut_off: Many::new(&CUT_OFF, Counter::default),
            revoked: Many::new(&REVOKED, Counter::default),
            kms_calls: Many::new(&KMS_CALLS, Counter::default),
            kms_duration: Many::new(&KMS_DURATION, || Latency::new(CALL_US)),
            store_calls: Many::new(&STORE_CALLS, Counter::default),
            store_duration: Many::new(&STORE_DURATION, || Latency::new(CALL_US)),
        }
    }

    fn register(&self, registry: &mut Registry) {
        fn add<M, const N: usize>(registry: &mut Registry, many: &Many<M, N>)
        where
            M: EncodeMetric + Clone + Send + Sync + std::fmt::Debug + 'static,
            Family<Labels<N>, M, fn() -> M>: Metric,
        {
            let (stem, unit) = many.row.stem();
            match unit {
                Some(unit) => {
                    registry.register_with_unit(stem, many.row.help, unit, many.family.clone())
                }
                None => registry.register(stem, many.row.help, many.family.clone()),
            }
        }
        add(registry, &self.requests);
        add(registry, &self.duration);
        add(registry, &self.added);
        add(registry, &self.unmatched);
        add(registry, &self.passed);
        add(registry, &self.passed_bytes);
        add(registry, &self.observed);
        add(registry, &self.fields);
        add(registry, &self.left);
        add(registry, &self.strays);
        add(registry, &self.unclaimed);
        add(registry, &self.plaintext);
        add(registry, &self.near_misses);
        add(registry, &self.nulled);
        add(registry, &self.unread);
        add(registry, &self.unread_records);
        add(registry, &self.cut_off);
        add(registry, &self.revoked);
        add(registry, &self.kms_calls);
        add(registry, &self.kms_duration);
        add(registry, &self.store_calls);
        add(registry, &self.store_duration);
    }
}

impl Row {
    /// The name without what the format appends to it, and the unit.
    fn stem(&self) -> (&'static str, Option<Unit>) {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        let stem = self.name.strip_suffix(suffix).unwrap_or(self.name);
        match stem.strip_suffix("_seconds") {
            Some(stem) => (stem, Some(Unit::Seconds)),
            None => (stem, None),
        }
    }
}

/// All metrics of one agent.
pub struct Metrics {
    families: Families,
    living: Arc<Living>,
    registry: Registry,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Metrics {
        let (families, mut registry) = (Families::new(), Registry::default());
        families.register(&mut registry);
        let version = [(BUILD.labels[0], env!("CARGO_PKG_VERSION"))];
        registry.register(BUILD.stem().0, BUILD.help, Info::new(version));
        let living = Arc::new(Living::default());
        registry.register_collector(Box::new(Arc::clone(&living)));
        Metrics {
            families,
            living,
            registry,
        }
    }

    /// What a listener's accesses are counted in: what usually happens under these policies is looked up now.
    pub fn accesses(&self, listener: &Arc<str>, policies: &Policies) -> Accesses {
        Accesses::new(&self.families, listener, policies)
    }

    /// What the key room tells of its calls. Holds the counts, and nothing of the rest of this.
    pub fn calls(&self) -> Calls {
        Calls {
            families: self.families.clone(),
        }
    }

    /// From now on, these are asked when somebody wants to know. Once; later calls change nothing.
    pub fn watch(&self, keys: Keys, read: impl Fn() -> Reading + Send + Sync + 'static) {
        self.living.watch(keys, Box::new(read));
    }

    /// The state of affairs, in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Fails only where a `String` cannot be written to.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Counts calls to KMSs.
pub struct Calls {
    families: Families,
}

impl keys::Observe for Calls {
    fn kms_call(&self, kms: &str, verb: &'static str, outcome: &'static str, micros: u64) {
        let (kms, verb): (Arc<str>, Arc<str>) = (kms.into(), verb.into());
        self.families
            .kms_calls
            .of([&kms, &verb, &outcome.into()])
            .inc();
        self.families
            .kms_duration
            .of([&kms, &verb])
            .observe(Duration::from_micros(micros));
    }

    fn store_call(&self, store: &str, verb: &'static str, outcome: &'static str, micros: u64) {
        let (store, verb): (Arc<str>, Arc<str>) = (store.into(), verb.into());
        self.families
            .store_calls
            .of([&store, &verb, &outcome.into()])
            .inc();
        self.families
            .store_duration
            .of([&store, &verb])
            .observe(Duration::from_micros(micros));
    }

    fn purged(&self, key: &str, why: &'static str) {
        self.families.revoked.of([&key.into(), &why.into()]).inc();
    }
}

/// The empty label: Prometheus takes it as absent.
fn none() -> Arc<str> {
    static NONE: OnceLock<Arc<str>> = OnceLock::new();
    Arc::clone(NONE.get_or_init(|| "".into()))
}

#[cfg(test)]
mod tests;
