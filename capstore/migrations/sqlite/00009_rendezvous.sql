-- +goose Up
-- The secret under whose names the hosts of a Space find each other. gen counts the revoked host
-- delegations it came after.
CREATE TABLE rendezvous (
  sid    INTEGER NOT NULL,
  gen    INTEGER NOT NULL,
  secret BLOB NOT NULL,
  PRIMARY KEY (sid)
);

-- +goose Down
SELECT 1;
