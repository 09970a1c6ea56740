//! The file of an SQLite database: where it is, whose it is, and whether it is still the one that was opened.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sea_orm::{ConnectionTrait as _, DbErr, Statement};

use super::connect::ConnectError;
use super::{Store, fault};

/// The time between looks at the file.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The time until a check that failed is made again.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// Bytes of a file that is read whole before it is served from, which takes a tenth of a second.
const CHECKED_AT_ONCE: u64 = 64 * 1024 * 1024;

/// The steps of an operator whose file cannot be used.
pub(super) const RESTORE: &str =
    "stop the server, put the file that is meant in its place, remove its -wal and -shm, and start";

/// The path of an SQLite file in the address of a database, as the driver reads it.
pub fn path(url: &str) -> Option<PathBuf> {
    let rest = url.strip_prefix("sqlite:")?;
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (path, _) = rest.split_once('?').unwrap_or((rest, ""));
    Some(percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned().into())
}

/// A file that SQLite itself created would be readable by everyone (0644); its `-wal` and `-shm` take over
/// the mode of the file.
pub(super) fn prepare(url: &str) -> Result<PathBuf, ConnectError> {
    let file = path(url).unwrap_or_default();
    let name = file.display().to_string();
    let (_, parameters) = url.split_once('?').unwrap_or((url, ""));
    let create = parameters.split('&').any(|parameter| parameter == "mode=rwc");
    match std::fs::metadata(&file) {
        Ok(found) => check_found(name, &found, create)?,
        Err(_) if !create => return Err(ConnectError::Missing(name)),
        Err(_) => match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file) {
            Err(cause) if cause.kind() != ErrorKind::AlreadyExists => {
                return Err(ConnectError::Create { path: name, cause });
            }
            _ => {}
        },
    }
    Ok(file)
}

/// An empty file is what a copy leaves that was cut short, or a volume's placeholder: a new database in it is
/// open to every user of this machine and holds no data.
fn check_found(path: String, file: &std::fs::Metadata, create: bool) -> Result<(), ConnectError> {
    if file.is_file() && file.len() == 0 {
        if !create {
            return Err(ConnectError::Empty(path));
        }
        tracing::warn!(path, "the database file is empty: a new database is made in it");
    }
    let mode = file.permissions().mode() & 0o777;
    if mode & 0o004 != 0 {
        let mode = format!("{mode:o}");
        tracing::warn!(path, mode, "the database file can be read by every user of this machine: chmod 600");
    }
    Ok(())
}

/// A file as it was when it was opened.
#[derive(Debug)]
pub(super) struct OpenedFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl OpenedFile {
    pub(super) fn look(path: &Path) -> std::io::Result<Self> {
        let found = path.metadata()?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    fn is_large(&self) -> bool {
        self.path.metadata().is_ok_and(|file| file.len() > CHECKED_AT_ONCE)
    }

    /// Returns what is in its place, if that is another file or nothing. The file must not be opened for that: closing it
    /// would release the locks of SQLite (POSIX).
    fn replaced(&self) -> Option<String> {
        let path = self.path.display();
        match self.path.metadata() {
            Ok(found) if (found.dev(), found.ino()) == (self.device, self.inode) => None,
            Ok(_) => Some(format!("{path} was replaced by another file: {RESTORE}")),
            Err(error) if error.kind() == ErrorKind::NotFound => Some(format!("{path} is gone: {RESTORE}")),
            Err(_) => None, // it may be well: what cannot be read tells by itself
        }
    }
}

impl Store {
    /// Returns an error if the database is a file that another program made, or that is damaged. A file of more than
    /// 64 MiB is checked for damage by [`Store::watch_file`], so that it is served from meanwhile.
    pub async fn check_file(&self) -> Result<(), ConnectError> {
        let Some(file) = &self.file else { return Ok(()) };
        let damaged = |cause| ConnectError::Damaged { path: file.path.display().to_string(), cause };
        let failed = |error: DbErr| {
            let cause = fault::database_message(&error);
            if fault::is_damaged_file(&error) { damaged(cause) } else { ConnectError::Open(cause) }
        };
        let foreign = self.foreign_table().await.map_err(failed)?;
        if let Some(table) = foreign {
            return Err(ConnectError::Foreign { path: file.path.display().to_string(), table });
        }
        if file.is_large() {
            return Ok(());
        }
        self.damage().await.map_err(failed)?.map_or(Ok(()), |cause| Err(damaged(cause)))
    }

    /// One of the tables of another program. One statement: between two, another process may create our tables in a new file.
    async fn foreign_table(&self) -> Result<Option<String>, DbErr> {
        let foreign = "SELECT name FROM sqlite_schema WHERE type = 'table' \
            AND NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'seaql_migrations') LIMIT 1";
        self.first_text(foreign).await
    }

    /// Reads the whole file and returns what is damaged in it.
    async fn damage(&self) -> Result<Option<String>, DbErr> {
        match self.first_text("PRAGMA quick_check(1)").await {
            Ok(found) => Ok(found.filter(|found| found != "ok")),
            Err(error) if fault::is_damaged_file(&error) => Ok(Some(fault::database_message(&error))),
            Err(error) => Err(error),
        }
    }

    /// On a connection of its own, without time limits: a large file takes some seconds.
    async fn first_text(&self, sql: &str) -> Result<Option<String>, DbErr> {
        let db = self.connection().await?;
        let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
        let text = row.map(|row| row.try_get_by_index(0)).transpose()?;
        db.close().await?;
        Ok(text)
    }

    /// Looks for damage in a file that was too large for the start, and again and again whether it is still the one that
    /// was opened, until it is not: what is written then goes into a file that has no name. Never returns on PostgreSQL.
    pub async fn watch_file(&self) {
        let Some(file) = &self.file else { return std::future::pending().await };
        let replaced = async {
            loop {
                if let Some(cause) = file.replaced() {
                    return cause;
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        let damaged = async {
            while file.is_large() {
                match self.damage().await {
                    Ok(Some(cause)) => {
                        return format!("{} is damaged: {cause}; {RESTORE}", file.path.display());
                    }
                    Ok(None) => break,
                    // A disk that is busy, or no descriptor is left.
                    Err(_) => tokio::time::sleep(RETRY_INTERVAL).await,
                }
            }
            std::future::pending().await
        };
        let cause = tokio::select! {
            cause = replaced => cause,
            cause = damaged => cause,
        };
        self.health().note_unusable(&cause);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_new_file_is_ours_while_another_process_migrates_it() {
        for _ in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let url = format!("sqlite://{}?mode=rwc", dir.path().join("usersd.db").display());
            let store = Store::connect(&url, 1).await.unwrap();
            let other = Store::connect(&url, 1).await.unwrap();
            let migrating = tokio::spawn(async move { other.migrate().await });
            while !migrating.is_finished() {
                assert_eq!(store.foreign_table().await.unwrap(), None);
            }
            migrating.await.unwrap().unwrap();
            store.check_file().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_large_file_is_checked_while_it_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("usersd.db");
        let url = format!("sqlite://{}?mode=rwc", file.display());
        let store = Store::connect(&url, 1).await.unwrap();
        store.migrate().await.unwrap();
        let db = store.connection().await.unwrap();
        let bytes = CHECKED_AT_ONCE;
        db.execute_unprepared(&format!("CREATE TABLE filler AS SELECT zeroblob({bytes}) AS bytes"))
            .await
            .unwrap();
        let root = "SELECT CAST(rootpage AS TEXT) FROM sqlite_schema WHERE name = 'sessions'";
        let root: u64 = store.first_text(root).await.unwrap().unwrap().parse().unwrap();
        db.close().await.unwrap();
        store.close().await;

        let raw = OpenOptions::new().write(true).open(&file).unwrap();
        raw.write_all_at(&[0x55; 512], (root - 1) * 4096).unwrap();
        drop(raw);
        let store = Store::connect(&url, 1).await.unwrap();
        store.check_file().await.unwrap();
        tokio::time::timeout(Duration::from_mins(1), store.watch_file()).await.unwrap();
        assert!(store.health().is_unusable());
    }
}
