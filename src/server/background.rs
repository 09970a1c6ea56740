//! Periodic background tasks of the server.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::auth::keyring::KeyRing;
use crate::error::{Error, Result, with_causes};
use crate::ops::Operations;

use super::health::Health;
use super::metrics::Calls;
use super::tls::Tls;

/// The tasks, which run until they are aborted.
pub(super) struct BackgroundTasks {
    /// The one that shows whether the services are ready: the end of the server says so itself.
    readiness: JoinHandle<()>,
    others: Vec<JoinHandle<()>>,
}

impl BackgroundTasks {
    pub(super) fn stop_showing_readiness(&self) {
        self.readiness.abort();
    }

    pub(super) fn stop(&self) {
        self.others.iter().for_each(JoinHandle::abort);
    }
}

/// Starts the tasks.
pub(super) fn start(
    ops: &Operations,
    keys: &KeyRing,
    tls: Option<Tls>,
    health: Health,
    calls: Calls,
) -> BackgroundTasks {
    let store = ops.store().clone();
    let (writes, events, file, replica) = (store.clone(), store.clone(), store.clone(), store.clone());
    let follow_every = ops.follow_events_every();
    let others = vec![
        tokio::spawn(reload_keys(keys.clone())),
        tokio::spawn(async move { store.report_outages(|| calls.failures()).await }),
        tokio::spawn(async move { writes.watch_writes().await }),
        tokio::spawn(async move { file.watch_file().await }),
        tokio::spawn(async move { replica.watch_replica().await }),
        tokio::spawn(async move {
            if let Some(every) = follow_every {
                events.follow_events(every).await;
            }
        }),
        tokio::spawn(refresh_assertion_keys(ops.clone())),
        tokio::spawn(housekeep(ops.clone())),
        tokio::spawn(merge_search_index(ops.clone())),
        tokio::spawn(check_totals(ops.clone())),
        tokio::spawn(delete_namespaces(ops.clone())),
        tokio::spawn(flush_last_used(ops.clone(), keys.clone())),
        tokio::spawn(reload_certificates(tls)),
    ];
    BackgroundTasks { readiness: tokio::spawn(async move { health.follow().await }), others }
}

/// Runs `work` periodically. A failure is logged when it begins, when its cause changes, and when it has
/// ended.
async fn run_periodically<E, Done>(every: Duration, failure: &str, work: impl Fn() -> Done)
where
    E: std::error::Error + 'static,
    Done: Future<Output = Result<(), E>>,
{
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_logged = None;
    loop {
        ticks.tick().await;
        let failed = work().await.err().map(|error| with_causes(&error));
        match &failed {
            Some(cause) if failed != last_logged => tracing::warn!(cause, "{failure}"),
            None if last_logged.is_some() => tracing::info!("recovered: {failure}"),
            _ => {}
        }
        last_logged = failed;
    }
}

/// Ignores that the database is away: the log reports an outage once for all tasks.
fn unless_away(ops: &Operations, done: Result<()>) -> Result<()> {
    match done {
        Err(Error::DatabaseUnavailable(_)) if !ops.store().health().answers() => Ok(()),
        done => done,
    }
}

/// The probe of the database asks for the version of the keys, so an outage is logged elsewhere.
async fn reload_keys(keys: KeyRing) {
    let failure = "API keys cannot be read: after 5 s without them calls are refused";
    run_periodically(KeyRing::REFRESH, failure, || async {
        match keys.refresh().await {
            Err(Error::DatabaseUnavailable(_)) => Ok(()),
            done => done,
        }
    })
    .await;
}

async fn refresh_assertion_keys(ops: Operations) {
    let failure = "the keys of assertions cannot be read or renewed: the old ones stay in use";
    run_periodically(Operations::REFRESH_ASSERTION_KEYS, failure, || async {
        unless_away(&ops, ops.refresh_assertion_keys().await.map(drop))
    })
    .await;
}

async fn housekeep(ops: Operations) {
    let failure = "housekeeping failed and will be retried";
    run_periodically(ops.housekeeping_interval(), failure, || async {
        unless_away(&ops, ops.housekeep().await)
    })
    .await;
}

async fn merge_search_index(ops: Operations) {
    let failure = "the search index cannot be merged, and searches become slower";
    let merge = || async { unless_away(&ops, ops.merge_search_index().await) };
    run_periodically(Operations::MERGE_INTERVAL, failure, merge).await;
}

async fn check_totals(ops: Operations) {
    let failure = "the numbers of users cannot be checked";
    run_periodically(Operations::CHECK_TOTALS_INTERVAL, failure, || async {
        unless_away(&ops, ops.check_totals().await)
    })
    .await;
}

async fn delete_namespaces(ops: Operations) {
    let failure = "rows of a deleted namespace cannot be removed";
    run_periodically(Operations::DELETE_NAMESPACES_INTERVAL, failure, || async {
        unless_away(&ops, ops.delete_namespaces().await)
    })
    .await;
}

async fn flush_last_used(ops: Operations, keys: KeyRing) {
    let failure = "the times at which keys were last used cannot be saved";
    run_periodically(KeyRing::FLUSH_INTERVAL, failure, || async {
        unless_away(&ops, keys.flush_last_used().await)
    })
    .await;
}

async fn reload_certificates(tls: Option<Tls>) {
    let Some(tls) = tls else { return };
    // The files may be half written: the next round finds them whole.
    let failure = "TLS certificates cannot be reloaded: the old ones stay in use";
    run_periodically(Tls::REFRESH, failure, || std::future::ready(tls.refresh())).await;
}
