//! Opening a database on PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::sqlx::postgres::PgConnection;
use sea_orm::sqlx::{self, Connection as _, Executor as _};
use sea_orm::{ConnectOptions, Database};

use super::connect::{ACQUIRE_TIMEOUT, ConnectError};
use super::hosts::{Hosts, Role};
use super::pool::Pool;
use super::probe::{Address, Probe};
use super::replica::Replica;
use super::shared::{Shared, Single, Stop};
use super::trust::Trust;
use super::turns::TurnLimits;
use super::{Kind, Reader, Store, pooler};

/// The longest time that connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Of so many connections one is left for the other namespaces, and one at least.
const OTHERS: usize = 4;

/// Of so many connections a namespace whose statements are slow has one while others are there, and one at
/// least: each keeps a CPU of the database busy, which takes it from no statement for another.
const SLOW: usize = 8;

/// Settings of our sessions. They never wait for a lock, work on a statement or sit in a
/// transaction for longer than any caller waits; compile a statement that reads some rows, which takes longer
/// than reading them; or read a table from its beginning. Each statement has an index that leads to one
/// tenant's rows, but where most rows are alike, or statistics are old, the planner would rather scan for
/// them among those of all tenants. Nor does it start processes to share a count with: a plan is kept that
/// was made for large tenants, and a small one's count takes a tenth of that.
pub(super) const SESSION: &str = "SET lock_timeout = '10s'; SET statement_timeout = '30s'; \
                       SET idle_in_transaction_session_timeout = '60s'; SET jit = off; SET enable_seqscan = off; \
                       SET max_parallel_workers_per_gather = 0";

/// Has the server end a statement whose connection we closed, which would otherwise wait on for its lock.
/// Servers before version 14 cannot, nor can some systems.
const END_ABANDONED: &str = "SET client_connection_check_interval = '1s'";

/// Refuses a connection to a standby: it shows rows as they were, and a session that ended would stay in the cache.
pub(super) const STANDBY: &str = "the server is a standby, not the primary";

/// Opens the database at `url`, which may name several servers.
pub(super) async fn open(url: &str, connections: u32) -> Result<Store, ConnectError> {
    let silent = || ConnectError::Unreachable(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()));
    // Gives up on a server that takes connections and says nothing.
    tokio::time::timeout(CONNECT_TIMEOUT, connect(url, connections)).await.unwrap_or_else(|_| Err(silent()))
}

async fn connect(url: &str, connections: u32) -> Result<Store, ConnectError> {
    let trust = Arc::<Trust>::default();
    let hosts = Arc::new(Hosts::parse(url, Role::Primary, &trust)?);
    // A pool tries until its time is up and then knows only that: one connection says what is wrong.
    let mut first = hosts.find().await?;
    check_version(first.server_version_num())?;
    pooler::check(&mut first, &hosts).await?;
    first.close().await.map_err(|error| ConnectError::from(&error))?;
    let pools = pools(&hosts, &trust, connections).await?;
    pools.server.acquire().await.map_err(ConnectError::from)?;
    Ok(Store {
        kind: Kind::Postgres,
        read: pools.shared.clone(),
        write: pools.shared,
        server: Arc::new(Reader::new(pools.server, None)),
        migrations: options(&hosts, &trust, &Stop::default()),
        replica: None,
        trust,
        probe: Arc::new(Probe::new(Address::Postgres(hosts))),
        coherence: Arc::default(),
        directory: Arc::default(),
        file: None,
    })
}

/// The replica at `url`, which is not asked yet.
pub(super) async fn replica(url: &str, connections: u32) -> Result<Replica, ConnectError> {
    let trust = Arc::<Trust>::default();
    let hosts = Arc::new(Hosts::parse(url, Role::Any, &trust)?);
    let pools = pools(&hosts, &trust, connections).await?;
    Ok(Replica::new(pools.shared, trust, Probe::new(Address::Postgres(hosts))))
}

/// The connections to the server in use, none of them open yet.
struct Pools {
    shared: Shared,
    /// For what is not a caller's.
    server: Pool,
}

async fn pools(hosts: &Arc<Hosts>, trust: &Arc<Trust>, connections: u32) -> Result<Pools, ConnectError> {
    let connections = usize::try_from(connections).unwrap_or(usize::MAX);
    let (mut singles, mut led) = (Vec::new(), Vec::new());
    for _ in 0..=connections {
        let stop = Stop::default();
        let mut options = options(hosts, trust, &stop);
        options.min_connections(0).connect_lazy(true);
        let db = Database::connect(options).await?;
        led.push(db.get_postgres_connection_pool().clone());
        singles.push(Single { pool: Pool::of(&db, Arc::clone(trust)), stop });
    }
    hosts.lead(led);
    let server = singles.swap_remove(0).pool;
    let some = (connections / OTHERS).max(1);
    let limits =
        TurnLimits { most: connections.saturating_sub(some).max(1), slow: (connections / SLOW).max(1) };
    Ok(Pools { shared: Shared::new(singles, limits, Some(server.clone())), server })
}

/// A pool of one connection, whose process `stop` gets to know.
fn options(hosts: &Arc<Hosts>, trust: &Arc<Trust>, stop: &Stop) -> ConnectOptions {
    let (trust, stop, hosts, role) = (Arc::clone(trust), stop.clone(), Arc::clone(hosts), hosts.role());
    let mut options = ConnectOptions::new("postgres:///");
    options
        .sqlx_logging(false)
        .max_connections(1)
        .min_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .map_sqlx_postgres_opts(move |_| hosts.options())
        .map_sqlx_postgres_pool_opts(move |pool| {
            let (stop, health) = (stop.clone(), trust.health.clone());
            trust.guard(pool).after_connect(move |connection, _| {
                let (stop, moves) = (stop.clone(), health.moves());
                Box::pin(async move {
                    stop.served_by(prepare(connection, role).await?, moves);
                    Ok(())
                })
            })
        });
    options
}

/// Sets a connection up, and returns the process that serves it.
async fn prepare(connection: &mut PgConnection, role: Role) -> sqlx::Result<i32> {
    connection.execute(SESSION).await?;
    if let Err(error) = connection.execute(END_ABANDONED).await {
        tracing::debug!(%error, "client_connection_check_interval cannot be set: the server does not notice closed connections");
    }
    // A server becomes a standby only by a new start, which ends its connections.
    let process = "SELECT pg_backend_pid(), pg_is_in_recovery()";
    let (process, standby): (i32, bool) = sqlx::query_as(process).fetch_one(connection).await?;
    if standby && role == Role::Primary {
        return Err(sqlx::Error::Configuration(STANDBY.into()));
    }
    Ok(process)
}

/// Takes the number as `server_version_num` has it: 12.7 is 120007.
fn check_version(number: Option<u32>) -> Result<(), ConnectError> {
    match number {
        Some(number @ ..130_000) => {
            Err(ConnectError::Version(format!("{}.{}", number / 10_000, number % 100)))
        }
        _ => Ok(()),
    }
}
