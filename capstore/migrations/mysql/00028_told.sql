-- +goose Up
-- What services told of operations, each once of an event; where in the order of announcements is in late, with n from 65536 on.
CREATE TABLE told (
  ord   BIGINT NOT NULL PRIMARY KEY, -- of its row in late
  sid   BIGINT NOT NULL,
  event VARBINARY(32) NOT NULL,
  part  VARBINARY(32) NOT NULL,      -- hash of the subject and what
  what  VARBINARY(255) NOT NULL      -- of the subject, as a table
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE UNIQUE INDEX told_part ON told (sid, event, part);
-- Spaces in which somebody wants to be told.
CREATE TABLE listened (
  sid     BIGINT NOT NULL,
  service VARCHAR(32) NOT NULL,
  since   BIGINT NOT NULL,           -- operations of epochs up to this eid are not told
  until   BIGINT NOT NULL,           -- unix ms
  PRIMARY KEY (sid, service)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- +goose Down
SELECT 1;
