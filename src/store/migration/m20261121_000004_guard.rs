//! Tables of the throttle: counts of attempts, known IP addresses, and random numbers of users.

use sea_orm::{ConnectionTrait as _, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

use super::in_dialect;

pub(super) struct Migration;

/// The name the database remembers: never change it.
impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261121_000004_guard"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let backend = db.get_database_backend();
        for statement in [ATTEMPTS, FAMILIAR_PLACES, USERS_BY_CHANCE] {
            db.execute_unprepared(&in_dialect(statement, backend)).await?;
        }
        Ok(())
    }
}

/// `mark` is the bucket key, a keyed digest. `spent` are attempts of the `hour` that did not
/// succeed, `spent_before` those of the hour before; `streak` failures in a row, the last at `failed`.
const ATTEMPTS: &str = "
CREATE TABLE attempts (
  namespace {text},
  mark {bytes},
  hour BIGINT NOT NULL,
  spent BIGINT NOT NULL,
  spent_before BIGINT NOT NULL,
  streak BIGINT NOT NULL,
  failed BIGINT NOT NULL,
  PRIMARY KEY (namespace, mark)
);
CREATE INDEX attempts_by_hour ON attempts (hour)";

const FAMILIAR_PLACES: &str = "
CREATE TABLE familiar_places (
  namespace {text},
  user_id {text},
  place {bytes},
  seen BIGINT NOT NULL,
  PRIMARY KEY (namespace, user_id, place),
  FOREIGN KEY (namespace, user_id) REFERENCES users (namespace, id) ON DELETE CASCADE
);
CREATE INDEX familiar_places_by_age ON familiar_places (seen)";

/// Generations are random, so the next one after a random number is a random user's.
const USERS_BY_CHANCE: &str = "
CREATE INDEX users_by_chance ON users (namespace, generation) WHERE deleted = 0 AND password_hash <> ''";
