-- +goose Up
-- The greatest number that an epoch was given. What MySQL itself counts would cost a round trip for each epoch.
ALTER TABLE node ADD COLUMN eid BIGINT NOT NULL DEFAULT 0;

-- +goose Down
SELECT 1;
