//! The connections that callers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use sea_orm::{DbBackend, Statement};
use tokio::runtime::Handle;

use crate::domain::caller::Flow;
use crate::error::Result;

use super::lease::Work;
use super::observer::Observer;
use super::pool::Pool;
use super::turns::{Permit, TurnLimits, Turns, Usage};

/// Stops a statement of a connection that no caller waits for any more. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    /// On SQLite: looked at by the thread of the connection every few microseconds of a statement.
    asked: AtomicBool,
    /// The number of checks in this turn.
    looks: AtomicU32,
    /// On PostgreSQL: the process that serves the connection; 0 while there is none.
    process: AtomicI32,
    /// The moves to another server before that.
    moves: AtomicU64,
}

/// A statement at which its thread has looked so often takes a millisecond or more.
const MAX_CHECKS: u32 = 50;

impl Stop {
    /// Called by the thread of the connection between steps of a statement. Returns false if it is to end.
    ///
    /// Long ones let other threads go first: a short statement must not wait for the kernel to take the CPU
    /// from them.
    pub(super) fn may_go_on(&self) -> bool {
        if self.0.looks.fetch_add(1, Ordering::Relaxed) >= MAX_CHECKS {
            std::thread::yield_now();
        }
        !self.0.asked.load(Ordering::Acquire)
    }

    fn reset(&self) {
        self.0.looks.store(0, Ordering::Relaxed);
        self.0.asked.store(false, Ordering::Release);
    }

    /// Notes which process serves the connection, on the server that is used after so many moves.
    pub(super) fn served_by(&self, process: i32, moves: u64) {
        self.0.moves.store(moves, Ordering::Release);
        self.0.process.store(process, Ordering::Release);
    }
}

/// A pool of one connection: which one a statement runs on is known, so that it can be stopped.
#[derive(Clone, Debug)]
pub(super) struct Single {
    pub(super) pool: Pool,
    pub(super) stop: Stop,
}

/// Connections, and whose turn it is to use one. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connections: Vec<Single>,
    turns: Arc<Turns>,
    /// The connection on which PostgreSQL is asked to cancel a statement; `None` on SQLite.
    cancels: Option<Pool>,
}

impl Shared {
    pub(super) fn new(connections: Vec<Single>, limits: TurnLimits, cancels: Option<Pool>) -> Self {
        let turns = Arc::new(Turns::new(connections.len(), limits));
        Self(Arc::new(Inner { connections, turns, cancels }))
    }

    /// The same; `observer` is called for each statement.
    pub(super) fn observed(&self, observer: &Observer) -> Self {
        let each =
            |single: &Single| Single { pool: single.pool.observed(observer), stop: single.stop.clone() };
        Self(Arc::new(Inner {
            connections: self.0.connections.iter().map(each).collect(),
            turns: Arc::clone(&self.0.turns),
            cancels: self.0.cancels.clone(),
        }))
    }

    /// Waits for a turn. Its connection is that of the pool, until the last clone of that is dropped.
    /// Fails with `DatabaseUnavailable` if no connection comes free in time.
    pub(super) async fn turn(&self, flow: &Flow) -> Result<Pool> {
        let permit = self.0.turns.acquire(flow).await?;
        let turn = Turn { shared: self.clone(), permit };
        // What the turn before ran has ended by now.
        turn.single().stop.reset();
        let pool = turn.single().pool.clone();
        Ok(pool.during(turn))
    }

    /// The connections now, and who waits for one.
    pub(super) fn usage(&self) -> Usage {
        self.0.turns.usage()
    }

    /// Closes every connection.
    pub(super) async fn close(&self) {
        for single in &self.0.connections {
            single.pool.close().await;
        }
    }
}

/// A call's turn with a connection. It ends when the last statement has, also one that was abandoned.
#[derive(Debug)]
pub(super) struct Turn {
    shared: Shared,
    permit: Permit,
}

impl Turn {
    fn single(&self) -> &Single {
        &self.shared.0.connections[self.permit.connection()]
    }

    /// Stops a statement that still runs, and any further one of this turn.
    pub(super) fn stop(turn: &Arc<Self>) {
        turn.single().stop.0.asked.store(true, Ordering::Release);
        // A statement that still runs holds the turn too.
        if Arc::strong_count(turn) > 1
            && let (Some(pool), Ok(tasks)) = (turn.shared.0.cancels.clone(), Handle::try_current())
        {
            tasks.spawn(cancel(pool, Arc::clone(turn)));
        }
    }
}

/// Cancels the statement of a PostgreSQL connection. The turn lasts until the server has sent the signal,
/// which would hit the next one's statement otherwise; a process that is at no statement ignores it.
async fn cancel(pool: Pool, turn: Arc<Turn>) {
    let process = turn.single().stop.0.process.load(Ordering::Acquire);
    let cancel = Statement::from_string(DbBackend::Postgres, format!("SELECT pg_cancel_backend({process})"));
    let moves = turn.single().stop.0.moves.load(Ordering::Acquire);
    let cancelled = match pool.acquire().await {
        // The number names another process on another server.
        Ok(_) if pool.health().moves() != moves => return,
        Ok(lease) => lease.start(Arc::new(Work::One(cancel))).await.1.map(|_| ()),
        Err(error) => Err(error),
    };
    if let Err(error) = cancelled {
        tracing::debug!(%error, "a statement could not be cancelled: its time limit ends it");
    }
}
