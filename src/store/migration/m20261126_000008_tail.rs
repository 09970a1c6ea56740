//! The index by which PostgreSQL finds the events of the newest transactions. SQLite numbers events in the order of their commits.

use super::Sql;

pub(super) const MIGRATION: Sql = Sql {
    name: "m20261126_000008_tail",
    sqlite: &[],
    postgres: &["CREATE INDEX events_by_transaction ON events (tx)"],
};
