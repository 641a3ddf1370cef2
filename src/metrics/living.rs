//! What others know at any moment, asked when somebody reads the metrics.

use super::table::{
    ACCEPT_ERRORS, CERTIFICATES_REFUSED, CONNECTIONS, DATA_KEYS, HITS, IN_FLIGHT, INCOMPLETE,
    KMS_LEFT_ALONE, KMS_WITHHELD, LINES_DROPPED, MEMORY_LOCKED, MINTED, MISSES, NEWCOMERS_REFUSED,
    NOT_RENEWED, POLICY, POLICY_LOADED, POLICY_RELOADS, PURGED, READY, REFUSED_RECORDS, RENEWED,
    SURVIVAL, UNSTORED,
};
use super::{Kind, Row};
use crate::keys::{Keys, KmsState};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// What the app knows at this moment.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// By listener.
    pub listeners: Vec<Listening>,
    /// Nothing blocks readiness.
    pub ready: bool,
    /// Lines of the log that nobody took in time.
    pub lines_dropped: u64,
    /// Changed files of certificates that were no good.
    pub certificates_refused: u64,
    /// The policies in force, and how reloads of them went.
    pub policy: PolicyReading,
}

/// The policies at this moment.
#[derive(Clone, Debug, Default)]
pub struct PolicyReading {
    /// Of those in force.
    pub version: Arc<str>,
    /// When they were put in force, in seconds since 1970.
    pub loaded_at: f64,
    /// Reloads that put others in force.
    pub loaded: u64,
    /// Reloads that found the same.
    pub unchanged: u64,
    /// Reloads that were refused.
    pub refused: u64,
}

/// One listener at this moment.
#[derive(Clone, Debug)]
pub struct Listening {
    /// Its name.
    pub name: Arc<str>,
    /// Open connections.
    pub connections: usize,
    /// Requests whose answer is not complete.
    pub requests: usize,
    /// Times that the system gave it no connection.
    pub accept_errors: u64,
}

type Read = Box<dyn Fn() -> Reading + Send + Sync>;

#[derive(Default)]
pub(super) struct Living {
    watched: OnceLock<(Keys, Read)>,
}

impl Living {
    pub(super) fn watch(&self, keys: Keys, read: Read) {
        let _ = self.watched.set((keys, read));
    }
}

impl fmt::Debug for Living {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Living")
    }
}

/// Writes one family: a number for each label value.
fn family<'v>(
    encoder: &mut DescriptorEncoder<'_>,
    row: &Row,
    values: impl IntoIterator<Item = (&'v str, f64)>,
) -> fmt::Result {
    let (stem, unit) = row.stem();
    let kind = if row.kind == Kind::Counter {
        MetricType::Counter
    } else {
        MetricType::Gauge
    };
    let mut family = encoder.encode_descriptor(stem, row.help, unit.as_ref(), kind)?;
    for (label, value) in values {
        let labels: Vec<_> = row.labels.iter().map(|name| (*name, label)).collect();
        let labelled = labels.as_slice();
        let mut metric = if labels.is_empty() {
            None
        } else {
            Some(family.encode_family(&labelled)?)
        };
        let metric = metric.as_mut();
        match (row.kind, metric) {
            // Whole numbers up to 2^53 are exact in a float.
            (Kind::Counter, Some(metric)) => {
                metric.encode_counter::<NoLabelSet, _, u64>(&(value as u64), None)?
            }
            (Kind::Counter, None) => {
                family.encode_counter::<NoLabelSet, _, u64>(&(value as u64), None)?
            }
            (_, Some(metric)) => metric.encode_gauge(&value)?,
            (_, None) => family.encode_gauge(&value)?,
        }
    }
    Ok(())
}

impl Collector for Living {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some((keys, read)) = self.watched.get() else {
            return Ok(());
        };
        let (now, reading) = (keys.snapshot(), read());
        let encoder = &mut encoder;
        let listeners = &reading.listeners;
        family(
            encoder,
            &CONNECTIONS,
            listeners
                .iter()
                .map(|one| (&*one.name, one.connections as f64)),
        )?;
        family(
            encoder,
            &IN_FLIGHT,
            listeners
                .iter()
                .map(|one| (&*one.name, one.requests as f64)),
        )?;
        family(
            encoder,
            &ACCEPT_ERRORS,
            listeners
                .iter()
                .map(|one| (&*one.name, one.accept_errors as f64)),
        )?;
        let uses = |seal: u64, open: u64| [("seal", seal as f64), ("open", open as f64)];
        family(encoder, &HITS, uses(now.sealing_hits, now.opening_hits))?;
        family(
            encoder,
            &MISSES,
            uses(now.sealing_misses, now.opening_misses),
        )?;
        family(
            encoder,
            &DATA_KEYS,
            uses(now.sealing_deks, now.opening_deks),
        )?;
        let survives = [
            ("seal", now.sealing_survives),
            ("open", now.opening_survives),
        ];
        let survives = survives
            .into_iter()
            .filter_map(|(of, left)| Some((of, left?.as_secs_f64())));
        family(encoder, &SURVIVAL, survives)?;
        let alone = |one: &KmsState| f64::from(u8::from(one.left_alone));
        let kms = now.kms.iter();
        family(
            encoder,
            &KMS_LEFT_ALONE,
            kms.clone().map(|one| (&*one.name, alone(one))),
        )?;
        family(
            encoder,
            &KMS_WITHHELD,
            kms.map(|one| (&*one.name, one.withheld as f64)),
        )?;
        let reasons = [
            ("foreign", now.foreign as f64),
            ("over-budget", now.over_budget as f64),
            ("remembered", now.remembered_refusals as f64),
        ];
        family(encoder, &REFUSED_RECORDS, reasons)?;
        let policy = &reading.policy;
        let (stem, unit) = POLICY.stem();
        let version = [(POLICY.labels[0], &*policy.version)];
        encoder
            .encode_descriptor(stem, POLICY.help, unit.as_ref(), MetricType::Info)?
            .encode_info(&version.as_slice())?;
        family(encoder, &POLICY_LOADED, [("", policy.loaded_at)])?;
        let outcomes = [
            ("loaded", policy.loaded as f64),
            ("unchanged", policy.unchanged as f64),
            ("refused", policy.refused as f64),
        ];
        family(encoder, &POLICY_RELOADS, outcomes)?;
        for (row, value) in [
            (&MINTED, now.minted),
            (&UNSTORED, now.unstored),
            (&INCOMPLETE, now.incomplete_deks),
            (&NEWCOMERS_REFUSED, now.newcomers_refused),
            (&RENEWED, now.renewed),
            (&NOT_RENEWED, now.not_renewed),
            (&PURGED, now.purged),
            (&MEMORY_LOCKED, u64::from(now.memory_locked)),
            (&READY, u64::from(reading.ready)),
            (&LINES_DROPPED, reading.lines_dropped),
            (&CERTIFICATES_REFUSED, reading.certificates_refused),
        ] {
            family(encoder, row, [("", value as f64)])?;
        }
        Ok(())
    }
}
