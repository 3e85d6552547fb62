-- +goose Up
-- What is set for a Space by the operator; it need not be hosted.
CREATE TABLE quotas (
  space TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  bytes BIGINT NOT NULL
);
-- The sum of the sizes of a Space's vals, kept with every change of them.
ALTER TABLE spaces ADD COLUMN bytes BIGINT NOT NULL DEFAULT 0;

-- +goose Down
SELECT 1;
