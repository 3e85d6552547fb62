-- +goose Up
CREATE TABLE aliases (                   -- the operator's names of nodes and hosts
  id   TEXT PRIMARY KEY,     -- peer id
  name TEXT NOT NULL UNIQUE
) WITHOUT ROWID;

-- +goose Down
DROP TABLE aliases;
