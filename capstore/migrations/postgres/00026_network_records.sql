-- +goose Up
-- What hosts tell each other of encryption networks: who made which key, holds it, or revoked a network.
CREATE TABLE network_records (
  id       BYTEA PRIMARY KEY,                  -- BLAKE3 of the record without its signatures
  owner    TEXT COLLATE "C" NOT NULL,
  network  BYTEA NOT NULL,                     -- networks.id
  kind     BIGINT NOT NULL,                    -- as in the record
  host     BYTEA NOT NULL,                     -- of a member its Space key, else the node that made it
  record   BYTEA NOT NULL
);
CREATE INDEX network_records_owner ON network_records (owner, kind);
CREATE INDEX network_records_network ON network_records (network);
CREATE TABLE network_approved (        -- nodes that get an owner's keys although they are not paired
  owner TEXT COLLATE "C" NOT NULL,
  node  BYTEA NOT NULL,                        -- public key
  since BIGINT NOT NULL,                       -- unix milliseconds
  PRIMARY KEY (owner, node)
);

-- +goose Down
SELECT 1;
