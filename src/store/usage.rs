//! The usage of a namespace: counts and an estimate of its size, from totals, a bounded count and samples.

use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};

use crate::domain::key::AllowedNamespaces;
use crate::domain::namespace::{Namespace, NamespaceUsage};
use crate::domain::time::Timestamp;
use crate::error::{Error, Result};

use super::{deletion, keys, totals};

/// Most events that are counted.
const MAX_EVENTS: u64 = 100_000;

/// Rows of which the mean size is taken.
const SAMPLE: u64 = 100;

/// A table whose space is estimated: its texts, and the bytes that a row takes beside them, with its entries in indexes, on
/// SQLite and on PostgreSQL. Measured with a million users, 187,000 sessions and 80,000 events.
struct SizedTable {
    table: &'static str,
    texts: &'static str,
    beside: [u64; 2],
}

/// The texts of a user are also in its eight indexes, and as terms in the search index.
const USERS: SizedTable = SizedTable {
    table: "users",
    texts: "4 * octet_length(id) + 5 * octet_length(username) + 5 * octet_length(email) + 3 * octet_length(name) \
            + octet_length(password_hash) + octet_length(prefs) + octet_length(labels) + octet_length(metadata) \
            + 8 * octet_length(namespace)",
    beside: [470, 1_770],
};
const SESSIONS: SizedTable = SizedTable {
    table: "sessions",
    texts: "3 * octet_length(namespace) + 2 * octet_length(user_id) + octet_length(user_agent) + octet_length(address)",
    beside: [220, 530],
};
const EVENTS: SizedTable = SizedTable {
    table: "events",
    texts: "3 * octet_length(namespace) + 2 * octet_length(user_id) + octet_length(action) + octet_length(caller) \
            + octet_length(address) + octet_length(user_agent) + octet_length(changed) + octet_length(session)",
    beside: [60, 210],
};

/// The contents of a namespace.
pub async fn of(db: &impl ConnectionTrait, namespace: &Namespace, now: Timestamp) -> Result<NamespaceUsage> {
    let users = totals::total(db, namespace, false).await?;
    let trashed = totals::total(db, namespace, true).await?;
    let sessions = totals::sessions(db, namespace).await?;
    let keys = keys::count_of(db, &AllowedNamespaces::One(namespace.clone()), now).await?;
    let counted = format!(
        "SELECT COUNT(*) FROM (SELECT 1 AS one FROM events WHERE namespace = $1 LIMIT {MAX_EVENTS}) AS counted"
    );
    let events = number(db, &counted, namespace).await?;
    let mut bytes = 0;
    for (sized, rows) in [(USERS, users + trashed), (SESSIONS, sessions), (EVENTS, events)] {
        let SizedTable { table, texts, beside: [on_sqlite, on_postgres] } = sized;
        let beside = if db.get_database_backend() == DbBackend::Sqlite { on_sqlite } else { on_postgres };
        let mean = format!(
            "SELECT CAST(COALESCE(AVG(size), 0) AS BIGINT) FROM \
             (SELECT {texts} AS size FROM {table} WHERE namespace = $1 LIMIT {SAMPLE}) AS sample"
        );
        bytes += rows * (number(db, &mean, namespace).await? + beside);
    }
    Ok(NamespaceUsage { users, trashed, sessions, keys, events, bytes })
}

/// Returns true if any table has a row of the namespace. Totals stay when all users are gone.
pub async fn is_any(db: &impl ConnectionTrait, namespace: &Namespace) -> Result<bool> {
    for table in deletion::TABLES.into_iter().filter(|table| !table.ends_with("_totals")) {
        let first = format!(
            "SELECT COUNT(*) FROM (SELECT 1 AS one FROM {table} WHERE namespace = $1 LIMIT 1) AS first"
        );
        if number(db, &first, namespace).await? > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn number(db: &impl ConnectionTrait, sql: &str, namespace: &Namespace) -> Result<u64> {
    let values: [Value; 1] = [namespace.as_str().into()];
    let row =
        db.query_one_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await?;
    let row = row.ok_or_else(|| Error::internal("a count has no row"))?;
    Ok(u64::try_from(row.try_get_by_index::<i64>(0)?).unwrap_or(0))
}
