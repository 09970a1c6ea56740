//! Spans of statements, by OpenTelemetry's conventions for databases.

use sea_orm::{DbBackend, DbErr, Statement};

use super::fault::{self, ErrorKind};
use crate::telemetry::{CallContext, Span};

/// The most bytes of a statement that a span has: one with a thousand ids is long and says no more.
const MAX_TEXT: usize = 1_024;

/// Begins the span of a statement, or of the begin or end of a transaction, if the call is traced. Bound values are left out:
/// callers sent them.
pub(super) fn begin(
    backend: DbBackend,
    operation: &'static str,
    statement: Option<&Statement>,
) -> Option<Span> {
    let call = CallContext::span()?;
    let table = statement.and_then(|statement| table(&statement.sql));
    let mut span = call.begin_request(match table {
        Some(table) => format!("{operation} {table}"),
        None => operation.to_owned(),
    });
    span.set("db.system.name", if backend == DbBackend::Sqlite { "sqlite" } else { "postgresql" });
    span.set("db.operation.name", operation);
    if let Some(table) = table {
        span.set("db.collection.name", table.to_owned());
    }
    if let Some(Statement { sql, .. }) = statement {
        span.set("db.query.text", sql[..sql.floor_char_boundary(MAX_TEXT)].to_owned());
    }
    Some(span)
}

/// Ends a span, with the error that came of its statement.
pub(super) fn end(span: Option<Span>, error: Option<&DbErr>) {
    if let (Some(mut span), Some(error)) = (span, error) {
        span.fail(ErrorKind::NAMES[fault::kind(error) as usize]);
    }
}

/// The first table that a statement names.
fn table(sql: &str) -> Option<&str> {
    let mut words = sql.split_ascii_whitespace();
    while let Some(word) = words.next() {
        if ["FROM", "INTO", "UPDATE"].iter().any(|before| word.eq_ignore_ascii_case(before)) {
            let name = words.next()?;
            if !name.starts_with('(') {
                return name
                    .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                    .find(|name| !name.is_empty());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_named_by_its_first_table() {
        assert_eq!(table("SELECT id FROM \"users\" WHERE namespace = $1"), Some("users"));
        assert_eq!(table("INSERT INTO events(id) VALUES ($1)"), Some("events"));
        assert_eq!(table("UPDATE keys SET last_used = $1"), Some("keys"));
        assert_eq!(table("SELECT 1 FROM (SELECT id FROM sessions) AS few"), Some("sessions"));
        assert_eq!(table("SELECT 1"), None);
        assert_eq!(table("SELECT 1 FROM"), None);
    }
}
