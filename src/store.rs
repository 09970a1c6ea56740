//! Queries and records on SQLite and PostgreSQL. SeaORM is named nowhere else.
//!
//! Free functions over a connection or a transaction; every query of a tenant's rows starts from its namespace.
//! A missing row is `None`: the operation decides what that means.

pub mod attempts;
mod connect;
mod connection;
mod entity;
pub mod events;
mod fault;
pub mod keys;
mod lease;
pub mod listing;
mod migration;
mod observer;
pub mod search;
pub mod secrets;
pub mod sessions;
mod trust;
pub mod users;

use std::sync::Arc;

use sea_orm::sea_query::Expr;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, EntityTrait, FromQueryResult, QuerySelect as _, QueryTrait, Select,
    Statement,
};

use crate::domain::caller::Caller;
use crate::domain::session::Device;
use crate::error::{Error, Result};

pub use connect::ConnectError;
pub use connection::{Reader, Transaction};
pub use migration::{Step, Steps};

use lease::Pool;
use observer::Observer;
use trust::Trust;

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
    reader: Reader,
    writer: Pool,
    trust: Arc<Trust>,
}

impl Store {
    fn new(read: DatabaseConnection, write: DatabaseConnection, kind: Kind, trust: Arc<Trust>) -> Self {
        let reader = Reader::new(Pool::of(&read, Observer::default(), Arc::clone(&trust)));
        let writer = Pool::of(&write, Observer::default(), Arc::clone(&trust));
        Self { read, write, kind, reader, writer, trust }
    }

    /// Which database it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The same database with `see` told of every statement that was run.
    #[must_use]
    pub fn observed(mut self, see: impl Fn(&Statement) + Send + Sync + 'static) -> Self {
        let observer = Observer::new(see);
        self.reader = Reader::new(Pool::of(&self.read, observer.clone(), Arc::clone(&self.trust)));
        self.writer = Pool::of(&self.write, observer, Arc::clone(&self.trust));
        self
    }

    /// Connections for the server's own reads: start-up, keys, housekeeping. On SQLite they refuse to write and never
    /// wait for a writer.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Returns a connection for the reads of one call. Drop it before work that takes long, such as a hash.
    ///
    /// # Errors
    ///
    /// `DatabaseUnavailable` if no connection comes free in time.
    #[expect(clippy::unused_async, reason = "a caller waits for its turn here")]
    pub async fn read(&self, _caller: &Caller) -> Result<Reader> {
        Ok(self.reader.clone())
    }

    /// Begins a transaction that may write, for one call. Dropping it rolls it back.
    ///
    /// # Errors
    ///
    /// `DatabaseUnavailable` if no connection comes free in time.
    pub async fn begin(&self, _caller: &Caller) -> Result<Transaction> {
        self.begin_as_server().await
    }

    /// Begins a transaction for the server's own work: housekeeping, notes.
    ///
    /// # Errors
    ///
    /// As [`Store::begin`].
    pub async fn begin_as_server(&self) -> Result<Transaction> {
        Transaction::begin(&self.writer).await
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
