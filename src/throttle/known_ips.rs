//! The IP addresses that users signed in from, as bucket keys, in the table `familiar_places`.

use sea_orm::{ConnectionTrait, Statement, Value};

use crate::domain::namespace::Namespace;
use crate::domain::time::Timestamp;
use crate::domain::user_id::UserId;
use crate::error::Result;

use super::buckets::BucketKey;

/// Returns true if the user signed in from there before. Asked for users who do not exist too, so that both
/// cost the same.
pub(super) async fn is_known_ip(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &str,
    ip: &BucketKey,
) -> Result<bool> {
    let sql = "SELECT seen FROM familiar_places WHERE namespace = $1 AND user_id = $2 AND place = $3";
    let values: [Value; 3] = [namespace.as_str().into(), user.into(), ip.to_vec().into()];
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    Ok(db.query_one_raw(statement).await?.is_some())
}

/// Remembers that the user logged in from the address. After a password alone (`by_second_factor` is false) only of users who
/// have no second factor: a stolen password must not make the address of its thief known.
pub(super) async fn remember_ip(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    ip: &BucketKey,
    by_second_factor: bool,
    now: Timestamp,
) -> Result<()> {
    let sql = "INSERT INTO familiar_places (namespace, user_id, place, seen) SELECT $1, $2, $3, $4 \
        WHERE $5 OR NOT EXISTS (SELECT 1 FROM totp_factors WHERE namespace = $1 AND user_id = $2 AND confirmed > 0) \
        ON CONFLICT (namespace, user_id, place) DO UPDATE SET seen = excluded.seen";
    let values: [Value; 5] = [
        namespace.as_str().into(),
        user.as_str().into(),
        ip.to_vec().into(),
        now.0.into(),
        by_second_factor.into(),
    ];
    tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    Ok(())
}

/// The most addresses that are remembered of a user.
const MAX_KNOWN_IPS: i64 = 100;

/// The most addresses beyond those that one sign-in forgets: a database from before there was a limit may
/// have many.
const MAX_FORGOTTEN: i64 = 1_000;

/// Forgets the addresses of the user beyond `MAX_KNOWN_IPS`, the oldest first.
pub(super) async fn forget_oldest_ips(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
) -> Result<()> {
    let sql = "DELETE FROM familiar_places WHERE namespace = $1 AND user_id = $2 AND place IN \
        (SELECT place FROM familiar_places WHERE namespace = $1 AND user_id = $2 \
        ORDER BY seen DESC, place LIMIT $3 OFFSET $4)";
    let values: [Value; 4] =
        [namespace.as_str().into(), user.as_str().into(), MAX_FORGOTTEN.into(), MAX_KNOWN_IPS.into()];
    tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    Ok(())
}
