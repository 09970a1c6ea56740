//! API keys.

use sea_orm::{ConnectionTrait as _, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

use super::in_dialect;

pub(super) struct Migration;

/// The name the database remembers: never change it.
impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261121_000003_keys"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let backend = db.get_database_backend();
        for statement in [KEYS, VERSION, FIRST] {
            db.execute_unprepared(&in_dialect(statement, backend)).await?;
        }
        Ok(())
    }
}

/// An absent time is 0. Keys are looked up in memory, where every replica has all of them, so there is no
/// index of digests.
const KEYS: &str = "
CREATE TABLE keys (
  namespace {text},
  id {text},
  digest {bytes},
  name {text},
  scopes {text},
  created BIGINT NOT NULL,
  expires BIGINT NOT NULL,
  last_used BIGINT NOT NULL,
  PRIMARY KEY (namespace, id)
)";

/// One row: goes up with each key that is made or revoked, so 0 says that there never was one.
const VERSION: &str = "CREATE TABLE keys_version (version BIGINT NOT NULL)";
const FIRST: &str = "INSERT INTO keys_version (version) VALUES (0)";
