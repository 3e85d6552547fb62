-- +goose Up
-- Spaces that still have stored delegations to give epochs, and the last that has got one, in the order of ids.
CREATE TABLE adoptions (
  sid INTEGER PRIMARY KEY,
  id  BLOB NOT NULL
);

-- +goose Down
SELECT 1;
