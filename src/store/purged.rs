//! Users who were purged and whose events still say where the person was. They are cleared some at a time, since a log may
//! hold millions.

use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};

use crate::domain::namespace::Namespace;
use crate::domain::user_id::UserId;
use crate::error::{Error, Result};

/// Clears the first `limit` events of a user in the transaction that purges it, and notes if there are more.
pub async fn begin(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    limit: u64,
) -> Result<bool> {
    let newest = "SELECT seq FROM events WHERE namespace = $1 AND user_id = $2 ORDER BY seq DESC LIMIT 1";
    let Some(row) = tx.query_one_raw(of_user(tx, newest, namespace, user, [])).await? else {
        return Ok(false);
    };
    let last = row.try_get_by_index(0)?;
    let Some(cleared) = clear(tx, namespace, user, [0, last], limit).await? else { return Ok(false) };
    let note = "INSERT INTO purged (namespace, user_id, cleared, last) VALUES ($1, $2, $3, $4)
        ON CONFLICT (namespace, user_id) DO UPDATE SET last = excluded.last";
    tx.execute_raw(of_user(tx, note, namespace, user, [cleared, last])).await?;
    Ok(true)
}

/// Clears `limit` more events of a purged user. Returns true if there may be still more.
pub async fn clear_next(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    limit: u64,
) -> Result<bool> {
    let found = match tx.get_database_backend() {
        // What another replica clears right now is its own.
        DbBackend::Postgres => {
            "SELECT cleared, last FROM purged WHERE namespace = $1 AND user_id = $2 FOR UPDATE SKIP LOCKED"
        }
        _ => "SELECT cleared, last FROM purged WHERE namespace = $1 AND user_id = $2",
    };
    let Some(row) = tx.query_one_raw(of_user(tx, found, namespace, user, [])).await? else {
        return Ok(false);
    };
    let between = [row.try_get("", "cleared")?, row.try_get("", "last")?];
    let cleared = clear(tx, namespace, user, between, limit).await?;
    let note = match cleared {
        Some(cleared) => {
            let note = "UPDATE purged SET cleared = $3 WHERE namespace = $1 AND user_id = $2";
            of_user(tx, note, namespace, user, [cleared])
        }
        None => of_user(tx, "DELETE FROM purged WHERE namespace = $1 AND user_id = $2", namespace, user, []),
    };
    tx.execute_raw(note).await?;
    Ok(cleared.is_some())
}

/// Purged users with events to clear, `limit` of them at most.
pub async fn waiting(db: &impl ConnectionTrait, limit: u64) -> Result<Vec<(Namespace, UserId)>> {
    let select = format!("SELECT namespace, user_id FROM purged ORDER BY namespace, user_id LIMIT {limit}");
    let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), select)).await?;
    let read = |row: sea_orm::QueryResult| {
        let (namespace, user): (String, String) =
            (row.try_get("", "namespace")?, row.try_get("", "user_id")?);
        Ok((Namespace::parse(&namespace).map_err(Error::internal)?, UserId::from_trusted(user)))
    };
    rows.into_iter().map(read).collect()
}

/// The number up to which events with the id of `user` are of one that was purged, and may not be cleared
/// yet.
pub async fn up_to(db: &impl ConnectionTrait, namespace: &Namespace, user: &UserId) -> Result<Option<i64>> {
    let select = "SELECT last FROM purged WHERE namespace = $1 AND user_id = $2";
    let row = db.query_one_raw(of_user(db, select, namespace, user, [])).await?;
    Ok(row.map(|row| row.try_get_by_index(0)).transpose()?)
}

/// Takes from the first `limit` events of a user, after one number and up to another, what says where the person was.
/// Returns the number of the last one of them if there are more.
async fn clear(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    [after, last]: [i64; 2],
    limit: u64,
) -> Result<Option<i64>> {
    let end = format!(
        "SELECT seq FROM events WHERE namespace = $1 AND user_id = $2 AND seq > $3 AND seq <= $4 \
         ORDER BY seq LIMIT 1 OFFSET {}",
        limit - 1
    );
    let end = tx.query_one_raw(of_user(tx, end, namespace, user, [after, last])).await?;
    let end: Option<i64> = end.map(|row| row.try_get_by_index(0)).transpose()?;
    let update = "UPDATE events SET address = '', user_agent = '' WHERE namespace = $1 AND user_id = $2 \
         AND seq > $3 AND seq <= $4 AND (address <> '' OR user_agent <> '')";
    tx.execute_raw(of_user(tx, update, namespace, user, [after, end.unwrap_or(last)])).await?;
    Ok(end)
}

fn of_user<const N: usize>(
    db: &impl ConnectionTrait,
    sql: impl Into<String>,
    namespace: &Namespace,
    user: &UserId,
    numbers: [i64; N],
) -> Statement {
    let names = [Value::from(namespace.as_str()), user.as_str().into()];
    let values = names.into_iter().chain(numbers.map(Value::from));
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}
