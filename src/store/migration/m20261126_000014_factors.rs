//! Second factors: TOTP secrets and recovery codes.

use super::Sql;

pub(super) const MIGRATION: Sql = Sql::same("m20261126_000014_factors", &[FACTORS]);

/// `secret` is encrypted with the key of version `key_version`. `confirmed` and `used` are 0 before they happen. `step` is
/// the last step whose code was taken, `challenge` the time of the last log-in that was completed: no earlier one is.
const FACTORS: &str = "
CREATE TABLE totp_factors (
  namespace {text},
  user_id {text},
  secret {bytes},
  key_version BIGINT NOT NULL,
  created BIGINT NOT NULL,
  confirmed BIGINT NOT NULL,
  used BIGINT NOT NULL,
  step BIGINT NOT NULL,
  challenge BIGINT NOT NULL,
  PRIMARY KEY (namespace, user_id),
  FOREIGN KEY (namespace, user_id) REFERENCES users (namespace, id) ON DELETE CASCADE
);
CREATE TABLE recovery_codes (
  namespace {text},
  user_id {text},
  digest {bytes},
  PRIMARY KEY (namespace, user_id, digest),
  FOREIGN KEY (namespace, user_id) REFERENCES users (namespace, id) ON DELETE CASCADE
)";
