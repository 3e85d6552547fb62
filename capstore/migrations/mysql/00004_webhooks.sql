-- +goose Up
CREATE TABLE webhooks (
  id         VARBINARY(64) PRIMARY KEY,
  space      VARBINARY(600) NOT NULL,
  subscriber MEDIUMTEXT NOT NULL,
  service    MEDIUMTEXT NOT NULL,
  prefix     MEDIUMBLOB NOT NULL,           -- "" for none
  abilities  MEDIUMTEXT NOT NULL,           -- JSON list
  url        MEDIUMTEXT NOT NULL,
  secret     MEDIUMBLOB NOT NULL,           -- encrypted
  proofs     MEDIUMBLOB NOT NULL,           -- what the registration rested on, 32 bytes each
  active     SMALLINT NOT NULL,
  created    BIGINT NOT NULL,
  c_epoch    BIGINT NOT NULL,           -- cursor: changes up to it have their deliveries
  c_late     BIGINT NOT NULL,
  c_index    BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE INDEX webhooks_space ON webhooks (space);
CREATE TABLE deliveries (                -- that are to be made
  number  BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  webhook VARBINARY(64) NOT NULL,
  event   MEDIUMTEXT NOT NULL,
  body    MEDIUMBLOB NOT NULL,
  tries   BIGINT NOT NULL,
  due     BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE INDEX deliveries_due ON deliveries (webhook, due);

-- +goose Down
SELECT 1;
