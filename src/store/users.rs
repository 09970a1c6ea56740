//! The table of users.

use futures_util::TryStreamExt as _;
use sea_orm::sea_query::{Expr, ExprTrait as _, Value};
use sea_orm::{
    ActiveModelTrait as _,
    ActiveValue::{NotSet, Set},
    ColumnTrait as _, ConnectionTrait, DbErr, EntityTrait as _, IntoActiveModel as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Select, StreamTrait,
};

use crate::domain::email::Email;
use crate::domain::namespace::Namespace;
use crate::domain::page::Page;
use crate::domain::password::PasswordHash;
use crate::domain::text::fold;
use crate::domain::time::Timestamp;
use crate::domain::user::{Account, Labels, Metadata, Name, Status, User};
use crate::domain::user_id::UserId;
use crate::domain::username::Username;
use crate::error::{Error, Result};

use super::entity::user::{self, Column};
use super::fault::{Taken, taken};
use super::unique;

/// Every query on users starts here, so none can reach into another namespace.
fn within(namespace: &Namespace) -> Select<user::Entity> {
    user::Entity::find().filter(Column::Namespace.eq(namespace.as_str()))
}

/// Users that are not in the trash. The 0 is written out and not bound: only then can the databases use the
/// partial indexes.
fn live(namespace: &Namespace) -> Select<user::Entity> {
    within(namespace).filter(Column::Deleted.into_expr().eq(zero()))
}

fn zero() -> Expr {
    Expr::Constant(Value::from(0_i64))
}

/// The live user with `id`. One query, by primary key.
///
/// Whether it lives is looked at here and not in the query: with the condition in it, PostgreSQL may take a partial
/// index of live users that has the namespace in front, and read all of it.
///
/// # Errors
///
/// What the database says, as all functions here.
pub async fn find(db: &impl ConnectionTrait, namespace: &Namespace, id: &UserId) -> Result<Option<Account>> {
    account(unique(db, within(namespace).filter(Column::Id.eq(id.as_str()))).await?)
}

/// The live user with `username`. One query, by a unique index.
///
/// # Errors
///
/// What the database says.
pub async fn find_by_username(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    username: &Username,
) -> Result<Option<Account>> {
    find_named(db, namespace, Column::Username, username.as_str()).await
}

/// The live user with `email`. One query, by a unique index.
///
/// # Errors
///
/// What the database says.
pub async fn find_by_email(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    email: &Email,
) -> Result<Option<Account>> {
    find_named(db, namespace, Column::Email, email.as_str()).await
}

async fn find_named(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    column: Column,
    text: &str,
) -> Result<Option<Account>> {
    account(unique(db, live(namespace).filter(column.eq(text)).filter(named(column))).await?)
}

/// What the unique indexes are limited to, in the words they use.
fn named(column: Column) -> Expr {
    column.into_expr().ne(Expr::Constant(Value::from("")))
}

/// The live user with `id`, kept from changing until the transaction ends.
///
/// # Errors
///
/// What the database says.
pub async fn lock(tx: &impl ConnectionTrait, namespace: &Namespace, id: &UserId) -> Result<Option<Account>> {
    account(unique(tx, within(namespace).filter(Column::Id.eq(id.as_str())).lock_exclusive()).await?)
}

/// Adds a user. The unique indexes are the only judges of what is taken.
///
/// # Errors
///
/// [`Error::IdTaken`], [`Error::UsernameTaken`] or [`Error::EmailTaken`], without the holder: on PostgreSQL the
/// transaction is dead by then and answers no question.
pub async fn insert(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &User,
    password: Option<&PasswordHash>,
) -> Result<()> {
    let password = password.map_or_else(String::new, |hash| hash.as_str().to_owned());
    let row = row(namespace, user, password)?;
    user::Entity::insert(row.into_active_model()).exec_without_returning(tx).await.map_err(conflict)?;
    Ok(())
}

/// Writes the user as it is now, with a new password if one is given.
///
/// # Errors
///
/// As [`insert`].
pub async fn update(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &User,
    password: Option<&PasswordHash>,
) -> Result<()> {
    let mut changes = row(namespace, user, String::new())?.into_active_model().reset_all();
    changes.namespace = NotSet;
    changes.id = NotSet;
    changes.password_hash = password.map_or(NotSet, |hash| Set(hash.as_str().to_owned()));
    user::Entity::update_many()
        .set(changes)
        .filter(Column::Namespace.eq(namespace.as_str()))
        .filter(Column::Id.eq(user.id.as_str()))
        .exec(tx)
        .await
        .map_err(conflict)?;
    Ok(())
}

/// Most bytes of rows of one page. Common clients refuse replies of more than 4 MiB.
const MAX_PAGE: usize = 3 * 1024 * 1024;

/// Live users by what their username and e-mail address begin with, both lower case; ordered by username,
/// then id. At most as many as fit in a reply, and no more are read.
///
/// # Errors
///
/// What the database says.
pub async fn search(
    db: &(impl ConnectionTrait + StreamTrait),
    namespace: &Namespace,
    username: &str,
    email: &str,
    page: Page,
) -> Result<Vec<User>> {
    let mut select = live(namespace);
    for (column, prefix) in [(Column::Username, username), (Column::Email, email)] {
        if prefix.is_empty() {
            continue;
        }
        // Both columns are ASCII: nothing begins with anything else.
        let Some(end) = after_prefix(prefix) else { return Ok(Vec::new()) };
        select = select.filter(named(column)).filter(column.gte(prefix)).filter(column.lt(end));
    }
    let mut rows = select
        .order_by_asc(Column::Username)
        .order_by_asc(Column::Id)
        .limit(page.limit)
        .offset(page.offset)
        .stream(db)
        .await?;
    let (mut users, mut room) = (Vec::new(), MAX_PAGE);
    while let Some(row) = rows.try_next().await? {
        let size = row.labels.len() + row.metadata.len() + row.prefs.len() + row.name.len();
        users.push(User::try_from(row)?);
        room = room.saturating_sub(size);
        if room == 0 {
            break;
        }
    }
    Ok(users)
}

/// The first text that sorts behind all that begin with `prefix`; `None` if it is not ASCII.
fn after_prefix(prefix: &str) -> Option<String> {
    let (last, rest) = prefix.as_bytes().split_last()?;
    let end = char::from(last.checked_add(1)?);
    prefix.is_ascii().then(|| rest.iter().map(|b| char::from(*b)).chain([end]).collect())
}

/// Users of any namespace that lie in the trash since before `cutoff`, oldest first, at most `most`.
///
/// # Errors
///
/// What the database says.
pub async fn trashed_before(
    db: &impl ConnectionTrait,
    cutoff: Timestamp,
    most: u64,
) -> Result<Vec<(Namespace, UserId)>> {
    let rows: Vec<(String, String)> = user::Entity::find()
        .select_only()
        .columns([Column::Namespace, Column::Id])
        .filter(Column::Deleted.into_expr().gt(zero()))
        .filter(Column::Deleted.lt(cutoff.0))
        .order_by_asc(Column::Deleted)
        .limit(most)
        .into_tuple()
        .all(db)
        .await?;
    rows.into_iter()
        .map(|(namespace, id)| Ok((parsed(Namespace::parse(&namespace))?, UserId::from_trusted(id))))
        .collect()
}

/// Removes a user from the trash, and its sessions with it. Whether it was there.
///
/// # Errors
///
/// What the database says.
pub async fn purge(tx: &impl ConnectionTrait, namespace: &Namespace, id: &UserId) -> Result<bool> {
    let done = user::Entity::delete_many()
        .filter(Column::Namespace.eq(namespace.as_str()))
        .filter(Column::Id.eq(id.as_str()))
        .filter(Column::Deleted.into_expr().gt(zero()))
        .exec(tx)
        .await?;
    Ok(done.rows_affected > 0)
}

fn conflict(error: DbErr) -> Error {
    match taken(&error) {
        Some(Taken::Id) => Error::IdTaken,
        Some(Taken::Username) => Error::UsernameTaken { holder: None },
        Some(Taken::Email) => Error::EmailTaken { holder: None },
        None => error.into(),
    }
}

fn row(namespace: &Namespace, user: &User, password_hash: String) -> Result<user::Model> {
    Ok(user::Model {
        namespace: namespace.as_str().to_owned(),
        id: user.id.as_str().to_owned(),
        generation: user.generation,
        version: user.version,
        username: user.username.as_ref().map_or("", Username::as_str).to_owned(),
        email: user.email.as_ref().map_or("", Email::as_str).to_owned(),
        email_verified: user.email_verified,
        name: user.name.as_str().to_owned(),
        status: user.status as i16,
        sso_enabled: user.sso_enabled,
        password_hash,
        password_updated: user.password_updated.map_or(0, |at| at.0),
        prefs: user.prefs.clone(),
        labels: serde_json::to_string(user.labels.as_slice()).map_err(Error::internal)?,
        metadata: serde_json::to_string(user.metadata.as_map()).map_err(Error::internal)?,
        created: user.created.0,
        updated: user.updated.0,
        deleted: user.deleted.map_or(0, |at| at.0),
        id_folded: fold(user.id.as_str()),
        name_folded: fold(user.name.as_str()),
    })
}

/// The account in a row, unless it lies in the trash.
fn account(row: Option<user::Model>) -> Result<Option<Account>> {
    row.filter(|row| row.deleted == 0)
        .map(|mut row| {
            let password = std::mem::take(&mut row.password_hash);
            let password = (!password.is_empty()).then(|| PasswordHash::from_trusted(password));
            Ok(Account { user: row.try_into()?, password })
        })
        .transpose()
}

/// Every row was checked before it was written, so it is not checked again: hot reads come through here.
impl TryFrom<user::Model> for User {
    type Error = Error;

    fn try_from(row: user::Model) -> Result<Self> {
        Ok(Self {
            id: UserId::from_trusted(row.id),
            username: present(row.username).map(Username::from_trusted),
            email: present(row.email).map(Email::from_trusted),
            name: Name::from_trusted(row.name),
            status: Status::from_number(row.status.into())
                .ok_or_else(|| Error::internal("unknown status"))?,
            email_verified: row.email_verified,
            password_updated: time(row.password_updated),
            prefs: row.prefs,
            labels: Labels::from_trusted(parsed(serde_json::from_str(&row.labels))?),
            metadata: Metadata::from_trusted(parsed(serde_json::from_str(&row.metadata))?),
            sso_enabled: row.sso_enabled,
            created: Timestamp(row.created),
            updated: Timestamp(row.updated),
            deleted: time(row.deleted),
            version: row.version,
            generation: row.generation,
        })
    }
}

fn parsed<T, E: std::error::Error + Send + Sync + 'static>(value: Result<T, E>) -> Result<T> {
    value.map_err(Error::internal)
}

fn present(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn time(micros: i64) -> Option<Timestamp> {
    (micros != 0).then_some(Timestamp(micros))
}

#[cfg(test)]
mod tests {
    use super::after_prefix;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(after_prefix("ada").as_deref(), Some("adb"));
        assert_eq!(after_prefix("a~").as_deref(), Some("a\u{7f}"));
        assert_eq!(after_prefix("ä"), None);
        assert_eq!(after_prefix(""), None);
    }
}
