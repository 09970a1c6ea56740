//! The counters of the store: statements, errors, and the time to get a connection.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use sea_orm::{DbErr, Statement};

use crate::clock::Clock;
use crate::metrics::{ByLabel, Counter, Histogram, Registry, durations, gauge, gauges, number, timestamp};

use super::fault::{self, ErrorKind};
use super::lease::Work;
use super::probe::Address;
use super::shared::Shared;
use super::{Kind, Store};

/// The operations of statements, in the order of their numbers.
const OPERATIONS: [&str; 8] =
    ["select", "insert", "update", "delete", "begin", "commit", "rollback", "other"];

/// The counts of one store.
#[derive(Debug)]
pub(super) struct Stats {
    statements: ByLabel<Histogram, { OPERATIONS.len() }>,
    errors: ByLabel<Counter, { ErrorKind::NAMES.len() }>,
    waits: Histogram,
    /// When a transaction was last committed, in microseconds; 0: none was yet.
    committed: AtomicI64,
    /// Statements that succeeded.
    answers: AtomicU64,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            statements: ByLabel::new("operation", OPERATIONS, durations),
            errors: ByLabel::new("kind", ErrorKind::NAMES, Counter::default),
            waits: durations(),
            committed: AtomicI64::new(0),
            answers: AtomicU64::new(0),
        }
    }
}

impl Stats {
    /// Counts work that a connection has done.
    pub(super) fn note_work(&self, work: &Work, took: Duration, error: Option<&DbErr>) {
        self.note(operation(work), took, error);
        if error.is_none() && matches!(work, Work::Commit) {
            self.committed.store(Clock::System.now().0, Ordering::Relaxed);
        }
    }

    /// Counts a query whose rows were read one by one.
    pub(super) fn note_query(&self, statement: &Statement, took: Duration, error: Option<&DbErr>) {
        self.note(verb(statement), took, error);
    }

    fn note(&self, operation: usize, took: Duration, error: Option<&DbErr>) {
        self.statements.of(operation).observe(took.as_secs_f64());
        match error {
            Some(error) => self.note_error(error),
            None => drop(self.answers.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// The number of statements that have succeeded.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Counts an error, be it of a statement or of a connection that could not be had.
    pub(super) fn note_error(&self, error: &DbErr) {
        self.errors.of(fault::kind(error) as usize).inc();
    }

    /// Counts the time that a call waited for a connection.
    pub(super) fn note_wait(&self, took: Duration) {
        self.waits.observe(took.as_secs_f64());
    }
}

/// The name of the operation of `work`.
pub(super) fn name(work: &Work) -> &'static str {
    OPERATIONS[operation(work)]
}

/// The name of the operation of a statement.
pub(super) fn name_of(statement: &Statement) -> &'static str {
    OPERATIONS[verb(statement)]
}

fn operation(work: &Work) -> usize {
    let name = match work {
        Work::Begin => "begin",
        Work::Commit => "commit",
        Work::Rollback => "rollback",
        Work::Script(_) => "other",
        Work::Execute(statement) | Work::One(statement) | Work::All(statement) => return verb(statement),
    };
    position(name)
}

/// The number of the first word of a statement.
fn verb(statement: &Statement) -> usize {
    let sql = statement.sql.trim_start();
    position(sql.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default())
}

fn position(name: &str) -> usize {
    let known = OPERATIONS.iter().position(|operation| operation.eq_ignore_ascii_case(name));
    known.unwrap_or(OPERATIONS.len() - 1)
}

impl Store {
    /// Registers the metrics of the database.
    pub fn register(&self, registry: &mut Registry) {
        let stats = &self.trust.stats;
        let (health, writable, committed) = (self.health().clone(), self.health().clone(), self.clone());
        gauge(registry, "usersd_database_up", "1 if the database answers", move || {
            Some(f64::from(u8::from(health.answers())))
        });
        gauge(
            registry,
            "usersd_database_writable",
            "1 unless a commit failed and no write has succeeded since",
            move || Some(f64::from(u8::from(writable.subscribe().borrow().unwritable.is_none()))),
        );
        timestamp(
            registry,
            "usersd_database_last_commit_timestamp_seconds",
            "When this process last committed a transaction, in Unix time",
            move || committed.trust.stats.committed.load(Ordering::Relaxed),
        );
        registry.register(
            "usersd_database_operation_duration_seconds",
            "Time of statements at the database by operation",
            stats.statements.clone(),
        );
        registry.register(
            "usersd_database_errors",
            "Statements and connections that failed by kind; a constraint is a name that is taken, for example",
            stats.errors.clone(),
        );
        self.register_pool(registry);
        self.register_files(registry);
        self.register_cache(registry);
    }

    fn register_pool(&self, registry: &mut Registry) {
        let (used, waiting) = (self.clone(), self.clone());
        registry.register(
            "usersd_pool_wait_seconds",
            "Time that calls waited for a connection to the database",
            self.trust.stats.waits.clone(),
        );
        gauges(
            registry,
            "usersd_pool_connections",
            "Connections to the database that calls share by state",
            "state",
            move || {
                let (mut in_use, mut idle) = (0, 0);
                for usage in used.pools().map(Shared::usage) {
                    in_use += usage.in_use;
                    idle += usage.free;
                }
                vec![("in_use", number(in_use)), ("idle", number(idle))]
            },
        );
        gauge(
            registry,
            "usersd_pool_waiting",
            "Calls that wait for a connection to the database",
            move || Some(number(waiting.pools().map(|shared| shared.usage().waiting).sum())),
        );
    }

    /// The pools, each once: on PostgreSQL one is for reads and for writes.
    fn pools(&self) -> impl Iterator<Item = &super::Shared> {
        [Some(&self.read), (self.kind == Kind::Sqlite).then_some(&self.write)].into_iter().flatten()
    }

    fn register_files(&self, registry: &mut Registry) {
        let Address::Sqlite(options) = self.probe.address() else { return };
        let file = options.get_filename().to_owned();
        let mut wal = file.clone().into_os_string();
        wal.push("-wal");
        let size = |path: &std::path::Path| std::fs::metadata(path).ok().map(|file| file.len());
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        let read = move |path: &std::path::Path| size(path).map(|bytes| bytes as f64);
        gauge(registry, "usersd_sqlite_file_bytes", "Size of the SQLite file", move || read(&file));
        gauge(registry, "usersd_sqlite_wal_bytes", "Size of SQLite's write-ahead log", move || {
            read(wal.as_ref())
        });
    }

    fn register_cache(&self, registry: &mut Registry) {
        let coherence = std::sync::Arc::clone(&self.coherence);
        gauge(
            registry,
            "usersd_cache_tail_age_seconds",
            "Time since the log of events was last read for changes that others made",
            move || coherence.age().map(|age| age.as_secs_f64()),
        );
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::DbBackend;

    use super::*;

    #[test]
    fn statements_are_told_apart_by_their_first_word() {
        let name = |sql: &str| OPERATIONS[verb(&Statement::from_string(DbBackend::Sqlite, sql))];
        assert_eq!(name("\nSELECT 1"), "select");
        assert_eq!(name("INSERT INTO users"), "insert");
        assert_eq!(name("delete from users"), "delete");
        assert_eq!(name("WITH a AS (SELECT 1) SELECT 2"), "other");
        assert_eq!(OPERATIONS[operation(&Work::Commit)], "commit");
    }
}
