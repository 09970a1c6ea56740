//! The conditions and the order of a list, as SQL.

use sea_orm::sea_query::{BinOper, Expr, ExprTrait as _, Func, SimpleExpr, Value};
use sea_orm::{ColumnTrait as _, DbBackend};

use crate::domain::list::{Filters, Listing, Order, Position, SortValue, TimeRange};

use super::super::entity::user::Column;
use super::super::users::zero;

/// The conditions of the rows. Only the column of the order that is walked along may lead to an index.
pub(super) fn conditions(backend: DbBackend, filters: &Filters, walked: Option<Order>) -> Vec<Expr> {
    let mut all = Vec::new();
    if !filters.search.is_empty() {
        let texts = [Column::IdFolded, Column::Username, Column::Email, Column::NameFolded];
        let found = texts.map(|text| {
            if filters.searches_prefix() {
                starts_with(text, &filters.search)
            } else {
                contains(backend, text, &filters.search)
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
            None => all.push(starts_with(column, prefix)),
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

pub(super) fn prefixes(filters: &Filters) -> [(Order, Column, &str); 2] {
    [(Order::Username, Column::Username, &filters.username), (Order::Email, Column::Email, &filters.email)]
}

pub(super) fn spans(filters: &Filters) -> [(Order, Column, TimeRange); 2] {
    [(Order::Created, Column::Created, filters.created), (Order::Updated, Column::Updated, filters.updated)]
}

/// Those of the filters that are a range of the list's order.
pub(super) fn range_of_order(listing: &Listing) -> Filters {
    let Listing { filters, order, .. } = listing;
    let begun = |of: Order, prefix: &str| {
        if *order == of && after_prefix(prefix).is_some() { prefix.to_owned() } else { String::new() }
    };
    let span = |of: Order, span: TimeRange| if *order == of { span } else { TimeRange::default() };
    Filters {
        username: begun(Order::Username, &filters.username),
        email: begun(Order::Email, &filters.email),
        created: span(Order::Created, filters.created),
        updated: span(Order::Updated, filters.updated),
        ..Filters::default()
    }
}

pub(super) fn within(time: Expr, span: TimeRange) -> impl Iterator<Item = Expr> {
    let from = span.from.map(|from| time.clone().gte(from.0));
    from.into_iter().chain(span.to.map(|to| time.lt(to.0)))
}

fn starts_with(column: Column, prefix: &str) -> Expr {
    let length = i32::try_from(prefix.chars().count()).unwrap_or(i32::MAX);
    let arguments: [SimpleExpr; 3] =
        [column.into_expr(), Expr::Constant(Value::from(1_i32)), Expr::val(length)];
    Expr::from(Func::cust("substr").args(arguments)).eq(prefix)
}

fn contains(backend: DbBackend, column: Column, text: &str) -> Expr {
    let cursor = if backend == DbBackend::Sqlite { "instr" } else { "strpos" };
    Expr::from(Func::cust(cursor).args([column.into_expr(), Expr::val(text)])).gt(zero())
}

fn labelled(backend: DbBackend, label: &str) -> Expr {
    let sql = match backend {
        DbBackend::Sqlite => "EXISTS (SELECT 1 FROM json_each(\"users\".\"labels\") WHERE value = ?)",
        _ => "jsonb_exists(CAST(\"users\".\"labels\" AS jsonb), $1)",
    };
    Expr::cust_with_values(sql, [label])
}

/// The expression that a list is ordered by, `None` for the id, and the id. `sorted`: in a form that no index
/// has.
pub(super) fn order_of(order: Order, sorted: bool) -> (Option<Expr>, Expr) {
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

/// Those behind the cursor.
pub(super) fn after_cursor(key: Option<Expr>, id: Expr, cursor: &Position, descending: bool) -> Expr {
    let (here, there) = beside_cursor(key, id, cursor);
    if descending { here.lt(there) } else { here.gt(there) }
}

/// Those up to the cursor, and the one there.
pub(super) fn up_to_cursor(key: Option<Expr>, id: Expr, cursor: &Position, descending: bool) -> Expr {
    let (here, there) = beside_cursor(key, id, cursor);
    if descending { here.gte(there) } else { here.lte(there) }
}

fn beside_cursor(key: Option<Expr>, id: Expr, cursor: &Position) -> (Expr, Expr) {
    let Some(key) = key else { return (id, Expr::val(cursor.id.as_str())) };
    let value = match &cursor.key {
        SortValue::Number(number) => Expr::val(*number),
        SortValue::Text(text) => Expr::val(text.as_str()),
    };
    (Expr::tuple([key, id]), Expr::tuple([value, Expr::val(cursor.id.as_str())]))
}

/// The first text that sorts after all that begin with `prefix`; `None` if it is not ASCII.
pub(super) fn after_prefix(prefix: &str) -> Option<String> {
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
