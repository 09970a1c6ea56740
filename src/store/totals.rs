//! The numbers of users and sessions of a namespace, without counting them. Triggers keep them, in the transactions that change
//! them, so they are exact for every reader.

use sea_orm::{ConnectionTrait, Statement, Value};

use crate::domain::namespace::Namespace;
use crate::error::{Error, Result};

/// The users of a namespace: its live ones, or those in its trash.
pub async fn total(db: &impl ConnectionTrait, namespace: &Namespace, trash: bool) -> Result<u64> {
    let column = if trash { "trashed" } else { "live" };
    let sum =
        format!("SELECT CAST(COALESCE(SUM({column}), 0) AS BIGINT) FROM user_totals WHERE namespace = $1");
    let row = db.query_one_raw(of_namespace(db, &sum, namespace)).await?;
    let row = row.ok_or_else(|| Error::internal("a sum has no row"))?;
    Ok(u64::try_from(row.try_get_by_index::<i64>(0)?).unwrap_or(0))
}

/// The stored sessions of a namespace.
pub async fn sessions(db: &impl ConnectionTrait, namespace: &Namespace) -> Result<u64> {
    let sum = "SELECT CAST(COALESCE(SUM(sessions), 0) AS BIGINT) FROM session_totals WHERE namespace = $1";
    let row = db.query_one_raw(of_namespace(db, sum, namespace)).await?;
    let row = row.ok_or_else(|| Error::internal("a sum has no row"))?;
    Ok(u64::try_from(row.try_get_by_index::<i64>(0)?).unwrap_or(0))
}

/// The first namespace after `after` that has users or totals.
pub async fn next_namespace(db: &impl ConnectionTrait, after: &str) -> Result<Option<Namespace>> {
    let next = "SELECT namespace FROM user_totals WHERE namespace > $1 ORDER BY namespace LIMIT 1";
    let counted = first_text(db, next, after).await?;
    let next = "SELECT namespace FROM users WHERE namespace > $1 ORDER BY namespace LIMIT 1";
    let found = first_text(db, next, after).await?;
    let Some(namespace) = counted.into_iter().chain(found).min() else { return Ok(None) };
    Namespace::parse(&namespace).map(Some).map_err(Error::internal)
}

async fn first_text(db: &impl ConnectionTrait, sql: &str, after: &str) -> Result<Option<String>> {
    let values: [Value; 1] = [after.into()];
    let row =
        db.query_one_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await?;
    Ok(row.map(|row| row.try_get_by_index(0)).transpose()?)
}

/// By how much the totals of a namespace are too small, found by counting.
const MISSING: &str = "
    SELECT counted.live - totals.live AS live_missing, counted.trashed - totals.trashed AS trashed_missing FROM
      (SELECT COUNT(CASE WHEN deleted = 0 THEN 1 END) AS live, COUNT(CASE WHEN deleted > 0 THEN 1 END) AS trashed
       FROM users WHERE namespace = $1) AS counted,
      (SELECT CAST(COALESCE(SUM(live), 0) AS BIGINT) AS live, CAST(COALESCE(SUM(trashed), 0) AS BIGINT) AS trashed
       FROM user_totals WHERE namespace = $1) AS totals";

/// The same of its sessions.
const MISSING_SESSIONS: &str = "
    SELECT counted.sessions - totals.sessions AS sessions_missing FROM
      (SELECT COUNT(*) AS sessions FROM sessions WHERE namespace = $1) AS counted,
      (SELECT CAST(COALESCE(SUM(sessions), 0) AS BIGINT) AS sessions
       FROM session_totals WHERE namespace = $1) AS totals";

/// Counts the users and sessions of a namespace, and returns true if its totals say something else.
pub async fn are_wrong(db: &impl ConnectionTrait, namespace: &Namespace) -> Result<bool> {
    let Some(row) = db.query_one_raw(of_namespace(db, MISSING, namespace)).await? else { return Ok(false) };
    if (row.try_get_by_index::<i64>(0)?, row.try_get_by_index::<i64>(1)?) != (0, 0) {
        return Ok(true);
    }
    let row = db.query_one_raw(of_namespace(db, MISSING_SESSIONS, namespace)).await?;
    Ok(row.map(|row| row.try_get_by_index::<i64>(0)).transpose()?.is_some_and(|missing| missing != 0))
}

/// Adds what is missing from the totals of a namespace. It is what one statement sees, so changes that others make
/// meanwhile count as well.
pub async fn correct(tx: &impl ConnectionTrait, namespace: &Namespace) -> Result<()> {
    let correct = format!(
        "UPDATE user_totals SET live = live + live_missing, trashed = trashed + trashed_missing FROM ({MISSING}) AS missing
         WHERE namespace = $1 AND shard = (SELECT MIN(shard) FROM user_totals WHERE namespace = $1)"
    );
    // Without a row there would be nothing to add to.
    let row = "INSERT INTO user_totals (namespace, shard, live, trashed) VALUES ($1, 0, 0, 0)
        ON CONFLICT (namespace, shard) DO NOTHING";
    let correct_sessions = format!(
        "UPDATE session_totals SET sessions = sessions + sessions_missing FROM ({MISSING_SESSIONS}) AS missing
         WHERE namespace = $1 AND shard = (SELECT MIN(shard) FROM session_totals WHERE namespace = $1)"
    );
    let row_of_sessions = "INSERT INTO session_totals (namespace, shard, sessions) VALUES ($1, 0, 0)
        ON CONFLICT (namespace, shard) DO NOTHING";
    for sql in [row_of_sessions, &correct_sessions, row, &correct] {
        tx.execute_raw(of_namespace(tx, sql, namespace)).await?;
    }
    Ok(())
}

fn of_namespace(db: &impl ConnectionTrait, sql: &str, namespace: &Namespace) -> Statement {
    let values: [Value; 1] = [namespace.as_str().into()];
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}
