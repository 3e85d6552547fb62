-- +goose Up
-- Spaces that still have stored delegations to give epochs, and the last that has got one, in the order of ids.
CREATE TABLE adoptions (
  sid BIGINT PRIMARY KEY,
  id  BYTEA NOT NULL
);

-- +goose Down
SELECT 1;
