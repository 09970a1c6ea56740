//! The migrations of the database: `usersd migrate`, and what every command asks of them.

use std::process::ExitCode;
use std::time::Instant;

use clap::Subcommand;

use crate::config::Config;
use crate::store::{Step, Store};

use super::{CommandError, print};

#[derive(Subcommand)]
pub(super) enum Migrate {
    /// List the migrations and whether the database has them; changes nothing
    Status,
    /// Apply the migrations that are missing
    Up,
}

/// Runs `usersd migrate`.
pub(super) async fn execute(config: &Config, step: &Migrate) -> Result<ExitCode, CommandError> {
    let store = Store::connect(&config.database, config.pool.connections).await?;
    match step {
        Migrate::Status => {
            for step in store.migrations().await? {
                print(&format!("{}\t{}", state(&step), step.name))?;
            }
        }
        Migrate::Up => {
            store.check_file().await?;
            store.check_writable().await?;
            store.migrate().await?;
            check(&store).await?;
            eprintln!("usersd: the database has every migration of this program");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn state(step: &Step) -> &'static str {
    match step {
        Step { known: false, .. } => "newer",
        Step { applied: true, .. } => "applied",
        Step { applied: false, .. } => "pending",
    }
}

/// The migrations that only newer programs have, with commas between; empty if there are none.
pub(super) fn newer(steps: &[Step]) -> String {
    let newer = steps.iter().filter(|step| !step.known).map(|step| step.name.as_str());
    newer.collect::<Vec<_>>().join(", ")
}

/// Fails if the database lacks migrations. Warns if a newer program migrated it: while replicas are replaced one by one, and
/// after a step back.
pub(super) async fn check(store: &Store) -> Result<(), CommandError> {
    let steps = store.migrations().await?;
    if steps.iter().any(|step| !step.applied) {
        return Err(CommandError::Failed(
            "the database lacks migrations: run `usersd migrate up`".to_owned(),
        ));
    }
    let newer = newer(&steps);
    if !newer.is_empty() {
        tracing::warn!(
            newer,
            "a newer usersd migrated the database: this one works with it if both are of the same minor version, and does \
             not use what is new"
        );
    }
    Ok(())
}

/// Applies the migrations that the database lacks, with a line before and after: on large tables they take long.
pub(super) async fn migrate(store: &Store) -> Result<(), CommandError> {
    let pending = store.migrations().await?.iter().filter(|step| !step.applied).count();
    if pending > 0 {
        tracing::info!(pending, "applying migrations before serving calls");
        let begun = Instant::now();
        store.migrate().await?;
        tracing::info!("migrations applied after {:.1} s", begun.elapsed().as_secs_f64());
    }
    Ok(())
}
