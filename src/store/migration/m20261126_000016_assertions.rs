//! The keys that sign assertions.

use super::Sql;

pub(super) const MIGRATION: Sql = Sql::same("m20261126_000016_assertions", &[KEYS]);

/// Of no namespace, like the other secrets: verifiers ask for the public keys without naming one.
const KEYS: &str = "
CREATE TABLE assertion_keys (
  number BIGINT PRIMARY KEY,
  seed {bytes},
  created BIGINT NOT NULL
)";
