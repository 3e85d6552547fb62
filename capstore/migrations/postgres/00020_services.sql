-- +goose Up
-- The service of an operation; its key is the subject. Empty: an operation without one, which is void.
ALTER TABLE ops ADD COLUMN service TEXT NOT NULL DEFAULT 'kv';
-- Operations that this release can't read, though their tokens ask for them.
CREATE TABLE pending (
  eid BIGINT NOT NULL,
  idx BIGINT NOT NULL,
  n   BIGINT NOT NULL,
  sid BIGINT NOT NULL,
  size BIGINT NOT NULL,
  PRIMARY KEY (eid, idx, n)
);
CREATE INDEX pending_sid ON pending (sid);
-- 1: an operation on the key is pending, so that what it holds is not known.
ALTER TABLE kv ADD COLUMN pending SMALLINT NOT NULL DEFAULT 0;
-- What services beside key-value keep of a subject. The id is its hash.
CREATE TABLE states (
  sid     BIGINT NOT NULL,
  service TEXT COLLATE "C" NOT NULL,
  id      BYTEA NOT NULL,
  subject BYTEA NOT NULL,
  state   BYTEA NOT NULL,
  PRIMARY KEY (sid, service, id)
);
-- The services of the release that had the database open last.
CREATE TABLE services (
  name    TEXT PRIMARY KEY,
  version BIGINT NOT NULL
);
INSERT INTO services (name, version) VALUES ('kv', 1);

-- +goose Down
SELECT 1;
