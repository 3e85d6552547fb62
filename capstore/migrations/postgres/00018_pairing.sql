-- +goose Up
CREATE TABLE paired (                    -- nodes that are asked about every Space
  peer  TEXT COLLATE "C" PRIMARY KEY,    -- of the other node's front
  addrs TEXT     NOT NULL,               -- JSON list of multiaddrs
  back  SMALLINT NOT NULL,               -- 1: it asks this node too, by an invite
  since BIGINT   NOT NULL
);
CREATE TABLE invites (
  id      BYTEA  PRIMARY KEY,            -- hash of the secret
  made    BIGINT NOT NULL,
  expires BIGINT NOT NULL,
  used_by TEXT COLLATE "C"               -- the node that used it
);

-- +goose Down
SELECT 1;
