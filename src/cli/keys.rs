//! `usersd key`: creates, lists and revokes keys, with access to the database.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

use crate::clock::Clock;
use crate::config::{Config, Problems};
use crate::domain::key::{AllowedNamespaces, Key, KeyName, NewKey};
use crate::domain::scope::Scopes;
use crate::domain::time::Timestamp;
use crate::error::Error;
use crate::ops::keys;
use crate::store::{self, Store};

use super::{CommandError, open_without_migrating, print, schema};

#[derive(Subcommand)]
pub(super) enum Step {
    /// Create a key and print only it to stdout; it is stored only as a digest and cannot be shown again
    Create {
        /// The namespace it is valid in; `*` for a key whose calls name theirs in `usersd-namespace`
        #[arg(long, value_name = "NS")]
        namespace: String,
        /// Its scopes, separated by commas: users.read, users.write, users.admin, sessions.read,
        /// sessions.write, codes.write, keys.admin; with `*` also namespaces.admin
        #[arg(long, value_name = "SCOPES")]
        scopes: String,
        /// Its purpose, for people
        #[arg(long, value_name = "TEXT")]
        name: String,
        /// Its lifetime, such as 90d; without one it is valid until it is revoked
        #[arg(long, value_name = "SPAN")]
        expires: Option<String>,
        /// Write the key to a new file instead of stdout; only its owner can read it
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// List keys, a line each: id, namespace, name, scopes, created, expires, last used, creator
    List {
        /// Only those of one namespace
        #[arg(long, value_name = "NS")]
        namespace: Option<String>,
    },
    /// Revoke a key; servers refuse it within a second
    Revoke {
        /// Its id
        id: String,
        /// Also revoke its descendants: the keys that it created, that those created, and so on
        #[arg(long)]
        descendants: bool,
    },
}

/// Runs `usersd key`.
pub(super) async fn execute(config: &Config, step: &Step) -> Result<ExitCode, CommandError> {
    match step {
        Step::Create { namespace, scopes, name, expires, file } => {
            let new = new_key(namespace, scopes, name, expires.as_deref());
            let new = new.map_err(|problems| CommandError::Usage(problems.to_string()))?;
            Box::pin(create(config, new, file.as_deref())).await
        }
        Step::List { namespace } => {
            let namespaces = namespace.as_deref().map(AllowedNamespaces::parse).transpose();
            list(config, namespaces.map_err(|why| CommandError::Usage(format!("--namespace {why}")))?).await
        }
        Step::Revoke { id, descendants } => revoke(config, id, *descendants).await,
    }
}

/// Returns the key that the flags describe, or every fault in them.
fn new_key(namespace: &str, scopes: &str, name: &str, expires: Option<&str>) -> Result<NewKey, Problems> {
    let mut problems = Problems::default();
    let mut wrong = |flag: &str, why: &dyn std::fmt::Display| problems.0.push(format!("--{flag} {why}"));
    let namespaces = AllowedNamespaces::parse(namespace).map_err(|why| wrong("namespace", &why));
    let scopes = Scopes::parse(scopes.split(',').map(str::trim)).map_err(|why| wrong("scopes", &why));
    let name = KeyName::parse(name).map_err(|why| wrong("name", &why));
    let span = expires.map(humantime::parse_duration).transpose().ok();
    let span = span.filter(|span| *span != Some(Duration::ZERO));
    let span = span.ok_or_else(|| wrong("expires", &"must be a duration like 12h or 90d"));
    match (namespaces, scopes, name, span) {
        (Ok(namespaces), Ok(scopes), Ok(name), Ok(span)) => {
            let expires = span.map(|span| Clock::System.now().plus(span));
            Ok(NewKey { namespaces, name, scopes, expires })
        }
        _ => Err(problems),
    }
}

async fn create(config: &Config, new: NewKey, file: Option<&Path>) -> Result<ExitCode, CommandError> {
    let store = open_or_new(config).await?;
    // Before there is a key: with one, programs of this machine need one.
    let file = file.map(|path| new_file(path).map(|file| (path, file))).transpose()?;
    let created = keys::create(&store, &Clock::System, new, config.namespaces.limits()).await;
    if let (Err(_), Some((path, _))) = (&created, &file) {
        let _ = std::fs::remove_file(path); // it is empty
    }
    let (secret, key) = created?;
    eprintln!(
        "usersd: key {} of namespace {} may {}{}; it is shown this once:",
        key.id,
        key.namespaces.as_str(),
        key.scopes,
        key.expires.map_or_else(String::new, |at| format!(" until {}", time(at))),
    );
    // A key that was not printed could never be used.
    let printed = match file {
        Some((_, mut file)) => file.write_all(secret.expose().as_bytes()),
        None => print(secret.expose()),
    };
    if let Err(error) = printed {
        keys::revoke(&store, &Clock::System, &key.id, false).await?;
        return Err(CommandError::Failed(format!("the key could not be printed, and is revoked: {error}")));
    }
    close(&store).await;
    Ok(ExitCode::SUCCESS)
}

fn new_file(path: &Path) -> Result<File, CommandError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(|error| CommandError::Failed(format!("cannot create the file {}: {error}", path.display())))
}

/// The database, with its tables if it is new. An older one stays as it is: servers of an older version may
/// run on it.
async fn open_or_new(config: &Config) -> Result<Store, CommandError> {
    let store = Store::connect(&config.database, config.pool.connections).await?;
    store.check_file().await?;
    store.check_writable().await?;
    if config.migrate && store.migrations().await?.iter().all(|step| !step.applied) {
        store.migrate().await?;
    }
    schema::check(&store).await?;
    Ok(store)
}

async fn list(config: &Config, namespaces: Option<AllowedNamespaces>) -> Result<ExitCode, CommandError> {
    let store = open_without_migrating(config).await?;
    let keys: Vec<Key> = match &namespaces {
        Some(namespaces) => store::keys::of(store.reader(), namespaces).await?,
        None => store::keys::all(store.reader()).await?.into_iter().map(|(_, key)| key).collect(),
    };
    close(&store).await;
    eprintln!("id\tnamespace\tname\tscopes\tcreated\texpires\tlast used\tcreator");
    for key in keys {
        let optional = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), time);
        let (scopes, created) = (key.scopes.names().collect::<Vec<_>>().join(","), time(key.created));
        let (expires, last_used) = (optional(key.expires), optional(key.last_used));
        let (id, namespace, name) = (key.id, key.namespaces.as_str(), key.name.as_str());
        let creator = if key.created_by.is_empty() { "-" } else { &key.created_by };
        print(&format!("{id}\t{namespace}\t{name}\t{scopes}\t{created}\t{expires}\t{last_used}\t{creator}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn revoke(config: &Config, id: &str, descendants: bool) -> Result<ExitCode, CommandError> {
    let store = open_without_migrating(config).await?;
    store.check_writable().await?;
    let revoked = keys::revoke(&store, &Clock::System, id, descendants).await;
    close(&store).await;
    match revoked {
        Ok(revoked) => {
            let keys = if revoked == 1 { "1 key is".to_owned() } else { format!("{revoked} keys are") };
            eprintln!("usersd: {keys} revoked; servers refuse them within a second");
            Ok(ExitCode::SUCCESS)
        }
        Err(Error::KeyNotFound) => {
            Err(CommandError::Failed(format!("there is no key {id}: `usersd key list` shows them")))
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn close(store: &Store) {
    let _ = tokio::time::timeout(super::CLOSE_TIMEOUT, store.close()).await;
}

/// RFC 3339, in UTC. Its years have four digits: the last second of them stands for all that come after.
pub(super) fn time(at: Timestamp) -> String {
    const LAST: u64 = 253_402_300_799;
    let seconds = u64::try_from(at.seconds()).unwrap_or_default().min(LAST);
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_wrong_flags_are_named_at_once() {
        let message = new_key("A", "users.reed", " ", Some("soon")).unwrap_err();
        let flags: Vec<&str> = message.0.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(flags, ["--namespace", "--scopes", "--name", "--expires"]);
        assert_eq!(new_key("*", "users.read", "x", Some("0s")).unwrap_err().0.len(), 1);
        let key = new_key("*", "users.read, keys.admin", "x", Some("90d")).unwrap();
        assert_eq!((key.namespaces, key.scopes.names().count()), (AllowedNamespaces::All, 2));
        assert!(key.expires.is_some());
        assert!(new_key("a", "users.read", "x", None).unwrap().expires.is_none());
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(time(Timestamp(1_700_000_000_000_000)), "2023-11-14T22:13:20Z");
        assert_eq!(time(Timestamp(i64::MAX)), "9999-12-31T23:59:59Z");
    }
}
