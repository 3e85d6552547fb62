-- +goose Up
ALTER TABLE commits ADD COLUMN advance BLOB; -- where the Space stands now, if that is all that others need; null: they load it again

-- +goose Down
ALTER TABLE commits DROP COLUMN advance;
