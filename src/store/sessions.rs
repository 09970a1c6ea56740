//! The table of sessions.

use sea_orm::sea_query::{Expr, ExprTrait as _, LockBehavior, LockType, Query, Value};
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, EntityTrait as _, FromQueryResult, IntoActiveModel as _,
    JoinType, QueryFilter as _, QueryOrder as _, QuerySelect as _, QueryTrait as _, RelationTrait as _,
};

use crate::domain::namespace::Namespace;
use crate::domain::secret::SecretDigest;
use crate::domain::session::{Session, StoredSession};
use crate::domain::time::Timestamp;
use crate::domain::user_id::UserId;
use crate::error::Result;

use super::entity::session::{self, Column};
use super::entity::user;
use super::prepared::Prepared;
use super::{count, device};

/// Adds a session.
pub async fn insert(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    digest: SecretDigest,
    session: &StoredSession,
) -> Result<()> {
    let row = session::Model {
        namespace: namespace.as_str().to_owned(),
        digest: digest.as_bytes().to_vec(),
        public_id: session.public_id.clone(),
        user_id: session.user.as_str().to_owned(),
        created: session.created.0,
        expires: session.expires.0,
        seen: session.created.0,
        address: session.device.address.map_or_else(String::new, |address| address.to_string()),
        user_agent: session.device.user_agent.clone(),
        auth_time: session.auth_time.0,
        amr: session.amr.clone(),
    };
    session::Entity::insert(row.into_active_model()).exec_without_returning(tx).await?;
    Ok(())
}

/// Sessions of one user that are open at `now`, the oldest first: `limit` of them at most, after the one
/// that `after` names.
pub async fn of_user(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    open: OpenAt,
    after: Option<&str>,
    limit: u64,
) -> Result<Vec<StoredSession>> {
    // Public ids begin with the time, so this is the order in which they were opened.
    let mut select = session::Entity::find().filter(open_of(namespace, user, open));
    select = select.order_by_asc(Column::PublicId).limit(limit);
    if let Some(after) = after {
        select = select.filter(Column::PublicId.gt(after));
    }
    Ok(select.all(db).await?.into_iter().map(StoredSession::from).collect())
}

/// Counts the open sessions of the user.
pub async fn count_of_user(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    open: OpenAt,
) -> Result<u64> {
    count(db, session::Entity::find().filter(open_of(namespace, user, open))).await
}

/// The condition of sessions that are open, of those that are still stored.
#[derive(Clone, Copy, Debug)]
pub struct OpenAt {
    /// It expires after this time.
    pub now: Timestamp,
    /// It was read after this time; `None`: at any time.
    pub idle_since: Option<Timestamp>,
}

fn open_of(namespace: &Namespace, user: &UserId, open: OpenAt) -> Condition {
    // Kept from the indexes of expiry, which are not tenant-scoped.
    let plain = |column: Column| column.into_expr().add(Expr::Constant(Value::from(0_i64)));
    Condition::all()
        .add(Column::Namespace.eq(namespace.as_str()))
        .add(Column::UserId.eq(user.as_str()))
        .add(plain(Column::Expires).gt(open.now.0))
        .add_option(open.idle_since.map(|since| plain(Column::Seen).gt(since.0)))
}

impl From<session::Model> for StoredSession {
    fn from(row: session::Model) -> Self {
        Self {
            public_id: row.public_id,
            user: UserId::from_trusted(row.user_id),
            created: Timestamp(row.created),
            expires: Timestamp(row.expires),
            auth_time: auth_time(row.auth_time, row.created),
            amr: row.amr,
            device: device(&row.address, row.user_agent),
        }
    }
}

/// An older program stores no time: its users authenticated when they signed in.
fn auth_time(stored: i64, created: i64) -> Timestamp {
    Timestamp(if stored == 0 { created } else { stored })
}

#[derive(FromQueryResult)]
struct Row {
    public_id: String,
    user_id: String,
    username: String,
    email: String,
    created: i64,
    expires: i64,
    seen: i64,
    auth_time: i64,
    amr: String,
    deleted: i64,
}

/// The session with that digest, expired or not, with its live user's names. One query, by primary keys.
pub async fn find(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    digest: SecretDigest,
) -> Result<Option<Session>> {
    static FIND: Prepared = Prepared::new(|| {
        session::Entity::find()
            .select_only()
            .columns([Column::PublicId, Column::UserId, Column::Created, Column::Expires, Column::Seen])
            .columns([Column::AuthTime, Column::Amr])
            .columns([user::Column::Username, user::Column::Email, user::Column::Deleted])
            .join(JoinType::InnerJoin, session::Relation::User.def())
            .filter(Column::Namespace.eq(""))
            .filter(Column::Digest.eq(Vec::<u8>::new()))
            .into_query()
    });
    let find = FIND.with(db, [namespace.as_str().into(), digest.as_bytes().into()]);
    let Some(row) = db.query_one_raw(find).await? else { return Ok(None) };
    let row = Row::from_query_result(&row, "")?;
    if row.deleted != 0 {
        return Ok(None);
    }
    Ok(Some(Session {
        public_id: row.public_id,
        user: UserId::from_trusted(row.user_id),
        username: row.username,
        email: row.email,
        created: Timestamp(row.created),
        expires: Timestamp(row.expires),
        auth_time: auth_time(row.auth_time, row.created),
        amr: row.amr,
        last_read: Timestamp(row.seen),
    }))
}

/// Records that the session was read at `read`, unless a later read is recorded already, the session has ended by not
/// being read since `idle_since`, or another transaction changes it right now: to wait for that could be a deadlock.
/// Returns true if it is recorded.
pub async fn touch(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    digest: SecretDigest,
    read: Timestamp,
    idle_since: Option<Timestamp>,
) -> Result<bool> {
    let mut open = Query::select();
    open.columns([Column::Namespace, Column::Digest])
        .from(session::Entity)
        .and_where(Column::Namespace.eq(namespace.as_str()))
        .and_where(Column::Digest.eq(digest.as_bytes()))
        .and_where(Column::Seen.lt(read.0))
        .and_where_option(idle_since.map(|since| Column::Seen.gt(since.0)))
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
    let key = Expr::tuple([Expr::col(Column::Namespace), Expr::col(Column::Digest)]);
    let done = session::Entity::update_many()
        .col_expr(Column::Seen, Expr::val(read.0))
        .filter(key.in_subquery(open))
        .exec(tx)
        .await?;
    Ok(done.rows_affected > 0)
}

/// Ends one session. Whether there was one.
pub async fn delete(tx: &impl ConnectionTrait, namespace: &Namespace, digest: SecretDigest) -> Result<bool> {
    let done = session::Entity::delete_many()
        .filter(Column::Namespace.eq(namespace.as_str()))
        .filter(Column::Digest.eq(digest.as_bytes()))
        .exec(tx)
        .await?;
    Ok(done.rows_affected > 0)
}

/// Ends the open session of a user that `public_id` names. How many.
pub async fn delete_open(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    public_id: &str,
    open: OpenAt,
) -> Result<u64> {
    let this = open_of(namespace, user, open).add(Column::PublicId.eq(public_id));
    Ok(session::Entity::delete_many().filter(this).exec(tx).await?.rows_affected)
}

/// The public ids of the oldest open sessions of a user who has more than `keep` of them beside `except`: as many as are too
/// many, at most `most`, the oldest first.
///
/// Reads at most `keep` + 2 `most` rows, however many there are.
pub async fn oldest(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    open: OpenAt,
    except: Option<&str>,
    keep: u64,
    most: u64,
) -> Result<Vec<String>> {
    // Public ids begin with the time.
    let ids = || session::Entity::find().select_only().column(Column::PublicId);
    let others =
        open_of(namespace, user, open).add_option(except.map(|session| Column::PublicId.ne(session)));
    let open = || ids().filter(others.clone());
    let beyond = open().order_by_desc(Column::PublicId).offset(keep).limit(most);
    let beyond = tx.query_all(&beyond.into_query()).await?.len();
    if beyond == 0 {
        return Ok(Vec::new());
    }
    Ok(open().order_by_asc(Column::PublicId).limit(beyond as u64).into_tuple().all(tx).await?)
}

/// Ends sessions of a user by their public ids. Returns those that were there, in the same order.
///
/// Locks their rows first: with one statement for each, a later row could be locked by one who waits for the total of
/// sessions, which the first statement has locked.
pub async fn delete_these(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    mut public_ids: Vec<String>,
) -> Result<Vec<String>> {
    if public_ids.is_empty() {
        return Ok(public_ids);
    }
    let these = Condition::all()
        .add(Column::Namespace.eq(namespace.as_str()))
        .add(Column::UserId.eq(user.as_str()))
        .add(Column::PublicId.is_in(&public_ids));
    let found = session::Entity::find().select_only().column(Column::PublicId).filter(these.clone());
    let found: Vec<String> = found.lock_exclusive().into_tuple().all(tx).await?;
    session::Entity::delete_many().filter(these).exec(tx).await?;
    public_ids.retain(|id| found.contains(id));
    Ok(public_ids)
}

/// Ends all sessions of a user but `keep`. How many.
pub async fn delete_of_user(
    tx: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    keep: Option<SecretDigest>,
) -> Result<u64> {
    let mut delete = session::Entity::delete_many()
        .filter(Column::Namespace.eq(namespace.as_str()))
        .filter(Column::UserId.eq(user.as_str()));
    if let Some(keep) = keep {
        delete = delete.filter(Column::Digest.ne(keep.as_bytes()));
    }
    Ok(delete.exec(tx).await?.rows_affected)
}

/// Removes sessions of any namespace that ended by themselves: before `now`, or unread since before
/// `idle_since`. At most `most`; returns how many.
pub async fn delete_ended(
    tx: &impl ConnectionTrait,
    now: Timestamp,
    idle_since: Option<Timestamp>,
    most: u64,
) -> Result<u64> {
    let mut removed = 0;
    for (column, before) in [(Column::Expires, Some(now)), (Column::Seen, idle_since)] {
        let Some(before) = before else { continue };
        let ended = Query::select()
            .columns([Column::Namespace, Column::Digest])
            .from(session::Entity)
            .and_where(Expr::col(column).lte(before.0))
            .limit(most)
            // What another replica or a call is about to remove is theirs: waiting could be a deadlock.
            .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
            .take();
        let key = Expr::tuple([Expr::col(Column::Namespace), Expr::col(Column::Digest)]);
        let done = session::Entity::delete_many().filter(key.in_subquery(ended)).exec(tx).await?;
        removed += done.rows_affected;
    }
    Ok(removed)
}
