//! A pool of one connection, which stays with us between statements.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sea_orm::sqlx::pool::PoolConnection;
use sea_orm::sqlx::{self, PgPool, Postgres, Sqlite, SqlitePool};
use sea_orm::{ConnAcquireErr, DatabaseConnection, DbBackend, DbErr, RuntimeErr};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;

use super::connect::ACQUIRE_TIMEOUT;
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
/// The library opens the connection, and opens another one after it was closed. In between it stays here:
/// giving it back to the library's pool after each statement costs a ping, which is a second round trip, and
/// a task.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    inner: Arc<Inner>,
    /// The turn of the call that uses it, which lasts until its last statement has ended; the server needs
    /// none.
    turn: Option<Arc<Turn>>,
}

#[derive(Debug)]
struct Inner {
    driver: Driver,
    slot: Arc<Mutex<Slot>>,
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

/// The connection while no statement uses it, in no transaction. The holder of the lock has the connection.
#[derive(Debug, Default)]
enum Slot {
    /// The library has it.
    #[default]
    Empty,
    Idle(Idle),
    /// The pool is closed: connections go back to the library's.
    Closed,
}

#[derive(Debug)]
struct Idle {
    /// `None` once it was taken.
    connection: Option<Connection>,
    acquired: Instant,
    since: Instant,
}

impl Drop for Idle {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && Handle::try_current().is_err()
        {
            connection.cut();
        }
    }
}

/// A connection in use, and the right to use it.
#[derive(Debug)]
pub(super) struct HeldConnection {
    pub(super) connection: Connection,
    /// When the library gave it out.
    acquired: Instant,
    slot: OwnedMutexGuard<Slot>,
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
        if let Slot::Idle(mut idle) = mem::replace(&mut *self.inner.slot.lock().await, Slot::Closed)
            && let (Some(connection), Ok(tasks)) = (idle.connection.take(), Handle::try_current())
        {
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
        self.health().usable()?;
        let mut slot = self.lock().await?;
        while let Slot::Idle(idle) = &mut *slot {
            let (acquired, verdict) =
                (idle.acquired, self.trust().verdict(idle.acquired, idle.since.elapsed()));
            let Some(connection) = idle.connection.take() else { break };
            *slot = Slot::Empty;
            let mut lease = Lease::new(HeldConnection { connection, acquired, slot }, self.clone());
            if verdict == Verdict::Use || verdict == Verdict::Ping && Box::pin(lease.answers_ping()).await {
                return Ok(lease);
            }
            lease.spoil();
            drop(lease);
            slot = self.lock().await?;
        }
        // To open a connection takes 14 KB of state, which every operation would have in its own, several times over.
        let (connection, acquired) =
            Box::pin(self.open()).await.inspect_err(|error| self.trust().stats.note_error(error))?;
        Ok(Lease::new(HeldConnection { connection, acquired, slot }, self.clone()))
    }

    /// Opens a connection, and says when that began.
    async fn open(&self) -> Result<(Connection, Instant), DbErr> {
        loop {
            let begun = Instant::now();
            let opened = match &self.inner.driver {
                Driver::Sqlite(pool) => pool.acquire().await.map(Connection::Sqlite),
                Driver::Postgres(pool) => pool.acquire().await.map(Connection::Postgres),
            };
            let connection = opened.map_err(|error| match error {
                sqlx::Error::PoolTimedOut => DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
                sqlx::Error::PoolClosed => DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed),
                error => DbErr::Conn(RuntimeErr::SqlxError(error.into())),
            })?;
            if self.trust().verdict(begun, Duration::ZERO) != Verdict::Close {
                return Ok((connection, begun));
            }
            // It leads to the server that was in use when it began.
            connection.close(&Handle::current());
        }
    }

    async fn lock(&self) -> Result<OwnedMutexGuard<Slot>, DbErr> {
        if let Ok(slot) = Arc::clone(&self.inner.slot).try_lock_owned() {
            return Ok(slot);
        }
        let slot = timeout(ACQUIRE_TIMEOUT, Arc::clone(&self.inner.slot).lock_owned()).await;
        slot.map_err(|_| DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))
    }
}

impl HeldConnection {
    /// Keeps a connection that is in no transaction for the next statement.
    pub(super) fn release(mut self, tasks: &Handle) {
        if self.acquired.elapsed() < MAX_AGE && matches!(*self.slot, Slot::Empty) {
            let idle =
                Idle { connection: Some(self.connection), acquired: self.acquired, since: Instant::now() };
            *self.slot = Slot::Idle(idle);
        } else {
            self.connection.release(tasks);
        }
    }
}

impl Connection {
    /// Gives the connection back to the library's pool. The driver pings it first, for which it has no limit
    /// of its own.
    fn release(mut self, tasks: &Handle) {
        on_either!(&mut self, c => { tasks.spawn(timeout(MAX_ABANDONED, c.return_to_pool())); });
    }

    /// Closes the connection without telling the server, where there is no runtime for the task that the
    /// library would start.
    pub(super) fn cut(self) {
        on_either!(self, c => drop(c.leak()));
    }

    pub(super) fn close(self, tasks: &Handle) {
        on_either!(self, c => { tasks.spawn(timeout(MAX_ABANDONED, c.close())); });
    }
}
