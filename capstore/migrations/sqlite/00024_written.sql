-- +goose Up
-- A service reads what was written since some time.
CREATE INDEX epochs_written ON epochs (sid, written);

-- +goose Down
SELECT 1;
