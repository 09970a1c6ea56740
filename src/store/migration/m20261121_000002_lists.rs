//! Columns and indexes of lists and searches: orders, the search index, the session that an event is about.

use sea_orm::{ConnectionTrait as _, DbBackend, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, SchemaManagerConnection, async_trait};

use super::super::search;
use super::in_dialect;
use super::m20261121_000001_first::{SESSIONS, USER_INDEXES, USERS};

pub(super) struct Migration;

/// The name the database remembers: never change it.
impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261121_000002_lists"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let backend = db.get_database_backend();
        let search = match backend {
            DbBackend::Sqlite => {
                number_users(db).await?;
                SQLITE_SEARCH
            }
            _ => POSTGRES_SEARCH,
        };
        for statement in [search, ORDERS] {
            db.execute_unprepared(&in_dialect(statement, backend)).await?;
        }
        search::index_all(db).await?;
        if backend == DbBackend::Postgres {
            db.execute_unprepared(POSTGRES_TERMS).await?;
        }
        // Last: from here on nobody else writes an event until the end.
        db.execute_unprepared(&in_dialect(EVENTS, backend)).await?;
        Ok(())
    }
}

/// The index of a user has her row's number; what it knows her by is not kept beside it. A search looks into
/// each of the segments that the index consists of: two alike are merged, not four as usual, by writes and by
/// housekeeping.
const SQLITE_SEARCH: &str = "
CREATE VIRTUAL TABLE users_search USING fts5
  (terms, content = '', contentless_delete = 1, detail = none, tokenize = 'ascii');
INSERT INTO users_search (users_search, rank) VALUES ('automerge', 2);
INSERT INTO users_search (users_search, rank) VALUES ('usermerge', 2)";

const POSTGRES_SEARCH: &str = "
CREATE TABLE users_search (
  namespace {text},
  id {text},
  terms INTEGER[] NOT NULL,
  PRIMARY KEY (namespace, id),
  FOREIGN KEY (namespace, id) REFERENCES users (namespace, id) ON DELETE CASCADE
)";

/// New terms are sorted in at once: else some search would look through those that are not, and some write
/// sort in those of many others.
pub(in crate::store) const POSTGRES_TERMS: &str =
    "CREATE INDEX users_search_terms ON users_search USING gin (terms) WITH (fastupdate = off)";

const ORDERS: &str = "
CREATE INDEX users_by_created ON users (namespace, created, id) WHERE deleted = 0;
CREATE INDEX users_by_updated ON users (namespace, updated, id) WHERE deleted = 0;
CREATE INDEX users_by_email ON users (namespace, email, id) WHERE deleted = 0;
CREATE INDEX users_by_name ON users (namespace, name_folded, id) WHERE deleted = 0;
CREATE INDEX users_in_trash ON users (namespace, deleted, id) WHERE deleted > 0;
CREATE INDEX users_in_trash_by_email ON users (namespace, email, deleted, id) WHERE deleted > 0";

const EVENTS: &str = "ALTER TABLE events ADD COLUMN session {text} DEFAULT ''";

/// Gives users a number on SQLite, which the search index knows them by. Rows have one there anyway, but only
/// one that is declared stays the same when the file is compacted.
///
/// A table that others refer to cannot be dropped without their rows: sessions are moved away meanwhile.
async fn number_users(db: &SchemaManagerConnection<'_>) -> Result<(), DbErr> {
    let columns = "namespace, id, generation, version, username, email, email_verified, name, status, sso_enabled, \
                   password_hash, password_updated, prefs, labels, metadata, created, updated, deleted, \
                   id_folded, name_folded";
    let numbered = USERS
        .replace("  namespace {text},\n", "  num INTEGER PRIMARY KEY,\n  namespace {text},\n")
        .replace("PRIMARY KEY (namespace, id)", "UNIQUE (namespace, id)");
    let steps = [
        "CREATE TABLE sessions_kept AS SELECT * FROM sessions",
        "DROP TABLE sessions",
        "ALTER TABLE users RENAME TO users_kept",
        &numbered,
        &format!("INSERT INTO users ({columns}) SELECT {columns} FROM users_kept ORDER BY rowid"),
        "DROP TABLE users_kept",
        USER_INDEXES,
        SESSIONS,
        "INSERT INTO sessions SELECT * FROM sessions_kept",
        "DROP TABLE sessions_kept",
    ];
    for step in steps {
        db.execute_unprepared(&in_dialect(step, DbBackend::Sqlite)).await?;
    }
    Ok(())
}
