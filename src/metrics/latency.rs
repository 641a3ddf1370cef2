//! A histogram of durations that many threads count in at once, without a lock.

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds in microseconds of what the agent adds.
pub const ADDED_US: &[u64] = &[
    10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1_000, 2_000, 5_000, 10_000, 25_000, 50_000,
    100_000, 250_000, 500_000, 1_000_000,
];
/// Of whole requests.
pub const TOTAL_US: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];
/// Of calls to a KMS.
pub const CALL_US: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// Durations, counted in the first bucket that holds them. A cheap clone shares the counts.
#[derive(Clone, Debug)]
pub struct Latency {
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Counts {
    bounds_us: &'static [u64],
    /// One more than bounds: the last is everything above.
    buckets: Box<[AtomicU64]>,
    /// Wraps after 584 years of waiting.
    sum_ns: AtomicU64,
}

impl Latency {
    /// With these upper bounds, in ascending order.
    pub fn new(bounds_us: &'static [u64]) -> Latency {
        let buckets = (0..=bounds_us.len()).map(|_| AtomicU64::new(0)).collect();
        Latency {
            counts: Arc::new(Counts {
                bounds_us,
                buckets,
                sum_ns: AtomicU64::new(0),
            }),
        }
    }

    /// One more.
    pub fn observe(&self, took: Duration) {
        let counts = &*self.counts;
        // A bound holds what is equal to it.
        let bucket = counts
            .bounds_us
            .partition_point(|bound| Duration::from_micros(*bound) < took);
        counts.buckets[bucket].fetch_add(1, Relaxed);
        counts
            .sum_ns
            .fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

impl EncodeMetric for Latency {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), fmt::Error> {
        let counts = &*self.counts;
        let bounds = counts
            .bounds_us
            .iter()
            .map(|us| *us as f64 / 1e6)
            .chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds
            .zip(counts.buckets.iter().map(|bucket| bucket.load(Relaxed)))
            .collect();
        // Of the buckets as they were read, so that the two agree.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = counts.sum_ns.load(Relaxed) as f64 / 1e9;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl TypedMetric for Latency {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_ascend() {
        for bounds in [ADDED_US, TOTAL_US, CALL_US] {
            assert!(bounds.is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let latency = Latency::new(&[10, 20]);
        for (nanos, bucket) in [
            (0, 0),
            (9_999, 0),
            (10_000, 0),
            (10_001, 1),
            (20_000, 1),
            (20_001, 2),
            (u64::MAX, 2),
        ] {
            let before = latency.counts.buckets[bucket].load(Relaxed);
            latency.observe(Duration::from_nanos(nanos));
            assert_eq!(
                latency.counts.buckets[bucket].load(Relaxed),
                before + 1,
                "{nanos}"
            );
        }
    }

    #[test]
    fn threads_lose_nothing() {
        let latency = Latency::new(ADDED_US);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|n| latency.observe(Duration::from_micros(n))));
            }
        });
        let all: u64 = latency
            .counts
            .buckets
            .iter()
            .map(|bucket| bucket.load(Relaxed))
            .sum();
        assert_eq!(all, 40_000);
        assert_eq!(
            latency.counts.sum_ns.load(Relaxed),
            4 * 1_000 * (0..10_000).sum::<u64>()
        );
    }
}
