//! The log of what happened.

use sea_orm::sea_query::{Expr, ExprTrait as _, LockBehavior, LockType, Query, Value};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    Select,
};

use crate::domain::caller::Caller;
use crate::domain::event::{Action, Event, KeyLogFilter, LogFilter, LogRecord};
use crate::domain::key::AllowedNamespaces;
use crate::domain::list::{Start, TimeRange};
use crate::domain::namespace::Namespace;
use crate::domain::time::Timestamp;
use crate::domain::user_id::UserId;
use crate::error::{Error, Result};

use super::entity::event::{self, ActiveModel, Column};
use super::{Transaction, count, device};

/// Adds an event, in the transaction of the change.
pub async fn append(tx: &Transaction, caller: &Caller, event: &Event) -> Result<()> {
    append_to(tx, caller.namespace.as_str(), caller, event).await
}

/// Adds an event about a key: those of a root key have a namespace of their own.
pub async fn append_of_key(
    tx: &Transaction,
    namespaces: &AllowedNamespaces,
    caller: &Caller,
    event: &Event,
) -> Result<()> {
    append_to(tx, namespaces.as_str(), caller, event).await
}

async fn append_to(tx: &Transaction, namespace: &str, caller: &Caller, event: &Event) -> Result<()> {
    let device = caller.device(&event.device);
    let user = event.user.as_ref().map_or("", UserId::as_str);
    let row = ActiveModel {
        seq: NotSet,
        namespace: Set(namespace.to_owned()),
        user_id: Set(user.to_owned()),
        at: Set(event.at.0),
        action: Set(event.action.name().to_owned()),
        caller: Set(caller.name.to_string()),
        address: Set(device.address.map_or_else(String::new, |address| address.to_string())),
        user_agent: Set(device.user_agent),
        version: Set(event.version),
        changed: Set(serde_json::to_string(&event.changed).map_err(Error::internal)?),
        session: Set(event.session.clone()),
    };
    event::Entity::insert(row).exec_without_returning(tx).await?;
    tx.note_change(namespace, user, event.action);
    Ok(())
}

/// Events of one user, the newest first: `limit` of them at most, from `start` on.
pub async fn of_user(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    filter: &LogFilter,
    start: &Start<i64>,
    limit: u64,
) -> Result<Vec<LogRecord>> {
    let mut select = chosen(namespace, user, filter).order_by_desc(Column::Seq);
    if let Some(seq) = start.after() {
        select = select.filter(Column::Seq.lt(*seq));
    }
    let rows = select.limit(limit).offset(start.offset()).all(db).await?;
    rows.into_iter().map(LogRecord::try_from).collect()
}

/// Counts the events of the user that match `filter`.
pub async fn count_of_user(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    user: &UserId,
    filter: &LogFilter,
) -> Result<u64> {
    count(db, chosen(namespace, user, filter)).await
}

fn chosen(namespace: &Namespace, user: &UserId, filter: &LogFilter) -> Select<event::Entity> {
    let mut select = event::Entity::find()
        .filter(Column::Namespace.eq(namespace.as_str()))
        .filter(Column::UserId.eq(user.as_str()));
    if !filter.actions.is_empty() {
        select = select.filter(Column::Action.is_in(filter.actions.iter().map(|action| action.name())));
    }
    during(select, &filter.span)
}

fn during(select: Select<event::Entity>, span: &TimeRange) -> Select<event::Entity> {
    // Kept from the index of ages, which is not tenant-scoped.
    let at = || Column::At.into_expr().add(Expr::Constant(Value::from(0_i64)));
    let bounds = span.from.map(|from| at().gte(from.0)).into_iter();
    bounds.chain(span.to.map(|to| at().lt(to.0))).fold(select, Select::filter)
}

/// The condition of the index of keys' events, word for word: with values in place of the names neither
/// database would see that it fits.
const OF_KEYS: &str = "action IN ('KEY_CREATED', 'KEY_EXPIRED', 'KEY_REVOKED')";

/// Events of keys, the newest first: `limit` of them at most, from `start` on.
pub async fn of_keys(
    db: &impl ConnectionTrait,
    namespaces: &AllowedNamespaces,
    filter: &KeyLogFilter,
    start: &Start<i64>,
    limit: u64,
) -> Result<Vec<LogRecord>> {
    let mut select = chosen_of_keys(namespaces, filter).order_by_desc(Column::Seq);
    if let Some(seq) = start.after() {
        select = select.filter(Column::Seq.lt(*seq));
    }
    let rows = select.limit(limit).offset(start.offset()).all(db).await?;
    rows.into_iter().map(LogRecord::try_from).collect()
}

/// Counts the events of keys that match `filter`.
pub async fn count_of_keys(
    db: &impl ConnectionTrait,
    namespaces: &AllowedNamespaces,
    filter: &KeyLogFilter,
) -> Result<u64> {
    count(db, chosen_of_keys(namespaces, filter)).await
}

fn chosen_of_keys(namespaces: &AllowedNamespaces, filter: &KeyLogFilter) -> Select<event::Entity> {
    let mut select = event::Entity::find().filter(Column::Namespace.eq(namespaces.as_str()));
    // All events of root keys' own namespace are such.
    if *namespaces != AllowedNamespaces::All {
        select = select.filter(Expr::cust(OF_KEYS));
    }
    if let Some(key) = &filter.key {
        select = select.filter(Column::Session.eq(key.as_str()));
    }
    during(select, &filter.span)
}

impl TryFrom<event::Model> for LogRecord {
    type Error = Error;

    fn try_from(row: event::Model) -> Result<Self> {
        Ok(Self {
            seq: row.seq,
            at: Timestamp(row.at),
            action: Action::from_name(&row.action),
            caller: row.caller,
            device: device(&row.address, row.user_agent),
            changed: serde_json::from_str(&row.changed).map_err(Error::internal)?,
            session: row.session,
        })
    }
}

/// Removes events of any namespace from before `cutoff`. At most `most`; returns how many.
pub async fn delete_before(tx: &impl ConnectionTrait, cutoff: Timestamp, most: u64) -> Result<u64> {
    let old = Query::select()
        .columns([Column::Namespace, Column::Seq])
        .from(event::Entity)
        .and_where(Expr::col(Column::At).lt(cutoff.0))
        .limit(most)
        // What another replica removes right now is its own.
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .take();
    let key = Expr::tuple([Expr::col(Column::Namespace), Expr::col(Column::Seq)]);
    let done = event::Entity::delete_many().filter(key.in_subquery(old)).exec(tx).await?;
    Ok(done.rows_affected)
}
