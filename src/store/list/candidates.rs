//! The queries that find users by an index of a filter, and the choice between them.

use sea_orm::sea_query::{Expr, ExprTrait as _, Query, SelectStatement};
use sea_orm::{ColumnTrait as _, ConnectionTrait, DbBackend, Order as Direction};

use crate::domain::list::{Filters, Listing, Order, Position};
use crate::domain::namespace::Namespace;
use crate::error::{Error, Result};

use super::super::entity::user::{self, Column};
use super::super::search::{self, Term, probes};
use super::super::users::zero;
use super::AccessPath;
use super::conditions::{after_cursor, after_prefix, prefixes, spans, within};

/// Most matching users that are sorted rather than read along the index of the order: each is looked up, which takes
/// PostgreSQL as long as to pass over ten.
const fn sort_threshold(backend: DbBackend) -> u64 {
    if matches!(backend, DbBackend::Sqlite) { 1_000 } else { 2_000 }
}

/// The name that candidate queries give to their result.
const FOUND: &str = "found";

/// Chooses the access path by cost.
pub async fn choose_path(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    listing: &Listing,
) -> Result<AccessPath> {
    let backend = db.get_database_backend();
    let candidate_queries = candidate_queries(backend, namespace, listing);
    for candidate in &candidate_queries {
        let (found, users) = some_of(db, candidate.clone(), sort_threshold(backend) + 1).await?;
        if found <= sort_threshold(backend) {
            return Ok(users);
        }
    }
    Ok(best_for_many(candidate_queries))
}

/// The access path where those that an index finds are not counted first.
pub(super) fn uncounted_path(backend: DbBackend, namespace: &Namespace, listing: &Listing) -> AccessPath {
    best_for_many(candidate_queries(backend, namespace, listing))
}

fn best_for_many(candidate_queries: Vec<SelectStatement>) -> AccessPath {
    candidate_queries
        .into_iter()
        .next_back()
        .map_or(AccessPath::Order, |found| AccessPath::Found(Box::new(found)))
}

/// The oldest `most` users behind `after` that PostgreSQL's search index finds for a list, the newest where it is descending, and
/// how many those are. The index has the times of creation, so no user is looked up. `None` where it is of no help.
pub(super) async fn found_by_creation(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    listing: &Listing,
    after: Option<&Position>,
    most: u64,
) -> Result<Option<(u64, AccessPath)>> {
    let Some(terms) = probes(namespace, listing.trash, &listing.filters).pop() else { return Ok(None) };
    let (created, id) = (Expr::cust(CREATED), Expr::cust("id"));
    let direction = if listing.descending { Direction::Desc } else { Direction::Asc };
    let mut first = indexed(DbBackend::Postgres, terms);
    // Two tenants' terms can coincide, and so can the ids of their users. As an expression it leads to no index.
    first.and_where(Expr::cust_with_values("users_search.namespace || '' = $1", [namespace.as_str()]));
    if let Some(cursor) = after {
        first.and_where(after_cursor(Some(created.clone()), id.clone(), cursor, listing.descending));
    }
    first.order_by_expr(created, direction.clone()).order_by_expr(id, direction);
    Ok(Some(some_of(db, first, most).await?))
}

/// When the user of a row of the search index was created. Rows from before the index had it have none.
const CREATED: &str = "coalesce(created, (SELECT users.created FROM users \
    WHERE users.namespace = users_search.namespace AND users.id = users_search.id))";

/// Finds `most` users at most, and counts them. In one row: a row each would cost more than finding them.
async fn some_of(
    db: &impl ConnectionTrait,
    mut candidate: SelectStatement,
    most: u64,
) -> Result<(u64, AccessPath)> {
    let list = if db.get_database_backend() == DbBackend::Sqlite {
        "json_group_array(found)"
    } else {
        "CAST(coalesce(json_agg(found), '[]') AS text)"
    };
    let some = candidate.limit(most).take();
    let select = Query::select()
        .expr(Expr::cust("COUNT(*)"))
        .expr(Expr::cust(list))
        .from_subquery(some, "some")
        .take();
    let row = db.query_one(&select).await?.ok_or_else(|| Error::internal("a count has no row"))?;
    let found = u64::try_from(row.try_get_by_index::<i64>(0)?).unwrap_or_default();
    Ok((found, AccessPath::Among(row.try_get_by_index(1)?)))
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
        queries.extend(probes.into_iter().map(|terms| indexed(backend, terms)));
    }
    queries
}

/// The column by which an index finds users: their numbers on SQLite, their ids on PostgreSQL.
pub(super) fn key_of(backend: DbBackend) -> Expr {
    Expr::cust(if backend == DbBackend::Sqlite { "num" } else { "id" })
}

/// Returns true if an index of another order than the list's has the users of the list as a range.
pub(super) fn has_range_of_other_order(listing: &Listing) -> bool {
    index_ranges(&listing.filters).iter().any(|(order, _)| *order != listing.order)
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

/// Those who have all of `terms`. They are of one namespace: to name it too would tempt PostgreSQL to look through all who are
/// in it.
fn indexed(backend: DbBackend, terms: Vec<Term>) -> SelectStatement {
    let (condition, value) = search::index_condition(backend, terms);
    let key = if backend == DbBackend::Sqlite { "rowid" } else { "id" };
    let mut query = Query::select();
    query.expr_as(Expr::cust(key), FOUND).from("users_search");
    query.and_where(Expr::cust_with_values(condition, [value])).take()
}
