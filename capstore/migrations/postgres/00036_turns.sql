-- +goose Up
CREATE SEQUENCE last_turn; -- of transactions that are sent whole: the lock of the one that was given numbers of epochs last
CREATE SEQUENCE turn_before; -- for each connection: what that was before its own

-- +goose Down
SELECT 1;
