//! Users, sessions, events and secrets.
//!
//! Written as SQL, since what matters here is what the two databases do differently: PostgreSQL compares text
//! byte by byte only when told to, and numbers events by an identity column.

use rand::TryRng as _;
use rand::rngs::SysRng;
use sea_orm::{ConnectionTrait as _, DbErr, Statement};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

use super::in_dialect;

pub(super) struct Migration;

/// The name the database remembers: never change it.
impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261121_000001_first"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let backend = db.get_database_backend();
        for statement in [USERS, USER_INDEXES, SESSIONS, EVENTS, SECRETS] {
            db.execute_unprepared(&in_dialect(statement, backend)).await?;
        }
        for name in ["page_token", "decoy"] {
            let mut key = [0_u8; 32];
            SysRng.try_fill_bytes(&mut key).map_err(|error| DbErr::Custom(error.to_string()))?;
            let sql = "INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            let values = [name.into(), key.to_vec().into()];
            db.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
        }
        Ok(())
    }
}

/// An absent username, e-mail address or password is the empty text, so that rows sort and page alike on both
/// databases; an absent time is 0. `id_folded` and `name_folded` are what searches compare (see
/// `text::fold`); username and e-mail address are folded already.
pub(super) const USERS: &str = "
CREATE TABLE users (
  namespace {text},
  id {text},
  generation BIGINT NOT NULL,
  version BIGINT NOT NULL,
  username {text},
  email {text},
  email_verified BOOLEAN NOT NULL,
  name {text},
  status SMALLINT NOT NULL,
  sso_enabled BOOLEAN NOT NULL,
  password_hash {text},
  password_updated BIGINT NOT NULL,
  prefs {text},
  labels {text},
  metadata {text},
  created BIGINT NOT NULL,
  updated BIGINT NOT NULL,
  deleted BIGINT NOT NULL,
  id_folded {text},
  name_folded {text},
  PRIMARY KEY (namespace, id)
)";

pub(super) const USER_INDEXES: &str = "
CREATE UNIQUE INDEX users_username_live ON users (namespace, username) WHERE deleted = 0 AND username <> '';
CREATE UNIQUE INDEX users_email_live ON users (namespace, email) WHERE deleted = 0 AND email <> '';
CREATE INDEX users_by_username ON users (namespace, username, id) WHERE deleted = 0;
CREATE INDEX users_by_deletion ON users (deleted) WHERE deleted > 0";

pub(super) const SESSIONS: &str = "
CREATE TABLE sessions (
  namespace {text},
  digest {bytes},
  public_id {text},
  user_id {text},
  created BIGINT NOT NULL,
  expires BIGINT NOT NULL,
  seen BIGINT NOT NULL,
  address {text},
  user_agent {text},
  PRIMARY KEY (namespace, digest),
  FOREIGN KEY (namespace, user_id) REFERENCES users (namespace, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX sessions_public_id ON sessions (namespace, user_id, public_id);
CREATE INDEX sessions_by_expiry ON sessions (expires);
CREATE INDEX sessions_by_seen ON sessions (seen)";

/// Ready for a change feed that loses nothing: a reader on PostgreSQL stops below `pg_snapshot_xmin` of `tx`,
/// since numbers are given out before they are committed.
const EVENTS: &str = "
CREATE TABLE events (
  seq {seq},
  namespace {text},
  user_id {text},
  at BIGINT NOT NULL,
  action {text},
  caller {text},
  address {text},
  user_agent {text},
  version BIGINT NOT NULL,
  changed {text},
  {events_key}
);
CREATE INDEX events_by_user ON events (namespace, user_id, seq);
CREATE INDEX events_by_age ON events (at)";

const SECRETS: &str = "CREATE TABLE secrets (name {text}, value {bytes}, PRIMARY KEY (name))";
