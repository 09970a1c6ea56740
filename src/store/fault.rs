//! Classifies the errors of the database.

use sea_orm::sqlx::error::ErrorKind as SqlErrorKind;
use sea_orm::sqlx::postgres::{PgDatabaseError, PgSeverity};
use sea_orm::{DbErr, RuntimeErr, SqlErr, sqlx};

use crate::error::Error;

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        if is_list_too_slow(&error) {
            Self::ListTooSlow
        } else if code(&error).is_some_and(|code| code == QUERY_CANCELED) {
            Self::DatabaseTooSlow(error.into())
        } else if is_unavailable(&error) {
            Self::DatabaseUnavailable(error.into())
        } else {
            Self::internal(error)
        }
    }
}

/// The message of statements that were cancelled at the time limit of lists.
const LIST_TOO_SLOW: &str = "the statement took longer than a list may";

/// The error of a statement that was given up since its list had no time left.
pub(super) fn list_too_slow() -> DbErr {
    DbErr::Custom(LIST_TOO_SLOW.to_owned())
}

fn is_list_too_slow(error: &DbErr) -> bool {
    matches!(error, DbErr::Custom(why) if why == LIST_TOO_SLOW)
}

/// SQLSTATE of a statement that took longer than `statement_timeout`.
const QUERY_CANCELED: &str = "57014";

/// SQLSTATE classes of PostgreSQL that trying again later can help: connection, transaction rollback
/// (deadlock, serialisation failure), resources, locks, intervention of the operator.
const PASSING_CLASSES: [&str; 5] = ["08", "40", "53", "55", "57"];

/// Further SQLSTATEs of that kind: a standby or a server whose disk is full (read-only transaction), and a
/// transaction that the server ended because it was idle.
const PASSING_STATES: [&str; 2] = [READ_ONLY, "25P03"];

const READ_ONLY: &str = "25006";

/// Primary result codes of SQLite that trying again later can help: BUSY, LOCKED, READONLY, IOERR, FULL.
const PASSING_RESULTS: [u32; 5] = [5, 6, 8, 10, 13];

/// Result codes of SQLite after which COMMIT has certainly not happened: BUSY, LOCKED, NOMEM, READONLY,
/// INTERRUPT, FULL, CONSTRAINT.
const RESULTS_BEFORE_COMMIT: [u32; 7] = [5, 6, 7, 8, 9, 13, 19];

/// Result codes of SQLite that may be the connection's fault rather than the statement's: IOERR, CORRUPT,
/// NOTADB.
const SPOILING_RESULTS: [u32; 3] = [10, 11, 26];

fn cause(error: &DbErr) -> Option<&sqlx::Error> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(cause))
        | DbErr::Exec(RuntimeErr::SqlxError(cause))
        | DbErr::Query(RuntimeErr::SqlxError(cause)) => Some(cause),
        _ => None,
    }
}

fn db_error(error: &DbErr) -> Option<&(dyn sqlx::error::DatabaseError + 'static)> {
    cause(error)?.as_database_error()
}

/// The database's own code: SQLSTATE, or SQLite's extended result code in decimal.
fn code(error: &DbErr) -> Option<std::borrow::Cow<'_, str>> {
    db_error(error)?.code()
}

/// SQLite's primary result code.
fn sqlite_result(error: &DbErr) -> Option<u32> {
    let db_error = db_error(error)?;
    db_error.try_downcast_ref::<sqlx::sqlite::SqliteError>()?;
    db_error.code()?.parse::<u32>().ok().map(|code| code & 0xff)
}

/// The severity that PostgreSQL gives an error.
fn severity(error: &DbErr) -> Option<PgSeverity> {
    Some(db_error(error)?.try_downcast_ref::<PgDatabaseError>()?.severity())
}

/// Returns true if trying again later can help: no connection, a lost one, a lock that others hold, or a
/// deadlock that the database broke up by ending this transaction.
fn is_unavailable(error: &DbErr) -> bool {
    if matches!(error, DbErr::ConnectionAcquire(_) | DbErr::Conn(_)) || is_connection_lost(error) {
        return true;
    }
    if let Some(result) = sqlite_result(error) {
        return PASSING_RESULTS.contains(&result);
    }
    let passing = |code: std::borrow::Cow<'_, str>| {
        PASSING_STATES.contains(&&*code) || PASSING_CLASSES.iter().any(|class| code.starts_with(class))
    };
    code(error).is_some_and(passing)
        || matches!(cause(error), Some(sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed))
}

/// Returns true if the connection itself has ended: the statement may work on another one.
pub(super) fn is_connection_lost(error: &DbErr) -> bool {
    match cause(error) {
        Some(
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed,
        ) => true,
        Some(sqlx::Error::Database(_)) => {
            matches!(severity(error), Some(PgSeverity::Fatal | PgSeverity::Panic))
        }
        _ => false,
    }
}

/// Returns true if SQLite found the file damaged: CORRUPT, NOTADB.
pub(super) fn is_damaged_file(error: &DbErr) -> bool {
    sqlite_result(error).is_some_and(|result| [11, 26].contains(&result))
}

/// Returns true if the server takes no writes: it became a standby, or its operator wants it so.
pub(super) fn is_read_only_server(error: &DbErr) -> bool {
    code(error).is_some_and(|code| code == READ_ONLY)
}

/// Returns true if SQLite may only read the file.
pub(super) fn is_read_only_file(error: &DbErr) -> bool {
    sqlite_result(error) == Some(8)
}

/// The kinds of errors that metrics tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorKind {
    /// No connection, or a lost one.
    Connection,
    /// A statement that took too long.
    Timeout,
    /// A lock that others held for too long.
    Locked,
    Deadlock,
    ReadOnly,
    /// Of the disk, or of connections that the server has.
    Full,
    Constraint,
    Other,
}

impl ErrorKind {
    /// Their names, in the order of their numbers.
    pub(super) const NAMES: [&str; 8] =
        ["connection", "timeout", "locked", "deadlock", "read_only", "full", "constraint", "other"];
}

/// Classifies an error for metrics.
pub(super) fn kind(error: &DbErr) -> ErrorKind {
    let code = code(error);
    let begins = |classes: &[&str]| {
        let code = code.as_deref().filter(|code| code.len() == 5).unwrap_or_default();
        !code.is_empty() && classes.iter().any(|class| code.starts_with(class))
    };
    let result = sqlite_result(error);
    if matches!(error, DbErr::ConnectionAcquire(_) | DbErr::Conn(_)) || is_connection_lost(error) {
        ErrorKind::Connection
    } else if is_list_too_slow(error) || result == Some(9) || begins(&[QUERY_CANCELED]) {
        ErrorKind::Timeout
    } else if is_deadlock(error) {
        ErrorKind::Deadlock
    } else if is_constraint(error) {
        ErrorKind::Constraint
    } else if result.is_none() && begins(&["55"]) || matches!(result, Some(5 | 6)) {
        ErrorKind::Locked
    } else if is_read_only_server(error) || result == Some(8) {
        ErrorKind::ReadOnly
    } else if result.is_none() && begins(&["53"]) || result == Some(13) {
        ErrorKind::Full
    } else {
        ErrorKind::Other
    }
}

/// The message of the database, without what the libraries wrap around it.
pub(super) fn database_message(error: &DbErr) -> String {
    db_error(error).map_or_else(|| error.to_string(), |db_error| db_error.message().to_owned())
}

/// Returns true if a constraint refused the statement: the transaction can be rolled back as usual.
pub(super) fn is_constraint(error: &DbErr) -> bool {
    db_error(error).is_some_and(|db_error| !matches!(db_error.kind(), SqlErrorKind::Other))
}

/// Returns true if a statement outside of a transaction failed in a way that makes its connection suspect.
pub(super) fn spoils_connection(error: &DbErr) -> bool {
    match sqlite_result(error) {
        Some(result) => SPOILING_RESULTS.contains(&result),
        None => db_error(error).is_none() || is_connection_lost(error) || is_read_only_server(error),
    }
}

/// Returns true if PostgreSQL ended the transaction because it and others waited for each other.
pub(super) fn is_deadlock(error: &DbErr) -> bool {
    code(error).is_some_and(|code| matches!(&*code, "40001" | "40P01"))
}

/// Classifies a failed COMMIT: not done, or not known. An error of I/O may have come after the last byte was
/// written, and a broken connection says nothing at all.
pub(super) fn at_commit(error: DbErr) -> Error {
    let not_done = match sqlite_result(&error) {
        Some(result) => RESULTS_BEFORE_COMMIT.contains(&result),
        None => matches!(severity(&error), Some(PgSeverity::Error)),
    };
    if not_done { error.into() } else { Error::OutcomeUnknown(error.into()) }
}

/// The field of a user in which an insert or update conflicts with another row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UniqueViolation {
    /// The primary key.
    Id,
    /// Among live users.
    Username,
    /// Among live users.
    Email,
}

/// Which unique index refused, if one did. SQLite names its columns (`users.namespace, users.email`),
/// PostgreSQL the index (`users_email_live`).
pub(super) fn unique_violation(error: &DbErr) -> Option<UniqueViolation> {
    let Some(SqlErr::UniqueConstraintViolation(what)) = error.sql_err() else { return None };
    if what.contains("users.username") || what.contains("users_username_live") {
        Some(UniqueViolation::Username)
    } else if what.contains("users.email") || what.contains("users_email_live") {
        Some(UniqueViolation::Email)
    } else if what.contains("users.id") || what.contains("users_pkey") {
        Some(UniqueViolation::Id)
    } else {
        None
    }
}
