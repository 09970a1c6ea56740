//! What the database's errors mean.

use sea_orm::{DbErr, RuntimeErr, SqlErr, sqlx};

use crate::error::Error;

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        if is_unavailable(&error) { Self::DatabaseUnavailable(error.into()) } else { Self::internal(error) }
    }
}

/// Whether trying again later can help: no connection, a lost one, a lock that others hold, or a deadlock that
/// the database broke up by ending this transaction.
fn is_unavailable(error: &DbErr) -> bool {
    let cause = match error {
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => return true,
        DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause)) => cause,
        _ => return false,
    };
    match &**cause {
        sqlx::Error::Database(told) => {
            let code = told.code().unwrap_or_default();
            // SQLite: BUSY and its extended codes, IOERR, FULL. PostgreSQL: connection, resources, shutdown,
            // locks, serialisation failure, deadlock (SQLSTATE classes 08, 53, 57, 55 and 40).
            let sqlite = code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 10 | 13));
            let postgres =
                code.len() == 5 && ["08", "53", "55", "57", "40"].iter().any(|class| code.starts_with(class));
            sqlite && code.len() != 5 || postgres
        }
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// Returns true if SQLite may only read the file.
pub(super) fn is_read_only(error: &DbErr) -> bool {
    let (DbErr::Conn(RuntimeErr::SqlxError(cause))
    | DbErr::Exec(RuntimeErr::SqlxError(cause))
    | DbErr::Query(RuntimeErr::SqlxError(cause))) = error
    else {
        return false;
    };
    let code = cause.as_database_error().and_then(|said| said.code());
    code.and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == 8)
}

/// The field of a user in which an insert or update met another row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The primary key.
    Id,
    /// Among live users.
    Username,
    /// Among live users.
    Email,
}

/// Which unique index refused, if one did. SQLite names its columns (`users.namespace, users.email`),
/// PostgreSQL the index (`users_email_live`).
pub(super) fn taken(error: &DbErr) -> Option<Taken> {
    let Some(SqlErr::UniqueConstraintViolation(what)) = error.sql_err() else { return None };
    if what.contains("users.username") || what.contains("users_username_live") {
        Some(Taken::Username)
    } else if what.contains("users.email") || what.contains("users_email_live") {
        Some(Taken::Email)
    } else if what.contains("users.id") || what.contains("users_pkey") {
        Some(Taken::Id)
    } else {
        None
    }
}
