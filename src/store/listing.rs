//! Lists of users, a page at a time.
//!
//! A list can be read in two ways: along the index of its order, passing over those that do not fit, or by finding
//! those that fit first and sorting them. The first is quick where many fit, the second where few do. Which it is, is
//! found out by asking an index for a thousand of them.

use futures_util::TryStreamExt as _;
use sea_orm::sea_query::{BinOper, Expr, ExprTrait as _, Func, Query, SelectStatement, SimpleExpr, Value};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbBackend, EntityTrait as _, Order as Direction, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Select, StreamTrait,
};

use crate::domain::listing::{Filters, Key, Listing, Order, Position, Span, Start};
use crate::domain::namespace::Namespace;
use crate::domain::page::Page;
use crate::domain::search::{Term, questions};
use crate::domain::user::User;
use crate::error::Result;

use super::entity::user::{self, Column};
use super::users::{among, in_trash, shown, zero};
use super::{count, search};

/// Most users that are sorted rather than met on the way.
const FEW: u64 = 1_000;

/// Most users that are passed over to meet some who fit, where an index could find them.
const FAR: u64 = 4_000;

/// What narrowing queries call what they find.
const FOUND: &str = "found";

/// Where the users of a list are found.
#[derive(Clone, Debug)]
pub enum Source {
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
    /// Whether others follow.
    pub more: bool,
}

/// How the list is best read.
///
/// # Errors
///
/// What the database says, as all functions here.
pub async fn source(db: &impl ConnectionTrait, namespace: &Namespace, listing: &Listing) -> Result<Source> {
    let backend = db.get_database_backend();
    let narrowings = narrowings(backend, namespace, listing);
    for narrowed in &narrowings {
        let Some(row) = db.query_one(&some_of(backend, narrowed.clone())).await? else { continue };
        if u64::try_from(row.try_get_by_index::<i64>(0)?).is_ok_and(|found| found <= FEW) {
            return Ok(Source::Among(row.try_get_by_index(1)?));
        }
    }
    Ok(narrowings.into_iter().next_back().map_or(Source::Order, |found| Source::Found(Box::new(found))))
}

/// How many are found, and who, as a JSON list; of one more than [`FEW`]. In one row: a row each would cost more than
/// finding them.
fn some_of(backend: DbBackend, mut narrowed: SelectStatement) -> SelectStatement {
    let list = if backend == DbBackend::Sqlite {
        "json_group_array(found)"
    } else {
        "CAST(coalesce(json_agg(found), '[]') AS text)"
    };
    let some = narrowed.limit(FEW + 1).take();
    Query::select().expr(Expr::cust("COUNT(*)")).expr(Expr::cust(list)).from_subquery(some, "some").take()
}

/// The queries that can find those who fit without reading all the others, the last of them best where they are many.
/// None where the order's own index does.
fn narrowings(backend: DbBackend, namespace: &Namespace, listing: &Listing) -> Vec<SelectStatement> {
    let filters = &listing.filters;
    let stretches = stretches(filters);
    // An index in order tells exactly who fits, so where one stretch is all that is asked for, the search index, which
    // only tells who may, is of no use.
    let only_stretch = stretches.len() == 1 && !listing.trash && {
        let rest = Filters { username: String::new(), email: String::new(), ..filters.clone() };
        questions(namespace, listing.trash, &rest).is_empty()
    };
    let mut queries = Vec::new();
    for (order, bounds) in stretches {
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
    if !only_stretch {
        let questions = questions(namespace, listing.trash, filters);
        queries.extend(questions.into_iter().map(|terms| indexed(backend, namespace, terms)));
    }
    queries
}

/// What an index finds users by: their numbers on SQLite, their ids on PostgreSQL.
fn key_of(backend: DbBackend) -> Expr {
    Expr::cust(if backend == DbBackend::Sqlite { "num" } else { "id" })
}

/// Where in the indexes of orders all who fit lie side by side.
fn stretches(filters: &Filters) -> Vec<(Order, Vec<Expr>)> {
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
    let (condition, value) = search::having(backend, terms);
    let having = Expr::cust_with_values(condition, [value]);
    let mut query = Query::select();
    match backend {
        DbBackend::Sqlite => query.expr_as(Expr::cust("rowid"), FOUND),
        _ => query.expr_as(Expr::cust("id"), FOUND).and_where(Expr::col("namespace").eq(namespace.as_str())),
    };
    query.from("users_search").and_where(having).take()
}

/// One page.
///
/// # Errors
///
/// What the database says.
pub async fn page(
    db: &(impl ConnectionTrait + StreamTrait),
    namespace: &Namespace,
    listing: &Listing,
    source: &Source,
    start: &Start<Position>,
    limit: u64,
    include_prefs: bool,
) -> Result<Rows> {
    if limit == 0 {
        return Ok(Rows { users: Vec::new(), more: false });
    }
    // The extra row tells whether there are more.
    let read = async |source: &Source, until: Option<&Position>| {
        let walk = Walk { after: start.after(), until };
        let select = ordered(shown(include_prefs), backend_of(db), namespace, listing, source, &walk);
        collect(db, select.limit(limit + 1).offset(start.offset()), limit).await
    };
    if matches!(source, Source::Found(_)) {
        // Many may fit, but perhaps not here: those that an index found are sorted rather than looking on for long.
        let until = far_behind(db, namespace, listing, start.after()).await?;
        let near = read(&Source::Order, until.as_ref()).await?;
        if near.more || until.is_none() {
            return Ok(near);
        }
    }
    read(source, None).await
}

fn backend_of(db: &impl ConnectionTrait) -> DbBackend {
    db.get_database_backend()
}

/// The part of an order that is looked at.
struct Walk<'a> {
    after: Option<&'a Position>,
    /// The last place.
    until: Option<&'a Position>,
}

/// Those of the list, in order.
fn ordered(
    select: Select<user::Entity>,
    backend: DbBackend,
    namespace: &Namespace,
    listing: &Listing,
    source: &Source,
    walk: &Walk<'_>,
) -> Select<user::Entity> {
    // What is sorted must not tempt the planner to walk along an order and pass over nearly everyone.
    let sorted = listing.trash || !matches!(source, Source::Order);
    let (key, id) = order_of(listing.order, sorted);
    let direction = if listing.descending { Direction::Desc } else { Direction::Asc };
    let mut select = chosen(select, backend, namespace, listing, source);
    if let Some(place) = walk.after {
        select = select.filter(behind(key.clone(), id.clone(), place, listing.descending));
    }
    if let Some(place) = walk.until {
        select = select.filter(behind(key.clone(), id.clone(), place, listing.descending).not());
    }
    select.order_by(key.unwrap_or_else(|| id.clone()), direction.clone()).order_by(id, direction)
}

/// The place [`FAR`] users behind `after` in the order of the list, whoever they are; `None` if it ends before.
async fn far_behind(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    listing: &Listing,
    after: Option<&Position>,
) -> Result<Option<Position>> {
    let everyone = Listing { filters: Filters::default(), ..listing.clone() };
    let walk = Walk { after, until: None };
    let select = ordered(shown(false), backend_of(db), namespace, &everyone, &Source::Order, &walk);
    let row = select.limit(1).offset(FAR).into_model::<user::Model>().one(db).await?;
    Ok(row.map(User::try_from).transpose()?.map(|user| Position::of(&user, listing.order)))
}

/// How many there are in all.
///
/// # Errors
///
/// What the database says.
pub async fn total(
    db: &impl ConnectionTrait,
    namespace: &Namespace,
    listing: &Listing,
    source: &Source,
) -> Result<u64> {
    count(db, chosen(user::Entity::find(), db.get_database_backend(), namespace, listing, source)).await
}

/// Those of the list, in no order.
fn chosen(
    select: Select<user::Entity>,
    backend: DbBackend,
    namespace: &Namespace,
    listing: &Listing,
    source: &Source,
) -> Select<user::Entity> {
    let own = match (source, backend) {
        // The plus keeps SQLite from reading the whole namespace where it is to look up some numbers.
        (Source::Among(_) | Source::Found(_), DbBackend::Sqlite) => {
            Expr::cust_with_values("+\"users\".\"namespace\" = ?", [namespace.as_str()])
        }
        _ => Column::Namespace.eq(namespace.as_str()),
    };
    let select = match (source, backend) {
        (Source::Order, _) => select,
        (Source::Found(found), _) => select.filter(key_of(backend).in_subquery(found.as_ref().clone())),
        (Source::Among(numbers), DbBackend::Sqlite) => {
            let sql = "\"users\".\"num\" IN (SELECT value FROM json_each(?))";
            select.filter(Expr::cust_with_values(sql, [numbers.as_str()]))
        }
        (Source::Among(ids), _) => select.filter(among(ids.clone())),
    };
    let state = if listing.trash { in_trash() } else { Column::Deleted.into_expr().eq(zero()) };
    let walked = (matches!(source, Source::Order) && !listing.trash).then_some(listing.order);
    conditions(backend, &listing.filters, walked)
        .into_iter()
        .fold(select.filter(own).filter(state), Select::filter)
}

/// What the rows must be like. Only the column of the order that is walked along may lead to an index.
fn conditions(backend: DbBackend, filters: &Filters, walked: Option<Order>) -> Vec<Expr> {
    let mut all = Vec::new();
    if !filters.search.is_empty() {
        let texts = [Column::IdFolded, Column::Username, Column::Email, Column::NameFolded];
        let found = texts.map(|text| {
            if filters.searches_beginnings() {
                begins(text, &filters.search)
            } else {
                holds(backend, text, &filters.search)
            }
        });
        all.extend(found.into_iter().reduce(Expr::or));
    }
    for (order, column, prefix) in [
        (Order::Username, Column::Username, &filters.username),
        (Order::Email, Column::Email, &filters.email),
    ] {
        if prefix.is_empty() {
            continue;
        }
        match after_prefix(prefix).filter(|_| walked == Some(order)) {
            Some(end) => all.extend([column.gte(prefix), column.lt(end)]),
            None => all.push(begins(column, prefix)),
        }
    }
    all.extend(filters.status.map(|status| Column::Status.eq(status as i16)));
    all.extend(filters.email_verified.map(|verified| Column::EmailVerified.eq(verified)));
    all.extend(filters.label.as_deref().map(|label| labelled(backend, label)));
    for (order, column, span) in spans(filters) {
        let time = column.into_expr();
        let time = if walked == Some(order) { time } else { time.add(zero()) };
        all.extend(within(time, span));
    }
    all
}

fn prefixes(filters: &Filters) -> [(Order, Column, &str); 2] {
    [(Order::Username, Column::Username, &filters.username), (Order::Email, Column::Email, &filters.email)]
}

fn spans(filters: &Filters) -> [(Order, Column, Span); 2] {
    [(Order::Created, Column::Created, filters.created), (Order::Updated, Column::Updated, filters.updated)]
}

fn within(time: Expr, span: Span) -> impl Iterator<Item = Expr> {
    let from = span.from.map(|from| time.clone().gte(from.0));
    from.into_iter().chain(span.to.map(|to| time.lt(to.0)))
}

fn begins(column: Column, prefix: &str) -> Expr {
    let length = i32::try_from(prefix.chars().count()).unwrap_or(i32::MAX);
    let arguments: [SimpleExpr; 3] =
        [column.into_expr(), Expr::Constant(Value::from(1_i32)), Expr::val(length)];
    Expr::from(Func::cust("substr").args(arguments)).eq(prefix)
}

fn holds(backend: DbBackend, column: Column, text: &str) -> Expr {
    let place = if backend == DbBackend::Sqlite { "instr" } else { "strpos" };
    Expr::from(Func::cust(place).args([column.into_expr(), Expr::val(text)])).gt(zero())
}

fn labelled(backend: DbBackend, label: &str) -> Expr {
    let sql = match backend {
        DbBackend::Sqlite => "EXISTS (SELECT 1 FROM json_each(\"users\".\"labels\") WHERE value = ?)",
        _ => "jsonb_exists(CAST(\"users\".\"labels\" AS jsonb), $1)",
    };
    Expr::cust_with_values(sql, [label])
}

/// What a list is ordered by, `None` for the id, and the id. `sorted`: in a form that no index has.
fn order_of(order: Order, sorted: bool) -> (Option<Expr>, Expr) {
    let text = |column: Column| {
        let plain = column.into_expr();
        if sorted { plain.binary(BinOper::Custom("||"), Expr::Constant(Value::from(""))) } else { plain }
    };
    let number = |column: Column| if sorted { column.into_expr().add(zero()) } else { column.into_expr() };
    let key = match order {
        Order::Created => Some(number(Column::Created)),
        Order::Updated => Some(number(Column::Updated)),
        Order::Username => Some(text(Column::Username)),
        Order::Email => Some(text(Column::Email)),
        Order::Name => Some(text(Column::NameFolded)),
        Order::Id => None,
    };
    (key, text(Column::Id))
}

fn behind(key: Option<Expr>, id: Expr, place: &Position, descending: bool) -> Expr {
    let (here, there) = match key {
        None => (id, Expr::val(place.id.as_str())),
        Some(key) => {
            let value = match &place.key {
                Key::Number(number) => Expr::val(*number),
                Key::Text(text) => Expr::val(text.as_str()),
            };
            (Expr::tuple([key, id]), Expr::tuple([value, Expr::val(place.id.as_str())]))
        }
    };
    if descending { here.lt(there) } else { here.gt(there) }
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

/// The first text that sorts behind all that begin with `prefix`; `None` if it is not ASCII.
fn after_prefix(prefix: &str) -> Option<String> {
    let (last, rest) = prefix.as_bytes().split_last()?;
    let end = char::from(last.checked_add(1)?);
    prefix.is_ascii().then(|| rest.iter().map(|b| char::from(*b)).chain([end]).collect())
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
