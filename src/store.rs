//! Queries and records on SQLite and PostgreSQL. SeaORM is named nowhere else but in `throttle`.
//!
//! Free functions over a connection or a transaction; every query of a tenant's rows starts from its
//! namespace. A missing row is `None`: the operation decides what that means. All of them fail as the
//! database does.

pub mod assertion_keys;
pub mod backup;
pub mod clocks;
pub mod codes;
pub mod coherence;
mod connect;
mod connection;
pub mod copy;
pub mod deletion;
mod directory;
pub mod doctor;
mod entity;
pub mod events;
pub mod factors;
mod fault;
pub mod file;
mod health;
mod hosts;
pub mod idempotency_keys;
pub mod key_changes;
pub mod keys;
mod lease;
pub mod list;
mod maintenance;
mod migration;
pub mod namespaces;
mod observer;
mod outage;
mod pool;
mod pooler;
mod postgres;
mod prepared;
mod probe;
pub mod purged;
mod replica;
mod running;
pub mod search;
pub mod secrets;
pub mod sessions;
mod shared;
mod spans;
mod stats;
mod tail;
pub mod totals;
mod trust;
mod turns;
pub mod usage;
pub mod users;

use std::sync::Arc;
use std::time::Duration;

use sea_orm::sea_query::Expr;
use sea_orm::{
    ConnectOptions, ConnectionTrait, EntityTrait, FromQueryResult, QuerySelect as _, QueryTrait, Select,
    Statement,
};

use tokio::time::Instant;

use crate::domain::caller::{Caller, Flow};
use crate::domain::session::Device;
use crate::error::{Error, Result};

pub use connect::ConnectError;
pub use connection::{Reader, Transaction};
pub use directory::Directory;
pub use health::{Fault, Health, State};
pub use migration::{SchemaError, Step, Steps};
pub use probe::KeysVersion;

use coherence::{Changes, Coherence};
use file::OpenedFile;
use observer::Observer;
use pool::Pool;
use probe::Probe;
use replica::Replica;
use shared::Shared;
use trust::Trust;

/// Returns true if the database undid a transaction so that others could go on: the same again may succeed.
pub fn is_deadlock(error: &Error) -> bool {
    matches!(error, Error::DatabaseUnavailable(cause) if cause.downcast_ref().is_some_and(fault::is_deadlock))
}

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
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// Held on PostgreSQL by a batch of housekeeping. The number only has to be the same in all replicas, and not that of migrations.
pub const HOUSEKEEPING_LOCK: i64 = 0x7573_6572_7365;

/// An open database.
#[derive(Clone, Debug)]
pub struct Store {
    kind: Kind,
    /// The connections with which callers read.
    read: Shared,
    /// The connections that write; the same on PostgreSQL.
    write: Shared,
    /// The connection with which the server itself reads.
    server: Arc<Reader>,
    /// The options of connections for migrations.
    migrations: ConnectOptions,
    /// A server that lists are read from, if there is one.
    replica: Option<Replica>,
    trust: Arc<Trust>,
    probe: Arc<Probe>,
    coherence: Arc<Coherence>,
    directory: Arc<Directory>,
    /// The file on SQLite.
    file: Option<Arc<OpenedFile>>,
}

impl Store {
    /// Which database it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The same database; `see` is called for every statement that was run.
    pub fn observed(mut self, see: impl Fn(&Statement) + Send + Sync + 'static) -> Self {
        let observer = Observer::new(see);
        self.read = self.read.observed(&observer);
        self.write = self.write.observed(&observer);
        self.server = Arc::new(self.server.observed(&observer));
        self.replica = self.replica.map(|replica| replica.observed(&observer));
        self
    }

    /// A connection for the server's own reads: start-up, keys, housekeeping. It waits for no caller. On
    /// SQLite it refuses to write and never waits for a writer.
    pub fn reader(&self) -> &Reader {
        &self.server
    }

    /// Returns a connection for the reads of one call, when it is the caller's turn. Drop it before work that
    /// takes long, such as a hash, and before asking for another one: calls that have one and wait for more
    /// can wait for each other. Fails with `DatabaseUnavailable` if no connection comes free in time, or at
    /// once if the database does not answer.
    pub async fn read(&self, caller: &Caller) -> Result<Reader> {
        Ok(Reader::new(self.turn(&self.read, &caller.flow()).await?, None))
    }

    /// As [`Store::read`], for reads whose time depends on what the caller asks for: after `span` they are
    /// given up.
    /// Fails as [`Store::read`]; the statements fail with `ListTooSlow` then.
    pub async fn read_within(&self, caller: &Caller, span: Duration) -> Result<Reader> {
        let pool = self.turn(&self.read, &caller.flow()).await?;
        Ok(Reader::new(pool, Instant::now().checked_add(span)))
    }

    /// Begins a transaction that may write, for one call, when it is the caller's turn. Dropping it rolls it
    /// back.
    /// Fails with `DatabaseUnavailable` if no connection comes free in time, and with `NamespaceBeingDeleted`: the call may
    /// have been admitted before.
    pub async fn begin(&self, caller: &Caller) -> Result<Transaction> {
        let tx = self.begin_for(&caller.flow()).await?;
        // After BEGIN: a deletion that is not known here waits for transactions that began before it could be.
        if self.directory.is_stale() {
            // Boxed, since it is seldom done and would be a part of every operation.
            Box::pin(self.keys_version()).await?;
        }
        self.directory.check(&caller.namespace, caller.admitted)?;
        Ok(tx)
    }

    /// Begins a transaction for the server's own work: housekeeping, notes. It takes turns with the callers
    /// like one more namespace.
    /// Fails as [`Store::begin`].
    pub async fn begin_as_server(&self) -> Result<Transaction> {
        // No namespace has an empty name.
        let flow = Flow { namespace: "".into(), key: Caller::SERVER.into() };
        self.begin_for(&flow).await
    }

    /// As [`Store::begin_as_server`], for a batch of housekeeping: one replica at a time. On SQLite every transaction that
    /// writes is the only one.
    pub async fn begin_housekeeping(&self) -> Result<Transaction> {
        self.one_at_a_time(self.begin_as_server().await?).await
    }

    /// As [`Store::begin_housekeeping`], in the turn of the caller's namespace.
    /// Fails as [`Store::begin`].
    pub async fn begin_housekeeping_of(&self, caller: &Caller) -> Result<Transaction> {
        self.one_at_a_time(self.begin(caller).await?).await
    }

    async fn one_at_a_time(&self, tx: Transaction) -> Result<Transaction> {
        if self.kind == Kind::Postgres {
            tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({HOUSEKEEPING_LOCK})")).await?;
        }
        Ok(tx)
    }

    async fn begin_for(&self, flow: &Flow) -> Result<Transaction> {
        let changes = Changes::new(Arc::clone(&self.coherence));
        Transaction::begin(&self.turn(&self.write, flow).await?, changes).await
    }

    /// Waits for a turn at `shared`, unless the database does not answer.
    async fn turn(&self, shared: &Shared, flow: &Flow) -> Result<Pool> {
        self.health().check()?;
        let asked_at = Instant::now();
        let turn = self.health().bounded(shared.turn(flow)).await;
        self.trust.stats.note_wait(asked_at.elapsed());
        turn
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
        self.server.close().await;
        if let Some(replica) = &self.replica {
            replica.close().await;
        }
    }
}

/// The row that `select` finds by a unique key. SeaORM's own `one` binds a `LIMIT ?`, which SQLite would
/// plan again each time and which a unique key does not need.
async fn unique<E>(db: &impl ConnectionTrait, select: Select<E>) -> Result<Option<E::Model>>
where
    E: EntityTrait,
    E::Model: FromQueryResult,
{
    let row = db.query_one(&select.into_query()).await?;
    Ok(row.map(|row| E::Model::from_query_result(&row, "")).transpose()?)
}

/// Counts the rows that `select` finds. SeaORM's own `count` reads every column of them.
async fn count<E: EntityTrait>(db: &impl ConnectionTrait, select: Select<E>) -> Result<u64> {
    let counted = select.select_only().expr_as(Expr::cust("COUNT(*)"), "number").into_query();
    let row = db.query_one(&counted).await?.ok_or_else(|| Error::internal("a count has no row"))?;
    let number: i64 = row.try_get_by_index(0)?;
    Ok(u64::try_from(number).unwrap_or(0))
}

/// The IP address and user agent in the columns of a session or an event.
fn device(address: &str, user_agent: String) -> Device {
    Device { address: address.parse().ok(), user_agent }
}
