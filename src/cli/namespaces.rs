//! `usersd namespace`: creates, limits, reads and deletes namespaces, with access to the database.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::clock::Clock;
use crate::config::{Config, Problems};
use crate::domain::caller::Caller;
use crate::domain::namespace::{Namespace, NamespaceRecord};
use crate::domain::quota::{LimitChanges, Quota, Quotas};
use crate::error::Error;
use crate::ops::namespaces;
use crate::store::{self, Store};

use super::keys::{close, time};
use super::{CommandError, open_without_migrating, print};

/// Names that are read at a time.
const PAGE: u64 = 1_000;

#[derive(Subcommand)]
pub(super) enum Step {
    /// Create a namespace with limits of its own, also one that is in use; without flags the settings apply
    Create {
        /// Its name
        name: String,
        #[command(flatten)]
        limits: LimitFlags,
    },
    /// Change limits of a namespace that was created; limits without a flag stay
    Update {
        /// Its name
        name: String,
        #[command(flatten)]
        limits: LimitFlags,
    },
    /// List namespaces, a line each: name, state, and limits of its own (users, sessions, keys, calls a second)
    List,
    /// Print a namespace: its state, its limits and its usage
    Read {
        /// Its name
        name: String,
    },
    /// Delete a namespace with all its users, sessions, keys and events; this cannot be undone
    Delete {
        /// Its name
        name: String,
        /// The name again, to confirm
        #[arg(long, value_name = "NAME")]
        confirm: String,
    },
}

#[derive(Args)]
#[expect(clippy::struct_field_names, reason = "flags are named as the limits are")]
pub(super) struct LimitFlags {
    /// Maximum number of users, including those in the trash; for each flag, 0: no limit, `default`: as in the settings
    #[arg(long, value_name = "N")]
    max_users: Option<String>,
    /// Maximum number of sessions
    #[arg(long, value_name = "N")]
    max_sessions: Option<String>,
    /// Maximum number of API keys
    #[arg(long, value_name = "N")]
    max_keys: Option<String>,
    /// Maximum number of calls a second on each replica
    #[arg(long, value_name = "N")]
    max_calls_per_second: Option<String>,
}

/// Runs `usersd namespace`.
pub(super) async fn execute(config: &Config, step: &Step) -> Result<ExitCode, CommandError> {
    let caller = Caller::server(Namespace::root());
    match step {
        Step::Create { name, limits } => {
            let (name, changes) = parse(name, limits)?;
            let store = open(config).await?;
            let limits = Quotas::default().with(changes);
            let done = namespaces::create(&store, &Clock::System, &caller, name, limits).await;
            changed(&store, done, "is created").await
        }
        Step::Update { name, limits } => {
            let (name, changes) = parse(name, limits)?;
            let store = open(config).await?;
            let done = namespaces::update(&store, &Clock::System, &caller, &name, changes).await;
            changed(&store, done, "has these limits").await
        }
        Step::List => list(config).await,
        Step::Read { name } => read(config, &parse(name, &LimitFlags::none())?.0).await,
        Step::Delete { name, confirm } => {
            let (parsed, _) = parse(name, &LimitFlags::none())?;
            if name != confirm {
                return Err(CommandError::Usage("--confirm must repeat the name".to_owned()));
            }
            let store = open(config).await?;
            let done = namespaces::delete(&store, &Clock::System, &caller, &parsed).await;
            changed(&store, done, "is being deleted; running servers remove its rows").await
        }
    }
}

impl LimitFlags {
    fn none() -> Self {
        Self { max_users: None, max_sessions: None, max_keys: None, max_calls_per_second: None }
    }

    fn given(&self) -> [&Option<String>; Quota::ALL.len()] {
        [&self.max_users, &self.max_sessions, &self.max_keys, &self.max_calls_per_second]
    }
}

/// Reads a name and limits, or names every fault in them.
fn parse(name: &str, limits: &LimitFlags) -> Result<(Namespace, LimitChanges), CommandError> {
    let mut problems = Problems::default();
    let parsed = Namespace::parse(name).map_err(|why| problems.0.push(format!("the name {why}")));
    let mut changes = LimitChanges::default();
    for ((quota, given), change) in Quota::ALL.into_iter().zip(limits.given()).zip(&mut changes.0) {
        *change = match given.as_deref() {
            None => None,
            Some("default") => Some(None),
            Some(text) => {
                let limit = text.parse().ok().filter(|limit| *limit <= quota.max());
                if limit.is_none() {
                    let flag = quota.name().replace('_', "-");
                    problems.0.push(format!("--{flag} must be `default` or 0 to {}", quota.max()));
                }
                limit.map(Some)
            }
        };
    }
    match parsed {
        Ok(parsed) if problems.0.is_empty() => Ok((parsed, changes)),
        _ => Err(CommandError::Usage(problems.to_string())),
    }
}

async fn open(config: &Config) -> Result<Store, CommandError> {
    let store = open_without_migrating(config).await?;
    store.check_writable().await?;
    Ok(store)
}

/// Says what was done.
async fn changed(
    store: &Store,
    done: crate::error::Result<NamespaceRecord>,
    what: &str,
) -> Result<ExitCode, CommandError> {
    close(store).await;
    let record = done.map_err(failure)?;
    eprintln!("usersd: namespace {} {what}: {}", record.name.as_str(), line(&record));
    Ok(ExitCode::SUCCESS)
}

fn failure(error: Error) -> CommandError {
    match error {
        Error::NamespaceNotFound | Error::NamespaceTaken | Error::NamespaceBeingDeleted => {
            CommandError::Failed(error.to_string())
        }
        error => error.into(),
    }
}

async fn list(config: &Config) -> Result<ExitCode, CommandError> {
    let store = open_without_migrating(config).await?;
    eprintln!("name\tstate\tmax users\tmax sessions\tmax keys\tmax calls a second");
    let mut after = String::new();
    loop {
        let names = store::namespaces::names(store.reader(), &after, PAGE).await?;
        for name in &names {
            let record = store::namespaces::find(store.reader(), name).await?;
            print(&format!("{}\t{}", name.as_str(), line(&record)))?;
        }
        let Some(last) = names.last() else { break };
        last.as_str().clone_into(&mut after);
    }
    close(&store).await;
    Ok(ExitCode::SUCCESS)
}

async fn read(config: &Config, name: &Namespace) -> Result<ExitCode, CommandError> {
    let store = open_without_migrating(config).await?;
    let found = namespaces::read(store.reader(), name, &Clock::System).await;
    close(&store).await;
    let (record, usage) = found.map_err(failure)?;
    let created = if record.created.0 == 0 { "-".to_owned() } else { time(record.created) };
    let mut lines = vec![("state", record.state.name().to_owned()), ("created", created)];
    let effective = record.limits.or(config.namespaces.limits());
    lines.extend(Quota::ALL.map(|quota| (quota.name(), effective.get(quota).unwrap_or(0).to_string())));
    let counts = [
        ("users", usage.users),
        ("trashed", usage.trashed),
        ("sessions", usage.sessions),
        ("keys", usage.keys),
        ("events", usage.events),
        ("bytes", usage.bytes),
    ];
    lines.extend(counts.map(|(name, count)| (name, count.to_string())));
    for (name, value) in lines {
        print(&format!("{name}\t{value}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The state of a namespace and the limits of its own; `-` where the settings decide.
fn line(record: &NamespaceRecord) -> String {
    let limit = |quota| record.limits.get(quota).map_or_else(|| "-".to_owned(), |limit| limit.to_string());
    format!("{}\t{}", record.state.name(), Quota::ALL.map(limit).join("\t"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_wrong_flags_are_named_at_once() {
        let text = |text: &str| Some(text.to_owned());
        let flags = LimitFlags {
            max_users: text("-1"),
            max_sessions: text("default"),
            max_keys: text("x"),
            max_calls_per_second: text("5"),
        };
        let Err(CommandError::Usage(message)) = parse("A", &flags) else { panic!("it was taken") };
        assert_eq!(message.lines().count(), 3, "{message}");
        let flags = LimitFlags { max_users: text("7"), max_sessions: text("default"), ..LimitFlags::none() };
        let (name, changes) = parse("shop", &flags).unwrap_or_else(|_| panic!("it was not taken"));
        assert_eq!((name.as_str(), changes), ("shop", LimitChanges([Some(Some(7)), Some(None), None, None])));
    }
}
