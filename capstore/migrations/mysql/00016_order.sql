-- +goose Up
-- The order by time: what of an epoch's age does not follow from its bytes alone, see judge.Age.
ALTER TABLE epochs ADD COLUMN written BIGINT NOT NULL DEFAULT 0;  -- T, unix milliseconds
ALTER TABLE epochs ADD COLUMN begin_of VARBINARY(40) NOT NULL DEFAULT '';  -- of an early epoch the iat and id of the delegation its history began with
CREATE TABLE links (                     -- which epochs follow which
  parent BIGINT NOT NULL,
  child  BIGINT NOT NULL,
  PRIMARY KEY (parent, child)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE TABLE stale (                     -- epochs whose times may have changed
  sid BIGINT NOT NULL,
  seq BIGINT NOT NULL,
  eid BIGINT NOT NULL,
  PRIMARY KEY (sid, seq, eid)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Writes that nobody who wrote later had seen, but for the winner of their key.
CREATE TABLE conflicts (
  sid     BIGINT NOT NULL,
  subject VARBINARY(933) NOT NULL,              -- the key, as in ops
  event   VARBINARY(32)    NOT NULL,
  eid     BIGINT NOT NULL,              -- with idx and n: the operation
  idx     BIGINT NOT NULL,
  n       BIGINT NOT NULL,
  value   VARBINARY(32)    NOT NULL,
  turn    BIGINT NOT NULL,              -- how many of the key are held before it and with it; 0: its value is not held
  since   BIGINT NOT NULL,              -- when this host saw it lose
  PRIMARY KEY (sid, subject, event)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE INDEX conflicts_value ON conflicts (sid, value);
CREATE INDEX conflicts_turn ON conflicts (sid, turn, since);
INSERT INTO leases (name, holder, expires) VALUES ('judging', '', 0);

-- +goose Down
SELECT 1;
