-- +goose Up
ALTER TABLE commits ADD COLUMN advance BYTEA; -- where the Space stands now, if that is all that others need; null: they load it again

-- +goose Down
SELECT 1;
