-- +goose Up
-- What hosts tell each other of encryption networks: who made which key, holds it, or revoked a network.
CREATE TABLE network_records (
  id       VARBINARY(32) PRIMARY KEY,          -- BLAKE3 of the record without its signatures
  owner    VARBINARY(768) NOT NULL,
  network  VARBINARY(32) NOT NULL,             -- networks.id
  kind     BIGINT NOT NULL,                    -- as in the record
  host     VARBINARY(32) NOT NULL,             -- of a member its Space key, else the node that made it
  record   MEDIUMBLOB NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE INDEX network_records_owner ON network_records (owner, kind);
CREATE INDEX network_records_network ON network_records (network);
CREATE TABLE network_approved (        -- nodes that get an owner's keys although they are not paired
  owner VARBINARY(768) NOT NULL,
  node  VARBINARY(32) NOT NULL,                -- public key
  since BIGINT NOT NULL,                       -- unix milliseconds
  PRIMARY KEY (owner, node)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- +goose Down
SELECT 1;
