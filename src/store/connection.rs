//! The database as one call has it: a connection to read with, or a transaction.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::{FutureExt as _, Stream};
use sea_orm::entity::prelude::async_trait::async_trait;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, Statement, StreamTrait};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::coherence::Changes;
use super::fault;
use super::health::{self, Health};
use super::lease::{Answer, Lease, Work};
use super::observer::Observer;
use super::pool::Pool;
use super::running::Running;
use crate::domain::event::Action;
use crate::error::{Error, Result};
use crate::telemetry;

/// Rows of a stream that are read ahead.
const READ_AHEAD: usize = 4;

/// A connection for the reads of one call. Dropping it stops what it still reads.
#[derive(Debug)]
pub struct Reader {
    pool: Pool,
    /// When its statements are given up.
    until: Option<Instant>,
}

impl Reader {
    pub(super) fn new(pool: Pool, until: Option<Instant>) -> Self {
        Self { pool, until }
    }

    /// The same with another observer.
    pub(super) fn observed(&self, observer: &Observer) -> Self {
        Self { pool: self.pool.observed(observer), until: self.until }
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    /// Reads. Tries once more where a connection turns out to be dead: it was lost before any row was used.
    async fn read(&self, statement: Statement, all: bool) -> Result<Vec<QueryResult>, DbErr> {
        let work = Arc::new(if all { Work::All(statement) } else { Work::One(statement) });
        let answer = match self.run(Arc::clone(&work)).await {
            Err(error) if fault::is_connection_lost(&error) => self.run(work).await,
            answer => answer,
        };
        answer?.rows()
    }

    async fn run(&self, work: Arc<Work>) -> Result<Answer, DbErr> {
        let answer = async { self.pool.acquire().await?.start(work).await.1 };
        let answer = self.pool.health().bounded(answer);
        match self.until {
            Some(until) => timeout_at(until, answer).await.unwrap_or_else(|_| Err(fault::list_too_slow())),
            None => answer.await,
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.pool.stop();
    }
}

/// Changes that are made together, or not at all. Rolled back when dropped.
#[derive(Debug)]
pub struct Transaction {
    backend: DbBackend,
    // A statement takes the connection and brings it back: one that was abandoned does not, nor does anything
    // follow it.
    lease: Mutex<Option<Lease>>,
    health: Health,
    /// The moves to another server when it began.
    moves: u64,
    changes: Arc<Changes>,
}

impl Transaction {
    /// Begins one. Tries once more where a connection turns out to be dead.
    pub(super) async fn begin(pool: &Pool, changes: Changes) -> Result<Self> {
        let moves = pool.health().moves();
        let lease = pool.health().bounded_since(moves, async {
            match Self::open(pool).await {
                Err(error) if fault::is_connection_lost(&error) => Self::open(pool).await,
                opened => opened,
            }
        });
        let lease = lease.await?;
        let (backend, health) = (pool.backend(), pool.health().clone());
        Ok(Self { backend, lease: Mutex::new(Some(lease)), health, moves, changes: Arc::new(changes) })
    }

    async fn open(pool: &Pool) -> Result<Lease, DbErr> {
        let (lease, begun) = pool.acquire().await?.start(Arc::new(Work::Begin)).await;
        begun.map(|_| lease)
    }

    /// Commits the changes. If the caller leaves, the database still gets to answer: a COMMIT is never cut in
    /// two.
    ///
    /// # Errors
    ///
    /// [`Error::OutcomeUnknown`] if the database may have made the changes; any other: it has not. One after
    /// a failed statement: PostgreSQL answers COMMIT with a rollback then, and that is no error to the
    /// driver.
    pub async fn commit(self) -> Result<()> {
        let lease = self.lease.into_inner().filter(Lease::is_sound).ok_or_else(|| {
            Error::internal("refused to commit: a statement of the transaction failed or was abandoned")
        })?;
        if self.health.moves() != self.moves {
            return Err(health::unavailable("another server became the primary meanwhile"));
        }
        let (finish, finished) = oneshot::channel();
        let changes = Arc::clone(&self.changes);
        let commit = async move {
            let (_lease, answer) = lease.run(Arc::new(Work::Commit)).await;
            // Whatever came of it: the changes may have been made.
            changes.note();
            if let Err(Err(error)) = finish.send(answer) {
                tracing::warn!(%error, "a COMMIT failed after its caller had left");
            }
        };
        telemetry::spawn(commit);
        let finished = tokio::select! {
            biased;
            finished = finished => finished,
            cause = self.health.given_up(self.moves) => {
                self.changes.note();
                return Err(Error::OutcomeUnknown(cause.to_string().into()));
            }
        };
        match finished {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(fault::at_commit(error)),
            Err(error) => {
                self.changes.note();
                Err(Error::OutcomeUnknown(error.into()))
            }
        }
    }

    /// Says that the transaction writes an event of `action` about a user. When it has ended, nothing that was read of the
    /// user before is used any more.
    pub(super) fn note_change(&self, namespace: &str, user: &str, action: Action) {
        self.changes.add(namespace, user, action);
    }

    async fn run(&self, work: Work) -> Result<Answer, DbErr> {
        let mut slot = self.lease.lock().await;
        let lease = slot.take().ok_or_else(abandoned)?;
        let done = async { Ok::<_, DbErr>(lease.start(Arc::new(work)).await) };
        let (lease, answer) = self.health.bounded_since(self.moves, done).await?;
        *slot = Some(lease);
        answer
    }
}

fn abandoned() -> DbErr {
    DbErr::Custom("a statement of a transaction followed one that was abandoned".to_owned())
}

#[async_trait]
impl ConnectionTrait for Reader {
    fn get_database_backend(&self) -> DbBackend {
        self.pool.backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.run(Arc::new(Work::Execute(statement))).await?.done()
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.run(Arc::new(Work::Script(sql.to_owned()))).await?.done()
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        Ok(self.read(statement, false).await?.pop())
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.read(statement, true).await
    }
}

/// Rows, as the database sends them.
pub struct Rows {
    received: mpsc::Receiver<Result<QueryResult, DbErr>>,
    /// Reads them; `None` once all are read. Rows come only while this is polled.
    feed: Option<Running<()>>,
    /// Ends when they are given up.
    until: Option<Pin<Box<Sleep>>>,
    /// Completes when the database does not answer.
    away: Pin<Box<dyn Future<Output = Arc<str>> + Send>>,
}

impl Rows {
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        self.until.as_mut().is_some_and(|until| until.as_mut().poll(context).is_ready())
    }
}

impl Stream for Rows {
    type Item = Result<QueryResult, DbErr>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(row) = self.received.poll_recv(context) {
            return Poll::Ready(row);
        }
        if let Some(feed) = &mut self.feed
            && Pin::new(feed).poll(context).is_ready()
        {
            self.feed = None;
        }
        let row = self.received.poll_recv(context);
        if row.is_pending()
            && let Poll::Ready(cause) = self.away.as_mut().poll(context)
        {
            return Poll::Ready(Some(Err(health::away(&cause))));
        }
        match row {
            Poll::Pending if self.is_over(context) => Poll::Ready(Some(Err(fault::list_too_slow()))),
            row => row,
        }
    }
}

/// Sends the rows of `statement` as they come. Tries once more where a connection turns out to be dead.
async fn feed(pool: Pool, statement: Statement, rows: mpsc::Sender<Result<QueryResult, DbErr>>) {
    for again in [true, false] {
        let result = match pool.acquire().await {
            Ok(mut lease) => {
                let sent = lease.send_rows(&statement, &rows).await;
                if rows.is_closed() {
                    // The statement may still run: the next one would have to wait for it.
                    lease.answers_ping().await;
                }
                sent
            }
            Err(error) => Err(error),
        };
        match result {
            Err(error) if again && fault::is_connection_lost(&error) => {}
            Err(error) => {
                rows.send(Err(error)).await.unwrap_or_default();
                return;
            }
            Ok(()) => return,
        }
    }
}

impl StreamTrait for Reader {
    type Stream<'a> = Rows;

    fn get_database_backend(&self) -> DbBackend {
        self.pool.backend()
    }

    fn stream_raw<'a>(
        &'a self,
        statement: Statement,
    ) -> Pin<Box<dyn Future<Output = Result<Self::Stream<'a>, DbErr>> + 'a + Send>> {
        let (sender, rows) = mpsc::channel(READ_AHEAD);
        let feed = Some(Running::new(feed(self.pool.clone(), statement, sender)));
        let until = self.until.map(|until| Box::pin(sleep_until(until)));
        let (health, moves) = (self.pool.health().clone(), self.pool.health().moves());
        let away = Box::pin(async move { health.given_up(moves).await }.fuse());
        Box::pin(async move { Ok(Rows { received: rows, feed, until, away }) })
    }
}

#[async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        self.backend
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.run(Work::Execute(statement)).await?.done()
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.run(Work::Script(sql.to_owned())).await?.done()
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        Ok(self.run(Work::One(statement)).await?.rows()?.pop())
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.run(Work::All(statement)).await?.rows()
    }
}

#[cfg(test)]
mod tests {
    use crate::store::Store;

    #[tokio::test]
    async fn a_waiter_gets_the_connection_when_it_is_free() {
        let folder = tempfile::TempDir::new().unwrap();
        let url = format!("sqlite://{}/usersd.db?mode=rwc", folder.path().display());
        let store = Store::connect(&url, 1).await.unwrap();
        let pool = store.reader().pool.clone();
        let first = pool.acquire().await.unwrap();
        let second = tokio::spawn(async move { pool.acquire().await.map(drop) });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap().unwrap();
        store.close().await;
        assert!(store.reader().pool.acquire().await.is_err(), "closed");
    }

    #[test]
    fn a_transaction_that_outlives_its_runtime_is_dropped() {
        let folder = tempfile::TempDir::new().unwrap();
        let url = format!("sqlite://{}/usersd.db?mode=rwc", folder.path().display());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (store, tx) = runtime.block_on(async {
            let store = Store::connect(&url, 1).await.unwrap();
            let tx = store.begin_as_server().await.unwrap();
            (store, tx)
        });
        let tasks = runtime.handle().clone();
        runtime.shutdown_background();
        let _entered = tasks.enter();
        drop(tx);
        drop(store);
    }
}
