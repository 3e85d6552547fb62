-- +goose Up
-- Times are unix milliseconds; hashes are 32-byte BLAKE3 digests; sid numbers a Space.
CREATE TABLE spaces (
  sid     INTEGER PRIMARY KEY,
  space   TEXT    NOT NULL UNIQUE,
  host    BLOB    NOT NULL,              -- this node's key of the Space: its libp2p identity
  state   TEXT    NOT NULL,              -- hosted, joining, synced
  heads   BLOB    NOT NULL DEFAULT x'',  -- eids of the heads, 8 bytes each
  epochs  INTEGER NOT NULL DEFAULT 0,
  events  INTEGER NOT NULL DEFAULT 0,
  created INTEGER NOT NULL
);
CREATE UNIQUE INDEX spaces_host ON spaces (host);

-- Every delegation and revocation whose signature is good, whatever Space it is about.
CREATE TABLE tokens (
  id       BLOB    PRIMARY KEY,
  kind     INTEGER NOT NULL,
  bytes    BLOB    NOT NULL,
  received INTEGER NOT NULL
);
CREATE TABLE mentions (                  -- the Spaces a delegation names
  space TEXT NOT NULL,
  id    BLOB NOT NULL,
  PRIMARY KEY (space, id)
) WITHOUT ROWID;
CREATE TABLE revoked (                   -- revocations whose signer had the right
  target     BLOB    NOT NULL,
  revocation BLOB    NOT NULL,
  at         INTEGER NOT NULL,
  PRIMARY KEY (target, revocation)
) WITHOUT ROWID;

-- Branches of the hosts' logs. A log is one branch until its host signs two entries of one number.
CREATE TABLE logs (
  sid    INTEGER NOT NULL,
  branch INTEGER NOT NULL,
  host   BLOB    NOT NULL,
  base   INTEGER,                        -- branch it forked from, null for a whole log
  base_n INTEGER,
  n      INTEGER NOT NULL,               -- tip
  digest BLOB    NOT NULL,
  at     INTEGER NOT NULL,
  eid    INTEGER NOT NULL,
  PRIMARY KEY (sid, branch)
) WITHOUT ROWID;
CREATE TABLE entries (
  sid    INTEGER NOT NULL,
  branch INTEGER NOT NULL,
  n      INTEGER NOT NULL,
  digest BLOB    NOT NULL,
  at     INTEGER NOT NULL,
  eid    INTEGER NOT NULL,
  sig    BLOB    NOT NULL,
  valid  INTEGER NOT NULL,
  ord    INTEGER NOT NULL,               -- order of arrival among the entries of the epoch
  PRIMARY KEY (sid, branch, n)
) WITHOUT ROWID;
CREATE INDEX entries_eid ON entries (eid);

CREATE TABLE epochs (
  eid    INTEGER PRIMARY KEY,
  sid    INTEGER NOT NULL,
  id     BLOB    NOT NULL,
  seq    INTEGER NOT NULL,
  t      INTEGER NOT NULL,               -- greatest of the parents' t and the least at of its entries
  valid  INTEGER NOT NULL,
  reason TEXT    NOT NULL DEFAULT '',
  clock  BLOB    NOT NULL,
  bytes  BLOB    NOT NULL
);
CREATE UNIQUE INDEX epochs_id ON epochs (sid, id);
CREATE INDEX epochs_seq ON epochs (sid, seq);

CREATE TABLE events (
  eid    INTEGER NOT NULL,
  idx    INTEGER NOT NULL,
  sid    INTEGER NOT NULL,
  id     BLOB    NOT NULL,
  kind   INTEGER NOT NULL,               -- 0: not decodable or forged
  bytes  BLOB    NOT NULL,
  valid  INTEGER NOT NULL,
  reason TEXT    NOT NULL DEFAULT '',
  PRIMARY KEY (eid, idx)
) WITHOUT ROWID;
CREATE INDEX events_id ON events (sid, id);
CREATE INDEX events_facts ON events (sid, eid) WHERE kind <> 2;

CREATE TABLE ops (
  eid     INTEGER NOT NULL,
  idx     INTEGER NOT NULL,
  n       INTEGER NOT NULL,
  sid     INTEGER NOT NULL,
  key     TEXT    NOT NULL,
  removes INTEGER NOT NULL,              -- 1: a delete
  bytes   BLOB    NOT NULL,
  valid   INTEGER NOT NULL,
  PRIMARY KEY (eid, idx, n)
) WITHOUT ROWID;
CREATE INDEX ops_key ON ops (sid, key);

-- The fold of the valid operations: per key the greatest write and the place up to which writes are
-- deleted.
CREATE TABLE kv (
  sid     INTEGER NOT NULL,
  key     TEXT    NOT NULL,
  live    INTEGER NOT NULL,
  seq     INTEGER NOT NULL,
  epoch   BLOB    NOT NULL,
  idx     INTEGER NOT NULL,
  value   BLOB    NOT NULL,
  meta    BLOB    NOT NULL,              -- JSON object of the stored headers
  f_seq   INTEGER NOT NULL,              -- floor; -1: nothing deleted
  f_epoch BLOB    NOT NULL,
  f_idx   INTEGER NOT NULL,
  PRIMARY KEY (sid, key)
) WITHOUT ROWID;
CREATE TABLE vals (
  sid    INTEGER NOT NULL,
  hash   BLOB    NOT NULL,
  size   INTEGER NOT NULL,
  inline BLOB,                           -- null: in the block store
  PRIMARY KEY (sid, hash)
);                                       -- with rowid: values stay out of the tree that is searched
CREATE TABLE wants (
  sid      INTEGER NOT NULL,
  hash     BLOB    NOT NULL,
  size     INTEGER NOT NULL DEFAULT 0,
  manifest BLOB,
  tries    INTEGER NOT NULL DEFAULT 0,
  due      INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (sid, hash)
) WITHOUT ROWID;

CREATE TABLE replays (
  id      BLOB    PRIMARY KEY,
  expires INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX replays_expires ON replays (expires);

CREATE TABLE hosts (                     -- where the hosts of a Space were last reached
  sid   INTEGER NOT NULL,
  host  BLOB    NOT NULL,
  addrs TEXT    NOT NULL DEFAULT '[]',
  seq   INTEGER NOT NULL DEFAULT 0,
  seen  INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (sid, host)
) WITHOUT ROWID;
CREATE TABLE joins (
  sid   INTEGER NOT NULL,
  addr  TEXT    NOT NULL,
  state TEXT    NOT NULL,
  tried INTEGER NOT NULL DEFAULT 0,
  error TEXT    NOT NULL DEFAULT '',
  PRIMARY KEY (sid, addr)
) WITHOUT ROWID;
CREATE TABLE equivocations (             -- two signed entries of one host and number
  sid    INTEGER NOT NULL,
  host   BLOB    NOT NULL,
  n      INTEGER NOT NULL,
  first  BLOB    NOT NULL,
  second BLOB    NOT NULL,
  PRIMARY KEY (sid, host, n, second)
) WITHOUT ROWID;

-- +goose Down
SELECT 1;
