//! The search index: an FTS5 table on SQLite, a GIN index on PostgreSQL, both of the same numbers.

mod rebuild;
mod terms;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};

use crate::domain::namespace::Namespace;
use crate::domain::user::User;
use crate::domain::user_id::UserId;
use crate::error::{Error, Result};

pub(super) use rebuild::index_all;
pub(super) use terms::{Folded, may_be_common, same_terms, terms_of};
pub use terms::{Term, probes};

/// Writes the terms of a user to the index. In the transaction that writes the user, after that.
pub(super) async fn write(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    terms: BTreeSet<Term>,
) -> Result<()> {
    let backend = tx.get_database_backend();
    let sql = match backend {
        DbBackend::Sqlite => {
            "INSERT OR REPLACE INTO users_search (rowid, terms) \
             SELECT num, ?3 FROM users WHERE namespace = ?1 AND id = ?2"
        }
        _ => {
            "INSERT INTO users_search (namespace, id, terms) VALUES ($1, $2, CAST(CAST($3 AS text) AS int4[])) \
             ON CONFLICT (namespace, id) DO UPDATE SET terms = excluded.terms"
        }
    };
    let text = match backend {
        DbBackend::Sqlite => words(terms),
        _ => array(terms),
    };
    let values: [Value; 3] = [namespace.as_str().into(), user.as_str().into(), text.into()];
    tx.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    Ok(())
}

/// As [`write`], many at a time.
pub(super) async fn write_all(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    users: impl Iterator<Item = &User>,
) -> Result<()> {
    let backend = tx.get_database_backend();
    let sql = match backend {
        DbBackend::Sqlite => {
            "INSERT OR REPLACE INTO users_search (rowid, terms) \
             SELECT num, value ->> 1 FROM json_each(?2) CROSS JOIN users \
             WHERE namespace = ?1 AND users.id = value ->> 0"
        }
        _ => {
            "INSERT INTO users_search (namespace, id, terms) \
             SELECT $1, value ->> 0, CAST(value ->> 1 AS int4[]) \
             FROM json_array_elements(CAST(CAST($2 AS text) AS json)) \
             ON CONFLICT (namespace, id) DO UPDATE SET terms = excluded.terms"
        }
    };
    let text = |user| {
        let terms = terms_of(namespace, user, &Folded::of(user));
        if backend == DbBackend::Sqlite { words(terms) } else { array(terms) }
    };
    let pairs: Vec<(&str, String)> = users.map(|user| (user.id.as_str(), text(user))).collect();
    let pairs = serde_json::to_string(&pairs).map_err(Error::internal)?;
    let values: [Value; 2] = [namespace.as_str().into(), pairs.into()];
    tx.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    Ok(())
}

/// Takes a user out of the index, before the user is removed. PostgreSQL does it by itself.
pub(super) async fn remove(tx: &impl ConnectionTrait, namespace: &Namespace, id: &UserId) -> Result<()> {
    let backend = tx.get_database_backend();
    if backend == DbBackend::Sqlite {
        let sql =
            "DELETE FROM users_search WHERE rowid = (SELECT num FROM users WHERE namespace = ?1 AND id = ?2)";
        let values: [Value; 2] = [namespace.as_str().into(), id.as_str().into()];
        tx.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    }
    Ok(())
}

/// Merges segments of the same size until about so many pages of 4 KB are written, and returns whether there was
/// anything to do. Never on PostgreSQL.
pub async fn merge(tx: &impl ConnectionTrait, pages: u32) -> Result<bool> {
    let backend = tx.get_database_backend();
    if backend != DbBackend::Sqlite {
        return Ok(false);
    }
    let before = number(tx, CHANGES).await?;
    let sql = "INSERT INTO users_search (users_search, rank) VALUES ('merge', ?1)";
    tx.execute_raw(Statement::from_sql_and_values(backend, sql, [pages.into()])).await?;
    // The statement itself may count as one.
    Ok(number(tx, CHANGES).await? > before + 1)
}

/// Counts changes, to tell whether a step did anything.
const CHANGES: &str = "SELECT total_changes()";

async fn number(db: &impl ConnectionTrait, sql: &str) -> Result<u64> {
    let statement = Statement::from_string(db.get_database_backend(), sql);
    let row = db.query_one_raw(statement).await?.ok_or_else(|| Error::internal("a number has no row"))?;
    Ok(u64::try_from(row.try_get_by_index::<i64>(0)?).unwrap_or_default())
}

/// Returns a condition on `users_search` and its value. `terms` must not be empty.
pub(super) fn index_condition(backend: DbBackend, terms: Vec<Term>) -> (&'static str, Value) {
    match backend {
        DbBackend::Sqlite => ("users_search MATCH ?", words(terms).into()),
        _ => ("terms @> CAST(CAST($1 AS text) AS int4[])", array(terms).into()),
    }
}

/// Terms as FTS5 knows them: 48 bits in hexadecimal. More would only make the index larger. Side by side they
/// are asked for all together.
fn words(terms: impl IntoIterator<Item = Term>) -> String {
    joined(terms, " ", |text, term| write!(text, "{:012x}", term >> 16))
}

/// Terms as PostgreSQL knows them: 32 bits, as an array.
fn array(terms: impl IntoIterator<Item = Term>) -> String {
    let numbers = joined(terms, ",", |text, term| write!(text, "{}", ((term >> 32) as u32).cast_signed()));
    format!("{{{numbers}}}")
}

fn joined(
    terms: impl IntoIterator<Item = Term>,
    between: &str,
    put: impl Fn(&mut String, Term) -> std::fmt::Result,
) -> String {
    let mut text = String::new();
    for term in terms {
        if !text.is_empty() {
            text.push_str(between);
        }
        // Writing to a text cannot fail.
        let _ = put(&mut text, term);
    }
    text
}
