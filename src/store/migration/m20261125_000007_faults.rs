//! Tables of housekeeping: the clocks by which it removes, and purged users whose events are not cleared yet.

use super::Sql;

pub(super) const MIGRATION: Sql = Sql::same("m20261125_000007_faults", &[HOUSEKEEPING, PURGED]);

/// A row for each start of a machine. `wall` is the time of day and `boot` the time since that start, both in
/// microseconds, when they last went alike.
const HOUSEKEEPING: &str = "
CREATE TABLE housekeeping (
  boot_id {text},
  wall BIGINT NOT NULL,
  boot BIGINT NOT NULL,
  PRIMARY KEY (boot_id)
)";

/// Events with the user's id up to number `last` are of one who was purged; those up to `cleared` say no more
/// where the person was.
const PURGED: &str = "
CREATE TABLE purged (
  namespace {text},
  user_id {text},
  cleared BIGINT NOT NULL,
  last BIGINT NOT NULL,
  PRIMARY KEY (namespace, user_id)
)";
