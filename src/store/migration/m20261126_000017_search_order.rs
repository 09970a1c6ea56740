//! The time of creation beside the terms of the search index on PostgreSQL: what a search finds is sorted before it is looked up.

use super::Sql;

/// A trigger, so that a program of the version before writes it too. Rows from before have none until they are written again:
/// to write them all would take minutes on a large table, which calls would wait for.
pub(super) const MIGRATION: Sql =
    Sql { name: "m20261126_000017_search_order", sqlite: &[], postgres: &[POSTGRES] };

const POSTGRES: &str = "
ALTER TABLE users_search ADD COLUMN created BIGINT;
CREATE FUNCTION take_created_of_user() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
  SELECT created INTO NEW.created FROM users WHERE namespace = NEW.namespace AND id = NEW.id;
  RETURN NEW;
END $$;
CREATE TRIGGER users_search_created BEFORE INSERT OR UPDATE ON users_search
  FOR EACH ROW EXECUTE FUNCTION take_created_of_user()";
