//! The keys that sign assertions, the same for all replicas.

use sea_orm::{ConnectionTrait, Statement};

use crate::domain::assertion::StoredKey;
use crate::domain::time::Timestamp;
use crate::error::Result;

/// All keys, the oldest first.
pub async fn all(db: &impl ConnectionTrait) -> Result<Vec<StoredKey>> {
    let sql = "SELECT number, seed, created FROM assertion_keys ORDER BY number";
    let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
    let key = |row: &sea_orm::QueryResult| {
        Ok(StoredKey {
            number: row.try_get("", "number")?,
            seed: row.try_get("", "seed")?,
            created: Timestamp(row.try_get("", "created")?),
        })
    };
    rows.iter().map(key).collect()
}

/// Adds a key, unless another replica has added the one of that number.
pub async fn insert(tx: &impl ConnectionTrait, key: StoredKey) -> Result<()> {
    let sql = "INSERT INTO assertion_keys (number, seed, created) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    let values = [key.number.into(), key.seed.into(), key.created.0.into()];
    tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    Ok(())
}

/// Removes the keys before the newest that was made at `before` or earlier.
pub async fn delete_replaced(tx: &impl ConnectionTrait, before: Timestamp) -> Result<()> {
    let sql = "DELETE FROM assertion_keys \
        WHERE number < (SELECT max(number) FROM assertion_keys WHERE created <= $1)";
    tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, [before.0.into()])).await?;
    Ok(())
}
