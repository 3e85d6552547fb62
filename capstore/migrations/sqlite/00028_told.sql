-- +goose Up
-- What services told of operations, each once of an event; where in the order of announcements is in late, with n from 65536 on.
CREATE TABLE told (
  ord   INTEGER PRIMARY KEY, -- of its row in late
  sid   INTEGER NOT NULL,
  event BLOB NOT NULL,
  part  BLOB NOT NULL,       -- hash of the subject and what
  what  BLOB NOT NULL        -- of the subject, as a table
);
CREATE UNIQUE INDEX told_part ON told (sid, event, part);
-- Spaces in which somebody wants to be told.
CREATE TABLE listened (
  sid     INTEGER NOT NULL,
  service TEXT NOT NULL,
  since   INTEGER NOT NULL,  -- operations of epochs up to this eid are not told
  until   INTEGER NOT NULL,  -- unix ms
  PRIMARY KEY (sid, service)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE listened;
DROP TABLE told;
