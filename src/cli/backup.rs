//! `usersd backup`: copies an SQLite file while servers use it.

use std::path::Path;
use std::process::ExitCode;

use crate::config::Config;

use super::{CommandError, open_existing};

/// Runs `usersd backup`.
pub(super) async fn execute(config: &Config, to: &Path) -> Result<ExitCode, CommandError> {
    let store = open_existing(&config.database).await?;
    let backup = Box::pin(store.backup(to)).await?;
    eprintln!(
        "usersd: {} has {} users, {} events and {} bytes, and was checked",
        to.display(),
        backup.users,
        backup.events,
        backup.bytes
    );
    Ok(ExitCode::SUCCESS)
}
