-- +goose Up
-- The secret under whose names the hosts of a Space find each other. gen counts the revoked host
-- delegations it came after.
CREATE TABLE rendezvous (
  sid    BIGINT NOT NULL,
  gen    BIGINT NOT NULL,
  secret VARBINARY(32) NOT NULL,
  PRIMARY KEY (sid)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- +goose Down
SELECT 1;
