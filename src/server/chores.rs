//! What the server does by itself beside calls, again and again.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::auth::keyring::KeyRing;
use crate::error::{Error, Result, with_causes};
use crate::ops::Operations;

use super::SERVICES;
use super::tls::Tls;

/// The tasks, which run until they are aborted.
pub(super) struct Chores {
    /// The one that shows whether the services are ready: the end of the server says so itself.
    readiness: JoinHandle<()>,
    others: Vec<JoinHandle<()>>,
}

impl Chores {
    pub(super) fn stop_showing_readiness(&self) {
        self.readiness.abort();
    }

    pub(super) fn stop(&self) {
        self.others.iter().for_each(JoinHandle::abort);
    }
}

/// Begins all of it.
pub(super) fn start(ops: &Operations, keys: &KeyRing, tls: Option<Tls>, health: HealthReporter) -> Chores {
    let store = ops.store().clone();
    let (writes, events) = (store.clone(), store.clone());
    let follow_every = ops.follow_events_every();
    let others = vec![
        tokio::spawn(keep_keys_fresh(keys.clone())),
        tokio::spawn(async move { store.report_outages().await }),
        tokio::spawn(async move { writes.watch_writes().await }),
        tokio::spawn(async move {
            if let Some(every) = follow_every {
                events.follow_events(every).await;
            }
        }),
        tokio::spawn(housekeep(ops.clone())),
        tokio::spawn(merge_search_index(ops.clone())),
        tokio::spawn(note_use_of_keys(ops.clone(), keys.clone())),
        tokio::spawn(keep_certificates_fresh(tls)),
    ];
    Chores { readiness: tokio::spawn(show_readiness(ops.clone(), health)), others }
}

/// Does something again and again. What fails is logged, once for each way in which it does, and tried again.
async fn repeat<E, Done>(every: Duration, failure: &str, work: impl Fn() -> Done)
where
    E: std::error::Error + 'static,
    Done: Future<Output = Result<(), E>>,
{
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        ticks.tick().await;
        let failed = work().await.err().map(|error| with_causes(&error));
        match &failed {
            Some(cause) if failed != told => tracing::warn!(cause, "{failure}"),
            None if told.is_some() => tracing::info!("no more: {failure}"),
            _ => {}
        }
        told = failed;
    }
}

/// `done`, but that the database is away is no failure of the chore: the log tells it once for all.
fn unless_away(ops: &Operations, done: Result<()>) -> Result<()> {
    match done {
        Err(Error::DatabaseUnavailable(_)) if !ops.store().health().answers() => Ok(()),
        done => done,
    }
}

/// Serves the services that need the database while it is there. The server as a whole, whose name is empty, lives
/// without it: starting it again would help nobody.
async fn show_readiness(ops: Operations, health: HealthReporter) {
    let mut state = ops.store().health().subscribe();
    loop {
        let ready = state.borrow_and_update().is_ready();
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in SERVICES.into_iter().filter(|service| !service.is_empty()) {
            health.set_service_status(service, status).await;
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}

/// The version of the keys is what the probe of the database asks for, so its silence is told elsewhere.
async fn keep_keys_fresh(keys: KeyRing) {
    let failure = "API keys cannot be read: after 5 s without them calls are refused";
    repeat(KeyRing::REFRESH, failure, || async {
        match keys.refresh().await {
            Err(Error::DatabaseUnavailable(_)) => Ok(()),
            done => done,
        }
    })
    .await;
}

async fn housekeep(ops: Operations) {
    let failure = "housekeeping failed, and will be tried again";
    repeat(ops.clean_up_every(), failure, || async { unless_away(&ops, ops.clean_up().await) }).await;
}

async fn merge_search_index(ops: Operations) {
    let failure = "the search index cannot be merged, and searches become slower";
    let merge = || async { unless_away(&ops, ops.merge_search_index().await) };
    repeat(Operations::MERGE_EVERY, failure, merge).await;
}

async fn note_use_of_keys(ops: Operations, keys: KeyRing) {
    let failure = "when keys were last used cannot be noted";
    repeat(KeyRing::FLUSH_INTERVAL, failure, || async { unless_away(&ops, keys.flush_last_used().await) })
        .await;
}

async fn keep_certificates_fresh(tls: Option<Tls>) {
    let Some(tls) = tls else { return };
    // Half of the files may be written yet: the next time finds them whole.
    let failure = "the certificates stay as they were";
    repeat(Tls::REFRESH, failure, || std::future::ready(tls.refresh())).await;
}
