//! Queries and records on SQLite and PostgreSQL. SeaORM is named nowhere else.
//!
//! Free functions over a connection or a transaction; every query of a tenant's rows starts from its namespace.
//! A missing row is `None`: the operation decides what that means.

pub mod attempts;
pub mod clocks;
mod connect;
mod connection;
mod entity;
pub mod events;
mod fault;
mod health;
pub mod keys;
pub mod listing;
mod migration;
mod outage;
mod probe;
pub mod purged;
pub mod search;
pub mod secrets;
pub mod sessions;
pub mod users;

use std::sync::Arc;
use std::time::Duration;

use sea_orm::sea_query::Expr;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, EntityTrait, FromQueryResult, QuerySelect as _, QueryTrait, Select,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait as _,
};

use crate::domain::caller::Caller;
use crate::domain::session::Device;
use crate::error::{Error, Result};

pub use connect::ConnectError;
pub use connection::{Reader, Transaction};
pub use health::{Fault, Health, State};
pub use migration::{Step, Steps};

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One file, one process at a time.
    Sqlite,
    /// Many replicas over one server.
    Postgres,
}

impl Kind {
    /// As the start line names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// An open database.
#[derive(Clone, Debug)]
pub struct Store {
    read: DatabaseConnection,
    write: DatabaseConnection,
    kind: Kind,
    probe: Arc<probe::Probe>,
    health: Health,
}

/// A statement that takes longer is worth a line in the log: none of ours should, however many users there are.
const SLOW: Duration = Duration::from_secs(1);

impl Store {
    /// Which database it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The same database with `see` told of every statement that was run. Slow ones are logged in any case.
    #[must_use]
    pub fn observed(mut self, see: impl Fn(&Statement) + Clone + Send + Sync + 'static) -> Self {
        for pool in [&mut self.read, &mut self.write] {
            let see = see.clone();
            pool.set_metric_callback(move |done| {
                log_slow(done);
                see(done.statement);
            });
        }
        self
    }

    /// Connections for the server's own reads: start-up, keys, housekeeping. On SQLite they refuse to write and never
    /// wait for a writer.
    #[must_use]
    pub fn reader(&self) -> &DatabaseConnection {
        &self.read
    }

    /// Returns a connection for the reads of one call. Drop it before work that takes long, such as a hash.
    ///
    /// # Errors
    ///
    /// `DatabaseUnavailable` if no connection comes free in time, or at once if the database does not answer.
    #[expect(clippy::unused_async, reason = "a caller waits for its turn here")]
    pub async fn read(&self, _caller: &Caller) -> Result<Reader> {
        self.health.check()?;
        Ok(Reader::new(self.read.clone(), self.health.clone()))
    }

    /// Begins a transaction that may write, for one call. Dropping it rolls it back.
    ///
    /// On SQLite it takes the write lock at once: one that read first and then could not get the lock would
    /// fail without waiting for it.
    ///
    /// # Errors
    ///
    /// `DatabaseUnavailable` if no connection comes free in time.
    pub async fn begin(&self, _caller: &Caller) -> Result<Transaction> {
        self.begin_as_server().await
    }

    /// Begins a transaction for the server's own work: migrations, housekeeping, notes.
    ///
    /// # Errors
    ///
    /// As [`Store::begin`].
    pub async fn begin_as_server(&self) -> Result<Transaction> {
        self.health.check()?;
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        // In a task of its own, so that a caller who leaves cannot cut BEGIN in two: sqlx rolls back only what it
        // knows to have begun, and PostgreSQL would keep the connection in a transaction that nobody ends.
        let write = self.write.clone();
        let begun = tokio::spawn(async move { write.begin_with_options(options).await });
        let begun = async { Ok(begun.await.map_err(Error::internal)) };
        let begun = self.health.bounded(begun).await??;
        Ok(Transaction::new(begun?, self.health.clone()))
    }

    /// Closes every connection.
    pub async fn close(&self) {
        for pool in [&self.read, &self.write] {
            if let Err(error) = pool.close_by_ref().await {
                tracing::warn!(%error, "a connection did not close well");
            }
        }
    }
}

/// Logs a statement that took long, without its values, which are the callers'.
fn log_slow(done: &sea_orm::metric::Info<'_>) {
    if done.elapsed >= SLOW {
        let millis = u64::try_from(done.elapsed.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(millis, sql = done.statement.sql, "slow statement");
    }
}

/// The row that `select` finds by a unique key. SeaORM's own `one` binds a `LIMIT ?`, which SQLite would
/// plan anew each time and which a unique key does not need.
async fn unique<E>(db: &impl ConnectionTrait, select: Select<E>) -> Result<Option<E::Model>>
where
    E: EntityTrait,
    E::Model: FromQueryResult,
{
    let row = db.query_one(&select.into_query()).await?;
    Ok(row.map(|row| E::Model::from_query_result(&row, "")).transpose()?)
}

/// How many rows `select` finds. SeaORM's own `count` reads every column of them.
async fn count<E: EntityTrait>(db: &impl ConnectionTrait, select: Select<E>) -> Result<u64> {
    let counted = select.select_only().expr_as(Expr::cust("COUNT(*)"), "number").into_query();
    let row = db.query_one(&counted).await?.ok_or_else(|| Error::internal("a count has no row"))?;
    let number: i64 = row.try_get_by_index(0)?;
    Ok(u64::try_from(number).unwrap_or(0))
}

/// Where somebody sat, from the columns of a session or an event.
fn device(address: &str, user_agent: String) -> Device {
    Device { address: address.parse().ok(), user_agent }
}
