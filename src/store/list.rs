//! Lists of users, a page at a time.
//!
//! A list can be read in two ways: along the index of its order, passing over those that do not fit, or by
//! finding those that fit first and sorting them. The first is quick where many fit, the second where few do.
//! Which it is, is found out by asking an index for a thousand of them.

mod candidates;
mod conditions;
mod scan;

use futures_util::TryStreamExt as _;
use sea_orm::sea_query::{Expr, ExprTrait as _, SelectStatement};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbBackend, EntityTrait as _, Order as Direction, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, QueryTrait as _, Select, StreamTrait,
};

use crate::domain::list::{Filters, Listing, Order, Position, SortValue, Start};
use crate::domain::namespace::Namespace;
use crate::domain::user::User;
use crate::error::Result;

use super::count;
use super::entity::user::{self, Column};
use super::search::may_be_common;
use super::totals;
use super::users::{among, in_trash, list_columns, zero};

pub use candidates::choose_path;
use candidates::key_of;
use conditions::{after_cursor, conditions, order_of, range_of_order, up_to_cursor};

/// Users that are looked at along the order at first, where an index could find those that match.
const FIRST_SCAN: u64 = 1_000;

/// Most that are looked at, where those suggest that the page is near.
fn max_scan(backend: DbBackend) -> u64 {
    match backend {
        // To look up all that are found in the index of the order takes as long.
        DbBackend::Sqlite => 4_000,
        // To sort two thousand takes as long.
        _ => 20_000,
    }
}

/// The access path of a list.
#[derive(Clone, Debug)]
pub enum AccessPath {
    /// Along the index of its order: no other is of help.
    Order,
    /// Among these: their ids, or on SQLite their numbers, as a JSON list.
    Among(String),
    /// Among all that this finds, which are many.
    Found(Box<SelectStatement>),
    /// The same on PostgreSQL, to count them.
    Counted(Box<SelectStatement>),
    /// Along the index of its order, which on SQLite has the numbers of users: those that this finds.
    OrderAmong(Box<SelectStatement>),
}

/// The part of a list that a page shows.
#[derive(Debug)]
pub struct Part<'a> {
    /// Where it begins.
    pub start: &'a Start<Position>,
    /// Most users.
    pub limit: u64,
    /// Includes their prefs.
    pub include_prefs: bool,
    /// The bytes that they may have together.
    pub room: usize,
}

/// A page of a list.
#[derive(Debug, Default)]
pub struct Rows {
    /// As many as were asked for and fit in a reply.
    pub users: Vec<User>,
    /// True if more rows follow.
    pub more: bool,
}

/// Reads a page, and counts the users of all pages if `counted`.
pub async fn page(
    db: &(impl ConnectionTrait + StreamTrait),
    namespace: &Namespace,
    listing: &Listing,
    part: &Part<'_>,
    counted: bool,
) -> Result<(Rows, Option<u64>)> {
    let in_steps = !counted && part.limit > 0 && backend_of(db) == DbBackend::Postgres;
    if in_steps
        && may_be_common(listing)
        && let Some(page) = scan::page(db, namespace, listing, part).await?
    {
        return Ok((page, None));
    }
    let path = choose_path(db, namespace, listing).await?;
    let page = page_by(db, namespace, listing, &path, part).await?;
    let total = if counted { Some(total(db, namespace, listing, &path).await?) } else { None };
    Ok((page, total))
}

/// One page by an access path.
async fn page_by(
    db: &(impl ConnectionTrait + StreamTrait),
    namespace: &Namespace,
    listing: &Listing,
    path: &AccessPath,
    part: &Part<'_>,
) -> Result<Rows> {
    if part.limit == 0 {
        return Ok(Rows::default());
    }
    let AccessPath::Found(found) = path else {
        let Some(start) = past_offset(db, namespace, listing, part.start).await? else {
            return Ok(Rows::default());
        };
        return read(db, namespace, listing, path, &Part { start: &start, ..*part }, None).await;
    };
    if !listing.trash {
        if let Some(page) = nearby_page(db, namespace, listing, part).await? {
            return Ok(page);
        }
        if backend_of(db) == DbBackend::Sqlite {
            let path = AccessPath::OrderAmong(found.clone());
            return read(db, namespace, listing, &path, part, None).await;
        }
    }
    read(db, namespace, listing, path, part, None).await
}

/// The page, if it is near.
async fn nearby_page(
    db: &(impl ConnectionTrait + StreamTrait),
    namespace: &Namespace,
    listing: &Listing,
    part: &Part<'_>,
) -> Result<Option<Rows>> {
    let near = nearby(db, namespace, listing, part, FIRST_SCAN).await?;
    let most = max_scan(backend_of(db));
    // Those before an offset are not among the rows.
    let promising =
        part.start.offset() > 0 || near.rows.users.len() as u64 * (most / FIRST_SCAN) > part.limit;
    let near =
        if near.complete || !promising { near } else { nearby(db, namespace, listing, part, most).await? };
    Ok(near.complete.then_some(near.rows))
}

/// The same start, after a user where it was at an offset of many in a list of everyone: those who are passed over are
/// counted in the index alone. `None` if the list ends before.
async fn past_offset(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    listing: &Listing,
    start: &Start<Position>,
) -> Result<Option<Start<Position>>> {
    let everyone = !listing.trash && listing.filters == Filters::default();
    match start.offset().checked_sub(1).filter(|before| everyone && *before >= FIRST_SCAN) {
        Some(before) => Ok(position_at(db, namespace, listing, None, before).await?.map(Start::After)),
        None => Ok(Some(start.clone())),
    }
}

/// Users near the start of a page.
struct Nearby {
    rows: Rows,
    /// True if they are all of the page.
    complete: bool,
}

/// Those of the page among the next `most` users along the order.
async fn nearby(
    db: &(impl ConnectionTrait + StreamTrait),
    namespace: &Namespace,
    listing: &Listing,
    part: &Part<'_>,
    most: u64,
) -> Result<Nearby> {
    let until = position_at(db, namespace, listing, part.start.after(), most).await?;
    let rows = read(db, namespace, listing, &AccessPath::Order, part, until.as_ref()).await?;
    Ok(Nearby { complete: rows.more || until.is_none(), rows })
}

/// The page of those up to `until`.
async fn read(
    db: &(impl ConnectionTrait + StreamTrait),
    namespace: &Namespace,
    listing: &Listing,
    path: &AccessPath,
    part: &Part<'_>,
    until: Option<&Position>,
) -> Result<Rows> {
    let range = KeysetRange { after: part.start.after(), until };
    let columns = list_columns(part.include_prefs);
    let select = ordered(columns, backend_of(db), namespace, listing, path, &range);
    // The extra row shows whether more follow.
    collect(db, select.limit(part.limit + 1).offset(part.start.offset()), part).await
}

fn backend_of(db: &impl ConnectionTrait) -> DbBackend {
    db.get_database_backend()
}

/// The part of an order that is looked at.
struct KeysetRange<'a> {
    after: Option<&'a Position>,
    /// The last cursor.
    until: Option<&'a Position>,
}

/// Those of the list, in order.
fn ordered(
    select: Select<user::Entity>,
    backend: DbBackend,
    namespace: &Namespace,
    listing: &Listing,
    path: &AccessPath,
    range: &KeysetRange<'_>,
) -> Select<user::Entity> {
    // What is sorted must not tempt the planner to range along an order and pass over nearly everyone.
    let sorted = listing.trash || !matches!(path, AccessPath::Order | AccessPath::OrderAmong(_));
    let (key, id) = order_of(listing.order, sorted);
    let direction = if listing.descending { Direction::Desc } else { Direction::Asc };
    let mut select = chosen(select, backend, namespace, listing, path);
    if let Some(cursor) = range.after {
        select = select.filter(after_cursor(key.clone(), id.clone(), cursor, listing.descending));
    }
    if let Some(cursor) = range.until {
        select = select.filter(up_to_cursor(key.clone(), id.clone(), cursor, listing.descending));
    }
    select.order_by(key.unwrap_or_else(|| id.clone()), direction.clone()).order_by(id, direction)
}

/// The cursor `offset` users after the next one of `after` in the order of the list, or in the range of it that the filters
/// name, matching other filters or not; `None` if that ends before.
async fn position_at(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    listing: &Listing,
    after: Option<&Position>,
    offset: u64,
) -> Result<Option<Position>> {
    let everyone = Listing { filters: range_of_order(listing), ..listing.clone() };
    let range = KeysetRange { after, until: None };
    let (key, id) = order_of(listing.order, false);
    // No more than the index has.
    let columns = user::Entity::find()
        .select_only()
        .expr_as(key.unwrap_or_else(|| Expr::val("")), "key")
        .expr_as(id, "id");
    let select = ordered(columns, backend_of(db), namespace, &everyone, &AccessPath::Order, &range);
    let Some(row) = db.query_one(&select.limit(1).offset(offset).into_query()).await? else {
        return Ok(None);
    };
    let key = match listing.order {
        Order::Created | Order::Updated => SortValue::Number(row.try_get_by_index(0)?),
        Order::Username | Order::Email | Order::Name | Order::Id => SortValue::Text(row.try_get_by_index(0)?),
    };
    Ok(Some(Position { key, id: row.try_get_by_index(1)? }))
}

/// Counts the users of a list.
pub async fn total(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    listing: &Listing,
    path: &AccessPath,
) -> Result<u64> {
    if listing.filters == Filters::default() {
        return totals::total(db, namespace, listing.trash).await;
    }
    let all = match path {
        // To count many, PostgreSQL reads the whole namespace sooner than it looks each of them up.
        AccessPath::Found(found) if backend_of(db) == DbBackend::Postgres => {
            Some(AccessPath::Counted(found.clone()))
        }
        _ => None,
    };
    count(db, chosen(user::Entity::find(), backend_of(db), namespace, listing, all.as_ref().unwrap_or(path)))
        .await
}

/// Those of the list, in no order.
fn chosen(
    select: Select<user::Entity>,
    backend: DbBackend,
    namespace: &Namespace,
    listing: &Listing,
    path: &AccessPath,
) -> Select<user::Entity> {
    let own = match (path, backend) {
        // The plus keeps SQLite from reading the whole namespace where it is to look up some numbers.
        (AccessPath::Among(_) | AccessPath::Found(_), DbBackend::Sqlite) => {
            Expr::cust_with_values("+\"users\".\"namespace\" = ?", [namespace.as_str()])
        }
        _ => Column::Namespace.eq(namespace.as_str()),
    };
    let select = match (path, backend) {
        (AccessPath::Order, _) => select,
        (AccessPath::Found(found), DbBackend::Sqlite) => {
            select.filter(key_of(backend).in_subquery(found.as_ref().clone()))
        }
        (AccessPath::Counted(found), _) => {
            let mut found = found.as_ref().clone();
            // In one namespace PostgreSQL knows that an id is found once.
            found.and_where(Expr::col("namespace").eq(namespace.as_str()));
            select.filter(key_of(backend).in_subquery(found))
        }
        // And this one keeps it from looking up the numbers where it is to go along the order.
        (AccessPath::OrderAmong(found), DbBackend::Sqlite) => {
            select.filter(Expr::cust_with_expr("+\"users\".\"num\" IN ?", subquery(found)))
        }
        // As a list: PostgreSQL would read the whole namespace rather than look up what a query finds.
        (AccessPath::Found(found) | AccessPath::OrderAmong(found), _) => {
            select.filter(Expr::cust_with_expr("\"users\".\"id\" = ANY (ARRAY $1)", subquery(found)))
        }
        (AccessPath::Among(numbers), DbBackend::Sqlite) => {
            let sql = "\"users\".\"num\" IN (SELECT value FROM json_each(?))";
            select.filter(Expr::cust_with_values(sql, [numbers.as_str()]))
        }
        (AccessPath::Among(ids), _) => select.filter(among(ids.clone())),
    };
    let state = if listing.trash { in_trash() } else { Column::Deleted.into_expr().eq(zero()) };
    let along = matches!(path, AccessPath::Order | AccessPath::OrderAmong(_));
    let walked = (along && !listing.trash).then_some(listing.order);
    conditions(backend, &listing.filters, walked)
        .into_iter()
        .fold(select.filter(own).filter(state), Select::filter)
}

fn subquery(select: &SelectStatement) -> Expr {
    Expr::SubQuery(None, Box::new(select.clone().into()))
}

/// Up to `part.limit` rows, and no more than there is room for. No more than that are read.
async fn collect(
    db: &(impl ConnectionTrait + StreamTrait),
    select: Select<user::Entity>,
    part: &Part<'_>,
) -> Result<Rows> {
    let mut rows = select.into_model::<user::Model>().stream(db).await?;
    let (mut users, mut room) = (Vec::new(), part.room);
    while let Some(row) = rows.try_next().await? {
        let user = User::try_from(row)?;
        let size = user.message_size();
        if users.len() as u64 == part.limit || size > room {
            return Ok(Rows { users, more: true });
        }
        room -= size;
        users.push(user);
    }
    Ok(Rows { users, more: false })
}
