-- +goose Up
-- What hosts tell each other of encryption networks: who made which key, holds it, or revoked a network.
CREATE TABLE network_records (
  id       BLOB PRIMARY KEY,                   -- BLAKE3 of the record without its signatures
  owner    TEXT NOT NULL,
  network  BLOB NOT NULL,                      -- networks.id
  kind     INTEGER NOT NULL,                   -- as in the record
  host     BLOB NOT NULL,                      -- of a member its Space key, else the node that made it
  record   BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX network_records_owner ON network_records (owner, kind);
CREATE INDEX network_records_network ON network_records (network);
CREATE TABLE network_approved (        -- nodes that get an owner's keys although they are not paired
  owner TEXT NOT NULL,
  node  BLOB NOT NULL,                         -- public key
  since INTEGER NOT NULL,                      -- unix milliseconds
  PRIMARY KEY (owner, node)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE network_approved;
DROP TABLE network_records;
