//! What one call has of the database: a connection to read with, or a transaction.

use std::pin::Pin;

use sea_orm::entity::prelude::async_trait::async_trait;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult,
    QueryStream, Statement, StreamTrait,
};

use crate::error::Result;

use super::health::Health;

/// A connection for the reads of one call.
#[derive(Debug)]
pub struct Reader {
    db: DatabaseConnection,
    health: Health,
}

impl Reader {
    pub(super) fn new(db: DatabaseConnection, health: Health) -> Self {
        Self { db, health }
    }
}

/// Changes that are made together, or not at all. Rolled back when dropped.
#[derive(Debug)]
pub struct Transaction {
    inner: DatabaseTransaction,
    health: Health,
}

impl Transaction {
    pub(super) fn new(inner: DatabaseTransaction, health: Health) -> Self {
        Self { inner, health }
    }

    /// The library's own transaction, which migrations ask for.
    pub(super) fn inner(&self) -> &DatabaseTransaction {
        &self.inner
    }

    /// Commits the changes.
    ///
    /// # Errors
    ///
    /// Those of the database.
    pub async fn commit(self) -> Result<()> {
        let sqlite = ConnectionTrait::get_database_backend(&self.inner) == DbBackend::Sqlite;
        let done = self.health.bounded(self.inner.commit()).await;
        if let Err(error) = &done
            && sqlite
        {
            self.health.note_commit_failure(&error.to_string());
        }
        Ok(done?)
    }
}

#[async_trait]
impl ConnectionTrait for Reader {
    fn get_database_backend(&self) -> DbBackend {
        ConnectionTrait::get_database_backend(&self.db)
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.health.bounded(self.db.execute_raw(statement)).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.health.bounded(self.db.execute_unprepared(sql)).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.health.bounded(self.db.query_one_raw(statement)).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.health.bounded(self.db.query_all_raw(statement)).await
    }
}

impl StreamTrait for Reader {
    type Stream<'a> = QueryStream;

    fn get_database_backend(&self) -> DbBackend {
        StreamTrait::get_database_backend(&self.db)
    }

    fn stream_raw<'a>(
        &'a self,
        statement: Statement,
    ) -> Pin<Box<dyn Future<Output = Result<Self::Stream<'a>, DbErr>> + 'a + Send>> {
        self.db.stream_raw(statement)
    }
}

#[async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        ConnectionTrait::get_database_backend(&self.inner)
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.health.bounded(self.inner.execute_raw(statement)).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.health.bounded(self.inner.execute_unprepared(sql)).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.health.bounded(self.inner.query_one_raw(statement)).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.health.bounded(self.inner.query_all_raw(statement)).await
    }
}
