-- +goose Up
CREATE TABLE paired (                    -- nodes that are asked about every Space
  peer  TEXT    PRIMARY KEY,             -- of the other node's front
  addrs TEXT    NOT NULL,                -- JSON list of multiaddrs
  back  INTEGER NOT NULL,                -- 1: it asks this node too, by an invite
  since INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE invites (
  id      BLOB    PRIMARY KEY,           -- hash of the secret
  made    INTEGER NOT NULL,
  expires INTEGER NOT NULL,
  used_by TEXT                           -- the node that used it
) WITHOUT ROWID;

-- +goose Down
DROP TABLE invites;
DROP TABLE paired;
