//! API keys.

use super::Sql;

pub(super) const MIGRATION: Sql = Sql::same("m20261121_000003_keys", &[KEYS, VERSION, FIRST]);

/// An absent time is 0. Keys are looked up in memory, where every replica has all of them, so there is no
/// index of digests.
const KEYS: &str = "
CREATE TABLE keys (
  namespace {text},
  id {text},
  digest {bytes},
  name {text},
  scopes {text},
  created BIGINT NOT NULL,
  expires BIGINT NOT NULL,
  last_used BIGINT NOT NULL,
  PRIMARY KEY (namespace, id)
)";

/// One row: goes up with each key that is made or revoked, so 0 says that there never was one.
const VERSION: &str = "CREATE TABLE keys_version (version BIGINT NOT NULL)";
const FIRST: &str = "INSERT INTO keys_version (version) VALUES (0)";
