-- +goose Up
-- What lets several processes share the database.
ALTER TABLE kv ADD COLUMN whole BYTEA;     -- the key, when the column key holds what stands for it
CREATE TABLE node (                       -- one row, locked by whoever writes
  id         BIGINT PRIMARY KEY,
  generation BIGINT NOT NULL             -- transactions that others have to know of
);
INSERT INTO node (id, generation) VALUES (1, 0);
CREATE TABLE commits (                    -- what they did, for the other processes; the last of them
  generation BIGINT NOT NULL,
  sid        BIGINT NOT NULL,            -- 0: of no Space
  holder     BYTEA NOT NULL,            -- the process
  branch     BIGINT NOT NULL,            -- of this node's log
  first      BIGINT NOT NULL,            -- number of the first new entry of this node
  entries    BIGINT NOT NULL,
  remote     BIGINT NOT NULL,
  wants      BIGINT NOT NULL,
  flags      BIGINT NOT NULL,            -- 1: the Space is new, 2: its joins are, 4: quotas, 8: webhooks
  c_epoch    BIGINT NOT NULL,            -- cursor of the last change of the Space; 0: none
  c_late     BIGINT NOT NULL,
  c_index    BIGINT NOT NULL,
  hosts      BYTEA NOT NULL,            -- keys of revoked hosts, 32 bytes each
  revoked    BYTEA NOT NULL,            -- target and revocation, 64 bytes each
 PRIMARY KEY (generation, sid)
);
CREATE TABLE leases (
  name    TEXT PRIMARY KEY,
  holder  BYTEA NOT NULL,
  expires BIGINT NOT NULL                -- by the server's clock
);
INSERT INTO leases (name, holder, expires) VALUES ('p2p', '', 0), ('webhooks', '', 0);

-- +goose Down
SELECT 1;
