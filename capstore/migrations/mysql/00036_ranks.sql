-- +goose Up
SELECT 1; -- of PostgreSQL alone

-- +goose Down
SELECT 1;
