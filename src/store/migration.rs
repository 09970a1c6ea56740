//! The schema and its versions.

mod m20261121_000001_first;

use sea_orm::ConnectionTrait as _;
use sea_orm_migration::{MigrationStatus, MigrationTrait, MigratorTrait};

use crate::error::Result;

use super::{Kind, Store};

struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m20261121_000001_first::Migration)]
    }
}

/// Held on PostgreSQL while migrating, so that replicas that start together do it one after the other. The
/// number only has to be the same in all of them.
const LOCK: i64 = 0x7573_6572_7364;

/// A migration and whether the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Whether it was applied.
    pub applied: bool,
}

/// Migrations in order.
pub type Steps = Vec<Step>;

impl Store {
    /// Applies what is missing, all or nothing.
    ///
    /// # Errors
    ///
    /// What the database says; then nothing has changed.
    pub async fn migrate(&self) -> Result<()> {
        let tx = self.begin().await?;
        if self.kind() == Kind::Postgres {
            // Waiting for another replica, and an index on a large table, may take their time.
            tx.execute_unprepared("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0").await?;
            tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({LOCK})")).await?;
        }
        Migrator::up(&tx, None).await?;
        Ok(tx.commit().await?)
    }

    /// Every migration this program knows. Changes nothing, not even on an empty database.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub async fn migrations(&self) -> Result<Steps> {
        let known = Migrator::get_migration_with_status_read_only(self.reader()).await?;
        let step = |migration: &sea_orm_migration::migrator::Migration| Step {
            name: migration.name().to_owned(),
            applied: migration.status() == MigrationStatus::Applied,
        };
        Ok(known.iter().map(step).collect())
    }
}
