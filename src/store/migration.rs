//! The schema and its versions.

mod m20261121_000001_first;
mod m20261121_000002_lists;
mod m20261121_000003_keys;
mod m20261121_000004_guard;
mod m20261125_000005_throttle;
mod m20261125_000006_key_makers;
mod m20261125_000007_faults;
mod m20261126_000008_tail;
mod m20261126_000009_totals;
mod m20261126_000010_key_changes;
mod m20261126_000011_idempotency_keys;
mod m20261126_000012_proof;
mod m20261126_000013_codes;
mod m20261126_000014_factors;
mod m20261126_000015_namespaces;
mod m20261126_000016_assertions;
mod m20261126_000017_search_order;
mod steps;

use sea_orm::{
    ConnectionTrait as _, Database, DatabaseConnection, DbBackend, DbErr, SqliteTransactionMode,
    TransactionOptions, TransactionTrait as _,
};
use sea_orm_migration::{MigrationName, MigrationTrait, MigratorTrait, SchemaManager, async_trait};

use super::Store;

pub(super) use m20261121_000002_lists::POSTGRES_TERMS;
pub use steps::{SchemaError, Step, Steps};

struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261121_000001_first::Migration),
            Box::new(m20261121_000002_lists::Migration),
            Box::new(m20261121_000003_keys::MIGRATION),
            Box::new(m20261121_000004_guard::MIGRATION),
            Box::new(m20261125_000005_throttle::MIGRATION),
            Box::new(m20261125_000006_key_makers::MIGRATION),
            Box::new(m20261125_000007_faults::MIGRATION),
            Box::new(m20261126_000008_tail::MIGRATION),
            Box::new(m20261126_000009_totals::MIGRATION),
            Box::new(m20261126_000010_key_changes::MIGRATION),
            Box::new(m20261126_000011_idempotency_keys::MIGRATION),
            Box::new(m20261126_000012_proof::MIGRATION),
            Box::new(m20261126_000013_codes::MIGRATION),
            Box::new(m20261126_000014_factors::MIGRATION),
            Box::new(m20261126_000015_namespaces::MIGRATION),
            Box::new(m20261126_000016_assertions::MIGRATION),
            Box::new(m20261126_000017_search_order::MIGRATION),
        ]
    }
}

/// Held on PostgreSQL while migrating, so that replicas that start together do it one after the other. The
/// number only has to be the same in all of them.
const LOCK: i64 = 0x7573_6572_7364;

/// Writers of older replicas lock users or keys first, and sessions and events second, migrations in any order: without this,
/// each could wait for the other. They lock a user by SELECT FOR UPDATE, which only EXCLUSIVE keeps out; reads go on.
const LOCK_OUT_WRITERS: &str = "DO $$ BEGIN
  IF to_regclass('users') IS NOT NULL THEN LOCK TABLE users IN EXCLUSIVE MODE; END IF;
  IF to_regclass('keys') IS NOT NULL THEN LOCK TABLE keys IN SHARE ROW EXCLUSIVE MODE; END IF;
END $$";

impl Store {
    /// Applies what is missing, all or nothing. Changes nothing if a newer program has migrated further.
    ///
    /// # Errors
    ///
    /// Those of [`Store::migrations`]; then nothing has changed.
    pub async fn migrate(&self) -> Result<(), SchemaError> {
        self.migrate_to(None).await
    }

    /// Applies so many steps. The library takes no transaction but its own, so it gets a connection of its
    /// own.
    async fn migrate_to(&self, steps: Option<u32>) -> Result<(), SchemaError> {
        let library = Database::connect(self.migrations.clone()).await?;
        let done = apply(&library, steps).await;
        // It is gone one way or the other, with a transaction that is still open.
        library.close().await.unwrap_or_default();
        done
    }

    /// Every migration of this program and then those of newer ones. Changes nothing, not even on an empty database.
    ///
    /// # Errors
    ///
    /// Those of the database, or that its migrations are not this program's with newer ones behind them.
    pub async fn migrations(&self) -> Result<Steps, SchemaError> {
        let library = Database::connect(self.migrations.clone()).await?;
        let steps = steps::read(&SchemaManager::new(&library)).await?;
        library.close().await?;
        Ok(steps)
    }
}

async fn apply(library: &DatabaseConnection, steps: Option<u32>) -> Result<(), SchemaError> {
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    let tx = library.begin_with_options(options).await?;
    let postgres = tx.get_database_backend() == DbBackend::Postgres;
    if postgres {
        // Waiting for another replica, and an index on a large table, may take their time.
        tx.execute_unprepared("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0").await?;
        tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({LOCK})")).await?;
    }
    // The library would refuse newer migrations. They come behind all of ours, so there is nothing to do then.
    if steps::read(&SchemaManager::new(&tx)).await?.iter().any(|step| !step.applied) {
        if postgres {
            tx.execute_unprepared(LOCK_OUT_WRITERS).await?;
        }
        Migrator::up(&tx, steps).await?;
    }
    Ok(tx.commit().await?)
}

/// A migration that runs statements and does nothing else.
struct Sql {
    /// The name the database remembers: never change it.
    name: &'static str,
    sqlite: &'static [&'static str],
    postgres: &'static [&'static str],
}

impl Sql {
    /// One with the same statements for both databases.
    const fn same(name: &'static str, statements: &'static [&'static str]) -> Self {
        Self { name, sqlite: statements, postgres: statements }
    }
}

impl MigrationName for Sql {
    fn name(&self) -> &str {
        self.name
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Sql {
    async fn up(&self, manager: &SchemaManager) -> std::result::Result<(), DbErr> {
        let db = manager.get_connection();
        let backend = db.get_database_backend();
        let statements = if backend == DbBackend::Sqlite { self.sqlite } else { self.postgres };
        for statement in statements {
            db.execute_unprepared(&in_dialect(statement, backend)).await?;
        }
        Ok(())
    }
}

/// SQL in the words of a database: what the two call differently stands in braces.
fn in_dialect(sql: &str, backend: DbBackend) -> String {
    let words = match backend {
        DbBackend::Postgres => [
            ("{text}", "TEXT COLLATE \"C\" NOT NULL"),
            ("{bytes}", "BYTEA NOT NULL"),
            ("{seq}", "BIGINT GENERATED BY DEFAULT AS IDENTITY"),
            ("{events_key}", "tx xid8 NOT NULL DEFAULT pg_current_xact_id(), PRIMARY KEY (namespace, seq)"),
        ],
        _ => [
            ("{text}", "TEXT NOT NULL"),
            ("{bytes}", "BLOB NOT NULL"),
            // Numbers only grow, also after the newest row was removed.
            ("{seq}", "INTEGER PRIMARY KEY AUTOINCREMENT"),
            ("{events_key}", "UNIQUE (namespace, seq)"),
        ],
    };
    words.iter().fold(sql.to_owned(), |sql, (word, meaning)| sql.replace(word, meaning))
}

#[cfg(test)]
mod tests {
    use sea_orm::{DbBackend, Statement};

    use crate::domain::list::{Filters, Listing};
    use crate::domain::namespace::Namespace;
    use crate::domain::session::SessionToken;
    use crate::store::list::{AccessPath, choose_path};
    use crate::store::{sessions, totals, users};

    use super::*;

    const OLD: &str = "
INSERT INTO users VALUES ('old', 'x', 7, 3, 'ada', 'ada@example.com', 1, 'Ada', 2, 0, 'hash', 5, '{\"a\":1}', '[\"staff\"]',
  '{}', 1, 2, 0, 'x', 'ada');
INSERT INTO users VALUES ('old', 'gone', 7, 3, 'ada', '', 1, '', 2, 0, '', 0, '{}', '[]', '{}', 1, 2, 9, 'gone', '');
INSERT INTO events (namespace, user_id, at, action, caller, address, user_agent, version, changed)
  VALUES ('old', 'x', 1, 'USER_CREATED', 'open', '', '', 1, '[]')";

    #[tokio::test]
    async fn a_file_of_the_first_schema_keeps_everything() {
        let folder = tempfile::TempDir::new().unwrap();
        let url = format!("sqlite://{}/usersd.db?mode=rwc", folder.path().display());
        let store = Store::connect(&url, 2).await.unwrap();
        let token = SessionToken::generate().unwrap();
        store.migrate_to(Some(1)).await.unwrap();
        let tx = store.begin_as_server().await.unwrap();
        tx.execute_unprepared(OLD).await.unwrap();
        let values = [token.digest().as_bytes().to_vec().into()];
        let session = "INSERT INTO sessions VALUES ('old', ?1, 'public', 'x', 1, 9, 1, '', '')";
        tx.execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, session, values)).await.unwrap();
        tx.commit().await.unwrap();

        store.migrate().await.unwrap();

        let (db, namespace) = (store.reader(), Namespace::parse("old").unwrap());
        let id = crate::domain::user_id::UserId::parse("x").unwrap();
        let account = users::find(db, &namespace, &id).await.unwrap().unwrap();
        assert_eq!((account.user.version, account.user.prefs.as_str()), (3, "{\"a\":1}"));
        assert_eq!(account.password.unwrap().as_str(), "hash");
        let open = sessions::find(db, &namespace, token.digest()).await.unwrap().unwrap();
        assert_eq!(open.user, id);
        for (trash, search, found) in
            [(false, "ADA@", 1), (false, "gone", 0), (true, "gone", 1), (true, "@example", 0)]
        {
            let filters = Filters { search: search.to_lowercase(), ..Filters::default() };
            let listing = Listing { trash, filters, ..Listing::default() };
            let AccessPath::Among(list) = choose_path(db, &namespace, &listing).await.unwrap() else {
                panic!("many")
            };
            assert_eq!(serde_json::from_str::<Vec<i64>>(&list).unwrap().len(), found, "{search}");
        }
        for trash in [false, true] {
            assert_eq!(totals::total(db, &namespace, trash).await.unwrap(), 1);
        }
        let broken = "SELECT count(*) FROM pragma_foreign_key_check";
        let row = db.query_one_raw(Statement::from_string(DbBackend::Sqlite, broken)).await.unwrap().unwrap();
        assert_eq!(row.try_get_by_index::<i64>(0).unwrap(), 0);
    }
}
