-- +goose Up
-- The order by time: what of an epoch's age does not follow from its bytes alone, see judge.Age.
ALTER TABLE epochs ADD COLUMN written INTEGER NOT NULL DEFAULT 0;  -- T, unix milliseconds
ALTER TABLE epochs ADD COLUMN begin_of BLOB NOT NULL DEFAULT x'';  -- of an early epoch the iat and id of the delegation its history began with
CREATE TABLE links (                     -- which epochs follow which
  parent INTEGER NOT NULL,
  child  INTEGER NOT NULL,
  PRIMARY KEY (parent, child)
) WITHOUT ROWID;
CREATE TABLE stale (                     -- epochs whose times may have changed
  sid INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  eid INTEGER NOT NULL,
  PRIMARY KEY (sid, seq, eid)
) WITHOUT ROWID;

-- Writes that nobody who wrote later had seen, but for the winner of their key.
CREATE TABLE conflicts (
  sid     INTEGER NOT NULL,
  subject TEXT    NOT NULL,              -- the key, as in ops
  event   BLOB    NOT NULL,
  eid     INTEGER NOT NULL,              -- with idx and n: the operation
  idx     INTEGER NOT NULL,
  n       INTEGER NOT NULL,
  value   BLOB    NOT NULL,
  turn    INTEGER NOT NULL,              -- how many of the key are held before it and with it; 0: its value is not held
  since   INTEGER NOT NULL,              -- when this host saw it lose
  PRIMARY KEY (sid, subject, event)
) WITHOUT ROWID;
CREATE INDEX conflicts_value ON conflicts (sid, value);
CREATE INDEX conflicts_turn ON conflicts (sid, turn, since);
INSERT INTO leases (name, holder, expires) VALUES ('judging', '', 0);

-- +goose Down
SELECT 1;
