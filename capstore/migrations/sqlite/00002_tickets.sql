-- +goose Up
-- Rights to read one value of a key without a token, for a while. A copy of the database gives none of
-- them away: of a ticket's id only the BLAKE3 digest is kept, of the invocation only who signed it and
-- what it rests on.
CREATE TABLE tickets (
  id      BLOB    PRIMARY KEY,
  sid     INTEGER NOT NULL,
  n       INTEGER NOT NULL,              -- number in the Space; first and last bound how many there are
  key     TEXT    NOT NULL,
  value   BLOB    NOT NULL,
  signer  TEXT    NOT NULL,
  proofs  BLOB    NOT NULL,              -- 32 bytes each
  expires INTEGER NOT NULL
);
CREATE UNIQUE INDEX tickets_space ON tickets (sid, n);
CREATE INDEX tickets_expires ON tickets (expires);

-- +goose Down
DROP TABLE tickets;
