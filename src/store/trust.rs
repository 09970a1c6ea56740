//! Which pooled connections are looked at before they are used.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sea_orm::DbErr;
use sea_orm::sqlx::pool::{PoolConnectionMetadata, PoolOptions};
use sea_orm::sqlx::{Connection as _, Database};
use tokio::time::timeout;

use super::fault;
use super::health::Health;
use super::stats::Stats;

/// A connection in steady use is not asked whether it still lives: that would double every read.
const MAX_UNCHECKED: Duration = Duration::from_secs(2);

/// Longest wait for the answer to a ping. A connection that takes longer is replaced.
pub(super) const MAX_PING: Duration = Duration::from_secs(1);

/// Errors that come faster than this outdate the connections once: a database that is read-only for a while
/// is not reconnected to by every call.
const MIN_BETWEEN: Duration = Duration::from_secs(1);

/// Decides from the errors of one connection which others of its pool must be pinged.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// The health of the database as the probe sees it.
    pub(super) health: Health,
    pub(super) stats: Stats,
    since: Mutex<Since>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Since {
    /// When a connection broke: those that were idle by then may be dead as well.
    broken: Option<Instant>,
    /// Connections older than this are closed: they lead to a server that is no longer the primary, or it is
    /// not known what they are in.
    outdated: Option<Instant>,
}

/// The decision about an idle connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Use,
    Ping,
    Close,
}

impl Trust {
    /// Draws conclusions from an error.
    pub(super) fn note(&self, error: &DbErr) {
        if fault::is_damaged_file(error) {
            let cause = format!("{}: {}", fault::database_message(error), super::file::RESTORE);
            self.health.note_unusable(&cause);
        } else if fault::is_read_only_server(error) {
            self.outdate();
        } else if fault::is_connection_lost(error) {
            self.suspect();
        }
    }

    /// Has every connection that is idle now pinged before it is used again.
    pub(super) fn suspect(&self) {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).broken = Some(Instant::now());
    }

    /// Has every connection that is open now closed before it is used again.
    pub(super) fn outdate(&self) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.outdated.is_none_or(|last| last.elapsed() >= MIN_BETWEEN) {
            since.outdated = Some(Instant::now());
        }
    }

    /// Another server is used now: every connection that is open is closed before it is used again, and no call waits on for
    /// one.
    pub(super) fn note_move(&self, cause: &str) {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).outdated = Some(Instant::now());
        self.health.note_move(cause);
    }

    /// Decides about a connection that was begun then and was idle for so long.
    pub(super) fn verdict(&self, begun: Instant, idle: Duration) -> Verdict {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.outdated.is_some_and(|outdated| begun <= outdated) {
            Verdict::Close
        } else if idle >= MAX_UNCHECKED || since.broken.is_some_and(|broken| idle >= broken.elapsed()) {
            Verdict::Ping
        } else {
            Verdict::Use
        }
    }

    /// A pool whose connections are looked at, if need be, before they are used.
    pub(super) fn guard<DB: Database>(self: &Arc<Self>, pool: PoolOptions<DB>) -> PoolOptions<DB> {
        let trust = Arc::clone(self);
        pool.test_before_acquire(false).before_acquire(
            move |connection, PoolConnectionMetadata { age, idle_for, .. }| {
                // One from before the machine's start was begun before anything.
                let verdict = Instant::now()
                    .checked_sub(age)
                    .map_or(Verdict::Close, |begun| trust.verdict(begun, idle_for));
                Box::pin(async move {
                    Ok(match verdict {
                        Verdict::Use => true,
                        Verdict::Ping => matches!(timeout(MAX_PING, connection.ping()).await, Ok(Ok(()))),
                        Verdict::Close => false,
                    })
                })
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;
    const BEFORE: Duration = Duration::from_secs(1);

    fn ago(span: Duration) -> Instant {
        Instant::now().checked_sub(span).unwrap()
    }

    #[test]
    fn a_connection_in_steady_use_is_not_pinged() {
        let trust = Trust::default();
        assert_eq!(trust.verdict(ago(BEFORE), NOW), Verdict::Use);
        assert_eq!(trust.verdict(ago(BEFORE), MAX_UNCHECKED), Verdict::Ping);
    }

    #[test]
    fn one_that_was_idle_when_another_broke_is_pinged() {
        let trust = Trust::default();
        trust.suspect();
        assert_eq!(trust.verdict(ago(BEFORE), BEFORE), Verdict::Ping);
        assert_eq!(trust.verdict(ago(BEFORE), NOW), Verdict::Use);
    }

    #[test]
    fn older_ones_are_closed_once_they_are_outdated() {
        let trust = Trust::default();
        trust.outdate();
        assert_eq!(trust.verdict(ago(BEFORE), NOW), Verdict::Close);
        assert_eq!(trust.verdict(ago(NOW), NOW), Verdict::Use);
    }
}
