-- +goose Up
-- Entries dated in the future, and those that build on them. They are added when they are due.
CREATE TABLE parked (
  ord    BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,             -- order of arrival
  sid    BIGINT NOT NULL,
  host   VARBINARY(32) NOT NULL,
  n      BIGINT NOT NULL,
  at     BIGINT NOT NULL,
  due    BIGINT NOT NULL,                -- of what it builds on too
  digest VARBINARY(32) NOT NULL,
  epoch  VARBINARY(32) NOT NULL,
  bytes  LONGBLOB                         -- null: only noted, there was no room
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE UNIQUE INDEX parked_entry ON parked (sid, host, n, digest);
CREATE INDEX parked_due ON parked (due, ord);
CREATE INDEX parked_epoch ON parked (sid, epoch);

-- By which version of the rules the verdicts on a Space's history were made.
ALTER TABLE spaces ADD COLUMN rules BIGINT NOT NULL DEFAULT 0;

-- +goose Down
SELECT 1;
