//! A read replica, from which lists and searches of users are read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use crate::domain::caller::Caller;
use crate::error::tally::LogLimiter;
use crate::error::{Error, Result, with_causes};

use super::observer::Observer;
use super::probe::Probe;
use super::shared::Shared;
use super::trust::Trust;
use super::{Reader, Store};

/// The time between questions whether it answers.
const ASK_INTERVAL: Duration = Duration::from_millis(500);

/// Limits the log line about lists that the primary has to be asked for.
static FAILED: LogLimiter = LogLimiter::after(1);

/// A server that has what the primary has, a little later. It is used while it answers: the primary has its own connections,
/// so nothing waits for it.
#[derive(Clone, Debug)]
pub(super) struct Replica {
    shared: Shared,
    trust: Arc<Trust>,
    probe: Arc<Probe>,
}

impl Replica {
    pub(super) fn new(shared: Shared, trust: Arc<Trust>, probe: Probe) -> Self {
        trust.health.note_silence(Instant::now(), "it was not asked yet");
        Self { shared, trust, probe: Arc::new(probe) }
    }

    /// The same; `observer` is called for each statement.
    pub(super) fn observed(&self, observer: &Observer) -> Self {
        Self { shared: self.shared.observed(observer), ..self.clone() }
    }

    pub(super) async fn close(&self) {
        self.shared.close().await;
    }

    /// Asks whether it answers what it must, now and again. Never returns.
    async fn watch(&self) {
        let mut ticks = interval(ASK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut warned = false;
        loop {
            ticks.tick().await;
            match self.probe.ask(&self.trust).await {
                Ok(_) if std::mem::take(&mut warned) => {
                    tracing::info!("read replica answers again: lists are read from it");
                }
                Ok(_) => {}
                Err(error) => {
                    self.trust.health.note_silence(Instant::now(), &with_causes(&error));
                    if !std::mem::replace(&mut warned, true) {
                        tracing::warn!(
                            cause = with_causes(&error),
                            "read replica does not answer: the primary is asked for lists"
                        );
                    }
                }
            }
        }
    }
}

impl Store {
    /// Returns a connection to the read replica for one list, when it is the caller's turn there; `None` while there is no
    /// replica that answers, and the primary is to be asked. Statements are given up after `span`.
    ///
    /// # Errors
    ///
    /// [`Error::DatabaseUnavailable`] if no connection comes free in time: an overloaded replica does not pass its load on.
    pub async fn read_replica(&self, caller: &Caller, span: Duration) -> Result<Option<Reader>> {
        let answering = |replica: &&Replica| replica.trust.health.answers();
        let Some(replica) = self.replica.as_ref().filter(answering) else { return Ok(None) };
        let (health, moves) = (&replica.trust.health, replica.trust.health.moves());
        match health.bounded_since(moves, replica.shared.turn(&caller.flow())).await {
            Ok(turn) => Ok(Some(Reader::new(turn, tokio::time::Instant::now().checked_add(span)))),
            Err(_) if !health.answers() || health.moves() != moves => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns true if `error`, of a list from the replica, is a reason to ask the primary: the replica was lost, ended the
    /// statement in favour of its replay, or lacks a migration yet.
    pub fn is_replica_failure(&self, error: &Error) -> bool {
        let failed = matches!(error, Error::DatabaseUnavailable(_) | Error::Internal(_));
        if failed
            && self.replica.is_some()
            && let Some(lists) = FAILED.count()
        {
            let cause = with_causes(error);
            tracing::warn!(cause, lists, "read replica failed: the primary was asked for lists");
        }
        failed
    }

    /// Asks the read replica, if there is one, whether it answers. Never returns.
    pub async fn watch_replica(&self) {
        match &self.replica {
            Some(replica) => replica.watch().await,
            None => std::future::pending().await,
        }
    }
}
