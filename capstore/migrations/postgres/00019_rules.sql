-- +goose Up
-- What a host last told of its release: 0: it was never met since; -1: it speaks the first handshake, which tells nothing.
ALTER TABLE hosts ADD COLUMN rules BIGINT NOT NULL DEFAULT 0;
ALTER TABLE hosts ADD COLUMN services TEXT NOT NULL DEFAULT '[]'; -- with their versions, JSON

-- +goose Down
SELECT 1;
