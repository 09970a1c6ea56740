//! The table of namespaces that were created or are being deleted. All others have no row and no limits of their own.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, DbBackend, QueryResult, Statement, Value};
use sha2::{Digest as _, Sha256};

use crate::domain::key::AllowedNamespaces;
use crate::domain::namespace::{Namespace, NamespaceRecord, NamespaceState};
use crate::domain::quota::{Quota, Quotas};
use crate::domain::time::Timestamp;
use crate::error::{Error, Result};

use super::{keys, totals};

const COLUMNS: &str =
    "namespace, version, state, created, deleted, max_users, max_sessions, max_keys, max_calls_per_second";

/// Takes the number of the next change, and keeps all others from changing namespaces until the transaction ends.
pub async fn next_version(tx: &impl ConnectionTrait) -> Result<i64> {
    let sql = "UPDATE namespaces_version SET version = version + 1 RETURNING version";
    let row = tx.query_one_raw(Statement::from_string(tx.get_database_backend(), sql)).await?;
    Ok(row.ok_or_else(|| Error::internal("the version of the namespaces is missing"))?.try_get_by_index(0)?)
}

/// The record of a namespace; an implicit one where there is no row.
pub async fn find(db: &impl ConnectionTrait, namespace: &Namespace) -> Result<NamespaceRecord> {
    let sql = format!("SELECT {COLUMNS} FROM namespaces WHERE namespace = $1");
    let row = db.query_one_raw(statement(db, &sql, [namespace.as_str().into()])).await?;
    row.map_or_else(|| Ok(NamespaceRecord::implicit(namespace.clone())), |row| record(&row))
}

/// Writes a record in place of the one before.
pub async fn write(tx: &impl ConnectionTrait, record: &NamespaceRecord) -> Result<()> {
    let sql = format!(
        "INSERT INTO namespaces ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (namespace) DO UPDATE SET version = excluded.version, state = excluded.state,
           created = excluded.created, deleted = excluded.deleted, max_users = excluded.max_users,
           max_sessions = excluded.max_sessions, max_keys = excluded.max_keys,
           max_calls_per_second = excluded.max_calls_per_second"
    );
    let limit = |quota| record.limits.get(quota).map_or(-1, i64::from).into();
    let mut values: Vec<Value> = vec![
        record.name.as_str().into(),
        record.version.into(),
        (record.state as i16).into(),
        record.created.0.into(),
        record.deleted.0.into(),
    ];
    values.extend(Quota::ALL.map(limit));
    tx.execute_raw(statement(tx, &sql, values)).await?;
    Ok(())
}

/// Records that changed after the change number `version`.
pub(super) async fn changed_since(db: &impl ConnectionTrait, version: i64) -> Result<Vec<NamespaceRecord>> {
    let sql = format!("SELECT {COLUMNS} FROM namespaces WHERE version > $1 ORDER BY version");
    let rows = db.query_all_raw(statement(db, &sql, [version.into()])).await?;
    rows.iter().map(record).collect()
}

/// Names after `after`, in order: of namespaces that were created or are being deleted, and of those that have or had users.
pub async fn names(db: &impl ConnectionTrait, after: &str, limit: u64) -> Result<Vec<Namespace>> {
    let mut names = BTreeSet::new();
    for named in [
        "SELECT namespace FROM namespaces WHERE namespace > $1 AND state > 0",
        "SELECT DISTINCT namespace FROM user_totals WHERE namespace > $1",
    ] {
        let sql = format!("{named} ORDER BY namespace LIMIT {limit}");
        for row in db.query_all_raw(statement(db, &sql, [after.into()])).await? {
            names.insert(row.try_get_by_index::<String>(0)?);
        }
    }
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    names.iter().take(most).map(|name| Namespace::parse(name).map_err(Error::internal)).collect()
}

/// Removes at most `most` rows of namespaces whose deletion completed before `cutoff`: every replica has read it by then.
pub async fn forget_gone(tx: &impl ConnectionTrait, cutoff: Timestamp, most: u64) -> Result<()> {
    let sql = format!(
        "DELETE FROM namespaces WHERE namespace IN
           (SELECT namespace FROM namespaces WHERE state = 0 AND deleted < $1 LIMIT {most})"
    );
    tx.execute_raw(statement(tx, &sql, [cutoff.0.into()])).await?;
    Ok(())
}

/// The use of a namespace that counts against a limit.
pub async fn used(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    quota: Quota,
    now: Timestamp,
) -> Result<u64> {
    match quota {
        Quota::Users => {
            Ok(totals::total(db, namespace, false).await? + totals::total(db, namespace, true).await?)
        }
        Quota::Sessions => totals::sessions(db, namespace).await,
        Quota::Keys => keys::count_of(db, &AllowedNamespaces::One(namespace.clone()), now).await,
        // Counted in memory.
        Quota::CallsPerSecond => Ok(0),
    }
}

/// Locks the limits of a namespace until the transaction ends, so that concurrent additions wait. SQLite needs no lock: it has
/// one writer at a time.
pub async fn lock_limits(tx: &impl ConnectionTrait, namespace: &Namespace) -> Result<()> {
    if tx.get_database_backend() == DbBackend::Postgres {
        let mut number = [0; 8];
        number.copy_from_slice(&Sha256::digest(format!("limits of {}", namespace.as_str()))[..8]);
        let lock = [i64::from_be_bytes(number).into()];
        tx.execute_raw(statement(tx, "SELECT pg_advisory_xact_lock($1)", lock)).await?;
    }
    Ok(())
}

fn record(row: &QueryResult) -> Result<NamespaceRecord> {
    let limit = |name: &str| -> Result<Option<u32>> { Ok(u32::try_from(row.try_get::<i64>("", name)?).ok()) };
    let [users, sessions, keys, calls] = Quota::ALL.map(Quota::name);
    Ok(NamespaceRecord {
        name: Namespace::parse(&row.try_get::<String>("", "namespace")?).map_err(Error::internal)?,
        state: match row.try_get::<i16>("", "state")? {
            0 => NamespaceState::Implicit,
            1 => NamespaceState::Active,
            _ => NamespaceState::Deleting,
        },
        created: Timestamp(row.try_get("", "created")?),
        deleted: Timestamp(row.try_get("", "deleted")?),
        limits: Quotas::new([limit(users)?, limit(sessions)?, limit(keys)?, limit(calls)?]),
        version: row.try_get("", "version")?,
    })
}

fn statement(db: &impl ConnectionTrait, sql: &str, values: impl IntoIterator<Item = Value>) -> Statement {
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}
