-- +goose Up
-- Bytes of a Space's history: entries, epochs, tokens and operations, see weigh.
ALTER TABLE spaces ADD COLUMN history BIGINT NOT NULL DEFAULT 0;
UPDATE spaces SET history =
  (SELECT count(*) * 256 FROM entries e WHERE e.sid = spaces.sid) +
  (SELECT coalesce(sum(length(e.bytes)), 0) FROM epochs e WHERE e.sid = spaces.sid) +
  (SELECT coalesce(sum(length(e.bytes)), 0) FROM events e WHERE e.sid = spaces.sid) +
  (SELECT coalesce(sum(64 + length(o.bytes)), 0) FROM ops o WHERE o.sid = spaces.sid) +
  (SELECT coalesce(sum(length(i.list)), 0) FROM imports i WHERE i.sid = spaces.sid);
-- Delegations of Spaces that are not hosted here, and revocations of such. They go after a while; of the revocations
-- their rows stay, with the size 0.
CREATE TABLE unhosted (
  id       VARBINARY(32) PRIMARY KEY,
  kind     SMALLINT NOT NULL,              -- as in tokens
  size     BIGINT NOT NULL,
  received BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE INDEX unhosted_received ON unhosted (received);
INSERT INTO unhosted (id, kind, size, received)
  SELECT id, kind, length(bytes), received FROM tokens WHERE kind = 1
  AND id NOT IN (SELECT m.id FROM mentions m JOIN spaces s ON s.space = m.space);

-- +goose Down
SELECT 1;
