//! Opening a database.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, DbErr, RuntimeErr, sqlx};

use super::file::{self, OpenedFile};
use super::pool::Pool;
use super::probe::{Address, Probe};
use super::shared::{Shared, Single, Stop};
use super::trust::Trust;
use super::turns::{MAX_WAIT, TurnLimits};
use super::{Kind, Reader, Store, fault, postgres};

/// Steps of SQLite's virtual machine after which a reader looks whether its statement is still wanted: some
/// microseconds.
const PROGRESS_STEPS: i32 = 1_000;

/// Fewest and most connections that one namespace reads an SQLite file by at a time. Each has a thread that a
/// read keeps busy for some microseconds: more than there are CPUs only take turns.
const SQLITE_READERS: (usize, usize) = (2, 4);

/// Pragmas of the connections that serve calls: memory-mapped I/O for up to 2 GiB, the most that SQLite maps, and a page cache
/// of 16 MiB for the rest. Other connections scan much of the file; mapping it would add to the process's resident memory.
const CALL_PRAGMAS: &[(&str, &str)] = &[("mmap_size", "2147418112"), ("cache_size", "-16384")];

/// The longest time that a call whose turn it is waits for its connection to be opened, or given back by the
/// call before.
pub(super) const ACQUIRE_TIMEOUT: Duration = MAX_WAIT;

/// The longest time that an SQLite writer waits for another process's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Tries at the first connection while another process creates the same file: switching a new file to WAL
/// reports `locked` without waiting.
const FIRST_TRIES: u32 = 50;

/// Why a database does not open, in words an operator can act on.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file cannot be made.
    #[error("cannot create the database file {path}: {cause}")]
    Create {
        /// The file.
        path: String,
        /// The error of the system.
        cause: std::io::Error,
    },
    /// The file does not exist and is not to be created.
    #[error("there is no database file {0}; add `?mode=rwc` to its address to create it")]
    Missing(String),
    /// The file is there and holds nothing.
    #[error(
        "the database file {0} is empty, so it is not the one that was meant; with `?mode=rwc` a new database is made in it"
    )]
    Empty(String),
    /// The file or its folder may not be written to.
    #[error("the database file, or its folder, cannot be written: {0}")]
    ReadOnly(String),
    /// The file is damaged.
    #[error("the database file {path} is damaged, and is not served from: {cause}; restore a backup")]
    Damaged {
        /// The file.
        path: String,
        /// The damage, as SQLite found it.
        cause: String,
    },
    /// The file is a database of another program.
    #[error(
        "the database file {path} is of another program, since it has a table {table} and none of usersd"
    )]
    Foreign {
        /// The file.
        path: String,
        /// One of its tables.
        table: String,
    },
    /// The database does not answer, which may pass.
    #[error("the database does not answer: {0}")]
    Unreachable(String),
    /// The database refuses.
    #[error("cannot open the database: {0}")]
    Open(String),
    /// A pooler shares sessions between its clients.
    #[error(
        "the pooler before PostgreSQL shares a session between its clients (`pool_mode = transaction` or `statement` of \
         PgBouncer), and usersd needs one of its own for its settings, its prepared statements and for cancelling a \
         statement: set `pool_mode = session`, or connect to PostgreSQL itself"
    )]
    Pooler,
    /// Too old.
    #[error("PostgreSQL {0} is too old: 13 or newer is needed")]
    Version(String),
}

/// Without what the libraries wrap around it.
impl From<DbErr> for ConnectError {
    fn from(error: DbErr) -> Self {
        match error {
            DbErr::Conn(RuntimeErr::SqlxError(cause))
            | DbErr::Query(RuntimeErr::SqlxError(cause))
            | DbErr::Exec(RuntimeErr::SqlxError(cause)) => Self::from(&*cause),
            DbErr::ConnectionAcquire(why) => Self::Unreachable(why.to_string()),
            other => Self::Open(other.to_string()),
        }
    }
}

impl From<&sqlx::Error> for ConnectError {
    fn from(error: &sqlx::Error) -> Self {
        let passes = match error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => true,
            // PostgreSQL is starting, stopping, or has no connection to spare.
            sqlx::Error::Database(said) => {
                said.code().is_some_and(|code| ["57P01", "57P02", "57P03", "53300"].contains(&&*code))
            }
            _ => false,
        };
        // SQLite's CANTOPEN: the file is there, which was looked at before.
        let code = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .filter(|code| code.len() < 5);
        let shut = code.and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == 14);
        if shut {
            return Self::ReadOnly(message(error));
        }
        if passes { Self::Unreachable(message(error)) } else { Self::Open(message(error)) }
    }
}

impl ConnectError {
    /// The reason alone.
    pub(super) fn why(&self) -> String {
        match self {
            Self::Unreachable(why) | Self::Open(why) => why.clone(),
            other => other.to_string(),
        }
    }

    /// The same with another reason.
    pub(super) fn map_why(self, change: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Unreachable(why) => Self::Unreachable(change(why)),
            Self::Open(why) => Self::Open(change(why)),
            other => other,
        }
    }
}

fn message(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(message) => message.message().to_owned(),
        other => other.to_string(),
    }
}

impl Store {
    /// Opens the database at `url`. A new SQLite file is readable by its owner alone.
    pub async fn connect(url: &str, connections: u32) -> Result<Self, ConnectError> {
        // Boxed: the futures are large, and would be part of each that awaits this one.
        if url.starts_with("sqlite:") {
            Box::pin(sqlite(url)).await
        } else {
            Box::pin(postgres::open(url, connections)).await
        }
    }

    /// The same database; lists and searches of users are read from the replica at `url` while it answers, which
    /// [`Store::watch_replica`] finds out.
    pub async fn with_replica(mut self, url: &str, connections: u32) -> Result<Self, ConnectError> {
        self.replica = Some(postgres::replica(url, connections).await?);
        Ok(self)
    }

    /// Returns an error if the database is a file that cannot be written. Another process may be writing to
    /// it.
    pub async fn check_writable(&self) -> Result<(), ConnectError> {
        if self.kind == Kind::Postgres {
            return Ok(());
        }
        // Another process writes: that passes.
        let Ok(tx) = self.begin_as_server().await else { return Ok(()) };
        // The transaction alone would begin: of a file that is read only, SQLite makes it one that reads.
        match tx.execute_unprepared("PRAGMA user_version = 0").await {
            Err(error) if fault::is_read_only_file(&error) => {
                Err(ConnectError::ReadOnly(fault::database_message(&error)))
            }
            _ => Ok(()),
        }
    }
}

async fn sqlite(url: &str) -> Result<Store, ConnectError> {
    let path = file::prepare(url)?;
    let trust = Arc::<Trust>::default();
    let options = sqlite_options(url, &trust);
    let writer = connect_with_retry(options.clone()).await.map_err(|error| {
        if !fault::is_damaged_file(&error) {
            return ConnectError::from(error);
        }
        ConnectError::Damaged { path: path.display().to_string(), cause: fault::database_message(&error) }
    })?;
    let single = |db: &DatabaseConnection, stop| Single { pool: pool_of(db, &trust), stop };
    let write = single(&writer, Stop::default());
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let most = cpus.clamp(SQLITE_READERS.0, SQLITE_READERS.1);
    let mut readers = Vec::new();
    // One more than a namespace has at a time is left for the others.
    for _ in 0..=most {
        let stop = Stop::default();
        let reader = Database::connect(sqlite_reader(url, &trust, &stop, CALL_PRAGMAS)).await?;
        readers.push(single(&reader, stop));
    }
    let server = Database::connect(sqlite_reader(url, &trust, &Stop::default(), &[])).await?;
    let address = Address::sqlite(url).map_err(|error| ConnectError::from(&error))?;
    Ok(Store {
        kind: Kind::Sqlite,
        read: Shared::new(readers, TurnLimits { most, slow: most / 2 }, None),
        write: Shared::new(vec![write], TurnLimits { most: 1, slow: 1 }, None),
        server: Arc::new(Reader::new(pool_of(&server, &trust), None)),
        migrations: options,
        replica: None,
        trust,
        probe: Arc::new(Probe::new(address)),
        coherence: Arc::default(),
        directory: Arc::default(),
        file: OpenedFile::look(&path).ok().map(Arc::new),
    })
}

fn pool_of(db: &DatabaseConnection, trust: &Arc<Trust>) -> Pool {
    Pool::of(db, Arc::clone(trust))
}

/// A connection that refuses to write, and whose statement ends when `stop` is asked. `pragmas` are its own.
fn sqlite_reader(
    url: &str,
    trust: &Arc<Trust>,
    stop: &Stop,
    pragmas: &'static [(&str, &str)],
) -> ConnectOptions {
    let mut options = sqlite_options(url, trust);
    options.map_sqlx_sqlite_opts(|sqlite| {
        let sqlite = configure(sqlite).pragma("query_only", "ON");
        pragmas.iter().fold(sqlite, |sqlite, (name, value)| sqlite.pragma(*name, *value))
    });
    let (trust, stop) = (Arc::clone(trust), stop.clone());
    options.map_sqlx_sqlite_pool_opts(move |pool| {
        let stop = stop.clone();
        trust.guard(pool).after_connect(move |connection, _| {
            let stop = stop.clone();
            Box::pin(async move {
                connection
                    .lock_handle()
                    .await?
                    .set_progress_handler(PROGRESS_STEPS, move || stop.may_go_on());
                Ok(())
            })
        })
    });
    options
}

/// A pool of one connection.
fn sqlite_options(url: &str, trust: &Arc<Trust>) -> ConnectOptions {
    let trust = Arc::clone(trust);
    let mut options = ConnectOptions::new(url);
    options
        .sqlx_logging(false)
        .max_connections(1)
        .min_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .map_sqlx_sqlite_opts(configure)
        .map_sqlx_sqlite_pool_opts(move |pool| trust.guard(pool));
    options
}

type SqliteOptions = sea_orm::sqlx::sqlite::SqliteConnectOptions;

pub(super) fn configure(options: SqliteOptions) -> SqliteOptions {
    options
        .journal_mode(SqliteJournalMode::Wal)
        // In WAL mode NORMAL can lose the last commits at a power cut; FULL loses nothing acknowledged.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        // 512 KiB of pages: what housekeeping and a check of the whole file read once is not kept. With 4 MiB writes to a million
        // users cost the same, and an idle server held 11 MiB more.
        .pragma("cache_size", "-512")
        .statement_cache_capacity(200)
}

async fn connect_with_retry(options: ConnectOptions) -> Result<DatabaseConnection, DbErr> {
    for _ in 1..FIRST_TRIES {
        match Database::connect(options.clone()).await {
            Err(error) if error.to_string().contains("database is locked") => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            other => return other,
        }
    }
    Database::connect(options).await
}
