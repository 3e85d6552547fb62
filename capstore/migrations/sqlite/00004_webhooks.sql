-- +goose Up
CREATE TABLE webhooks (
  id         TEXT    PRIMARY KEY,
  space      TEXT    NOT NULL,
  subscriber TEXT    NOT NULL,
  service    TEXT    NOT NULL,
  prefix     TEXT    NOT NULL,           -- "" for none
  abilities  TEXT    NOT NULL,           -- JSON list
  url        TEXT    NOT NULL,
  secret     BLOB    NOT NULL,           -- encrypted
  proofs     BLOB    NOT NULL,           -- what the registration rested on, 32 bytes each
  active     INTEGER NOT NULL,
  created    INTEGER NOT NULL,
  c_epoch    INTEGER NOT NULL,           -- cursor: changes up to it have their deliveries
  c_late     INTEGER NOT NULL,
  c_index    INTEGER NOT NULL
);
CREATE INDEX webhooks_space ON webhooks (space);
CREATE TABLE deliveries (                -- that are to be made
  number  INTEGER PRIMARY KEY,
  webhook TEXT    NOT NULL,
  event   TEXT    NOT NULL,
  body    BLOB    NOT NULL,
  tries   INTEGER NOT NULL,
  due     INTEGER NOT NULL
);
CREATE INDEX deliveries_due ON deliveries (webhook, due);

-- +goose Down
DROP TABLE deliveries;
DROP TABLE webhooks;
