//! The table of users.

mod row;

use sea_orm::sea_query::{Expr, ExprTrait as _, Value};
use sea_orm::{
    ActiveModelTrait as _,
    ActiveValue::{NotSet, Set},
    ColumnTrait as _, ConnectionTrait, DbBackend, DbErr, EntityTrait as _, FromQueryResult as _,
    IntoActiveModel as _, Iterable as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    QueryTrait as _, Select, Statement,
};

use crate::domain::email::Email;
use crate::domain::namespace::{Namespace, NamespaceState};
use crate::domain::password::PasswordHash;
use crate::domain::time::Timestamp;
use crate::domain::user::{Account, User};
use crate::domain::user_id::UserId;
use crate::domain::username::Username;
use crate::error::{Error, Result};

use super::entity::user::{self, Column};
use super::fault::{UniqueViolation, unique_violation};
use super::prepared::Prepared;
use super::search::{self, Folded};
use super::{codes, unique};
use row::{account, parsed, row, trashed};

/// Every query on users starts here, so none can reach into another namespace.
fn within(namespace: &Namespace) -> Select<user::Entity> {
    user::Entity::find().filter(Column::Namespace.eq(namespace.as_str()))
}

/// Users that are not in the trash. The 0 is written out and not bound: only then can the databases use the
/// partial indexes.
fn live(namespace: &Namespace) -> Select<user::Entity> {
    within(namespace).filter(Column::Deleted.into_expr().eq(zero()))
}

/// Written out as in [`live`].
pub(super) fn in_trash() -> Expr {
    Column::Deleted.into_expr().gt(zero())
}

pub(super) fn zero() -> Expr {
    Expr::Constant(Value::from(0_i64))
}

/// The live user with `id`. One query, by primary key.
///
/// The row is checked for `deleted` here and not in the query: with the condition in it, PostgreSQL may take
/// a partial index of live users that has the namespace in front, and read all of it.
pub async fn find(db: &impl ConnectionTrait, namespace: &Namespace, id: &UserId) -> Result<Option<Account>> {
    account(find_row(db, namespace, id).await?)
}

/// The user with `id`, wherever it is.
async fn find_row(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    id: &UserId,
) -> Result<Option<user::Model>> {
    static FIND: Prepared = Prepared::new(|| {
        let select = user::Entity::find().filter(Column::Namespace.eq("")).filter(Column::Id.eq(""));
        select.into_query()
    });
    let find = FIND.with(db, [namespace.as_str().into(), id.as_str().into()]);
    let row = db.query_one_raw(find).await?;
    Ok(row.map(|row| user::Model::from_query_result(&row, "")).transpose()?)
}

/// The live user with `username`. One query, by a unique index.
pub async fn find_by_username(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    username: &Username,
) -> Result<Option<Account>> {
    find_named(db, namespace, Column::Username, username.as_str()).await
}

/// The live user with `email`. One query, by a unique index.
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

/// The condition of the partial unique indexes, in their own words.
fn named(column: Column) -> Expr {
    column.into_expr().ne(Expr::Constant(Value::from("")))
}

/// Writes another hash of the same password. The user's version stays: readers see no change.
pub async fn renew_password(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    id: &UserId,
    hash: &PasswordHash,
) -> Result<()> {
    user::Entity::update_many()
        .col_expr(Column::PasswordHash, Expr::val(hash.as_str()))
        .filter(Column::Namespace.eq(namespace.as_str()))
        .filter(Column::Id.eq(id.as_str()))
        .exec(tx)
        .await?;
    Ok(())
}

/// The hash of a live user drawn by `number`, if any user has one: each with about the same chance, and
/// always the same for a number while the users are the same.
pub async fn sample_password_hash(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    number: i64,
) -> Result<Option<PasswordHash>> {
    // After the last one comes the first.
    for from in [number, i64::MIN] {
        let sql = "SELECT password_hash FROM users WHERE namespace = $1 AND generation >= $2 AND deleted = 0 \
            AND password_hash <> '' ORDER BY namespace, generation LIMIT 1";
        let values: [Value; 2] = [namespace.as_str().into(), from.into()];
        let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
        if let Some(row) = db.query_one_raw(statement).await? {
            return Ok(Some(PasswordHash::from_trusted(row.try_get("", "password_hash")?)));
        }
    }
    Ok(None)
}

/// The user with `id` in the trash.
pub async fn find_in_trash(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    id: &UserId,
) -> Result<Option<Account>> {
    trashed(find_row(db, namespace, id).await?)
}

/// The live user with `id`, kept from changing until the transaction ends.
pub async fn lock(tx: &impl ConnectionTrait, namespace: &Namespace, id: &UserId) -> Result<Option<Account>> {
    account(unique(tx, within(namespace).filter(Column::Id.eq(id.as_str())).lock_exclusive()).await?)
}

/// The user with `id` in the trash, kept from changing until the transaction ends.
pub async fn lock_in_trash(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    id: &UserId,
) -> Result<Option<Account>> {
    trashed(unique(tx, within(namespace).filter(Column::Id.eq(id.as_str())).lock_exclusive()).await?)
}

/// Adds a user. The unique indexes are the only judges of what is taken. Fails with [`Error::IdTaken`],
/// [`Error::UsernameTaken`] or [`Error::EmailTaken`], without the holder: on PostgreSQL the transaction is
/// dead by then and answers no question.
pub async fn insert(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &User,
    password: Option<&PasswordHash>,
) -> Result<()> {
    let password = password.map_or_else(String::new, |hash| hash.as_str().to_owned());
    let folded = Folded::of(user);
    let terms = search::terms_of(namespace, user, &folded);
    let row = row(namespace, user, folded, password)?;
    user::Entity::insert(row.into_active_model()).exec_without_returning(tx).await.map_err(conflict)?;
    search::write(tx, namespace, &user.id, terms).await
}

/// Adds many users at once, at a small part of what they cost one by one.
pub async fn insert_all(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    users: &[(User, Option<PasswordHash>)],
) -> Result<()> {
    for some in users.chunks(INSERT_BATCH) {
        let rows = some.iter().map(|(user, password)| {
            let password = password.as_ref().map_or_else(String::new, |hash| hash.as_str().to_owned());
            Ok(row(namespace, user, Folded::of(user), password)?.into_active_model())
        });
        let rows = rows.collect::<Result<Vec<_>>>()?;
        user::Entity::insert_many(rows).exec_without_returning(tx).await.map_err(conflict)?;
        search::write_all(tx, namespace, some.iter().map(|(user, _)| user)).await?;
    }
    Ok(())
}

/// Rows of one statement: with twenty values each they stay under SQLite's limit of 32,766.
const INSERT_BATCH: usize = 500;

/// Writes the user as it is after a change, with a new password if one is given.
pub async fn update(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    before: &User,
    after: &User,
    password: Option<&PasswordHash>,
) -> Result<()> {
    let folded = Folded::of(after);
    let terms = (!search::same_terms(before, after)).then(|| search::terms_of(namespace, after, &folded));
    let mut changes = row(namespace, after, folded, String::new())?.into_active_model().reset_all();
    changes.namespace = NotSet;
    changes.id = NotSet;
    changes.password_hash = password.map_or(NotSet, |hash| Set(hash.as_str().to_owned()));
    user::Entity::update_many()
        .set(changes)
        .filter(Column::Namespace.eq(namespace.as_str()))
        .filter(Column::Id.eq(after.id.as_str()))
        .exec(tx)
        .await
        .map_err(conflict)?;
    match terms {
        Some(terms) => search::write(tx, namespace, &after.id, terms).await,
        None => Ok(()),
    }
}

/// Live users by their ids, in no order; `prefs` only if asked for.
pub async fn find_all(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    ids: &[UserId],
    include_prefs: bool,
) -> Result<Vec<User>> {
    let ids: Vec<&str> = ids.iter().map(UserId::as_str).collect();
    let ids = serde_json::to_string(&ids).map_err(Error::internal)?;
    let among = match db.get_database_backend() {
        DbBackend::Sqlite => Expr::cust_with_values("id IN (SELECT value FROM json_each(?))", [ids]),
        _ => among(ids),
    };
    let rows = list_columns(include_prefs).filter(Column::Namespace.eq(namespace.as_str())).filter(among);
    let rows = rows.into_model::<user::Model>().all(db).await?;
    rows.into_iter().filter(|row| row.deleted == 0).map(User::try_from).collect()
}

/// Ids that PostgreSQL finds by the primary key, given as a JSON list.
pub(super) fn among(ids: String) -> Expr {
    let sql = "id = ANY (ARRAY (SELECT json_array_elements_text(CAST(CAST($1 AS text) AS json))))";
    Expr::cust_with_values(sql, [ids])
}

/// The columns of users in lists: no password, and `prefs` only if asked for.
pub(super) fn list_columns(include_prefs: bool) -> Select<user::Entity> {
    let left_out = |column: &Column| match column {
        Column::PasswordHash => Some(""),
        Column::Prefs if !include_prefs => Some("{}"),
        _ => None,
    };
    Column::iter().fold(user::Entity::find().select_only(), |select, column| match left_out(&column) {
        Some(instead) => select.column_as(Expr::Constant(Value::from(instead)), column),
        None => select.column(column),
    })
}

/// The id of the user who was deleted last with that address.
pub async fn newest_in_trash(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    email: &Email,
) -> Result<Option<UserId>> {
    let id: Option<String> = user::Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::Namespace.eq(namespace.as_str()))
        .filter(Column::Email.eq(email.as_str()))
        .filter(in_trash())
        .order_by_desc(Column::Deleted)
        .order_by_desc(Column::Id)
        .limit(1)
        .into_tuple()
        .one(db)
        .await?;
    Ok(id.map(UserId::from_trusted))
}

/// Returns true if there is a user with `id`, live or in the trash.
pub async fn exists(db: &impl ConnectionTrait, namespace: &Namespace, id: &UserId) -> Result<bool> {
    let key = within(namespace).filter(Column::Id.eq(id.as_str()));
    Ok(unique(db, key).await?.is_some())
}

/// Users that are in the trash since before `cutoff`, oldest first, at most `most` after the first `skip`: of any namespace but
/// those that are being deleted.
pub async fn trashed_before(
    db: &impl ConnectionTrait,
    cutoff: Timestamp,
    skip: u64,
    most: u64,
) -> Result<Vec<(Namespace, UserId)>> {
    let rows: Vec<(String, String)> = user::Entity::find()
        .select_only()
        .columns([Column::Namespace, Column::Id])
        .filter(in_trash())
        .filter(Column::Deleted.lt(cutoff.0))
        .filter(Expr::cust(format!(
            "users.namespace NOT IN (SELECT namespace FROM namespaces WHERE state = {})",
            NamespaceState::Deleting as i16
        )))
        .order_by_asc(Column::Deleted)
        .offset(skip)
        .limit(most)
        .into_tuple()
        .all(db)
        .await?;
    rows.into_iter()
        .map(|(namespace, id)| Ok((parsed(Namespace::parse(&namespace))?, UserId::from_trusted(id))))
        .collect()
}

/// Removes a user from the trash, with its sessions and codes. Whether it was there.
pub async fn purge(tx: &impl ConnectionTrait, namespace: &Namespace, id: &UserId) -> Result<bool> {
    search::remove(tx, namespace, id).await?;
    codes::delete_of_user(tx, namespace, id).await?;
    let done = user::Entity::delete_many()
        .filter(Column::Namespace.eq(namespace.as_str()))
        .filter(Column::Id.eq(id.as_str()))
        .filter(in_trash())
        .exec(tx)
        .await?;
    Ok(done.rows_affected > 0)
}

fn conflict(error: DbErr) -> Error {
    match unique_violation(&error) {
        Some(UniqueViolation::Id) => Error::IdTaken,
        Some(UniqueViolation::Username) => Error::UsernameTaken { holder: None },
        Some(UniqueViolation::Email) => Error::EmailTaken { holder: None },
        None => error.into(),
    }
}
