-- +goose Up
ALTER TABLE spaces ADD COLUMN policy TEXT NOT NULL DEFAULT '';  -- of values: eager, lazy or all; empty: the node's
ALTER TABLE spaces ADD COLUMN kept INTEGER NOT NULL DEFAULT 0;     -- 1, 2: values of the history stay; 2: all that are not here are wanted

-- +goose Down
SELECT 1;
