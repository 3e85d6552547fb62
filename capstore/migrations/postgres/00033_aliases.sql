-- +goose Up
CREATE TABLE aliases (                   -- the operator's names of nodes and hosts
  id   TEXT COLLATE "C" PRIMARY KEY,     -- peer id
  name TEXT COLLATE "C" NOT NULL UNIQUE
);

-- +goose Down
SELECT 1;
