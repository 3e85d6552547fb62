-- +goose Up
-- Import entries: the lists of epochs that hosts took over from elsewhere. The entries themselves stand in
-- entries, with eid 0; each epoch of a list has a row there too, with the digest of the import entry, no
-- signature, and its place in a chain for branch and n (branch - 1073741824 is the chain's number).
CREATE TABLE imports (
  sid    BIGINT NOT NULL,
  branch BIGINT NOT NULL,
  n      BIGINT NOT NULL,
  ord    BIGINT NOT NULL,               -- order of arrival in the Space
  list   MEDIUMBLOB NOT NULL,               -- DAG-CBOR [[epoch, at]…]
  PRIMARY KEY (sid, branch, n)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
-- Imported histories fork and have no entries of their own, so each is cut into chains, in which every
-- epoch is an ancestor of the next.
CREATE TABLE chains (
  sid   BIGINT NOT NULL,
  chain BIGINT NOT NULL,
  host  VARBINARY(32) NOT NULL,                -- who imported it
  n     BIGINT NOT NULL,                -- of the last epoch
  eid   BIGINT NOT NULL,                -- the last epoch
  PRIMARY KEY (sid, chain)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Which keys hold a value: it is freed with the last of them.
CREATE INDEX kv_value ON kv (sid, value);

-- +goose Down
SELECT 1;
