-- +goose Up
-- Entries dated in the future, and those that build on them. They are added when they are due.
CREATE TABLE parked (
  ord    INTEGER PRIMARY KEY,             -- order of arrival
  sid    INTEGER NOT NULL,
  host   BLOB NOT NULL,
  n      INTEGER NOT NULL,
  at     INTEGER NOT NULL,
  due    INTEGER NOT NULL,                -- of what it builds on too
  digest BLOB NOT NULL,
  epoch  BLOB NOT NULL,
  bytes  BLOB                         -- null: only noted, there was no room
);
CREATE UNIQUE INDEX parked_entry ON parked (sid, host, n, digest);
CREATE INDEX parked_due ON parked (due, ord);
CREATE INDEX parked_epoch ON parked (sid, epoch);

-- By which version of the rules the verdicts on a Space's history were made.
ALTER TABLE spaces ADD COLUMN rules INTEGER NOT NULL DEFAULT 0;

-- +goose Down
SELECT 1;
