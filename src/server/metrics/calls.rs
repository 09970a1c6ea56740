//! Calls by method, dialect, code and reason.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, LabelSetEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use crate::error::tally::Counts;
use crate::http::{Call, DialectName, Schema, Target};
use crate::metrics::{Counter, Histogram, Registry, durations};
use crate::telemetry::{CallStatus, intern};

/// The rows after those of the schema's methods: what infrastructure is asked, and what is no call at all.
const OTHERS: [&str; 3] = ["grpc.health.v1.Health", "grpc.reflection", "none"];

/// The counts of all calls. Cheap to clone. A method and a dialect have theirs from their first call on.
#[derive(Clone, Debug)]
pub(in crate::server) struct Calls(Arc<Table>);

#[derive(Debug)]
struct Table {
    rows: Vec<Row>,
    failed: Mutex<HashMap<Labels, u64>>,
}

#[derive(Debug)]
struct Row {
    method: &'static str,
    cells: [OnceLock<Cell>; DialectName::ALL.len()],
}

#[derive(Debug)]
struct Cell {
    duration: Histogram,
    succeeded: Counter,
}

/// The series of a call in the table.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct Series {
    row: usize,
    dialect: DialectName,
}

/// The labels of calls that had the same end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Labels {
    method: &'static str,
    dialect: &'static str,
    end: CallStatus,
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let CallStatus { code, reason } = self.end;
        let labels = [("method", self.method), ("dialect", self.dialect), ("code", code), ("reason", reason)];
        labels.encode(encoder)
    }
}

impl Calls {
    /// A table for the methods of `schema`.
    pub(in crate::server) fn new(schema: &Schema) -> Self {
        let paths = schema.methods.iter().map(|method| intern(method.path().trim_start_matches('/')));
        let row = |method| Row { method, cells: Default::default() };
        let rows = paths.chain(OTHERS).map(row).collect();
        Self(Arc::new(Table { rows, failed: Mutex::default() }))
    }

    /// The series of a call; `None` is a request that asks for none.
    pub(in crate::server) fn series(&self, call: Option<&Call<'_>>) -> Series {
        let others = self.0.rows.len() - OTHERS.len();
        let row = match call.map(Call::target) {
            Some(Target::Rpc(method)) => method.number.min(others),
            Some(Target::Health { .. }) => others,
            Some(Target::Reflection) => others + 1,
            None => others + 2,
        };
        Series { row, dialect: call.map_or(DialectName::None, Call::dialect) }
    }

    /// The method of a series: `users.Users/Login`.
    pub(in crate::server) fn method(&self, series: Series) -> &'static str {
        self.0.rows.get(series.row).map_or("none", |row| row.method)
    }

    /// Counts a call that has ended.
    pub(in crate::server) fn note(&self, series: Series, took: Duration, failure: Option<CallStatus>) {
        let Some(row) = self.0.rows.get(series.row) else { return };
        let cell = row.cells[series.dialect as usize]
            .get_or_init(|| Cell { duration: durations(), succeeded: Counter::default() });
        cell.duration.observe(took.as_secs_f64());
        match failure {
            None => {
                cell.succeeded.inc();
            }
            Some(end) => {
                let labels = Labels { method: row.method, dialect: series.dialect.as_str(), end };
                *self.0.failed.lock().unwrap_or_else(PoisonError::into_inner).entry(labels).or_default() += 1;
            }
        }
    }

    /// The calls that failed for want of the database or of time, as the lines about an outage tell them.
    pub(in crate::server) fn failures(&self) -> Counts {
        let mut sums = Counts::default();
        for (Labels { end, .. }, count) in self.0.failed.lock().unwrap_or_else(PoisonError::into_inner).iter()
        {
            match (end.code, end.reason) {
                (_, "DATABASE_UNAVAILABLE") => sums.unavailable += count,
                (_, "DEADLINE_PASSED") => sums.deadline_passed += count,
                ("CANCELLED", _) => sums.abandoned += count,
                _ => {}
            }
        }
        sums
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(Arc::clone(&self.0)));
    }
}

impl Table {
    /// The cells that had a call, with their labels.
    fn cells(&self) -> impl Iterator<Item = (&'static str, &'static str, &Cell)> {
        self.rows.iter().flat_map(|row| {
            let cells = row.cells.iter().zip(DialectName::ALL);
            cells.filter_map(|(cell, dialect)| Some((row.method, dialect, cell.get()?)))
        })
    }
}

impl Collector for Table {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Calls by method, dialect, code and reason";
        let mut counts = encoder.encode_descriptor("usersd_calls", help, None, MetricType::Counter)?;
        for (method, dialect, cell) in self.cells() {
            let labels = Labels { method, dialect, end: CallStatus { code: "OK", reason: "" } };
            cell.succeeded.encode(counts.encode_family(&labels)?)?;
        }
        for (labels, count) in self.failed.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            ConstCounter::new(*count).encode(counts.encode_family(labels)?)?;
        }
        let (name, help) = (
            "usersd_call_duration_seconds",
            "Time from a request's headers to its reply, by method and dialect",
        );
        let mut times = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (method, dialect, cell) in self.cells() {
            let labels = [("method", method), ("dialect", dialect)];
            cell.duration.encode(times.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
