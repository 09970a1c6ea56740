//! The counters of the hasher.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bcrypt_lanes::MAX_LANES;

use crate::metrics::{ByLabel, Counter, Histogram, Registry, durations, gauge, number};

use super::Hasher;
use super::queue::{Job, Task};

/// The schemes of stored hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Bcrypt,
    Argon2,
    Scrypt,
    Pbkdf2,
    ShaCrypt,
    Md5Crypt,
    Phpass,
    Ldap,
}

impl Scheme {
    /// Their names, in the order of their numbers.
    const NAMES: [&str; 8] =
        ["bcrypt", "argon2", "scrypt", "pbkdf2", "sha_crypt", "md5_crypt", "phpass", "ldap"];
}

/// Why a hash is not taken on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    /// It would wait longer than `passwords.max_wait`.
    Wait,
    /// It would not be done by the caller's deadline.
    Deadline,
}

impl Refusal {
    const NAMES: [&str; 2] = ["max_wait", "deadline"];
}

/// The counts of one pool of threads.
#[derive(Debug)]
pub(super) struct Stats {
    waits: Histogram,
    batches: Histogram,
    hashes: ByLabel<Histogram, { Scheme::NAMES.len() }>,
    refused: ByLabel<Counter, { Refusal::NAMES.len() }>,
}

impl Default for Stats {
    fn default() -> Self {
        let sizes = (1..=u32::try_from(MAX_LANES).unwrap_or(1)).map(f64::from);
        Self {
            waits: durations(),
            batches: Histogram::new(sizes),
            hashes: ByLabel::new("scheme", Scheme::NAMES, durations),
            refused: ByLabel::new("reason", Refusal::NAMES, Counter::default),
        }
    }
}

impl Stats {
    pub(super) fn note_refusal(&self, why: Refusal) {
        self.refused.of(why as usize).inc();
    }

    /// Counts a batch that begins now. Returns its scheme.
    pub(super) fn note_batch(&self, batch: &[Job], now: Instant) -> Scheme {
        self.batches.observe(number(batch.len()));
        for job in batch {
            self.waits.observe(now.saturating_duration_since(job.queued).as_secs_f64());
        }
        match batch.first().map(|job| &job.task) {
            Some(Task::Other { scheme, .. }) => *scheme,
            _ => Scheme::Bcrypt,
        }
    }

    /// Counts the hashes of a batch that is done.
    pub(super) fn note_hashes(&self, scheme: Scheme, count: usize, took: Duration) {
        for _ in 0..count {
            self.hashes.of(scheme as usize).observe(took.as_secs_f64());
        }
    }
}

impl Hasher {
    /// Registers the metrics of hashing.
    pub fn register(&self, registry: &mut Registry) {
        let stats = &self.pool.shared().stats;
        let (waiting, busy) = (Arc::clone(self.pool.shared()), Arc::clone(self.pool.shared()));
        gauge(registry, "usersd_hash_queue_length", "Passwords that wait for a thread", move || {
            Some(number(waiting.lock().waiting.len()))
        });
        gauge(registry, "usersd_hash_threads_busy", "Threads that hash passwords now", move || {
            Some(number(busy.lock().busy()))
        });
        registry.register(
            "usersd_hash_wait_seconds",
            "Time that passwords waited for a thread",
            stats.waits.clone(),
        );
        registry.register(
            "usersd_hash_batch_size",
            "Passwords that a thread hashed together",
            stats.batches.clone(),
        );
        registry.register(
            "usersd_hash_duration_seconds",
            "Time of password hashes by scheme; those of a batch take as long as the batch",
            stats.hashes.clone(),
        );
        registry.register(
            "usersd_hash_refused",
            "Passwords that were not taken on (HASHER_BUSY), by what they would have missed",
            stats.refused.clone(),
        );
    }
}
