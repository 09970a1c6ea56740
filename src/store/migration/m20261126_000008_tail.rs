//! The index by which PostgreSQL finds the events of the newest transactions. SQLite numbers events in the order of their commits.

use sea_orm::{ConnectionTrait as _, DbBackend, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

pub(super) struct Migration;

/// The name the database remembers: never change it.
impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261126_000008_tail"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        if db.get_database_backend() == DbBackend::Postgres {
            db.execute_unprepared("CREATE INDEX events_by_transaction ON events (tx)").await?;
        }
        Ok(())
    }
}
