//! Keys that all replicas share, made by the first migration.

use sea_orm::{ConnectionTrait, Statement, Value};

use crate::error::{Error, Result};

/// The key of page tokens.
pub async fn page_token(db: &impl ConnectionTrait) -> Result<Vec<u8>> {
    read(db, "page_token").await
}

/// The key that the buckets of attempts are found by, and the hashes that stand in for users who do not
/// exist.
pub async fn bucket_key(db: &impl ConnectionTrait) -> Result<Vec<u8>> {
    read(db, "decoy").await
}

async fn read(db: &impl ConnectionTrait, name: &str) -> Result<Vec<u8>> {
    let sql = "SELECT value FROM secrets WHERE name = $1";
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, [Value::from(name)]);
    let row = db.query_one_raw(statement).await?;
    Ok(row.ok_or_else(|| Error::internal("the table of secrets lacks a key"))?.try_get("", "value")?)
}
