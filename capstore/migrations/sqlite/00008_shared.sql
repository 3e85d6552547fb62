-- +goose Up
-- What lets several processes share one database, on a server; a file has one process.
ALTER TABLE kv ADD COLUMN whole BLOB;     -- the key, when the column key holds what stands for it
CREATE TABLE node (                       -- one row, locked by whoever writes
  id         INTEGER PRIMARY KEY,
  generation INTEGER NOT NULL             -- transactions that others have to know of
);
INSERT INTO node (id, generation) VALUES (1, 0);
CREATE TABLE commits (                    -- what they did, for the other processes; the last of them
  generation INTEGER NOT NULL,
  sid        INTEGER NOT NULL,            -- 0: of no Space
  holder     BLOB    NOT NULL,            -- the process
  branch     INTEGER NOT NULL,            -- of this node's log
  first      INTEGER NOT NULL,            -- number of the first new entry of this node
  entries    INTEGER NOT NULL,
  remote     INTEGER NOT NULL,
  wants      INTEGER NOT NULL,
  flags      INTEGER NOT NULL,            -- 1: the Space is new, 2: its joins are, 4: quotas, 8: webhooks
  c_epoch    INTEGER NOT NULL,            -- cursor of the last change of the Space; 0: none
  c_late     INTEGER NOT NULL,
  c_index    INTEGER NOT NULL,
  hosts      BLOB    NOT NULL,            -- keys of revoked hosts, 32 bytes each
  revoked    BLOB    NOT NULL,            -- target and revocation, 64 bytes each
  PRIMARY KEY (generation, sid)
) WITHOUT ROWID;
CREATE TABLE leases (
  name    TEXT    PRIMARY KEY,
  holder  BLOB    NOT NULL,
  expires INTEGER NOT NULL                -- by the server's clock
) WITHOUT ROWID;
INSERT INTO leases (name, holder, expires) VALUES ('p2p', '', 0), ('webhooks', '', 0);

-- +goose Down
SELECT 1;
