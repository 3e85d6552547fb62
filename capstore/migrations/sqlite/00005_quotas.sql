-- +goose Up
-- What is set for a Space by the operator; it need not be hosted.
CREATE TABLE quotas (
  space TEXT    NOT NULL PRIMARY KEY,
  bytes INTEGER NOT NULL
);
-- The sum of the sizes of a Space's vals, kept with every change of them.
ALTER TABLE spaces ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
UPDATE spaces SET bytes = (SELECT coalesce(sum(v.size), 0) FROM vals v WHERE v.sid = spaces.sid);

-- +goose Down
SELECT 1;
