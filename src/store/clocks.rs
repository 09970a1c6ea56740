//! The clocks as they were when housekeeping last trusted them.

use sea_orm::{ConnectionTrait, Statement, Value};

use crate::domain::time::{Clocks, Timestamp};
use crate::error::Result;

/// The clocks of the machine start `boot_id` at the last round of housekeeping; where there was none, the
/// newest round of any; where there was none at all, the newest event.
pub async fn last(db: &impl ConnectionTrait, boot_id: &str) -> Result<Option<Clocks>> {
    let backend = db.get_database_backend();
    let select = "SELECT wall, boot, boot_id FROM housekeeping \
        ORDER BY CASE WHEN boot_id = $1 THEN 0 ELSE 1 END, wall DESC LIMIT 1";
    let select = Statement::from_sql_and_values(backend, select, [Value::from(boot_id)]);
    if let Some(row) = db.query_one_raw(select).await? {
        return Ok(Some(Clocks {
            wall: Timestamp(row.try_get("", "wall")?),
            boot: Timestamp(row.try_get("", "boot")?),
            boot_id: row.try_get("", "boot_id")?,
        }));
    }
    let select = Statement::from_string(backend, "SELECT at FROM events ORDER BY at DESC LIMIT 1");
    let Some(row) = db.query_one_raw(select).await? else { return Ok(None) };
    Ok(Some(Clocks { wall: Timestamp(row.try_get_by_index(0)?), boot: Timestamp(0), boot_id: String::new() }))
}

/// Records the clocks. Those of machine starts whose last round is from before `forgotten` are
/// removed.
pub async fn note(tx: &impl ConnectionTrait, clocks: &Clocks, forgotten: Timestamp) -> Result<()> {
    let backend = tx.get_database_backend();
    let insert = "INSERT INTO housekeeping (boot_id, wall, boot) VALUES ($1, $2, $3) \
        ON CONFLICT (boot_id) DO UPDATE SET wall = excluded.wall, boot = excluded.boot";
    let values = [Value::from(clocks.boot_id.as_str()), clocks.wall.0.into(), clocks.boot.0.into()];
    tx.execute_raw(Statement::from_sql_and_values(backend, insert, values)).await?;
    let delete = "DELETE FROM housekeeping WHERE wall < $1";
    tx.execute_raw(Statement::from_sql_and_values(backend, delete, [Value::from(forgotten.0)])).await?;
    Ok(())
}
