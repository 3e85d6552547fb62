-- +goose Up
ALTER TABLE commits ADD COLUMN advance MEDIUMBLOB; -- where the Space stands now, if that is all that others need; null: they load it again

-- +goose Down
SELECT 1;
