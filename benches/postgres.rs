//! A database of this run's own on a PostgreSQL server.

use std::io::ErrorKind;
use std::process::Command;

use crate::Result;

/// Dropped with the value, unless it is to be kept.
pub(crate) struct Database {
    admin: String,
    name: String,
    keep: bool,
    /// For usersd.
    pub(crate) url: String,
}

impl Database {
    /// Makes an empty database on the server of `admin`, a URL such as `postgres:///postgres?host=/run/postgresql`.
    /// One that is to be kept is the one that was kept before, if there is one of that name.
    pub(crate) fn create(admin: &str, name: String, keep: bool) -> Result<Self> {
        let url =
            renamed(admin, &name).ok_or("USERSD_TEST_POSTGRES is no URL like postgres://HOST/DATABASE")?;
        let there =
            keep && !psql(admin, &format!("SELECT 1 FROM pg_database WHERE datname = '{name}'"))?.is_empty();
        if !there {
            psql(admin, &format!("CREATE DATABASE {name}"))?;
        }
        Ok(Self { admin: admin.to_owned(), name, keep, url })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = psql(&self.admin, &format!("DROP DATABASE {} WITH (FORCE)", self.name)) {
            eprintln!("the database {} is left behind: {error}", self.name);
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

/// What `psql` prints, a row a line and nothing around it.
pub(crate) fn psql(url: &str, command: &str) -> Result<String> {
    let done =
        Command::new("psql").args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-c", command, url]).output();
    match done {
        Ok(output) if output.status.success() => Ok(String::from_utf8(output.stdout)?),
        Ok(output) => Err(format!("psql: {}", String::from_utf8_lossy(&output.stderr).trim()).into()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err("psql is not installed: on Debian and Ubuntu `apt-get install postgresql-client`".into())
        }
        Err(error) => Err(format!("psql: {error}").into()),
    }
}
