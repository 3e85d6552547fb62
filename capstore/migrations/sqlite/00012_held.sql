-- +goose Up
-- SQLite prefers the primary key, and with it a walk through all keys of the Space, to an index that has (sid, value)
-- but not all that is asked for.
DROP INDEX kv_value;
CREATE INDEX kv_value ON kv (sid, value) WHERE live = 1;

-- +goose Down
SELECT 1;
