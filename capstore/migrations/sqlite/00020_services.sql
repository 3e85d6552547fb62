-- +goose Up
-- The service of an operation; its key is the subject. Empty: an operation without one, which is void.
ALTER TABLE ops ADD COLUMN service TEXT NOT NULL DEFAULT 'kv';
-- Operations that this release can't read, though their tokens ask for them.
CREATE TABLE pending (
  eid INTEGER NOT NULL,
  idx INTEGER NOT NULL,
  n   INTEGER NOT NULL,
  sid INTEGER NOT NULL,
  size INTEGER NOT NULL,
  PRIMARY KEY (eid, idx, n)
) WITHOUT ROWID;
CREATE INDEX pending_sid ON pending (sid);
-- 1: an operation on the key is pending, so that what it holds is not known.
ALTER TABLE kv ADD COLUMN pending INTEGER NOT NULL DEFAULT 0;
-- What services beside key-value keep of a subject. The id is its hash.
CREATE TABLE states (
  sid     INTEGER NOT NULL,
  service TEXT NOT NULL,
  id      BLOB NOT NULL,
  subject BLOB NOT NULL,
  state   BLOB NOT NULL,
  PRIMARY KEY (sid, service, id)
) WITHOUT ROWID;
-- The services of the release that had the database open last.
CREATE TABLE services (
  name    TEXT PRIMARY KEY,
  version INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO services (name, version) VALUES ('kv', 1);

-- +goose Down
SELECT 1;
