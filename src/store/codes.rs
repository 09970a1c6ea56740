//! Codes: at most one of a user and purpose.

use sea_orm::{ConnectionTrait, QueryResult, Statement, Value};

use crate::domain::code::{Binding, CodePurpose, StoredCode};
use crate::domain::email::Email;
use crate::domain::namespace::Namespace;
use crate::domain::secret::SecretDigest;
use crate::domain::time::Timestamp;
use crate::domain::user_id::UserId;
use crate::error::{Error, Result};

/// The most attempts with a numeric code (R16).
const MAX_ATTEMPTS: i64 = 5;

/// The columns of a code, in the order in which [`code`] reads them.
const COLUMNS: &str = "user_id, purpose, secret, expires, new_email, generation, email, password_updated";

fn statement<const N: usize>(
    db: &impl ConnectionTrait,
    sql: impl Into<String>,
    values: [Value; N],
) -> Statement {
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}

fn code(row: &QueryResult) -> Result<StoredCode> {
    let text = |index| row.try_get_by_index::<String>(index);
    let purpose =
        CodePurpose::from_name(&text(1)?).ok_or_else(|| Error::internal("unknown purpose of a code"))?;
    Ok(StoredCode {
        user: UserId::from_trusted(text(0)?),
        purpose,
        secret: text(2)?,
        expires: Timestamp(row.try_get_by_index(3)?),
        new_email: Some(text(4)?).filter(|email| !email.is_empty()).map(Email::from_trusted),
        bound: Binding {
            generation: row.try_get_by_index(5)?,
            email: text(6)?,
            password_updated: row.try_get_by_index(7)?,
        },
    })
}

/// Writes a code in the place of the one that the user has for the same purpose.
pub async fn replace(tx: &impl ConnectionTrait, namespace: &Namespace, code: &StoredCode) -> Result<()> {
    let sql = format!(
        "INSERT INTO codes (namespace, {COLUMNS}, tries) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0) \
         ON CONFLICT (namespace, user_id, purpose) DO UPDATE SET secret = excluded.secret, \
         expires = excluded.expires, new_email = excluded.new_email, generation = excluded.generation, \
         email = excluded.email, password_updated = excluded.password_updated, tries = 0"
    );
    let values = [
        namespace.as_str().into(),
        code.user.as_str().into(),
        code.purpose.name().into(),
        code.secret.as_str().into(),
        code.expires.0.into(),
        code.new_email.as_ref().map_or("", Email::as_str).into(),
        code.bound.generation.into(),
        code.bound.email.as_str().into(),
        code.bound.password_updated.into(),
    ];
    tx.execute_raw(statement(tx, sql, values)).await?;
    Ok(())
}

/// The code of a link, whatever it is for.
pub async fn find_link(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    digest: SecretDigest,
) -> Result<Option<StoredCode>> {
    let sql = format!("SELECT {COLUMNS} FROM codes WHERE namespace = $1 AND secret = $2");
    let values = [namespace.as_str().into(), hex::encode(digest.as_bytes()).into()];
    db.query_one_raw(statement(db, sql, values)).await?.as_ref().map(code).transpose()
}

/// Counts an attempt with the user's code for `purpose`. Returns the code; `None` if there is none with attempts left.
pub async fn count_attempt(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    purpose: CodePurpose,
) -> Result<Option<StoredCode>> {
    let sql = format!(
        "UPDATE codes SET tries = tries + 1 WHERE namespace = $1 AND user_id = $2 AND purpose = $3 \
         AND tries < {MAX_ATTEMPTS} RETURNING {COLUMNS}"
    );
    let values = [namespace.as_str().into(), user.as_str().into(), purpose.name().into()];
    tx.query_one_raw(statement(tx, sql, values)).await?.as_ref().map(code).transpose()
}

/// Refunds an attempt with `code`, unless another code has replaced it.
pub async fn refund_attempt(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    code: &StoredCode,
) -> Result<()> {
    let sql = "UPDATE codes SET tries = tries - 1 \
        WHERE namespace = $1 AND user_id = $2 AND purpose = $3 AND secret = $4 AND tries > 0";
    tx.execute_raw(statement(tx, sql, identity(namespace, code))).await?;
    Ok(())
}

/// Deletes a code that is being used. Returns false if it was used or replaced: of concurrent calls only one succeeds.
pub async fn take(tx: &impl ConnectionTrait, namespace: &Namespace, code: &StoredCode) -> Result<bool> {
    let sql = "DELETE FROM codes WHERE namespace = $1 AND user_id = $2 AND purpose = $3 AND secret = $4";
    Ok(tx.execute_raw(statement(tx, sql, identity(namespace, code))).await?.rows_affected() > 0)
}

fn identity(namespace: &Namespace, code: &StoredCode) -> [Value; 4] {
    [
        namespace.as_str().into(),
        code.user.as_str().into(),
        code.purpose.name().into(),
        code.secret.as_str().into(),
    ]
}

/// Ends all codes of a user.
pub async fn delete_of_user(tx: &impl ConnectionTrait, namespace: &Namespace, user: &UserId) -> Result<()> {
    let sql = "DELETE FROM codes WHERE namespace = $1 AND user_id = $2";
    tx.execute_raw(statement(tx, sql, [namespace.as_str().into(), user.as_str().into()])).await?;
    Ok(())
}

/// Removes codes of any namespace that expired before `now`, at most `most`. Returns how many.
pub async fn delete_expired(tx: &impl ConnectionTrait, now: Timestamp, most: u64) -> Result<u64> {
    // Skips rows that a call is using or replacing: waiting for their locks could deadlock.
    let skip = if tx.get_database_backend() == sea_orm::DbBackend::Postgres {
        " FOR UPDATE SKIP LOCKED"
    } else {
        ""
    };
    let sql = format!(
        "DELETE FROM codes WHERE (namespace, user_id, purpose) IN \
         (SELECT namespace, user_id, purpose FROM codes WHERE expires < $1 LIMIT {most}{skip})"
    );
    Ok(tx.execute_raw(statement(tx, sql, [now.0.into()])).await?.rows_affected())
}
