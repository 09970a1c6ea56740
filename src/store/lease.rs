//! One connection on loan from its pool, and what becomes of it.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use sea_orm::sqlx::pool::PoolConnection;
use sea_orm::sqlx::{self, AssertSqlSafe, Either, Executor as _, PgPool, Postgres, Sqlite, SqlitePool};
use sea_orm::{
    ConnAcquireErr, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement,
    Values,
};
use sea_query_sqlx::SqlxValues;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::fault;
use super::health::Health;
use super::observer::Observer;
use super::running::{MAX_ABANDONED, Running};
use super::shared::Turn;
use super::trust::Trust;

/// Longest that a statement may take. PostgreSQL itself ends one after 30 s (`statement_timeout`), so that only a
/// connection that went silent gets here.
const MAX_STATEMENT: Duration = Duration::from_secs(35);

/// Connections to one database.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    inner: Inner,
    observer: Observer,
    trust: Arc<Trust>,
    /// The turn of the call that uses it, which lasts until its last statement has ended; the server needs none.
    turn: Option<Arc<Turn>>,
}

#[derive(Clone, Debug)]
enum Inner {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Pool {
    /// The pool behind the library's connection.
    pub(super) fn of(db: &DatabaseConnection, observer: Observer, trust: Arc<Trust>) -> Self {
        let inner = match db.get_database_backend() {
            DbBackend::Sqlite => Inner::Sqlite(db.get_sqlite_connection_pool().clone()),
            _ => Inner::Postgres(db.get_postgres_connection_pool().clone()),
        };
        Self { inner, observer, trust, turn: None }
    }

    /// The same with another observer.
    pub(super) fn observed(mut self, observer: &Observer) -> Self {
        self.observer = observer.clone();
        self
    }

    /// The same for a call whose turn it is.
    pub(super) fn during(&self, turn: Turn) -> Self {
        Self { turn: Some(Arc::new(turn)), ..self.clone() }
    }

    /// Stops what still runs in this turn.
    pub(super) fn stop(&self) {
        if let Some(turn) = &self.turn {
            Turn::stop(turn);
        }
    }

    /// Closes its connections.
    pub(super) async fn close(&self) {
        match &self.inner {
            Inner::Sqlite(pool) => pool.close().await,
            Inner::Postgres(pool) => pool.close().await,
        }
    }

    /// The state of the database, as the probe sees it.
    pub(super) fn health(&self) -> &Health {
        &self.trust.health
    }

    pub(super) fn backend(&self) -> DbBackend {
        match self.inner {
            Inner::Sqlite(_) => DbBackend::Sqlite,
            Inner::Postgres(_) => DbBackend::Postgres,
        }
    }

    /// Returns a connection that is in no transaction.
    pub(super) async fn acquire(&self) -> Result<Lease, DbErr> {
        let acquired = match &self.inner {
            Inner::Sqlite(pool) => pool.acquire().await.map(Connection::Sqlite),
            Inner::Postgres(pool) => pool.acquire().await.map(Connection::Postgres),
        };
        let connection = acquired.map_err(|error| match error {
            sqlx::Error::PoolTimedOut => DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
            sqlx::Error::PoolClosed => DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed),
            error => DbErr::Conn(RuntimeErr::SqlxError(error.into())),
        })?;
        Ok(Lease { connection: Some(connection), state: State::Idle, pool: self.clone() })
    }
}

#[derive(Debug)]
enum Connection {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

/// Evaluates an expression with the connection of either database.
macro_rules! on_either {
    ($connection:expr, $name:ident => $body:expr) => {
        match $connection {
            Connection::Sqlite($name) => $body,
            Connection::Postgres($name) => $body,
        }
    };
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is in no transaction.
    Idle,
    /// It is in a transaction, in which nothing has gone wrong.
    Open,
    /// It is in a transaction in which a constraint refused a statement.
    Failed,
    /// Nothing: a statement is under way, or has failed in a way that leaves it open what the connection is in.
    Unknown,
}

/// What a connection is asked to do.
#[derive(Debug)]
pub(super) enum Work {
    Begin,
    Commit,
    Rollback,
    Execute(Statement),
    Script(String),
    One(Statement),
    All(Statement),
}

impl Work {
    fn statement(&self) -> Option<&Statement> {
        match self {
            Self::Execute(statement) | Self::One(statement) | Self::All(statement) => Some(statement),
            _ => None,
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Answer {
    Done(ExecResult),
    Rows(Vec<QueryResult>),
    /// Of what begins or ends a transaction.
    Nothing,
}

impl Answer {
    pub(super) fn done(self) -> Result<ExecResult, DbErr> {
        let Self::Done(done) = self else {
            return Err(DbErr::Custom("a statement has no result".to_owned()));
        };
        Ok(done)
    }

    pub(super) fn rows(self) -> Result<Vec<QueryResult>, DbErr> {
        let Self::Rows(rows) = self else { return Err(DbErr::Custom("a query has no rows".to_owned())) };
        Ok(rows)
    }
}

/// A connection that only its owner uses.
///
/// Transactions are begun and ended by statements of ours, and a connection goes back to its pool only when it is
/// certain that it is in none: after an answered COMMIT or ROLLBACK, or outside of any. Every other one is closed. The
/// driver's own transactions are not used: where SQLite rolls back by itself, as it does when a COMMIT meets a full disk,
/// the driver goes on counting one as open, and the library opens savepoints in it that no COMMIT ever reaches
/// (transact-rs/sqlx#3742).
///
/// Dropping one rolls its transaction back.
#[derive(Debug)]
pub(super) struct Lease {
    connection: Option<Connection>,
    state: State,
    pool: Pool,
}

impl Lease {
    /// Returns true if it is in a transaction in which no statement failed.
    pub(super) fn is_sound(&self) -> bool {
        self.state == State::Open
    }

    /// Does `work`. A task sees it through if its caller leaves.
    pub(super) fn start(self, work: Arc<Work>) -> Running<(Self, Result<Answer, DbErr>)> {
        Running::new(self.run(work))
    }

    pub(super) async fn run(mut self, work: Arc<Work>) -> (Self, Result<Answer, DbErr>) {
        let before = self.state;
        let usable = matches!(before, State::Idle | State::Open) || matches!(*work, Work::Rollback);
        let Some(connection) = self.connection.as_mut().filter(|_| usable) else {
            return (self, Err(refused()));
        };
        self.state = State::Unknown;
        let started = Instant::now();
        let result = match timeout(MAX_STATEMENT, connection.run(&work)).await {
            Ok(result) => result.map_err(|error| failed(&work, error)),
            Err(_) => Err(silent()),
        };
        if let Some(statement) = work.statement() {
            self.pool.observer.see(statement, started.elapsed());
        }
        self.settle(before, &work, result.as_ref().err());
        (self, result)
    }

    /// Notes what the connection is in after `work`.
    fn settle(&mut self, before: State, work: &Work, error: Option<&DbErr>) {
        self.state = match (error, work, before) {
            (None, Work::Begin, _) => State::Open,
            (None, Work::Commit | Work::Rollback, _) => State::Idle,
            (None, ..) => before,
            (Some(_), Work::Begin | Work::Commit | Work::Rollback, _) => State::Unknown,
            (Some(error), _, State::Open) if fault::is_constraint(error) => State::Failed,
            (Some(error), _, State::Idle) if !fault::spoils_connection(error) => State::Idle,
            (Some(_), ..) => State::Unknown,
        };
        if let Some(error) = error {
            self.pool.trust.note(error);
            if matches!(work, Work::Commit) && self.pool.backend() == DbBackend::Sqlite {
                self.pool.health().note_commit_failure(&fault::words(error));
            }
        }
    }

    /// Sends the rows of `statement` as they come, until the receiver is gone. Gives the error back if no row was sent.
    pub(super) async fn send_rows(
        &mut self,
        statement: &Statement,
        rows: &mpsc::Sender<Result<QueryResult, DbErr>>,
    ) -> Result<(), DbErr> {
        let before = mem::replace(&mut self.state, State::Unknown);
        let Some(connection) = self.connection.as_mut() else { return Err(refused()) };
        let mut sent = false;
        let started = Instant::now();
        let fed = timeout(MAX_STATEMENT, connection.send_rows(statement, rows, &mut sent)).await;
        self.pool.observer.see(statement, started.elapsed());
        let error = match fed {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(DbErr::Query(RuntimeErr::SqlxError(error.into()))),
            Err(_) => Some(silent()),
        };
        self.settle(before, &Work::All(Statement::from_string(self.pool.backend(), "")), error.as_ref());
        match error {
            Some(error) if sent => {
                // A receiver that has gone needs no error.
                rows.send(Err(error)).await.unwrap_or_default();
                Ok(())
            }
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (Some(connection), Ok(tasks)) = (self.connection.take(), Handle::try_current()) else { return };
        match self.state {
            State::Idle => connection.release(&tasks),
            State::Unknown => {
                self.pool.trust.suspect();
                connection.close(&tasks);
            }
            State::Open | State::Failed => {
                // Closed if the task never runs, as when the runtime ends.
                let lease =
                    Self { connection: Some(connection), state: State::Unknown, pool: self.pool.clone() };
                tasks.spawn(timeout(MAX_ABANDONED, async move {
                    // Kept or closed when it is dropped, by what came of this.
                    let (_lease, rolled_back) = lease.run(Arc::new(Work::Rollback)).await;
                    if let Err(error) = rolled_back {
                        tracing::warn!(%error, "ROLLBACK failed; its connection is closed");
                    }
                }));
            }
        }
    }
}

impl Connection {
    async fn run(&mut self, work: &Work) -> Result<Answer, sqlx::Error> {
        match work {
            Work::Begin => {
                // On SQLite it takes the write lock at once: one that read first and then could not get it would
                // fail without waiting for it. In an open transaction it fails.
                let begin = if matches!(self, Self::Sqlite(_)) { "BEGIN IMMEDIATE" } else { "BEGIN" };
                self.control(begin).await
            }
            Work::Commit => self.control("COMMIT").await,
            Work::Rollback => self.control("ROLLBACK").await,
            Work::Execute(statement) => {
                on_either!(self, c => query(statement).execute(&mut **c).await.map(|done| Answer::Done(done.into())))
            }
            Work::Script(sql) => {
                let sql = AssertSqlSafe(sql.clone());
                on_either!(self, c => (&mut **c).execute(sql).await.map(|done| Answer::Done(done.into())))
            }
            Work::One(statement) => {
                on_either!(self, c => query(statement).fetch_optional(&mut **c).await
                    .map(|row| Answer::Rows(row.into_iter().map(QueryResult::from).collect())))
            }
            Work::All(statement) => {
                on_either!(self, c => query(statement).fetch_all(&mut **c).await
                    .map(|rows| Answer::Rows(rows.into_iter().map(QueryResult::from).collect())))
            }
        }
    }

    /// Runs a statement that begins or ends a transaction.
    async fn control(&mut self, sql: &'static str) -> Result<Answer, sqlx::Error> {
        let mut answers = 0;
        on_either!(self, c => {
            let mut stream = (&mut **c).fetch_many(sql);
            while let Some(answer) = stream.try_next().await? {
                answers += usize::from(matches!(answer, Either::Left(_)));
            }
        });
        // When the thread of an SQLite connection has ended, the driver reports an empty answer, not an error.
        if answers == 1 { Ok(Answer::Nothing) } else { Err(sqlx::Error::WorkerCrashed) }
    }

    async fn send_rows(
        &mut self,
        statement: &Statement,
        receiver: &mpsc::Sender<Result<QueryResult, DbErr>>,
        sent: &mut bool,
    ) -> Result<(), sqlx::Error> {
        on_either!(self, c => {
            let mut rows = query(statement).fetch(&mut **c);
            while let Some(row) = rows.try_next().await? {
                *sent = true;
                if receiver.send(Ok(row.into())).await.is_err() {
                    break;
                }
            }
        });
        Ok(())
    }

    /// Gives the connection back to its pool. The driver pings it first, for which it has no limit of its own.
    fn release(mut self, tasks: &Handle) {
        on_either!(&mut self, c => { tasks.spawn(timeout(MAX_ABANDONED, c.return_to_pool())); });
    }

    fn close(self, tasks: &Handle) {
        on_either!(self, c => { tasks.spawn(timeout(MAX_ABANDONED, c.close())); });
    }
}

fn query<DB: sqlx::Database>(statement: &Statement) -> sqlx::query::Query<'_, DB, SqlxValues>
where
    SqlxValues: sqlx::IntoArguments<DB>,
{
    let values = statement.values.clone().unwrap_or(Values(Vec::new()));
    sqlx::query_with(AssertSqlSafe(statement.sql.as_str()), SqlxValues(values))
}

fn failed(work: &Work, error: sqlx::Error) -> DbErr {
    let error = RuntimeErr::SqlxError(error.into());
    if matches!(work, Work::Execute(_) | Work::Script(_)) { DbErr::Exec(error) } else { DbErr::Query(error) }
}

fn silent() -> DbErr {
    DbErr::Conn(RuntimeErr::Internal(format!("no answer within {} s", MAX_STATEMENT.as_secs())))
}

fn refused() -> DbErr {
    DbErr::Custom("a statement followed one that had failed, on the same connection".to_owned())
}
