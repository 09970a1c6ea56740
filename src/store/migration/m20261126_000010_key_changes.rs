//! The last changes of API keys, noted by triggers: also what a program of the version before changes, or an operator by hand.

use super::Sql;

pub(super) const MIGRATION: Sql =
    Sql { name: "m20261126_000010_key_changes", sqlite: &[CHANGES, SQLITE], postgres: &[CHANGES, POSTGRES] };

/// `digest` is of a key that was made, changed or removed when `keys_version` became `version`. A transaction that changes keys holds the
/// row of `keys_version` until its COMMIT, so that changes become visible in the order of their numbers.
const CHANGES: &str = "
CREATE TABLE key_changes (
  version BIGINT NOT NULL,
  digest {bytes},
  PRIMARY KEY (version, digest)
);
CREATE INDEX keys_by_digest ON keys (digest)";

/// The time of last use, which is written often, is no change.
const SQLITE: &str = "
CREATE TRIGGER keys_change_insert AFTER INSERT ON keys BEGIN
  UPDATE keys_version SET version = version + 1;
  INSERT INTO key_changes (version, digest) SELECT version, NEW.digest FROM keys_version;
  DELETE FROM key_changes WHERE version <= (SELECT version FROM keys_version) - 10000;
END;
CREATE TRIGGER keys_change_update AFTER UPDATE OF namespace, id, digest, scopes, expires ON keys BEGIN
  UPDATE keys_version SET version = version + 1;
  INSERT INTO key_changes (version, digest)
  SELECT version, OLD.digest FROM keys_version UNION SELECT version, NEW.digest FROM keys_version;
  DELETE FROM key_changes WHERE version <= (SELECT version FROM keys_version) - 10000;
END;
CREATE TRIGGER keys_change_delete AFTER DELETE ON keys BEGIN
  UPDATE keys_version SET version = version + 1;
  INSERT INTO key_changes (version, digest) SELECT version, OLD.digest FROM keys_version;
  DELETE FROM key_changes WHERE version <= (SELECT version FROM keys_version) - 10000;
END";

/// A statement that changes many keys changes the row of `keys_version` once: each change leaves a version of the row that the
/// next one has to pass.
const POSTGRES: &str = "
CREATE FUNCTION note_changed_keys() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
  IF EXISTS (SELECT FROM changed) THEN
    UPDATE keys_version SET version = version + 1;
    INSERT INTO key_changes (version, digest) SELECT DISTINCT version, digest FROM keys_version, changed;
    DELETE FROM key_changes WHERE version <= (SELECT version FROM keys_version) - 10000;
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION note_updated_key() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
  UPDATE keys_version SET version = version + 1;
  INSERT INTO key_changes (version, digest)
  SELECT version, OLD.digest FROM keys_version UNION SELECT version, NEW.digest FROM keys_version;
  DELETE FROM key_changes WHERE version <= (SELECT version FROM keys_version) - 10000;
  RETURN NULL;
END $$;
CREATE FUNCTION note_truncated_keys() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
  UPDATE keys_version SET version = version + 1;
  DELETE FROM key_changes;
  RETURN NULL;
END $$;
CREATE TRIGGER keys_change_insert AFTER INSERT ON keys
  REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changed_keys();
CREATE TRIGGER keys_change_delete AFTER DELETE ON keys
  REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_changed_keys();
CREATE TRIGGER keys_change_update AFTER UPDATE OF namespace, id, digest, scopes, expires ON keys
  FOR EACH ROW EXECUTE FUNCTION note_updated_key();
CREATE TRIGGER keys_change_truncate AFTER TRUNCATE ON keys FOR EACH STATEMENT EXECUTE FUNCTION note_truncated_keys()";
