//! The time of creation beside the terms of the search index on PostgreSQL: what a search finds is sorted before it is looked up.

use super::Sql;

/// By triggers, so that a program of the version before writes it too, and it follows a change by hand. Rows from before have none
/// until they are written again: to write them all would take minutes on a large table, which calls would wait for.
pub(super) const MIGRATION: Sql =
    Sql { name: "m20261126_000017_search_order", sqlite: &[], postgres: &[POSTGRES] };

const POSTGRES: &str = "
ALTER TABLE users_search ADD COLUMN created BIGINT;
CREATE FUNCTION take_created_of_user() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
  SELECT created INTO NEW.created FROM users WHERE namespace = NEW.namespace AND id = NEW.id;
  RETURN NEW;
END $$;
CREATE TRIGGER users_search_created BEFORE INSERT OR UPDATE ON users_search
  FOR EACH ROW EXECUTE FUNCTION take_created_of_user();
CREATE FUNCTION pass_created_to_search() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
  UPDATE users_search SET created = NEW.created WHERE namespace = NEW.namespace AND id = NEW.id;
  RETURN NULL;
END $$;
CREATE TRIGGER users_created_update AFTER UPDATE OF created ON users
  FOR EACH ROW WHEN (OLD.created <> NEW.created) EXECUTE FUNCTION pass_created_to_search()";
