//! Namespaces with limits of their own or being deleted, and the number of sessions of each namespace, which triggers keep.

use super::Sql;

pub(super) const MIGRATION: Sql = Sql {
    name: "m20261126_000015_namespaces",
    sqlite: &[NAMESPACES, TOTALS, SQLITE, FIRST_COUNT],
    postgres: &[NAMESPACES, TOTALS, POSTGRES, FIRST_COUNT],
};

/// `version` is the number of the last change among those of all namespaces, `state` that of `domain::namespace`. An absent
/// time is 0; a limit of -1 is left to the settings. A transaction that changes namespaces holds the row of
/// `namespaces_version` until its COMMIT, so that changes become visible in the order of their numbers.
const NAMESPACES: &str = "
CREATE TABLE namespaces (
  namespace {text},
  version BIGINT NOT NULL,
  state SMALLINT NOT NULL,
  created BIGINT NOT NULL,
  deleted BIGINT NOT NULL,
  max_users BIGINT NOT NULL,
  max_sessions BIGINT NOT NULL,
  max_keys BIGINT NOT NULL,
  max_calls_per_second BIGINT NOT NULL,
  PRIMARY KEY (namespace)
);
CREATE INDEX namespaces_by_version ON namespaces (version);
CREATE TABLE namespaces_version (version BIGINT NOT NULL);
INSERT INTO namespaces_version (version) VALUES (0)";

/// As `user_totals`.
const TOTALS: &str = "
CREATE TABLE session_totals (
  namespace {text},
  shard SMALLINT NOT NULL,
  sessions BIGINT NOT NULL,
  PRIMARY KEY (namespace, shard)
)";

const FIRST_COUNT: &str = "
INSERT INTO session_totals (namespace, shard, sessions)
SELECT namespace, 0, COUNT(*) FROM sessions GROUP BY namespace";

const SQLITE: &str = "
CREATE TRIGGER sessions_total_insert AFTER INSERT ON sessions BEGIN
  INSERT INTO session_totals (namespace, shard, sessions) VALUES (NEW.namespace, 0, 1)
  ON CONFLICT (namespace, shard) DO UPDATE SET sessions = sessions + 1;
END;
CREATE TRIGGER sessions_total_delete AFTER DELETE ON sessions BEGIN
  UPDATE session_totals SET sessions = sessions - 1 WHERE namespace = OLD.namespace AND shard = 0;
END";

const POSTGRES: &str = "
ALTER TABLE session_totals SET (fillfactor = 50);
CREATE FUNCTION add_to_session_totals(owner TEXT, more BIGINT) RETURNS void LANGUAGE sql AS $$
  INSERT INTO session_totals AS known (namespace, shard, sessions) VALUES (owner, pg_backend_pid() % 32, more)
  ON CONFLICT (namespace, shard) DO UPDATE SET sessions = known.sessions + excluded.sessions
$$;
CREATE FUNCTION total_inserted_sessions() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
  PERFORM add_to_session_totals(namespace, COUNT(*)) FROM inserted GROUP BY namespace;
  RETURN NULL;
END $$;
CREATE FUNCTION total_deleted_sessions() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
  PERFORM add_to_session_totals(namespace, -COUNT(*)) FROM removed GROUP BY namespace;
  RETURN NULL;
END $$;
CREATE FUNCTION total_truncated_sessions() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
  DELETE FROM session_totals;
  RETURN NULL;
END $$;
CREATE TRIGGER sessions_total_truncate AFTER TRUNCATE ON sessions FOR EACH STATEMENT EXECUTE FUNCTION total_truncated_sessions();
CREATE TRIGGER sessions_total_insert AFTER INSERT ON sessions
  REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION total_inserted_sessions();
CREATE TRIGGER sessions_total_delete AFTER DELETE ON sessions
  REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION total_deleted_sessions()";
