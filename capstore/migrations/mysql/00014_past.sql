-- +goose Up
-- Values here that no key holds any more. They are kept a while, for history that comes late may bring them back.
CREATE TABLE past (
  sid   BIGINT NOT NULL,
  hash  VARBINARY(32) NOT NULL,
  size  BIGINT NOT NULL,
  since BIGINT NOT NULL,
  PRIMARY KEY (sid, hash)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE INDEX past_since ON past (sid, since);
ALTER TABLE spaces ADD COLUMN past BIGINT NOT NULL DEFAULT 0; -- their bytes, which are not in the column bytes

-- +goose Down
SELECT 1;
