-- +goose Up
CREATE TABLE paired (                    -- nodes that are asked about every Space
  peer  VARBINARY(128) PRIMARY KEY,      -- of the other node's front
  addrs MEDIUMTEXT NOT NULL,             -- JSON list of multiaddrs
  back  SMALLINT NOT NULL,               -- 1: it asks this node too, by an invite
  since BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE TABLE invites (
  id      VARBINARY(32) PRIMARY KEY,     -- hash of the secret
  made    BIGINT NOT NULL,
  expires BIGINT NOT NULL,
  used_by VARBINARY(128)                 -- the node that used it
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- +goose Down
SELECT 1;
