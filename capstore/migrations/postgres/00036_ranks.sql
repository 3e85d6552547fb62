-- +goose Up
CREATE SEQUENCE last_rank; -- of transactions that are sent whole: the lock of the one that was given numbers of epochs last
CREATE SEQUENCE rank_before; -- for each connection: what that was before its own

-- +goose Down
SELECT 1;
