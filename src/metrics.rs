//! Counters and histograms. Each layer owns those of its own, counts in atomics, and registers them when the server
//! starts; what has a state anyway, such as a queue, is read when it is asked for.

use std::fmt;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::histogram::Histogram;
pub use prometheus_client::registry::Registry;

/// From a cached read to a log-in that waited for its hash, in seconds.
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A histogram of durations in seconds.
pub fn durations() -> Histogram {
    Histogram::new(SECONDS)
}

/// Metrics that differ in the value of one label, of which all values are known: each is found by its number.
#[derive(Clone, Debug)]
pub struct ByLabel<M, const N: usize> {
    label: &'static str,
    values: [&'static str; N],
    metrics: [M; N],
}

impl<M, const N: usize> ByLabel<M, N> {
    /// A metric of `make` for each value.
    pub fn new(label: &'static str, values: [&'static str; N], make: impl Fn() -> M) -> Self {
        Self { label, values, metrics: std::array::from_fn(|_| make()) }
    }

    /// The metric of the value with that number.
    pub fn of(&self, number: usize) -> &M {
        &self.metrics[number]
    }
}

impl<M: EncodeMetric + TypedMetric, const N: usize> EncodeMetric for ByLabel<M, N> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (value, metric) in self.values.iter().zip(&self.metrics) {
            let labels = [(self.label, *value)];
            metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

/// A metric whose values are read when it is asked for, each with the value of its label.
struct Sampled<F> {
    kind: MetricType,
    /// Empty if there is none.
    label: &'static str,
    read: F,
}

impl<F> fmt::Debug for Sampled<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampled").field("label", &self.label).finish_non_exhaustive()
    }
}

impl<F: Fn() -> Vec<(&'static str, f64)>> EncodeMetric for Sampled<F> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (value, number) in (self.read)() {
            let labels = [(self.label, value)];
            let labels = &labels[usize::from(self.label.is_empty())..];
            let mut encoder = encoder.encode_family(&labels)?;
            match self.kind {
                MetricType::Counter => encoder.encode_counter::<NoLabelSet, _, f64>(&number, None)?,
                _ => encoder.encode_gauge(&number)?,
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        self.kind
    }
}

/// Registers a gauge that `read` returns the value of; `None`: it has none now.
pub fn gauge(
    registry: &mut Registry,
    name: &str,
    help: &str,
    read: impl Fn() -> Option<f64> + Send + Sync + 'static,
) {
    let read = move || read().map(|number| ("", number)).into_iter().collect();
    registry.register(name, help, Sampled { kind: MetricType::Gauge, label: "", read });
}

/// Registers a gauge with a value for each of the values of `label` that `read` returns.
pub fn gauges(
    registry: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    read: impl Fn() -> Vec<(&'static str, f64)> + Send + Sync + 'static,
) {
    registry.register(name, help, Sampled { kind: MetricType::Gauge, label, read });
}

/// Registers a counter that something else counts; `None`: it cannot be read.
pub fn counter(
    registry: &mut Registry,
    name: &str,
    help: &str,
    read: impl Fn() -> Option<f64> + Send + Sync + 'static,
) {
    let read = move || read().map(|number| ("", number)).into_iter().collect();
    registry.register(name, help, Sampled { kind: MetricType::Counter, label: "", read });
}

/// Registers a gauge of a Unix time. `read` returns it in microseconds, or 0 if there is none yet.
pub fn timestamp(
    registry: &mut Registry,
    name: &str,
    help: &str,
    read: impl Fn() -> i64 + Send + Sync + 'static,
) {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of this century fit")]
    gauge(registry, name, help, move || Some(read()).filter(|at| *at > 0).map(|at| at as f64 / 1e6));
}

/// A count as metrics have it.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
pub fn number(count: usize) -> f64 {
    count as f64
}
