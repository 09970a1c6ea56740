//! The number of users of each namespace, kept by triggers: a program of the version before counts too.

use super::Sql;

/// The triggers come before the count: on PostgreSQL they lock out writers until the end, so that each user is counted once.
pub(super) const MIGRATION: Sql = Sql {
    name: "m20261126_000009_totals",
    sqlite: &[TOTALS, SQLITE, FIRST_COUNT],
    postgres: &[TOTALS, POSTGRES, FIRST_COUNT],
};

/// The sum of a namespace's rows counts; a single one may be negative. On PostgreSQL each connection has one of 32, so that
/// writers seldom wait for each other's COMMIT.
const TOTALS: &str = "
CREATE TABLE user_totals (
  namespace {text},
  shard SMALLINT NOT NULL,
  live BIGINT NOT NULL,
  trashed BIGINT NOT NULL,
  PRIMARY KEY (namespace, shard)
)";

const FIRST_COUNT: &str = "
INSERT INTO user_totals (namespace, shard, live, trashed)
SELECT namespace, 0, COUNT(CASE WHEN deleted = 0 THEN 1 END), COUNT(CASE WHEN deleted > 0 THEN 1 END)
FROM users GROUP BY namespace";

const SQLITE: &str = "
CREATE TRIGGER users_total_insert AFTER INSERT ON users BEGIN
  INSERT INTO user_totals (namespace, shard, live, trashed)
  VALUES (NEW.namespace, 0, NEW.deleted = 0, NEW.deleted > 0)
  ON CONFLICT (namespace, shard) DO UPDATE SET live = live + excluded.live, trashed = trashed + excluded.trashed;
END;
CREATE TRIGGER users_total_update AFTER UPDATE OF deleted ON users WHEN (OLD.deleted = 0) <> (NEW.deleted = 0) BEGIN
  UPDATE user_totals
  SET live = live + (NEW.deleted = 0) - (OLD.deleted = 0), trashed = trashed + (NEW.deleted > 0) - (OLD.deleted > 0)
  WHERE namespace = NEW.namespace AND shard = 0;
END;
CREATE TRIGGER users_total_delete AFTER DELETE ON users BEGIN
  UPDATE user_totals SET live = live - (OLD.deleted = 0), trashed = trashed - (OLD.deleted > 0)
  WHERE namespace = OLD.namespace AND shard = 0;
END";

/// Half of each page stays free: a row that is changed again and again then needs no new entry in the index. What a statement
/// inserts or deletes is added up first: a row that one transaction changes a thousand times has a thousand versions.
const POSTGRES: &str = "
ALTER TABLE user_totals SET (fillfactor = 50);
CREATE FUNCTION add_to_user_totals(owner TEXT, more_live BIGINT, more_trashed BIGINT) RETURNS void LANGUAGE sql AS $$
  INSERT INTO user_totals AS known (namespace, shard, live, trashed)
  VALUES (owner, pg_backend_pid() % 32, more_live, more_trashed)
  ON CONFLICT (namespace, shard)
  DO UPDATE SET live = known.live + excluded.live, trashed = known.trashed + excluded.trashed
$$;
CREATE FUNCTION total_inserted_users() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
  PERFORM add_to_user_totals(namespace, COUNT(*) FILTER (WHERE deleted = 0), COUNT(*) FILTER (WHERE deleted > 0))
  FROM inserted GROUP BY namespace;
  RETURN NULL;
END $$;
CREATE FUNCTION total_deleted_users() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
  PERFORM add_to_user_totals(namespace, -COUNT(*) FILTER (WHERE deleted = 0), -COUNT(*) FILTER (WHERE deleted > 0))
  FROM removed GROUP BY namespace;
  RETURN NULL;
END $$;
CREATE FUNCTION total_updated_user() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
  IF NEW.deleted = 0 THEN
    PERFORM add_to_user_totals(NEW.namespace, 1, -1);
  ELSE
    PERFORM add_to_user_totals(NEW.namespace, -1, 1);
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION total_truncated_users() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
  DELETE FROM user_totals;
  RETURN NULL;
END $$;
CREATE TRIGGER users_total_truncate AFTER TRUNCATE ON users FOR EACH STATEMENT EXECUTE FUNCTION total_truncated_users();
CREATE TRIGGER users_total_insert AFTER INSERT ON users
  REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION total_inserted_users();
CREATE TRIGGER users_total_delete AFTER DELETE ON users
  REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION total_deleted_users();
CREATE TRIGGER users_total_update AFTER UPDATE OF deleted ON users FOR EACH ROW
  WHEN ((OLD.deleted = 0) <> (NEW.deleted = 0)) EXECUTE FUNCTION total_updated_user()";
