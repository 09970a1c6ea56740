//! A database of this run's own on a PostgreSQL server.

use std::io::ErrorKind;
use std::process::Command;

use crate::Result;

/// Dropped with the value.
pub(crate) struct Database {
    admin: String,
    name: String,
    /// For usersd.
    pub(crate) url: String,
}

impl Database {
    /// Makes an empty database on the server of `admin`, a URL such as `postgres:///postgres?host=/run/postgresql`.
    pub(crate) fn create(admin: &str) -> Result<Self> {
        let name = format!("usersd_bench_{}", std::process::id());
        let url =
            renamed(admin, &name).ok_or("USERSD_TEST_POSTGRES is no URL like postgres://HOST/DATABASE")?;
        psql(admin, &format!("CREATE DATABASE {name}"))?;
        Ok(Self { admin: admin.to_owned(), name, url })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Err(error) = psql(&self.admin, &format!("DROP DATABASE {} WITH (FORCE)", self.name)) {
            eprintln!("calls: the database {} is left behind: {error}", self.name);
        }
    }
}

/// The same URL with another database.
fn renamed(url: &str, name: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let host = place.split('/').next()?;
    let mark = if query.is_empty() { "" } else { "?" };
    Some(format!("{scheme}://{host}/{name}{mark}{query}"))
}

fn psql(url: &str, command: &str) -> Result<()> {
    let done = Command::new("psql").args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", command, url]).output();
    match done {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("psql: {}", String::from_utf8_lossy(&output.stderr).trim()).into()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err("psql is not installed: on Debian and Ubuntu `apt-get install postgresql-client`".into())
        }
        Err(error) => Err(format!("psql: {error}").into()),
    }
}
