//! Tables of housekeeping: the clocks by which it removes, and purged users whose events are not cleared yet.

use sea_orm::{ConnectionTrait as _, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

use super::in_dialect;

pub(super) struct Migration;

/// The name the database remembers: never change it.
impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261125_000007_faults"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let backend = db.get_database_backend();
        for statement in [HOUSEKEEPING, PURGED] {
            db.execute_unprepared(&in_dialect(statement, backend)).await?;
        }
        Ok(())
    }
}

/// A row for each start of a machine. `wall` is the time of day and `boot` the time since that start, both in
/// microseconds, when they last went alike.
const HOUSEKEEPING: &str = "
CREATE TABLE housekeeping (
  boot_id {text},
  wall BIGINT NOT NULL,
  boot BIGINT NOT NULL,
  PRIMARY KEY (boot_id)
)";

/// Events with the user's id up to number `last` are of one who was purged; those up to `cleared` say no more
/// where the person was.
const PURGED: &str = "
CREATE TABLE purged (
  namespace {text},
  user_id {text},
  cleared BIGINT NOT NULL,
  last BIGINT NOT NULL,
  PRIMARY KEY (namespace, user_id)
)";
