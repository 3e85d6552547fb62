-- +goose Up
ALTER TABLE leases ADD COLUMN addrs TEXT; -- where the holder is, as it says; begins with its name

-- +goose Down
SELECT 1;
