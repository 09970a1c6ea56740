//! Attempts in flight apart from those that failed, and the account that a count belongs to.

use super::Sql;

pub(super) const MIGRATION: Sql = Sql::same("m20261125_000005_throttle", &[ATTEMPTS]);

/// `pending` are attempts of the window `pending_window` without a verdict, `pending_before` those of the
/// window before; what is older is no longer counted. `owner` is the mark of the account whose failures the
/// row counts, empty for addresses and callers. The defaults are for replicas of the version before, which
/// run on while others are replaced.
const ATTEMPTS: &str = "
ALTER TABLE attempts ADD COLUMN pending_window BIGINT NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN pending BIGINT NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN pending_before BIGINT NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN owner {bytes} DEFAULT '';
CREATE INDEX attempts_by_owner ON attempts (namespace, owner)";
