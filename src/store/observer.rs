//! Watches the statements that are run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::Statement;

/// A statement that takes longer is worth a line in the log: none of ours should, however many users there
/// are.
const SLOW: Duration = Duration::from_secs(1);

type See = dyn Fn(&Statement) + Send + Sync;

/// Called with every statement once it was run. Slow ones are logged in any case.
#[derive(Clone, Default)]
pub(super) struct Observer(Option<Arc<See>>);

impl Observer {
    pub(super) fn new(see: impl Fn(&Statement) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(see)))
    }

    /// The values are the callers' and are not logged.
    pub(super) fn see(&self, statement: &Statement, took: Duration) {
        if took >= SLOW {
            let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(millis, sql = statement.sql, "slow statement");
        }
        if let Some(see) = &self.0 {
            see(statement);
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}
