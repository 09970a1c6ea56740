//! The limit on attempts with numeric codes: at most ten wrong attempts for a user in 24 hours, over all codes and replicas.
//!
//! An attempt is counted before the code is hashed, for the identifier that was used and for the user. Once the identifier has
//! ten wrong attempts, more are refused. If only the user has, the attempt goes on but never succeeds: a refusal would reveal
//! that two identifiers belong to one user. Each row stores the times of its attempts; those of pending attempts are negative.
//! Rows are locked in the order of their keys, and before the rows of codes.

use std::time::Duration;

use sea_orm::{ConnectionTrait, Statement, Value};

use crate::domain::caller::Caller;
use crate::domain::code::{CodePurpose, StoredCode};
use crate::domain::event::Event;
use crate::domain::namespace::Namespace;
use crate::domain::time::Timestamp;
use crate::domain::user::User;
use crate::domain::user_id::UserId;
use crate::error::{Error, Result};
use crate::store::{self, Transaction, events};
use crate::telemetry;

use super::Throttle;
use super::buckets::{BucketKey, LoginIdentifier};
use super::reservation::repeat_refund;

/// The most wrong attempts in [`SPAN`].
const MAX_WRONG: usize = 10;

/// How long an attempt counts.
const SPAN: Duration = Duration::from_hours(24);

/// How long an attempt may be pending, which is longer than any waits for the hasher. One that could not be refunded no longer
/// counts then.
const PENDING: Duration = Duration::from_mins(2);

/// The times of attempts in microseconds, the oldest first; negative while an attempt is pending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct AttemptTimes(Vec<i64>);

impl AttemptTimes {
    /// Parses the times of a row and keeps those that still count. Times more than a day ahead, from a wrong clock, do not.
    fn parse(text: &str, now: Timestamp) -> Result<Self> {
        let mut times: Vec<i64> = serde_json::from_str(text).map_err(Error::internal)?;
        times.retain(|time| {
            let span = if *time < 0 { PENDING } else { SPAN };
            (now.minus(span).0 + 1..=now.plus(SPAN).0).contains(&time.abs())
        });
        times.sort_unstable_by_key(|time| time.abs());
        Ok(Self(times))
    }

    fn is_full(&self) -> bool {
        self.0.len() >= MAX_WRONG
    }

    /// The time until another attempt is allowed; `None`: now. One second while attempts are pending: they may be refunded.
    fn retry_after(&self, now: Timestamp) -> Option<Duration> {
        if !self.is_full() {
            return None;
        }
        let oldest = self.0.first().filter(|_| self.0.iter().all(|time| *time > 0));
        let wait = oldest.map(|time| Timestamp(*time).plus(SPAN).0.saturating_sub(now.0));
        Some(wait.map_or(Duration::from_secs(1), |micros| Duration::from_micros(micros.unsigned_abs())))
    }
}

/// A pending attempt with a numeric code, refunded on drop unless its result was stored.
pub(crate) struct DigitsReservation {
    throttle: Throttle,
    caller: Caller,
    /// The rows that count it, in the order of their keys.
    keys: Vec<BucketKey>,
    /// The time by which it is known in them.
    time: i64,
    /// True if the user has ten wrong attempts, counted over all identifiers: the attempt cannot succeed.
    exhausted: bool,
    code: Option<StoredCode>,
    refund_on_drop: bool,
}

impl Throttle {
    /// Counts an attempt with the code that `user` has for `purpose`. A refused attempt does not count.
    ///
    /// # Cancel safety
    ///
    /// Counted in a task of its own, which refunds it if the caller has left by then.
    pub(crate) async fn reserve_digits(
        &self,
        caller: &Caller,
        identifier: &LoginIdentifier,
        user: &UserId,
        purpose: CodePurpose,
    ) -> Result<DigitsReservation> {
        let keys = [self.digits_of_name(identifier), self.digits_of_account(user)];
        let reserving = self.clone().reserve_digits_now(caller.clone(), keys, user.clone(), purpose);
        telemetry::spawn(reserving).await.map_err(Error::internal)?
    }

    fn digits_of_name(&self, identifier: &LoginIdentifier) -> BucketKey {
        self.keyer.key("digits of name", &identifier.parts())
    }

    fn digits_of_account(&self, user: &UserId) -> BucketKey {
        self.keyer.key("digits of account", &[user.as_str().as_bytes()])
    }

    /// Resets what was counted for a user of wrong digits, under each of the user's names; with `reservation`, that attempt, too.
    pub(crate) async fn reset_digits(
        &self,
        tx: &impl ConnectionTrait,
        caller: &Caller,
        user: &User,
        reservation: Option<&DigitsReservation>,
    ) -> Result<()> {
        let names = LoginIdentifier::all_of(user);
        let keys =
            names.iter().map(|name| self.digits_of_name(name)).chain([self.digits_of_account(&user.id)]);
        let keys =
            keys.chain(reservation.into_iter().flat_map(|reservation| reservation.keys.iter().copied()));
        let mut values: Vec<Value> = vec![caller.namespace.as_str().into()];
        values.extend(keys.map(|key| Value::from(key.to_vec())));
        let marks: Vec<String> = (2..=values.len()).map(|n| format!("${n}")).collect();
        let backend = tx.get_database_backend();
        let lock = if backend == sea_orm::DbBackend::Postgres { " FOR UPDATE" } else { "" };
        let sql = format!(
            "DELETE FROM code_tries WHERE (namespace, mark) IN (SELECT namespace, mark FROM code_tries \
             WHERE namespace = $1 AND mark IN ({}) ORDER BY mark{lock})",
            marks.join(", ")
        );
        tx.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
        Ok(())
    }

    async fn reserve_digits_now(
        self,
        caller: Caller,
        [name, account]: [BucketKey; 2],
        user: UserId,
        purpose: CodePurpose,
    ) -> Result<DigitsReservation> {
        let (namespace, now) = (&caller.namespace, self.clock.now());
        let mut keys = vec![name, account];
        keys.sort_unstable();
        let tx = self.store.begin(&caller).await?; // any `?` from here to commit counts nothing
        let mut rows = lock(&tx, namespace, &keys, now).await?;
        let of = |key: BucketKey| rows.iter().find(|(known, _)| *known == key).map(|(_, times)| times);
        if let Some(retry_after) = of(name).and_then(|times| times.retry_after(now)) {
            return Err(Error::TooManyAttempts { retry_after });
        }
        let exhausted = of(account).is_some_and(AttemptTimes::is_full);
        let taken = |time: i64| rows.iter().any(|(_, times)| times.0.iter().any(|known| known.abs() == time));
        let time = (now.0..now.0 + 100).find(|time| !taken(*time)).unwrap_or(now.0);
        if exhausted {
            keys.retain(|key| *key != account);
        }
        rows.retain(|(key, _)| keys.contains(key));
        for (_, times) in &mut rows {
            times.0.push(-time);
        }
        write(&tx, namespace, &rows).await?;
        let code = store::codes::count_attempt(&tx, namespace, &user, purpose).await?;
        tx.commit().await?;
        Ok(DigitsReservation { throttle: self, caller, keys, time, exhausted, code, refund_on_drop: true })
    }

    /// Stores the event of a refusal, and counts a wrong numeric code. A verified code that another call used first, or that was
    /// refused for another reason, is no guess: its attempt is refunded.
    ///
    /// Runs in a task of its own: it completes even if the caller disconnects.
    pub(crate) async fn refuse_code(
        &self,
        caller: &Caller,
        reservation: Option<DigitsReservation>,
        event: Event,
        is_verified: bool,
    ) -> Result<()> {
        let (store, caller) = (self.store.clone(), caller.detached());
        let storing = async move {
            let tx = store.begin(&caller).await?;
            match &reservation {
                Some(reservation) if is_verified => _ = reservation.refund_in(&tx).await?,
                Some(reservation) => reservation.fail_in(&tx).await?,
                None => {}
            }
            events::append(&tx, &caller, &event).await?;
            match reservation {
                Some(mut reservation) => reservation.commit(tx).await,
                None => tx.commit().await,
            }
        };
        telemetry::spawn(storing).await.map_err(Error::internal)?
    }

    /// Removes at most `limit` rows whose attempts no longer count. Returns how many.
    pub(crate) async fn delete_old_attempts(&self, tx: &impl ConnectionTrait, limit: u64) -> Result<u64> {
        let skip = if tx.get_database_backend() == sea_orm::DbBackend::Postgres {
            " FOR UPDATE SKIP LOCKED"
        } else {
            ""
        };
        let sql = format!(
            "DELETE FROM code_tries WHERE (namespace, mark) IN \
             (SELECT namespace, mark FROM code_tries WHERE last < $1 LIMIT {limit}{skip})"
        );
        let values = [self.clock.now().minus(SPAN).0.into()];
        let delete = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
        Ok(tx.execute_raw(delete).await?.rows_affected())
    }
}

impl DigitsReservation {
    /// The numeric code to verify; `None` if there is none, it is for a link, it has expired, or it has no attempts left.
    pub(crate) fn code(&self) -> Option<&StoredCode> {
        let now = self.throttle.clock.now();
        self.code.as_ref().filter(|code| code.is_digits() && code.expires > now)
    }

    /// The code, if it was `verified` and the user has attempts left. Call it after the hash, so that every attempt takes as long.
    pub(crate) fn accept(&self, verified: bool) -> Option<StoredCode> {
        self.code().filter(|_| verified && !self.exhausted).cloned()
    }

    /// Refunds the attempt in the transaction that uses the code, before it is taken. Returns false if it is not pending.
    pub(crate) async fn refund_in(&self, tx: &Transaction) -> Result<bool> {
        let mut was_pending = false;
        self.update(tx, |times| {
            let before = times.0.len();
            times.0.retain(|time| *time != -self.time);
            was_pending |= times.0.len() < before;
        })
        .await?;
        Ok(was_pending)
    }

    /// Stores that the digits were wrong, also if that took longer than an attempt is pending.
    async fn fail_in(&self, tx: &Transaction) -> Result<()> {
        self.update(tx, |times| {
            times.0.retain(|time| *time != -self.time);
            times.0.push(self.time);
        })
        .await
    }

    /// Commits the transaction that has the verdict.
    ///
    /// # Cancel safety
    ///
    /// A COMMIT that has begun is carried to its end without the caller, and nothing is refunded a second time.
    pub(crate) async fn commit(&mut self, tx: Transaction) -> Result<()> {
        self.refund_on_drop = false;
        let committed = tx.commit().await;
        self.refund_on_drop = committed.is_err();
        committed
    }

    async fn update(&self, tx: &Transaction, mut change: impl FnMut(&mut AttemptTimes)) -> Result<()> {
        let namespace = &self.caller.namespace;
        let mut rows = lock(tx, namespace, &self.keys, self.throttle.clock.now()).await?;
        for (_, times) in &mut rows {
            change(times);
        }
        write(tx, namespace, &rows).await
    }

    /// Refunds the attempt, also from its code. One that is not pending has its verdict: a COMMIT whose outcome was unknown was
    /// done.
    async fn refund(&self) -> Result<()> {
        let tx = self.throttle.store.begin(&self.caller.detached()).await?;
        if self.refund_in(&tx).await?
            && let Some(code) = &self.code
        {
            store::codes::refund_attempt(&tx, &self.caller.namespace, code).await?;
        }
        tx.commit().await
    }
}

impl Drop for DigitsReservation {
    fn drop(&mut self) {
        if !std::mem::take(&mut self.refund_on_drop) {
            return;
        }
        // Without a runtime the service is stopping, and the attempt is pending until its time is over.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let this = Self {
            throttle: self.throttle.clone(),
            caller: self.caller.clone(),
            keys: std::mem::take(&mut self.keys),
            code: self.code.take(),
            ..*self
        };
        runtime.spawn(async move {
            if let Err(error) = repeat_refund(|| this.refund()).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "a pending attempt could not be refunded; it counts for two minutes");
            }
        });
    }
}

/// Locks the rows of `keys`, which are sorted, and returns their times.
async fn lock(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    keys: &[BucketKey],
    now: Timestamp,
) -> Result<Vec<(BucketKey, AttemptTimes)>> {
    let rows = keys.iter().map(|key| (*key, "[]".to_owned(), 0));
    let upsert = upsert(tx, namespace, rows, "last = code_tries.last RETURNING mark, times");
    let read = |row: sea_orm::QueryResult| {
        let (key, times): (Vec<u8>, String) = (row.try_get("", "mark")?, row.try_get("", "times")?);
        let key = key.try_into().map_err(|_| Error::internal("a stored bucket key has the wrong length"))?;
        Ok((key, AttemptTimes::parse(&times, now)?))
    };
    tx.query_all_raw(upsert).await?.into_iter().map(read).collect()
}

/// Writes the times of the attempts of locked rows.
async fn write(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    rows: &[(BucketKey, AttemptTimes)],
) -> Result<()> {
    let texts: Vec<_> = rows
        .iter()
        .map(|(key, times)| {
            let last = times.0.iter().map(|time| time.abs()).max().unwrap_or(0);
            Ok((*key, serde_json::to_string(&times.0).map_err(Error::internal)?, last))
        })
        .collect::<Result<_>>()?;
    let set = "times = excluded.times, last = excluded.last";
    tx.execute_raw(upsert(tx, namespace, texts.into_iter(), set)).await?;
    Ok(())
}

fn upsert(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    rows: impl Iterator<Item = (BucketKey, String, i64)>,
    set: &str,
) -> Statement {
    let mut values: Vec<Value> = vec![namespace.as_str().into()];
    let mut tuples = Vec::new();
    for (key, times, last) in rows {
        let at = values.len();
        tuples.push(format!("($1, ${}, ${}, ${})", at + 1, at + 2, at + 3));
        values.extend([key.to_vec().into(), times.into(), last.into()]);
    }
    let sql = format!(
        "INSERT INTO code_tries (namespace, mark, times, last) VALUES {} \
         ON CONFLICT (namespace, mark) DO UPDATE SET {set}",
        tuples.join(", ")
    );
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn parse(times: &[i64], now: i64) -> AttemptTimes {
        AttemptTimes::parse(&serde_json::to_string(times).unwrap(), Timestamp(now)).unwrap()
    }

    #[test]
    fn ten_attempts_are_full_until_the_oldest_is_a_day_old() {
        let now = 100 * HOUR;
        let times: Vec<i64> = (0..10).map(|n| now - 23 * HOUR + n).collect();
        assert_eq!(parse(&times[..9], now).retry_after(Timestamp(now)), None);
        let wait = parse(&times, now).retry_after(Timestamp(now)).unwrap();
        assert_eq!(wait, Duration::from_hours(1));
        assert_eq!(parse(&times, now + HOUR).0.len(), 9);
    }

    #[test]
    fn attempts_without_a_verdict_are_in_the_way_for_a_second() {
        let now = 100 * HOUR;
        let times: Vec<i64> = (0..10).map(|n| if n == 4 { -now - n } else { now + n }).collect();
        assert_eq!(parse(&times, now).retry_after(Timestamp(now)), Some(Duration::from_secs(1)));
    }

    #[test]
    fn attempts_that_were_never_refunded_do_not_count_for_long() {
        let now = 100 * HOUR;
        let minutes = |minutes: i64| -(now - minutes * 60_000_000);
        let wrong = now - HOUR;
        assert_eq!(parse(&[wrong, minutes(2), minutes(1)], now), AttemptTimes(vec![wrong, minutes(1)]));
    }

    #[test]
    fn attempts_of_a_clock_that_was_far_ahead_do_not_count() {
        let now = 100 * HOUR;
        assert_eq!(parse(&[now - 24 * HOUR, now + 25 * HOUR, now], now), AttemptTimes(vec![now]));
    }
}
