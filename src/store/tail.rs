//! The tail of the log of events: how this process learns what others have changed.
//!
//! Read again and again over a connection of its own, which no caller can keep waiting. Not by LISTEN and NOTIFY, which
//! locks the whole PostgreSQL server at each commit.

use std::time::Duration;

use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::domain::event::Action;
use crate::error::{Error, Result, with_causes};

use super::Store;
use super::coherence::{Coherence, Moment};
use super::health::unavailable;
use super::probe::{Address, ProbeConnection};
use super::trust::Trust;

/// Most events that are looked at one by one; where there are more, everyone may have changed.
const MAX_EVENTS: usize = 10_000;

/// The time limit of a poll, with the connection if there is none.
const MAX_POLL: Duration = Duration::from_secs(2);

/// The time for which polls may fail without a line in the log.
const QUIET_FAILURE: Duration = Duration::from_secs(10);

/// After such a pause events may have been removed that were not seen. Events are kept for longer.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Events with numbers above `$1`; SQLite's only writer numbers them in the order of their commits. The position is the
/// number of the last one, whether it is still there or not.
const SQLITE: &str = "
SELECT now.position, news.namespace, news.user_id, news.action
FROM (SELECT CAST(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0) AS TEXT) AS position) AS now
LEFT JOIN (SELECT namespace, user_id, action FROM events WHERE seq > CAST($1 AS INTEGER) ORDER BY seq LIMIT 10001) AS news
ON TRUE";

/// Events that this statement's snapshot shows and that of `$1` did not: `pg_visible_in_snapshot(tx, $1)` is false of those
/// of transactions that began later, and of those that were in progress. Both are found by the index on `tx`; a range from
/// `pg_snapshot_xmin` on would be read again and again while one transaction takes long. After a dump was restored, old
/// events have numbers of transactions that are yet to come.
const POSTGRES: &str = "
SELECT CAST(pg_current_snapshot() AS TEXT), news.namespace, news.user_id, news.action
FROM (VALUES (1)) AS one LEFT JOIN (
  (SELECT seq, namespace, user_id, action FROM events
   WHERE tx >= pg_snapshot_xmax(CAST(CAST($1 AS TEXT) AS pg_snapshot)) AND tx < pg_snapshot_xmax(pg_current_snapshot())
   ORDER BY tx LIMIT 10001)
  UNION ALL
  (SELECT seq, namespace, user_id, action FROM events
   WHERE tx = ANY (ARRAY(SELECT pg_snapshot_xip(CAST(CAST($1 AS TEXT) AS pg_snapshot))))
   LIMIT 10001)
) AS news ON TRUE
ORDER BY news.seq LIMIT 10001";

/// The position in the log up to which it was read.
#[derive(Debug)]
struct Tail {
    /// Taken out while it is used: one that was left in the middle of a statement is closed.
    line: Option<ProbeConnection>,
    /// As the database tells it; `None` while there is none to go on from.
    position: Option<String>,
    /// When the last finished poll began.
    last: Moment,
}

impl Tail {
    /// Notes in `coherence` what happened since the last poll, and that it is known.
    async fn poll(&mut self, address: &Address, trust: &Trust, coherence: &Coherence) -> Result<()> {
        let begun = Moment::now();
        let mut position = self.position.take().filter(|_| begun.since(self.last) < MAX_PAUSE);
        let line = if let Some(line) = self.line.take().filter(|line| line.is_current(trust)) {
            line
        } else {
            // Perhaps to another server, which may lack the end of the log and give its numbers once more.
            position = None;
            address.connect().await?
        };
        let backend = line.get_database_backend();
        let sql = if backend == DbBackend::Sqlite { SQLITE } else { POSTGRES };
        let select = Statement::from_sql_and_values(backend, sql, [position.clone().into()]);
        let rows = line.query_all_raw(select).await?;
        let first = rows.first().ok_or_else(|| Error::internal("the log of events has no end"))?;
        let next: String = first.try_get_by_index(0)?;
        if position.is_none_or(|last| went_back(&last, &next)) || rows.len() > MAX_EVENTS {
            coherence.note_everyone();
        } else {
            for row in &rows {
                let Some(namespace) = row.try_get_by_index::<Option<String>>(1)? else { continue };
                let (user, action): (String, String) = (row.try_get_by_index(2)?, row.try_get_by_index(3)?);
                coherence.note_event(&namespace, &user, Action::from_name(&action));
            }
        }
        coherence.note_poll(begun);
        (self.line, self.position, self.last) = (Some(line), Some(next), begun);
        Ok(())
    }
}

/// Returns true if a position on SQLite is before another one: a backup was put in place of the database.
fn went_back(last: &str, next: &str) -> bool {
    matches!((last.parse::<i64>(), next.parse::<i64>()), (Ok(last), Ok(next)) if next < last)
}

impl Store {
    /// Reads every so often what others have changed, for those who cache it. Never returns.
    ///
    /// Nothing cached is used while the log cannot be read: calls find the same fault, and tell of it.
    pub async fn follow_events(&self, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tail = Tail { line: None, position: None, last: Moment::now() };
        let (mut failing, mut warned) = (None, false);
        loop {
            ticks.tick().await;
            let polled =
                timeout(MAX_POLL, tail.poll(self.probe.address(), &self.trust, &self.coherence)).await;
            let failed = polled.unwrap_or_else(|_| Err(unavailable("no answer in time"))).err();
            let Some(error) = failed else {
                if std::mem::take(&mut warned) {
                    tracing::info!("event log is read again: the cache is used");
                }
                failing = None;
                continue;
            };
            let since = *failing.get_or_insert_with(Moment::now);
            // The probe tells that the database is away: this is for a log that alone cannot be read.
            if !warned && self.health().answers() && Moment::now().since(since) > QUIET_FAILURE {
                tracing::warn!(
                    cause = with_causes(&error),
                    "event log cannot be read: the cache is not used"
                );
                warned = true;
            }
        }
    }

    /// The changes that this process knows of.
    pub fn coherence(&self) -> &std::sync::Arc<Coherence> {
        &self.coherence
    }
}
