//! The counters of the throttle.

use crate::metrics::{ByLabel, Counter, Registry};

use super::Throttle;

/// The ends of attempts to prove a password.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decision {
    /// Counted, and the password may be checked.
    Admitted,
    /// Refused, since too many failed before (`TOO_MANY_ATTEMPTS`).
    Refused,
    /// The password was right.
    Succeeded,
    /// The password was wrong, or there is no such user.
    Failed,
    /// The password was wrong, and a lockout began with it. Counted beside `Failed`.
    LockedOut,
    /// There was no verdict: the caller left, the hasher was busy, or the database away.
    Refunded,
}

impl Decision {
    const NAMES: [&str; 6] = ["admitted", "refused", "succeeded", "failed", "locked_out", "refunded"];
}

/// The counts of the throttle. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Stats(ByLabel<Counter, { Decision::NAMES.len() }>);

impl Default for Stats {
    fn default() -> Self {
        Self(ByLabel::new("decision", Decision::NAMES, Counter::default))
    }
}

impl Stats {
    pub(super) fn note(&self, decision: Decision) {
        self.0.of(decision as usize).inc();
    }
}

impl Throttle {
    /// Registers the metrics of the throttle.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "usersd_throttle_attempts",
            "Attempts to prove a password by what became of them",
            self.stats.0.clone(),
        );
    }
}
