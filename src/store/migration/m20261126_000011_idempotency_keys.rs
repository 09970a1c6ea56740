//! Calls that were made with an idempotency key, so that a repeat makes no second change.

use super::Sql;

pub(super) const MIGRATION: Sql = Sql::same("m20261126_000011_idempotency_keys", &[KEYS]);

/// `digest` is of a caller's key and `message` of its message. The user has no foreign key: a repeat that comes after the user
/// was purged must not create it again. The user's `generation` tells it from a later one with the same id.
const KEYS: &str = "
CREATE TABLE idempotency_keys (
  namespace {text},
  digest {bytes},
  message {bytes},
  user_id {text},
  generation BIGINT NOT NULL,
  restored BOOLEAN NOT NULL,
  created BIGINT NOT NULL,
  PRIMARY KEY (namespace, digest)
);
CREATE INDEX idempotency_keys_by_created ON idempotency_keys (created)";
