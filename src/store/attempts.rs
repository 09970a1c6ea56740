//! Attempts to guess a password, counted for all replicas, and the addresses that users signed in from.
//!
//! Written as SQL: what matters is that each count is one statement.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, QueryResult, Statement, Value};

use crate::domain::guard::{Count, Mark};
use crate::domain::namespace::Namespace;
use crate::domain::time::Timestamp;
use crate::domain::user_id::UserId;
use crate::error::{Error, Result};

/// What each of `marks` would count with one more attempt in `hour`, in their order. Counts nothing.
///
/// # Errors
///
/// What the database says, as all functions here.
pub async fn foresee(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    marks: &[Mark],
    hour: i64,
) -> Result<Vec<Count>> {
    let places: Vec<String> = (0..marks.len()).map(|n| format!("${}", n + 3)).collect();
    let [spent, before] = with_one_more("$2");
    let sql = format!(
        "SELECT mark, {spent} AS spent, {before} AS spent_before, streak, failed FROM attempts \
         WHERE namespace = $1 AND mark IN ({})",
        places.join(", ")
    );
    let first = Count { spent: 1, before: 0, streak: 0, failed: Timestamp(0) };
    let counts = counts(db, sql, namespace, marks, hour).await?;
    Ok(marks.iter().map(|mark| counts.get(mark).copied().unwrap_or(first)).collect())
}

/// Counts one more attempt in `hour` for each of `marks`, and gives each count with it, in the order of the marks. The
/// hour before counts too: within any sixty minutes there are no more than a limit on both allows.
///
/// The rows stay locked until the transaction ends, and are locked in one order by everyone.
///
/// # Errors
///
/// What the database says.
pub async fn reserve(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    marks: &[Mark],
    hour: i64,
) -> Result<Vec<Count>> {
    let mut sorted = marks.to_vec();
    sorted.sort_unstable();
    let rows: Vec<String> = (0..sorted.len()).map(|n| format!("($1, ${}, $2, 1, 0, 0, 0)", n + 3)).collect();
    let [spent, before] = with_one_more("excluded.hour");
    let sql = format!(
        "INSERT INTO attempts (namespace, mark, hour, spent, spent_before, streak, failed) VALUES {} \
         ON CONFLICT (namespace, mark) DO UPDATE SET spent_before = {before}, spent = {spent}, \
         hour = CASE WHEN attempts.hour > excluded.hour THEN attempts.hour ELSE excluded.hour END \
         RETURNING mark, spent, spent_before, streak, failed",
        rows.join(", ")
    );
    let counts = counts(tx, sql, namespace, &sorted, hour).await?;
    let of = |mark| counts.get(mark).copied().ok_or_else(|| Error::internal("an attempt was not counted"));
    marks.iter().map(of).collect()
}

/// The attempts of the hour and of the hour before, with one more in `hour`: an SQL expression. A replica whose clock is
/// behind counts in the hour that the others are in.
fn with_one_more(hour: &str) -> [String; 2] {
    [
        format!("CASE WHEN attempts.hour >= {hour} THEN attempts.spent + 1 ELSE 1 END"),
        format!(
            "CASE WHEN attempts.hour >= {hour} THEN attempts.spent_before \
             WHEN attempts.hour = {hour} - 1 THEN attempts.spent ELSE 0 END"
        ),
    ]
}

/// What a statement over `marks` gives for each of them.
async fn counts(
    db: &impl ConnectionTrait,
    sql: String,
    namespace: &Namespace,
    marks: &[Mark],
    hour: i64,
) -> Result<HashMap<Mark, Count>> {
    let mut values: Vec<Value> = vec![namespace.as_str().into(), hour.into()];
    values.extend(marks.iter().map(|mark| Value::from(mark.to_vec())));
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    let count = |row: QueryResult| {
        let mark: Vec<u8> = row.try_get("", "mark")?;
        let count = Count {
            spent: row.try_get("", "spent")?,
            before: row.try_get("", "spent_before")?,
            streak: row.try_get("", "streak")?,
            failed: Timestamp(row.try_get("", "failed")?),
        };
        Ok((mark.try_into().map_err(|_| Error::internal("a mark of another length"))?, count))
    };
    db.query_all_raw(statement).await?.into_iter().map(count).collect()
}

/// Gives back an attempt that was counted in `hour`, and forgets the failures in a row at `streak`, if any.
///
/// # Errors
///
/// What the database says.
pub async fn give_back(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    marks: &[Mark],
    streak: Option<&Mark>,
    hour: i64,
) -> Result<()> {
    let mut sorted = marks.to_vec();
    sorted.sort_unstable();
    for mark in sorted {
        let sql = "UPDATE attempts SET \
            spent = CASE WHEN hour = $3 AND spent > 0 THEN spent - 1 ELSE spent END, \
            spent_before = CASE WHEN hour = $3 + 1 AND spent_before > 0 THEN spent_before - 1 ELSE spent_before END, \
            streak = CASE WHEN $4 = 1 THEN 0 ELSE streak END \
            WHERE namespace = $1 AND mark = $2";
        let forget = i64::from(Some(&mark) == streak);
        let values: [Value; 4] =
            [namespace.as_str().into(), mark.to_vec().into(), hour.into(), forget.into()];
        tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    }
    Ok(())
}

/// Notes one more failure in a row at `mark`; those before `stale` are forgotten.
///
/// # Errors
///
/// What the database says.
pub async fn fail(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    mark: &Mark,
    now: Timestamp,
    stale: Timestamp,
) -> Result<()> {
    let sql = "UPDATE attempts SET streak = CASE WHEN failed < $4 THEN 1 ELSE streak + 1 END, failed = $3 \
        WHERE namespace = $1 AND mark = $2";
    let values: [Value; 4] = [namespace.as_str().into(), mark.to_vec().into(), now.0.into(), stale.0.into()];
    tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    Ok(())
}

/// Forgets what was counted for `marks`.
///
/// # Errors
///
/// What the database says.
pub async fn forget(tx: &impl ConnectionTrait, namespace: &Namespace, marks: &[Mark]) -> Result<()> {
    let mut sorted = marks.to_vec();
    sorted.sort_unstable();
    for mark in sorted {
        let sql = "DELETE FROM attempts WHERE namespace = $1 AND mark = $2";
        let values: [Value; 2] = [namespace.as_str().into(), mark.to_vec().into()];
        tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    }
    Ok(())
}

/// Whether the user signed in from there before. Asked for users who do not exist too, so that both cost the same.
///
/// # Errors
///
/// What the database says.
pub async fn is_familiar(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &str,
    place: &Mark,
) -> Result<bool> {
    let sql = "SELECT seen FROM familiar_places WHERE namespace = $1 AND user_id = $2 AND place = $3";
    let values: [Value; 3] = [namespace.as_str().into(), user.into(), place.to_vec().into()];
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    Ok(db.query_one_raw(statement).await?.is_some())
}

/// Notes that the user signed in from there.
///
/// # Errors
///
/// What the database says.
pub async fn make_familiar(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    place: &Mark,
    now: Timestamp,
) -> Result<()> {
    let sql = "INSERT INTO familiar_places (namespace, user_id, place, seen) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (namespace, user_id, place) DO UPDATE SET seen = excluded.seen";
    let values: [Value; 4] =
        [namespace.as_str().into(), user.as_str().into(), place.to_vec().into(), now.0.into()];
    tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    Ok(())
}

/// Most places that are looked at where a user's counts are forgotten.
const MOST_PLACES: i64 = 1_000;

/// Where the user signed in from.
///
/// # Errors
///
/// What the database says.
pub async fn places_of(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
) -> Result<Vec<Vec<u8>>> {
    let sql = "SELECT place FROM familiar_places WHERE namespace = $1 AND user_id = $2 LIMIT $3";
    let values: [Value; 3] = [namespace.as_str().into(), user.as_str().into(), MOST_PLACES.into()];
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    let rows = db.query_all_raw(statement).await?;
    rows.iter().map(|row| Ok(row.try_get("", "place")?)).collect()
}

/// Removes counts of hours before `hour` and places that nobody signed in from since `seen`. At most `most` of each;
/// returns how many.
///
/// # Errors
///
/// What the database says.
pub async fn delete_old(tx: &impl ConnectionTrait, hour: i64, seen: Timestamp, most: u64) -> Result<u64> {
    let most = i64::try_from(most).map_err(Error::internal)?;
    let backend = tx.get_database_backend();
    // What another call is about to count stays: waiting for it could be a deadlock.
    let skip = match backend {
        sea_orm::DbBackend::Postgres => " FOR UPDATE SKIP LOCKED",
        _ => "",
    };
    let mut removed = 0;
    for (sql, before) in [
        (
            format!(
                "DELETE FROM attempts WHERE (namespace, mark) IN \
                 (SELECT namespace, mark FROM attempts WHERE hour < $1 LIMIT $2{skip})"
            ),
            hour,
        ),
        (
            format!(
                "DELETE FROM familiar_places WHERE (namespace, user_id, place) IN \
                 (SELECT namespace, user_id, place FROM familiar_places WHERE seen < $1 LIMIT $2{skip})"
            ),
            seen.0,
        ),
    ] {
        let values: [Value; 2] = [before.into(), most.into()];
        removed +=
            tx.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?.rows_affected();
    }
    Ok(removed)
}
