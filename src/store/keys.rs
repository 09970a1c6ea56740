//! The table of API keys, and the number that tells replicas of a change.

use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    Statement,
};

use crate::domain::key::{Key, KeyName, Reach};
use crate::domain::scope::Scopes;
use crate::domain::secret::SecretDigest;
use crate::domain::time::Timestamp;
use crate::error::{Error, Result, with_causes};

use super::count;
use super::entity::key::{ActiveModel, Column, Entity, Model};

/// A number that goes up with each change of the keys; 0: there never was one.
///
/// # Errors
///
/// What the database says, as all functions here.
pub async fn version(db: &impl ConnectionTrait) -> Result<i64> {
    let select = Statement::from_string(db.get_database_backend(), "SELECT version FROM keys_version");
    let row = db.query_one_raw(select).await?;
    Ok(row.ok_or_else(|| Error::internal("the version of the keys is missing"))?.try_get_by_index(0)?)
}

/// Notes a change of the keys, and keeps all others from changing them until the transaction ends.
///
/// # Errors
///
/// What the database says.
pub async fn change(tx: &impl ConnectionTrait) -> Result<()> {
    tx.execute_unprepared("UPDATE keys_version SET version = version + 1").await?;
    Ok(())
}

/// Writes the version as it is: a write that changes nothing, to see whether one succeeds.
///
/// # Errors
///
/// What the database says.
pub async fn rewrite_version(tx: &impl ConnectionTrait) -> Result<()> {
    tx.execute_unprepared("UPDATE keys_version SET version = version").await?;
    Ok(())
}

/// Adds a key.
///
/// # Errors
///
/// What the database says.
pub async fn insert(tx: &impl ConnectionTrait, key: &Key, digest: SecretDigest) -> Result<()> {
    let row = ActiveModel {
        namespace: Set(key.reach.as_str().to_owned()),
        id: Set(key.id.clone()),
        digest: Set(digest.as_bytes().to_vec()),
        name: Set(key.name.as_str().to_owned()),
        scopes: Set(key.scopes.to_string()),
        created: Set(key.created.0),
        expires: Set(key.expires.map_or(0, |at| at.0)),
        last_used: Set(key.last_used.map_or(0, |at| at.0)),
    };
    Entity::insert(row).exec_without_returning(tx).await?;
    Ok(())
}

/// Every key there is, of every namespace, with the digest of its secret. One that cannot be read opens nothing, and
/// does not keep the others from being read.
///
/// # Errors
///
/// What the database says.
pub async fn all(db: &impl ConnectionTrait) -> Result<Vec<(SecretDigest, Key)>> {
    let rows = Entity::find().order_by_asc(Column::Namespace).order_by_asc(Column::Id).all(db).await?;
    let read = |row: Model| {
        let id = row.id.clone();
        let read = digest(&row).and_then(|digest| Ok((digest, Key::try_from(row)?)));
        read.inspect_err(|error| tracing::error!(key = id, cause = with_causes(error), "a key is broken"))
            .ok()
    };
    Ok(rows.into_iter().filter_map(read).collect())
}

/// The keys of a namespace, in the order in which they were made.
///
/// # Errors
///
/// What the database says.
pub async fn of(db: &impl ConnectionTrait, reach: &Reach) -> Result<Vec<Key>> {
    // Ids begin with the time.
    let rows = Entity::find().filter(Column::Namespace.eq(reach.as_str())).order_by_asc(Column::Id);
    rows.all(db).await?.into_iter().map(Key::try_from).collect()
}

/// How many keys a namespace has.
///
/// # Errors
///
/// What the database says.
pub async fn count_of(db: &impl ConnectionTrait, reach: &Reach) -> Result<u64> {
    count(db, Entity::find().filter(Column::Namespace.eq(reach.as_str()))).await
}

/// Removes the key with `id` of one namespace, or, without one, of any; says whether there was one.
///
/// # Errors
///
/// What the database says.
pub async fn delete(tx: &impl ConnectionTrait, reach: Option<&Reach>, id: &str) -> Result<bool> {
    let mut delete = Entity::delete_many().filter(Column::Id.eq(id));
    if let Some(reach) = reach {
        delete = delete.filter(Column::Namespace.eq(reach.as_str()));
    }
    Ok(delete.exec(tx).await?.rows_affected > 0)
}

/// Notes that a key was used, unless a later use is noted already.
///
/// # Errors
///
/// What the database says.
pub async fn touch(tx: &impl ConnectionTrait, reach: &Reach, id: &str, at: Timestamp) -> Result<()> {
    let own = Column::Namespace.eq(reach.as_str()).and(Column::Id.eq(id));
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
            reach: Reach::parse(&row.namespace).map_err(Error::internal)?,
            name: KeyName::from_trusted(row.name),
            scopes: Scopes::from_trusted(&row.scopes),
            created: Timestamp(row.created),
            expires: time(row.expires),
            last_used: time(row.last_used),
        })
    }
}
