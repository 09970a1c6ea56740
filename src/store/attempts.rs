//! Attempts to guess a password, counted for all replicas.
//!
//! Written as SQL: what matters is that each count is one statement.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, QueryResult, Statement, Value};

use crate::domain::guard::{Count, Counter, Held, Mark, Period, WINDOWS_AN_HOUR};
use crate::domain::namespace::Namespace;
use crate::domain::time::Timestamp;
use crate::error::{Error, Result};

/// What a row counts at a given hour and window: SQL expressions over `attempts`.
///
/// A replica whose clock is behind counts in the hour and the window that the others are in. What lies more than an hour
/// ahead was written by a clock that was wrong, and counts nothing.
struct Current {
    hour: String,
    spent: String,
    before: String,
    streak: String,
    failed: String,
    window: String,
    pending: String,
    pending_before: String,
}

impl Current {
    /// `hour` and `window` are SQL expressions too.
    fn at(hour: &str, window: &str) -> Self {
        let unless_ahead =
            |then: &str| format!("CASE WHEN attempts.hour > {hour} + 1 THEN 0 ELSE {then} END");
        let per = |span: &str, now: &str, most: i64, same: &str, last: &str| {
            format!(
                "CASE WHEN attempts.{span} > {now} + {most} THEN 0 WHEN attempts.{span} >= {now} THEN {same} \
                 WHEN attempts.{span} = {now} - 1 THEN {last} ELSE 0 END"
            )
        };
        let later = |span: &str, now: &str, most: i64| {
            format!(
                "CASE WHEN attempts.{span} > {now} AND attempts.{span} <= {now} + {most} \
                 THEN attempts.{span} ELSE {now} END"
            )
        };
        let (hours, windows) = (1, WINDOWS_AN_HOUR);
        Self {
            hour: later("hour", hour, hours),
            spent: per("hour", hour, hours, "attempts.spent", "0"),
            before: per("hour", hour, hours, "attempts.spent_before", "attempts.spent"),
            streak: unless_ahead("attempts.streak"),
            failed: unless_ahead("attempts.failed"),
            window: later("pending_window", window, windows),
            pending: per("pending_window", window, windows, "attempts.pending", "0"),
            pending_before: per(
                "pending_window",
                window,
                windows,
                "attempts.pending_before",
                "attempts.pending",
            ),
        }
    }
}

/// What each of `marks` would count with one more attempt in flight, in their order. Counts nothing.
///
/// # Errors
///
/// What the database says, as all functions here.
pub async fn preview(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    marks: &[Mark],
    period: Period,
) -> Result<Vec<Count>> {
    let places: Vec<String> = (0..marks.len()).map(|n| format!("${}", n + 4)).collect();
    let now = Current::at("$2", "$3");
    let sql = format!(
        "SELECT mark, {} AS spent, {} AS spent_before, {} AS streak, {} AS failed, {} AS pending_window, \
         {} + {} AS in_flight FROM attempts WHERE namespace = $1 AND mark IN ({})",
        now.spent,
        now.before,
        now.streak,
        now.failed,
        now.window,
        now.pending,
        now.pending_before,
        places.join(", ")
    );
    let mut values: Vec<Value> = vec![namespace.as_str().into(), period.hour.into(), period.window.into()];
    values.extend(marks.iter().map(|mark| Value::from(mark.to_vec())));
    let rows = rows(db, sql, values).await?;
    let of = |mark| {
        let count = rows.get(mark).map_or(Count::NONE, |row| row.count);
        Count { pending: count.pending + 1, ..count }
    };
    Ok(marks.iter().map(of).collect())
}

/// Counts one more attempt in flight at each of `counters`, and returns each count with it, in the order of the counters. The
/// hour before counts too: within any sixty minutes there are no more failures than a limit on both allows.
///
/// The rows stay locked until the transaction ends, and are locked in one order by everyone.
///
/// # Errors
///
/// What the database says.
pub async fn reserve(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    counters: &[Counter],
    period: Period,
) -> Result<Vec<(Count, Held)>> {
    let mut sorted = counters.to_vec();
    sorted.sort_unstable_by_key(|counter| counter.mark);
    let mut values: Vec<Value> = vec![namespace.as_str().into(), period.hour.into(), period.window.into()];
    let mut tuples = Vec::new();
    for counter in &sorted {
        let n = values.len();
        tuples.push(format!("($1, ${}, ${}, $2, 0, 0, 0, 0, $3, 1, 0)", n + 1, n + 2));
        values.extend([counter.mark.to_vec().into(), owner_of(counter).into()]);
    }
    let now = Current::at("excluded.hour", "excluded.pending_window");
    let sql = format!(
        "INSERT INTO attempts ({COLUMNS}) VALUES {} ON CONFLICT (namespace, mark) DO UPDATE SET \
         owner = excluded.owner, hour = {}, spent = {}, spent_before = {}, streak = {}, failed = {}, \
         pending_window = {}, pending = {} + 1, pending_before = {} {RETURNING}",
        tuples.join(", "),
        now.hour,
        now.spent,
        now.before,
        now.streak,
        now.failed,
        now.window,
        now.pending,
        now.pending_before,
    );
    let rows = rows(tx, sql, values).await?;
    let of = |counter: &Counter| {
        let row = rows.get(&counter.mark).ok_or_else(|| Error::internal("an attempt was not counted"))?;
        Ok((row.count, Held { counter: *counter, window: row.window }))
    };
    counters.iter().map(of).collect()
}

const COLUMNS: &str = "namespace, mark, owner, hour, spent, spent_before, streak, failed, \
                       pending_window, pending, pending_before";

const RETURNING: &str = "RETURNING mark, spent, spent_before, streak, failed, pending_window, \
                         pending + pending_before AS in_flight";

/// What stands in the column of the account.
fn owner_of(counter: &Counter) -> Vec<u8> {
    counter.owner.map_or_else(Vec::new, |owner| owner.to_vec())
}

/// What one row says.
struct Row {
    count: Count,
    window: i64,
}

/// What a statement returns, by mark.
async fn rows(db: &impl ConnectionTrait, sql: String, values: Vec<Value>) -> Result<HashMap<Mark, Row>> {
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    let read = |row: QueryResult| {
        let mark: Vec<u8> = row.try_get("", "mark")?;
        let count = Count {
            spent: row.try_get("", "spent")?,
            before: row.try_get("", "spent_before")?,
            pending: row.try_get("", "in_flight")?,
            streak: row.try_get("", "streak")?,
            failed: Timestamp(row.try_get("", "failed")?),
        };
        let mark = mark.try_into().map_err(|_| Error::internal("a mark of another length"))?;
        Ok((mark, Row { count, window: row.try_get("", "pending_window")? }))
    };
    db.query_all_raw(statement).await?.into_iter().map(read).collect()
}

/// What an attempt in flight leaves in its window, when it is no longer one: SQL for the two columns.
fn without_one(window: &str) -> [String; 2] {
    [(0, "pending"), (1, "pending_before")].map(|(later, column)| {
        format!(
            "CASE WHEN attempts.pending_window = {window} + {later} AND attempts.{column} > 0 \
             THEN attempts.{column} - 1 ELSE attempts.{column} END"
        )
    })
}

/// A failure, and when it counts.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    /// Where failures in a row are counted.
    pub streak: &'a Mark,
    /// When it failed.
    pub now: Timestamp,
    /// Failures in a row before this time are forgotten.
    pub stale: Timestamp,
}

/// Makes attempts in flight failures, one of them a further one in a row. Returns the counts by mark.
///
/// A row that is not there any more is made: whatever removed it, the failure counts.
///
/// # Errors
///
/// What the database says.
pub async fn fail(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    held: &[Held],
    failure: Failure<'_>,
) -> Result<HashMap<Mark, Count>> {
    let mut sorted = held.to_vec();
    sorted.sort_unstable_by_key(|held| held.counter.mark);
    let hour = Period::at(failure.now).hour;
    let mut values: Vec<Value> = vec![namespace.as_str().into(), hour.into(), failure.stale.0.into()];
    let mut tuples = Vec::new();
    for Held { counter, window } in &sorted {
        let [mark, owner, window_at, streak, failed] = std::array::from_fn(|n| values.len() + n + 1);
        tuples.push(format!("($1, ${mark}, ${owner}, $2, 1, 0, ${streak}, ${failed}, ${window_at}, 0, 0)"));
        let in_a_row = if counter.mark == *failure.streak { [1, failure.now.0] } else { [0, 0] };
        values.extend([counter.mark.to_vec().into(), owner_of(counter).into(), (*window).into()]);
        values.extend(in_a_row.map(Value::from));
    }
    let now = Current::at("excluded.hour", "excluded.pending_window");
    let [pending, pending_before] = without_one("excluded.pending_window");
    let sql = format!(
        "INSERT INTO attempts ({COLUMNS}) VALUES {} ON CONFLICT (namespace, mark) DO UPDATE SET \
         owner = excluded.owner, hour = {}, spent = {} + 1, spent_before = {}, \
         streak = CASE WHEN excluded.streak = 0 THEN {streak} WHEN {failed} < $3 THEN 1 ELSE {streak} + 1 END, \
         failed = CASE WHEN excluded.streak = 0 THEN {failed} ELSE excluded.failed END, \
         pending = {pending}, pending_before = {pending_before} {RETURNING}",
        tuples.join(", "),
        now.hour,
        now.spent,
        now.before,
        streak = now.streak,
        failed = now.failed,
    );
    Ok(rows(tx, sql, values).await?.into_iter().map(|(mark, row)| (mark, row.count)).collect())
}

/// Gives attempts in flight back, and forgets the failures in a row at `streak`, if any. A row that counts nothing any more is
/// removed: it was written before any work was done, and would be kept for hours.
///
/// # Errors
///
/// What the database says.
pub async fn refund(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    held: &[Held],
    streak: Option<&Mark>,
) -> Result<()> {
    let mut sorted = held.to_vec();
    sorted.sort_unstable_by_key(|held| held.counter.mark);
    let [pending, pending_before] = without_one("$3");
    let update = format!(
        "UPDATE attempts SET pending = {pending}, pending_before = {pending_before}, \
         streak = CASE WHEN $4 = 1 THEN 0 ELSE streak END WHERE namespace = $1 AND mark = $2 \
         RETURNING spent + spent_before + streak + pending + pending_before AS rest"
    );
    for Held { counter, window } in sorted {
        let forget = i64::from(Some(&counter.mark) == streak);
        let key: [Value; 2] = [namespace.as_str().into(), counter.mark.to_vec().into()];
        let all = [&key[..], &[window.into(), forget.into()]].concat();
        if execute(tx, LAST_ONE, all.clone()).await? > 0 {
            continue;
        }
        let updated = Statement::from_sql_and_values(tx.get_database_backend(), &update, all);
        let rest = tx.query_one_raw(updated).await?.map(|row| row.try_get::<i64>("", "rest")).transpose()?;
        if rest == Some(0) {
            // Another one was given back between the two statements.
            execute(tx, "DELETE FROM attempts WHERE namespace = $1 AND mark = $2", key.to_vec()).await?;
        }
    }
    Ok(())
}

/// Removes a row that counts an attempt in flight and nothing else, which is the usual one.
const LAST_ONE: &str = "DELETE FROM attempts WHERE namespace = $1 AND mark = $2 AND spent = 0 AND spent_before = 0 \
    AND (streak = 0 OR $4 = 1) AND pending + pending_before = 1 \
    AND ((pending_window = $3 AND pending = 1) OR (pending_window = $3 + 1 AND pending_before = 1))";

/// Runs a statement. Returns how many rows it changed.
async fn execute(tx: &impl ConnectionTrait, sql: &str, values: Vec<Value>) -> Result<u64> {
    let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
    Ok(tx.execute_raw(statement).await?.rows_affected())
}

/// Forgets what was counted for an account and at `marks`.
///
/// # Errors
///
/// What the database says.
pub async fn forget(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    owner: &Mark,
    marks: &[Mark],
) -> Result<()> {
    let backend = tx.get_database_backend();
    // Locked in the order in which they are counted.
    let lock = match backend {
        sea_orm::DbBackend::Postgres => " FOR UPDATE",
        _ => "",
    };
    let places: Vec<String> = (0..marks.len()).map(|n| format!("${}", n + 3)).collect();
    let sql = format!(
        "DELETE FROM attempts WHERE (namespace, mark) IN (SELECT namespace, mark FROM attempts \
         WHERE namespace = $1 AND (owner = $2 OR mark IN ({})) ORDER BY mark{lock})",
        places.join(", ")
    );
    let mut values: Vec<Value> = vec![namespace.as_str().into(), owner.to_vec().into()];
    values.extend(marks.iter().map(|mark| Value::from(mark.to_vec())));
    tx.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    Ok(())
}

/// What is too old to count, or too far ahead to be true.
#[derive(Clone, Copy, Debug)]
pub struct Outdated {
    /// Counts of hours before this one.
    pub before_hour: i64,
    /// Counts of hours after this one.
    pub after_hour: i64,
    /// Addresses that nobody signed in from since.
    pub seen: Timestamp,
}

/// Removes counts and addresses that are outdated. At most `most` of each kind; returns how many.
///
/// # Errors
///
/// What the database says.
pub async fn delete_old(tx: &impl ConnectionTrait, outdated: Outdated, most: u64) -> Result<u64> {
    let most = i64::try_from(most).map_err(Error::internal)?;
    let backend = tx.get_database_backend();
    // What another call is about to count stays: waiting for it could be a deadlock.
    let skip = match backend {
        sea_orm::DbBackend::Postgres => " FOR UPDATE SKIP LOCKED",
        _ => "",
    };
    let mut removed = 0;
    for (table, key, which, bound) in [
        ("attempts", "namespace, mark", "hour < $1", outdated.before_hour),
        ("attempts", "namespace, mark", "hour > $1", outdated.after_hour),
        ("familiar_places", "namespace, user_id, place", "seen < $1", outdated.seen.0),
    ] {
        let sql = format!(
            "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {which} LIMIT $2{skip})"
        );
        let values: [Value; 2] = [bound.into(), most.into()];
        removed +=
            tx.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?.rows_affected();
    }
    Ok(removed)
}
