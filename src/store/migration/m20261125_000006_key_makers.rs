//! The creators of keys, the keys that have ended, and the log of both.

use super::Sql;

pub(super) const MIGRATION: Sql = Sql::same("m20261125_000006_key_makers", &[MAKERS, ENDED, EVENTS]);

/// `created_by` is the id of the key that created it, or what events call a creator that has no key; empty for a
/// key that is older than the column.
const MAKERS: &str = "
ALTER TABLE keys ADD COLUMN created_by {text} DEFAULT '';
CREATE INDEX keys_by_maker ON keys (created_by);
CREATE INDEX keys_by_expiry ON keys (expires)";

/// Keys that were revoked or have expired, as long as events are kept: without them nothing would lead from a
/// key to those that its descendants made.
const ENDED: &str = "
CREATE TABLE keys_ended (
  namespace {text},
  id {text},
  created_by {text},
  ended BIGINT NOT NULL,
  PRIMARY KEY (namespace, id)
);
CREATE INDEX keys_ended_by_maker ON keys_ended (created_by);
CREATE INDEX keys_ended_by_time ON keys_ended (ended)";

/// The actions are those of `store::events::OF_KEYS`: a query has to repeat them word for word. Events
/// without a user are also those of log-ins under names that do not exist, of which there may be any number.
const EVENTS: &str = "
CREATE INDEX events_of_keys ON events (namespace, seq)
WHERE action IN ('KEY_CREATED', 'KEY_EXPIRED', 'KEY_REVOKED')";
