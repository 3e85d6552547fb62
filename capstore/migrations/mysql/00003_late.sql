-- +goose Up
-- Operations are announced with their epoch when they are valid from the beginning; those have no row here.
CREATE TABLE late (
  ord   BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, -- order in which the rows were made
  sid   BIGINT NOT NULL,
  after BIGINT NOT NULL,                 -- greatest eid of all when it became valid; -1: never announced,
                                         -- for its event was at another place; -2: with its epoch, void since
  eid   BIGINT NOT NULL,
  idx   BIGINT NOT NULL,
  n     BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE UNIQUE INDEX late_op ON late (eid, idx, n);
CREATE INDEX late_place ON late (after, ord);

-- +goose Down
SELECT 1;
