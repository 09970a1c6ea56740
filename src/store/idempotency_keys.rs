//! Calls that were made with an idempotency key, and the users that they made.

use sea_orm::{ConnectionTrait, Statement};

use crate::domain::idempotency::CallDigests;
use crate::domain::namespace::Namespace;
use crate::domain::time::Timestamp;
use crate::domain::user_id::UserId;
use crate::error::Result;

/// A call, stored with its change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCall {
    /// The digest of its message.
    pub message: Vec<u8>,
    /// The user that it created or restored.
    pub user: UserId,
    /// The generation of that user.
    pub generation: i64,
    /// True if it restored the user.
    pub restored: bool,
}

/// The call that was made with a key, if there was one.
pub async fn find(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    call: &CallDigests,
) -> Result<Option<StoredCall>> {
    let sql = "SELECT message, user_id, generation, restored FROM idempotency_keys \
        WHERE namespace = $1 AND digest = $2";
    let values = [namespace.as_str().into(), call.key.to_vec().into()];
    let row =
        db.query_one_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(StoredCall {
        message: row.try_get("", "message")?,
        user: UserId::from_trusted(row.try_get("", "user_id")?),
        generation: row.try_get("", "generation")?,
        restored: row.try_get("", "restored")?,
    }))
}

/// Notes a call in the transaction of its change. Returns false if one with its key was made before: of two at the same time,
/// the second waits here for the first to commit, and fails in no statement that PostgreSQL would end its transaction for.
pub async fn insert(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    call: &CallDigests,
    (user, generation, restored): (&UserId, i64, bool),
    now: Timestamp,
) -> Result<bool> {
    let sql = "INSERT INTO idempotency_keys (namespace, digest, message, user_id, generation, restored, created) \
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (namespace, digest) DO NOTHING";
    let values = [
        namespace.as_str().into(),
        call.key.to_vec().into(),
        call.message.to_vec().into(),
        user.as_str().into(),
        generation.into(),
        restored.into(),
        now.0.into(),
    ];
    let done = tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    Ok(done.rows_affected() > 0)
}

/// Removes calls of any namespace that were made before `cutoff`, at most `most`. Returns how many.
pub async fn delete_before(tx: &impl ConnectionTrait, cutoff: Timestamp, most: u64) -> Result<u64> {
    let sql = format!(
        "DELETE FROM idempotency_keys WHERE (namespace, digest) IN \
         (SELECT namespace, digest FROM idempotency_keys WHERE created < $1 LIMIT {most})"
    );
    let values = [cutoff.0.into()];
    let done = tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    Ok(done.rows_affected())
}
