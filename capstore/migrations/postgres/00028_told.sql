-- +goose Up
-- What services told of operations, each once of an event; where in the order of announcements is in late, with n from 65536 on.
CREATE TABLE told (
  ord   BIGINT PRIMARY KEY, -- of its row in late
  sid   BIGINT NOT NULL,
  event BYTEA NOT NULL,
  part  BYTEA NOT NULL,     -- hash of the subject and what
  what  BYTEA NOT NULL      -- of the subject, as a table
);
CREATE UNIQUE INDEX told_part ON told (sid, event, part);
-- Spaces in which somebody wants to be told.
CREATE TABLE listened (
  sid     BIGINT NOT NULL,
  service TEXT NOT NULL,
  since   BIGINT NOT NULL,  -- operations of epochs up to this eid are not told
  until   BIGINT NOT NULL,  -- unix ms
  PRIMARY KEY (sid, service)
);

-- +goose Down
SELECT 1;
