//! Changes of API keys since they were last read. Triggers note it, whatever program makes the change.

use sea_orm::{ConnectionTrait, FromQueryResult as _, QueryResult, Statement};

use crate::domain::key::Key;
use crate::domain::secret::SecretDigest;
use crate::error::{Error, Result, with_causes};

use super::entity::key::Model;
use super::keys;

/// Most changes that are read one by one; where there are more, all keys are read.
const MAX_CHANGES: usize = 10_000;

/// A change, the last one that is known, and those after it, in order, each with the key as it is now.
const SINCE: &str = "
SELECT changed.version AS change_version, changed.digest AS change_digest, keys.*
FROM key_changes AS changed LEFT JOIN keys ON keys.digest = changed.digest
WHERE (changed.version, changed.digest) >= ($1, $2) AND changed.version <= $3
ORDER BY changed.version, changed.digest LIMIT 10001";

const LAST: &str = "
SELECT version AS change_version, digest AS change_digest FROM key_changes WHERE version <= $1
ORDER BY version DESC, digest DESC LIMIT 1";

/// The last change that is known. If it was long ago, or a backup took the place of the database, its row is gone, and all
/// keys are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastChange {
    version: i64,
    digest: SecretDigest,
}

impl LastChange {
    fn of(row: &QueryResult) -> Result<Self> {
        let digest: Vec<u8> = row.try_get("", "change_digest")?;
        let digest =
            SecretDigest::from_bytes(&digest).ok_or_else(|| Error::internal("a key's digest is broken"))?;
        Ok(Self { version: row.try_get("", "change_version")?, digest })
    }
}

/// Keys that were read.
#[derive(Debug)]
pub struct KeyChanges {
    /// True if there are no others.
    pub complete: bool,
    /// Keys as they are now; `None` in place of one that is there no more, or cannot be read.
    pub keys: Vec<(SecretDigest, Option<Key>)>,
    /// The change from which the next call may go on.
    pub last: Option<LastChange>,
}

/// Reads the keys that have changed since `last`, or all of them; `version` is the number of the last change, as it was read
/// before.
pub(super) async fn read(
    db: &impl ConnectionTrait,
    version: i64,
    last: Option<&LastChange>,
) -> Result<KeyChanges> {
    if let Some(last) = last
        && let Some(changes) = since(db, version, last).await?
    {
        return Ok(changes);
    }
    // In this order: what changes in between is read again by the next call.
    let select = Statement::from_sql_and_values(db.get_database_backend(), LAST, [version.into()]);
    let last = db.query_one_raw(select).await?.map(|row| LastChange::of(&row)).transpose()?;
    let keys = keys::all(db).await?.into_iter().map(|(digest, key)| (digest, Some(key))).collect();
    Ok(KeyChanges { complete: true, keys, last })
}

/// Returns `None` if `last` is not there any more, or too much has followed it.
async fn since(db: &impl ConnectionTrait, version: i64, last: &LastChange) -> Result<Option<KeyChanges>> {
    let values = [last.version.into(), last.digest.as_bytes().to_vec().into(), version.into()];
    let rows =
        db.query_all_raw(Statement::from_sql_and_values(db.get_database_backend(), SINCE, values)).await?;
    let Some((first, rest)) = rows.split_first() else { return Ok(None) };
    if LastChange::of(first)? != *last || rest.len() >= MAX_CHANGES {
        return Ok(None);
    }
    let mut keys = Vec::with_capacity(rest.len());
    let mut last = last.clone();
    for row in rest {
        last = LastChange::of(row)?;
        keys.push((last.digest, key(row)));
    }
    Ok(Some(KeyChanges { complete: false, keys, last: Some(last) }))
}

/// The key of a row, if there is one. One that cannot be read opens nothing.
fn key(row: &QueryResult) -> Option<Key> {
    let read = Option::<Model>::from_query_result(row, "").map_err(Error::from);
    let read = read.and_then(|model| model.map(Key::try_from).transpose());
    read.unwrap_or_else(|error| {
        tracing::error!(cause = with_causes(&error), "a stored key cannot be read");
        None
    })
}
