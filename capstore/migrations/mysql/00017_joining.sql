-- +goose Up
ALTER TABLE spaces ADD COLUMN opens BIGINT NOT NULL DEFAULT 0;  -- when joining ends by time, by the database's clock; 0: never
CREATE INDEX spaces_state ON spaces (state);
CREATE TABLE asked_joins (                -- joins asked for before the Space was hosted
  space   VARBINARY(600) NOT NULL,
  addr    VARBINARY(1024) NOT NULL,            -- '' when there is nobody to join
  alone   BIGINT NOT NULL,               -- 1: the others have no history
  asked   BIGINT NOT NULL,
  PRIMARY KEY (space, addr)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- +goose Down
SELECT 1;
