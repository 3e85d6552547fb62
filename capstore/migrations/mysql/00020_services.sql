-- +goose Up
-- The service of an operation; its key is the subject. Empty: an operation without one, which is void.
ALTER TABLE ops ADD COLUMN service VARCHAR(32) NOT NULL DEFAULT 'kv';
-- Operations that this release can't read, though their tokens ask for them.
CREATE TABLE pending (
  eid BIGINT NOT NULL,
  idx BIGINT NOT NULL,
  n   BIGINT NOT NULL,
  sid BIGINT NOT NULL,
  size BIGINT NOT NULL,
  PRIMARY KEY (eid, idx, n)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE INDEX pending_sid ON pending (sid);
-- 1: an operation on the key is pending, so that what it holds is not known.
ALTER TABLE kv ADD COLUMN pending SMALLINT NOT NULL DEFAULT 0;
-- What services beside key-value keep of a subject. The id is its hash.
CREATE TABLE states (
  sid     BIGINT NOT NULL,
  service VARCHAR(32) NOT NULL,
  id      VARBINARY(32) NOT NULL,
  subject MEDIUMBLOB NOT NULL,
  state   MEDIUMBLOB NOT NULL,
  PRIMARY KEY (sid, service, id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
-- The services of the release that had the database open last.
CREATE TABLE services (
  name    VARCHAR(32) PRIMARY KEY,
  version BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
INSERT INTO services (name, version) VALUES ('kv', 1);

-- +goose Down
SELECT 1;
