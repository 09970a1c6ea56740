//! Lists of users, a page at a time.
//!
//! A list can be read in two ways: along the index of its order, passing over those that do not fit, or by
//! finding those that fit first and sorting them. The first is quick where many fit, the second where few do.
//! Which it is, is found out by asking an index for a thousand of them.

mod conditions;

use futures_util::TryStreamExt as _;
use sea_orm::sea_query::{Expr, ExprTrait as _, Query, SelectStatement};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbBackend, EntityTrait as _, Order as Direction, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Select, StreamTrait,
};

use crate::domain::list::{Filters, Listing, Order, Position, Start};
use crate::domain::namespace::Namespace;
use crate::domain::page::Page;
use crate::domain::user::User;
use crate::error::Result;

use super::count;
use super::entity::user::{self, Column};
use super::search::{self, Term, probes};
use super::totals;
use super::users::{among, in_trash, list_columns, zero};

use conditions::{after_cursor, after_prefix, conditions, order_of, prefixes, spans, within};

/// Most matching users that are sorted rather than read along the index of the order.
const SORT_THRESHOLD: u64 = 1_000;

/// Most users that are skipped along the index of the order where the search index could find those that
/// match.
const MAX_SCAN: u64 = 4_000;

/// The name that candidate queries give to their result.
const FOUND: &str = "found";

/// The access path of a list.
#[derive(Clone, Debug)]
pub enum AccessPath {
    /// Along the index of its order: no other is of help.
    Order,
    /// Among these: their ids, or on SQLite their numbers, as a JSON list.
    Among(String),
    /// Among all that this finds; or, since they are many, along the order where it is near.
    Found(Box<SelectStatement>),
}

/// A page of a list.
#[derive(Debug)]
pub struct Rows {
    /// As many as were asked for and fit in a reply.
    pub users: Vec<User>,
    /// True if more rows follow.
    pub more: bool,
}

/// Chooses the access path by cost.
pub async fn choose_path(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    listing: &Listing,
) -> Result<AccessPath> {
    let backend = db.get_database_backend();
    let candidate_queries = candidate_queries(backend, namespace, listing);
    for candidate in &candidate_queries {
        let Some(row) = db.query_one(&some_of(backend, candidate.clone())).await? else { continue };
        if u64::try_from(row.try_get_by_index::<i64>(0)?).is_ok_and(|found| found <= SORT_THRESHOLD) {
            return Ok(AccessPath::Among(row.try_get_by_index(1)?));
        }
    }
    Ok(candidate_queries
        .into_iter()
        .next_back()
        .map_or(AccessPath::Order, |found| AccessPath::Found(Box::new(found))))
}

/// Counts the users that are found, and names them as a JSON list; of one more than [`SORT_THRESHOLD`]. In
/// one row: a row each would cost more than finding them.
fn some_of(backend: DbBackend, mut candidate: SelectStatement) -> SelectStatement {
    let list = if backend == DbBackend::Sqlite {
        "json_group_array(found)"
    } else {
        "CAST(coalesce(json_agg(found), '[]') AS text)"
    };
    let some = candidate.limit(SORT_THRESHOLD + 1).take();
    Query::select().expr(Expr::cust("COUNT(*)")).expr(Expr::cust(list)).from_subquery(some, "some").take()
}

/// The queries that can find those who fit without reading all the others, the last of them best where they
/// are many. None where the order's own index does.
fn candidate_queries(backend: DbBackend, namespace: &Namespace, listing: &Listing) -> Vec<SelectStatement> {
    let filters = &listing.filters;
    let index_ranges = index_ranges(filters);
    // An index in order finds exactly the matching users, so where one range is all that is asked for, the
    // search index, which only finds candidates, is of no use.
    let is_only_range = index_ranges.len() == 1 && !listing.trash && {
        let rest = Filters { username: String::new(), email: String::new(), ..filters.clone() };
        probes(namespace, listing.trash, &rest).is_empty()
    };
    let mut queries = Vec::new();
    for (order, bounds) in index_ranges {
        if order != listing.order && !listing.trash {
            let mut query = Query::select();
            query
                .expr_as(key_of(backend), FOUND)
                .from(user::Entity)
                .and_where(Column::Namespace.eq(namespace.as_str()));
            query.and_where(Column::Deleted.into_expr().eq(zero()));
            queries.push(bounds.into_iter().fold(query, |mut query, bound| query.and_where(bound).take()));
        }
    }
    if !is_only_range {
        let probes = probes(namespace, listing.trash, filters);
        queries.extend(probes.into_iter().map(|terms| indexed(backend, namespace, terms)));
    }
    queries
}

/// The column by which an index finds users: their numbers on SQLite, their ids on PostgreSQL.
fn key_of(backend: DbBackend) -> Expr {
    Expr::cust(if backend == DbBackend::Sqlite { "num" } else { "id" })
}

/// Ranges of the order indexes in which all rows match.
fn index_ranges(filters: &Filters) -> Vec<(Order, Vec<Expr>)> {
    let begun = prefixes(filters).into_iter().filter_map(|(order, column, prefix)| {
        let end = after_prefix(prefix)?;
        Some((order, vec![column.gte(prefix), column.lt(end)]))
    });
    let spans = spans(filters).into_iter().filter(|(_, _, span)| !span.is_open());
    begun
        .chain(spans.map(|(order, column, span)| (order, within(column.into_expr(), span).collect())))
        .collect()
}

/// Those who have all of `terms`.
fn indexed(backend: DbBackend, namespace: &Namespace, terms: Vec<Term>) -> SelectStatement {
    let (condition, value) = search::index_condition(backend, terms);
    let having = Expr::cust_with_values(condition, [value]);
    let mut query = Query::select();
    match backend {
        DbBackend::Sqlite => query.expr_as(Expr::cust("rowid"), FOUND),
        _ => query.expr_as(Expr::cust("id"), FOUND).and_where(Expr::col("namespace").eq(namespace.as_str())),
    };
    query.from("users_search").and_where(having).take()
}

/// One page.
pub async fn page(
    db: &(impl ConnectionTrait + StreamTrait),
    namespace: &Namespace,
    listing: &Listing,
    path: &AccessPath,
    start: &Start<Position>,
    limit: u64,
    include_prefs: bool,
) -> Result<Rows> {
    if limit == 0 {
        return Ok(Rows { users: Vec::new(), more: false });
    }
    // The extra row shows whether more follow.
    let read = async |path: &AccessPath, until: Option<&Position>| {
        let range = KeysetRange { after: start.after(), until };
        let select = ordered(list_columns(include_prefs), backend_of(db), namespace, listing, path, &range);
        collect(db, select.limit(limit + 1).offset(start.offset()), limit).await
    };
    if matches!(path, AccessPath::Found(_)) {
        // Many may fit, but perhaps not here: those that an index found are sorted rather than looking on for
        // long.
        let until = scan_limit_position(db, namespace, listing, start.after()).await?;
        let near = read(&AccessPath::Order, until.as_ref()).await?;
        if near.more || until.is_none() {
            return Ok(near);
        }
    }
    read(path, None).await
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
    let sorted = listing.trash || !matches!(path, AccessPath::Order);
    let (key, id) = order_of(listing.order, sorted);
    let direction = if listing.descending { Direction::Desc } else { Direction::Asc };
    let mut select = chosen(select, backend, namespace, listing, path);
    if let Some(cursor) = range.after {
        select = select.filter(after_cursor(key.clone(), id.clone(), cursor, listing.descending));
    }
    if let Some(cursor) = range.until {
        select = select.filter(after_cursor(key.clone(), id.clone(), cursor, listing.descending).not());
    }
    select.order_by(key.unwrap_or_else(|| id.clone()), direction.clone()).order_by(id, direction)
}

/// The cursor [`MAX_SCAN`] users after `after` in the order of the list, matching or not; `None` if it ends
/// before.
async fn scan_limit_position(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    listing: &Listing,
    after: Option<&Position>,
) -> Result<Option<Position>> {
    let everyone = Listing { filters: Filters::default(), ..listing.clone() };
    let range = KeysetRange { after, until: None };
    let select =
        ordered(list_columns(false), backend_of(db), namespace, &everyone, &AccessPath::Order, &range);
    let row = select.limit(1).offset(MAX_SCAN).into_model::<user::Model>().one(db).await?;
    Ok(row.map(User::try_from).transpose()?.map(|user| Position::of(&user, listing.order)))
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
    count(db, chosen(user::Entity::find(), db.get_database_backend(), namespace, listing, path)).await
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
        (AccessPath::Found(found), _) => select.filter(key_of(backend).in_subquery(found.as_ref().clone())),
        (AccessPath::Among(numbers), DbBackend::Sqlite) => {
            let sql = "\"users\".\"num\" IN (SELECT value FROM json_each(?))";
            select.filter(Expr::cust_with_values(sql, [numbers.as_str()]))
        }
        (AccessPath::Among(ids), _) => select.filter(among(ids.clone())),
    };
    let state = if listing.trash { in_trash() } else { Column::Deleted.into_expr().eq(zero()) };
    let walked = (matches!(path, AccessPath::Order) && !listing.trash).then_some(listing.order);
    conditions(backend, &listing.filters, walked)
        .into_iter()
        .fold(select.filter(own).filter(state), Select::filter)
}

/// Up to `limit` rows, and no more than a reply can hold. No more than that are read.
async fn collect(
    db: &(impl ConnectionTrait + StreamTrait),
    select: Select<user::Entity>,
    limit: u64,
) -> Result<Rows> {
    let mut rows = select.into_model::<user::Model>().stream(db).await?;
    let (mut users, mut room) = (Vec::new(), Page::MAX_BYTES);
    while let Some(row) = rows.try_next().await? {
        let user = User::try_from(row)?;
        let size = user.message_size();
        if users.len() as u64 == limit || size > room {
            return Ok(Rows { users, more: true });
        }
        room -= size;
        users.push(user);
    }
    Ok(Rows { users, more: false })
}
