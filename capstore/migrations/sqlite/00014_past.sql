-- +goose Up
-- Values here that no key holds any more. They are kept a while, for history that comes late may bring them back.
CREATE TABLE past (
  sid   INTEGER NOT NULL,
  hash  BLOB    NOT NULL,
  size  INTEGER NOT NULL,
  since INTEGER NOT NULL,
  PRIMARY KEY (sid, hash)
) WITHOUT ROWID;
CREATE INDEX past_since ON past (sid, since);
ALTER TABLE spaces ADD COLUMN past INTEGER NOT NULL DEFAULT 0; -- their bytes, which are not in the column bytes

-- +goose Down
SELECT 1;
