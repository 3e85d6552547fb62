-- +goose Up
-- Whose data this is: the DID of the node, '' until the next start tells it.
ALTER TABLE node ADD COLUMN did TEXT NOT NULL DEFAULT '';
-- Whether the owner has removed this node from a Space: 1, 0, or -1 where nobody looked yet.
ALTER TABLE spaces ADD COLUMN removed BIGINT NOT NULL DEFAULT -1;

-- +goose Down
SELECT 1;
