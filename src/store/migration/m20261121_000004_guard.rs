//! Tables of the throttle: counts of attempts, known IP addresses, and random numbers of users.

use super::Sql;

pub(super) const MIGRATION: Sql =
    Sql::same("m20261121_000004_guard", &[ATTEMPTS, FAMILIAR_PLACES, USERS_BY_CHANCE]);

/// `mark` is the bucket key, a keyed digest. `spent` are attempts of the `hour` that did not
/// succeed, `spent_before` those of the hour before; `streak` failures in a row, the last at `failed`.
const ATTEMPTS: &str = "
CREATE TABLE attempts (
  namespace {text},
  mark {bytes},
  hour BIGINT NOT NULL,
  spent BIGINT NOT NULL,
  spent_before BIGINT NOT NULL,
  streak BIGINT NOT NULL,
  failed BIGINT NOT NULL,
  PRIMARY KEY (namespace, mark)
);
CREATE INDEX attempts_by_hour ON attempts (hour)";

const FAMILIAR_PLACES: &str = "
CREATE TABLE familiar_places (
  namespace {text},
  user_id {text},
  place {bytes},
  seen BIGINT NOT NULL,
  PRIMARY KEY (namespace, user_id, place),
  FOREIGN KEY (namespace, user_id) REFERENCES users (namespace, id) ON DELETE CASCADE
);
CREATE INDEX familiar_places_by_age ON familiar_places (seen)";

/// Generations are random, so the next one after a random number is a random user's.
const USERS_BY_CHANCE: &str = "
CREATE INDEX users_by_chance ON users (namespace, generation) WHERE deleted = 0 AND password_hash <> ''";
