-- +goose Up
-- Spaces that still have stored delegations to give epochs, and the last that has got one, in the order of ids.
CREATE TABLE adoptions (
  sid BIGINT PRIMARY KEY,
  id  VARBINARY(32) NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- +goose Down
SELECT 1;
