//! A pool of one connection, which stays with us between statements.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sea_orm::sqlx::pool::PoolConnection;
use sea_orm::sqlx::{self, PgPool, Postgres, Sqlite, SqlitePool};
use sea_orm::{ConnAcquireErr, DatabaseConnection, DbBackend, DbErr, RuntimeErr};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::health::Health;
use super::lease::Lease;
use super::observer::Observer;
use super::running::MAX_ABANDONED;
use super::shared::Turn;
use super::trust::{Trust, Verdict};

/// A connection that is older goes back to the library's pool, which replaces it if it is over its own limit
/// (`max_lifetime`, 30 minutes on PostgreSQL, none on SQLite).
const MAX_AGE: Duration = Duration::from_mins(30);

/// A pool of one connection. Cheap to clone.
///
/// The library opens the connection, and opens another one after it was closed. In between it stays here: giving it back
/// to the library's pool after each statement costs a ping, which is a second round trip, and a task.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    inner: Arc<Inner>,
    /// The turn of the call that uses it, which lasts until its last statement has ended; the server needs none.
    turn: Option<Arc<Turn>>,
}

#[derive(Debug)]
struct Inner {
    driver: Driver,
    slot: Arc<Slot>,
    observer: Observer,
    trust: Arc<Trust>,
}

#[derive(Clone, Debug)]
enum Driver {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// A connection of either database.
#[derive(Debug)]
pub(super) enum Connection {
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
pub(super) use on_either;

/// Where the connection is while no statement uses it. It is in no transaction then.
#[derive(Debug, Default)]
struct Slot(Mutex<Content>);

#[derive(Debug, Default)]
enum Content {
    #[default]
    Empty,
    Idle {
        connection: Connection,
        acquired: Instant,
        since: Instant,
    },
    /// The pool is closed: connections go back to the library's.
    Closed,
}

impl Slot {
    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // The library would start a task, for which it needs a runtime.
        if let Content::Idle { connection, .. } = mem::take(&mut *self.lock())
            && Handle::try_current().is_err()
        {
            on_either!(connection, c => drop(c.leak()));
        }
    }
}

impl Pool {
    /// The pool behind the library's connection.
    pub(super) fn of(db: &DatabaseConnection, trust: Arc<Trust>) -> Self {
        let driver = match db.get_database_backend() {
            DbBackend::Sqlite => Driver::Sqlite(db.get_sqlite_connection_pool().clone()),
            _ => Driver::Postgres(db.get_postgres_connection_pool().clone()),
        };
        let inner = Inner { driver, slot: Arc::default(), observer: Observer::default(), trust };
        Self { inner: Arc::new(inner), turn: None }
    }

    /// The same with another observer.
    pub(super) fn observed(&self, observer: &Observer) -> Self {
        let inner = Inner {
            driver: self.inner.driver.clone(),
            slot: Arc::clone(&self.inner.slot),
            observer: observer.clone(),
            trust: Arc::clone(&self.inner.trust),
        };
        Self { inner: Arc::new(inner), turn: self.turn.clone() }
    }

    /// The same for a call whose turn it is.
    pub(super) fn during(&self, turn: Turn) -> Self {
        Self { inner: Arc::clone(&self.inner), turn: Some(Arc::new(turn)) }
    }

    /// Stops what still runs in this turn.
    pub(super) fn stop(&self) {
        if let Some(turn) = &self.turn {
            Turn::stop(turn);
        }
    }

    /// Closes the connection, once it is free.
    pub(super) async fn close(&self) {
        let before = mem::replace(&mut *self.inner.slot.lock(), Content::Closed);
        if let (Content::Idle { connection, .. }, Ok(tasks)) = (before, Handle::try_current()) {
            connection.release(&tasks);
        }
        match &self.inner.driver {
            Driver::Sqlite(pool) => pool.close().await,
            Driver::Postgres(pool) => pool.close().await,
        }
    }

    /// The state of the database, as the probe sees it.
    pub(super) fn health(&self) -> &Health {
        &self.inner.trust.health
    }

    pub(super) fn trust(&self) -> &Trust {
        &self.inner.trust
    }

    pub(super) fn observer(&self) -> &Observer {
        &self.inner.observer
    }

    pub(super) fn backend(&self) -> DbBackend {
        match self.inner.driver {
            Driver::Sqlite(_) => DbBackend::Sqlite,
            Driver::Postgres(_) => DbBackend::Postgres,
        }
    }

    /// Returns the connection, which is in no transaction. Waits while another statement has it.
    pub(super) async fn acquire(&self) -> Result<Lease, DbErr> {
        if let Some(lease) = self.idle().await {
            return Ok(lease);
        }
        let acquired = match &self.inner.driver {
            Driver::Sqlite(pool) => pool.acquire().await.map(Connection::Sqlite),
            Driver::Postgres(pool) => pool.acquire().await.map(Connection::Postgres),
        };
        let connection = acquired.map_err(|error| match error {
            sqlx::Error::PoolTimedOut => DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
            sqlx::Error::PoolClosed => DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed),
            error => DbErr::Conn(RuntimeErr::SqlxError(error.into())),
        })?;
        Ok(Lease::new(connection, self.clone(), Instant::now()))
    }

    /// Takes the connection out of the slot, if it is there and can be trusted; else closes it.
    async fn idle(&self) -> Option<Lease> {
        let (connection, acquired, since) = {
            let mut slot = self.inner.slot.lock();
            match mem::take(&mut *slot) {
                Content::Idle { connection, acquired, since } => (connection, acquired, since),
                other => {
                    *slot = other;
                    return None;
                }
            }
        };
        let mut lease = Lease::new(connection, self.clone(), acquired);
        match self.trust().verdict(acquired.elapsed(), since.elapsed()) {
            Verdict::Use => Some(lease),
            Verdict::Ping => lease.answers_ping().await.then_some(lease),
            Verdict::Close => {
                lease.spoil();
                None
            }
        }
    }

    /// Takes back a connection that is in no transaction.
    pub(super) fn release(&self, connection: Connection, acquired: Instant, tasks: &Handle) {
        if acquired.elapsed() < MAX_AGE {
            let mut slot = self.inner.slot.lock();
            if matches!(*slot, Content::Empty) {
                *slot = Content::Idle { connection, acquired, since: Instant::now() };
                return;
            }
        }
        connection.release(tasks);
    }
}

impl Connection {
    /// Gives the connection back to the library's pool. The driver pings it first, for which it has no limit of its own.
    fn release(mut self, tasks: &Handle) {
        on_either!(&mut self, c => { tasks.spawn(timeout(MAX_ABANDONED, c.return_to_pool())); });
    }

    pub(super) fn close(self, tasks: &Handle) {
        on_either!(self, c => { tasks.spawn(timeout(MAX_ABANDONED, c.close())); });
    }
}
