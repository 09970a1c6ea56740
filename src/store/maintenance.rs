//! Connections and transactions over a whole database, for the commands of operators: without the time limits of calls.

use sea_orm::{
    AccessMode, ConnectionTrait as _, Database, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr,
    IsolationLevel, SqliteTransactionMode, TransactionOptions, TransactionTrait as _,
};

use super::Store;

/// Undoes the limits of our sessions. Tables are read from their beginning.
const NO_LIMITS: &str = "SET statement_timeout = 0; SET lock_timeout = 0; \
    SET idle_in_transaction_session_timeout = 0; SET enable_seqscan = on";

/// A transaction with the connection that it has to itself.
pub(super) struct MaintenanceTransaction {
    library: DatabaseConnection,
    pub(super) tx: DatabaseTransaction,
}

impl MaintenanceTransaction {
    async fn begin(
        store: &Store,
        postgres: TransactionOptions,
        sqlite: TransactionOptions,
    ) -> Result<Self, DbErr> {
        let library = store.connection().await?;
        let is_postgres = library.get_database_backend() == DbBackend::Postgres;
        let tx = library.begin_with_options(if is_postgres { postgres } else { sqlite }).await?;
        Ok(Self { library, tx })
    }

    /// Keeps what was written.
    pub(super) async fn commit(self) -> Result<(), DbErr> {
        self.tx.commit().await?;
        self.library.close().await
    }

    /// Undoes what was written, or ends reading.
    pub(super) async fn end(self) -> Result<(), DbErr> {
        self.tx.rollback().await?;
        self.library.close().await
    }
}

impl Store {
    /// A connection of its own.
    pub(super) async fn connection(&self) -> Result<DatabaseConnection, DbErr> {
        let library = Database::connect(self.migrations.clone()).await?;
        if library.get_database_backend() == DbBackend::Postgres {
            library.execute_unprepared(NO_LIMITS).await?;
        }
        Ok(library)
    }

    /// Reads everything as it was at one moment.
    pub(super) async fn snapshot(&self) -> Result<MaintenanceTransaction, DbErr> {
        let options = TransactionOptions {
            isolation_level: Some(IsolationLevel::RepeatableRead),
            access_mode: Some(AccessMode::ReadOnly),
            sqlite_transaction_mode: None,
        };
        let sqlite = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Deferred),
            ..TransactionOptions::default()
        };
        MaintenanceTransaction::begin(self, options, sqlite).await
    }

    /// Writes what may take long.
    pub(super) async fn writing(&self) -> Result<MaintenanceTransaction, DbErr> {
        let sqlite = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        MaintenanceTransaction::begin(self, TransactionOptions::default(), sqlite).await
    }
}
