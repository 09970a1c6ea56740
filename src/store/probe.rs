//! A connection of its own, apart from those that calls share: it asks for the version of the API keys, and
//! shows by the answer that the database is there. Callers that take every other connection cannot keep it
//! waiting.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sea_orm::entity::prelude::async_trait::async_trait;
use sea_orm::sqlx::ConnectOptions as _;
use sea_orm::sqlx::postgres::PgConnection;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement, sqlx};
use tokio::sync::Mutex;

use crate::domain::namespace::NamespaceRecord;
use crate::error::{Error, Result, with_causes};

use super::connect::ConnectError;
use super::health::unavailable;
use super::hosts::Hosts;
use super::key_changes::{self, KeyChanges, LastChange};
use super::lease::query;
use super::trust::{Trust, Verdict};
use super::{Store, connect, namespaces};

/// The longest time that the probe waits for its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// The longest time that a new connection and its answer may take where there was none, or one that was
/// closed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// When it asks over a new connection too: the old one may lead nowhere.
const HEDGE_DELAY: Duration = Duration::from_millis(250);

/// Time is counted in such steps.
const STEP: Duration = Duration::from_millis(50);

/// The longest time that reading all keys may take.
const KEYS_TIMEOUT: Duration = Duration::from_secs(5);

/// The address of the database.
#[derive(Clone, Debug)]
pub(super) enum Address {
    Sqlite(Box<SqliteConnectOptions>),
    Postgres(Arc<Hosts>),
}

impl Address {
    pub(super) fn sqlite(url: &str) -> sqlx::Result<Self> {
        let options = SqliteConnectOptions::from_str(url)?;
        // A file that is gone is not created again.
        let options = connect::configure(options).create_if_missing(false).pragma("query_only", "ON");
        Ok(Self::Sqlite(Box::new(options.disable_statement_logging())))
    }

    fn backend(&self) -> DbBackend {
        match self {
            Self::Sqlite(_) => DbBackend::Sqlite,
            Self::Postgres(_) => DbBackend::Postgres,
        }
    }

    /// Connects to the server in use.
    pub(super) async fn connect(&self) -> Result<ProbeConnection> {
        self.open(false).await
    }

    /// Connects to the server that is to be used.
    async fn find(&self) -> Result<ProbeConnection> {
        self.open(true).await
    }

    async fn open(&self, any: bool) -> Result<ProbeConnection> {
        let begun = Instant::now();
        let opened = match self {
            Self::Sqlite(options) => {
                options.connect().await.map(Connection::Sqlite).map_err(|error| ConnectError::from(&error))
            }
            Self::Postgres(hosts) if any => hosts.find().await.map(Connection::Postgres),
            Self::Postgres(hosts) => hosts.connect().await.map(Connection::Postgres),
        };
        let connection = opened.map_err(|error| unavailable(&error.why()))?;
        Ok(ProbeConnection {
            connection: Mutex::new(connection),
            backend: self.backend(),
            // Else it leads to the server that was in use when it began.
            opened: if any { Instant::now() } else { begun },
        })
    }
}

#[derive(Debug)]
enum Connection {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// A connection that reads, and is closed when it is dropped.
#[derive(Debug)]
pub(super) struct ProbeConnection {
    connection: Mutex<Connection>,
    backend: DbBackend,
    opened: Instant,
}

impl ProbeConnection {
    /// Returns true unless the server that it leads to turned out not to be the primary any more.
    pub(super) fn is_current(&self, trust: &Trust) -> bool {
        trust.verdict(self.opened, Duration::ZERO) != Verdict::Close
    }
}

#[async_trait]
impl ConnectionTrait for ProbeConnection {
    fn get_database_backend(&self) -> DbBackend {
        self.backend
    }

    async fn execute_raw(&self, _: Statement) -> Result<ExecResult, DbErr> {
        Err(DbErr::Custom("this connection only reads".to_owned()))
    }

    async fn execute_unprepared(&self, _: &str) -> Result<ExecResult, DbErr> {
        Err(DbErr::Custom("this connection only reads".to_owned()))
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        Ok(self.query_all_raw(statement).await?.into_iter().next())
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let query_error = |error| DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)));
        Ok(match &mut *self.connection.lock().await {
            Connection::Sqlite(connection) => {
                let rows = query(&statement).fetch_all(connection).await.map_err(query_error)?;
                rows.into_iter().map(QueryResult::from).collect()
            }
            Connection::Postgres(connection) => {
                let rows = query(&statement).fetch_all(connection).await.map_err(query_error)?;
                rows.into_iter().map(QueryResult::from).collect()
            }
        })
    }
}

/// The version of the keys, and when the connection was made that showed it. Another connection may lead to another database,
/// where the same number stands for other changes: to a standby that was promoted, or a backup that was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeysVersion {
    /// The number of the last change.
    pub number: i64,
    /// When the connection was made.
    pub connected: Instant,
}

/// The versions that the probe reads: of the API keys and of the namespaces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Versions {
    pub(super) keys: KeysVersion,
    pub(super) namespaces: i64,
}

/// The connection, made when it is needed and made again when it was lost.
#[derive(Debug)]
pub(super) struct Probe {
    address: Address,
    /// Taken out while it is used: one that was left in the middle of a statement is closed.
    line: Mutex<Option<ProbeConnection>>,
}

impl Probe {
    pub(super) fn new(address: Address) -> Self {
        Self { address, line: Mutex::new(None) }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Asks for the versions, and notes whether there was an answer. A late one is no sign of an outage while calls have
    /// theirs: a busy database serves one connection later than another.
    pub(super) async fn ask(&self, trust: &Trust) -> Result<Versions> {
        let health = &trust.health;
        let mut line = self.line.lock().await;
        let (asked_at, answers) = (Instant::now(), trust.stats.answers());
        let silence = match self.answer(line.take().filter(|line| line.is_current(trust))).await {
            Some(Ok((kept, (number, namespaces)))) => {
                let keys = KeysVersion { number, connected: kept.opened };
                *line = Some(kept);
                health.note_answer();
                return Ok(Versions { keys, namespaces });
            }
            Some(Err(Error::DatabaseUnavailable(cause))) => with_causes(cause.as_ref()),
            // It does answer, though not what it was asked.
            Some(Err(error)) => {
                health.note_answer();
                return Err(error);
            }
            None if trust.stats.answers() != answers => {
                return Err(unavailable("the probe had no answer in time"));
            }
            None => format!("no answer within {} ms", ANSWER_TIMEOUT.as_millis()),
        };
        health.note_silence(asked_at, &silence);
        Err(unavailable(&silence))
    }

    /// The versions, by the connection that there is, or by a new one where that is lost or slow. `None`: not
    /// in time.
    async fn answer(&self, old: Option<ProbeConnection>) -> Option<Result<(ProbeConnection, (i64, i64))>> {
        let fresh = async { versions(self.address.find().await?).await };
        let Some(old) = old else { return within(CONNECT_TIMEOUT, fresh).await };
        let mut known = std::pin::pin!(versions(old));
        match within(HEDGE_DELAY, known.as_mut()).await {
            // The connection is lost; the database may be well.
            Some(Err(Error::DatabaseUnavailable(_))) => within(CONNECT_TIMEOUT, fresh).await,
            Some(answered) => Some(answered),
            None => {
                let first = async {
                    tokio::select! {
                        Ok(answered) = known => Ok(answered),
                        answered = fresh => answered,
                    }
                };
                within(ANSWER_TIMEOUT.saturating_sub(HEDGE_DELAY), first).await
            }
        }
    }

    async fn key_changes(&self, version: i64, last: Option<&LastChange>) -> Result<KeyChanges> {
        let mut line = self.line.lock().await;
        let Some(taken) = line.take() else { return Err(unavailable("the connection was lost")) };
        let read = tokio::time::timeout(KEYS_TIMEOUT, key_changes::read(&taken, version, last)).await;
        let changes = read.map_err(|_| Error::internal("reading keys took too long"))??;
        *line = Some(taken);
        Ok(changes)
    }

    /// The namespaces that changed after the change number `version`.
    pub(super) async fn changed_namespaces(&self, version: i64) -> Result<Vec<NamespaceRecord>> {
        let mut line = self.line.lock().await;
        let Some(taken) = line.take() else { return Err(unavailable("the connection was lost")) };
        let read = tokio::time::timeout(KEYS_TIMEOUT, namespaces::changed_since(&taken, version)).await;
        let records = read.map_err(|_| Error::internal("reading namespaces took too long"))??;
        *line = Some(taken);
        Ok(records)
    }
}

/// The versions of the keys and of the namespaces.
async fn versions(line: ProbeConnection) -> Result<(ProbeConnection, (i64, i64))> {
    let sql = "SELECT keys_version.version, namespaces_version.version FROM keys_version, namespaces_version";
    let row = line.query_one_raw(Statement::from_string(line.backend, sql)).await?;
    let row = row.ok_or_else(|| Error::internal("the versions of keys and namespaces are missing"))?;
    Ok((line, (row.try_get_by_index(0)?, row.try_get_by_index(1)?)))
}

/// Returns the result of `work`, unless it takes longer than `limit` while this process runs. Time in which
/// the process had no CPU is not counted: an answer could not have been seen, and a busy machine is no reason
/// to refuse calls.
async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    for _ in 0..limit.as_millis() / STEP.as_millis() {
        if let Ok(done) = tokio::time::timeout(STEP, work.as_mut()).await {
            return Some(done);
        }
    }
    None
}

impl Store {
    /// Asks the database for the version of the keys, over the probe's own connection. Whether it answers
    /// becomes its `Health`. Namespaces that changed are read with it.
    pub async fn keys_version(&self) -> Result<KeysVersion> {
        let asked_at = Instant::now();
        let Versions { keys, namespaces } = self.probe.ask(&self.trust).await?;
        self.refresh_namespaces(namespaces, keys.connected).await?;
        self.directory().note_confirmed(asked_at);
        Ok(keys)
    }

    /// The keys that have changed since `last`, or all where that cannot be told, over the probe's own connection. To be
    /// asked after `version` was.
    pub async fn key_changes(&self, version: i64, last: Option<&LastChange>) -> Result<KeyChanges> {
        self.probe.key_changes(version, last).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn time_in_which_the_process_does_not_run_is_not_counted() {
        // The one thread of this runtime does nothing else meanwhile, as if the machine had no CPU for it.
        let stalled = async {
            tokio::task::yield_now().await;
            std::thread::sleep(ANSWER_TIMEOUT * 2);
            tokio::time::sleep(STEP).await;
        };
        assert!(within(ANSWER_TIMEOUT, stalled).await.is_some());
        assert!(within(ANSWER_TIMEOUT, std::future::pending::<()>()).await.is_none());
    }
}
