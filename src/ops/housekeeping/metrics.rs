//! The counters of housekeeping.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::domain::time::Timestamp;
use crate::metrics::{ByLabel, Counter, Registry, timestamp};

use super::RemovedCounts;

/// The kinds of rows, in the order of [`RemovedCounts::counts`], and last those of deleted namespaces.
const KINDS: [&str; 10] = [
    "session",
    "event",
    "attempt",
    "user",
    "expired_key",
    "ended_key",
    "cleared_log",
    "idempotency_key",
    "code",
    "namespace_row",
];

/// The counts of housekeeping. Cheap to clone.
#[derive(Clone)]
pub(in super::super) struct HousekeepingMetrics {
    removed: ByLabel<Counter, { KINDS.len() }>,
    failed: Counter,
    /// When a round last succeeded, in microseconds; 0: none has yet.
    last: Arc<AtomicI64>,
}

impl Default for HousekeepingMetrics {
    fn default() -> Self {
        let removed = ByLabel::new("kind", KINDS, Counter::default);
        Self { removed, failed: Counter::default(), last: Arc::default() }
    }
}

impl HousekeepingMetrics {
    /// Counts a round that ended at `now`.
    pub(super) fn note(&self, removed: &RemovedCounts, succeeded: bool, now: Timestamp) {
        for (number, count) in removed.counts().into_iter().enumerate() {
            self.removed.of(number).inc_by(count);
        }
        if succeeded {
            self.last.store(now.0, Ordering::Relaxed);
        } else {
            self.failed.inc();
        }
    }

    /// Counts rows of deleted namespaces.
    pub(in super::super) fn note_namespace_rows(&self, removed: u64) {
        self.removed.of(KINDS.len() - 1).inc_by(removed);
    }

    pub(in super::super) fn register(&self, registry: &mut Registry) {
        let last = Arc::clone(&self.last);
        registry.register(
            "usersd_housekeeping_removed",
            "Rows that housekeeping removed by kind; a cleared_log is a purged user whose log was cleared of addresses and user agents",
            self.removed.clone(),
        );
        registry.register(
            "usersd_housekeeping_failed",
            "Rounds of housekeeping that failed",
            self.failed.clone(),
        );
        timestamp(
            registry,
            "usersd_housekeeping_last_success_timestamp_seconds",
            "When a round of housekeeping last succeeded, in Unix time",
            move || last.load(Ordering::Relaxed),
        );
    }
}
