//! Second factors: the tables of TOTP secrets and of recovery codes. What changes them has the user's row locked.

use sea_orm::{ConnectionTrait, Statement, Value};

use crate::domain::key_file::Sealed;
use crate::domain::namespace::Namespace;
use crate::domain::secret::SecretDigest;
use crate::domain::time::Timestamp;
use crate::domain::totp::RecoveryCode;
use crate::domain::user_id::UserId;
use crate::error::{Error, Result};

/// A TOTP secret of a user, as stored.
#[derive(Clone, Debug)]
pub struct StoredTotp {
    /// The secret, encrypted for its user.
    pub secret: Sealed,
    /// When it was enrolled.
    pub created: Timestamp,
    /// When it was confirmed.
    pub confirmed: Option<Timestamp>,
    /// When a code of it was last taken.
    pub used: Option<Timestamp>,
    /// When the last log-in began that was completed with it.
    pub challenge: Timestamp,
}

/// The confirmed TOTP secret of a user.
pub async fn find_confirmed(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
) -> Result<Option<StoredTotp>> {
    Ok(find(db, namespace, user).await?.filter(|factor| factor.confirmed.is_some()))
}

/// The TOTP secret of a user, confirmed or not.
pub async fn find(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
) -> Result<Option<StoredTotp>> {
    let sql = "SELECT secret, key_version, created, confirmed, used, challenge FROM totp_factors \
        WHERE namespace = $1 AND user_id = $2";
    let Some(row) = db.query_one_raw(of_user(db, sql, namespace, user, [])).await? else { return Ok(None) };
    let version: i64 = row.try_get("", "key_version")?;
    let time = |column| -> Result<Option<Timestamp>> {
        let at: i64 = row.try_get("", column)?;
        Ok((at != 0).then_some(Timestamp(at)))
    };
    Ok(Some(StoredTotp {
        secret: Sealed {
            version: u32::try_from(version).map_err(Error::internal)?,
            bytes: row.try_get("", "secret")?,
        },
        created: Timestamp(row.try_get("", "created")?),
        confirmed: time("confirmed")?,
        used: time("used")?,
        challenge: Timestamp(row.try_get("", "challenge")?),
    }))
}

/// Stores a secret that is not confirmed, in place of one that was not either. Returns false if the user has a confirmed one.
pub async fn enroll(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    secret: Sealed,
    now: Timestamp,
) -> Result<bool> {
    let sql = "INSERT INTO totp_factors \
        (namespace, user_id, secret, key_version, created, confirmed, used, step, challenge) \
        VALUES ($1, $2, $3, $4, $5, 0, 0, 0, 0) ON CONFLICT (namespace, user_id) DO UPDATE SET \
        secret = excluded.secret, key_version = excluded.key_version, created = excluded.created, step = 0 \
        WHERE totp_factors.confirmed = 0";
    let values = [secret.bytes.into(), i64::from(secret.version).into(), now.0.into()];
    execute(tx, of_user(tx, sql, namespace, user, values)).await.map(|changed| changed > 0)
}

/// Takes the first code of a secret that is not confirmed, and confirms it. Returns false if there is none.
pub async fn confirm(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    step: i64,
    now: Timestamp,
) -> Result<bool> {
    let sql = "UPDATE totp_factors SET confirmed = $3, used = $3, step = $4 \
        WHERE namespace = $1 AND user_id = $2 AND confirmed = 0";
    let values = [now.0.into(), step.into()];
    execute(tx, of_user(tx, sql, namespace, user, values)).await.map(|changed| changed > 0)
}

/// Takes the code of a step of a confirmed secret, which it stores as it is encrypted now. Returns false if that code or a
/// later one was taken before.
pub async fn take_step(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    step: i64,
    secret: Sealed,
    now: Timestamp,
) -> Result<bool> {
    let sql = "UPDATE totp_factors SET step = $3, secret = $4, key_version = $5, used = $6 \
        WHERE namespace = $1 AND user_id = $2 AND confirmed > 0 AND step < $3";
    let values = [step.into(), secret.bytes.into(), i64::from(secret.version).into(), now.0.into()];
    execute(tx, of_user(tx, sql, namespace, user, values)).await.map(|changed| changed > 0)
}

/// Ends the challenges of a user up to one of `issued`, or, if the newest that has ended is not older, those that were issued
/// right after that one by a clock that is behind.
pub async fn end_challenges(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    issued: Timestamp,
) -> Result<()> {
    let sql = "UPDATE totp_factors SET challenge = CASE WHEN challenge < $3 THEN $3 ELSE challenge + 1 END \
        WHERE namespace = $1 AND user_id = $2";
    execute(tx, of_user(tx, sql, namespace, user, [issued.0.into()])).await.map(|_| ())
}

/// Removes the secret and the recovery codes of a user. Returns false if there was no secret.
pub async fn delete(tx: &impl ConnectionTrait, namespace: &Namespace, user: &UserId) -> Result<bool> {
    execute(tx, of_user(tx, REMOVE_CODES, namespace, user, [])).await?;
    let sql = "DELETE FROM totp_factors WHERE namespace = $1 AND user_id = $2";
    execute(tx, of_user(tx, sql, namespace, user, [])).await.map(|removed| removed > 0)
}

const REMOVE_CODES: &str = "DELETE FROM recovery_codes WHERE namespace = $1 AND user_id = $2";

/// Stores recovery codes in place of those that there are.
pub async fn replace_recovery_codes(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    codes: &[RecoveryCode],
) -> Result<()> {
    execute(tx, of_user(tx, REMOVE_CODES, namespace, user, [])).await?;
    let rows: Vec<String> = (0..codes.len()).map(|n| format!("($1, $2, ${})", n + 3)).collect();
    let sql = format!("INSERT INTO recovery_codes (namespace, user_id, digest) VALUES {}", rows.join(", "));
    let digests = codes.iter().map(|code| code.digest().as_bytes().into());
    let values = [namespace.as_str().into(), user.as_str().into()].into_iter().chain(digests);
    execute(tx, Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    Ok(())
}

/// Takes a recovery code. Returns false if the user has none with that digest, or no longer.
pub async fn take_recovery_code(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    digest: SecretDigest,
) -> Result<bool> {
    let sql = "DELETE FROM recovery_codes WHERE namespace = $1 AND user_id = $2 AND digest = $3";
    execute(tx, of_user(tx, sql, namespace, user, [digest.as_bytes().into()])).await.map(|taken| taken > 0)
}

/// Counts the recovery codes that a user has left.
pub async fn count_recovery_codes(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
) -> Result<u64> {
    let sql = "SELECT COUNT(*) FROM recovery_codes WHERE namespace = $1 AND user_id = $2";
    let row = db.query_one_raw(of_user(db, sql, namespace, user, [])).await?;
    let count: i64 = row.ok_or_else(|| Error::internal("a count has no row"))?.try_get_by_index(0)?;
    Ok(u64::try_from(count).unwrap_or_default())
}

async fn execute(tx: &impl ConnectionTrait, statement: Statement) -> Result<u64> {
    Ok(tx.execute_raw(statement).await?.rows_affected())
}

fn of_user<const N: usize>(
    db: &impl ConnectionTrait,
    sql: &str,
    namespace: &Namespace,
    user: &UserId,
    more: [Value; N],
) -> Statement {
    let values = [namespace.as_str().into(), user.as_str().into()].into_iter().chain(more);
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}
