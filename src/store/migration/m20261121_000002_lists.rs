//! What lists and searches need: orders, the search index, the session that an event is about.

use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DbBackend, DbErr, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _,
};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, SchemaManagerConnection, async_trait};

use super::super::entity::user::{self, Column};
use super::super::search;
use super::in_dialect;
use super::m20261121_000001_first::{SESSIONS, USER_INDEXES, USERS};
use crate::domain::namespace::Namespace;
use crate::error::{Error, with_causes};

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
        index_users(db).await?;
        // Last: from here on nobody else writes an event until the end.
        db.execute_unprepared(&in_dialect(EVENTS, backend)).await?;
        Ok(())
    }
}

/// The index of a user has her row's number; what it knows her by is not kept beside it.
const SQLITE_SEARCH: &str = "
CREATE VIRTUAL TABLE users_search USING fts5
  (terms, content = '', contentless_delete = 1, detail = none, tokenize = 'ascii')";

/// What was written last is looked through term by term until it is sorted in: little of it, so that a search right
/// behind many writes is as quick as any.
const POSTGRES_SEARCH: &str = "
CREATE TABLE users_search (
  namespace {text},
  id {text},
  terms INTEGER[] NOT NULL,
  PRIMARY KEY (namespace, id),
  FOREIGN KEY (namespace, id) REFERENCES users (namespace, id) ON DELETE CASCADE
);
CREATE INDEX users_search_terms ON users_search USING gin (terms) WITH (gin_pending_list_limit = 256)";

const ORDERS: &str = "
CREATE INDEX users_by_created ON users (namespace, created, id) WHERE deleted = 0;
CREATE INDEX users_by_updated ON users (namespace, updated, id) WHERE deleted = 0;
CREATE INDEX users_by_email ON users (namespace, email, id) WHERE deleted = 0;
CREATE INDEX users_by_name ON users (namespace, name_folded, id) WHERE deleted = 0;
CREATE INDEX users_in_trash ON users (namespace, deleted, id) WHERE deleted > 0;
CREATE INDEX users_in_trash_by_email ON users (namespace, email, deleted, id) WHERE deleted > 0";

const EVENTS: &str = "ALTER TABLE events ADD COLUMN session {text} DEFAULT ''";

/// Gives users a number on SQLite, which the search index knows them by. Rows have one there anyway, but only one that
/// is declared stays the same when the file is compacted.
///
/// A table that others refer to cannot be dropped without their rows: sessions step aside meanwhile.
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

/// Users read at a time.
const BATCH: u64 = 500;

/// Puts everyone who is there into the search index.
async fn index_users(db: &SchemaManagerConnection<'_>) -> Result<(), DbErr> {
    let failed = |error: Error| DbErr::Custom(with_causes(&error));
    let mut after = (String::new(), String::new());
    loop {
        let key = Expr::tuple([Column::Namespace.into_expr(), Column::Id.into_expr()]);
        let behind = key.gt(Expr::tuple([Expr::val(&*after.0), Expr::val(&*after.1)]));
        let rows =
            user::Entity::find().filter(behind).order_by_asc(Column::Namespace).order_by_asc(Column::Id);
        let rows = rows.limit(BATCH).all(db).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = (last.namespace.clone(), last.id.clone());
        for row in rows {
            let namespace =
                Namespace::parse(&row.namespace).map_err(|error| DbErr::Custom(error.to_string()))?;
            let user = row.try_into().map_err(failed)?;
            search::write(db, &namespace, &user).await.map_err(failed)?;
        }
    }
}
