//! One connection on loan from its pool, and what becomes of it.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use sea_orm::sqlx::{self, AssertSqlSafe, Connection as _, Either, Executor as _};
use sea_orm::{DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement, Values};
use sea_query_sqlx::SqlxValues;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::pool::{Connection, HeldConnection, Pool, on_either};
use super::running::{MAX_ABANDONED, Running};
use super::trust::MAX_PING;
use super::{fault, spans, stats};

/// Longest that a statement may take. PostgreSQL itself ends one after 30 s (`statement_timeout`), so that
/// only a connection that went silent gets here.
const MAX_STATEMENT: Duration = Duration::from_secs(35);

/// The known state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is in no transaction.
    Idle,
    /// It is in a transaction, in which nothing has gone wrong.
    Open,
    /// It is in a transaction in which a constraint refused a statement.
    Failed,
    /// Nothing: a statement is under way, or has failed in a way that leaves it open what the connection is
    /// in.
    Unknown,
}

/// A request to a connection.
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

/// The result of a request.
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
/// Transactions are begun and ended by statements of ours, and a connection goes back to its pool only when
/// it is certain that it is in none: after an answered COMMIT or ROLLBACK, or outside of any. Every other one
/// is closed. The driver's own transactions are not used: where SQLite rolls back by itself, as it does when
/// a COMMIT fails on a full disk, the driver goes on counting one as open, and the library opens savepoints
/// in it that no COMMIT ever reaches (transact-rs/sqlx#3742).
///
/// Dropping one rolls its transaction back.
#[derive(Debug)]
pub(super) struct Lease {
    held: Option<HeldConnection>,
    state: State,
    pool: Pool,
}

impl Lease {
    /// A connection of `pool`'s that is in no transaction.
    pub(super) fn new(held: HeldConnection, pool: Pool) -> Self {
        Self { held: Some(held), state: State::Idle, pool }
    }

    /// Has the connection closed when this is dropped.
    pub(super) fn spoil(&mut self) {
        self.state = State::Unknown;
    }

    /// Returns true if the connection still lives; else, and where the caller leaves, it is closed.
    pub(super) async fn answers_ping(&mut self) -> bool {
        self.spoil();
        let Some(held) = self.held.as_mut() else { return false };
        let ping = async { on_either!(&mut held.connection, c => c.ping().await) };
        let answered = matches!(timeout(MAX_PING, ping).await, Ok(Ok(())));
        if answered {
            self.state = State::Idle;
        }
        answered
    }

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
        let Some(held) = self.held.as_mut().filter(|_| usable) else {
            return (self, Err(refused()));
        };
        self.state = State::Unknown;
        let span = spans::begin(self.pool.backend(), stats::name(&work), work.statement());
        let started = Instant::now();
        let result = match limited(self.pool.backend(), held.connection.run(&work)).await {
            Some(result) => result.map_err(|error| failed(&work, error)),
            None => Err(silent()),
        };
        let took = started.elapsed();
        spans::end(span, result.as_ref().err());
        self.pool.trust().stats.note_work(&work, took, result.as_ref().err());
        if let Some(statement) = work.statement() {
            self.pool.observer().see(statement, took);
        }
        self.settle(before, &work, result.as_ref().err());
        (self, result)
    }

    /// Records the state of the connection after `work`.
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
            self.pool.trust().note(error);
            if matches!(work, Work::Commit) && self.pool.backend() == DbBackend::Sqlite {
                self.pool.health().note_commit_failure(&fault::database_message(error));
            }
        }
    }

    /// Sends the rows of `statement` as they come, until the receiver is gone. Gives the error back if no row
    /// was sent.
    pub(super) async fn send_rows(
        &mut self,
        statement: &Statement,
        rows: &mpsc::Sender<Result<QueryResult, DbErr>>,
    ) -> Result<(), DbErr> {
        let before = mem::replace(&mut self.state, State::Unknown);
        let Some(held) = self.held.as_mut() else { return Err(refused()) };
        let mut sent = false;
        let span = spans::begin(self.pool.backend(), stats::name_of(statement), Some(statement));
        let started = Instant::now();
        let fed = held.connection.send_rows(statement, rows, &mut sent);
        let fed = limited(self.pool.backend(), fed).await;
        let took = started.elapsed();
        self.pool.observer().see(statement, took);
        let error = match fed {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(DbErr::Query(RuntimeErr::SqlxError(error.into()))),
            None => Some(silent()),
        };
        spans::end(span, error.as_ref());
        self.pool.trust().stats.note_query(statement, took, error.as_ref());
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
        let Some(held) = self.held.take() else { return };
        let Ok(tasks) = Handle::try_current() else { return held.connection.cut() };
        match self.state {
            State::Idle => held.release(&tasks),
            State::Unknown => {
                self.pool.trust().suspect();
                held.connection.close(&tasks);
            }
            State::Open | State::Failed => {
                // Closed if the task never runs, as when the runtime ends.
                let mut lease = Self::new(held, self.pool.clone());
                lease.spoil();
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
                // On SQLite it takes the write lock at once: one that read first and then could not get it
                // would fail without waiting for it. In an open transaction it fails.
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
        // When the thread of an SQLite connection has ended, the driver reports an empty answer, not an
        // error.
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
}

/// Returns what `work` does, or `None` if PostgreSQL took too long. SQLite has no connection that could go
/// silent, and a timer for each statement would be dear.
async fn limited<T>(backend: DbBackend, work: impl Future<Output = T>) -> Option<T> {
    match backend {
        DbBackend::Sqlite => Some(work.await),
        _ => timeout(MAX_STATEMENT, work).await.ok(),
    }
}

pub(super) fn query<DB: sqlx::Database>(statement: &Statement) -> sqlx::query::Query<'_, DB, SqlxValues>
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
