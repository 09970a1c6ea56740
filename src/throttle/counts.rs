//! The counts of attempts, in the table `attempts`.
//!
//! Written as SQL: what matters is that each count is one statement. Rows are locked in the order of their
//! keys.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, DbBackend, QueryResult, Statement, Value};

use crate::domain::namespace::Namespace;
use crate::domain::time::Timestamp;
use crate::error::{Error, Result};

use super::buckets::{Bucket, BucketKey};
use super::limits::{Count, Period, WINDOWS_AN_HOUR};

/// A pending attempt in one bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserved {
    pub(super) bucket: Bucket,
    /// The window of time in which it was reserved.
    window: i64,
}

/// The values of a statement. `$1` is the namespace.
struct Params(Vec<Value>);

impl Params {
    fn of(namespace: &Namespace) -> Self {
        Self(vec![namespace.as_str().into()])
    }

    /// Adds a value, and returns its placeholder.
    fn bind(&mut self, value: impl Into<Value>) -> String {
        self.0.push(value.into());
        format!("${}", self.0.len())
    }

    /// Adds keys, and returns their placeholders.
    fn bind_all(&mut self, keys: &[BucketKey]) -> String {
        keys.iter().map(|key| self.bind(key.to_vec())).collect::<Vec<_>>().join(", ")
    }

    fn statement(self, db: &impl ConnectionTrait, sql: impl Into<String>) -> Statement {
        Statement::from_sql_and_values(db.get_database_backend(), sql, self.0)
    }
}

/// SQL expressions over `attempts` for the counts of a row at a given hour and window.
///
/// A replica whose clock is slow counts in the hour and the window that the others are in. What lies more
/// than an hour ahead was written by a clock that was wrong, and counts nothing.
struct Current {
    hour: String,
    used: String,
    used_before: String,
    streak: String,
    last_failure: String,
    window: String,
    pending: String,
    pending_before: String,
}

impl Current {
    /// `hour` and `window` are SQL expressions too.
    fn at(hour: &str, window: &str) -> Self {
        let unless_ahead =
            |then: &str| format!("CASE WHEN attempts.hour > {hour} + 1 THEN 0 ELSE {then} END");
        let per = |span: &str, now: &str, max: i64, same: &str, last: &str| {
            format!(
                "CASE WHEN attempts.{span} > {now} + {max} THEN 0 WHEN attempts.{span} >= {now} THEN {same} \
                 WHEN attempts.{span} = {now} - 1 THEN {last} ELSE 0 END"
            )
        };
        let later = |span: &str, now: &str, max: i64| {
            format!(
                "CASE WHEN attempts.{span} > {now} AND attempts.{span} <= {now} + {max} \
                 THEN attempts.{span} ELSE {now} END"
            )
        };
        let per_hour = |same, last| per("hour", hour, 1, same, last);
        let per_window = |same, last| per("pending_window", window, WINDOWS_AN_HOUR, same, last);
        Self {
            hour: later("hour", hour, 1),
            used: per_hour("attempts.spent", "0"),
            used_before: per_hour("attempts.spent_before", "attempts.spent"),
            streak: unless_ahead("attempts.streak"),
            last_failure: unless_ahead("attempts.failed"),
            window: later("pending_window", window, WINDOWS_AN_HOUR),
            pending: per_window("attempts.pending", "0"),
            pending_before: per_window("attempts.pending_before", "attempts.pending"),
        }
    }
}

/// The counts of a row, and its window.
struct Row {
    count: Count,
    window: i64,
}

/// The rows that a statement returns, by key.
async fn rows(db: &impl ConnectionTrait, statement: Statement) -> Result<HashMap<BucketKey, Row>> {
    let read = |row: QueryResult| {
        let key: Vec<u8> = row.try_get("", "mark")?;
        let count = Count {
            used: row.try_get("", "spent")?,
            used_before: row.try_get("", "spent_before")?,
            pending: row.try_get("", "in_flight")?,
            streak: row.try_get("", "streak")?,
            last_failure: Timestamp(row.try_get("", "failed")?),
        };
        let key = key.try_into().map_err(|_| Error::internal("a bucket key of another length"))?;
        Ok((key, Row { count, window: row.try_get("", "pending_window")? }))
    };
    db.query_all_raw(statement).await?.into_iter().map(read).collect()
}

/// Returns what the bucket of each of `keys` would count with one more pending attempt, in their order.
/// Counts nothing.
pub(super) async fn preview(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    keys: &[BucketKey],
    period: Period,
) -> Result<Vec<Count>> {
    let mut params = Params::of(namespace);
    let now = Current::at(&params.bind(period.hour), &params.bind(period.window));
    let sql = format!(
        "SELECT mark, {} AS spent, {} AS spent_before, {} AS streak, {} AS failed, {} AS pending_window, \
         {} + {} AS in_flight FROM attempts WHERE namespace = $1 AND mark IN ({})",
        now.used,
        now.used_before,
        now.streak,
        now.last_failure,
        now.window,
        now.pending,
        now.pending_before,
        params.bind_all(keys)
    );
    let rows = rows(db, params.statement(db, sql)).await?;
    let of = |key| {
        let count = rows.get(key).map_or(Count::NONE, |row| row.count);
        Count { pending: count.pending + 1, ..count }
    };
    Ok(keys.iter().map(of).collect())
}

/// The increments of a bucket, and the row that is inserted if there is none.
struct Addition {
    bucket: Bucket,
    window: i64,
    used: i64,
    streak: i64,
    last_failure: i64,
    pending: i64,
}

/// Adds to buckets, with `set` for the columns of streaks and of pending attempts. Returns what they count
/// then, by key.
///
/// The rows stay locked until the transaction ends.
async fn add(
    tx: &impl ConnectionTrait,
    mut params: Params,
    hour: i64,
    mut additions: Vec<Addition>,
    set: &str,
) -> Result<HashMap<BucketKey, Row>> {
    additions.sort_unstable_by_key(|addition| addition.bucket.key);
    let hour = params.bind(hour);
    let tuple =
        |Addition { bucket: Bucket { key, account }, window, used, streak, last_failure, pending }| {
            let owner = account.map_or_else(Vec::new, |account| account.to_vec());
            let [key, owner] = [key.to_vec(), owner].map(|bytes| params.bind(bytes));
            let numbers =
                [used, 0, streak, last_failure, window, pending, 0].map(|number| params.bind(number));
            format!("($1, {key}, {owner}, {hour}, {})", numbers.join(", "))
        };
    let tuples: Vec<String> = additions.into_iter().map(tuple).collect();
    let now = Current::at("excluded.hour", "excluded.pending_window");
    let sql = format!(
        "INSERT INTO attempts (namespace, mark, owner, hour, spent, spent_before, streak, failed, \
         pending_window, pending, pending_before) VALUES {} ON CONFLICT (namespace, mark) DO UPDATE SET \
         owner = excluded.owner, hour = {}, spent = {} + excluded.spent, spent_before = {}, {set} \
         RETURNING mark, spent, spent_before, streak, failed, pending_window, \
         pending + pending_before AS in_flight",
        tuples.join(", "),
        now.hour,
        now.used,
        now.used_before,
    );
    rows(tx, params.statement(tx, sql)).await
}

/// An attempt whose result is pending, or one that counts in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Pending,
    Final,
}

/// Counts one more attempt in each bucket, and returns each count with it, in the order of `buckets`. The hour before counts
/// too: within any sixty minutes there are no more failures than a limit on both allows.
pub(super) async fn reserve(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    buckets: &[Bucket],
    Period { hour, window }: Period,
    attempt: Attempt,
) -> Result<Vec<(Count, Reserved)>> {
    let pending = i64::from(attempt == Attempt::Pending);
    let of = |bucket: &Bucket| Addition {
        bucket: *bucket,
        window,
        used: 1 - pending,
        streak: 0,
        last_failure: 0,
        pending,
    };
    let now = Current::at("excluded.hour", "excluded.pending_window");
    let set = format!(
        "streak = {}, failed = {}, pending_window = {}, pending = {} + excluded.pending, pending_before = {}",
        now.streak, now.last_failure, now.window, now.pending, now.pending_before,
    );
    let rows = add(tx, Params::of(namespace), hour, buckets.iter().map(of).collect(), &set).await?;
    let of = |bucket: &Bucket| {
        let row = rows.get(&bucket.key).ok_or_else(|| Error::internal("an attempt was not counted"))?;
        Ok((row.count, Reserved { bucket: *bucket, window: row.window }))
    };
    buckets.iter().map(of).collect()
}

/// The columns of pending attempts with one less in its window, as SQL.
fn without_one(window: &str) -> String {
    let column = |later: i64, column: &str| {
        format!(
            "{column} = CASE WHEN attempts.pending_window = {window} + {later} AND attempts.{column} > 0 \
             THEN attempts.{column} - 1 ELSE attempts.{column} END"
        )
    };
    format!("{}, {}", column(0, "pending"), column(1, "pending_before"))
}

/// A failure, and its time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    /// The bucket that counts failures in a row.
    pub(super) streak: BucketKey,
    pub(super) now: Timestamp,
    /// Failures in a row before this time are forgotten.
    pub(super) forgotten_before: Timestamp,
}

/// Makes pending attempts failures, one of them a further one in a row. Returns the counts by key.
///
/// A row that was removed is made again: the failure counts nevertheless.
pub(super) async fn record_failure(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    reserved: &[Reserved],
    failure: Failure,
) -> Result<HashMap<BucketKey, Count>> {
    let of = |reserved: &Reserved| {
        let in_a_row = reserved.bucket.key == failure.streak;
        Addition {
            bucket: reserved.bucket,
            window: reserved.window,
            used: 1,
            streak: i64::from(in_a_row),
            last_failure: if in_a_row { failure.now.0 } else { 0 },
            pending: 0,
        }
    };
    let mut params = Params::of(namespace);
    let forgotten = params.bind(failure.forgotten_before.0);
    let now = Current::at("excluded.hour", "excluded.pending_window");
    let set = format!(
        "streak = CASE WHEN excluded.streak = 0 THEN {streak} WHEN {last} < {forgotten} THEN 1 ELSE {streak} + 1 END, \
         failed = CASE WHEN excluded.streak = 0 THEN {last} ELSE excluded.failed END, {pending}",
        streak = now.streak,
        last = now.last_failure,
        pending = without_one("excluded.pending_window"),
    );
    let hour = Period::at(failure.now).hour;
    let rows = add(tx, params, hour, reserved.iter().map(of).collect(), &set).await?;
    Ok(rows.into_iter().map(|(key, row)| (key, row.count)).collect())
}

/// Takes pending attempts back, and resets the failures in a row in the bucket `streak`, if any. A row that
/// counts nothing then is removed: it was written before any work was done, and would be kept for hours.
pub(super) async fn refund(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    reserved: &[Reserved],
    streak: Option<&BucketKey>,
) -> Result<()> {
    let mut sorted = reserved.to_vec();
    sorted.sort_unstable_by_key(|reserved| reserved.bucket.key);
    let update = format!(
        "UPDATE attempts SET {}, streak = CASE WHEN $4 = 1 THEN 0 ELSE streak END \
         WHERE namespace = $1 AND mark = $2 \
         RETURNING spent + spent_before + streak + pending + pending_before AS rest",
        without_one("$3")
    );
    for Reserved { bucket: Bucket { key, .. }, window } in sorted {
        let resets = i64::from(Some(&key) == streak);
        let row: [Value; 2] = [namespace.as_str().into(), key.to_vec().into()];
        let all = [&row[..], &[window.into(), resets.into()]].concat();
        if execute(tx, DELETE_LAST, all.clone()).await? > 0 {
            continue;
        }
        let updated = Statement::from_sql_and_values(tx.get_database_backend(), &update, all);
        let rest = tx.query_one_raw(updated).await?.map(|row| row.try_get::<i64>("", "rest")).transpose()?;
        if rest == Some(0) {
            // Another one was refunded between the two statements.
            execute(tx, "DELETE FROM attempts WHERE namespace = $1 AND mark = $2", row.to_vec()).await?;
        }
    }
    Ok(())
}

/// Removes a row that counts one pending attempt and nothing else, which is the usual one.
const DELETE_LAST: &str = "DELETE FROM attempts WHERE namespace = $1 AND mark = $2 AND spent = 0 AND spent_before = 0 \
    AND (streak = 0 OR $4 = 1) AND pending + pending_before = 1 \
    AND ((pending_window = $3 AND pending = 1) OR (pending_window = $3 + 1 AND pending_before = 1))";

/// Runs a statement. Returns how many rows it changed.
async fn execute(tx: &impl ConnectionTrait, sql: &str, values: Vec<Value>) -> Result<u64> {
    let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
    Ok(tx.execute_raw(statement).await?.rows_affected())
}

/// Resets what was counted for an account and in the buckets of `names`.
pub(super) async fn reset(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    account: &BucketKey,
    names: &[BucketKey],
) -> Result<()> {
    let mut params = Params::of(namespace);
    let sql = format!(
        "DELETE FROM attempts WHERE (namespace, mark) IN (SELECT namespace, mark FROM attempts \
         WHERE namespace = $1 AND (owner = {} OR mark IN ({})) ORDER BY mark{})",
        params.bind(account.to_vec()),
        params.bind_all(names),
        on_postgres(tx, " FOR UPDATE"),
    );
    tx.execute_raw(params.statement(tx, sql)).await?;
    Ok(())
}

/// The limits beyond which rows are too old to count, or too far ahead to be true.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outdated {
    /// Counts of hours before this one.
    pub(super) before_hour: i64,
    /// Counts of hours after this one.
    pub(super) after_hour: i64,
    /// Known IPs that were last used before this time.
    pub(super) last_seen: Timestamp,
}

/// Removes counts and known IPs that are outdated. At most `limit` of each kind; returns how many.
pub(super) async fn delete_outdated(
    tx: &impl ConnectionTrait,
    outdated: Outdated,
    limit: u64,
) -> Result<u64> {
    let limit = i64::try_from(limit).map_err(Error::internal)?;
    // Rows in which another call is about to count stay: to wait for them could be a deadlock.
    let skip = on_postgres(tx, " FOR UPDATE SKIP LOCKED");
    let mut removed = 0;
    for (table, key, condition, bound) in [
        ("attempts", "namespace, mark", "hour < $1", outdated.before_hour),
        ("attempts", "namespace, mark", "hour > $1", outdated.after_hour),
        ("familiar_places", "namespace, user_id, place", "seen < $1", outdated.last_seen.0),
    ] {
        let sql = format!(
            "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {condition} LIMIT $2{skip})"
        );
        removed += execute(tx, &sql, vec![bound.into(), limit.into()]).await?;
    }
    Ok(removed)
}

/// A clause that SQLite, which has one writer at a time, neither needs nor knows.
fn on_postgres(db: &impl ConnectionTrait, clause: &'static str) -> &'static str {
    if db.get_database_backend() == DbBackend::Postgres { clause } else { "" }
}
