//! Codes that callers deliver, and the times at which digits were tried.

use super::Sql;

pub(super) const MIGRATION: Sql = Sql::same("m20261126_000013_codes", &[CODES]);

/// `user_id` has no foreign key: a name that no user has gets a row, too. `generation`, `email` and `password_updated` are
/// those of the user when the code was made. `times` are those of the last tries under a name or of a user.
const CODES: &str = "
CREATE TABLE codes (
  namespace {text},
  user_id {text},
  purpose {text},
  secret {text},
  expires BIGINT NOT NULL,
  new_email {text},
  generation BIGINT NOT NULL,
  email {text},
  password_updated BIGINT NOT NULL,
  tries BIGINT NOT NULL,
  PRIMARY KEY (namespace, user_id, purpose)
);
CREATE INDEX codes_by_secret ON codes (namespace, secret);
CREATE INDEX codes_by_expiry ON codes (expires);
CREATE TABLE code_tries (
  namespace {text},
  mark {bytes},
  times {text},
  last BIGINT NOT NULL,
  PRIMARY KEY (namespace, mark)
);
CREATE INDEX code_tries_by_last ON code_tries (last)";
