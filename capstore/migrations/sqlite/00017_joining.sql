-- +goose Up
ALTER TABLE spaces ADD COLUMN opens INTEGER NOT NULL DEFAULT 0;  -- when joining ends by time, by the database's clock; 0: never
CREATE INDEX spaces_state ON spaces (state);
CREATE TABLE asked_joins (                -- joins asked for before the Space was hosted
  space   TEXT NOT NULL,
  addr    TEXT NOT NULL,            -- '' when there is nobody to join
  alone   INTEGER NOT NULL,               -- 1: the others have no history
  asked   INTEGER NOT NULL,
  PRIMARY KEY (space, addr)
) WITHOUT ROWID;

-- +goose Down
SELECT 1;
