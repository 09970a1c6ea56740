//! The table of API keys, and the version that shows replicas a change.

use sea_orm::sea_query::{Expr, ExprTrait as _, LockBehavior, LockType, Query};
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, Condition, ConnectionTrait, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Statement,
};

use crate::domain::key::{AllowedNamespaces, Key, KeyName};
use crate::domain::namespace::Namespace;
use crate::domain::scope::Scopes;
use crate::domain::secret::SecretDigest;
use crate::domain::time::Timestamp;
use crate::error::{Error, Result, with_causes};

use super::count;
use super::entity::ended_key as ended;
use super::entity::key::{ActiveModel, Column, Entity, Model};

/// A number that goes up with each change of the keys; 0: there never was one.
pub async fn version(db: &impl ConnectionTrait) -> Result<i64> {
    let select = Statement::from_string(db.get_database_backend(), "SELECT version FROM keys_version");
    let row = db.query_one_raw(select).await?;
    Ok(row.ok_or_else(|| Error::internal("the version of the keys is missing"))?.try_get_by_index(0)?)
}

/// Notes a change of the keys, and keeps all others from changing them until the transaction ends.
pub async fn change(tx: &impl ConnectionTrait) -> Result<()> {
    tx.execute_unprepared("UPDATE keys_version SET version = version + 1").await?;
    Ok(())
}

/// Writes the version as it is: a write that changes nothing, to see whether one succeeds, or to lock it before keys are
/// removed, which changes it.
pub async fn rewrite_version(tx: &impl ConnectionTrait) -> Result<()> {
    tx.execute_unprepared("UPDATE keys_version SET version = version").await?;
    Ok(())
}

/// Adds a key.
pub async fn insert(tx: &impl ConnectionTrait, key: &Key, digest: SecretDigest) -> Result<()> {
    let row = ActiveModel {
        namespace: Set(key.namespaces.as_str().to_owned()),
        id: Set(key.id.clone()),
        digest: Set(digest.as_bytes().to_vec()),
        name: Set(key.name.as_str().to_owned()),
        scopes: Set(key.scopes.to_string()),
        created: Set(key.created.0),
        expires: Set(key.expires.map_or(0, |at| at.0)),
        last_used: Set(key.last_used.map_or(0, |at| at.0)),
        created_by: Set(key.created_by.clone()),
    };
    Entity::insert(row).exec_without_returning(tx).await?;
    Ok(())
}

/// Every key there is, of every namespace, with the digest of its secret. One that cannot be read opens
/// nothing, and does not keep the others from being read.
pub async fn all(db: &impl ConnectionTrait) -> Result<Vec<(SecretDigest, Key)>> {
    let rows = Entity::find().order_by_asc(Column::Namespace).order_by_asc(Column::Id).all(db).await?;
    Ok(readable(rows, |row| Ok((digest(&row)?, Key::try_from(row)?))))
}

/// The rows that `read` can make something of: one that is broken does not stop work on the others.
fn readable<T>(rows: Vec<Model>, read: impl Fn(Model) -> Result<T>) -> Vec<T> {
    let read = |row: Model| {
        let id = row.id.clone();
        let broken = |error: &Error| {
            tracing::error!(key = id, cause = with_causes(error), "a stored key cannot be read");
        };
        read(row).inspect_err(broken).ok()
    };
    rows.into_iter().filter_map(read).collect()
}

/// The keys of a namespace, in the order in which they were made.
pub async fn of(db: &impl ConnectionTrait, namespaces: &AllowedNamespaces) -> Result<Vec<Key>> {
    // Ids begin with the time.
    let rows = Entity::find().filter(Column::Namespace.eq(namespaces.as_str())).order_by_asc(Column::Id);
    rows.all(db).await?.into_iter().map(Key::try_from).collect()
}

/// Returns true if a namespace has keys, expired or not.
pub async fn is_any(db: &impl ConnectionTrait, namespace: &Namespace) -> Result<bool> {
    Ok(count(db, Entity::find().filter(Column::Namespace.eq(namespace.as_str())).limit(1)).await? > 0)
}

/// Counts the keys of a namespace that have not expired at `now`.
pub async fn count_of(
    db: &impl ConnectionTrait,
    namespaces: &AllowedNamespaces,
    now: Timestamp,
) -> Result<u64> {
    let open = Condition::any().add(Column::Expires.eq(0)).add(Column::Expires.gt(now.0));
    count(db, Entity::find().filter(Column::Namespace.eq(namespaces.as_str())).filter(open)).await
}

/// Finds the key with `id` of one namespace, or, without one, of any.
pub async fn find(
    db: &impl ConnectionTrait,
    namespaces: Option<&AllowedNamespaces>,
    id: &str,
) -> Result<Option<Key>> {
    let mut select = Entity::find().filter(Column::Id.eq(id));
    if let Some(namespaces) = namespaces {
        select = select.filter(Column::Namespace.eq(namespaces.as_str()));
    }
    select.one(db).await?.map(Key::try_from).transpose()
}

/// Finds the key by which a caller works in `namespace`: one of that namespace, or a root key.
pub async fn find_of_caller(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    id: &str,
) -> Result<Option<Key>> {
    let both = [namespace.as_str(), AllowedNamespaces::ALL];
    let select = Entity::find().filter(Column::Namespace.is_in(both)).filter(Column::Id.eq(id));
    select.one(db).await?.map(Key::try_from).transpose()
}

/// Returns true if a key with `id` has ended, in one namespace, or, without one, in any.
pub async fn has_ended(
    db: &impl ConnectionTrait,
    namespaces: Option<&AllowedNamespaces>,
    id: &str,
) -> Result<bool> {
    let mut select = ended::Entity::find().filter(ended::Column::Id.eq(id));
    if let Some(namespaces) = namespaces {
        select = select.filter(ended::Column::Namespace.eq(namespaces.as_str()));
    }
    Ok(count(db, select.limit(1)).await? > 0)
}

/// From a key to those that it made, and on from these, also through keys that have ended.
const DESCENDANTS: &str = "
WITH RECURSIVE family (namespace, id) AS (
  SELECT namespace, id FROM (
    SELECT namespace, id, created_by FROM keys UNION ALL SELECT namespace, id, created_by FROM keys_ended
  ) AS made WHERE created_by = $1
  UNION
  SELECT made.namespace, made.id FROM family JOIN (
    SELECT namespace, id, created_by FROM keys UNION ALL SELECT namespace, id, created_by FROM keys_ended
  ) AS made ON made.created_by = family.id
)
SELECT keys.* FROM family JOIN keys ON keys.namespace = family.namespace AND keys.id = family.id
ORDER BY keys.id";

/// The keys that the key with `id` made, that those made, and so on, the oldest first. A key makes keys of
/// its own namespace only, a root key those of any.
pub async fn descendants(db: &impl ConnectionTrait, id: &str) -> Result<Vec<Key>> {
    let select = Statement::from_sql_and_values(db.get_database_backend(), DESCENDANTS, [id.into()]);
    let rows = Entity::find().from_raw_sql(select).all(db).await?;
    rows.into_iter().map(Key::try_from).collect()
}

/// Removes a key, and remembers who made it.
pub async fn end(tx: &impl ConnectionTrait, key: &Key, at: Timestamp) -> Result<()> {
    let own = Column::Namespace.eq(key.namespaces.as_str()).and(Column::Id.eq(key.id.as_str()));
    Entity::delete_many().filter(own).exec(tx).await?;
    let row = ended::ActiveModel {
        namespace: Set(key.namespaces.as_str().to_owned()),
        id: Set(key.id.clone()),
        created_by: Set(key.created_by.clone()),
        ended: Set(at.0),
    };
    ended::Entity::insert(row).exec_without_returning(tx).await?;
    Ok(())
}

/// Keys of any namespace that have expired at `now`, at most `limit`.
pub async fn expired(db: &impl ConnectionTrait, now: Timestamp, limit: u64) -> Result<Vec<Key>> {
    let due = Column::Expires.gt(0).and(Column::Expires.lte(now.0));
    let rows = Entity::find().filter(due).limit(limit).all(db).await?;
    Ok(readable(rows, Key::try_from))
}

/// Forgets keys of any namespace that ended before `cutoff`. At most `most`; returns how many.
pub async fn forget_ended(tx: &impl ConnectionTrait, cutoff: Timestamp, most: u64) -> Result<u64> {
    let columns = [ended::Column::Namespace, ended::Column::Id];
    let old = Query::select()
        .columns(columns)
        .from(ended::Entity)
        .and_where(Expr::col(ended::Column::Ended).lt(cutoff.0))
        .limit(most)
        // What another replica forgets right now is its own.
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .take();
    let key = Expr::tuple(columns.map(Expr::col));
    Ok(ended::Entity::delete_many().filter(key.in_subquery(old)).exec(tx).await?.rows_affected)
}

/// Notes that a key was used, unless a later use is noted already.
pub async fn touch(
    tx: &impl ConnectionTrait,
    namespaces: &AllowedNamespaces,
    id: &str,
    at: Timestamp,
) -> Result<()> {
    let own = Column::Namespace.eq(namespaces.as_str()).and(Column::Id.eq(id));
    let update = Entity::update_many().col_expr(Column::LastUsed, Expr::value(at.0));
    update.filter(own.and(Column::LastUsed.lt(at.0))).exec(tx).await?;
    Ok(())
}

fn digest(row: &Model) -> Result<SecretDigest> {
    SecretDigest::from_bytes(&row.digest).ok_or_else(|| Error::internal("a key's digest is broken"))
}

impl TryFrom<Model> for Key {
    type Error = Error;

    fn try_from(row: Model) -> Result<Self> {
        let time = |micros: i64| (micros > 0).then_some(Timestamp(micros));
        Ok(Self {
            id: row.id,
            namespaces: AllowedNamespaces::parse(&row.namespace).map_err(Error::internal)?,
            name: KeyName::from_trusted(row.name),
            scopes: Scopes::from_trusted(&row.scopes),
            created: Timestamp(row.created),
            expires: time(row.expires),
            last_used: time(row.last_used),
            created_by: row.created_by,
        })
    }
}
