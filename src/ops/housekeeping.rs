//! Expiry of sessions, events and users in the trash, and merging of the search index on SQLite.

mod metrics;

use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::domain::caller::Caller;
use crate::domain::namespace::Namespace;
use crate::domain::time::Timestamp;
use crate::domain::user::User;
use crate::domain::user_id::UserId;
use crate::error::{Error, Result};
use crate::store;

use super::Operations;

pub(super) use metrics::HousekeepingMetrics;

/// Rows removed in one transaction: SQLite's other writers wait meanwhile, for some milliseconds. 500 rows took
/// as long as twenty writes, and the p99 of those became nine times as long.
pub(super) const BATCH: u64 = 50;

/// The longest pause between two batches.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// The least and the most time between two rounds.
const INTERVAL_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// Events are kept for so long at least: other replicas learn from them what has changed.
const MIN_EVENT_AGE: Duration = Duration::from_mins(10);

/// Calls with an idempotency key are known for so long at least.
const MIN_CALL_AGE: Duration = Duration::from_hours(24);

/// Most steps of merging in one round: an end while others write.
const MAX_MERGE_STEPS: usize = 1_000;

/// How long a step of merging takes about, for which other writers wait, and the most pages that it writes.
const MERGE_STEP: Duration = Duration::from_millis(5);
const MAX_PAGES: u32 = 64;

/// Counts of the rows that a round of housekeeping removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RemovedCounts {
    sessions: u64,
    events: u64,
    attempts: u64,
    users: u64,
    expired_keys: u64,
    ended_keys: u64,
    cleared_logs: u64,
    idempotency_keys: u64,
    codes: u64,
}

impl RemovedCounts {
    /// The counts, in the order of their fields.
    pub(super) fn counts(&self) -> [u64; 9] {
        let Self {
            sessions,
            events,
            attempts,
            users,
            expired_keys,
            ended_keys,
            cleared_logs,
            idempotency_keys,
            codes,
        } = *self;
        [sessions, events, attempts, users, expired_keys, ended_keys, cleared_logs, idempotency_keys, codes]
    }
}

/// Runs `batch` until one is not full, and adds what each did to `count`.
async fn repeat<Done>(count: &mut u64, batch: impl Fn() -> Done) -> Result<()>
where
    Done: Future<Output = Result<u64>>,
{
    loop {
        let begun = Instant::now();
        let done = batch().await?;
        *count += done;
        if done < BATCH {
            return Ok(());
        }
        pause_after(begun).await;
    }
}

/// Leaves the database to callers for as long as the last batch took.
pub(super) async fn pause_after(begun: Instant) {
    tokio::time::sleep(begun.elapsed().min(MAX_PAUSE)).await;
}

impl Operations {
    /// The time between rounds of merging.
    pub const MERGE_INTERVAL: Duration = Duration::from_mins(1);

    /// The time between counts of all users, which check the totals: a million takes some hundred milliseconds.
    pub const CHECK_TOTALS_INTERVAL: Duration = Duration::from_hours(24);

    /// The time between rounds: short enough that nothing outlives its time by a quarter, or by a minute.
    pub fn housekeeping_interval(&self) -> Duration {
        let rules = &self.rules;
        let spans = [Some(rules.session_lifetime), rules.session_idle, rules.trash_keep, rules.logs_keep];
        let shortest = spans.into_iter().flatten().min().unwrap_or(INTERVAL_BOUNDS.1);
        (shortest / 4).clamp(INTERVAL_BOUNDS.0, INTERVAL_BOUNDS.1)
    }

    /// Removes all that is due, and logs how much that was. Replicas that do it at the same time take turns, a batch each.
    ///
    /// # Errors
    ///
    /// Those of the database; rows removed so far stay removed.
    pub async fn housekeep(&self) -> Result<()> {
        let mut removed = RemovedCounts::default();
        let done = self.remove_due(&mut removed).await;
        self.housekeeping.note(&removed, done.is_ok(), Clock::System.now());
        if removed != RemovedCounts::default() {
            let RemovedCounts {
                sessions,
                events,
                attempts,
                users,
                expired_keys,
                ended_keys,
                cleared_logs,
                idempotency_keys,
                codes,
            } = removed;
            tracing::info!(
                sessions,
                events,
                attempts,
                users,
                expired_keys,
                ended_keys,
                cleared_logs,
                idempotency_keys,
                codes,
                "housekeeping removed what was due"
            );
        }
        done
    }

    async fn remove_due(&self, removed: &mut RemovedCounts) -> Result<()> {
        // What was decided already does not depend on the clock.
        removed.cleared_logs = self.clear_logs_of_purged().await?;
        if !self.clock_is_trusted().await? {
            return Ok(());
        }
        repeat(&mut removed.sessions, || self.remove_ended_sessions()).await?;
        repeat(&mut removed.events, || self.remove_old_events()).await?;
        repeat(&mut removed.expired_keys, || self.end_expired_keys(BATCH)).await?;
        repeat(&mut removed.ended_keys, || self.forget_ended_keys(BATCH)).await?;
        repeat(&mut removed.attempts, || self.remove_old_attempts()).await?;
        repeat(&mut removed.idempotency_keys, || self.remove_old_calls()).await?;
        repeat(&mut removed.codes, || self.remove_old_codes()).await?;
        self.purge_old_trash(&mut removed.users).await?;
        self.remove_replaced_assertion_keys().await?;
        removed.cleared_logs += self.clear_logs_of_purged().await?;
        Ok(())
    }

    /// Takes from the events of purged users what says where they were, as far as purging did not. Returns
    /// how many users that is.
    async fn clear_logs_of_purged(&self) -> Result<u64> {
        let mut users = 0;
        loop {
            let waiting = store::purged::waiting(self.store.reader(), BATCH).await?;
            let found = waiting.len() as u64;
            for (namespace, user) in waiting {
                loop {
                    let begun = Instant::now();
                    if !self.clear_more(&namespace, &user).await? {
                        break;
                    }
                    pause_after(begun).await;
                }
                users += 1;
            }
            if found < BATCH {
                return Ok(users);
            }
        }
    }

    /// Clears some more events of a purged user; returns true if there are still more.
    pub(super) async fn clear_more(&self, namespace: &Namespace, user: &UserId) -> Result<bool> {
        let tx = self.store.begin_as_server().await?;
        let more = store::purged::clear_next(&tx, namespace, user, BATCH).await?;
        tx.commit().await?;
        Ok(more)
    }

    /// Merges segments of the search index, in steps of some milliseconds, until there is nothing to merge.
    ///
    /// # Errors
    ///
    /// Those of the database; what was merged stays merged.
    pub async fn merge_search_index(&self) -> Result<()> {
        let mut pages = 1;
        for _ in 0..MAX_MERGE_STEPS {
            let begun = Instant::now();
            let Some(took) = self.merge(pages).await? else { return Ok(()) };
            pages = if took > MERGE_STEP { (pages / 2).max(1) } else { (pages * 2).min(MAX_PAGES) };
            pause_after(begun).await;
        }
        Ok(())
    }

    /// Compares the totals of each namespace with its users, and corrects what differs: only a change of rows by hand, with
    /// the triggers off, can bring that about.
    pub async fn check_totals(&self) -> Result<()> {
        let (db, mut after) = (self.store.reader(), String::new());
        while let Some(namespace) = store::totals::next_namespace(db, &after).await? {
            if store::totals::are_wrong(db, &namespace).await? {
                let tx = self.store.begin_as_server().await?;
                store::totals::correct(&tx, &namespace).await?;
                tx.commit().await?;
                tracing::warn!(namespace = namespace.as_str(), "corrected the totals of users and sessions");
            }
            namespace.as_str().clone_into(&mut after);
        }
        Ok(())
    }

    /// Merges about so many pages. Returns the time that it took, without those of BEGIN and COMMIT; `None` if there was
    /// nothing to merge.
    async fn merge(&self, pages: u32) -> Result<Option<Duration>> {
        let tx = self.store.begin_as_server().await?;
        let begun = Instant::now();
        let merged = store::search::merge(&tx, pages).await?;
        let took = begun.elapsed();
        tx.commit().await?;
        Ok(merged.then_some(took))
    }

    async fn remove_ended_sessions(&self) -> Result<u64> {
        let now = self.clock.now();
        let idle_since = self.rules.session_idle.map(|idle| now.minus(idle));
        let tx = self.store.begin_housekeeping().await?;
        let removed = store::sessions::delete_ended(&tx, now, idle_since, BATCH).await?;
        tx.commit().await?;
        Ok(removed)
    }

    async fn remove_old_events(&self) -> Result<u64> {
        let Some(keep) = self.rules.logs_keep else { return Ok(0) };
        let cutoff = self.clock.now().minus(keep.max(MIN_EVENT_AGE));
        let tx = self.store.begin_housekeeping().await?;
        let removed = store::events::delete_before(&tx, cutoff, BATCH).await?;
        tx.commit().await?;
        Ok(removed)
    }

    async fn remove_old_attempts(&self) -> Result<u64> {
        let tx = self.store.begin_housekeeping().await?;
        let removed = self.throttle.delete_outdated(&tx, BATCH).await?;
        tx.commit().await?;
        Ok(removed)
    }

    async fn remove_old_calls(&self) -> Result<u64> {
        let cutoff = self.clock.now().minus(MIN_CALL_AGE);
        let tx = self.store.begin_housekeeping().await?;
        let removed = store::idempotency_keys::delete_before(&tx, cutoff, BATCH).await?;
        tx.commit().await?;
        Ok(removed)
    }

    async fn remove_old_codes(&self) -> Result<u64> {
        let tx = self.store.begin_housekeeping().await?;
        let codes = store::codes::delete_expired(&tx, self.clock.now(), BATCH).await?;
        let attempts = self.throttle.delete_old_attempts(&tx, BATCH).await?;
        tx.commit().await?;
        Ok(codes + attempts)
    }

    /// Purges the users that are due, one after the other, and adds to `purged` how many those are.
    async fn purge_old_trash(&self, purged: &mut u64) -> Result<()> {
        let Some(keep) = self.rules.trash_keep else { return Ok(()) };
        let cutoff = self.clock.now().minus(keep);
        let mut failed = 0;
        loop {
            // Those that have failed are still the oldest.
            let due = store::users::trashed_before(self.store.reader(), cutoff, failed, BATCH).await?;
            let is_last = (due.len() as u64) < BATCH;
            for (namespace, user) in due {
                let begun = Instant::now();
                match self.purge_if_due(&namespace, &user, cutoff).await {
                    Ok(()) => *purged += 1,
                    Err(Error::UserNotFound) => {}
                    // The deletion of its namespace removes it.
                    Err(Error::NamespaceBeingDeleted) => failed += 1,
                    Err(error @ Error::DatabaseUnavailable(_)) => return Err(error),
                    // One that cannot be removed must not keep all others in the trash.
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "a user could not be purged and will be retried");
                        failed += 1;
                    }
                }
                pause_after(begun).await;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Fails with [`Error::UserNotFound`] if another replica was quicker, or the user was restored.
    async fn purge_if_due(&self, namespace: &Namespace, user: &UserId, cutoff: Timestamp) -> Result<()> {
        let caller = Caller::server(namespace.clone());
        let tx = self.store.begin_housekeeping_of(&caller).await?;
        let still_due = |user: &User| match user.deleted {
            Some(at) if at < cutoff => Ok(()),
            _ => Err(Error::UserNotFound),
        };
        self.remove(tx, &caller, user, still_due).await
    }
}
