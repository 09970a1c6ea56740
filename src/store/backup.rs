//! Copying an SQLite file while servers use it.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DbBackend, DbErr, Statement};

use super::doctor::{Finding, Grade, contents, number};
use super::{Kind, Store};

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// PostgreSQL has tools of its own.
    #[error("a backup of PostgreSQL is made with pg_dump or with the server's own base backups")]
    Postgres,
    /// There is a file of that name.
    #[error("{0} exists, and is not overwritten")]
    Exists(String),
    /// The file cannot be written.
    #[error("cannot write {path}: {cause}")]
    Write {
        /// The file.
        path: String,
        /// The error of the system.
        cause: std::io::Error,
    },
    /// The check of the new file failed: the original is damaged.
    #[error("the backup is not kept, since it is not sound: {0}; `usersd doctor` looks at the original")]
    Unsound(String),
    /// The database failed.
    #[error("cannot create the backup")]
    Database(#[from] DbErr),
}

/// The size of a backup.
#[derive(Debug)]
pub struct Backup {
    /// Its users.
    pub users: i64,
    /// Its events.
    pub events: i64,
    /// Its bytes.
    pub bytes: u64,
}

impl Store {
    /// Writes the database as it is at one moment to a new file, and checks it. Readers and writers go on meanwhile.
    pub async fn backup(&self, to: &Path) -> Result<Backup, BackupError> {
        if self.kind() == Kind::Postgres {
            return Err(BackupError::Postgres);
        }
        if to.symlink_metadata().is_ok() {
            return Err(BackupError::Exists(to.display().to_string()));
        }
        let part = Part::create(to)?;
        let library = self.connection().await?;
        let values = [part.path.to_string_lossy().into_owned().into()];
        let vacuum = Statement::from_sql_and_values(DbBackend::Sqlite, "VACUUM INTO ?1", values);
        library.execute_raw(vacuum).await?;
        library.close().await?;
        let backup = check(&part.path).await?;
        part.publish(to)?;
        Ok(backup)
    }
}

/// A file that is removed again unless it is published.
struct Part {
    path: PathBuf,
}

impl Part {
    /// Creates it empty, beside its destination, so that SQLite finds it with its mode.
    fn create(to: &Path) -> Result<Self, BackupError> {
        let mut path = to.as_os_str().to_owned();
        path.push(format!(".{}.part", std::process::id()));
        let path = PathBuf::from(path);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|cause| BackupError::Write { path: path.display().to_string(), cause })?;
        Ok(Self { path })
    }

    /// Gives it its name once it is on the disk. Never replaces a file.
    fn publish(self, to: &Path) -> Result<(), BackupError> {
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(&self.path)
            .and_then(|file| file.sync_all())
            .and_then(|()| std::fs::hard_link(&self.path, to))
            // Some file systems have no links. That there was no such file was seen before.
            .or_else(|error| match error.kind() {
                ErrorKind::AlreadyExists => Err(error),
                _ => std::fs::rename(&self.path, to),
            })
            .and_then(|()| File::open(folder)?.sync_all())
            .map_err(|cause| BackupError::Write { path: to.display().to_string(), cause })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After publishing it is the second name of the file.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn check(path: &Path) -> Result<Backup, BackupError> {
    let file = path.to_owned();
    let mut options = ConnectOptions::new("sqlite:");
    options.sqlx_logging(false).max_connections(1).map_sqlx_sqlite_opts(move |sqlite| {
        sqlite.filename(&file).create_if_missing(false).read_only(true).immutable(true)
    });
    let copy = Database::connect(options).await?;
    let faults: Vec<Finding> =
        contents(&copy).await.into_iter().filter(|finding| finding.grade == Grade::Fault).collect();
    if let Some(fault) = faults.first() {
        return Err(BackupError::Unsound(format!("{}: {}", fault.check, fault.found)));
    }
    let users = number(&copy, "SELECT count(*) FROM users").await?;
    let events = number(&copy, "SELECT count(*) FROM events").await?;
    copy.close().await?;
    let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
    Ok(Backup { users, events, bytes })
}
