//! Statements whose text is built once: to build one for each call costs as much as a tenth of the call.

use std::sync::OnceLock;

use sea_orm::sea_query::SelectStatement;
use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};

/// The text of one statement on each database.
pub(super) struct Prepared {
    /// Builds it around values of the same types, in the same order as [`Prepared::with`] gives them.
    build: fn() -> SelectStatement,
    sqlite: OnceLock<String>,
    postgres: OnceLock<String>,
}

impl Prepared {
    pub(super) const fn new(build: fn() -> SelectStatement) -> Self {
        Self { build, sqlite: OnceLock::new(), postgres: OnceLock::new() }
    }

    /// The statement for `db` with these values.
    pub(super) fn with<const N: usize>(&self, db: &impl ConnectionTrait, values: [Value; N]) -> Statement {
        let backend = db.get_database_backend();
        let text = match backend {
            DbBackend::Sqlite => &self.sqlite,
            _ => &self.postgres,
        };
        let text = text.get_or_init(|| backend.build(&(self.build)()).sql);
        Statement::from_sql_and_values(backend, text, values)
    }
}
