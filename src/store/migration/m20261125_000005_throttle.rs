//! Attempts in flight apart from those that failed, and the account that a count belongs to.

use sea_orm::{ConnectionTrait as _, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

use super::in_dialect;

pub(super) struct Migration;

/// The name the database remembers: never change it.
impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261125_000005_throttle"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        db.execute_unprepared(&in_dialect(ATTEMPTS, db.get_database_backend())).await?;
        Ok(())
    }
}

/// `pending` are attempts of the window `pending_window` without a verdict, `pending_before` those of the
/// window before; what is older is no longer counted. `owner` is the mark of the account whose failures the
/// row counts, empty for addresses and callers. The defaults are for replicas of the version before, which
/// run on while others are replaced.
const ATTEMPTS: &str = "
ALTER TABLE attempts ADD COLUMN pending_window BIGINT NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN pending BIGINT NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN pending_before BIGINT NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN owner {bytes} DEFAULT '';
CREATE INDEX attempts_by_owner ON attempts (namespace, owner)";
