//! Copying a whole database to another one, of the same kind or of the other.

mod tables;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, Statement};

use crate::error::Error;

use super::doctor::{Grade, contents, number};
use super::migration::POSTGRES_TERMS;
use super::search;
use super::{Kind, Store};

pub use tables::Checksum;
use tables::{Column, REPLACED, TABLES, columns, insert, read};

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// There are rows in the target.
    #[error("the target already holds {0}, and is not overwritten: copy to a new database")]
    NotEmpty(&'static str),
    /// Another program made one of the two, or changed it by hand.
    #[error(
        "the table {0} has other columns in the source than in the target: bring both up to date with this program"
    )]
    Schema(&'static str),
    /// The target gives back other rows than it was given.
    #[error("the table {0} came out differently in the target, in which nothing was kept")]
    Differs(&'static str),
    /// The target is not sound.
    #[error("the target is not sound, and nothing was kept in it: {0}")]
    Unsound(String),
    /// A database failed.
    #[error("nothing was copied")]
    Database(#[from] DbErr),
    /// The same.
    #[error("nothing was copied")]
    Other(#[from] Error),
}

/// The progress of one table.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The table; or the search index, which is made of the users.
    pub table: &'static str,
    /// Rows so far.
    pub done: u64,
    /// Rows in all.
    pub all: u64,
}

/// The result of copying.
#[derive(Debug)]
pub struct Copied {
    /// Each table with the checksum that both databases have of it.
    pub tables: Vec<(&'static str, Checksum)>,
    /// Events that were written to the source after the moment that was copied: servers still run on it.
    pub missed_events: i64,
}

impl Store {
    /// Copies everything to `target`, whose tables are there and hold nothing, as it is at one moment. All or nothing.
    pub async fn copy_to(
        &self,
        target: &Self,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<Copied, CopyError> {
        let (from, to) = (self.snapshot().await?, target.writing().await?);
        let seen = Seen::by(&from.tx).await?;
        let tables = match Box::pin(copy(&from.tx, &to.tx, &mut progress)).await {
            Ok(tables) => tables,
            Err(error) => {
                to.end().await?;
                return Err(error);
            }
        };
        from.end().await?;
        let source = self.connection().await?;
        let missed_events = seen.missed(&source).await?;
        set_last_number(&to.tx, last_number(&source).await?).await?;
        source.close().await?;
        to.commit().await?;
        if target.kind() == Kind::Postgres
            && let Ok(library) = target.connection().await
        {
            // Plans are made by what is known of the tables. Sooner or later the server finds out by itself.
            let _ = library.execute_unprepared("ANALYZE").await;
        }
        Ok(Copied { tables, missed_events })
    }
}

async fn copy(
    from: &DatabaseTransaction,
    to: &DatabaseTransaction,
    progress: &mut (impl FnMut(Progress) + Send),
) -> Result<Vec<(&'static str, Checksum)>, CopyError> {
    check_empty(to).await?;
    for table in REPLACED {
        to.execute_unprepared(&format!("DELETE FROM {table}")).await?;
    }
    let postgres = to.get_database_backend() == DbBackend::Postgres;
    let prepare = if postgres {
        // Made again at the end, which takes a fraction of the time.
        "DROP INDEX users_search_terms"
    } else {
        // 256 MiB: rows go into all pages of the indexes, and each page that does not stay is written again.
        "PRAGMA cache_size = -262144"
    };
    to.execute_unprepared(prepare).await?;
    let mut copied = Vec::new();
    for table in TABLES {
        copied.push((table, copy_table(from, to, table, progress).await?));
    }
    let users = copied.first().map_or(0, |(_, users)| users.rows);
    progress(Progress { table: "search index", done: 0, all: users });
    search::index_all(to).await?;
    if postgres {
        to.execute_unprepared(POSTGRES_TERMS).await?;
    }
    progress(Progress { table: "search index", done: users, all: users });
    for (table, checksum) in &copied {
        let columns = columns(to, table).await?;
        if read(to, table, &columns, async |_, _| Ok(())).await? != *checksum {
            return Err(CopyError::Differs(table));
        }
    }
    let findings = contents(to).await;
    match findings.iter().find(|finding| finding.grade == Grade::Fault) {
        Some(fault) => Err(CopyError::Unsound(format!("{}: {}", fault.check, fault.found))),
        None => Ok(copied),
    }
}

async fn check_empty(to: &DatabaseTransaction) -> Result<(), CopyError> {
    for table in TABLES {
        let rows = match table {
            "keys_version" => "SELECT version FROM keys_version".to_owned(),
            _ if REPLACED.contains(&table) => continue,
            _ => format!("SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT 1) AS first"),
        };
        if number(to, &rows).await? > 0 {
            return Err(CopyError::NotEmpty(if table == "keys_version" { "keys" } else { table }));
        }
    }
    Ok(())
}

async fn copy_table(
    from: &DatabaseTransaction,
    to: &DatabaseTransaction,
    table: &'static str,
    progress: &mut (impl FnMut(Progress) + Send),
) -> Result<Checksum, CopyError> {
    let columns: Vec<Column> = columns(from, table).await?;
    if columns.is_empty() || tables::columns(to, table).await? != columns {
        return Err(CopyError::Schema(table));
    }
    let all = number(from, &format!("SELECT count(*) FROM {table}")).await?.unsigned_abs();
    progress(Progress { table, done: 0, all });
    let checksum = read(from, table, &columns, async |batch, done| {
        insert(to, table, &columns, batch).await?;
        progress(Progress { table, done, all });
        Ok(())
    });
    Ok(checksum.await?)
}

/// The events that a snapshot shows.
enum Seen {
    /// All up to this number: SQLite has one writer at a time.
    UpTo(i64),
    /// Those of the transactions that this snapshot shows.
    Snapshot(String),
}

impl Seen {
    async fn by(tx: &DatabaseTransaction) -> Result<Self, DbErr> {
        if tx.get_database_backend() == DbBackend::Sqlite {
            return Ok(Self::UpTo(last_number(tx).await?));
        }
        let snapshot = Statement::from_string(DbBackend::Postgres, "SELECT pg_current_snapshot()::text");
        let row = tx.query_one_raw(snapshot).await?;
        let row = row.ok_or_else(|| DbErr::Custom("a snapshot has no row".to_owned()))?;
        Ok(Self::Snapshot(row.try_get_by_index(0)?))
    }

    /// Counts the events that `source` has beside these.
    async fn missed(&self, source: &impl ConnectionTrait) -> Result<i64, DbErr> {
        let snapshot = match self {
            Self::UpTo(last) => return Ok(last_number(source).await? - last),
            Self::Snapshot(snapshot) => snapshot.as_str(),
        };
        let sql = "SELECT count(*) FROM events WHERE NOT pg_visible_in_snapshot(tx, CAST(CAST($1 AS text) AS pg_snapshot))";
        let count = Statement::from_sql_and_values(DbBackend::Postgres, sql, [snapshot.into()]);
        let row = source.query_one_raw(count).await?;
        row.ok_or_else(|| DbErr::Custom("a count has no row".to_owned()))?.try_get_by_index(0)
    }
}

/// The number of the newest event, also of one that was removed.
async fn last_number(db: &impl ConnectionTrait) -> Result<i64, DbErr> {
    let sql = match db.get_database_backend() {
        DbBackend::Sqlite => "SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'events'",
        _ => "SELECT COALESCE(pg_sequence_last_value(pg_get_serial_sequence('events', 'seq')::regclass), 0)",
    };
    number(db, sql).await
}

/// Has the events go on after `last`.
async fn set_last_number(db: &DatabaseTransaction, last: i64) -> Result<(), DbErr> {
    if last == 0 {
        return Ok(());
    }
    let backend = db.get_database_backend();
    let sql = match backend {
        DbBackend::Sqlite => {
            db.execute_unprepared("DELETE FROM sqlite_sequence WHERE name = 'events'").await?;
            "INSERT INTO sqlite_sequence (name, seq) VALUES ('events', $1)"
        }
        _ => "SELECT setval(pg_get_serial_sequence('events', 'seq')::regclass, $1)",
    };
    db.execute_raw(Statement::from_sql_and_values(backend, sql, [last.into()])).await?;
    Ok(())
}
