-- +goose Up
-- Encryption networks, each the keys that this host keeps for an owner under a name.
CREATE TABLE networks (
  id          VARBINARY(32) PRIMARY KEY,       -- BLAKE3 of the network's id
  network     VARBINARY(768) NOT NULL,         -- the id
  owner       VARBINARY(768) NOT NULL,
  name        VARBINARY(768) NOT NULL,
  state       VARCHAR(64) NOT NULL,            -- active, rotating, revoked
  threshold_n BIGINT NOT NULL,                 -- as the owner said them: nothing follows from them
  threshold_t BIGINT NOT NULL,
  created     BIGINT NOT NULL,                 -- unix nanoseconds, as is updated
  updated     BIGINT NOT NULL,
  audited     BIGINT NOT NULL,                 -- rows of network_audit that were ever written
  revocation  MEDIUMBLOB                       -- the token that revoked it
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE INDEX networks_owner ON networks (owner);
CREATE TABLE network_keys (            -- hosts may have made several for a version
  network    VARBINARY(32) NOT NULL,           -- networks.id
  version    BIGINT NOT NULL,
  public_key VARBINARY(32) NOT NULL,
  sealed     MEDIUMBLOB,                       -- the private key under a key from the node's secret; NULL: not here
  created    BIGINT NOT NULL,                  -- unix nanoseconds
  creator    VARBINARY(768) NOT NULL,          -- DID of the node that made it
  made_by    MEDIUMBLOB,                       -- the token that had it made; NULL: taken over from elsewhere
  PRIMARY KEY (network, version, public_key)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE TABLE network_nonces (          -- of requests that count once
  id      VARBINARY(32) PRIMARY KEY,           -- of requester and nonce
  owner   VARBINARY(768) NOT NULL,
  expires BIGINT NOT NULL                      -- unix seconds
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE INDEX network_nonces_owner ON network_nonces (owner);
CREATE INDEX network_nonces_expires ON network_nonces (expires);
CREATE TABLE network_audit (           -- who had keys unsealed, or was refused; of a network the last so many
  network   VARBINARY(32) NOT NULL,
  slot      BIGINT NOT NULL,
  request   VARBINARY(32) NOT NULL,            -- hash of token and body
  requester VARBINARY(768) NOT NULL,
  outcome   VARCHAR(64) NOT NULL,
  decided   BIGINT NOT NULL,                   -- unix milliseconds
  PRIMARY KEY (network, slot)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE INDEX network_audit_request ON network_audit (network, request);
CREATE INDEX network_audit_decided ON network_audit (decided);

-- +goose Down
SELECT 1;
