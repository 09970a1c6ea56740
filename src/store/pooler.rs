//! Refuses a pooler that shares the sessions of PostgreSQL between its clients, as `PgBouncer` does with `pool_mode =
//! transaction`: our settings would be other clients', prepared statements unknown, and a cancelled statement theirs.

use rand::TryRng as _;
use rand::rngs::SysRng;
use sea_orm::sqlx::postgres::PgConnection;
use sea_orm::sqlx::{self, AssertSqlSafe, Connection as _, Executor as _, Row as _};

use super::connect::ConnectError;
use super::hosts::Hosts;

/// Connections that look for the mark. Each keeps its session by a transaction, so that the next one gets another.
const OTHERS: usize = 2;

/// Puts a mark into the session of `first` and looks for it from other connections: it shows there if sessions are shared.
///
/// # Errors
///
/// [`ConnectError::Pooler`], and those of the connections.
pub(super) async fn check(first: &mut PgConnection, hosts: &Hosts) -> Result<(), ConnectError> {
    let failed = |error: sqlx::Error| ConnectError::from(&error);
    let mut random = [0; 16];
    SysRng.try_fill_bytes(&mut random).map_err(|error| ConnectError::Open(error.to_string()))?;
    let mark = hex::encode(random);
    first.execute(AssertSqlSafe(format!("SET usersd.session = '{mark}'"))).await.map_err(failed)?;
    let mut others = Vec::new();
    for _ in 0..OTHERS {
        let mut other = hosts.connect().await?;
        match other.execute("START TRANSACTION").await {
            // PgBouncer, with `pool_mode = statement`.
            Err(sqlx::Error::Database(said)) if said.code().as_deref() == Some("08P01") => {
                return Err(ConnectError::Pooler);
            }
            begun => begun.map_err(failed)?,
        };
        if mark_of(&mut other).await.map_err(failed)? == mark {
            return Err(ConnectError::Pooler);
        }
        others.push(other);
    }
    if mark_of(first).await.map_err(failed)? != mark {
        return Err(ConnectError::Pooler);
    }
    for other in others {
        other.close().await.map_err(failed)?;
    }
    Ok(())
}

/// In the simple protocol: a prepared statement may be gone when it is executed.
async fn mark_of(connection: &mut PgConnection) -> sqlx::Result<String> {
    let row = connection.fetch_one("SELECT coalesce(current_setting('usersd.session', true), '')").await?;
    row.try_get(0)
}
