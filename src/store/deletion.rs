//! Removal of all rows of a namespace.

use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};

use crate::domain::namespace::Namespace;
use crate::error::{Error, Result};

use super::keys;

/// Every table with rows of tenants, in the order in which they are emptied: those before users that refer to them, so that
/// a batch of users takes no others with it, and their totals last.
pub const TABLES: [&str; 15] = [
    "keys",
    "keys_ended",
    "sessions",
    "familiar_places",
    "attempts",
    "idempotency_keys",
    "codes",
    "code_tries",
    "totp_factors",
    "recovery_codes",
    "purged",
    "events",
    "users",
    "user_totals",
    "session_totals",
];

/// Removes rows of the namespace, at most `most` of one table. Returns how many; 0: there are none left.
pub async fn remove(tx: &impl ConnectionTrait, namespace: &Namespace, most: u64) -> Result<u64> {
    for table in TABLES {
        if table == "keys" {
            if !keys::is_any(tx, namespace).await? {
                continue;
            }
            keys::rewrite_version(tx).await?;
        }
        if table == "users" && tx.get_database_backend() == DbBackend::Sqlite {
            // In PostgreSQL their entries in the search index refer to them.
            let sql = format!(
                "DELETE FROM users_search WHERE rowid IN (SELECT num FROM users WHERE namespace = $1 ORDER BY id LIMIT {most})"
            );
            execute(tx, &sql, namespace).await?;
        }
        let sql = match tx.get_database_backend() {
            DbBackend::Sqlite => {
                let order = if table == "users" { "ORDER BY id " } else { "" };
                format!(
                    "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE namespace = $1 {order}LIMIT {most})"
                )
            }
            _ => format!(
                "DELETE FROM {table} WHERE ctid = ANY (ARRAY (SELECT ctid FROM {table} WHERE namespace = $1 LIMIT {most}))"
            ),
        };
        let removed = execute(tx, &sql, namespace).await?;
        if removed > 0 {
            return Ok(removed);
        }
    }
    Ok(0)
}

/// Removes the API keys of the namespace: at most some thousand.
pub async fn remove_keys(tx: &impl ConnectionTrait, namespace: &Namespace) -> Result<u64> {
    // Before the rows, in the order in which keys are created and revoked.
    keys::rewrite_version(tx).await?;
    execute(tx, "DELETE FROM keys WHERE namespace = $1", namespace).await
}

/// Returns true if a transaction of a server began so long ago and goes on: it may belong to a call that was admitted before
/// the namespace began to be deleted. On SQLite none does while this one writes.
///
/// The age of a transaction of another role is not shown without `pg_read_all_stats`: it counts as old.
pub async fn has_older_transactions(tx: &impl ConnectionTrait, seconds: u64) -> Result<bool> {
    if tx.get_database_backend() == DbBackend::Sqlite {
        return Ok(false);
    }
    let sql = format!(
        "SELECT COUNT(*) FROM pg_stat_activity a WHERE datname = current_database() AND application_name = 'usersd' \
         AND pid <> pg_backend_pid() AND (xact_start < clock_timestamp() - interval '{seconds} seconds' \
           OR state IS NULL AND EXISTS (SELECT 1 FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'virtualxid'))"
    );
    let row = tx.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    let row = row.ok_or_else(|| Error::internal("a count has no row"))?;
    Ok(row.try_get_by_index::<i64>(0)? > 0)
}

async fn execute(tx: &impl ConnectionTrait, sql: &str, namespace: &Namespace) -> Result<u64> {
    let values: [Value; 1] = [namespace.as_str().into()];
    let done = tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    Ok(done.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn every_table_of_tenants_is_emptied() {
        let folder = tempfile::TempDir::new().unwrap();
        let url = format!("sqlite://{}/usersd.db?mode=rwc", folder.path().display());
        let store = Store::connect(&url, 2).await.unwrap();
        store.migrate().await.unwrap();
        let sql = "SELECT m.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c \
                   WHERE m.type = 'table' AND c.name = 'namespace' AND m.name <> 'namespaces' ORDER BY m.name";
        let rows =
            store.reader().query_all_raw(Statement::from_string(DbBackend::Sqlite, sql)).await.unwrap();
        let found: Vec<String> = rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
        let mut known = TABLES.to_vec();
        known.sort_unstable();
        assert_eq!(found, known);
    }
}
