-- +goose Up
-- The secret under whose names the hosts of a Space find each other. gen counts the revoked host
-- delegations it came after.
CREATE TABLE rendezvous (
  sid    BIGINT NOT NULL,
  gen    BIGINT NOT NULL,
  secret BYTEA NOT NULL,
  PRIMARY KEY (sid)
);

-- +goose Down
SELECT 1;
