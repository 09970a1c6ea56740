//! Columns and indexes of lists and searches: orders, the search index, the session that an event is about.

use std::fmt::Display;

use sea_orm::{ConnectionTrait as _, DbBackend, DbErr, QueryResult, Statement};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, SchemaManagerConnection, async_trait};

use super::super::search;
use super::in_dialect;
use super::m20261121_000001_first::{SESSIONS, USER_INDEXES, USERS};
use crate::domain::email::Email;
use crate::domain::namespace::Namespace;
use crate::domain::prefs::Prefs;
use crate::domain::time::Timestamp;
use crate::domain::user::{Labels, Metadata, Name, Status, User};
use crate::domain::user_id::UserId;
use crate::domain::username::Username;
use crate::error::with_causes;

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
const POSTGRES_TERMS: &str =
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

/// Users read at a time, in the order of their key: what the search index holds of them. Named one by one and
/// not by their entity, which will have columns that are not there yet.
const BATCH: &str = "
SELECT namespace, id, username, email, email_verified, name, status, labels, deleted FROM users
WHERE (namespace, id) > ($1, $2) ORDER BY namespace, id LIMIT 500";

/// Puts everyone who is there into the search index.
async fn index_users(db: &SchemaManagerConnection<'_>) -> Result<(), DbErr> {
    let mut after = (String::new(), String::new());
    loop {
        let values = [after.0.as_str().into(), after.1.as_str().into()];
        let rows = db.query_all_raw(Statement::from_sql_and_values(db.get_database_backend(), BATCH, values));
        let users = rows.await?.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let Some((namespace, last)) = users.last() else { return Ok(()) };
        after = (namespace.clone(), last.id.as_str().to_owned());
        for tenants in users.chunk_by(|(one, _), (next, _)| one == next) {
            let Some((namespace, _)) = tenants.first() else { continue };
            let namespace = Namespace::parse(namespace).map_err(custom)?;
            let users = tenants.iter().map(|(_, user)| user);
            search::write_all(db, &namespace, users).await.map_err(|error| custom(with_causes(&error)))?;
        }
    }
}

/// A row of [`BATCH`]: a namespace and a user, of whom nothing else is read.
fn read(row: &QueryResult) -> Result<(String, User), DbErr> {
    let text = |column| row.try_get::<String>("", column);
    let (username, email) = (text("username")?, text("email")?);
    let deleted = row.try_get::<i64>("", "deleted")?;
    let user = User {
        id: UserId::from_trusted(text("id")?),
        username: (!username.is_empty()).then(|| Username::from_trusted(username)),
        email: (!email.is_empty()).then(|| Email::from_trusted(email)),
        name: Name::from_trusted(text("name")?),
        status: Status::from_number(row.try_get::<i16>("", "status")?.into())
            .ok_or_else(|| custom("unknown status"))?,
        email_verified: row.try_get("", "email_verified")?,
        labels: Labels::from_trusted(serde_json::from_str(&text("labels")?).map_err(custom)?),
        deleted: (deleted > 0).then_some(Timestamp(deleted)),
        password_updated: None,
        prefs: Prefs::default(),
        metadata: Metadata::default(),
        sso_enabled: false,
        created: Timestamp(0),
        updated: Timestamp(0),
        version: 0,
        generation: 0,
    };
    Ok((text("namespace")?, user))
}

fn custom(error: impl Display) -> DbErr {
    DbErr::Custom(error.to_string())
}
