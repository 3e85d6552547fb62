-- +goose Up
-- Times are unix milliseconds; hashes are 32-byte BLAKE3 digests; sid numbers a Space.
CREATE TABLE spaces (
  sid     BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  space   VARBINARY(600) NOT NULL UNIQUE,
  host    VARBINARY(32) NOT NULL,              -- this node's key of the Space: its libp2p identity
  state   VARCHAR(32) NOT NULL,              -- hosted, joining, synced
  heads   MEDIUMBLOB NOT NULL DEFAULT (''),  -- eids of the heads, 8 bytes each
  epochs  BIGINT NOT NULL DEFAULT 0,
  events  BIGINT NOT NULL DEFAULT 0,
  created BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE UNIQUE INDEX spaces_host ON spaces (host);

-- Every delegation and revocation whose signature is good, whatever Space it is about.
CREATE TABLE tokens (
  id       VARBINARY(32) PRIMARY KEY,
  kind     SMALLINT NOT NULL,
  bytes    MEDIUMBLOB NOT NULL,
  received BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE TABLE mentions (                  -- the Spaces a delegation names
  space VARBINARY(600) NOT NULL,
  id    VARBINARY(32) NOT NULL,
 PRIMARY KEY (space, id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE TABLE revoked (                   -- revocations whose signer had the right
  target     VARBINARY(32) NOT NULL,
  revocation VARBINARY(32) NOT NULL,
  at         BIGINT NOT NULL,
 PRIMARY KEY (target, revocation)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Branches of the hosts' logs. A log is one branch until its host signs two entries of one number.
CREATE TABLE logs (
  sid    BIGINT NOT NULL,
  branch BIGINT NOT NULL,
  host   VARBINARY(32) NOT NULL,
  base   BIGINT,                        -- branch it forked from, null for a whole log
  base_n BIGINT,
  n      BIGINT NOT NULL,               -- tip
  digest VARBINARY(32) NOT NULL,
  at     BIGINT NOT NULL,
  eid    BIGINT NOT NULL,
 PRIMARY KEY (sid, branch)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE TABLE entries (
  sid    BIGINT NOT NULL,
  branch BIGINT NOT NULL,
  n      BIGINT NOT NULL,
  digest VARBINARY(32) NOT NULL,
  at     BIGINT NOT NULL,
  eid    BIGINT NOT NULL,
  sig    VARBINARY(64) NOT NULL,
  valid  SMALLINT NOT NULL,
  ord    BIGINT NOT NULL,               -- order of arrival among the entries of the epoch
 PRIMARY KEY (sid, branch, n)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE INDEX entries_eid ON entries (eid);

CREATE TABLE epochs (
  eid    BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  sid    BIGINT NOT NULL,
  id     VARBINARY(32) NOT NULL,
  seq    BIGINT NOT NULL,
  t      BIGINT NOT NULL,               -- greatest of the parents' t and the least at of its entries
  valid  SMALLINT NOT NULL,
  reason MEDIUMTEXT NOT NULL DEFAULT (''),
  clock  MEDIUMBLOB NOT NULL,
  bytes  MEDIUMBLOB NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE UNIQUE INDEX epochs_id ON epochs (sid, id);
CREATE INDEX epochs_seq ON epochs (sid, seq);

CREATE TABLE events (
  eid    BIGINT NOT NULL,
  idx    BIGINT NOT NULL,
  sid    BIGINT NOT NULL,
  id     VARBINARY(32) NOT NULL,
  kind   SMALLINT NOT NULL,               -- 0: not decodable or forged
  bytes  MEDIUMBLOB NOT NULL,
  valid  SMALLINT NOT NULL,
  reason MEDIUMTEXT NOT NULL DEFAULT (''),
 PRIMARY KEY (eid, idx)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE INDEX events_id ON events (sid, id);
CREATE INDEX events_facts ON events (sid, kind, eid);

CREATE TABLE ops (
  eid     BIGINT NOT NULL,
  idx     BIGINT NOT NULL,
  n       BIGINT NOT NULL,
  sid     BIGINT NOT NULL,
  `key`     VARBINARY(933) NOT NULL,
  removes SMALLINT NOT NULL,              -- 1: a delete
  bytes   MEDIUMBLOB NOT NULL,
  valid   SMALLINT NOT NULL,
 PRIMARY KEY (eid, idx, n)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE INDEX ops_key ON ops (sid, `key`);

-- The fold of the valid operations: per key the greatest write and the place up to which writes are
-- deleted.
CREATE TABLE kv (
  sid     BIGINT NOT NULL,
  `key`     VARBINARY(933) NOT NULL,
  live    SMALLINT NOT NULL,
  seq     BIGINT NOT NULL,
  epoch   VARBINARY(32) NOT NULL,
  idx     BIGINT NOT NULL,
  value   VARBINARY(32) NOT NULL,
  meta    MEDIUMBLOB NOT NULL,              -- JSON object of the stored headers
  f_seq   BIGINT NOT NULL,              -- floor; -1: nothing deleted
  f_epoch VARBINARY(32) NOT NULL,
  f_idx   BIGINT NOT NULL,
 PRIMARY KEY (sid, `key`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE TABLE vals (
  sid    BIGINT NOT NULL,
  hash   VARBINARY(32) NOT NULL,
  size   BIGINT NOT NULL,
  inline MEDIUMBLOB,                           -- null: in the block store
 PRIMARY KEY (sid, hash)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE TABLE wants (
  sid      BIGINT NOT NULL,
  hash     VARBINARY(32) NOT NULL,
  size     BIGINT NOT NULL DEFAULT 0,
  manifest VARBINARY(32),
  tries    BIGINT NOT NULL DEFAULT 0,
  due      BIGINT NOT NULL DEFAULT 0,
 PRIMARY KEY (sid, hash)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE replays (
  id      VARBINARY(32) PRIMARY KEY,
  expires BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE INDEX replays_expires ON replays (expires);

CREATE TABLE hosts (                     -- where the hosts of a Space were last reached
  sid   BIGINT NOT NULL,
  host  VARBINARY(32) NOT NULL,
  addrs MEDIUMTEXT NOT NULL DEFAULT ('[]'),
  seq   BIGINT NOT NULL DEFAULT 0,
  seen  BIGINT NOT NULL DEFAULT 0,
 PRIMARY KEY (sid, host)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE TABLE joins (
  sid   BIGINT NOT NULL,
  addr  VARBINARY(1024) NOT NULL,
  state VARCHAR(32) NOT NULL,
  tried BIGINT NOT NULL DEFAULT 0,
  error MEDIUMTEXT NOT NULL DEFAULT (''),
 PRIMARY KEY (sid, addr)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE TABLE equivocations (             -- two signed entries of one host and number
  sid    BIGINT NOT NULL,
  host   VARBINARY(32) NOT NULL,
  n      BIGINT NOT NULL,
  first  VARBINARY(32) NOT NULL,
  second VARBINARY(32) NOT NULL,
 PRIMARY KEY (sid, host, n, second)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- +goose Down
SELECT 1;
