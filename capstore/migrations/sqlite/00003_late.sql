-- +goose Up
-- Operations are announced with their epoch when they are valid from the beginning; those have no row here.
CREATE TABLE late (
  ord   INTEGER PRIMARY KEY,             -- order in which the rows were made
  sid   INTEGER NOT NULL,
  after INTEGER NOT NULL,                -- greatest eid of all when it became valid; -1: never announced,
                                         -- for its event was at another place; -2: with its epoch, void since
  eid   INTEGER NOT NULL,
  idx   INTEGER NOT NULL,
  n     INTEGER NOT NULL
);
CREATE UNIQUE INDEX late_op ON late (eid, idx, n);
CREATE INDEX late_place ON late (after, ord);

-- +goose Down
DROP TABLE late;
