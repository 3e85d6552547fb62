-- +goose Up
-- What is set for a Space by the operator; it need not be hosted.
CREATE TABLE quotas (
  space VARBINARY(600) NOT NULL PRIMARY KEY,
  bytes BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
-- The sum of the sizes of a Space's vals, kept with every change of them.
ALTER TABLE spaces ADD COLUMN bytes BIGINT NOT NULL DEFAULT 0;

-- +goose Down
SELECT 1;
