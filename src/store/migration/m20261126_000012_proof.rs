//! When and by which methods the user of a session authenticated.

use super::Sql;

pub(super) const MIGRATION: Sql = Sql::same("m20261126_000012_proof", &[PROOF]);

/// The time is 0 in sessions of an older program, whose users authenticated when they signed in. `amr` has names of RFC 8176,
/// separated by spaces.
const PROOF: &str = "
ALTER TABLE sessions ADD COLUMN auth_time BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN amr {text} DEFAULT ''";
