//! The addresses that users signed in from, as keyed digests.

use sea_orm::{ConnectionTrait, Statement, Value};

use crate::domain::guard::Mark;
use crate::domain::namespace::Namespace;
use crate::domain::time::Timestamp;
use crate::domain::user_id::UserId;
use crate::error::Result;

/// Whether the user signed in from there before. Asked for users who do not exist too, so that both cost the same.
///
/// # Errors
///
/// What the database says, as all functions here.
pub async fn is_familiar(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &str,
    place: &Mark,
) -> Result<bool> {
    let sql = "SELECT seen FROM familiar_places WHERE namespace = $1 AND user_id = $2 AND place = $3";
    let values: [Value; 3] = [namespace.as_str().into(), user.into(), place.to_vec().into()];
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    Ok(db.query_one_raw(statement).await?.is_some())
}

/// Notes that the user signed in from there.
///
/// # Errors
///
/// What the database says.
pub async fn make_familiar(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    place: &Mark,
    now: Timestamp,
) -> Result<()> {
    let sql = "INSERT INTO familiar_places (namespace, user_id, place, seen) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (namespace, user_id, place) DO UPDATE SET seen = excluded.seen";
    let values: [Value; 4] =
        [namespace.as_str().into(), user.as_str().into(), place.to_vec().into(), now.0.into()];
    tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    Ok(())
}

/// The most addresses that are remembered of a user.
const MAX_PLACES: i64 = 100;

/// The most addresses beyond those that one sign-in forgets: a database from before there was a limit may have many.
const MAX_FORGOTTEN: i64 = 1_000;

/// Forgets the addresses of the user beyond `MAX_PLACES`, the oldest first.
///
/// # Errors
///
/// What the database says.
pub async fn forget_oldest_places(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
) -> Result<()> {
    let sql = "DELETE FROM familiar_places WHERE namespace = $1 AND user_id = $2 AND place IN \
        (SELECT place FROM familiar_places WHERE namespace = $1 AND user_id = $2 \
        ORDER BY seen DESC, place LIMIT $3 OFFSET $4)";
    let values: [Value; 4] =
        [namespace.as_str().into(), user.as_str().into(), MAX_FORGOTTEN.into(), MAX_PLACES.into()];
    tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    Ok(())
}
