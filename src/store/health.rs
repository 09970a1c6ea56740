//! The state of the database as the probe sees it: one state for readiness, for refusing calls and for the
//! log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sea_orm::{DbErr, RuntimeErr};
use tokio::sync::watch;

use crate::error::{Error, Result, with_causes};

use super::Store;

/// The time for which calls in flight go on waiting for a database that does not answer: it may be a moment's
/// silence.
const GRACE: Duration = Duration::from_millis(500);

/// The time between probes of a database that takes no writes.
const RETRY_WRITE: Duration = Duration::from_millis(400);

/// The longest time that such a write may take.
const WRITE_LIMIT: Duration = Duration::from_secs(2);

/// Something that is wrong with the database.
#[derive(Clone, Debug)]
pub struct Fault {
    /// When it began.
    pub since: Instant,
    /// Why, in the database's own words.
    pub cause: Arc<str>,
}

/// The faults of the database now, if it has any.
#[derive(Clone, Debug)]
pub struct State {
    /// It does not answer.
    pub silent: Option<Fault>,
    /// It answers, and a commit failed, and no write has succeeded since. SQLite alone: there is nothing else
    /// to ask.
    pub unwritable: Option<Fault>,
    /// The file of SQLite is damaged or was replaced, which only a new start can end.
    pub unusable: Option<Fault>,
    /// The moves to another server so far, and why the last one was made.
    pub(super) moves: (u64, Arc<str>),
}

impl Default for State {
    fn default() -> Self {
        Self { silent: None, unwritable: None, unusable: None, moves: (0, "".into()) }
    }
}

impl State {
    /// Returns true if the database can serve reads and writes.
    pub fn is_ready(&self) -> bool {
        self.silent.is_none() && self.unwritable.is_none() && self.unusable.is_none()
    }
}

/// The state of the database, shared by all that follow it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health {
    state: Arc<watch::Sender<State>>,
}

impl Health {
    /// A view of the state that can wait for changes.
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Returns true if the database answers.
    pub fn answers(&self) -> bool {
        self.state.borrow().silent.is_none()
    }

    /// Rejects immediately while the database does not answer: queueing for a connection would only add
    /// latency. So it does once the database cannot be used any more.
    pub fn check(&self) -> Result<()> {
        let state = self.state.borrow();
        match state.unusable.as_ref().or(state.silent.as_ref()) {
            Some(fault) => Err(unavailable(&fault.cause)),
            None => Ok(()),
        }
    }

    /// The moves to another server so far: what began before the last one is on a connection that leads nowhere.
    pub(super) fn moves(&self) -> u64 {
        self.state.borrow().moves.0
    }

    /// Awaits `work` for as long as the database answers: gives up half a second after it was found silent.
    ///
    /// # Errors
    ///
    /// Those of `work`, and a [`DbErr`] that becomes [`Error::DatabaseUnavailable`].
    pub(super) async fn bounded<T, E: From<DbErr>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.bounded_since(self.moves(), work).await
    }

    /// As [`Health::bounded`], for work of which a part was done when there were so many moves to another server.
    pub(super) async fn bounded_since<T, E: From<DbErr>>(
        &self,
        moves: u64,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            biased;
            done = work => done,
            cause = self.given_up(moves) => Err(away(&cause).into()),
        }
    }

    /// Completes when the database has been silent for longer than a moment, or there are more moves than `moves`.
    pub(super) async fn given_up(&self, moves: u64) -> Arc<str> {
        let mut state = self.state.subscribe();
        loop {
            let lost = |state: &State| state.silent.is_some() || state.moves.0 != moves;
            if state.wait_for(lost).await.is_err() {
                // Never so: the sender is ours.
                std::future::pending::<()>().await;
            }
            let now = state.borrow().clone();
            if now.moves.0 != moves {
                return now.moves.1;
            }
            let cause = now.silent.map(|fault| fault.cause);
            let answered = state.wait_for(|state| state.silent.is_none());
            if tokio::time::timeout(GRACE, answered).await.is_err() {
                return cause.unwrap_or_default();
            }
        }
    }

    /// The probe had its answer.
    pub(super) fn note_answer(&self) {
        self.state.send_if_modified(|state| state.silent.take().is_some());
    }

    /// The probe, which asked at `since`, had no answer.
    pub(super) fn note_silence(&self, since: Instant, cause: &str) {
        note(&self.state, |state| &mut state.silent, since, cause);
    }

    /// Another server is used now: no answer of the one before is waited for.
    pub(super) fn note_move(&self, cause: &str) {
        self.state.send_modify(|state| state.moves = (state.moves.0 + 1, cause.into()));
    }

    /// A commit failed, so the database takes no writes until one has succeeded. For SQLite: PostgreSQL tells
    /// by itself when it is in trouble.
    pub fn note_commit_failure(&self, cause: &str) {
        note(&self.state, |state| &mut state.unwritable, Instant::now(), cause);
    }

    /// The file is damaged or was replaced: nothing is served from it until the next start.
    pub(super) fn note_unusable(&self, cause: &str) {
        note(&self.state, |state| &mut state.unusable, Instant::now(), cause);
    }

    /// Fails if the file is damaged or was replaced.
    pub(super) fn usable(&self) -> Result<(), DbErr> {
        self.state.borrow().unusable.as_ref().map_or(Ok(()), |fault| Err(away(&fault.cause)))
    }

    /// Returns true if the file was replaced or is damaged: closing it in order would write to it.
    pub fn is_unusable(&self) -> bool {
        self.state.borrow().unusable.is_some()
    }

    fn note_write(&self) {
        self.state.send_if_modified(|state| state.unwritable.take().is_some());
    }
}

/// Notes a fault, with its newest cause and the time of its first. Tells those who wait only if it is new.
fn note(
    state: &watch::Sender<State>,
    fault: impl FnOnce(&mut State) -> &mut Option<Fault>,
    since: Instant,
    cause: &str,
) {
    state.send_if_modified(|state| {
        let fault = fault(state);
        let new = fault.is_none();
        let since = fault.as_ref().map_or(since, |fault| fault.since);
        *fault = Some(Fault { since, cause: cause.into() });
        new
    });
}

/// The error of a statement that was given up since the database does not answer.
pub(super) fn away(cause: &str) -> DbErr {
    DbErr::Conn(RuntimeErr::Internal(cause.to_owned()))
}

/// The error of calls while the database is away, for `cause`.
pub(super) fn unavailable(cause: &str) -> Error {
    Error::DatabaseUnavailable(cause.into())
}

impl Store {
    /// The state of the database.
    pub fn health(&self) -> &Health {
        &self.trust.health
    }

    /// Tries a write again and again after a commit failed, until one succeeds. Never returns.
    pub async fn watch_writes(&self) {
        let mut state = self.health().subscribe();
        while state.wait_for(|state| state.unwritable.is_some()).await.is_ok() {
            tokio::time::sleep(RETRY_WRITE).await;
            match tokio::time::timeout(WRITE_LIMIT, self.try_write()).await {
                Ok(Ok(())) => self.health().note_write(),
                Ok(Err(error)) => tracing::debug!(cause = with_causes(&error), "the write probe failed"),
                Err(_) => tracing::debug!("the write probe timed out"),
            }
        }
    }

    /// Writes one row as it is.
    async fn try_write(&self) -> Result<()> {
        let tx = self.begin_as_server().await?;
        super::keys::rewrite_version(&tx).await?;
        tx.commit().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_in_flight_outlives_a_moments_silence_and_no_more() {
        let health = Health::default();
        let slow = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok::<_, DbErr>(7)
        };
        health.note_silence(Instant::now(), "connection refused");
        assert!(health.check().is_err());
        assert_eq!(health.bounded(slow).await.unwrap(), 7);
        let stuck = health.bounded(std::future::pending::<Result<(), DbErr>>());
        let refused = Error::from(stuck.await.unwrap_err());
        assert!(
            matches!(&refused, Error::DatabaseUnavailable(cause) if cause.to_string().contains("refused"))
        );
        health.note_answer();
        assert!(health.check().is_ok());
    }

    #[tokio::test]
    async fn a_call_in_flight_is_given_up_when_another_server_is_used() {
        let health = Health::default();
        health.note_move("served by h2 now");
        let waiting = health.bounded(std::future::pending::<Result<(), DbErr>>());
        let (refused, ()) = tokio::join!(waiting, async { health.note_move("served by h1 now") });
        let refused = Error::from(refused.unwrap_err());
        assert!(matches!(&refused, Error::DatabaseUnavailable(cause) if cause.to_string().contains("h1")));
        assert!(health.check().is_ok());
    }

    #[test]
    fn a_fault_keeps_the_time_of_its_first_cause() {
        let health = Health::default();
        let since = Instant::now();
        health.note_silence(since, "no answer");
        health.note_silence(since + Duration::from_secs(1), "connection refused");
        let silent = health.subscribe().borrow().silent.clone().unwrap();
        assert_eq!((silent.since, &*silent.cause), (since, "connection refused"));
        health.note_commit_failure("disk full");
        health.note_answer();
        assert!(health.answers() && !health.subscribe().borrow().is_ready());
        health.note_write();
        assert!(health.subscribe().borrow().is_ready());
    }
}
