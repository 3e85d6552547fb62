-- +goose Up
CREATE TABLE aliases (                   -- the operator's names of nodes and hosts
  id   VARBINARY(128) PRIMARY KEY,     -- peer id
  name VARBINARY(32) NOT NULL UNIQUE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- +goose Down
SELECT 1;
